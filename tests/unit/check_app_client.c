/* SPDX-License-Identifier: ISC */
/*
 * check_app_client: which requests the application gets, how often, and what happens to the responses.
 *
 * This program has its own app_http_ functions, which record the requests and answer them when a test
 * says so. The clock stands still until a test advances it. settle() waits until the application
 * client's thread is idle: a request that it has not made by then it will not make.
 */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "auth/app_api.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "auth/app_http.h"
#include "auth/app_client.h"
#include "base/log.h"
#include "fcgi/request.h"
#include "base/thread.h"
#include "fake_clock.h"

#define LONG_MS      10000 /* longer than anything in these tests */
#define TIMEOUT_MS   2000  /* from a query to its deadline */
#define KNOWN_MAX    16384 /* responses of a kind in the cache */
#define REQUESTS_MAX (KNOWN_MAX + 64)
#define USERS_MAX    (KNOWN_MAX + 1)
#define STREAMS      8
#define MANY         500 /* ids in one query */

#define SESSION(user) "{\"user\":{\"id\":\"" user "\"}}"

/* ---- The clock */

static _Atomic int64_t now;

static int64_t
read_now(void)
{
	return now;
}

static int64_t
real_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- The stand-in for app_http.c */

/* The arguments of an app_http_start(). */
struct sent {
	char *target, *lines; /* owned; '|' ends each line */
	int64_t timeout_ms;
	void *request; /* NULL after the response */
};

struct app_http {
	const struct settings *settings;
	app_http_done *done;
	void *arg;

	/* Set by a test: */
	_Atomic bool stuck;   /* app_http_turn() does not return */
	_Atomic bool prompt;  /* every request is answered in the next turn */
	_Atomic int refused;  /* that many calls of app_http_start() fail for lack of memory */

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t changed;
	bool waiting; /* in app_http_turn() */
	bool woken;
	bool has_result;
	int number;   /* of the request that result is for */
	struct app_http_result result;
	struct sent sent[REQUESTS_MAX];
	int count;
};

static struct app_http http;

struct app_http *
app_http_new(const struct settings *s, app_http_done *done, void *arg)
{
	http.settings = s;
	http.done = done;
	http.arg = arg;
	pthread_mutex_init(&http.lock, NULL);
	thread_cond_init(&http.changed);
	return &http;
}

bool
app_http_start(struct app_http *h, const char *target, const char *lines, size_t size,
    int64_t timeout_ms, void *request)
{
	struct sent *a;

	pthread_mutex_lock(&h->lock);
	if (h->refused > 0) {
		h->refused--;
		pthread_mutex_unlock(&h->lock);
		return false;
	}
	if (h->count == REQUESTS_MAX)
		abort();
	a = &h->sent[h->count++];
	*a = (struct sent){ .target = strdup(target), .lines = calloc(1, size + 1),
		.timeout_ms = timeout_ms, .request = request };
	for (size_t i = 0; i < size; i++)
		a->lines[i] = lines[i] != '\0' ? lines[i] : '|';
	pthread_mutex_unlock(&h->lock);
	return true;
}

/* Answers all requests: the user of "Cookie: s=secret-N" is "uN", who can read project N. */
static void
answer_all(struct app_http *h)
{
	for (int i = 0, user = -1; i < h->count; i++) {
		struct sent *a = &h->sent[i];
		struct app_http_result result = { .status = 200 };
		char body[128];

		sscanf(a->lines, "Cookie: s=secret-%d|", &user);
		snprintf(body, sizeof(body), "{\"user\":{\"id\":\"u%d\"},\"data\":[{\"id\":%d}]}",
		    user, user);
		result.body = body;
		result.length = strlen(body);
		h->done(h->arg, a->request, &result);
		free(a->target);
		free(a->lines);
	}
	h->count = 0;
}

void
app_http_turn(struct app_http *h, int wait_ms)
{
	struct app_http_result result;
	void *request = NULL;
	bool prompt;

	pthread_mutex_lock(&h->lock);
	h->waiting = true;
	pthread_cond_broadcast(&h->changed);
	prompt = h->prompt && h->count > 0;
	while (!prompt && (h->stuck || (!h->woken && !h->has_result)))
		pthread_cond_wait(&h->changed, &h->lock);
	h->waiting = h->woken = false;
	if (h->has_result) {
		result = h->result;
		request = h->sent[h->number].request;
		h->sent[h->number].request = NULL;
		h->has_result = false;
	}
	pthread_mutex_unlock(&h->lock);
	/* The thread has no busy loop, and never sleeps for more than a second. */
	if (wait_ms < 100 || wait_ms > 1000)
		abort();
	if (request != NULL)
		h->done(h->arg, request, &result);
	if (prompt)
		answer_all(h);
}

void
app_http_wake(struct app_http *h)
{
	pthread_mutex_lock(&h->lock);
	h->woken = true;
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
}

/* Waits until the application client's thread has done everything it was woken for. */
static void
settle(void)
{
	int64_t deadline = real_ms() + LONG_MS;
	bool idle = false;

	pthread_mutex_lock(&http.lock);
	do
		idle = http.waiting && !http.woken && !http.has_result;
	while (!idle && thread_cond_wait(&http.changed, &http.lock, deadline));
	pthread_mutex_unlock(&http.lock);
	ck_assert_msg(idle, "the application client's thread does not come back");
}

/* Makes the application client's thread read the clock. */
static void
turn(void)
{
	app_http_wake(&http);
	settle();
}

static void
advance(int ms)
{
	now += ms;
	turn();
}

/* ---- The application client and its callers */

static struct settings settings;
static struct app_client *app_client;
static int log_fd;
static struct credentials *user_credentials[USERS_MAX]; /* made by credentials_of() */
static struct stream *streams[STREAMS];
static struct app_query *queries[STREAMS]; /* of the stream of the same number */
static int id_counts[STREAMS];             /* of the ids in it */

