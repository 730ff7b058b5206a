/* SPDX-License-Identifier: ISC */
/*
 * check_thread: a connection's thread has a stack as small as the system allows, and
 * thread_trim_stack() returns what a deep call used.
 *
 * The program is linked with --wrap, so that a test can raise the system's minimum stack size.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/thread.h"

#define DEPTH  16384              /* bytes of a deep call */
#define LEVELS 100                /* of a recursion that fits in a small stack with a deep call */
#define HUGE   (4L * 1024 * 1024) /* larger than any stack */

long __real_sysconf(int name);
long __wrap_sysconf(int name);
int __real_pthread_attr_setstacksize(pthread_attr_t *attributes, size_t size);
int __wrap_pthread_attr_setstacksize(pthread_attr_t *attributes, size_t size);

static long minimum; /* minimum stack size; 0: that of the system */
static int refusal;  /* what pthread_attr_setstacksize() returns for any size; 0: as usual */
static uintptr_t used;
static bool grown, trimmed, kept;

/* Whether the page that contains address is in memory. */
static bool
resident(uintptr_t address)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	unsigned char state;

	ck_assert_int_eq(mincore((void *)(address - address % page), page, &state), 0);
	return state & 1;
}

/* Uses DEPTH bytes of the stack; used gets an address among them. */
static void THREAD_STEP
deep(void)
{
	volatile char room[DEPTH];

	memset((char *)room, 1, sizeof(room));
	used = (uintptr_t)room;
}

/* Trims the stack at each level of a recursion. Returns whether all locals kept their values. */
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
	kept = keeps(LEVELS);
	return NULL;
}

/* thread_trim_stack() frees the pages of calls that returned and keeps the callers', repeatedly. */
START_TEST(a_trimmed_stack_is_given_back)
{
	pthread_t thread;

	ck_assert_int_eq(thread_start_joinable(&thread, THREAD_SMALL, run, NULL), 0);
	pthread_join(thread, NULL);
	ck_assert(grown);
	ck_assert(trimmed);
	ck_assert(kept);
}
END_TEST

long
__wrap_sysconf(int name)
{
	return name == _SC_THREAD_STACK_MIN && minimum != 0 ? minimum : __real_sysconf(name);
}

int
__wrap_pthread_attr_setstacksize(pthread_attr_t *attributes, size_t size)
{
	if (refusal != 0)
		return refusal;
	return (long)size < minimum ? EINVAL : __real_pthread_attr_setstacksize(attributes, size);
}

static void *
measure(void *size)
{
	pthread_attr_t attributes;
	void *start;

	ck_assert_int_eq(pthread_getattr_np(pthread_self(), &attributes), 0);
	ck_assert_int_eq(pthread_attr_getstack(&attributes, &start, size), 0);
	pthread_attr_destroy(&attributes);
	return NULL;
}

static size_t
size_of(enum thread_stack stack)
{
	size_t size = 0;
	pthread_t thread;

	ck_assert_int_eq(thread_start_joinable(&thread, stack, measure, &size), 0);
	pthread_join(thread, NULL);
	return size;
}

/* Where the system's minimum is larger, a thread gets that minimum, not 8 MiB. */
START_TEST(the_systems_minimum_is_respected)
{
	/* The order matters: the C library reuses the larger stacks of earlier threads. */
	const size_t small = size_of(THREAD_SMALL), large = size_of(THREAD_LARGE);

	ck_assert_uint_lt(small, large);
	minimum = HUGE;
	ck_assert_uint_eq(size_of(THREAD_SMALL), HUGE);
	ck_assert_uint_eq(size_of(THREAD_LARGE), HUGE);
	minimum = -1; /* no limit */
	ck_assert_uint_eq(size_of(THREAD_SMALL), small);
	ck_assert_uint_eq(size_of(THREAD_LARGE), large);
	minimum = 0;
}
END_TEST

/* If the system refuses a stack size, no thread starts, and the error is returned. */
START_TEST(a_refused_size_is_an_error)
{
	pthread_t thread;

	refusal = EINVAL;
	ck_assert_int_eq(thread_start(THREAD_SMALL, run, NULL), EINVAL);
	ck_assert_int_eq(thread_start_joinable(&thread, THREAD_LARGE, run, NULL), EINVAL);
	refusal = 0;
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("thread");
	TCase *cases = tcase_create("thread");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(cases, the_systems_minimum_is_respected);
	tcase_add_test(cases, a_refused_size_is_an_error);
	tcase_add_test(cases, a_trimmed_stack_is_given_back);
	suite_add_tcase(suite, cases);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
