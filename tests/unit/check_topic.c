/* SPDX-License-Identifier: ISC */
/*
 * check_topic: the table of topics: paths, parameters, what a connection watches, and its channels.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/topic.h"
#include "session/watch_list.h"

#define NOTIFICATIONS (&topics[0])
#define ISSUES        (&topics[1])

#define MISSING  "projectId or projectIds is missing"
#define ONE      "projectId must be one whole number from 1 to 2147483647"
#define SEVERAL  "projectIds must be whole numbers from 1 to 2147483647, separated by commas"
#define ONCE     "only one projectId or projectIds is allowed"
#define TOO_MANY "projectIds must be at most 500 projects"

/* Parses a query; the caller frees with watch_list_free(). */
static const char *
parse(struct watch_list *w, const char *query)
{
	const char *error;
	char *copy = strdup(query);
	struct request r = { .query = copy };

	memset(w, 0, sizeof(*w));
	error = ISSUES->parse(ISSUES, &r, w);
	ck_assert_str_eq(copy, query);
	free(copy);
	return error;
}

/* Expects just these projects, in this order, written as "1 2 3". */
static void
expect(const char *query, const char *projects)
{
	struct watch_list w;
	const char *error = parse(&w, query);
	char list[256] = "";
	size_t used = 0;

	ck_assert_msg(error == NULL, "%s: %s", query, error);
	for (int i = 0; i < watch_list_total(&w); i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%d", i > 0 ? " " : "",
		    (int)w.ids[i]);
	ck_assert_msg(strcmp(list, projects) == 0, "%s: %s, not %s", query, list, projects);
	watch_list_free(&w);
}

static void
expect_error(const char *query, const char *expected)
{
	struct watch_list w;
	const char *error = parse(&w, query);

	ck_assert_msg(error != NULL, "%s: taken", query);
	ck_assert_msg(strcmp(error, expected) == 0, "%s: %s", query, error);
	watch_list_free(&w);
}

/* The two paths are compared byte for byte, without decoding or normalising. */
START_TEST(paths)
{
	static const char *const unknown[] = { "", "/", "/api", "/api/notifications", "/api/streams",
		"/api/notifications/stream/", "/api/notifications/stream/x", "/api/issues/stream/",
		"/api/notifications/strea", "api/notifications/stream", "//api/issues/stream",
		"/api//issues/stream", "/api/./issues/stream", "/x/../api/issues/stream",
		"/API/issues/stream", "/api/Issues/stream", "/api/%69ssues/stream",
		"/api/issues%2Fstream", "/api/issues/stream?projectId=1", "/api/issues/stream ",
		" /api/issues/stream", "/api/issues/stream\n", "/tpi/api/issues/stream" };

	ck_assert_ptr_eq(topic_find("/api/notifications/stream"), NOTIFICATIONS);
	ck_assert_ptr_eq(topic_find("/api/issues/stream"), ISSUES);
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		ck_assert_msg(topic_find(unknown[i]) == NULL, "%s", unknown[i]);
}
END_TEST

/* Expects that the names of all channels are these, '|' behind each. */
static void
expect_channels(const struct watch_list *w, const struct settings *s, const char *user,
    const char *expected)
{
	char *copy = strdup(expected), *names, *name, *rest = copy, *wanted;
	int count, n = 0;

	name = names = watch_list_channels(w, s, user, false, &count);
	ck_assert_ptr_nonnull(names);
	for (; *(wanted = strsep(&rest, "|")) != '\0'; name += strlen(name) + 1, n++)
		ck_assert_str_eq(name, wanted);
	ck_assert_int_eq(count, n);
	free(copy);
	free(names);
}

