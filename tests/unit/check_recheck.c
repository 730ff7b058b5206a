/* SPDX-License-Identifier: ISC */
/*
 * check_recheck: when an open stream is re-checked, which queries that makes, and what it loses.
 *
 * This program has its own functions of the application client, the access file and the subscriber:
 * they record their calls as text, and answer when a test says so. The clock stands still until a
 * test advances it.
 */
#include <check.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "session/connection.h"
#include "fake_clock.h"

#define TIMEOUT_MS  2000
#define INTERVAL    300 /* seconds */
#define INTERVAL_MS ((int64_t)INTERVAL * 1000)

static int64_t now;

static int64_t
read_now(void)
{
	return now;
}

/* The calls since the last check, each with ';' at its end. */
static char calls[1024];

__attribute__((format(printf, 1, 2)))
static void
call(const char *format, ...)
{
	size_t used = strlen(calls);
	va_list ap;

	va_start(ap, format);
	vsnprintf(calls + used, sizeof(calls) - used, format, ap);
	va_end(ap);
}

static void
call_list(const int32_t *numbers, int count)
{
	for (int i = 0; i < count; i++)
		call(" %d", (int)numbers[i]);
	call(";");
}

static void
expect_calls(const char *expected)
{
	ck_assert_str_eq(calls, expected);
	calls[0] = '\0';
}

static struct connection c;

/*
 * Compares a parameter with the address of a member of c. As pointers they must not be compared: with
 * LTO, GCC 12 to 14 assume that they differ, and the program crashes.
 */
static void
assert_same(const void *a, const void *b)
{
	ck_assert_uint_eq((uintptr_t)a, (uintptr_t)b);
}

static struct registry registry;
static struct settings settings;

/* ---- The application client */

struct app_query {
	enum app_query_answer answer;
	const char *user;
	const int32_t *readable; /* ends with 0 */
	int32_t projects[8];
	int count;
	int64_t after, sent_at;
};

static struct app_query query;
static bool query_open;
static bool no_memory; /* of the application client */

struct app_query *
app_query_start(struct app_client *g, struct credentials *credentials, const struct app_part *parts,
    int part_count, int64_t after, struct stream *stream, int64_t deadline)
{
	const int32_t *projects = part_count > 0 ? parts[0].ids : NULL;
	int count = part_count > 0 ? parts[0].count : 0;

	ck_assert_int_le(part_count, 1);
	ck_assert_ptr_eq(g, registry.app_client);
	ck_assert_ptr_eq(credentials, c.credentials);
	ck_assert_ptr_nonnull(credentials);
	ck_assert_ptr_eq(stream, c.stream);
	ck_assert_int_ge(after, c.slot.live_at);
	ck_assert(!query_open);
	call("ask %s +%d", projects != NULL ? "projects" : "user", (int)(deadline - now));
	call_list(projects, count);
	if (no_memory)
		return NULL;
	memset(&query, 0, sizeof(query));
	if (projects != NULL)
		memcpy(query.projects, projects, (size_t)count * sizeof(*projects));
	query.count = count;
	query.after = after;
	query.sent_at = now;
	query_open = true;
	return &query;
}

enum app_query_answer
app_query_answer(struct app_query *q)
{
	ck_assert(query_open);
	return q->answer;
}

int64_t
app_query_sent_at(const struct app_query *q)
{
	ck_assert(q->answer == QUERY_YES || q->answer == QUERY_NO);
	return q->sent_at;
}

const char *
app_query_user(const struct app_query *q)
{
	ck_assert_int_eq(q->answer, QUERY_YES);
	return q->user;
}

static int
keep(int32_t *projects, int count, const int32_t *readable)
{
	int kept = 0;

	for (int i = 0; i < count; i++)
		for (const int32_t *r = readable; *r != 0; r++)
			if (*r == projects[i])
				projects[kept++] = *r;
	return kept;
}

int
app_query_filter(const struct app_query *q, int at, int32_t *projects, int count)
{
	ck_assert_int_eq(at, 0);
	ck_assert_int_eq(count, q->count);
	ck_assert(q->answer == QUERY_YES || q->answer == QUERY_NO);
	ck_assert_ptr_nonnull(q->readable);
	ck_assert_int_eq(memcmp(projects, q->projects, (size_t)q->count * sizeof(*projects)), 0);
	return keep(projects, q->count, q->readable);
}

