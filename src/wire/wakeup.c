/* SPDX-License-Identifier: ISC */
/*
 * wakeup: builds payloads with json-c, and checks them with a scanner of its own.
 *
 * The scanner follows the grammar of RFC 8259 production by production, without memory. json-c is
 * not asked: its strict mode lets through what is no JSON (NaN and Infinity, 1. and -01, control
 * characters in strings, names in single quotes) and no UTF-8 (overlong forms, surrogates), and it
 * keeps only the last of two equal names, so that a doubled "event" could hide a forgery. A lone
 * surrogate in an escape (\ud800) is JSON by that grammar (8.2), harmless to a browser, and passes.
 */
#include "wire/wakeup.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"
#include "base/text.h"

#define EXPAND(x) #x
#define TEXT_OF(x) EXPAND(x)

static const char not_json[] = "is not JSON (RFC 8259)";
static const char not_utf8[] = "is not UTF-8";
static const char has_nul[] = "contains a NUL (\\u0000)";
static const char not_object[] = "is not one JSON object";
static const char too_deep[] = "is nested over " TEXT_OF(WAKEUP_DEPTH_MAX) " deep";
static const char too_long[] = "is over " TEXT_OF(WAKEUP_FRAME_MAX) " bytes as an event";
static const char is_forged[] = "has the event \"sync\", which is reserved for tpi-streamd";

/* Every scan_ function moves at behind what it has read; it returns NULL, or what is wrong. */
struct scan {
	const unsigned char *at;
	const unsigned char *end;
	int depth;   /* of the object or array that at stands in */
	bool forged; /* an "event" of the outer object was "sync" */
};

static const char *scan_value(struct scan *);

static bool
is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

/* The value of four hexadecimal digits, or -1. */
static int
hex_four(const unsigned char *digits)
{
	int value = 0;

	for (int i = 0; i < 4; i++) {
		int digit = text_hex_digit((char)digits[i]);

		if (digit < 0)
			return -1;
		value = value * 16 + digit;
	}
	return value;
}

