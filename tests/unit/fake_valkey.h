/*
 * fake_valkey: a server or a sentinel for tests, one thread with one connection at a time. It
 * answers each command in the same way whenever it is asked, well or badly.
 */
#ifndef TPI_FAKE_VALKEY_H
#define TPI_FAKE_VALKEY_H

#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAKE_MASTER "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
#define FAKE_REPLICA "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:0\r\n"
#define FAKE_ALONE "-ERR This instance has cluster support disabled\r\n"
#define FAKE_SENTINEL "*2\r\n$8\r\nsentinel\r\n*0\r\n"
#define FAKE_APART "$39\r\ncluster_enabled:1\r\ncluster_state:fail\r\n\r\n"
#define FAKE_CLUSTER "$37\r\ncluster_enabled:1\r\ncluster_state:ok\r\n\r\n"

/* In place of a reply: */
#define FAKE_CLOSED "closed"
#define FAKE_RESET "reset"
#define FAKE_SLOWLY "slowly"   /* a byte every 20 ms, without end */
#define FAKE_ENDLESS "endless" /* arrays in arrays, as many as are taken */

/* The reply to a command, or to all others; NULL: none ever comes. */
struct fake_rule {
	const char *command, *reply;
};

struct fake {
	struct fake_rule rules[6];
	int listener, port;
	char label[32];
	char heard[1024];  /* over the last connection, for after the stop */
	_Atomic int asked; /* connections */
	pthread_t thread;
};

/* The reply to a command; NULL: none. */
static inline const char *
fake_reply(const struct fake *f, const char *heard)
{
	for (size_t i = 0; i < sizeof(f->rules) / sizeof(f->rules[0]); i++) {
		if (f->rules[i].command == NULL || strstr(heard, f->rules[i].command) != NULL)
			return f->rules[i].reply;
	}
	return NULL;
}

static inline bool
fake_send(int fd, const char *text, size_t length)
{
	return send(fd, text, length, MSG_NOSIGNAL) == (ssize_t)length;
}

/* False: the connection is to be closed. */
static inline bool
fake_answer(int fd, const char *reply)
{
	static const struct linger at_once = { .l_onoff = 1 };

	if (reply == NULL)
		return true;
	if (strcmp(reply, FAKE_CLOSED) == 0)
		return false;
	if (strcmp(reply, FAKE_RESET) == 0) {
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		return false;
	}
	if (strcmp(reply, FAKE_SLOWLY) == 0) {
		while (fake_send(fd, "*9999\r\n", 1))
			usleep(20000);
		return false;
	}
	if (strcmp(reply, FAKE_ENDLESS) == 0) {
		fake_send(fd, "*65536\r\n", 8);
		while (fake_send(fd, "*1\r\n:1\r\n", 8))
			continue;
		return false;
	}
	return fake_send(fd, reply, strlen(reply));
}

static inline void *
fake_run(void *arg)
{
	struct fake *f = arg;
	int fd;

	while ((fd = accept(f->listener, NULL, NULL)) != -1) {
		char *heard = f->heard, *end = f->heard + sizeof(f->heard) - 1;
		ssize_t n;

		f->asked++;
		while ((n = read(fd, heard, (size_t)(end - heard))) > 0) {
			heard[n] = '\0';
			if (!fake_answer(fd, fake_reply(f, heard)))
				break;
			heard += n;
		}
		close(fd);
	}
	return NULL;
}

static inline void
fake_start(struct fake *f)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	f->listener = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_ge(f->listener, 0);
	ck_assert_int_eq(bind(f->listener, (struct sockaddr *)&address, length), 0);
	ck_assert_int_eq(listen(f->listener, 8), 0);
	ck_assert_int_eq(getsockname(f->listener, (struct sockaddr *)&address, &length), 0);
	f->port = ntohs(address.sin_port);
	snprintf(f->label, sizeof(f->label), "127.0.0.1:%d", f->port);
	ck_assert_int_eq(pthread_create(&f->thread, NULL, fake_run, f), 0);
}

static inline void
fake_stop(struct fake *f)
{
	shutdown(f->listener, SHUT_RDWR);
	ck_assert_int_eq(pthread_join(f->thread, NULL), 0);
	close(f->listener);
}

#endif
