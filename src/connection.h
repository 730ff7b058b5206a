/*
 * connection: the life of one connection, from accept to close, in a thread of its own.
 */
#ifndef TPI_CONNECTION_H
#define TPI_CONNECTION_H

#include "caps.h"
#include "gateway.h"
#include "hub.h"
#include "peer.h"
#include "request.h"
#include "route.h"

/* Belongs to its thread. */
struct connection {
	struct gateway *gateway;
	struct gateway_entry entry;
	struct peer peer;
	struct stream *stream;
	struct request request; /* freed when the stream begins */
	const struct route *route;
	struct caps *caps; /* of the route */
	struct caps_entry place;
	struct subscription *subscription;
	char *user; /* once known; owned */
};

/*
 * Serves fd, which it closes in the end, in a new thread. Returns 0, or an errno value when the
 * machine has no thread or memory left: then fd is still the caller's.
 */
int connection_start(struct gateway *g, int fd);

/* live.c: from the first sync to the end of the stream. over: the user is over his cap. */
void live_run(struct connection *c, bool over);

#endif
