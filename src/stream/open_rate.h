/* SPDX-License-Identifier: ISC */
/*
 * open_rate: how fast each user opens streams (TPI_USER_OPENS_PER_SECOND).
 *
 * A token bucket for each user holds OPEN_RATE_BURST_SECONDS' worth of opens. Only users whose
 * bucket is not full have an entry, so the table holds those who have opened a stream within the
 * last seconds, and never more than OPEN_RATE_USERS_MAX. Thread-safe.
 */
#ifndef TPI_STREAM_OPEN_RATE_H
#define TPI_STREAM_OPEN_RATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPEN_RATE_BURST_SECONDS 5
#define OPEN_RATE_USERS_MAX     16384

struct open_rate;

/* per_second: 1 to 1000, or 0 for no limit. NULL: no memory. */
struct open_rate *open_rate_new(int per_second);

/*
 * Whether the user may open one more stream now (clock_us()), which this call counts if so. Also
 * false if there is no memory.
 */
bool open_rate_allow(struct open_rate *r, const char *user, int64_t now);

/* How many users have an entry. */
size_t open_rate_count(struct open_rate *r);

#endif
