/* SPDX-License-Identifier: ISC */
/*
 * fanout: sends to the streams what one read from Valkey delivered. fanout_add() collects events
 * and fanout_flush() sends them: each stream gets all of its events, of all its channels, in order,
 * in as few records as their size allows. Used by the subscriber's thread only.
 */
#ifndef TPI_PUBSUB_FANOUT_H
#define TPI_PUBSUB_FANOUT_H

#include <stddef.h>
#include <stdint.h>

#include "pubsub/channel_table.h"

struct fanout;

/*
 * record_max limits the content of a record. yield is called now and then during a long flush; it
 * may add members to channels, but not remove any. NULL: no memory.
 */
struct fanout *fanout_new(size_t record_max, void (*yield)(void *arg), void *arg);

/*
 * Adds an event for all members of a channel whose streams have started. Flushes first if the batch
 * is full. The payload must be valid (wakeup_check()). Call it in the thread that starts streams.
 */
void fanout_add(struct fanout *f, struct channel *channel, const char *payload, size_t length);

/* Sends the batch. No member may leave a channel between fanout_add() and this. */
void fanout_flush(struct fanout *f);

#endif
