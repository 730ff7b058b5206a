/* SPDX-License-Identifier: ISC */
/*
 * fuzz_json: the check of JSON (json.h). What it accepts is one object for json-c's strict parser,
 * which consumes all of it; is UTF-8 according to a second decoder, without NUL; is nested no
 * deeper than allowed; and json_parse() reads the same object. A member is found exactly if a
 * second walk over the text finds it.
 */
#include "fuzz.h"
#include "fuzz_json.h"

#include <json-c/json.h>

/* Whether json-c reads a string, passed with its quotes, as word. */
static bool
string_is(const char *text, size_t length, const char *word)
{
	char *copy = strndup(text, length);
	struct json_object *string = json_tokener_parse(copy);
	bool same;

	same = json_object_is_type(string, json_type_string) &&
	    (size_t)json_object_get_string_len(string) == strlen(word) &&
	    strcmp(json_object_get_string(string), word) == 0;
	json_object_put(string);
	free(copy);
	return same;
}

/* The length of the string that text begins with, with its quotes. */
static size_t
string_length(const char *text)
{
	size_t n = 1;

	while (text[n] != '"')
		n += text[n] == '\\' ? 2 : 1;
	return n + 1;
}

/* Whether a member "event" of the object itself is "sync". text is valid JSON. */
static bool
has_member(const char *text, size_t length)
{
	bool is_event = false, value_next = false;
	int depth = 0;

	for (size_t i = 0, n; i < length; i += n) {
		n = 1;
		switch (text[i]) {
		case '{':
		case '[':
			depth++;
			value_next = false;
			break;
		case '}':
		case ']':
			depth--;
			break;
		case ',':
			value_next = false;
			break;
		case ':':
			value_next = true;
			break;
		case '"':
			n = string_length(text + i);
			if (depth != 1)
				break;
			if (!value_next)
				is_event = string_is(text + i, n, "event");
			else if (is_event && string_is(text + i, n, "sync"))
				return true;
			break;
		default:
			break;
		}
	}
	return false;
}

/* How deep it is nested; json-c does not count an empty list. text is valid JSON. */
static int
nesting(const char *text, size_t length)
{
	int depth = 0, deepest = 0;

	for (size_t i = 0, n; i < length; i += n) {
		n = text[i] == '"' ? string_length(text + i) : 1;
		if (text[i] == '{' || text[i] == '[')
			deepest = ++depth > deepest ? depth : deepest;
		else if (text[i] == '}' || text[i] == ']')
			depth--;
	}
	return deepest;
}

static void
check_accepted(const char *text, size_t length)
{
	struct json_object *strict = fuzz_json_parse(text, length), *parsed, *again;
	const char *wrong, *written;

	REQUIRE(json_object_is_type(strict, json_type_object));
	REQUIRE(fuzz_is_utf8((const uint8_t *)text, length));
	REQUIRE(memchr(text, '\0', length) == NULL);
	REQUIRE(nesting(text, length) <= JSON_DEPTH_MAX);
	parsed = json_parse(text, length, &wrong);
	REQUIRE(parsed != NULL && json_object_equal(parsed, strict));
	written = json_object_to_json_string(parsed);
	again = fuzz_json_parse(written, strlen(written));
	REQUIRE(json_object_is_type(again, json_type_object));
	json_object_put(again);
	json_object_put(parsed);
	json_object_put(strict);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data, *wrong, *wrong_parse;
	bool found;

	wrong = json_check_member(text, size, "event", "sync", &found);
	REQUIRE(json_check(text, size) == wrong);
	if (wrong == NULL) {
		check_accepted(text, size);
		REQUIRE(found == has_member(text, size));
	} else {
		REQUIRE(fuzz_is_line(wrong));
		REQUIRE(json_parse(text, size, &wrong_parse) == NULL && wrong_parse == wrong);
	}
	return 0;
}
