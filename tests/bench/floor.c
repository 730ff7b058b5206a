/* SPDX-License-Identifier: ISC */
/*
 * floor: the minimal FastCGI responder, one thread with epoll. The benchmark compares tpi-streamd with
 * the cost of the same streams here.
 *
 *   floor LISTEN-PATH VALKEY-PATH TENANT USERS
 *
 * It subscribes once, to the broadcast channel and those of the tenant's users u0, u1, ..., treats the
 * first bytes of a connection as its complete request, sends the 200 and a sync, and writes each
 * message with one send() per stream. No checks, caps, merging or heartbeats, and one reader that
 * does not read blocks all others: for the benchmark only.
 */
#include <err.h>
#include <fastcgi.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "wire/channel_name.h"
#include "wire/frame.h"

#define HEAD                                                                                      \
	"Status: 200 OK\r\nContent-Type: text/event-stream\r\n"                                   \
	"Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n\r\n"                  \
	"data: {\"event\":\"sync\"}\nretry: 3000\n\n"

static int epoll_fd, listen_fd, valkey_fd;
static unsigned long user_count;

static int *streams; /* the descriptors of all streams */
static int stream_count;
static int *position;     /* by descriptor: the index in streams; -1: not a stream yet */
static int *of_user;      /* by user: the descriptor; 0: none */
static uint32_t *user_of; /* by descriptor: the user */

static uint8_t first_record[FCGI_HEADER_LEN + sizeof(HEAD)];

static void
watch(int fd)
{
	struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) == -1)
		err(EX_OSERR, "epoll_ctl");
}

static int
unix_socket(struct sockaddr_un *address, const char *path, int flags)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd == -1)
		err(EX_OSERR, "socket");
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strncpy(address->sun_path, path, sizeof(address->sun_path) - 1);
	return fd;
}

/* ---- Streams */

static void
leave(int fd)
{
	int moved;

	if (position[fd] != -1) {
		moved = streams[--stream_count];
		streams[position[fd]] = moved;
		position[moved] = position[fd];
		position[fd] = -1;
		if (user_of[fd] < user_count && of_user[user_of[fd]] == fd)
			of_user[user_of[fd]] = 0;
	}
	close(fd);
}

static void
join(int fd, char *head, size_t length)
{
	static const char name[] = "TPI_USERu";
	char *user;

	head[length] = '\0';
	user = memmem(head, length, name, strlen(name));
	user_of[fd] = user != NULL ? (uint32_t)strtoul(user + strlen(name), NULL, 10) : UINT32_MAX;
	if (user_of[fd] < user_count)
		of_user[user_of[fd]] = fd;
	position[fd] = stream_count;
	streams[stream_count++] = fd;
	if (send(fd, first_record, FCGI_HEADER_LEN + strlen(HEAD), MSG_NOSIGNAL) == -1)
		leave(fd);
}

static void
read_peer(int fd)
{
	char bytes[8192];
	ssize_t n = recv(fd, bytes, sizeof(bytes) - 1, 0);

	if (n <= 0)
		leave(fd);
	else if (position[fd] == -1)
		join(fd, bytes, (size_t)n);
}

static void
accept_all(void)
{
	int fd;

	while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) != -1) {
		position[fd] = -1;
		watch(fd);
	}
}

/* ---- Messages */

static void
deliver(const char *channel, size_t channel_length, const char *payload, size_t length)
{
	static uint8_t record[65536];
	size_t size = frame_event((char *)record + FCGI_HEADER_LEN, payload, length);
	const char *user;
	int i, fd;

	size += frame_record(record, FCGI_STDOUT, 1, size);
	/* The broadcast channel's name has no ":u" and digits at its end. */
	user = memrchr(channel, ':', channel_length);
	if (user != NULL && user[1] == 'u') {
		fd = of_user[strtoul(user + 2, NULL, 10)];
		if (fd != 0)
			send(fd, record, size, MSG_NOSIGNAL);
		return;
	}
	for (i = 0; i < stream_count; i++)
		send(streams[i], record, size, MSG_NOSIGNAL);
}

/*
 * Parses "$length\r\nbytes\r\n" or ":number\r\n"; returns the position after it, or NULL if it is not
 * complete.
 */
static const char *
parse_element(const char *at, const char *end, const char **bytes, size_t *length)
{
	const char *line = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;

	if (line == NULL)
		return NULL;
	*bytes = line + 1;
	*length = 0;
	if (*at == ':')
		return line + 1;
	*length = strtoul(at + 1, NULL, 10);
	return (size_t)(end - *bytes) < *length + 2 ? NULL : *bytes + *length + 2;
}

/*
 * Handles one message or confirmation, an array of three; returns the position after it, or NULL if it
 * is not complete.
 */
