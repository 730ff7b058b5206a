/* SPDX-License-Identifier: ISC */
/*
 * connector: connecting to Valkey, again and again. See connector.h.
 */
#include "pubsub/connector.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

#define CONNECT_MS     2000
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define CHECK_MS       10000
#define STABLE_MS      1000 /* a connection that was lost sooner counts as a failed attempt */

struct connector {
	struct topology *topology;
	int wake_fd;

	pthread_mutex_t lock; /* the fields below */
	pthread_cond_t changed;
	enum connector_state state;
	redisContext *ready;
	const char *give_up; /* why the connection in use is to be; NULL: it is not */
	bool lost;
	char reason[VALKEY_ERROR_SIZE]; /* why, "" at the start */
};

/* Sleeps until ms have passed or the connection in use was lost; true for the latter. */
static bool
wait_lost(struct connector *d, int64_t ms)
{
	int64_t deadline = clock_ms() + ms;
	bool lost;

	pthread_mutex_lock(&d->lock);
	while (!d->lost && thread_cond_wait(&d->changed, &d->lock, deadline))
		continue;
	lost = d->lost;
	pthread_mutex_unlock(&d->lock);
	return lost;
}

/*
 * Why the last connection was lost, with the first line that is written after that; NULL in others.
 */
static const char *
take_reason(struct connector *d, char reason[VALKEY_ERROR_SIZE])
{
	pthread_mutex_lock(&d->lock);
	memcpy(reason, d->reason, VALKEY_ERROR_SIZE);
	d->reason[0] = '\0';
	pthread_mutex_unlock(&d->lock);
	return reason[0] != '\0' ? reason : NULL;
}

static void
log_change(struct connector *d, const char *error)
{
	char buffer[VALKEY_ERROR_SIZE];
	const char *reason = take_reason(d, buffer);
	const char *server = error != NULL ? d->topology->label : d->topology->used;
	struct log_field fields[4] = { LOG_STR("server", server) };
	int n = 1;

	if (reason != NULL)
		fields[n++] = (struct log_field)LOG_STR("lost", reason);
	if (error != NULL)
		fields[n++] = (struct log_field)LOG_STR("error", error);
	log_write(error != NULL || reason != NULL ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "valkey",
	    error != NULL ? "away" : "connected", fields);
}

/* Connects, however long it takes. */
static void
dial(struct connector *d, int *backoff)
{
	char error[VALKEY_ERROR_SIZE], logged[VALKEY_ERROR_SIZE] = "";
	redisContext *c;

	for (;;) {
		if (*backoff > 0)
			wait_lost(d, clock_jitter((uint32_t)*backoff / 2, (uint32_t)*backoff));
		c = topology_connect(d->topology, CONNECT_MS, error, sizeof(error));
		*backoff = *backoff == 0 ? BACKOFF_MIN_MS : *backoff * 2;
		if (*backoff > BACKOFF_MAX_MS)
			*backoff = BACKOFF_MAX_MS;
		if (c != NULL)
			log_change(d, NULL);
		else if (strcmp(error, logged) != 0) {
			log_change(d, error);
			memcpy(logged, error, sizeof(logged));
		}
		pthread_mutex_lock(&d->lock);
		d->state = c != NULL ? CONNECTOR_READY : CONNECTOR_UNREACHABLE;
		d->ready = c;
		pthread_mutex_unlock(&d->lock);
		thread_wake(d->wake_fd);
		if (c != NULL)
			return;
	}
}

/* Asks about the server until the connection in use is lost. */
static void
watch(struct connector *d)
{
	char error[VALKEY_ERROR_SIZE];
	const char *reason;

	while (!wait_lost(d, CHECK_MS)) {
		reason = topology_check(d->topology, CONNECT_MS, error, sizeof(error));
		if (error[0] != '\0')
			LOG(LOG_LEVEL_DEBUG, "valkey", "the check of the server failed",
			    LOG_STR("server", d->topology->used), LOG_STR("error", error));
		if (reason == NULL)
			continue;
		pthread_mutex_lock(&d->lock);
		d->give_up = reason;
		pthread_mutex_unlock(&d->lock);
		thread_wake(d->wake_fd);
	}
}

static void *
connector_run(void *arg)
{
	struct connector *d = arg;
	int64_t since;
	int backoff = 0;

	for (;;) {
		dial(d, &backoff);
		since = clock_ms();
		watch(d);
		if (clock_ms() - since >= STABLE_MS)
			backoff = 0;
		pthread_mutex_lock(&d->lock);
		d->lost = false;
		d->give_up = NULL;
		pthread_mutex_unlock(&d->lock);
	}
	return NULL;
}

struct connector *
connector_start(struct topology *topology, int wake_fd)
{
	struct connector *d;

	d = calloc(1, sizeof(*d));
	if (d == NULL)
		return NULL;
	d->topology = topology;
	d->wake_fd = wake_fd;
	pthread_mutex_init(&d->lock, NULL);
	thread_cond_init(&d->changed);
	if (thread_start(THREAD_LARGE, connector_run, d) != 0) {
		free(d);
		return NULL;
	}
	return d;
}

enum connector_state
connector_poll(struct connector *d, redisContext **connection, const char **give_up)
{
	enum connector_state state;

	pthread_mutex_lock(&d->lock);
	state = d->state;
	*connection = d->ready;
	d->ready = NULL;
	*give_up = d->give_up;
	d->give_up = NULL;
	pthread_mutex_unlock(&d->lock);
	return state;
}

void
connector_lost(struct connector *d, const char *reason)
{
	pthread_mutex_lock(&d->lock);
	d->state = CONNECTOR_TRYING;
	d->lost = true;
	snprintf(d->reason, sizeof(d->reason), "%s", reason);
	pthread_cond_signal(&d->changed);
	pthread_mutex_unlock(&d->lock);
}
