/* SPDX-License-Identifier: ISC */
/*
 * stream_list: the page with all open streams (TPI_STATUS=on), one line of JSON each.
 *
 * The list is sent while it is made, so it takes the same little memory for any number of streams.
 * No lock that a stream needs is held while it is sent.
 */
#ifndef TPI_SESSION_STREAM_LIST_H
#define TPI_SESSION_STREAM_LIST_H

#include <stdint.h>

#include "session/peer.h"
#include "session/registry.h"

/*
 * Sends the whole response. If the peer has not read it by deadline (clock_ms()) or is gone, or the
 * daemon drains, the response is cut off: the end of the request is missing. False: no memory, and
 * nothing was sent. Call it in the thread of the peer's connection.
 */
bool stream_list_send(struct registry *r, struct peer *peer, int64_t deadline);

#endif
