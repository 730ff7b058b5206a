/* SPDX-License-Identifier: ISC */
/*
 * clock: monotonic time, random intervals, and the wall clock as text.
 *
 * Nothing here fails, blocks or allocates. If getrandom() fails, as early in the boot, random
 * intervals are derived from the clock: they only spread load over time and need not be
 * unpredictable.
 */
#include "base/clock.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

static uint64_t
monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Weak so that a unit test can replace it, in builds with LTO, too, where ld --wrap has no effect. */
__attribute__((weak)) int64_t
clock_ms(void)
{
	return (int64_t)(monotonic_ns() / 1000000);
}

int64_t
clock_us(void)
{
	return (int64_t)(monotonic_ns() / 1000);
}

/* The clock and a counter, mixed as in splitmix64 so that close inputs give unrelated results. */
static uint64_t
random_from_clock(void)
{
	static _Atomic uint64_t calls;
	uint64_t x;

	x = monotonic_ns() + atomic_fetch_add(&calls, 1) * UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

uint32_t
clock_jitter(uint32_t low, uint32_t high)
{
	uint64_t x;

	assert(low <= high);
	/* Without GRND_NONBLOCK, getrandom() may block early in the boot. */
	if (getrandom(&x, sizeof(x), GRND_NONBLOCK) != (ssize_t)sizeof(x))
		x = random_from_clock();
	/* Reducing 64 bits to a range of at most 2^32 biases no number by more than 2^-32. */
	return low + (uint32_t)(x % ((uint64_t)high - low + 1));
}

void
clock_iso(char *buffer, size_t size)
{
	struct timespec ts;
	struct tm tm;
	size_t n;

	assert(size >= CLOCK_ISO_SIZE);
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(buffer, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buffer + n, size - n, ".%03dZ", (int)(ts.tv_nsec / 1000000));
}