/* Each row, as tpi-stream(7) describes it: STREAMS, LOGS, and the caps. */
START_TEST(rows)
{
	static const struct {
		const char *path, *tag, *ids_key, *metric, *channels;
		enum app_check check;
		int tenant_cap, user_cap;
	} expected[] = {
		{ "/api/notifications/stream", "sse/notifications", NULL, "sse.connections.active",
		    "notifications:tenant:t:user:u|notifications:tenant:t:broadcast|", CHECK_USER, 1, 2 },
		{ "/api/issues/stream", "sse/issues", "projectIds", "sse.issues.connections.active",
		    "i:tenant:t:project:7|j:tenant:t:project:7|", CHECK_PROJECTS, 3, 4 },
		{ "/api/test-runs/7/stream", "sse/test-run", "testRunIds", "sse.live.connections.active",
		    "live:tenant:t:testrun:7|", CHECK_TEST_RUNS, 5, 6 },
		{ "/api/projects/7/test-runs/stream", "sse/project-test-runs", "projectIds",
		    "sse.live.connections.active", "live:tenant:t:project:7:testruns|",
		    CHECK_PRESENT_PROJECTS, 5, 6 },
		{ "/api/milestones/7/stream", "sse/milestone", "milestoneIds",
		    "sse.live.connections.active", "live:tenant:t:milestone:7|", CHECK_MILESTONES, 5, 6 },
		{ "/api/projects/7/milestones/stream", "sse/project-milestones", "projectIds",
		    "sse.live.connections.active", "live:tenant:t:project:7:milestones|",
		    CHECK_PRESENT_PROJECTS, 5, 6 },
	};
	struct settings s = { .tenant = strdup("t"), .issues_prefixes = { "i", "j" },
		.issues_prefix_count = 2, .tenant_cap = 1, .user_cap = 2, .issues_tenant_cap = 3,
		.issues_user_cap = 4, .live_tenant_cap = 5, .live_user_cap = 6 };

	ck_assert_int_eq(topic_count, sizeof(expected) / sizeof(expected[0]));
	for (int i = 0; i < topic_count; i++) {
		struct request r = { .path = strdup(expected[i].path), .query = "projectId=7" };
		const struct topic *t = topic_find(r.path);
		struct watch_list w = { 0 };
		struct log_field fields[TOPIC_MAX], *end;

		ck_assert_ptr_eq(t, &topics[i]);
		ck_assert_str_eq(t->tag, expected[i].tag);
		ck_assert_int_eq(t->check, expected[i].check);
		ck_assert((t->not_found == NULL) == (t->check == CHECK_USER));
		ck_assert_str_eq(kind_caps[t->kind].metric, expected[i].metric);
		ck_assert_int_eq(kind_tenant_cap(t->kind, &s), expected[i].tenant_cap);
		ck_assert_int_eq(kind_user_cap(t->kind, &s), expected[i].user_cap);
		ck_assert_ptr_null(t->parse(t, &r, &w));
		ck_assert_int_eq(watch_list_total(&w), 1);
		ck_assert_int_eq(w.counts[i], 1);
		ck_assert(watch_list_restricted(&w) == (t->check != CHECK_USER));
		expect_channels(&w, &s, "u", expected[i].channels);
		end = watch_list_log(&w, false, fields);
		ck_assert_int_eq(end - fields, expected[i].ids_key != NULL);
		if (expected[i].ids_key != NULL) {
			ck_assert_str_eq(fields[0].key, expected[i].ids_key);
			ck_assert_uint_eq(fields[0].length, 1);
			ck_assert_int_eq(fields[0].list[0], 7);
		}
		watch_list_free(&w);
		free(r.path);
	}
	free(s.tenant);
}
END_TEST

#define BAD_ID "the id in the path must be a whole number from 1 to 2147483647"

