/* SPDX-License-Identifier: ISC */
/*
 * peer: the reading side of a connection: the head of the request and whatever the web server sends
 * after it. Belongs to the connection's thread.
 */
#ifndef TPI_SESSION_PEER_H
#define TPI_SESSION_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "fcgi/head.h"
#include "stream/stream.h"

struct peer {
	int fd;
	struct stream *stream; /* through which replies are sent */
	struct head head;
	bool complete; /* the head is */
	bool gone;     /* closed, aborted or not FastCGI: nothing more will be read */
};

/*
 * Waits up to deadline (clock_ms()) for a mark on the stream, for input, or until the socket has
 * room for the backlog. Reads the input and sends the backlog. Returns false if there was neither.
 */
bool peer_wait(struct peer *p, int64_t deadline);

/*
 * Reads the head of the request up to deadline. Returns true once it is complete. When *draining
 * becomes true, the time left shrinks to grace_ms.
 */
bool peer_read_head(struct peer *p, int64_t deadline, const _Atomic bool *draining, int grace_ms);

/* Waits until the stream's backlog is sent, up to deadline. */
void peer_flush(struct peer *p, int64_t deadline);

/* Discards unread input, with which a close would look like an error to the other side. */
void peer_discard(struct peer *p);

#endif
