/* SPDX-License-Identifier: ISC */
/*
 * connection: the life of one connection, from accept to close, in a thread of its own.
 */
#ifndef TPI_SESSION_CONNECTION_H
#define TPI_SESSION_CONNECTION_H

#include "auth/credentials.h"
#include "fcgi/request.h"
#include "pubsub/subscriber.h"
#include "session/peer.h"
#include "session/registry.h"
#include "session/topic.h"
#include "session/watch_list.h"
#include "stream/caps.h"

/* The re-check of an open stream. */
struct recheck {
	int64_t at; /* clock_ms() of the next one; INT64_MAX: never */
	struct app_query *query; /* in flight, until deadline */
	int64_t deadline;
	bool user_known; /* this re-check has confirmed the user: the query is about access */
	/* clock_ms() as of which the session and the access were last confirmed. */
	int64_t user_checked_at, access_checked_at;
	bool owed;                 /* since a revocation, until there is an answer */
	bool again;                /* revoked since the query was sent: the answer may be older */
	int retry_ms;              /* if owed and unanswered: time to the next attempt */
};

/*
 * What live_run() keeps between two turns. Not on the thread's stack, which is to stay small: see
 * thread_trim_stack().
 */
struct live {
	int ended; /* enum metric_ended; -1: not known yet */
	bool grown; /* the stack may have grown since it was trimmed */
	/* Deadlines, of clock_ms(). */
	int64_t end_at;      /* SSE_MAX_AGE_SECONDS */
	int64_t sync_at;     /* after a reconnect to Valkey */
	int64_t cap_ping_at; /* the second ping to the user's other streams */
	int64_t cap_evict_at;
	int64_t recheck_at;
};

/* One connection; belongs to its thread. */
struct connection {
	struct registry *registry;
	struct registry_entry entry;
	struct peer peer;
	struct stream *stream;
	struct request request; /* freed when the stream begins */
	const struct topic *topic;
	struct watch_list watches; /* changes only while unnamed, see registry_name() */
	struct caps *caps; /* of the topic's kind */
	struct caps_entry slot;
	struct subscription *subscription;
	char *user; /* NULL until known; owned */
	bool pending; /* counted in the registry's pending */
	struct credentials *credentials; /* for the application; NULL if it is not queried */
	struct recheck recheck;
	struct live live;
};

/*
 * Serves fd in a new thread, which closes it. Returns 0, or an errno value if there is no thread or
 * memory: then fd is still the caller's.
 */
int connection_start(struct registry *r, int fd);

/* The least time from the start to the first re-check, in ms per second of TPI_RECHECK_SECONDS. */
#define RECHECK_FIRST_MS 100

/*
 * recheck.c: whether the session still belongs to the user, and whether they still have access to
 * what the stream carries (TPI_RECHECK_SECONDS). recheck_turn() does what is due now (clock_ms())
 * without waiting, and returns when to call it again, INT64_MAX for never; call it after
 * STREAM_ANSWERED, too. It finishes the stream of a user who has lost the session or all access.
 *
 * Call recheck_revoked() after STREAM_REVOKED, before recheck_turn(): the next re-check is due at
 * once, or soon if many streams are concerned. If recheck_covers() is false, a re-check would not
 * check everything that let the stream in, so recheck_revoked() ends the stream instead.
 */
void recheck_start(struct connection *c);
bool recheck_covers(const struct connection *c);
void recheck_revoked(struct connection *c, bool many, int64_t now);
int64_t recheck_turn(struct connection *c, int64_t now);
void recheck_end(struct connection *c);

/* live.c: from the first sync to the end of the stream. marks: those already taken from it. */
void live_run(struct connection *c, unsigned marks);

#endif
