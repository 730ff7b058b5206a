/* SPDX-License-Identifier: ISC */
/*
 * fuzz_access: the rules of an access file (access.h). They decide as a plain walk over the text
 * does, for projects and users in it and for others. An error is one printable line with the number
 * of the first line that does not parse.
 */
#include "fuzz.h"

#include "auth/access.h"
#include "wire/channel_name.h"

#define ASKED 5 /* projects and users to check; the last of each is not in the text */

struct word {
	const char *text;
	size_t length;
};

static struct word
next_word(const char **at, const char *end)
{
	struct word w;

	while (*at < end && memchr(" \t\r", **at, 3) != NULL)
		++*at;
	w.text = *at;
	while (*at < end && memchr(" \t\r", **at, 3) == NULL)
		++*at;
	w.length = (size_t)(*at - w.text);
	return w;
}

/* Returns the next line in *line, without comment and line break. False at the end. */
static bool
next_line(const char **at, const char *end, struct word *line)
{
	if (*at == end)
		return false;
	line->text = *at;
	while (*at < end && **at != '\n')
		++*at;
	line->length = (size_t)(*at - line->text);
	for (size_t i = 0; i < line->length; i++) {
		if (line->text[i] == '#')
			line->length = i;
	}
	if (*at < end)
		++*at;
	return true;
}

static bool
word_is(struct word w, const char *text)
{
	return (w.length == strlen(text) && memcmp(w.text, text, w.length) == 0) ||
	    (w.length == 1 && w.text[0] == '*');
}

static bool
plain_allow(const char *text, size_t length, int32_t project, const char *user)
{
	const char *end = text + length;
	struct word line, w;
	char number[16];

	snprintf(number, sizeof(number), "%d", (int)project);
	while (next_line(&text, end, &line)) {
		const char *at = line.text, *line_end = at + line.length;

		if (!word_is(next_word(&at, line_end), number))
			continue;
		for (w = next_word(&at, line_end); w.length > 0; w = next_word(&at, line_end)) {
			if (word_is(w, user))
				return true;
		}
	}
	return false;
}

/* Collects the last few projects and users in the text. */
static void
collect(const char *text, size_t length, int32_t projects[ASKED], char users[ASKED][256])
{
	const char *end = text + length;
	struct word line, w;
	unsigned p = 0, u = 0;

	while (next_line(&text, end, &line)) {
		const char *at = line.text, *line_end = at + line.length;

		w = next_word(&at, line_end);
		if (channel_number_parse(w.text, w.length, &projects[p % (ASKED - 1)]))
			p++;
		for (w = next_word(&at, line_end); w.length > 0; w = next_word(&at, line_end)) {
			if (!channel_id_valid(w.text, w.length))
				continue;
			memset(users[u % (ASKED - 1)], 0, 256);
			memcpy(users[u++ % (ASKED - 1)], w.text, w.length);
		}
	}
}

static void
check_rules(const struct access_rules *rules, const char *text, size_t length)
{
	int32_t projects[ASKED] = { 1, 2, 3, 4, INT32_MAX };
	char users[ASKED][256] = { "a", "b", "c", "d", "stranger" };

	collect(text, length, projects, users);
	for (int p = 0; p < ASKED; p++) {
		for (int u = 0; u < ASKED; u++)
			REQUIRE((access_rules_allow(rules, projects[p], users[u]) != 0) ==
			    plain_allow(text, length, projects[p], users[u]));
	}
}

/* The lines before the one in the error parse, and with it they do not. */
static void
check_error(const char *error, const char *text, size_t length)
{
	const char *at = text, *end = text + length;
	struct error again;
	struct access_rules *rules;
	struct word line;
	int number, used = 0;

	REQUIRE(fuzz_is_line(error) && strlen(error) < ERROR_SIZE - 1);
	REQUIRE(sscanf(error, "line %d: %n", &number, &used) == 1 && used > 0 && number >= 1);
	for (int i = 1; i < number; i++)
		REQUIRE(next_line(&at, end, &line));
	rules = access_rules_parse(text, (size_t)(at - text), &again);
	REQUIRE(rules != NULL);
	access_rules_free(rules);
	REQUIRE(next_line(&at, end, &line));
	REQUIRE(access_rules_parse(text, (size_t)(at - text), &again) == NULL);
	REQUIRE(strcmp(error, again.text) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct error error;
	struct access_rules *rules = access_rules_parse(text, size, &error);

	if (rules != NULL)
		check_rules(rules, text, size);
	else
		check_error(error.text, text, size);
	access_rules_free(rules);
	return 0;
}
