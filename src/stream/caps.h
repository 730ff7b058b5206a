/* SPDX-License-Identifier: ISC */
/*
 * caps: the slots of one kind of stream: how many the tenant may have, and how many a user
 * (tpi-stream(7), EVICTION). A slot is reserved once the user is known, before access is queried
 * and channels are subscribed, so a burst cannot exceed the cap. A stream returns its slot when its
 * connection is closed, any other response before its end is sent.
 *
 * A user's requests are pending until their sync, then live. The oldest is the one whose request
 * arrived first, not the one whose sync came first: several streams may begin in the same instant.
 * One lock for each kind; a stream's lock is taken under it. An entry belongs to its connection's
 * thread; others change it only under the lock.
 */
#ifndef TPI_STREAM_CAPS_H
#define TPI_STREAM_CAPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "stream/stream.h"

struct caps;
struct caps_user;

/* One connection's slot. A zeroed struct is ready for use. */
struct caps_entry {
	bool reserved; /* holds a slot of the tenant; the owner's alone */
	/* Set before caps_claim(), and constant from then on. */
	uint64_t arrival; /* the lower, the earlier */
	bool returning;   /* an evicted stream's automatic reconnect: takes a free slot or none */
	/* Guarded by the lock of the caps. */
	enum { CAPS_NONE, CAPS_PENDING, CAPS_LIVE } state;
	struct stream *stream;
	struct caps_user *user;
	TAILQ_ENTRY(caps_entry) link;
	int64_t live_at; /* clock_ms() of the sync; does not change after it */
};

/*
 * After a user's last new stream: when the oldest over the cap are evicted, and when before that
 * the second ping is due.
 */
#define CAPS_SETTLE_MS 600
#define CAPS_PING_MS   300

/* When an evicted stream reconnects to check for a free slot: a random time. */
#define CAPS_RETRY_MIN_MS 120000
#define CAPS_RETRY_MAX_MS 300000

/* NULL: no memory. */
struct caps *caps_new(int tenant_cap, int user_cap);

/* Takes a slot of the tenant; false if there is none left. Thread-safe. */
bool caps_reserve(struct caps *c, struct caps_entry *e);

/*
 * Counts the slot as this user's. If the user already holds twice the cap, their oldest request in
 * flight, which may be this one, is cancelled (STREAM_CANCELLED). CAPS_NO_SLOT: the request is
 * returning, and the user's streams and requests in flight fill the cap. Thread-safe.
 */
enum caps_claim { CAPS_CLAIMED, CAPS_NO_SLOT, CAPS_NO_MEMORY };
enum caps_claim caps_claim(struct caps *c, struct caps_entry *e, const char *user,
    struct stream *stream);

/*
 * The claimed stream begins, with this text (stream_start()), unless its request was cancelled,
 * withdrawn or finished before. The user's oldest streams over twice the cap, which may include
 * this one, are evicted at once. If the user is over the cap now, STREAM_OVER has the stream's
 * owner ping the others twice and call caps_evict(). A returning stream is cancelled instead if
 * other streams and requests have filled the cap meanwhile: it never evicts any. Thread-safe.
 */
void caps_live(struct stream *stream, const char *text);

/*
 * The request must not become a stream any more. False if it already has. Safe at any time.
 * Thread-safe.
 */
bool caps_withdraw(struct caps *c, struct caps_entry *e);

/* Pings the user's other live streams. Thread-safe. */
void caps_ping(struct caps *c, const struct caps_entry *e);

/*
 * Evicts the user's oldest streams until the cap holds, once CAPS_SETTLE_MS have passed since their
 * last new stream: until then one of the others may be the stale stream of a page that was
 * reloaded, which the pings have not revealed yet. Returns INT64_MAX, or the clock_ms() at which to
 * call again. Thread-safe.
 */
int64_t caps_evict(struct caps *c, const struct caps_entry *e);

/*
 * Removes the stream from its user; it cannot begin after that. Call it before stream_release();
 * safe at any time. Thread-safe.
 */
void caps_leave(struct caps *c, struct caps_entry *e);

/*
 * Releases the tenant's slot; safe if none is held. For a stream call it after its connection is
 * closed, for any other response before its end is sent. Thread-safe.
 */
void caps_release(struct caps *c, struct caps_entry *e);

/* How many streams are live. Thread-safe. */
int caps_count(struct caps *c);

struct caps_counts {
	int live, reserved; /* slots */
	uint64_t opened;    /* streams that have ever begun */
};
/* All at the same moment. Thread-safe. */
void caps_counts(struct caps *c, struct caps_counts *counts);

#endif
