/*
 * metrics: one line of JSON on standard output for each kind of stream that has any (section 8 of
 * the contract).
 */
#ifndef TPI_METRICS_H
#define TPI_METRICS_H

#include "session/registry.h"

/* Writes the lines now. Thread-safe. */
void metrics_write(struct gateway *g);

#endif
