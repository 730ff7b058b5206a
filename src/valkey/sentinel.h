/* SPDX-License-Identifier: ISC */
/*
 * sentinel: queries a Valkey Sentinel for the address of the primary.
 */
#ifndef TPI_VALKEY_SENTINEL_H
#define TPI_VALKEY_SENTINEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/hostport.h"
#include "valkey/connect.h"

struct sentinel_answer {
	char host[HOSTPORT_HOST_SIZE]; /* name or address; IPv6 without brackets */
	int port;                      /* 1 to 65535 */
	/*
	 * The sentinel's config-epoch, which each failover raises. It is read before the address:
	 * if a failover happens in between, it is older than the address. It is never newer.
	 */
	long long epoch;
};

/*
 * Connects to a sentinel and queries the primary named master; takes until about deadline
 * (valkey_clock()). False with an error; *answer is then undefined. Thread-safe.
 */
bool sentinel_query(const struct valkey *sentinel, const char *master, int64_t deadline,
    struct sentinel_answer *answer, struct error *error);

#endif
