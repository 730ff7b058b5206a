/* SPDX-License-Identifier: ISC */
/*
 * publisher: the run of a tpi-publish: one wake-up or a batch, published or in a dry run only
 * shown; what became of each; how the run ends (tpi-publish(1)).
 */
#ifndef TPI_PUBLISH_PUBLISHER_H
#define TPI_PUBLISH_PUBLISHER_H

#include <stdbool.h>
#include <stdint.h>

#include "publish/batch.h"
#include "valkey/topology.h"

/* What the command line says about it. */
struct publisher {
	struct topology *topology; /* NULL: a dry run; else it outlives the process's threads */
	int32_t timeout_ms;
	const char *tenant; /* of a warning that concerns no one channel */
	const char *tag;    /* of warnings */
	bool best_effort, verbose, quiet;
};

/* Each returns the exit status. A single one has timeout_ms from start, by clock_ms(). */
int publisher_single(const struct publisher *options, const struct batch_item *item, int64_t start);

/* path: NULL or "-" for standard input. standard: what a line need not say; its id is not used. */
int publisher_batch(const struct publisher *options, const struct batch_request *standard,
    const char *path);

/*
 * Whether all that was asked for has reached standard output; where not, after a line that says
 * so.
 */
bool publisher_flush(void);

#endif
