/*
 * clock: the monotonic time in milliseconds, which a test can move, and random intervals.
 */
#ifndef TPI_BASE_CLOCK_H
#define TPI_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Milliseconds since some point in the past; never goes back. Thread-safe. */
int64_t clock_ms(void);

/* Microseconds, to measure how long something took; no test moves it. Thread-safe. */
int64_t clock_us(void);

/* Replaces the source of clock_ms(); NULL restores the real one. For tests, before any thread. */
void clock_set_source(int64_t (*source)(void));

/* A random number from low to high, both included (low <= high). Thread-safe. */
uint32_t clock_jitter(uint32_t low, uint32_t high);

/* The wall clock as "2026-11-24T08:16:11.123Z" (UTC). size is at least 25. */
#define CLOCK_ISO_SIZE 25
void clock_iso(char *buffer, size_t size);

#endif
