/* SPDX-License-Identifier: ISC */
/* connector: connects to Valkey, with retries. See connector.h. */
#include "pubsub/connector.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"

#define CONNECT_MS     2000
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define CHECK_MS       10000
#define STABLE_MS      1000 /* a connection that lasted a shorter time counts as a failed attempt */

/*
 * How long a probe may take to arrive. One that the server has sent to a subscriber, which can only
 * be our connection, may be late under load. One that it has not is missing, except in a Cluster,
 * which counts only the subscribers of one node.
 */
#define PROBE_SENT_MS  CHECK_MS
#define PROBE_MS       1000

struct connector {
	struct topology *topology;
	int wake_fd;
	char *probe_channel;
	uint32_t probe_number; /* of the last one */
	struct error server_warning; /* the last logged warning about a server */

	pthread_mutex_t lock; /* guards the fields below */
	pthread_cond_t changed;
	enum connector_state state;
	redisContext *ready;
	const char *give_up; /* why the connection in use should be closed; NULL: it should not */
	bool lost;
	bool subscribed;     /* to the probes */
	bool arrived;        /* the probe that is awaited */
	char awaited[16];    /* the payload of the last probe */
	struct error probe_warning; /* the last logged warning about probes */
	struct error reason; /* why the last one was lost; "": not lost, or logged */
};

/* Sleeps for ms, or until the connection in use is lost. Returns whether it was lost. */
static bool
wait_lost(struct connector *connector, int64_t ms)
{
	int64_t deadline = clock_ms() + ms;
	bool lost;

	pthread_mutex_lock(&connector->lock);
	while (!connector->lost &&
	    thread_cond_wait(&connector->changed, &connector->lock, deadline))
		continue;
	lost = connector->lost;
	pthread_mutex_unlock(&connector->lock);
	return lost;
}

/* Gets why the last connection was lost, once. False after that, and at the start. */
static bool
take_reason(struct connector *connector, struct error *reason)
{
	pthread_mutex_lock(&connector->lock);
	*reason = connector->reason;
	connector->reason.text[0] = '\0';
	pthread_mutex_unlock(&connector->lock);
	return reason->text[0] != '\0';
}

static void
log_change(struct connector *connector, const struct error *error)
{
	struct error reason;
	bool lost = take_reason(connector, &reason);
	const char *server = error != NULL ? connector->topology->label : connector->topology->used;
	struct log_field fields[4] = { LOG_STR("server", server) };
	int n = 1;

	if (lost)
		fields[n++] = (struct log_field)LOG_STR("lost", reason.text);
	if (error != NULL)
		fields[n++] = (struct log_field)LOG_STR("error", error->text);
	log_write(error != NULL || lost ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "valkey",
	    error != NULL ? "unreachable" : "connected", fields);
}

/* Logs what could not be verified about the server, once. */
static void
log_unverified(struct connector *connector)
{
	const struct error *error = &connector->topology->unverified;

	if (error->text[0] == '\0' || strcmp(error->text, connector->server_warning.text) == 0)
		return;
	connector->server_warning = *error;
	LOG(LOG_LEVEL_WARN, "valkey", "server not verified",
	    LOG_STR("server", connector->topology->used), LOG_STR("error", error->text));
}

/* Retries until it is connected. */
static void
connect_server(struct connector *connector, int *backoff)
{
	struct error error, logged = { "" };
	redisContext *c;

	for (;;) {
		if (*backoff > 0)
			wait_lost(connector,
			    clock_jitter((uint32_t)*backoff / 2, (uint32_t)*backoff));
		c = topology_connect(connector->topology, CONNECT_MS, &error);
		*backoff = *backoff == 0 ? BACKOFF_MIN_MS : *backoff * 2;
		if (*backoff > BACKOFF_MAX_MS)
			*backoff = BACKOFF_MAX_MS;
		if (c != NULL) {
			log_change(connector, NULL);
			log_unverified(connector);
		} else if (strcmp(error.text, logged.text) != 0) {
			log_change(connector, &error);
			logged = error;
		}
		pthread_mutex_lock(&connector->lock);
		connector->state = c != NULL ? CONNECTOR_READY : CONNECTOR_UNREACHABLE;
		connector->ready = c;
		pthread_mutex_unlock(&connector->lock);
		thread_wake(connector->wake_fd);
		if (c != NULL)
			return;
	}
}

/* Whether a probe makes sense; then prepares for its arrival. */
static bool
prepare_probe(struct connector *connector, struct topology_probe *probe)
{
	bool subscribed;

	pthread_mutex_lock(&connector->lock);
	subscribed = connector->subscribed;
	connector->arrived = false;
	snprintf(connector->awaited, sizeof(connector->awaited), "%u", ++connector->probe_number);
	pthread_mutex_unlock(&connector->lock);
	*probe = (struct topology_probe){
		.channel = connector->probe_channel, .payload = connector->awaited };
	return subscribed;
}