static const char *
handle_push(const char *at, const char *end, unsigned long *confirmed)
{
	const char *kind, *channel, *payload;
	size_t kind_length, channel_length, length;

	if (*at != '*')
		errx(EX_PROTOCOL, "Valkey: %.*s", (int)strcspn(at, "\r\n"), at);
	at = memchr(at, '\n', (size_t)(end - at));
	if (at == NULL || (at = parse_element(at + 1, end, &kind, &kind_length)) == NULL ||
	    (at = parse_element(at, end, &channel, &channel_length)) == NULL ||
	    (at = parse_element(at, end, &payload, &length)) == NULL)
		return NULL;
	if (*kind == 'm')
		deliver(channel, channel_length, payload, length);
	else
		++*confirmed;
	return at;
}

/* Reads once and handles what is complete. Returns how many subscriptions were confirmed. */
static unsigned long
read_valkey(void)
{
	static char buffer[256 * 1024 + 1];
	static size_t filled;
	const char *at = buffer, *next, *end;
	unsigned long confirmed = 0;
	ssize_t n;

	n = recv(valkey_fd, buffer + filled, sizeof(buffer) - 1 - filled, 0);
	if (n <= 0)
		errx(EX_UNAVAILABLE, "Valkey closed the connection");
	filled += (size_t)n;
	buffer[filled] = '\0';
	end = buffer + filled;
	while (at < end && (next = handle_push(at, end, &confirmed)) != NULL)
		at = next;
	filled = (size_t)(end - at);
	memmove(buffer, at, filled);
	return confirmed;
}

/* ---- Start */

static void
subscribe(const char *path, const char *tenant)
{
	struct sockaddr_un address;
	char channel[CHANNEL_NAME_SIZE], user[32];
	unsigned long i, left = user_count + 1;
	size_t length;
	FILE *out;

	valkey_fd = unix_socket(&address, path, 0);
	if (connect(valkey_fd, (struct sockaddr *)&address, sizeof(address)) == -1)
		err(EX_UNAVAILABLE, "%s", path);
	out = fdopen(dup(valkey_fd), "w");
	if (out == NULL)
		err(EX_OSERR, "fdopen");
	fprintf(out, "*%lu\r\n$9\r\nSUBSCRIBE\r\n", user_count + 2);
	length = channel_name_broadcast(channel, tenant);
	fprintf(out, "$%zu\r\n%s\r\n", length, channel);
	for (i = 0; i < user_count; i++) {
		snprintf(user, sizeof(user), "u%lu", i);
		length = channel_name_user(channel, tenant, user);
		fprintf(out, "$%zu\r\n%s\r\n", length, channel);
	}
	if (fclose(out) == EOF)
		err(EX_UNAVAILABLE, "%s", path);
	while (left > 0)
		left -= read_valkey();
	watch(valkey_fd);
}

static void
start_listening(const char *path)
{
	struct sockaddr_un address;

	listen_fd = unix_socket(&address, path, SOCK_NONBLOCK);
	unlink(path);
	if (bind(listen_fd, (struct sockaddr *)&address, sizeof(address)) == -1 ||
	    listen(listen_fd, 4096) == -1)
		err(EX_OSERR, "%s", path);
	watch(listen_fd);
}

static void
allocate(void)
{
	struct rlimit r;
	size_t i, count;

	if (getrlimit(RLIMIT_NOFILE, &r) == -1)
		err(EX_OSERR, "getrlimit");
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
	count = r.rlim_cur;
	streams = calloc(count, sizeof(*streams));
	position = calloc(count, sizeof(*position));
	user_of = calloc(count, sizeof(*user_of));
	of_user = calloc(user_count + 1, sizeof(*of_user));
	if (streams == NULL || position == NULL || user_of == NULL || of_user == NULL)
		err(EX_OSERR, "memory");
	for (i = 0; i < count; i++)
		position[i] = -1;
}

int
main(int argc, char *argv[])
{
	struct epoll_event events[512];
	int i, n;

	if (argc != 5)
		errx(EX_USAGE, "usage: floor LISTEN-PATH VALKEY-PATH TENANT USERS");
	user_count = strtoul(argv[4], NULL, 10);
	signal(SIGPIPE, SIG_IGN);
	allocate();
	frame_record(first_record, FCGI_STDOUT, 1, strlen(HEAD));
	memcpy(first_record + FCGI_HEADER_LEN, HEAD, strlen(HEAD));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	subscribe(argv[2], argv[3]);
	start_listening(argv[1]);
	for (;;) {
		n = epoll_wait(epoll_fd, events, sizeof(events) / sizeof(events[0]), -1);
		for (i = 0; i < n; i++) {
			if (events[i].data.fd == listen_fd)
				accept_all();
			else if (events[i].data.fd == valkey_fd)
				read_valkey();
			else
				read_peer(events[i].data.fd);
		}
	}
}