void
app_query_free(struct app_query *q)
{
	if (q == NULL)
		return;
	ck_assert(query_open);
	query_open = false;
	call("forget;");
}

/* ---- The registry, the access file, and the subscriber */

/* The projects in the registry's entry; they change only while it has no name. */
static int32_t listed[8];
static int listed_count;

void
registry_name(struct registry *g, struct registry_entry *e, struct stream *stream, const char *user,
    const struct watch_list *watches)
{
	int count = watch_list_total(watches);

	ck_assert_ptr_eq(g, &registry);
	assert_same(e, &c.entry);
	ck_assert_ptr_eq(stream, c.stream);
	ck_assert_str_eq(user, c.user);
	assert_same(watches, &c.watches);
	ck_assert_int_eq(listed_count, 0);
	memcpy(listed, watches->ids, (size_t)count * sizeof(*listed));
	listed_count = count;
}

void
registry_unname(struct registry *g, struct registry_entry *e)
{
	ck_assert_ptr_eq(g, &registry);
	assert_same(e, &c.entry);
	/* Nothing has changed before. */
	ck_assert_int_eq(c.watches.ids[0], 3);
	listed_count = 0;
}

static const int32_t *in_file; /* ends with 0 */

void
access_refresh(struct access *access)
{
	ck_assert_ptr_eq(access, registry.access);
	call("refresh;");
}

int
access_filter(struct access *access, const char *user, enum app_check check, int32_t *projects, int count)
{
	ck_assert_int_eq(check, CHECK_PROJECTS);
	ck_assert_ptr_eq(access, registry.access);
	ck_assert_str_eq(user, "u1");
	call("file");
	call_list(projects, count);
	return keep(projects, count, in_file);
}

static bool subscriber_full;

bool
subscriber_leave_some(struct subscription *subscription, char *names, int count)
{
	const char *name = names;

	ck_assert_ptr_eq(subscription, c.subscription);
	call("leave");
	for (int i = 0; i < count; i++, name += strlen(name) + 1)
		call(" %s", name);
	call(";");
	free(names);
	return !subscriber_full;
}

/* ---- An open stream */

static void
setup(void)
{
	clock_set_source(read_now);
	now = 1000000;
	ck_assert_ptr_nonnull(freopen("/dev/null", "w", stderr));
	settings.tenant = strdup("t");
	strcpy(settings.issues_prefixes[0], "i");
	settings.issues_prefix_count = 1;
	settings.app_timeout_ms = TIMEOUT_MS;
	settings.recheck_seconds = INTERVAL;
	registry.settings = &settings;
	registry.app_client = (struct app_client *)&query;
	registry.access = (struct access *)&in_file;
	c.registry = &registry;
	c.slot.live_at = now;
	c.subscription = (struct subscription *)&calls;
	c.user = strdup("u1");
	c.stream = stream_new(-1, 65536);
	ck_assert_ptr_nonnull(c.stream);
}

static void
teardown(void)
{
	recheck_end(&c);
	ck_assert(!query_open);
	credentials_release(c.credentials);
	watch_list_free(&c.watches);
	stream_release(c.stream);
	free(c.user);
	free(settings.tenant);
}

/* A stream begins, with credentials, and if it is one of issues with projects 3, 7 and 9. */
static void
start(const char *path, enum identity_source identity, enum access_policy access)
{
	static const int32_t some[] = { 3, 7, 9 };
	char cookie[] = "HTTP_COOKIE=a=1", *params[] = { cookie, NULL };

	settings.identity = identity;
	settings.access = access;
	c.topic = topic_find(path);
	ck_assert_int_eq(credentials_read(params, &c.credentials), CREDENTIALS_FOUND);
	watch_list_free(&c.watches);
	if (c.topic->check == CHECK_USER)
		ck_assert(watch_list_add(&c.watches, c.topic, &(int32_t){ 0 }, 1));
	else
		ck_assert(watch_list_add(&c.watches, c.topic, some, 3));
	recheck_start(&c);
}

#define NOTIFICATIONS "/api/notifications/stream"
#define ISSUES        "/api/issues/stream"

