/*
 * gate: questions, the requests that they come down to, and the answers that are kept. See gate.h.
 *
 * A fact is one thing that the application is asked: by whom, and who he is or which of up to 100
 * projects he may read. It is in the table from the first question until its answer is no longer
 * kept: FACT_QUEUED, then FACT_ASKED, then FACT_KNOWN. A revocation takes out what has been asked. A
 * question waits for one fact, or, with many projects, for a few.
 *
 * The lock guards the table, the lists and every question's answer; it is held across nothing that
 * waits, and a stream's lock is taken under it. While a fact is FACT_ASKED its answer belongs to the
 * gate's thread.
 */
#include "auth/app_client.h"

#include <pthread.h>
#include <sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "auth/app_api.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "auth/app_http.h"
#include "base/log.h"
#include "base/thread.h"

#define TURN_MS     1000  /* longest sleep */
#define PAUSE_MS    2000  /* after the application was found dead */
#define NO_KEPT_MS  1000  /* longest time that a no is kept */
#define KNOWN_MAX   16384 /* answers of a kind (yes, no) that are kept */
#define WARN_MS     60000 /* between two warnings */

LIST_HEAD(waiter_list, waiter);
TAILQ_HEAD(fact_list, fact);

/* A question's wait for one fact. */
struct waiter {
	LIST_ENTRY(waiter) link;
	struct question *question;
	struct fact *fact; /* NULL: has been told */
	int offset;        /* of the fact's projects in the question's */
};

struct question {
	struct gate *gate;
	struct stream *asker;
	enum gate_answer answer;
	int untold; /* waiters */
	int64_t asked_at; /* of the first of the facts that have been told */
	char user[CHANNEL_ID_MAX + 1];
	int32_t *projects; /* NULL: who is it? */
	int count;         /* of projects */
	struct waiter waiters[];
};

enum fact_state { FACT_QUEUED, FACT_ASKED, FACT_KNOWN };

struct fact {
	UT_hash_handle hh;
	uint8_t key[SHA256_DIGEST_LENGTH];
	enum fact_state state;
	TAILQ_ENTRY(fact) link; /* of the queue, or of its list of those known, the oldest first */
	struct waiter_list waiters;
	struct credentials *credentials; /* until it is known */
	bool stale; /* no longer in the table: its answer is for those who wait already */
	/*
	 * clock_ms(): the latest deadline of a waiter; once known, the end of its use for
	 * GATE_CACHED.
	 */
	int64_t until;
	int64_t asked_at;
	enum app_answer answer;
	char *user;         /* the answer; owned */
	int count;          /* of projects; 0: who is it? */
	int32_t projects[]; /* once known, 0 in place of what may not be read */
};

struct known {
	struct fact_list facts;
	int count;
};

struct gate {
	const struct settings *settings;
	pthread_t thread;
	struct fetch *fetch;

	pthread_mutex_t lock; /* everything down to stop_done */
	struct fact *table;
	struct fact_list queue;
	struct known known[2]; /* by their answer: APP_YES, APP_NO */
	int asked; /* facts that are FACT_ASKED */
	int64_t paused_until;
	bool stopping, stopped;
	pthread_cond_t stop_done;

	/* Of the gate's thread. */
	struct log_limit warned, forbidden;
	bool failing;        /* a warning was written since the last answer */
	int64_t answered_at; /* clock_ms() of the last whole answer, right or wrong */
};

static void
fact_free(struct fact *fact)
{
	credentials_release(fact->credentials);
	free(fact->user);
	free(fact);
}

/* Out of the table, unknown to anybody. The lock is held; nobody waits for it. */
static void
fact_drop(struct gate *g, struct fact *fact)
{
	if (!fact->stale)
		HASH_DEL(g->table, fact);
	if (fact->state == FACT_QUEUED)
		TAILQ_REMOVE(&g->queue, fact, link);
	if (fact->state == FACT_KNOWN) {
		TAILQ_REMOVE(&g->known[fact->answer].facts, fact, link);
		g->known[fact->answer].count--;
	}
	fact_free(fact);
}

/* The lock is held. */
static void
settle(struct question *q, enum gate_answer answer)
{
	q->answer = answer;
	stream_mark(q->asker, STREAM_ANSWERED);
}