/* The id in a path: one number, as it stands there; anything else without a '/' is an error. */
START_TEST(ids_in_paths)
{
	static const char *const around[][2] = { { "/api/test-runs/", "/stream" },
		{ "/api/milestones/", "/stream" }, { "/api/projects/", "/test-runs/stream" },
		{ "/api/projects/", "/milestones/stream" } };
	static const char *const bad[] = { "", "0", "07", "-7", "+7", " 7", "7 ", "7a", "%37", "7,8",
		"2147483648", "99999999999999999999", "7\n", "stream", "*", ".", ".." };
	static const int32_t good[] = { 1, 7, 2147483647 };
	struct request r = { .query = "projectId=x" };
	char path[128], id[16];

	r.path = path;
	for (size_t f = 0; f < sizeof(around) / sizeof(around[0]); f++) {
		const struct topic *t;
		struct watch_list w = { 0 };

#define PATH(id) snprintf(path, sizeof(path), "%s%s%s", around[f][0], id, around[f][1])
		PATH("1");
		t = topic_find(path);
		ck_assert_ptr_nonnull(t);
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			PATH(bad[i]);
			ck_assert_ptr_eq(topic_find(path), t);
			ck_assert_str_eq(t->parse(t, &r, &w), BAD_ID);
			ck_assert_int_eq(watch_list_total(&w), 0);
		}
		for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
			snprintf(id, sizeof(id), "%d", (int)good[i]);
			PATH(id);
			ck_assert_ptr_eq(topic_find(path), t);
			ck_assert_ptr_null(t->parse(t, &r, &w));
			ck_assert_int_eq(w.ids[0], good[i]);
			watch_list_free(&w);
		}
		PATH("7/8");
		ck_assert_ptr_null(topic_find(path));
		PATH("/");
		ck_assert_ptr_null(topic_find(path));
#undef PATH
	}
}
END_TEST

static void
expect_list(const struct watch_list *w, const char *expected);

/* Parses a query of the combined stream; the caller frees the list. */
static const char *
parse_combined(struct watch_list *w, const char *query)
{
	const struct topic *t = topic_find("/api/stream");
	struct request r = { .query = query };

	memset(w, 0, sizeof(*w));
	return t->parse(t, &r, w);
}

#define IDS    "each parameter must be a list of whole numbers from 1 to 2147483647, separated by commas"
#define TWICE  "each parameter is allowed once"
#define NONE   "nothing to watch: at least one parameter is required"

/* The combined stream takes each topic by its label, in any order, and is not a topic itself. */
START_TEST(combined)
{
	static const struct { const char *query, *expected; } good[] = {
		{ "notifications=1", "0:0" },
		{ "issues=7", "1:7" },
		{ "testRuns=9,7,9", "2:7 2:9" },
		{ "projectMilestones=7&notifications=1&issues=8%2C7", "0:0 1:7 1:8 5:7" },
		{ "milestones=4&projectTestRuns=7&x=y&testRuns=7&lastEventId=evicted", "2:7 3:7 4:4" },
	};
	static const struct { const char *query, *error; } bad[] = {
		{ "", NONE }, { "x=1", NONE }, { "Issues=7", NONE }, { "projectId=7", NONE },
		{ "projectIds=7", NONE },
		{ "notifications", "notifications must be 1" },
		{ "notifications=", "notifications must be 1" },
		{ "notifications=0", "notifications must be 1" },
		{ "notifications=01&issues=7", "notifications must be 1" },
		{ "notifications=true", "notifications must be 1" },
		{ "issues", IDS }, { "issues=", IDS }, { "issues=7,", IDS }, { "testRuns=0", IDS },
		{ "milestones=2147483648", IDS }, { "projectTestRuns=7&projectMilestones=x", IDS },
		{ "issues=7&issues=7", TWICE }, { "issues=7&testRuns=7&%69ssues=8", TWICE },
		{ "notifications=1&notifications=1", TWICE },
	};
	struct watch_list w;
	const char *error;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		error = parse_combined(&w, good[i].query);
		ck_assert_msg(error == NULL, "%s: %s", good[i].query, error);
		expect_list(&w, good[i].expected);
		watch_list_free(&w);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		error = parse_combined(&w, bad[i].query);
		ck_assert_msg(error != NULL, "%s", bad[i].query);
		ck_assert_str_eq(error, bad[i].error);
		watch_list_free(&w);
	}
	for (int i = 0; i < topic_count; i++) {
		ck_assert_str_ne(topics[i].path, "/api/stream");
		ck_assert_ptr_nonnull(topics[i].label);
	}
	ck_assert_ptr_null(topic_find("/api/stream")->label);
	ck_assert_ptr_null(topic_find("/api/stream/"));
}
END_TEST

