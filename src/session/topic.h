/* SPDX-License-Identifier: ISC */
/*
 * topic: what a browser can watch, as rows of one table, and the kinds of streams, each with its
 * caps. A new topic is a new row (HACKING.md, Add a topic).
 */
#ifndef TPI_SESSION_TOPIC_H
#define TPI_SESSION_TOPIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/app_api.h"
#include "config/settings.h"
#include "fcgi/request.h"
#include "wire/channel_name.h"

struct watch_list;

/* Which caps a stream counts against. In the order of the kinds in base/metrics.c. */
enum stream_kind {
	KIND_NOTIFICATIONS,
	KIND_ISSUES,
	KIND_LIVE,
	KIND_COMBINED,
	KIND_COUNT
};

struct kind_caps {
	const char *metric; /* name of the metric line with the number of open streams */
	size_t tenant_cap, user_cap; /* offsets in struct settings */
};
extern const struct kind_caps kind_caps[KIND_COUNT];

struct topic {
	/*
	 * The path of the topic's own stream. With a suffix the id is part of the path, between
	 * the two, and path ends in '/'.
	 */
	const char *path, *suffix;
	/*
	 * Reads path and query of a request into the list. Returns NULL, or a static text that says
	 * what is wrong with them, or topic_no_memory.
	 */
	const char *(*parse)(const struct topic *topic, const struct request *r,
	    struct watch_list *watches);
	enum app_check check; /* what the user needs access to */
	/*
	 * channel writes the name of an id's only channel. If an id has several, channels writes
	 * the i-th, and returns 0 if there is no i-th. One of the two is NULL.
	 */
	size_t (*channel)(char name[CHANNEL_NAME_SIZE], const char *tenant, int32_t id);
	size_t (*channels)(char name[CHANNEL_NAME_SIZE], const struct settings *s, const char *user,
	    int32_t id, int i);
	enum stream_kind kind; /* whose caps apply */
	const char *tag;       /* of log lines */
	const char *ids_key;   /* of the ids in log lines; NULL: it has no ids */
	const char *not_found; /* the error if the user has access to none of what was asked for */
	/*
	 * The topic's parameter and label on the combined stream. NULL: this is the combined stream
	 * itself, whose wake-ups carry the labels of their topics.
	 */
	const char *label;
};

#define TOPIC_MAX 8 /* the most rows */
#define TOPIC_LABEL_SIZE 48 /* a label, ':', an id */
extern const struct topic topics[];
extern const int topic_count;
extern const char topic_no_memory[];

/*
 * The row with this path, or the combined stream, compared byte for byte; NULL if there is none. An
 * id in the path may be anything without a '/', even empty: parse() reports what is wrong with it.
 */
const struct topic *topic_find(const char *path);

/*
 * Whether this is the automatic reconnect of an evicted stream: its last event id is "evicted", in
 * the header or, where polyfills put it, in the query.
 */
bool topic_is_returning(const struct request *r);

/* Writes the name of the i-th channel of an id; its length, or 0 if there is no i-th. */
size_t topic_channel(const struct topic *topic, const struct settings *s, const char *user,
    int32_t id, int i, char name[CHANNEL_NAME_SIZE]);

/* Writes the label of a topic's wake-ups: "issues:7", or "notifications"; its length. */
size_t topic_label(const struct topic *topic, int32_t id, char label[TOPIC_LABEL_SIZE]);

static inline int
kind_tenant_cap(enum stream_kind kind, const struct settings *s)
{
	return *(const int *)(const void *)((const char *)s + kind_caps[kind].tenant_cap);
}

static inline int
kind_user_cap(enum stream_kind kind, const struct settings *s)
{
	return *(const int *)(const void *)((const char *)s + kind_caps[kind].user_cap);
}

#endif
