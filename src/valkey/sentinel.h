/*
 * sentinel: what one Valkey Sentinel says about who the primary is.
 */
#ifndef TPI_VALKEY_SENTINEL_H
#define TPI_VALKEY_SENTINEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hostport.h"
#include "valkey/connect.h"

struct sentinel_answer {
	char host[HOSTPORT_HOST_SIZE]; /* a name or an address, an IPv6 one without brackets */
	int port;
	long long epoch; /* config-epoch: the higher, the newer the failover that the sentinel knows of */
};

/*
 * Queries one sentinel, until deadline (valkey_clock()), for the primary of that name. False with one
 * line in error. Thread-safe.
 */
bool sentinel_ask(const struct valkey *sentinel, const char *master, int64_t deadline,
    struct sentinel_answer *answer, char *error, size_t error_size);

#endif
