/* SPDX-License-Identifier: ISC */
/*
 * app_http: HTTP requests to the application, many at a time, through curl_multi. Belongs to one
 * thread, but for app_http_wake().
 *
 * No redirect is followed, no proxy of the environment used unless TPI_APP_PROXY says so,
 * certificates are verified, connections are used again, and an answer is bounded.
 */
#ifndef TPI_AUTH_APP_HTTP_H
#define TPI_AUTH_APP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/settings.h"

#define APP_HTTP_BODY_MAX (256 * 1024)
#define APP_HTTP_HEAD_MAX (64 * 1024)

struct app_http;

/* What came of a request. */
struct app_http_result {
	int status;        /* of HTTP; 0 where no whole answer came */
	const char *body;  /* length bytes */
	size_t length;
	const char *error; /* why not, where status is 0 */
	bool dead;         /* it could not connect, or the time was up */
};

/* request is the one of app_http_start(); result is valid during the call. */
typedef void app_http_done(void *arg, void *request, const struct app_http_result *result);

/* Before any thread, once. Settings must outlive it. NULL: no memory. */
struct app_http *app_http_new(const struct settings *s, app_http_done *done, void *arg);

/*
 * Begins a GET of target (behind the application's URL) with size bytes of header lines, each
 * terminated, one behind the other. It has timeout_ms for all it does. False: no memory; then done
 * is not called.
 */
bool app_http_start(struct app_http *f, const char *target, const char *lines, size_t size,
    int64_t timeout_ms, void *request);

/* Waits up to wait_ms for something to happen, does it, and calls done for what has ended. */
void app_http_turn(struct app_http *f, int wait_ms);

/* Ends the wait in app_http_turn(). Any thread. */
void app_http_wake(struct app_http *f);

#endif
