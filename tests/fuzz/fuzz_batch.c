/* SPDX-License-Identifier: ISC */
/*
 * fuzz_batch: a line of `tpi-publish batch` (batch.h). A good line results in the channels that
 * channel_name.c builds from the ids in the line or the defaults, and in a payload that
 * wakeup_check() accepts and that has the values of the line. A bad line results in an error and
 * nothing to free.
 */
#include "fuzz.h"

#include <errno.h>
#include <json-c/json.h>

#include "publish/batch.h"
#include "wire/wakeup.h"

#define PREFIX "issues"

static const struct batch_request defaults = {
	.tenant = "default",
	.id = "00000000-0000-4000-8000-000000000000",
	.prefix = PREFIX,
	.dashes = "",
};

/* The value of a member of the line as text, or otherwise if there is none. */
static const char *
member(struct json_object *line, const char *name, const char *otherwise)
{
	struct json_object *value;

	return json_object_object_get_ex(line, name, &value) ? json_object_get_string(value)
							     : otherwise;
}

static void
check_member(struct json_object *payload, const char *name, const char *text)
{
	struct json_object *value;

	REQUIRE(json_object_object_get_ex(payload, name, &value));
	REQUIRE(text != NULL && strcmp(json_object_get_string(value), text) == 0);
}

/* The id in a channel is valid and the one in the line. */
static void
check_id(const char *id, const char *expected)
{
	REQUIRE(id != NULL && expected != NULL && strcmp(id, expected) == 0);
	REQUIRE(channel_id_valid(id, strlen(id)) && strlen(id) <= 255);
	for (; *id != '\0'; id++)
		REQUIRE(*id > 0x20 && *id < 0x7f && strchr(":*?[]\\\"", *id) == NULL);
}

static void
check_notification(struct json_object *line, struct json_object *payload, char *parts,
    const char *tenant, char expected[CHANNEL_NAME_SIZE])
{
	const char *kind = strsep(&parts, ":");
	bool broadcast = strcmp(kind, "broadcast") == 0;

	if (broadcast) {
		REQUIRE(parts == NULL && strcmp(member(line, "broadcast", ""), "true") == 0);
		channel_name_broadcast(expected, tenant);
	} else {
		REQUIRE(strcmp(kind, "user") == 0);
		check_id(parts, member(line, "user", NULL));
		channel_name_user(expected, tenant, parts);
	}
	REQUIRE(json_object_object_length(payload) == 2);
	check_member(payload, "id", member(line, "id", defaults.id));
	check_member(payload, "event",
	    member(line, "event", broadcast ? "SYSTEM_ANNOUNCEMENT" : "notification"));
}

/* Issues, test runs and milestones: the members of the line and of the payload. */
static const struct kind {
	const char *stream, *option, *member, *event;
} kinds[] = {
	{ "issue", "issue", "issueId", "issue-updated" },
	{ "test-run", "run", "runId", "test_run.state_changed" },
	{ "milestone", "milestone", "milestoneId", "milestone.updated" },
};

static int32_t
number(const char *text)
{
	int32_t n;

	REQUIRE(channel_number_parse(text, strlen(text), &n));
	return n;
}

static void
check_item(const struct batch_item *item, struct json_object *line, struct json_object *payload)
{
	const char *stream = member(line, "stream", ""), *target = member(line, "target", NULL);
	const struct kind *k = kinds;
	char expected[CHANNEL_NAME_SIZE] = "", second[CHANNEL_NAME_SIZE] = "";
	int32_t project, id;

	while (strcmp(stream, k->stream) != 0)
		REQUIRE(++k < kinds + sizeof(kinds) / sizeof(kinds[0]));
	project = number(member(line, "project", ""));
	id = number(member(line, k->option, ""));
	if (k == kinds)
		channel_name_project(expected, PREFIX, item->tenant, project);
	else if (k == kinds + 1) {
		channel_name_test_run(expected, item->tenant, id);
		channel_name_project_test_runs(second, item->tenant, project);
	} else {
		channel_name_milestone(expected, item->tenant, id);
		channel_name_project_milestones(second, item->tenant, project);
	}
	REQUIRE(item->channel_count == (k == kinds ? 1 : 2));
	REQUIRE(strcmp(item->channels[0], expected) == 0);
	REQUIRE(k == kinds || strcmp(item->channels[1], second) == 0);
	REQUIRE(json_object_object_length(payload) == (target != NULL ? 4 : 3));
	check_member(payload, "projectId", member(line, "project", ""));
	check_member(payload, k->member, member(line, k->option, ""));
	check_member(payload, "event", member(line, "event", k->event));
	if (target != NULL)
		check_member(payload, "targetId", target);
}

static void
check_good(const struct batch_item *item, const char *text, size_t length)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *line = json_tokener_parse_ex(tokener, text, (int)length);
	struct json_object *payload = json_tokener_parse(item->payload);
	char parts[CHANNEL_NAME_SIZE], expected[CHANNEL_NAME_SIZE] = "", *at = parts;

	REQUIRE(wakeup_check(item->payload, strlen(item->payload)) == NULL);
	REQUIRE(json_object_is_type(line, json_type_object));
	REQUIRE(json_object_is_type(payload, json_type_object));
	for (int i = 0; i < item->channel_count; i++)
		REQUIRE(strnlen(item->channels[i], CHANNEL_NAME_SIZE) < CHANNEL_NAME_SIZE);
	check_id(item->tenant, member(line, "tenant", defaults.tenant));
	if (strcmp(member(line, "stream", ""), "notification") == 0) {
		strcpy(parts, item->channels[0]);
		REQUIRE(strcmp(strsep(&at, ":"), "notifications") == 0 && at != NULL);
		REQUIRE(strcmp(strsep(&at, ":"), "tenant") == 0 && at != NULL);
		REQUIRE(strcmp(strsep(&at, ":"), item->tenant) == 0 && at != NULL);
		check_notification(line, payload, at, item->tenant, expected);
		REQUIRE(strcmp(item->channels[0], expected) == 0 && item->channel_count == 1);
	} else
		check_item(item, line, payload);
	json_object_put(payload);
	json_object_put(line);
	json_tokener_free(tokener);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
	size_t length = end != NULL ? (size_t)(end - data) : size;
	char *line = fuzz_memory(length);
	struct batch_item item;
	struct error error;

	memcpy(line, data, length);
	memset(&error, 'x', sizeof(error));
	if (batch_parse(line, length, &defaults, &item, &error)) {
		check_good(&item, line, length);
		free(item.payload);
	} else {
		REQUIRE(item.payload == NULL && errno == EINVAL);
		REQUIRE(fuzz_is_line(error.text));
	}
	free(line);
	return 0;
}
