/* SPDX-License-Identifier: ISC */
/*
 * allowed_origins: see allowed_origins.h.
 */
#include "config/allowed_origins.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/hostport.h"
#include "base/text.h"

static const struct scheme {
	const char *name;
	int port;
} schemes[] = { { "https://", 443 }, { "http://", 80 } };

/* The scheme that length bytes of text begin with; NULL if it is another. */
static const struct scheme *
find_scheme(const char *text, size_t length)
{
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t n = strlen(schemes[i].name);

		if (length > n && strncasecmp(text, schemes[i].name, n) == 0)
			return &schemes[i];
	}
	return NULL;
}

/* Writes the origin as browsers do: never longer than text. False if it is not an origin. */
static bool
normalize(const char *text, size_t length, char out[ALLOWED_ORIGIN_MAX + 1])
{
	const struct scheme *scheme = find_scheme(text, length);
	char host[HOSTPORT_HOST_SIZE + 16];
	struct hostport hp;
	struct error error;
	size_t n;

	if (scheme == NULL || length > ALLOWED_ORIGIN_MAX)
		return false;
	n = strlen(scheme->name);
	if (!hostport_parse(&hp, text + n, length - n, &error) || strchr(hp.host, '%') != NULL)
		return false;
	hostport_format(host, sizeof(host), hp.host, hp.port);
	if (hp.port == 0 || hp.port == scheme->port)
		*strrchr(host, ':') = '\0';
	for (char *at = host; *at != '\0'; at++)
		*at = (char)tolower((unsigned char)*at);
	stpcpy(stpcpy(out, scheme->name), host);
	return true;
}

bool
allowed_origins_valid(const char *list)
{
	char ignored[ALLOWED_ORIGIN_MAX + 1];

	for (;; list++) {
		size_t length = strcspn(list, ","), trimmed = length;
		const char *part = list;

		text_trim(&part, &trimmed);
		if (!normalize(part, trimmed, ignored))
			return false;
		list += length;
		if (*list == '\0')
			return true;
	}
}

void
allowed_origins_normalize(char *list)
{
	char origin[ALLOWED_ORIGIN_MAX + 1], *out = list;

	for (const char *at = list;; at++) {
		size_t length = strcspn(at, ","), trimmed = length;
		bool last = at[length] == '\0';
		const char *part = at;

		text_trim(&part, &trimmed);
		normalize(part, trimmed, origin);
		at += length;
		out = stpcpy(out, origin);
		if (last)
			return;
		*out++ = ',';
	}
}

const char *
allowed_origins_find(const char *list, const char *origin)
{
	size_t wanted = strlen(origin), length;

	for (; *list != '\0'; list += length + (list[length] == ',')) {
		length = strcspn(list, ",");
		if (length == wanted && memcmp(list, origin, wanted) == 0)
			return list;
	}
	return NULL;
}
