/* SPDX-License-Identifier: ISC */
/*
 * fuzz_pipeline: whatever a server replies to the PUBLISH commands of tpi-publish, each command
 * gets at most one reply, in order, and then there is an error of one line (pipeline.h). The first
 * byte of the input is the number of wake-ups; the rest is all that the server sends.
 */
#include "fuzz.h"

#include <sys/socket.h>
#include <unistd.h>

#include "../../src/valkey/connect.c"

/* Both files use these names. */
#undef REPLY_MAX
#define attempt   pipeline_attempt
#define time_left pipeline_time_left
#include "../../src/publish/pipeline.c"

#define WAKEUPS_MAX 8
#define INPUT_MAX   4096

static uint64_t replies;

static void
check_reply(void *arg, const struct pipeline_command *command, long long subscribers,
    const char *error)
{
	(void)arg;
	(void)subscribers;
	REQUIRE(command->line == replies / BATCH_CHANNELS_MAX);
	REQUIRE(command->last == (replies % BATCH_CHANNELS_MAX == BATCH_CHANNELS_MAX - 1));
	REQUIRE(strcmp(command->channel, command->last ? "channel 1" : "channel 0") == 0);
	REQUIRE(error == NULL || strlen(error) <= INPUT_MAX);
	replies++;
}

/* A connection on which all of the data has arrived, and then the end. */
static redisContext *
connection(const uint8_t *data, size_t size, int *peer)
{
	redisContext *c;
	int pair[2];

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
	REQUIRE(size == 0 || send(pair[1], data, size, 0) == (ssize_t)size);
	shutdown(pair[1], SHUT_WR);
	c = redisConnectFd(pair[0]);
	REQUIRE(c != NULL && c->err == 0);
	c->flags &= ~REDIS_BLOCK;
	bound_arrays(c->reader);
	*peer = pair[1];
	return c;
}

static void
add_wakeups(struct pipeline *p, int count)
{
	struct batch_item item = { .tenant = "t", .channels = { "channel 0", "channel 1" },
		.channel_count = BATCH_CHANNELS_MAX, .payload = (char[]){ "{\"event\":\"x\"}" } };

	for (int i = 0; i < count; i++)
		REQUIRE(pipeline_has_room(p) && pipeline_add(p, &item, (uint64_t)i, 0));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int count = size > 0 ? data[0] % (WAKEUPS_MAX + 1) : 0, peer;
	struct error error = { "" };
	static struct pipeline pipeline;
	struct pipeline *p = &pipeline;
	bool readable;

	replies = 0;
	p->context = connection(data + (size > 0), size > 0 ? size - 1 : 0, &peer);
	p->incomplete = p->first = p->in_flight = p->items = 0;
	p->label = "h:1";
	p->timeout_ms = 10000;
	p->error = &error;
	p->reply = check_reply;
	add_wakeups(p, count);
	while (pipeline_wait(p, -1, &readable))
		REQUIRE(pipeline_in_flight(p) <= (size_t)count);
	REQUIRE(fuzz_is_line(error.text));
	REQUIRE(replies <= (uint64_t)count * BATCH_CHANNELS_MAX);
	REQUIRE(p->in_flight == (size_t)count * BATCH_CHANNELS_MAX - replies);
	REQUIRE(pipeline_in_flight(p) == (p->in_flight + 1) / BATCH_CHANNELS_MAX);
	redisFree(p->context);
	close(peer);
	return 0;
}
