/* SPDX-License-Identifier: ISC */
/*
 * publisher: publishes one wake-up or a batch, or prints what it would publish; reports what
 * failed; determines the exit status (tpi-publish(1)).
 */
#ifndef TPI_PUBLISH_PUBLISHER_H
#define TPI_PUBLISH_PUBLISHER_H

#include <stdbool.h>
#include <stdint.h>

#include "publish/batch.h"
#include "valkey/topology.h"

/* The options of a run. */
struct publisher {
	struct topology *topology; /* NULL: a dry run; otherwise it outlives all threads */
	int32_t timeout_ms;
	const char *tenant; /* for a warning that is not about one wake-up */
	const char *tag;    /* of warnings */
	bool best_effort, verbose, quiet;
};

/* Publishes one wake-up within timeout_ms from since (clock_ms()); returns the exit status. */
int publisher_single(const struct publisher *options, const struct batch_item *item, int64_t since);

/*
 * Publishes the lines of a file, or of standard input if path is NULL or "-"; returns the exit
 * status. defaults holds what a line may omit, except the id: each notification gets its own.
 */
int publisher_batch(const struct publisher *options, const struct batch_request *defaults,
    const char *path);

/* Flushes standard output. False, after reporting why, if something could not be written. */
bool publisher_flush(void);

#endif
