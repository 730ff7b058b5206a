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
	{ "target", VALUE_NUMBER, OF_TEST_RUN | OF_MILESTONE,
	    offsetof(struct batch_request, target) },
};

/* error_set() with errno. Always returns false. */
static bool __attribute__((format(printf, 2, 3)))
refuse(struct error *error, const char *format, ...)
{
	char text[ERROR_SIZE];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	error_set(error, "%s", text);
	errno = EINVAL;
	return false;
}

static bool
refuse_no_memory(struct error *error)
{
	error_set(error, "out of memory");
	errno = ENOMEM;
	return false;
}

static bool
check_id(const struct batch_request *req, const char *name, const char *id,
    struct error *error)
{
	if (channel_id_valid(id, strlen(id)))
		return true;
	return refuse(error, "%s%s %.40s: must be " CHANNEL_ID_ALLOWED, req->dashes, name, id);
}

static bool
check_notification(const struct batch_request *req, struct error *error)
{
	if ((req->user != NULL) == req->broadcast)
		return refuse(error, "exactly one of %suser and %sbroadcast is required",
		    req->dashes, req->dashes);
	if (req->id[0] == '\0')
		return refuse(error, "%sid: must not be empty", req->dashes);
	return req->user == NULL || check_id(req, "user", req->user, error);
}

static bool
check_revocation(const struct batch_request *req, struct error *error)
{
	if ((req->user != NULL) == (req->project != 0))
		return refuse(error, "exactly one of %suser and %sproject is required",
		    req->dashes, req->dashes);
	return req->user == NULL || check_id(req, "user", req->user, error);
}

/* Returns where to write the item's next channel. */
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
 * For issues, test runs and milestones: the option with the id, the payload's member for it, and
 * the default event.
 */
static const struct kind {
	const char *option, *member, *event;
} kinds[] = {
	[BATCH_ISSUE] = { "issue", "issueId", "issue-updated" },
	[BATCH_TEST_RUN] = { "run", "runId", "test_run.state_changed" },
	[BATCH_MILESTONE] = { "milestone", "milestoneId", "milestone.updated" },
};

static bool
check_item(const struct batch_request *req, struct error *error)
{
	if (req->project == 0 || req->item == 0)
		return refuse(error, "%s%s is required", req->dashes,
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
		channel_name_test_run(add_channel(item), req->tenant, req->item);
		channel_name_project_test_runs(add_channel(item), req->tenant, req->project);
	} else {
		channel_name_milestone(add_channel(item), req->tenant, req->item);
		channel_name_project_milestones(add_channel(item), req->tenant, req->project);
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
	bool (*check)(const struct batch_request *, struct error *);
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
batch_make(const struct batch_request *req, struct batch_item *item, struct error *error)
{
	const char *wrong;

	memset(item, 0, sizeof(*item));
	if (!check_id(req, "tenant", req->tenant, error))
		return false;
	if (req->event != NULL && req->event[0] == '\0')
		return refuse(error, "%sevent: must not be empty", req->dashes);
	if (!streams[req->stream].check(req, error))
		return false;
	strcpy(item->tenant, req->tenant);
	streams[req->stream].build(req, item);
	if (item->payload == NULL)
		return refuse_no_memory(error);
	wrong = wakeup_check(item->payload, strlen(item->payload));
	if (wrong == NULL)
		return true;
	free(item->payload);
	item->payload = NULL;
	return refuse(error, "the payload %s", wrong);
}

static bool
read_stream(struct batch_request *req, struct json_object *object, struct error *error)
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
	return refuse(error, "stream: must be " BATCH_STREAMS_ALLOWED);
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
    struct error *error)
{
	const struct member *m = NULL;
	void *field;
	bool good;

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		if (strcmp(members[i].name, name) == 0 && members[i].streams & 1u << req->stream)
			m = &members[i];
	}
	if (m == NULL)
		return refuse(error, "%.40s: not allowed with the stream \"%s\"", name,
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
	return good || refuse(error, "%s: must be %s", name, value_types[m->type].allowed);
}

static bool
read_object(struct batch_request *req, struct json_object *object, struct error *error)
{
	if (!read_stream(req, object, error))
		return false;
	json_object_object_foreach(object, name, value) {
		if (strcmp(name, "stream") != 0 && !read_member(req, name, value, error))
			return false;
	}
	return true;
}

bool
batch_parse(const char *line, size_t length, const struct batch_request *defaults,
    struct batch_item *item, struct error *error)
{
	const char *wrong;
	struct batch_request req = *defaults;
	struct json_object *object = json_parse(line, length, &wrong);
	bool good;

	memset(item, 0, sizeof(*item));
	if (object == NULL)
		return wrong == json_no_memory ? refuse_no_memory(error)
					       : refuse(error, "%s", wrong);
	good = read_object(&req, object, error);
	if (good && req.only_tenant && strcmp(req.tenant, defaults->tenant) != 0)
		good = refuse(error, "tenant %.40s: only %s is allowed", req.tenant,
		    defaults->tenant);
	good = good && batch_make(&req, item, error);
	json_object_put(object);
	return good;
}
