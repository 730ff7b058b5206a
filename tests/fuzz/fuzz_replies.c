/* SPDX-License-Identifier: ISC */
/*
 * fuzz_replies: whatever a server replies to AUTH, ROLE, CLUSTER INFO and SENTINEL, there is a
 * decision or an error of one line (connect.h, sentinel.h). The first byte of the input selects the
 * commands; the rest is all that the server sends.
 */
#include "fuzz.h"

#include <unistd.h>

#include "../../src/valkey/connect.c"
#include "../../src/valkey/sentinel.c"

static const struct valkey server = { .host = (char[]){ "h" }, .label = (char[]){ "h:1" },
	.password = (char[]){ "s3cr3t" } };

/* A connection on which all of the data has arrived, and then the end. */
static redisContext *
connection(const uint8_t *data, size_t size, int *peer)
{
	redisContext *c;
	int pair[2];

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
	REQUIRE(send(pair[1], data, size, 0) == (ssize_t)size);
	shutdown(pair[1], SHUT_WR);
	c = redisConnectFd(pair[0]);
	REQUIRE(c != NULL && c->err == 0);
	c->flags &= ~REDIS_BLOCK;
	bound_arrays(c->reader);
	*peer = pair[1];
	return c;
}

/* Even if the server echoes the password, the error does not contain it. */
static void
check_failure(const struct error *error)
{
	REQUIRE(error->text[0] != '\0' && strlen(error->text) < sizeof(error->text));
	REQUIRE(strstr(error->text, server.password) == NULL);
}

static bool
query_sentinel(redisContext *c, struct error *error)
{
	struct sentinel_answer answer;
	const char *words[] = { "SENTINEL", "MASTER", "m" };
	bool (*const readers[])(const redisReply *, struct sentinel_answer *) = { read_epoch,
		read_address };
	bool good = true;

	for (int i = 0; i < 2 && good; i++) {
		redisReply *r = valkey_command(c, &server, valkey_clock() + 1000, 3, words, error);

		good = r != NULL && readers[i](r, &answer);
		if (r != NULL && !good)
			explain(&server, "m", r, error);
		freeReplyObject(r);
	}
	if (good)
		REQUIRE(answer.host[0] != '\0' && answer.port >= 1 && answer.port <= 65535 &&
		    answer.epoch >= 0);
	return good;
}

static char *known; /* the password */

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { "" };
	struct attempt a = { .valkey = &server, .deadline = valkey_clock() + 1000, .error = &error };
	bool good;
	int peer;

	if (size == 0)
		return 0;
	if (known == NULL)
		known = secret_keep(server.password);
	a.context = connection(data + 1, size - 1, &peer);
	a.needs_cluster = data[0] & 1;
	if (data[0] & 2)
		good = query_sentinel(a.context, &error);
	else
		good = (!(data[0] & 4) || authenticate(&a)) && require_role(&a);
	if (good)
		REQUIRE(!a.state.demoted);
	else
		check_failure(&error);
	redisFree(a.context);
	close(peer);
	return 0;
}
