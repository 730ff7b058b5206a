/* SPDX-License-Identifier: ISC */
/*
 * check_channel: the spelling of channel names, and what may go into one.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "wire/channel_name.h"

static bool
id_valid(const char *text)
{
	return channel_id_valid(text, strlen(text));
}

static bool
number_is(const char *text, int32_t expected)
{
	int32_t n = -1;

	return channel_number_parse(text, strlen(text), &n) && n == expected;
}

static bool
number_refused(const char *text)
{
	int32_t n = -1;

	/* A refusal leaves the result alone. */
	return !channel_number_parse(text, strlen(text), &n) && n == -1;
}

/* Of all 256 bytes exactly printable ASCII without space : * ? [ ] \ " is good in an id. */
START_TEST(id_bytes)
{
	int good = 0;

	for (int c = 0; c < 256; c++) {
		const char alone = (char)c;
		const char inside[3] = { 'a', (char)c, 'z' };
		bool expected = c > ' ' && c < 0x7f && strchr(":*?[]\\\"", c) == NULL;

		ck_assert_msg(channel_id_valid(&alone, 1) == expected, "byte %d", c);
		ck_assert_msg(channel_id_valid(inside, 3) == expected, "byte %d inside", c);
		good += expected;
	}
	ck_assert_int_eq(good, 94 - 7);
}
END_TEST

/* An id has 1 to 255 bytes, and its length is what the caller says, not where a NUL stands. */
START_TEST(id_length)
{
	char text[CHANNEL_ID_MAX + 1];

	memset(text, 'x', sizeof(text));
	ck_assert(!channel_id_valid(text, 0));
	ck_assert(channel_id_valid(text, 1));
	ck_assert(channel_id_valid(text, CHANNEL_ID_MAX));
	ck_assert(!channel_id_valid(text, CHANNEL_ID_MAX + 1));
	ck_assert(!channel_id_valid("a\0b", 3));
}
END_TEST

/* Ids as applications make them are accepted: cuid, UUID, mail address. */
START_TEST(id_examples)
{
	ck_assert(id_valid("cmb3k2x0v0000v8l4h2c9d1qz"));
	ck_assert(id_valid("6f9619ff-8b86-d011-b42d-00cf4fc964ff"));
	ck_assert(id_valid("jo.doe+test@example.org"));
	ck_assert(!id_valid("jo doe"));
	ck_assert(!id_valid("j\xc3\xb6"));
}
END_TEST

/* A number is decimal from 1 to 2147483647 in its one shortest spelling. */
START_TEST(numbers)
{
	ck_assert(number_is("1", 1));
	ck_assert(number_is("42", 42));
	ck_assert(number_is("2147483647", INT32_MAX));

	ck_assert(number_refused(""));
	ck_assert(number_refused("0"));
	ck_assert(number_refused("07"));
	ck_assert(number_refused("+7"));
	ck_assert(number_refused("-7"));
	ck_assert(number_refused(" 7"));
	ck_assert(number_refused("7 "));
	ck_assert(number_refused("7\n"));
	ck_assert(number_refused("7.0"));
	ck_assert(number_refused("1e3"));
	ck_assert(number_refused("0x7"));
	ck_assert(number_refused("2147483648"));
	ck_assert(number_refused("4294967297"));
	ck_assert(number_refused("9999999999"));
	ck_assert(number_refused("18446744073709551617"));
	ck_assert(number_refused("\xd9\xa7")); /* an Arabic-Indic seven */
}
END_TEST

/* A number ends where the caller says; what follows is not looked at, and a NUL is no digit. */
START_TEST(number_length)
{
	int32_t n = -1;

	ck_assert(channel_number_parse("7,8", 1, &n));
	ck_assert_int_eq(n, 7);
	ck_assert(!channel_number_parse("7\0", 2, &n));
}
END_TEST

/* The names are those that publishers use. */
START_TEST(names)
{
	char name[CHANNEL_NAME_SIZE];
	size_t n;

	n = channel_name_user(name, "default", "u1");
	ck_assert_str_eq(name, "notifications:tenant:default:user:u1");
	ck_assert_uint_eq(n, strlen(name));
	n = channel_name_broadcast(name, "acme");
	ck_assert_str_eq(name, "notifications:tenant:acme:broadcast");
	ck_assert_uint_eq(n, strlen(name));
	n = channel_name_revoke(name, "acme");
	ck_assert_str_eq(name, "notifications:tenant:acme:revoke");
	ck_assert_uint_eq(n, strlen(name));
	n = channel_name_project(name, "issues", "default", 42);
	ck_assert_str_eq(name, "issues:tenant:default:project:42");
	ck_assert_uint_eq(n, strlen(name));
	channel_name_project(name, "issue-updates", "default", 7);
	ck_assert_str_eq(name, "issue-updates:tenant:default:project:7");
	n = channel_name_test_run(name, "acme", 42);
	ck_assert_str_eq(name, "live:tenant:acme:testrun:42");
	ck_assert_uint_eq(n, strlen(name));
	n = channel_name_project_test_runs(name, "acme", 7);
	ck_assert_str_eq(name, "live:tenant:acme:project:7:testruns");
	ck_assert_uint_eq(n, strlen(name));
	n = channel_name_milestone(name, "acme", 9);
	ck_assert_str_eq(name, "live:tenant:acme:milestone:9");
	ck_assert_uint_eq(n, strlen(name));
	n = channel_name_project_milestones(name, "acme", INT32_MAX);
	ck_assert_str_eq(name, "live:tenant:acme:project:2147483647:milestones");
	ck_assert_uint_eq(n, strlen(name));
}
END_TEST

/* The longest ids fit, uncut. */
START_TEST(longest_names)
{
	char id[CHANNEL_ID_MAX + 1], name[CHANNEL_NAME_SIZE];

	memset(id, 'x', CHANNEL_ID_MAX);
	id[CHANNEL_ID_MAX] = '\0';
	ck_assert_uint_eq(channel_name_user(name, id, id), strlen("notifications:tenant::user:") + 510);
	ck_assert_uint_eq(strlen(name), strlen("notifications:tenant::user:") + 510);
	channel_name_project(name, id, id, INT32_MAX);
	ck_assert_str_eq(name + strlen(name) - strlen(":project:2147483647"),
	    ":project:2147483647");
	ck_assert_uint_eq(strlen(name), strlen(":tenant::project:2147483647") + 510);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("channel");
	TCase *tc = tcase_create("channel");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, id_bytes);
	tcase_add_test(tc, id_length);
	tcase_add_test(tc, id_examples);
	tcase_add_test(tc, numbers);
	tcase_add_test(tc, number_length);
	tcase_add_test(tc, names);
	tcase_add_test(tc, longest_names);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