/* Calls recheck_turn() after ms; returns in how many ms to call it again, or -1 for never. */
static int
turn_after(int64_t ms)
{
	int64_t at;

	now += ms;
	at = recheck_turn(&c, now);
	ck_assert_int_ge(at, now);
	return at == INT64_MAX ? -1 : (int)(at - now);
}

/* Advances to the next re-check, which begins; returns the time until its query fails. */
static int
begin(void)
{
	int wait = turn_after(0);

	ck_assert_int_ge(wait, 0);
	return turn_after(wait);
}

/* The application client answers the pending query; returns as turn_after(). */
static int
answer_user(enum app_query_answer answer, const char *user)
{
	ck_assert(query_open);
	query.answer = answer;
	query.user = user;
	return turn_after(10);
}

static int
answer_projects(enum app_query_answer answer, const int32_t *readable)
{
	ck_assert(query_open);
	query.answer = answer;
	query.readable = readable;
	return turn_after(10);
}

static void
expect_finished(bool finished)
{
	struct stream_view view;

	stream_look(c.stream, &view);
	ck_assert_int_eq(view.finished, finished);
}

static const int32_t all[] = { 3, 7, 9, 0 }, first[] = { 3, 0 }, middle[] = { 7, 0 },
    outer[] = { 3, 9, 0 }, none[] = { 0 };

/* ---- When a re-check begins */

/* Without a query to make, or an interval, there is no re-check, and the credentials are not kept. */
START_TEST(never)
{
	static const struct {
		const char *path;
		enum identity_source identity;
		enum access_policy access;
		int seconds;
	} rows[] = {
		{ NOTIFICATIONS, IDENTITY_WEB_SERVER, ACCESS_APP, INTERVAL },
		{ NOTIFICATIONS, IDENTITY_WEB_SERVER, ACCESS_FILE, INTERVAL },
		{ ISSUES, IDENTITY_WEB_SERVER, ACCESS_ALLOW, INTERVAL },
		{ NOTIFICATIONS, IDENTITY_APP, ACCESS_APP, 0 },
		{ ISSUES, IDENTITY_APP, ACCESS_APP, 0 },
		{ ISSUES, IDENTITY_WEB_SERVER, ACCESS_FILE, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		settings.recheck_seconds = rows[i].seconds;
		start(rows[i].path, rows[i].identity, rows[i].access);
		ck_assert_ptr_null(c.credentials);
		ck_assert_int_eq(turn_after(0), -1);
		ck_assert_int_eq(turn_after(10 * INTERVAL_MS), -1);
		expect_calls("");
		/* The registry needs the watches all the same. */
		ck_assert_int_eq(watch_list_total(&c.watches), c.topic->check == CHECK_USER ? 1 : 3);
	}
}
END_TEST

/* The first re-check is due after a tenth of the interval to all of it, the next an interval later. */
START_TEST(spread)
{
	int least = INT32_MAX, most = 0;

	for (int i = 0; i < 1000; i++) {
		int wait;

		start(NOTIFICATIONS, IDENTITY_APP, ACCESS_DENY);
		wait = turn_after(0);
		ck_assert_int_ge(wait, INTERVAL_MS / 10);
		ck_assert_int_le(wait, INTERVAL_MS);
		least = wait < least ? wait : least;
		most = wait > most ? wait : most;
		if (i < 999)
			credentials_release(c.credentials);
	}
	ck_assert_int_lt(least, INTERVAL_MS * 2 / 10);
	ck_assert_int_gt(most, INTERVAL_MS * 9 / 10);
	expect_calls("");
	ck_assert_int_gt(turn_after(turn_after(0) - 1), 0);
	expect_calls("");
	ck_assert_int_eq(turn_after(1), TIMEOUT_MS);
	expect_calls("ask user +2000;");
	ck_assert_int_eq(answer_user(QUERY_YES, "u1"), INTERVAL_MS - 10);
	expect_calls("forget;");
	turn_after(INTERVAL_MS - 10);
	expect_calls("ask user +2000;");
}
END_TEST

/* The time counts from the stream's sync, however late its thread wakes up. */
START_TEST(since_the_sync)
{
	now += INTERVAL_MS;
	start(NOTIFICATIONS, IDENTITY_APP, ACCESS_DENY);
	ck_assert_int_eq(turn_after(0), TIMEOUT_MS);
	expect_calls("ask user +2000;");
}
END_TEST

/*
 * An overdue re-check is made once; the next one is overdue if the answer took longer than the
 * interval.
 */
START_TEST(late)
{
	start(NOTIFICATIONS, IDENTITY_APP, ACCESS_DENY);
	turn_after(5 * INTERVAL_MS);
	ck_assert_int_eq(answer_user(QUERY_YES, "u1"), INTERVAL_MS - 10);
	expect_calls("ask user +2000;forget;");
	settings.app_timeout_ms = (int)(3 * INTERVAL_MS);
	begin();
	turn_after(2 * INTERVAL_MS);
	ck_assert_int_eq(answer_user(QUERY_YES, "u1"), 0);
	turn_after(0);
	ck_assert_int_eq(answer_user(QUERY_YES, "u1"), INTERVAL_MS - 10);
}
END_TEST

/*
 * A re-check needs an answer that is newer than the last one the stream used, and the interval counts
 * from the time of that request to the application.
 */
START_TEST(shared)
{
	int64_t user_at, projects_at;

	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	begin();
	ck_assert_int_eq(query.after, c.slot.live_at);
	user_at = query.sent_at = now - 20000;
	answer_user(QUERY_YES, "u1");
	ck_assert_int_eq(query.after, c.slot.live_at);
	projects_at = query.sent_at = now - 10000;
	/* Each is due on its own. */
	answer_projects(QUERY_YES, all);
	calls[0] = '\0';
	begin();
	ck_assert_int_eq(now, user_at + INTERVAL_MS);
	ck_assert_int_eq(query.after, user_at);
	user_at = query.sent_at = now - 5000;
	answer_user(QUERY_YES, "u1");
	expect_calls("ask user +2000;forget;");
	begin();
	ck_assert_int_eq(now, projects_at + INTERVAL_MS);
	ck_assert_int_eq(query.after, projects_at);
	projects_at = query.sent_at = now;
	answer_projects(QUERY_YES, all);
	expect_calls("ask projects +2000 3 7 9;forget;");
	begin();
	ck_assert_int_eq(now, user_at + INTERVAL_MS);
}
END_TEST

/* ---- The user */

/* While the user is the same, nothing changes. */
START_TEST(same_user)
{
	start(NOTIFICATIONS, IDENTITY_APP, ACCESS_APP);
	ck_assert_ptr_nonnull(c.credentials);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(begin(), TIMEOUT_MS);
		/* Only one query at a time. */
		ck_assert_int_eq(turn_after(500), TIMEOUT_MS - 500);
		expect_calls("ask user +2000;");
		answer_user(QUERY_YES, "u1");
		expect_calls("forget;");
		expect_finished(false);
	}
}
END_TEST

