/*
 * pipeline: one connection to Valkey with a bounded number of PUBLISH commands under way, and a
 * time limit for its silence. Knows nothing of where wake-ups come from, and says nothing to
 * anybody.
 *
 * For one thread. It waits in pipeline_open() and pipeline_wait() alone.
 */
#ifndef TPI_PIPELINE_H
#define TPI_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "batch.h"
#include "servers.h"

#define PIPELINE_MAX 1000 /* commands under way */

struct pipeline;

/*
 * The answer to one command, in the order of pipeline_add(): item without its payload, and its
 * line. subscribers is Valkey's count; where it refused, error says why, else it is NULL.
 */
typedef void pipeline_answer(void *arg, const struct batch_item *item, uint64_t line,
    long long subscribers, const char *error);

/*
 * Connects; NULL where that failed. timeout_ms counts from since, by clock_ms(), in whatever call
 * the attempt may hang. Whatever fails, here or below, leaves one line in error, which has
 * VALKEY_ERROR_SIZE bytes and outlives the pipeline. servers outlives all threads of the process.
 */
struct pipeline *pipeline_open(struct servers *servers, int timeout_ms, int64_t since,
    pipeline_answer *answer, void *arg, char *error);
void pipeline_close(struct pipeline *p);

/* The server that it has reached, for texts. */
const char *pipeline_server(const struct pipeline *p);

/* How many commands are not answered. */
size_t pipeline_in_flight(const struct pipeline *p);

/*
 * Adds a command; fewer than PIPELINE_MAX are under way. The time limit is for each answer: it
 * counts what is spent in pipeline_wait() since the answer before, and begins at waited_ms where
 * this command is the only one under way. False: no memory.
 */
bool pipeline_add(struct pipeline *p, const struct batch_item *item, uint64_t line,
    int64_t waited_ms);

/*
 * Sends and takes answers until something has happened, or fd (-1: none) can be read, which
 * *readable then says. False: the connection is of no more use.
 */
bool pipeline_wait(struct pipeline *p, int fd, bool *readable);

#endif
