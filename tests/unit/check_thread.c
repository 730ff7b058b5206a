/* SPDX-License-Identifier: ISC */
/*
 * check_thread: a connection's thread has a small stack with a guard page; later threads reuse the
 * stack; thread_trim_stack() returns what a deep call used.
 *
 * The program is linked with --wrap, so that a test can raise the system's minimum stack size.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
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
#define MANY   400                /* threads: more than stacks are kept, or are in a mapping */

long __real_sysconf(int name);
long __wrap_sysconf(int name);
int __real_pthread_attr_setstacksize(pthread_attr_t *attributes, size_t size);
int __wrap_pthread_attr_setstacksize(pthread_attr_t *attributes, size_t size);
int __real_pthread_attr_setstack(pthread_attr_t *attributes, void *base, size_t size);
int __wrap_pthread_attr_setstack(pthread_attr_t *attributes, void *base, size_t size);

static long minimum; /* minimum stack size; 0: that of the system */
static int refusal;  /* what is returned for any stack size; 0: as usual */
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

/* Uses DEPTH bytes of the stack; *at gets an address among them. */
static void THREAD_STEP
deep(uintptr_t *at)
{
	volatile char room[DEPTH];

	memset((char *)room, 1, sizeof(room));
	*at = (uintptr_t)room;
}

/* Trims the stack at each level of a recursion. Returns whether all locals kept their values. */
static bool THREAD_STEP
keeps(int depths)
{
	volatile unsigned char mine[40];
	bool good = true;
	uintptr_t used;

	for (size_t i = 0; i < sizeof(mine); i++)
		mine[i] = (unsigned char)i;
	if (depths > 1)
		good = keeps(depths - 1);
	deep(&used);
	thread_trim_stack();
	for (size_t i = 0; i < sizeof(mine); i++)
		good &= mine[i] == (unsigned char)i;
	return good;
}

static void *
run(void *arg)
{
	uintptr_t used;

	deep(&used);
	grown = resident(used);
	thread_trim_stack();
	trimmed = !resident(used);
	kept = keeps(LEVELS);
	sem_post(arg);
	return NULL;
}

/* Runs a function in a small thread, and waits until it posts its argument. */
static void
run_small(void *(*function)(void *))
{
	sem_t done;

	sem_init(&done, 0, 0);
	ck_assert_int_eq(thread_start_small(function, &done), 0);
	sem_wait(&done);
}

