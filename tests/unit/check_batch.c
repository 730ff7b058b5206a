/* SPDX-License-Identifier: ISC */
/*
 * check_batch: the channels, payloads and errors that lines of a batch and options result in.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "publish/batch.h"
#include "wire/wakeup.h"

#define N "{\"stream\":\"notification\","
#define I "{\"stream\":\"issue\","
#define R "{\"stream\":\"test-run\","
#define M "{\"stream\":\"milestone\","

static const struct batch_request defaults = {
	.tenant = "default", .id = "uuid", .prefix = "issues", .dashes = "",
};

static struct error error;

/* Parses a copy that ends where its memory ends, so that a sanitizer sees a read past the end. */
static bool
parse(const char *line, size_t length, struct batch_item *item)
{
	char *copy = malloc(length > 0 ? length : 1);
	bool good;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, line, length);
	error.text[0] = '\0';
	good = batch_parse(copy, length, &defaults, item, &error);
	free(copy);
	return good;
}

static const struct {
	const char *line, *tenant, *channel, *payload;
} good_lines[] = {
	{ N "\"user\":\"u1\",\"id\":\"n1\"}", "default", "notifications:tenant:default:user:u1",
	    "{\"id\":\"n1\",\"event\":\"notification\"}" },
	{ N "\"broadcast\":true}", "default", "notifications:tenant:default:broadcast",
	    "{\"id\":\"uuid\",\"event\":\"SYSTEM_ANNOUNCEMENT\"}" },
	{ N "\"broadcast\":true,\"event\":\"e\",\"id\":\"i\"}", "default",
	    "notifications:tenant:default:broadcast", "{\"id\":\"i\",\"event\":\"e\"}" },
	{ N "\"broadcast\":false,\"user\":\"u\"}", "default", "notifications:tenant:default:user:u",
	    "{\"id\":\"uuid\",\"event\":\"notification\"}" },
	{ I "\"project\":7,\"issue\":42,\"event\":\"issue-updated\"}", "default",
	    "issues:tenant:default:project:7",
	    "{\"event\":\"issue-updated\",\"issueId\":42,\"projectId\":7}" },
	{ I "\"project\":2147483647,\"issue\":1,\"tenant\":\"t\"}", "t",
	    "issues:tenant:t:project:2147483647",
	    "{\"event\":\"issue-updated\",\"issueId\":1,\"projectId\":2147483647}" },
	/* The order of the members, white space and a carriage return do not matter. */
	{ " { \"user\" : \"u\" ,\t\"tenant\":\"t\", \"stream\" : \"notification\" } \r", "t",
	    "notifications:tenant:t:user:u", "{\"id\":\"uuid\",\"event\":\"notification\"}" },
	/* Escapes are decoded, and encoded again only where JSON requires it. */
	{ N "\"user\":\"\\u0075\",\"id\":\"\\u00e9\\/\\\"\\n\"}", "default",
	    "notifications:tenant:default:user:u",
	    "{\"id\":\"\303\251/\\\"\\n\",\"event\":\"notification\"}" },
	/* Of repeated members the last one counts. */
	{ N "\"user\":\"a\",\"user\":\"b\"}", "default", "notifications:tenant:default:user:b",
	    "{\"id\":\"uuid\",\"event\":\"notification\"}" },
};

/* A good line gets its tenant, channel and payload. */
START_TEST(good)
{
	struct batch_item item;

	ck_assert_msg(parse(good_lines[_i].line, strlen(good_lines[_i].line), &item), "%s", error.text);
	ck_assert_str_eq(item.tenant, good_lines[_i].tenant);
	ck_assert_str_eq(item.channels[0], good_lines[_i].channel);
	ck_assert_str_eq(item.payload, good_lines[_i].payload);
	ck_assert_ptr_null(wakeup_check(item.payload, strlen(item.payload)));
	free(item.payload);
}
END_TEST

/* Test runs and milestones are published on their own channel and on their project's. */
static const struct {
	const char *line, *channel, *project_channel, *payload;
} two_channels[] = {
	{ R "\"project\":7,\"run\":42}", "live:tenant:default:testrun:42",
	    "live:tenant:default:project:7:testruns",
	    "{\"event\":\"test_run.state_changed\",\"runId\":42,\"projectId\":7}" },
	{ R "\"project\":7,\"run\":42,\"target\":3,\"event\":\"test_run.completed\",\"tenant\":\"t\"}",
	    "live:tenant:t:testrun:42", "live:tenant:t:project:7:testruns",
	    "{\"event\":\"test_run.completed\",\"runId\":42,\"projectId\":7,\"targetId\":3}" },
	{ M "\"project\":7,\"milestone\":2147483647}", "live:tenant:default:milestone:2147483647",
	    "live:tenant:default:project:7:milestones",
	    "{\"event\":\"milestone.updated\",\"milestoneId\":2147483647,\"projectId\":7}" },
	{ M "\"project\":7,\"milestone\":9,\"target\":1,\"event\":\"e\"}",
	    "live:tenant:default:milestone:9", "live:tenant:default:project:7:milestones",
	    "{\"event\":\"e\",\"milestoneId\":9,\"projectId\":7,\"targetId\":1}" },
};

