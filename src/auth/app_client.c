/* SPDX-License-Identifier: ISC */
/*
 * app_client: queries, the requests that they share, and the answers that are kept. See
 * app_client.h.
 *
 * A lookup is one request to the application: with these credentials, about the user or about up to
 * 100 ids of a model. It is in the table from the first query for it until its answer is no longer
 * kept: LOOKUP_QUEUED, then LOOKUP_SENT, then LOOKUP_KNOWN. A revocation removes those that have
 * been sent. A query waits for one lookup, or for several if it has many ids or ids of several
 * models.
 *
 * There are two queues. Lookups whose user is known are preferred, that is, sent before all others:
 * queries about access, whose user has been verified; re-checks, whose stream is open; and those
 * with credentials that the application recognized the last time (recognized.h). Anyone can make up
 * other credentials, and must not delay these.
 *
 * The lock guards the table, the lists and every query's answer. It is not held while anything
 * waits; a stream's lock may be taken under it. While a lookup is LOOKUP_SENT, its answer belongs
 * to the application client's thread.
 */
#include "auth/app_client.h"

#include <pthread.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "auth/app_api.h"
#include "auth/app_http.h"
#include "auth/recognized.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash_table.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/thread.h"

#define TURN_MS     1000  /* longest sleep */
#define PAUSE_MS    2000  /* without requests after the application was unreachable */
#define NO_KEPT_MS  1000  /* longest time that a negative answer is kept */
#define KNOWN_MAX   16384 /* positive answers that are kept, and as many negative ones */
#define WARN_MS     60000 /* between two warnings */

/* A lookup is given up once its time in the queue is this many times the time it has left. */
#define QUEUE_SHARE 3

LIST_HEAD(waiter_list, waiter);
TAILQ_HEAD(lookup_list, lookup);

/* A query's wait for one lookup. */
struct waiter {
	LIST_ENTRY(waiter) link;
	struct app_query *query;
	struct lookup *lookup; /* NULL once answered */
	int offset;            /* of the lookup's ids in the query's */
};

struct app_query {
	struct app_client *app_client;
	struct stream *stream;
	enum app_query_answer answer;
	int unanswered; /* waiters */
	int64_t sent_at; /* when the first of the answered lookups was sent */
	char user[CHANNEL_ID_MAX + 1];
	int32_t *ids; /* of all parts; once answered, 0 without access; NULL: about the user */
	int count;    /* of ids: up to WATCH_LIST_MAX */
	int chunks; /* a chunk: up to APP_IDS_MAX ids of a part, or the user; one lookup */
	struct waiter waiters[]; /* one for each chunk */
};

enum lookup_state { LOOKUP_QUEUED, LOOKUP_SENT, LOOKUP_KNOWN };

struct lookup {
	UT_hash_handle hh;
	uint8_t key[SHA256_DIGEST_LENGTH];
	enum lookup_state state;
	TAILQ_ENTRY(lookup) link; /* in a queue, or in a list of known ones, the oldest first */
	bool preferred;    /* which queue */
	int64_t queued_at; /* clock_ms() */
	struct waiter_list waiters; /* one for each connection that makes this query */
	struct credentials *credentials; /* until it is known */
	bool stale; /* not in the table any more: the answer is for those already waiting */
	/* clock_ms(): the latest deadline of a waiter; once known, when QUERY_CACHED expires. */
	int64_t until;
	int64_t sent_at;
	enum app_answer answer;
	char *user; /* the answer; owned */
	enum app_check check;
	int count;     /* of ids; 0 with CHECK_USER */
	int32_t ids[]; /* up to APP_IDS_MAX; once known, 0 where the user has no access */
};

struct known {
	struct lookup_list lookups;
	int count;
};

struct app_client {
	const struct settings *settings;
	pthread_t thread;
	struct app_http *http;

