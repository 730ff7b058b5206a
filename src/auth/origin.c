/* SPDX-License-Identifier: ISC */
/*
 * origin: compares the authority of a URL with a Host header, and judges a request. See origin.h.
 *
 * Only the exact form that browsers send matches: a page of another site that passed for one of
 * ours would get what the application reserves for its own pages.
 */
#include "auth/origin.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "fcgi/request.h"

#define PORT_MAX 65535

/* "host", "host:port" or "[v6]:port". */
struct authority {
	const char *host; /* length bytes, brackets included */
	size_t length;
	int port;
};

/* Decimal digits; without any, the default port (RFC 3986, 3.2.3). -1: not a port. */
static int
parse_port(const char *digits, size_t length, int default_port)
{
	int port = length > 0 ? 0 : default_port;
	size_t i;

	for (i = 0; i < length; i++) {
		if (digits[i] < '0' || digits[i] > '9')
			return -1;
		port = port * 10 + digits[i] - '0';
		if (port > PORT_MAX)
			return -1;
	}
	return port;
}

static bool
parse_authority(const char *text, size_t length, int default_port, struct authority *a)
{
	const char *end = text + length, *port;

	/* A user's name could hide the host: "http://ours@theirs". */
	if (memchr(text, '@', length) != NULL)
		return false;
	port = length > 0 && text[0] == '[' ? memchr(text, ']', length) : text;
	if (port == NULL)
		return false;
	port = memchr(port, ':', (size_t)(end - port));
	a->host = text;
	a->length = (size_t)((port != NULL ? port : end) - text);
	a->port = port != NULL ? parse_port(port + 1, (size_t)(end - port) - 1, default_port)
			       : default_port;
	return a->length > 0 && a->port >= 0;
}

bool
origin_is_host(const char *url, const char *host)
{
	struct authority page, site;
	int default_port;

	if (strncasecmp(url, "http://", 7) == 0) {
		url += 7;
		default_port = 80;
	} else if (strncasecmp(url, "https://", 8) == 0) {
		url += 8;
		default_port = 443;
	} else
		return false;
	return parse_authority(url, strcspn(url, "/?#"), default_port, &page) &&
	    parse_authority(host, strlen(host), default_port, &site) &&
	    page.port == site.port && page.length == site.length &&
	    strncasecmp(page.host, site.host, site.length) == 0;
}

const char *
origin_header(char *const *params)
{
	bool conflict = false;
	const char *origin = params_get(params, "HTTP_ORIGIN", &conflict);

	return origin != NULL && !conflict ? origin : "";
}

bool
origin_is_foreign(char *const *params)
{
	bool conflict = false;
	const char *site = params_get(params, "HTTP_SEC_FETCH_SITE", &conflict);
	const char *origin, *host;

	if (conflict)
		return true;
	if (site != NULL && (strcmp(site, "same-origin") == 0 || strcmp(site, "none") == 0))
		return false;
	if (site != NULL && (strcmp(site, "cross-site") == 0 || strcmp(site, "same-site") == 0))
		return true;
	/* Without the header, and with a value that a later standard may define. */
	origin = params_get(params, "HTTP_ORIGIN", &conflict);
	host = params_get(params, "HTTP_HOST", &conflict);
	if (origin == NULL || (origin[0] == '\0' && !conflict))
		return false;
	return conflict || host == NULL || !origin_is_host(origin, host);
}
