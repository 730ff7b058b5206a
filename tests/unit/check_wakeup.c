/* SPDX-License-Identifier: ISC */
/*
 * check_wakeup: what may go to a browser and what may not, and the payloads that we build.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"
#include "wire/wakeup.h"

#define T(text) text, sizeof(text) - 1

/*
 * "json" is the verdict of Python 3's json module on the text, decoded as strict UTF-8, with a
 * parse_constant that refuses NaN and Infinity. "good" is ours. They differ only where the contract
 * asks for more than JSON: an object, no NUL, no "sync".
 */
static const struct row {
	const char *text;
	size_t length;
	bool json, good;
} rows[] = {
	{ T("{}"), 1, 1 },
	{ T(" {} "), 1, 1 },
	{ T("\t\r\n{}\t\r\n "), 1, 1 },
	{ T("{\"a\":1}"), 1, 1 },
	{ T("{ \"a\" : 1 , \"b\" : [ 1 , 2 ] }"), 1, 1 },
	{ T("{\"a\":null,\"b\":true,\"c\":false}"), 1, 1 },
	{ T("{\"event\":\"x\"}"), 1, 1 },
	{ T("{\"id\":\"n1\",\"event\":\"notification\"}"), 1, 1 },
	{ T("{\"event\":\"issue-updated\",\"issueId\":42,\"projectId\":7}"), 1, 1 },
	{ T("{\"a\":0}"), 1, 1 },
	{ T("{\"a\":-0}"), 1, 1 },
	{ T("{\"a\":-1.5e+10}"), 1, 1 },
	{ T("{\"a\":1E-2}"), 1, 1 },
	{ T("{\"a\":0.0}"), 1, 1 },
	{ T("{\"a\":1e400}"), 1, 1 },
	{ T("{\"a\":123456789012345678901234567890}"), 1, 1 },
	{ T("{\"a\":\"\"}"), 1, 1 },
	{ T("{\"\":1}"), 1, 1 },
	{ T("{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}"), 1, 1 },
	{ T("{\"a\":\"\\u0001\\u00e9\\uFFFF\"}"), 1, 1 },
	{ T("{\"a\":\"\\ud83d\\ude00\"}"), 1, 1 },
	{ T("{\"a\":\"\\ud800\"}"), 1, 1 },
	{ T("{\"a\":\"\\udc00x\"}"), 1, 1 },
	{ T("{\"a\":\"\177\"}"), 1, 1 },
	{ T("{\"a\":\"\303\251 \342\202\254 \360\237\230\200\"}"), 1, 1 },
	{ T("{\"a\":\"\357\273\277\"}"), 1, 1 },
	{ T("{\"a\":\"\364\217\277\277\"}"), 1, 1 },
	{ T("{\"a\":\"\342\200\250\"}"), 1, 1 },
	{ T("{\"a\":[]}"), 1, 1 },
	{ T("{\"a\":{}}"), 1, 1 },
	{ T("{\"a\":[[],{}]}"), 1, 1 },
	{ T("{\"a\":1,\"a\":2}"), 1, 1 },
	{ T("{\"a\":\"\\\\u0000\"}"), 1, 1 },
	{ T("{\"data\":{\"event\":\"sync\"}}"), 1, 1 },
	{ T("{\"event\":[\"sync\"]}"), 1, 1 },
	{ T("{\"event\":{\"event\":\"sync\"}}"), 1, 1 },
	{ T("{\"Event\":\"sync\"}"), 1, 1 },
	{ T("{\"event\":\"Sync\"}"), 1, 1 },
	{ T("{\"event\":\"sync \"}"), 1, 1 },
	{ T("{\"event\":\"syn\"}"), 1, 1 },
	{ T("{\"event\":\"sy\\nc\"}"), 1, 1 },
	{ T("{\"eve\\nt\":\"sync\"}"), 1, 1 },
	{ T("{\"event\":\"\"}"), 1, 1 },
	{ T("{\"event\":null}"), 1, 1 },
	{ T("{\"event \":\"sync\"}"), 1, 1 },
	{ T("{\"event\":\"async\"}"), 1, 1 },
	{ T(""), 0, 0 },
	{ T(" "), 0, 0 },
	{ T("[]"), 1, 0 },
	{ T("1"), 1, 0 },
	{ T("\"x\""), 1, 0 },
	{ T("null"), 1, 0 },
	{ T("{}{}"), 0, 0 },
	{ T("{} 1"), 0, 0 },
	{ T("{},"), 0, 0 },
	{ T("{}\000"), 0, 0 },
	{ T("\357\273\277{}"), 0, 0 },
	{ T("\013{}"), 0, 0 },
	{ T("\302\240{}"), 0, 0 },
	{ T("{}x"), 0, 0 },
	{ T("x{}"), 0, 0 },
	{ T("{}}"), 0, 0 },
	{ T("// x\n{}"), 0, 0 },
	{ T("/**/{}"), 0, 0 },
	{ T("{}//x"), 0, 0 },
	{ T("{"), 0, 0 },
	{ T("{\""), 0, 0 },
	{ T("{\"a"), 0, 0 },
	{ T("{\"a\""), 0, 0 },
	{ T("{\"a\":"), 0, 0 },
	{ T("{\"a\":1"), 0, 0 },
	{ T("{\"a\":1,"), 0, 0 },
	{ T("{\"a\":1,}"), 0, 0 },
	{ T("{,}"), 0, 0 },
	{ T("{\"a\":1,,\"b\":2}"), 0, 0 },
	{ T("{\"a\" 1}"), 0, 0 },
	{ T("{a:1}"), 0, 0 },
	{ T("{'a':1}"), 0, 0 },
	{ T("{\"a\":'b'}"), 0, 0 },
	{ T("{1:2}"), 0, 0 },
	{ T("{\"a\":}"), 0, 0 },
	{ T("{\"a\":1 \"b\":2}"), 0, 0 },
	{ T("{\"a\":1;\"b\":2}"), 0, 0 },
	{ T("{\"a\"::1}"), 0, 0 },
	{ T("{null:1}"), 0, 0 },
	{ T("{\"a\":01}"), 0, 0 },
	{ T("{\"a\":-01}"), 0, 0 },
	{ T("{\"a\":1.}"), 0, 0 },
	{ T("{\"a\":.5}"), 0, 0 },
	{ T("{\"a\":+1}"), 0, 0 },
	{ T("{\"a\":-}"), 0, 0 },
	{ T("{\"a\":--1}"), 0, 0 },
	{ T("{\"a\":1e}"), 0, 0 },
	{ T("{\"a\":1e+}"), 0, 0 },
	{ T("{\"a\":1.e1}"), 0, 0 },
	{ T("{\"a\":0x10}"), 0, 0 },
	{ T("{\"a\":1_0}"), 0, 0 },
	{ T("{\"a\":1 2}"), 0, 0 },
	{ T("{\"a\":00}"), 0, 0 },
	{ T("{\"a\":1.2.3}"), 0, 0 },
	{ T("{\"a\":NaN}"), 0, 0 },
	{ T("{\"a\":nan}"), 0, 0 },
	{ T("{\"a\":Infinity}"), 0, 0 },
	{ T("{\"a\":-Infinity}"), 0, 0 },
	{ T("{\"a\":TRUE}"), 0, 0 },
	{ T("{\"a\":True}"), 0, 0 },
	{ T("{\"a\":tru}"), 0, 0 },
	{ T("{\"a\":truex}"), 0, 0 },
	{ T("{\"a\":Null}"), 0, 0 },
	{ T("{\"a\":nul"), 0, 0 },
	{ T("{\"a\":undefined}"), 0, 0 },
	{ T("{\"a\":[1,]}"), 0, 0 },
	{ T("{\"a\":[,1]}"), 0, 0 },
	{ T("{\"a\":[1 2]}"), 0, 0 },
	{ T("{\"a\":[1}"), 0, 0 },
	{ T("{\"a\":[}"), 0, 0 },
	{ T("{\"a\":]"), 0, 0 },
	{ T("{\"a\":[1;2]}"), 0, 0 },
	{ T("{\"a\":\"\n\"}"), 0, 0 },
	{ T("{\"a\":\"\t\"}"), 0, 0 },
	{ T("{\"a\":\"\037\"}"), 0, 0 },
	{ T("{\"a\":\"\001\"}"), 0, 0 },
	{ T("{\"a\r\":1}"), 0, 0 },
	{ T("{\"a\":\"\\x41\"}"), 0, 0 },
	{ T("{\"a\":\"\\0\"}"), 0, 0 },
	{ T("{\"a\":\"\\'\"}"), 0, 0 },
	{ T("{\"a\":\"\\u12\"}"), 0, 0 },
	{ T("{\"a\":\"\\u12g4\"}"), 0, 0 },
	{ T("{\"a\":\"\\u"), 0, 0 },
	{ T("{\"a\":\"\\"), 0, 0 },
	{ T("{\"a\":\"\\\"}"), 0, 0 },
	{ T("{\"a\":\"\\U0041\"}"), 0, 0 },
	{ T("{\"a\":\"\\u+123\"}"), 0, 0 },
	{ T("{\"a\":1/*x*/}"), 0, 0 },
	{ T("{/**/\"a\":1}"), 0, 0 },
	{ T("{\"a\":1#x\n}"), 0, 0 },
	{ T("{\"a\":\0141}"), 0, 0 },
	{ T("{\"a\":\"\200\"}"), 0, 0 },
	{ T("{\"a\":\"\300\200\"}"), 0, 0 },
	{ T("{\"a\":\"\301\277\"}"), 0, 0 },
	{ T("{\"a\":\"\340\200\200\"}"), 0, 0 },
	{ T("{\"a\":\"\340\237\277\"}"), 0, 0 },
	{ T("{\"a\":\"\355\240\200\"}"), 0, 0 },
	{ T("{\"a\":\"\360\200\200\200\"}"), 0, 0 },
	{ T("{\"a\":\"\364\220\200\200\"}"), 0, 0 },
	{ T("{\"a\":\"\365\200\200\200\"}"), 0, 0 },
	{ T("{\"a\":\"\377\"}"), 0, 0 },
	{ T("{\"a\":\"\303\"}"), 0, 0 },
	{ T("{\"a\":\"\342\202\"}"), 0, 0 },
	{ T("{\"a\":\"\342(\241\"}"), 0, 0 },
	{ T("{\"a\":\"\360\237\230\"}"), 0, 0 },
	{ T("{\"\303\":1}"), 0, 0 },
	{ T("{\"a\":\303\251}"), 0, 0 },
	{ T("\377\376{\000}\000"), 0, 0 },
	{ T("{\"a\":\"\\u0000\"}"), 1, 0 },
	{ T("{\"a\\u0000\":1}"), 1, 0 },
	{ T("{\"event\":\"sync\",\"event\\u0000\":\"x\"}"), 1, 0 },
	{ T("{\"a\":[\"x\\u0000\"]}"), 1, 0 },
	{ T("{\"a\":\"\\\\\\u0000\"}"), 1, 0 },
	{ T("{\"event\":\"sync\"}"), 1, 0 },
	{ T(" {\"event\":\"sync\"}\n"), 1, 0 },
	{ T("{\"event\" : \"sync\"}"), 1, 0 },
	{ T("{\"id\":\"n\",\"event\":\"sync\"}"), 1, 0 },
	{ T("{\"event\":\"sync\",\"event\":\"x\"}"), 1, 0 },
	{ T("{\"event\":\"x\",\"event\":\"sync\"}"), 1, 0 },
	{ T("{\"event\":\"x\",\"event\":\"sync\",\"event\":\"y\"}"), 1, 0 },
	{ T("{\"\\u0065vent\":\"sync\"}"), 1, 0 },
	{ T("{\"event\":\"\\u0073ync\"}"), 1, 0 },
	{ T("{\"\\u0065\\u0076\\u0065\\u006E\\u0074\":\"\\u0073\\u0079\\u006e\\u0063\"}"), 1, 0 },
	{ T("{\"event\":\"x\",\"\\u0065vent\":\"syn\\u0063\"}"), 1, 0 },
	{ T("{\"event\":1,\"event\":\"sync\"}"), 1, 0 },
	{ T("{\"a\":{\"event\":\"x\"},\"event\":\"sync\"}"), 1, 0 },
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

/* Checks a copy that ends where its memory ends, so that a sanitizer sees a byte read too far. */
static const char *
check(const char *(*function)(const char *, size_t), const char *text, size_t length)
{
	char *copy = malloc(length > 0 ? length : 1);
	const char *wrong;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, text, length);
	wrong = function(copy, length);
	free(copy);
	return wrong;
}

