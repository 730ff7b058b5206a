/* SPDX-License-Identifier: ISC */
/*
 * connection: the life of one connection, from accept to close, in a thread of its own.
 */
#ifndef TPI_SESSION_CONNECTION_H
#define TPI_SESSION_CONNECTION_H

#include "stream/caps.h"
#include "auth/credentials.h"
#include "session/registry.h"
#include "pubsub/subscriber.h"
#include "session/peer.h"
#include "fcgi/request.h"
#include "session/topic.h"
#include "session/watch_list.h"

/* What an open stream is asked again. */
struct recheck {
	int64_t at; /* clock_ms() of the next one; INT64_MAX: never */
	struct app_query *query; /* under way, up to deadline */
	int64_t deadline;
	bool user_known;           /* by this re-check: the query is about access */
	/*
	 * How old the stream's answers are: clock_ms() at which the application was asked for them.
	 */
	int64_t user_asked_at, access_asked_at;
	bool owed;                 /* since a revocation: until there is an answer */
	bool again;                /* revoked since the query was put: its answer may be older */
	int retry_ms;              /* where owed: to the next one, should this have no answer */
};

/* Belongs to its thread. */
struct connection {
	struct registry *registry;
	struct registry_entry entry;
	struct peer peer;
	struct stream *stream;
	struct request request; /* freed when the stream begins */
	const struct topic *topic;
	struct watch_list watches; /* changes only while unnamed, see registry_name() */
	struct caps *caps; /* of the topic's group */
	struct caps_entry slot;
	struct subscription *subscription;
	char *user; /* once known; owned */
	struct credentials *credentials; /* for the application; NULL where it is not asked */
	struct recheck recheck;
};

/*
 * Serves fd, which it closes in the end, in a new thread. Returns 0, or an errno value when the
 * machine has no thread or memory left: then fd is still the caller's.
 */
int connection_start(struct registry *g, int fd);

/* The first re-check comes so many milliseconds after the start at least, for each second between two. */
#define RECHECK_FIRST_MS 100

/*
 * recheck.c: whether an open stream's user is still who he was, and may still read what he gets
 * (TPI_RECHECK_SECONDS). recheck_start() comes before the request is freed. recheck_turn() does what
 * is due now (clock_ms()), without waiting, and returns when to call it again, INT64_MAX for never;
 * it is also to be called after STREAM_ANSWERED. It finishes the stream of a user who has lost it.
 *
 * recheck_revoked() comes after STREAM_REVOKED, before recheck_turn(): the next re-check is due at
 * once, or soon where many are concerned. Where recheck_tells() is false, a re-check would not ask
 * for all that let the stream in, and it ends: whoever lets it in again has judged anew.
 */
void recheck_start(struct connection *c);
bool recheck_tells(const struct connection *c);
void recheck_revoked(struct connection *c, bool many, int64_t now);
int64_t recheck_turn(struct connection *c, int64_t now);
void recheck_end(struct connection *c);

/* live.c: from the first sync to the end of the stream. marks: what was found on it already. */
void live_run(struct connection *c, unsigned marks);

#endif
