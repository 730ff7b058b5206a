/* SPDX-License-Identifier: ISC */
/*
 * connect: opens a connection to one server, authenticates, and makes sure that the server is a
 * primary or a Cluster node. topology.h chooses the server.
 */
#ifndef TPI_VALKEY_CONNECT_H
#define TPI_VALKEY_CONNECT_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "valkey/url.h"

/*
 * The clock for the deadlines below: clock_ms() without the time that the calling thread spent
 * resolving names. Do not compare its values across threads.
 */
int64_t valkey_clock(void);

/* What a server reported about itself. */
struct valkey_state {
	bool demoted;      /* neither a primary nor a Cluster node */
	bool cluster_down; /* cluster_state is not ok: the node was cut off or removed, say */
	/* A warning: the server refuses the command that would verify this; "": it does not. */
	struct error unverified;
};

/*
 * Connects, over TLS if the URL says so (see tls.h), sends AUTH if there is a user or a password,
 * and sends ROLE. Messages published on a replica reach no other server, so it accepts primaries
 * and nodes of a Cluster only; a Cluster forwards messages to all its nodes. A server without ROLE
 * is accepted, with a warning: managed services and proxies have none.
 *
 * needs_cluster: a primary must be a Cluster node, too; one without CLUSTER INFO is accepted, with
 * a warning. limit_ms: the time limit to name in the error; 0 if the deadline is a share of a
 * larger limit, so that the same failure always has the same text.
 *
 * All steps together take until about deadline (valkey_clock()). The socket is non-blocking, with
 * TCP_NODELAY and keep-alive. Nested arrays, which pub/sub does not use, become protocol errors.
 * Returns NULL with an error. *state is set in either case. Thread-safe.
 */
redisContext *valkey_connect(const struct valkey *v, int64_t deadline, int limit_ms,
    bool needs_cluster, struct valkey_state *state, struct error *error);

/* Connects and authenticates like valkey_connect(), but sends no ROLE and allows nested arrays. */
redisContext *valkey_open(const struct valkey *v, int64_t deadline, struct error *error);

/*
 * Sends a command over a connection to v and waits until deadline (valkey_clock()) for its reply,
 * which the caller frees; NULL with an error.
 */
redisReply *valkey_command(redisContext *context, const struct valkey *v, int64_t deadline,
    int count, const char **words, struct error *error);

/*
 * Whether both are the same server by another spelling: the ports are equal, and the names or
 * addresses have an address in common. Resolves names.
 */
bool valkey_same(const struct valkey *a, const struct valkey *b);

/*
 * Sets an error for an unexpected reply: the server's text up to the first quotation mark. Strikes
 * known passwords out of the reply. Always returns false.
 */
bool valkey_explain(const struct valkey *v, const char *what, const redisReply *reply,
    struct error *error);

/*
 * Whether the reply is an error that says that the command is unknown or not permitted, so that
 * repeating it is useless.
 */
bool valkey_refuses(const redisReply *reply);

/*
 * Use this instead of redisBufferWrite(): when hiredis 0.14 has written everything, it allocates a
 * new, empty buffer and crashes if that fails. Here that is an error in the context, REDIS_ERR_OOM.
 * Returns REDIS_OK or REDIS_ERR; *done is set once everything is written.
 */
int valkey_write(redisContext *context, int *done);

/*
 * Reads available data from a context with a non-blocking socket, without waiting. If the buffer
 * was filled, read again before poll(): TLS may hold more data that poll() does not report. Returns
 * the number of bytes, 0 if there are none yet, or -1 with an error in the context.
 */
ssize_t valkey_read(redisContext *context, char *buffer, size_t size);

#endif
