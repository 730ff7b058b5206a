/* SPDX-License-Identifier: ISC */
/*
 * fake_clock: lets a test replace clock_ms().
 */
#ifndef TPI_FAKE_CLOCK_H
#define TPI_FAKE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"

static int64_t (*clock_source)(void); /* NULL: the real clock */

/* Replaces the weak definition of the library. */
int64_t
clock_ms(void)
{
	return clock_source != NULL ? clock_source() : clock_us() / 1000;
}

/* Replaces clock_ms(). Call it before any thread starts. */
static inline void
clock_set_source(int64_t (*source)(void))
{
	clock_source = source;
}

#endif
