/* SPDX-License-Identifier: ISC */
/*
 * check_app_api: the queries to the application byte for byte, and what its responses mean. Each
 * response is read from a block of exactly its size, so that a sanitizer finds reads beyond it.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/app_api.h"
#include "config/app_url.h"
#include "base/text.h"
#include "base/json.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The values of *wrong. */
#define NOT_JSON     "not a JSON object"
#define NOT_EXPECTED "JSON, but not of the documented form"
#define BAD_STATUS   "an HTTP status other than 200, 401 and 403"

#define ID_255                                                                                    \
	"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"                        \
	"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"                        \
	"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"                        \
	"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"

/* ---- The URL */

/* Every allowed form of TPI_APP_URL is accepted. */
START_TEST(accepted_urls)
{
	static const char *const urls[] = { "http://localhost", "http://localhost/",
		"https://localhost", "http://localhost:3000", "http://localhost:3000/",
		"https://tpi.example.com/app", "https://tpi.example.com/app/", "http://h:1",
		"http://h:65535", "http://h:00080", "http://127.0.0.1:3000/a/b", "http://[::1]",
		"http://[::1]:3000/x", "http://[FE80::1.2.3.4]:1", "HTTP://h", "HttpS://h",
		"http://under_score-1.example./~x/%20;a=b,c", "http://h/a:b@c",
		"unix:/run/app.sock", "unix:/a" };
	char path[128] = "unix:/";

	for (size_t i = 0; i < COUNT(urls); i++)
		ck_assert_msg(app_url_valid(urls[i]), "%s", urls[i]);
	/* The longest path of a socket. */
	memset(path + 6, 'p', 106);
	ck_assert(app_url_valid(path));
}
END_TEST

/* Other schemes, missing parts, and URLs that libcurl would understand differently are refused. */
START_TEST(refused_urls)
{
	static const char *const urls[] = { "", "localhost", "localhost:3000", "//localhost",
		"http", "http:", "http:/", "http://", "http:///", "http:///path", "http://:3000",
		"http:localhost", "http:/localhost", "https://", "https:///x", "ftp://h",
		"file:///etc/passwd", "ws://h", "httpss://h", "http ://h", "xhttp://h", " http://h",
		"http://h ", "http://a b", "http://h/a b", "http://h\t", "http://h/\n",
		"http://h/\x7f", "http://h\xc3\xa4", "http://h/\xc3\xa4", "http://u@h",
		"http://u:p@h", "http://:p@h", "http://h@", "http://h:", "http://h:0",
		"http://h:00000", "http://h:000080", "http://h:65536", "http://h:99999",
		"http://h:100000", "http://h:-1", "http://h:+1", "http://h:1a", "http://h:a",
		"http://h:1:2", "http://h:/x", "http://::1", "http://::1:80", "http://[::1",
		"http://::1]", "http://[]", "http://[]:80", "http://[::1]80", "http://[::1]x",
		"http://[::1]:", "http://[::1]:0", "http://[::g]", "http://[h]", "http://[1:2]",
		"http://[:]", "http://[1.2.3.4]", "http://[1:2:3:4:5:6:7:8:9]", "http://[12345::1]",
		"http://[::1/]", "http://[fe80::1%25lo]", "http://h?x", "http://h/?x=1",
		"http://h/#x", "http://h#x", "http://h/a?b", "http://h\\x", "http://h/\\x",
		"http://h*", "http://h/x?", "http://a,b", "http://{a,b}", "http://[1-3]", "unix:",
		"unix:/", "unix:path", "unix://", "unix://path", "unix:///path", "unix:./path",
		"UNIX:/path", "unix:/a b", "unix:/a\n", "/path" };
	char path[128] = "unix:/";

	for (size_t i = 0; i < COUNT(urls); i++)
		ck_assert_msg(!app_url_valid(urls[i]), "%s", urls[i]);
	memset(path + 6, 'p', 107);
	ck_assert(!app_url_valid(path));
}
END_TEST

/* ---- The queries */

/* The target of the session query. */
START_TEST(session_target)
{
	ck_assert_str_eq(APP_SESSION_TARGET, "/api/auth/session");
}
END_TEST

