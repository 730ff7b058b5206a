/* SPDX-License-Identifier: ISC */
/*
 * fake_valkey: a Valkey server or sentinel for tests: one thread that serves one connection at a
 * time. Each command has a fixed reply, valid or not. The test program aborts if it sends something
 * that a real server would refuse: a command that is not an array of bulk strings, an unknown
 * command, a wrong number of arguments, or a command before AUTH if a password is required.
 */
#ifndef TPI_FAKE_VALKEY_H
#define TPI_FAKE_VALKEY_H

#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAKE_MASTER "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
#define FAKE_REPLICA "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:0\r\n"
#define FAKE_ALONE "-ERR This instance has cluster support disabled\r\n"
#define FAKE_SENTINEL "*2\r\n$8\r\nsentinel\r\n*0\r\n"
#define FAKE_CLUSTER_DOWN "$50\r\ncluster_state:fail\r\ncluster_slots_assigned:16384\r\n\r\n"
#define FAKE_CLUSTER "$48\r\ncluster_state:ok\r\ncluster_slots_assigned:16384\r\n\r\n"

/* Instead of a reply: */
#define FAKE_CLOSED "closed"
#define FAKE_RESET "reset"
#define FAKE_SLOWLY "slowly"   /* a byte every 20 ms, without end */
#define FAKE_ENDLESS "endless" /* nested arrays, without end */

/*
 * The reply to commands that begin with these words, such as "AUTH user"; a '*' at their end stands
 * for the rest of the last word. NULL: never replies.
 */
struct fake_rule {
	const char *words, *reply;
};

struct fake {
	struct fake_rule rules[6];
	int listener, port;
	char label[32];
	char received[1024]; /* on the last connection; read it after fake_stop() */
	_Atomic int accepted; /* number of connections */
	pthread_t thread;
};

/* A command from the client. */
struct fake_command {
	int count;       /* number of words */
	char words[512]; /* the words, joined with spaces */
};

static inline void
fake_refuse(const struct fake_command *c, const char *why)
{
	fprintf(stderr, "a real server would refuse \"%s\": %s\n", c->words, why);
	abort();
}

/* Reads "<kind><number>\r\n" at *at; false if it is incomplete. */
static inline bool
fake_number(const struct fake_command *c, const char **at, char kind, int *number)
{
	const char *end = strstr(*at, "\r\n");
	int used = 0;

	if (end == NULL)
		return false;
	if (**at != kind || sscanf(*at + 1, "%d%n", number, &used) != 1 || *at + 1 + used != end)
		fake_refuse(c, "Protocol error");
	*at = end + 2;
	return true;
}

/* Reads one command. Returns its length, or 0 if it is incomplete. */
static inline size_t
fake_read(const char *text, struct fake_command *c)
{
	const char *at = text;
	size_t used = 0;
	int length;

	c->words[0] = '\0';
	if (!fake_number(c, &at, '*', &c->count))
		return 0;
	for (int i = 0; i < c->count; i++) {
		if (!fake_number(c, &at, '$', &length) || strlen(at) < (size_t)length + 2)
			return 0;
		used += (size_t)snprintf(c->words + used, sizeof(c->words) - used, "%s%.*s",
		    i > 0 ? " " : "", length, at);
		if (strncmp(at + length, "\r\n", 2) != 0)
			fake_refuse(c, "Protocol error");
		at += length + 2;
	}
	return (size_t)(at - text);
}

static inline bool
fake_begins(const char *text, const char *words)
{
	size_t length = strlen(words);

	if (length > 0 && words[length - 1] == '*')
		return strncmp(text, words, length - 1) == 0;
	return strncmp(text, words, length) == 0 && (text[length] == '\0' || text[length] == ' ');
}

static inline void
fake_check(const struct fake_command *c, bool authenticated)
{
	static const struct {
		const char *words;
		int least, most;
	} known[] = {
		{ "AUTH", 2, 3 }, { "ROLE", 1, 1 }, { "CLUSTER INFO", 2, 2 }, { "SENTINEL MASTER", 3, 3 },
		{ "SENTINEL GET-MASTER-ADDR-BY-NAME", 3, 3 },
		{ "SUBSCRIBE", 2, 100 }, { "UNSUBSCRIBE", 1, 100 },
	};
	size_t i = 0;

	while (i < sizeof(known) / sizeof(known[0]) && !fake_begins(c->words, known[i].words))
		i++;
	if (i == sizeof(known) / sizeof(known[0]))
		fake_refuse(c, "unknown command");
	if (c->count < known[i].least || c->count > known[i].most)
		fake_refuse(c, "wrong number of arguments");
	if (!authenticated && i > 0)
		fake_refuse(c, "Authentication required");
}

/*
 * The reply to a command; NULL: never replies. Without a rule for the command, it is that of a
 * server with the default configuration.
 */
static inline const char *
fake_reply(const struct fake *f, const struct fake_command *c)
{
	for (size_t i = 0; i < sizeof(f->rules) / sizeof(f->rules[0]) && f->rules[i].words != NULL; i++) {
		if (fake_begins(c->words, f->rules[i].words))
			return f->rules[i].reply;
	}
	if (fake_begins(c->words, "AUTH"))
		return "-ERR AUTH <password> called without any password configured for the default "
		       "user. Are you sure your configuration is correct?\r\n";
	return fake_begins(c->words, "ROLE") ? FAKE_MASTER
	    : fake_begins(c->words, "CLUSTER INFO") ? FAKE_ALONE : "-ERR unknown command\r\n";
}

static inline bool
fake_send(int fd, const char *text, size_t length)
{
	return send(fd, text, length, MSG_NOSIGNAL) == (ssize_t)length;
}

/* Sends a reply. False if the connection should be closed. */
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

/* Whether there is a rule for AUTH: the client must then authenticate first. */
static inline bool
fake_requires_password(const struct fake *f)
{
	for (size_t i = 0; i < sizeof(f->rules) / sizeof(f->rules[0]); i++)
		if (f->rules[i].words != NULL && fake_begins(f->rules[i].words, "AUTH"))
			return true;
	return false;
}

/* Serves one connection until it is closed. */
static inline void
fake_serve(struct fake *f, int fd)
{
	bool authenticated = !fake_requires_password(f);
	size_t used = 0, at = 0, length;
	struct fake_command c;
	const char *reply;
	ssize_t n;

	while ((n = read(fd, f->received + used, sizeof(f->received) - 1 - used)) > 0) {
		used += (size_t)n;
		f->received[used] = '\0';
		for (; (length = fake_read(f->received + at, &c)) > 0; at += length) {
			fake_check(&c, authenticated);
			reply = fake_reply(f, &c);
			if (!fake_answer(fd, reply))
				return;
			authenticated |= reply != NULL && strcmp(reply, "+OK\r\n") == 0;
		}
	}
}

static inline void *
fake_run(void *arg)
{
	struct fake *f = arg;
	int fd;

	while ((fd = accept(f->listener, NULL, NULL)) != -1) {
		f->accepted++;
		fake_serve(f, fd);
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
