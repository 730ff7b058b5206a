/* SPDX-License-Identifier: ISC */
/*
 * subscriber: the one pub/sub connection to Valkey, and the thread that reads it.
 *
 * The thread owns the channels and their members. A connection's thread hands over its subscription
 * to join or leave without waiting, and is notified by marks on its stream. The subscriber's thread
 * writes events to the streams itself; what it gets from Valkey in one read goes to each stream in
 * one record.
 */
#ifndef TPI_PUBSUB_SUBSCRIBER_H
#define TPI_PUBSUB_SUBSCRIBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/settings.h"
#include "stream/stream.h"
#include "valkey/topology.h"
#include "wire/revocation.h"

struct subscriber;
struct subscription;

/*
 * Called in the subscriber's thread for each revocation, and with NULL at the time (clock_ms())
 * that the previous call returned; INT64_MAX: never. Must not block.
 */
typedef int64_t subscriber_revoked(void *arg, const struct revocation *revocation);

/*
 * Starts the subscriber and the connector. s and topology must live as long as the process, and
 * topology is the connector's from now on. NULL, with errno: no memory or no thread.
 */
struct subscriber *subscriber_start(const struct settings *s, struct topology *topology,
    subscriber_revoked *revoked, void *arg);

/* Whether Valkey is known to be unreachable, so that joining is pointless. Any thread. */
bool subscriber_unreachable(struct subscriber *subscriber);

/* Whether the subscriber's thread has run in the last 10 s; it does every second. Any thread. */
bool subscriber_working(struct subscriber *subscriber);

enum subscriber_state {
	SUBSCRIBER_CONNECTING, /* the first attempt after the start or a loss is in progress */
	SUBSCRIBER_CONNECTED,
	SUBSCRIBER_UNREACHABLE /* an attempt has failed; retrying */
};

/* The state, for monitoring. Any thread. */
struct subscriber_view {
	enum subscriber_state state;
	uint32_t channels;  /* subscribed, lingering ones included, or about to be */
	int64_t message_at; /* clock_ms() of the last message, or of the start */
};
void subscriber_look(struct subscriber *subscriber, struct subscriber_view *view);

/*
 * Subscribes a stream to channels: names is count terminated strings in a row, which the subscriber
 * frees; if the stream is labelled, each is followed by the label of the channel, also terminated.
 * Holds a reference to the stream. Once Valkey has confirmed all of them, the subscriber's thread
 * calls begin(), which must not block. Events go to the stream after its stream_start().
 *
 * STREAM_CONFIRMED: all are confirmed again after the connection was lost. STREAM_REFUSED: a
 * channel is refused, or Valkey is found unreachable before begin().
 *
 * NULL: no memory (ENOMEM), or too many channels are subscribed or wait to be (EAGAIN): try again
 * later; frees names in these cases, too. Any thread.
 */
struct subscription *subscriber_join(struct subscriber *subscriber, struct stream *stream,
    char *names, int count, void (*begin)(struct stream *stream));

/*
 * Leaves some of the subscription's channels: names and count as for subscriber_join(), without
 * labels. The others lose no event. False: no memory; frees names in this case, too. Does not wait.
 * Any thread, before subscriber_leave().
 */
bool subscriber_leave_some(struct subscription *subscription, char *names, int count);

/* Leaves all channels and frees the subscription. Does not wait. Any thread. */
void subscriber_leave(struct subscription *subscription);

/* Unsubscribes, closes the connection and ends the thread. Waits for that, up to timeout_ms. */
void subscriber_stop(struct subscriber *subscriber, int timeout_ms);

#endif
