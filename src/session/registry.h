/*
 * gateway: what all connections share, and the list of them. Made by main() before the first
 * connection.
 */
#ifndef TPI_GATEWAY_H
#define TPI_GATEWAY_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <time.h>

#include "auth/access.h"
#include "stream/caps.h"
#include "auth/app_client.h"
#include "pubsub/subscriber.h"
#include "wire/revocation.h"
#include "session/topic.h"
#include "config/settings.h"

/*
 * One connection in the list; belongs to it. A zeroed struct is ready for gateway_add(). Guarded by
 * the gateway's lock.
 */
struct gateway_entry {
	LIST_ENTRY(gateway_entry) link;
	pthread_t thread;
	bool running; /* thread is set */
	/* What a revocation may concern; user is NULL while that is not known. Not owned. */
	struct stream *stream;
	const char *user;
	const int32_t *projects;
	int project_count;
	uint64_t revocations; /* the gateway's count when user was NULL last */
};

struct gateway {
	/* Set before the first connection. */
	const struct settings *settings;
	struct hub *hub;
	struct access *access;
	struct gate *gate;              /* NULL where nothing is asked of the application */
	struct caps *caps[ROUTE_COUNT]; /* in the order of routes[] */

	time_t started_at;              /* of the wall clock */

	_Atomic bool draining;

	pthread_mutex_t lock; /* the rest */
	LIST_HEAD(, gateway_entry) connections;
	int connection_count;
	pthread_cond_t emptied;
	uint64_t revocations; /* how many there have been */
	struct revocation last_revocation;
};

/* Prepares the list; the caller sets the rest. */
void gateway_init(struct gateway *g, const struct settings *settings);

/*
 * A connection that is there, one whose thread (the calling one) runs, one that has ended and is
 * unnamed. Thread-safe.
 */
void gateway_add(struct gateway *g, struct gateway_entry *e);
void gateway_run(struct gateway *g, struct gateway_entry *e);
void gateway_remove(struct gateway *g, struct gateway_entry *e);

/* How many there are. Thread-safe. */
int gateway_count(struct gateway *g);

/*
 * Says whose stream this is, and of which projects: from now on a revocation that concerns it marks
 * it STREAM_REVOKED, and so does one that came since the connection was listed or last unnamed.
 * Only the last revocation is kept, so a connection that missed several counts as concerned. user
 * and projects must stay valid and unchanged up to gateway_unname(). Thread-safe.
 */
void gateway_name(struct gateway *g, struct gateway_entry *e, struct stream *stream,
    const char *user, const int32_t *projects, int count);
/* Before what was named changes or is freed; safe where nothing was named. Thread-safe. */
void gateway_unname(struct gateway *g, struct gateway_entry *e);

/*
 * Takes a revocation (a hub_revoked): the gate forgets every answer from before it, and the streams
 * that it concerns are marked STREAM_REVOKED, and STREAM_MANY after the first 100. Returns how
 * many.
 */
size_t gateway_revoke(void *gateway, const struct revocation *revocation);

/* From now on streams end and requests are told to come back later; wakes every connection. */
void gateway_drain(struct gateway *g);

/* Waits until no connection is left, up to deadline (clock_ms()). Returns how many are. */
int gateway_wait(struct gateway *g, int64_t deadline);

#endif
