/*
 * valkey: one server, from its URL to a connection that can be used: connected, authenticated, and
 * known to be a primary, or a node of a Cluster. Which server it is to be says servers.h.
 */
#ifndef TPI_VALKEY_H
#define TPI_VALKEY_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define VALKEY_ERROR_SIZE 512
#define VALKEY_HOST_SIZE  254 /* of a DNS name */
#define VALKEY_LABEL_SIZE 280

struct valkey {
	char *host;     /* NULL where path is set; an IPv6 address stands without brackets */
	int port;       /* 1..65535 */
	bool tls;       /* see tls.h */
	char *path;     /* of a Unix socket */
	char *user;     /* NULL: the default user */
	char *password; /* NULL: none */
	char *label;    /* "host:port" or "unix:/path", for logs; holds no secret */
};

/*
 * Reads a URL of the contract: valkey:// or redis:// [user[:password]@]host[:port][/db], or
 * unix:///path; user and password percent-decoded, [v6] hosts, port 6379 where none is given. db is
 * checked and otherwise unused: pub/sub knows no databases. valkeys:// and rediss:// are for TLS, and
 * refused with a text that says so in a build without it. password_file ("" for none) overrides the
 * password: its first line without the line break. Returns 0, or -1 with one line in error that names the
 * setting (VALKEY_URL or VALKEY_PASSWORD_FILE), shows the value with the password masked, and says
 * what is allowed; then *v holds nothing to free.
 */
int valkey_parse(struct valkey *v, const char *url, const char *password_file, char *error,
    size_t error_size);
void valkey_free(struct valkey *v);

/*
 * Reads host[:port] or [v6][:port]; port is that where none is given. Returns NULL, or what is
 * wrong; valkey_free() is due in either case.
 */
const char *valkey_parse_address(struct valkey *v, const char *text, size_t length, int port);

/* Sets (a copy) or, by NULL, removes the password. False: no memory. */
bool valkey_set_password(struct valkey *v, const char *password);

/* How logs write a host and its port. */
void valkey_label(char label[VALKEY_LABEL_SIZE], const char *host, int port);

/*
 * Connects, by TLS where the URL says so (see tls.h), sends AUTH where there is a user or a
 * password, and asks ROLE: a server that is no primary is refused, because what is published there
 * reaches nobody else, unless by CLUSTER INFO it is a node of a Cluster, which passes it on to all
 * nodes. Waits at most about timeout_ms for all of its steps together (name resolution apart). The
 * result does not block; TCP has keep-alive and no delay; arrays in arrays, which pub/sub has not, are
 * errors. Returns NULL with one line in error; *demoted (may be NULL) then says whether the reason is
 * that the server is no primary. Thread-safe.
 */
redisContext *valkey_connect(const struct valkey *v, int timeout_ms, bool *demoted, char *error,
    size_t error_size);

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
 * The same as one attempt of several that share a time limit. How much of it was left is not in the
 * error, so that the same trouble is told in the same words. of_cluster: a primary has to be in a
 * Cluster, too; only who does not allow the question is believed.
 */
redisContext *valkey_try(const struct valkey *v, int64_t deadline, bool of_cluster,
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
