/* SPDX-License-Identifier: ISC */
/*
 * hostport: see hostport.h.
 */
#include "base/hostport.h"

#include <arpa/inet.h>
#include <stdbool.h>
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

static const char *
parse_port(struct hostport *hp, const char *text, size_t length)
{
	static const char wrong[] = "the port must be a number from 1 to 65535";

	if (length > 5 || !consists_of(text, length, DIGITS))
		return wrong;
	for (size_t i = 0; i < length; i++)
		hp->port = hp->port * 10 + (text[i] - '0');
	return hp->port >= 1 && hp->port <= 65535 ? NULL : wrong;
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
static const char *
parse_host(struct hostport *hp, const char *text, size_t length, size_t *used)
{
	const char *host = text, *end;

	if (length > 0 && text[0] == '[') {
		end = memchr(text, ']', length);
		if (end == NULL)
			return "'[' without ']'";
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
		return "the text in [...] is not an IPv6 address";
	if (length == 0)
		return "the host is missing";
	if (host == text && (length >= sizeof(hp->host) || !consists_of(host, length, NAME)))
		return "the host must be a name, an IPv4 address or an [IPv6 address]";
	memcpy(hp->host, host, length);
	return NULL;
}

const char *
hostport_parse(struct hostport *hp, const char *text, size_t length)
{
	const char *wrong;
	size_t used;

	memset(hp, 0, sizeof(*hp));
	wrong = parse_host(hp, text, length, &used);
	if (wrong != NULL || used == length)
		return wrong;
	if (text[used] != ':')
		return "only :port may follow ']'";
	return parse_port(hp, text + used + 1, length - used - 1);
}

void
hostport_format(char *text, size_t size, const char *host, int port)
{
	snprintf(text, size, strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d", host, port);
}
