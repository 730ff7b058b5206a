/* SPDX-License-Identifier: ISC */
/*
 * registry: see registry.h.
 */
#include "session/registry.h"

#include <assert.h>
#include <string.h>

#include "stream/stream.h"
#include "base/thread.h"

/* Up to this number of streams are re-checked at once after a revocation. */
#define REVOKED_AT_ONCE 100

void
registry_init(struct registry *g, const struct settings *settings)
{
	g->settings = settings;
	g->started_at = time(NULL);
	pthread_mutex_init(&g->lock, NULL);
	thread_cond_init(&g->emptied);
	LIST_INIT(&g->connections);
}

void
registry_add(struct registry *g, struct registry_entry *e)
{
	pthread_mutex_lock(&g->lock);
	LIST_INSERT_HEAD(&g->connections, e, link);
	g->connection_count++;
	e->revocations = g->revocations;
	pthread_mutex_unlock(&g->lock);
}

void
registry_run(struct registry *g, struct registry_entry *e)
{
	pthread_mutex_lock(&g->lock);
	e->thread = pthread_self();
	e->running = true;
	pthread_mutex_unlock(&g->lock);
}

void
registry_remove(struct registry *g, struct registry_entry *e)
{
	pthread_mutex_lock(&g->lock);
	assert(e->user == NULL);
	LIST_REMOVE(e, link);
	if (--g->connection_count == 0)
		pthread_cond_signal(&g->emptied);
	pthread_mutex_unlock(&g->lock);
}

int
registry_count(struct registry *g)
{
	int count;

	pthread_mutex_lock(&g->lock);
	count = g->connection_count;
	pthread_mutex_unlock(&g->lock);
	return count;
}

static bool
concerns(const struct revocation *r, const char *user, const struct watch_list *watches)
{
	if (r->project == 0)
		return strcmp(r->user, user) == 0;
	return watch_list_depends_on(watches, r->project);
}

void
registry_name(struct registry *g, struct registry_entry *e, struct stream *stream, const char *user,
    const struct watch_list *watches)
{
	uint64_t missed;

	pthread_mutex_lock(&g->lock);
	assert(e->user == NULL);
	e->stream = stream;
	e->user = user;
	e->watches = watches;
	missed = g->revocations - e->revocations;
	if (missed > 1 || (missed == 1 && concerns(&g->last_revocation, user, watches)))
		stream_mark(stream, STREAM_REVOKED);
	pthread_mutex_unlock(&g->lock);
}

void
registry_unname(struct registry *g, struct registry_entry *e)
{
	pthread_mutex_lock(&g->lock);
	e->user = NULL;
	e->revocations = g->revocations;
	pthread_mutex_unlock(&g->lock);
}

size_t
registry_revoke(void *registry, const struct revocation *revocation)
{
	struct registry *g = registry;
	struct registry_entry *e;
	size_t count = 0;

	/*
	 * Before the walk: a connection that the walk does not find then gets only answers from after
	 * the revocation.
	 */
	if (g->app_client != NULL)
		app_client_invalidate(g->app_client);
	pthread_mutex_lock(&g->lock);
	g->revocations++;
	g->last_revocation = *revocation;
	LIST_FOREACH(e, &g->connections, link) {
		if (e->user == NULL || !concerns(revocation, e->user, e->watches))
			continue;
		stream_mark(e->stream, count < REVOKED_AT_ONCE ? STREAM_REVOKED :
		    STREAM_REVOKED | STREAM_MANY);
		count++;
	}
	pthread_mutex_unlock(&g->lock);
	return count;
}

void
registry_drain(struct registry *g)
{
	struct registry_entry *e;

	g->draining = true;
	pthread_mutex_lock(&g->lock);
	LIST_FOREACH(e, &g->connections, link)
		if (e->running)
			pthread_kill(e->thread, STREAM_WAKE_SIGNAL);
	pthread_mutex_unlock(&g->lock);
}

int
registry_wait(struct registry *g, int64_t deadline)
{
	int left;

	pthread_mutex_lock(&g->lock);
	while (g->connection_count > 0 && thread_cond_wait(&g->emptied, &g->lock, deadline))
		continue;
	left = g->connection_count;
	pthread_mutex_unlock(&g->lock);
	return left;
}
