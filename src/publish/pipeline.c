/* SPDX-License-Identifier: ISC */
/*
 * pipeline: see pipeline.h.
 *
 * A thread of its own connects, because name resolution has no time limit: at the deadline the
 * attempt is abandoned, and its thread frees it. Once connected, the socket does not block, and
 * only poll() waits. A function that returns false has set the error.
 */
#include "publish/pipeline.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/secret.h"

#define RING_SIZE (PIPELINE_MAX + BATCH_CHANNELS_MAX - 1)
#define REPLY_MAX (1024 * 1024) /* bytes */

/*
 * An attempt to connect. No lock: its fields belong to its thread until the owner has joined that.
 * If the owner gives up first, the thread frees the attempt when it is done.
 */
struct attempt {
	struct topology *topology;
	int timeout_ms;
	int done_fd;           /* an eventfd; the thread writes to it when it is done */
	_Atomic bool one_left; /* the thread is done, or the owner has given up */
	redisContext *context; /* NULL: failed, error says why */
	struct error error;
};

struct pipeline {
	redisContext *context;
	char input[16 * 1024];
	size_t incomplete; /* bytes received of a reply that is not complete yet */
	const char *label;
	int timeout_ms;
	int64_t waited_ms; /* in pipeline_wait() since the last reply, with commands in flight */
	struct error *error; /* the caller's */

	pipeline_reply *reply;
	void *arg;

	/* A ring of the commands in flight, in the order of their replies. */
	size_t first, in_flight;
	size_t items; /* whose last command is in flight */
	struct pipeline_command commands[RING_SIZE];
};

/* Always returns false. */
static bool
fail_timeout(struct error *error, const char *label, int timeout_ms)
{
	return error_set(error, "%s: no answer within %d ms", label, timeout_ms);
}

/* The time left, for poll(). */
static int
time_left(int timeout_ms, int64_t waited_ms)
{
	return waited_ms < timeout_ms ? timeout_ms - (int)waited_ms : 0;
}

/* Connecting */

static void
attempt_free(struct attempt *a)
{
	if (a->done_fd >= 0)
		close(a->done_fd);
	free(a);
}

static void *
attempt_run(void *arg)
{
	struct attempt *a = arg;

	a->context = topology_connect(a->topology, a->timeout_ms, &a->error);
	eventfd_write(a->done_fd, 1);
	if (atomic_exchange(&a->one_left, true)) {
		if (a->context != NULL)
			redisFree(a->context);
		attempt_free(a);
	}
	return NULL;
}

/* Starts the thread; NULL with an error. */
static struct attempt *
attempt_start(struct topology *topology, int timeout_ms, pthread_t *thread, struct error *error)
{
	struct attempt *a = calloc(1, sizeof(*a));
	int wrong;

	if (a == NULL) {
		error_set(error, "%s: out of memory", topology->label);
		return NULL;
	}
	a->topology = topology;
	a->timeout_ms = timeout_ms;
	a->done_fd = eventfd(0, EFD_CLOEXEC);
	wrong = a->done_fd < 0 ? errno : pthread_create(thread, NULL, attempt_run, a);
	if (wrong == 0)
		return a;
	error_set(error, "%s: cannot start a thread: %s", topology->label, strerror(wrong));
	attempt_free(a);
	return NULL;
}

static redisContext *
connect_server(struct topology *topology, int timeout_ms, int64_t since, struct error *error)
{
	pthread_t thread;
	struct attempt *a = attempt_start(topology, timeout_ms, &thread, error);
	struct pollfd done = { .events = POLLIN };
	redisContext *context;
	int n;

	if (a == NULL)
		return NULL;
	done.fd = a->done_fd;
	do
		n = poll(&done, 1, time_left(timeout_ms, clock_ms() - since));
	while (n < 0 && errno == EINTR);
	if (n <= 0 && !atomic_exchange(&a->one_left, true)) {
		pthread_detach(thread);
		fail_timeout(error, topology->label, timeout_ms);
		return NULL;
	}
	pthread_join(thread, NULL);
	context = a->context;
	if (context == NULL)
		error_set(error, "%s", a->error.text);
	attempt_free(a);
	return context;
}

struct pipeline *
pipeline_open(struct topology *topology, int timeout_ms, int64_t since, pipeline_reply *reply,
    void *arg, struct error *error)
{
	redisContext *context = connect_server(topology, timeout_ms, since, error);
	struct pipeline *p;

	if (context == NULL)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (p == NULL) {
		error_set(error, "%s: out of memory", topology->label);
		redisFree(context);
		return NULL;
	}
	p->context = context;
	p->label = topology->used;
	p->timeout_ms = timeout_ms;
	p->error = error;
	p->reply = reply;
	p->arg = arg;
	return p;
}

