/* SPDX-License-Identifier: ISC */
/*
 * revocation: the payload with which tpi-publish makes every tpi-streamd of a tenant re-authorize
 * the streams of a user or a project (tpi-stream(7), CHANNELS AND PAYLOADS). It is
 * {"event":"revoke","user":"u1"} or {"event":"revoke","projectId":7}, byte for byte.
 */
#ifndef TPI_WIRE_REVOCATION_H
#define TPI_WIRE_REVOCATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/channel_name.h"

struct revocation {
	int32_t project;               /* 0: user is set */
	char user[CHANNEL_ID_MAX + 1]; /* "": project is set */
};

/* The payload of a valid revocation. The caller frees it; NULL: out of memory. Thread-safe. */
char *revocation_payload(const struct revocation *r);

/* Returns false if the payload is not a revocation. Thread-safe. */
bool revocation_read(struct revocation *r, const char *payload, size_t length);

#endif
