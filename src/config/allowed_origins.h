/* SPDX-License-Identifier: ISC */
/*
 * allowed_origins: the syntax of TPI_ALLOWED_ORIGINS, the other origins whose pages may open
 * streams. Pure and thread-safe.
 */
#ifndef TPI_CONFIG_ALLOWED_ORIGINS_H
#define TPI_CONFIG_ALLOWED_ORIGINS_H

#include <stdbool.h>

#define ALLOWED_ORIGINS_ALLOWED \
	"origins, https://host[:port] or http://host[:port], separated by commas"

/* The longest origin, so that it fits in the head of a stream. */
#define ALLOWED_ORIGIN_MAX 200

/* Whether it is a list of 1 or more origins. White space around an origin is ignored. */
bool allowed_origins_valid(const char *list);

/*
 * Rewrites a valid list in place: no white space, and each origin as browsers write it in the
 * Origin header, in lower case and without a default port.
 */
void allowed_origins_normalize(char *list);

/*
 * The entry of a normalized list that equals an Origin header, up to its comma or the end; NULL if
 * there is none.
 */
const char *allowed_origins_find(const char *list, const char *origin);

#endif
