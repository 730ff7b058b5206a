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

#include "access.h"
#include "caps.h"
#include "gate.h"
#include "hub.h"
#include "revocation.h"
#include "route.h"
#include "settings.h"

/* So many of the last revocations are kept, for those who were on their way in. */
#define GATEWAY_REVOCATIONS 64

/* One connection in the list; belongs to it. A zeroed struct is ready for gateway_add(). */
struct gateway_entry {
	LIST_ENTRY(gateway_entry) link; /* the gateway's lock */
	pthread_t thread;               /* the same */
	bool running;                   /* the same: thread is set */
	uint64_t revocation_count;      /* that the gateway had at the beginning; does not change */
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
	struct revocation revocations[GATEWAY_REVOCATIONS]; /* the n-th at n % GATEWAY_REVOCATIONS */
	uint64_t revocation_count;
};

/* Prepares the list; the caller sets the rest. */
void gateway_init(struct gateway *g, const struct settings *settings);

/*
 * A connection that is there, one whose thread (the calling one) runs, one that has ended.
 * Thread-safe.
 */
void gateway_add(struct gateway *g, struct gateway_entry *e);
void gateway_run(struct gateway *g, struct gateway_entry *e);
void gateway_remove(struct gateway *g, struct gateway_entry *e);

/* How many there are. Thread-safe. */
int gateway_count(struct gateway *g);

/*
 * Takes a revocation (a hub_revoked): no answer from before it counts for those who come, and the
 * streams of its user are marked.
 */
size_t gateway_revoke(void *gateway, const struct revocation *revocation);

/*
 * Whether a revocation that came after the connection concerns a stream of this user and these
 * projects. Thread-safe.
 */
bool gateway_revoked(struct gateway *g, const struct gateway_entry *e, const char *user,
    const int32_t *projects, int count);

/* From now on streams end and requests are told to come back later; wakes every connection. */
void gateway_drain(struct gateway *g);

/* Waits until no connection is left, up to deadline (clock_ms()). Returns how many are. */
int gateway_wait(struct gateway *g, int64_t deadline);

#endif
