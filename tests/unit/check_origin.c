/* SPDX-License-Identifier: ISC */
/*
 * check_origin: which Origin and Referer headers belong to the host that the Host header names, and
 * which requests come from a page of another origin.
 */
#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "auth/origin.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct row {
	const char *url, *host;
};

static void
expect_rows(const struct row *rows, size_t count, bool same)
{
	for (size_t i = 0; i < count; i++)
		ck_assert_msg(origin_is_host(rows[i].url, rows[i].host) == same, "%s %s %s",
		    rows[i].url, same ? "is not" : "is", rows[i].host);
}

#define EXPECT(same, ...)                                                                         \
	do {                                                                                      \
		static const struct row rows[] = { __VA_ARGS__ };                                 \
		expect_rows(rows, COUNT(rows), same);                                             \
	} while (0)

/* Host and port must be equal; scheme, path and query do not matter. */
START_TEST(same)
{
	EXPECT(true,
	    { "http://tpi.example", "tpi.example" },
	    { "https://tpi.example", "tpi.example" },
	    { "http://tpi.example/", "tpi.example" },
	    { "http://tpi.example/en-US/projects/7?x=http://y/#z", "tpi.example" },
	    { "http://tpi.example?x", "tpi.example" },
	    { "http://tpi.example#x", "tpi.example" },
	    { "http://tpi.example/@evil.example/", "tpi.example" },
	    { "http://tpi.example:8080/x", "tpi.example:8080" },
	    { "http://127.0.0.1:3000/", "127.0.0.1:3000" },
	    { "http://[::1]/x", "[::1]" },
	    { "http://[2001:db8::1]:8443/x", "[2001:db8::1]:8443" },
	    { "http://h", "h" });
}
END_TEST

/* Case does not matter in hosts and schemes. */
START_TEST(any_case)
{
	EXPECT(true,
	    { "http://tpi.example/", "TPI.Example" },
	    { "HTTP://TPI.EXAMPLE/", "tpi.example" },
	    { "https://[2001:DB8::A]/", "[2001:db8::a]" });
}
END_TEST

/* The default port of the URL's scheme equals no port and an empty one; another port does not. */
START_TEST(default_ports)
{
	EXPECT(true,
	    { "http://h/", "h:80" },
	    { "http://h:80/", "h" },
	    { "http://h:80/", "h:80" },
	    { "https://h/", "h:443" },
	    { "https://h:443/", "h" },
	    { "http://h:/", "h" },
	    { "http://h/", "h:" },
	    { "http://h:0080/", "h" },
	    { "https://[::1]/", "[::1]:443" },
	    { "http://h:443/", "h:443" });
	EXPECT(false,
	    { "http://h/", "h:443" },
	    { "https://h/", "h:80" },
	    { "http://h:443/", "h" },
	    { "https://h:80/", "h" },
	    { "http://h:8080/", "h" },
	    { "http://h/", "h:8080" },
	    { "http://h:8080/", "h:8081" },
	    { "http://[::1]:8080/", "[::1]" });
}
END_TEST

/* Another site does not match, wherever in its URL our host's name occurs. */
START_TEST(another_site)
{
	EXPECT(false,
	    { "http://evil.example", "tpi.example" },
	    { "http://tpi.example.evil.example/", "tpi.example" },
	    { "http://tpi.example.", "tpi.example" },
	    { "http://evil-tpi.example/", "tpi.example" },
	    { "http://sub.tpi.example/", "tpi.example" },
	    { "http://example/", "tpi.example" },
	    { "http://evil.example/tpi.example", "tpi.example" },
	    { "http://evil.example/http://tpi.example/", "tpi.example" },
	    { "http://evil.example?tpi.example", "tpi.example" },
	    { "http://evil.example#@tpi.example", "tpi.example" },
	    { "http://evil.example/@tpi.example", "tpi.example" },
	    { "http://evil.example\\@tpi.example", "tpi.example" },
	    { "http://tpi.example@evil.example/", "tpi.example" },
	    { "http://tpi.example:80@evil.example/", "tpi.example" },
	    { "http://[::1]/", "::1" },
	    { "http://[::1]/", "[::2]" });
}
END_TEST

