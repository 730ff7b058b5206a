/* SPDX-License-Identifier: ISC */
/*
 * registry: see registry.h.
 */
#include "session/registry.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "stream/stream.h"

/* Up to this number of streams are re-checked at once after a revocation. */
#define REVOKED_AT_ONCE 100

/* Connections without a user that a walk passes before it releases the lock for a moment. */
#define PASSED_AT_ONCE 100

/* Revocations are applied at most every APPLY_MS, and during at most 1/APPLY_PART of the time. */
#define APPLY_MS   100
#define APPLY_PART 10

void
registry_init(struct registry *r, const struct settings *settings)
{
	r->settings = settings;
	r->started_at = time(NULL);
	pthread_mutex_init(&r->lock, NULL);
	thread_cond_init(&r->emptied);
	LIST_INIT(&r->connections);
	revoked_init(&r->revoked);
}

void
registry_add(struct registry *r, struct registry_entry *e)
{
	pthread_mutex_lock(&r->lock);
	LIST_INSERT_HEAD(&r->connections, e, link);
	r->connection_count++;
	e->checked = r->applied;
	pthread_mutex_unlock(&r->lock);
}

void
registry_run(struct registry *r, struct registry_entry *e)
{
	pthread_mutex_lock(&r->lock);
	e->thread = pthread_self();
	e->running = true;
	pthread_mutex_unlock(&r->lock);
}

void
registry_remove(struct registry *r, struct registry_entry *e)
{
	pthread_mutex_lock(&r->lock);
	assert(e->user == NULL);
	LIST_REMOVE(e, link);
	if (--r->connection_count == 0)
		pthread_cond_signal(&r->emptied);
	pthread_mutex_unlock(&r->lock);
}

int
registry_count(struct registry *r)
{
	int count;

	pthread_mutex_lock(&r->lock);
	count = r->connection_count;
	pthread_mutex_unlock(&r->lock);
	return count;
}

void
registry_name(struct registry *r, struct registry_entry *e, struct stream *stream, const char *user,
    const struct watch_list *watches)
{
	pthread_mutex_lock(&r->lock);
	assert(e->user == NULL);
	e->stream = stream;
	e->user = user;
	e->watches = watches;
	if (revoked_concerns(&r->revoked, e->checked, user, watches, false))
		stream_mark(stream, STREAM_REVOKED);
	/* Revocations that are not applied yet will mark it, once they have invalidated answers. */
	e->checked = r->applied;
	pthread_mutex_unlock(&r->lock);
}

void
registry_unname(struct registry *r, struct registry_entry *e)
{
	pthread_mutex_lock(&r->lock);
	e->user = NULL;
	e->checked = r->applied;
	pthread_mutex_unlock(&r->lock);
}

/* Marks the streams that revocations since the last call concern. */
static void
apply(struct registry *r)
{
	uint64_t last = r->revoked.last, since = r->applied;
	struct registry_entry *e;
	size_t count = 0;

	/*
	 * Before the walk: a connection that the walk does not find then gets only answers from
	 * after the revocations.
	 */
	if (r->app_client != NULL)
		app_client_invalidate(r->app_client);
	pthread_mutex_lock(&r->lock);
	LIST_FOREACH(e, &r->connections, link) {
		if (e->user == NULL)
			continue;
		if (revoked_concerns(&r->revoked, e->checked, e->user, e->watches, true))
			stream_mark(e->stream, count++ < REVOKED_AT_ONCE ? STREAM_REVOKED :
			    STREAM_REVOKED | STREAM_MANY);
		e->checked = last;
	}
	r->applied = last;
	pthread_mutex_unlock(&r->lock);
	revoked_log(&r->revoked, since, r->settings->tenant);
}

int64_t
registry_revoke(void *registry, const struct revocation *revocation)
{
	struct registry *r = registry;
	int64_t now = clock_ms(), took;

	if (revocation != NULL) {
		pthread_mutex_lock(&r->lock);
		revoked_add(&r->revoked, revocation);
		pthread_mutex_unlock(&r->lock);
	}
	if (r->revoked.last == r->applied)
		return INT64_MAX;
	/* Do not wait if the table could overflow and forget some that are not applied yet. */
	if (now < r->apply_at && r->revoked.last - r->applied < REVOKED_MAX / 2)
		return r->apply_at;
	apply(r);
	took = clock_ms() - now;
	r->apply_at = now + (took * APPLY_PART > APPLY_MS ? took * APPLY_PART : APPLY_MS);
	return INT64_MAX;
}

void
registry_walk(struct registry *r, struct registry_entry *place)
{
	*place = (struct registry_entry){ 0 };
	pthread_mutex_lock(&r->lock);
	LIST_INSERT_HEAD(&r->connections, place, link);
	pthread_mutex_unlock(&r->lock);
}

/*
 * Moves place behind the next connection with a user, or behind some without one. Returns the entry
 * before place; NULL at the end of the list. Requires the lock.
 */
static const struct registry_entry *
advance(struct registry_entry *place)
{
	struct registry_entry *e = LIST_NEXT(place, link), *next;
	int passed = 0;

	if (e == NULL)
		return NULL;
	while (e->user == NULL && passed++ < PASSED_AT_ONCE && (next = LIST_NEXT(e, link)) != NULL)
		e = next;
	LIST_REMOVE(place, link);
	LIST_INSERT_AFTER(e, place, link);
	return e;
}

static void
copy_entry(struct registry_view *view, const struct registry_entry *e)
{
	int count = watch_list_total(e->watches);

	assert(count <= WATCH_LIST_MAX);
	view->stream = stream_hold(e->stream);
	snprintf(view->user, sizeof(view->user), "%s", e->user);
	view->watches = *e->watches;
	view->watches.ids = view->ids;
	if (count > 0)
		memcpy(view->ids, e->watches->ids, (size_t)count * sizeof(view->ids[0]));
}

bool
registry_next(struct registry *r, struct registry_entry *place, struct registry_view *view)
{
	const struct registry_entry *e;
	bool found;

	do {
		pthread_mutex_lock(&r->lock);
		e = advance(place);
		found = e != NULL && e->user != NULL;
		if (found)
			copy_entry(view, e);
		pthread_mutex_unlock(&r->lock);
	} while (e != NULL && !found);
	return found;
}

void
registry_walk_end(struct registry *r, struct registry_entry *place)
{
	pthread_mutex_lock(&r->lock);
	LIST_REMOVE(place, link);
	pthread_mutex_unlock(&r->lock);
}

void
registry_drain(struct registry *r)
{
	struct registry_entry *e;

	r->draining = true;
	pthread_mutex_lock(&r->lock);
	LIST_FOREACH(e, &r->connections, link)
		if (e->running)
			pthread_kill(e->thread, STREAM_WAKE_SIGNAL);
	pthread_mutex_unlock(&r->lock);
}

int
registry_wait(struct registry *r, int64_t deadline)
{
	int left;

	pthread_mutex_lock(&r->lock);
	while (r->connection_count > 0 && thread_cond_wait(&r->emptied, &r->lock, deadline))
		continue;
	left = r->connection_count;
	pthread_mutex_unlock(&r->lock);
	return left;
}
