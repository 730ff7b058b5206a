/* SPDX-License-Identifier: ISC */
/*
 * revocation: what tpi-publish says to every tpi-streamd of a tenant when somebody has lost a
 * right: ask again for the streams of this user, or of this project. The payload is read to the
 * letter: one of {"event":"revoke","user":"u1"} and {"event":"revoke","projectId":7}, and no other
 * spelling of them.
 */
#ifndef TPI_WIRE_REVOCATION_H
#define TPI_WIRE_REVOCATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/channel_name.h"

struct revocation {
	int32_t project;               /* 0: of a user */
	char user[CHANNEL_ID_MAX + 1]; /* "": of a project */
};

/* The caller frees the result; NULL means no memory. What it is about is valid. Thread-safe. */
char *revocation_payload(const struct revocation *r);

/* False where the payload is none. Thread-safe. */
bool revocation_read(struct revocation *r, const char *payload, size_t length);

#endif
