/*
 * route: the kinds of stream, as rows of one table. A further kind is a further row.
 */
#ifndef TPI_ROUTE_H
#define TPI_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "wire/channel_name.h"
#include "fcgi/request.h"
#include "config/settings.h"

struct route {
	const char *path;
	const char *tag;    /* of log lines */
	const char *metric; /* name of the metric of open streams */
	/* The caps of this kind in struct settings. */
	size_t tenant_cap, user_cap;
	bool has_projects; /* projects are asked for, and reading them must be allowed */
	/*
	 * Reads the query into the request. Returns NULL, or what is wrong with it (a static text),
	 * or route_no_memory. NULL where the kind has no parameters.
	 */
	const char *(*parse)(struct request *r);
	/* How many channels the stream joins, and the name of the i-th. */
	int (*channel_count)(const struct request *r, const struct settings *s);
	size_t (*channel)(const struct request *r, const struct settings *s, int i,
	    char name[CHANNEL_NAME_SIZE]);
};

#define ROUTE_COUNT 2
extern const struct route routes[ROUTE_COUNT];
extern const char route_no_memory[];

/* The row whose path this is, compared byte for byte; NULL where there is none. */
const struct route *route_find(const char *path);

/*
 * Whether this is the automatic reconnect of a stream that was evicted: its last event id is
 * "evicted", in the header or, where polyfills put it, in the query.
 */
bool route_is_returning(const struct request *r);

/*
 * The names of the channels that a stream of this kind joins for the request, channel_count() of
 * them, each terminated, one behind the other. The caller frees them. NULL: no memory.
 */
char *route_channels(const struct route *route, const struct request *r, const struct settings *s);

static inline int
route_tenant_cap(const struct route *route, const struct settings *s)
{
	return *(const int *)(const void *)((const char *)s + route->tenant_cap);
}

static inline int
route_user_cap(const struct route *route, const struct settings *s)
{
	return *(const int *)(const void *)((const char *)s + route->user_cap);
}

#endif
