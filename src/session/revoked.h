/* SPDX-License-Identifier: ISC */
/*
 * revoked: the latest revocations, and which connections they concern. Each has a number, ascending
 * from 1. The caller locks.
 */
#ifndef TPI_SESSION_REVOKED_H
#define TPI_SESSION_REVOKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "session/watch_list.h"
#include "wire/revocation.h"

#define REVOKED_MAX 65536

struct revoked_one;

struct revoked {
	/* By user and by project; a repeated revocation replaces the earlier one. */
	struct revoked_one *users, *projects;
	TAILQ_HEAD(revoked_list, revoked_one) list; /* all of both tables, the oldest first */
	int count;           /* in the list; at most REVOKED_MAX */
	uint64_t last;       /* the newest one's number, 0 if there was none */
	uint64_t last_project;
	uint64_t forgotten;  /* the number of the newest one that is not in the list any more */
};

void revoked_init(struct revoked *r);

/* Adds one. Beyond REVOKED_MAX the oldest is forgotten, and without memory this one is. */
void revoked_add(struct revoked *r, const struct revocation *revocation);

/*
 * Whether a revocation with a number greater than since concerns this user or what they watch. Also
 * true if any of these has been forgotten. count: count the stream for revoked_log().
 */
bool revoked_concerns(struct revoked *r, uint64_t since, const char *user,
    const struct watch_list *watches, bool count);

/*
 * Logs the revocations with a number greater than since, up to 50 lines a second, each with the
 * number of streams counted for it. Of many at once, a stream counts for only one.
 */
void revoked_log(const struct revoked *r, uint64_t since, const char *tenant);

#endif
