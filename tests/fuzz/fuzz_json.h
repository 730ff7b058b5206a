/* SPDX-License-Identifier: ISC */
/*
 * fuzz_json: a second opinion on JSON and UTF-8, for the targets that read JSON.
 */
#ifndef TPI_FUZZ_JSON_H
#define TPI_FUZZ_JSON_H

#include <json-c/json.h>

#include "fuzz.h"
#include "base/json.h"

/* What json-c reads in strict mode; NULL if it refuses the text or does not consume all of it. */
static inline struct json_object *
fuzz_json_parse(const char *text, size_t length)
{
	/* json-c counts the values in the innermost object as one more level. */
	struct json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH_MAX + 1);
	struct json_object *object;

	REQUIRE(tokener != NULL);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	object = json_tokener_parse_ex(tokener, text, (int)length);
	if (json_tokener_get_error(tokener) != json_tokener_success ||
	    json_tokener_get_parse_end(tokener) != length) {
		json_object_put(object);
		object = NULL;
	}
	json_tokener_free(tokener);
	return object;
}

/* Decides by the code point, where json.c decides by ranges of bytes. */
static inline bool
fuzz_is_utf8(const uint8_t *at, size_t left)
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

#endif
