/* SPDX-License-Identifier: ISC */
/*
 * credentials: from the parameters of a request to header lines. See credentials.h.
 */
#include "auth/credentials.h"

#include <sha2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "auth/origin.h"
#include "base/secret.h"
#include "fcgi/request.h"

/* Room for what the lines add to the parameters that they are made of. */
#define NAMES_SIZE 256

#define FETCH_SITE_HEADER "Sec-Fetch-Site"

/* Whether it can be part of a header: without control characters it cannot add a line. */
static bool
is_header_value(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

/* The value of a parameter if it can be part of a header; else "". */
static const char *
header_param(char *const *params, const char *name)
{
	const char *value = params_get(params, name, NULL);

	return value != NULL && is_header_value(value) ? value : "";
}

/* Adds "Name: value", terminated, if there is a value. Returns where the next line begins. */
static char *
add_line(char *at, const char *name, const char *value)
{
	if (value[0] == '\0')
		return at;
	return stpcpy(stpcpy(stpcpy(at, name), ": "), value) + 1;
}

/* Adds "Cookie: a=1; b=2". NULL if one has a control character. */
static char *
add_cookies(char *at, char *const *params)
{
	static const char prefix[] = "HTTP_COOKIE=";
	const char *value;
	bool first = true;

	for (; *params != NULL; params++) {
		if (strncmp(*params, prefix, sizeof(prefix) - 1) != 0)
			continue;
		value = *params + sizeof(prefix) - 1;
		if (!is_header_value(value))
			return NULL;
		if (value[0] == '\0')
			continue;
		at = stpcpy(stpcpy(at, first ? "Cookie: " : "; "), value);
		first = false;
	}
	return first ? at : at + 1;
}

/* The headers that a reverse proxy adds. */
static char *
add_forwarded(char *at, char *const *params)
{
	const char *given = header_param(params, "HTTP_X_FORWARDED_FOR");
	const char *address = header_param(params, "REMOTE_ADDR");
	const char *proto = header_param(params, "HTTP_X_FORWARDED_PROTO");
	const char *host = header_param(params, "HTTP_X_FORWARDED_HOST");
	const char *https = header_param(params, "HTTPS");

	if (given[0] != '\0' && address[0] != '\0') {
		at = stpcpy(stpcpy(at, "X-Forwarded-For: "), given);
		at = stpcpy(stpcpy(at, ", "), address) + 1;
	} else
		at = add_line(at, "X-Forwarded-For", given[0] != '\0' ? given : address);
	if (proto[0] == '\0')
		proto = https[0] != '\0' && strcmp(https, "off") != 0
		    ? "https" : header_param(params, "REQUEST_SCHEME");
	at = add_line(at, "X-Forwarded-Proto", proto);
	return add_line(at, "X-Forwarded-Host",
	    host[0] != '\0' ? host : header_param(params, "HTTP_HOST"));
}

/* The value of a parameter if it has only one and can be part of a header; else "". */
static const char *
unique_param(char *const *params, const char *name)
{
	bool conflict = false;
	const char *value = params_get(params, name, &conflict);

	return value != NULL && !conflict && is_header_value(value) ? value : "";
}

/*
 * Whether a page of the same site sent the request. A browser that sends no Sec-Fetch-Site, as over
 * plain http, sends Origin or Referer. These are not passed on: the application would compare them
 * with the Host of the daemon's own request, and each page would have its own entry in the cache.
 */
static char *
add_fetch_site(char *at, char *const *params)
{
	bool conflict = false;
	const char *sent = params_get(params, "HTTP_SEC_FETCH_SITE", &conflict);
	const char *site = unique_param(params, "HTTP_SEC_FETCH_SITE");
	const char *host = unique_param(params, "HTTP_HOST");

	/* A malformed one is not replaced by anything. */
	if (!conflict && (sent == NULL || sent[0] == '\0') &&
	    (origin_is_host(unique_param(params, "HTTP_ORIGIN"), host) ||
	    origin_is_host(unique_param(params, "HTTP_REFERER"), host)))
		site = "same-origin";
	return add_line(at, FETCH_SITE_HEADER, site);
}

/* Writes all lines and returns their end, or their start if there are no credentials. */
static char *
write_lines(char *lines, char *const *params)
{
	bool conflict = false;
	const char *authorization = params_get(params, "HTTP_AUTHORIZATION", &conflict);
	char *at;

	at = add_cookies(lines, params);
	if (at != NULL && authorization != NULL)
		at = is_header_value(authorization) && !conflict
		    ? add_line(at, "Authorization", authorization) : NULL;
	if (at == NULL || at == lines)
		return lines;
	return add_fetch_site(add_forwarded(at, params), params);
}

enum credentials_result
credentials_read(char *const *params, struct credentials **result)
{
	size_t size = sizeof(struct credentials) + NAMES_SIZE;
	struct credentials *c, *shrunk;
	SHA2_CTX sha;
	int i;

	*result = NULL;
	for (i = 0; params[i] != NULL; i++)
		size += strlen(params[i]);
	c = malloc(size);
	if (c == NULL)
		return CREDENTIALS_NO_MEMORY;
	c->references = 1;
	c->size = (size_t)(write_lines(c->lines, params) - c->lines);
	if (c->size == 0) {
		free(c);
		return CREDENTIALS_NONE;
	}
	/* Not realloc(), which may move the block and leave a copy. */
	shrunk = malloc(sizeof(*c) + c->size);
	if (shrunk != NULL) {
		memcpy(shrunk, c, sizeof(*c) + c->size);
		free(c);
		c = shrunk;
	}
	SHA256Init(&sha);
	SHA256Update(&sha, (const uint8_t *)c->lines, c->size);
	SHA256Final(c->digest, &sha);
	*result = c;
	return CREDENTIALS_FOUND;
}

const char *
credentials_site(const struct credentials *c)
{
	static const char name[] = FETCH_SITE_HEADER ": ";
	const char *at;

	for (at = c->lines; at < c->lines + c->size; at += strlen(at) + 1)
		if (strncmp(at, name, sizeof(name) - 1) == 0)
			return at + sizeof(name) - 1;
	return NULL;
}

/* The length of the letters and digits at the start, including those of base64 and base64url. */
static size_t
part_length(const char *value)
{
	return strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/_-");
}

/* Strikes out the parts of a value. Returns its end, a ';' or that of the line. */
static const char *
strike_value(const char *value, char *text)
{
	size_t length;

	while (*value != '\0' && *value != ';') {
		length = part_length(value);
		if (length >= CREDENTIALS_SECRET_MIN)
			secret_strike_one(text, value, length);
		value += length;
		if (value[0] == '%' && value[1] != '\0' && value[2] != '\0')
			value += 3;
		else if (length == 0)
			value++;
	}
	return value;
}

static void
strike_cookies(const char *at, char *text)
{
	while (*at != '\0') {
		at += strcspn(at, "=;");
		if (*at == '=')
			at = strike_value(at, text);
		at += *at == ';';
	}
}

void
credentials_strike(const struct credentials *c, char *text)
{
	static const char cookie[] = "Cookie: ", authorization[] = "Authorization: ";
	const char *at;

	for (at = c->lines; at < c->lines + c->size; at += strlen(at) + 1) {
		if (strncmp(at, cookie, sizeof(cookie) - 1) == 0)
			strike_cookies(at, text);
		else if (strncmp(at, authorization, sizeof(authorization) - 1) == 0)
			strike_value(at + sizeof(authorization) - 1, text);
	}
}

struct credentials *
credentials_hold(struct credentials *c)
{
	c->references++;
	return c;
}

void
credentials_release(struct credentials *c)
{
	if (c == NULL || --c->references > 0)
		return;
	explicit_bzero(c, sizeof(*c) + c->size);
	free(c);
}
