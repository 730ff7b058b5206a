/* SPDX-License-Identifier: ISC */
/*
 * connect: see connect.h.
 *
 * No error text contains a password: known passwords are struck out of what a server sends. Error
 * replies are shown only up to the first quotation mark, because some servers quote the AUTH
 * command, with characters escaped. The code supports hiredis 0.14 and 1.x.
 */
#include "valkey/connect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/sds.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/secret.h"
#include "valkey/tls.h"

#define REPLY_MAX (256 * 1024) /* bytes of the reply to a command */
#define SHOWN_MAX 160          /* bytes of a reply in an error */

static const char no_memory[] = "out of memory";

int
valkey_write(redisContext *context, int *done)
{
	/* A non-NULL argument would make hiredis 0.14 read the new buffer even if it is NULL. */
	if (redisBufferWrite(context, NULL) != REDIS_OK)
		return REDIS_ERR;
	if (context->obuf == NULL) {
		context->err = REDIS_ERR_OOM;
		snprintf(context->errstr, sizeof(context->errstr), "%s", no_memory);
		return REDIS_ERR;
	}
	*done = sdslen(context->obuf) == 0;
	return REDIS_OK;
}

ssize_t
valkey_read(redisContext *context, char *buffer, size_t size)
{
#if HIREDIS_MAJOR >= 1
	return context->funcs->read(context, buffer, size);
#else
	ssize_t n = recv(context->fd, buffer, size, MSG_DONTWAIT);

	if (n > 0)
		return n;
	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	context->err = n == 0 ? REDIS_ERR_EOF : REDIS_ERR_IO;
	snprintf(context->errstr, sizeof(context->errstr), "%s",
	    n == 0 ? "Server closed the connection" : strerror(errno));
	return -1;
#endif
}

static _Thread_local int64_t resolving_ms; /* time spent resolving names */

int64_t
valkey_clock(void)
{
	return clock_ms() - resolving_ms;
}

/* State that the steps of an attempt share. */
struct attempt {
	const struct valkey *valkey;
	redisContext *context;
	int64_t deadline; /* valkey_clock() */
	struct error *error;

	/* For valkey_connect() only: */
	int limit_ms;
	bool needs_cluster;
	struct valkey_state state;
};

/* A timeout for hiredis, which takes 0 as "no limit". */
static struct timeval
timeval_of(int64_t ms)
{
	if (ms <= 0)
		ms = 1;
	return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
}

static int64_t
time_left(const struct attempt *a)
{
	int64_t left = a->deadline - valkey_clock();

	return left > 0 ? left : 0;
}

/* Stores "label: text" as the error. Always returns false. */
static bool __attribute__((format(printf, 2, 3)))
fail(const struct attempt *a, const char *format, ...)
{
	char text[ERROR_SIZE];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return error_set(a->error, "%s: %s", a->valkey->label, text);
}

/*
 * If a server closes the connection, the client sees either the end of the data or, if the server
 * had not read everything, a reset. Which of them is a matter of timing, so both get the same text:
 * otherwise the reason would keep changing, and each change is logged.
 */
static bool
is_reset(int error)
{
	return error == ECONNRESET || error == EPIPE;
}

/* Stores the reason why hiredis failed. Always returns false. */
static bool
explain_context(const struct attempt *a)
{
	const redisContext *c = a->context;

	if (c == NULL)
		return fail(a, "%s", no_memory);
	if (c->err == REDIS_ERR_PROTOCOL)
		return fail(a, "not a Valkey or Redis server: %s", c->errstr);
	if (c->err == REDIS_ERR_EOF || (c->err == REDIS_ERR_IO && is_reset(errno)))
		return fail(a, "the server closed the connection");
	if (time_left(a) > 0)
		return fail(a, "%s", c->errstr);
	if (a->limit_ms > 0)
		return fail(a, "no answer within %d ms", a->limit_ms);
	return fail(a, "no answer in time");
}

static bool
reply_begins(const redisReply *reply, const char *code)
{
	return reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, code, strlen(code)) == 0;
}

/* What is wrong with the server, if the reply says that it is in no state to execute any command. */
static const char *
state_of(const redisReply *reply)
{
	static const struct {
		const char *code, *text;
	} states[] = {
		{ "BUSY ", "BUSY: the server is running a script or function" },
		{ "LOADING ", "LOADING: the server is loading its data" },
		{ "MASTERDOWN ", "MASTERDOWN: the replica has lost its primary" },
		{ "NOAUTH ", "NOAUTH: requires a password: set VALKEY_PASSWORD_FILE, or "
		    "user:password@ in the URL" },
		{ "ERR max number of clients", "maxclients reached: the server accepts no more "
		    "connections" },
	};

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		if (reply_begins(reply, states[i].code))
			return states[i].text;
	return NULL;
}

