/* SPDX-License-Identifier: ISC */
/*
 * fuzz: helpers of the fuzz targets. A target is a file fuzz_NAME.c; its seeds are the files in
 * corpus/NAME; run.sh builds and runs it. A target keeps no state between inputs.
 */
#ifndef TPI_FUZZ_H
#define TPI_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer calls this with each input; data is an allocation of exactly size bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Aborts if the condition is false; unlike assert(), in every build. */
#define REQUIRE(condition)                                                                        \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__,         \
			    #condition);                                                          \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

/* Memory of exactly that size, so that a sanitizer sees an access past the end. */
static inline void *
fuzz_memory(size_t size)
{
	void *memory = malloc(size);

	REQUIRE(memory != NULL || size == 0);
	return memory;
}

/* The input up to its first NUL as a string. The caller frees it. */
static inline char *
fuzz_text(const uint8_t *data, size_t size)
{
	char *text = fuzz_memory(strnlen((const char *)data, size) + 1);

	*(char *)mempcpy(text, data, strnlen((const char *)data, size)) = '\0';
	return text;
}

#define FUZZ_PARAMS_MAX 64

/*
 * Makes the parameters of a request from lines NAME=value; a vertical tab in a value becomes a line
 * break. Each is in memory of exactly its size; the caller frees them. Returns their number.
 */
static inline int
fuzz_params(const uint8_t *data, size_t size, char *params[FUZZ_PARAMS_MAX + 1])
{
	const char *at = (const char *)data, *end = at + size, *line_end;
	int count = 0;

	for (; at < end && count < FUZZ_PARAMS_MAX; at = line_end + 1) {
		line_end = memchr(at, '\n', (size_t)(end - at));
		if (line_end == NULL)
			line_end = end;
		params[count] = fuzz_text((const uint8_t *)at, (size_t)(line_end - at));
		for (char *c = params[count]; *c != '\0'; c++)
			if (*c == '\v')
				*c = '\n';
		count++;
	}
	params[count] = NULL;
	return count;
}

/* Whether text is one non-empty line of printable ASCII. */
static inline bool
fuzz_is_line(const char *text)
{
	const char *at = text;

	while (*at >= ' ' && *at <= '~')
		at++;
	return at != text && *at == '\0';
}

static inline char
fuzz_next_letter(char c)
{
	static const char from[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	static const char to[] = "bcdefahijklmnopqrstuvwxyzgBCDEFAHIJKLMNOPQRSTUVWXYZG";
	const char *found = c != '\0' ? strchr(from, c) : NULL;

	return found != NULL ? to[found - from] : c;
}

/* Ends a list after its first URL; returns the rest, after the comma, or NULL. */
static inline char *
fuzz_split(char *list)
{
	for (char *comma = list; (comma = strchr(comma, ',')) != NULL; comma++) {
		char *next = comma + 1 + strspn(comma + 1, " \t\r\n"), *scheme = next;

		while ((*next >= 'a' && *next <= 'z') || (*next >= 'A' && *next <= 'Z'))
			next++;
		if (next != scheme && strncmp(next, "://", 3) == 0) {
			*comma = '\0';
			return comma + 1;
		}
	}
	return NULL;
}

/* The query follows the first '?' after the last '@'. The name of its first parameter is kept. */
static inline void
fuzz_change_query(char *url)
{
	char *at = strrchr(url, '@'), *query = strchr(at != NULL ? at : url, '?');
	size_t name;

	if (query == NULL)
		return;
	name = strspn(query + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
	if (name > 32 || query[1 + name] != '=')
		name = 0;
	for (query += 1 + name; *query != '\0'; query++)
		*query = fuzz_next_letter(*query);
}

static inline void
fuzz_change_one(char *url)
{
	char *start, *end;
	size_t user;

	url += strspn(url, " \t\r\n");
	fuzz_change_query(url);
	if (strncmp(url, "unix:///", 8) == 0 && strstr(url + 8, "://") == NULL)
		return;
	start = url + strspn(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
	start = start != url && strncmp(start, "://", 3) == 0 ? start + 3 : url;
	end = strrchr(start, '@');
	if (end == NULL)
		return;
	user = strcspn(start, ":/?,@");
	if (start != url && start[user] == ':')
		start += user + 1;
	for (; start < end; start++)
		*start = fuzz_next_letter(*start);
}

/*
 * Replaces each letter of the password in a URL, or in each URL of a list: hexadecimal digits by
 * hexadecimal digits, and nothing that has a meaning for a parser. If no output changes, then none
 * contains any part of a password. The password is what settings_mask_url() masks; the path of a
 * Unix socket has none.
 */
static inline void
fuzz_change_password(char *urls)
{
	char *rest = fuzz_split(urls);

	fuzz_change_one(urls);
	if (rest == NULL)
		return;
	rest[-1] = ',';
	fuzz_change_password(rest);
}

#endif
