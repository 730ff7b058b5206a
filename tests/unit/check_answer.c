/* SPDX-License-Identifier: ISC */
/* check_answer: the exact text of complete responses. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fcgi/answer.h"

static void
expect(const struct answer *a, const char *expected)
{
	char *text = answer_text(a, "", "GET");

	ck_assert_ptr_nonnull(text);
	ck_assert_str_eq(text, expected);
	free(text);
}

/* An error has its status, no-store, a type and a JSON body, in this order, once each. */
START_TEST(with_body)
{
	static const struct answer a = { 404, "Not Found", "", "application/json",
		"{\"error\":\"no such stream\"}" };

	expect(&a,
	    "Status: 404 Not Found\r\nCache-Control: no-store\r\n"
	    "Content-Type: application/json\r\n\r\n{\"error\":\"no such stream\"}");
}
END_TEST

/* Additional headers precede the type. */
START_TEST(with_headers)
{
	static const struct answer method = { 405, "Method Not Allowed", "Allow: GET\r\n",
		"application/json", "{\"error\":\"only GET is allowed\"}" };
	static const struct answer full = { 503, "Service Unavailable", "Retry-After: 30\r\n",
		"application/json", "{\"error\":\"too many streams\"}" };

	expect(&method,
	    "Status: 405 Method Not Allowed\r\nCache-Control: no-store\r\nAllow: GET\r\n"
	    "Content-Type: application/json\r\n\r\n{\"error\":\"only GET is allowed\"}");
	expect(&full,
	    "Status: 503 Service Unavailable\r\nCache-Control: no-store\r\nRetry-After: 30\r\n"
	    "Content-Type: application/json\r\n\r\n{\"error\":\"too many streams\"}");
}
END_TEST

/* HEAD gets the headers that GET would get, without a body. */
START_TEST(head_only)
{
	static const struct answer a = { 405, "Method Not Allowed", "Allow: GET\r\n",
		"application/json", "{}" };
	char *text = answer_text(&a, "", "HEAD");

	ck_assert_ptr_nonnull(text);
	ck_assert_str_eq(text,
	    "Status: 405 Method Not Allowed\r\nCache-Control: no-store\r\nAllow: GET\r\n"
	    "Content-Type: application/json\r\n\r\n");
	free(text);
	/* Only "HEAD" is HEAD: methods are case-sensitive. */
	text = answer_text(&a, "", "head");
	ck_assert_ptr_nonnull(text);
	ck_assert_ptr_nonnull(strstr(text, "\r\n\r\n{}"));
	free(text);
}
END_TEST

/* More headers follow those of the answer. */
START_TEST(more_headers)
{
	static const struct answer a = { 405, "Method Not Allowed", "Allow: GET\r\n", "text/plain",
		"x" };
	char *text = answer_text(&a, "X-More: 1\r\n", "GET");

	ck_assert_ptr_nonnull(text);
	ck_assert_str_eq(text,
	    "Status: 405 Method Not Allowed\r\nCache-Control: no-store\r\nAllow: GET\r\n"
	    "X-More: 1\r\nContent-Type: text/plain\r\n\r\nx");
	free(text);
}
END_TEST

/* A body of any length is sent complete, and is not used as a format string. */
START_TEST(long_body)
{
	static char body[100000];
	static const struct answer a = { 200, "OK", "", "text/plain; version=0.0.4", body };
	char *text;

	memset(body, '%', sizeof(body) - 1);
	text = answer_text(&a, "", "");
	ck_assert_ptr_nonnull(text);
	ck_assert_ptr_nonnull(strstr(text, "\r\n\r\n"));
	ck_assert_str_eq(strstr(text, "\r\n\r\n") + 4, body);
	free(text);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("answer");
	TCase *tc = tcase_create("answer");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, with_body);
	tcase_add_test(tc, with_headers);
	tcase_add_test(tc, head_only);
	tcase_add_test(tc, more_headers);
	tcase_add_test(tc, long_body);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
