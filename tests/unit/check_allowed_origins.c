/* SPDX-License-Identifier: ISC */
/*
 * check_allowed_origins: which lists of origins are valid, and which Origin headers match them.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/allowed_origins.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Each list is written as browsers write origins. */
START_TEST(valid)
{
	static const struct { const char *list, *normalized; } rows[] = {
		{ "https://a.example", "https://a.example" },
		{ "http://a", "http://a" },
		{ "HTTPS://A.Example", "https://a.example" },
		{ "https://a:443,http://a:80,http://a:443,https://a:80",
		    "https://a,http://a,http://a:443,https://a:80" },
		{ "https://a:08443", "https://a:8443" },
		{ " https://a ,\thttps://b:1 ", "https://a,https://b:1" },
		{ "https://[2001:DB8::A]:8443", "https://[2001:db8::a]:8443" },
		{ "https://[::1]", "https://[::1]" },
		{ "http://127.0.0.1:3000", "http://127.0.0.1:3000" },
		{ "https://a,https://a", "https://a,https://a" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		char *list = strdup(rows[i].list);

		ck_assert_msg(allowed_origins_valid(list), "%s", list);
		allowed_origins_normalize(list);
		ck_assert_str_eq(list, rows[i].normalized);
		free(list);
	}
}
END_TEST

/* A list with anything else in it is refused: it would match nothing, or more than it seems to. */
START_TEST(invalid)
{
	static const char *const lists[] = { "", " ", ",", "https://a,", ",https://a",
		"https://a,,https://b", "a", "a.example", "//a", "*", "https://*", "https://*.example",
		"null", "https://", "https:///", "https://a/", "https://a/x", "https://a?x",
		"https://a#x", "https://u@a", "https://u:p@a", "https://a:", "https://a:0",
		"https://a:65536", "https://a:x", "https://a b", "https://a https://b", "https:a",
		"https:/a", "ftp://a", "ws://a", "file:///a", "https://[::1", "https://::1",
		"https://[fe80::1%25eth0]", "https://[fe80::1%eth0]", "https://\xe4.example",
		"https://a\r\nX: y", "chrome-extension://a" };

	for (size_t i = 0; i < COUNT(lists); i++)
		ck_assert_msg(!allowed_origins_valid(lists[i]), "%s", lists[i]);
}
END_TEST

/* An origin has at most ALLOWED_ORIGIN_MAX bytes. */
START_TEST(longest)
{
	char origin[ALLOWED_ORIGIN_MAX + 2];

	memset(origin, 'a', sizeof(origin));
	memcpy(origin, "https://", 8);
	origin[ALLOWED_ORIGIN_MAX + 1] = '\0';
	ck_assert(!allowed_origins_valid(origin));
	origin[ALLOWED_ORIGIN_MAX] = '\0';
	ck_assert(allowed_origins_valid(origin));
}
END_TEST

/* Only a whole entry matches, byte for byte. */
START_TEST(find)
{
	static const char list[] = "https://a.example,http://b:8080,https://c";
	static const char *const others[] = { "", "https://a", "https://a.example.evil.example",
		"https://a.example:443", "http://a.example", "HTTPS://A.EXAMPLE", "https://a.example/",
		"https://a.example,http://b:8080", "http://b", "http://b:80", "http://b:8081",
		"b:8080", "https://c,", ",https://c", "null", "*", "https://evil.example" };

	ck_assert_ptr_eq(allowed_origins_find(list, "https://a.example"), list);
	ck_assert_ptr_eq(allowed_origins_find(list, "http://b:8080"), list + 18);
	ck_assert_ptr_eq(allowed_origins_find(list, "https://c"), list + 32);
	for (size_t i = 0; i < COUNT(others); i++) {
		ck_assert_msg(allowed_origins_find(list, others[i]) == NULL, "%s",
		    others[i]);
		ck_assert_ptr_null(allowed_origins_find("", others[i]));
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("allowed_origins");
	TCase *tc = tcase_create("allowed_origins");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, valid);
	tcase_add_test(tc, invalid);
	tcase_add_test(tc, longest);
	tcase_add_test(tc, find);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
