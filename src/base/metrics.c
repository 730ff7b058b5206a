/*
 * counters: the table of metrics and their text. See counters.h.
 *
 * A number is kept in the unit that it is counted in, and written in base units. The cells of a
 * histogram are its buckets, each without those below it, and behind the last one the sum; what is
 * written is cumulative, so a count that is read while others go on never disagrees with its buckets.
 */
#include "config.h"

#include "base/metrics.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum type { COUNTER, GAUGE, HISTOGRAM };
static const char *const types[] = { "counter", "gauge", "histogram" };

struct metric {
	const char *name;
	enum type type;
	bool by_kind;
	int decimals;              /* of the unit that is counted below the one that is written */
	const char *label;         /* NULL: none */
	const char *const *values; /* of the label, NULL-terminated */
	const char *help;
};

static const char *const kinds[COUNTER_KINDS] = { "notifications", "issues" };

static const char *const ended[] = {
	[ENDED_CLOSED] = "closed",
	[ENDED_EVICTED] = "evicted",
	[ENDED_STALLED] = "stalled",
	[ENDED_AGE] = "age",
	[ENDED_DRAINED] = "drained",
	[ENDED_REVOKED] = "revoked",
	[ENDED_REFUSED] = "valkey_refused",
	NULL,
};

static const char *const refused[] = {
	[REFUSED_PATH] = "path",
	[REFUSED_METHOD] = "method",
	[REFUSED_PARAMETERS] = "parameters",
	[REFUSED_USER] = "user",
	[REFUSED_NOBODY] = "nobody",
	[REFUSED_PROJECTS] = "projects",
	[REFUSED_CAP] = "cap",
	NULL,
};

static const char *const later[] = {
	[LATER_DRAINING] = "draining",
	[LATER_CANCELLED] = "cancelled",
	[LATER_EVICTED] = "evicted",
	[LATER_APPLICATION] = "application",
	[LATER_VALKEY_AWAY] = "valkey_away",
	[LATER_VALKEY_REFUSED] = "valkey_refused",
	[LATER_VALKEY_SILENT] = "valkey_silent",
	[LATER_RESOURCES] = "resources",
	[LATER_REVOKED] = "revoked",
	NULL,
};

static const char *const sources[] = {
	[SOURCE_APPLICATION] = "application",
	[SOURCE_UNDER_WAY] = "under_way",
	[SOURCE_CACHE] = "cache",
	[SOURCE_NOBODY] = "nobody",
	NULL,
};

static const char *const results[] = {
	[RESULT_YES] = "yes",
	[RESULT_NO] = "no",
	[RESULT_FORBIDDEN] = "forbidden",
	[RESULT_WRONG] = "wrong",
	[RESULT_FAILED] = "failed",
	NULL,
};

#define METRIC(type_, name_, ...) .type = type_, .name = "tpi_stream_" name_, __VA_ARGS__

