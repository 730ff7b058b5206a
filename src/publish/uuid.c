/* SPDX-License-Identifier: ISC */
/*
 * uuid: see uuid.h. The random numbers come from clock_jitter(), which has a fallback if the system
 * provides none.
 */
#include "publish/uuid.h"

#include <stdint.h>
#include <stdio.h>

#include "base/clock.h"

void
uuid_random(char uuid[UUID_SIZE])
{
	uint32_t r[4];

	for (int i = 0; i < 4; i++)
		r[i] = clock_jitter(0, UINT32_MAX);
	r[1] = (r[1] & 0xffff0fff) | 0x4000;     /* the version */
	r[2] = (r[2] & 0x3fffffff) | 0x80000000; /* the variant */
	snprintf(uuid, UUID_SIZE, "%08x-%04x-%04x-%04x-%04x%08x", r[0], r[1] >> 16, r[1] & 0xffff,
	    r[2] >> 16, r[2] & 0xffff, r[3]);
}
