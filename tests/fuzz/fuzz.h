/* SPDX-License-Identifier: ISC */
/*
 * fuzz: what the fuzz targets share. A target is one file fuzz_NAME.c; its first seeds are the
 * files in corpus/NAME; run.sh builds and runs it. A target holds no state from one input to the
 * next.
 */
#ifndef TPI_FUZZ_H
#define TPI_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer calls it with each input; data is an allocation of exactly size bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold. Unlike assert(), in every build. */
#define REQUIRE(condition)                                                                        \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__,         \
			    #condition);                                                          \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

/* Memory of exactly that size, so that the sanitizer sees one byte too many. */
static inline void *
fuzz_memory(size_t size)
{
	void *memory = malloc(size);

	REQUIRE(memory != NULL || size == 0);
	return memory;
}

/* The input as a C string, which ends at its first NUL. The caller frees it. */
static inline char *
fuzz_text(const uint8_t *data, size_t size)
{
	char *text = fuzz_memory(strnlen((const char *)data, size) + 1);

	*(char *)mempcpy(text, data, strnlen((const char *)data, size)) = '\0';
	return text;
}

#define FUZZ_PARAMS_MAX 64

/*
 * The parameters of a request, from lines NAME=value; a vertical tab in a value becomes a line
 * break. Each is in memory of exactly its size, the caller frees them. Returns how many.
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

/* One line that is not empty, of printable ASCII. */
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

/* The rest of a list behind its first URL and the comma, which becomes a NUL; NULL: it is the last. */
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

/* The query is what follows the first '?' after the last '@'; the name of its first parameter stays. */
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
 * Replaces each letter of the password in a URL, or in each of a list, by another one: hexadecimal
 * digits by such, and nothing that a parser looks for. What is printed must not change by it: then
 * no letter of a password is printed, whole or in part. The password is what settings.h says of
 * settings_mask_url(); the path of a Unix socket has none.
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
