/* SPDX-License-Identifier: ISC */
/*
 * check_json: which texts are accepted and why others are not, finding a member, and parsing.
 */
#include <check.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"

#define T(text) text, sizeof(text) - 1
#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

/*
 * "json" is the verdict of Python 3's json module on the text, decoded as strict UTF-8, with a
 * parse_constant that rejects NaN and Infinity. "good" is ours. They differ only where we require
 * more than JSON: an object, and no NUL.
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
	{ T("{\"event\":\"Sync\"}"), 1, 1 },
	{ T("{\"event\":\"syn\"}"), 1, 1 },
	{ T("{\"event\":\"sy\\nc\"}"), 1, 1 },
	{ T("{\"event\":\"\"}"), 1, 1 },
	{ T("{\"event\":null}"), 1, 1 },
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
};

/* Whether a member "event" of the object is "sync". */
static const struct {
	const char *text;
	bool found;
} members[] = {
	{ "{\"data\":{\"event\":\"sync\"}}", false },
	{ "{\"event\":[\"sync\"]}", false },
	{ "{\"event\":{\"event\":\"sync\"}}", false },
	{ "{\"Event\":\"sync\"}", false },
	{ "{\"event\":\"sync \"}", false },
	{ "{\"eve\\nt\":\"sync\"}", false },
	{ "{\"event \":\"sync\"}", false },
	{ "{\"event\":\"async\"}", false },
	{ "{\"event\":\"sync\"}", true },
	{ " {\"event\":\"sync\"}\n", true },
	{ "{\"event\" : \"sync\"}", true },
	{ "{\"id\":\"n\",\"event\":\"sync\"}", true },
	{ "{\"event\":\"sync\",\"event\":\"x\"}", true },
	{ "{\"event\":\"x\",\"event\":\"sync\"}", true },
	{ "{\"event\":\"x\",\"event\":\"sync\",\"event\":\"y\"}", true },
	{ "{\"\\u0065vent\":\"sync\"}", true },
	{ "{\"event\":\"\\u0073ync\"}", true },
	{ "{\"\\u0065\\u0076\\u0065\\u006E\\u0074\":\"\\u0073\\u0079\\u006e\\u0063\"}", true },
	{ "{\"event\":1,\"event\":\"sync\"}", true },
	{ "{\"a\":{\"event\":\"x\"},\"event\":\"sync\"}", true },
	{ "{\"event\":\"x\",\"\\u0065vent\":\"syn\\u0063\"}", true },
};

/* A copy that ends where its memory ends, so that a sanitizer sees a read past the end. */
static char *
copy_of(const char *text, size_t length)
{
	char *copy = malloc(length > 0 ? length : 1);

	ck_assert_ptr_nonnull(copy);
	return memcpy(copy, text, length);
}

static const char *
check_bytes(const char *text, size_t length)
{
	char *copy = copy_of(text, length);
	const char *wrong = json_check(copy, length);

	free(copy);
	return wrong;
}

static const char *
check(const char *text)
{
	return check_bytes(text, strlen(text));
}

/* Each text of the table gets its verdict, and none that is not JSON is accepted. */
START_TEST(table)
{
	const struct row *row = &rows[_i];
	const char *wrong = check_bytes(row->text, row->length);

	ck_assert_msg((wrong == NULL) == row->good, "row %d: %s: %s", _i, row->text,
	    wrong != NULL ? wrong : "good");
	ck_assert(row->json || !row->good);
}
END_TEST

/* json_parse() parses what json_check() accepts, and refuses the rest with the same reason. */
START_TEST(parse)
{
	const struct row *row = &rows[_i];
	char *copy = copy_of(row->text, row->length);
	const char *wrong;
	struct json_object *object = json_parse(copy, row->length, &wrong);

	ck_assert_int_eq(object != NULL, row->good);
	if (object != NULL)
		ck_assert(json_object_is_type(object, json_type_object));
	else
		ck_assert_str_eq(wrong, json_check(copy, row->length));
	json_object_put(object);
	free(copy);
}
END_TEST

/* No text that is cut short is accepted, and none followed by anything but white space. */
START_TEST(cut_short)
{
	static const char text[] =
	    "{\"a\":[1,-2.5e+3,true,null,\"\\u00e9\\n\303\251\"],"
	    "\"b\":{\"c\":\"\360\237\230\200\"}}";
	char more[sizeof(text)];

	ck_assert_ptr_null(check(text));
	for (size_t length = 0; length < sizeof(text) - 1; length++)
		ck_assert_msg(check_bytes(text, length) != NULL, "%zu bytes", length);
	memcpy(more, text, sizeof(text));
	for (int c = 0; c < 256; c++) {
		more[sizeof(text) - 1] = (char)c;
		ck_assert_msg((check_bytes(more, sizeof(text)) == NULL) ==
		    (c == ' ' || c == '\t' || c == '\n' || c == '\r'), "byte %d", c);
	}
}
END_TEST