static void
setup(void)
{
	log_fd = open("/tmp", O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
	ck_assert_int_ge(log_fd, 0);
	ck_assert_int_eq(dup2(log_fd, STDERR_FILENO), STDERR_FILENO);
	log_set_level(LOG_LEVEL_DEBUG);
	now = real_ms();
	clock_set_source(read_now);
	stream_signal_init();
	for (int i = 0; i < STREAMS; i++) {
		streams[i] = stream_new(-1, 65536);
		ck_assert_ptr_nonnull(streams[i]);
	}
	settings.app_url = strdup("http://app.example");
	settings.app_timeout_ms = TIMEOUT_MS;
}

/* Starts the application client; the first call of each test. */
static void
start(int concurrency, int cache_seconds)
{
	settings.app_concurrency = concurrency;
	settings.app_cache_seconds = cache_seconds;
	app_client = app_client_start(&settings);
	ck_assert_ptr_nonnull(app_client);
	settle();
}

/* Different credentials for each number. */
static struct credentials *
new_credentials(int number)
{
	char cookie[64];
	char *params[] = { cookie, NULL };
	struct credentials *c;

	snprintf(cookie, sizeof(cookie), "HTTP_COOKIE=s=secret-%d", number);
	ck_assert_int_eq(credentials_read(params, &c), CREDENTIALS_FOUND);
	return c;
}

static struct credentials *
credentials_of(int number)
{
	if (user_credentials[number] == NULL)
		user_credentials[number] = new_credentials(number);
	return user_credentials[number];
}

static int
requests(void)
{
	int count;

	pthread_mutex_lock(&http.lock);
	count = http.count;
	pthread_mutex_unlock(&http.lock);
	return count;
}

static void
finish(int number, struct app_http_result result)
{
	pthread_mutex_lock(&http.lock);
	ck_assert_int_lt(number, http.count);
	ck_assert_ptr_nonnull(http.sent[number].request);
	http.result = result;
	http.number = number;
	http.has_result = true;
	pthread_cond_broadcast(&http.changed);
	pthread_mutex_unlock(&http.lock);
	settle();
}

/* Answers a request; they are numbered from 0 in the order in which they were made. */
static void
reply(int number, int status, const char *body)
{
	finish(number,
	    (struct app_http_result){ .status = status, .body = body, .length = strlen(body) });
}

/* Lets a request fail; dead: with a failed connect. */
static void
fail_request(int number, bool dead)
{
	finish(number, (struct app_http_result){ .error = "no answer, for a test", .dead = dead });
}

static void
time_out(int number)
{
	finish(number, (struct app_http_result){ .error = "time limit, for a test", .timed_out = true });
}

static void
free_query(int stream)
{
	app_query_free(queries[stream]);
	queries[stream] = NULL;
}

static void
query_until(int stream, struct credentials *c, const int32_t *projects, int count, int64_t after,
    int64_t deadline)
{
	ck_assert_ptr_null(queries[stream]);
	queries[stream] = app_query_start(app_client, c,
	    &(struct app_part){ CHECK_PROJECTS, projects, count }, count > 0, after,
	    streams[stream], deadline);
	id_counts[stream] = count;
	ck_assert_ptr_nonnull(queries[stream]);
	settle();
}

/* Starts a query for the user of credentials, or for the projects that they can read. */
static void
query_user(int stream, int number)
{
	query_until(stream, credentials_of(number), NULL, 0, QUERY_CACHED, now + TIMEOUT_MS);
}

static void
query_projects(int stream, int number, const int32_t *projects, int count)
{
	query_until(stream, credentials_of(number), projects, count, QUERY_CACHED, now + TIMEOUT_MS);
}

static unsigned
marks(int stream)
{
	struct stream_view view;

	stream_look(streams[stream], &view);
	return view.marks;
}

static void
expect_pending(int stream)
{
	ck_assert_uint_eq(marks(stream), 0);
	ck_assert_int_eq(app_query_answer(queries[stream]), QUERY_PENDING);
}

/* There is an answer, and the stream was marked since the last call. */
static void
expect_answer(int stream, enum app_query_answer answer)
{
	ck_assert_int_eq(app_query_answer(queries[stream]), answer);
	ck_assert_uint_eq(marks(stream), STREAM_ANSWERED);
}

/* The answer is still the same, and the stream was not marked again. */
static void
expect_unchanged(int stream, enum app_query_answer answer)
{
	ck_assert_int_eq(app_query_answer(queries[stream]), answer);
	ck_assert_uint_eq(marks(stream), 0);
}

static void
expect_user(int stream, const char *user)
{
	expect_answer(stream, QUERY_YES);
	ck_assert_str_eq(app_query_user(queries[stream]), user);
}

/* The answer is these projects, as "7 8". */
static void
expect_projects(int stream, const char *expected)
{
	int32_t projects[MANY];
	char list[16 * MANY] = "";
	int count = app_query_filter(queries[stream], 0, projects, id_counts[stream]);
	size_t used = 0;

	expect_answer(stream, expected[0] != '\0' ? QUERY_YES : QUERY_NO);
	for (int i = 0; i < count; i++)
		used += (size_t)sprintf(list + used, "%s%d", i > 0 ? " " : "", (int)projects[i]);
	ck_assert_str_eq(list, expected);
}

/* A query gets its answer from the cache; user is NULL for anonymous. */
static void
expect_kept(int number, const char *user)
{
	int before = requests();

	ck_assert(app_client_has_user(app_client, credentials_of(number)));
	query_user(0, number);
	ck_assert_int_eq(requests(), before);
	if (user != NULL)
		expect_user(0, user);
	else
		expect_answer(0, QUERY_NO);
	free_query(0);
}

/* A query makes a request. */
static void
expect_not_kept(int number)
{
	int before = requests();

	ck_assert(!app_client_has_user(app_client, credentials_of(number)));
	query_user(0, number);
	expect_pending(0);
	ck_assert(!app_client_has_user(app_client, credentials_of(number)));
	ck_assert_int_eq(requests(), before + 1);
	free_query(0);
}

/* A query for the user gets this response from the application. */
static void
query_and_reply(int number, int status, const char *body)
{
	query_user(0, number);
	expect_pending(0);
	reply(requests() - 1, status, body);
	free_query(0);
	marks(0);
}

/* How often the log contains this. */
static int
logged(const char *what)
{
	static char text[1 << 20];
	ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);
	const char *at = text;
	int count = 0;

	ck_assert_int_ge(n, 0);
	text[n] = '\0';
	for (; (at = strstr(at, what)) != NULL; at++)
		count++;
	return count;
}

/*
 * When all queries are forgotten and all requests answered, nothing holds credentials any more. No
 * line of the log contains one.
 */
static void
teardown(void)
{
	for (int i = 0; i < STREAMS; i++)
		free_query(i);
	for (int i = 0; i < requests(); i++)
		if (http.sent[i].request != NULL)
			reply(i, 200, "{}");
	app_client_stop(app_client, LONG_MS);
	for (int i = 0; i < USERS_MAX; i++) {
		if (user_credentials[i] != NULL)
			ck_assert_int_eq(user_credentials[i]->references, 1);
		credentials_release(user_credentials[i]);
	}
	for (int i = 0; i < STREAMS; i++)
		stream_release(streams[i]);
	for (int i = 0; i < http.count; i++) {
		free(http.sent[i].target);
		free(http.sent[i].lines);
	}
	ck_assert_int_eq(logged("secret"), 0);
	free(settings.app_url);
}

/* ---- Queries and answers */

/* A query for the user makes one request, with the credentials and the time left; it yields the id. */
START_TEST(who_is_it)
{
	start(32, 5);
	query_user(0, 1);
	expect_pending(0);
	ck_assert_int_eq(requests(), 1);
	ck_assert_str_eq(http.sent[0].target, "/api/auth/session");
	ck_assert_str_eq(http.sent[0].lines, "Cookie: s=secret-1|");
	ck_assert_int_eq(http.sent[0].timeout_ms, TIMEOUT_MS);
	reply(0, 200, SESSION("u1"));
	expect_user(0, "u1");
	expect_unchanged(0, QUERY_YES);
	ck_assert_int_eq(requests(), 1);
}
END_TEST

/* An empty session, 401 and 403 mean anonymous; an invalid response means that the query failed. */
START_TEST(not_yes)
{
	static const struct {
		int status;
		const char *body;
		enum app_query_answer answer;
	} rows[] = {
		{ 200, "{}", QUERY_NO },
		{ 200, "null", QUERY_NO },
		{ 200, SESSION("a b"), QUERY_NO },
		{ 401, SESSION("u1"), QUERY_NO },
		{ 403, "", QUERY_NO },
		{ 200, "<html>", QUERY_FAILED },
		{ 200, "{\"user\":{\"id\":7}}", QUERY_FAILED },
		{ 302, SESSION("u1"), QUERY_FAILED },
		{ 404, SESSION("u1"), QUERY_FAILED },
		{ 500, SESSION("u1"), QUERY_FAILED },
	};

	start(32, 0);
	for (int i = 0; i < (int)(sizeof(rows) / sizeof(rows[0])); i++) {
		query_user(0, 1);
		reply(i, rows[i].status, rows[i].body);
		expect_answer(0, rows[i].answer);
		free_query(0);
	}
	query_user(0, 1);
	fail_request(requests() - 1, false);
	expect_answer(0, QUERY_FAILED);
}
END_TEST

/* A query for projects returns those of the response, in the order of the query. */
START_TEST(which_projects)
{
	static const int32_t some[] = { 9, 7, 8 };
	char target[APP_TARGET_SIZE];

	start(32, 5);
	app_api_target(target, CHECK_PROJECTS, some, 3);
	query_projects(0, 1, some, 3);
	expect_pending(0);
	ck_assert_int_eq(requests(), 1);
	ck_assert_str_eq(http.sent[0].target, target);
	ck_assert_str_eq(http.sent[0].lines, "Cookie: s=secret-1|");
	reply(0, 200, "{\"data\":[{\"id\":8},{\"id\":1},{\"id\":9}]}");
	expect_projects(0, "9 8");
	/* Another user, and none of them. */
	query_projects(1, 2, some, 3);
	reply(1, 200, "{\"data\":[]}");
	expect_projects(1, "");
	query_projects(2, 3, some, 3);
	reply(2, 403, "");
	expect_projects(2, "");
	query_projects(3, 4, some, 3);
	reply(3, 200, "{}");
	expect_answer(3, QUERY_FAILED);
}
END_TEST

