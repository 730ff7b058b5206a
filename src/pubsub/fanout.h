/* SPDX-License-Identifier: ISC */
/*
 * fanout: what Valkey has delivered in one go, on its way to the streams. Events are collected with
 * fanout_add() and sent with fanout_flush(): each stream gets all of its own, from however many
 * channels, in order, in as few records as their size allows. Belongs to the subscriber's thread alone.
 */
#ifndef TPI_PUBSUB_FANOUT_H
#define TPI_PUBSUB_FANOUT_H

#include <stddef.h>
#include <stdint.h>

#include "pubsub/channel_table.h"

struct fanout;

/*
 * record_max is the most content of one record. yield is called now and then during a long flush;
 * it may add members to channels, but not remove any. NULL: no memory.
 */
struct fanout *fanout_new(size_t record_max, void (*yield)(void *arg), void *arg);

/*
 * Adds one event for all members of a channel whose streams have started by now. Flushes first where
 * too much is collected. The payload has been checked. Called by the thread that starts them.
 */
void fanout_add(struct fanout *f, struct channel *channel, const char *payload, size_t length);

/* Sends all that was collected. No member may leave a channel between fanout_add() and this. */
void fanout_flush(struct fanout *f);

#endif
