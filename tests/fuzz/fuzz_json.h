/* SPDX-License-Identifier: ISC */
/*
 * fuzz_json: json-c at its strictest, against which two targets compare what the programs say.
 */
#ifndef TPI_FUZZ_JSON_H
#define TPI_FUZZ_JSON_H

#include <json-c/json.h>

#include "fuzz.h"
#include "wire/wakeup.h"

/* What json-c reads in strict mode, to the last byte; NULL where it refuses. */
static inline struct json_object *
fuzz_json_parse(const char *text, size_t length)
{
	/* json-c counts a level more: that of the values in the innermost object. */
	struct json_tokener *tokener = json_tokener_new_ex(WAKEUP_DEPTH_MAX + 1);
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

#endif
