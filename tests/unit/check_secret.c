/* SPDX-License-Identifier: ISC */
/*
 * check_secret: known passwords are struck out of a text, whatever surrounds them.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Expects the result for a text that is in a block of exactly its size. */
static void
expect_struck(const char *text, const char *expected)
{
	char *copy = strdup(text);

	ck_assert_ptr_nonnull(copy);
	secret_strike(copy);
	ck_assert_str_eq(copy, expected);
	free(copy);
}

START_TEST(struck)
{
	static const struct {
		const char *text, *expected;
	} rows[] = {
		{ "", "" },
		{ "nothing", "nothing" },
		{ "s3cr3t", "***" },
		{ "a s3cr3t, s3cr3ts3cr3t!", "a ***, ******!" },
		{ "s3cr3", "s3cr3" },
		{ "qp p", "** p" },
		{ "s3cr3qp3t", "s3cr3**3t" },
	};
	char *secrets[] = { secret_keep("s3cr3t"), secret_keep("qp") };

	for (size_t i = 0; i < COUNT(rows); i++)
		expect_struck(rows[i].text, rows[i].expected);
	for (size_t i = 0; i < COUNT(secrets); i++)
		secret_drop(secrets[i]);
	expect_struck("s3cr3t qp", "s3cr3t qp");
}
END_TEST

/* Equal passwords share a copy, which is known until the last reference is dropped. */
START_TEST(shared)
{
	char *a = secret_keep("same"), *b = secret_keep("same");

	ck_assert_ptr_eq(a, b);
	secret_drop(a);
	expect_struck("same", "***");
	secret_drop(b);
	expect_struck("same", "same");
	secret_drop(NULL);
}
END_TEST

/* A block that grows keeps its data. */
START_TEST(grown)
{
	char *text = secret_realloc(NULL, 8);

	ck_assert_ptr_nonnull(text);
	strcpy(text, "s3cr3t");
	for (size_t size = 8; size < 100000; size *= 2) {
		text = secret_realloc(text, size);
		ck_assert_ptr_nonnull(text);
		ck_assert_str_eq(text, "s3cr3t");
	}
	secret_wipe(text);
	ck_assert_mem_eq(text, "\0\0\0\0\0", 6);
	free(text);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("secret");
	TCase *cases = tcase_create("secret");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(cases, struck);
	tcase_add_test(cases, shared);
	tcase_add_test(cases, grown);
	suite_add_tcase(suite, cases);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