void
pipeline_close(struct pipeline *p)
{
	redisFree(p->context);
	free(p);
}

/* Publishing */

const char *
pipeline_server(const struct pipeline *p)
{
	return p->label;
}

size_t
pipeline_in_flight(const struct pipeline *p)
{
	return p->items;
}

bool
pipeline_has_room(const struct pipeline *p)
{
	return p->in_flight < PIPELINE_MAX;
}

static bool
add_command(struct pipeline *p, const struct batch_item *item, int channel, uint64_t line)
{
	const char *args[] = { "PUBLISH", item->channels[channel], item->payload };
	struct pipeline_command *command = &p->commands[(p->first + p->in_flight) % RING_SIZE];

	if (redisAppendCommandArgv(p->context, 3, args, NULL) != REDIS_OK)
		return error_set(p->error, "%s: %s", p->label, p->context->errstr);
	strcpy(command->tenant, item->tenant);
	strcpy(command->channel, item->channels[channel]);
	command->line = line;
	command->last = channel == item->channel_count - 1;
	p->in_flight++;
	return true;
}

bool
pipeline_add(struct pipeline *p, const struct batch_item *item, uint64_t line, int64_t waited_ms)
{
	if (p->in_flight == 0)
		p->waited_ms = waited_ms;
	for (int i = 0; i < item->channel_count; i++)
		if (!add_command(p, item, i, line))
			return false;
	p->items++;
	return true;
}

static void
take_reply(struct pipeline *p, const redisReply *reply)
{
	const char *error = NULL;

	if (reply->type == REDIS_REPLY_ERROR) {
		secret_strike(reply->str);
		error = reply->str;
	} else if (reply->type != REDIS_REPLY_INTEGER)
		error = "unexpected reply";
	p->reply(p->arg, &p->commands[p->first], reply->integer, error);
	if (p->commands[p->first].last)
		p->items--;
	p->first = (p->first + 1) % RING_SIZE;
	p->in_flight--;
	p->waited_ms = 0;
}

/* Takes the replies that are complete. */
static bool
take_replies(struct pipeline *p)
{
	redisContext *c = p->context;
	void *reply;

	while (redisGetReplyFromReader(c, &reply) == REDIS_OK) {
		bool expected = p->in_flight > 0;

		if (reply == NULL)
			return true;
		p->incomplete = c->reader->len - c->reader->pos;
		if (expected)
			take_reply(p, reply);
		freeReplyObject(reply);
		if (!expected)
			return error_set(p->error, "%s: unexpected reply without a command",
			    p->label);
	}
	return error_set(p->error, "%s: %s", p->label, c->errstr);
}

/* Reads until a read does not fill the buffer: TLS may hold data that poll() does not report. */
static bool
read_replies(struct pipeline *p)
{
	redisContext *c = p->context;
	ssize_t n;

	do {
		n = valkey_read(c, p->input, sizeof(p->input));
		if (n < 0)
			return error_set(p->error, "%s: connection lost: %s", p->label, c->errstr);
		if (n > 0 && redisReaderFeed(c->reader, p->input, (size_t)n) != REDIS_OK)
			return error_set(p->error, "%s: %s", p->label, c->reader->errstr);
		p->incomplete += (size_t)n;
		if (!take_replies(p))
			return false;
		if (p->incomplete > REPLY_MAX)
			return error_set(p->error, "%s: the reply is over 1 MiB", p->label);
	} while (n == sizeof(p->input));
	return true;
}

bool
pipeline_wait(struct pipeline *p, int fd, bool *readable)
{
	redisContext *c = p->context;
	struct pollfd fds[2] = { { .fd = c->fd }, { .fd = fd, .events = POLLIN } };
	int64_t began = clock_ms();
	int sent;

	if (valkey_write(c, &sent) != REDIS_OK)
		return error_set(p->error, "%s: connection lost: %s", p->label, c->errstr);
	fds[0].events = sent ? POLLIN : POLLIN | POLLOUT;
	if (poll(fds, 2, p->in_flight > 0 ? time_left(p->timeout_ms, p->waited_ms) : -1) < 0 &&
	    errno != EINTR)
		return error_set(p->error, "%s: cannot wait for replies: %s", p->label,
		    strerror(errno));
	p->waited_ms += clock_ms() - began;
	if (fds[0].revents & ~POLLOUT && !read_replies(p))
		return false;
	if (p->in_flight > 0 && time_left(p->timeout_ms, p->waited_ms) == 0)
		return fail_timeout(p->error, p->label, p->timeout_ms);
	*readable = fds[1].revents != 0;
	return true;
}