/* Tells a question what the fact says. The lock is held. */
static void
tell(struct waiter *w, const struct fact *fact)
{
	struct question *q = w->question;
	int i;

	w->fact = NULL;
	q->untold--;
	if (fact->asked_at < q->asked_at)
		q->asked_at = fact->asked_at;
	if (q->answer != GATE_PENDING)
		return;
	if (fact->answer == APP_WRONG) {
		settle(q, GATE_LATER);
		return;
	}
	if (fact->count == 0 && fact->answer == APP_YES)
		strcpy(q->user, fact->user);
	if (fact->count > 0)
		memcpy(q->projects + w->offset, fact->projects,
		    (size_t)fact->count * sizeof(*q->projects));
	if (q->untold > 0)
		return;
	if (q->projects == NULL) {
		settle(q, fact->answer == APP_YES ? GATE_YES : GATE_NO);
		return;
	}
	for (i = 0; i < q->count && q->projects[i] == 0; i++)
		continue;
	settle(q, i < q->count ? GATE_YES : GATE_NO);
}

/* The lock is held. */
static void
tell_all(struct fact *fact)
{
	struct waiter *w;

	while ((w = LIST_FIRST(&fact->waiters)) != NULL) {
		LIST_REMOVE(w, link);
		tell(w, fact);
	}
}

/* No answer: whoever waits is told so, and the next to ask asks anew. The lock is held. */
static void
fact_fail(struct gate *g, struct fact *fact)
{
	fact->answer = APP_WRONG;
	tell_all(fact);
	fact_drop(g, fact);
}

/*
 * Whether a fact that is known serves a question; after as for gate_ask(). A re-check takes a no
 * only while it is young: it ends a stream, so it is better asked for again.
 */
static bool
serves(const struct fact *fact, int64_t after, int64_t now)
{
	if (fact->asked_at <= after)
		return false;
	return now < fact->until || (after != GATE_CACHED && fact->answer == APP_YES);
}

/* Whether a fact that is known can serve nobody any more. */
static bool
expired(const struct gate *g, const struct fact *fact, int64_t now)
{
	int64_t recheck_ms = (int64_t)g->settings->recheck_seconds * 1000;

	return now >= fact->until &&
	    (fact->answer == APP_NO || now >= fact->asked_at + recheck_ms);
}

/* Keeps an answer, and as many others as there is room for. The lock is held. */
static void
fact_keep(struct gate *g, struct fact *fact, int64_t now)
{
	int64_t kept_ms = g->settings->app_cache_seconds * 1000;
	struct known *known = &g->known[fact->answer];
	struct fact *oldest;

	if (fact->stale) {
		fact_drop(g, fact);
		return;
	}
	if (fact->answer == APP_NO && kept_ms > NO_KEPT_MS)
		kept_ms = NO_KEPT_MS;
	fact->state = FACT_KNOWN;
	fact->until = now + kept_ms;
	TAILQ_INSERT_TAIL(&known->facts, fact, link);
	known->count++;
	while ((oldest = TAILQ_FIRST(&known->facts)) != NULL &&
	    (expired(g, oldest, now) || known->count > KNOWN_MAX))
		fact_drop(g, oldest);
}

/* What the same credentials ask of the same projects has the same key. */
static void
fact_key(uint8_t key[SHA256_DIGEST_LENGTH], const struct credentials *c, const int32_t *projects,
    int count)
{
	SHA2_CTX sha;

	SHA256Init(&sha);
	SHA256Update(&sha, c->digest, sizeof(c->digest));
	SHA256Update(&sha, (const uint8_t *)projects, (size_t)count * sizeof(*projects));
	SHA256Final(key, &sha);
}

/* The lock is held. NULL: no memory. */
static struct fact *
fact_new(struct gate *g, const uint8_t key[SHA256_DIGEST_LENGTH], struct credentials *c,
    const int32_t *projects, int count)
{
	size_t size = (size_t)count * sizeof(*projects);
	struct fact *fact;

	fact = calloc(1, sizeof(*fact) + size);
	if (fact == NULL)
		return NULL;
	memcpy(fact->key, key, sizeof(fact->key));
	HASH_ADD(hh, g->table, key, sizeof(fact->key), fact);
	if (fact->hh.tbl == NULL) {
		free(fact);
		return NULL;
	}
	fact->count = count;
	if (count > 0)
		memcpy(fact->projects, projects, size);
	fact->credentials = credentials_hold(c);
	LIST_INIT(&fact->waiters);
	TAILQ_INSERT_TAIL(&g->queue, fact, link);
	return fact;
}

static void
note(enum counter_source from, int count)
{
	static const char *const names[] = {
		[SOURCE_APPLICATION] = "application",
		[SOURCE_UNDER_WAY] = "a request under way",
		[SOURCE_CACHE] = "cache",
		[SOURCE_NOBODY] = "nobody",
	};

	counter_add_label(COUNTER_GATE_QUESTIONS, from);
	LOG(LOG_LEVEL_DEBUG, "gate", count > 0 ? "projects asked" : "user asked",
	    LOG_STR("from", names[from]), LOG_INT("projects", count));
}