START_TEST(both_channels)
{
	struct batch_item item;

	ck_assert_msg(parse(two_channels[_i].line, strlen(two_channels[_i].line), &item), "%s", error.text);
	ck_assert_int_eq(item.channel_count, 2);
	ck_assert_str_eq(item.channels[0], two_channels[_i].channel);
	ck_assert_str_eq(item.channels[1], two_channels[_i].project_channel);
	ck_assert_str_eq(item.payload, two_channels[_i].payload);
	free(item.payload);
}
END_TEST

/* With only_tenant a line for another tenant is an error that names both. */
START_TEST(only_tenant)
{
	static const char other[] = N "\"user\":\"u\",\"tenant\":\"t\"}";
	static const char same[] = N "\"user\":\"u\",\"tenant\":\"default\"}";
	struct batch_request only = defaults;
	struct batch_item item;

	only.only_tenant = true;
	ck_assert(!batch_parse(other, strlen(other), &only, &item, &error));
	ck_assert_str_eq(error.text, "tenant t: only default is allowed");
	ck_assert(batch_parse(same, strlen(same), &only, &item, &error));
	free(item.payload);
}
END_TEST

/* Bad lines and their errors. */
static const struct {
	const char *line, *reason;
} bad_lines[] = {
	{ "", "is not one JSON object" },
	{ "x", "is not one JSON object" },
	{ "[]", "is not one JSON object" },
	{ N "\"user\":\"u\"} x", "is not one JSON object" },
	{ N "\"user\":\"u\"", "is not JSON (RFC 8259)" },
	{ N "\"user\":'u'}", "is not JSON (RFC 8259)" },
	{ N "\"user\":\"\xff\"}", "is not UTF-8" },
	{ N "\"user\":\"a\\u0000\"}", "contains a NUL (\\u0000)" },
	{ "{}", "stream: must be " BATCH_STREAMS_ALLOWED },
	{ "{\"stream\":\"x\"}", "stream: must be " BATCH_STREAMS_ALLOWED },
	{ "{\"stream\":1}", "stream: must be " BATCH_STREAMS_ALLOWED },
	{ "{\"stream\":null}", "stream: must be " BATCH_STREAMS_ALLOWED },
	{ N "\"usr\":\"u\"}", "usr: not allowed with the stream \"notification\"" },
	{ N "\"user\":\"u\",\"project\":1}",
	    "project: not allowed with the stream \"notification\"" },
	{ I "\"user\":\"u\"}", "user: not allowed with the stream \"issue\"" },
	{ I "\"id\":\"i\"}", "id: not allowed with the stream \"issue\"" },
	{ "{\"stream\":\"notification\"}", "exactly one of user and broadcast is required" },
	{ N "\"broadcast\":false}", "exactly one of user and broadcast is required" },
	{ N "\"user\":\"u\",\"broadcast\":true}",
	    "exactly one of user and broadcast is required" },
	{ N "\"broadcast\":1}", "broadcast: must be true or false" },
	{ N "\"broadcast\":\"true\"}", "broadcast: must be true or false" },
	{ N "\"user\":7}", "user: must be a string" },
	{ N "\"user\":null}", "user: must be a string" },
	{ N "\"user\":[\"u\"]}", "user: must be a string" },
	{ N "\"user\":\"\"}", "user : must be " CHANNEL_ID_ALLOWED },
	{ N "\"user\":\"a b\"}", "user a b: must be " CHANNEL_ID_ALLOWED },
	{ N "\"user\":\"*\"}", "user *: must be " CHANNEL_ID_ALLOWED },
	{ N "\"user\":\"\\u00e9\"}", "user ??: must be " CHANNEL_ID_ALLOWED },
	{ N "\"user\":\"u\",\"tenant\":\"a:b\"}", "tenant a:b: must be " CHANNEL_ID_ALLOWED },
	{ N "\"user\":\"u\",\"tenant\":\"\"}", "tenant : must be " CHANNEL_ID_ALLOWED },
	{ N "\"user\":\"u\",\"tenant\":null}", "tenant: must be a string" },
	{ N "\"user\":\"u\",\"id\":\"\"}", "id: must not be empty" },
	{ N "\"user\":\"u\",\"id\":1}", "id: must be a string" },
	{ N "\"user\":\"u\",\"event\":\"\"}", "event: must not be empty" },
	{ N "\"user\":\"u\",\"event\":\"sync\"}",
	    "the payload has the event \"sync\", which is reserved for tpi-streamd" },
	{ N "\"user\":\"u\",\"event\":\"s\\u0079nc\"}",
	    "the payload has the event \"sync\", which is reserved for tpi-streamd" },
	{ "{\"stream\":\"issue\"}", "project is required" },
	{ I "\"project\":7}", "issue is required" },
	{ I "\"issue\":7}", "project is required" },
	{ I "\"project\":0,\"issue\":1}", "project: must be a whole number from 1 to 2147483647" },
	{ I "\"project\":-1,\"issue\":1}", "project: must be a whole number from 1 to 2147483647" },
	{ I "\"project\":1.0,\"issue\":1}", "project: must be a whole number from 1 to 2147483647" },
	{ I "\"project\":1e3,\"issue\":1}", "project: must be a whole number from 1 to 2147483647" },
	{ I "\"project\":\"7\",\"issue\":1}",
	    "project: must be a whole number from 1 to 2147483647" },
	{ I "\"project\":null,\"issue\":1}",
	    "project: must be a whole number from 1 to 2147483647" },
	{ I "\"project\":1,\"issue\":2147483648}",
	    "issue: must be a whole number from 1 to 2147483647" },
	{ I "\"project\":1,\"issue\":4294967297}",
	    "issue: must be a whole number from 1 to 2147483647" },
	{ I "\"project\":1,\"issue\":18446744073709551617}",
	    "issue: must be a whole number from 1 to 2147483647" },
	{ R "\"run\":42}", "project is required" },
	{ R "\"project\":7}", "run is required" },
	{ R "\"project\":7,\"run\":0}", "run: must be a whole number from 1 to 2147483647" },
	{ R "\"project\":7,\"run\":1,\"target\":0}",
	    "target: must be a whole number from 1 to 2147483647" },
	{ R "\"project\":7,\"milestone\":1}",
	    "milestone: not allowed with the stream \"test-run\"" },
	{ M "\"project\":7}", "milestone is required" },
	{ M "\"project\":7,\"run\":1}", "run: not allowed with the stream \"milestone\"" },
	{ I "\"project\":7,\"issue\":1,\"target\":1}",
	    "target: not allowed with the stream \"issue\"" },
	{ "{\"stream\":\"revocation\"}", "stream: must be " BATCH_STREAMS_ALLOWED },
	{ I "\"project\":01,\"issue\":1}", "is not JSON (RFC 8259)" },
};