/* If the user is anonymous now, the stream ends, without a query for its projects. */
START_TEST(session_lost)
{
	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	begin();
	expect_finished(false);
	answer_user(QUERY_NO, NULL);
	expect_calls("ask user +2000;forget;");
	expect_finished(true);
}
END_TEST

/* If the user is another one now, the stream ends. */
START_TEST(somebody_else)
{
	start(NOTIFICATIONS, IDENTITY_APP, ACCESS_APP);
	begin();
	answer_user(QUERY_YES, "u11");
	expect_calls("ask user +2000;forget;");
	expect_finished(true);
}
END_TEST

/* A query that fails, reaches its deadline, or cannot start for lack of memory changes nothing. */
START_TEST(cannot_be_asked)
{
	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	begin();
	ck_assert_int_eq(answer_user(QUERY_FAILED, NULL), INTERVAL_MS - 10);
	expect_calls("ask user +2000;forget;");
	begin();
	ck_assert_int_eq(turn_after(TIMEOUT_MS - 1), 1);
	expect_calls("ask user +2000;");
	ck_assert_int_eq(turn_after(1), INTERVAL_MS - TIMEOUT_MS);
	expect_calls("forget;");
	no_memory = true;
	ck_assert_int_eq(begin(), INTERVAL_MS);
	expect_calls("ask user +2000;");
	no_memory = false;
	/* For projects, too: with what the user's query has left of the time. */
	begin();
	turn_after(490);
	ck_assert_int_eq(answer_user(QUERY_YES, "u1"), TIMEOUT_MS - 500);
	expect_calls("ask user +2000;forget;ask projects +1500 3 7 9;");
	ck_assert_int_eq(answer_projects(QUERY_FAILED, NULL), INTERVAL_MS - 510);
	expect_calls("forget;");
	begin();
	answer_user(QUERY_YES, "u1");
	turn_after(TIMEOUT_MS - 10);
	expect_calls("ask user +2000;forget;ask projects +1990 3 7 9;forget;");
	begin();
	no_memory = true;
	ck_assert_int_eq(answer_user(QUERY_YES, "u1"), INTERVAL_MS - 10);
	expect_calls("ask user +2000;forget;ask projects +1990 3 7 9;");
	expect_finished(false);
	ck_assert_int_eq(watch_list_total(&c.watches), 3);
}
END_TEST

