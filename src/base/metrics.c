/* SPDX-License-Identifier: ISC */
/*
 * metrics: the table of metrics and their text. See metrics.h.
 *
 * Values are stored in the unit they are counted in and written in base units. The cells of a
 * histogram are its buckets, not cumulative, followed by the sum. Buckets and count are accumulated
 * when they are written, so they always agree, even while other threads are counting.
 */
#include "config.h"

#include "base/metrics.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum type { COUNTER, GAUGE, HISTOGRAM };
static const char *const types[] = { "counter", "gauge", "histogram" };

struct metric_row {
	const char *name;
	enum type type;
	bool by_kind;
	int decimals;              /* written as cell / 10^decimals: 6 for microseconds */
	const char *label;         /* NULL: none */
	const char *const *values; /* of the label, NULL-terminated */
	const char *help;
};

const char *const metric_kinds[METRIC_KINDS] = { "notifications", "issues", "live",
	"combined" };

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
	[REFUSED_SITE] = "site",
	[REFUSED_USER] = "user",
	[REFUSED_ANONYMOUS] = "anonymous",
	[REFUSED_PROJECTS] = "projects",
	[REFUSED_CAP] = "cap",
	NULL,
};

static const char *const deferred[] = {
	[DEFERRED_DRAINING] = "draining",
	[DEFERRED_PENDING] = "pending",
	[DEFERRED_RATE] = "rate",
	[DEFERRED_CANCELLED] = "cancelled",
	[DEFERRED_EVICTED] = "evicted",
	[DEFERRED_APPLICATION] = "application",
	[DEFERRED_VALKEY_UNREACHABLE] = "valkey_unreachable",
	[DEFERRED_VALKEY_REFUSED] = "valkey_refused",
	[DEFERRED_VALKEY_SILENT] = "valkey_silent",
	[DEFERRED_RESOURCES] = "resources",
	[DEFERRED_REVOKED] = "revoked",
	NULL,
};

