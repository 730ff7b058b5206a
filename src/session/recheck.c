/* SPDX-License-Identifier: ISC */
/*
 * recheck: repeats for an open stream the checks that let it in. See connection.h.
 *
 * A re-check first checks who the user is, if the application decides that, and then what they have
 * access to. If the application cannot be queried, nothing changes until the next re-check. After a
 * revocation that comes within seconds, then after twice as long each time, until there is an
 * answer.
 *
 * The streams of one user share answers: a re-check uses any answer that is newer than this
 * stream's own. The next one is due when the answer is an interval old, whenever it was used. So no
 * stream relies on an older answer, and within an interval all streams that share a query fall into
 * step with the one that sent it last. That is why user and access are each due on their own:
 * checked together, they would keep streams with different queries out of step.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "session/authorize.h"
#include "session/connection.h"

#define NEVER INT64_MAX

#define SPREAD_MS 2000 /* over which the re-checks of many revoked streams are spread */
#define RETRY_MS  5000 /* after a revocation: from the first unanswered re-check to the next */

/* The result of a step. */
enum progress {
	WAITING,    /* for the answer to a query */
	ANSWERED,   /* and acted on */
	UNANSWERED
};

static bool
by_app(const struct connection *c)
{
	return c->registry->settings->identity == IDENTITY_APP;
}

/* Whether access to what is watched can change. */
static bool
checks_access(const struct connection *c)
{
	enum access_policy policy = c->registry->settings->access;

	return watch_list_restricted(&c->watches) &&
	    (policy == ACCESS_APP || policy == ACCESS_FILE);
}

void
recheck_start(struct connection *c)
{
	uint32_t seconds = (uint32_t)c->registry->settings->recheck_seconds;
	struct recheck *r = &c->recheck;

	r->at = NEVER;
	if (seconds == 0 || (!by_app(c) && !checks_access(c))) {
		credentials_release(c->credentials);
		c->credentials = NULL;
		return;
	}
	r->user_checked_at = r->access_checked_at = c->slot.live_at;
	/* Streams that began together are re-checked at different times. */
	r->at = c->slot.live_at + clock_jitter(seconds * RECHECK_FIRST_MS, seconds * 1000);
}