bool
valkey_explain(const struct valkey *v, const char *what, const redisReply *reply,
    struct error *error)
{
	const char *state = state_of(reply), *text = "unexpected reply";
	int length;

	if (state != NULL)
		return error_set(error, "%s: %s", v->label, state);
	if (reply->type == REDIS_REPLY_ERROR) {
		secret_strike(reply->str);
		text = reply->str;
	}
	length = (int)strcspn(text, "'`\"");
	return error_set(error, "%s: %s: %.*s", v->label, what,
	    length < SHOWN_MAX ? length : SHOWN_MAX, text);
}

/* Waits until the socket is ready; false if the time is up. */
static bool
wait_ready(const struct attempt *a, short events)
{
	struct pollfd p = { .fd = a->context->fd, .events = events };
	int64_t left = time_left(a);

	return left > 0 && (poll(&p, 1, (int)left) > 0 || time_left(a) > 0);
}

/*
 * Feeds available data to hiredis's reader, or waits for data if there is none. *read counts the
 * bytes of the current reply. False with an error in the context, or if the time is up.
 */
static bool
read_some(const struct attempt *a, size_t *read)
{
	redisContext *c = a->context;
	char buffer[4096];
	ssize_t n = valkey_read(c, buffer, sizeof(buffer));

	if (n == 0)
		return wait_ready(a, POLLIN);
	if (n < 0)
		return false;
	*read += (size_t)n;
	if (*read <= REPLY_MAX && redisReaderFeed(c->reader, buffer, (size_t)n) == REDIS_OK)
		return time_left(a) > 0;
	c->err = REDIS_ERR_OTHER;
	snprintf(c->errstr, sizeof(c->errstr), "%s",
	    *read > REPLY_MAX ? "the reply is over 256 KiB" : no_memory);
	return false;
}

/*
 * Sends a command and waits for its reply, which the caller frees; NULL with an error. The deadline
 * applies to the whole exchange: a server that sends a byte now and then cannot extend it.
 */
static redisReply *
command(const struct attempt *a, int count, const char **words)
{
	redisContext *c = a->context;
	void *reply = NULL;
	size_t read = 0;
	int done = 0;

	if (redisAppendCommandArgv(c, count, words, NULL) != REDIS_OK)
		goto bad;
	while (!done) {
		if (valkey_write(c, &done) != REDIS_OK) {
			/* A server at maxclients says so and closes; that can still be read. */
			if (c->err != REDIS_ERR_IO || !is_reset(errno))
				goto bad;
			break;
		}
		if (!done && !wait_ready(a, POLLOUT))
			goto bad;
	}
	while (redisGetReplyFromReader(c, &reply) == REDIS_OK) {
		if (reply != NULL)
			return reply;
		if (!read_some(a, &read))
			goto bad;
	}
bad:
	explain_context(a);
	return NULL;
}

/*
 * hiredis allocates an array of any length that a server announces, and walks all of it when the
 * reply is freed. No legitimate reply comes near this limit. Once a connection is in use, nested
 * arrays are refused, too: with them, a few bytes could claim a lot of memory. Pub/sub has none.
 */
#define ELEMENTS_MAX 65536

#if HIREDIS_MAJOR >= 1
typedef size_t elements_type;
#else
typedef int elements_type;
#endif

/* hiredis's functions, with createArray replaced; set once. */
static redisReplyObjectFunctions bounded, flat;
static void *(*create_array)(const redisReadTask *task, elements_type elements);

static void *
create_bounded_array(const redisReadTask *task, elements_type elements)
{
	return elements <= ELEMENTS_MAX ? create_array(task, elements) : NULL;
}

static void *
create_flat_array(const redisReadTask *task, elements_type elements)
{
	return task->parent == NULL ? create_bounded_array(task, elements) : NULL;
}

static void
bound_arrays(redisReader *reader)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the three above */

	pthread_mutex_lock(&lock);
	if (create_array == NULL) {
		bounded = *reader->fn;
		create_array = bounded.createArray;
		flat = bounded;
		bounded.createArray = create_bounded_array;
		flat.createArray = create_flat_array;
	}
	pthread_mutex_unlock(&lock);
	reader->fn = &bounded;
}

static bool
start_tls(const struct attempt *a)
{
	return tls_start(a->context, a->valkey->host, clock_ms() + time_left(a), a->error) ||
	    fail(a, "%s", a->error->text);
}

/* Tries one address of the host. */
static bool
connect_address(struct attempt *a, const char *address, int64_t ms)
{
	if (a->context != NULL)
		redisFree(a->context);
	a->context = redisConnectWithTimeout(address, a->valkey->port, timeval_of(ms));
	return a->context != NULL && a->context->err == 0;
}

