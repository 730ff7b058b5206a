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

#include "wire/channel_name.h"

/* What follows the application's URL in the query who this is. */
#define APP_SESSION_TARGET "/api/auth/session"

/* Projects are asked for in lots of at most so many. */
#define APP_LOT 100

/* What follows the URL in the query which of these 1 to APP_LOT projects may be read. */
#define APP_PROJECTS_TARGET_SIZE (256 + APP_LOT * 13)
void app_api_projects_target(char target[APP_PROJECTS_TARGET_SIZE], const int32_t *projects, int count);

enum app_answer {
	APP_YES,
	APP_NO,   /* nobody, or nothing of what was asked for */
	APP_WRONG /* not an answer to the query: no yes and no no */
};

/*
 * Reads the answer to APP_SESSION_TARGET: an HTTP status and a body. user gets the id where it is
 * APP_YES. Without an id, or with null, "", 0, false or a string that is not a valid id, the user is
 * anonymous: APP_NO. *wrong gets a static text where it is APP_WRONG.
 */
enum app_answer app_api_read_session(int status, const char *body, size_t length,
    char user[CHANNEL_ID_MAX + 1], const char **wrong);

/*
 * Reads the answer to app_api_projects_target(). Those of the projects that may not be read become 0;
 * what was not asked for is ignored.
 */
enum app_answer app_api_read_projects(int status, const char *body, size_t length, int32_t *projects,
    int count, const char **wrong);

/*
 * Why the application refused, by its own word: the text of "error", of "message" in "error", or of
 * "message", cut to fit. "" where the body has none.
 */
#define APP_REASON_SIZE 256
void app_read_reason(const char *body, size_t length, char reason[APP_REASON_SIZE]);

#endif