void
recheck_end(struct connection *c)
{
	app_query_free(c->recheck.query);
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
outdated(const struct connection *c, int64_t checked_at, int64_t now)
{
	return c->recheck.owed || checked_at <= c->slot.live_at ||
	    checked_at + interval_ms(c) <= now;
}

/* When the first of the stream's answers is an interval old. */
static int64_t
next_at(const struct connection *c)
{
	const struct recheck *r = &c->recheck;
	int64_t checked_at = NEVER - interval_ms(c);

	if (by_app(c))
		checked_at = r->user_checked_at;
	if (checks_access(c) && r->access_checked_at < checked_at)
		checked_at = r->access_checked_at;
	return checked_at + interval_ms(c);
}

/* Ends this re-check and schedules the next one. */
static void
schedule(struct connection *c, bool answered, int64_t now)
{
	struct recheck *r = &c->recheck;

	drop_query(r);
	r->user_known = false;
	if (r->again) {
		r->again = false;
		r->at = now;
	} else if (r->owed && !answered) {
		r->at = now +
		    clock_jitter((uint32_t)r->retry_ms / 5 * 3, (uint32_t)r->retry_ms / 5 * 7);
		r->retry_ms = r->retry_ms < interval_ms(c) / 2 ? r->retry_ms * 2 : interval_ms(c);
	} else {
		r->owed = false;
		r->at = answered ? next_at(c) : r->at + interval_ms(c);
		if (r->at < now)
			r->at = now;
	}
}

static void
log_lost(const struct connection *c, const char *message, const struct watch_list *lost)
{
	struct log_field fields[2 + TOPIC_MAX + 1] = {
		LOG_STR("tenantId", c->registry->settings->tenant), LOG_STR("userId", c->user) };

	*watch_list_log(lost, c->stream->labelled, fields + 2) = (struct log_field)LOG_END;
	log_write(LOG_LEVEL_INFO, c->topic->tag, message, fields);
}

/* Leaves the channels of what is not in kept, and swaps kept for the list. */
static enum progress
narrow(struct connection *c, struct watch_list *kept)
{
	enum progress progress = UNANSWERED;
	struct watch_list lost, old = c->watches;
	char *names;
	int count;

	if (!watch_list_lost(&lost, &c->watches, kept))
		return UNANSWERED;
	names = watch_list_channels(&lost, c->registry->settings, c->user, false, &count);
	if (names != NULL && subscriber_leave_some(c->subscription, names, count)) {
		registry_unname(c->registry, &c->entry);
		c->watches = *kept;
		*kept = old;
		registry_name(c->registry, &c->entry, c->stream, c->user, &c->watches);
		log_lost(c, "topics lost", &lost);
		progress = ANSWERED;
	}
	watch_list_free(&lost);
	return progress;
}

/*
 * Drops the topics that the user has lost access to, by the access file or by the application's
 * answer. Without memory nothing changes until the next re-check.
 */
static enum progress
check_access(struct connection *c)
{
	enum progress progress = ANSWERED;
	struct watch_list kept;
	int count;

	if (!watch_list_copy(&kept, &c->watches))
		return UNANSWERED;
	if (c->recheck.query != NULL)
		authorize_by_answer(&kept, c->recheck.query);
	else {
		access_refresh(c->registry->access);
		authorize_locally(&kept, c->registry->access, c->user);
	}
	count = watch_list_total(&kept);
	if (count == 0) {
		log_lost(c, "all topics lost", &c->watches);
		stream_finish(c->stream, "");
	} else if (count < watch_list_total(&c->watches))
		progress = narrow(c, &kept);
	watch_list_free(&kept);
	return progress;
}

/* Whether the session still belongs to the same user; if not, the stream ends. */
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

/* The user is confirmed: now checks access, if that is due. */
static enum progress
begin_access_check(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;

	r->user_known = true;
	if (!checks_access(c) || !outdated(c, r->access_checked_at, now))
		return ANSWERED;
	if (c->registry->settings->access == ACCESS_APP) {
		r->query = authorize_query(&c->watches, c->registry->app_client, c->credentials,
		    r->access_checked_at, c->stream, r->deadline);
		return r->query != NULL ? WAITING : UNANSWERED;
	}
	r->access_checked_at = now;
	return check_access(c);
}

static enum progress
begin_recheck(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;

	r->deadline = now + c->registry->settings->app_timeout_ms;
	if (by_app(c) && outdated(c, r->user_checked_at, now)) {
		r->query = app_query_start(c->registry->app_client, c->credentials, NULL, 0,
		    r->user_checked_at, c->stream, r->deadline);
		return r->query != NULL ? WAITING : UNANSWERED;
	}
	return begin_access_check(c, now);
}

/* Acts on the answer to the query. */
static enum progress
take_answer(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;

	if (r->user_known) {
		r->access_checked_at = app_query_sent_at(r->query);
		return check_access(c);
	}
	r->user_checked_at = app_query_sent_at(r->query);
	if (!check_user(c))
		return ANSWERED;
	drop_query(r);
	return begin_access_check(c, now);
}

bool
recheck_covers(const struct connection *c)
{
	return c->registry->settings->recheck_seconds > 0 && by_app(c) &&
	    (!watch_list_restricted(&c->watches) || checks_access(c));
}

void
recheck_revoked(struct connection *c, bool many, int64_t now)
{
	struct recheck *r = &c->recheck;
	bool again = recheck_covers(c);

	LOG(LOG_LEVEL_DEBUG, c->topic->tag, again ? "revoked, re-checking" : "revoked, ended",
	    LOG_STR("tenantId", c->registry->settings->tenant), LOG_STR("userId", c->user));
	if (!again) {
		stream_finish(c->stream, "");
		return;
	}
	if (!r->owed)
		r->retry_ms = RETRY_MS;
	r->owed = true;
	/* A further revocation never postpones what an earlier one made due. */
	if (r->query != NULL)
		r->again = true;
	else if (many)
		now += clock_jitter(0, SPREAD_MS);
	if (now < r->at)
		r->at = now;
}

/* A separate THREAD_STEP, so a turn in which nothing is due uses little stack. */
static void THREAD_STEP
advance(struct connection *c, int64_t now)
{
	struct recheck *r = &c->recheck;
	enum progress progress = WAITING;
	enum app_query_answer answer;

	if (r->query == NULL && now >= r->at)
		progress = begin_recheck(c, now);
	if (r->query != NULL) {
		answer = app_query_answer(r->query);
		if (answer == QUERY_FAILED || (answer == QUERY_PENDING && now >= r->deadline))
			progress = UNANSWERED;
		else if (answer != QUERY_PENDING)
			progress = take_answer(c, now);
	}
	if (progress != WAITING)
		schedule(c, progress == ANSWERED, now);
}

int64_t
recheck_turn(struct connection *c, int64_t now)
{
	const struct recheck *r = &c->recheck;

	if (r->query != NULL || now >= r->at)
		advance(c, now);
	return r->query != NULL ? r->deadline : r->at;
}
