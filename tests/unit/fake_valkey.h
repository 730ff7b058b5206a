/*
 * fake_valkey: a server or a sentinel for tests, one thread with one connection at a time. It
 * answers each command in the same way whenever it is asked.
 */
#ifndef TPI_FAKE_VALKEY_H
#define TPI_FAKE_VALKEY_H

#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAKE_MASTER "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
#define FAKE_REPLICA "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:0\r\n"
#define FAKE_ALONE "-ERR This instance has cluster support disabled\r\n"
#define FAKE_APART "$20\r\ncluster_state:fail\r\n\r\n"
#define FAKE_CLUSTER "$18\r\ncluster_state:ok\r\n\r\n"

struct fake {
	/* Each with the reply; one without a command is for all others. No reply: none ever comes. */
	struct {
		const char *command, *reply;
	} rules[6];
	int listener, port;
	char label[32];
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

static inline void *
fake_run(void *arg)
{
	struct fake *f = arg;
	char heard[1024];
	const char *reply;
	ssize_t n;
	int fd;

	while ((fd = accept(f->listener, NULL, NULL)) != -1) {
		f->asked++;
		while ((n = read(fd, heard, sizeof(heard) - 1)) > 0) {
			heard[n] = '\0';
			reply = fake_reply(f, heard);
			if (reply != NULL && send(fd, reply, strlen(reply), MSG_NOSIGNAL) < 0)
				break;
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
