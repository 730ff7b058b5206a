/* SPDX-License-Identifier: ISC */
/*
 * fuzz_subscriber: whatever a server sends, the subscriber takes it or closes the connection, and
 * no stream is left in a channel. The input is a script: a byte tells what happens next, and the
 * bytes that the server sends then follow.
 */
#include "fuzz.h"

#include "../../src/valkey/connect.c"
#include "../../src/pubsub/subscriber.c"

#define STREAMS 3

static struct settings settings = { .tenant = (char[]){ "t" }, .backlog_bytes = 65536 };
static struct subscriber subscriber;
static struct stream *streams[STREAMS];
static struct subscription *subscriptions[STREAMS];
static int64_t later; /* how much time has passed */

/* Instead of connector.c. */
struct connector *
connector_start(struct topology *topology, int wake_fd, const char *probe_channel)
{
	(void)topology, (void)wake_fd, (void)probe_channel;
	return NULL;
}

enum connector_state
connector_poll(struct connector *connector, redisContext **connection, const char **give_up)
{
	(void)connector, (void)connection, (void)give_up;
	return CONNECTOR_TRYING;
}

void
connector_lost(struct connector *connector, const char *reason)
{
	(void)connector;
	REQUIRE(reason[0] != '\0');
}

void
connector_subscribed(struct connector *connector)
{
	(void)connector;
}

void
connector_refused(struct connector *connector, const char *error)
{
	(void)connector;
	REQUIRE(error[0] != '\0');
}

void
connector_arrived(struct connector *connector, const char *payload)
{
	(void)connector, (void)payload;
}

static size_t
revoked(void *arg, const struct revocation *r)
{
	(void)arg;
	REQUIRE((r->project > 0) != (r->user[0] != '\0'));
	return 0;
}

static void
begin(struct stream *s)
{
	REQUIRE(subscriber.link != NULL);
	stream_start(s, "x");
}

/* Stream i joins channel i and the common one, or leaves. */
static void
join_or_leave(int i)
{
	char *names = memcpy(fuzz_memory(4), "a\0c", 4);

	names[0] = (char)(names[0] + i);
	if (subscriptions[i] == NULL)
		subscriptions[i] = subscriber_join(&subscriber, streams[i], names, 2, begin);
	else {
		free(names);
		subscriber_leave(subscriptions[i]);
		subscriptions[i] = NULL;
		stream_release(streams[i]);
		streams[i] = stream_new(-1, 65536);
	}
	take_leaves(&subscriber);
	take_joins(&subscriber, TURN_NAMES);
}

/* The server sends bytes. False if the connection was closed for them. */
static bool
receive(int peer, const void *bytes, size_t size)
{
	struct error error = { "" };
	bool good = true;

	REQUIRE(send(peer, bytes, size, MSG_NOSIGNAL) == (ssize_t)size);
	do
		good = link_read(&subscriber, &error);
	while (good && subscriber.unread);
	REQUIRE(good || error.text[0] != '\0');
	return good;
}

/* The server confirms what is next. */
static bool
confirm(int peer)
{
	bool alone;
	const char *name = channel_table_awaited(subscriber.channels, &alone);
	char text[256];

	if (name == NULL)
		return true;
	snprintf(text, sizeof(text), "*3\r\n$9\r\nsubscribe\r\n$%zu\r\n%s\r\n:1\r\n", strlen(name), name);
	return receive(peer, text, strlen(text));
}

static bool
send_commands(int peer)
{
	struct error error;
	char ignored[4096];

	later += CHANNEL_LINGER_MS / 2;
	subscriber.alive_at = clock_ms() + later;
	REQUIRE(link_send(&subscriber, &error));
	while (recv(peer, ignored, sizeof(ignored), MSG_DONTWAIT) > 0)
		continue;
	REQUIRE(channel_table_unanswered(subscriber.channels) <= CHANNEL_IN_FLIGHT_MAX);
	return true;
}

static void
run(int peer, const uint8_t *at, const uint8_t *end)
{
	bool good = true;
	size_t length;

	while (good && at < end) {
		uint8_t what = *at++;

		if (what < STREAMS)
			join_or_leave(what);
		else if (what == STREAMS)
			good = send_commands(peer);
		else if (what == STREAMS + 1)
			good = confirm(peer);
		else {
			length = (size_t)(end - at) < what ? (size_t)(end - at) : what;
			good = receive(peer, at, length);
			at += length;
		}
	}
}

static void
connect_pair(int pair[2])
{
	redisContext *c;

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
	c = redisConnectFd(pair[0]);
	REQUIRE(c != NULL);
	c->flags &= ~REDIS_BLOCK;
	bound_arrays(c->reader);
	c->reader->fn = &flat;
	link_up(&subscriber, c);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int pair[2];

	if (subscriber.channels == NULL) {
		REQUIRE(subscriber_init(&subscriber, &settings));
		subscriber.revoked = revoked;
		log_set_level(LOG_LEVEL_ERROR);
	}
	for (int i = 0; i < STREAMS; i++)
		streams[i] = stream_new(-1, 65536);
	connect_pair(pair);
	run(pair[1], data, data + size);
	link_down(&subscriber, "end");
	close(pair[1]);
	for (int i = 0; i < STREAMS; i++) {
		if (subscriptions[i] != NULL)
			join_or_leave(i);
		stream_release(streams[i]);
	}
	REQUIRE(channel_table_total(subscriber.channels) == 0);
	return 0;
}
