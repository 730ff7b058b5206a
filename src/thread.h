/*
 * thread: detached threads with stacks no larger than they need.
 */
#ifndef TPI_THREAD_H
#define TPI_THREAD_H

enum thread_stack {
	THREAD_SMALL, /* a connection's: there are thousands of them */
	THREAD_LARGE  /* of the few others, whose work may resolve names */
};

/* Starts a detached thread with a stack of that size and a guard page. Returns 0 or an errno value. */
int thread_start(enum thread_stack stack, void *(*run)(void *), void *arg);

#endif
