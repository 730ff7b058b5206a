/* SPDX-License-Identifier: ISC */
/*
 * request: one request as the web server sent it. Everything that touches libfcgi stays here. libfcgi
 * reads a head without any limit of time or size and aborts the process on some lengths, so it gets
 * only what head.c has checked, in records of our own, from a file in memory; it never reads from
 * the peer, nor writes to it.
 */
#ifndef TPI_FCGI_REQUEST_H
#define TPI_FCGI_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "fcgi/head.h"

struct request {
	/* Into the parameters: valid until request_free(). Absent ones are "". */
	const char *method;
	const char *query;
	const char *last_event_id;

	struct FCGX_Request *fcgi; /* owned */
	char *path;                /* SCRIPT_NAME followed by PATH_INFO; owned */
};

/*
 * Once, before the first request and before signal handlers are set: libfcgi sets some of its own.
 */
void request_library_init(void);

/*
 * Decodes the PARAMS of a complete head. Returns 0, or an errno value: EMFILE, ENFILE or ENOMEM
 * when the machine has no more. On failure there is nothing to free.
 */
int request_parse(struct request *r, const struct head *head);

/* The parameters, "NAME=value" each, NULL-terminated; valid until request_free(). */
char *const *request_params(const struct request *r);

/*
 * The first value of a parameter, NULL where there is none; *conflict (may be NULL) is set to true,
 * and never to false, where a later one has another value.
 */
const char *params_get(char *const *params, const char *name, bool *conflict);

/* Frees what request_parse() made; safe on a zeroed struct, and twice. */
void request_free(struct request *r);

#endif