/* A bad line is refused, and the error says what is wrong, then what is allowed. */
START_TEST(bad)
{
	struct batch_item item;

	ck_assert_msg(!parse(bad_lines[_i].line, strlen(bad_lines[_i].line), &item), "%s",
	    bad_lines[_i].line);
	ck_assert_str_eq(error.text, bad_lines[_i].reason);
	ck_assert_ptr_null(item.payload);
}
END_TEST

/* No line that is cut short is good, and none is read past its end. */
START_TEST(cut_short)
{
	static const char line[] = N "\"user\":\"u1\",\"id\":\"\\u00e9\",\"event\":\"e\"}";
	struct batch_item item;

	for (size_t length = 0; length < sizeof(line) - 1; length++)
		ck_assert_msg(!parse(line, length, &item), "%zu bytes", length);
	ck_assert(parse(line, sizeof(line) - 1, &item));
	free(item.payload);
}
END_TEST

/* A line can be longer than a payload, and the longest payload is the longest for tpi-streamd. */
START_TEST(size)
{
	static char line[4 * WAKEUP_FRAME_MAX], id[WAKEUP_FRAME_MAX];
	const size_t around = strlen("data: {\"id\":\"\",\"event\":\"notification\"}\n\n");
	struct batch_item item;
	int length;

	length = sprintf(line, "%*s" N "\"user\":\"u\"}", 2 * WAKEUP_FRAME_MAX, "");
	ck_assert_msg(parse(line, (size_t)length, &item), "%s", error.text);
	free(item.payload);

	memset(id, 'x', WAKEUP_FRAME_MAX - around);
	length = sprintf(line, N "\"user\":\"u\",\"id\":\"%s\"}", id);
	ck_assert_msg(parse(line, (size_t)length, &item), "%s", error.text);
	free(item.payload);
	id[WAKEUP_FRAME_MAX - around] = 'x';
	length = sprintf(line, N "\"user\":\"u\",\"id\":\"%s\"}", id);
	ck_assert(!parse(line, (size_t)length, &item));
	ck_assert_str_eq(error.text, "the payload is over 16384 bytes as an event");
}
END_TEST