	pthread_mutex_t lock; /* everything down to stop_done */
	struct lookup *table; /* those in the queues, in flight, and known */
	/*
	 * By preferred, the oldest first. A query waits for each: one of up to twice
	 * TPI_APP_PENDING requests that wait for their user, or of a request or stream that holds a
	 * slot of the tenant, each with up to 8 (500 ids in chunks of 100, of up to 4 kinds).
	 */
	struct lookup_list queues[2];
	struct known known[2]; /* by their answer: APP_YES, APP_NO; up to KNOWN_MAX each */
	struct recognized recognized; /* up to RECOGNIZED_MAX */
	int sent; /* lookups that are LOOKUP_SENT, up to TPI_APP_CONCURRENCY */
	int64_t paused_until;
	bool stopping, stopped;
	pthread_cond_t stop_done;

	/* Of the application client's thread. */
	struct log_limit warned, forbidden, given_up;
	bool failing;        /* a warning was written since the last answer */
	int64_t answered_at; /* clock_ms() of the last complete response, right or wrong */
};

static void
lookup_free(struct lookup *lookup)
{
	credentials_release(lookup->credentials);
	free(lookup->user);
	free(lookup);
}

/* Removes and frees a lookup for which no query waits. The lock is held. */
static void
lookup_drop(struct app_client *client, struct lookup *lookup)
{
	if (!lookup->stale)
		HASH_DEL(client->table, lookup);
	if (lookup->state == LOOKUP_QUEUED)
		TAILQ_REMOVE(&client->queues[lookup->preferred], lookup, link);
	if (lookup->state == LOOKUP_KNOWN) {
		TAILQ_REMOVE(&client->known[lookup->answer].lookups, lookup, link);
		client->known[lookup->answer].count--;
	}
	lookup_free(lookup);
}

/* The lock is held. */
static void
settle(struct app_query *q, enum app_query_answer answer)
{
	q->answer = answer;
	stream_mark(q->stream, STREAM_ANSWERED);
}

/* Gives a query the lookup's answer. The lock is held. */
static void
notify(struct waiter *w, const struct lookup *lookup)
{
	struct app_query *q = w->query;
	int i;

	w->lookup = NULL;
	q->unanswered--;
	if (lookup->sent_at < q->sent_at)
		q->sent_at = lookup->sent_at;
	if (q->answer != QUERY_PENDING)
		return;
	if (lookup->answer == APP_WRONG) {
		settle(q, QUERY_FAILED);
		return;
	}
	if (lookup->count == 0 && lookup->answer == APP_YES)
		strcpy(q->user, lookup->user);
	if (lookup->count > 0)
		memcpy(q->ids + w->offset, lookup->ids, (size_t)lookup->count * sizeof(*q->ids));
	if (q->unanswered > 0)
		return;
	if (q->ids == NULL) {
		settle(q, lookup->answer == APP_YES ? QUERY_YES : QUERY_NO);
		return;
	}
	for (i = 0; i < q->count && q->ids[i] == 0; i++)
		continue;
	settle(q, i < q->count ? QUERY_YES : QUERY_NO);
}

/* The lock is held. */
static void
notify_all(struct lookup *lookup)
{
	struct waiter *w;

	while ((w = LIST_FIRST(&lookup->waiters)) != NULL) {
		LIST_REMOVE(w, link);
		notify(w, lookup);
	}
}

/* No answer: fails the queries that wait; the next one sends a new request. The lock is held. */
static void
lookup_fail(struct app_client *client, struct lookup *lookup)
{
	lookup->answer = APP_WRONG;
	notify_all(lookup);
	lookup_drop(client, lookup);
}

/*
 * Whether a known lookup serves a query; after as for app_query_start(). A re-check uses a negative
 * answer only while it is young: it would end a stream, so a new request is better.
 */
static bool
serves(const struct lookup *lookup, int64_t after, int64_t now)
{
	if (lookup->sent_at <= after)
		return false;
	return now < lookup->until || (after != QUERY_CACHED && lookup->answer == APP_YES);
}