static const char *const sources[] = {
	[SOURCE_APPLICATION] = "application",
	[SOURCE_IN_FLIGHT] = "in_flight",
	[SOURCE_CACHE] = "cache",
	[SOURCE_NONE] = "none",
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

static const struct metric_row table[METRIC_COUNT] = {
	[METRIC_BUILD_INFO] = { METRIC(GAUGE, "build_info",
	    .help = "Always 1; the labels give the running version and the tenant.") },
	[METRIC_START_TIME] = { METRIC(GAUGE, "start_time_seconds",
	    .help = "Start time of the process, in seconds since 1970.") },
	[METRIC_OPEN] = { METRIC(GAUGE, "open_streams", .by_kind = true,
	    .help = "Open streams, counted from their first sync.") },
	[METRIC_SLOTS] = { METRIC(GAUGE, "slots", .by_kind = true,
	    .help = "Slots of the tenant in use, including those of requests in flight.") },
	[METRIC_SLOTS_LIMIT] = { METRIC(GAUGE, "slots_limit", .by_kind = true,
	    .help = "Slots of the tenant; requests over this limit are refused.") },
	[METRIC_OPENED] = { METRIC(COUNTER, "opened_total", .by_kind = true,
	    .help = "Streams opened, counted at their first sync.") },
	[METRIC_ENDED] = { METRIC(COUNTER, "ended_total", .by_kind = true, .label = "reason",
	    .values = ended, .help = "Streams ended.") },
	[METRIC_REFUSED] = { METRIC(COUNTER, "refused_total", .label = "reason", .values = refused,
	    .help = "Requests refused with 4xx or 503.") },
	[METRIC_DEFERRED] = { METRIC(COUNTER, "deferred_total", .label = "reason",
	    .values = deferred, .help = "Requests told to retry later.") },
	[METRIC_CONNECTIONS] = { METRIC(GAUGE, "connections",
	    .help = "Connections from the web server; each has a thread.") },
	[METRIC_CONNECTIONS_REFUSED] = { METRIC(COUNTER, "connections_refused_total",
	    .help = "Connections closed for lack of a thread or memory.") },
	[METRIC_MESSAGES] = { METRIC(COUNTER, "messages_total",
	    .help = "Messages received from Valkey on channels with subscribers.") },
	[METRIC_DROPPED] = { METRIC(COUNTER, "messages_dropped_total",
	    .help = "Messages from Valkey dropped because of an invalid payload.") },
	[METRIC_SENT] = { METRIC(COUNTER, "events_sent_total",
	    .help = "Wake-ups sent or queued to streams, including those lost in an overflow.") },
	[METRIC_MERGED] = { METRIC(COUNTER, "events_merged_total",
	    .help = "Wake-ups sent in the same write as the one before.") },
	[METRIC_OVERFLOWS] = { METRIC(COUNTER, "backlog_overflows_total",
	    .help = "Backlogs of slow readers replaced by a sync.") },
	[METRIC_FANOUT] = { METRIC(HISTOGRAM, "fanout_seconds", .decimals = 6,
	    .help = "Time to write one batch of messages from Valkey to all its streams.") },
	[METRIC_VALKEY_CONNECTED] = { METRIC(GAUGE, "valkey_connected",
	    .help = "1 if connected to Valkey, else 0.") },
	[METRIC_VALKEY_CONNECTS] = { METRIC(COUNTER, "valkey_connects_total",
	    .help = "Connections to Valkey established.") },
	[METRIC_VALKEY_LOSSES] = { METRIC(COUNTER, "valkey_losses_total",
	    .help = "Connections to Valkey lost.") },
	[METRIC_CHANNELS] = { METRIC(GAUGE, "valkey_channels",
	    .help = "Channels subscribed or about to be, lingering ones included.") },
	[METRIC_MESSAGE_AGE] = { METRIC(GAUGE, "last_message_age_seconds", .decimals = 3,
	    .help = "Time since the last message, or since the start if there was none.") },
	[METRIC_APP_PAUSED] = { METRIC(GAUGE, "app_paused",
	    .help = "1 while queries pause because the application is unreachable, else 0.") },
	[METRIC_APP_PAUSES] = { METRIC(COUNTER, "app_pauses_total",
	    .help = "Pauses because the application was unreachable.") },
	[METRIC_APP_QUERIES] = { METRIC(COUNTER, "app_queries_total", .label = "from",
	    .values = sources, .help = "Queries of the application, by source of the answer.") },
	[METRIC_APP_REQUESTS] = { METRIC(COUNTER, "app_requests_total", .label = "result",
	    .values = results, .help = "Requests to the application completed.") },
};

/* Upper bounds of a histogram's buckets, in microseconds; one more bucket is unbounded. */
static const uint32_t bounds[] = { 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000,
	250000, 500000, 1000000 };
#define BOUND_COUNT (sizeof(bounds) / sizeof(bounds[0]))
#define SUM         (BOUND_COUNT + 1)
_Static_assert(SUM < METRIC_LABELS, "a histogram fits");

static _Atomic uint64_t cells[METRIC_COUNT][METRIC_KINDS][METRIC_LABELS];

static void
add(enum metric counter, int kind, size_t label, uint64_t n)
{
	atomic_fetch_add_explicit(&cells[counter][kind][label], n, memory_order_relaxed);
}

void
metric_add(enum metric counter, uint64_t n)
{
	add(counter, 0, 0, n);
}

void
metric_add_label(enum metric counter, int label)
{
	add(counter, 0, (size_t)label, 1);
}

void
metric_add_kind(enum metric counter, int kind, int label)
{
	add(counter, kind, (size_t)label, 1);
}

void
metric_observe(enum metric counter, uint64_t microseconds)
{
	size_t i = 0;

	while (i < BOUND_COUNT && microseconds > bounds[i])
		i++;
	add(counter, 0, i, 1);
	add(counter, 0, SUM, microseconds);
}

void
metrics_read(struct metrics *c)
{
	int counter, kind, label;

	for (counter = 0; counter < METRIC_COUNT; counter++)
		for (kind = 0; kind < METRIC_KINDS; kind++)
			for (label = 0; label < METRIC_LABELS; label++)
				c->cells[counter][kind][label] = atomic_load_explicit(
				    &cells[counter][kind][label], memory_order_relaxed);
}

/* Escapes what the format requires in a label value: backslash, quote and line break. */
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

/* Writes one sample line; kind and value may be NULL. */
static void
write_sample(const struct metric_row *m, const char *kind, const char *value, uint64_t n, FILE *out)
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
write_samples(const struct metric_row *m, const uint64_t cells_of[METRIC_KINDS][METRIC_LABELS],
    FILE *out)
{
	int kind, i;

	for (kind = 0; kind < (m->by_kind ? METRIC_KINDS : 1); kind++) {
		const char *name = m->by_kind ? metric_kinds[kind] : NULL;

		if (m->label == NULL)
			write_sample(m, name, NULL, cells_of[kind][0], out);
		for (i = 0; m->label != NULL && m->values[i] != NULL; i++)
			write_sample(m, name, m->values[i], cells_of[kind][i], out);
	}
}

static void
write_histogram(const struct metric_row *m, const uint64_t buckets[METRIC_LABELS], FILE *out)
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
write_build_info(const struct metric_row *m, const char *tenant, FILE *out)
{
	fprintf(out, "%s{version=\"" PACKAGE_VERSION "\",tenant=\"", m->name);
	write_escaped(tenant, out);
	fputs("\"} 1\n", out);
}

void
metrics_write(const struct metrics *c, const char *tenant, FILE *out)
{
	const struct metric_row *m;
	int i;

	for (i = 0; i < METRIC_COUNT; i++) {
		m = &table[i];
		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name,
		    types[m->type]);
		if (i == METRIC_BUILD_INFO)
			write_build_info(m, tenant, out);
		else if (m->type == HISTOGRAM)
			write_histogram(m, c->cells[i][0], out);
		else
			write_samples(m, c->cells[i], out);
	}
}
