/* SPDX-License-Identifier: ISC */
/*
 * publisher: see publisher.h.
 *
 * A single wake-up is a run without input lines; a dry run is one without a pipeline. A function
 * that returns false has reported why and set the status: the run ends.
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
#include "base/error.h"
#include "base/log.h"
#include "publish/lines.h"
#include "publish/pipeline.h"
#include "publish/report.h"
#include "publish/uuid.h"

struct run {
	const struct publisher *options;
	const struct batch_item *single; /* NULL: a batch, which uses the next three */
	const struct batch_request *defaults;
	const char *input_name;
	struct lines *input;

	struct pipeline *pipeline; /* NULL: a dry run, or not connected yet */
	uint64_t published, bad, refused; /* wake-ups, not commands */
	bool one_refused; /* a command of the wake-up whose replies are arriving */
	int status;       /* EX_OK, or why the run failed, bad and refused lines aside */
	struct error error;
};

static size_t
in_flight(const struct run *r)
{
	return r->pipeline != NULL ? pipeline_in_flight(r->pipeline) : 0;
}

/*
 * Reports a failed publish: as a warning with --best-effort, otherwise as an error. tenant and
 * channel may be NULL.
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

/* Reports r->error, which ends the run. Always returns false. */
static bool
fail_run(struct run *r)
{
	report_failure(r->options, r->single != NULL ? r->single->tenant : NULL,
	    r->single != NULL ? r->single->channels[0] : NULL, r->error.text);
	if (r->status == EX_OK)
		r->status = EX_UNAVAILABLE;
	return false;
}

static void
report_refusal(const struct run *r, const struct pipeline_command *command, const char *error)
{
	char text[ERROR_SIZE];

	if (r->single != NULL)
		snprintf(text, sizeof(text), "%s: PUBLISH: %s", pipeline_server(r->pipeline),
		    error);
	else
		snprintf(text, sizeof(text), "line %ju: PUBLISH: %s", (uintmax_t)command->line,
		    error);
	report_failure(r->options, command->tenant, command->channel, text);
}

/* Called by the pipeline for each reply. */
static void
handle_reply(void *arg, const struct pipeline_command *command, long long subscribers,
    const char *error)
{
	struct run *r = arg;

	if (error != NULL)
		report_refusal(r, command, error);
	else if (r->options->verbose)
		printf("%s: %lld %s\n", command->channel, subscribers,
		    subscribers == 1 ? "subscriber" : "subscribers");
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
	report_line("cannot write to standard output: %s", strerror(errno));
	return false;
}

/* Prints what would be published. */
static bool
print_item(struct run *r, const struct batch_item *item)
{
	for (int i = 0; i < item->channel_count; i++)
		printf("%s %s\n", item->channels[i], item->payload);
	if (publisher_flush())
		return true;
	r->status = EX_IOERR;
	return false;
}

/* Connects, unless it is a dry run. */
static bool
start(struct run *r, int64_t since)
{
	const struct publisher *o = r->options;

	if (o->topology == NULL)
		return true;
	r->pipeline = pipeline_open(o->topology, o->timeout_ms, since, handle_reply, r, &r->error);
	if (r->pipeline == NULL)
		return fail_run(r);
	if (!o->quiet && o->topology->unverified.text[0] != '\0')
		report_line("warning: %s", o->topology->unverified.text);
	return true;
}

static bool
publish(struct run *r, const struct batch_item *item, uint64_t line, int64_t waited_ms)
{
	if (r->pipeline == NULL)
		return print_item(r, item);
	return pipeline_add(r->pipeline, item, line, waited_ms) || fail_run(r);
}

/* Lines of a batch */

static void
report_bad_line(struct run *r, const char *error)
{
	r->bad++;
	report_line("line %ju: %s", (uintmax_t)r->input->number, error);
}

/* The line may be good, so it must not count as bad. Ends the run; always returns false. */
static bool
fail_memory(struct run *r)
{
	report_line("line %ju: out of memory", (uintmax_t)r->input->number);
	r->status = EX_OSERR;
	return false;
}

static bool
is_blank(const char *line, size_t length)
{
	while (length > 0 && (*line == ' ' || *line == '\t' || *line == '\r'))
		line++, length--;
	return length == 0;
}

static bool
publish_line(struct run *r, const char *line, size_t length)
{
	struct batch_request defaults = *r->defaults;
	struct batch_item item;
	char uuid[UUID_SIZE];
	struct error error;
	bool good;

	if (length > LINES_MAX) {
		report_bad_line(r, "is over 65536 bytes");
		return true;
	}
	if (is_blank(line, length))
		return true;
	uuid_random(uuid);
	defaults.id = uuid;
	if (!batch_parse(line, length, &defaults, &item, &error)) {
		if (errno == ENOMEM)
			return fail_memory(r);
		report_bad_line(r, error.text);
		return true;
	}
	good = publish(r, &item, r->input->number, 0);
	free(item.payload);
	return good;
}

/*
 * Publishes lines until the input has none left or the pipeline has no room; *next says which, with
 * LINES_LINE for no room.
 */
static bool
publish_lines(struct run *r, enum lines_next *next)
{
	const char *line;
	size_t length;

	*next = LINES_LINE;
	while (r->pipeline == NULL || pipeline_has_room(r->pipeline)) {
		*next = lines_next(r->input, &line, &length);
		if (*next != LINES_LINE)
			break;
		if (!publish_line(r, line, length))
			return false;
	}
	return true;
}

/* After a read error, the run still waits for the replies to the commands in flight. */
static void
read_input(struct run *r)
{
	int wrong = lines_read(r->input);

	if (wrong == 0)
		return;
	report_line("cannot read %s: %s", r->input_name, strerror(wrong));
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
	report_line("cannot open %s: %s", r->input_name, strerror(errno));
	r->status = EX_NOINPUT;
	return false;
}

/* The run */

/* Publishes lines, and waits once. False when the run ends. */
static bool
step(struct run *r)
{
	const struct publisher *o = r->options;
	enum lines_next next = LINES_END;
	bool readable;

	if (r->single == NULL && !publish_lines(r, &next))
		return false;
	if (r->single == NULL && r->pipeline != NULL && !o->quiet && !o->verbose)
		report_progress(r->published, r->bad);
	if (next == LINES_END && in_flight(r) == 0)
		return false;
	readable = next == LINES_MORE;
	if (r->pipeline != NULL &&
	    !pipeline_wait(r->pipeline, readable ? r->input->fd : -1, &readable))
		return fail_run(r);
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
		snprintf(unknown, sizeof(unknown), ", unknown %zu", in_flight(r));
	report_line("published %ju, bad %ju%s%s", (uintmax_t)r->published, (uintmax_t)r->bad,
	    refused, unknown);
}

/* Closes the connection; returns the exit status. */
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

	if (start(&r, since) && publish(&r, item, 0, clock_ms() - since))
		while (step(&r))
			;
	return end(&r);
}

int
publisher_batch(const struct publisher *options, const struct batch_request *defaults,
    const char *path)
{
	static struct lines input;
	struct run r = { .options = options, .defaults = defaults, .input = &input };

	if (!open_input(&r, path))
		return end(&r);
	if (start(&r, clock_ms()))
		while (step(&r))
			;
	print_summary(&r);
	return end(&r);
}
