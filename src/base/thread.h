/* SPDX-License-Identifier: ISC */
/*
 * thread: starts threads with small stacks, and helps them to wait and to wake each other.
 */
#ifndef TPI_BASE_THREAD_H
#define TPI_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Starts a detached thread with a stack of 1 MiB, which may resolve names. Returns 0 or an errno
 * value, which it also stores in errno.
 */
int thread_start(void *(*run)(void *), void *arg);

/* The same for a thread that the caller joins with pthread_join(). */
int thread_start_joinable(pthread_t *thread, void *(*run)(void *), void *arg);

/*
 * Like thread_start(), for connections, of which there are thousands: the stack has 64 KiB and is
 * reused. The return value of run is ignored.
 */
int thread_start_small(void *(*run)(void *), void *arg);

/* Waits for all small threads to end and joins them, so that leak checkers do not report them. */
void thread_join_small(void);

/*
 * Marks functions that return before a connection's thread sleeps. If they were inlined, their
 * locals would enlarge the frame in which the thread sleeps, and so the memory of each stream.
 */
#define THREAD_STEP __attribute__((noinline))

/*
 * Returns to the system the stack memory that earlier, deeper calls used; false if there was none.
 * Costs a few microseconds. Call it only in a small thread that is about to sleep for seconds.
 */
bool thread_trim_stack(void);

/* Initializes a condition variable for thread_cond_wait(). */
void thread_cond_init(pthread_cond_t *cond);
/* pthread_cond_timedwait() until deadline (clock_ms()); false if that has passed. */
bool thread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline);

/* Makes an eventfd readable. Thread-safe. */
void thread_wake(int eventfd);

#endif