/* 500 ids in all, of whatever topics. */
START_TEST(combined_limit)
{
	char query[8192];
	size_t used;
	struct watch_list w;

	for (int extra = 0; extra < 2; extra++) {
		used = (size_t)sprintf(query, "issues=1");
		for (int i = 2; i <= 250; i++)
			used += (size_t)sprintf(query + used, ",%d", i);
		used += (size_t)sprintf(query + used, "&testRuns=1");
		for (int i = 2; i <= 250 + extra; i++)
			used += (size_t)sprintf(query + used, ",%d", i);
		if (extra == 0)
			ck_assert_ptr_null(parse_combined(&w, query));
		else
			ck_assert_str_eq(parse_combined(&w, query),
			    "the parameters must have at most 500 ids in all");
		watch_list_free(&w);
	}
}
END_TEST

/* Channels with their labels, and the ids under the labels in logs. */
START_TEST(combined_channels)
{
	struct settings s = { .tenant = strdup("t"), .issues_prefixes = { "i", "j" },
		.issues_prefix_count = 2 };
	static const char expected[] = "notifications:tenant:t:user:u\0notifications\0"
	    "notifications:tenant:t:broadcast\0notifications\0i:tenant:t:project:7\0issues:7\0"
	    "j:tenant:t:project:7\0issues:7\0live:tenant:t:testrun:7\0testRuns:7\0"
	    "live:tenant:t:project:7:testruns\0projectTestRuns:7\0live:tenant:t:milestone:7\0"
	    "milestones:7\0live:tenant:t:project:7:milestones\0projectMilestones:7";
	struct log_field fields[TOPIC_MAX];
	struct watch_list w;
	int count;
	char *names;

	ck_assert_ptr_null(parse_combined(&w, "notifications=1&issues=7&testRuns=7&projectTestRuns=7&"
	    "milestones=7&projectMilestones=7"));
	names = watch_list_channels(&w, &s, "u", true, &count);
	ck_assert_int_eq(count, 8);
	ck_assert_mem_eq(names, expected, sizeof(expected));
	free(names);
	ck_assert_int_eq(watch_list_log(&w, true, fields) - fields, 5);
	ck_assert_str_eq(fields[0].key, "issues");
	ck_assert_str_eq(fields[4].key, "projectMilestones");
	watch_list_free(&w);
	free(s.tenant);
}
END_TEST

/* Adds count ids from first on to a row. */
static void
add(struct watch_list *w, int row, int first, int count)
{
	int32_t ids[16];

	for (int i = 0; i < count; i++)
		ids[i] = first + i;
	ck_assert(watch_list_add(w, &topics[row], ids, count));
}

/* Expects these ids, "row:id" each. */
static void
expect_list(const struct watch_list *w, const char *expected)
{
	char text[256] = "";
	size_t used = 0;
	int at = 0;

	for (int row = 0; row < topic_count; row++)
		for (int i = 0; i < w->counts[row]; i++)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%d:%d",
			    at > 0 ? " " : "", row, (int)w->ids[at]), at++;
	ck_assert_str_eq(text, expected);
}

/* Keeps odd ids, and says what it was asked. */
static int
keep_odd(void *arg, enum app_check check, int32_t *ids, int count)
{
	int kept = 0;

	(*(int *)arg)++;
	ck_assert_int_ne(check, CHECK_USER);
	for (int i = 0; i < count; i++)
		if (ids[i] % 2 == 1)
			ids[kept++] = ids[i];
	return kept;
}

