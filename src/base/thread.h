/*
 * thread: threads with stacks no larger than they need, and how threads wait and wake.
 */
#ifndef TPI_BASE_THREAD_H
#define TPI_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum thread_stack {
	THREAD_SMALL, /* a connection's: there are thousands of them */
	THREAD_LARGE  /* of the few others, whose work may resolve names */
};

/*
 * Starts a detached thread with a stack of that size and a guard page. Returns 0, or an errno
 * value, which is also left in errno.
 */
int thread_start(enum thread_stack stack, void *(*run)(void *), void *arg);

/* The same for a thread that is to be joined (pthread_join()). */
int thread_start_joinable(pthread_t *thread, enum thread_stack stack, void *(*run)(void *), void *arg);

/*
 * For steps of a connection's thread that are over when it sleeps: inlined, they would make the frame
 * larger that it sleeps in.
 */
#define THREAD_STEP __attribute__((noinline))

/*
 * Gives back the memory of the stack that earlier, deeper calls have used. Costs a few microseconds:
 * for a thread of THREAD_SMALL that is about to sleep for seconds.
 */
void thread_trim_stack(void);

/* A condition variable whose time limits are of clock_ms(). */
void thread_cond_init(pthread_cond_t *cond);
/* pthread_cond_timedwait() up to deadline (clock_ms()); false once that has passed. */
bool thread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline);

/* Makes an eventfd readable. Thread-safe. */
void thread_wake(int eventfd);

#endif
