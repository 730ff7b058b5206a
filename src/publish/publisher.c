/* SPDX-License-Identifier: ISC */
/*
 * publisher: see publisher.h.
 *
 * A single wake-up is a batch without lines, and a dry run one without a pipeline. A function that
 * returns false has said why, and has set the status: the run is over.
 */
#include "publish/publisher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "publish/lines.h"
#include "base/log.h"
#include "publish/pipeline.h"
#include "publish/report.h"
#include "publish/uuid.h"

struct run {
	const struct publisher *options;
	const struct batch_item *single; /* NULL: a batch: */
	const struct batch_request *standard;
	const char *input_name;
	struct lines *input;

	struct pipeline *pipeline; /* NULL in a dry run, and while there is no connection */
	uint64_t published, bad, refused; /* wake-ups, whatever the number of their channels */
	bool one_refused;                 /* a channel of the wake-up whose replies are arriving */
	int status; /* EX_OK, or what has gone wrong apart from lines and refusals */
	char error[VALKEY_ERROR_SIZE];
};

static size_t
in_flight(const struct run *r)
{
	return r->pipeline != NULL ? pipeline_in_flight(r->pipeline) : 0;
}

/*
 * A publish that failed: a warning with --best-effort, else an error. tenant and channel may be
 * NULL.
 */
static void
report_failure(const struct publisher *o, const char *tenant, const char *channel,
    const char *error)
{
	if (!o->best_effort) {
		report_line("%s", error);
		return;
	}
	if (o->quiet)
		return;
	report_clear();
	LOG(LOG_LEVEL_WARN, o->tag, "SSE publish failed",
	    LOG_STR("tenantId", tenant != NULL ? tenant : o->tenant), LOG_STR("channel", channel),
	    LOG_STR("error", error));
}

/* Valkey is lost for this run. Always false. */
static bool
lose(struct run *r)
{
	report_failure(r->options, r->single != NULL ? r->single->tenant : NULL,
	    r->single != NULL ? r->single->channels[0] : NULL, r->error);
	if (r->status == EX_OK)
		r->status = EX_UNAVAILABLE;
	return false;
}

static void
report_refusal(const struct run *r, const struct pipeline_command *command, const char *error)
{
	char text[VALKEY_ERROR_SIZE];

	if (r->single != NULL)
		snprintf(text, sizeof(text), "%s: PUBLISH: %s", pipeline_server(r->pipeline),
		    error);
	else
		snprintf(text, sizeof(text), "line %ju: PUBLISH: %s", (uintmax_t)command->line,
		    error);
	report_failure(r->options, command->tenant, command->channel, text);
}

/* Called by the pipeline. */
static void
answered(void *arg, const struct pipeline_command *command, long long subscribers,
    const char *error)
{
	struct run *r = arg;

	if (error != NULL)
		report_refusal(r, command, error);
	else if (r->options->verbose)
		printf("%s: %lld subscribers\n", command->channel, subscribers);
	r->one_refused |= error != NULL;
	if (!command->last)
		return;
	if (r->one_refused)
		r->refused++;
	else
		r->published++;
	r->one_refused = false;
}

bool
publisher_flush(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return true;
	report_line("standard output: %s", strerror(errno));
	return false;
}

static bool
show(struct run *r, const struct batch_item *item)
{
	for (int i = 0; i < item->channel_count; i++)
		printf("%s %s\n", item->channels[i], item->payload);
	if (publisher_flush())
		return true;
	r->status = EX_IOERR;
	return false;
}

static bool
start(struct run *r, int64_t since)
{
	const struct publisher *o = r->options;

	if (o->topology == NULL)
		return true;
	r->pipeline = pipeline_open(o->topology, o->timeout_ms, since, answered, r, r->error);
	return r->pipeline != NULL || lose(r);
}

static bool
put(struct run *r, const struct batch_item *item, uint64_t line, int64_t waited_ms)
{
	if (r->pipeline == NULL)
		return show(r, item);
	return pipeline_add(r->pipeline, item, line, waited_ms) || lose(r);
}

/* Lines of a batch */

static void
bad_line(struct run *r, const char *error)
{
	r->bad++;
	report_line("line %ju: %s", (uintmax_t)r->input->number, error);
}