static void
expect_target(const int32_t *projects, int count, const char *expected)
{
	char *target = malloc(APP_TARGET_SIZE);

	ck_assert_ptr_nonnull(target);
	app_api_target(target, CHECK_PROJECTS, projects, count);
	ck_assert_str_eq(target, expected);
	free(target);
}

/* The target of a query for one project, and for two. */
START_TEST(projects_target)
{
	static const int32_t projects[] = { 7, 2147483647 };

	expect_target(projects, 1, "/api/model/projects/findMany?q=%7B%22where%22%3A%7B%22id%22%3A"
	    "%7B%22in%22%3A%5B7%5D%7D%7D%2C%22select%22%3A%7B%22id%22%3Atrue%7D%7D");
	expect_target(projects, 2, "/api/model/projects/findMany?q=%7B%22where%22%3A%7B%22id%22%3A"
	    "%7B%22in%22%3A%5B7%2C2147483647%5D%7D%7D%2C%22select%22%3A%7B%22id%22%3Atrue%7D%7D");
}
END_TEST

/* Each model has its own query; only that for issues takes projects that are marked as deleted. */
START_TEST(model_targets)
{
	static const struct { enum app_check check; const char *expected; } rows[] = {
		{ CHECK_PRESENT_PROJECTS, "/api/model/projects/findMany?q=%7B%22where%22%3A%7B%22id%22%3A"
		    "%7B%22in%22%3A%5B7%2C8%5D%7D%2C%22isDeleted%22%3Afalse%7D%2C%22select%22%3A%7B%22id"
		    "%22%3Atrue%7D%7D" },
		{ CHECK_TEST_RUNS, "/api/model/testRuns/findMany?q=%7B%22where%22%3A%7B%22id%22%3A"
		    "%7B%22in%22%3A%5B7%2C8%5D%7D%2C%22isDeleted%22%3Afalse%7D%2C%22select%22%3A%7B%22id"
		    "%22%3Atrue%7D%7D" },
		{ CHECK_MILESTONES, "/api/model/milestones/findMany?q=%7B%22where%22%3A%7B%22id%22%3A"
		    "%7B%22in%22%3A%5B7%2C8%5D%7D%2C%22isDeleted%22%3Afalse%7D%2C%22select%22%3A%7B%22id"
		    "%22%3Atrue%7D%7D" },
	};
	char *target = malloc(APP_TARGET_SIZE);
	int32_t ids[APP_IDS_MAX] = { 7, 8 };

	ck_assert_ptr_nonnull(target);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		app_api_target(target, rows[i].check, ids, 2);
		ck_assert_str_eq(target, rows[i].expected);
	}
	/* The longest fits. */
	for (int i = 0; i < APP_IDS_MAX; i++)
		ids[i] = INT32_MAX;
	app_api_target(target, CHECK_MILESTONES, ids, APP_IDS_MAX);
	ck_assert_str_eq(target + strlen(target) - strlen("true%7D%7D"), "true%7D%7D");
	free(target);
	ck_assert_str_eq(app_check_name(CHECK_USER), "user");
	ck_assert_str_eq(app_check_name(CHECK_TEST_RUNS), "testRuns");
}
END_TEST

/* Decodes "%7B" to "{" and the like, in place. */
static void
percent_decode(char *text)
{
	char *out = text;

	for (; *text != '\0'; text++) {
		if (*text == '%') {
			*out++ = (char)(text_hex_digit(text[1]) << 4 | text_hex_digit(text[2]));
			text += 2;
		} else
			*out++ = *text;
	}
	*out = '\0';
}

