/* SPDX-License-Identifier: ISC */
/*
 * batch: checks a request and builds its channel and payload; reads a request from a line of JSON.
 *
 * What the options of tpi-publish say and what a line of a batch says goes through batch_make(), so
 * that both obey the same rules. A payload leaves this file only if tpi-streamd would send it.
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

/* The members of a line besides "stream". */
static const struct member {
	const char *name;
	enum value_type type;
	unsigned streams; /* where it may stand */
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

/* Always false, for the caller to return. */
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

/* The same where the request is not to blame. */
static bool
no_memory(const struct reason *reason)
{
	refuse(reason, "out of memory");
	errno = ENOMEM;
	return false;
}

static bool
check_id(const struct batch_request *w, const char *name, const char *id, const struct reason *reason)
{
	if (channel_id_valid(id, strlen(id)))
		return true;
	return refuse(reason, "%s%s %.40s: must be " CHANNEL_ID_ALLOWED, w->dashes, name, id);
}

static bool
check_notification(const struct batch_request *w, const struct reason *reason)
{
	if ((w->user != NULL) == w->broadcast)
		return refuse(reason, "either %suser or %sbroadcast is needed, and not both",
		    w->dashes, w->dashes);
	if (w->id[0] == '\0')
		return refuse(reason, "%sid must not be empty", w->dashes);
	return w->user == NULL || check_id(w, "user", w->user, reason);
}

static bool
check_revocation(const struct batch_request *w, const struct reason *reason)
{
	if ((w->user != NULL) == (w->project != 0))
		return refuse(reason, "either %suser or %sproject is needed, and not both",
		    w->dashes, w->dashes);
	return w->user == NULL || check_id(w, "user", w->user, reason);
}

/* The next channel of the item, to be written. */
static char *
add_channel(struct batch_item *item)
{
	return item->channels[item->channel_count++];
}

static void
build_notification(const struct batch_request *w, struct batch_item *item)
{
	const char *event = w->broadcast ? "SYSTEM_ANNOUNCEMENT" : "notification";

	if (w->broadcast)
		channel_name_broadcast(add_channel(item), w->tenant);
	else
		channel_name_user(add_channel(item), w->tenant, w->user);
	item->payload = wakeup_notification(w->id, w->event != NULL ? w->event : event);
}

/* An issue, test run or milestone: the name of its id as an option and in the payload. */
static const struct kind {
	const char *option, *member, *event;
} kinds[] = {
	[BATCH_ISSUE] = { "issue", "issueId", "issue-updated" },
	[BATCH_TEST_RUN] = { "run", "runId", "test_run.state_changed" },
	[BATCH_MILESTONE] = { "milestone", "milestoneId", "milestone.updated" },
};

static bool
check_item(const struct batch_request *w, const struct reason *reason)
{
	if (w->project == 0 || w->item == 0)
		return refuse(reason, "%s%s is needed", w->dashes,
		    w->project == 0 ? "project" : kinds[w->stream].option);
	return true;
}

static void
build_item(const struct batch_request *w, struct batch_item *item)
{
	const struct kind *k = &kinds[w->stream];

	if (w->stream == BATCH_ISSUE)
		channel_name_project(add_channel(item), w->prefix, w->tenant, w->project);
	else if (w->stream == BATCH_TEST_RUN) {
		channel_test_run(add_channel(item), w->tenant, w->item);
		channel_project_test_runs(add_channel(item), w->tenant, w->project);
	} else {
		channel_milestone(add_channel(item), w->tenant, w->item);
		channel_project_milestones(add_channel(item), w->tenant, w->project);
	}
	item->payload = wakeup_item(w->event != NULL ? w->event : k->event, k->member, w->item,
	    w->project, w->target);
}

static void
build_revocation(const struct batch_request *w, struct batch_item *item)
{
	struct revocation r = { .project = w->project };

	if (w->user != NULL)
		strcpy(r.user, w->user);
	channel_name_revoke(add_channel(item), w->tenant);
	item->payload = revocation_payload(&r);
}

/* The rows of the streams, in the order of enum batch_stream. */
static const struct {
	const char *name; /* in a line; NULL: never there */
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
batch_make(const struct batch_request *w, struct batch_item *item, char *error, size_t error_size)
{
	const struct reason reason = { error, error_size };
	const char *wrong;

	memset(item, 0, sizeof(*item));
	if (!check_id(w, "tenant", w->tenant, &reason))
		return false;
	if (w->event != NULL && w->event[0] == '\0')
		return refuse(&reason, "%sevent must not be empty", w->dashes);
	if (!streams[w->stream].check(w, &reason))
		return false;
	strcpy(item->tenant, w->tenant);
	streams[w->stream].build(w, item);
	if (item->payload == NULL)
		return no_memory(&reason);
	wrong = wakeup_check(item->payload, strlen(item->payload));
	if (wrong == NULL)
		return true;
	free(item->payload);
	item->payload = NULL;
	return refuse(&reason, "the payload %s", wrong);
}

static bool
read_stream(struct batch_request *w, struct json_object *object, const struct reason *reason)
{
	struct json_object *value;

	if (json_object_object_get_ex(object, "stream", &value) &&
	    json_object_is_type(value, json_type_string)) {
		for (unsigned i = 0; i < STREAM_COUNT; i++) {
			if (streams[i].name != NULL &&
			    strcmp(json_object_get_string(value), streams[i].name) == 0) {
				w->stream = (enum batch_stream)i;
				return true;
			}
		}
	}
	return refuse(reason, "stream must be " BATCH_STREAMS_ALLOWED);
}

/* json-c gives the nearest int64_t for a number that is none. */
static bool
read_number(int32_t *number, struct json_object *value)
{
	int64_t n = json_object_get_int64(value);

	*number = (int32_t)n;
	return n >= 1 && n <= INT32_MAX;
}

static bool
read_member(struct batch_request *w, const char *name, struct json_object *value,
    const struct reason *reason)
{
	const struct member *m = NULL;
	void *field;
	bool good;

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		if (strcmp(members[i].name, name) == 0 && members[i].streams & 1u << w->stream)
			m = &members[i];
	}
	if (m == NULL)
		return refuse(reason, "%.40s is no member of a line of the stream %s", name,
		    streams[w->stream].name);
	good = json_object_is_type(value, value_types[m->type].json);
	field = (char *)w + m->offset;
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
	return good || refuse(reason, "%s must be %s", name, value_types[m->type].allowed);
}

static bool
read_object(struct batch_request *w, struct json_object *object, const struct reason *reason)
{
	if (!read_stream(w, object, reason))
		return false;
	json_object_object_foreach(object, name, value) {
		if (strcmp(name, "stream") != 0 && !read_member(w, name, value, reason))
			return false;
	}
	return true;
}

bool
batch_parse(const char *line, size_t length, const struct batch_request *standard,
    struct batch_item *item, char *error, size_t error_size)
{
	const struct reason reason = { error, error_size };
	const char *wrong;
	struct batch_request w = *standard;
	struct json_object *object = json_parse(line, length, &wrong);
	bool good;

	memset(item, 0, sizeof(*item));
	if (object == NULL)
		return wrong == json_no_memory ? no_memory(&reason)
					       : refuse(&reason, "the line %s", wrong);
	good = read_object(&w, object, &reason);
	if (good && w.only_tenant && strcmp(w.tenant, standard->tenant) != 0)
		good = refuse(&reason, "tenant %.40s: only %s is allowed", w.tenant, standard->tenant);
	good = good && batch_make(&w, item, error, error_size);
	json_object_put(object);
	return good;
}