/* Makes a waiter wait for a fact, or tells it at once. The lock is held. */
static void
await(struct gate *g, struct waiter *w, const uint8_t key[SHA256_DIGEST_LENGTH],
    struct credentials *c, const int32_t *projects, int count, int64_t after, int64_t deadline)
{
	int64_t now = clock_ms();
	bool paused = now < g->paused_until;
	struct fact *fact;

	HASH_FIND(hh, g->table, key, SHA256_DIGEST_LENGTH, fact);
	if (fact != NULL && fact->state == FACT_KNOWN) {
		if (serves(fact, after, now)) {
			note(SOURCE_CACHE, count);
			tell(w, fact);
			return;
		}
		/* In a pause nothing takes its place, and it may still serve others. */
		if (!paused)
			fact_drop(g, fact);
		fact = NULL;
	}
	if (fact != NULL)
		note(SOURCE_UNDER_WAY, count);
	else if (!paused) {
		note(SOURCE_APPLICATION, count);
		fact = fact_new(g, key, c, projects, count);
	} else
		note(SOURCE_NOBODY, count);
	if (fact == NULL) {
		settle(w->question, GATE_LATER);
		return;
	}
	w->fact = fact;
	LIST_INSERT_HEAD(&fact->waiters, w, link);
	if (fact->state == FACT_QUEUED && fact->until < deadline)
		fact->until = deadline;
}

/* How many facts a question about so many projects waits for; one where it is about the user. */
static int
lots_of(int count)
{
	return count > 0 ? (count + APP_LOT - 1) / APP_LOT : 1;
}

static struct question *
question_new(struct gate *g, const int32_t *projects, int count, struct stream *asker)
{
	int i, lots = lots_of(count);
	struct question *q;

	q = calloc(1, sizeof(*q) + (size_t)lots * sizeof(q->waiters[0]));
	if (q == NULL)
		return NULL;
	q->gate = g;
	q->asker = asker;
	q->untold = lots;
	q->asked_at = INT64_MAX;
	for (i = 0; i < lots; i++)
		q->waiters[i] = (struct waiter){ .question = q, .offset = i * APP_LOT };
	if (projects == NULL)
		return q;
	q->count = count;
	q->projects = malloc((size_t)count * sizeof(*projects));
	if (q->projects == NULL) {
		free(q);
		return NULL;
	}
	memcpy(q->projects, projects, (size_t)count * sizeof(*projects));
	return q;
}

struct question *
gate_ask(struct gate *g, struct credentials *c, const int32_t *projects, int count, int64_t after,
    struct stream *asker, int64_t deadline)
{
	uint8_t key[SHA256_DIGEST_LENGTH];
	struct question *q;
	int i, lots = lots_of(count), lot;
	bool wake;

	q = question_new(g, projects, count, asker);
	if (q == NULL)
		return NULL;
	pthread_mutex_lock(&g->lock);
	wake = TAILQ_EMPTY(&g->queue);
	for (i = 0; i < lots && q->answer != GATE_LATER; i++) {
		lot = count - i * APP_LOT;
		if (lot > APP_LOT)
			lot = APP_LOT;
		fact_key(key, c, projects != NULL ? projects + i * APP_LOT : NULL, lot);
		await(g, &q->waiters[i], key, c, projects != NULL ? projects + i * APP_LOT : NULL, lot,
		    after, deadline);
	}
	wake &= !TAILQ_EMPTY(&g->queue) && g->asked < g->settings->app_concurrency;
	pthread_mutex_unlock(&g->lock);
	if (wake)
		fetch_wake(g->fetch);
	return q;
}

enum gate_answer
gate_answer(struct question *q)
{
	enum gate_answer answer;

	pthread_mutex_lock(&q->gate->lock);
	answer = q->answer;
	pthread_mutex_unlock(&q->gate->lock);
	return answer;
}

int64_t
gate_asked_at(const struct question *q)
{
	return q->asked_at;
}

const char *
gate_user(const struct question *q)
{
	return q->user;
}

int
gate_filter(const struct question *q, int32_t *projects)
{
	int i, kept = 0;

	for (i = 0; i < q->count; i++)
		if (q->projects[i] != 0)
			projects[kept++] = q->projects[i];
	return kept;
}