static const char *
verdict(const char *text)
{
	return check(wakeup_check, text, strlen(text));
}

/* Each text of the table gets its verdict, and no good one passes that is no JSON. */
START_TEST(table)
{
	const struct row *row = &rows[_i];
	const char *wrong = check(wakeup_check, row->text, row->length);

	ck_assert_msg((wrong == NULL) == row->good, "row %d: %s: %s", _i, row->text,
	    wrong != NULL ? wrong : "good");
	ck_assert(row->json || !row->good);
}
END_TEST

/* No text that is cut short, and none with something behind it, is good any more. */
START_TEST(cut_short)
{
	static const char text[] =
	    "{\"a\":[1,-2.5e+3,true,null,\"\\u00e9\\n\303\251\"],"
	    "\"b\":{\"c\":\"\360\237\230\200\"}}";
	char more[sizeof(text)];

	ck_assert_ptr_null(verdict(text));
	for (size_t length = 0; length < sizeof(text) - 1; length++)
		ck_assert_msg(check(wakeup_check, text, length) != NULL, "%zu bytes", length);
	memcpy(more, text, sizeof(text));
	for (int c = 0; c < 256; c++) {
		more[sizeof(text) - 1] = (char)c;
		ck_assert_msg((check(wakeup_check, more, sizeof(text)) == NULL) ==
		    (c == ' ' || c == '\t' || c == '\n' || c == '\r'), "byte %d", c);
	}
}
END_TEST

