/* SPDX-License-Identifier: ISC */
/*
 * app_api: the queries to the application, and its responses. See app_api.h.
 *
 * A response counts only in the documented form: whatever is not understood is APP_WRONG.
 */
#include "auth/app_api.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static const char not_json[] = "not a JSON object";
static const char not_expected[] = "JSON, but not of the documented form";

/* The queries about ids. is_present: those that are marked as deleted do not count. */
static const struct {
	const char *model;
	bool is_present;
} models[] = {
	[CHECK_PROJECTS] = { "projects", false },
	[CHECK_PRESENT_PROJECTS] = { "projects", true },
	[CHECK_TEST_RUNS] = { "testRuns", true },
	[CHECK_MILESTONES] = { "milestones", true },
};

const char *
app_check_name(enum app_check check)
{
	return check == CHECK_USER ? "user" : models[check].model;
}

bool
app_check_is_project(enum app_check check)
{
	return check == CHECK_PROJECTS || check == CHECK_PRESENT_PROJECTS;
}

void
app_api_target(char target[APP_TARGET_SIZE], enum app_check check, const int32_t *ids, int count)
{
	size_t used;
	int i;

	/* {"where":{"id":{"in":[7,8]},"isDeleted":false},"select":{"id":true}} */
	used = (size_t)snprintf(target, APP_TARGET_SIZE,
	    "/api/model/%s/findMany?q="
	    "%%7B%%22where%%22%%3A%%7B%%22id%%22%%3A%%7B%%22in%%22%%3A%%5B",
	    models[check].model);
	for (i = 0; i < count; i++)
		used += (size_t)snprintf(target + used, APP_TARGET_SIZE - used, "%s%d",
		    i > 0 ? "%2C" : "", (int)ids[i]);
	snprintf(target + used, APP_TARGET_SIZE - used,
	    "%%5D%%7D%s%%7D%%2C%%22select%%22%%3A%%7B%%22id%%22%%3Atrue%%7D%%7D",
	    models[check].is_present ? "%2C%22isDeleted%22%3Afalse" : "");
}

/* What the status alone decides; APP_YES: read the body. */
static enum app_answer
read_status(int status, const char **wrong)
{
	if (status == 401 || status == 403)
		return APP_NO;
	*wrong = "an HTTP status other than 200, 401 and 403";
	return status == 200 ? APP_YES : APP_WRONG;
}

/* NULL with *wrong set if the body is not a JSON object. */
static struct json_object *
read_object(const char *body, size_t length, const char **wrong)
{
	struct json_object *object = json_parse(body, length, wrong);

	if (object == NULL && *wrong != json_no_memory)
		*wrong = not_json;
	return object;
}

static bool
is_null(const char *body, size_t length)
{
	return length == 4 && memcmp(body, "null", 4) == 0;
}

/* Values that are false in JavaScript, where applications test user.id: null, "", 0 and false. */
static bool
is_falsy(struct json_object *value)
{
	/* json-c reports every object and array as false. */
	return !json_object_is_type(value, json_type_object) &&
	    !json_object_is_type(value, json_type_array) && !json_object_get_boolean(value);
}

/* user.id. True and NULL: the user is anonymous. False: it is not a string. */
static bool
session_user(struct json_object *session, struct json_object **id)
{
	struct json_object *user;

	*id = NULL;
	if (!json_object_object_get_ex(session, "user", &user) || user == NULL)
		return true;
	if (!json_object_is_type(user, json_type_object))
		return false;
	if (json_object_object_get_ex(user, "id", id) && !is_falsy(*id))
		return json_object_is_type(*id, json_type_string);
	*id = NULL;
	return true;
}

enum app_answer
app_api_read_session(int status, const char *body, size_t length, char user[CHANNEL_ID_MAX + 1],
    const char **wrong)
{
	enum app_answer answer = read_status(status, wrong);
	struct json_object *session, *id;

	/* For an anonymous user Auth.js sends null, NextAuth.js {}. */
	if (answer != APP_YES || is_null(body, length))
		return answer != APP_YES ? answer : APP_NO;
	session = read_object(body, length, wrong);
	if (session == NULL)
		return APP_WRONG;
	if (!session_user(session, &id)) {
		*wrong = not_expected;
		answer = APP_WRONG;
	} else if (id == NULL ||
	    !channel_id_valid(json_object_get_string(id), (size_t)json_object_get_string_len(id)))
		answer = APP_NO;
	else
		strcpy(user, json_object_get_string(id));
	json_object_put(session);
	return answer;
}

static int
compare_numbers(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return (x > y) - (x < y);
}

/* The ids of data[], sorted; *count gets how many. NULL if one is not a valid id. */
static int32_t *
read_ids(struct json_object *data, size_t *count)
{
	struct json_object *id;
	int32_t *ids;
	int64_t number;
	size_t i;

	*count = json_object_array_length(data);
	ids = malloc((*count + 1) * sizeof(*ids));
	if (ids == NULL)
		return NULL;
	for (i = 0; i < *count; i++) {
		if (!json_object_object_get_ex(json_object_array_get_idx(data, i), "id", &id) ||
		    !json_object_is_type(id, json_type_int))
			break;
		number = json_object_get_int64(id);
		if (number < 1 || number > INT32_MAX)
			break;
		ids[i] = (int32_t)number;
	}
	if (i < *count) {
		free(ids);
		return NULL;
	}
	qsort(ids, *count, sizeof(*ids), compare_numbers);
	return ids;
}

enum app_answer
app_api_read_ids(int status, const char *body, size_t length, int32_t *asked, int count,
    const char **wrong)
{
	enum app_answer answer = read_status(status, wrong);
	struct json_object *object, *data;
	int32_t *ids = NULL;
	size_t id_count;
	int i;

	if (answer == APP_NO)
		memset(asked, 0, (size_t)count * sizeof(*asked));
	if (answer != APP_YES)
		return answer;
	object = read_object(body, length, wrong);
	if (object == NULL)
		return APP_WRONG;
	if (json_object_object_get_ex(object, "data", &data) &&
	    json_object_is_type(data, json_type_array))
		ids = read_ids(data, &id_count);
	json_object_put(object);
	*wrong = not_expected;
	if (ids == NULL)
		return APP_WRONG;
	answer = APP_NO;
	for (i = 0; i < count; i++) {
		if (bsearch(&asked[i], ids, id_count, sizeof(*ids), compare_numbers) != NULL)
			answer = APP_YES;
		else
			asked[i] = 0;
	}
	free(ids);
	return answer;
}

void
app_api_read_reason(const char *body, size_t length, const struct credentials *c,
    char reason[APP_REASON_SIZE])
{
	struct json_object *object, *error, *text = NULL;
	const char *wrong;
	char *copy = NULL;

	reason[0] = '\0';
	object = read_object(body, length, &wrong);
	if (!json_object_object_get_ex(object, "error", &error))
		error = object;
	if (json_object_is_type(error, json_type_string))
		text = error;
	else
		json_object_object_get_ex(error, "message", &text);
	if (json_object_is_type(text, json_type_string))
		copy = strdup(json_object_get_string(text));
	json_object_put(object);
	if (copy == NULL)
		return;
	credentials_strike(c, copy);
	snprintf(reason, APP_REASON_SIZE, "%s", copy);
	free(copy);
}