void
gate_forget(struct question *q)
{
	int i, lots;
	struct fact *fact;

	if (q == NULL)
		return;
	lots = lots_of(q->count);
	pthread_mutex_lock(&q->gate->lock);
	for (i = 0; i < lots; i++) {
		fact = q->waiters[i].fact;
		if (fact == NULL)
			continue;
		LIST_REMOVE(&q->waiters[i], link);
		/* A request that has begun goes on: the next to ask may want its answer. */
		if (fact->state == FACT_QUEUED && LIST_EMPTY(&fact->waiters))
			fact_drop(q->gate, fact);
	}
	pthread_mutex_unlock(&q->gate->lock);
	free(q->projects);
	free(q);
}

void
gate_revoke(struct gate *g)
{
	struct fact *fact, *next;

	pthread_mutex_lock(&g->lock);
	HASH_ITER(hh, g->table, fact, next) {
		if (fact->state == FACT_KNOWN)
			fact_drop(g, fact);
		else if (fact->state == FACT_ASKED) {
			HASH_DEL(g->table, fact);
			fact->stale = true;
		}
	}
	pthread_mutex_unlock(&g->lock);
}

/* A warning at most once a minute, however it fails. status: of HTTP, 0 where none came. */
static void
log_failure(struct gate *g, const struct fact *fact, const char *error, int status)
{
	uint32_t suppressed;
	bool warn = log_allowed(&g->warned, WARN_MS, &suppressed);
	struct log_field fields[6] = { LOG_STR("url", g->settings->app_url),
		LOG_STR("question", fact->count > 0 ? "projects" : "user"), LOG_STR("error", error),
		LOG_INT("status", status), LOG_END };

	if (warn)
		fields[4] = (struct log_field)LOG_INT("suppressed", suppressed);
	log_write(warn ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "gate", "the application cannot be asked",
	    fields);
	g->failing |= warn;
}

/* A 403 to a findMany is about who asks, and from where, not about the projects. */
static bool
is_forbidden(const struct fact *fact, const struct fetch_result *result)
{
	return fact->count > 0 && result->status == 403;
}

/* A warning at most once a minute; log_answer() has a line for each. */
static void
log_forbidden(struct gate *g, const struct fact *fact, const struct fetch_result *result)
{
	char reason[APP_REASON_SIZE];
	uint32_t suppressed;

	if (!log_allowed(&g->forbidden, WARN_MS, &suppressed))
		return;
	app_read_reason(result->body, result->length, reason);
	LOG(LOG_LEVEL_WARN, "gate", "query forbidden", LOG_STR("url", g->settings->app_url),
	    LOG_INT("status", result->status),
	    LOG_STR("reason", reason[0] != '\0' ? reason : NULL), LOG_INT("suppressed", suppressed),
	    LOG_STR("secFetchSite", credentials_site(fact->credentials)));
}

static void
log_answer(struct gate *g, const struct fact *fact, int status, int64_t now)
{
	LOG(LOG_LEVEL_DEBUG, "gate", fact->count > 0 ? "projects answered" : "user answered",
	    LOG_STR("answer", fact->answer == APP_YES ? "yes" : "no"), LOG_STR("userId", fact->user),
	    LOG_INT("status", status), LOG_INT("ms", now - fact->asked_at));
	if (g->failing)
		LOG(LOG_LEVEL_INFO, "gate", "the application answers again",
		    LOG_STR("url", g->settings->app_url));
	g->failing = false;
}

/* Reads what came into the fact. NULL, or why it is of no use. */
static const char *
read_answer(struct fact *fact, const struct fetch_result *result)
{
	char user[CHANNEL_ID_MAX + 1];
	const char *wrong = result->error;

	if (result->status == 0)
		fact->answer = APP_WRONG;
	else if (fact->count > 0)
		fact->answer = app_read_projects(result->status, result->body, result->length,
		    fact->projects, fact->count, &wrong);
	else
		fact->answer = app_read_session(result->status, result->body, result->length, user,
		    &wrong);
	if (fact->count == 0 && fact->answer == APP_YES) {
		fact->user = strdup(user);
		if (fact->user == NULL) {
			fact->answer = APP_WRONG;
			wrong = "out of memory";
		}
	}
	return fact->answer == APP_WRONG ? wrong : NULL;
}

/* wrong: as from read_answer(). */
static enum counter_result
counted_as(const struct fact *fact, const struct fetch_result *result, const char *wrong)
{
	if (result->status == 0)
		return RESULT_FAILED;
	if (wrong != NULL)
		return RESULT_WRONG;
	if (is_forbidden(fact, result))
		return RESULT_FORBIDDEN;
	return fact->answer == APP_YES ? RESULT_YES : RESULT_NO;
}

