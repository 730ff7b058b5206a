/*
 * identity: who is asking, by what the web server has verified (TPI_IDENTITY=web-server).
 */
#ifndef TPI_IDENTITY_H
#define TPI_IDENTITY_H

enum identity_result {
	IDENTITY_KNOWN,    /* *user is a valid id */
	IDENTITY_NOBODY,   /* 401 */
	IDENTITY_FORGEABLE, /* 401: a REMOTE_USER without AUTH_TYPE, which anyone can forge behind nginx */
	IDENTITY_BAD       /* 400: not a valid id, or parameters that contradict each other */
};

/*
 * Looks at TPI_USER and, only where that is absent, at REMOTE_USER beside a non-empty AUTH_TYPE
 * (RFC 3875, 4.1.1 and 4.1.11); no HTTP_* parameter ever stands in for them. Also refuses a request
 * whose SCRIPT_NAME, PATH_INFO, REQUEST_METHOD or QUERY_STRING contradict each other. params is as
 * from request_params(); *user points into it. Thread-safe.
 */
enum identity_result identity_web_server(char *const *params, const char **user);

#endif