/* Whether a known lookup can serve no query any more. */
static bool
expired(const struct app_client *client, const struct lookup *lookup, int64_t now)
{
	int64_t recheck_ms = (int64_t)client->settings->recheck_seconds * 1000;

	return now >= lookup->until &&
	    (lookup->answer == APP_NO || now >= lookup->sent_at + recheck_ms);
}

/* Keeps an answer, and drops those that have expired or exceed KNOWN_MAX. The lock is held. */
static void
lookup_keep(struct app_client *client, struct lookup *lookup, int64_t now)
{
	int64_t kept_ms = client->settings->app_cache_seconds * 1000;
	struct known *known = &client->known[lookup->answer];
	struct lookup *oldest;

	if (lookup->stale) {
		lookup_drop(client, lookup);
		return;
	}
	if (lookup->answer == APP_NO && kept_ms > NO_KEPT_MS)
		kept_ms = NO_KEPT_MS;
	lookup->state = LOOKUP_KNOWN;
	lookup->until = now + kept_ms;
	TAILQ_INSERT_TAIL(&known->lookups, lookup, link);
	known->count++;
	while ((oldest = TAILQ_FIRST(&known->lookups)) != NULL &&
	    (expired(client, oldest, now) || known->count > KNOWN_MAX))
		lookup_drop(client, oldest);
}

/* Who the user is. */
static const struct app_part user_part = { .check = CHECK_USER };

/* Queries with the same credentials about the same ids have the same key. */
static void
lookup_key(uint8_t key[SHA256_DIGEST_LENGTH], const struct credentials *c,
    const struct app_part *chunk)
{
	const uint8_t check = (uint8_t)chunk->check;
	SHA2_CTX sha;

	SHA256Init(&sha);
	SHA256Update(&sha, c->digest, sizeof(c->digest));
	SHA256Update(&sha, &check, sizeof(check));
	SHA256Update(&sha, (const uint8_t *)chunk->ids, (size_t)chunk->count * sizeof(*chunk->ids));
	SHA256Final(key, &sha);
}

/* The lock is held. NULL: no memory. */
static struct lookup *
lookup_new(struct app_client *client, const uint8_t key[SHA256_DIGEST_LENGTH],
    struct credentials *c, const struct app_part *chunk, bool preferred)
{
	size_t size = (size_t)chunk->count * sizeof(*chunk->ids);
	struct lookup *lookup;

	lookup = calloc(1, sizeof(*lookup) + size);
	if (lookup == NULL)
		return NULL;
	memcpy(lookup->key, key, sizeof(lookup->key));
	HASH_ADD(hh, client->table, key, sizeof(lookup->key), lookup);
	if (lookup->hh.tbl == NULL) {
		free(lookup);
		return NULL;
	}
	lookup->check = chunk->check;
	lookup->count = chunk->count;
	if (size > 0)
		memcpy(lookup->ids, chunk->ids, size);
	lookup->credentials = credentials_hold(c);
	LIST_INIT(&lookup->waiters);
	lookup->queued_at = clock_ms();
	lookup->preferred = preferred;
	TAILQ_INSERT_TAIL(&client->queues[preferred], lookup, link);
	return lookup;
}

/* Makes a queued lookup preferred. The lock is held. */
static void
prefer(struct app_client *client, struct lookup *lookup)
{
	if (lookup->state != LOOKUP_QUEUED || lookup->preferred)
		return;
	TAILQ_REMOVE(&client->queues[false], lookup, link);
	lookup->preferred = true;
	TAILQ_INSERT_TAIL(&client->queues[true], lookup, link);
}

/* Whether the user is already known; "after" is as for app_query_start(). The lock is held. */
static bool
is_preferred(const struct app_client *client, const struct credentials *c, enum app_check check,
    int64_t after)
{
	return check != CHECK_USER || after != QUERY_CACHED ||
	    recognized_has(&client->recognized, c->digest);
}

