/* SPDX-License-Identifier: ISC */
/*
 * batch: see batch.h. Options and lines both go through batch_make(), so the same rules apply to
 * them. It returns only payloads that tpi-streamd would send.
 */
#include "publish/batch.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "wire/revocation.h"
#include "wire/wakeup.h"

#define NUMBER_ALLOWED "a whole number from 1 to 2147483647"

enum {
	OF_NOTIFICATION = 1 << BATCH_NOTIFICATION,
	OF_ISSUE = 1 << BATCH_ISSUE,
	OF_TEST_RUN = 1 << BATCH_TEST_RUN,
	OF_MILESTONE = 1 << BATCH_MILESTONE,
	OF_ITEM = OF_ISSUE | OF_TEST_RUN | OF_MILESTONE,
	OF_ALL = OF_NOTIFICATION | OF_ITEM
};

enum value_type { VALUE_TEXT, VALUE_FLAG, VALUE_NUMBER };

static const struct {
	enum json_type json;
	const char *allowed;
} value_types[] = {
	[VALUE_TEXT] = { json_type_string, "a string" },
	[VALUE_FLAG] = { json_type_boolean, "true or false" },
	[VALUE_NUMBER] = { json_type_int, NUMBER_ALLOWED },
};

/* The members of a line, except "stream". */
static const struct member {
	const char *name;
	enum value_type type;
	unsigned streams; /* that have this member */
	size_t offset;    /* in struct batch_request */
} members[] = {
	{ "tenant", VALUE_TEXT, OF_ALL, offsetof(struct batch_request, tenant) },
	{ "event", VALUE_TEXT, OF_ALL, offsetof(struct batch_request, event) },
	{ "user", VALUE_TEXT, OF_NOTIFICATION, offsetof(struct batch_request, user) },
	{ "broadcast", VALUE_FLAG, OF_NOTIFICATION, offsetof(struct batch_request, broadcast) },
	{ "id", VALUE_TEXT, OF_NOTIFICATION, offsetof(struct batch_request, id) },
	{ "project", VALUE_NUMBER, OF_ITEM, offsetof(struct batch_request, project) },
	{ "issue", VALUE_NUMBER, OF_ISSUE, offsetof(struct batch_request, item) },
	{ "run", VALUE_NUMBER, OF_TEST_RUN, offsetof(struct batch_request, item) },
	{ "milestone", VALUE_NUMBER, OF_MILESTONE, offsetof(struct batch_request, item) },
	{ "target", VALUE_NUMBER, OF_TEST_RUN | OF_MILESTONE, offsetof(struct batch_request, target) },
};

struct reason {
	char *text;
	size_t size;
};

/* Writes the reason. Returns false, for the caller to return. */
static bool __attribute__((format(printf, 2, 3)))
refuse(const struct reason *reason, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(reason->text, reason->size, format, ap);
	va_end(ap);
	errno = EINVAL;
	return false;
}

static bool
refuse_no_memory(const struct reason *reason)
{
	refuse(reason, "out of memory");
	errno = ENOMEM;
	return false;
}

static bool
check_id(const struct batch_request *req, const char *name, const char *id,
    const struct reason *reason)
{
	if (channel_id_valid(id, strlen(id)))
		return true;
	return refuse(reason, "%s%s %.40s: must be " CHANNEL_ID_ALLOWED, req->dashes, name, id);
}

static bool
check_notification(const struct batch_request *req, const struct reason *reason)
{
	if ((req->user != NULL) == req->broadcast)
		return refuse(reason, "exactly one of %suser and %sbroadcast is required",
		    req->dashes, req->dashes);
	if (req->id[0] == '\0')
		return refuse(reason, "%sid: must not be empty", req->dashes);
	return req->user == NULL || check_id(req, "user", req->user, reason);
}

static bool
check_revocation(const struct batch_request *req, const struct reason *reason)
{
	if ((req->user != NULL) == (req->project != 0))
		return refuse(reason, "exactly one of %suser and %sproject is required",
		    req->dashes, req->dashes);
	return req->user == NULL || check_id(req, "user", req->user, reason);
}

/* Where to write the next channel of the item. */
static char *
add_channel(struct batch_item *item)
{
	return item->channels[item->channel_count++];
}

static void
build_notification(const struct batch_request *req, struct batch_item *item)
{
	const char *event = req->broadcast ? "SYSTEM_ANNOUNCEMENT" : "notification";

	if (req->broadcast)
		channel_name_broadcast(add_channel(item), req->tenant);
	else
		channel_name_user(add_channel(item), req->tenant, req->user);
	item->payload = wakeup_notification(req->id, req->event != NULL ? req->event : event);
}

/*
 * Issues, test runs and milestones: the option and the member with the id, and the default event.
 */
static const struct kind {
	const char *option, *member, *event;
} kinds[] = {
	[BATCH_ISSUE] = { "issue", "issueId", "issue-updated" },
	[BATCH_TEST_RUN] = { "run", "runId", "test_run.state_changed" },
	[BATCH_MILESTONE] = { "milestone", "milestoneId", "milestone.updated" },
};

static bool
check_item(const struct batch_request *req, const struct reason *reason)
{
	if (req->project == 0 || req->item == 0)
		return refuse(reason, "%s%s is required", req->dashes,
		    req->project == 0 ? "project" : kinds[req->stream].option);
	return true;
}

