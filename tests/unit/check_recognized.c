/* SPDX-License-Identifier: ISC */
/*
 * check_recognized: which credentials are remembered, and for how long.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/recognized.h"

static struct recognized r;

static void
setup(void)
{
	recognized_init(&r);
}

static const uint8_t *
digest(int number)
{
	static uint8_t bytes[CREDENTIALS_DIGEST_SIZE];

	memcpy(bytes, &number, sizeof(number));
	return bytes;
}

static void
add(int number, int user)
{
	char id[16];

	snprintf(id, sizeof(id), "u%d", user);
	recognized_add(&r, digest(number), id);
}

static bool
has(int number)
{
	return recognized_has(&r, digest(number));
}

/* Credentials are recognized from recognized_add() to recognized_remove(), once. */
START_TEST(added_and_removed)
{
	ck_assert(!has(1));
	add(1, 1);
	add(1, 1);
	add(2, 1);
	ck_assert(has(1) && has(2) && !has(3));
	ck_assert_int_eq(r.count, 2);
	recognized_remove(&r, digest(1));
	recognized_remove(&r, digest(3));
	ck_assert(!has(1) && has(2));
	/* They may be another user's by now. */
	add(2, 2);
	ck_assert_int_eq(r.count, 1);
	recognized_remove(&r, digest(2));
	ck_assert_int_eq(r.count, 0);
	ck_assert_ptr_null(r.users);
}
END_TEST

/* Of one user the last RECOGNIZED_EACH are remembered; other users lose none. */
START_TEST(each)
{
	add(0, 0);
	for (int i = 1; i <= 100; i++)
		add(i, 1);
	ck_assert_int_eq(r.count, 1 + RECOGNIZED_EACH);
	for (int i = 0; i <= 100; i++)
		ck_assert_int_eq(has(i), i == 0 || i > 100 - RECOGNIZED_EACH);
	/* What was recognized again is not the oldest any more. */
	add(100 - RECOGNIZED_EACH + 1, 1);
	add(101, 1);
	ck_assert(has(100 - RECOGNIZED_EACH + 1) && !has(100 - RECOGNIZED_EACH + 2));
}
END_TEST

/* Of all users the last RECOGNIZED_MAX are remembered. */
START_TEST(all)
{
	for (int i = 0; i < RECOGNIZED_MAX; i++)
		add(i, i);
	add(0, 0);
	for (int i = RECOGNIZED_MAX; i < RECOGNIZED_MAX + 10; i++)
		add(i, i);
	ck_assert_int_eq(r.count, RECOGNIZED_MAX);
	for (int i = 0; i < RECOGNIZED_MAX + 10; i++)
		ck_assert_int_eq(has(i), i == 0 || i > 10);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("recognized");
	TCase *tc = tcase_create("recognized");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, added_and_removed);
	tcase_add_test(tc, each);
	tcase_add_test(tc, all);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