/* A request holds its credentials until it is answered, and no longer. */
START_TEST(credentials_let_go)
{
	struct credentials *c = new_credentials(1);

	start(1, 5);
	query_until(0, c, NULL, 0, QUERY_CACHED, now + TIMEOUT_MS);
	query_until(1, credentials_of(2), NULL, 0, QUERY_CACHED, now + TIMEOUT_MS);
	ck_assert_int_eq(c->references, 2);
	ck_assert_int_eq(credentials_of(2)->references, 2);
	reply(0, 200, SESSION("u1"));
	ck_assert_int_eq(c->references, 1);
	ck_assert_int_eq(credentials_of(2)->references, 2);
	credentials_release(c);
	fail_request(1, false);
	ck_assert_int_eq(credentials_of(2)->references, 1);
	/* The same with an answer from the cache. */
	expect_user(0, "u1");
	free_query(0);
	expect_kept(1, "u1");
	ck_assert_int_eq(credentials_of(1)->references, 1);
}
END_TEST

/* ---- One request for equal queries */

/* Equal queries share one request in flight; each gets its answer once. */
START_TEST(coalesced)
{
	struct credentials *again = new_credentials(1);
	static const int32_t some[] = { 7, 8 };

	start(32, 0);
	query_user(0, 1);
	query_until(1, again, NULL, 0, QUERY_CACHED, now + TIMEOUT_MS);
	query_user(2, 1);
	ck_assert_int_eq(requests(), 1);
	ck_assert_int_eq(again->references, 1);
	for (int i = 0; i < 3; i++)
		expect_pending(i);
	reply(0, 200, SESSION("u1"));
	for (int i = 0; i < 3; i++) {
		expect_user(i, "u1");
		free_query(i);
	}
	query_projects(0, 1, some, 2);
	query_until(1, again, some, 2, QUERY_CACHED, now + TIMEOUT_MS);
	ck_assert_int_eq(requests(), 2);
	reply(1, 200, "{\"data\":[{\"id\":8}]}");
	expect_projects(0, "8");
	expect_projects(1, "8");
	credentials_release(again);
}
END_TEST

/* Equal queries in the queue share one request, and also its failure. */
START_TEST(coalesced_in_the_queue)
{
	start(1, 0);
	query_user(0, 1);
	query_user(1, 2);
	query_user(2, 2);
	ck_assert_int_eq(requests(), 1);
	reply(0, 200, "{}");
	ck_assert_int_eq(requests(), 2);
	fail_request(1, false);
	expect_answer(1, QUERY_FAILED);
	expect_answer(2, QUERY_FAILED);
	ck_assert_int_eq(requests(), 2);
}
END_TEST

/* Queries with different credentials, kinds or projects share nothing. */
START_TEST(different)
{
	static const int32_t some[] = { 7, 8, 9 };

	start(32, 5);
	query_user(0, 1);
	query_user(1, 2);
	query_projects(2, 1, some, 1);
	query_projects(3, 1, some, 2);
	query_projects(4, 1, some + 1, 1);
	query_projects(5, 2, some, 1);
	query_projects(6, 1, some, 3);
	ck_assert_int_eq(requests(), 7);
	reply(0, 200, SESSION("u1"));
	expect_user(0, "u1");
	for (int i = 1; i < 7; i++)
		expect_pending(i);
	reply(2, 200, "{\"data\":[{\"id\":7}]}");
	expect_projects(2, "7");
	expect_pending(3);
	expect_pending(5);
	reply(3, 200, "{\"data\":[{\"id\":8}]}");
	expect_projects(3, "8");
	expect_pending(4);
	reply(1, 200, SESSION("u2"));
	expect_user(1, "u2");
}
END_TEST

/* Starts a query about several models. */
static void
query_parts(int stream, const struct app_part *parts, int count)
{
	ck_assert_ptr_null(queries[stream]);
	queries[stream] = app_query_start(app_client, credentials_of(1), parts, count,
	    QUERY_CACHED, streams[stream], now + TIMEOUT_MS);
	ck_assert_ptr_nonnull(queries[stream]);
	settle();
}

/*
 * One query may be about several models: a request for each, all at once; their answers are put
 * together, and equal ids of different models are not mixed up.
 */
START_TEST(several_models)
{
	static const int32_t ids[] = { 7, 8 };
	static const struct app_part parts[] = { { CHECK_PROJECTS, ids, 2 }, { CHECK_TEST_RUNS, ids, 2 },
		{ CHECK_PRESENT_PROJECTS, ids, 1 }, { CHECK_MILESTONES, ids + 1, 1 } };
	char target[APP_TARGET_SIZE];
	int32_t kept[2];

	start(32, 5);
	query_parts(0, parts, 4);
	ck_assert_int_eq(requests(), 4);
	for (int i = 0; i < 4; i++) {
		app_api_target(target, parts[i].check, parts[i].ids, parts[i].count);
		ck_assert_str_eq(http.sent[i].target, target);
	}
	reply(2, 200, "{\"data\":[{\"id\":7}]}");
	reply(0, 200, "{\"data\":[{\"id\":8}]}");
	reply(3, 200, "{\"data\":[{\"id\":7}]}");
	expect_pending(0);
	reply(1, 200, "{\"data\":[]}");
	expect_answer(0, QUERY_YES);
	ck_assert_int_eq(app_query_filter(queries[0], 0, kept, 2), 1);
	ck_assert_int_eq(kept[0], 8);
	ck_assert_int_eq(app_query_filter(queries[0], 2, kept, 2), 0);
	ck_assert_int_eq(app_query_filter(queries[0], 4, kept, 1), 1);
	ck_assert_int_eq(kept[0], 7);
	ck_assert_int_eq(app_query_filter(queries[0], 5, kept, 1), 0);
	/* All are known now, whoever asks about one of them. */
	query_projects(1, 1, ids, 2);
	expect_projects(1, "8");
	ck_assert_int_eq(requests(), 4);
	/* One without an answer fails the whole query, and is not asked again for nothing. */
	free_query(1);
	query_parts(1, &(struct app_part[]){ { CHECK_PROJECTS, ids, 2 }, { CHECK_MILESTONES, ids, 1 } }[0], 2);
	ck_assert_int_eq(requests(), 5);
	reply(4, 500, "");
	expect_answer(1, QUERY_FAILED);
}
END_TEST

/* ---- Queries for many projects */

/* The projects first, first + 1 and so on. */
static void
fill(int32_t *projects, int first, int count)
{
	for (int i = 0; i < count; i++)
		projects[i] = first + i;
}

/* Expects that a request was for count projects from first on. */
static void
expect_chunk(int number, int first, int count)
{
	char target[APP_TARGET_SIZE];
	int32_t chunk[APP_IDS_MAX];

	fill(chunk, first, count);
	app_api_target(target, CHECK_PROJECTS, chunk, count);
	ck_assert_str_eq(http.sent[number].target, target);
}

/* A query for many projects makes a request for each 100, and combines their responses. */
START_TEST(chunks)
{
	int32_t many[MANY];

	start(32, 5);
	fill(many, 1000, 250);
	query_projects(0, 1, many, 250);
	ck_assert_int_eq(requests(), 3);
	expect_chunk(0, 1000, 100);
	expect_chunk(1, 1100, 100);
	expect_chunk(2, 1200, 50);
	reply(2, 200, "{\"data\":[{\"id\":1249},{\"id\":1000},{\"id\":1200}]}");
	expect_pending(0);
	reply(0, 200, "{\"data\":[{\"id\":1000},{\"id\":1099},{\"id\":1100}]}");
	expect_pending(0);
	reply(1, 200, "{\"data\":[{\"id\":1150}]}");
	expect_projects(0, "1000 1099 1150 1200 1249");
	/* The largest number of projects, none of them readable. */
	fill(many, 5000, 500);
	query_projects(1, 1, many, 500);
	ck_assert_int_eq(requests(), 8);
	for (int i = 3; i < 8; i++) {
		expect_chunk(i, 5000 + (i - 3) * 100, 100);
		expect_pending(1);
		reply(i, 200, "{\"data\":[]}");
	}
	expect_projects(1, "");
}
END_TEST

