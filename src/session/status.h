/* SPDX-License-Identifier: ISC */
/*
 * status: the pages for monitoring (TPI_STATUS=on): whether new streams can begin, whether the
 * process works, the metrics, and the list of open streams. Nothing here takes a slot, sends a query
 * or waits.
 */
#ifndef TPI_SESSION_STATUS_H
#define TPI_SESSION_STATUS_H

#include <stdbool.h>

#include "fcgi/answer.h"
#include "session/registry.h"

struct status_page;

/* The page with this path, compared byte for byte; NULL if there is none or TPI_STATUS is off. */
const struct status_page *status_find(const struct settings *s, const char *path);

/* Whether the page is the list of open streams: stream_list_send() answers instead. */
bool status_is_list(const struct status_page *page);

/*
 * Writes a page. The caller frees *body, to which the answer points. False: no memory. Any thread.
 */
bool status_answer(const struct status_page *page, struct registry *r, struct answer *answer,
    char **body);

/* The state that the two health pages report. */
struct status {
	bool working; /* the subscriber's thread runs */
	enum subscriber_state valkey;
	enum { STATUS_APP_OFF, STATUS_APP_OK, STATUS_APP_PAUSED } app_client;
	bool draining;
};

/* Why a new stream could not begin, a static text; NULL if it could. */
const char *status_obstacle(const struct status *status);

#endif
