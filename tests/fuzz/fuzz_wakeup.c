/* SPDX-License-Identifier: ISC */
/*
 * fuzz_wakeup: the check of payloads (wakeup.h). It accepts what json_check_member() accepts,
 * unless a member "event" is "sync" or the event exceeds the limit of a frame. Payloads that are
 * built from any event and id are accepted and read back unchanged, or refused for a reason.
 */
#include "fuzz.h"
#include "fuzz_json.h"

#include <json-c/json.h>

#include "wire/frame.h"
#include "wire/wakeup.h"

/* White space after the object is allowed, up to the limit of the frame. */
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

/* Takes ownership of payload. */
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
		REQUIRE(!fuzz_is_utf8((const uint8_t *)text, strlen(text)) ||
		    (strcmp(name, "event") == 0 && strcmp(text, "sync") == 0) ||
		    strlen(payload) > WAKEUP_FRAME_MAX - strlen("data: \n\n"));
	}
	free(payload);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *payload = (const char *)data, *wrong = wakeup_check(payload, size), *wrong_json;
	bool too_long = frame_event_size(payload, size) > WAKEUP_FRAME_MAX, forged;
	char *text;

	wrong_json = json_check_member(payload, size, "event", "sync", &forged);
	REQUIRE((wrong == NULL) == (!too_long && wrong_json == NULL && !forged));
	if (wrong != NULL)
		REQUIRE(fuzz_is_line(wrong));
	else if (size % 8 == 0)
		check_limit(payload, size);

	text = fuzz_text(data, size);
	check_built(wakeup_notification(text, "notification"), "id", text);
	check_built(wakeup_notification("n1", text), "event", text);
	check_built(wakeup_item(text, "issueId", INT32_MAX, 1, 0), "event", text);
	free(text);
	return 0;
}