/* thread_trim_stack() frees the pages of calls that returned and keeps the callers', repeatedly. */
START_TEST(a_trimmed_stack_is_given_back)
{
	run_small(run);
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

int
__wrap_pthread_attr_setstack(pthread_attr_t *attributes, void *base, size_t size)
{
	if (refusal != 0)
		return refusal;
	return (long)size < minimum ? EINVAL : __real_pthread_attr_setstack(attributes, base, size);
}

struct measured {
	char *base;
	size_t size;
};

static struct measured
my_stack(void)
{
	struct measured m;
	pthread_attr_t attributes;
	void *base;

	ck_assert_int_eq(pthread_getattr_np(pthread_self(), &attributes), 0);
	ck_assert_int_eq(pthread_attr_getstack(&attributes, &base, &m.size), 0);
	pthread_attr_destroy(&attributes);
	m.base = base;
	return m;
}

static struct measured last; /* the stack of the last thread that ran measure() */

static void *
measure(void *done)
{
	last = my_stack();
	sem_post(done);
	return NULL;
}

static size_t
large_size(void)
{
	pthread_t thread;
	sem_t done;

	sem_init(&done, 0, 0);
	ck_assert_int_eq(thread_start_joinable(&thread, measure, &done), 0);
	pthread_join(thread, NULL);
	return last.size;
}

/* A connection's stack is not larger than that of other threads. */
START_TEST(a_small_stack_is_small)
{
	run_small(measure);
	ck_assert_uint_le(last.size, large_size());
}
END_TEST

/* Where the system's minimum is larger, a thread gets that minimum, in whole pages, not 8 MiB. */
START_TEST(the_systems_minimum_is_respected)
{
	/* In a process of its own (not with CK_FORK=no): small stacks have one size only. */
	minimum = HUGE + 1; /* not a multiple of the page size */
	run_small(measure);
	ck_assert_uint_eq(last.size, HUGE + (size_t)sysconf(_SC_PAGESIZE));
	ck_assert_uint_ge(large_size(), HUGE);
	minimum = 0;
}
END_TEST

/* Without a minimum, the sizes are the usual ones. */
START_TEST(there_may_be_no_minimum)
{
	const size_t large = large_size();

	minimum = -1;
	ck_assert_uint_eq(large_size(), large);
	run_small(measure);
	ck_assert_uint_le(last.size, large);
	minimum = 0;
}
END_TEST

/* If the system refuses a stack size, no thread starts, and the error is returned. */
START_TEST(a_refused_size_is_an_error)
{
	pthread_t thread;

	refusal = EINVAL;
	ck_assert_int_eq(thread_start(run, NULL), EINVAL);
	ck_assert_int_eq(thread_start_joinable(&thread, run, NULL), EINVAL);
	ck_assert_int_eq(thread_start_small(run, NULL), EINVAL);
	refusal = 0;
	run_small(measure);
}
END_TEST

/* Threads that run one after another share a few stacks. */
START_TEST(stacks_are_used_again)
{
	char *lowest = NULL, *highest = NULL;

	for (int i = 0; i < MANY; i++) {
		run_small(measure);
		lowest = lowest == NULL || last.base < lowest ? last.base : lowest;
		highest = last.base > highest ? last.base : highest;
	}
	ck_assert_uint_lt((size_t)(highest - lowest), MANY / 4 * last.size);
}
END_TEST

static struct measured all[MANY];
static pthread_barrier_t together;

static void *
meet(void *stack)
{
	uintptr_t used;

	*(struct measured *)stack = my_stack();
	deep(&used);
	pthread_barrier_wait(&together);
	return NULL;
}

/* Runs MANY threads at the same time; all gets their stacks. */
static void
meet_all(void)
{
	pthread_barrier_init(&together, NULL, MANY + 1);
	for (int i = 0; i < MANY; i++)
		ck_assert_int_eq(thread_start_small(meet, &all[i]), 0);
	pthread_barrier_wait(&together);
}

/* The page below each small stack cannot be accessed. */
START_TEST(an_overflow_meets_a_guard)
{
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	meet_all();
	for (int i = 0; i < MANY; i++) {
		ck_assert_int_eq(write(ends[1], all[i].base, 1), 1);
		ck_assert_int_eq(write(ends[1], all[i].base - 1, 1), -1);
		ck_assert_int_eq(errno, EFAULT);
	}
}
END_TEST

/* After many threads have ended, most of their stacks hold no memory. */
START_TEST(unused_stacks_hold_no_memory)
{
	int held = 0;

	meet_all();
	for (int tries = 0; tries < 1000; tries++) {
		run_small(measure);
		held = 0;
		for (int i = 0; i < MANY; i++)
			held += resident((uintptr_t)all[i].base + all[i].size - 1);
		if (held <= MANY / 2)
			break;
		usleep(10000);
	}
	ck_assert_int_le(held, MANY / 2);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("thread");
	TCase *cases = tcase_create("thread");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(cases, NULL, thread_join_small);
	tcase_add_test(cases, a_small_stack_is_small);
	tcase_add_test(cases, the_systems_minimum_is_respected);
	tcase_add_test(cases, there_may_be_no_minimum);
	tcase_add_test(cases, a_refused_size_is_an_error);
	tcase_add_test(cases, a_trimmed_stack_is_given_back);
	tcase_add_test(cases, an_overflow_meets_a_guard);
	tcase_add_test(cases, stacks_are_used_again);
	tcase_add_test(cases, unused_stacks_hold_no_memory);
	suite_add_tcase(suite, cases);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