/* The family applies to names only; an address, such as one from a sentinel, is used as it is. */
static int
resolve(const struct valkey *v, struct addrinfo **all)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct in_addr ignored;

	if (strchr(v->host, ':') == NULL && inet_pton(AF_INET, v->host, &ignored) != 1)
		hints.ai_family = v->family;
	return getaddrinfo(v->host, NULL, &hints, all);
}

/*
 * Tries each address of the host, with an equal share of the time left. Resolving the name does not
 * count towards the deadline: otherwise one dead name server would use up the time of all nodes.
 */
static bool
connect_host(struct attempt *a)
{
	char address[NI_MAXHOST];
	struct addrinfo *all, *i;
	int64_t began = clock_ms();
	int wrong = resolve(a->valkey, &all), left = 0;
	bool good = false;

	resolving_ms += clock_ms() - began;
	if (wrong != 0)
		return fail(a, "%s", wrong == EAI_SYSTEM ? strerror(errno) : gai_strerror(wrong));
	for (i = all; i != NULL; i = i->ai_next)
		left++;
	for (i = all; i != NULL && !good; i = i->ai_next, left--)
		good = getnameinfo(i->ai_addr, i->ai_addrlen, address, sizeof(address), NULL, 0,
		    NI_NUMERICHOST) == 0 && connect_address(a, address, time_left(a) / left);
	freeaddrinfo(all);
	return good || explain_context(a);
}

static bool
addresses_meet(const struct addrinfo *a, const struct addrinfo *b)
{
	for (; a != NULL; a = a->ai_next)
		for (const struct addrinfo *i = b; i != NULL; i = i->ai_next)
			if (a->ai_addrlen == i->ai_addrlen &&
			    memcmp(a->ai_addr, i->ai_addr, a->ai_addrlen) == 0)
				return true;
	return false;
}

bool
valkey_same(const struct valkey *a, const struct valkey *b)
{
	struct addrinfo *of_a = NULL, *of_b = NULL;
	int64_t began = clock_ms();
	bool same = a->port == b->port && resolve(a, &of_a) == 0 && resolve(b, &of_b) == 0 &&
	    addresses_meet(of_a, of_b);

	resolving_ms += clock_ms() - began;
	if (of_a != NULL)
		freeaddrinfo(of_a);
	if (of_b != NULL)
		freeaddrinfo(of_b);
	return same;
}

static bool
connect_path(struct attempt *a)
{
	a->context = redisConnectUnixWithTimeout(a->valkey->path, timeval_of(time_left(a)));
	return (a->context != NULL && a->context->err == 0) || explain_context(a);
}

/* Makes the socket non-blocking, so that hiredis never waits. */
static bool
unblock(const struct attempt *a)
{
	redisContext *c = a->context;

	c->flags &= ~REDIS_BLOCK;
	return fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK) != -1 ||
	    fail(a, "%s", strerror(errno));
}

static bool
open_connection(struct attempt *a)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		/* Detects a dead peer after 5 + 3 * 3 s. */
		{ IPPROTO_TCP, TCP_KEEPIDLE, 5 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 3 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 3 },
	};
	const struct valkey *v = a->valkey;

	if (!(v->path != NULL ? connect_path(a) : connect_host(a)) || !unblock(a))
		return false;
	bound_arrays(a->context->reader);
	for (size_t i = 0; v->path == NULL && i < sizeof(options) / sizeof(options[0]); i++)
		(void)setsockopt(a->context->fd, options[i].level, options[i].name,
		    &options[i].value, sizeof(options[i].value));
	return !v->tls || start_tls(a);
}

/* A user without a password gets an empty one: for a nopass user, Valkey accepts any. */
static bool
authenticate(const struct attempt *a)
{
	const struct valkey *v = a->valkey;
	const char *password = v->password != NULL ? v->password : "";
	const char *with_user[] = { "AUTH", v->user, password };
	const char *alone[] = { "AUTH", password };
	redisReply *reply;
	bool good;

	if (v->user == NULL && v->password == NULL)
		return true;
	reply = v->user != NULL ? command(a, 3, with_user) : command(a, 2, alone);
	if (reply == NULL)
		return false;
	good = reply->type == REDIS_REPLY_STATUS ||
	    valkey_explain(a->valkey, "authentication failed", reply, a->error);
	freeReplyObject(reply);
	return good;
}

/* The role in a reply to ROLE: "master", "slave" or "sentinel"; NULL if there is none. */
static char *
role_of(const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0 ||
	    reply->element[0]->type != REDIS_REPLY_STRING)
		return NULL;
	return reply->element[0]->str;
}

