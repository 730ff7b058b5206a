/* SPDX-License-Identifier: ISC */
/*
 * status: what monitoring may ask (TPI_STATUS=on): whether a new stream can begin, whether the
 * process does its work, and the metrics. Nothing here takes a place, asks anybody or waits.
 */
#ifndef TPI_SESSION_STATUS_H
#define TPI_SESSION_STATUS_H

#include <stdbool.h>

#include "fcgi/answer.h"
#include "session/registry.h"

struct status_page;

/* The page of this path, compared byte for byte; NULL where there is none, or TPI_STATUS is off. */
const struct status_page *status_find(const struct settings *s, const char *path);

/*
 * What a page says now. The caller frees *body, which the answer points to. False: no memory. Any
 * thread.
 */
bool status_answer(const struct status_page *page, struct registry *g, struct answer *answer,
    char **body);

/* What decides about the two pages of health. */
struct status {
	bool working; /* the subscriber's thread is */
	enum subscriber_state valkey;
	enum { STATUS_APP_OFF, STATUS_APP_OK, STATUS_APP_PAUSED } app_client;
	bool draining;
};

/* Why a newcomer would be told to come back later (a static text); NULL where he would be served. */
const char *status_obstacle(const struct status *status);

#endif
