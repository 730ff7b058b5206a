/* SPDX-License-Identifier: ISC */
/*
 * subscriber: the channels, who listens to them, and the one subscriber connection to Valkey.
 *
 * One thread owns all of it. A connection's thread only hands over a subscription to join or to
 * leave, which waits for nothing, and is told by a mark on its stream. The subscriber's thread writes
 * events to the streams itself; what Valkey has delivered in one read goes to a stream in one
 * record.
 */
#ifndef TPI_PUBSUB_SUBSCRIBER_H
#define TPI_PUBSUB_SUBSCRIBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/revocation.h"
#include "valkey/topology.h"
#include "config/settings.h"
#include "stream/stream.h"

struct subscriber;
struct subscription;

/*
 * Called in the subscriber's thread for each revocation; returns how many streams it concerns. Must wait
 * for nothing.
 */
typedef size_t subscriber_revoked(void *arg, const struct revocation *revocation);

/*
 * Starts the subscriber's threads; s and servers must outlive the process's threads, and servers is the
 * subscriber's alone from here on. NULL: the system refuses.
 */
struct subscriber *subscriber_start(const struct settings *s, struct topology *topology, subscriber_revoked *revoked,
    void *arg);

/* Whether Valkey is known to be away, so that joining has no prospect. Any thread. */
bool subscriber_unreachable(struct subscriber *subscriber);

/* Whether the subscriber's thread has turned within the last 10 s; it does each second. Any thread. */
bool subscriber_working(struct subscriber *subscriber);

enum subscriber_state {
	SUBSCRIBER_CONNECTING, /* the first attempt after the start or after a loss is under way */
	SUBSCRIBER_CONNECTED,
	SUBSCRIBER_UNREACHABLE /* an attempt has failed; further ones follow */
};

/* How it is, for monitoring. Any thread. */
struct subscriber_view {
	enum subscriber_state state;
	uint32_t channels;  /* subscribed, or about to be */
	int64_t message_at; /* clock_ms() of the last message, or of the start */
};
void subscriber_look(struct subscriber *subscriber, struct subscriber_view *view);

/*
 * Asks for the channels of a stream: names is count texts, each terminated, one behind the other;
 * the subscriber frees it. begin() is called once all are confirmed by Valkey, in the subscriber's thread: it must
 * wait for nothing. STREAM_CONFIRMED comes each time that they are confirmed again after Valkey was
 * lost; STREAM_REFUSED when a channel is refused, or Valkey turns out to be away
 * before the first confirmation. Events go to the stream from its stream_start() on. Holds a
 * reference to the stream. NULL: no memory; names is freed then, too. Any thread.
 */
struct subscription *subscriber_join(struct subscriber *subscriber, struct stream *stream, char *names, int count,
    void (*begin)(struct stream *stream));

/*
 * Leaves some of the subscription's channels, by name: names and count as for subscriber_join(). What is
 * published to the others still comes, whole and in order. False: no memory; names is freed then,
 * too. Waits for nothing. Any thread, before subscriber_leave().
 */
bool subscriber_leave_some(struct subscription *subscription, char *names, int count);

/* Gives a subscription back; it is not to be used again. Waits for nothing. Any thread. */
void subscriber_leave(struct subscription *subscription);

/* Unsubscribes, closes the connection and ends the thread; waits for that up to timeout_ms. */
void subscriber_stop(struct subscriber *subscriber, int timeout_ms);

#endif
