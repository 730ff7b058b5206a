/* SPDX-License-Identifier: ISC */
/*
 * stats_log: one line of JSON on standard output for each kind of stream that has any
 * (tpi-streamd(8), METRICS).
 */
#ifndef TPI_SESSION_STATS_LOG_H
#define TPI_SESSION_STATS_LOG_H

#include "session/registry.h"

/* Writes the lines now. Thread-safe. */
void stats_log_write(struct registry *g);

#endif
