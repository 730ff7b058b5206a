/* SPDX-License-Identifier: ISC */
/*
 * peer: the reading side of a connection: what the web server sends, before the head is complete
 * and after. It belongs to the connection's thread.
 */
#ifndef TPI_SESSION_PEER_H
#define TPI_SESSION_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "fcgi/head.h"
#include "stream/stream.h"

struct peer {
	int fd;
	struct stream *stream; /* that replies go through */
	struct head head;
	bool complete; /* the head is */
	bool gone;     /* closed, aborted or not FastCGI: nothing more is read */
};

/*
 * Waits until there is something to do for the connection's thread, up to deadline (clock_ms()): a
 * mark on the stream, input, room for the stream's backlog. Reads the input and sends the backlog.
 */
void peer_wait(struct peer *p, int64_t deadline);

/*
 * Reads the head of the request up to deadline. Returns true once it is complete. Where *draining
 * becomes true the deadline shrinks to grace_ms from then.
 */
bool peer_read_head(struct peer *p, int64_t deadline, const _Atomic bool *draining, int grace_ms);

/* Waits until the stream's backlog is sent, up to deadline. */
void peer_flush(struct peer *p, int64_t deadline);

/* Throws away unread input, without which closing would look like an error to the other side. */
void peer_discard(struct peer *p);

#endif
