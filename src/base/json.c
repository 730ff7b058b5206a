/* SPDX-License-Identifier: ISC */
/*
 * json: the scanner follows the grammar of RFC 8259 production by production and allocates nothing.
 *
 * json-c's strict mode does not suffice: it accepts what is not JSON (NaN and Infinity, 1. and -01,
 * control characters in strings, names in single quotes) or not UTF-8 (overlong forms, surrogates),
 * and of members with one name it keeps only the last. An escaped lone surrogate (\ud800) is JSON
 * (RFC 8259, section 8.2) and harmless to a browser, so it is accepted.
 */
#include "base/json.h"

#include <assert.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/*
 * More memory than json-c takes for a text of this length. Empty objects in an array take the most:
 * 264 bytes for each byte of the text with json-c 0.16.
 */
#define PARSE_MEMORY(length) (16384 + 300 * (length))

const char json_no_memory[] = "out of memory";

static const char not_json[] = "is not JSON (RFC 8259)";
static const char not_utf8[] = "is not UTF-8";
static const char has_nul[] = "contains a NUL (\\u0000)";
static const char not_object[] = "is not one JSON object";
static const char too_deep[] = "is nested over " TEXT_OF(JSON_DEPTH_MAX) " deep";

/* Each scan_ function moves at past what it has read; it returns NULL, or what is wrong. */
struct scan {
	const unsigned char *at;
	const unsigned char *end;
	int depth;         /* of the object or array around at */
	const char *name;  /* of the member that is searched for; NULL: none */
	const char *value; /* of that member */
	bool found;
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

/* Skips c if it comes next, and says whether it did. */
static bool
skip(struct scan *s, unsigned char c)
{
	if (s->at == s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

/*
 * A character of more than one byte (RFC 3629, section 4). The range of the second byte excludes
 * overlong forms, surrogates and code points above U+10FFFF.
 */
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

/* An escape, after its backslash. */
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

/*
 * Whether a string is word. scan_string() has accepted it; it is passed with both quotes. word is
 * ASCII without control characters.
 */
static bool
string_is(const unsigned char *from, const unsigned char *to, const char *word)
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
	bool wanted;

	if (wrong != NULL)
		return wrong;
	wanted = s->name != NULL && s->depth == 1 && string_is(name, s->at, s->name);
	skip_space(s);
	if (!skip(s, ':'))
		return not_json;
	skip_space(s);
	value = s->at;
	wrong = scan_value(s);
	if (wrong == NULL && wanted && *value == '"' && string_is(value, s->at, s->value))
		s->found = true;
	return wrong;
}

/* An object or an array, from its opening bracket. */
static const char *
scan_list(struct scan *s, unsigned char close, const char *(*scan_item)(struct scan *))
{
	s->at++;
	if (++s->depth > JSON_DEPTH_MAX)
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
scan_text(struct scan *s)
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

const char *
json_check_member(const char *text, size_t length, const char *name, const char *value, bool *found)
{
	const unsigned char *at = (const unsigned char *)text;
	struct scan s = { .at = at, .end = at + length, .name = name, .value = value };
	const char *wrong = scan_text(&s);

	*found = s.found;
	return wrong;
}

const char *
json_check(const char *text, size_t length)
{
	bool found;

	return json_check_member(text, length, NULL, NULL, &found);
}

/*
 * json-c loses members or crashes if memory runs out halfway: check first that there is enough.
 * Without volatile, clang removes the allocation and the check.
 */
static bool
has_memory(size_t length)
{
	void *volatile memory = malloc(PARSE_MEMORY(length));

	free(memory);
	return memory != NULL;
}

struct json_object *
json_parse(const char *text, size_t length, const char **wrong)
{
	struct json_tokener *tokener;
	struct json_object *object;

	assert(length <= INT_MAX);
	*wrong = json_check(text, length);
	if (*wrong != NULL)
		return NULL;
	*wrong = json_no_memory;
	if (!has_memory(length))
		return NULL;
	/* json-c counts the values in the innermost object as one more level. */
	tokener = json_tokener_new_ex(JSON_DEPTH_MAX + 1);
	if (tokener == NULL)
		return NULL;
	object = json_tokener_parse_ex(tokener, text, (int)length);
	json_tokener_free(tokener);
	return object;
}
