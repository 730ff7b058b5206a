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

static const size_t sizes[] = {
	[THREAD_SMALL] = 64 * 1024,
	[THREAD_LARGE] = 1024 * 1024,
};

/* Never below the system's minimum, which pthread_attr_setstacksize() rejects: 128 KiB on arm64. */
static size_t
stack_size(enum thread_stack stack)
{
	long minimum = sysconf(_SC_THREAD_STACK_MIN);

	return minimum > (long)sizes[stack] ? (size_t)minimum : sizes[stack];
}

static int
start(pthread_t *thread, int state, enum thread_stack stack, void *(*run)(void *), void *arg)
{
	pthread_attr_t attributes;
	int error;

	error = pthread_attr_init(&attributes);
	if (error != 0) {
		errno = error;
		return error;
	}
	pthread_attr_setdetachstate(&attributes, state);
	/* The default would reserve 8 MiB of address space for each thread. */
	error = pthread_attr_setstacksize(&attributes, stack_size(stack));
	if (error == 0)
		error = pthread_create(thread, &attributes, run, arg);
	pthread_attr_destroy(&attributes);
	errno = error;
	return error;
}

int
thread_start(enum thread_stack stack, void *(*run)(void *), void *arg)
{
	pthread_t thread;

	return start(&thread, PTHREAD_CREATE_DETACHED, stack, run, arg);
}

int
thread_start_joinable(pthread_t *thread, enum thread_stack stack, void *(*run)(void *), void *arg)
{
	return start(thread, PTHREAD_CREATE_JOINABLE, stack, run, arg);
}

/* If inlined, it would take its caller's frame address for its own, and discard live data. */
void THREAD_STEP
thread_trim_stack(void)
{
	/*
	 * 256 bytes below the frame address leave room for the rest of this frame and for that of
	 * madvise(), which is a bare system call.
	 */
	const uintptr_t used = (uintptr_t)__builtin_frame_address(0) - 256;
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	const uintptr_t end = used - used % page;
	const size_t length = stack_size(THREAD_SMALL) / 2 / page * page;
	unsigned char resident = 1;

	/* A stack grows page by page: without the first page there are no others. */
	if (mincore((void *)(end - page), page, &resident) == 0 && !(resident & 1))
		return;
	madvise((void *)(end - length), length, MADV_DONTNEED);
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
