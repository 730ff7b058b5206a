/* SPDX-License-Identifier: ISC */
/*
 * thread: see thread.h.
 */
#include "config.h"

#include "base/thread.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/stacks.h"

/* The default would reserve 8 MiB of address space for each thread. */
#define STACK_SIZE (1024 * 1024)

/*
 * The thread sanitizer needs most of a megabyte in each stack, and cannot enlarge one that it is
 * given.
 */
#if defined(__SANITIZE_THREAD__)
#define SMALL_STACK_SIZE STACK_SIZE
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SMALL_STACK_SIZE STACK_SIZE
#endif
#endif
#ifndef SMALL_STACK_SIZE
#define SMALL_STACK_SIZE (64 * 1024)
#endif

static _Thread_local const struct stack *own; /* of a small thread */

/* Never below the system's minimum, which pthread_create() rejects: 128 KiB on arm64. */
static size_t
at_least_minimum(size_t size)
{
	long minimum = sysconf(_SC_THREAD_STACK_MIN);

	return minimum > (long)size ? (size_t)minimum : size;
}

/* Starts a thread on this stack; NULL: on a new one of STACK_SIZE. */
static int
start(pthread_t *thread, int state, const struct stack *stack, void *(*run)(void *), void *arg)
{
	pthread_attr_t attributes;
	int error;

	error = pthread_attr_init(&attributes);
	if (error != 0) {
		errno = error;
		return error;
	}
	pthread_attr_setdetachstate(&attributes, state);
	if (stack != NULL)
		error = pthread_attr_setstack(&attributes, stack->base, stack->size);
	else
		error = pthread_attr_setstacksize(&attributes, at_least_minimum(STACK_SIZE));
	if (error == 0)
		error = pthread_create(thread, &attributes, run, arg);
	pthread_attr_destroy(&attributes);
	errno = error;
	return error;
}

int
thread_start(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	return start(&thread, PTHREAD_CREATE_DETACHED, NULL, run, arg);
}

int
thread_start_joinable(pthread_t *thread, void *(*run)(void *), void *arg)
{
	return start(thread, PTHREAD_CREATE_JOINABLE, NULL, run, arg);
}

static void *
run_small(void *arg)
{
	struct stack *stack = arg;

	own = stack;
	stack->run(stack->arg);
	stacks_leave(stack);
	return NULL;
}

int
thread_start_small(void *(*run)(void *), void *arg)
{
	struct stack *stack = stacks_take(at_least_minimum(SMALL_STACK_SIZE));
	pthread_t thread;
	int error;

	if (stack == NULL) {
		errno = ENOMEM;
		return ENOMEM;
	}
	stack->run = run;
	stack->arg = arg;
	error = start(&thread, PTHREAD_CREATE_JOINABLE, stack, run_small, stack);
	if (error != 0)
		stacks_return(stack);
	return error;
}

void
thread_join_small(void)
{
	stacks_join();
}

/* If inlined, it would take its caller's frame address for its own, and discard live data. */
bool THREAD_STEP
thread_trim_stack(void)
{
	/*
	 * 256 bytes below the frame address leave room for the rest of this frame and for that of
	 * madvise(), which is a bare system call.
	 */
	const uintptr_t used = (uintptr_t)__builtin_frame_address(0) - 256;
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	const uintptr_t end = used - used % page, base = (uintptr_t)own->base;
	unsigned char resident = 1;

	if (end <= base)
		return false;
	/* A stack grows page by page: without the first page there are no others. */
	if (mincore((void *)(end - page), page, &resident) == 0 && !(resident & 1))
		return false;
	madvise(own->base, end - base, MADV_DONTNEED);
	return true;
}

void
thread_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

bool
thread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline)
{
	const struct timespec until = { .tv_sec = deadline / 1000,
		.tv_nsec = deadline % 1000 * 1000000 };

	return pthread_cond_timedwait(cond, lock, &until) != ETIMEDOUT;
}

void
thread_wake(int eventfd)
{
	const uint64_t one = 1;

	/* Fails only if the counter is full; the reader is then awake already. */
	if (write(eventfd, &one, sizeof(one)) == -1)
		return;
}
