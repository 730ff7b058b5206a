/* SPDX-License-Identifier: ISC */
/*
 * fuzz_topic: the query of a request for issues (topic.h). It is accepted exactly if a second
 * decoder, after WHATWG URL 5.1, finds one projectId or projectIds with 1 to 500 well-formed
 * numbers. Then the projects are those requested, distinct and ascending, and each has its
 * channels. The same decoder finds a last event id in the query that is "evicted".
 *
 * The first byte of the input, a digit, is how many hundreds of projects to append to the query.
 */
#include "fuzz.h"

#include "wire/channel_name.h"
#include "session/watch_list.h"

#define HUNDREDS_MAX 9

struct text {
	char *bytes;
	size_t length;
};

/* What the second decoder finds in a query. */
struct found {
	int parameters; /* named projectId or projectIds */
	bool malformed;
	bool returning;
	int32_t *projects; /* with repetitions; owned */
	size_t count;
};

static struct text
decode(const char *from, size_t length)
{
	struct text t = { fuzz_memory(length + 1), 0 };

	while (length > 0) {
		static const char digits[] = "0123456789abcdef0123456789ABCDEF";
		const char *high = NULL, *low = NULL;
		size_t used = 1;

		if (*from == '%' && length >= 3) {
			high = memchr(digits, from[1], 32);
			low = memchr(digits, from[2], 32);
		}
		t.bytes[t.length] = *from == '+' ? ' ' : *from;
		if (high != NULL && low != NULL) {
			t.bytes[t.length] =
			    (char)((high - digits) % 16 * 16 + (low - digits) % 16);
			used = 3;
		}
		t.length++;
		from += used;
		length -= used;
	}
	return t;
}

/* A number from 1 to 2147483647, or 0 if the text is not one. */
static int32_t
number(const char *text, size_t length)
{
	char digits[11] = "";
	long long n;

	if (length < 1 || length > 10 || text[0] == '0')
		return 0;
	memcpy(digits, text, length);
	if (strspn(digits, "0123456789") != length)
		return 0;
	n = strtoll(digits, NULL, 10);
	return n <= INT32_MAX ? (int32_t)n : 0;
}

static void
find_projects(struct found *f, const struct text *value, bool list)
{
	size_t start = 0;

	f->projects = realloc(f->projects, (value->length + 1) * sizeof(*f->projects));
	REQUIRE(f->projects != NULL);
	for (size_t i = 0; i <= value->length; i++) {
		if (i < value->length && (value->bytes[i] != ',' || !list))
			continue;
		f->projects[f->count] = number(value->bytes + start, i - start);
		if (f->projects[f->count++] == 0)
			f->malformed = true;
		start = i + 1;
	}
}

static bool
is(const struct text *t, const char *expected)
{
	return t->length == strlen(expected) && memcmp(t->bytes, expected, t->length) == 0;
}

static void
find_parameter(struct found *f, const char *from, size_t length)
{
	const char *equals = memchr(from, '=', length);
	size_t name_length = equals != NULL ? (size_t)(equals - from) : length;
	struct text name = decode(from, name_length), value;
	bool list = is(&name, "projectIds");

	value = equals != NULL ? decode(equals + 1, length - name_length - 1) : decode("", 0);
	if ((list || is(&name, "projectId")) && f->parameters++ == 0)
		find_projects(f, &value, list);
	if (is(&name, "lastEventId") || is(&name, "Last-Event-ID"))
		f->returning |= is(&value, "evicted");
	free(value.bytes);
	free(name.bytes);
}

static struct found
find(const char *query)
{
	struct found f = { 0 };

	for (;;) {
		size_t length = strcspn(query, "&");

		find_parameter(&f, query, length);
		if (query[length] == '\0')
			return f;
		query += length + 1;
	}
}

static bool
holds(const int32_t *projects, size_t count, int32_t project)
{
	for (size_t i = 0; i < count; i++) {
		if (projects[i] == project)
			return true;
	}
	return false;
}

