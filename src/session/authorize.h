/* SPDX-License-Identifier: ISC */
/*
 * authorize: which of the topics in a watch list the user has access to: by TPI_PROJECT_ACCESS
 * alone, or by a query to the application. Topics that need no more than a known user always stay.
 */
#ifndef TPI_SESSION_AUTHORIZE_H
#define TPI_SESSION_AUTHORIZE_H

#include "auth/access.h"
#include "auth/app_client.h"
#include "session/watch_list.h"

/* Drops all topics that need more than a known user. */
void authorize_none(struct watch_list *w);

/* Keeps what deny, allow or the access file grants: see access_filter(). */
void authorize_locally(struct watch_list *w, struct access *access, const char *user);

/* Starts one query about all topics that need it, at least one: see app_query_start(). */
struct app_query *authorize_query(const struct watch_list *w, struct app_client *client,
    struct credentials *c, int64_t after, struct stream *stream, int64_t deadline);

/* Keeps what the answer grants; q is from authorize_query() with the same list. */
void authorize_by_answer(struct watch_list *w, const struct app_query *q);

#endif
