/* SPDX-License-Identifier: ISC */
/*
 * recheck: asks again for an open stream what was asked before it began. See connection.h.
 *
 * A re-check asks who the user is, where the application decides that, and then which of the
 * projects they may read. An application that cannot be asked changes nothing: the next re-check
 * will tell. After a revocation that one comes within seconds, then after twice as long each time,
 * until there is an answer.
 *
 * The streams of one user share their answers: a re-check takes any answer that is newer than the
 * one this stream has. The next is due when the answer, not its use, is an interval old. So no
 * stream relies on an answer that is older, and within an interval all streams that share a query
 * fall into step with the one that made it last. For this the user and the projects are due each on
 * its own: asked for together they would keep streams with different queries out of step.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "session/connection.h"
#include "base/log.h"

#define NEVER INT64_MAX

#define SPREAD_MS 2000 /* over which many who are to be asked for again are */
#define RETRY_MS  5000 /* after a revocation: from the first re-check without an answer to the next */

/* What has come of a step. */
enum progress {
	WAITING,  /* for the application client */
	ANSWERED, /* and done what follows from it */
	UNANSWERED
};

static bool
by_app(const struct connection *c)
{
	return c->registry->settings->identity == IDENTITY_APP;
}

static bool
has_projects(const struct connection *c)
{
	enum access_policy policy = c->registry->settings->access;

	return c->topic->has_projects && (policy == ACCESS_APP || policy == ACCESS_FILE);
}

void
recheck_start(struct connection *c)
{
	uint32_t seconds = (uint32_t)c->registry->settings->recheck_seconds;
	struct recheck *r = &c->recheck;

	r->projects = c->request.projects;
	r->project_count = c->request.project_count;
	c->request.projects = NULL;
	r->at = NEVER;
	if (seconds == 0 || (!by_app(c) && !has_projects(c))) {
		credentials_release(c->credentials);
		c->credentials = NULL;
		return;
	}
	r->user_asked_at = r->projects_asked_at = c->slot.live_at;
	/* Streams that began together are not asked for together. */
	r->at = c->slot.live_at + clock_jitter(seconds * RECHECK_FIRST_MS, seconds * 1000);
}

void
recheck_end(struct connection *c)
{
	app_query_free(c->recheck.query);
	free(c->recheck.projects);
}

static void
drop_query(struct recheck *r)
{
	app_query_free(r->query);
	r->query = NULL;
}

static int
interval_ms(const struct connection *c)
{
	return c->registry->settings->recheck_seconds * 1000;
}

/* Whether an answer is an interval old, or from before the stream or a revocation. */
static bool
outdated(const struct connection *c, int64_t asked_at, int64_t now)
{
	return c->recheck.owed || asked_at <= c->slot.live_at || asked_at + interval_ms(c) <= now;
}

/* When the first of the stream's answers is an interval old. */
static int64_t
next_at(const struct connection *c)
{
	const struct recheck *r = &c->recheck;
	int64_t asked_at = NEVER - interval_ms(c);

	if (by_app(c))
		asked_at = r->user_asked_at;
	if (has_projects(c) && r->projects_asked_at < asked_at)
		asked_at = r->projects_asked_at;
	return asked_at + interval_ms(c);
}

/* Sets when the next one is due. */
static void
done(struct connection *c, bool answered, int64_t now)
{
	struct recheck *r = &c->recheck;

	drop_query(r);
	r->user_known = false;
	if (r->again) {
		r->again = false;
		r->at = now;
	} else if (r->owed && !answered) {
		r->at = now + clock_jitter((uint32_t)r->retry_ms / 5 * 3, (uint32_t)r->retry_ms / 5 * 7);
		r->retry_ms = r->retry_ms < interval_ms(c) / 2 ? r->retry_ms * 2 : interval_ms(c);
	} else {
		r->owed = false;
		r->at = answered ? next_at(c) : r->at + interval_ms(c);
		if (r->at < now)
			r->at = now;
	}
}

static void
log_lost(const struct connection *c, const char *message, const int32_t *projects, int count)
{
	const struct log_field fields[] = { LOG_STR("tenantId", c->registry->settings->tenant),
		LOG_STR("userId", c->user), LOG_LIST("projectIds", projects, (size_t)count), LOG_END };

	log_write(LOG_LEVEL_INFO, c->topic->tag, message, fields);
}

