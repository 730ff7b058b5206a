/*
 * thread: see thread.h.
 */
#include "config.h"

#include "thread.h"

#include <pthread.h>

/* Sanitizers need more. */
#ifdef TPI_SANITIZED
#define SCALE 8
#else
#define SCALE 1
#endif

static const size_t sizes[] = {
	[THREAD_SMALL] = SCALE * 64 * 1024,
	[THREAD_LARGE] = SCALE * 1024 * 1024,
};

int
thread_start(enum thread_stack stack, void *(*run)(void *), void *arg)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	error = pthread_attr_init(&attributes);
	if (error != 0)
		return error;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, sizes[stack]);
	error = pthread_create(&thread, &attributes, run, arg);
	pthread_attr_destroy(&attributes);
	return error;
}