/* Called by fetch_turn(). */
static void
on_done(void *arg, void *request, const struct fetch_result *result)
{
	struct gate *g = arg;
	struct fact *fact = request;
	int64_t now = clock_ms();
	const char *wrong;
	bool dead;

	/* Who answers others meanwhile is not dead: this question alone took too long. */
	dead = result->dead && g->answered_at <= fact->asked_at;
	if (result->status != 0)
		g->answered_at = now;
	wrong = read_answer(fact, result);
	counter_add_label(COUNTER_GATE_REQUESTS, counted_as(fact, result, wrong));
	if (wrong != NULL)
		log_failure(g, fact, wrong, result->status);
	else
		log_answer(g, fact, result->status, now);
	if (is_forbidden(fact, result))
		log_forbidden(g, fact, result);
	pthread_mutex_lock(&g->lock);
	g->asked--;
	credentials_release(fact->credentials);
	fact->credentials = NULL;
	if (wrong != NULL)
		fact_fail(g, fact);
	else {
		tell_all(fact);
		fact_keep(g, fact, now);
	}
	if (dead) {
		if (now >= g->paused_until)
			counter_add(COUNTER_GATE_PAUSES, 1);
		g->paused_until = now + PAUSE_MS;
		while ((fact = TAILQ_FIRST(&g->queue)) != NULL)
			fact_fail(g, fact);
	}
	pthread_mutex_unlock(&g->lock);
}

/* Takes the next fact of the queue; NULL where none is to be asked now. */
static struct fact *
take(struct gate *g, int64_t now)
{
	struct fact *fact;

	pthread_mutex_lock(&g->lock);
	while ((fact = TAILQ_FIRST(&g->queue)) != NULL && fact->until <= now)
		fact_fail(g, fact);
	if (fact != NULL && g->asked < g->settings->app_concurrency) {
		TAILQ_REMOVE(&g->queue, fact, link);
		fact->state = FACT_ASKED;
		fact->asked_at = now;
		g->asked++;
	} else
		fact = NULL;
	pthread_mutex_unlock(&g->lock);
	return fact;
}

static void
ask(struct gate *g, struct fact *fact, int64_t now)
{
	static const struct fetch_result failed = { .error = "out of memory" };
	char target[APP_PROJECTS_TARGET_SIZE] = APP_SESSION_TARGET;

	if (fact->count > 0)
		app_projects_target(target, fact->projects, fact->count);
	if (!fetch_start(g->fetch, target, fact->credentials->lines, fact->credentials->size,
		fact->until - now, fact))
		on_done(g, fact, &failed);
}

static void *
gate_run(void *arg)
{
	struct gate *g = arg;
	struct fact *fact;
	bool stopping = false;
	int64_t now;

	while (!stopping) {
		now = clock_ms();
		while ((fact = take(g, now)) != NULL)
			ask(g, fact, now);
		fetch_turn(g->fetch, TURN_MS);
		pthread_mutex_lock(&g->lock);
		stopping = g->stopping;
		pthread_mutex_unlock(&g->lock);
	}
	pthread_mutex_lock(&g->lock);
	g->stopped = true;
	pthread_cond_signal(&g->stop_done);
	pthread_mutex_unlock(&g->lock);
	return NULL;
}

struct gate *
gate_start(const struct settings *s)
{
	struct gate *g;

	g = calloc(1, sizeof(*g));
	if (g == NULL)
		return NULL;
	g->settings = s;
	pthread_mutex_init(&g->lock, NULL);
	thread_cond_init(&g->stop_done);
	TAILQ_INIT(&g->queue);
	TAILQ_INIT(&g->known[APP_YES].facts);
	TAILQ_INIT(&g->known[APP_NO].facts);
	/* The process ends when this fails: nothing is undone. */
	g->fetch = fetch_new(s, on_done, g);
	if (g->fetch == NULL || thread_start_joinable(&g->thread, THREAD_LARGE, gate_run, g) != 0)
		return NULL;
	return g;
}

bool
gate_paused(struct gate *g)
{
	bool paused;

	pthread_mutex_lock(&g->lock);
	paused = clock_ms() < g->paused_until;
	pthread_mutex_unlock(&g->lock);
	return paused;
}

bool
gate_stop(struct gate *g, int timeout_ms)
{
	int64_t deadline = clock_ms() + timeout_ms;
	bool stopped;

	pthread_mutex_lock(&g->lock);
	g->stopping = true;
	fetch_wake(g->fetch);
	while (!g->stopped && thread_cond_wait(&g->stop_done, &g->lock, deadline))
		continue;
	stopped = g->stopped;
	pthread_mutex_unlock(&g->lock);
	/* What the thread leaves for its very end is waited for, too. */
	if (stopped)
		pthread_join(g->thread, NULL);
	else
		pthread_detach(g->thread);
	return stopped;
}
