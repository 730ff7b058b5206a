/* SPDX-License-Identifier: ISC */
/*
 * clock: monotonic time, random intervals, and the wall clock as text.
 */
#ifndef TPI_BASE_CLOCK_H
#define TPI_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Milliseconds since an arbitrary point in the past; never goes back. Thread-safe. */
int64_t clock_ms(void);

/* Microseconds, for measuring durations. Thread-safe. */
int64_t clock_us(void);

/* A random number from low to high, inclusive (low <= high). Thread-safe. */
uint32_t clock_jitter(uint32_t low, uint32_t high);

/* The wall clock as "2026-11-24T08:16:11.123Z" (UTC). size is at least CLOCK_ISO_SIZE. */
#define CLOCK_ISO_SIZE 25
void clock_iso(char *buffer, size_t size);

#endif