/* The text says what is wrong. */
START_TEST(reasons)
{
	ck_assert_str_eq(verdict("[]"), "is not one JSON object");
	ck_assert_str_eq(verdict("{\"a\":1} x"), "is not one JSON object");
	ck_assert_str_eq(verdict("{\"a\":01}"), "is not JSON (RFC 8259)");
	ck_assert_str_eq(verdict("{\"a\":\"\xff\"}"), "is not UTF-8");
	ck_assert_str_eq(verdict("{\"a\":\"\\u0000\"}"), "contains a NUL (\\u0000)");
	ck_assert_str_eq(check(wakeup_check, T("{\"a\":\"\0\"}")), "contains a NUL (\\u0000)");
	ck_assert_str_eq(verdict("{\"event\":\"sync\"}"),
	    "has the event \"sync\", which is reserved for tpi-streamd");
}
END_TEST

/* depth objects or arrays in each other, the outermost an object. */
static char *
nested(int depth, bool arrays)
{
	char *text = calloc(1, (size_t)depth * 6 + 8), *p = text;

	ck_assert_ptr_nonnull(text);
	for (int i = 0; i < depth; i++)
		p = stpcpy(p, arrays && i > 0 ? "[" : "{\"a\":");
	*p++ = '1';
	for (int i = depth - 1; i >= 0; i--)
		*p++ = arrays && i > 0 ? ']' : '}';
	return text;
}