/* The target for each number of projects up to the largest fits, and decodes to the documented JSON. */
START_TEST(projects_targets)
{
	static const char start[] = "/api/model/projects/findMany?q=";
	int32_t projects[APP_IDS_MAX];

	for (int i = 0; i < APP_IDS_MAX; i++)
		projects[i] = INT32_MAX - i;
	for (int count = 1; count <= APP_IDS_MAX; count++) {
		char *target = malloc(APP_TARGET_SIZE), expected[2048];
		size_t used = 0;

		ck_assert_ptr_nonnull(target);
		app_api_target(target, CHECK_PROJECTS, projects, count);
		ck_assert_uint_eq(strspn(target + strlen(start), "abcdefghijklmnopqrstuvwxyz"
		    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%"), strlen(target) - strlen(start));
		used += (size_t)sprintf(expected, "%s{\"where\":{\"id\":{\"in\":[", start);
		for (int i = 0; i < count; i++)
			used += (size_t)sprintf(expected + used, "%s%" PRId32, i > 0 ? "," : "",
			    projects[i]);
		strcpy(expected + used, "]}},\"select\":{\"id\":true}}");
		percent_decode(target);
		ck_assert_str_eq(target, expected);
		free(target);
	}
}
END_TEST

/* ---- Responses to a session query */

struct session_row {
	const char *body;
	enum app_answer answer;
	const char *says; /* the user after APP_YES, what is wrong after APP_WRONG */
};

static void
expect_session(int status, const char *body, size_t length, enum app_answer answer,
    const char *says)
{
	char *copy = malloc(length > 0 ? length : 1), user[CHANNEL_ID_MAX + 1] = "left as it was";
	const char *wrong = NULL;
	enum app_answer result;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, body, length);
	result = app_api_read_session(status, copy, length, user, &wrong);
	ck_assert_msg(result == answer, "%d %s: %d, not %d", status, body, (int)result,
	    (int)answer);
	if (answer == APP_YES)
		ck_assert_msg(strcmp(user, says) == 0, "%s: %s, not %s", body, user, says);
	else
		ck_assert_str_eq(user, "left as it was");
	if (answer == APP_WRONG)
		ck_assert_msg(strcmp(wrong, says) == 0, "%s: %s, not %s", body, wrong, says);
	free(copy);
}

static void
expect_sessions(const struct session_row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		expect_session(200, rows[i].body, strlen(rows[i].body), rows[i].answer,
		    rows[i].says);
}

#define EXPECT_SESSIONS(...)                                                                      \
	do {                                                                                      \
		static const struct session_row rows[] = { __VA_ARGS__ };                         \
		expect_sessions(rows, COUNT(rows));                                               \
	} while (0)

/* The user is user.id, whatever else the response contains. */
START_TEST(session_yes)
{
	EXPECT_SESSIONS(
	    { "{\"user\":{\"id\":\"clx0a\"}}", APP_YES, "clx0a" },
	    { "{\"user\":{\"id\":\"clx0a\",\"name\":\"A B\",\"email\":\"a@b\",\"access\":\"USER\"},"
	      "\"expires\":\"2026-12-24T08:00:00.000Z\"}", APP_YES, "clx0a" },
	    { " \r\n\t{ \"user\" : { \"id\" : \"u\" } } \n", APP_YES, "u" },
	    { "{\"id\":\"x\",\"user\":{\"user\":{\"id\":\"y\"},\"id\":\"u\",\"sub\":\"z\"}}",
	      APP_YES, "u" },
	    { "{\"user\":{\"id\":\"\\u0075\\/\"}}", APP_YES, "u/" },
	    { "{\"event\":\"sync\",\"user\":{\"id\":\"7\"}}", APP_YES, "7" },
	    { "{\"user\":{\"id\":\"" ID_255 "\"}}", APP_YES, ID_255 });
}
END_TEST

/* Without a user or an id, or with an id that is false in JavaScript or invalid, it is anonymous. */
START_TEST(session_anonymous)
{
	EXPECT_SESSIONS(
	    { "{}", APP_NO, NULL },
	    { " {} ", APP_NO, NULL },
	    { "null", APP_NO, NULL },
	    { "{\"user\":null}", APP_NO, NULL },
	    { "{\"user\":{}}", APP_NO, NULL },
	    { "{\"user\":{\"name\":\"u\"},\"id\":\"u\"}", APP_NO, NULL },
	    { "{\"User\":{\"id\":\"u\"}}", APP_NO, NULL },
	    { "{\"user\":{\"ID\":\"u\"}}", APP_NO, NULL },
	    { "{\"expires\":\"2026-12-24T08:00:00.000Z\"}", APP_NO, NULL },
	    { "{\"user\":{\"id\":null}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":\"\"}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":false}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":0}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":-0}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":0.0}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":-0.0e7}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":null,\"name\":\"u\"},\"id\":\"u\"}", APP_NO, NULL },
	    { "{\"user\":{\"id\":\"0\"}}", APP_YES, "0" },
	    { "{\"user\":{\"id\":\"false\"}}", APP_YES, "false" },
	    { "{\"user\":{\"id\":\"a:b\"}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":\"*\"}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":\"a b\"}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":\"a\\nb\"}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":\"\\ud800\"}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":\"\xc3\xa4\"}}", APP_NO, NULL },
	    { "{\"user\":{\"id\":\"" ID_255 "u\"}}", APP_NO, NULL });
}
END_TEST