/* 100 projects need one request, 101 two; a no to one and a yes to the other is a yes. */
START_TEST(chunks_at_the_edge)
{
	int32_t many[101];

	start(32, 5);
	fill(many, 1, 101);
	query_projects(0, 1, many, 100);
	ck_assert_int_eq(requests(), 1);
	expect_chunk(0, 1, 100);
	query_projects(1, 2, many, 101);
	ck_assert_int_eq(requests(), 3);
	expect_chunk(1, 1, 100);
	expect_chunk(2, 101, 1);
	reply(1, 403, "");
	expect_pending(1);
	reply(2, 200, "{\"data\":[{\"id\":101}]}");
	expect_projects(1, "101");
}
END_TEST

/* If one of its requests fails, the query fails at once, and once; the other responses are cached. */
START_TEST(chunk_fails)
{
	int32_t many[250];

	start(32, 5);
	fill(many, 1, 250);
	query_projects(0, 1, many, 250);
	reply(0, 200, "{\"data\":[{\"id\":1}]}");
	expect_pending(0);
	reply(1, 500, "");
	expect_answer(0, QUERY_FAILED);
	reply(2, 200, "{\"data\":[{\"id\":201}]}");
	expect_unchanged(0, QUERY_FAILED);
	/* The next query repeats only the request that failed. */
	query_projects(1, 1, many, 250);
	ck_assert_int_eq(requests(), 4);
	expect_chunk(3, 101, 100);
	reply(3, 200, "{\"data\":[]}");
	expect_projects(1, "1 201");
}
END_TEST

/* Projects whose response is cached are not requested again, wherever they are in the query. */
START_TEST(chunks_from_the_cache)
{
	int32_t many[300];

	start(32, 5);
	fill(many, 1, 300);
	query_projects(0, 1, many + 100, 100);
	reply(0, 200, "{\"data\":[{\"id\":150}]}");
	query_projects(1, 1, many, 300);
	ck_assert_int_eq(requests(), 3);
	expect_pending(1);
	reply(2, 200, "{\"data\":[{\"id\":300}]}");
	reply(1, 200, "{\"data\":[{\"id\":1}]}");
	expect_projects(1, "1 150 300");
	query_projects(2, 1, many, 300);
	ck_assert_int_eq(requests(), 3);
	expect_projects(2, "1 150 300");
}
END_TEST

/* ---- The cache */

/* A yes is cached for exactly TPI_APP_CACHE_SECONDS. */
START_TEST(yes_is_kept)
{
	static const int32_t some[] = { 7, 8 };

	start(32, 5);
	query_and_reply(1, 200, SESSION("u1"));
	query_projects(1, 1, some, 2);
	reply(1, 200, "{\"data\":[{\"id\":8}]}");
	free_query(1);
	marks(1);
	expect_kept(1, "u1");
	advance(4999);
	expect_kept(1, "u1");
	query_projects(1, 1, some, 2);
	ck_assert_int_eq(requests(), 2);
	expect_projects(1, "8");
	expect_not_kept(2);
	advance(1);
	expect_not_kept(1);
	query_projects(2, 1, some, 2);
	expect_pending(2);
}
END_TEST

/* A no is cached for a second. */
START_TEST(no_is_kept)
{
	start(32, 5);
	query_and_reply(1, 200, "{}");
	query_and_reply(2, 401, "");
	expect_kept(1, NULL);
	advance(999);
	expect_kept(1, NULL);
	expect_kept(2, NULL);
	advance(1);
	expect_not_kept(1);
	expect_not_kept(2);
}
END_TEST

/* The time counts from the response; a longer TPI_APP_CACHE_SECONDS does not apply to a no. */
START_TEST(kept_for_long)
{
	start(32, 300);
	query_user(1, 1);
	advance(1500);
	reply(0, 200, SESSION("u1"));
	advance(299999);
	expect_kept(1, "u1");
	advance(1);
	query_and_reply(1, 200, "{}");
	advance(999);
	expect_kept(1, NULL);
	advance(1);
	expect_not_kept(1);
}
END_TEST

/* With TPI_APP_CACHE_SECONDS=0 nothing is cached. */
START_TEST(nothing_is_kept)
{
	start(32, 0);
	query_and_reply(1, 200, SESSION("u1"));
	expect_not_kept(1);
	query_and_reply(2, 200, "{}");
	expect_not_kept(2);
}
END_TEST

/* Failed requests are not cached. */
START_TEST(failures_are_not_kept)
{
	start(32, 5);
	query_and_reply(1, 500, "");
	expect_not_kept(1);
	query_and_reply(2, 200, "<html>");
	expect_not_kept(2);
	query_user(1, 3);
	fail_request(requests() - 1, false);
	expect_not_kept(3);
}
END_TEST

/* A fresh query bypasses the cache, and its response replaces the cached one. */
START_TEST(fresh_question)
{
	start(32, 5);
	query_and_reply(1, 200, SESSION("u1"));
	query_until(1, credentials_of(1), NULL, 0, now, now + TIMEOUT_MS);
	expect_pending(1);
	ck_assert_int_eq(requests(), 2);
	/* Queries share its request, fresh ones and others. */
	query_until(2, credentials_of(1), NULL, 0, now, now + TIMEOUT_MS);
	query_user(3, 1);
	ck_assert_int_eq(requests(), 2);
	reply(1, 200, SESSION("u2"));
	for (int i = 1; i <= 3; i++)
		expect_user(i, "u2");
	expect_kept(1, "u2");
	query_user(4, 2);
	query_until(5, credentials_of(2), NULL, 0, now, now + TIMEOUT_MS);
	ck_assert_int_eq(requests(), 3);
}
END_TEST

/* The cache is bounded: the oldest response of a kind is dropped first. */
START_TEST(bounded)
{
	start(32, 300);
	for (int i = 0; i <= KNOWN_MAX; i++)
		query_and_reply(i, 200, SESSION("u"));
	ck_assert_int_eq(requests(), KNOWN_MAX + 1);
	expect_kept(1, "u");
	expect_kept(KNOWN_MAX / 2, "u");
	expect_kept(KNOWN_MAX, "u");
	expect_not_kept(0);
}
END_TEST

/* ---- Re-checks */

/* Starts a query as a re-check does; after: when the request for the stream's last answer was made. */
static void
query_after(int stream, int number, int64_t after)
{
	query_until(stream, credentials_of(number), NULL, 0, after, now + TIMEOUT_MS);
}

/*
 * A re-check uses a cached response if it was requested after the stream's last one, even when
 * TPI_APP_CACHE_SECONDS have passed.
 */
START_TEST(rechecks_share)
{
	int64_t first, second;

	settings.recheck_seconds = 300;
	start(32, 5);
	first = now;
	query_and_reply(1, 200, SESSION("u1"));
	advance(1000);
	second = now;
	query_after(0, 1, first);
	expect_pending(0);
	advance(10);
	reply(1, 200, SESSION("u2"));
	expect_user(0, "u2");
	ck_assert_int_eq(app_query_sent_at(queries[0]), second);
	advance(299000);
	query_after(1, 1, first);
	expect_user(1, "u2");
	ck_assert_int_eq(app_query_sent_at(queries[1]), second);
	ck_assert_int_eq(requests(), 2);
	/* A stream that has used it makes a new request, which serves the following ones. */
	query_after(2, 1, second);
	expect_pending(2);
	query_after(3, 1, second);
	reply(2, 200, SESSION("u3"));
	expect_user(2, "u3");
	expect_user(3, "u3");
	query_after(4, 1, second);
	expect_user(4, "u3");
	ck_assert_int_eq(requests(), 3);
}
END_TEST

