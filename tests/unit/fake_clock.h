/* SPDX-License-Identifier: ISC */
/*
 * fake_clock: lets a test replace clock_ms(). Its program is linked with --wrap=clock_ms.
 */
#ifndef TPI_FAKE_CLOCK_H
#define TPI_FAKE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t __real_clock_ms(void);
int64_t __wrap_clock_ms(void);

static int64_t (*clock_source)(void); /* NULL: the real clock */

int64_t
__wrap_clock_ms(void)
{
	return clock_source != NULL ? clock_source() : __real_clock_ms();
}

/* Replaces clock_ms(). Call it before any thread starts. */
static inline void
clock_set_source(int64_t (*source)(void))
{
	clock_source = source;
}

#endif
