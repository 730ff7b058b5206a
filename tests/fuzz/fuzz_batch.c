/*
 * fuzz_batch: a line of `tpi-publish batch` (batch.h). A good line has a channel that only
 * channel.c could have made, of valid ids that the line or the standard names, and a payload that
 * wakeup_check() accepts and that says what the line says. A bad one leaves an error and nothing
 * to free.
 */
#include "fuzz.h"

#include <errno.h>
#include <json-c/json.h>

#include "batch.h"
#include "wakeup.h"

#define PREFIX "issues"

static const struct batch_wish standard = {
	.tenant = "default",
	.id = "00000000-0000-4000-8000-000000000000",
	.prefix = PREFIX,
	.dashes = "",
};

/* What stands for a member of the line, or the standard where it has none. */
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

/* The ids of a channel: no id holds a ':'. */
static void
check_id(const char *id, const char *said)
{
	REQUIRE(id != NULL && said != NULL && strcmp(id, said) == 0);
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
		channel_broadcast(expected, tenant);
	} else {
		REQUIRE(strcmp(kind, "user") == 0);
		check_id(parts, member(line, "user", NULL));
		channel_user(expected, tenant, parts);
	}
	REQUIRE(json_object_object_length(payload) == 2);
	check_member(payload, "id", member(line, "id", standard.id));
	check_member(payload, "event",
	    member(line, "event", broadcast ? "SYSTEM_ANNOUNCEMENT" : "notification"));
}

static void
check_issue(struct json_object *line, struct json_object *payload, char *parts, const char *tenant,
    char expected[CHANNEL_NAME_SIZE])
{
	int32_t project, issue;
	const char *said = member(line, "issue", "");

	REQUIRE(strcmp(strsep(&parts, ":"), "project") == 0 && parts != NULL);
	REQUIRE(channel_number_parse(parts, strlen(parts), &project));
	REQUIRE(channel_number_parse(said, strlen(said), &issue));
	REQUIRE(strcmp(parts, member(line, "project", "")) == 0);
	channel_project(expected, PREFIX, tenant, project);
	REQUIRE(json_object_object_length(payload) == 3);
	check_member(payload, "projectId", parts);
	check_member(payload, "issueId", said);
	check_member(payload, "event", member(line, "event", "issue-updated"));
}

static void
check_good(const struct batch_item *item, const char *text, size_t length)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *line = json_tokener_parse_ex(tokener, text, (int)length);
	struct json_object *payload = json_tokener_parse(item->payload);
	char parts[CHANNEL_NAME_SIZE], expected[CHANNEL_NAME_SIZE] = "", *at = parts;
	const char *kind, *tenant;

	REQUIRE(wakeup_check(item->payload, strlen(item->payload)) == NULL);
	REQUIRE(json_object_is_type(line, json_type_object));
	REQUIRE(json_object_is_type(payload, json_type_object));
	REQUIRE(strnlen(item->channel, CHANNEL_NAME_SIZE) < CHANNEL_NAME_SIZE);
	strcpy(parts, item->channel);
	kind = strsep(&at, ":");
	REQUIRE(strcmp(strsep(&at, ":"), "tenant") == 0 && at != NULL);
	tenant = strsep(&at, ":");
	check_id(tenant, member(line, "tenant", standard.tenant));
	REQUIRE(strcmp(tenant, item->tenant) == 0 && at != NULL);
	if (strcmp(kind, "notifications") == 0) {
		REQUIRE(strcmp(member(line, "stream", ""), "notification") == 0);
		check_notification(line, payload, at, tenant, expected);
	} else {
		REQUIRE(strcmp(kind, PREFIX) == 0);
		REQUIRE(strcmp(member(line, "stream", ""), "issue") == 0);
		check_issue(line, payload, at, tenant, expected);
	}
	REQUIRE(strcmp(item->channel, expected) == 0);
	json_object_put(payload);
	json_object_put(line);
	json_tokener_free(tokener);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
	size_t length = end != NULL ? (size_t)(end - data) : size;
	char *line = fuzz_memory(length), error[BATCH_ERROR_SIZE];
	struct batch_item item;

	memcpy(line, data, length);
	memset(error, 'x', sizeof(error));
	if (batch_parse(line, length, &standard, &item, error, sizeof(error))) {
		check_good(&item, line, length);
		free(item.payload);
	} else {
		REQUIRE(item.payload == NULL && errno == EINVAL);
		REQUIRE(error[0] != '\0' && strnlen(error, sizeof(error)) < sizeof(error));
	}
	free(line);
	return 0;
}
