/* SPDX-License-Identifier: ISC */
/*
 * channel_table: which channels are asked for, what Valkey has said about each, and who listens. Belongs
 * to the subscriber's thread alone; no input or output: commands leave through a function of the subscriber's.
 *
 * A channel is asked for when its first member joins and given up when its last one has left; one
 * that is kept is asked for as long as there is a connection.
 * Valkey answers commands in order, one answer each, so a queue of the commands under way tells
 * what an answer is about, an error included. A channel is confirmed when SUBSCRIBE was the last
 * command sent for it and none of its commands is unanswered.
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
	struct channel *channel; /* NULL: not in it */
	struct subscription *subscription;
	uint32_t index; /* in the channel's members */
};

/* The same as its channel lists it, with the stream beside: a fan-out looks at nothing else. */
struct channel_member {
	struct member *member;
	struct stream *stream;
};

/* One stream's channels. Made by subscriber_join(), freed by channel_table_leave(). */
struct subscription {
	struct subscriber *subscriber;
	struct stream *stream; /* one reference */
	char *names;           /* until it has joined: each terminated, one behind the other; owned */
	int count;             /* of names, and of members */
	int unconfirmed;       /* members whose channel is not confirmed */
	bool confirmed_once;
	void (*begin)(struct stream *stream); /* called when that becomes true */
	/* The subscriber's: */
	bool joined;
	bool left; /* before it had joined */
	STAILQ_ENTRY(subscription) join_link, leave_link;
	struct member members[];
};

/* Sends SUBSCRIBE or UNSUBSCRIBE for a name; false where that was not possible (no memory). */
typedef bool channel_table_command(void *arg, bool subscribe, const char *name, size_t length);

/* NULL: no memory. */
struct channel_table *channel_table_new(channel_table_command *command, void *arg);

/* A channel that is kept, whoever is in it; valid for ever. NULL: no memory. */
struct channel *channel_table_keep(struct channel_table *c, const char *name, size_t length);

/* Begins the stream where all its channels are confirmed; marks it REFUSED where memory is out. */
void channel_table_join(struct channel_table *c, struct subscription *subscription);
/*
 * Takes the subscription out of some of its channels: count names, each terminated, one behind the
 * other. Others are left alone. Tells the stream where it waited for these alone.
 */
void channel_table_leave_some(struct channel_table *c, struct subscription *subscription, const char *names,
    int count);
/* Frees the subscription and releases its stream. */
void channel_table_leave(struct channel_table *c, struct subscription *subscription);

/* How many answers are due. */
size_t channel_table_unanswered(const struct channel_table *c);
/* The channel that the next answer is about; NULL where none is due. Valid until that answer. */
const char *channel_table_awaited(const struct channel_table *c);

/*
 * The answer to the oldest command under way: name is the channel it speaks of (NULL: an error that
 * names none), refused whether it is an error. False where no such answer is due.
 */
bool channel_table_answer(struct channel_table *c, const char *name, size_t length, bool refused);

/* The connection is there: asks for every channel. False where memory is out. */
bool channel_table_up(struct channel_table *c);
/* The connection is gone: nothing is confirmed any more, no answer is due. */
void channel_table_down(struct channel_table *c);
/* There is no prospect of one: marks the streams REFUSED that were never confirmed. */
void channel_table_unreachable(struct channel_table *c);

/* Those that are subscribed, about to be, or being given up; but for those that are kept. */
uint32_t channel_table_total(const struct channel_table *c);

/* NULL: nobody listens to it. */
struct channel *channel_table_find(struct channel_table *c, const char *name, size_t length);
/* The members of a channel; valid until the next join or leave. */
const struct channel_member *channel_members(struct channel *channel, size_t *count);

#endif
