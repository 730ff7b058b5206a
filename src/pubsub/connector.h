/* SPDX-License-Identifier: ISC */
/*
 * connector: a thread that gets the subscriber a connection to Valkey, and another after each loss: at once,
 * then after 100 ms doubling to 5 s, with jitter. While the connection stands it asks every 10 s,
 * on short connections of its own, whether the server still is the one to use: a primary that was
 * demoted, or cut off and replaced, keeps its subscribers and says nothing. Whatever can block
 * (names, connecting, asking) blocks here, so that the subscriber's thread never does.
 *
 * It also says in the log how Valkey is: one line for each change.
 */
#ifndef TPI_PUBSUB_CONNECTOR_H
#define TPI_PUBSUB_CONNECTOR_H

#include <hiredis/hiredis.h>
#include <stdbool.h>

#include "valkey/topology.h"

struct connector;

enum connector_state {
	CONNECTOR_TRYING, /* the first attempt after the start or after a loss is under way */
	CONNECTOR_READY,  /* a connection waits to be taken, or is in use */
	CONNECTOR_UNREACHABLE    /* an attempt has failed; further ones follow */
};

/*
 * Starts the thread. It writes to wake_fd (an eventfd) whenever there is news. servers must outlive
 * the process's threads, and is the connector's alone from here on. NULL where memory or threads are
 * out.
 */
struct connector *connector_start(struct topology *topology, int wake_fd);

/*
 * The news: the state, a connection to use (handed over once; NULL where there is none), and why
 * the one in use is to be given up (once; NULL where it is not). Called by the subscriber's thread alone.
 */
enum connector_state connector_poll(struct connector *d, redisContext **connection, const char **give_up);

/*
 * The connection in use was lost, for this reason (copied), and freed: get another. Called by the
 * subscriber's thread alone.
 */
void connector_lost(struct connector *d, const char *reason);

#endif