static const struct metric table[COUNTER_COUNT] = {
	[COUNTER_BUILD_INFO] = { METRIC(GAUGE, "build_info",
	    .help = "Always 1; which version runs, and for which tenant.") },
	[COUNTER_START_TIME] = { METRIC(GAUGE, "start_time_seconds",
	    .help = "When the process started, in seconds since 1970.") },
	[COUNTER_OPEN] = { METRIC(GAUGE, "open_streams", .by_kind = true,
	    .help = "Streams that are open, from their first sync on.") },
	[COUNTER_PLACES] = { METRIC(GAUGE, "places", .by_kind = true,
	    .help = "Places of the tenant that are taken; requests under way count, too.") },
	[COUNTER_PLACES_LIMIT] = { METRIC(GAUGE, "places_limit", .by_kind = true,
	    .help = "Places that there are; one request more is refused.") },
	[COUNTER_OPENED] = { METRIC(COUNTER, "opened_total", .by_kind = true,
	    .help = "Streams that have got their first sync.") },
	[COUNTER_ENDED] = { METRIC(COUNTER, "ended_total", .by_kind = true, .label = "reason",
	    .values = ended, .help = "Streams that have ended.") },
	[COUNTER_REFUSED] = { METRIC(COUNTER, "refused_total", .label = "reason", .values = refused,
	    .help = "Requests that were answered with 4xx or 503.") },
	[COUNTER_LATER] = { METRIC(COUNTER, "later_total", .label = "reason", .values = later,
	    .help = "Requests that were told to come back later.") },
	[COUNTER_CONNECTIONS] = { METRIC(GAUGE, "connections",
	    .help = "Connections from the web server; each has a thread.") },
	[COUNTER_CONNECTIONS_REFUSED] = { METRIC(COUNTER, "connections_refused_total",
	    .help = "Connections for which there was no thread or memory.") },
	[COUNTER_MESSAGES] = { METRIC(COUNTER, "messages_total",
	    .help = "Messages from Valkey to channels that are listened to.") },
	[COUNTER_DROPPED] = { METRIC(COUNTER, "messages_dropped_total",
	    .help = "Messages from Valkey whose payload is not allowed.") },
	[COUNTER_SENT] = { METRIC(COUNTER, "events_sent_total",
	    .help = "Wake-ups sent to streams or queued for them, lost in an overflow or not.") },
	[COUNTER_MERGED] = { METRIC(COUNTER, "events_merged_total",
	    .help = "Wake-ups that went in one write with the one before.") },
	[COUNTER_OVERFLOWS] = { METRIC(COUNTER, "backlog_overflows_total",
	    .help = "Backlogs of slow readers that gave way to a sync.") },
	[COUNTER_FANOUT] = { METRIC(HISTOGRAM, "fanout_seconds", .decimals = 6,
	    .help = "Time to write what Valkey delivered in one go to all its streams.") },
	[COUNTER_VALKEY_CONNECTED] = { METRIC(GAUGE, "valkey_connected",
	    .help = "Whether there is a connection to Valkey.") },
	[COUNTER_VALKEY_CONNECTS] = { METRIC(COUNTER, "valkey_connects_total",
	    .help = "Connections to Valkey that were made.") },
	[COUNTER_VALKEY_LOSSES] = { METRIC(COUNTER, "valkey_losses_total",
	    .help = "Connections to Valkey that were lost.") },
	[COUNTER_CHANNELS] = { METRIC(GAUGE, "valkey_channels",
	    .help = "Channels that are subscribed, or about to be.") },
	[COUNTER_MESSAGE_AGE] = { METRIC(GAUGE, "last_message_age_seconds", .decimals = 3,
	    .help = "Time since the last message, or since the start where none has come yet.") },
	[COUNTER_GATE_PAUSED] = { METRIC(GAUGE, "gate_paused",
	    .help = "Whether the application was found dead and is left alone for 2 seconds.") },
	[COUNTER_GATE_PAUSES] = { METRIC(COUNTER, "gate_pauses_total",
	    .help = "How often the application was found dead.") },
	[COUNTER_GATE_QUESTIONS] = { METRIC(COUNTER, "gate_questions_total", .label = "from",
	    .values = sources, .help = "Questions, by where the answer comes from.") },
	[COUNTER_GATE_REQUESTS] = { METRIC(COUNTER, "gate_requests_total", .label = "result",
	    .values = results, .help = "Requests to the application that have ended.") },
};

/* Upper bounds of the buckets of a histogram, in microseconds; a last one has none. */
static const uint32_t bounds[] = { 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000,
	250000, 500000, 1000000 };
#define BOUND_COUNT (sizeof(bounds) / sizeof(bounds[0]))
#define SUM         (BOUND_COUNT + 1)
_Static_assert(SUM < COUNTER_LABELS, "a histogram fits");

static _Atomic uint64_t cells[COUNTER_COUNT][COUNTER_KINDS][COUNTER_LABELS];

static void
add(enum counter counter, int kind, size_t label, uint64_t n)
{
	atomic_fetch_add_explicit(&cells[counter][kind][label], n, memory_order_relaxed);
}

void
counter_add(enum counter counter, uint64_t n)
{
	add(counter, 0, 0, n);
}

void
counter_add_label(enum counter counter, int label)
{
	add(counter, 0, (size_t)label, 1);
}

