/* SPDX-License-Identifier: ISC */
/*
 * connector: a thread that connects to Valkey for the subscriber, and again after each loss: at
 * once, then after 100 ms, doubling to 5 s, with jitter. While connected, it checks every 10 s, on
 * separate short connections, whether the server is still the right one: a primary that was
 * demoted, or cut off and replaced, keeps its subscribers but sends them nothing. Behind a load
 * balancer, or a name that moves, the short connections may reach another server than the one in
 * use. So they also publish a probe, which must arrive on the connection in use.
 *
 * Everything that can block (resolving names, connecting, querying) happens here, so the
 * subscriber's thread never blocks.
 *
 * It logs one line for each change of Valkey's state.
 */
#ifndef TPI_PUBSUB_CONNECTOR_H
#define TPI_PUBSUB_CONNECTOR_H

#include <hiredis/hiredis.h>
#include <stdbool.h>

#include "valkey/topology.h"

struct connector;

enum connector_state {
	CONNECTOR_TRYING,     /* the first attempt after the start or a loss is in progress */
	CONNECTOR_READY,      /* a connection can be taken, or is in use */
	CONNECTOR_UNREACHABLE /* an attempt has failed; retrying */
};

/*
 * Starts the thread. probe_channel (copied) is the channel of its probes, which only this process
 * uses. It writes to wake_fd (an eventfd) when there is something for connector_poll(). Only the
 * connector may use topology from now on. NULL: no memory or no thread.
 */
struct connector *connector_start(struct topology *topology, int wake_fd,
    const char *probe_channel);

/*
 * Returns the state. *connection gets a new connection, handed over once, or NULL; *give_up gets
 * why the subscriber should close the one in use, once, or NULL. Subscriber's thread only.
 */
enum connector_state connector_poll(struct connector *connector, redisContext **connection,
    const char **give_up);

/*
 * Reports that the connection in use was lost for this reason (copied) and closed: the connector
 * connects again. Subscriber's thread only.
 */
void connector_lost(struct connector *connector, const char *reason);

/*
 * Report that the channel of the probes is subscribed on the connection in use, or that the server
 * refused that with this error, and that a probe has arrived. Without a subscription none is sent.
 * Subscriber's thread only.
 */
void connector_subscribed(struct connector *connector);
void connector_refused(struct connector *connector, const char *error);
void connector_arrived(struct connector *connector, const char *payload);

#endif
