/* SPDX-License-Identifier: ISC */
/*
 * origin: whether a page that asks is of the site that it asks. Pure and thread-safe.
 */
#ifndef TPI_AUTH_ORIGIN_H
#define TPI_AUTH_ORIGIN_H

#include <stdbool.h>

/*
 * Whether the host and port of an http or https URL, as browsers put it into Origin and Referer, are
 * those of a Host header. Case is ignored, and the scheme's own port is no port. False where either
 * is not understood: "null", a URL with a user in it, an empty Host.
 */
bool origin_is_host(const char *url, const char *host);

#endif
