/* SPDX-License-Identifier: ISC */
/*
 * recognized: see recognized.h.
 */
#include "auth/recognized.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash_table.h"

struct recognized_one {
	UT_hash_handle hh;
	uint8_t digest[CREDENTIALS_DIGEST_SIZE];
	struct recognized_user *user;
	TAILQ_ENTRY(recognized_one) link, user_link;
};

struct recognized_user {
	UT_hash_handle hh;
	TAILQ_HEAD(, recognized_one) list; /* the oldest first; at most RECOGNIZED_EACH */
	int count;
	char id[];
};

void
recognized_init(struct recognized *r)
{
	memset(r, 0, sizeof(*r));
	TAILQ_INIT(&r->list);
}

static struct recognized_one *
find(const struct recognized *r, const uint8_t digest[CREDENTIALS_DIGEST_SIZE])
{
	struct recognized_one *one;

	HASH_FIND(hh, r->table, digest, CREDENTIALS_DIGEST_SIZE, one);
	return one;
}

static void
drop(struct recognized *r, struct recognized_one *one)
{
	struct recognized_user *user = one->user;

	HASH_DEL(r->table, one);
	TAILQ_REMOVE(&r->list, one, link);
	r->count--;
	TAILQ_REMOVE(&user->list, one, user_link);
	if (--user->count == 0) {
		HASH_DEL(r->users, user);
		free(user);
	}
	free(one);
}

/* Finds or adds a user. NULL: no memory. */
static struct recognized_user *
get_user(struct recognized *r, const char *id)
{
	size_t length = strlen(id);
	struct recognized_user *user;

	HASH_FIND(hh, r->users, id, length, user);
	if (user != NULL)
		return user;
	user = calloc(1, sizeof(*user) + length + 1);
	if (user == NULL)
		return NULL;
	memcpy(user->id, id, length);
	TAILQ_INIT(&user->list);
	HASH_ADD_KEYPTR(hh, r->users, user->id, length, user);
	if (user->hh.tbl != NULL)
		return user;
	free(user);
	return NULL;
}

/* Adds new credentials. */
static void
add(struct recognized *r, const uint8_t digest[CREDENTIALS_DIGEST_SIZE], const char *id)
{
	struct recognized_one *one = calloc(1, sizeof(*one));
	struct recognized_user *user = one != NULL ? get_user(r, id) : NULL;

	if (user != NULL) {
		memcpy(one->digest, digest, sizeof(one->digest));
		HASH_ADD(hh, r->table, digest, sizeof(one->digest), one);
	}
	if (user == NULL || one->hh.tbl == NULL) {
		if (user != NULL && user->count == 0) {
			HASH_DEL(r->users, user);
			free(user);
		}
		free(one);
		return;
	}
	one->user = user;
	TAILQ_INSERT_TAIL(&r->list, one, link);
	r->count++;
	TAILQ_INSERT_TAIL(&user->list, one, user_link);
	if (++user->count > RECOGNIZED_EACH)
		drop(r, TAILQ_FIRST(&user->list));
	if (r->count > RECOGNIZED_MAX)
		drop(r, TAILQ_FIRST(&r->list));
}

void
recognized_add(struct recognized *r, const uint8_t digest[CREDENTIALS_DIGEST_SIZE],
    const char *user)
{
	/* Whatever is added is the newest. */
	recognized_remove(r, digest);
	add(r, digest, user);
}

void
recognized_remove(struct recognized *r, const uint8_t digest[CREDENTIALS_DIGEST_SIZE])
{
	struct recognized_one *one = find(r, digest);

	if (one != NULL)
		drop(r, one);
}

bool
recognized_has(const struct recognized *r, const uint8_t digest[CREDENTIALS_DIGEST_SIZE])
{
	return find(r, digest) != NULL;
}
