/* SPDX-License-Identifier: ISC */
/*
 * app_http: HTTP requests to the application, many at a time, with curl_multi. Belongs to one
 * thread, except app_http_wake().
 *
 * It follows no redirects, uses a proxy only with TPI_APP_PROXY, verifies certificates, reuses
 * connections, and limits the size of a response.
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

/* The result of a request. */
struct app_http_result {
	int status;        /* of HTTP; 0 without a complete response */
	const char *body;  /* length bytes */
	size_t length;
	const char *error; /* the reason if status is 0 */
	bool dead;         /* it could not connect */
	bool timed_out;    /* after timeout_ms */
};

/* request is the one of app_http_start(); result is valid during the call. */
typedef void app_http_done(void *arg, void *request, const struct app_http_result *result);

/* Before any thread, once. Settings must outlive it. NULL: no memory. */
struct app_http *app_http_new(const struct settings *s, app_http_done *done, void *arg);

/*
 * Starts a GET of target, which is appended to the application's URL, with size bytes of header
 * lines, each terminated, one after the other. timeout_ms is the limit for all of it. False: no
 * memory; then done is not called.
 */
bool app_http_start(struct app_http *http, const char *target, const char *lines, size_t size,
    int64_t timeout_ms, void *request);

/* Waits up to wait_ms for events, handles them, and calls done for requests that have ended. */
void app_http_turn(struct app_http *http, int wait_ms);

/* Ends the wait in app_http_turn(). Any thread. */
void app_http_wake(struct app_http *http);

#endif
