/* SPDX-License-Identifier: ISC */
/*
 * origin: whether the page that sent a request belongs to the same site. Pure and thread-safe.
 */
#ifndef TPI_AUTH_ORIGIN_H
#define TPI_AUTH_ORIGIN_H

#include <stdbool.h>

/*
 * Whether the host and port of an http or https URL, as browsers put it into Origin and Referer,
 * equal those of a Host header. Case is ignored, and the scheme's default port equals none. False
 * if either cannot be parsed: "null", a URL with a user name, an empty Host.
 */
bool origin_is_host(const char *url, const char *host);

#endif
