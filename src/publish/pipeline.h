/* SPDX-License-Identifier: ISC */
/*
 * pipeline: a connection to Valkey with a bounded number of PUBLISH commands in flight, and a time
 * limit for each reply. It prints nothing.
 *
 * Not thread-safe. Only pipeline_open() and pipeline_wait() block.
 */
#ifndef TPI_PUBLISH_PIPELINE_H
#define TPI_PUBLISH_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "publish/batch.h"
#include "valkey/topology.h"

#define PIPELINE_MAX 1000 /* commands in flight; the last item may exceed it */

struct pipeline;

/* One PUBLISH. */
struct pipeline_command {
	char tenant[CHANNEL_ID_MAX + 1];
	char channel[CHANNEL_NAME_SIZE];
	uint64_t line; /* of a batch; 0 for a single wake-up */
	bool last;     /* of the commands of its wake-up */
};

/*
 * Called for the reply to each command, in the order in which they were added. subscribers is
 * Valkey's count; error says why Valkey refused the command, or is NULL.
 */
typedef void pipeline_reply(void *arg, const struct pipeline_command *command,
    long long subscribers, const char *error);

/*
 * Connects; NULL if that fails. It takes at most timeout_ms from since (clock_ms()), name
 * resolution included. A failure, here or below, sets *error, which outlives the pipeline. topology
 * outlives all threads of the process.
 */
struct pipeline *pipeline_open(struct topology *topology, int timeout_ms, int64_t since,
    pipeline_reply *reply, void *arg, struct error *error);
void pipeline_close(struct pipeline *p);

/* The server that it is connected to, for messages. */
const char *pipeline_server(const struct pipeline *p);

/* The number of items with commands in flight. */
size_t pipeline_in_flight(const struct pipeline *p);

/* Whether there is room for the commands of one more item. */
bool pipeline_has_room(const struct pipeline *p);

/*
 * Adds a command for each channel of item; requires pipeline_has_room(). The time limit applies to
 * each reply: it counts the time in pipeline_wait() since the previous reply, starting from
 * waited_ms if nothing is in flight. False: out of memory.
 */
bool pipeline_add(struct pipeline *p, const struct batch_item *item, uint64_t line,
    int64_t waited_ms);

/*
 * Sends commands and takes replies as far as possible, waiting once if there is nothing to do.
 * *readable: fd (-1: none) can be read. False: the connection has failed.
 */
bool pipeline_wait(struct pipeline *p, int fd, bool *readable);

#endif