static void
count_query(enum metric_source from, const struct app_part *chunk)
{
	static const char *const names[] = {
		[SOURCE_APPLICATION] = "application",
		[SOURCE_IN_FLIGHT] = "request in flight",
		[SOURCE_CACHE] = "cache",
		[SOURCE_NONE] = "none",
	};
	char message[32];

	metric_add_label(METRIC_APP_QUERIES, from);
	snprintf(message, sizeof(message), "%s query", app_check_name(chunk->check));
	LOG(LOG_LEVEL_DEBUG, "app", message, LOG_STR("from", names[from]),
	    LOG_INT("ids", chunk->count));
}

/* Makes a waiter wait for a lookup, or answers it at once. The lock is held. */
static void
await(struct app_client *client, struct waiter *w, struct credentials *c,
    const struct app_part *chunk, int64_t after, int64_t deadline)
{
	uint8_t key[SHA256_DIGEST_LENGTH];
	int64_t now = clock_ms();
	bool paused = now < client->paused_until;
	bool preferred = is_preferred(client, c, chunk->check, after);
	struct lookup *lookup;

	lookup_key(key, c, chunk);
	HASH_FIND(hh, client->table, key, SHA256_DIGEST_LENGTH, lookup);
	if (lookup != NULL && lookup->state == LOOKUP_KNOWN) {
		if (serves(lookup, after, now)) {
			count_query(SOURCE_CACHE, chunk);
			notify(w, lookup);
			return;
		}
		/* In a pause no request would replace it, and it may still serve others. */
		if (!paused)
			lookup_drop(client, lookup);
		lookup = NULL;
	}
	if (lookup != NULL) {
		count_query(SOURCE_IN_FLIGHT, chunk);
		if (preferred)
			prefer(client, lookup);
	} else if (!paused) {
		count_query(SOURCE_APPLICATION, chunk);
		lookup = lookup_new(client, key, c, chunk, preferred);
	} else
		count_query(SOURCE_NONE, chunk);
	if (lookup == NULL) {
		settle(w->query, QUERY_FAILED);
		return;
	}
	w->lookup = lookup;
	LIST_INSERT_HEAD(&lookup->waiters, w, link);
	if (lookup->state == LOOKUP_QUEUED && lookup->until < deadline)
		lookup->until = deadline;
}

/* How many lookups these parts take. */
static int
count_chunks(const struct app_part *parts, int part_count)
{
	int i, chunks = 0;

	for (i = 0; i < part_count; i++)
		chunks += (parts[i].count + APP_IDS_MAX - 1) / APP_IDS_MAX;
	return chunks > 0 ? chunks : 1;
}

static struct app_query *
query_new(struct app_client *client, const struct app_part *parts, int part_count,
    struct stream *stream)
{
	int i, chunks = count_chunks(parts, part_count);
	struct app_query *q;

	q = calloc(1, sizeof(*q) + (size_t)chunks * sizeof(q->waiters[0]));
	if (q == NULL)
		return NULL;
	q->app_client = client;
	q->stream = stream;
	q->chunks = q->unanswered = chunks;
	q->sent_at = INT64_MAX;
	for (i = 0; i < part_count; i++)
		q->count += parts[i].count;
	for (i = 0; i < chunks; i++)
		q->waiters[i].query = q;
	if (q->count == 0)
		return q;
	q->ids = malloc((size_t)q->count * sizeof(*q->ids));
	if (q->ids == NULL) {
		free(q);
		return NULL;
	}
	return q;
}

/* Waits for all chunks of a part; waiter and offset are those of the first. The lock is held. */
static struct waiter *
await_part(struct app_query *q, struct waiter *w, int offset, struct credentials *c,
    const struct app_part *part, int64_t after, int64_t deadline)
{
	struct app_part chunk = { .check = part->check };
	int i;

	for (i = 0; i < part->count && q->answer != QUERY_FAILED; i += chunk.count, w++) {
		chunk.ids = part->ids + i;
		chunk.count = part->count - i < APP_IDS_MAX ? part->count - i : APP_IDS_MAX;
		memcpy(q->ids + offset + i, chunk.ids, (size_t)chunk.count * sizeof(*q->ids));
		w->offset = offset + i;
		await(q->app_client, w, c, &chunk, after, deadline);
	}
	return w;
}

