/* SPDX-License-Identifier: ISC */
/*
 * fuzz_topic: the query of a request for issues, and of one for the combined stream (topic.h). It
 * is accepted exactly if a second decoder, after WHATWG URL 5.1, finds one projectId or projectIds
 * with 1 to 500 well-formed numbers, or labels with 1 to 500 in all, each label once. Then the ids
 * are those requested, distinct and ascending, and each project has its channels. The same decoder
 * finds a last event id in the query that is "evicted".
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
	int parameters; /* with the names looked for */
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

/* single is the name of a parameter that has one number, list of one that has several. */
static void
find_parameter(struct found *f, const char *from, size_t length, const char *single,
    const char *list)
{
	const char *equals = memchr(from, '=', length);
	size_t name_length = equals != NULL ? (size_t)(equals - from) : length;
	struct text name = decode(from, name_length), value;
	bool several = is(&name, list);

	value = equals != NULL ? decode(equals + 1, length - name_length - 1) : decode("", 0);
	if ((several || is(&name, single)) && f->parameters++ == 0)
		find_projects(f, &value, several);
	if (is(&name, "lastEventId") || is(&name, "Last-Event-ID"))
		f->returning |= is(&value, "evicted");
	free(value.bytes);
	free(name.bytes);
}

static struct found
find(const char *query, const char *single, const char *list)
{
	struct found f = { 0 };

	for (;;) {
		size_t length = strcspn(query, "&");

		find_parameter(&f, query, length, single, list);
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

/* How many different projects there are. */
static int
different(const struct found *f)
{
	int count = 0;

	for (size_t i = 0; i < f->count; i++)
		count += !holds(f->projects, i, f->projects[i]);
	return count;
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

/* Whether the parameter of a topic is well-formed, or missing. */
static bool
is_good(const struct topic *topic, const struct found *f)
{
	if (f->parameters > 1 || f->malformed)
		return false;
	return topic->check != CHECK_USER || f->parameters == 0 ||
	    (f->count == 1 && f->projects[0] == 1);
}

/* The ids of one topic are those of its parameter, ascending; notifications have the id 0. */
static void
check_ids(const struct topic *topic, const struct found *f, const int32_t *ids, int count)
{
	REQUIRE(count == different(f));
	for (int i = 0; i < count; i++) {
		REQUIRE(i == 0 || ids[i] > ids[i - 1]);
		REQUIRE(topic->check == CHECK_USER ? ids[i] == 0 :
		    holds(f->projects, f->count, ids[i]));
	}
}

static void
check_combined(const struct request *r)
{
	const struct topic *topic = topic_find("/api/stream");
	struct watch_list w = { 0 };
	const char *error = topic->parse(topic, r, &w);
	const int32_t *ids = w.ids;
	struct found f[TOPIC_MAX];
	bool good = true;
	int total = 0;

	REQUIRE(error != topic_no_memory && (error == NULL || fuzz_is_line(error)));
	for (int i = 0; i < topic_count; i++) {
		f[i] = find(r->query, topics[i].label, topics[i].label);
		good = good && is_good(&topics[i], &f[i]);
		total += different(&f[i]);
	}
	REQUIRE((error == NULL) == (good && total >= 1 && total <= WATCH_LIST_MAX));
	for (int i = 0; i < topic_count; i++) {
		if (error == NULL) {
			check_ids(&topics[i], &f[i], ids, w.counts[i]);
			ids += w.counts[i];
		}
		free(f[i].projects);
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
	f = find(query, "projectId", "projectIds");
	REQUIRE(error != topic_no_memory);
	REQUIRE(topic_is_returning(&r) == f.returning);
	check_combined(&r);
	if (error == NULL) {
		check_projects(&watches, &f);
	} else {
		REQUIRE(fuzz_is_line(error));
		REQUIRE(f.parameters != 1 || f.malformed || different(&f) > WATCH_LIST_MAX);
	}
	free(f.projects);
	watch_list_free(&watches);
	free(query);
	return 0;
}
