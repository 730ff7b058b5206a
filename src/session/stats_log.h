/* SPDX-License-Identifier: ISC */
/*
 * stats_log: the metric lines on standard output, one for each kind of stream of which any is open
 * (tpi-streamd(8), METRICS).
 */
#ifndef TPI_SESSION_STATS_LOG_H
#define TPI_SESSION_STATS_LOG_H

#include "session/registry.h"

/* Writes the lines now. Thread-safe. */
void stats_log_write(struct registry *r);

#endif