/* Waits until the probe has arrived. False: it has not. */
static bool
await_probe(struct connector *connector, int64_t ms)
{
	int64_t deadline = clock_ms() + ms;
	bool missing;

	pthread_mutex_lock(&connector->lock);
	while (!connector->arrived && !connector->lost &&
	    thread_cond_wait(&connector->changed, &connector->lock, deadline))
		continue;
	missing = !connector->arrived && !connector->lost;
	pthread_mutex_unlock(&connector->lock);
	return !missing;
}

/* Ends the probes on this connection; logs that, once for each reason. */
static void
stop_probes(struct connector *connector, const char *error)
{
	bool logged;

	pthread_mutex_lock(&connector->lock);
	connector->subscribed = false;
	logged = strcmp(connector->probe_warning.text, error) == 0;
	error_set(&connector->probe_warning, "%s", error);
	pthread_mutex_unlock(&connector->lock);
	if (!logged)
		LOG(LOG_LEVEL_WARN, "valkey", "connection not verified", LOG_STR("error", error),
		    LOG_STR("remedy", "allow the Valkey user to subscribe to and publish on its "
		    "check channel, see tpi-stream(7)"));
}

/* Checks once. Returns why the connection in use should be closed; NULL: it should not. */
static const char *
check_once(struct connector *connector, struct error *error)
{
	struct topology_probe probe;
	bool probing = prepare_probe(connector, &probe);
	const char *reason = topology_check(connector->topology, probing ? &probe : NULL,
	    CONNECT_MS, error);

	if (reason != NULL || !probing)
		return reason;
	if (probe.refused.text[0] != '\0')
		stop_probes(connector, probe.refused.text);
	if (!probe.published ||
	    await_probe(connector, probe.receivers > 0 ? PROBE_SENT_MS : PROBE_MS))
		return NULL;
	return "a message published at the same address did not arrive";
}

/* Checks the server regularly until the connection in use is lost. */
static void
check_server(struct connector *connector)
{
	struct error error;
	const char *reason;

	while (!wait_lost(connector, CHECK_MS)) {
		reason = check_once(connector, &error);
		if (error.text[0] != '\0')
			LOG(LOG_LEVEL_DEBUG, "valkey", "server check failed",
			    LOG_STR("server", connector->topology->used),
			    LOG_STR("error", error.text));
		if (reason == NULL)
			continue;
		pthread_mutex_lock(&connector->lock);
		connector->give_up = reason;
		pthread_mutex_unlock(&connector->lock);
		thread_wake(connector->wake_fd);
	}
}

static void *
connector_run(void *arg)
{
	struct connector *connector = arg;
	int64_t since;
	int backoff = 0;

	for (;;) {
		connect_server(connector, &backoff);
		since = clock_ms();
		check_server(connector);
		if (clock_ms() - since >= STABLE_MS)
			backoff = 0;
		pthread_mutex_lock(&connector->lock);
		connector->lost = false;
		connector->give_up = NULL;
		pthread_mutex_unlock(&connector->lock);
	}
	return NULL;
}

struct connector *
connector_start(struct topology *topology, int wake_fd, const char *probe_channel)
{
	struct connector *connector;

	connector = calloc(1, sizeof(*connector));
	if (connector == NULL)
		return NULL;
	connector->topology = topology;
	connector->wake_fd = wake_fd;
	connector->probe_channel = strdup(probe_channel);
	pthread_mutex_init(&connector->lock, NULL);
	thread_cond_init(&connector->changed);
	if (connector->probe_channel == NULL ||
	    thread_start(connector_run, connector) != 0) {
		free(connector->probe_channel);
		free(connector);
		return NULL;
	}
	return connector;
}

enum connector_state
connector_poll(struct connector *connector, redisContext **connection, const char **give_up)
{
	enum connector_state state;

	pthread_mutex_lock(&connector->lock);
	state = connector->state;
	*connection = connector->ready;
	connector->ready = NULL;
	*give_up = connector->give_up;
	connector->give_up = NULL;
	pthread_mutex_unlock(&connector->lock);
	return state;
}

void
connector_lost(struct connector *connector, const char *reason)
{
	pthread_mutex_lock(&connector->lock);
	connector->state = CONNECTOR_TRYING;
	connector->lost = true;
	connector->subscribed = false;
	error_set(&connector->reason, "%s", reason);
	pthread_cond_signal(&connector->changed);
	pthread_mutex_unlock(&connector->lock);
}

void
connector_subscribed(struct connector *connector)
{
	pthread_mutex_lock(&connector->lock);
	connector->subscribed = true;
	pthread_mutex_unlock(&connector->lock);
}

void
connector_refused(struct connector *connector, const char *error)
{
	stop_probes(connector, error);
}

void
connector_arrived(struct connector *connector, const char *payload)
{
	pthread_mutex_lock(&connector->lock);
	if (strcmp(payload, connector->awaited) == 0) {
		connector->arrived = true;
		pthread_cond_signal(&connector->changed);
	}
	pthread_mutex_unlock(&connector->lock);
}
