/* SPDX-License-Identifier: ISC */
/*
 * uuid: random UUIDs (RFC 9562, version 4), the ids of notifications that were given none.
 */
#ifndef TPI_PUBLISH_UUID_H
#define TPI_PUBLISH_UUID_H

#define UUID_SIZE 37 /* with the terminating NUL */

/*
 * Writes one in lower case. Never fails, and never waits for the system's random numbers.
 * Thread-safe.
 */
void uuid_random(char uuid[UUID_SIZE]);

#endif