/* A response that is not strictly a JSON object is invalid. */
START_TEST(session_not_json)
{
	EXPECT_SESSIONS(
	    { "", APP_WRONG, NOT_JSON },
	    { " ", APP_WRONG, NOT_JSON },
	    { "<!DOCTYPE html><html><body>Sign in</body></html>", APP_WRONG, NOT_JSON },
	    { "nul", APP_WRONG, NOT_JSON },
	    { "nullnull", APP_WRONG, NOT_JSON },
	    { "NULL", APP_WRONG, NOT_JSON },
	    { "true", APP_WRONG, NOT_JSON },
	    { "7", APP_WRONG, NOT_JSON },
	    { "\"u\"", APP_WRONG, NOT_JSON },
	    { "[]", APP_WRONG, NOT_JSON },
	    { "[{\"user\":{\"id\":\"u\"}}]", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u\"}", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u\"}}}", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u\"}}{}", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u\"}} x", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u\"},}", APP_WRONG, NOT_JSON },
	    { "{'user':{'id':'u'}}", APP_WRONG, NOT_JSON },
	    { "{user:{id:\"u\"}}", APP_WRONG, NOT_JSON },
	    { "\xef\xbb\xbf{\"user\":{\"id\":\"u\"}}", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u\"},\"x\":NaN}", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u\\u0000\"}}", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u\xff\"}}", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"\xc0\xb5\"}}", APP_WRONG, NOT_JSON },
	    { "{\"user\":{\"id\":\"u\n\"}}", APP_WRONG, NOT_JSON });
	expect_session(200, "{\"user\":{\"id\":\"u\0\"}}", 21, APP_WRONG, NOT_JSON);
	expect_session(200, "{\"user\":{\"id\":\"u\"}}\0", 21, APP_WRONG, NOT_JSON);
	expect_session(200, "null\0", 5, APP_WRONG, NOT_JSON);
	expect_session(200, "{\"user\":{\"id\":\"u\"}}", 18, APP_WRONG, NOT_JSON);
}
END_TEST

/* A response whose user is not an object, or whose id is not a string, is invalid. */
START_TEST(session_wrong_types)
{
	EXPECT_SESSIONS(
	    { "{\"user\":\"u\"}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":7}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":true}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":[]}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":[{\"id\":\"u\"}]}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":7}}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":-1}}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":0.5}}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":99999999999999999999}}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":7.5}}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":true}}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":[]}}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":{}}}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":[\"u\"]}}", APP_WRONG, NOT_EXPECTED },
	    { "{\"user\":{\"id\":{\"id\":\"u\"}}}", APP_WRONG, NOT_EXPECTED });
}
END_TEST

/* A response whose innermost value is nested this deep: {"user":{"id":"u"},...,"x":[[...1...]]}. */
static char *
nested(int depth)
{
	char *body = malloc(64 + 2 * (size_t)depth), *at;

	ck_assert_ptr_nonnull(body);
	at = stpcpy(body, "{\"user\":{\"id\":\"u\"},\"data\":[{\"id\":7}],\"x\":");
	for (int i = 1; i < depth; i++)
		*at++ = '[';
	*at++ = '1';
	for (int i = 1; i < depth; i++)
		*at++ = ']';
	strcpy(at, "}");
	return body;
}

/* The deepest allowed nesting is accepted; one level more, and very deep nesting, is invalid. */
START_TEST(deep)
{
	static const int depths[] = { JSON_DEPTH_MAX + 1, 1000, 100000 };
	char *body = nested(JSON_DEPTH_MAX);
	int32_t project = 7;
	const char *wrong;

	expect_session(200, body, strlen(body), APP_YES, "u");
	ck_assert_int_eq(app_api_read_ids(200, body, strlen(body), &project, 1, &wrong), APP_YES);
	free(body);
	for (size_t i = 0; i < COUNT(depths); i++) {
		body = nested(depths[i]);
		expect_session(200, body, strlen(body), APP_WRONG, NOT_JSON);
		ck_assert_int_eq(app_api_read_ids(200, body, strlen(body), &project, 1, &wrong),
		    APP_WRONG);
		free(body);
	}
}
END_TEST