/* A response that is cached for re-checks only does not authorize a new stream. */
START_TEST(kept_for_rechecks_alone)
{
	int64_t before;

	settings.recheck_seconds = 300;
	start(32, 0);
	before = now - 1;
	query_and_reply(1, 200, SESSION("u1"));
	query_after(1, 1, before);
	expect_user(1, "u1");
	expect_not_kept(1);
	/* A re-check shares the request of a new stream. */
	query_after(2, 1, before);
	expect_pending(2);
	reply(1, 200, SESSION("u1"));
	expect_user(2, "u1");
	ck_assert_int_eq(requests(), 2);
}
END_TEST

/* A re-check uses a cached no for at most a second. */
START_TEST(recheck_and_no)
{
	int64_t before;

	settings.recheck_seconds = 300;
	start(32, 5);
	before = now - 1;
	query_and_reply(1, 200, "{}");
	advance(999);
	query_after(1, 1, before);
	expect_answer(1, QUERY_NO);
	advance(1);
	query_after(2, 1, before);
	expect_pending(2);
}
END_TEST

/* An answer combined from several responses is as old as the oldest of them. */
START_TEST(recheck_of_lots)
{
	int32_t many[APP_IDS_MAX + 1];
	int64_t first = now;

	for (int i = 0; i <= APP_IDS_MAX; i++)
		many[i] = i + 1;
	settings.recheck_seconds = 300;
	start(32, 5);
	query_projects(1, 1, many, APP_IDS_MAX);
	first = now;
	reply(0, 200, "{\"data\":[{\"id\":1}]}");
	advance(100);
	query_until(2, credentials_of(1), many, APP_IDS_MAX + 1, first - 1, now + TIMEOUT_MS);
	ck_assert_int_eq(requests(), 2);
	reply(1, 200, "{\"data\":[{\"id\":101}]}");
	expect_projects(2, "1 101");
	ck_assert_int_eq(app_query_sent_at(queries[2]), first);
}
END_TEST

/* A response is cached for re-checks for one interval. */
START_TEST(kept_for_an_interval)
{
	int64_t before;

	settings.recheck_seconds = 5;
	start(32, 0);
	before = now - 1;
	query_and_reply(1, 200, SESSION("u1"));
	advance(4999);
	query_and_reply(2, 200, SESSION("u2"));
	query_after(1, 1, before);
	expect_user(1, "u1");
	advance(1);
	query_and_reply(3, 200, SESSION("u3"));
	query_after(2, 1, before);
	expect_pending(2);
}
END_TEST

/* No number of anonymous requests displaces a yes that re-checks share. */
START_TEST(noes_displace_no_yes)
{
	int64_t before;

	settings.recheck_seconds = 300;
	start(32, 5);
	before = now - 1;
	query_and_reply(1, 200, SESSION("u1"));
	query_and_reply(0, 200, "{}");
	for (int i = 2; i <= KNOWN_MAX; i++)
		query_and_reply(i, 200, "{}");
	query_after(1, 1, before);
	expect_user(1, "u1");
}
END_TEST

/* A re-check does not use a response from before a revocation. */
START_TEST(revoked_recheck)
{
	int64_t before;

	settings.recheck_seconds = 300;
	start(32, 5);
	before = now - 1;
	query_and_reply(1, 200, SESSION("u1"));
	app_client_invalidate(app_client);
	query_after(1, 1, before);
	expect_pending(1);
}
END_TEST

/* ---- The queue */

/* At most TPI_APP_CONCURRENCY requests are in flight; the others follow in order. */
START_TEST(concurrency)
{
	start(2, 5);
	for (int i = 0; i < 6; i++)
		query_user(i, i);
	ck_assert_int_eq(requests(), 2);
	/* However a request ends, the next one starts. */
	reply(1, 200, SESSION("u1"));
	ck_assert_int_eq(requests(), 3);
	fail_request(0, false);
	ck_assert_int_eq(requests(), 4);
	reply(2, 500, "");
	ck_assert_int_eq(requests(), 5);
	turn();
	ck_assert_int_eq(requests(), 5);
	reply(3, 200, "{}");
	for (int i = 0; i < 6; i++) {
		char lines[64];

		snprintf(lines, sizeof(lines), "Cookie: s=secret-%d|", i);
		ck_assert_str_eq(http.sent[i].lines, lines);
	}
	expect_pending(4);
	reply(5, 200, SESSION("u5"));
	expect_user(5, "u5");
	expect_pending(4);
}
END_TEST

/* A queued request whose queries are all forgotten is not made; the others move up. */
START_TEST(forgotten_in_the_queue)
{
	start(1, 5);
	query_user(0, 1);
	query_user(1, 2);
	query_user(2, 3);
	query_user(3, 3);
	query_user(4, 4);
	free_query(1);
	ck_assert_int_eq(credentials_of(2)->references, 1);
	free_query(2);
	ck_assert_int_eq(credentials_of(3)->references, 2);
	reply(0, 200, "{}");
	ck_assert_int_eq(requests(), 2);
	ck_assert_str_eq(http.sent[1].lines, "Cookie: s=secret-3|");
	free_query(4);
	reply(1, 200, SESSION("u3"));
	expect_user(3, "u3");
	ck_assert_int_eq(requests(), 2);
}
END_TEST

/*
 * A query that has spent three quarters of its time in the queue fails, and its request is not made.
 * The application is not to blame: nothing pauses.
 */
START_TEST(given_up_in_the_queue)
{
	start(1, 5);
	query_user(0, 1);
	query_until(1, credentials_of(2), NULL, 0, QUERY_CACHED, now + 500);
	query_until(2, credentials_of(3), NULL, 0, QUERY_CACHED, now + 1000);
	advance(374);
	expect_pending(1);
	advance(1);
	expect_answer(1, QUERY_FAILED);
	ck_assert_int_eq(credentials_of(2)->references, 1);
	expect_pending(2);
	advance(374);
	ck_assert(!app_client_paused(app_client));
	reply(0, 200, "{}");
	ck_assert_int_eq(requests(), 2);
	ck_assert_str_eq(http.sent[1].lines, "Cookie: s=secret-3|");
	ck_assert_int_eq(http.sent[1].timeout_ms, 251);
	expect_unchanged(1, QUERY_FAILED);
	ck_assert_int_eq(logged("query given up in the queue"), 1);
}
END_TEST

/* Queries about access, re-checks, and queries of recognized users are sent before all others. */
START_TEST(known_users_first)
{
	static const int32_t some[] = { 7 };
	static const int order[] = { 4, 5, 1, 6, 2, 3 };

	start(1, 0);
	query_and_reply(1, 200, SESSION("u1"));
	ck_assert(app_client_recognizes(app_client, credentials_of(1)));
	ck_assert(!app_client_recognizes(app_client, credentials_of(2)));
	/* Users stay known after a revocation. */
	app_client_invalidate(app_client);
	query_user(0, 0);
	query_user(1, 2);
	query_user(2, 3);
	query_user(3, 6);
	query_projects(4, 4, some, 1);
	query_until(5, credentials_of(5), NULL, 0, now - 1, now + TIMEOUT_MS);
	query_user(6, 1);
	/* A re-check joins the query of an unknown user, which is then preferred. */
	query_until(7, credentials_of(6), NULL, 0, now - 1, now + TIMEOUT_MS);
	for (int i = 0; i < 6; i++) {
		char lines[64];

		reply(1 + i, 200, "{\"data\":[]}");
		ck_assert_int_eq(requests(), 3 + i);
		snprintf(lines, sizeof(lines), "Cookie: s=secret-%d|", order[i]);
		ck_assert_str_eq(http.sent[2 + i].lines, lines);
	}
}
END_TEST

