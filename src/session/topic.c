/* SPDX-License-Identifier: ISC */
/*
 * topic: the table of topics, and how each reads its parameters. See topic.h.
 */
#include "session/topic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "base/text.h"
#include "session/watch_list.h"

#define NUMBER_ALLOWED "from 1 to 2147483647"

const char topic_no_memory[] = "out of memory";

/*
 * Decodes one name or value of application/x-www-form-urlencoded (WHATWG URL, 5.1) in place: '+' is
 * a space, and a '%' without two hexadecimal digits is a '%'. Returns the new length.
 */
static size_t
form_decode(char *text, size_t length)
{
	size_t in, out = 0;

	for (in = 0; in < length; in++) {
		if (text[in] == '+')
			text[out++] = ' ';
		else if (text[in] == '%' && in + 2 < length && text_hex_digit(text[in + 1]) >= 0 &&
		    text_hex_digit(text[in + 2]) >= 0) {
			text[out++] = (char)(text_hex_digit(text[in + 1]) << 4 |
			    text_hex_digit(text[in + 2]));
			in += 2;
		} else
			text[out++] = text[in];
	}
	return out;
}

/* A decoded text, which may hold any byte. NULL: there is none. */
struct text {
	const char *bytes;
	size_t length;
};

static bool
is_text(const struct text *t, const char *expected)
{
	return t->length == strlen(expected) && memcmp(t->bytes, expected, t->length) == 0;
}

/*
 * Finds the values of the parameters with these names in a query, which it decodes in place. One
 * without '=' has an empty value. False: one of them appears more than once.
 */
static bool
find_values(char *query, const char *const *names, int count, struct text *values)
{
	char *at, *next, *value;
	struct text name;
	int i;

	memset(values, 0, (size_t)count * sizeof(*values));
	for (at = query; at != NULL; at = next) {
		next = strchr(at, '&');
		if (next != NULL)
			*next++ = '\0';
		value = strchrnul(at, '=');
		if (*value == '=')
			*value++ = '\0';
		name = (struct text){ at, form_decode(at, strlen(at)) };
		for (i = 0; i < count && !is_text(&name, names[i]); i++)
			continue;
		if (i == count)
			continue;
		if (values[i].bytes != NULL)
			return false;
		values[i] = (struct text){ value, form_decode(value, strlen(value)) };
	}
	return true;
}

/* Adds "7" or, with list, "7,8,9" to the list. Returns NULL, malformed or topic_no_memory. */
static const char *
add_ids(struct watch_list *watches, const struct topic *topic, const struct text *text, bool list,
    const char *malformed)
{
	const char *at = text->bytes, *end = at + text->length, *comma, *error = NULL;
	int32_t *ids;
	int count = 0;
	size_t i, size = 1;

	for (i = 0; list && i < text->length; i++)
		if (at[i] == ',')
			size++;
	ids = malloc(size * sizeof(*ids));
	if (ids == NULL)
		return topic_no_memory;
	for (i = 0; i < size && error == NULL; i++) {
		comma = list ? memchr(at, ',', (size_t)(end - at)) : NULL;
		if (!channel_number_parse(at, (size_t)((comma != NULL ? comma : end) - at),
			&ids[count++]))
			error = malformed;
		at = comma != NULL ? comma + 1 : end;
	}
	if (error == NULL && !watch_list_add(watches, topic, ids, count))
		error = topic_no_memory;
	free(ids);
	return error;
}

/* Whether an encoded text is this name, of at most 16 bytes. */
static bool
form_is(const char *text, size_t length, const char *name)
{
	char copy[3 * 16];

	if (length > sizeof(copy))
		return false;
	memcpy(copy, text, length);
	return is_text(&(struct text){ copy, form_decode(copy, length) }, name);
}

bool
topic_is_returning(const struct request *r)
{
	const char *at = r->query, *value;
	size_t name_length, value_length;

	if (strcmp(r->last_event_id, "evicted") == 0)
		return true;
	for (;;) {
		name_length = strcspn(at, "=&");
		value = at + name_length + (at[name_length] == '=');
		value_length = strcspn(value, "&");
		if ((form_is(at, name_length, "lastEventId") ||
			form_is(at, name_length, "Last-Event-ID")) &&
		    form_is(value, value_length, "evicted"))
			return true;
		if (value[value_length] == '\0')
			return false;
		at = value + value_length + 1;
	}
}

