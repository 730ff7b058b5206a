/* SPDX-License-Identifier: ISC */
/*
 * uuid: random UUIDs (RFC 9562, version 4), for notifications without an id.
 */
#ifndef TPI_PUBLISH_UUID_H
#define TPI_PUBLISH_UUID_H

#define UUID_SIZE 37 /* with the terminating NUL */

/* Writes a UUID in lower case. Never fails or blocks. Thread-safe. */
void uuid_random(char uuid[UUID_SIZE]);

#endif
