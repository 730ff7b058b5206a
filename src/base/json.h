/* SPDX-License-Identifier: ISC */
/*
 * json: strict JSON. json-c accepts more than JSON and hides repeated members, so a scanner checks
 * each text first. Pure and thread-safe.
 */
#ifndef TPI_BASE_JSON_H
#define TPI_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>

#define JSON_DEPTH_MAX 32

struct json_object; /* json-c's */

/* The only error that is not the text's fault. */
extern const char json_no_memory[];

/*
 * Returns NULL if text is one JSON object (RFC 8259; white space around it is allowed) in UTF-8,
 * without \u0000, nested at most JSON_DEPTH_MAX deep, where the object itself is level 1. Otherwise
 * returns what is wrong: a static text that completes "the payload ...", such as "is not UTF-8".
 */
const char *json_check(const char *text, size_t length);

/*
 * The same. *found says whether a member with this name in the object itself, not in one inside it,
 * is this string, however it is spelled, and even if the name is repeated. It is valid only if NULL
 * is returned. name and value are ASCII without control characters.
 */
const char *json_check_member(const char *text, size_t length, const char *name,
    const char *value, bool *found);

/*
 * Parses a text that passes json_check(). The caller releases the result with json_object_put().
 * NULL: *wrong is the result of json_check(), or json_no_memory. length is at most INT_MAX.
 */
struct json_object *json_parse(const char *text, size_t length, const char **wrong);

#endif
