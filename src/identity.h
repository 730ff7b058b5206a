/*
 * identity: who is asking, by what the web server has verified (TPI_IDENTITY=web-server). Who it is
 * by the application's word: gate.h.
 */
#ifndef TPI_IDENTITY_H
#define TPI_IDENTITY_H

#include <stdbool.h>

enum identity_result {
	IDENTITY_KNOWN,    /* *user is a valid id */
	IDENTITY_NOBODY,   /* 401 */
	IDENTITY_FORGEABLE, /* 401: a REMOTE_USER without AUTH_TYPE, which anyone can forge behind nginx */
	IDENTITY_BAD       /* 400: not a valid id, or parameters that contradict each other */
};

/*
 * Whether no parameter that decides about a request is there twice with different values. params is
 * as from request_params(). Thread-safe.
 */
bool identity_consistent(char *const *params);

/*
 * Looks at TPI_USER and, only where that is absent, at REMOTE_USER beside a non-empty AUTH_TYPE
 * (RFC 3875, 4.1.1 and 4.1.11); no HTTP_* parameter ever stands in for them. A
 * request that is not identity_consistent() is IDENTITY_BAD. *user points into params. Thread-safe.
 */
enum identity_result identity_web_server(char *const *params, const char **user);

#endif
