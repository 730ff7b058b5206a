/*
 * fetch: HTTP requests to the application, many at a time, through curl_multi. Belongs to one
 * thread, but for fetch_wake().
 *
 * No redirect is followed, no proxy of the environment used unless TPI_APP_PROXY says so,
 * certificates are verified, connections are used again, and an answer is bounded.
 */
#ifndef TPI_FETCH_H
#define TPI_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/settings.h"

#define FETCH_BODY_MAX (256 * 1024)
#define FETCH_HEAD_MAX (64 * 1024)

struct fetch;

/* What came of a request. */
struct fetch_result {
	int status;        /* of HTTP; 0 where no whole answer came */
	const char *body;  /* length bytes */
	size_t length;
	const char *error; /* why not, where status is 0 */
	bool dead;         /* it could not connect, or the time was up */
};

/* request is the one of fetch_start(); result is valid during the call. */
typedef void fetch_done(void *arg, void *request, const struct fetch_result *result);

/* Before any thread, once. Settings must outlive it. NULL: no memory. */
struct fetch *fetch_new(const struct settings *s, fetch_done *done, void *arg);

/*
 * Begins a GET of target (behind the application's URL) with size bytes of header lines, each
 * terminated, one behind the other. It has timeout_ms for all it does. False: no memory; then done
 * is not called.
 */
bool fetch_start(struct fetch *f, const char *target, const char *lines, size_t size,
    int64_t timeout_ms, void *request);

/* Waits up to wait_ms for something to happen, does it, and calls done for what has ended. */
void fetch_turn(struct fetch *f, int wait_ms);

/* Ends the wait in fetch_turn(). Any thread. */
void fetch_wake(struct fetch *f);

#endif
