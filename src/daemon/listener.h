/* SPDX-License-Identifier: ISC */
/*
 * listener: the socket that web servers connect to: a Unix or TCP socket that we create, or one
 * inherited from systemd (LISTEN_FDS, see sd_listen_fds(3)) or spawn-fcgi (descriptor 0).
 */
#ifndef TPI_DAEMON_LISTENER_H
#define TPI_DAEMON_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/hostport.h"

#define LISTENER_DEFAULT "unix:/run/tpi-stream/streamd.sock"
#define LISTENER_ALLOWED  "/path, unix:/path, host:port or [v6]:port"

struct address {
	char path[108]; /* of a Unix socket; the size of sun_path; "" for TCP */
	struct hostport tcp;
};

/* Parses an address as in LISTENER_ALLOWED. False if it is not one or its path is too long. */
bool address_parse(struct address *a, const char *text);

struct listener {
	int fd; /* non-blocking */
	bool inherited;
	char *path; /* of a Unix socket that we created; removed by listener_close(); owned */
	dev_t device;
	ino_t inode;
};

struct listener_options {
	unsigned mode; /* of a Unix socket */
	gid_t group;   /* of a Unix socket; (gid_t)-1: do not change it */
	int backlog;
};

/* Takes an inherited socket; if there is none, l->fd is -1. False with an error. */
bool listener_inherit(struct listener *l, struct error *error);

/*
 * Creates a socket at an address. Replaces a stale socket file, but never a live one, even if
 * several processes do this at once. False with an error.
 */
bool listener_open(struct listener *l, const struct address *a,
    const struct listener_options *options, struct error *error);

/* Whether it is a TCP socket on an address other than loopback, which other hosts may reach. */
bool listener_is_exposed(const struct listener *l);

/* Closes the socket, and removes its file if it is still ours. */
void listener_close(struct listener *l);

#endif
