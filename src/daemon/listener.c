/* SPDX-License-Identifier: ISC */
/*
 * listener: see listener.h.
 */
#include "daemon/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_FDS_START 3 /* sd_listen_fds(3) */
#define LOCK_SUFFIX      ".lock"
#define LOCK_ATTEMPTS    500 /* 10 ms apart; the lock is held for less than 1 ms */

bool
address_parse(struct address *a, const char *text)
{
	const char *path = strncmp(text, "unix:", 5) == 0 ? text + 5 : text;
	struct error ignored;

	memset(a, 0, sizeof(*a));
	if (path[0] == '/') {
		if (strlen(path) >= sizeof(a->path))
			return false;
		strcpy(a->path, path);
		return true;
	}
	return path == text && hostport_parse(&a->tcp, text, strlen(text), &ignored) &&
	    a->tcp.port != 0;
}

static bool
is_listening(int fd)
{
	int on = 0;
	socklen_t size = sizeof(on);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size) == 0 && on != 0;
}

/* Accepted connections inherit it on Linux. It fails for a Unix socket, which does not need it. */
static void
disable_delay(const struct listener *l)
{
	const int on = 1;

	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

bool
listener_inherit(struct listener *l, struct error *error)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");

	memset(l, 0, sizeof(*l));
	l->fd = -1;
	l->inherited = true;
	if (pid != NULL && count != NULL && atol(pid) == (long)getpid()) {
		if (strcmp(count, "1") != 0)
			return error_set(error,
			    "LISTEN_FDS=%s: must be 1, one listening socket", count);
		l->fd = LISTEN_FDS_START;
		if (!is_listening(l->fd))
			return error_set(error,
			    "LISTEN_FDS=1: descriptor 3 must be a listening stream socket");
	} else if (is_listening(STDIN_FILENO))
		l->fd = STDIN_FILENO;
	/* Processes that we start should not take the socket. */
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	if (l->fd == -1)
		return true;
	if (fcntl(l->fd, F_SETFL, fcntl(l->fd, F_GETFL) | O_NONBLOCK) == -1 ||
	    fcntl(l->fd, F_SETFD, FD_CLOEXEC) == -1)
		return error_set(error, "inherited socket: %m");
	disable_delay(l);
	return true;
}

/* Whether fd is still the file of that name: another process may have removed it. */
static bool
is_file(int fd, const char *name)
{
	struct stat opened, named;

	return fstat(fd, &opened) == 0 && lstat(name, &named) == 0 &&
	    opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/*
 * Locks the name of a socket: if several daemons start at once and find a stale socket, one
 * replaces it and the others find the new one. The lock is a file next to the socket, not the
 * directory, because any user who can read the directory could lock it. Returns a descriptor, or -1
 * with errno.
 */
static int
lock_name(const char *name)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
	int attempts, fd;

	for (attempts = 0; attempts < LOCK_ATTEMPTS; attempts++) {
		fd = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd == -1)
			return -1;
		if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_file(fd, name))
			return fd;
		close(fd);
		nanosleep(&pause, NULL);
	}
	errno = EWOULDBLOCK;
	return -1;
}

/* Whether a process may be listening at this path, which we must not replace then. */
static bool
is_live(const struct sockaddr_un *address)
{
	int fd, saved;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return true;
	saved = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : errno;
	close(fd);
	return saved != ECONNREFUSED && saved != ENOENT;
}

