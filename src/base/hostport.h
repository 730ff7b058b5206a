/*
 * hostport: the address of a host, with or without a port, as settings and URLs hold it: "host",
 * "host:port", "[v6]" or "[v6]:port". Pure and thread-safe.
 */
#ifndef TPI_BASE_HOSTPORT_H
#define TPI_BASE_HOSTPORT_H

#include <stddef.h>

#define HOSTPORT_HOST_SIZE 254 /* a DNS name of 253 bytes, terminated */

struct hostport {
	char host[HOSTPORT_HOST_SIZE]; /* a name or an address; IPv6 without brackets, maybe with %zone */
	int port;                      /* 1 to 65535; 0: none given */
};

/*
 * Reads length bytes of text. Returns NULL, or what is wrong with them: a static text; then *hp is
 * undefined. Names are checked for their characters only.
 */
const char *hostport_parse(struct hostport *hp, const char *text, size_t length);

/* Writes "host:port" or "[v6]:port", truncated to size. */
void hostport_format(char *text, size_t size, const char *host, int port);

#endif
