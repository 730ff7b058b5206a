/*
 * recheck: asks again for an open stream what was asked before it began. See connection.h.
 *
 * A re-check asks for the user where the application says who he is, then for the projects. Who
 * cannot be asked changes nothing: the next re-check will tell. After a revocation that one comes
 * within seconds, then after twice as long each time, until there is an answer.
 */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "connection.h"
#include "log.h"

#define NEVER INT64_MAX

#define SPREAD_MS 2000 /* over which many who are to be asked for again are */
#define RETRY_MS  5000 /* after a revocation: from the first re-check without an answer to the next */

/* What has come of a step. */
enum progress {
	WAITING,  /* for the gate */
	ANSWERED, /* and done what follows from it */
	UNANSWERED
};

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

static void
drop_question(struct recheck *r)
{
	gate_forget(r->question);
	r->question = NULL;
}

/* The next one is due an interval after this one was; sooner where an answer is owed. */
static void
done(struct connection *c, bool answered, int64_t now)
{
	int interval_ms = c->gateway->settings->recheck_seconds * 1000;
	struct recheck *r = &c->recheck;

	drop_question(r);
	r->user_known = false;
	if (r->again) {
		r->again = false;
		r->at = now;
	} else if (r->owed && !answered) {
		r->at = now + clock_jitter((uint32_t)r->retry_ms / 5 * 3, (uint32_t)r->retry_ms / 5 * 7);
		r->retry_ms = r->retry_ms < interval_ms / 2 ? r->retry_ms * 2 : interval_ms;
	} else {
		r->owed = false;
		r->at += interval_ms;
		if (r->at < now)
			r->at = now;
	}
}

static void
log_lost(const struct connection *c, const char *message, const int32_t *projects, int count)
{
	const struct log_field fields[] = { LOG_STR("tenantId", c->gateway->settings->tenant),
		LOG_STR("userId", c->user), LOG_LIST("projectIds", projects, (size_t)count), LOG_END };

	log_write(LOG_LEVEL_INFO, c->route->tag, message, fields);
}

/* Leaves the channels of what is not among those kept. */
static enum progress
narrow(struct connection *c, const int32_t *kept, int kept_count)
{
	struct recheck *r = &c->recheck;
	struct request lost = { .user = c->user };
	enum progress progress = UNANSWERED;
	char *names;
	int i, k = 0;

	lost.projects = malloc((size_t)r->project_count * sizeof(*kept));
	if (lost.projects == NULL)
		return UNANSWERED;
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
		progress = ANSWERED;
	}
	free(lost.projects);
	return progress;
}

/* What he may still read, by the file or by the gate's answer. No memory: another time. */
static enum progress
check_projects(struct connection *c)
{
	struct recheck *r = &c->recheck;
	enum progress progress = ANSWERED;
	int32_t *kept;
	int count;

	kept = malloc((size_t)r->project_count * sizeof(*kept));
	if (kept == NULL)
		return UNANSWERED;
	memcpy(kept, r->projects, (size_t)r->project_count * sizeof(*kept));
	if (r->question != NULL)
		count = gate_filter(r->question, kept);
	else {
		access_refresh(c->gateway->access);
		count = access_filter(c->gateway->access, c->user, kept, r->project_count);
	}
	if (count == 0) {
		log_lost(c, "all projects lost", r->projects, r->project_count);
		stream_finish(c->stream, "");
	} else if (count < r->project_count)
		progress = narrow(c, kept, count);
	free(kept);
	return progress;
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

static enum progress
ask(struct connection *c, const int32_t *projects, int count)
{
	struct recheck *r = &c->recheck;

	r->question = gate_ask(c->gateway->gate, c->credentials, projects, count, true, c->stream,
	    r->deadline);
	return r->question != NULL ? WAITING : UNANSWERED;
}

/* Who he is is known, or the web server has said it: now the projects, if any. */
static enum progress
go_on_with_projects(struct connection *c)
{
	struct recheck *r = &c->recheck;

	if (r->projects == NULL)
		return ANSWERED;
	if (c->gateway->settings->access == ACCESS_APP)
		return ask(c, r->projects, r->project_count);
	return check_projects(c);
}

static enum progress
begin(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;

	r->deadline = now + c->gateway->settings->app_timeout_ms;
	if (by_app(c) && !r->user_known)
		return ask(c, NULL, 0);
	return go_on_with_projects(c);
}

/* Goes on with the gate's answer. */
static enum progress
go_on(struct connection *c)
{
	struct recheck *r = &c->recheck;

	if (!by_app(c) || r->user_known)
		return check_projects(c);
	if (!check_user(c))
		return ANSWERED;
	drop_question(r);
	r->user_known = true;
	return go_on_with_projects(c);
}

bool
recheck_tells(const struct connection *c)
{
	return c->gateway->settings->recheck_seconds > 0 && by_app(c) &&
	    (!c->route->has_projects || has_projects(c));
}

void
recheck_revoked(struct connection *c, bool many, int64_t now)
{
	struct recheck *r = &c->recheck;
	bool again = recheck_tells(c);

	LOG(LOG_LEVEL_DEBUG, c->route->tag, again ? "revoked, asked again" : "revoked, ended",
	    LOG_STR("tenantId", c->gateway->settings->tenant), LOG_STR("userId", c->user));
	if (!again) {
		stream_finish(c->stream, "");
		return;
	}
	if (!r->owed)
		r->retry_ms = RETRY_MS;
	r->owed = true;
	/* However many come, none puts off what is due for those before it. */
	if (r->question != NULL)
		r->again = true;
	else if (many)
		now += clock_jitter(0, SPREAD_MS);
	if (now < r->at)
		r->at = now;
}

int64_t
recheck_turn(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;
	enum progress progress = WAITING;
	enum gate_answer answer;

	if (r->question == NULL && now >= r->at)
		progress = begin(c, now);
	if (r->question != NULL) {
		answer = gate_answer(r->question);
		if (answer == GATE_LATER || (answer == GATE_PENDING && now >= r->deadline))
			progress = UNANSWERED;
		else if (answer != GATE_PENDING)
			progress = go_on(c);
	}
	if (progress != WAITING)
		done(c, progress == ANSWERED, now);
	return r->question != NULL ? r->deadline : r->at;
}