/* Leaves the channels of what is not among those kept. */
static enum progress
narrow(struct connection *c, const int32_t *kept, int kept_count)
{
	struct recheck *r = &c->recheck;
	struct request lost = { .user = c->user };
	enum progress progress = UNANSWERED;
	char *names;
	int count, i, k = 0;

	lost.projects = malloc((size_t)r->project_count * sizeof(*kept));
	if (lost.projects == NULL)
		return UNANSWERED;
	for (i = 0; i < r->project_count; i++) {
		if (k < kept_count && r->projects[i] == kept[k])
			k++;
		else
			lost.projects[lost.project_count++] = r->projects[i];
	}
	names = topic_channels(c->topic, &lost, c->registry->settings);
	count = c->topic->channel_count(&lost, c->registry->settings);
	if (names != NULL && subscriber_leave_some(c->subscription, names, count)) {
		registry_unname(c->registry, &c->entry);
		memcpy(r->projects, kept, (size_t)kept_count * sizeof(*kept));
		r->project_count = kept_count;
		registry_name(c->registry, &c->entry, c->stream, c->user, r->projects, kept_count);
		log_lost(c, "projects lost", lost.projects, lost.project_count);
		progress = ANSWERED;
	}
	free(lost.projects);
	return progress;
}

/* What he may still read, by the file or by the application client's answer. No memory: another time. */
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
	if (r->query != NULL)
		count = app_query_filter(r->query, kept);
	else {
		access_refresh(c->registry->access);
		count = access_filter(c->registry->access, c->user, kept, r->project_count);
	}
	if (count == 0) {
		log_lost(c, "all projects lost", r->projects, r->project_count);
		stream_finish(c->stream, "");
	} else if (count < r->project_count)
		progress = narrow(c, kept, count);
	free(kept);
	return progress;
}

/* Whether he still is who he was, by the application client's answer. */
static bool
check_user(struct connection *c)
{
	struct app_query *q = c->recheck.query;

	if (app_query_answer(q) == QUERY_YES && strcmp(app_query_user(q), c->user) == 0)
		return true;
	LOG(LOG_LEVEL_INFO, c->topic->tag, "session lost",
	    LOG_STR("tenantId", c->registry->settings->tenant), LOG_STR("userId", c->user));
	stream_finish(c->stream, "");
	return false;
}

static enum progress
ask(struct connection *c, const int32_t *projects, int count)
{
	struct recheck *r = &c->recheck;

	r->query = app_query_start(c->registry->app_client, c->credentials, projects, count,
	    projects != NULL ? r->projects_asked_at : r->user_asked_at, c->stream, r->deadline);
	return r->query != NULL ? WAITING : UNANSWERED;
}

/* The user is known: now the projects, if any. */
static enum progress
go_on_with_projects(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;

	r->user_known = true;
	if (!has_projects(c) || !outdated(c, r->projects_asked_at, now))
		return ANSWERED;
	if (c->registry->settings->access == ACCESS_APP)
		return ask(c, r->projects, r->project_count);
	r->projects_asked_at = now;
	return check_projects(c);
}

static enum progress
begin(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;

	r->deadline = now + c->registry->settings->app_timeout_ms;
	if (by_app(c) && outdated(c, r->user_asked_at, now))
		return ask(c, NULL, 0);
	return go_on_with_projects(c, now);
}

/* Goes on with the application client's answer. */
static enum progress
go_on(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;

	if (r->user_known) {
		r->projects_asked_at = app_client_asked_at(r->query);
		return check_projects(c);
	}
	r->user_asked_at = app_client_asked_at(r->query);
	if (!check_user(c))
		return ANSWERED;
	drop_query(r);
	return go_on_with_projects(c, now);
}

bool
recheck_tells(const struct connection *c)
{
	return c->registry->settings->recheck_seconds > 0 && by_app(c) &&
	    (!c->topic->has_projects || has_projects(c));
}

void
recheck_revoked(struct connection *c, bool many, int64_t now)
{
	struct recheck *r = &c->recheck;
	bool again = recheck_tells(c);

	LOG(LOG_LEVEL_DEBUG, c->topic->tag, again ? "revoked, asked again" : "revoked, ended",
	    LOG_STR("tenantId", c->registry->settings->tenant), LOG_STR("userId", c->user));
	if (!again) {
		stream_finish(c->stream, "");
		return;
	}
	if (!r->owed)
		r->retry_ms = RETRY_MS;
	r->owed = true;
	/* However many come, none puts off what is due for those before it. */
	if (r->query != NULL)
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
	enum app_query_answer answer;

	if (r->query == NULL && now >= r->at)
		progress = begin(c, now);
	if (r->query != NULL) {
		answer = app_query_answer(r->query);
		if (answer == QUERY_FAILED || (answer == QUERY_PENDING && now >= r->deadline))
			progress = UNANSWERED;
		else if (answer != QUERY_PENDING)
			progress = go_on(c, now);
	}
	if (progress != WAITING)
		done(c, progress == ANSWERED, now);
	return r->query != NULL ? r->deadline : r->at;
}
