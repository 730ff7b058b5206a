/*
 * connect: a connection to one server that can be used: connected, authenticated, and known to be of a
 * primary, or of a node of a Cluster. Which server it is to be says topology.h.
 */
#ifndef TPI_VALKEY_CONNECT_H
#define TPI_VALKEY_CONNECT_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "valkey/url.h"

/*
 * The clock of the deadlines below: clock_ms() that stands still while the calling thread looks a
 * name up.
 */
int64_t valkey_clock(void);

/* What a server says about itself. */
struct valkey_word {
	bool demoted; /* no primary, and no node of a Cluster */
	bool apart;   /* its Cluster is not whole: it was cut off, say, or removed */
};

/*
 * Connects, by TLS where the URL says so (see tls.h), sends AUTH where there is a user or a
 * password, and asks ROLE: a server that is no primary is refused, because what is published there
 * reaches nobody else, unless by CLUSTER INFO it is a node of a Cluster, which passes it on to all
 * nodes. of_cluster: a primary has to be in one, too; only who does not allow the query is
 * believed. Waits until about the deadline for all of its steps together. The result does not block;
 * TCP has keep-alive and no delay; arrays in arrays, which pub/sub has not, are errors. Returns NULL
 * with one line in error. Thread-safe.
 *
 * whole_ms: the time limit, for the error. 0 where others have a share in it: how much was left is
 * not told, so that the same trouble is told in the same words.
 */
redisContext *valkey_connect(const struct valkey *v, int64_t deadline, int whole_ms, bool of_cluster,
    struct valkey_word *word, char *error, size_t error_size);

/* Connects and sends AUTH like that, and asks nothing. */
redisContext *valkey_open(const struct valkey *v, int64_t deadline, char *error, size_t error_size);

/*
 * Sends one command over a connection to v and waits for its reply, which is the caller's to free;
 * NULL with one line in error.
 */
redisReply *valkey_ask(redisContext *context, const struct valkey *v, int64_t deadline, int count,
    const char **words, char *error, size_t error_size);

/* One line for a reply that was not expected: the server's words, up to anything that it quotes. */
void valkey_explain(const struct valkey *v, const char *what, const redisReply *reply, char *error,
    size_t error_size);

/*
 * redisBufferWrite(), for all who write: hiredis 0.14 does not look whether it got a new, empty
 * buffer when all was written, and crashes. Here that is an error in the context, REDIS_ERR_OOM.
 * Returns REDIS_OK or REDIS_ERR; *done says whether all was written.
 */
int valkey_write(redisContext *context, int *done);

/*
 * Reads what has come, without waiting, from a context whose socket does not block; for all who wait
 * with poll(). After a full buffer there may be more that poll() does not show, because TLS has it
 * already: read again before waiting. Returns the number of bytes, 0 where none has come, or -1 with
 * an error in the context.
 */
ssize_t valkey_read(redisContext *context, char *buffer, size_t size);

#endif
