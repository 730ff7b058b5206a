/*
 * topology: which server to use. What the settings say (VALKEY_URL with one or several nodes of a
 * Cluster, VALKEY_PASSWORD_FILE, VALKEY_SENTINELS, VALKEY_TLS_...), and the way from there to a connection. Both
 * programs use it.
 */
#ifndef TPI_VALKEY_TOPOLOGY_H
#define TPI_VALKEY_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>

#include "valkey/sentinel.h"
#include "config/settings.h"
#include "valkey/connect.h"

#define TOPOLOGY_MAX 32 /* nodes, or sentinels */

struct topology_entry {
	struct valkey valkey;
	char error[VALKEY_ERROR_SIZE]; /* of the last attempt */
};

struct topology {
	/* Of VALKEY_URL; with sentinels one, for its user and password. */
	struct topology_entry *nodes;
	int node_count;
	struct topology_entry *sentinels; /* NULL: none */
	int sentinel_count;
	char *master; /* whom the sentinels are asked for */
	char *label;  /* all of them, for logs; holds no secret */

	/* Of the last topology_connect() that succeeded: */
	char used[VALKEY_LABEL_SIZE];   /* its label, for logs */
	int used_node;                  /* -1: none yet */
	struct sentinel_answer primary; /* with sentinels */
};

/*
 * Reads the settings. url: in place of VALKEY_URL, and then VALKEY_SENTINELS does not count; NULL
 * for none. Before any thread (see tls.h). Returns 0, or -1 with one line in error that names the setting, shows its value with
 * passwords masked, and says what is allowed; then *s holds nothing to free.
 */
int topology_parse(struct topology *s, const struct settings *settings, const char *url, char *error,
    size_t error_size);
void topology_free(struct topology *s);

/*
 * Connects to the server to use, by valkey_connect(): the primary that the sentinels name, or the
 * first node that will do, beginning with that of the last time, or anywhere at first; of several
 * nodes one whose Cluster is whole goes before one that was cut off. All of it
 * takes at most about timeout_ms (name resolution apart), and none can use up the time of those
 * behind it. NULL with one line in error. By one thread at a time.
 */
redisContext *topology_connect(struct topology *s, int timeout_ms, char *error, size_t error_size);

/*
 * Asks, over other connections, whether the server in use still is the one to use. Returns NULL or
 * why not. error is "" or says what could not be asked, which is no reason to leave. By the thread
 * of topology_connect().
 */
const char *topology_check(struct topology *s, int timeout_ms, char *error, size_t error_size);

#endif