/* A topic without an id. */
static const char *
parse_user(const struct topic *topic, const struct request *r, struct watch_list *watches)
{
	(void)r;
	return watch_list_add(watches, topic, &(int32_t){ 0 }, 1) ? NULL : topic_no_memory;
}

/* Returns where the path has an id, and its length in *length; NULL if it has none. */
static const char *
id_in_path(const struct topic *topic, const char *path, size_t *length)
{
	size_t before = strlen(topic->path), after, all = strlen(path);

	if (topic->suffix == NULL || strncmp(path, topic->path, before) != 0)
		return NULL;
	after = strlen(topic->suffix);
	if (all < before + after || strcmp(path + all - after, topic->suffix) != 0)
		return NULL;
	*length = all - before - after;
	return memchr(path + before, '/', *length) == NULL ? path + before : NULL;
}

static const char *
parse_id(const struct topic *topic, const struct request *r, struct watch_list *watches)
{
	struct text id;

	id.bytes = id_in_path(topic, r->path, &id.length);
	return add_ids(watches, topic, &id, false,
	    "the id in the path must be a whole number " NUMBER_ALLOWED);
}

static const char *
parse_projects(const struct topic *topic, const struct request *r, struct watch_list *watches)
{
	static const char *const names[] = { "projectId", "projectIds" };
	const char *error = "projectId or projectIds is missing";
	struct text values[2];
	char *query = strdup(r->query);

	if (query == NULL)
		return topic_no_memory;
	if (!find_values(query, names, 2, values) ||
	    (values[0].bytes != NULL && values[1].bytes != NULL))
		error = "only one projectId or projectIds is allowed";
	else if (values[0].bytes != NULL)
		error = add_ids(watches, topic, &values[0], false,
		    "projectId must be one whole number " NUMBER_ALLOWED);
	else if (values[1].bytes != NULL)
		error = add_ids(watches, topic, &values[1], true,
		    "projectIds must be whole numbers " NUMBER_ALLOWED ", separated by commas");
	if (error == NULL && watch_list_total(watches) > WATCH_LIST_MAX)
		error = "projectIds must be at most 500 projects";
	free(query);
	return error;
}

#define IDS_ALLOWED \
	"each parameter must be a list of whole numbers " NUMBER_ALLOWED ", separated by commas"

/* Adds what one parameter of the combined stream names. */
static const char *
add_topic(struct watch_list *watches, const struct topic *topic, const struct text *value)
{
	if (topic->check != CHECK_USER)
		return add_ids(watches, topic, value, true, IDS_ALLOWED);
	if (!is_text(value, "1"))
		return "notifications must be 1";
	return parse_user(topic, NULL, watches);
}

static const char *
parse_combined(const struct topic *combined, const struct request *r, struct watch_list *watches)
{
	const char *names[TOPIC_MAX], *error = NULL;
	struct text values[TOPIC_MAX];
	char *query = strdup(r->query);
	int i;

	(void)combined;
	if (query == NULL)
		return topic_no_memory;
	for (i = 0; i < topic_count; i++)
		names[i] = topics[i].label;
	if (!find_values(query, names, topic_count, values))
		error = "each parameter is allowed once";
	for (i = 0; i < topic_count && error == NULL; i++)
		if (values[i].bytes != NULL)
			error = add_topic(watches, &topics[i], &values[i]);
	if (error == NULL && watch_list_total(watches) == 0)
		error = "nothing to watch: at least one parameter is required";
	if (error == NULL && watch_list_total(watches) > WATCH_LIST_MAX)
		error = "the parameters must have at most 500 ids in all";
	free(query);
	return error;
}

static size_t
user_channels(char name[CHANNEL_NAME_SIZE], const struct settings *s, const char *user, int32_t id,
    int i)
{
	(void)id;
	if (i > 1)
		return 0;
	return i == 0 ? channel_name_user(name, s->tenant, user) :
			channel_name_broadcast(name, s->tenant);
}

static size_t
issue_channels(char name[CHANNEL_NAME_SIZE], const struct settings *s, const char *user,
    int32_t id, int i)
{
	(void)user;
	if (i >= s->issues_prefix_count)
		return 0;
	return channel_name_project(name, s->issues_prefixes[i], s->tenant, id);
}