/* The result says what is wrong. */
START_TEST(reasons)
{
	ck_assert_str_eq(check("[]"), "is not one JSON object");
	ck_assert_str_eq(check("{\"a\":1} x"), "is not one JSON object");
	ck_assert_str_eq(check("{\"a\":01}"), "is not JSON (RFC 8259)");
	ck_assert_str_eq(check("{\"a\":\"\xff\"}"), "is not UTF-8");
	ck_assert_str_eq(check("{\"a\":\"\\u0000\"}"), "contains a NUL (\\u0000)");
	ck_assert_str_eq(check_bytes(T("{\"a\":\"\0\"}")), "contains a NUL (\\u0000)");
}
END_TEST

/* A member is found however its name and value are spelled, and even if its name is repeated. */
START_TEST(member)
{
	size_t length = strlen(members[_i].text);
	char *copy = copy_of(members[_i].text, length);
	bool found;

	ck_assert_ptr_null(json_check_member(copy, length, "event", "sync", &found));
	ck_assert_msg(found == members[_i].found, "%s", members[_i].text);
	free(copy);
}
END_TEST

/* depth objects or arrays inside each other, of which the outermost is an object. */
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

/* 32 levels are accepted and parsed, 33 are not, and a million do not exhaust the stack. */
START_TEST(depth)
{
	for (int arrays = 0; arrays < 2; arrays++) {
		char *good = nested(JSON_DEPTH_MAX, arrays);
		char *bad = nested(JSON_DEPTH_MAX + 1, arrays);
		char *deep = nested(1000000, arrays);
		const char *wrong;
		struct json_object *object = json_parse(good, strlen(good), &wrong);

		ck_assert_ptr_nonnull(object);
		json_object_put(object);
		ck_assert_str_eq(check(bad), "is nested over 32 deep");
		ck_assert_str_eq(check(deep), "is nested over 32 deep");
		free(good);
		free(bad);
		free(deep);
	}
	/* Depth is not a count of brackets. */
	ck_assert_ptr_null(check("{\"a\":[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"
	    "[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]}"));
}
END_TEST

/* An object of count members with names of 1000 bytes and more, each longer than the one before. */
static char *
long_names(int count)
{
	char *text = malloc((size_t)count * (size_t)(1100 + 16 * count)), *at = text;

	ck_assert_ptr_nonnull(text);
	for (int i = 0; i < count; i++)
		at += sprintf(at, "%s\"%*d\":1", i > 0 ? "," : "{", 1000 + 16 * i, i);
	strcpy(at, "}");
	return text;
}

/* Bytes of address space of this process. */
static size_t
address_space(void)
{
	FILE *statm = fopen("/proc/self/statm", "r");
	size_t pages = 0;

	ck_assert_ptr_nonnull(statm);
	ck_assert_int_eq(fscanf(statm, "%zu", &pages), 1);
	fclose(statm);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/*
 * Parses text in a child whose address space may grow by more bytes. Returns its wait status: it
 * exits with 0 if it has parsed the text, with 1 if it was out of memory.
 */
static int
parse_within(const char *text, size_t more)
{
	int status;
	pid_t child = fork();

	ck_assert_int_ne(child, -1);
	if (child == 0) {
		struct rlimit limit = { .rlim_cur = address_space() + more };
		const char *wrong;

		limit.rlim_max = limit.rlim_cur;
		if (setrlimit(RLIMIT_AS, &limit) != 0)
			_exit(2);
		if (json_parse(text, strlen(text), &wrong) != NULL)
			_exit(0);
		_exit(wrong == json_no_memory ? 1 : 3);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return status;
}

/* Whatever memory is left, a text is parsed or refused: json-c never runs out of memory halfway. */
START_TEST(memory)
{
	char *text = long_names(500);
	int status;

	/* A sanitizer maps terabytes, and cannot be limited. */
	if (address_space() > (size_t)1 << 40) {
		free(text);
		return;
	}
	for (size_t more = 0; more < 16; more++) {
		status = parse_within(text, more << 18);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) <= 1, "%zu: %x", more,
		    (unsigned)status);
	}
	status = parse_within(text, (size_t)4 << 30);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	free(text);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("json");
	TCase *tc = tcase_create("json");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(tc, table, 0, COUNT(rows));
	tcase_add_loop_test(tc, parse, 0, COUNT(rows));
	tcase_add_test(tc, cut_short);
	tcase_add_test(tc, reasons);
	tcase_add_loop_test(tc, member, 0, COUNT(members));
	tcase_add_test(tc, depth);
	tcase_add_test(tc, memory);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