/* ---- The projects */

/* Each re-check queries the user first, then the projects. */
START_TEST(user_then_projects)
{
	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	for (int i = 0; i < 3; i++) {
		begin();
		expect_calls("ask user +2000;");
		answer_user(QUERY_YES, "u1");
		expect_calls("forget;ask projects +1990 3 7 9;");
		answer_projects(QUERY_YES, all);
		expect_calls("forget;");
		expect_finished(false);
	}
}
END_TEST

/* If the web server names the user, only the projects are queried. */
START_TEST(projects_alone)
{
	start(ISSUES, IDENTITY_WEB_SERVER, ACCESS_APP);
	ck_assert_ptr_nonnull(c.credentials);
	begin();
	expect_calls("ask projects +2000 3 7 9;");
	answer_projects(QUERY_YES, all);
	expect_calls("forget;");
	expect_finished(false);
}
END_TEST

/* The channels of a lost project are left once; later queries have only the other projects. */
START_TEST(projects_lost)
{
	start(ISSUES, IDENTITY_WEB_SERVER, ACCESS_APP);
	begin();
	answer_projects(QUERY_YES, outer);
	expect_calls("ask projects +2000 3 7 9;leave i:tenant:t:project:7;forget;");
	ck_assert_int_eq(listed_count, 2);
	ck_assert(listed[0] == 3 && listed[1] == 9);
	begin();
	answer_projects(QUERY_YES, all);
	expect_calls("ask projects +2000 3 9;forget;");
	begin();
	answer_projects(QUERY_YES, first);
	expect_calls("ask projects +2000 3 9;leave i:tenant:t:project:9;forget;");
	expect_finished(false);
	begin();
	answer_projects(QUERY_NO, none);
	expect_calls("ask projects +2000 3;forget;");
	expect_finished(true);
}
END_TEST

/* Several projects may be lost at once, at any position. */
START_TEST(several_lost)
{
	start(ISSUES, IDENTITY_WEB_SERVER, ACCESS_APP);
	begin();
	answer_projects(QUERY_YES, middle);
	expect_calls("ask projects +2000 3 7 9;"
	    "leave i:tenant:t:project:3 i:tenant:t:project:9;forget;");
	begin();
	expect_calls("ask projects +2000 7;");
}
END_TEST

/* The channels of a lost project are left for every prefix. */
START_TEST(lost_under_all_prefixes)
{
	strcpy(settings.issues_prefixes[1], "j");
	settings.issues_prefix_count = 2;
	start(ISSUES, IDENTITY_WEB_SERVER, ACCESS_APP);
	begin();
	answer_projects(QUERY_YES, middle);
	expect_calls("ask projects +2000 3 7 9;leave i:tenant:t:project:3 j:tenant:t:project:3 "
	    "i:tenant:t:project:9 j:tenant:t:project:9;forget;");
}
END_TEST

/* If all projects are lost, the stream ends, without leaving its channels one by one. */
START_TEST(all_lost)
{
	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	begin();
	answer_user(QUERY_YES, "u1");
	answer_projects(QUERY_NO, none);
	expect_calls("ask user +2000;forget;ask projects +1990 3 7 9;forget;");
	expect_finished(true);
}
END_TEST