/* The lock is held. */
static bool
queues_empty(const struct app_client *client)
{
	return TAILQ_EMPTY(&client->queues[true]) && TAILQ_EMPTY(&client->queues[false]);
}

struct app_query *
app_query_start(struct app_client *client, struct credentials *c, const struct app_part *parts,
    int part_count, int64_t after, struct stream *stream, int64_t deadline)
{
	struct waiter *w;
	struct app_query *q;
	int i, offset = 0;
	bool wake;

	q = query_new(client, parts, part_count, stream);
	if (q == NULL)
		return NULL;
	w = q->waiters;
	pthread_mutex_lock(&client->lock);
	wake = queues_empty(client);
	if (part_count == 0)
		await(client, w, c, &user_part, after, deadline);
	for (i = 0; i < part_count; offset += parts[i++].count)
		w = await_part(q, w, offset, c, &parts[i], after, deadline);
	wake &= !queues_empty(client) && client->sent < client->settings->app_concurrency;
	pthread_mutex_unlock(&client->lock);
	if (wake)
		app_http_wake(client->http);
	return q;
}

enum app_query_answer
app_query_answer(struct app_query *q)
{
	enum app_query_answer answer;

	pthread_mutex_lock(&q->app_client->lock);
	answer = q->answer;
	pthread_mutex_unlock(&q->app_client->lock);
	return answer;
}

int64_t
app_query_sent_at(const struct app_query *q)
{
	return q->sent_at;
}

const char *
app_query_user(const struct app_query *q)
{
	return q->user;
}

int
app_query_filter(const struct app_query *q, int at, int32_t *ids, int count)
{
	int i, kept = 0;

	for (i = at; i < at + count; i++)
		if (q->ids[i] != 0)
			ids[kept++] = q->ids[i];
	return kept;
}

void
app_query_free(struct app_query *q)
{
	int i;
	struct lookup *lookup;

	if (q == NULL)
		return;
	pthread_mutex_lock(&q->app_client->lock);
	for (i = 0; i < q->chunks; i++) {
		lookup = q->waiters[i].lookup;
		if (lookup == NULL)
			continue;
		LIST_REMOVE(&q->waiters[i], link);
		/* A request in flight continues: the next query may want its answer. */
		if (lookup->state == LOOKUP_QUEUED && LIST_EMPTY(&lookup->waiters))
			lookup_drop(q->app_client, lookup);
	}
	pthread_mutex_unlock(&q->app_client->lock);
	free(q->ids);
	free(q);
}

void
app_client_invalidate(struct app_client *client)
{
	struct lookup *lookup, *next;

	pthread_mutex_lock(&client->lock);
	HASH_ITER(hh, client->table, lookup, next) {
		if (lookup->state == LOOKUP_KNOWN)
			lookup_drop(client, lookup);
		else if (lookup->state == LOOKUP_SENT) {
			HASH_DEL(client->table, lookup);
			lookup->stale = true;
		}
	}
	pthread_mutex_unlock(&client->lock);
}

/* A warning at most once a minute, for all causes. status: of HTTP, 0 without a response. */
static void
log_failure(struct app_client *client, const struct lookup *lookup, const char *error, int status)
{
	uint32_t suppressed;
	bool warn = log_allowed(&client->warned, WARN_MS, &suppressed);
	enum log_level level = warn ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG;
	char text[ERROR_SIZE];
	struct log_field fields[6] = { LOG_STR("url", client->settings->app_url),
		LOG_STR("query", app_check_name(lookup->check)), LOG_STR("error", text),
		LOG_INT("status", status), LOG_END };

	client->failing |= warn;
	/* The rest takes milliseconds with the longest cookies, which anyone can send. */
	if (!log_enabled(level))
		return;
	/* curl's own text may quote the response. */
	snprintf(text, sizeof(text), "%s", error);
	credentials_strike(lookup->credentials, text);
	if (warn)
		fields[4] = (struct log_field)LOG_INT("suppressed", suppressed);
	log_write(level, "app", "cannot query the application", fields);
}

