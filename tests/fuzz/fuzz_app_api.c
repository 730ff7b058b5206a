/* SPDX-License-Identifier: ISC */
/*
 * fuzz_app_api: reading responses of the application (app_api.h). They identify a user or grant an
 * id only if json-c's strict parser finds it at its place in the same body. 401 and 403 deny, and
 * any other status but 200 is not an answer, whatever the body is. The reason of a refusal is the
 * beginning of a string that json-c finds at its place.
 */
#include "fuzz.h"
#include "fuzz_json.h"

#include <ctype.h>
#include <json-c/json.h>

#include "auth/app_api.h"
#include "wire/channel_name.h"

#define ASKED 8

static struct json_object *
member(struct json_object *object, const char *name)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(object, name, &value);
	return value;
}

/* Only 200 can grant; 401 and 403 deny. */
static enum app_answer
expect_status(int status, enum app_answer at_200)
{
	return status == 200 ? at_200 : status == 401 || status == 403 ? APP_NO : APP_WRONG;
}

/* null, "", 0 and false are not an id. */
static bool
is_falsy(struct json_object *id)
{
	switch (json_object_get_type(id)) {
	case json_type_boolean:
		return !json_object_get_boolean(id);
	case json_type_int:
	case json_type_double:
		return !(json_object_get_double(id) < 0 || json_object_get_double(id) > 0);
	case json_type_string:
		return json_object_get_string_len(id) == 0;
	default:
		return id == NULL;
	}
}

static void
check_session(const char *body, size_t length)
{
	static const int statuses[] = { 0, 204, 302, 401, 403, 500 };
	char *user = fuzz_memory(CHANNEL_ID_MAX + 1);
	const char *wrong = NULL;
	enum app_answer answer = app_api_read_session(200, body, length, user, &wrong);
	struct json_object *session = fuzz_json_parse(body, length), *id;

	id = member(member(session, "user"), "id");
	if (answer == APP_YES) {
		REQUIRE(json_check(body, length) == NULL && session != NULL);
		REQUIRE(channel_id_valid(user, strlen(user)));
		REQUIRE(json_object_is_type(id, json_type_string));
		REQUIRE(strcmp(json_object_get_string(id), user) == 0);
	} else if (answer == APP_NO) {
		REQUIRE(session != NULL || (length == 4 && memcmp(body, "null", 4) == 0));
		REQUIRE(is_falsy(id) || json_object_is_type(id, json_type_string));
		REQUIRE(is_falsy(id) || !channel_id_valid(json_object_get_string(id),
		    (size_t)json_object_get_string_len(id)));
	} else {
		REQUIRE(fuzz_is_line(wrong));
		REQUIRE(json_check(body, length) != NULL || id == NULL ||
		    (!is_falsy(id) && !json_object_is_type(id, json_type_string)));
	}
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		REQUIRE(app_api_read_session(statuses[i], body, length, user, &wrong) ==
		    expect_status(statuses[i], answer));
	json_object_put(session);
	free(user);
}

/* Replaces some of the ids by the last few numbers in the text. */
static void
collect(const char *text, size_t length, int32_t projects[ASKED])
{
	unsigned n = 0;

	for (size_t i = 0, k; i < length; i = k + 1) {
		for (k = i; k < length && isdigit((unsigned char)text[k]); k++)
			continue;
		if (channel_number_parse(text + i, k - i, &projects[n % (ASKED - 3)]))
			n++;
	}
}

/* Whether an object in the array has this id. */
static bool
has_id(struct json_object *data, int32_t project)
{
	for (size_t i = 0; i < json_object_array_length(data); i++) {
		struct json_object *id = member(json_object_array_get_idx(data, i), "id");

		if (json_object_is_type(id, json_type_int) && json_object_get_int64(id) == project)
			return true;
	}
	return false;
}

static void
check_projects(const char *body, size_t length)
{
	static const int statuses[] = { 0, 204, 302, 401, 403, 500 };
	int32_t asked[ASKED] = { 1, 2, 3, 4, 5, 7, 8, INT32_MAX }, left[ASKED];
	const char *wrong = NULL;
	enum app_answer answer;
	struct json_object *object = fuzz_json_parse(body, length), *data = member(object, "data");
	bool any = false;

	collect(body, length, asked);
	memcpy(left, asked, sizeof(left));
	answer = app_api_read_ids(200, body, length, left, ASKED, &wrong);
	if (answer == APP_WRONG) {
		REQUIRE(fuzz_is_line(wrong));
	} else {
		REQUIRE(json_check(body, length) == NULL);
		REQUIRE(json_object_is_type(data, json_type_array));
		for (int i = 0; i < ASKED; i++) {
			REQUIRE(left[i] == 0 || left[i] == asked[i]);
			REQUIRE((left[i] != 0) == has_id(data, asked[i]));
			any |= left[i] != 0;
		}
		REQUIRE(any == (answer == APP_YES));
	}
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		memcpy(left, asked, sizeof(left));
		REQUIRE(app_api_read_ids(statuses[i], body, length, left, ASKED, &wrong) ==
		    expect_status(statuses[i], answer));
		for (int k = 0; k < ASKED; k++)
			REQUIRE(left[k] == 0 || expect_status(statuses[i], answer) == APP_WRONG);
	}
	json_object_put(object);
}

static void
check_reason(const char *body, size_t length)
{
	static const struct credentials none = { .size = 0 };
	char *reason = fuzz_memory(APP_REASON_SIZE);
	struct json_object *object = fuzz_json_parse(body, length), *error = member(object, "error");
	struct json_object *text = json_object_is_type(error, json_type_string) ? error :
	    member(json_object_object_get_ex(object, "error", NULL) ? error : object, "message");

	app_api_read_reason(body, length, &none, reason);
	REQUIRE(strlen(reason) < APP_REASON_SIZE);
	REQUIRE(reason[0] == '\0' || (json_object_is_type(text, json_type_string) &&
	    strncmp(json_object_get_string(text), reason, strlen(reason)) == 0));
	json_object_put(object);
	free(reason);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_session((const char *)data, size);
	check_projects((const char *)data, size);
	check_reason((const char *)data, size);
	return 0;
}
