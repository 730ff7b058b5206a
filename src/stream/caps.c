/* SPDX-License-Identifier: ISC */
/*
 * caps: slots, and which stream is evicted. See caps.h.
 */
#include "stream/caps.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash_table.h"

TAILQ_HEAD(caps_list, caps_entry);

struct caps_user {
	UT_hash_handle hh;
	struct caps_list live, pending; /* by arrival, the oldest first; up to twice the cap */
	int live_count, pending_count;
	int64_t synced_at; /* clock_ms() of the last sync of any stream of the user's */
	char name[];
};

struct caps {
	int tenant_cap, user_cap;
	pthread_mutex_t lock; /* everything below, and what it points to */
	int reserved;
	int live;
	uint64_t opened;
	struct caps_user *users; /* each with an entry: at most tenant_cap */
};

struct caps *
caps_new(int tenant_cap, int user_cap)
{
	struct caps *c;

	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return NULL;
	c->tenant_cap = tenant_cap;
	c->user_cap = user_cap;
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

bool
caps_reserve(struct caps *c, struct caps_entry *e)
{
	pthread_mutex_lock(&c->lock);
	e->reserved = c->reserved < c->tenant_cap;
	if (e->reserved)
		c->reserved++;
	pthread_mutex_unlock(&c->lock);
	return e->reserved;
}

static struct caps_user *
find_or_add(struct caps *c, const char *name)
{
	size_t length = strlen(name);
	struct caps_user *u;

	HASH_FIND(hh, c->users, name, length, u);
	if (u != NULL)
		return u;
	u = calloc(1, sizeof(*u) + length + 1);
	if (u == NULL)
		return NULL;
	TAILQ_INIT(&u->live);
	TAILQ_INIT(&u->pending);
	memcpy(u->name, name, length);
	HASH_ADD_KEYPTR(hh, c->users, u->name, length, u);
	if (u->hh.tbl == NULL) {
		free(u);
		return NULL;
	}
	return u;
}

/* Inserts by arrival. Entries that arrived out of order are rare, so it searches from the end. */
static void
insert(struct caps_list *list, struct caps_entry *e)
{
	struct caps_entry *before = TAILQ_LAST(list, caps_list);

	while (before != NULL && before->arrival > e->arrival)
		before = TAILQ_PREV(before, caps_list, link);
	if (before != NULL)
		TAILQ_INSERT_AFTER(list, before, e, link);
	else
		TAILQ_INSERT_HEAD(list, e, link);
}

/* Takes an entry out of its user's list; the user stays. The lock is held. */
static void
unlist(struct caps *c, struct caps_entry *e)
{
	if (e->state == CAPS_LIVE) {
		TAILQ_REMOVE(&e->user->live, e, link);
		e->user->live_count--;
		c->live--;
	} else {
		TAILQ_REMOVE(&e->user->pending, e, link);
		e->user->pending_count--;
		e->stream->slot = NULL;
	}
	e->state = CAPS_NONE;
}

/* Frees a user who has neither a stream nor a request left. The lock is held. */
static void
free_unused(struct caps *c, struct caps_user *u)
{
	if (u->live_count + u->pending_count > 0)
		return;
	HASH_DEL(c->users, u);
	free(u);
}

/* Cancels a request in flight: it must not begin any more. The lock is held. */
static void
cancel(struct caps *c, struct caps_entry *e)
{
	unlist(c, e);
	stream_mark(e->stream, STREAM_CANCELLED);
}

enum caps_claim
caps_claim(struct caps *c, struct caps_entry *e, const char *user, struct stream *stream)
{
	struct caps_user *u;
	bool full;
	int held;

	pthread_mutex_lock(&c->lock);
	u = find_or_add(c, user);
	held = u != NULL ? u->live_count + u->pending_count : 0;
	if (u == NULL || (e->returning && held >= c->user_cap)) {
		pthread_mutex_unlock(&c->lock);
		return u == NULL ? CAPS_NO_MEMORY : CAPS_NO_SLOT;
	}
	/* If all are live, the new request is accepted: its stream will evict the oldest. */
	full = held >= 2 * c->user_cap && u->pending_count > 0;
	e->user = u;
	e->stream = stream;
	e->state = CAPS_PENDING;
	stream->caps = c;
	stream->slot = e;
	insert(&u->pending, e);
	u->pending_count++;
	if (full)
		cancel(c, TAILQ_FIRST(&u->pending));
	pthread_mutex_unlock(&c->lock);
	return CAPS_CLAIMED;
}

/* Evicts the oldest until at most keep are live. The lock is held. */
static void
evict_to(struct caps *c, struct caps_user *u, int keep)
{
	struct caps_entry *oldest;
	char event[128];

	while (u->live_count > keep) {
		oldest = TAILQ_FIRST(&u->live);
		unlist(c, oldest);
		snprintf(event, sizeof(event),
		    "retry: %u\nid: evicted\nevent: evicted\ndata: {}\n\n",
		    clock_jitter(CAPS_RETRY_MIN_MS, CAPS_RETRY_MAX_MS));
		/* The mark first, so that an owner that finds the stream finished knows why. */
		stream_mark(oldest->stream, STREAM_EVICTED);
		stream_finish(oldest->stream, event);
	}
}

/* The stream has begun; it may itself be the oldest and be evicted. The lock is held. */
static void
count_in(struct caps *c, struct caps_entry *e)
{
	struct caps_user *u = e->user;

	unlist(c, e);
	e->state = CAPS_LIVE;
	insert(&u->live, e);
	u->live_count++;
	u->synced_at = e->live_at;
	c->live++;
	c->opened++;
	evict_to(c, u, 2 * c->user_cap);
	if (e->state == CAPS_LIVE && u->live_count > c->user_cap)
		stream_mark(e->stream, STREAM_OVER);
}

/* Whether a request in flight may still become a stream. The lock is held. */
static bool
has_slot(const struct caps *c, const struct caps_entry *e)
{
	return !e->returning || e->user->live_count + e->user->pending_count <= c->user_cap;
}

void
caps_live(struct stream *stream, const char *text)
{
	struct caps *c = stream->caps;
	struct caps_entry *e;

	pthread_mutex_lock(&c->lock);
	e = stream->slot;
	if (e != NULL && !has_slot(c, e))
		cancel(c, e);
	else if (e != NULL) {
		/* Before the start: the owner reads live_at without this lock once it has begun. */
		e->live_at = clock_ms();
		/* Under the lock, so that a stream cannot be evicted before it has begun. */
		if (stream_start(stream, text))
			count_in(c, e);
		else
			e->live_at = 0;
	}
	pthread_mutex_unlock(&c->lock);
}

bool
caps_withdraw(struct caps *c, struct caps_entry *e)
{
	bool begun;

	pthread_mutex_lock(&c->lock);
	if (e->state == CAPS_PENDING) {
		unlist(c, e);
		free_unused(c, e->user);
	}
	/* It may have begun, and been evicted since. */
	begun = e->live_at != 0;
	pthread_mutex_unlock(&c->lock);
	return !begun;
}

void
caps_ping(struct caps *c, const struct caps_entry *e)
{
	struct caps_entry *other;

	pthread_mutex_lock(&c->lock);
	if (e->state == CAPS_LIVE)
		TAILQ_FOREACH(other, &e->user->live, link)
			if (other != e)
				stream_ping(other->stream);
	pthread_mutex_unlock(&c->lock);
}

int64_t
caps_evict(struct caps *c, const struct caps_entry *e)
{
	int64_t settled = INT64_MAX;

	pthread_mutex_lock(&c->lock);
	if (e->state == CAPS_LIVE) {
		settled = e->user->synced_at + CAPS_SETTLE_MS;
		if (clock_ms() >= settled) {
			evict_to(c, e->user, c->user_cap);
			settled = INT64_MAX;
		}
	}
	pthread_mutex_unlock(&c->lock);
	return settled;
}

void
caps_leave(struct caps *c, struct caps_entry *e)
{
	pthread_mutex_lock(&c->lock);
	if (e->state != CAPS_NONE) {
		unlist(c, e);
		free_unused(c, e->user);
	}
	pthread_mutex_unlock(&c->lock);
}

void
caps_release(struct caps *c, struct caps_entry *e)
{
	if (!e->reserved)
		return;
	pthread_mutex_lock(&c->lock);
	c->reserved--;
	pthread_mutex_unlock(&c->lock);
	e->reserved = false;
}

int
caps_count(struct caps *c)
{
	struct caps_counts counts;

	caps_counts(c, &counts);
	return counts.live;
}

void
caps_counts(struct caps *c, struct caps_counts *counts)
{
	pthread_mutex_lock(&c->lock);
	counts->live = c->live;
	counts->reserved = c->reserved;
	counts->opened = c->opened;
	pthread_mutex_unlock(&c->lock);
}