/* A list of several topics: filtered row by row, and what it has lost since. */
START_TEST(lists)
{
	struct watch_list w = { 0 }, kept, lost;
	int calls = 0;

	add(&w, 0, 0, 1);
	add(&w, 1, 1, 3);
	add(&w, 3, 2, 3);
	add(&w, 4, 8, 1);
	expect_list(&w, "0:0 1:1 1:2 1:3 3:2 3:3 3:4 4:8");
	ck_assert(watch_list_copy(&kept, &w));
	watch_list_filter(&kept, keep_odd, &calls);
	ck_assert_int_eq(calls, 3);
	expect_list(&kept, "0:0 1:1 1:3 3:3");
	ck_assert(watch_list_lost(&lost, &w, &kept));
	expect_list(&lost, "1:2 3:2 3:4 4:8");
	watch_list_free(&lost);
	ck_assert(watch_list_lost(&lost, &w, &w));
	expect_list(&lost, "");
	watch_list_free(&lost);
	watch_list_free(&kept);
	ck_assert(watch_list_lost(&lost, &w, &kept));
	expect_list(&lost, "0:0 1:1 1:2 1:3 3:2 3:3 3:4 4:8");
	watch_list_free(&lost);
	watch_list_free(&w);
}
END_TEST

/* A project's topics depend on it, single test runs and milestones on any project. */
START_TEST(depends_on)
{
	static const bool expected[][2] = { { false, false }, { true, false }, { true, true },
		{ true, false }, { true, true }, { true, false } };

	ck_assert_int_eq(topic_count, sizeof(expected) / sizeof(expected[0]));
	for (int row = 0; row < topic_count; row++) {
		struct watch_list w = { 0 };

		ck_assert(!watch_list_depends_on(&w, 7));
		add(&w, row, 6, 3);
		ck_assert_msg(watch_list_depends_on(&w, 7) == expected[row][0], "%d", row);
		ck_assert_msg(watch_list_depends_on(&w, 9) == expected[row][1], "%d", row);
		watch_list_free(&w);
	}
}
END_TEST

/* projectId takes one project. */
START_TEST(one_project)
{
	expect("projectId=7", "7");
	expect("projectId=1", "1");
	expect("projectId=2147483647", "2147483647");
	expect_error("projectId=7,8", ONE);
	expect_error("projectId=7%2C8", ONE);
	expect_error("projectId=7,", ONE);
	expect_error("projectId=,", ONE);
}
END_TEST

/* projectIds takes one or more. */
START_TEST(several_projects)
{
	expect("projectIds=7", "7");
	expect("projectIds=7,8", "7 8");
	expect("projectIds=1,2147483647,2", "1 2 2147483647");
}
END_TEST

/* The projects are kept in ascending order without duplicates. */
START_TEST(sorted_and_distinct)
{
	expect("projectIds=9,8,7,10,100,2", "2 7 8 9 10 100");
	expect("projectIds=7,7", "7");
	expect("projectIds=8,7,8,7,7,8,1", "1 7 8");
	expect("projectIds=2147483647,1,2147483647", "1 2147483647");
}
END_TEST

/*
 * Names and values of the query are decoded like those of a form: '%' and '+', nothing else.
 */
START_TEST(form_decoding)
{
	expect("projectIds=7%2C8", "7 8");
	expect("projectIds=7%2c8,9", "7 8 9");
	expect("projectId=%37", "7");
	expect("projectId=%31%32", "12");
	expect("%70rojectId=7", "7");
	expect("project%49ds=7,8", "7 8");
	expect("projectId%73=7,8", "7 8");
	/* '+' is a space, and a '%' without two hexadecimal digits is a '%'. */
	expect_error("projectId=+7", ONE);
	expect_error("projectId=7+", ONE);
	expect_error("projectIds=7,+8", SEVERAL);
	expect_error("projectId=%2B7", ONE);
	expect_error("projectId=%207", ONE);
	expect_error("projectId=%", ONE);
	expect_error("projectId=7%", ONE);
	expect_error("projectId=7%3", ONE);
	expect_error("projectId=7%3g", ONE);
	expect_error("projectId=7%g3", ONE);
	/* Decoded only once. */
	expect_error("projectId=%2537", ONE);
	expect_error("projectIds=7%252C8", SEVERAL);
	/* A NUL ends nothing. */
	expect_error("projectId=7%00", ONE);
	expect_error("projectIds=7%00,8", SEVERAL);
	expect_error("projectId%00=7", MISSING);
	/* An encoded '=' or '&' does not separate parameters. */
	expect_error("projectId%3D7", MISSING);
	expect_error("x=1%26projectId=7", MISSING);
	expect_error("projectId=7%26x=1", ONE);
	expect_error("projectId==7", ONE);
}
END_TEST

