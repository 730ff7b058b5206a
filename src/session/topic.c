/* SPDX-License-Identifier: ISC */
/*
 * topic: the table of stream kinds, and how each reads its parameters. See topic.h.
 */
#include "session/topic.h"

#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "base/text.h"

const char topic_no_memory[] = "out of memory";

/*
 * Decodes one name or value of application/x-www-form-urlencoded (WHATWG URL, 5.1) in place: '+' is
 * a space, a '%' without two hexadecimal digits stands for itself. Returns the new length.
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
			text[out++] = (char)(text_hex_digit(text[in + 1]) << 4 | text_hex_digit(text[in + 2]));
			in += 2;
		} else
			text[out++] = text[in];
	}
	return out;
}

static int
compare_numbers(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return (x > y) - (x < y);
}

/* Sorts, and drops repetitions. Returns how many are left. */
static int
distinct(int32_t *numbers, int count)
{
	int i, kept = 0;

	qsort(numbers, (size_t)count, sizeof(*numbers), compare_numbers);
	for (i = 0; i < count; i++)
		if (kept == 0 || numbers[i] != numbers[kept - 1])
			numbers[kept++] = numbers[i];
	return kept;
}

/* "7" or, where a list is allowed, "7,8,9". */
static const char *
parse_projects(struct request *r, const char *text, size_t length, bool list)
{
	const char *end = text + length, *comma;
	int count = 1;
	size_t i;

	for (i = 0; i < length; i++)
		if (text[i] == ',')
			count++;
	if (count > 1 && !list)
		return "projectId must be one whole number from 1 to 2147483647";
	r->projects = malloc((size_t)count * sizeof(*r->projects));
	if (r->projects == NULL)
		return topic_no_memory;
	for (r->project_count = 0; r->project_count < count; r->project_count++) {
		comma = memchr(text, ',', (size_t)(end - text));
		if (!channel_number_parse(text, (size_t)((comma != NULL ? comma : end) - text),
			&r->projects[r->project_count]))
			return list ? "projectIds must be whole numbers from 1 to 2147483647, separated by commas"
				    : "projectId must be one whole number from 1 to 2147483647";
		text = comma != NULL ? comma + 1 : end;
	}
	r->project_count = distinct(r->projects, count);
	if (r->project_count > REQUEST_PROJECTS_MAX)
		return "projectIds must be at most 500 projects";
	return NULL;
}

static bool
is_name(const char *text, size_t length, const char *name)
{
	return length == strlen(name) && memcmp(text, name, length) == 0;
}

/* The same for an encoded one; name has at most 16 bytes. */
static bool
form_is(const char *text, size_t length, const char *name)
{
	char copy[3 * 16];

	if (length > sizeof(copy))
		return false;
	memcpy(copy, text, length);
	return is_name(copy, form_decode(copy, length), name);
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
		if ((form_is(at, name_length, "lastEventId") || form_is(at, name_length, "Last-Event-ID")) &&
		    form_is(value, value_length, "evicted"))
			return true;
		if (value[value_length] == '\0')
			return false;
		at = value + value_length + 1;
	}
}

static const char *
issues_parse(struct request *r)
{
	const char *error = "projectId or projectIds is missing";
	char *query, *at, *next, *equals;
	size_t name_length, value_length;
	bool list, seen = false;

	query = strdup(r->query);
	if (query == NULL)
		return topic_no_memory;
	for (at = query; at != NULL; at = next) {
		next = strchr(at, '&');
		if (next != NULL)
			*next++ = '\0';
		equals = strchr(at, '=');
		value_length = equals != NULL ? strlen(equals + 1) : 0;
		name_length = form_decode(at, equals != NULL ? (size_t)(equals - at) : strlen(at));
		list = is_name(at, name_length, "projectIds");
		if (!list && !is_name(at, name_length, "projectId"))
			continue;
		if (seen) {
			error = "projectId or projectIds must stand once";
			break;
		}
		seen = true;
		if (equals != NULL)
			value_length = form_decode(equals + 1, value_length);
		error = parse_projects(r, equals != NULL ? equals + 1 : "", value_length, list);
		if (error != NULL)
			break;
	}
	free(query);
	return error;
}

static int
notifications_channel_count(const struct request *r, const struct settings *s)
{
	(void)r, (void)s;
	return 2;
}

static size_t
notifications_channel(const struct request *r, const struct settings *s, int i,
    char name[CHANNEL_NAME_SIZE])
{
	return i == 0 ? channel_name_user(name, s->tenant, r->user) : channel_name_broadcast(name, s->tenant);
}

static int
issues_channel_count(const struct request *r, const struct settings *s)
{
	return r->project_count * s->issues_prefix_count;
}

static size_t
issues_channel(const struct request *r, const struct settings *s, int i,
    char name[CHANNEL_NAME_SIZE])
{
	int count = s->issues_prefix_count;

	return channel_name_project(name, s->issues_prefixes[i % count], s->tenant, r->projects[i / count]);
}

_Static_assert(TOPIC_COUNT == METRIC_KINDS, "each kind of stream has its name in counters.c");

const struct topic topics[TOPIC_COUNT] = {
	{
	    .path = "/api/notifications/stream",
	    .tag = "sse/notifications",
	    .metric = "sse.connections.active",
	    .tenant_cap = offsetof(struct settings, tenant_cap),
	    .user_cap = offsetof(struct settings, user_cap),
	    .channel_count = notifications_channel_count,
	    .channel = notifications_channel,
	},
	{
	    .path = "/api/issues/stream",
	    .tag = "sse/issues",
	    .metric = "sse.issues.connections.active",
	    .tenant_cap = offsetof(struct settings, issues_tenant_cap),
	    .user_cap = offsetof(struct settings, issues_user_cap),
	    .has_projects = true,
	    .parse = issues_parse,
	    .channel_count = issues_channel_count,
	    .channel = issues_channel,
	},
};

const struct topic *
topic_find(const char *path)
{
	int i;

	for (i = 0; i < TOPIC_COUNT; i++)
		if (strcmp(path, topics[i].path) == 0)
			return &topics[i];
	return NULL;
}

char *
topic_channels(const struct topic *topic, const struct request *r, const struct settings *s)
{
	int i, count = topic->channel_count(r, s);
	size_t used = 0, size = 0;
	char *names = NULL, *grown;

	for (i = 0; i < count; i++) {
		if (size - used < CHANNEL_NAME_SIZE) {
			size = 2 * size + CHANNEL_NAME_SIZE;
			grown = realloc(names, size);
			if (grown == NULL) {
				free(names);
				return NULL;
			}
			names = grown;
		}
		used += topic->channel(r, s, i, names + used) + 1;
	}
	grown = realloc(names, used);
	return grown != NULL ? grown : names;
}
