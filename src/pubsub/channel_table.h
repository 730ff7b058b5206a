/* SPDX-License-Identifier: ISC */
/*
 * channel_table: the channels, their members, and their state in Valkey. Used by the subscriber's
 * thread only. Does no input or output: a callback sends the commands.
 *
 * A channel is subscribed when its first member joins and unsubscribed when its last one leaves; a
 * kept channel stays subscribed while there is a connection.
 *
 * Valkey replies to commands in order, one reply each. So the queue of commands in flight shows
 * which command a reply belongs to, even an error, which names no channel. A channel is confirmed
 * when SUBSCRIBE was the last command sent for it and no command for it is in flight.
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

/* One stream in one channel. */
struct member {
	struct channel *channel; /* NULL: has left it */
	struct subscription *subscription;
	uint32_t index; /* in the channel's members */
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
	char *names;           /* before it has joined: see subscriber_join(); owned */
	int count;             /* of names and of members */
	int unconfirmed;       /* members whose channel is not confirmed */
	bool confirmed_once;
	void (*begin)(struct stream *stream); /* called when confirmed_once becomes true */
	/* Used by subscriber.c: */
	bool joined;
	bool left; /* before it joined */
	STAILQ_ENTRY(subscription) join_link, leave_link;
	struct member members[];
};

/* Sends SUBSCRIBE or UNSUBSCRIBE for a name; false: no memory. */
typedef bool channel_table_command(void *arg, bool subscribe, const char *name, size_t length);

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

/* Returns the number of commands in flight. */
size_t channel_table_unanswered(const struct channel_table *c);
/* Returns the channel that the next reply is about, valid until that reply; NULL if none is due. */
const char *channel_table_awaited(const struct channel_table *c);

/*
 * Handles the reply to the oldest command in flight. name is the channel in the reply (NULL: an
 * error, which names none); refused: it is an error. False if no such reply is due.
 */
bool channel_table_answer(struct channel_table *c, const char *name, size_t length, bool refused);

/* Call it after connecting: subscribes to every channel. False: no memory. */
bool channel_table_up(struct channel_table *c);
/* Call it after the connection was lost: no channel is confirmed, and no reply is due. */
void channel_table_down(struct channel_table *c);
/* Marks REFUSED the streams that were never confirmed: there is no connection in sight. */
void channel_table_unreachable(struct channel_table *c);

/* Returns the number of channels, including those being unsubscribed, but not kept ones. */
uint32_t channel_table_total(const struct channel_table *c);

/* NULL: no such channel. */
struct channel *channel_table_find(struct channel_table *c, const char *name, size_t length);
/* Returns the label of a channel; NULL if no labelled stream has ever joined it. */
const char *channel_label(const struct channel *channel);
/* Returns the members of a channel; valid until the next join or leave. */
const struct channel_member *channel_members(struct channel *channel, size_t *count);

#endif