/* A query without a parameter of exactly that name is refused. */
START_TEST(missing)
{
	static const char *const queries[] = { "", "&", "=", "=7", "x=7", "projectid=7",
		"ProjectId=7", "PROJECTID=7", "projectI=7", "projectIdss=7", "projectIds[]=7",
		"projectId+=7", "+projectId=7", "x=projectId=7", "?projectId=7", "a;projectId=7" };

	for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++)
		expect_error(queries[i], MISSING);
}
END_TEST

/* An empty value, and a list with an empty element, is malformed. */
START_TEST(empty)
{
	expect_error("projectId", ONE);
	expect_error("projectId=", ONE);
	expect_error("projectIds", SEVERAL);
	expect_error("projectIds=", SEVERAL);
	expect_error("projectIds=,", SEVERAL);
	expect_error("projectIds=7,", SEVERAL);
	expect_error("projectIds=,7", SEVERAL);
	expect_error("projectIds=7,,8", SEVERAL);
}
END_TEST

/*
 * A project is a decimal number from 1 to 2147483647 without sign, leading zero, space or anything
 * else.
 */
START_TEST(malformed)
{
	static const char *const values[] = { "0", "00", "07", "-1", "-7", "+7", "%2B7", "7.0",
		"7e1",
		"0x7", "7a", "a", "seven", "*", "%207", "7%20", "7%0A", "7%09", "2147483648",
		"4294967296", "4294967303", "9999999999", "10000000000", "18446744073709551623",
		"99999999999999999999999999", "7;8", "7|8", "7%3B8", "7 8", "%EF%BC%97" };
	char query[128];

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		snprintf(query, sizeof(query), "projectId=%s", values[i]);
		expect_error(query, ONE);
		snprintf(query, sizeof(query), "projectIds=%s", values[i]);
		expect_error(query, SEVERAL);
		snprintf(query, sizeof(query), "projectIds=1,%s", values[i]);
		expect_error(query, SEVERAL);
		snprintf(query, sizeof(query), "projectIds=%s,1", values[i]);
		expect_error(query, SEVERAL);
	}
}
END_TEST

/* The parameter may occur only once, in one of its two forms, even if the values are equal. */
START_TEST(repeated)
{
	expect_error("projectId=7&projectId=7", ONCE);
	expect_error("projectId=7&projectId=8", ONCE);
	expect_error("projectIds=7&projectIds=8", ONCE);
	expect_error("projectId=7&projectIds=7", ONCE);
	expect_error("projectIds=7,8&projectId=7", ONCE);
	expect_error("projectId=7&x=1&project%49d=7", ONCE);
	expect_error("projectId=7&projectId", ONCE);
	expect_error("projectId=7&projectIds=", ONCE);
}
END_TEST

/* Unknown parameters are ignored. */
START_TEST(unknown_parameters)
{
	expect("x=1&projectId=7", "7");
	expect("projectId=7&x=1", "7");
	expect("&&projectId=7&&", "7");
	expect("projectId=7&", "7");
	expect("=&=x&x&projectIds=7,8&projectid=9&%&%00=%zz", "7 8");
	expect("x=projectId&projectId=7&projectId2=8&projectIdsX=9", "7");
}
END_TEST

/* "projectIds=" and count numbers from first, step apart. The caller frees it. */
static char *
numbers(int first, int step, int count, int times)
{
	char *query = malloc(32 + (size_t)count * (size_t)times * 12);
	size_t used;

	ck_assert_ptr_nonnull(query);
	used = (size_t)sprintf(query, "projectIds=");
	for (int t = 0; t < times; t++)
		for (int i = 0; i < count; i++)
			used += (size_t)sprintf(query + used, "%d,", first + step * i);
	query[used - 1] = '\0';
	return query;
}