/* A 403 to a query about ids rejects the request as a whole; it says nothing about the ids. */
static bool
is_forbidden(const struct lookup *lookup, const struct app_http_result *result)
{
	return lookup->count > 0 && result->status == 403;
}

/* A warning at most once a minute; log_answer() has a line for each. */
static void
log_forbidden(struct app_client *client, const struct lookup *lookup,
    const struct app_http_result *result)
{
	char reason[APP_REASON_SIZE];
	uint32_t suppressed;

	if (!log_allowed(&client->forbidden, WARN_MS, &suppressed))
		return;
	app_api_read_reason(result->body, result->length, lookup->credentials, reason);
	LOG(LOG_LEVEL_WARN, "app", "query forbidden", LOG_STR("url", client->settings->app_url),
	    LOG_INT("status", result->status),
	    LOG_STR("reason", reason[0] != '\0' ? reason : NULL), LOG_INT("suppressed", suppressed),
	    LOG_STR("secFetchSite", credentials_site(lookup->credentials)));
}

static void
log_answer(struct app_client *client, const struct lookup *lookup, int status, int64_t now)
{
	char message[32];

	snprintf(message, sizeof(message), "%s answer", app_check_name(lookup->check));
	LOG(LOG_LEVEL_DEBUG, "app", message,
	    LOG_STR("answer", lookup->answer == APP_YES ? "yes" : "no"),
	    LOG_STR("userId", lookup->user), LOG_INT("status", status),
	    LOG_INT("ms", now - lookup->sent_at));
	if (client->failing)
		LOG(LOG_LEVEL_INFO, "app", "the application answers again",
		    LOG_STR("url", client->settings->app_url));
	client->failing = false;
}

/* Reads the response into the lookup. NULL, or why it is unusable. */
static const char *
read_answer(struct lookup *lookup, const struct app_http_result *result)
{
	char user[CHANNEL_ID_MAX + 1];
	const char *wrong = result->error;

	if (result->status == 0)
		lookup->answer = APP_WRONG;
	else if (lookup->count > 0)
		lookup->answer = app_api_read_ids(result->status, result->body, result->length,
		    lookup->ids, lookup->count, &wrong);
	else
		lookup->answer = app_api_read_session(result->status, result->body, result->length,
		    user, &wrong);
	if (lookup->count == 0 && lookup->answer == APP_YES) {
		lookup->user = strdup(user);
		if (lookup->user == NULL) {
			lookup->answer = APP_WRONG;
			wrong = "out of memory";
		}
	}
	return lookup->answer == APP_WRONG ? wrong : NULL;
}

/* wrong: as from read_answer(). */
static enum metric_result
counted_as(const struct lookup *lookup, const struct app_http_result *result, const char *wrong)
{
	if (result->status == 0)
		return RESULT_FAILED;
	if (wrong != NULL)
		return RESULT_WRONG;
	if (is_forbidden(lookup, result))
		return RESULT_FORBIDDEN;
	return lookup->answer == APP_YES ? RESULT_YES : RESULT_NO;
}

/*
 * Whether the application seems to be unreachable. A timeout after less than half of
 * TPI_APP_TIMEOUT_MS, because the rest was spent in a queue or on an earlier query, is no evidence.
 * Neither is a failure of a request during which the application answered another.
 */
