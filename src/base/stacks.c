/* SPDX-License-Identifier: ISC */
/*
 * stacks: see stacks.h.
 *
 * A stack can be reused only after its thread has been joined. So a thread that is about to end
 * puts its stack in a list; the start of a later thread joins it and takes the stack. If the list
 * has more than LEFT_MAX stacks, the ending thread joins others and returns the memory of their
 * stacks to the system.
 */
#include "config.h"

#include "base/stacks.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PER_MAPPING 32
#define LEFT_MAX    64

/* Makes a guard page without splitting the mapping; since Linux 6.13. */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

STAILQ_HEAD(stack_list, stack);

static struct {
	pthread_mutex_t lock; /* guards all that follows */
	pthread_cond_t none_taken;
	struct stack_list left;   /* their threads may still be ending */
	struct stack_list unused; /* without a thread, most without memory */
	size_t left_count, taken_count;
} stacks = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.none_taken = PTHREAD_COND_INITIALIZER,
	.left = STAILQ_HEAD_INITIALIZER(stacks.left),
	.unused = STAILQ_HEAD_INITIALIZER(stacks.unused),
};

/* Joins a thread that has ended and returns its stack; NULL: none has. Requires the lock. */
static struct stack *
take_left(void)
{
	size_t tries = stacks.left_count < LEFT_MAX ? stacks.left_count : LEFT_MAX;
	struct stack *s;

	for (; tries > 0; tries--) {
		s = STAILQ_FIRST(&stacks.left);
		STAILQ_REMOVE_HEAD(&stacks.left, next);
		if (pthread_tryjoin_np(s->thread, NULL) == 0) {
			stacks.left_count--;
			return s;
		}
		STAILQ_INSERT_TAIL(&stacks.left, s, next);
	}
	return NULL;
}

/* Maps stacks and adds them to the unused ones; on failure fewer or none. Requires the lock. */
static void
map_more(size_t least)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const size_t size = (least + page - 1) / page * page, step = page + size;
	struct stack *new = calloc(PER_MAPPING, sizeof(*new));
	char *mapping, *guard;

	if (new == NULL)
		return;
	mapping = mmap(NULL, PER_MAPPING * step, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (mapping == MAP_FAILED) {
		free(new);
		return;
	}
	/* With transparent huge pages, the first write would allocate 2 MiB. */
	madvise(mapping, PER_MAPPING * step, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < PER_MAPPING; i++) {
		guard = mapping + i * step;
		if (madvise(guard, page, MADV_GUARD_INSTALL) != 0 &&
		    mprotect(guard, page, PROT_NONE) != 0) {
			munmap(guard, (PER_MAPPING - i) * step);
			break;
		}
		new[i].base = guard + page;
		new[i].size = size;
		STAILQ_INSERT_TAIL(&stacks.unused, &new[i], next);
	}
	if (STAILQ_EMPTY(&stacks.unused))
		free(new);
}

struct stack *
stacks_take(size_t least)
{
	struct stack *s;

	pthread_mutex_lock(&stacks.lock);
	s = take_left();
	if (s == NULL) {
		if (STAILQ_EMPTY(&stacks.unused))
			map_more(least);
		s = STAILQ_FIRST(&stacks.unused);
		if (s != NULL)
			STAILQ_REMOVE_HEAD(&stacks.unused, next);
	}
	if (s != NULL)
		stacks.taken_count++;
	pthread_mutex_unlock(&stacks.lock);
	return s;
}

/* A stack is no longer taken. Requires the lock. */
static void
put(struct stack_list *list, struct stack *stack)
{
	STAILQ_INSERT_TAIL(list, stack, next);
	if (--stacks.taken_count == 0)
		pthread_cond_signal(&stacks.none_taken);
}

void
stacks_leave(struct stack *stack)
{
	struct stack *first;

	stack->thread = pthread_self();
	pthread_mutex_lock(&stacks.lock);
	put(&stacks.left, stack);
	stacks.left_count++;
	while (stacks.left_count > LEFT_MAX && (first = take_left()) != NULL) {
		pthread_mutex_unlock(&stacks.lock);
		madvise(first->base, first->size, MADV_DONTNEED);
		pthread_mutex_lock(&stacks.lock);
		STAILQ_INSERT_HEAD(&stacks.unused, first, next);
	}
	pthread_mutex_unlock(&stacks.lock);
}

void
stacks_return(struct stack *stack)
{
	pthread_mutex_lock(&stacks.lock);
	put(&stacks.unused, stack);
	pthread_mutex_unlock(&stacks.lock);
}

void
stacks_join(void)
{
	struct stack *s;

	pthread_mutex_lock(&stacks.lock);
	while (stacks.taken_count > 0)
		pthread_cond_wait(&stacks.none_taken, &stacks.lock);
	while ((s = STAILQ_FIRST(&stacks.left)) != NULL) {
		STAILQ_REMOVE_HEAD(&stacks.left, next);
		stacks.left_count--;
		/* It may wait for the lock. */
		pthread_mutex_unlock(&stacks.lock);
		pthread_join(s->thread, NULL);
		pthread_mutex_lock(&stacks.lock);
		STAILQ_INSERT_HEAD(&stacks.unused, s, next);
	}
	pthread_mutex_unlock(&stacks.lock);
}