/* 500 projects are accepted and 501 refused; duplicates do not count. */
START_TEST(at_most_500)
{
	struct watch_list w;
	char *query;

	query = numbers(1000000, -3, 500, 1);
	ck_assert_ptr_null(parse(&w, query));
	ck_assert_int_eq(watch_list_total(&w), 500);
	for (int i = 0; i < 500; i++)
		ck_assert_int_eq(w.ids[i], 1000000 - 3 * 499 + 3 * i);
	watch_list_free(&w);
	free(query);

	query = numbers(1, 1, 501, 1);
	expect_error(query, TOO_MANY);
	free(query);

	query = numbers(1, 1, 500, 20);
	ck_assert_ptr_null(parse(&w, query));
	ck_assert_int_eq(watch_list_total(&w), 500);
	ck_assert_int_eq(w.ids[499], 500);
	watch_list_free(&w);
	free(query);

	query = numbers(1, 1, 501, 2);
	expect_error(query, TOO_MANY);
	free(query);

	/* As many as fit in a head. */
	query = numbers(7, 0, 32000, 1);
	expect(query, "7");
	free(query);
}
END_TEST

/* A notification stream has the channel of the user and that of broadcasts, and no parameters. */
START_TEST(notification_channels)
{
	struct settings s = { .tenant = strdup("acme"), .issues_prefixes = { "other" },
		.issues_prefix_count = 1 };
	struct request r = { .query = "projectId=7" };
	struct watch_list w = { 0 };

	ck_assert_ptr_null(NOTIFICATIONS->parse(NOTIFICATIONS, &r, &w));
	ck_assert_int_eq(watch_list_total(&w), 1);
	expect_channels(&w, &s, "u1",
	    "notifications:tenant:acme:user:u1|notifications:tenant:acme:broadcast|");
	watch_list_free(&w);
	free(s.tenant);
}
END_TEST

/* An issue stream has a channel for each project and prefix. */
START_TEST(issue_channels)
{
	struct settings s = { .tenant = strdup("acme"), .issues_prefixes = { "issues", "other" },
		.issues_prefix_count = 1 };
	struct watch_list w;

	ck_assert_ptr_null(parse(&w, "projectIds=2147483647,7,42"));
	expect_channels(&w, &s, "u1", "issues:tenant:acme:project:7|"
	    "issues:tenant:acme:project:42|issues:tenant:acme:project:2147483647|");
	/* After the access check fewer may be left. */
	w.counts[ISSUES - topics] = 1;
	expect_channels(&w, &s, "u1", "issues:tenant:acme:project:7|");
	w.counts[ISSUES - topics] = 2;
	s.issues_prefix_count = 2;
	expect_channels(&w, &s, "u1", "issues:tenant:acme:project:7|other:tenant:acme:project:7|"
	    "issues:tenant:acme:project:42|other:tenant:acme:project:42|");
	watch_list_free(&w);
	free(s.tenant);
}
END_TEST

/* The largest possible number of channels, with names of the maximum length, is complete. */
START_TEST(longest_channels)
{
	char tenant[CHANNEL_ID_MAX + 1], expected[CHANNEL_NAME_SIZE];
	struct settings s = { .tenant = tenant, .issues_prefix_count = SETTINGS_PREFIXES_MAX };
	int32_t projects[WATCH_LIST_MAX];
	struct watch_list w = { 0 };
	char *names, *name;
	int count;

	memset(tenant, 't', CHANNEL_ID_MAX);
	tenant[CHANNEL_ID_MAX] = '\0';
	for (int i = 0; i < WATCH_LIST_MAX; i++)
		projects[i] = INT32_MAX - i;
	for (int i = 0; i < SETTINGS_PREFIXES_MAX; i++) {
		strcpy(s.issues_prefixes[i], tenant);
		s.issues_prefixes[i][0] = (char)('a' + i);
	}
	ck_assert(watch_list_add(&w, ISSUES, projects, WATCH_LIST_MAX));
	name = names = watch_list_channels(&w, &s, tenant, false, &count);
	ck_assert_ptr_nonnull(names);
	ck_assert_int_eq(count, WATCH_LIST_MAX * SETTINGS_PREFIXES_MAX);
	for (int i = 0; i < count; i++, name += strlen(name) + 1) {
		channel_name_project(expected, s.issues_prefixes[i % SETTINGS_PREFIXES_MAX], tenant,
		    w.ids[i / SETTINGS_PREFIXES_MAX]);
		ck_assert_str_eq(name, expected);
	}
	free(names);
	watch_list_free(&w);
	ck_assert(watch_list_add(&w, NOTIFICATIONS, &(int32_t){ 0 }, 1));
	names = watch_list_channels(&w, &s, tenant, false, &count);
	ck_assert_ptr_nonnull(names);
	ck_assert_int_eq(count, 2);
	channel_name_user(expected, tenant, tenant);
	ck_assert_str_eq(names, expected);
	channel_name_broadcast(expected, tenant);
	ck_assert_str_eq(names + strlen(names) + 1, expected);
	free(names);
	watch_list_free(&w);
}
END_TEST