/* Credentials that the application no longer recognizes are not preferred; a failure changes nothing. */
START_TEST(no_longer_recognized)
{
	start(1, 0);
	query_and_reply(1, 200, SESSION("u1"));
	query_and_reply(1, 500, "");
	ck_assert(app_client_recognizes(app_client, credentials_of(1)));
	query_and_reply(1, 200, "{}");
	ck_assert(!app_client_recognizes(app_client, credentials_of(1)));
}
END_TEST

/* The time limit of a request is the time left to the latest deadline of its queries. */
START_TEST(time_left)
{
	start(1, 5);
	query_user(0, 1);
	query_until(1, credentials_of(2), NULL, 0, QUERY_CACHED, now + 500);
	query_until(2, credentials_of(2), NULL, 0, QUERY_CACHED, now + 1500);
	query_until(3, credentials_of(2), NULL, 0, QUERY_CACHED, now + 1000);
	advance(700);
	expect_pending(1);
	reply(0, 200, "{}");
	ck_assert_int_eq(requests(), 2);
	ck_assert_int_eq(http.sent[0].timeout_ms, TIMEOUT_MS);
	ck_assert_int_eq(http.sent[1].timeout_ms, 800);
}
END_TEST

/* If a request cannot be made for lack of memory, its queries fail, and the next request is made. */
START_TEST(no_memory)
{
	start(1, 5);
	http.refused = 1;
	query_user(0, 1);
	expect_answer(0, QUERY_FAILED);
	ck_assert_int_eq(requests(), 0);
	ck_assert_int_eq(credentials_of(1)->references, 1);
	/* It does not count as in flight, and there is no pause. */
	query_user(1, 1);
	expect_pending(1);
	ck_assert_int_eq(requests(), 1);
	query_user(2, 2);
	query_user(3, 3);
	http.refused = 1;
	reply(0, 200, SESSION("u1"));
	expect_answer(2, QUERY_FAILED);
	expect_pending(3);
	ck_assert_int_eq(requests(), 2);
	ck_assert_str_eq(http.sent[1].lines, "Cookie: s=secret-3|");
	ck_assert_int_eq(logged("out of memory"), 2);
}
END_TEST

/* ---- The pause */

/* After a dead request, queued queries and all new ones fail at once for 2 s. */
START_TEST(pause_after_dead)
{
	static const int32_t some[] = { 7 };

	start(1, 5);
	query_and_reply(7, 200, SESSION("u7"));
	query_user(0, 1);
	query_user(1, 2);
	query_projects(2, 1, some, 1);
	fail_request(1, true);
	expect_answer(0, QUERY_FAILED);
	expect_answer(1, QUERY_FAILED);
	expect_answer(2, QUERY_FAILED);
	for (int i = 0; i < 3; i++)
		free_query(i);
	query_user(0, 2);
	expect_answer(0, QUERY_FAILED);
	/* The cache is still used, also after a fresh query has bypassed it. */
	free_query(0);
	query_until(0, credentials_of(7), NULL, 0, now, now + TIMEOUT_MS);
	expect_answer(0, QUERY_FAILED);
	free_query(0);
	expect_kept(7, "u7");
	advance(1999);
	query_user(0, 3);
	expect_answer(0, QUERY_FAILED);
	free_query(0);
	ck_assert_int_eq(requests(), 2);
	advance(1);
	expect_not_kept(3);
}
END_TEST

/* A time limit causes a pause only if the application had at least half of TPI_APP_TIMEOUT_MS. */
START_TEST(pause_after_time_limit)
{
	start(1, 0);
	query_until(0, credentials_of(1), NULL, 0, QUERY_CACHED, now + TIMEOUT_MS / 2 - 1);
	query_user(1, 2);
	advance(TIMEOUT_MS / 2 - 1);
	time_out(0);
	expect_answer(0, QUERY_FAILED);
	ck_assert(!app_client_paused(app_client));
	/* The second one waited in the queue meanwhile. */
	ck_assert_int_eq(requests(), 2);
	ck_assert_int_eq(http.sent[1].timeout_ms, TIMEOUT_MS / 2 + 1);
	advance(TIMEOUT_MS / 2 + 1);
	time_out(1);
	expect_answer(1, QUERY_FAILED);
	ck_assert(app_client_paused(app_client));
}
END_TEST

/* If the application has answered another request since, a failed connect causes no pause. */
START_TEST(no_pause_beside_answers)
{
	start(2, 0);
	query_user(1, 1);
	advance(10);
	query_and_reply(2, 200, SESSION("u2"));
	fail_request(0, true);
	expect_answer(1, QUERY_FAILED);
	expect_not_kept(3);
	/* A response from before the request does not count. */
	query_user(4, 4);
	advance(10);
	fail_request(requests() - 1, true);
	expect_answer(4, QUERY_FAILED);
	query_user(5, 5);
	expect_answer(5, QUERY_FAILED);
}
END_TEST

/* In a pause, requests in flight continue, and new queries can share them. */
START_TEST(under_way_in_a_pause)
{
	start(2, 5);
	query_user(0, 1);
	query_user(1, 2);
	fail_request(0, true);
	expect_answer(0, QUERY_FAILED);
	query_user(2, 2);
	expect_pending(1);
	expect_pending(2);
	reply(1, 200, SESSION("u2"));
	expect_user(1, "u2");
	expect_user(2, "u2");
	/* Their responses do not end the pause. */
	query_user(3, 3);
	expect_answer(3, QUERY_FAILED);
}
END_TEST

/* An invalid or incomplete response causes no pause. */
START_TEST(no_pause_after_wrong)
{
	start(1, 5);
	query_and_reply(1, 500, "");
	query_and_reply(1, 200, "<html>");
	query_user(1, 1);
	query_user(2, 2);
	fail_request(2, false);
	expect_answer(1, QUERY_FAILED);
	expect_pending(2);
	ck_assert_int_eq(requests(), 4);
}
END_TEST

/* A query for many projects fails once in a pause, and makes no further request. */
START_TEST(lots_in_a_pause)
{
	int32_t many[300];

	start(1, 5);
	fill(many, 1, 300);
	query_projects(0, 1, many, 300);
	fail_request(0, true);
	expect_answer(0, QUERY_FAILED);
	ck_assert_int_eq(requests(), 1);
	query_projects(1, 1, many, 300);
	expect_answer(1, QUERY_FAILED);
	turn();
	expect_unchanged(0, QUERY_FAILED);
	expect_unchanged(1, QUERY_FAILED);
	ck_assert_int_eq(requests(), 1);
}
END_TEST

/* ---- Forgetting */

/* A request whose query is forgotten continues, marks no stream, and its response is cached. */
START_TEST(forgotten_under_way)
{
	start(32, 5);
	query_user(1, 1);
	query_user(2, 1);
	free_query(1);
	stream_release(streams[1]);
	streams[1] = stream_new(-1, 65536);
	reply(0, 200, SESSION("u1"));
	ck_assert_uint_eq(marks(1), 0);
	expect_user(2, "u1");
	query_user(3, 2);
	free_query(3);
	reply(1, 200, SESSION("u2"));
	ck_assert_uint_eq(marks(3), 0);
	expect_kept(2, "u2");
}
END_TEST

/* A query is forgotten while some of its requests are in flight, some queued, and some answered. */
START_TEST(forgotten_lots)
{
	int32_t many[400];

	start(2, 5);
	fill(many, 1, 400);
	query_projects(0, 1, many, 400);
	ck_assert_int_eq(requests(), 2);
	reply(0, 200, "{\"data\":[{\"id\":1}]}");
	ck_assert_int_eq(requests(), 3);
	free_query(0);
	reply(1, 200, "{\"data\":[]}");
	reply(2, 200, "{\"data\":[{\"id\":201}]}");
	/* The last request was never made. */
	ck_assert_int_eq(requests(), 3);
	ck_assert_uint_eq(marks(0), 0);
	query_projects(1, 1, many, 400);
	ck_assert_int_eq(requests(), 4);
	expect_chunk(3, 301, 100);
	/* A query that has failed already. */
	fail_request(3, true);
	expect_answer(1, QUERY_FAILED);
	free_query(1);
	app_query_free(NULL);
}
END_TEST