void
counter_add_kind(enum counter counter, int kind, int label)
{
	add(counter, kind, (size_t)label, 1);
}

void
counter_observe(enum counter counter, uint64_t microseconds)
{
	size_t i = 0;

	while (i < BOUND_COUNT && microseconds > bounds[i])
		i++;
	add(counter, 0, i, 1);
	add(counter, 0, SUM, microseconds);
}

void
counters_read(struct counters *c)
{
	int counter, kind, label;

	for (counter = 0; counter < COUNTER_COUNT; counter++)
		for (kind = 0; kind < COUNTER_KINDS; kind++)
			for (label = 0; label < COUNTER_LABELS; label++)
				c->cells[counter][kind][label] = atomic_load_explicit(
				    &cells[counter][kind][label], memory_order_relaxed);
}

/* A value of a label: the three characters that the format escapes. */
static void
write_escaped(const char *text, FILE *out)
{
	for (; *text != '\0'; text++) {
		if (*text == '\\' || *text == '"')
			fputc('\\', out);
		if (*text == '\n')
			fputs("\\n", out);
		else
			fputc(*text, out);
	}
}

static void
write_number(uint64_t n, int decimals, FILE *out)
{
	uint64_t unit = 1;
	int i;

	for (i = 0; i < decimals; i++)
		unit *= 10;
	fprintf(out, "%" PRIu64, n / unit);
	if (decimals > 0)
		fprintf(out, ".%0*" PRIu64, decimals, n % unit);
}

/* One line; kind and value may be NULL. */
static void
write_sample(const struct metric *m, const char *kind, const char *value, uint64_t n, FILE *out)
{
	fputs(m->name, out);
	if (kind != NULL || value != NULL)
		fputc('{', out);
	if (kind != NULL)
		fprintf(out, "kind=\"%s\"%s", kind, value != NULL ? "," : "");
	if (value != NULL)
		fprintf(out, "%s=\"%s\"", m->label, value);
	if (kind != NULL || value != NULL)
		fputc('}', out);
	fputc(' ', out);
	write_number(n, m->decimals, out);
	fputc('\n', out);
}

static void
write_samples(const struct metric *m, const uint64_t cells_of[COUNTER_KINDS][COUNTER_LABELS],
    FILE *out)
{
	int kind, i;

	for (kind = 0; kind < (m->by_kind ? COUNTER_KINDS : 1); kind++) {
		const char *name = m->by_kind ? kinds[kind] : NULL;

		if (m->label == NULL)
			write_sample(m, name, NULL, cells_of[kind][0], out);
		for (i = 0; m->label != NULL && m->values[i] != NULL; i++)
			write_sample(m, name, m->values[i], cells_of[kind][i], out);
	}
}

static void
write_histogram(const struct metric *m, const uint64_t buckets[COUNTER_LABELS], FILE *out)
{
	uint64_t count = 0;
	size_t i;

	for (i = 0; i < BOUND_COUNT; i++) {
		count += buckets[i];
		fprintf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", m->name, bounds[i] / 1e6, count);
	}
	count += buckets[BOUND_COUNT];
	fprintf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum ", m->name, count, m->name);
	write_number(buckets[SUM], m->decimals, out);
	fprintf(out, "\n%s_count %" PRIu64 "\n", m->name, count);
}

static void
write_build_info(const struct metric *m, const char *tenant, FILE *out)
{
	fprintf(out, "%s{version=\"" PACKAGE_VERSION "\",tenant=\"", m->name);
	write_escaped(tenant, out);
	fputs("\"} 1\n", out);
}

void
counters_write(const struct counters *c, const char *tenant, FILE *out)
{
	const struct metric *m;
	int i;

	for (i = 0; i < COUNTER_COUNT; i++) {
		m = &table[i];
		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, types[m->type]);
		if (i == COUNTER_BUILD_INFO)
			write_build_info(m, tenant, out);
		else if (m->type == HISTOGRAM)
			write_histogram(m, c->cells[i][0], out);
		else
			write_samples(m, c->cells[i], out);
	}
}
