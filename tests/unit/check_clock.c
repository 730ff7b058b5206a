/* SPDX-License-Identifier: ISC */
/*
 * check_clock: monotonic time, random intervals, and the wall clock as text.
 *
 * This program replaces getrandom(), so that a test can make it fail.
 */
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

static bool random_fails;
static int random_calls;

ssize_t
getrandom(void *buffer, size_t length, unsigned flags)
{
	random_calls++;
	if (random_fails) {
		errno = EAGAIN;
		return -1;
	}
	return syscall(SYS_getrandom, buffer, length, flags);
}

/* Draws from 10 to 13 and expects each of these numbers about equally often, and no other. */
static void
draw_four(void)
{
	int seen[4] = { 0 };

	for (int i = 0; i < 4000; i++) {
		uint32_t n = clock_jitter(10, 13);

		ck_assert_uint_ge(n, 10);
		ck_assert_uint_le(n, 13);
		seen[n - 10]++;
	}
	/* The expected count is 1000; 800 would be 7 standard deviations below. */
	for (int i = 0; i < 4; i++)
		ck_assert_int_gt(seen[i], 800);
}

/* The real clock counts milliseconds and never goes back. */
START_TEST(clock_runs_in_milliseconds)
{
	const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
	int64_t before = clock_ms(), after;

	nanosleep(&pause, NULL);
	after = clock_ms();
	ck_assert_int_ge(after - before, 20);
	ck_assert_int_lt(after - before, 10 * 1000);
}
END_TEST

/* Random numbers are evenly distributed, and include both ends of the range. */
START_TEST(jitter_is_even)
{
	draw_four();
	ck_assert_int_eq(random_calls, 4000);
}
END_TEST

/* If getrandom() fails, the numbers are still in range and still spread evenly. */
START_TEST(jitter_survives_without_getrandom)
{
	random_fails = true;
	draw_four();
	ck_assert_int_eq(random_calls, 4000);
}
END_TEST

/* A range of one number yields that number; the full range of 32 bits does not overflow. */
START_TEST(jitter_at_the_edges)
{
	bool high_half = false;

	ck_assert_uint_eq(clock_jitter(0, 0), 0);
	ck_assert_uint_eq(clock_jitter(UINT32_MAX, UINT32_MAX), UINT32_MAX);
	for (int i = 0; i < 100; i++)
		high_half |= clock_jitter(0, UINT32_MAX) > UINT32_MAX / 2;
	ck_assert(high_half);
}
END_TEST

/* The wall clock's text is the current UTC time in ISO 8601, with milliseconds. */
START_TEST(iso_is_utc_now)
{
	char text[CLOCK_ISO_SIZE];
	time_t before = time(NULL);
	struct tm tm = { 0 };
	char *rest;

	setenv("TZ", "America/New_York", 1);
	tzset();
	clock_iso(text, sizeof(text));
	ck_assert_uint_eq(strlen(text), CLOCK_ISO_SIZE - 1);
	rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	ck_assert_ptr_nonnull(rest);
	ck_assert_int_eq(rest[0], '.');
	ck_assert_uint_eq(strspn(rest + 1, "0123456789"), 3);
	ck_assert_str_eq(rest + 4, "Z");
	/* time() reads a coarser clock, which may lag by a tick. */
	ck_assert_int_ge(timegm(&tm), before - 1);
	ck_assert_int_le(timegm(&tm), time(NULL) + 1);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("clock");
	TCase *tc = tcase_create("clock");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, clock_runs_in_milliseconds);
	tcase_add_test(tc, jitter_is_even);
	tcase_add_test(tc, jitter_survives_without_getrandom);
	tcase_add_test(tc, jitter_at_the_edges);
	tcase_add_test(tc, iso_is_utc_now);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
