/* SPDX-License-Identifier: ISC */
/*
 * registry: what all connections share, and the list of all connections. main() sets it up before
 * the first connection.
 */
#ifndef TPI_SESSION_REGISTRY_H
#define TPI_SESSION_REGISTRY_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <time.h>

#include "auth/access.h"
#include "auth/app_client.h"
#include "config/settings.h"
#include "pubsub/subscriber.h"
#include "session/revoked.h"
#include "session/watch_list.h"
#include "stream/caps.h"
#include "stream/open_rate.h"
#include "wire/channel_name.h"
#include "wire/revocation.h"

/*
 * A connection's entry in the list, which is part of the connection. A zeroed struct is ready for
 * registry_add(). Guarded by the registry's lock.
 */
struct registry_entry {
	LIST_ENTRY(registry_entry) link;
	pthread_t thread;
	bool running; /* thread is set */
	/* What revocations are compared with; user is NULL while it is not known. Not owned. */
	struct stream *stream;
	const char *user;
	const struct watch_list *watches;
	uint64_t checked; /* the number of the last revocation that it has been compared with */
};

struct registry {
	/* Set before the first connection. */
	const struct settings *settings;
	struct subscriber *subscriber;
	struct access *access;
	struct app_client *app_client;              /* NULL if no setting is app */
	struct caps *caps[KIND_COUNT]; /* by enum stream_kind */
	struct open_rate *open_rate;

	time_t started_at; /* wall clock */

	_Atomic bool draining;
	_Atomic int pending; /* requests that wait to learn who their user is: TPI_APP_PENDING */

	pthread_mutex_t lock; /* the rest */
	LIST_HEAD(, registry_entry) connections; /* each has a descriptor: RLIMIT_NOFILE */
	int connection_count;
	pthread_cond_t emptied;
	struct revoked revoked; /* up to REVOKED_MAX; the subscriber's thread alone changes it */
	uint64_t applied; /* the number of the last revocation that has been applied */
	int64_t apply_at; /* clock_ms() before which none is; the subscriber's thread's */
};

/* Initializes the list; the caller sets the rest. */
void registry_init(struct registry *r, const struct settings *settings);

/*
 * Adds a connection; notes that its thread, the calling one, runs; removes it once it has ended and
 * is unnamed. Thread-safe.
 */
void registry_add(struct registry *r, struct registry_entry *e);
void registry_run(struct registry *r, struct registry_entry *e);
void registry_remove(struct registry *r, struct registry_entry *e);

/* The number of connections. Thread-safe. */
int registry_count(struct registry *r);

/*
 * Records the user of a stream and what it watches. From now on a revocation that concerns it marks
 * it STREAM_REVOKED, and so does one that came after the connection was added or last unnamed. user
 * and watches must stay valid and unchanged until registry_unname(). Thread-safe.
 */
void registry_name(struct registry *r, struct registry_entry *e, struct stream *stream,
    const char *user, const struct watch_list *watches);
/* Call before user or watches change or are freed; safe if it is not named. Thread-safe. */
void registry_unname(struct registry *r, struct registry_entry *e);

/*
 * Takes a revocation (a subscriber_revoked; NULL: none) and applies those that are due: invalidates
 * all earlier answers of the application, and marks the streams concerned STREAM_REVOKED, those
 * after the first 100 STREAM_MANY as well. That walk through all connections takes place at most
 * every 100 ms, and less often if it takes long. Returns when to call again (clock_ms()), INT64_MAX
 * if there is no need.
 */
int64_t registry_revoke(void *registry, const struct revocation *revocation);

/*
 * A walk over all connections that have a user, without holding the lock for long. place is in the
 * list like an entry, unnamed and not running, so all others ignore it. registry_next() copies the
 * next connection; the caller releases its stream. A connection that begins during the walk is not
 * found. Always call registry_walk_end(). Thread-safe; each walk belongs to one thread.
 */
struct registry_view {
	struct stream *stream; /* a reference */
	char user[CHANNEL_ID_MAX + 1];
	struct watch_list watches; /* its ids are those below: do not free it */
	int32_t ids[WATCH_LIST_MAX];
};
void registry_walk(struct registry *r, struct registry_entry *place);
bool registry_next(struct registry *r, struct registry_entry *place, struct registry_view *view);
void registry_walk_end(struct registry *r, struct registry_entry *place);

/* From now on streams end and requests are deferred; wakes every connection. */
void registry_drain(struct registry *r);

/* Waits up to deadline (clock_ms()) until no connection is left. Returns how many are left. */
int registry_wait(struct registry *r, int64_t deadline);

#endif