/* A value that no browser sends matches nothing, not even itself. */
START_TEST(malformed)
{
	EXPECT(false,
	    { "", "" }, { "", "h" }, { "null", "null" }, { "null", "h" }, { "h", "h" },
	    { "//h", "h" }, { "http:", "http:" }, { "http:/h", "h" }, { "http:h", "h" },
	    { "http://", "" }, { "http:///", "" }, { "http:///h", "h" }, { "http://:80", "" },
	    { "http://:80", ":80" }, { "http://h", "" }, { "http:\\\\h", "h" }, { " http://h", "h" },
	    { "http ://h", "h" }, { "ftp://h/", "h" }, { "file://h/", "h" }, { "ws://h/", "h" },
	    { "about:blank", "h" }, { "data:text/html,http://h", "h" },
	    { "chrome-extension://h/", "h" }, { "https//h", "h" }, { "httpss://h", "h" },
	    { "http://u@h/", "h" }, { "http://u:p@h/", "h" }, { "http://u@h/", "u@h" },
	    { "http://@h/", "h" }, { "http://h/", "u@h" }, { "http://h\\", "h" },
	    { "http://h\\@i/", "h" }, { "http://h\\@i/", "i" },
	    { "http://h:x/", "h:x" }, { "http://h:65536/", "h:65536" }, { "http://h:-1/", "h:-1" },
	    { "http://h:99999999999999999999/", "h:99999999999999999999" },
	    { "http://h:80:80/", "h:80:80" }, { "http://h: 80/", "h" }, { "http://h/", "h:x" },
	    { "http://[::1/", "[::1" }, { "http://h/", "h/" }, { "http://h/", "http://h" },
	    { "http://h, http://h", "h" }, { "http://h/", "h, h" });
}
END_TEST

/* Sec-Fetch-Site decides; without it, or with a value that is not defined, Origin and Host do. */
START_TEST(foreign)
{
#define SITE(value)   "HTTP_SEC_FETCH_SITE=" value
#define ORIGIN(value) "HTTP_ORIGIN=" value
#define HOST          "HTTP_HOST=tpi.example"
	static const struct { bool foreign; const char *params[5]; } rows[] = {
		{ false, { NULL } },
		{ false, { HOST } },
		{ false, { ORIGIN(""), HOST } },
		{ false, { ORIGIN("http://tpi.example"), HOST } },
		{ false, { "HTTP_REFERER=http://evil.example/", HOST } },
		{ true, { ORIGIN("http://evil.example"), HOST } },
		{ true, { ORIGIN("http://evil.example") } },
		{ true, { ORIGIN("http://tpi.example:8080"), HOST } },
		{ true, { ORIGIN("null"), HOST } },
		{ true, { ORIGIN("null") } },
		{ false, { SITE("same-origin"), ORIGIN("http://evil.example"), HOST } },
		{ false, { SITE("none"), HOST } },
		{ false, { SITE("same-origin") } },
		{ true, { SITE("cross-site") } },
		{ true, { SITE("same-site"), HOST } },
		{ true, { SITE("cross-site"), ORIGIN("http://tpi.example"), HOST } },
		{ false, { SITE(""), HOST } },
		{ true, { SITE(""), ORIGIN("http://evil.example"), HOST } },
		{ true, { SITE("Same-Origin"), ORIGIN("http://evil.example"), HOST } },
		{ false, { SITE("same-planet"), ORIGIN("http://tpi.example"), HOST } },
		/* Two different values count as another site. */
		{ true, { SITE("same-origin"), SITE("cross-site"), HOST } },
		{ true, { SITE("cross-site"), SITE("same-origin"), HOST } },
		{ true, { SITE(""), SITE("cross-site"), HOST } },
		{ false, { SITE("same-origin"), SITE("same-origin"), HOST } },
		{ true, { ORIGIN("http://tpi.example"), ORIGIN("http://evil.example"), HOST } },
		{ true, { ORIGIN(""), ORIGIN("http://evil.example"), HOST } },
		{ true, { ORIGIN("http://tpi.example"), HOST, "HTTP_HOST=evil.example" } },
		{ false, { HOST, "HTTP_HOST=evil.example" } },
	};

	for (size_t i = 0; i < COUNT(rows); i++)
		ck_assert_msg(origin_is_foreign((char *const *)(uintptr_t)rows[i].params) ==
		    rows[i].foreign, "row %zu", i);
}
END_TEST

/* The Origin header is that of the request, unless there are two. */
START_TEST(header)
{
	static const char *const one[] = { "X=1", ORIGIN("http://a"), ORIGIN("http://a"), NULL };
	static const char *const two[] = { ORIGIN("http://a"), ORIGIN("http://b"), NULL };

	ck_assert_str_eq(origin_header((char *const *)(uintptr_t)one), "http://a");
	ck_assert_str_eq(origin_header((char *const *)(uintptr_t)two), "");
	ck_assert_str_eq(origin_header((char *const *)(uintptr_t)(one + 3)), "");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("origin");
	TCase *tc = tcase_create("origin");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, same);
	tcase_add_test(tc, any_case);
	tcase_add_test(tc, default_ports);
	tcase_add_test(tc, another_site);
	tcase_add_test(tc, malformed);
	tcase_add_test(tc, foreign);
	tcase_add_test(tc, header);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