static bool
is_dead(const struct app_client *client, const struct lookup *lookup,
    const struct app_http_result *result, int64_t now)
{
	if (client->answered_at > lookup->sent_at)
		return false;
	return result->dead || (result->timed_out &&
	    now - lookup->sent_at >= client->settings->app_timeout_ms / 2);
}

/* The lock is held. */
static void
remember_user(struct app_client *client, const struct lookup *lookup)
{
	if (lookup->count == 0 && lookup->answer == APP_YES)
		recognized_add(&client->recognized, lookup->credentials->digest, lookup->user);
	else if (lookup->count == 0 && lookup->answer == APP_NO)
		recognized_remove(&client->recognized, lookup->credentials->digest);
}

/* The lock is held. */
static void
pause_queries(struct app_client *client, int64_t now)
{
	struct lookup *lookup;
	int i;

	if (now >= client->paused_until)
		metric_add(METRIC_APP_PAUSES, 1);
	client->paused_until = now + PAUSE_MS;
	for (i = 0; i < 2; i++)
		while ((lookup = TAILQ_FIRST(&client->queues[i])) != NULL)
			lookup_fail(client, lookup);
}

/* Called by app_http_turn(). */
static void
on_done(void *arg, void *request, const struct app_http_result *result)
{
	struct app_client *client = arg;
	struct lookup *lookup = request;
	int64_t now = clock_ms();
	const char *wrong;
	bool dead;

	dead = is_dead(client, lookup, result, now);
	if (result->status != 0)
		client->answered_at = now;
	wrong = read_answer(lookup, result);
	metric_add_label(METRIC_APP_REQUESTS, counted_as(lookup, result, wrong));
	if (wrong != NULL)
		log_failure(client, lookup, wrong, result->status);
	else
		log_answer(client, lookup, result->status, now);
	if (is_forbidden(lookup, result))
		log_forbidden(client, lookup, result);
	pthread_mutex_lock(&client->lock);
	client->sent--;
	remember_user(client, lookup);
	credentials_release(lookup->credentials);
	lookup->credentials = NULL;
	if (wrong != NULL)
		lookup_fail(client, lookup);
	else {
		notify_all(lookup);
		lookup_keep(client, lookup, now);
	}
	if (dead)
		pause_queries(client, now);
	pthread_mutex_unlock(&client->lock);
}

/* Gives up a queued lookup, with a warning at most once a minute. The lock is held. */
static void
give_up(struct app_client *client, struct lookup *lookup)
{
	uint32_t suppressed;

	if (log_allowed(&client->given_up, WARN_MS, &suppressed))
		LOG(LOG_LEVEL_WARN, "app", "query given up in the queue",
		    LOG_STR("url", client->settings->app_url),
		    LOG_STR("query", app_check_name(lookup->check)),
		    LOG_STR("user", lookup->preferred ? "known" : "unknown"),
		    LOG_INT("suppressed", suppressed));
	lookup_fail(client, lookup);
}

/*
 * The next lookup to send; NULL if the queues are empty. Gives up those that have little time left:
 * their timeout would not show that the application is unreachable. The lock is held.
 */
static struct lookup *
next_lookup(struct app_client *client, int64_t now)
{
	struct lookup *lookup, *first = NULL;
	int i;

	for (i = 0; i < 2; i++) {
		while ((lookup = TAILQ_FIRST(&client->queues[i])) != NULL &&
		    now - lookup->queued_at >= QUEUE_SHARE * (lookup->until - now))
			give_up(client, lookup);
		/* The preferred queue is the second one here. */
		if (lookup != NULL)
			first = lookup;
	}
	return first;
}

/* Takes the next lookup from a queue; NULL if none can be sent now. */
static struct lookup *
take(struct app_client *client, int64_t now)
{
	struct lookup *lookup;

	pthread_mutex_lock(&client->lock);
	lookup = next_lookup(client, now);
	if (lookup != NULL && client->sent < client->settings->app_concurrency) {
		TAILQ_REMOVE(&client->queues[lookup->preferred], lookup, link);
		lookup->state = LOOKUP_SENT;
		lookup->sent_at = now;
		client->sent++;
	} else
		lookup = NULL;
	pthread_mutex_unlock(&client->lock);
	return lookup;
}

