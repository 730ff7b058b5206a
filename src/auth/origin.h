/* SPDX-License-Identifier: ISC */
/*
 * origin: which page sent a request: one of the same site, or of another. Pure and thread-safe.
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

/*
 * The Origin header of a request, whose parameters are as from request_params(). "" if there is
 * none, or two different ones.
 */
const char *origin_header(char *const *params);

/*
 * Whether a page of another origin sent the request (tpi-stream(7), RESPONSES): Sec-Fetch-Site says
 * so or, if it is absent or unknown, the host of Origin is not that of Host. False if neither
 * header is present, as for scripts. True if Sec-Fetch-Site, or a header that decides, has two
 * different values.
 */
bool origin_is_foreign(char *const *params);

#endif
