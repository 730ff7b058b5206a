/* SPDX-License-Identifier: ISC */
/*
 * pipeline: one connection to Valkey with a bounded number of PUBLISH commands under way, and a
 * time limit for its silence. Knows nothing of where wake-ups come from, and says nothing to
 * anybody.
 *
 * For one thread. It waits in pipeline_open() and pipeline_wait() alone.
 */
#ifndef TPI_PUBLISH_PIPELINE_H
#define TPI_PUBLISH_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "publish/batch.h"
#include "valkey/topology.h"

#define PIPELINE_MAX 1000 /* commands in flight, those of one item beyond */

struct pipeline;

/* One PUBLISH. */
struct pipeline_command {
	char tenant[CHANNEL_ID_MAX + 1];
	char channel[CHANNEL_NAME_SIZE];
	uint64_t line; /* of a batch; 0 for a single wake-up */
	bool last;     /* of its wake-up */
};

/*
 * The reply to one command, in the order in which they were added. subscribers is Valkey's count;
 * error says why Valkey refused, or is NULL.
 */
typedef void pipeline_answer(void *arg, const struct pipeline_command *command,
    long long subscribers, const char *error);

/*
 * Connects; NULL where that failed. timeout_ms counts from since, by clock_ms(), in whatever call
 * the attempt may hang. Whatever fails, here or below, leaves one line in error, which has
 * VALKEY_ERROR_SIZE bytes and outlives the pipeline. servers outlives all threads of the process.
 */
struct pipeline *pipeline_open(struct topology *topology, int timeout_ms, int64_t since,
    pipeline_answer *answer, void *arg, char *error);
void pipeline_close(struct pipeline *p);

/* The server that it has reached, for texts. */
const char *pipeline_server(const struct pipeline *p);

/* How many items have unanswered commands. */
size_t pipeline_in_flight(const struct pipeline *p);

/* Whether there is room for the commands of one more item. */
bool pipeline_has_room(const struct pipeline *p);

/*
 * Adds a command for each channel of item; needs pipeline_has_room(). The time limit applies to each
 * reply: it counts the time in pipeline_wait() since the previous reply, and begins at waited_ms if
 * nothing is in flight. False: no memory.
 */
bool pipeline_add(struct pipeline *p, const struct batch_item *item, uint64_t line,
    int64_t waited_ms);

/*
 * Sends and takes answers until something has happened, or fd (-1: none) can be read, which
 * *readable then says. False: the connection is of no more use.
 */
bool pipeline_wait(struct pipeline *p, int fd, bool *readable);

#endif