/* The reconnect of an evicted stream is recognized by its header or, decoded, by its query. */
START_TEST(returning)
{
	static const struct {
		const char *last_event_id, *query;
		bool expected;
	} cases[] = {
		{ "evicted", "", true },
		{ "evicted", "lastEventId=7", true },
		{ "", "lastEventId=evicted", true },
		{ "", "Last-Event-ID=evicted", true },
		{ "7", "projectId=7&lastEventId=evicted", true },
		{ "", "lastEventId=evicted&projectId=7", true },
		{ "", "lastEventId=7&lastEventId=evicted", true },
		{ "", "&&x&=&lastEventId=%65victed&", true },
		{ "", "last%45ventId=evicted", true },
		{ "", "Last%2dEvent%2DID=%65%76%69%63%74%65%64", true },
		{ "", "", false },
		{ "evicted2", "", false },
		{ "Evicted", "", false },
		{ "", "lastEventId", false },
		{ "", "lastEventId=", false },
		{ "", "lastEventId=evicted2", false },
		{ "", "lastEventId=evicte", false },
		{ "", "lastEventId=+evicted", false },
		{ "", "lastEventId=evicted%00", false },
		{ "", "lastEventId=evicted%", false },
		{ "", "lasteventid=evicted", false },
		{ "", "last-event-id=evicted", false },
		{ "", "xlastEventId=evicted", false },
		{ "", "lastEventId=x=evicted", false },
		{ "", "x=lastEventId=evicted", false },
		{ "", "lastEventId;=evicted", false },
		{ "", "evicted", false },
		{ "", "lastEventId=%65%76%69%63%74%65%64%65%76%69%63%74%65%64%65%76%69%63%74%65%64", false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct request r = { .last_event_id = cases[i].last_event_id, .query = cases[i].query };

		ck_assert_msg(topic_is_returning(&r) == cases[i].expected, "%s, %s", cases[i].last_event_id,
		    cases[i].query);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("topic");
	TCase *tc = tcase_create("topic");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, paths);
	tcase_add_test(tc, rows);
	tcase_add_test(tc, ids_in_paths);
	tcase_add_test(tc, combined);
	tcase_add_test(tc, combined_limit);
	tcase_add_test(tc, combined_channels);
	tcase_add_test(tc, lists);
	tcase_add_test(tc, depends_on);
	tcase_add_test(tc, one_project);
	tcase_add_test(tc, several_projects);
	tcase_add_test(tc, sorted_and_distinct);
	tcase_add_test(tc, form_decoding);
	tcase_add_test(tc, missing);
	tcase_add_test(tc, empty);
	tcase_add_test(tc, malformed);
	tcase_add_test(tc, repeated);
	tcase_add_test(tc, unknown_parameters);
	tcase_add_test(tc, at_most_500);
	tcase_add_test(tc, notification_channels);
	tcase_add_test(tc, issue_channels);
	tcase_add_test(tc, longest_channels);
	tcase_add_test(tc, returning);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
