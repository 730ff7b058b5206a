/* SPDX-License-Identifier: ISC */
/*
 * status: the pages for monitoring. See status.h.
 *
 * Connection threads, which have small stacks, write them, so large buffers are on the heap.
 */
#include "session/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"

#define METRICS_SIZE 32768 /* three times what all metrics take */

struct status_page {
	const char *path;
	/* NULL: the list of open streams, which stream_list.c sends while it makes it. */
	bool (*write)(struct registry *r, struct answer *answer, char **body);
};

static const char *const subscriber_states[] = {
	[SUBSCRIBER_CONNECTING] = "connecting",
	[SUBSCRIBER_CONNECTED] = "connected",
	[SUBSCRIBER_UNREACHABLE] = "unreachable",
};

static const char *const app_states[] = {
	[STATUS_APP_OFF] = "off",
	[STATUS_APP_OK] = "ok",
	[STATUS_APP_PAUSED] = "paused",
};

const char *
status_obstacle(const struct status *s)
{
	if (s->draining)
		return "draining";
	if (!s->working)
		return "the thread that reads from Valkey is stuck";
	if (s->valkey == SUBSCRIBER_UNREACHABLE)
		return "Valkey is unreachable";
	if (s->valkey == SUBSCRIBER_CONNECTING)
		return "Valkey is not connected yet";
	if (s->app_client == STATUS_APP_PAUSED)
		return "cannot query the application";
	return NULL;
}

static struct status
current_status(struct registry *r)
{
	struct status s = { .working = subscriber_working(r->subscriber), .draining = r->draining };
	struct subscriber_view subscriber;

	subscriber_look(r->subscriber, &subscriber);
	s.valkey = subscriber.state;
	if (r->app_client != NULL)
		s.app_client = app_client_paused(r->app_client) ? STATUS_APP_PAUSED : STATUS_APP_OK;
	return s;
}

/*
 * 200, or 503 if there is a reason, with the given members, each followed by a comma. All texts are
 * constants, so nothing needs to be escaped.
 */
static bool
write_json(const char *members, const char *reason, struct answer *answer, char **body)
{
	int length;

	if (reason != NULL)
		length = asprintf(body, "{%s\"status\":\"unavailable\",\"reason\":\"%s\"}", members,
		    reason);
	else
		length = asprintf(body, "{%s\"status\":\"ok\"}", members);
	if (length == -1) {
		*body = NULL;
		return false;
	}
	*answer = (struct answer){ 200, "OK", "", "application/json", *body };
	if (reason != NULL)
		*answer = (struct answer){ 503, "Service Unavailable", "", "application/json",
			*body };
	return true;
}

static bool
write_health(struct registry *r, struct answer *answer, char **body)
{
	struct status s = current_status(r);
	char members[128];

	snprintf(members, sizeof(members),
	    "\"valkey\":{\"state\":\"%s\"},\"application\":{\"state\":\"%s\"},\"draining\":%s,",
	    subscriber_states[s.valkey], app_states[s.app_client], s.draining ? "true" : "false");
	return write_json(members, status_obstacle(&s), answer, body);
}

/*
 * The watchdog's criterion. It ignores the application client's thread, which a slow name server
 * may block: a restart would not help.
 */
static bool
write_live(struct registry *r, struct answer *answer, char **body)
{
	const struct status s = { .working = subscriber_working(r->subscriber),
		.valkey = SUBSCRIBER_CONNECTED };

	return write_json("", status_obstacle(&s), answer, body);
}

/* Fills in the values that are not counters. */
static void
complete(struct metrics *c, struct registry *r)
{
	struct caps_counts counts;
	struct subscriber_view subscriber;
	unsigned i;

	for (i = 0; i < KIND_COUNT; i++) {
		caps_counts(r->caps[i], &counts);
		c->cells[METRIC_OPEN][i][0] = (uint64_t)counts.live;
		c->cells[METRIC_OPENED][i][0] = counts.opened;
		c->cells[METRIC_SLOTS][i][0] = (uint64_t)counts.reserved;
		c->cells[METRIC_SLOTS_LIMIT][i][0] =
		    (uint64_t)kind_tenant_cap(i, r->settings);
	}
	subscriber_look(r->subscriber, &subscriber);
	c->cells[METRIC_START_TIME][0][0] = (uint64_t)r->started_at;
	c->cells[METRIC_CONNECTIONS][0][0] = (uint64_t)registry_count(r);
	c->cells[METRIC_VALKEY_CONNECTED][0][0] = subscriber.state == SUBSCRIBER_CONNECTED;
	c->cells[METRIC_CHANNELS][0][0] = subscriber.channels;
	c->cells[METRIC_MESSAGE_AGE][0][0] = (uint64_t)(clock_ms() - subscriber.message_at);
	c->cells[METRIC_APP_PAUSED][0][0] =
	    r->app_client != NULL && app_client_paused(r->app_client);
}

static bool
write_metrics(struct registry *r, struct answer *answer, char **body)
{
	struct metrics *c = malloc(sizeof(*c));
	bool failed;
	FILE *out;

	/* Not open_memstream(): if that runs out of memory, glibc drops text and reports no error. */
	*body = malloc(METRICS_SIZE);
	out = c != NULL && *body != NULL ? fmemopen(*body, METRICS_SIZE, "w") : NULL;
	if (out == NULL) {
		free(c);
		return false;
	}
	metrics_read(c);
	complete(c, r);
	metrics_write(c, r->settings->tenant, out);
	failed = ferror(out) != 0;
	failed |= fclose(out) != 0;
	free(c);
	*answer = (struct answer){ 200, "OK", "", "text/plain; version=0.0.4; charset=utf-8",
		*body };
	return !failed;
}

static const struct status_page pages[] = {
	{ "/api/streams/health", write_health },
	{ "/api/streams/health/live", write_live },
	{ "/api/streams/metrics", write_metrics },
	{ "/api/streams/connections", NULL },
};

const struct status_page *
status_find(const struct settings *s, const char *path)
{
	size_t i;

	for (i = 0; s->status == STATUS_ON && i < sizeof(pages) / sizeof(pages[0]); i++)
		if (strcmp(path, pages[i].path) == 0)
			return &pages[i];
	return NULL;
}

bool
status_is_list(const struct status_page *page)
{
	return page->write == NULL;
}

bool
status_answer(const struct status_page *page, struct registry *r, struct answer *answer,
    char **body)
{
	*body = NULL;
	return page->write(r, answer, body);
}
