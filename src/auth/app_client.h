/* SPDX-License-Identifier: ISC */
/*
 * app_client: asks the application who somebody is and what he may read (TPI_IDENTITY=app,
 * TPI_PROJECT_ACCESS=app; tpi-stream(7), AUTHORIZATION).
 *
 * One thread talks to the application, with at most TPI_APP_CONCURRENCY requests under way; the
 * others wait in a queue. Equal queries that are open at the same time are one request. An answer
 * is kept for the streams that open within TPI_APP_CACHE_SECONDS and for the re-checks of the other
 * streams with the same credentials (TPI_RECHECK_SECONDS); a no is kept for at most a second. After
 * a failed connect or a time limit, with no answer to anybody since that request began, every
 * query fails at once for 2 s, unless its answer is kept.
 *
 * Whoever asks does not block: a mark on its stream (STREAM_ANSWERED) says when the answer is there.
 */
#ifndef TPI_AUTH_APP_CLIENT_H
#define TPI_AUTH_APP_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "auth/app_api.h"
#include "auth/credentials.h"
#include "config/settings.h"
#include "stream/stream.h"

struct app_client;
struct app_query;

/* Starts the thread. s must outlive the process's threads. NULL: memory or threads are out. */
struct app_client *app_client_start(const struct settings *s);

/* Whether queries fail at once because the application was found dead. Any thread. */
bool app_client_paused(struct app_client *g);

/*
 * Ends the thread; waits for that up to timeout_ms. False where it goes on: then the process must not
 * run its exit handlers, because those of the TLS library would pull the ground from under it.
 */
bool app_client_stop(struct app_client *g, int timeout_ms);

/* For app_query_start(): any answer that is kept for TPI_APP_CACHE_SECONDS will do. */
#define QUERY_CACHED (-1)

/* Ids of one kind. */
struct app_part {
	enum app_check check; /* not CHECK_USER */
	const int32_t *ids;
	int count; /* at least 1 */
};

/*
 * Asks to which of the ids of all parts (copied) the user has access; without parts, who the user
 * is. after is QUERY_CACHED, or a clock_ms(): then a kept answer counts only if the application was
 * asked after that. The caller stops waiting at deadline (clock_ms()); the request is given up
 * then, too, or sooner if it was in flight already. asker must live until app_query_free(). NULL:
 * no memory. Any thread.
 */
struct app_query *app_query_start(struct app_client *g, struct credentials *c,
    const struct app_part *parts, int part_count, int64_t after, struct stream *asker,
    int64_t deadline);

enum app_query_answer {
	QUERY_PENDING, /* STREAM_ANSWERED will come */
	QUERY_FAILED,   /* the application cannot be asked */
	QUERY_NO,      /* anonymous; access to none of the ids */
	QUERY_YES
};

/* Any thread. */
enum app_query_answer app_query_answer(struct app_query *q);

/*
 * clock_ms() at which the application was asked, the earliest of several requests: the answer is at
 * least as new as this. After QUERY_YES or QUERY_NO.
 */
int64_t app_client_asked_at(const struct app_query *q);

/* The user's id, after QUERY_YES to who this is. Valid until app_query_free(). */
const char *app_query_user(const struct app_query *q);

/*
 * Of count ids that were asked about, from the at-th of all parts on, writes those to which the
 * user has access, in their order; returns how many. After QUERY_YES or QUERY_NO to such a query.
 */
int app_query_filter(const struct app_query *q, int at, int32_t *ids, int count);

/*
 * Somebody has lost a right: what the application has said so far, or is being asked at this moment,
 * is no answer for those who ask from now on. Waits for nothing. Any thread.
 */
void app_client_invalidate(struct app_client *g);

/* Frees a query, answered or not. Safe for NULL. Any thread, one at a time. */
void app_query_free(struct app_query *q);

#endif
