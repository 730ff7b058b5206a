/* SPDX-License-Identifier: ISC */
/*
 * request: one request as the web server sent it. Only this module uses libfcgi, which reads a head
 * without any limit of time or size and aborts the process on some lengths. So it gets only what
 * head.c has checked, in new records, from a file in memory; it never reads from the peer or writes
 * to it.
 */
#ifndef TPI_FCGI_REQUEST_H
#define TPI_FCGI_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "fcgi/head.h"

struct request {
	/* These point into the parameters, until request_free(); "" if absent. */
	const char *method;
	const char *query;
	const char *last_event_id;

	struct FCGX_Request *fcgi; /* owned */
	char *path;                /* SCRIPT_NAME followed by PATH_INFO; owned */
};

/*
 * Call it once, before the first request and before setting signal handlers: libfcgi sets some.
 */
void request_library_init(void);

/*
 * Decodes the PARAMS of a complete head. Returns 0, or an errno value: EMFILE, ENFILE or ENOMEM. On
 * failure there is nothing to free.
 */
int request_parse(struct request *r, const struct head *head);

/* The parameters, "NAME=value" each, NULL-terminated; valid until request_free(). */
char *const *request_params(const struct request *r);

/*
 * The first value of a parameter, NULL if there is none; *conflict (may be NULL) becomes true if a
 * later one has another value, and is unchanged otherwise.
 */
const char *params_get(char *const *params, const char *name, bool *conflict);

/* Frees what request_parse() made; safe on a zeroed struct, and twice. */
void request_free(struct request *r);

#endif
