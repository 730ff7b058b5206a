/* SPDX-License-Identifier: ISC */
/*
 * app_url: see app_url.h.
 */
#include "config/app_url.h"

#include <string.h>
#include <strings.h>

#include "base/hostport.h"

bool
app_url_valid(const char *url)
{
	struct hostport ignored;
	struct error error;
	const char *at;
	size_t length;

	for (at = url; *at != '\0'; at++)
		if (*at <= ' ' || *at > '~')
			return false;
	if (strncmp(url, "unix:/", 6) == 0)
		/* 107 bytes fit in a sockaddr_un. */
		return strlen(url + 5) <= 107 && strncmp(url, "unix://", 7) != 0 && url[6] != '\0';
	if (strncasecmp(url, "http://", 7) == 0)
		url += 7;
	else if (strncasecmp(url, "https://", 8) == 0)
		url += 8;
	else
		return false;
	length = strcspn(url, "/");
	/* A zone (%eth0) is spelled differently in a URL, and not every libcurl reads that. */
	return hostport_parse(&ignored, url, length, &error) && memchr(url, '%', length) == NULL &&
	    strpbrk(url + length, "?#\\") == NULL;
}
