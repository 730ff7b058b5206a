/* SPDX-License-Identifier: ISC */
/*
 * check_hostport: parsing and formatting of host[:port].
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/hostport.h"

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

#define A16 "aaaaaaaaaaaaaaaa"
#define A64 A16 A16 A16 A16
#define A253 A64 A64 A64 A16 A16 A16 "aaaaaaaaaaaaa"

static struct error error;

static const struct {
	const char *text, *host;
	int port;
} good_texts[] = {
	{ "h", "h", 0 },
	{ "h:1", "h", 1 },
	{ "valkey_1.example-2.org:65535", "valkey_1.example-2.org", 65535 },
	{ "10.0.0.1:06379", "10.0.0.1", 6379 },
	{ "[::1]", "::1", 0 },
	{ "[::1]:7", "::1", 7 },
	{ "[::ffff:10.0.0.1]:7", "::ffff:10.0.0.1", 7 },
	{ "[fe80::1%eth0.7]:7", "fe80::1%eth0.7", 7 },
	{ A253 ":1", A253, 1 },
};

START_TEST(good)
{
	const char *text = good_texts[_i].text;
	struct hostport hp;

	ck_assert(hostport_parse(&hp, text, strlen(text), &error));
	ck_assert_str_eq(hp.host, good_texts[_i].host);
	ck_assert_int_eq(hp.port, good_texts[_i].port);
}
END_TEST

#define PORT  "the port must be a number from 1 to 65535"
#define NAME  "the host must be a name, an IPv4 address or an [IPv6 address]"
#define V6    "the text in [...] is not an IPv6 address"
#define CLOSE "'[' without ']'"
#define AFTER "only :port may follow ']'"

static const struct {
	const char *text, *error;
} bad_texts[] = {
	{ "", "the host is missing" }, { ":1", "the host is missing" }, { "::1", "the host is missing" },
	{ "h:", PORT }, { "h:0", PORT }, { "h:65536", PORT }, { "h:100000", PORT }, { "h:+1", PORT },
	{ "h: 1", PORT }, { "h:1 ", PORT }, { "h:1x", PORT }, { "h:1:2", PORT }, { "[::1]:", PORT },
	{ "h h", NAME }, { "h/", NAME }, { "u@h", NAME }, { "\303\251", NAME }, { "h%eth0", NAME },
	{ "]", NAME }, { "h]:1", NAME }, { A253 "a:1", NAME },
	{ "[]", V6 }, { "[h]", V6 }, { "[127.0.0.1]", V6 }, { "[::1%]", V6 }, { "[::1% ]", V6 },
	{ "[%eth0]", V6 }, { "[" A253 "a]", V6 }, { "[::1%" A253 "]", V6 },
	{ "[", CLOSE }, { "[::1", CLOSE }, { "[::1:1", CLOSE },
	{ "[::1]1", AFTER }, { "[::1]]", AFTER }, { "[::1]h", AFTER },
};

START_TEST(bad)
{
	struct hostport hp;
	const char *text = bad_texts[_i].text;

	ck_assert_msg(!hostport_parse(&hp, text, strlen(text), &error), "%s", text);
	ck_assert_str_eq(error.text, bad_texts[_i].error);
}
END_TEST

/* Bytes after the given length are ignored. */
START_TEST(part_of_a_text)
{
	struct hostport hp;

	ck_assert(hostport_parse(&hp, "h:123", 3, &error));
	ck_assert_int_eq(hp.port, 1);
	ck_assert(hostport_parse(&hp, "host", 1, &error));
	ck_assert_str_eq(hp.host, "h");
	ck_assert(!hostport_parse(&hp, "[::1]", 4, &error));
	ck_assert_str_eq(error.text, CLOSE);
	ck_assert(!hostport_parse(&hp, "h:1", 2, &error));
	ck_assert_str_eq(error.text, PORT);
	ck_assert(!hostport_parse(&hp, "h\0h", 3, &error));
	ck_assert_str_eq(error.text, NAME);
}
END_TEST

START_TEST(format)
{
	char text[16];

	hostport_format(text, sizeof(text), "h", 1);
	ck_assert_str_eq(text, "h:1");
	hostport_format(text, sizeof(text), "::1", 65535);
	ck_assert_str_eq(text, "[::1]:65535");
	hostport_format(text, 4, "host", 1);
	ck_assert_str_eq(text, "hos");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("hostport");
	TCase *tc = tcase_create("hostport");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(tc, good, 0, COUNT(good_texts));
	tcase_add_loop_test(tc, bad, 0, COUNT(bad_texts));
	tcase_add_test(tc, part_of_a_text);
	tcase_add_test(tc, format);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