/* ---- The log */

/* Failures are logged as at most one warning a minute, and the recovery as one line. */
START_TEST(warnings)
{
	start(32, 0);
	query_and_reply(1, 500, "");
	ck_assert_int_eq(logged("cannot query the application {\"url\":\"http://app.example\","
	    "\"query\":\"user\",\"error\":\"an HTTP status other than 200, 401 and 403\","
	    "\"status\":500,\"suppressed\":0}"), 1);
	for (int i = 0; i < 10; i++)
		query_and_reply(1, 200, "<html>");
	advance(59999);
	query_and_reply(1, 500, "");
	/* Only a warning has the number of suppressed ones; the other lines are at debug level. */
	ck_assert_int_eq(logged("\"suppressed\":"), 1);
	ck_assert_int_eq(logged("answers again"), 0);
	advance(1);
	query_user(0, 1);
	fail_request(requests() - 1, false);
	ck_assert_int_eq(logged("\"error\":\"no answer, for a test\",\"status\":0,"
	    "\"suppressed\":11}"), 1);
	ck_assert_int_eq(logged("\"suppressed\":"), 2);
	free_query(0);
	marks(0);
	query_and_reply(1, 200, "{}");
	ck_assert_int_eq(logged("answers again"), 1);
	query_and_reply(1, 200, SESSION("u1"));
	ck_assert_int_eq(logged("answers again"), 1);
}
END_TEST

/* A query for two projects gets this response. */
static void
learn_projects(int number, int status, const char *body)
{
	int32_t two[] = { 1, 2 };

	query_projects(0, number, two, 2);
	reply(requests() - 1, status, body);
	free_query(0);
	marks(0);
}

static uint64_t
counted(enum metric_result result)
{
	static struct metrics c;

	metrics_read(&c);
	return c.cells[METRIC_APP_REQUESTS][0][result];
}

/*
 * A 403 to a project query has its own count, and at most one warning a minute with the reason. A 401,
 * and a 403 to a session query, count as a no.
 */
START_TEST(forbidden)
{
	static const char body[] = "{\"error\":\"External API access not enabled\"}";

	start(32, 0);
	learn_projects(1, 403, body);
	ck_assert_int_eq(logged("[app] query forbidden {\"url\":\"http://app.example\","
	    "\"status\":403,\"reason\":\"External API access not enabled\",\"suppressed\":0,"
	    "\"secFetchSite\":null}"), 1);
	ck_assert_int_eq(logged("projects answer {\"answer\":\"no\",\"userId\":null,"
	    "\"status\":403,"), 1);
	ck_assert_uint_eq(counted(RESULT_FORBIDDEN), 1);
	ck_assert_uint_eq(counted(RESULT_NO), 0);

	for (int i = 0; i < 10; i++)
		learn_projects(1, 403, body);
	advance(59999);
	learn_projects(1, 403, body);
	ck_assert_int_eq(logged("query forbidden"), 1);
	ck_assert_int_eq(logged("\"status\":403,\"ms\""), 12);
	advance(1);
	learn_projects(1, 403, "<html>\n\x1b[31m");
	ck_assert_int_eq(logged("\"reason\":null,\"suppressed\":11,"), 1);
	ck_assert_int_eq(logged("query forbidden"), 2);
	ck_assert_uint_eq(counted(RESULT_FORBIDDEN), 13);

	advance(60000);
	learn_projects(1, 401, body);
	query_and_reply(1, 403, body);
	query_and_reply(1, 401, body);
	ck_assert_int_eq(logged("query forbidden"), 2);
	ck_assert_uint_eq(counted(RESULT_FORBIDDEN), 13);
	ck_assert_uint_eq(counted(RESULT_NO), 3);
	/* They are not failures. */
	ck_assert_int_eq(logged("cannot query"), 0);
	ck_assert_int_eq(logged("answers again"), 0);
}
END_TEST

/* The application's reason and the browser's Sec-Fetch-Site are escaped, and bounded. */
START_TEST(forbidden_is_escaped)
{
	char cookie[] = "HTTP_COOKIE=s=secret-1", site[8192] = "HTTP_SEC_FETCH_SITE=";
	char *params[] = { cookie, site, NULL };
	struct credentials *c;
	int32_t project = 7;

	memset(site + strlen(site), '"', sizeof(site) - strlen(site) - 1);
	start(32, 0);
	ck_assert_int_eq(credentials_read(params, &c), CREDENTIALS_FOUND);
	queries[0] = app_query_start(app_client, c, &(struct app_part){ CHECK_PROJECTS, &project, 1 }, 1, false, streams[0], now + TIMEOUT_MS);
	settle();
	reply(0, 403, "{\"error\":\"a\\nb \\u001b[0m \\\"quoted\\\"\"}");
	ck_assert_int_eq(logged("\"reason\":\"a\\u000ab \\u001b[0m \\\"quoted\\\"\",\"suppressed\":0,"
	    "\"secFetchSite\":\"\\\"\\\"\\\""), 1);
	/* The value is truncated, and the line is still valid. */
	ck_assert_int_eq(logged("\"}\n"), 1);
	free_query(0);
	marks(0);
	credentials_release(c);
}
END_TEST

/* At debug level the log shows the source of each answer. */
START_TEST(cache_is_seen)
{
	start(32, 5);
	query_and_reply(1, 200, SESSION("u1"));
	ck_assert_int_eq(logged("user query {\"from\":\"application\""), 1);
	expect_kept(1, "u1");
	ck_assert_int_eq(logged("user query {\"from\":\"cache\""), 1);
	query_user(0, 2);
	query_user(1, 2);
	ck_assert_int_eq(logged("user query {\"from\":\"request in flight\""), 1);
	ck_assert_int_eq(logged("user answer {\"answer\":\"yes\",\"userId\":\"u1\""), 1);
	fail_request(1, true);
	query_user(2, 3);
	ck_assert_int_eq(logged("user query {\"from\":\"none\""), 1);
}
END_TEST

/* ---- The thread */

/* app_client_stop() waits for the thread for the given time at most. */
START_TEST(stop)
{
	start(32, 5);
	http.stuck = true;
	app_client_stop(app_client, 50);
	ck_assert_int_ge(real_ms(), now + 50);
	http.stuck = false;
	app_http_wake(&http);
	app_client_stop(app_client, LONG_MS);
	ck_assert_int_lt(real_ms(), now + LONG_MS);
}
END_TEST

/*
 * Waits as a stream's thread does. Returns whether the answer was a yes, and arrived with the mark, not
 * before it.
 */
static bool
wait_for_yes(struct app_query *q, struct stream *stream)
{
	enum app_query_answer answer = QUERY_PENDING;
	struct stream_view view = { 0 };

	while (!(view.marks & STREAM_ANSWERED)) {
		if (answer != QUERY_PENDING)
			return false;
		stream_wait(stream, now + LONG_MS);
		answer = app_query_answer(q);
		stream_look(stream, &view);
	}
	return app_query_answer(q) == QUERY_YES;
}

/* Starts a query for user "u<number>", or for two projects, and returns whether the answer is right. */
static bool
query_and_wait(int number, bool user, bool fresh, struct stream *stream)
{
	struct credentials *c = new_credentials(number);
	int32_t two[] = { number + 1, number };
	struct stream_view view;
	struct app_query *q;
	bool right;

	q = app_query_start(app_client, c, &(struct app_part){ CHECK_PROJECTS, two, 2 },
	    user ? 0 : 1, fresh ? now : QUERY_CACHED, stream, now + LONG_MS);
	right = q != NULL && wait_for_yes(q, stream);
	if (right && user)
		right = atoi(app_query_user(q) + 1) == number;
	else if (right)
		right = app_query_filter(q, 0, two, 2) == 1 && two[0] == number;
	app_query_free(q);
	/* Another query that is forgotten at once: it may mark the stream or not. */
	app_query_free(app_query_start(app_client, c, NULL, 0, now, stream, now + LONG_MS));
	stream_look(stream, &view);
	credentials_release(c);
	return right;
}

