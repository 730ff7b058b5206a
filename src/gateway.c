/*
 * gateway: see gateway.h.
 */
#include "gateway.h"

#include "stream.h"
#include "thread.h"

void
gateway_init(struct gateway *g, const struct settings *settings)
{
	g->settings = settings;
	g->started_at = time(NULL);
	pthread_mutex_init(&g->lock, NULL);
	thread_cond_init(&g->emptied);
	LIST_INIT(&g->connections);
}

void
gateway_add(struct gateway *g, struct gateway_entry *e)
{
	pthread_mutex_lock(&g->lock);
	LIST_INSERT_HEAD(&g->connections, e, link);
	g->connection_count++;
	e->revocation_count = g->revocation_count;
	pthread_mutex_unlock(&g->lock);
}

void
gateway_run(struct gateway *g, struct gateway_entry *e)
{
	pthread_mutex_lock(&g->lock);
	e->thread = pthread_self();
	e->running = true;
	pthread_mutex_unlock(&g->lock);
}

void
gateway_remove(struct gateway *g, struct gateway_entry *e)
{
	pthread_mutex_lock(&g->lock);
	LIST_REMOVE(e, link);
	if (--g->connection_count == 0)
		pthread_cond_signal(&g->emptied);
	pthread_mutex_unlock(&g->lock);
}

int
gateway_count(struct gateway *g)
{
	int count;

	pthread_mutex_lock(&g->lock);
	count = g->connection_count;
	pthread_mutex_unlock(&g->lock);
	return count;
}

size_t
gateway_revoke(void *gateway, const struct revocation *revocation)
{
	struct gateway *g = gateway;
	size_t count = 0;

	/*
	 * In this order: whoever comes behind the second step finds only answers from behind the
	 * first, and who came before it finds the revocation or is marked.
	 */
	if (g->gate != NULL)
		gate_revoke(g->gate);
	pthread_mutex_lock(&g->lock);
	g->revocations[g->revocation_count++ % GATEWAY_REVOCATIONS] = *revocation;
	pthread_mutex_unlock(&g->lock);
	for (int i = 0; revocation->project == 0 && i < ROUTE_COUNT; i++)
		count += (size_t)caps_revoke(g->caps[i], revocation->user);
	return count;
}

bool
gateway_revoked(struct gateway *g, const struct gateway_entry *e, const char *user,
    const int32_t *projects, int count)
{
	uint64_t i = e->revocation_count;
	bool revoked;

	pthread_mutex_lock(&g->lock);
	/* Who does not know is careful. */
	revoked = g->revocation_count - i > GATEWAY_REVOCATIONS;
	for (; !revoked && i < g->revocation_count; i++)
		revoked = revocation_concerns(&g->revocations[i % GATEWAY_REVOCATIONS], user,
		    projects, count);
	pthread_mutex_unlock(&g->lock);
	return revoked;
}

void
gateway_drain(struct gateway *g)
{
	struct gateway_entry *e;

	g->draining = true;
	pthread_mutex_lock(&g->lock);
	LIST_FOREACH(e, &g->connections, link)
		if (e->running)
			pthread_kill(e->thread, STREAM_WAKE_SIGNAL);
	pthread_mutex_unlock(&g->lock);
}

int
gateway_wait(struct gateway *g, int64_t deadline)
{
	int left;

	pthread_mutex_lock(&g->lock);
	while (g->connection_count > 0 && thread_cond_wait(&g->emptied, &g->lock, deadline))
		continue;
	left = g->connection_count;
	pthread_mutex_unlock(&g->lock);
	return left;
}
