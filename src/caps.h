/*
 * caps: the places of one kind of stream: how many a tenant may have, and how many a user (section
 * 4 of the contract). A place is reserved before anything is asked, so a burst cannot overshoot,
 * and is given back when the connection is closed.
 *
 * A user's requests are under way until their sync, then live. One lock for each kind; a stream's
 * lock is taken under it. An entry belongs to its connection's thread; others change it only under
 * the lock.
 */
#ifndef TPI_CAPS_H
#define TPI_CAPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "stream.h"

struct caps;
struct caps_user;

/* One connection's place. A zeroed struct is ready for use. */
struct caps_entry {
	bool reserved; /* holds a place of the tenant; the owner's alone */
	/* Guarded by the lock of the caps. */
	enum { CAPS_NONE, CAPS_UNDER_WAY, CAPS_LIVE } state;
	struct stream *stream;
	struct caps_user *user;
	TAILQ_ENTRY(caps_entry) link;
	int64_t live_at; /* clock_ms() of the sync; does not change after it */
};

/*
 * How long after a user's last newcomer his oldest streams go, and when before that the second ping
 * is due.
 */
#define CAPS_SETTLE_MS 600
#define CAPS_PING_MS   300

/* NULL: no memory. */
struct caps *caps_new(int tenant_cap, int user_cap);

/* Takes a place of the tenant; false where there is none left. Thread-safe. */
bool caps_reserve(struct caps *c, struct caps_entry *e);

/*
 * The place is for this user from now on. Where he holds twice his cap of places, his oldest
 * request under way is cancelled (STREAM_CANCELLED). False: no memory. Thread-safe.
 */
bool caps_claim(struct caps *c, struct caps_entry *e, const char *user, struct stream *stream);

/*
 * The claimed stream begins, with this text (stream_start()), unless its request was cancelled,
 * withdrawn or finished before. The user's oldest streams over twice his cap are evicted at once. Where he is
 * over his cap now, STREAM_OVER tells the stream's owner to ping the others twice and to call
 * caps_evict() (section 4). Thread-safe.
 */
void caps_live(struct stream *stream, const char *text);

/*
 * The request is not to become a stream any more. False where it has become one. Safe at any time.
 * Thread-safe.
 */
bool caps_withdraw(struct caps *c, struct caps_entry *e);

/* Pings the user's other live streams. Thread-safe. */
void caps_ping(struct caps *c, const struct caps_entry *e);

/*
 * Evicts the user's oldest streams until his cap holds, where CAPS_SETTLE_MS have passed since his
 * last newcomer: the one that came before it may be the ghost of a page that was reloaded, not
 * found out yet. Returns INT64_MAX, or the clock_ms() at which to call again. Thread-safe.
 */
int64_t caps_evict(struct caps *c, const struct caps_entry *e);

/*
 * The stream is no longer one of the user's. Before stream_release(); safe at any time.
 * Thread-safe.
 */
void caps_leave(struct caps *c, struct caps_entry *e);

/*
 * Gives the tenant's place back; safe where none is held. After the connection is closed.
 * Thread-safe.
 */
void caps_release(struct caps *c, struct caps_entry *e);

/* How many streams are live. Thread-safe. */
int caps_count(struct caps *c);

struct caps_counts {
	int live, reserved; /* places */
	uint64_t opened;    /* streams that have ever begun */
};
/* All at the same moment. Thread-safe. */
void caps_counts(struct caps *c, struct caps_counts *counts);

#endif