static void
build_item(const struct batch_request *req, struct batch_item *item)
{
	const struct kind *k = &kinds[req->stream];

	if (req->stream == BATCH_ISSUE)
		channel_name_project(add_channel(item), req->prefix, req->tenant, req->project);
	else if (req->stream == BATCH_TEST_RUN) {
		channel_test_run(add_channel(item), req->tenant, req->item);
		channel_project_test_runs(add_channel(item), req->tenant, req->project);
	} else {
		channel_milestone(add_channel(item), req->tenant, req->item);
		channel_project_milestones(add_channel(item), req->tenant, req->project);
	}
	item->payload = wakeup_item(req->event != NULL ? req->event : k->event, k->member,
	    req->item, req->project, req->target);
}

static void
build_revocation(const struct batch_request *req, struct batch_item *item)
{
	struct revocation r = { .project = req->project };

	if (req->user != NULL)
		strcpy(r.user, req->user);
	channel_name_revoke(add_channel(item), req->tenant);
	item->payload = revocation_payload(&r);
}

static const struct {
	const char *name; /* in a line; NULL: cannot be in one */
	bool (*check)(const struct batch_request *, const struct reason *);
	void (*build)(const struct batch_request *, struct batch_item *);
} streams[] = {
	[BATCH_NOTIFICATION] = { "notification", check_notification, build_notification },
	[BATCH_ISSUE] = { "issue", check_item, build_item },
	[BATCH_TEST_RUN] = { "test-run", check_item, build_item },
	[BATCH_MILESTONE] = { "milestone", check_item, build_item },
	[BATCH_REVOCATION] = { NULL, check_revocation, build_revocation },
};
#define STREAM_COUNT (sizeof(streams) / sizeof(streams[0]))

bool
batch_make(const struct batch_request *req, struct batch_item *item, char *error, size_t error_size)
{
	const struct reason reason = { error, error_size };
	const char *wrong;

	memset(item, 0, sizeof(*item));
	if (!check_id(req, "tenant", req->tenant, &reason))
		return false;
	if (req->event != NULL && req->event[0] == '\0')
		return refuse(&reason, "%sevent: must not be empty", req->dashes);
	if (!streams[req->stream].check(req, &reason))
		return false;
	strcpy(item->tenant, req->tenant);
	streams[req->stream].build(req, item);
	if (item->payload == NULL)
		return refuse_no_memory(&reason);
	wrong = wakeup_check(item->payload, strlen(item->payload));
	if (wrong == NULL)
		return true;
	free(item->payload);
	item->payload = NULL;
	return refuse(&reason, "the payload %s", wrong);
}

static bool
read_stream(struct batch_request *req, struct json_object *object, const struct reason *reason)
{
	struct json_object *value;

	if (json_object_object_get_ex(object, "stream", &value) &&
	    json_object_is_type(value, json_type_string)) {
		for (unsigned i = 0; i < STREAM_COUNT; i++) {
			if (streams[i].name != NULL &&
			    strcmp(json_object_get_string(value), streams[i].name) == 0) {
				req->stream = (enum batch_stream)i;
				return true;
			}
		}
	}
	return refuse(reason, "stream: must be " BATCH_STREAMS_ALLOWED);
}

/* json-c returns the nearest int64_t for a number that does not fit. */
static bool
read_number(int32_t *number, struct json_object *value)
{
	int64_t n = json_object_get_int64(value);

	*number = (int32_t)n;
	return n >= 1 && n <= INT32_MAX;
}

static bool
read_member(struct batch_request *req, const char *name, struct json_object *value,
    const struct reason *reason)
{
	const struct member *m = NULL;
	void *field;
	bool good;

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		if (strcmp(members[i].name, name) == 0 && members[i].streams & 1u << req->stream)
			m = &members[i];
	}
	if (m == NULL)
		return refuse(reason, "%.40s: not allowed with the stream \"%s\"", name,
		    streams[req->stream].name);
	good = json_object_is_type(value, value_types[m->type].json);
	field = (char *)req + m->offset;
	if (good) {
		switch (m->type) {
		case VALUE_TEXT:
			*(const char **)field = json_object_get_string(value);
			break;
		case VALUE_FLAG:
			*(bool *)field = json_object_get_boolean(value);
			break;
		case VALUE_NUMBER:
			good = read_number(field, value);
			break;
		}
	}
	return good || refuse(reason, "%s: must be %s", name, value_types[m->type].allowed);
}

static bool
read_object(struct batch_request *req, struct json_object *object, const struct reason *reason)
{
	if (!read_stream(req, object, reason))
		return false;
	json_object_object_foreach(object, name, value) {
		if (strcmp(name, "stream") != 0 && !read_member(req, name, value, reason))
			return false;
	}
	return true;
}

bool
batch_parse(const char *line, size_t length, const struct batch_request *defaults,
    struct batch_item *item, char *error, size_t error_size)
{
	const struct reason reason = { error, error_size };
	const char *wrong;
	struct batch_request req = *defaults;
	struct json_object *object = json_parse(line, length, &wrong);
	bool good;

	memset(item, 0, sizeof(*item));
	if (object == NULL)
		return wrong == json_no_memory ? refuse_no_memory(&reason)
					       : refuse(&reason, "%s", wrong);
	good = read_object(&req, object, &reason);
	if (good && req.only_tenant && strcmp(req.tenant, defaults->tenant) != 0)
		good = refuse(&reason, "tenant %.40s: only %s is allowed", req.tenant,
		    defaults->tenant);
	good = good && batch_make(&req, item, error, error_size);
	json_object_put(object);
	return good;
}