static void
check_projects(const struct watch_list *w, const struct found *f)
{
	char tenant[] = "t", expected[64], *names, *name;
	struct settings settings = { .tenant = tenant, .issues_prefixes = { "issues", "i" },
		.issues_prefix_count = 2 };
	int total = watch_list_total(w), count;

	REQUIRE(f->parameters == 1 && !f->malformed);
	REQUIRE(total >= 1 && total <= WATCH_LIST_MAX);
	name = names = watch_list_channels(w, &settings, "u", false, &count);
	REQUIRE(names != NULL && count == 2 * total);
	for (int i = 0; i < total; i++) {
		REQUIRE(w->ids[i] >= 1 && (i == 0 || w->ids[i] > w->ids[i - 1]));
		REQUIRE(holds(f->projects, f->count, w->ids[i]));
		for (int k = 0; k < 2; k++) {
			snprintf(expected, sizeof(expected), "%s:tenant:t:project:%d",
			    settings.issues_prefixes[k], (int)w->ids[i]);
			REQUIRE(strcmp(name, expected) == 0);
			name += strlen(name) + 1;
		}
	}
	free(names);
	for (size_t i = 0; i < f->count; i++)
		REQUIRE(holds(w->ids, (size_t)total, f->projects[i]));
}

/* Whether there are more than 500 different projects. */
static bool
too_many(const struct found *f)
{
	size_t different = 0;

	for (size_t i = 0; i < f->count && different <= WATCH_LIST_MAX; i++) {
		if (!holds(f->projects, i, f->projects[i]))
			different++;
	}
	return different > WATCH_LIST_MAX;
}

static char *
make_query(const uint8_t *data, size_t size, int hundreds)
{
	char *text = fuzz_text(data, size), *query, *at;
	size_t length = strlen(text);

	query = fuzz_memory(length + (size_t)hundreds * 100 * strlen(",1000") + 1);
	at = stpcpy(query, text);
	for (int i = 0; i < hundreds * 100; i++)
		at += sprintf(at, ",%d", 1000 + i);
	free(text);
	return query;
}

/* The combined stream reads any query into an ordered list of at most 500 ids, or says why not. */
static void
check_combined(const struct request *r)
{
	const struct topic *topic = topic_find("/api/stream");
	struct watch_list w = { 0 };
	const char *error = topic->parse(topic, r, &w);
	const int32_t *id = w.ids;

	REQUIRE(error != topic_no_memory);
	if (error != NULL)
		REQUIRE(fuzz_is_line(error));
	else
		REQUIRE(watch_list_total(&w) >= 1 && watch_list_total(&w) <= WATCH_LIST_MAX);
	for (int row = 0; error == NULL && row < topic_count; row++) {
		for (int i = 0; i < w.counts[row]; i++, id++)
			REQUIRE(topics[row].check == CHECK_USER ? *id == 0 && i == 0 :
			    *id >= 1 && (i == 0 || *id > id[-1]));
	}
	watch_list_free(&w);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct topic *topic = topic_find("/api/issues/stream");
	int hundreds = size > 0 && data[0] >= '0' && data[0] <= '9' ? data[0] - '0' : 0;
	struct request r = { .last_event_id = "" };
	struct watch_list watches = { 0 };
	const char *error;
	struct found f;
	char *query;

	if (size < 1)
		return 0;
	REQUIRE(topic != NULL && hundreds <= HUNDREDS_MAX);
	query = make_query(data + 1, size - 1, hundreds);
	r.query = query;
	error = topic->parse(topic, &r, &watches);
	f = find(query);
	REQUIRE(error != topic_no_memory);
	REQUIRE(topic_is_returning(&r) == f.returning);
	check_combined(&r);
	if (error == NULL) {
		check_projects(&watches, &f);
	} else {
		REQUIRE(fuzz_is_line(error));
		REQUIRE(f.parameters != 1 || f.malformed || too_many(&f));
	}
	free(f.projects);
	watch_list_free(&watches);
	free(query);
	return 0;
}
