/* SPDX-License-Identifier: ISC */
/*
 * hostport: parses and formats the addresses in settings and URLs: "host", "host:port", "[v6]" or
 * "[v6]:port". Pure and thread-safe.
 */
#ifndef TPI_BASE_HOSTPORT_H
#define TPI_BASE_HOSTPORT_H

#include <stddef.h>

#define HOSTPORT_HOST_SIZE 254 /* a DNS name has up to 253 bytes */

struct hostport {
	char host[HOSTPORT_HOST_SIZE]; /* name or address; IPv6 without brackets, may have a %zone */
	int port;                      /* 1 to 65535; 0: not given */
};

/*
 * Parses length bytes of text. Returns NULL, or a static text that says what is wrong; *hp is then
 * undefined. A host name is only checked for invalid characters.
 */
const char *hostport_parse(struct hostport *hp, const char *text, size_t length);

/* Writes "host:port" or "[v6]:port", truncated to fit size. */
void hostport_format(char *text, size_t size, const char *host, int port);

#endif