/* 401 and 403 mean anonymous whatever the body; any status but these and 200 is invalid. */
START_TEST(session_status)
{
	static const int others[] = { 100, 199, 201, 204, 206, 300, 301, 302, 304, 307, 308, 400,
		402, 404, 405, 407, 429, 500, 502, 503, 504, 999, -1 };
	static const char body[] = "{\"user\":{\"id\":\"u\"}}";

	expect_session(401, body, strlen(body), APP_NO, NULL);
	expect_session(403, body, strlen(body), APP_NO, NULL);
	expect_session(401, "", 0, APP_NO, NULL);
	expect_session(403, "<html>", 6, APP_NO, NULL);
	for (size_t i = 0; i < COUNT(others); i++) {
		expect_session(others[i], body, strlen(body), APP_WRONG, BAD_STATUS);
		expect_session(others[i], "{}", 2, APP_WRONG, BAD_STATUS);
		expect_session(others[i], "null", 4, APP_WRONG, BAD_STATUS);
	}
}
END_TEST

/* ---- Responses to a project query */

/* The response to a query for 3, 7, 8 and 2147483647; left: the readable ones, "3 0 0 2147483647". */
static void
expect_projects(int status, const char *body, size_t length, enum app_answer answer,
    const char *left, const char *says)
{
	int32_t projects[] = { 3, 7, 8, INT32_MAX };
	char *copy = malloc(length > 0 ? length : 1), list[64];
	const char *wrong = NULL;
	enum app_answer result;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, body, length);
	result = app_api_read_ids(status, copy, length, projects, 4, &wrong);
	ck_assert_msg(result == answer, "%d %s: %d, not %d", status, body, (int)result,
	    (int)answer);
	snprintf(list, sizeof(list), "%" PRId32 " %" PRId32 " %" PRId32 " %" PRId32, projects[0],
	    projects[1], projects[2], projects[3]);
	if (answer != APP_WRONG)
		ck_assert_msg(strcmp(list, left) == 0, "%s: %s, not %s", body, list, left);
	else
		ck_assert_msg(strcmp(wrong, says) == 0, "%s: %s, not %s", body, wrong, says);
	free(copy);
}

struct projects_row {
	const char *body;
	enum app_answer answer;
	const char *left, *says;
};

static void
expect_projects_rows(const struct projects_row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		expect_projects(200, rows[i].body, strlen(rows[i].body), rows[i].answer,
		    rows[i].left, rows[i].says);
}

#define EXPECT_PROJECTS(...)                                                                      \
	do {                                                                                      \
		static const struct projects_row rows[] = { __VA_ARGS__ };                        \
		expect_projects_rows(rows, COUNT(rows));                                          \
	} while (0)

/* The projects in data[].id are readable, in any order and however often they occur. */
START_TEST(projects_yes)
{
	EXPECT_PROJECTS(
	    { "{\"data\":[{\"id\":3},{\"id\":7},{\"id\":8},{\"id\":2147483647}]}", APP_YES,
	      "3 7 8 2147483647", NULL },
	    { "{\"data\":[{\"id\":7}]}", APP_YES, "0 7 0 0", NULL },
	    { "{\"data\":[{\"id\":2147483647},{\"id\":8},{\"id\":3}]}", APP_YES, "3 0 8 2147483647",
	      NULL },
	    { "{\"data\":[{\"id\":8},{\"id\":3},{\"id\":8},{\"id\":8}]}", APP_YES,
	      "3 0 8 0", NULL },
	    { " { \"data\" : [ { \"name\" : \"n\", \"id\" : 7, \"x\" : null } ] } ", APP_YES,
	      "0 7 0 0", NULL });
}
END_TEST

