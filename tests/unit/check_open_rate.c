/* SPDX-License-Identifier: ISC */
/*
 * check_open_rate: how many streams a user may open in a second, and which users the table holds.
 */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "stream/open_rate.h"

#define SECOND 1000000
#define START  1234567890123

static struct open_rate *rate;

static void
new_rate(int per_second)
{
	rate = open_rate_new(per_second);
	ck_assert_ptr_nonnull(rate);
}

/* How many of several attempts at the same time are allowed. */
static int
allowed(const char *user, int attempts, int64_t now)
{
	int count = 0;

	for (int i = 0; i < attempts; i++)
		count += open_rate_allow(rate, user, now);
	return count;
}

static const int rates[] = { 1, 3, 7, 20, 300, 1000 };

/* At first a user may open five seconds' worth of streams at once. */
START_TEST(burst)
{
	new_rate(rates[_i]);
	ck_assert_int_eq(allowed("u", 10000, START), 5 * rates[_i]);
}
END_TEST

/* After the burst exactly the rate is allowed, however often the user tries. */
START_TEST(refill)
{
	int count = 0;

	new_rate(20);
	ck_assert_int_eq(allowed("u", 1000, START), 100);
	for (int ms = 1; ms <= 10000; ms++)
		count += allowed("u", 3, START + ms * 1000);
	ck_assert_int_eq(count, 200);
	/* A pause fills the bucket, and no further. */
	ck_assert_int_eq(allowed("u", 1000, START + 12 * SECOND), 40);
	ck_assert_int_eq(allowed("u", 1000, START + 3600LL * SECOND), 100);
}
END_TEST

/* A user who never exceeds the rate is never refused. */
START_TEST(within_the_rate)
{
	new_rate(20);
	for (int i = 0; i < 2000; i++)
		ck_assert(open_rate_allow(rate, "u", START + i * (SECOND / 20)));
}
END_TEST

/* Users do not affect each other. */
START_TEST(users)
{
	new_rate(2);
	ck_assert_int_eq(allowed("ann", 100, START), 10);
	ck_assert_int_eq(allowed("an", 100, START), 10);
	ck_assert_int_eq(allowed("ann", 100, START), 0);
	ck_assert_int_eq(allowed("ben", 1, START), 1);
	ck_assert_uint_eq(open_rate_count(rate), 3);
}
END_TEST

/* 0 is no limit and keeps no entries. */
START_TEST(no_limit)
{
	new_rate(0);
	ck_assert_int_eq(allowed("u", 100000, START), 100000);
	ck_assert_uint_eq(open_rate_count(rate), 0);
}
END_TEST

/* A full bucket has no entry: the table holds the users of the last seconds only. */
START_TEST(full_buckets_are_dropped)
{
	char user[16];

	new_rate(1);
	for (int i = 0; i < 10000; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		ck_assert(open_rate_allow(rate, user, START + i * 1000));
		/* Each is full after a second; 1000 open a stream in that time. */
		ck_assert_uint_le(open_rate_count(rate), 1001);
	}
	/* A bucket that is not full keeps later ones in the table no longer than a burst takes. */
	ck_assert_int_eq(allowed("greedy", 100, START + 20 * SECOND), 5);
	ck_assert(open_rate_allow(rate, "late", START + 20 * SECOND + 1));
	ck_assert(open_rate_allow(rate, "later", START + 20 * SECOND + 2));
	ck_assert_int_eq(allowed("late", 100, START + 24 * SECOND), 5);
	ck_assert_uint_eq(open_rate_count(rate), 3);
	ck_assert(open_rate_allow(rate, "last", START + 30 * SECOND));
	ck_assert_uint_eq(open_rate_count(rate), 1);
}
END_TEST

/* However many users there are, the table is bounded, and the one used last is kept. */
START_TEST(table_is_bounded)
{
	char user[16];

	new_rate(20);
	ck_assert_int_eq(allowed("first", 1000, START), 100);
	for (int i = 0; i < 3 * OPEN_RATE_USERS_MAX; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		ck_assert(open_rate_allow(rate, user, START));
	}
	ck_assert_uint_eq(open_rate_count(rate), OPEN_RATE_USERS_MAX);
	ck_assert_int_eq(allowed(user, 1000, START), 99);
	ck_assert_int_eq(allowed("first", 1000, START), 100);
}
END_TEST

static _Atomic int total;

static void *
open_many(void *arg)
{
	(void)arg;
	total += allowed("u", 1000, START);
	return NULL;
}

/* Several threads share a user's bucket exactly. */
START_TEST(threads)
{
	pthread_t ids[8];

	new_rate(100);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(pthread_create(&ids[i], NULL, open_many, NULL), 0);
	for (int i = 0; i < 8; i++)
		pthread_join(ids[i], NULL);
	ck_assert_int_eq(total, 500);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("open_rate");
	TCase *tc = tcase_create("open_rate");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(tc, burst, 0, sizeof(rates) / sizeof(rates[0]));
	tcase_add_test(tc, refill);
	tcase_add_test(tc, within_the_rate);
	tcase_add_test(tc, users);
	tcase_add_test(tc, no_limit);
	tcase_add_test(tc, full_buckets_are_dropped);
	tcase_add_test(tc, table_is_bounded);
	tcase_add_test(tc, threads);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
