/* SPDX-License-Identifier: ISC */
/*
 * topic: the kinds of stream, as rows of one table. A further kind is a further row.
 */
#ifndef TPI_SESSION_TOPIC_H
#define TPI_SESSION_TOPIC_H

#include <stdbool.h>
#include <stddef.h>

#include "wire/channel_name.h"
#include "fcgi/request.h"
#include "config/settings.h"

struct topic {
	const char *path;
	const char *tag;    /* of log lines */
	const char *metric; /* name of the metric of open streams */
	/* The caps of this kind in struct settings. */
	size_t tenant_cap, user_cap;
	bool has_projects; /* projects are asked for, and reading them must be allowed */
	/*
	 * Reads the query into the request. Returns NULL, or what is wrong with it (a static text),
	 * or topic_no_memory. NULL where the kind has no parameters.
	 */
	const char *(*parse)(struct request *r);
	/* How many channels the stream joins, and the name of the i-th. */
	int (*channel_count)(const struct request *r, const struct settings *s);
	size_t (*channel)(const struct request *r, const struct settings *s, int i,
	    char name[CHANNEL_NAME_SIZE]);
};

#define TOPIC_COUNT 2
extern const struct topic topics[TOPIC_COUNT];
extern const char topic_no_memory[];

/* The row whose path this is, compared byte for byte; NULL where there is none. */
const struct topic *topic_find(const char *path);

/*
 * Whether this is the automatic reconnect of a stream that was evicted: its last event id is
 * "evicted", in the header or, where polyfills put it, in the query.
 */
bool topic_is_returning(const struct request *r);

/*
 * The names of the channels that a stream of this kind joins for the request, channel_count() of
 * them, each terminated, one behind the other. The caller frees them. NULL: no memory.
 */
char *topic_channels(const struct topic *topic, const struct request *r, const struct settings *s);

static inline int
topic_tenant_cap(const struct topic *topic, const struct settings *s)
{
	return *(const int *)(const void *)((const char *)s + topic->tenant_cap);
}

static inline int
topic_user_cap(const struct topic *topic, const struct settings *s)
{
	return *(const int *)(const void *)((const char *)s + topic->user_cap);
}

#endif
