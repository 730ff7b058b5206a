/* SPDX-License-Identifier: ISC */
/*
 * connector: a thread that connects to Valkey for the subscriber, and again after each loss: at
 * once, then after 100 ms, doubling to 5 s, with jitter. While connected, it checks every 10 s, on
 * separate short connections, whether the server is still the right one: a primary that was
 * demoted, or cut off and replaced, keeps its subscribers but sends them nothing. Everything that
 * can block (resolving names, connecting, querying) happens here, so the subscriber's thread never
 * blocks.
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
 * Starts the thread. It writes to wake_fd (an eventfd) when there is something for
 * connector_poll(). Only the connector may use topology from now on. NULL: no memory or no thread.
 */
struct connector *connector_start(struct topology *topology, int wake_fd);

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

#endif
