/* SPDX-License-Identifier: ISC */
/*
 * open_rate: see open_rate.h.
 *
 * A bucket is one number, the time at which it is full again. Each open moves it one interval into
 * the future; passing time refills the bucket.
 */
#include "stream/open_rate.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/hash_table.h"

#define SECOND 1000000 /* microseconds */

TAILQ_HEAD(bucket_list, bucket);

struct bucket {
	UT_hash_handle hh;
	TAILQ_ENTRY(bucket) link;
	int64_t full_at; /* clock_us() */
	char user[];
};

struct open_rate {
	int64_t interval; /* microseconds for each open; 0: no limit */
	pthread_mutex_t lock; /* everything below */
	struct bucket *table;  /* by user; up to OPEN_RATE_USERS_MAX */
	struct bucket_list by_use; /* the same buckets, the one used last at the end */
};

struct open_rate *
open_rate_new(int per_second)
{
	struct open_rate *r;

	r = calloc(1, sizeof(*r));
	if (r == NULL)
		return NULL;
	r->interval = per_second > 0 ? SECOND / per_second : 0;
	pthread_mutex_init(&r->lock, NULL);
	TAILQ_INIT(&r->by_use);
	return r;
}

/* The lock is held. */
static void
drop(struct open_rate *r, struct bucket *b)
{
	HASH_DEL(r->table, b);
	TAILQ_REMOVE(&r->by_use, b, link);
	free(b);
}

/*
 * Drops full buckets, up to the first that is not: a bucket is full at most OPEN_RATE_BURST_SECONDS
 * after its last use, so none stays much longer than that. The lock is held.
 */
static void
drop_full(struct open_rate *r, int64_t now)
{
	struct bucket *b;

	while ((b = TAILQ_FIRST(&r->by_use)) != NULL && b->full_at <= now)
		drop(r, b);
}

/* Adds a full bucket; replaces the least recently used one if the table is full. Lock held. */
static struct bucket *
add(struct open_rate *r, const char *user, int64_t now)
{
	size_t length = strlen(user);
	struct bucket *b;

	if (HASH_COUNT(r->table) >= OPEN_RATE_USERS_MAX)
		drop(r, TAILQ_FIRST(&r->by_use));
	b = calloc(1, sizeof(*b) + length + 1);
	if (b == NULL)
		return NULL;
	memcpy(b->user, user, length);
	b->full_at = now;
	HASH_ADD_KEYPTR(hh, r->table, b->user, length, b);
	if (b->hh.tbl == NULL) {
		free(b);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&r->by_use, b, link);
	return b;
}

/* Takes one open out of a bucket; false if it is empty. The lock is held. */
static bool
take(struct open_rate *r, struct bucket *b, int64_t now)
{
	int64_t full_at = (b->full_at > now ? b->full_at : now) + r->interval;

	if (full_at > now + OPEN_RATE_BURST_SECONDS * SECOND)
		return false;
	b->full_at = full_at;
	TAILQ_REMOVE(&r->by_use, b, link);
	TAILQ_INSERT_TAIL(&r->by_use, b, link);
	return true;
}

bool
open_rate_allow(struct open_rate *r, const char *user, int64_t now)
{
	struct bucket *b;
	bool allowed;

	if (r->interval == 0)
		return true;
	pthread_mutex_lock(&r->lock);
	drop_full(r, now);
	HASH_FIND(hh, r->table, user, strlen(user), b);
	if (b == NULL)
		b = add(r, user, now);
	allowed = b != NULL && take(r, b, now);
	pthread_mutex_unlock(&r->lock);
	return allowed;
}

size_t
open_rate_count(struct open_rate *r)
{
	size_t count;

	pthread_mutex_lock(&r->lock);
	count = HASH_COUNT(r->table);
	pthread_mutex_unlock(&r->lock);
	return count;
}
