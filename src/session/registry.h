/* SPDX-License-Identifier: ISC */
/*
 * registry: what all connections share, and the list of them. Made by main() before the first
 * connection.
 */
#ifndef TPI_SESSION_REGISTRY_H
#define TPI_SESSION_REGISTRY_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <time.h>

#include "auth/access.h"
#include "stream/caps.h"
#include "auth/app_client.h"
#include "pubsub/subscriber.h"
#include "wire/revocation.h"
#include "session/watch_list.h"
#include "config/settings.h"

/*
 * One connection in the list; belongs to it. A zeroed struct is ready for registry_add(). Guarded by
 * the registry's lock.
 */
struct registry_entry {
	LIST_ENTRY(registry_entry) link;
	pthread_t thread;
	bool running; /* thread is set */
	/* What a revocation may concern; user is NULL while that is not known. Not owned. */
	struct stream *stream;
	const char *user;
	const struct watch_list *watches;
	uint64_t revocations; /* the registry's count when user was NULL last */
};

struct registry {
	/* Set before the first connection. */
	const struct settings *settings;
	struct subscriber *subscriber;
	struct access *access;
	struct app_client *app_client;              /* NULL where nothing is asked of the application */
	struct caps *caps[CAPS_GROUP_COUNT]; /* in the order of caps_groups[] */

	time_t started_at;              /* of the wall clock */

	_Atomic bool draining;

	pthread_mutex_t lock; /* the rest */
	LIST_HEAD(, registry_entry) connections;
	int connection_count;
	pthread_cond_t emptied;
	uint64_t revocations; /* how many there have been */
	struct revocation last_revocation;
};

/* Prepares the list; the caller sets the rest. */
void registry_init(struct registry *g, const struct settings *settings);

/*
 * A connection that is there, one whose thread (the calling one) runs, one that has ended and is
 * unnamed. Thread-safe.
 */
void registry_add(struct registry *g, struct registry_entry *e);
void registry_run(struct registry *g, struct registry_entry *e);
void registry_remove(struct registry *g, struct registry_entry *e);

/* How many there are. Thread-safe. */
int registry_count(struct registry *g);

/*
 * Says whose stream this is, and what it watches: from now on a revocation that concerns it marks
 * it STREAM_REVOKED, and so does one that came since the connection was listed or last unnamed.
 * Only the last revocation is kept, so a connection that missed several counts as concerned. user
 * and watches must stay valid and unchanged up to registry_unname(). Thread-safe.
 */
void registry_name(struct registry *g, struct registry_entry *e, struct stream *stream,
    const char *user, const struct watch_list *watches);
/* Before what was named changes or is freed; safe where nothing was named. Thread-safe. */
void registry_unname(struct registry *g, struct registry_entry *e);

/*
 * Takes a revocation (a subscriber_revoked): the application client forgets every answer from before it, and the streams
 * that it concerns are marked STREAM_REVOKED, and STREAM_MANY after the first 100. Returns how
 * many.
 */
size_t registry_revoke(void *registry, const struct revocation *revocation);

/* From now on streams end and requests are told to come back later; wakes every connection. */
void registry_drain(struct registry *g);

/* Waits until no connection is left, up to deadline (clock_ms()). Returns how many are. */
int registry_wait(struct registry *g, int64_t deadline);

#endif
