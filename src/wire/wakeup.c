/* SPDX-License-Identifier: ISC */
/*
 * wakeup: see wakeup.h. A repeated "event" member cannot hide a forged sync: json_check_member()
 * checks each of them.
 */
#include "wire/wakeup.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "wire/frame.h"

static const char too_long[] = "is over " TEXT_OF(WAKEUP_FRAME_MAX) " bytes as an event";
static const char is_forged[] = "has the event \"sync\", which is reserved for tpi-streamd";

const char *
wakeup_check(const char *payload, size_t length)
{
	const char *wrong;
	bool forged;

	/* An event is longer than its payload, so a payload that is too long need not be read. */
	if (length > WAKEUP_FRAME_MAX || frame_event_size(payload, length) > WAKEUP_FRAME_MAX)
		return too_long;
	wrong = json_check_member(payload, length, "event", "sync", &forged);
	if (wrong != NULL)
		return wrong;
	return forged ? is_forged : NULL;
}

/* Adds a member. Takes ownership of value, which is NULL if there was no memory for it. */
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

/* Serializes and releases object. NULL if it is not complete, or if there is no memory. */
static char *
serialize(struct json_object *object, bool complete)
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

	return serialize(object, object != NULL &&
	    add(object, "id", json_object_new_string(id)) &&
	    add(object, "event", json_object_new_string(event)));
}

char *
wakeup_item(const char *event, const char *member, int32_t item, int32_t project, int32_t target)
{
	struct json_object *object = json_object_new_object();

	return serialize(object, object != NULL &&
	    add(object, "event", json_object_new_string(event)) &&
	    add(object, member, json_object_new_int(item)) &&
	    add(object, "projectId", json_object_new_int(project)) &&
	    (target == 0 || add(object, "targetId", json_object_new_int(target))));
}