static bool
is_blank(const char *line, size_t length)
{
	while (length > 0 && (*line == ' ' || *line == '\t' || *line == '\r'))
		line++, length--;
	return length == 0;
}

static bool
put_line(struct run *r, const char *line, size_t length)
{
	struct batch_request standard = *r->standard;
	struct batch_item item;
	char error[BATCH_ERROR_SIZE], uuid[UUID_SIZE];
	bool good;

	if (length > LINES_MAX) {
		bad_line(r, "longer than 65536 bytes");
		return true;
	}
	if (is_blank(line, length))
		return true;
	uuid_random(uuid);
	standard.id = uuid;
	if (!batch_parse(line, length, &standard, &item, error, sizeof(error))) {
		bad_line(r, error);
		return true;
	}
	good = put(r, &item, r->input->number, 0);
	free(item.payload);
	return good;
}

/* Takes lines until there is none, or no room for a command (then *next is LINES_LINE). */
static bool
put_lines(struct run *r, enum lines_next *next)
{
	const char *line;
	size_t length;

	*next = LINES_LINE;
	while (r->pipeline == NULL || pipeline_has_room(r->pipeline)) {
		*next = lines_next(r->input, &line, &length);
		if (*next != LINES_LINE)
			break;
		if (!put_line(r, line, length))
			return false;
	}
	return true;
}

/* Where the input cannot be read, what is under way is still waited for. */
static void
read_input(struct run *r)
{
	int wrong = lines_read(r->input);

	if (wrong == 0)
		return;
	report_line("%s: %s", r->input_name, strerror(wrong));
	r->status = EX_NOINPUT;
}

static bool
open_input(struct run *r, const char *path)
{
	bool is_file = path != NULL && strcmp(path, "-") != 0;

	r->input_name = is_file ? path : "standard input";
	r->input->fd = is_file ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	if (r->input->fd >= 0)
		return true;
	report_line("%s: %s", r->input_name, strerror(errno));
	r->status = EX_NOINPUT;
	return false;
}

/* The run */

/* One turn of it: false at the end. */
static bool
turn(struct run *r)
{
	const struct publisher *o = r->options;
	enum lines_next next = LINES_END;
	bool readable;

	if (r->single == NULL && !put_lines(r, &next))
		return false;
	if (r->single == NULL && r->pipeline != NULL && !o->quiet && !o->verbose)
		report_progress(r->published, r->bad);
	if (next == LINES_END && in_flight(r) == 0)
		return false;
	readable = next == LINES_MORE;
	if (r->pipeline != NULL &&
	    !pipeline_wait(r->pipeline, readable ? r->input->fd : -1, &readable))
		return lose(r);
	if (readable)
		read_input(r);
	return true;
}

static void
print_summary(const struct run *r)
{
	char refused[50] = "", unknown[50] = "";

	if (r->options->quiet)
		return;
	if (r->refused > 0)
		snprintf(refused, sizeof(refused), ", refused %ju", (uintmax_t)r->refused);
	if (in_flight(r) > 0)
		snprintf(unknown, sizeof(unknown), ", not known %zu", in_flight(r));
	report_line("published %ju, bad %ju%s%s", (uintmax_t)r->published, (uintmax_t)r->bad,
	    refused, unknown);
}

static int
end(struct run *r)
{
	int status = r->status;

	if (r->pipeline != NULL)
		pipeline_close(r->pipeline);
	if (status == EX_OK && r->refused > 0)
		status = EX_UNAVAILABLE;
	if (status == EX_UNAVAILABLE && r->options->best_effort)
		status = EX_OK;
	return status == EX_OK && r->bad > 0 ? EX_DATAERR : status;
}

int
publisher_single(const struct publisher *options, const struct batch_item *item, int64_t since)
{
	struct run r = { .options = options, .single = item };

	if (start(&r, since) && put(&r, item, 0, clock_ms() - since))
		while (turn(&r))
			;
	return end(&r);
}

int
publisher_batch(const struct publisher *options, const struct batch_request *standard,
    const char *path)
{
	static struct lines input;
	struct run r = { .options = options, .standard = standard, .input = &input };

	if (!open_input(&r, path))
		return end(&r);
	if (start(&r, clock_ms()))
		while (turn(&r))
			;
	print_summary(&r);
	return end(&r);
}
