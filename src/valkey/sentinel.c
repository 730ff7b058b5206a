/* SPDX-License-Identifier: ISC */
/*
 * sentinel: see sentinel.h.
 *
 * The epoch is queried before the address. If a failover happens in between, a new address gets an
 * old epoch. The reverse order could give an old address a new epoch, which would then win over the
 * correct answers of other sentinels. The address in the reply to SENTINEL MASTER is not used: in
 * the sentinel that leads a failover it is the old one, with the new epoch, until all replicas have
 * followed.
 */
#include "valkey/sentinel.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>



static bool
is_text(const redisReply *r)
{
	return r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS;
}

/* A decimal number of at most 18 digits, or -1. */
static long long
number_of(const redisReply *r)
{
	size_t length = is_text(r) ? strlen(r->str) : 0;

	if (length == 0 || length > 18 || strspn(r->str, "0123456789") != length)
		return -1;
	return strtoll(r->str, NULL, 10);
}

/* Finds config-epoch among the names and values of SENTINEL MASTER. */
static bool
read_epoch(const redisReply *r, struct sentinel_answer *answer)
{
	if (r->type != REDIS_REPLY_ARRAY)
		return false;
	for (size_t i = 0; i + 1 < r->elements; i += 2) {
		if (!is_text(r->element[i]) || strcmp(r->element[i]->str, "config-epoch") != 0)
			continue;
		answer->epoch = number_of(r->element[i + 1]);
		return answer->epoch >= 0;
	}
	return false;
}

static bool
read_address(const redisReply *r, struct sentinel_answer *answer)
{
	const redisReply *host;
	long long port;

	if (r->type != REDIS_REPLY_ARRAY || r->elements != 2)
		return false;
	host = r->element[0];
	port = number_of(r->element[1]);
	if (!is_text(host) || host->str[0] == '\0' || strlen(host->str) >= sizeof(answer->host) ||
	    port < 1 || port > 65535)
		return false;
	memcpy(answer->host, host->str, strlen(host->str) + 1);
	answer->port = (int)port;
	return true;
}

static void
explain(const struct valkey *sentinel, const char *master, const redisReply *r, struct error *error)
{
	const char *text = r->type == REDIS_REPLY_ERROR ? r->str : "";

	if (r->type == REDIS_REPLY_NIL || strncmp(text, "ERR No such master", 18) == 0)
		error_set(error, "%s: no primary named %s: check VALKEY_SENTINEL_MASTER",
		    sentinel->label, master);
	else if (strncmp(text, "NOAUTH", 6) == 0)
		error_set(error, "%s: requires a password: set VALKEY_SENTINEL_PASSWORD",
		    sentinel->label);
	else if (strncasecmp(text, "ERR unknown command", 19) == 0)
		error_set(error, "%s: not a sentinel", sentinel->label);
	else
		valkey_explain(sentinel, "SENTINEL", r, error);
}

bool
sentinel_query(const struct valkey *sentinel, const char *master, int64_t deadline,
    struct sentinel_answer *answer, struct error *error)
{
	static const struct {
		const char *subcommand;
		bool (*read)(const redisReply *, struct sentinel_answer *);
	} queries[] = {
		{ "MASTER", read_epoch }, { "GET-MASTER-ADDR-BY-NAME", read_address }
	};
	redisContext *c = valkey_open(sentinel, deadline, error);
	bool good = c != NULL;

	for (size_t i = 0; good && i < sizeof(queries) / sizeof(queries[0]); i++) {
		const char *words[] = { "SENTINEL", queries[i].subcommand, master };
		redisReply *r = valkey_command(c, sentinel, deadline, 3, words, error);

		good = r != NULL && queries[i].read(r, answer);
		if (r != NULL && !good)
			explain(sentinel, master, r, error);
		freeReplyObject(r);
	}
	if (c != NULL)
		redisFree(c);
	return good;
}
