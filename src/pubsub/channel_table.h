/*
 * channels: which channels are asked for, what Valkey has said about each, and who listens. Belongs
 * to the hub's thread alone; no input or output: commands leave through a function of the hub's.
 *
 * A channel is asked for when its first member joins and given up when its last one has left; one
 * that is kept is asked for as long as there is a connection.
 * Valkey answers commands in order, one answer each, so a queue of the commands under way tells
 * what an answer is about, an error included. A channel is confirmed when SUBSCRIBE was the last
 * command sent for it and none of its commands is unanswered.
 */
#ifndef TPI_CHANNELS_H
#define TPI_CHANNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "stream/stream.h"

struct hub;
struct channel;
struct channels;

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

/* One stream's channels. Made by hub_join(), freed by channels_leave(). */
struct subscription {
	struct hub *hub;
	struct stream *stream; /* one reference */
	char *names;           /* until it has joined: each terminated, one behind the other; owned */
	int count;             /* of names, and of members */
	int unconfirmed;       /* members whose channel is not confirmed */
	bool confirmed_once;
	void (*begin)(struct stream *stream); /* called when that becomes true */
	/* The hub's: */
	bool joined;
	bool left; /* before it had joined */
	STAILQ_ENTRY(subscription) join_link, leave_link;
	struct member members[];
};

/* Sends SUBSCRIBE or UNSUBSCRIBE for a name; false where that was not possible (no memory). */
typedef bool channels_command(void *arg, bool subscribe, const char *name, size_t length);

/* NULL: no memory. */
struct channels *channels_new(channels_command *command, void *arg);

/* A channel that is kept, whoever is in it; valid for ever. NULL: no memory. */
struct channel *channels_keep(struct channels *c, const char *name, size_t length);

/* Begins the stream where all its channels are confirmed; marks it REFUSED where memory is out. */
void channels_join(struct channels *c, struct subscription *subscription);
/*
 * Takes the subscription out of some of its channels: count names, each terminated, one behind the
 * other. Others are left alone. Tells the stream where it waited for these alone.
 */
void channels_leave_some(struct channels *c, struct subscription *subscription, const char *names,
    int count);
/* Frees the subscription and releases its stream. */
void channels_leave(struct channels *c, struct subscription *subscription);

/* How many answers are due. */
size_t channels_unanswered(const struct channels *c);
/* The channel that the next answer is about; NULL where none is due. Valid until that answer. */
const char *channels_awaited(const struct channels *c);

/*
 * The answer to the oldest command under way: name is the channel it speaks of (NULL: an error that
 * names none), refused whether it is an error. False where no such answer is due.
 */
bool channels_answer(struct channels *c, const char *name, size_t length, bool refused);

/* The connection is there: asks for every channel. False where memory is out. */
bool channels_up(struct channels *c);
/* The connection is gone: nothing is confirmed any more, no answer is due. */
void channels_down(struct channels *c);
/* There is no prospect of one: marks the streams REFUSED that were never confirmed. */
void channels_away(struct channels *c);

/* Those that are subscribed, about to be, or being given up; but for those that are kept. */
uint32_t channels_total(const struct channels *c);

/* NULL: nobody listens to it. */
struct channel *channels_find(struct channels *c, const char *name, size_t length);
/* The members of a channel; valid until the next join or leave. */
const struct channel_member *channel_members(struct channel *channel, size_t *count);

#endif
