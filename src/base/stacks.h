/* SPDX-License-Identifier: ISC */
/*
 * stacks: stacks for connections' threads, many to a mapping, and reused.
 *
 * glibc maps each stack separately: two system calls, and two memory areas of the 65530 that a
 * process can have. Here a guard page takes no area since Linux 6.13. All functions are
 * thread-safe.
 */
#ifndef TPI_BASE_STACKS_H
#define TPI_BASE_STACKS_H

#include <pthread.h>
#include <stddef.h>
#include <sys/queue.h>

struct stack {
	STAILQ_ENTRY(stack) next;
	void *base;           /* the lowest byte; the page below it is a guard */
	size_t size;
	pthread_t thread;     /* the joinable thread that ran on it last */
	void *(*run)(void *); /* for thread.c */
	void *arg;
};

/*
 * Returns a stack of at least this size, with undefined contents, or NULL if there is no memory.
 * All calls must pass the same size.
 */
struct stack *stacks_take(size_t least);

/* The last call of a joinable thread that runs on this stack. */
void stacks_leave(struct stack *stack);

/* Returns a stack on which no thread runs. */
void stacks_return(struct stack *stack);

/* Waits until no stack is taken, and joins all threads that have called stacks_leave(). */
void stacks_join(void);

#endif
