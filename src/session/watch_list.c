/* SPDX-License-Identifier: ISC */
/*
 * watch_list: see watch_list.h.
 */
#include "session/watch_list.h"

#include <stdlib.h>
#include <string.h>

static int
compare_numbers(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return (x > y) - (x < y);
}

/* Sorts, and drops repetitions. Returns how many are left. */
static int
distinct(int32_t *ids, int count)
{
	int i, kept = 0;

	qsort(ids, (size_t)count, sizeof(*ids), compare_numbers);
	for (i = 0; i < count; i++)
		if (kept == 0 || ids[i] != ids[kept - 1])
			ids[kept++] = ids[i];
	return kept;
}

bool
watch_list_add(struct watch_list *w, const struct topic *topic, const int32_t *ids, int count)
{
	int total = watch_list_total(w);
	int32_t *grown;

	grown = realloc(w->ids, (size_t)(total + count) * sizeof(*ids));
	if (grown == NULL)
		return false;
	w->ids = grown;
	memcpy(w->ids + total, ids, (size_t)count * sizeof(*ids));
	w->counts[topic - topics] = (uint16_t)distinct(w->ids + total, count);
	return true;
}

bool
watch_list_copy(struct watch_list *copy, const struct watch_list *w)
{
	size_t size = (size_t)watch_list_total(w) * sizeof(*w->ids);

	*copy = (struct watch_list){ .ids = malloc(size) };
	if (copy->ids == NULL)
		return false;
	memcpy(copy->ids, w->ids, size);
	memcpy(copy->counts, w->counts, sizeof(copy->counts));
	return true;
}

bool
watch_list_lost(struct watch_list *lost, const struct watch_list *w, const struct watch_list *kept)
{
	const int32_t *id = w->ids, *k = kept->ids, *end;
	int32_t *out;
	int i, left;

	*lost = (struct watch_list){ .ids = malloc((size_t)watch_list_total(w) * sizeof(*id)) };
	if (lost->ids == NULL)
		return false;
	out = lost->ids;
	for (i = 0; i < topic_count; i++) {
		left = kept->counts[i];
		for (end = id + w->counts[i]; id < end; id++) {
			if (left > 0 && *id == *k) {
				k++;
				left--;
				continue;
			}
			*out++ = *id;
			lost->counts[i]++;
		}
	}
	return true;
}

void
watch_list_free(struct watch_list *w)
{
	free(w->ids);
	*w = (struct watch_list){ 0 };
}

int
watch_list_total(const struct watch_list *w)
{
	int i, total = 0;

	for (i = 0; i < topic_count; i++)
		total += w->counts[i];
	return total;
}

bool
watch_list_restricted(const struct watch_list *w)
{
	int i;

	for (i = 0; i < topic_count; i++)
		if (w->counts[i] > 0 && topics[i].check != CHECK_USER)
			return true;
	return false;
}

bool
watch_list_has_items(const struct watch_list *w)
{
	int i;

	for (i = 0; i < topic_count; i++)
		if (w->counts[i] > 0 && topics[i].check != CHECK_USER &&
		    !app_check_is_project(topics[i].check))
			return true;
	return false;
}

bool
watch_list_depends_on(const struct watch_list *w, int32_t project)
{
	const int32_t *ids = w->ids;
	int i;

	if (watch_list_has_items(w))
		return true;
	for (i = 0; i < topic_count; ids += w->counts[i++])
		if (app_check_is_project(topics[i].check) && w->counts[i] > 0 && bsearch(&project,
			ids, w->counts[i], sizeof(*ids), compare_numbers) != NULL)
			return true;
	return false;
}

bool
watch_list_has_project(const struct watch_list *w, bool (*is)(void *arg, int32_t project),
    void *arg)
{
	const int32_t *id = w->ids, *end;
	int i;

	for (i = 0; i < topic_count; i++)
		for (end = id + w->counts[i]; id < end; id++)
			if (app_check_is_project(topics[i].check) && is(arg, *id))
				return true;
	return false;
}

void
watch_list_filter(struct watch_list *w, watch_list_keep *keep, void *arg)
{
	int32_t *from = w->ids, *to = w->ids;
	int i, count, kept;

	for (i = 0; i < topic_count; i++) {
		count = kept = w->counts[i];
		if (count > 0 && topics[i].check != CHECK_USER)
			kept = keep(arg, topics[i].check, from, count);
		memmove(to, from, (size_t)kept * sizeof(*to));
		from += count;
		to += kept;
		w->counts[i] = (uint16_t)kept;
	}
}

/* Names in one block of memory, each terminated. */
struct names {
	char *text;
	size_t used, size;
	int count;
};

/* Makes room for one more name and its label. False: no memory. */
static bool
make_room(struct names *n)
{
	char *grown;

	if (n->size - n->used >= CHANNEL_NAME_SIZE + TOPIC_LABEL_SIZE)
		return true;
	n->size = 2 * n->size + CHANNEL_NAME_SIZE + TOPIC_LABEL_SIZE;
	grown = realloc(n->text, n->size);
	if (grown == NULL)
		return false;
	n->text = grown;
	return true;
}

/* Adds the channels of one id. False: no memory. */
static bool
add_names(struct names *n, const struct topic *topic, const struct settings *s, const char *user,
    int32_t id, bool labelled)
{
	size_t length;
	int i;

	for (i = 0;; i++) {
		if (!make_room(n))
			return false;
		length = topic_channel(topic, s, user, id, i, n->text + n->used);
		if (length == 0)
			return true;
		n->used += length + 1;
		n->count++;
		if (labelled)
			n->used += topic_label(topic, id, n->text + n->used) + 1;
	}
}

char *
watch_list_channels(const struct watch_list *w, const struct settings *s, const char *user,
    bool labelled, int *count)
{
	const int32_t *id = w->ids, *end;
	struct names n = { 0 };
	char *trimmed;
	int i;

	for (i = 0; i < topic_count; i++) {
		for (end = id + w->counts[i]; id < end; id++) {
			if (!add_names(&n, &topics[i], s, user, *id, labelled)) {
				free(n.text);
				return NULL;
			}
		}
	}
	*count = n.count;
	trimmed = realloc(n.text, n.used);
	return trimmed != NULL ? trimmed : n.text;
}

struct log_field *
watch_list_log(const struct watch_list *w, bool labelled, struct log_field *fields)
{
	const int32_t *ids = w->ids;
	int i;

	for (i = 0; i < topic_count; ids += w->counts[i++])
		if (w->counts[i] > 0 && topics[i].ids_key != NULL)
			*fields++ = (struct log_field)LOG_LIST(labelled ? topics[i].label :
			    topics[i].ids_key, ids, w->counts[i]);
	return fields;
}