const struct topic topics[] = {
	{
	    .path = "/api/notifications/stream",
	    .parse = parse_user,
	    .check = CHECK_USER,
	    .channels = user_channels,
	    .kind = KIND_NOTIFICATIONS,
	    .tag = "sse/notifications",
	    .label = "notifications",
	},
	{
	    .path = "/api/issues/stream",
	    .parse = parse_projects,
	    .check = CHECK_PROJECTS,
	    .channels = issue_channels,
	    .kind = KIND_ISSUES,
	    .tag = "sse/issues",
	    .label = "issues",
	    .ids_key = "projectIds",
	    .not_found = "no such project",
	},
	{
	    .path = "/api/test-runs/", .suffix = "/stream",
	    .parse = parse_id,
	    .check = CHECK_TEST_RUNS,
	    .channel = channel_name_test_run,
	    .kind = KIND_LIVE,
	    .tag = "sse/test-run",
	    .label = "testRuns",
	    .ids_key = "testRunIds",
	    .not_found = "no such test run",
	},
	{
	    .path = "/api/projects/", .suffix = "/test-runs/stream",
	    .parse = parse_id,
	    .check = CHECK_PRESENT_PROJECTS,
	    .channel = channel_name_project_test_runs,
	    .kind = KIND_LIVE,
	    .tag = "sse/project-test-runs",
	    .label = "projectTestRuns",
	    .ids_key = "projectIds",
	    .not_found = "no such project",
	},
	{
	    .path = "/api/milestones/", .suffix = "/stream",
	    .parse = parse_id,
	    .check = CHECK_MILESTONES,
	    .channel = channel_name_milestone,
	    .kind = KIND_LIVE,
	    .tag = "sse/milestone",
	    .label = "milestones",
	    .ids_key = "milestoneIds",
	    .not_found = "no such milestone",
	},
	{
	    .path = "/api/projects/", .suffix = "/milestones/stream",
	    .parse = parse_id,
	    .check = CHECK_PRESENT_PROJECTS,
	    .channel = channel_name_project_milestones,
	    .kind = KIND_LIVE,
	    .tag = "sse/project-milestones",
	    .label = "projectMilestones",
	    .ids_key = "projectIds",
	    .not_found = "no such project",
	},
};
const int topic_count = sizeof(topics) / sizeof(topics[0]);
_Static_assert(sizeof(topics) / sizeof(topics[0]) <= TOPIC_MAX, "raise TOPIC_MAX");

/* Not a topic, so not a row: a stream of any topics together. */
static const struct topic combined = {
	.path = "/api/stream",
	.parse = parse_combined,
	.kind = KIND_COMBINED,
	.tag = "sse/combined",
	.not_found = "nothing to watch",
};

#define OF(field) offsetof(struct settings, field)

const struct kind_caps kind_caps[KIND_COUNT] = {
	[KIND_NOTIFICATIONS] = { "sse.connections.active", OF(tenant_cap), OF(user_cap) },
	[KIND_ISSUES] = { "sse.issues.connections.active", OF(issues_tenant_cap),
	    OF(issues_user_cap) },
	[KIND_COMBINED] = { "sse.combined.connections.active", OF(combined_tenant_cap),
	    OF(combined_user_cap) },
	[KIND_LIVE] = { "sse.live.connections.active", OF(live_tenant_cap), OF(live_user_cap) },
};
_Static_assert(KIND_COUNT == METRIC_KINDS, "each kind has its name in metrics.c");

const struct topic *
topic_find(const char *path)
{
	size_t ignored;
	int i;

	for (i = 0; i < topic_count; i++)
		if (topics[i].suffix != NULL ? id_in_path(&topics[i], path, &ignored) != NULL :
		    strcmp(path, topics[i].path) == 0)
			return &topics[i];
	return strcmp(path, combined.path) == 0 ? &combined : NULL;
}

size_t
topic_channel(const struct topic *topic, const struct settings *s, const char *user, int32_t id,
    int i, char name[CHANNEL_NAME_SIZE])
{
	if (topic->channels != NULL)
		return topic->channels(name, s, user, id, i);
	return i == 0 ? topic->channel(name, s->tenant, id) : 0;
}

size_t
topic_label(const struct topic *topic, int32_t id, char label[TOPIC_LABEL_SIZE])
{
	if (topic->check == CHECK_USER)
		return (size_t)snprintf(label, TOPIC_LABEL_SIZE, "%s", topic->label);
	return (size_t)snprintf(label, TOPIC_LABEL_SIZE, "%s:%d", topic->label, (int)id);
}
