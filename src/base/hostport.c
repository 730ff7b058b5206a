/* SPDX-License-Identifier: ISC */
/*
 * hostport: see hostport.h.
 */
#include "base/hostport.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define DIGITS "0123456789"
#define NAME   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" DIGITS "-._"

static bool
consists_of(const char *text, size_t length, const char *characters)
{
	for (size_t i = 0; i < length; i++)
		if (text[i] == '\0' || strchr(characters, text[i]) == NULL)
			return false;
	return length > 0;
}

static bool
parse_port(struct hostport *hp, const char *text, size_t length, struct error *error)
{
	bool good = length <= 5 && consists_of(text, length, DIGITS);

	for (size_t i = 0; good && i < length; i++)
		hp->port = hp->port * 10 + (text[i] - '0');
	return (hp->port >= 1 && hp->port <= 65535) ||
	    error_set(error, "the port must be a number from 1 to 65535");
}

/* Whether text is an IPv6 address, optionally with the zone of a link-local one (%eth0). */
static bool
is_v6(const char *text, size_t length)
{
	const char *zone = memchr(text, '%', length);
	size_t used = zone != NULL ? (size_t)(zone - text) : length;
	char address[INET6_ADDRSTRLEN];
	struct in6_addr ignored;

	if (used >= sizeof(address) ||
	    (zone != NULL && !consists_of(zone + 1, length - used - 1, NAME)))
		return false;
	memcpy(address, text, used);
	address[used] = '\0';
	return inet_pton(AF_INET6, address, &ignored) == 1;
}

/* *used gets the number of bytes that the host occupies in text, brackets included. */
static bool
parse_host(struct hostport *hp, const char *text, size_t length, size_t *used, struct error *error)
{
	const char *host = text, *end;

	if (length > 0 && text[0] == '[') {
		end = memchr(text, ']', length);
		if (end == NULL)
			return error_set(error, "'[' without ']'");
		host++;
		*used = (size_t)(end - text) + 1;
	} else {
		end = memchr(text, ':', length);
		if (end == NULL)
			end = text + length;
		*used = (size_t)(end - text);
	}
	length = (size_t)(end - host);
	if (host != text && (length >= sizeof(hp->host) || !is_v6(host, length)))
		return error_set(error, "the text in [...] is not an IPv6 address");
	if (length == 0)
		return error_set(error, "the host is missing");
	if (host == text && (length >= sizeof(hp->host) || !consists_of(host, length, NAME)))
		return error_set(error,
		    "the host must be a name, an IPv4 address or an [IPv6 address]");
	memcpy(hp->host, host, length);
	return true;
}

bool
hostport_parse(struct hostport *hp, const char *text, size_t length, struct error *error)
{
	size_t used = 0;

	memset(hp, 0, sizeof(*hp));
	if (!parse_host(hp, text, length, &used, error))
		return false;
	if (used == length)
		return true;
	if (text[used] != ':')
		return error_set(error, "only :port may follow ']'");
	return parse_port(hp, text + used + 1, length - used - 1, error);
}

void
hostport_format(char *text, size_t size, const char *host, int port)
{
	snprintf(text, size, strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d", host, port);
}