/* If the subscriber has no memory, the stream loses nothing yet; the next re-check tries again. */
START_TEST(subscriber_without_memory)
{
	start(ISSUES, IDENTITY_WEB_SERVER, ACCESS_APP);
	for (int i = 0; i < 2; i++) {
		subscriber_full = i == 0;
		begin();
		answer_projects(QUERY_YES, outer);
		expect_calls("ask projects +2000 3 7 9;leave i:tenant:t:project:7;forget;");
	}
	begin();
	expect_calls("ask projects +2000 3 9;");
}
END_TEST

/* With an access file a re-check reads it again, without a query. */
START_TEST(file)
{
	start(ISSUES, IDENTITY_WEB_SERVER, ACCESS_FILE);
	in_file = all;
	ck_assert_int_eq(begin(), INTERVAL_MS);
	expect_calls("refresh;file 3 7 9;");
	in_file = outer;
	begin();
	expect_calls("refresh;file 3 7 9;leave i:tenant:t:project:7;");
	in_file = none;
	expect_finished(false);
	begin();
	expect_calls("refresh;file 3 9;");
	expect_finished(true);
}
END_TEST

/* The application names the user, and the access file decides about the projects. */
START_TEST(user_then_file)
{
	start(ISSUES, IDENTITY_APP, ACCESS_FILE);
	in_file = outer;
	begin();
	expect_calls("ask user +2000;");
	ck_assert_int_eq(answer_user(QUERY_YES, "u1"), INTERVAL_MS - 10);
	expect_calls("forget;refresh;file 3 7 9;leave i:tenant:t:project:7;");
	begin();
	answer_user(QUERY_NO, NULL);
	expect_calls("ask user +2000;forget;");
	expect_finished(true);
}
END_TEST

/* With allow or deny no project can be lost, so only the user is queried. */
START_TEST(user_alone)
{
	start(ISSUES, IDENTITY_APP, ACCESS_ALLOW);
	begin();
	ck_assert_int_eq(answer_user(QUERY_YES, "u1"), INTERVAL_MS - 10);
	expect_calls("ask user +2000;forget;");
	expect_finished(false);
}
END_TEST

/* ---- After a revocation */

static void
revoked(bool many)
{
	recheck_revoked(&c, many, now);
}

/* A revocation causes a re-check of user and projects at once; the next is due an interval later. */
START_TEST(revoked_and_good)
{
	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	ck_assert(recheck_covers(&c));
	turn_after(1000);
	revoked(false);
	expect_calls("");
	ck_assert_int_eq(turn_after(0), TIMEOUT_MS);
	expect_calls("ask user +2000;");
	answer_user(QUERY_YES, "u1");
	expect_calls("forget;ask projects +1990 3 7 9;");
	ck_assert_int_eq(answer_projects(QUERY_YES, all), INTERVAL_MS - 20);
	expect_calls("forget;");
	expect_finished(false);
	/* The revocation is over. */
	begin();
	ck_assert_int_eq(answer_user(QUERY_FAILED, NULL), INTERVAL_MS - 10);
	expect_calls("ask user +2000;forget;");
}
END_TEST

/* What that re-check finds lost is lost as in any other. */
START_TEST(revoked_and_lost)
{
	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	revoked(false);
	turn_after(0);
	answer_user(QUERY_YES, "u1");
	answer_projects(QUERY_YES, outer);
	expect_calls("ask user +2000;forget;"
	    "ask projects +1990 3 7 9;leave i:tenant:t:project:7;forget;");
	revoked(false);
	turn_after(0);
	answer_user(QUERY_NO, NULL);
	expect_calls("ask user +2000;forget;");
	expect_finished(true);
}
END_TEST

/*
 * The answer to a pending query may be older than a revocation: after a yes there is one more re-check,
 * however many revocations there were.
 */
START_TEST(revoked_during_a_recheck)
{
	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	begin();
	revoked(false);
	revoked(true);
	ck_assert_int_eq(turn_after(0), TIMEOUT_MS);
	expect_calls("ask user +2000;");
	answer_user(QUERY_YES, "u1");
	revoked(false);
	ck_assert_int_eq(answer_projects(QUERY_YES, all), 0);
	expect_calls("forget;ask projects +1990 3 7 9;forget;");
	turn_after(0);
	answer_user(QUERY_YES, "u1");
	ck_assert_int_gt(answer_projects(QUERY_YES, all), 10000);
	expect_calls("ask user +2000;forget;ask projects +1990 3 7 9;forget;");
	expect_finished(false);
}
END_TEST

