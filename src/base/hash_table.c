/* SPDX-License-Identifier: ISC */
/*
 * hash_table: SipHash, as in "SipHash: a fast short-input PRF" by J.-P. Aumasson and D. J.
 * Bernstein (2012). See hash_table.h.
 */
#include "base/hash_table.h"

#include <endian.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

static struct siphash_key table_key; /* set before main() */

/*
 * If getrandom() fails, early in the boot or in an old sandbox, the key is made of the clock and
 * addresses: still better than a known key, and than refusing to start.
 */
static void __attribute__((constructor))
choose_key(void)
{
	if (getrandom(&table_key, sizeof(table_key), GRND_NONBLOCK) == sizeof(table_key))
		return;
	table_key.k[0] = (uint64_t)clock_us();
	table_key.k[1] = (uint64_t)(uintptr_t)&table_key ^
	    (uint64_t)(uintptr_t)__builtin_frame_address(0);
}

static inline uint64_t
rotate(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static inline void
mix(uint64_t v[4], int rounds)
{
	for (int i = 0; i < rounds; i++) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] = rotate(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] = rotate(v[2], 32);
	}
}

/* Up to 8 bytes, the first one lowest. */
static inline uint64_t
word_of(const uint8_t *at, size_t length)
{
	uint64_t word = 0;

	memcpy(&word, at, length);
	return le64toh(word);
}

static inline uint64_t
hash(const struct siphash_key *key, int rounds, int final_rounds, const uint8_t *at, size_t length)
{
	uint64_t v[4] = { key->k[0] ^ UINT64_C(0x736f6d6570736575),
		key->k[1] ^ UINT64_C(0x646f72616e646f6d), key->k[0] ^ UINT64_C(0x6c7967656e657261),
		key->k[1] ^ UINT64_C(0x7465646279746573) };
	uint64_t word;
	size_t left;

	for (left = length; left >= 8; left -= 8, at += 8) {
		word = word_of(at, 8);
		v[3] ^= word;
		mix(v, rounds);
		v[0] ^= word;
	}
	word = word_of(at, left) | (uint64_t)length << 56;
	v[3] ^= word;
	mix(v, rounds);
	v[0] ^= word;
	v[2] ^= 0xff;
	mix(v, final_rounds);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t
siphash(const struct siphash_key *key, int rounds, int final_rounds, const void *data,
    size_t length)
{
	return hash(key, rounds, final_rounds, data, length);
}

uint32_t
hash_table_hash(const void *data, size_t length)
{
	return (uint32_t)hash(&table_key, 1, 3, data, length);
}
