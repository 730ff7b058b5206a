/* SPDX-License-Identifier: ISC */
/*
 * watch_list: what one connection watches: topics, by row of topics[] and id.
 *
 * The ids of one row follow those of another, in the order of topics[]; those of one row are
 * ascending and distinct. A topic without an id, such as a user's notifications, has the id 0.
 */
#ifndef TPI_SESSION_WATCH_LIST_H
#define TPI_SESSION_WATCH_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "config/settings.h"
#include "session/topic.h"

#define WATCH_LIST_MAX 500 /* ids that one request may name */

/* A zeroed struct is an empty list. */
struct watch_list {
	int32_t *ids; /* owned; up to WATCH_LIST_MAX */
	uint16_t counts[TOPIC_MAX]; /* how many ids each row has */
};

/*
 * Appends ids of a row, in any order and repeated or not; the rows must come in the order of
 * topics[], each once. False: no memory.
 */
bool watch_list_add(struct watch_list *w, const struct topic *topic, const int32_t *ids, int count);

/* False: no memory; then copy is empty. */
bool watch_list_copy(struct watch_list *copy, const struct watch_list *w);

/* Sets lost to what is in w, but not in its subset kept. False: no memory; then lost is empty. */
bool watch_list_lost(struct watch_list *lost, const struct watch_list *w,
    const struct watch_list *kept);

/* Leaves an empty list. */
void watch_list_free(struct watch_list *w);

int watch_list_total(const struct watch_list *w);

/* Whether any of it needs more than a known user. */
bool watch_list_restricted(const struct watch_list *w);

/* Whether access to any of it may depend on this project. */
bool watch_list_depends_on(const struct watch_list *w, int32_t project);

/* Whether it has items of unknown projects, so that access may depend on any project. */
bool watch_list_has_items(const struct watch_list *w);

/* Whether access to any of it depends on a project for which is() returns true. */
bool watch_list_has_project(const struct watch_list *w, bool (*is)(void *arg, int32_t project),
    void *arg);

/*
 * Filters each row that needs more than a known user: keep() moves the ids to keep to the front, in
 * their order, and returns their number.
 */
typedef int watch_list_keep(void *arg, enum app_check check, int32_t *ids, int count);
void watch_list_filter(struct watch_list *w, watch_list_keep *keep, void *arg);

/*
 * The names of all channels, each terminated and, if labelled, followed by its label, also
 * terminated; *count gets the number of names. The caller frees them. NULL: no memory.
 */
char *watch_list_channels(const struct watch_list *w, const struct settings *s, const char *user,
    bool labelled, int *count);

/*
 * Writes log fields with the ids, at most TOPIC_MAX of them; returns the end. Their keys are those
 * of the topics or, if labelled, the labels, because several topics have ids of projects.
 */
struct log_field *watch_list_log(const struct watch_list *w, bool labelled,
    struct log_field *fields);

#endif