/* After a failed one there is another at once; after a no the stream ends. */
START_TEST(revoked_during_a_bad_recheck)
{
	start(NOTIFICATIONS, IDENTITY_APP, ACCESS_DENY);
	begin();
	revoked(false);
	ck_assert_int_eq(answer_user(QUERY_FAILED, NULL), 0);
	turn_after(0);
	revoked(false);
	expect_calls("ask user +2000;forget;ask user +2000;");
	answer_user(QUERY_NO, NULL);
	expect_finished(true);
}
END_TEST

/* A series of revocations does not delay the re-check after the first. */
START_TEST(revoked_in_a_row)
{
	int64_t at;

	start(NOTIFICATIONS, IDENTITY_APP, ACCESS_DENY);
	revoked(true);
	for (int i = 0; i < 100; i++) {
		at = c.recheck.at;
		revoked(true);
		ck_assert_int_le((int)(c.recheck.at - at), 0);
	}
	/* Nor is the wait for an answer prolonged. */
	turn_after((int)(c.recheck.at - now));
	answer_user(QUERY_FAILED, NULL);
	revoked(false);
	ck_assert_int_eq((int)(c.recheck.at - now), 0);
}
END_TEST

/*
 * While queries fail, the re-check is repeated, after twice the time each time up to the interval,
 * until there is an answer; the next revocation starts with the shortest time again.
 */
START_TEST(revoked_and_later)
{
	int wait, about;

	start(NOTIFICATIONS, IDENTITY_APP, ACCESS_DENY);
	for (int round = 0; round < 100; round++) {
		revoked(false);
		turn_after(0);
		about = 5000;
		for (int i = 0; i < 10; i++) {
			expect_calls("ask user +2000;");
			if (i % 2 == 0)
				wait = answer_user(QUERY_FAILED, NULL);
			else
				wait = turn_after(TIMEOUT_MS);
			expect_calls("forget;");
			ck_assert_int_ge(wait, about / 5 * 3);
			ck_assert_int_le(wait, about / 5 * 7);
			ck_assert_int_gt(turn_after(wait - 1), 0);
			expect_calls("");
			turn_after(1);
			about = about < INTERVAL_MS / 2 ? about * 2 : INTERVAL_MS;
		}
		expect_calls("ask user +2000;");
		answer_user(QUERY_YES, "u1");
		expect_calls("forget;");
	}
	expect_finished(false);
}
END_TEST

/* Without memory it is repeated, too, wherever the memory is missing. */
START_TEST(revoked_without_memory)
{
	int wait;

	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	no_memory = true;
	revoked(false);
	wait = turn_after(0);
	ck_assert_int_ge(wait, 3000);
	ck_assert_int_le(wait, 7000);
	no_memory = false;
	subscriber_full = true;
	turn_after(wait);
	answer_user(QUERY_YES, "u1");
	wait = answer_projects(QUERY_YES, outer);
	ck_assert_int_ge(wait, 6000);
	ck_assert_int_le(wait, 14000);
	subscriber_full = false;
	turn_after(wait);
	calls[0] = '\0';
	answer_user(QUERY_YES, "u1");
	answer_projects(QUERY_YES, outer);
	expect_calls("forget;ask projects +1990 3 7 9;leave i:tenant:t:project:7;forget;");
	ck_assert_int_eq(watch_list_total(&c.watches), 2);
}
END_TEST

/* If only the project query fails, the user, who may have changed meanwhile, is queried again, too. */
START_TEST(revoked_and_half_answered)
{
	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	revoked(false);
	turn_after(0);
	answer_user(QUERY_YES, "u1");
	turn_after(answer_projects(QUERY_FAILED, NULL));
	expect_calls("ask user +2000;forget;ask projects +1990 3 7 9;forget;ask user +2000;");
	answer_user(QUERY_NO, NULL);
	expect_finished(true);
}
END_TEST

