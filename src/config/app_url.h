/* SPDX-License-Identifier: ISC */
/*
 * app_url: the syntax of TPI_APP_URL. Pure and thread-safe.
 */
#ifndef TPI_CONFIG_APP_URL_H
#define TPI_CONFIG_APP_URL_H

#include <stdbool.h>

#define APP_URL_ALLOWED "http(s)://host[:port][/prefix] or unix:/path"

/* Whether url has the form APP_URL_ALLOWED. */
bool app_url_valid(const char *url);

#endif
