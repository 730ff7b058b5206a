/* SPDX-License-Identifier: ISC */
/*
 * app_api: the queries to the application, and what its responses mean
 * (tpi-stream(7), AUTHORIZATION). Pure: no input or output, thread-safe.
 */
#ifndef TPI_AUTH_APP_API_H
#define TPI_AUTH_APP_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/credentials.h"
#include "wire/channel_name.h"

/* What a query is about: the user, or to which of some ids of a model the user has access. */
enum app_check {
	CHECK_USER,
	CHECK_PROJECTS,
	CHECK_PRESENT_PROJECTS, /* those that are not deleted */
	CHECK_TEST_RUNS,        /* not deleted, nor are the next */
	CHECK_MILESTONES
};

/* The name of what a query is about, for logs: "user", or the model. */
const char *app_check_name(enum app_check check);

/* Whether the ids are those of projects. */
bool app_check_is_project(enum app_check check);

/* The target of a query for the user, after the application's URL. */
#define APP_SESSION_TARGET "/api/auth/session"

/* The most ids in one query. */
#define APP_IDS_MAX 100

/* Writes the target of a query for 1 to APP_IDS_MAX ids of a model. */
#define APP_TARGET_SIZE (256 + APP_IDS_MAX * 13)
void app_api_target(char target[APP_TARGET_SIZE], enum app_check check, const int32_t *ids,
    int count);

enum app_answer {
	APP_YES,
	APP_NO,   /* anonymous, or access to none of the ids */
	APP_WRONG /* not a response to the query: neither yes nor no */
};

/*
 * Reads the response to APP_SESSION_TARGET: an HTTP status and a body. If it is APP_YES, user gets
 * the id. Without an id, or with null, "", 0, false or a string that is not a valid id, the user is
 * anonymous: APP_NO. If it is APP_WRONG, *wrong gets a static text.
 */
enum app_answer app_api_read_session(int status, const char *body, size_t length,
    char user[CHANNEL_ID_MAX + 1], const char **wrong);

/*
 * Reads the response to app_api_target(). Ids without access become 0; ids in the response that
 * were not asked for are ignored.
 */
enum app_answer app_api_read_ids(int status, const char *body, size_t length, int32_t *ids,
    int count, const char **wrong);

/*
 * The application's reason for a refusal: the text of "error", of "message" in "error", or of
 * "message", truncated to fit; "" if the body has none. The secrets of c, the credentials that were
 * sent, are struck out.
 */
#define APP_REASON_SIZE 256
void app_api_read_reason(const char *body, size_t length, const struct credentials *c,
    char reason[APP_REASON_SIZE]);

#endif
