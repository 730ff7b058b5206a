/* SPDX-License-Identifier: ISC */
/*
 * hash_table: uthash with a keyed hash. Include this instead of <uthash.h>.
 *
 * Users and publishers choose the names of channels, users and credentials. If they could compute
 * the hash, they could choose names that collide, and each lookup would walk a long list. The hash
 * is SipHash-1-3, whose key is random in each process. A failed addition is reported by a NULL
 * table in the element (HASH_NONFATAL_OOM).
 */
#ifndef TPI_BASE_HASH_TABLE_H
#define TPI_BASE_HASH_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct siphash_key {
	uint64_t k[2];
};

/* SipHash with these rounds for each word and at the end: 1 and 3, or 2 and 4. Thread-safe. */
uint64_t siphash(const struct siphash_key *key, int rounds, int final_rounds, const void *data,
    size_t length);

/* The hash of the tables. Thread-safe. */
uint32_t hash_table_hash(const void *data, size_t length);

#define HASH_FUNCTION(data, length, hash) ((hash) = hash_table_hash(data, length))
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#endif