static bool
open_unix(struct listener *l, const struct address *a, const struct listener_options *options,
    struct error *error)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct stat st;
	mode_t mask;
	int bound;

	memcpy(address.sun_path, a->path, sizeof(address.sun_path));
	if (lstat(a->path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return error_set(error,
			    "exists and is not a socket: remove it or choose another path");
		if (is_live(&address))
			return error_set(error, "in use: another process may be listening there");
		if (unlink(a->path) == -1)
			return error_set(error, "cannot replace the stale socket: %m");
	}
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd == -1)
		return error_set(error, "%m");
	/* No one can connect before owner and mode are set. */
	mask = umask(0177);
	bound = bind(l->fd, (const struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (bound == -1)
		return error_set(error, "%m");
	l->path = strdup(a->path);
	if (l->path == NULL || lstat(a->path, &st) == -1)
		return error_set(error, "%m");
	l->device = st.st_dev;
	l->inode = st.st_ino;
	if (options->group != (gid_t)-1 && chown(a->path, (uid_t)-1, options->group) == -1)
		return error_set(error, "cannot set the group: %m");
	if (chmod(a->path, options->mode) == -1)
		return error_set(error, "cannot set the mode: %m");
	return true;
}

/* Keeps the lock until after listen(): before that, the socket looks stale to others. */
static bool
listen_unix(struct listener *l, const struct address *a, const struct listener_options *options,
    struct error *error)
{
	char name[sizeof(a->path) + sizeof(LOCK_SUFFIX)];
	bool good;
	int lock;

	snprintf(name, sizeof(name), "%s" LOCK_SUFFIX, a->path);
	lock = lock_name(name);
	if (lock == -1 && errno == EWOULDBLOCK)
		return error_set(error, "in use: another process has locked %s", name);
	if (lock == -1)
		return error_set(error, "%s: %s%s", name, strerror(errno),
		    errno == ENOENT ? ": the directory must exist" : "");
	good = open_unix(l, a, options, error) &&
	    (listen(l->fd, options->backlog) == 0 || error_set(error, "%m"));
	/*
	 * Remove a failed socket while it is locked: it looks stale to others, who may replace it.
	 */
	if (!good)
		listener_close(l);
	unlink(name);
	close(lock);
	return good;
}

static bool
listen_tcp(struct listener *l, const struct address *a, const struct listener_options *options,
    struct error *error)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *found, *ai;
	int result, on = 1, saved = 0;
	char port[8];

	snprintf(port, sizeof(port), "%d", a->tcp.port);
	result = getaddrinfo(a->tcp.host, port, &hints, &found);
	if (result != 0)
		return error_set(error, "%s", gai_strerror(result));
	for (ai = found; ai != NULL; ai = ai->ai_next) {
		l->fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (l->fd == -1) {
			saved = errno;
			continue;
		}
		setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (bind(l->fd, ai->ai_addr, ai->ai_addrlen) == 0)
			break;
		saved = errno;
		close(l->fd);
		l->fd = -1;
	}
	freeaddrinfo(found);
	if (l->fd == -1)
		return error_set(error, "%s", strerror(saved));
	return listen(l->fd, options->backlog) == 0 || error_set(error, "%m");
}

bool
listener_open(struct listener *l, const struct address *a, const struct listener_options *options,
    struct error *error)
{
	bool good;

	memset(l, 0, sizeof(*l));
	l->fd = -1;
	good = a->path[0] != '\0' ? listen_unix(l, a, options, error) :
	    listen_tcp(l, a, options, error);
	if (good)
		disable_delay(l);
	else
		listener_close(l);
	return good;
}

bool
listener_is_exposed(const struct listener *l)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} a;
	socklen_t size = sizeof(a);

	memset(&a, 0, sizeof(a));
	if (getsockname(l->fd, &a.any, &size) == -1)
		return false;
	if (a.any.sa_family == AF_INET)
		return ntohl(a.v4.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET;
	if (a.any.sa_family != AF_INET6)
		return false;
	if (IN6_IS_ADDR_V4MAPPED(&a.v6.sin6_addr))
		return a.v6.sin6_addr.s6_addr[12] != IN_LOOPBACKNET;
	return !IN6_IS_ADDR_LOOPBACK(&a.v6.sin6_addr);
}

void
listener_close(struct listener *l)
{
	struct stat st;

	if (l->path != NULL && lstat(l->path, &st) == 0 && st.st_dev == l->device &&
	    st.st_ino == l->inode)
		unlink(l->path);
	free(l->path);
	l->path = NULL;
	if (l->fd != -1)
		close(l->fd);
	l->fd = -1;
}
