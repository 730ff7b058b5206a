/* SPDX-License-Identifier: ISC */
/*
 * fuzz_wakeup: the check of payloads (wakeup.h). What it accepts is one object for json-c's strict
 * parser, which consumes all of it; is UTF-8 by a decoder of our own, without NUL; fits in a frame;
 * is nested no deeper than allowed; and no member "event" of the object, doubled ones included, is
 * "sync". What it calls a forgery has such a member. The built payloads of any event and id read
 * back as they were.
 */
#include "fuzz.h"
#include "fuzz_json.h"

#include <json-c/json.h>

#include "wire/frame.h"
#include "wire/wakeup.h"

/* By the value of the code point, not by ranges of bytes. */
static bool
is_utf8(const uint8_t *at, size_t left)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };

	while (left > 0) {
		int more = *at < 0x80 ? 0 : *at >> 5 == 6 ? 1 : *at >> 4 == 14 ? 2 : 3;
		uint32_t code = more == 0 ? *at : *at & (0x3fu >> more);

		if ((*at >= 0x80 && *at < 0xc0) || *at >= 0xf8 || left <= (size_t)more)
			return false;
		for (int i = 1; i <= more; i++) {
			if (at[i] >> 6 != 2)
				return false;
			code = code << 6 | (at[i] & 0x3f);
		}
		if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
			return false;
		at += more + 1;
		left -= (size_t)more + 1;
	}
	return true;
}

/* Whether the JSON string text, with its quotes, is word once json-c has read it. */
static bool
token_is(const char *text, size_t length, const char *word)
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

/* The length of a string with its quotes. */
static size_t
token_length(const char *text)
{
	size_t n = 1;

	while (text[n] != '"')
		n += text[n] == '\\' ? 2 : 1;
	return n + 1;
}

/* Whether a member of the outer object says that its event is "sync". text is valid JSON. */
static bool
says_sync(const char *text, size_t length)
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
			n = token_length(text + i);
			if (depth != 1)
				break;
			if (!value_next)
				is_event = token_is(text + i, n, "event");
			else if (is_event && token_is(text + i, n, "sync"))
				return true;
			break;
		default:
			break;
		}
	}
	return false;
}

/* How deep it is nested: json-c does not count a list that is empty. text is valid JSON. */
static int
nesting(const char *text, size_t length)
{
	int depth = 0, deepest = 0;

	for (size_t i = 0, n; i < length; i += n) {
		n = text[i] == '"' ? token_length(text + i) : 1;
		if (text[i] == '{' || text[i] == '[')
			deepest = ++depth > deepest ? depth : deepest;
		else if (text[i] == '}' || text[i] == ']')
			depth--;
	}
	return deepest;
}

static void
check_accepted(const char *payload, size_t length)
{
	struct json_object *object = fuzz_json_parse(payload, length), *event, *again;
	const char *text;

	REQUIRE(json_object_is_type(object, json_type_object));
	REQUIRE(is_utf8((const uint8_t *)payload, length));
	REQUIRE(memchr(payload, '\0', length) == NULL);
	REQUIRE(nesting(payload, length) <= WAKEUP_DEPTH_MAX);
	REQUIRE(frame_event_size(payload, length) <= WAKEUP_FRAME_MAX);
	REQUIRE(!json_object_object_get_ex(object, "event", &event) ||
	    !json_object_is_type(event, json_type_string) ||
	    strcmp(json_object_get_string(event), "sync") != 0);
	REQUIRE(!says_sync(payload, length));
	text = json_object_to_json_string(object);
	again = fuzz_json_parse(text, strlen(text));
	REQUIRE(json_object_is_type(again, json_type_object));
	json_object_put(again);
	json_object_put(object);
}

/* Spaces behind the object are allowed, up to the limit of the frame. */
static void
check_limit(const char *payload, size_t length)
{
	size_t room = WAKEUP_FRAME_MAX - frame_event_size(payload, length);
	char *longer = fuzz_memory(length + room + 1);

	memset(mempcpy(longer, payload, length), ' ', room + 1);
	REQUIRE(wakeup_check(longer, length + room) == NULL);
	REQUIRE(wakeup_check(longer, length + room + 1) != NULL);
	free(longer);
}

/* Takes the payload. */
static void
check_built(char *payload, const char *name, const char *text)
{
	struct json_object *object, *member;
	const char *wrong;

	REQUIRE(payload != NULL);
	wrong = wakeup_check(payload, strlen(payload));
	if (wrong == NULL) {
		object = fuzz_json_parse(payload, strlen(payload));
		REQUIRE(json_object_object_get_ex(object, name, &member));
		REQUIRE(strcmp(json_object_get_string(member), text) == 0);
		json_object_put(object);
	} else {
		REQUIRE(!is_utf8((const uint8_t *)text, strlen(text)) ||
		    (strcmp(name, "event") == 0 && strcmp(text, "sync") == 0) ||
		    strlen(payload) > WAKEUP_FRAME_MAX - strlen("data: \n\n"));
	}
	free(payload);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *payload = (const char *)data, *wrong = wakeup_check(payload, size);
	const char *wrong_json = wakeup_json_check(payload, size);
	char *text;

	if (wrong == NULL) {
		REQUIRE(wrong_json == NULL);
		check_accepted(payload, size);
		if (size % 8 == 0)
			check_limit(payload, size);
	} else {
		REQUIRE(fuzz_is_line(wrong));
		if (wrong_json == NULL)
			REQUIRE(frame_event_size(payload, size) > WAKEUP_FRAME_MAX ||
			    says_sync(payload, size));
	}

	text = fuzz_text(data, size);
	check_built(wakeup_notification(text, "notification"), "id", text);
	check_built(wakeup_notification("n1", text), "event", text);
	check_built(wakeup_item(text, "issueId", INT32_MAX, 1, 0), "event", text);
	free(text);
	return 0;
}
