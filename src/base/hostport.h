/* SPDX-License-Identifier: ISC */
/*
 * hostport: parses and formats the addresses in settings and URLs: "host", "host:port", "[v6]" or
 * "[v6]:port". Pure and thread-safe.
 */
#ifndef TPI_BASE_HOSTPORT_H
#define TPI_BASE_HOSTPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define HOSTPORT_HOST_SIZE 254 /* a DNS name has up to 253 bytes */

struct hostport {
	char host[HOSTPORT_HOST_SIZE]; /* name or address; IPv6 without brackets, maybe a %zone */
	int port;                      /* 1 to 65535; 0: not given */
};

/*
 * Parses length bytes of text. False with an error that says what is wrong, but does not repeat the
 * text; *hp is then undefined. A host name is only checked for invalid characters.
 */
bool hostport_parse(struct hostport *hp, const char *text, size_t length, struct error *error);

/* Writes "host:port" or "[v6]:port", truncated to fit size. */
void hostport_format(char *text, size_t size, const char *host, int port);

#endif