static void
skip_space(struct scan *s)
{
	while (s->at < s->end &&
	    (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
		s->at++;
}

/* Whether c comes next; it is then skipped. */
static bool
skip(struct scan *s, unsigned char c)
{
	if (s->at == s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

/* One character of more than one byte (RFC 3629, section 4): the second byte's range rules out
 * overlong forms, surrogates and what is above U+10FFFF. */
static const char *
scan_utf8(struct scan *s)
{
	static const struct {
		unsigned char first, last;   /* range of the first byte */
		unsigned char least, most;   /* range of the second */
		unsigned char length;
	} forms[] = {
		{ 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
		{ 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 },
		{ 0xee, 0xef, 0x80, 0xbf, 3 }, { 0xf0, 0xf0, 0x90, 0xbf, 4 },
		{ 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};
	const unsigned char *at = s->at;

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (at[0] < forms[i].first || at[0] > forms[i].last)
			continue;
		if (s->end - at < forms[i].length || at[1] < forms[i].least ||
		    at[1] > forms[i].most)
			return not_utf8;
		for (int n = 2; n < forms[i].length; n++) {
			if ((at[n] & 0xc0) != 0x80)
				return not_utf8;
		}
		s->at += forms[i].length;
		return NULL;
	}
	return not_utf8;
}

/* What follows a backslash. */
static const char *
scan_escape(struct scan *s)
{
	int value;

	if (s->at == s->end)
		return not_json;
	if (*s->at != 'u') {
		if (*s->at == '\0' || strchr("\"\\/bfnrt", *s->at) == NULL)
			return not_json;
		s->at++;
		return NULL;
	}
	s->at++;
	if (s->end - s->at < 4)
		return not_json;
	value = hex_four(s->at);
	if (value < 0)
		return not_json;
	if (value == 0)
		return has_nul;
	s->at += 4;
	return NULL;
}

static const char *
scan_string(struct scan *s)
{
	if (!skip(s, '"'))
		return not_json;
	while (s->at < s->end) {
		const char *wrong = NULL;

		if (skip(s, '"'))
			return NULL;
		if (*s->at >= 0x80)
			wrong = scan_utf8(s);
		else if (skip(s, '\\'))
			wrong = scan_escape(s);
		else if (*s->at < ' ')
			wrong = *s->at == '\0' ? has_nul : not_json;
		else
			s->at++;
		if (wrong != NULL)
			return wrong;
	}
	return not_json;
}

/* Whether the string from its first quote to its last, which scan_string() has accepted, says word,
 * which is ASCII without control characters. */
static bool
string_says(const unsigned char *from, const unsigned char *to, const char *word)
{
	for (from++, to--; from < to; word++) {
		int c = *from++;

		if (c == '\\') {
			c = *from++;
			if (c == 'u') {
				c = hex_four(from);
				from += 4;
			} else if (strchr("bfnrt", c) != NULL) {
				return false;
			}
		}
		if (c != (unsigned char)*word)
			return false;
	}
	return *word == '\0';
}

static bool
skip_digits(struct scan *s)
{
	const unsigned char *start = s->at;

	while (s->at < s->end && is_digit(*s->at))
		s->at++;
	return s->at > start;
}

static const char *
scan_number(struct scan *s)
{
	skip(s, '-');
	if (!skip(s, '0') && !skip_digits(s))
		return not_json;
	if (skip(s, '.') && !skip_digits(s))
		return not_json;
	if (skip(s, 'e') || skip(s, 'E')) {
		if (!skip(s, '+'))
			skip(s, '-');
		if (!skip_digits(s))
			return not_json;
	}
	return NULL;
}

static const char *
scan_literal(struct scan *s, const char *word)
{
	for (; *word != '\0'; word++) {
		if (!skip(s, (unsigned char)*word))
			return not_json;
	}
	return NULL;
}

/* A member's name, colon and value. */
static const char *
scan_member(struct scan *s)
{
	const unsigned char *name = s->at, *value;
	const char *wrong = scan_string(s);
	bool is_event;

	if (wrong != NULL)
		return wrong;
	is_event = s->depth == 1 && string_says(name, s->at, "event");
	skip_space(s);
	if (!skip(s, ':'))
		return not_json;
	skip_space(s);
	value = s->at;
	wrong = scan_value(s);
	if (wrong == NULL && is_event && *value == '"' && string_says(value, s->at, "sync"))
		s->forged = true;
	return wrong;
}

/* An object or an array, from its opening bracket. */
static const char *
scan_list(struct scan *s, unsigned char close, const char *(*scan_item)(struct scan *))
{
	s->at++;
	if (++s->depth > WAKEUP_DEPTH_MAX)
		return too_deep;
	skip_space(s);
	if (!skip(s, close)) {
		do {
			const char *wrong;

			skip_space(s);
			wrong = scan_item(s);
			if (wrong != NULL)
				return wrong;
			skip_space(s);
		} while (skip(s, ','));
		if (!skip(s, close))
			return not_json;
	}
	s->depth--;
	return NULL;
}

static const char *
scan_value(struct scan *s)
{
	switch (s->at < s->end ? *s->at : '\0') {
	case '{':
		return scan_list(s, '}', scan_member);
	case '[':
		return scan_list(s, ']', scan_value);
	case '"':
		return scan_string(s);
	case 't':
		return scan_literal(s, "true");
	case 'f':
		return scan_literal(s, "false");
	case 'n':
		return scan_literal(s, "null");
	default:
		return scan_number(s);
	}
}

static const char *
scan_object(struct scan *s)
{
	const char *wrong;

	skip_space(s);
	if (s->at == s->end || *s->at != '{')
		return not_object;
	wrong = scan_value(s);
	if (wrong != NULL)
		return wrong;
	skip_space(s);
	return s->at == s->end ? NULL : not_object;
}

static struct scan
scan_start(const char *text, size_t length)
{
	const unsigned char *at = (const unsigned char *)text;

	return (struct scan){ .at = at, .end = at + length };
}

const char *
wakeup_json_check(const char *text, size_t length)
{
	struct scan s = scan_start(text, length);

	return scan_object(&s);
}

const char *
wakeup_check(const char *payload, size_t length)
{
	struct scan s = scan_start(payload, length);
	const char *wrong;

	if (frame_event_size(payload, length) > WAKEUP_FRAME_MAX)
		return too_long;
	wrong = scan_object(&s);
	if (wrong != NULL)
		return wrong;
	return s.forged ? is_forged : NULL;
}

/* Adds a member. Takes value, which is NULL where there was no memory for it. */
static bool
add(struct json_object *object, const char *name, struct json_object *value)
{
	if (value == NULL)
		return false;
	if (json_object_object_add(object, name, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

/* Takes object; complete says whether it got all its members. */
static char *
write_out(struct json_object *object, bool complete)
{
	char *payload = NULL;
	const char *text;

	if (complete) {
		text = json_object_to_json_string_ext(object,
		    JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
		if (text != NULL)
			payload = strdup(text);
	}
	json_object_put(object);
	return payload;
}

char *
wakeup_notification(const char *id, const char *event)
{
	struct json_object *object = json_object_new_object();

	return write_out(object, object != NULL &&
	    add(object, "id", json_object_new_string(id)) &&
	    add(object, "event", json_object_new_string(event)));
}

char *
wakeup_item(const char *event, const char *member, int32_t item, int32_t project, int32_t target)
{
	struct json_object *object = json_object_new_object();

	return write_out(object, object != NULL &&
	    add(object, "event", json_object_new_string(event)) &&
	    add(object, member, json_object_new_int(item)) &&
	    add(object, "projectId", json_object_new_int(project)) &&
	    (target == 0 || add(object, "targetId", json_object_new_int(target))));
}
