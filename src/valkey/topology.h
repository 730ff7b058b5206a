/* SPDX-License-Identifier: ISC */
/*
 * topology: chooses the server to connect to: the only one, a node of a Cluster, or the primary
 * that the sentinels name. Parses the settings for that (VALKEY_URL, VALKEY_PASSWORD_FILE,
 * VALKEY_SENTINELS, ..., VALKEY_TLS_...) and connects. Both programs use it.
 */
#ifndef TPI_VALKEY_TOPOLOGY_H
#define TPI_VALKEY_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "config/settings.h"
#include "valkey/connect.h"
#include "valkey/sentinel.h"

#define TOPOLOGY_MAX 32 /* nodes, or sentinels */

struct topology_entry {
	struct valkey valkey;
	struct error error; /* of the last attempt */
};

struct topology {
	/*
	 * From VALKEY_URL. With sentinels, a single one that only supplies the user and password.
	 */
	struct topology_entry *nodes;
	int node_count;
	struct topology_entry *sentinels; /* NULL: none */
	int sentinel_count;
	char *master; /* the name of the primary that sentinels are queried for */
	char *label;  /* all nodes or all sentinels, for logs; contains no secret */

	/* The server of the last successful topology_connect(): */
	char used[VALKEY_LABEL_SIZE];   /* its label, for logs */
	struct error unverified;        /* a warning about it; see struct valkey_state */
	int used_node;                  /* index into nodes; -1: none yet */
	struct sentinel_answer primary; /* only with sentinels */
};

/*
 * Parses the settings. If url is not NULL, it replaces VALKEY_URL, and VALKEY_SENTINELS is ignored.
 * Call it before any thread starts (see tls.h). False with an error that names the setting, shows
 * its value with passwords masked, and says what is allowed; *t then needs no topology_free().
 */
bool topology_parse(struct topology *t, const struct settings *settings, const char *url,
    struct error *error);
void topology_free(struct topology *t);

/*
 * Connects with valkey_connect() to a primary that the sentinels name, or to the first usable
 * node, starting with the one used last, or at first with a random one. A node whose Cluster is
 * down is used only if there is no better one. Takes at most about timeout_ms, not counting name
 * resolution; no server can use up the time of those after it. Returns NULL with an error.
 * Not thread-safe: one thread at a time.
 */
redisContext *topology_connect(struct topology *t, int timeout_ms, struct error *error);

/* A message for topology_check() to publish. The other fields are set by it. */
struct topology_probe {
	const char *channel, *payload;
	bool published;
	long long receivers;  /* as the server counts them: in a Cluster, those of the node */
	struct error refused; /* the server does not permit PUBLISH on the channel; "": it does */
};

/*
 * Checks, over separate connections, whether the server in use is still the right one, and
 * publishes the probe there; NULL: none. Returns NULL, or why the daemon should reconnect. *error
 * gets "", or what failed during the check; that alone is no reason to reconnect. Call it in the
 * thread that calls topology_connect().
 */
const char *topology_check(struct topology *t, struct topology_probe *probe, int timeout_ms,
    struct error *error);

#endif