/* 32 levels are good and 33 are not, and a great many cost no stack. */
START_TEST(depth)
{
	for (int arrays = 0; arrays < 2; arrays++) {
		char *good = nested(WAKEUP_DEPTH_MAX, arrays);
		char *bad = nested(WAKEUP_DEPTH_MAX + 1, arrays);
		char *deep = nested(1000000, arrays);

		ck_assert_ptr_null(verdict(good));
		ck_assert_str_eq(verdict(bad), "is nested over 32 deep");
		ck_assert_str_eq(check(wakeup_json_check, deep, strlen(deep)),
		    "is nested over 32 deep");
		free(good);
		free(bad);
		free(deep);
	}
	/* Depth is not a count of brackets. */
	ck_assert_ptr_null(verdict("{\"a\":[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"
	    "[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]}"));
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
		ck_assert_ptr_null(check(wakeup_check, text, length));
		text[length++] = ' ';
		ck_assert_str_eq(check(wakeup_check, text, length),
		    "is over 16384 bytes as an event");
		ck_assert_ptr_null(check(wakeup_json_check, text, length));
	}
}
END_TEST

/* wakeup_json_check() leaves "event" alone. */
START_TEST(json_alone)
{
	ck_assert_ptr_null(check(wakeup_json_check, T("{\"event\":\"sync\"}")));
	ck_assert_str_eq(check(wakeup_json_check, T("{\"event\":\"sync\"")),
	    "is not JSON (RFC 8259)");
}
END_TEST

static void
built(char *payload, const char *expected)
{
	ck_assert_ptr_nonnull(payload);
	ck_assert_str_eq(payload, expected);
	free(payload);
}

/* Payloads have their keys in the agreed order, no spaces, and no escapes but those of JSON. */
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

/* What is built from any bytes is good or refused: every byte as an id, and "sync" as an event. */
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

	tcase_add_loop_test(tc, table, 0, (int)ROW_COUNT);
	tcase_add_test(tc, cut_short);
	tcase_add_test(tc, reasons);
	tcase_add_test(tc, depth);
	tcase_add_test(tc, frame_limit);
	tcase_add_test(tc, json_alone);
	tcase_add_test(tc, build);
	tcase_add_test(tc, build_and_check);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