/* A nested value is refused at each depth. */
START_TEST(nested)
{
	char line[200];
	struct batch_item item;

	for (int levels = 1; levels <= 40; levels++) {
		int length = sprintf(line, N "\"user\":%.*s1%.*s}", levels,
		    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", levels,
		    "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");

		ck_assert(!parse(line, (size_t)length, &item));
		ck_assert_str_eq(error.text, levels < JSON_DEPTH_MAX
		    ? "user: must be a string" : "is nested over 32 deep");
	}
}
END_TEST

/* The longest ids fit, one byte more does not. */
START_TEST(long_ids)
{
	char id[CHANNEL_ID_MAX + 2] = "", line[3 * CHANNEL_ID_MAX];
	struct batch_item item;
	int length;

	memset(id, 'x', CHANNEL_ID_MAX);
	length = sprintf(line, N "\"user\":\"%s\",\"tenant\":\"%s\"}", id, id);
	ck_assert(parse(line, (size_t)length, &item));
	ck_assert_str_eq(item.tenant, id);
	ck_assert_uint_eq(strlen(item.channels[0]),
	    strlen("notifications:tenant::user:") + 2 * CHANNEL_ID_MAX);
	free(item.payload);
	id[CHANNEL_ID_MAX] = 'x';
	length = sprintf(line, N "\"user\":\"%s\"}", id);
	ck_assert(!parse(line, (size_t)length, &item));
	length = sprintf(line, N "\"user\":\"u\",\"tenant\":\"%s\"}", id);
	ck_assert(!parse(line, (size_t)length, &item));
}
END_TEST

/* Errors about options have dashes, and the channel prefix is that of the setting. */
START_TEST(make)
{
	struct batch_request request = {
		.stream = BATCH_ISSUE, .tenant = "t", .prefix = "issue-updates", .dashes = "--",
		.project = 7, .item = 42,
	};
	struct batch_item item;

	ck_assert(batch_make(&request, &item, &error));
	ck_assert_str_eq(item.channels[0], "issue-updates:tenant:t:project:7");
	free(item.payload);

	request.item = 0;
	ck_assert(!batch_make(&request, &item, &error));
	ck_assert_str_eq(error.text, "--issue is required");
	request = (struct batch_request){ .tenant = "t", .id = "i", .dashes = "--" };
	ck_assert(!batch_make(&request, &item, &error));
	ck_assert_str_eq(error.text, "exactly one of --user and --broadcast is required");
	request.user = "a b";
	ck_assert(!batch_make(&request, &item, &error));
	ck_assert_str_eq(error.text, "--user a b: must be " CHANNEL_ID_ALLOWED);
	request.user = "u";
	request.id = "\xff";
	ck_assert(!batch_make(&request, &item, &error));
	ck_assert_str_eq(error.text, "the payload is not UTF-8");
}
END_TEST

/* A revocation names one user or one project, and has a channel of its own. */
START_TEST(revocation)
{
	struct batch_request request = {
		.stream = BATCH_REVOCATION, .tenant = "t", .prefix = "issues", .dashes = "--",
		.id = "i", .user = "u1",
	};
	struct batch_item item;

	ck_assert(batch_make(&request, &item, &error));
	ck_assert_str_eq(item.channels[0], "notifications:tenant:t:revoke");
	ck_assert_str_eq(item.payload, "{\"event\":\"revoke\",\"user\":\"u1\"}");
	free(item.payload);
	request.project = 7;
	ck_assert(!batch_make(&request, &item, &error));
	ck_assert_str_eq(error.text, "exactly one of --user and --project is required");
	request.user = NULL;
	ck_assert(batch_make(&request, &item, &error));
	ck_assert_str_eq(item.channels[0], "notifications:tenant:t:revoke");
	ck_assert_str_eq(item.payload, "{\"event\":\"revoke\",\"projectId\":7}");
	free(item.payload);
	request.project = 0;
	ck_assert(!batch_make(&request, &item, &error));
	ck_assert_str_eq(error.text, "exactly one of --user and --project is required");
	request.user = "a b";
	ck_assert(!batch_make(&request, &item, &error));
	ck_assert_str_eq(error.text, "--user a b: must be " CHANNEL_ID_ALLOWED);
}
END_TEST

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

int
main(void)
{
	Suite *s = suite_create("batch");
	TCase *tc = tcase_create("batch");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(tc, good, 0, COUNT(good_lines));
	tcase_add_loop_test(tc, both_channels, 0, COUNT(two_channels));
	tcase_add_test(tc, only_tenant);
	tcase_add_loop_test(tc, bad, 0, COUNT(bad_lines));
	tcase_add_test(tc, cut_short);
	tcase_add_test(tc, size);
	tcase_add_test(tc, nested);
	tcase_add_test(tc, long_ids);
	tcase_add_test(tc, make);
	tcase_add_test(tc, revocation);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
