/* SPDX-License-Identifier: ISC */
/*
 * recognized: credentials that the application has recognized recently. Queries with them are sent
 * before those with credentials that anyone may have made up. The caller locks.
 *
 * A user has at most RECOGNIZED_EACH of them: otherwise a user could vary the cookies to get any
 * number of queries preferred.
 */
#ifndef TPI_AUTH_RECOGNIZED_H
#define TPI_AUTH_RECOGNIZED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "auth/credentials.h"

#define RECOGNIZED_MAX  16384
#define RECOGNIZED_EACH 8

struct recognized_one;
struct recognized_user;

struct recognized {
	struct recognized_one *table;  /* by digest; at most RECOGNIZED_MAX */
	struct recognized_user *users; /* by id; each has at least one in table */
	TAILQ_HEAD(recognized_list, recognized_one) list; /* all, the oldest first */
	int count;
};

void recognized_init(struct recognized *r);

/*
 * The application has recognized the credentials with this digest as this user's. The user's oldest
 * ones over RECOGNIZED_EACH, and the oldest of all over RECOGNIZED_MAX, are dropped. Without memory
 * nothing is added.
 */
void recognized_add(struct recognized *r, const uint8_t digest[CREDENTIALS_DIGEST_SIZE],
    const char *user);

/* The application does not recognize them any more. */
void recognized_remove(struct recognized *r, const uint8_t digest[CREDENTIALS_DIGEST_SIZE]);

bool recognized_has(const struct recognized *r, const uint8_t digest[CREDENTIALS_DIGEST_SIZE]);

#endif
