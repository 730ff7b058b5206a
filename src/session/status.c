/*
 * status: the pages for monitoring. See status.h.
 *
 * They are made in threads whose stack is small, so whatever is long is on the heap.
 */
#include "session/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"

struct status_page {
	const char *path;
	bool (*write)(struct gateway *g, struct answer *answer, char **body);
};

static const char *const hub_states[] = {
	[HUB_CONNECTING] = "connecting",
	[HUB_CONNECTED] = "connected",
	[HUB_AWAY] = "away",
};

static const char *const gate_states[] = {
	[STATUS_GATE_OFF] = "off",
	[STATUS_GATE_OK] = "ok",
	[STATUS_GATE_PAUSED] = "paused",
};

const char *
status_obstacle(const struct status *s)
{
	if (s->draining)
		return "draining";
	if (!s->working)
		return "the thread that reads from Valkey is stuck";
	if (s->valkey == HUB_AWAY)
		return "Valkey is away";
	if (s->valkey == HUB_CONNECTING)
		return "Valkey is not connected yet";
	if (s->gate == STATUS_GATE_PAUSED)
		return "the application cannot be asked";
	return NULL;
}

static struct status
look(struct gateway *g)
{
	struct status s = { .working = hub_working(g->hub), .draining = g->draining };
	struct hub_view hub;

	hub_look(g->hub, &hub);
	s.valkey = hub.state;
	if (g->gate != NULL)
		s.gate = gate_paused(g->gate) ? STATUS_GATE_PAUSED : STATUS_GATE_OK;
	return s;
}

/*
 * 200, or 503 where there is a reason, with the members that are given, each followed by a comma. All
 * texts are our own: nothing needs to be escaped.
 */
static bool
write_json(const char *members, const char *reason, struct answer *answer, char **body)
{
	int length;

	if (reason != NULL)
		length = asprintf(body, "{%s\"status\":\"unavailable\",\"reason\":\"%s\"}", members, reason);
	else
		length = asprintf(body, "{%s\"status\":\"ok\"}", members);
	if (length == -1) {
		*body = NULL;
		return false;
	}
	*answer = (struct answer){ 200, "OK", "", "application/json", *body };
	if (reason != NULL)
		*answer = (struct answer){ 503, "Service Unavailable", "", "application/json", *body };
	return true;
}

static bool
write_health(struct gateway *g, struct answer *answer, char **body)
{
	struct status s = look(g);
	char members[128];

	snprintf(members, sizeof(members),
	    "\"valkey\":{\"state\":\"%s\"},\"gate\":{\"state\":\"%s\"},\"draining\":%s,",
	    hub_states[s.valkey], gate_states[s.gate], s.draining ? "true" : "false");
	return write_json(members, status_obstacle(&s), answer, body);
}

/*
 * As the watchdog sees it. The gate's thread is no part of it: a name server may hold that up, and a
 * restart would not help.
 */
static bool
write_live(struct gateway *g, struct answer *answer, char **body)
{
	const struct status s = { .working = hub_working(g->hub), .valkey = HUB_CONNECTED };

	return write_json("", status_obstacle(&s), answer, body);
}

/* Fills in what is not counted. */
static void
complete(struct counters *c, struct gateway *g)
{
	struct caps_counts counts;
	struct hub_view hub;
	int i;

	for (i = 0; i < ROUTE_COUNT; i++) {
		caps_counts(g->caps[i], &counts);
		c->cells[COUNTER_OPEN][i][0] = (uint64_t)counts.live;
		c->cells[COUNTER_OPENED][i][0] = counts.opened;
		c->cells[COUNTER_PLACES][i][0] = (uint64_t)counts.reserved;
		c->cells[COUNTER_PLACES_LIMIT][i][0] =
		    (uint64_t)route_tenant_cap(&routes[i], g->settings);
	}
	hub_look(g->hub, &hub);
	c->cells[COUNTER_START_TIME][0][0] = (uint64_t)g->started_at;
	c->cells[COUNTER_CONNECTIONS][0][0] = (uint64_t)gateway_count(g);
	c->cells[COUNTER_VALKEY_CONNECTED][0][0] = hub.state == HUB_CONNECTED;
	c->cells[COUNTER_CHANNELS][0][0] = hub.channels;
	c->cells[COUNTER_MESSAGE_AGE][0][0] = (uint64_t)(clock_ms() - hub.message_at);
	c->cells[COUNTER_GATE_PAUSED][0][0] = g->gate != NULL && gate_paused(g->gate);
}

static bool
write_metrics(struct gateway *g, struct answer *answer, char **body)
{
	struct counters *c = malloc(sizeof(*c));
	size_t size;
	bool failed;
	FILE *out;

	out = c != NULL ? open_memstream(body, &size) : NULL;
	if (out == NULL) {
		free(c);
		return false;
	}
	counters_read(c);
	complete(c, g);
	counters_write(c, g->settings->tenant, out);
	failed = ferror(out) != 0;
	/* glibc does not report the last allocation's failure otherwise. */
	failed |= fclose(out) != 0 || *body == NULL;
	free(c);
	*answer = (struct answer){ 200, "OK", "", "text/plain; version=0.0.4; charset=utf-8", *body };
	return !failed;
}

static const struct status_page pages[] = {
	{ "/api/streams/health", write_health },
	{ "/api/streams/health/live", write_live },
	{ "/api/streams/metrics", write_metrics },
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
status_answer(const struct status_page *page, struct gateway *g, struct answer *answer, char **body)
{
	*body = NULL;
	return page->write(g, answer, body);
}
