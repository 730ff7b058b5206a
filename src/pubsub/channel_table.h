/* SPDX-License-Identifier: ISC */
/*
 * channel_table: the channels, their members, and their state in Valkey. Used by the subscriber's
 * thread only. Does no input or output: a callback sends the commands.
 *
 * A channel is subscribed when its first member joins. When its last one leaves, it lingers, still
 * subscribed, for CHANNEL_LINGER_MS, and is then unsubscribed: streams that open and close cost no
 * commands. A kept channel stays subscribed while there is a connection.
 *
 * Joining and leaving only note what to send. channel_table_send() sends it: several channels in a
 * command, and no more than CHANNEL_IN_FLIGHT_MAX of them before Valkey has replied. So neither the
 * output to Valkey nor the replies that precede a wake-up grow with the number of joins.
 *
 * Valkey replies to commands in order: once for each channel, or with one error, which names no
 * channel, for the whole command. So the queue of channels in flight shows what a reply is about. A
 * channel is confirmed when SUBSCRIBE was the last command sent for it and no command for it is in
 * flight. A refused command of several channels is repeated with each of them alone: only then is
 * it known which one is refused.
 */
#ifndef TPI_PUBSUB_CHANNEL_TABLE_H
#define TPI_PUBSUB_CHANNEL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "stream/stream.h"

struct subscriber;
struct channel;
struct channel_table;

#define CHANNEL_IN_FLIGHT_MAX 2048 /* channels in commands without a reply */
#define CHANNEL_BATCH_MAX     64   /* channels in a command */
#define CHANNEL_LINGER_MS     5000
#define CHANNEL_LINGER_MAX    16384 /* above it, the oldest lingering channels are unsubscribed */

/* One stream in one channel. A combined stream can have 1000 of these, so keep it small. */
struct member {
	struct channel *channel; /* NULL: has left it */
	uint32_t index;          /* in the channel's members */
	uint32_t position;       /* in the subscription's members; see member_subscription() */
};

/* An element of a channel's list. Has the stream as well, so that a fan-out reads nothing else. */
struct channel_member {
	struct member *member;
	struct stream *stream;
};

/* The channels of one stream. Created by subscriber_join(), freed by channel_table_leave(). */
struct subscription {
	struct subscriber *subscriber;
	struct stream *stream; /* holds a reference */
	char *names;           /* see subscriber_join(); owned. NULL once it has joined */
	int count;             /* of names and of members */
	int unconfirmed;       /* members whose channel is not confirmed */
	bool confirmed_once;
	void (*begin)(struct stream *stream); /* called when confirmed_once becomes true */
	/* Used by subscriber.c, under its lock: */
	bool taken; /* by the subscriber's thread, from the queue of joins */
	TAILQ_ENTRY(subscription) join_link;
	/* It may be queued to leave while the subscriber's thread is about to join it. */
	TAILQ_ENTRY(subscription) leave_link;
	struct member members[];
};

/* The subscription that the member is part of. */
struct subscription *member_subscription(struct member *m);

/* Sends SUBSCRIBE or UNSUBSCRIBE for count names; false: no memory. */
typedef bool channel_table_command(void *arg, bool subscribe, int count, const char **names,
    const size_t *lengths);

/* NULL: no memory. */
struct channel_table *channel_table_new(channel_table_command *command, void *arg);

/* Adds a kept channel, which is never freed. NULL: no memory. */
struct channel *channel_table_keep(struct channel_table *c, const char *name, size_t length);

/*
 * Joins the channels. Begins the stream if all are confirmed; marks it REFUSED if there is no
 * memory.
 */
void channel_table_join(struct channel_table *c, struct subscription *subscription);
/*
 * Leaves some of the subscription's channels: names is count terminated strings in a row. Ignores
 * others. If only these were unconfirmed, begins or marks the stream.
 */
void channel_table_leave_some(struct channel_table *c, struct subscription *subscription,
    const char *names, int count);
/* Leaves all channels, frees the subscription and releases its stream. */
void channel_table_leave(struct channel_table *c, struct subscription *subscription);

/*
 * Sends what is needed, as far as the replies in flight allow, until the names have that many bytes
 * or a little more. False: no memory; close the connection.
 */
bool channel_table_send(struct channel_table *c, int64_t now, size_t bytes);
/* Whether channel_table_send() would send something. */
bool channel_table_ready(const struct channel_table *c, int64_t now);

/* Returns the number of channels in flight. */
size_t channel_table_unanswered(const struct channel_table *c);
/*
 * Returns the channel that the next reply is about, valid until that reply; NULL if none is due.
 * *alone: it was the only channel of its command.
 */
const char *channel_table_awaited(const struct channel_table *c, bool *alone);

/*
 * Handles a reply. name is the channel in the reply (NULL: an error, which names none); refused: it
 * is an error, for all of the command that has no reply yet. Returns the number of channels that
 * are no longer in flight; 0 if no such reply is due.
 */
size_t channel_table_answer(struct channel_table *c, const char *name, size_t length,
    bool refused);

/* Call it after connecting: every channel is to be subscribed. */
void channel_table_up(struct channel_table *c);
/* Call it after the connection was lost: no channel is confirmed, and no reply is due. */
void channel_table_down(struct channel_table *c);
/* Marks REFUSED the streams that were never confirmed: call it once Valkey is unreachable. */
void channel_table_unreachable(struct channel_table *c);

/* Returns the number of channels, including those that linger, but not kept ones. */
uint32_t channel_table_total(const struct channel_table *c);

/* NULL: no such channel. */
struct channel *channel_table_find(struct channel_table *c, const char *name, size_t length);
/* Returns the label of a channel; NULL if no labelled stream has ever joined it. */
const char *channel_label(const struct channel *channel);
/* Returns the members of a channel; valid until the next join or leave. */
const struct channel_member *channel_members(struct channel *channel, size_t *count);

#endif
