/* SPDX-License-Identifier: ISC */
/*
 * check_error: the text of an error is one printable line, and can be part of a longer one.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* error_set() formats the text, replaces bytes that could control a terminal, and returns false. */
START_TEST(one_line)
{
	struct error e;

	ck_assert(!error_set(&e, "%s=%d: \"%s\"", "A", 7, "a\nb\033[1m\303\251"));
	ck_assert_str_eq(e.text, "A=7: \"a?b?[1m??\"");
}
END_TEST

/* The text may be an argument for its own successor. */
START_TEST(with_a_prefix)
{
	struct error e;

	error_set(&e, "out of memory");
	error_set(&e, "%s: %s; %s", "server", e.text, e.text);
	ck_assert_str_eq(e.text, "server: out of memory; out of memory");
}
END_TEST

/* A long text is truncated. */
START_TEST(truncated)
{
	struct error e;

	error_set(&e, "%0*d", 2 * ERROR_SIZE, 1);
	ck_assert_uint_eq(strlen(e.text), ERROR_SIZE - 1);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("error");
	TCase *cases = tcase_create("error");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(cases, one_line);
	tcase_add_test(cases, with_a_prefix);
	tcase_add_test(cases, truncated);
	suite_add_tcase(suite, cases);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