/* A thread that makes 300 queries; arg gets the number of right answers. */
static void *
ask_often(void *arg)
{
	/* Stands in for a socket on which nothing arrives. */
	int fd = eventfd(0, EFD_CLOEXEC), *right = arg;
	struct stream *stream = stream_new(fd, 65536);

	for (int i = 0; i < 300; i++)
		*right += query_and_wait(i % 5 + 1, i % 2 == 0, i % 3 == 0, stream);
	stream_close(stream);
	stream_release(stream);
	close(fd);
	return NULL;
}

static void
many_ask(int cache_seconds)
{
	pthread_t ids[STREAMS];
	int right[STREAMS] = { 0 };

	http.prompt = true;
	start(3, cache_seconds);
	for (int i = 0; i < STREAMS; i++)
		ck_assert_int_eq(pthread_create(&ids[i], NULL, ask_often, &right[i]), 0);
	for (int i = 0; i < STREAMS; i++) {
		ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
		ck_assert_int_eq(right[i], 300);
	}
	settle();
	http.prompt = false;
}

/* Threads that make queries at the same time get the right answers, with and without a cache. */
START_TEST(threads)
{
	many_ask(0);
}
END_TEST

START_TEST(threads_with_cache)
{
	many_ask(5);
}
END_TEST

/* ---- A revocation */

/* A revocation invalidates every cached response, yes or no; new ones are cached again. */
START_TEST(revoked_while_kept)
{
	start(32, 300);
	query_and_reply(1, 200, SESSION("u1"));
	query_and_reply(2, 200, "{}");
	expect_kept(1, "u1");
	expect_kept(2, NULL);
	app_client_invalidate(app_client);
	expect_not_kept(1);
	expect_not_kept(2);
	reply(2, 200, "{}");
	reply(3, 200, SESSION("u2"));
	expect_kept(1, NULL);
	expect_kept(2, "u2");
}
END_TEST

/*
 * A request in flight during a revocation answers the queries that wait for it, but no new query
 * shares it, and its response is not cached.
 */
START_TEST(revoked_while_asked)
{
	static const int32_t some[] = { 7, 8 };

	start(32, 300);
	query_user(0, 1);
	query_user(1, 1);
	query_projects(2, 1, some, 2);
	app_client_invalidate(app_client);
	app_client_invalidate(app_client);
	for (int i = 0; i < 3; i++)
		expect_pending(i);
	query_user(3, 1);
	query_until(4, credentials_of(1), NULL, 0, now, now + TIMEOUT_MS);
	query_projects(5, 1, some, 2);
	ck_assert_int_eq(requests(), 4);
	reply(0, 200, SESSION("u1"));
	reply(1, 200, "{\"data\":[{\"id\":7},{\"id\":8}]}");
	expect_user(0, "u1");
	expect_user(1, "u1");
	expect_projects(2, "7 8");
	for (int i = 3; i < 6; i++)
		expect_pending(i);
	reply(2, 200, "{}");
	reply(3, 200, "{\"data\":[{\"id\":8}]}");
	expect_answer(3, QUERY_NO);
	expect_answer(4, QUERY_NO);
	expect_projects(5, "8");
	free_query(0);
	expect_kept(1, NULL);
}
END_TEST

/* The same if the request from before the revocation is answered last, fails, or is forgotten. */
START_TEST(revoked_and_overtaken)
{
	start(32, 300);
	for (int number = 1; number <= 3; number++)
		query_user(number, number);
	app_client_invalidate(app_client);
	for (int number = 1; number <= 3; number++) {
		query_user(0, number);
		free_query(0);
	}
	ck_assert_int_eq(requests(), 6);
	for (int number = 1; number <= 3; number++)
		reply(number + 2, 200, SESSION("new"));
	free_query(3);
	reply(0, 200, SESSION("old"));
	fail_request(1, false);
	reply(2, 200, SESSION("old"));
	expect_user(1, "old");
	expect_answer(2, QUERY_FAILED);
	for (int number = 1; number <= 3; number++)
		expect_kept(number, "new");
}
END_TEST

/* A response that is not cached displaces none from the cache. */
START_TEST(revoked_takes_no_room)
{
	start(32, 300);
	query_user(1, 0);
	app_client_invalidate(app_client);
	for (int i = 1; i <= KNOWN_MAX; i++)
		query_and_reply(i, 200, SESSION("u"));
	reply(0, 200, SESSION("u"));
	expect_user(1, "u");
	expect_kept(1, "u");
}
END_TEST

/* A request that was queued during a revocation is made later, so new queries share it. */
START_TEST(revoked_while_queued)
{
	start(1, 300);
	query_user(0, 1);
	query_user(1, 2);
	app_client_invalidate(app_client);
	query_user(2, 2);
	query_user(3, 1);
	ck_assert_int_eq(requests(), 1);
	reply(0, 200, SESSION("u1"));
	expect_user(0, "u1");
	ck_assert_int_eq(requests(), 2);
	reply(1, 200, SESSION("u2"));
	expect_user(1, "u2");
	expect_user(2, "u2");
	ck_assert_int_eq(requests(), 3);
	reply(2, 200, "{}");
	expect_answer(3, QUERY_NO);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("app");
	TCase *tc = tcase_create("app");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, who_is_it);
	tcase_add_test(tc, not_yes);
	tcase_add_test(tc, which_projects);
	tcase_add_test(tc, credentials_let_go);
	tcase_add_test(tc, coalesced);
	tcase_add_test(tc, coalesced_in_the_queue);
	tcase_add_test(tc, different);
	tcase_add_test(tc, several_models);
	tcase_add_test(tc, chunks);
	tcase_add_test(tc, chunks_at_the_edge);
	tcase_add_test(tc, chunk_fails);
	tcase_add_test(tc, chunks_from_the_cache);
	tcase_add_test(tc, yes_is_kept);
	tcase_add_test(tc, no_is_kept);
	tcase_add_test(tc, kept_for_long);
	tcase_add_test(tc, nothing_is_kept);
	tcase_add_test(tc, failures_are_not_kept);
	tcase_add_test(tc, fresh_question);
	tcase_add_test(tc, bounded);
	tcase_add_test(tc, rechecks_share);
	tcase_add_test(tc, kept_for_rechecks_alone);
	tcase_add_test(tc, recheck_and_no);
	tcase_add_test(tc, recheck_of_lots);
	tcase_add_test(tc, kept_for_an_interval);
	tcase_add_test(tc, noes_displace_no_yes);
	tcase_add_test(tc, revoked_recheck);
	tcase_add_test(tc, concurrency);
	tcase_add_test(tc, forgotten_in_the_queue);
	tcase_add_test(tc, given_up_in_the_queue);
	tcase_add_test(tc, known_users_first);
	tcase_add_test(tc, no_longer_recognized);
	tcase_add_test(tc, time_left);
	tcase_add_test(tc, no_memory);
	tcase_add_test(tc, pause_after_dead);
	tcase_add_test(tc, pause_after_time_limit);
	tcase_add_test(tc, no_pause_beside_answers);
	tcase_add_test(tc, under_way_in_a_pause);
	tcase_add_test(tc, no_pause_after_wrong);
	tcase_add_test(tc, lots_in_a_pause);
	tcase_add_test(tc, forgotten_under_way);
	tcase_add_test(tc, forgotten_lots);
	tcase_add_test(tc, warnings);
	tcase_add_test(tc, forbidden);
	tcase_add_test(tc, forbidden_is_escaped);
	tcase_add_test(tc, cache_is_seen);
	tcase_add_test(tc, revoked_while_kept);
	tcase_add_test(tc, revoked_while_asked);
	tcase_add_test(tc, revoked_and_overtaken);
	tcase_add_test(tc, revoked_takes_no_room);
	tcase_add_test(tc, revoked_while_queued);
	tcase_add_test(tc, stop);
	tcase_add_test(tc, threads);
	tcase_add_test(tc, threads_with_cache);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