/* After a revocation that concerns many streams their re-checks are spread. */
START_TEST(revoked_with_many)
{
	int wait, least = INT32_MAX, most = 0;

	start(NOTIFICATIONS, IDENTITY_APP, ACCESS_DENY);
	for (int i = 0; i < 1000; i++) {
		c.recheck.at = INT64_MAX;
		revoked(true);
		wait = (int)(c.recheck.at - now);
		least = wait < least ? wait : least;
		most = wait > most ? wait : most;
	}
	ck_assert_int_ge(least, 0);
	ck_assert_int_lt(least, 100);
	ck_assert_int_le(most, 2000);
	ck_assert_int_gt(most, 1900);
	turn_after(wait);
	expect_calls("ask user +2000;");
}
END_TEST

/* A revocation makes a re-check read the access file again. */
START_TEST(revoked_by_file)
{
	start(ISSUES, IDENTITY_APP, ACCESS_FILE);
	in_file = none;
	revoked(false);
	turn_after(0);
	answer_user(QUERY_YES, "u1");
	expect_calls("ask user +2000;forget;refresh;file 3 7 9;");
	expect_finished(true);
}
END_TEST

/* If no re-check can query everything that authorized the stream, a revocation ends it. */
START_TEST(revoked_and_ended)
{
	static const struct {
		const char *path;
		enum identity_source identity;
		enum access_policy access;
		int seconds;
	} rows[] = {
		{ NOTIFICATIONS, IDENTITY_WEB_SERVER, ACCESS_APP, INTERVAL },
		{ ISSUES, IDENTITY_WEB_SERVER, ACCESS_APP, INTERVAL },
		{ ISSUES, IDENTITY_WEB_SERVER, ACCESS_FILE, INTERVAL },
		{ ISSUES, IDENTITY_WEB_SERVER, ACCESS_ALLOW, INTERVAL },
		{ ISSUES, IDENTITY_APP, ACCESS_ALLOW, INTERVAL },
		{ NOTIFICATIONS, IDENTITY_APP, ACCESS_APP, 0 },
		{ ISSUES, IDENTITY_APP, ACCESS_APP, 0 },
		{ ISSUES, IDENTITY_APP, ACCESS_FILE, 0 },
	};

	settings.recheck_seconds = rows[_i].seconds;
	start(rows[_i].path, rows[_i].identity, rows[_i].access);
	ck_assert(!recheck_covers(&c));
	expect_finished(false);
	revoked(_i % 2 == 0);
	expect_finished(true);
	turn_after(0);
	expect_calls("");
}
END_TEST

/* At the end of the stream its pending query is forgotten (see teardown()). */
START_TEST(end)
{
	start(ISSUES, IDENTITY_APP, ACCESS_APP);
	begin();
	ck_assert(query_open);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("recheck");
	TCase *tc = tcase_create("recheck");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, never);
	tcase_add_test(tc, spread);
	tcase_add_test(tc, since_the_sync);
	tcase_add_test(tc, late);
	tcase_add_test(tc, shared);
	tcase_add_test(tc, same_user);
	tcase_add_test(tc, session_lost);
	tcase_add_test(tc, somebody_else);
	tcase_add_test(tc, cannot_be_asked);
	tcase_add_test(tc, user_then_projects);
	tcase_add_test(tc, projects_alone);
	tcase_add_test(tc, projects_lost);
	tcase_add_test(tc, several_lost);
	tcase_add_test(tc, lost_under_all_prefixes);
	tcase_add_test(tc, all_lost);
	tcase_add_test(tc, subscriber_without_memory);
	tcase_add_test(tc, file);
	tcase_add_test(tc, user_then_file);
	tcase_add_test(tc, user_alone);
	tcase_add_test(tc, revoked_and_good);
	tcase_add_test(tc, revoked_and_lost);
	tcase_add_test(tc, revoked_during_a_recheck);
	tcase_add_test(tc, revoked_during_a_bad_recheck);
	tcase_add_test(tc, revoked_in_a_row);
	tcase_add_test(tc, revoked_and_later);
	tcase_add_test(tc, revoked_without_memory);
	tcase_add_test(tc, revoked_and_half_answered);
	tcase_add_test(tc, revoked_with_many);
	tcase_add_test(tc, revoked_by_file);
	tcase_add_loop_test(tc, revoked_and_ended, 0, 8);
	tcase_add_test(tc, end);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
