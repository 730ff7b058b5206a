/*
 * caps: places, and who has to go. See caps.h.
 */
#include "caps.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "clock.h"

TAILQ_HEAD(caps_list, caps_entry);

struct caps_user {
	UT_hash_handle hh;
	struct caps_list live, under_way; /* the oldest first */
	int live_count, under_way_count;
	char name[];
};

struct caps {
	int tenant_cap, user_cap;
	pthread_mutex_t lock; /* everything below, and what hangs on it */
	int reserved;
	int live;
	uint64_t opened;
	struct caps_user *users;
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
	TAILQ_INIT(&u->under_way);
	memcpy(u->name, name, length);
	HASH_ADD_KEYPTR(hh, c->users, u->name, length, u);
	if (u->hh.tbl == NULL) {
		free(u);
		return NULL;
	}
	return u;
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
		TAILQ_REMOVE(&e->user->under_way, e, link);
		e->user->under_way_count--;
		e->stream->place = NULL;
	}
	e->state = CAPS_NONE;
}

/* The lock is held. The new user is freed again where nothing of his is left. */
static void
free_unused(struct caps *c, struct caps_user *u)
{
	if (u->live_count + u->under_way_count > 0)
		return;
	HASH_DEL(c->users, u);
	free(u);
}

bool
caps_claim(struct caps *c, struct caps_entry *e, const char *user, struct stream *stream)
{
	struct caps_entry *oldest;
	struct caps_user *u;

	pthread_mutex_lock(&c->lock);
	u = find_or_add(c, user);
	if (u == NULL) {
		pthread_mutex_unlock(&c->lock);
		return false;
	}
	oldest = TAILQ_FIRST(&u->under_way);
	if (u->live_count + u->under_way_count >= 2 * c->user_cap && oldest != NULL) {
		unlist(c, oldest);
		stream_mark(oldest->stream, STREAM_CANCELLED);
	}
	e->user = u;
	e->stream = stream;
	e->state = CAPS_UNDER_WAY;
	stream->caps = c;
	stream->place = e;
	TAILQ_INSERT_TAIL(&u->under_way, e, link);
	u->under_way_count++;
	pthread_mutex_unlock(&c->lock);
	return true;
}

/* Evicts the oldest until at most keep are live. The lock is held. */
static void
evict_to(struct caps *c, struct caps_user *u, int keep)
{
	struct caps_entry *oldest;
	char words[128];

	while (u->live_count > keep) {
		oldest = TAILQ_FIRST(&u->live);
		unlist(c, oldest);
		snprintf(words, sizeof(words),
		    "retry: %u\nid: evicted\nevent: evicted\ndata: {}\n\n",
		    clock_jitter(120000, 300000));
		/* The mark first: whoever finds the stream finished also finds out why. */
		stream_mark(oldest->stream, STREAM_EVICTED);
		stream_finish(oldest->stream, words);
	}
}

/* The stream has begun. The lock is held. */
static void
count_in(struct caps *c, struct caps_entry *e)
{
	unlist(c, e);
	e->state = CAPS_LIVE;
	TAILQ_INSERT_TAIL(&e->user->live, e, link);
	e->user->live_count++;
	c->live++;
	c->opened++;
	evict_to(c, e->user, 2 * c->user_cap);
	if (e->user->live_count > c->user_cap)
		stream_mark(e->stream, STREAM_OVER);
}

void
caps_live(struct stream *stream, const char *text)
{
	struct caps *c = stream->caps;
	struct caps_entry *e;

	pthread_mutex_lock(&c->lock);
	e = stream->place;
	if (e != NULL) {
		/* First: its owner sees without this lock that it has begun, and looks when. */
		e->live_at = clock_ms();
		/* Under the lock: who is evicted has begun. */
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
	if (e->state == CAPS_UNDER_WAY) {
		unlist(c, e);
		free_unused(c, e->user);
	}
	/* It may have ended since, by an eviction. */
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
				stream_send_text(other->stream, STREAM_PING);
	pthread_mutex_unlock(&c->lock);
}

int64_t
caps_evict(struct caps *c, const struct caps_entry *e)
{
	int64_t settled = INT64_MAX;

	pthread_mutex_lock(&c->lock);
	if (e->state == CAPS_LIVE) {
		settled = TAILQ_LAST(&e->user->live, caps_list)->live_at + CAPS_SETTLE_MS;
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
