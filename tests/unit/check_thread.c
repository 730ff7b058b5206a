/*
 * check_thread: the stack of a connection's thread grows with a deep call, and is given back, but where a
 * sanitizer watches it.
 */
#include "config.h"

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "thread.h"

#define DEPTH 16384 /* bytes */

static uintptr_t used;
static bool grown, trimmed, kept;

/* Whether the page at an address is in memory. */
static bool
resident(uintptr_t address)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	unsigned char state;

	ck_assert_int_eq(mincore((void *)(address - address % page), page, &state), 0);
	return state & 1;
}

/* Uses much of the stack; used is an address in that. */
static void THREAD_STEP
deep(void)
{
	volatile char room[DEPTH];

	memset((char *)room, 1, sizeof(room));
	used = (uintptr_t)room;
}

/* Trims at each of so many depths; whether what the calls hold is still there. */
static bool THREAD_STEP
keeps(int depths)
{
	volatile unsigned char mine[40];
	bool good = true;

	for (size_t i = 0; i < sizeof(mine); i++)
		mine[i] = (unsigned char)i;
	if (depths > 1)
		good = keeps(depths - 1);
	deep();
	thread_trim_stack();
	for (size_t i = 0; i < sizeof(mine); i++)
		good &= mine[i] == (unsigned char)i;
	return good;
}

static void *
run(void *arg)
{
	(void)arg;
	deep();
	grown = resident(used);
	thread_trim_stack();
	trimmed = !resident(used);
	kept = keeps(200);
	return NULL;
}

/* thread_trim_stack(): the pages of returned calls go, the caller's stay, as often as one likes. */
START_TEST(a_trimmed_stack_is_given_back)
{
	pthread_t thread;

	ck_assert_int_eq(thread_start_joinable(&thread, THREAD_SMALL, run, NULL), 0);
	pthread_join(thread, NULL);
	ck_assert(grown);
#ifndef TPI_SANITIZED
	ck_assert(trimmed);
#endif
	ck_assert(kept);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("thread");
	TCase *cases = tcase_create("thread");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(cases, a_trimmed_stack_is_given_back);
	suite_add_tcase(suite, cases);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