/* Projects that were not requested are ignored; without any other it is a no. */
START_TEST(projects_not_asked_for)
{
	EXPECT_PROJECTS(
	    { "{\"data\":[{\"id\":1},{\"id\":7},{\"id\":9},{\"id\":2147483646}]}", APP_YES,
	      "0 7 0 0", NULL },
	    { "{\"data\":[{\"id\":1},{\"id\":9},{\"id\":37},{\"id\":78}]}", APP_NO,
	      "0 0 0 0", NULL },
	    { "{\"data\":[]}", APP_NO, "0 0 0 0", NULL },
	    { "{\"error\":{\"status\":1},\"data\":[ ]}", APP_NO, "0 0 0 0", NULL });
}
END_TEST

/* A response without data, with data that is not a list, or with one invalid id is invalid. */
START_TEST(projects_wrong)
{
	EXPECT_PROJECTS(
	    { "{}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":null}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":{}}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":{\"id\":7}}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":7}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":\"7\"}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":true}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"Data\":[{\"id\":7}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[7,8]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[\"7\"]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[null]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[[{\"id\":7}]]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"ID\":7}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":7},{}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":7},8]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":\"7\"}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":null}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":true}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":[7]}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":7.0}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":7.5}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":7e0}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":1e3}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":0}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":-0}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":-7}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":2147483648}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":4294967303}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":18446744073709551623}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":-18446744073709551609}]}", APP_WRONG, NULL, NOT_EXPECTED },
	    { "{\"data\":[{\"id\":7},{\"id\":0}]}", APP_WRONG, NULL, NOT_EXPECTED });
}
END_TEST

/* A response that is not strictly a JSON object is invalid; so is null, unlike for a session. */
START_TEST(projects_not_json)
{
	EXPECT_PROJECTS(
	    { "", APP_WRONG, NULL, NOT_JSON },
	    { "null", APP_WRONG, NULL, NOT_JSON },
	    { "[{\"id\":7}]", APP_WRONG, NULL, NOT_JSON },
	    { "<html>{\"data\":[{\"id\":7}]}</html>", APP_WRONG, NULL, NOT_JSON },
	    { "{\"data\":[{\"id\":7}]", APP_WRONG, NULL, NOT_JSON },
	    { "{\"data\":[{\"id\":7}]}]", APP_WRONG, NULL, NOT_JSON },
	    { "{\"data\":[{\"id\":7}]}x", APP_WRONG, NULL, NOT_JSON },
	    { "{\"data\":[{\"id\":7},]}", APP_WRONG, NULL, NOT_JSON },
	    { "{\"data\":[{\"id\":+7}]}", APP_WRONG, NULL, NOT_JSON },
	    { "{\"data\":[{\"id\":07}]}", APP_WRONG, NULL, NOT_JSON },
	    { "{\"data\":[{\"id\":7}],\"x\":\"\\u0000\"}", APP_WRONG, NULL, NOT_JSON },
	    { "{\"data\":[{\"id\":7}],\"x\":\"\xed\xa0\x80\"}", APP_WRONG, NULL, NOT_JSON });
	expect_projects(200, "{\"data\":[{\"id\":7}]}", 18, APP_WRONG, NULL, NOT_JSON);
	expect_projects(200, "{\"data\":[{\"id\":7}]}\0", 20, APP_WRONG, NULL, NOT_JSON);
}
END_TEST

/* 401 and 403 mean that none is readable; any status but these and 200 is invalid. */
START_TEST(projects_status)
{
	static const int others[] = { 100, 201, 204, 301, 302, 307, 400, 404, 422, 500, 503, -1 };
	static const char body[] = "{\"data\":[{\"id\":7}]}";

	expect_projects(401, body, strlen(body), APP_NO, "0 0 0 0", NULL);
	expect_projects(403, body, strlen(body), APP_NO, "0 0 0 0", NULL);
	expect_projects(403, "", 0, APP_NO, "0 0 0 0", NULL);
	for (size_t i = 0; i < COUNT(others); i++)
		expect_projects(others[i], body, strlen(body), APP_WRONG, NULL, BAD_STATUS);
}
END_TEST

/* Expects this reason in a body; body and reason are in blocks of exactly their size. */
static void
expect_reason(const char *body, const char *expected)
{
	static const struct credentials none = { .size = 0 };
	size_t length = strlen(body);
	char *copy = malloc(length > 0 ? length : 1), *reason = malloc(APP_REASON_SIZE);

	ck_assert_ptr_nonnull(copy);
	ck_assert_ptr_nonnull(reason);
	memcpy(copy, body, length);
	memset(reason, 'x', APP_REASON_SIZE);
	app_api_read_reason(copy, length, &none, reason);
	ck_assert_msg(strcmp(reason, expected) == 0, "%s: %s, not %s", body, reason, expected);
	free(copy);
	free(reason);
}

