/* SPDX-License-Identifier: ISC */
/*
 * app_client: queries to the application: who the user is and what they have access to
 * (TPI_IDENTITY=app, TPI_PROJECT_ACCESS=app; tpi-stream(7), AUTHORIZATION).
 *
 * One thread sends the requests, at most TPI_APP_CONCURRENCY at a time. Others wait in a queue,
 * those of known users first.
 * Equal queries at the same time share one request. An answer is kept for streams that open within
 * TPI_APP_CACHE_SECONDS, and for the re-checks of other streams with the same credentials
 * (TPI_RECHECK_SECONDS); a negative answer is kept for at most a second. After a failed connect or
 * a timeout, without any answer since that request began, every query fails at once for 2 s, unless
 * its answer is kept. Time in the queue does not count as the application's.
 *
 * A query does not block: a mark on the stream (STREAM_ANSWERED) announces the answer.
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

/* Starts the thread. s must outlive all threads. NULL: no memory or no thread. */
struct app_client *app_client_start(const struct settings *s);

/* Whether queries fail at once because the application is unreachable. Any thread. */
bool app_client_paused(struct app_client *client);

/* Whether the application recognized the credentials the last time. Any thread. */
bool app_client_recognizes(struct app_client *client, const struct credentials *c);

/* Whether QUERY_CACHED for the user of the credentials would be answered at once. Any thread. */
bool app_client_has_user(struct app_client *client, const struct credentials *c);

/*
 * Ends the thread, and waits for that up to timeout_ms. False if it still runs: then the process
 * must not run its exit handlers, because that of the TLS library frees what the thread uses.
 */
bool app_client_stop(struct app_client *client, int timeout_ms);

/* For app_query_start(): accept any answer kept for TPI_APP_CACHE_SECONDS. */
#define QUERY_CACHED (-1)

/* Ids of one model. */
struct app_part {
	enum app_check check; /* not CHECK_USER */
	const int32_t *ids;
	int count; /* at least 1 */
};

/*
 * Starts a query: to which of the ids of all parts (copied) the user has access; without parts, who
 * the user is. after is QUERY_CACHED, or a clock_ms(): then a kept answer counts only if the
 * application was asked after that. The caller stops waiting at deadline (clock_ms()); the request
 * is given up then, too, or sooner if it was in flight already. stream must live until
 * app_query_free(). NULL: no memory. Any thread.
 */
struct app_query *app_query_start(struct app_client *client, struct credentials *c,
    const struct app_part *parts, int part_count, int64_t after, struct stream *stream,
    int64_t deadline);

enum app_query_answer {
	QUERY_PENDING, /* STREAM_ANSWERED will follow */
	QUERY_FAILED,   /* the application cannot be queried */
	QUERY_NO,      /* anonymous; access to none of the ids */
	QUERY_YES
};

/* Any thread. */
enum app_query_answer app_query_answer(struct app_query *q);

/*
 * When the request was sent (clock_ms()), the earliest of several: the answer is at least as new as
 * that. After QUERY_YES or QUERY_NO.
 */
int64_t app_query_sent_at(const struct app_query *q);

/* The user's id, after QUERY_YES to a query without parts. Valid until app_query_free(). */
const char *app_query_user(const struct app_query *q);

/*
 * Of count ids that were asked about, from the at-th of all parts on, writes those to which the
 * user has access, in their order; returns how many. After QUERY_YES or QUERY_NO to such a query.
 */
int app_query_filter(const struct app_query *q, int at, int32_t *ids, int count);

/*
 * After a revocation: answers that are kept, and those to requests in flight, no longer count for
 * queries that start from now on. Waits for nothing. Any thread.
 */
void app_client_invalidate(struct app_client *client);

/* Frees a query, answered or not. Safe for NULL. Any thread, one at a time. */
void app_query_free(struct app_query *q);

#endif
