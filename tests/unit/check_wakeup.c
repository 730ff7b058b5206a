/* SPDX-License-Identifier: ISC */
/*
 * check_wakeup: which payloads may go to a browser, and the payloads that we build. What is JSON is
 * tested in check_json.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "wire/frame.h"
#include "wire/wakeup.h"

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* Checks a copy that ends where its memory ends, so that a sanitizer sees a read past the end. */
static const char *
check_bytes(const char *payload, size_t length)
{
	char *copy = malloc(length > 0 ? length : 1);
	const char *wrong;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, payload, length);
	wrong = wakeup_check(copy, length);
	free(copy);
	return wrong;
}

static const char *
verdict(const char *payload)
{
	return check_bytes(payload, strlen(payload));
}

/* The result says what is wrong. */
START_TEST(reasons)
{
	ck_assert_str_eq(verdict("[]"), "is not one JSON object");
	ck_assert_str_eq(verdict("{\"a\":01}"), "is not JSON (RFC 8259)");
	ck_assert_str_eq(verdict("{\"a\":\"\xff\"}"), "is not UTF-8");
	ck_assert_str_eq(verdict("{\"a\":\"\\u0000\"}"), "contains a NUL (\\u0000)");
	ck_assert_str_eq(check_bytes("{}", 3), "is not one JSON object");
	ck_assert_str_eq(verdict("{\"event\":\"sync\"}"),
	    "has the event \"sync\", which is reserved for tpi-streamd");
}
END_TEST

static const char *const good[] = {
	"{}", " {} ", "{\"event\":\"x\"}", "{\"id\":\"n1\",\"event\":\"notification\"}",
	"{\"event\":\"issue-updated\",\"issueId\":42,\"projectId\":7}",
	"{\"a\":1,\"a\":2}", "{\"a\":\"\\ud800\"}",
	"{\"Event\":\"sync\"}", "{\"event\":\"Sync\"}", "{\"data\":{\"event\":\"sync\"}}",
	"{\"event\":[\"sync\"]}",
};

/* An object that is not a forged sync is accepted. */
START_TEST(accepted)
{
	ck_assert_msg(verdict(good[_i]) == NULL, "%s: %s", good[_i], verdict(good[_i]));
}
END_TEST

static const char *const forgeries[] = {
	"{\"event\":\"sync\"}", " {\"event\" : \"sync\"}\n", "{\"id\":\"n\",\"event\":\"sync\"}",
	"{\"event\":\"sync\",\"event\":\"x\"}", "{\"event\":\"x\",\"event\":\"sync\"}",
	"{\"\\u0065vent\":\"syn\\u0063\"}",
};

/* No payload can imitate the sync of the daemon, even if "event" is repeated or has escapes. */
START_TEST(forged)
{
	ck_assert_str_eq(verdict(forgeries[_i]),
	    "has the event \"sync\", which is reserved for tpi-streamd");
}
END_TEST

/* The limit is that of the frame, with each "data: " and line break and the blank line. */
START_TEST(frame_limit)
{
	static char text[WAKEUP_FRAME_MAX + 16];

	for (size_t breaks = 0; breaks < 4; breaks++) {
		size_t length = (size_t)sprintf(text, "{%.*s\"a\":1}", (int)breaks, "\n\n\n");

		while (frame_event_size(text, length) < WAKEUP_FRAME_MAX)
			text[length++] = ' ';
		ck_assert_uint_eq(length, WAKEUP_FRAME_MAX - 8 - 6 * breaks);
		ck_assert_ptr_null(check_bytes(text, length));
		text[length++] = ' ';
		ck_assert_str_eq(check_bytes(text, length), "is over 16384 bytes as an event");
		ck_assert_ptr_null(json_check(text, length));
	}
}
END_TEST

static void
built(char *payload, const char *expected)
{
	ck_assert_ptr_nonnull(payload);
	ck_assert_str_eq(payload, expected);
	free(payload);
}

/* Payloads have their members in the documented order, no spaces, and no needless escapes. */
START_TEST(build)
{
	built(wakeup_notification("n1", "notification"),
	    "{\"id\":\"n1\",\"event\":\"notification\"}");
	built(wakeup_notification("a\"b\\c/d", "\n\t\x01\x7f"),
	    "{\"id\":\"a\\\"b\\\\c/d\",\"event\":\"\\n\\t\\u0001\x7f\"}");
	built(wakeup_notification("\303\251\342\202\254\360\237\230\200", ""),
	    "{\"id\":\"\303\251\342\202\254\360\237\230\200\",\"event\":\"\"}");
	built(wakeup_item("issue-updated", "issueId", 42, 7, 0),
	    "{\"event\":\"issue-updated\",\"issueId\":42,\"projectId\":7}");
	built(wakeup_item("x", "issueId", INT32_MAX, 1, 0),
	    "{\"event\":\"x\",\"issueId\":2147483647,\"projectId\":1}");
	built(wakeup_item("test_run.completed", "runId", 42, 7, 3),
	    "{\"event\":\"test_run.completed\",\"runId\":42,\"projectId\":7,\"targetId\":3}");
}
END_TEST

/* Of the payloads built from one byte as id or event, exactly those in ASCII are accepted. */
START_TEST(build_and_check)
{
	char *payload;

	for (int c = 1; c < 256; c++) {
		const char id[] = { (char)c, '\0' };

		payload = wakeup_notification(id, "x");
		ck_assert_ptr_nonnull(payload);
		ck_assert_msg((verdict(payload) == NULL) == (c < 0x80), "byte %d", c);
		free(payload);
		payload = wakeup_item(id, "issueId", 1, 1, 0);
		ck_assert_ptr_nonnull(payload);
		ck_assert_msg((verdict(payload) == NULL) == (c < 0x80), "byte %d", c);
		free(payload);
	}
	payload = wakeup_item("sync", "issueId", 1, 1, 0);
	ck_assert_ptr_nonnull(payload);
	ck_assert_ptr_nonnull(verdict(payload));
	free(payload);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("wakeup");
	TCase *tc = tcase_create("wakeup");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, reasons);
	tcase_add_loop_test(tc, accepted, 0, COUNT(good));
	tcase_add_loop_test(tc, forged, 0, COUNT(forgeries));
	tcase_add_test(tc, frame_limit);
	tcase_add_test(tc, build);
	tcase_add_test(tc, build_and_check);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
