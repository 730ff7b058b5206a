/*
 * recheck: asks again for an open stream what was asked before it began. See connection.h.
 *
 * A re-check asks for the user where the application says who he is, then for the projects. Who
 * cannot be asked changes nothing: the next re-check will tell.
 */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "connection.h"
#include "log.h"

#define NEVER INT64_MAX

static bool
by_app(const struct connection *c)
{
	return c->gateway->settings->identity == IDENTITY_APP;
}

static bool
has_projects(const struct connection *c)
{
	enum access_policy policy = c->gateway->settings->access;

	return c->route->has_projects && (policy == ACCESS_APP || policy == ACCESS_FILE);
}

void
recheck_start(struct connection *c)
{
	uint32_t seconds = (uint32_t)c->gateway->settings->recheck_seconds;
	struct recheck *r = &c->recheck;

	r->at = NEVER;
	if (seconds == 0 || (!by_app(c) && !has_projects(c))) {
		credentials_release(c->credentials);
		c->credentials = NULL;
		return;
	}
	/* Streams that began together are not asked for together. */
	r->at = c->place.live_at + clock_jitter(seconds * RECHECK_FIRST_MS, seconds * 1000);
	if (!has_projects(c))
		return;
	r->projects = c->request.projects;
	r->project_count = c->request.project_count;
	c->request.projects = NULL;
}

void
recheck_end(struct connection *c)
{
	gate_forget(c->recheck.question);
	free(c->recheck.projects);
}

/* The next one is due an interval after this one was. */
static void
done(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;

	gate_forget(r->question);
	r->question = NULL;
	r->user_known = false;
	r->at += c->gateway->settings->recheck_seconds * 1000;
	if (r->at < now)
		r->at = now;
}

static void
log_lost(const struct connection *c, const char *message, const int32_t *projects, int count)
{
	const struct log_field fields[] = { LOG_STR("tenantId", c->gateway->settings->tenant),
		LOG_STR("userId", c->user), LOG_LIST("projectIds", projects, (size_t)count), LOG_END };

	log_write(LOG_LEVEL_INFO, c->route->tag, message, fields);
}

/* Leaves the channels of what is not among those kept. No memory: another time. */
static void
narrow(struct connection *c, const int32_t *kept, int kept_count)
{
	struct recheck *r = &c->recheck;
	struct request lost = { .user = c->user };
	char *names;
	int i, k = 0;

	lost.projects = malloc((size_t)r->project_count * sizeof(*kept));
	if (lost.projects == NULL)
		return;
	for (i = 0; i < r->project_count; i++) {
		if (k < kept_count && r->projects[i] == kept[k])
			k++;
		else
			lost.projects[lost.project_count++] = r->projects[i];
	}
	names = route_channels(c->route, &lost, c->gateway->settings);
	if (names != NULL && hub_leave_some(c->subscription, names, lost.project_count)) {
		memcpy(r->projects, kept, (size_t)kept_count * sizeof(*kept));
		r->project_count = kept_count;
		log_lost(c, "projects lost", lost.projects, lost.project_count);
	}
	free(lost.projects);
}

/* What he may still read, by the file or by the gate's answer. */
static void
check_projects(struct connection *c)
{
	struct recheck *r = &c->recheck;
	int32_t *kept;
	int count;

	kept = malloc((size_t)r->project_count * sizeof(*kept));
	if (kept == NULL)
		return;
	memcpy(kept, r->projects, (size_t)r->project_count * sizeof(*kept));
	if (r->question != NULL)
		count = gate_filter(r->question, kept);
	else
		count = access_filter(c->gateway->access, c->user, kept, r->project_count);
	if (count == 0) {
		log_lost(c, "all projects lost", r->projects, r->project_count);
		stream_finish(c->stream, "");
	} else if (count < r->project_count)
		narrow(c, kept, count);
	free(kept);
}

/* Whether he still is who he was, by the gate's answer. */
static bool
check_user(struct connection *c)
{
	struct question *q = c->recheck.question;

	if (gate_answer(q) == GATE_YES && strcmp(gate_user(q), c->user) == 0)
		return true;
	LOG(LOG_LEVEL_INFO, c->route->tag, "session lost",
	    LOG_STR("tenantId", c->gateway->settings->tenant), LOG_STR("userId", c->user));
	stream_finish(c->stream, "");
	return false;
}

static void
ask(struct connection *c, const int32_t *projects, int count)
{
	struct recheck *r = &c->recheck;

	r->question = gate_ask(c->gateway->gate, c->credentials, projects, count, true, c->stream,
	    r->deadline);
}

/* Begins one. True where there is nothing to wait for. */
static bool
begin(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;

	r->deadline = now + c->gateway->settings->app_timeout_ms;
	if (by_app(c))
		ask(c, NULL, 0);
	else if (c->gateway->settings->access == ACCESS_APP)
		ask(c, r->projects, r->project_count);
	else
		check_projects(c);
	return r->question == NULL;
}

/* Goes on with the gate's answer. True where there is nothing more to wait for. */
static bool
go_on(struct connection *c)
{
	struct recheck *r = &c->recheck;

	if (!by_app(c) || r->user_known) {
		check_projects(c);
		return true;
	}
	if (!check_user(c) || r->projects == NULL)
		return true;
	gate_forget(r->question);
	r->question = NULL;
	r->user_known = true;
	if (c->gateway->settings->access == ACCESS_APP)
		ask(c, r->projects, r->project_count);
	else
		check_projects(c);
	return r->question == NULL;
}

int64_t
recheck_turn(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;
	enum gate_answer answer = GATE_PENDING;

	if (r->question == NULL && now >= r->at && begin(c, now))
		done(c, now);
	if (r->question != NULL)
		answer = gate_answer(r->question);
	if (answer == GATE_LATER || (answer == GATE_PENDING && r->question != NULL && now >= r->deadline))
		done(c, now);
	else if (answer != GATE_PENDING && go_on(c))
		done(c, now);
	return r->question != NULL ? r->deadline : r->at;
}