static void
send_request(struct app_client *client, struct lookup *lookup, int64_t now)
{
	static const struct app_http_result failed = { .error = "out of memory" };
	char target[APP_TARGET_SIZE] = APP_SESSION_TARGET;

	if (lookup->count > 0)
		app_api_target(target, lookup->check, lookup->ids, lookup->count);
	if (!app_http_start(client->http, target, lookup->credentials->lines,
		lookup->credentials->size, lookup->until - now, lookup))
		on_done(client, lookup, &failed);
}

static void *
app_client_run(void *arg)
{
	struct app_client *client = arg;
	struct lookup *lookup;
	bool stopping = false;
	int64_t now;

	while (!stopping) {
		now = clock_ms();
		while ((lookup = take(client, now)) != NULL)
			send_request(client, lookup, now);
		app_http_turn(client->http, TURN_MS);
		pthread_mutex_lock(&client->lock);
		stopping = client->stopping;
		pthread_mutex_unlock(&client->lock);
	}
	pthread_mutex_lock(&client->lock);
	client->stopped = true;
	pthread_cond_signal(&client->stop_done);
	pthread_mutex_unlock(&client->lock);
	return NULL;
}

struct app_client *
app_client_start(const struct settings *s)
{
	struct app_client *client;

	client = calloc(1, sizeof(*client));
	if (client == NULL)
		return NULL;
	client->settings = s;
	pthread_mutex_init(&client->lock, NULL);
	thread_cond_init(&client->stop_done);
	TAILQ_INIT(&client->queues[false]);
	TAILQ_INIT(&client->queues[true]);
	recognized_init(&client->recognized);
	TAILQ_INIT(&client->known[APP_YES].lookups);
	TAILQ_INIT(&client->known[APP_NO].lookups);
	/* Nothing is undone on failure, because the process then exits. */
	client->http = app_http_new(s, on_done, client);
	if (client->http == NULL ||
	    thread_start_joinable(&client->thread, app_client_run, client) != 0)
		return NULL;
	return client;
}

bool
app_client_paused(struct app_client *client)
{
	bool paused;

	pthread_mutex_lock(&client->lock);
	paused = clock_ms() < client->paused_until;
	pthread_mutex_unlock(&client->lock);
	return paused;
}

bool
app_client_recognizes(struct app_client *client, const struct credentials *c)
{
	bool recognized;

	pthread_mutex_lock(&client->lock);
	recognized = recognized_has(&client->recognized, c->digest);
	pthread_mutex_unlock(&client->lock);
	return recognized;
}

bool
app_client_has_user(struct app_client *client, const struct credentials *c)
{
	uint8_t key[SHA256_DIGEST_LENGTH];
	struct lookup *lookup;
	bool has;

	lookup_key(key, c, &user_part);
	pthread_mutex_lock(&client->lock);
	HASH_FIND(hh, client->table, key, sizeof(key), lookup);
	has = lookup != NULL && lookup->state == LOOKUP_KNOWN &&
	    serves(lookup, QUERY_CACHED, clock_ms());
	pthread_mutex_unlock(&client->lock);
	return has;
}

bool
app_client_stop(struct app_client *client, int timeout_ms)
{
	int64_t deadline = clock_ms() + timeout_ms;
	bool stopped;

	pthread_mutex_lock(&client->lock);
	client->stopping = true;
	app_http_wake(client->http);
	while (!client->stopped && thread_cond_wait(&client->stop_done, &client->lock, deadline))
		continue;
	stopped = client->stopped;
	pthread_mutex_unlock(&client->lock);
	/* Wait for the last steps of the thread, too. */
	if (stopped)
		pthread_join(client->thread, NULL);
	else
		pthread_detach(client->thread);
	return stopped;
}