/* Proxies and managed services have their own wording. */
bool
valkey_refuses(const redisReply *reply)
{
	static const char *const words[] = { "unknown command", "unsupported command",
		"not supported", "not allowed", "no permission" };

	for (size_t i = 0; reply->type == REDIS_REPLY_ERROR && i < sizeof(words) / sizeof(words[0]);
	    i++)
		if (strcasestr(reply->str, words[i]) != NULL)
			return true;
	return reply_begins(reply, "NOPERM");
}

/* Stores a warning. Returns true: the server is accepted. */
static bool
accept_unverified(struct attempt *a, const redisReply *refusal, const char *what,
    const char *command, const char *permission)
{
	bool forbidden = reply_begins(refusal, "NOPERM");

	error_set(&a->state.unverified, "%s: cannot verify that it is %s: %s %s", a->valkey->label,
	    what, forbidden ? "the user needs" : "it does not support",
	    forbidden ? permission : command);
	return true;
}

/*
 * Checks with CLUSTER INFO that the server is a Cluster node. A Cluster forwards messages to all
 * its nodes. A replica must be in one, and so must each of several servers: otherwise publisher and
 * daemon might connect to two servers that do not forward messages to each other.
 */
static bool
check_cluster(struct attempt *a, bool primary)
{
	const char *words[] = { "CLUSTER", "INFO" };
	redisReply *reply = command(a, 2, words);
	bool node, good;

	if (reply == NULL)
		return false;
	if (primary && valkey_refuses(reply)) {
		good = accept_unverified(a, reply, "a Cluster node", "CLUSTER INFO",
		    "+cluster|info");
		goto out;
	}
	if (state_of(reply) != NULL) {
		good = valkey_explain(a->valkey, "CLUSTER INFO", reply, a->error);
		goto out;
	}
	node = reply->type == REDIS_REPLY_STRING && strstr(reply->str, "cluster_state:") != NULL;
	a->state.cluster_down = node && strstr(reply->str, "cluster_state:ok") == NULL;
	a->state.demoted = !node && !primary;
	good = node;
	if (a->state.demoted)
		fail(a, "is a replica, not a primary: messages published there reach no other "
		    "server%s",
		    reply_begins(reply, "NOPERM")
			? " (to use a replica in a Cluster, give the user +cluster|info)" : "");
	else if (!good)
		fail(a, "is not a Cluster node, but VALKEY_URL names several servers");
out:
	freeReplyObject(reply);
	return good;
}

static bool
check_role(struct attempt *a, const redisReply *reply)
{
	char *role = role_of(reply);

	/* A KeyDB server that is primary and replica at the same time is an "active-replica". */
	if (role != NULL && (strcmp(role, "master") == 0 || strcmp(role, "active-replica") == 0))
		return !a->needs_cluster || check_cluster(a, true);
	if (role != NULL && strcmp(role, "slave") == 0)
		return check_cluster(a, false);
	a->state.demoted = role != NULL;
	if (role != NULL) {
		secret_strike(role);
		return fail(a, "is a %.*s, not a primary: messages published there reach no other "
		    "server", SHOWN_MAX, role);
	}
	if (valkey_refuses(reply))
		return a->needs_cluster ? check_cluster(a, true)
		    : accept_unverified(a, reply, "a primary", "ROLE", "+role");
	return valkey_explain(a->valkey, "ROLE", reply, a->error);
}

static bool
require_role(struct attempt *a)
{
	const char *words[] = { "ROLE" };
	redisReply *reply = command(a, 1, words);
	bool good = reply != NULL && check_role(a, reply);

	freeReplyObject(reply);
	return good;
}

/* Returns the connection of a successful attempt, or closes it. */
static redisContext *
finish(struct attempt *a, bool good)
{
	if (good)
		return a->context;
	if (a->context != NULL)
		redisFree(a->context);
	return NULL;
}

redisContext *
valkey_connect(const struct valkey *v, int64_t deadline, int limit_ms, bool needs_cluster,
    struct valkey_state *state, struct error *error)
{
	struct attempt a = {
		.valkey = v, .deadline = deadline, .limit_ms = limit_ms,
		.needs_cluster = needs_cluster, .error = error,
	};
	bool good = open_connection(&a) && authenticate(&a) && require_role(&a);

	if (good)
		a.context->reader->fn = &flat;
	*state = a.state;
	return finish(&a, good);
}

redisContext *
valkey_open(const struct valkey *v, int64_t deadline, struct error *error)
{
	struct attempt a = {
		.valkey = v, .deadline = deadline, .error = error,
	};

	return finish(&a, open_connection(&a) && authenticate(&a));
}

redisReply *
valkey_command(redisContext *context, const struct valkey *v, int64_t deadline, int count,
    const char **words, struct error *error)
{
	const struct attempt a = {
		.valkey = v, .context = context, .deadline = deadline, .error = error,
	};

	return command(&a, count, words);
}
