/*
 * valkey: from the settings to one connection to Valkey (or Redis) that can be used: connected,
 * authenticated, and known to be a primary. Both programs use it.
 */
#ifndef TPI_VALKEY_H
#define TPI_VALKEY_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

#define VALKEY_ERROR_SIZE 512

struct valkey {
	char *host;     /* NULL where path is set; an IPv6 address stands without brackets */
	int port;       /* 1..65535 */
	char *path;     /* of a Unix socket */
	char *user;     /* NULL: the default user */
	char *password; /* NULL: none */
	char *label;    /* "host:port" or "unix:/path", for logs; holds no secret */
};

/*
 * Reads a URL of the contract: valkey:// or redis:// [user[:password]@]host[:port][/db], or
 * unix:///path; user and password percent-decoded, [v6] hosts, port 6379 where none is given. db is
 * checked and otherwise unused: pub/sub knows no databases. valkeys:// and rediss:// are refused
 * with a text that says this build has no TLS. password_file ("" for none) overrides the password:
 * its first line without the line break. Returns 0, or -1 with one line in error that names the
 * setting (VALKEY_URL or VALKEY_PASSWORD_FILE), shows the value with the password masked, and says
 * what is allowed; then *v holds nothing to free.
 */
int valkey_parse(struct valkey *v, const char *url, const char *password_file, char *error,
    size_t error_size);
void valkey_free(struct valkey *v);

/*
 * Connects, sends AUTH where there is a user or a password, and asks ROLE: a server that is no
 * primary is refused, because what is published there reaches nobody else. Waits at most about
 * timeout_ms for all of its steps together (name resolution apart). The reads and writes of the
 * result time out after timeout_ms; TCP has keep-alive and no delay. Returns NULL with one line in
 * error; *demoted (may be NULL) then says whether the reason is that the server is no primary.
 * Thread-safe.
 */
redisContext *valkey_connect(const struct valkey *v, int timeout_ms, bool *demoted, char *error,
    size_t error_size);

/*
 * redisBufferWrite(), for all who write: hiredis 0.14 does not look whether it got a new, empty
 * buffer when all was written, and crashes. Here that is an error in the context, REDIS_ERR_OOM.
 * Returns REDIS_OK or REDIS_ERR; *done says whether all was written.
 */
int valkey_write(redisContext *context, int *done);

#endif