/* The reason is the error message of a refusal; a body of another form has none. */
START_TEST(reasons)
{
	static const struct {
		const char *body, *reason;
	} rows[] = {
		{ "{\"error\":\"External API access not enabled for this account\"}",
		  "External API access not enabled for this account" },
		{ "{\"error\":\"Forbidden\",\"message\":\"not you\"}", "Forbidden" },
		{ "{\"error\":{\"status\":403,\"message\":\"denied by policy\"}}", "denied by policy" },
		{ "{\"message\":\"not you\"}", "not you" },
		{ " {\"error\" : \"a\\nb\\u001b \\u00e4\"} ", "a\nb\x1b \xc3\xa4" },
		{ "{\"error\":\"\"}", "" },
		{ "", "" }, { "{}", "" }, { "[]", "" }, { "null", "" }, { "\"error\"", "" },
		{ "{\"error\":null}", "" }, { "{\"error\":403}", "" }, { "{\"error\":[\"x\"]}", "" },
		{ "{\"error\":{}}", "" }, { "{\"error\":{\"message\":7}}", "" },
		{ "{\"message\":{\"message\":\"x\"}}", "" }, { "{\"Error\":\"x\"}", "" },
		{ "<html>{\"error\":\"x\"}</html>", "" }, { "{\"error\":\"x\"", "" },
		{ "{\"error\":\"x\\u0000y\"}", "" },
	};
	char body[64 + 2 * APP_REASON_SIZE] = "{\"error\":\"", expected[APP_REASON_SIZE];

	for (size_t i = 0; i < COUNT(rows); i++)
		expect_reason(rows[i].body, rows[i].reason);
	/* Truncated to fit. */
	memset(body + strlen(body), 'r', 2 * APP_REASON_SIZE);
	strcat(body, "\"}");
	memset(expected, 'r', sizeof(expected) - 1);
	expected[sizeof(expected) - 1] = '\0';
	expect_reason(body, expected);
}
END_TEST

/* The response to the largest query may have more projects than requested, in reverse order. */
START_TEST(projects_many)
{
	int32_t projects[APP_IDS_MAX];
	char *body = malloc(32 * 3 * APP_IDS_MAX);
	const char *wrong;
	size_t used;

	ck_assert_ptr_nonnull(body);
	for (int i = 0; i < APP_IDS_MAX; i++)
		projects[i] = 1000 + i;
	used = (size_t)sprintf(body, "{\"data\":[{\"id\":1}");
	for (int i = 2 * APP_IDS_MAX; i >= -APP_IDS_MAX; i -= 2)
		used += (size_t)sprintf(body + used, ",{\"id\":%d}", 1000 + i);
	strcpy(body + used, "]}");
	ck_assert_int_eq(app_api_read_ids(200, body, strlen(body), projects, APP_IDS_MAX, &wrong),
	    APP_YES);
	for (int i = 0; i < APP_IDS_MAX; i++)
		ck_assert_int_eq(projects[i], i % 2 == 0 ? 1000 + i : 0);
	free(body);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("app");
	TCase *tc = tcase_create("app");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, accepted_urls);
	tcase_add_test(tc, refused_urls);
	tcase_add_test(tc, session_target);
	tcase_add_test(tc, projects_target);
	tcase_add_test(tc, projects_targets);
	tcase_add_test(tc, model_targets);
	tcase_add_test(tc, session_yes);
	tcase_add_test(tc, session_anonymous);
	tcase_add_test(tc, session_not_json);
	tcase_add_test(tc, session_wrong_types);
	tcase_add_test(tc, deep);
	tcase_add_test(tc, session_status);
	tcase_add_test(tc, projects_yes);
	tcase_add_test(tc, projects_not_asked_for);
	tcase_add_test(tc, projects_wrong);
	tcase_add_test(tc, projects_not_json);
	tcase_add_test(tc, projects_status);
	tcase_add_test(tc, reasons);
	tcase_add_test(tc, projects_many);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
