/* SPDX-License-Identifier: ISC */
/*
 * web_identity: the user of a request, as verified by the web server (TPI_IDENTITY=web-server). For
 * TPI_IDENTITY=app see app_client.h.
 */
#ifndef TPI_AUTH_WEB_IDENTITY_H
#define TPI_AUTH_WEB_IDENTITY_H

#include <stdbool.h>

enum identity_result {
	IDENTITY_KNOWN,       /* *user is a valid id */
	IDENTITY_ANONYMOUS,   /* 401: TPI_USER is absent or empty */
	IDENTITY_REMOTE_USER, /* the same, and there is a REMOTE_USER, which is not accepted */
	IDENTITY_BAD          /* 400: not a valid id, or parameters that contradict each other */
};

/*
 * Whether no parameter that decides about a request is present twice with different values. params
 * is as from request_params(). Thread-safe.
 */
bool identity_consistent(char *const *params);

/*
 * The user is the value of TPI_USER and of nothing else: behind some web servers clients can forge
 * REMOTE_USER, AUTH_TYPE and every HTTP_* parameter. All parameters are examined: a request that is
 * not identity_consistent() is IDENTITY_BAD. *user points into params. Thread-safe.
 */
enum identity_result identity_web_server(char *const *params, const char **user);

#endif
