/* SPDX-License-Identifier: ISC */
/*
 * subscriber: reads from Valkey and writes to the streams. See subscriber.h.
 *
 * Everything here is used by the subscriber's thread only, except the fields under the lock, the
 * atomic ones and the eventfd. The lock is held for a few instructions, and no other is taken
 * meanwhile.
 */
#include "config.h"

#include "pubsub/subscriber.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/secret.h"
#include "base/thread.h"
#include "pubsub/channel_table.h"
#include "pubsub/connector.h"
#include "pubsub/fanout.h"
#include "wire/channel_name.h"
#include "wire/wakeup.h"

#define TURN_MS    1000  /* longest time in poll() */
#define PING_MS    5000  /* silence after which it sends PING */
#define SILENCE_MS 12000 /* silence after which it closes the connection */
#define STUCK_MS   10000 /* time without a turn after which the thread counts as stuck */
#define READ_SIZE  (64 * 1024)

/*
 * Channels that are joined or left per turn, and joined per yield of a fan-out, so that a storm of
 * new streams does not delay events.
 */
#define TURN_NAMES  1024
#define YIELD_NAMES 256

/* Bounds of what storms of new streams can make this process hold; see subscriber_join(). */
#define QUEUED_MAX   131072 /* channels of subscriptions that wait to join or to leave */
#define CHANNELS_MAX 262144 /* channels in the table: this, and */
#define CHANNELS_EACH 4     /* this many for each stream that the tenant caps allow */

/*
 * Bytes of names that are sent to Valkey at once. Only an empty output buffer is filled: after each
 * write, hiredis moves what was not sent to the front.
 */
#define OUTPUT_MAX (16 * 1024)

/*
 * Limit of an incomplete reply. A wake-up has at most 16 KiB, but hiredis would collect whatever
 * the server sends.
 */
#define PENDING_MAX (16 * 1024 * 1024)

TAILQ_HEAD(subscription_queue, subscription);

/* Some channels of a subscription, for it to leave. */
struct partial_leave {
	STAILQ_ENTRY(partial_leave) link;
	struct subscription *subscription;
	char *names; /* owned */
	int count;
};
STAILQ_HEAD(partial_leave_queue, partial_leave);

#define REFUSED_OTHER (1u << 31) /* for another reason than an ACL */

struct subscriber {
	const struct settings *settings;
	subscriber_revoked *revoked;
	void *revoked_arg;
	int64_t revoke_at; /* clock_ms() at which to call revoked() without a revocation */
	struct connector *connector;
	struct channel_table *channels;
	struct channel *revocations; /* the channel of revocations; kept */
	char probe_name[CHANNEL_NAME_SIZE]; /* of the connector's probes */
	struct channel *probes;             /* kept */
	struct fanout *fanout;
	int wake_fd;
	_Atomic bool unreachable, connected;
	_Atomic int64_t alive_at, message_at;
	_Atomic uint32_t channel_count;

	uint32_t channels_max; /* of channel_count and the channels that wait to join */

	pthread_mutex_t lock; /* guards the fields up to stop_done */
	struct subscription_queue joining, leaving; /* queued counts their channels: QUEUED_MAX */
	uint32_t queued_joins, queued_leaves;
	struct partial_leave_queue partial; /* at most one for each re-check of an open stream */
	bool stopping, stopped;
	pthread_cond_t stop_done;

	redisContext *link;     /* NULL: not connected. Input: PENDING_MAX, output: OUTPUT_MAX */
	bool unsent;            /* the output buffer may not be empty; see OUTPUT_MAX */
	bool unread;            /* more may be available than poll() shows */
	bool pinged;            /* a PING has no reply yet */
	size_t due_before_pong; /* replies due before that of PING */
	int64_t received_at;    /* clock_ms() of the last bytes from Valkey */
	uint32_t messages;      /* received in the current read */
	char *input;            /* READ_SIZE bytes */
	bool more;              /* the queues had more than a turn may take */
	struct log_limit dropped;
	/* Channels refused on this connection: a bit for each prefix_of(), and REFUSED_OTHER. */
	unsigned refused;
};

/* Called by channel_table.c. Adds a command to the output buffer. */
static bool
send_command(void *arg, bool subscribe, int count, const char **names, const size_t *lengths)
{
	struct subscriber *subscriber = arg;
	const char *argv[1 + CHANNEL_BATCH_MAX] = { subscribe ? "SUBSCRIBE" : "UNSUBSCRIBE" };
	size_t argument_lengths[1 + CHANNEL_BATCH_MAX] = { strlen(argv[0]) };

	memcpy(argv + 1, names, (size_t)count * sizeof(*names));
	memcpy(argument_lengths + 1, lengths, (size_t)count * sizeof(*lengths));
	subscriber->unsent = true;
	return redisAppendCommandArgv(subscriber->link, 1 + count, argv, argument_lengths) ==
	    REDIS_OK;
}

static void
link_down(struct subscriber *subscriber, const char *error)
{
	connector_lost(subscriber->connector, error);
	redisFree(subscriber->link);
	subscriber->link = NULL;
	subscriber->connected = subscriber->unsent = subscriber->unread = false;
	metric_add(METRIC_VALKEY_LOSSES, 1);
	channel_table_down(subscriber->channels);
}

static void
link_up(struct subscriber *subscriber, redisContext *link)
{
	subscriber->link = link;
	subscriber->connected = true;
	metric_add(METRIC_VALKEY_CONNECTS, 1);
	subscriber->pinged = false;
	subscriber->refused = 0;
	subscriber->unread = true; /* the connector may have read ahead */
	subscriber->received_at = clock_ms();
	channel_table_up(subscriber->channels);
}

static void
connector_read(struct subscriber *subscriber)
{
	redisContext *link;
	enum connector_state state;
	const char *give_up;

	state = connector_poll(subscriber->connector, &link, &give_up);
	/* Streams that join later are marked by take_join(). */
	if (state == CONNECTOR_UNREACHABLE && !subscriber->unreachable)
		channel_table_unreachable(subscriber->channels);
	subscriber->unreachable = state == CONNECTOR_UNREACHABLE;
	if (link != NULL)
		link_up(subscriber, link);
	else if (give_up != NULL && subscriber->link != NULL)
		link_down(subscriber, give_up);
}

/* Joins waiting subscriptions, up to about this many channels. */
static void
take_joins(struct subscriber *subscriber, uint32_t names)
{
	struct subscription_queue joining = TAILQ_HEAD_INITIALIZER(joining);
	struct subscription *sub;
	uint32_t taken = 0;

	pthread_mutex_lock(&subscriber->lock);
	while (taken < names && (sub = TAILQ_FIRST(&subscriber->joining)) != NULL) {
		TAILQ_REMOVE(&subscriber->joining, sub, join_link);
		TAILQ_INSERT_TAIL(&joining, sub, join_link);
		sub->taken = true;
		taken += (uint32_t)sub->count;
	}
	subscriber->queued_joins -= taken;
	subscriber->more |= !TAILQ_EMPTY(&subscriber->joining);
	pthread_mutex_unlock(&subscriber->lock);
	while ((sub = TAILQ_FIRST(&joining)) != NULL) {
		TAILQ_REMOVE(&joining, sub, join_link);
		channel_table_join(subscriber->channels, sub);
		if (subscriber->unreachable && !sub->confirmed_once)
			stream_mark(sub->stream, STREAM_REFUSED);
	}
}

/* Called during a fan-out, so it must not remove any members. */
static void
yield(void *arg)
{
	take_joins(arg, YIELD_NAMES);
}

static void
take_leaves(struct subscriber *subscriber)
{
	struct subscription_queue leaving = TAILQ_HEAD_INITIALIZER(leaving);
	struct partial_leave_queue partial = STAILQ_HEAD_INITIALIZER(partial);
	struct subscription *sub;
	struct partial_leave *n;
	uint32_t taken = 0;

	/* Take all partial leaves first: what they leave may be in the queue of leaves, too. */
	pthread_mutex_lock(&subscriber->lock);
	STAILQ_CONCAT(&partial, &subscriber->partial);
	while (taken < TURN_NAMES && (sub = TAILQ_FIRST(&subscriber->leaving)) != NULL) {
		TAILQ_REMOVE(&subscriber->leaving, sub, leave_link);
		TAILQ_INSERT_TAIL(&leaving, sub, leave_link);
		taken += (uint32_t)sub->count;
	}
	subscriber->queued_leaves -= taken;
	subscriber->more |= !TAILQ_EMPTY(&subscriber->leaving);
	pthread_mutex_unlock(&subscriber->lock);
	while ((n = STAILQ_FIRST(&partial)) != NULL) {
		STAILQ_REMOVE_HEAD(&partial, link);
		channel_table_leave_some(subscriber->channels, n->subscription, n->names, n->count);
		free(n->names);
		free(n);
	}
	while ((sub = TAILQ_FIRST(&leaving)) != NULL) {
		TAILQ_REMOVE(&leaving, sub, leave_link);
		channel_table_leave(subscriber->channels, sub);
	}
}

static void
drop(struct subscriber *subscriber, const redisReply *channel, const char *reason)
{
	uint32_t suppressed;

	metric_add(METRIC_DROPPED, 1);
	if (!log_allowed(&subscriber->dropped, 1000, &suppressed))
		return;
	LOG(LOG_LEVEL_WARN, "valkey", "payload dropped", LOG_STR("channel", channel->str),
	    LOG_STR("reason", reason), LOG_INT("suppressed", suppressed));
}

static void
take_revocation(struct subscriber *subscriber, const redisReply *name, const redisReply *payload)
{
	struct revocation r;

	if (revocation_read(&r, payload->str, (size_t)payload->len))
		subscriber->revoke_at = subscriber->revoked(subscriber->revoked_arg, &r);
	else
		drop(subscriber, name, "is not a revocation");
}

static void
take_message(struct subscriber *subscriber, const redisReply *name, const redisReply *payload)
{
	struct channel *channel;
	const char *error;
	size_t count;

	channel = channel_table_find(subscriber->channels, name->str, (size_t)name->len);
	if (channel == NULL)
		return;
	if (channel == subscriber->probes) {
		connector_arrived(subscriber->connector, payload->str);
		return;
	}
	subscriber->messages++;
	if (channel == subscriber->revocations) {
		take_revocation(subscriber, name, payload);
		return;
	}
	/* The last member may have left. */
	channel_members(channel, &count);
	if (count == 0)
		return;
	error = wakeup_check(payload->str, (size_t)payload->len);
	if (error != NULL)
		drop(subscriber, name, error);
	else
		fanout_add(subscriber->fanout, channel, payload->str, (size_t)payload->len);
}

static bool
is_text(const redisReply *r)
{
	return r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS;
}

/* Handles the reply to SUBSCRIBE or UNSUBSCRIBE. False if none is due. */
static bool
take_answer(struct subscriber *subscriber, const char *name, size_t length, bool refused)
{
	size_t count = channel_table_answer(subscriber->channels, name, length, refused);

	/* Those of a command are either all before PING or all after it. */
	if (subscriber->due_before_pong > 0)
		subscriber->due_before_pong -= count;
	return count > 0;
}

/* Returns the index of the channel's prefix in issues_prefixes; issues_prefix_count if none. */
static int
prefix_of(const struct settings *s, const char *channel)
{
	size_t length = strcspn(channel, ":");
	int i;

	for (i = 0; i < s->issues_prefix_count; i++)
		if (strlen(s->issues_prefixes[i]) == length &&
		    memcmp(s->issues_prefixes[i], channel, length) == 0)
			break;
	return i;
}

#define ALLOW "allow the Valkey user to subscribe to and unsubscribe from it, see tpi-stream(7)"

/* Whether an ACL is the reason. Otherwise the server refuses any command now, such as with BUSY. */
static bool
is_forbidden(const char *error)
{
	return strncmp(error, "NOPERM", 6) == 0;
}

/* Warns once per connection and prefix; each stream concerned also logs a line of its own. */
static void
log_refused(struct subscriber *subscriber, const char *channel, const char *error)
{
	int prefix = prefix_of(subscriber->settings, channel);
	bool of_issues = prefix < subscriber->settings->issues_prefix_count;

	if (!is_forbidden(error)) {
		LOG(subscriber->refused & REFUSED_OTHER ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, "valkey",
		    "channel refused", LOG_STR("channel", channel), LOG_STR("error", error));
		subscriber->refused |= REFUSED_OTHER;
		return;
	}
	LOG(subscriber->refused & 1u << prefix ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, "valkey",
	    "channel refused", LOG_STR("channel", channel), LOG_STR("error", error),
	    LOG_STR("remedy", of_issues ? ALLOW ", or remove its prefix from "
	    "TPI_ISSUES_CHANNEL_PREFIX if nothing publishes under it" : ALLOW));
	subscriber->refused |= 1u << prefix;
}

static bool
is_kept(struct subscriber *subscriber, const char *channel)
{
	const struct channel *ch =
	    channel_table_find(subscriber->channels, channel, strlen(channel));

	return ch == subscriber->revocations || ch == subscriber->probes;
}

/* Handles an error, the reply to some command. False: close the connection. */
static bool
take_error(struct subscriber *subscriber, char *text, struct error *error)
{
	bool alone;
	const char *channel = channel_table_awaited(subscriber->channels, &alone);

	if (subscriber->pinged && subscriber->due_before_pong == 0) {
		/* PING is forbidden, but this is a reply: the server is alive. */
		subscriber->pinged = false;
		return true;
	}
	if (channel == NULL)
		return error_set(error, "unexpected error reply");
	secret_strike(text);
	/* A kept channel would not be subscribed again before the next connection. */
	if (alone && !is_forbidden(text) && is_kept(subscriber, channel))
		return error_set(error, "SUBSCRIBE refused: %s", text);
	if (!alone)
		/* Each of its channels is tried alone now. */
		LOG(LOG_LEVEL_DEBUG, "valkey", "command refused", LOG_STR("error", text));
	else if (channel_table_find(subscriber->channels, channel, strlen(channel)) ==
	    subscriber->revocations)
		/* It is subscribed once per connection, so it needs no limit. */
		LOG(LOG_LEVEL_WARN, "valkey", "channel refused; tpi-publish revoke has no effect",
		    LOG_STR("channel", channel), LOG_STR("error", text),
		    LOG_STR("remedy", ALLOW));
	else if (strcmp(channel, subscriber->probe_name) == 0)
		connector_refused(subscriber->connector, text);
	else
		log_refused(subscriber, channel, text);
	take_answer(subscriber, NULL, 0, true);
	return true;
}

/* False: close the connection. */
static bool
take_reply(struct subscriber *subscriber, const redisReply *r, struct error *error)
{
	const redisReply *kind = r, *name;

	if (r->type == REDIS_REPLY_ERROR)
		return take_error(subscriber, r->str, error);
	if (r->type == REDIS_REPLY_ARRAY && r->elements >= 2)
		kind = r->element[0];
	if (!is_text(kind))
		return error_set(error, "unexpected reply, not of pub/sub");
	if (strcasecmp(kind->str, "pong") == 0) {
		subscriber->pinged = false;
		return true;
	}
	if (r->type != REDIS_REPLY_ARRAY || r->elements != 3)
		return error_set(error, "unexpected reply, not of pub/sub");
	name = r->element[1];
	if (strcmp(kind->str, "message") == 0) {
		if (!is_text(name) || !is_text(r->element[2]))
			return error_set(error, "malformed message");
		take_message(subscriber, name, r->element[2]);
		return true;
	}
	if (strcmp(kind->str, "subscribe") != 0 && strcmp(kind->str, "unsubscribe") != 0)
		return error_set(error, "unexpected reply, not of pub/sub");
	if (!is_text(name) ||
	    !take_answer(subscriber, name->str, (size_t)name->len, false))
		return error_set(error, "unexpected reply to SUBSCRIBE or UNSUBSCRIBE");
	if (strcmp(name->str, subscriber->probe_name) == 0)
		connector_subscribed(subscriber->connector);
	return true;
}

static void
count_messages(struct subscriber *subscriber)
{
	if (subscriber->messages == 0)
		return;
	metric_add(METRIC_MESSAGES, subscriber->messages);
	subscriber->message_at = subscriber->received_at;
	subscriber->messages = 0;
}

/* Reads once and fans out all complete messages. False: close the connection. */
static bool
link_read(struct subscriber *subscriber, struct error *error)
{
	redisReader *reader = subscriber->link->reader;
	bool good = true;
	void *r;
	ssize_t n;

	n = valkey_read(subscriber->link, subscriber->input, READ_SIZE);
	subscriber->unread = n == READ_SIZE;
	if (n <= 0)
		return n == 0 || error_set(error, "%s", subscriber->link->errstr);
	subscriber->received_at = clock_ms();
	if (redisReaderFeed(reader, subscriber->input, (size_t)n) != REDIS_OK)
		return error_set(error, "%s", reader->errstr);
	while (good) {
		good = redisReaderGetReply(reader, &r) == REDIS_OK ||
		    error_set(error, "%s", reader->errstr);
		if (!good || r == NULL)
			break;
		good = take_reply(subscriber, r, error);
		freeReplyObject(r);
	}
	fanout_flush(subscriber->fanout);
	count_messages(subscriber);
	if (good && reader->len - reader->pos > PENDING_MAX)
		return error_set(error, "reply larger than 16 MiB");
	return good;
}

/* Sends from the output buffer. False: close the connection. */
static bool
link_write(struct subscriber *subscriber, struct error *error)
{
	int done = 0;

	if (valkey_write(subscriber->link, &done) != REDIS_OK)
		return error_set(error, "%s", subscriber->link->errstr);
	subscriber->unsent = !done;
	return true;
}

static bool
link_ping(struct subscriber *subscriber, struct error *error)
{
	int64_t silence = clock_ms() - subscriber->received_at;

	if (silence >= SILENCE_MS)
		return error_set(error, "no data from the server for 12 s");
	if (silence >= PING_MS && !subscriber->pinged) {
		if (redisAppendCommand(subscriber->link, "PING") != REDIS_OK)
			return error_set(error, "out of memory");
		subscriber->pinged = subscriber->unsent = true;
		subscriber->due_before_pong = channel_table_unanswered(subscriber->channels);
	}
	return true;
}

/* Sends what the channels need, and what is left in the output buffer. */
static bool
link_send(struct subscriber *subscriber, struct error *error)
{
	if (!subscriber->unsent &&
	    !channel_table_send(subscriber->channels, subscriber->alive_at, OUTPUT_MAX))
		return error_set(error, "out of memory");
	return !subscriber->unsent || link_write(subscriber, error);
}

/* Whether turn() has something to do that poll() does not report. */
static bool
has_work(const struct subscriber *subscriber)
{
	if (subscriber->more || subscriber->unread)
		return true;
	return subscriber->link != NULL && !subscriber->unsent &&
	    channel_table_ready(subscriber->channels, subscriber->alive_at);
}

/* How long turn() may sleep. */
static int
turn_ms(const struct subscriber *subscriber)
{
	int64_t left;

	if (has_work(subscriber))
		return 0;
	left = subscriber->revoke_at - clock_ms();
	return left >= TURN_MS ? TURN_MS : left > 0 ? (int)left : 0;
}

/* Waits until there is something to do, and does it. */
static void
turn(struct subscriber *subscriber)
{
	struct pollfd p[2] = { { .fd = subscriber->wake_fd, .events = POLLIN },
		{ .fd = subscriber->link != NULL ? subscriber->link->fd : -1, .events = POLLIN } };
	struct error error;
	uint64_t ignored;
	bool good = true;

	if (subscriber->unsent)
		p[1].events |= POLLOUT;
	poll(p, 2, turn_ms(subscriber));
	subscriber->alive_at = clock_ms();
	if (p[0].revents != 0 && read(subscriber->wake_fd, &ignored, sizeof(ignored)) == -1 &&
	    errno != EAGAIN)
		LOG(LOG_LEVEL_ERROR, "valkey", "eventfd", LOG_STR("error", strerror(errno)));
	if (subscriber->link != NULL && (subscriber->unread || (p[1].revents & ~POLLOUT) != 0))
		good = link_read(subscriber, &error);
	if (subscriber->alive_at >= subscriber->revoke_at)
		subscriber->revoke_at = subscriber->revoked(subscriber->revoked_arg, NULL);
	subscriber->more = false;
	take_leaves(subscriber);
	take_joins(subscriber, TURN_NAMES);
	subscriber->channel_count = channel_table_total(subscriber->channels);
	if (subscriber->link != NULL && good)
		good = link_ping(subscriber, &error);
	if (subscriber->link != NULL && good)
		good = link_send(subscriber, &error);
	if (!good)
		link_down(subscriber, error.text);
	if (p[0].revents != 0)
		connector_read(subscriber);
}

static void
disconnect(struct subscriber *subscriber)
{
	struct error ignored;

	if (subscriber->link == NULL)
		return;
	if (redisAppendCommand(subscriber->link, "UNSUBSCRIBE") == REDIS_OK)
		link_write(subscriber, &ignored);
	redisFree(subscriber->link);
	subscriber->link = NULL;
}

static void *
subscriber_run(void *arg)
{
	struct subscriber *subscriber = arg;
	bool stopping = false;

	while (!stopping) {
		turn(subscriber);
		pthread_mutex_lock(&subscriber->lock);
		stopping = subscriber->stopping;
		pthread_mutex_unlock(&subscriber->lock);
	}
	disconnect(subscriber);
	pthread_mutex_lock(&subscriber->lock);
	subscriber->stopped = true;
	pthread_cond_signal(&subscriber->stop_done);
	pthread_mutex_unlock(&subscriber->lock);
	return NULL;
}

static bool
keep_revocations(struct subscriber *subscriber)
{
	char name[CHANNEL_NAME_SIZE];
	size_t length = channel_name_revoke(name, subscriber->settings->tenant);

	subscriber->revocations = channel_table_keep(subscriber->channels, name, length);
	return subscriber->revocations != NULL;
}

static bool
keep_probes(struct subscriber *subscriber)
{
	uint64_t number = (uint64_t)clock_jitter(0, UINT32_MAX) << 32 | clock_jitter(0, UINT32_MAX);
	size_t length =
	    channel_name_check(subscriber->probe_name, subscriber->settings->tenant, number);

	subscriber->probes =
	    channel_table_keep(subscriber->channels, subscriber->probe_name, length);
	return subscriber->probes != NULL;
}

static bool
subscriber_init(struct subscriber *subscriber, const struct settings *s)
{
	subscriber->settings = s;
	subscriber->channels_max = CHANNELS_MAX + CHANNELS_EACH * (uint32_t)(s->tenant_cap +
	    s->issues_tenant_cap + s->live_tenant_cap + s->combined_tenant_cap);
	pthread_mutex_init(&subscriber->lock, NULL);
	thread_cond_init(&subscriber->stop_done);
	TAILQ_INIT(&subscriber->joining);
	TAILQ_INIT(&subscriber->leaving);
	STAILQ_INIT(&subscriber->partial);
	subscriber->alive_at = subscriber->message_at = clock_ms();
	subscriber->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	subscriber->input = malloc(READ_SIZE);
	subscriber->channels = channel_table_new(send_command, subscriber);
	/* A partly sent record must fit in a backlog. */
	subscriber->fanout = fanout_new((size_t)s->backlog_bytes, yield, subscriber);
	return subscriber->wake_fd != -1 && subscriber->input != NULL &&
	    subscriber->channels != NULL && subscriber->fanout != NULL &&
	    keep_revocations(subscriber) && keep_probes(subscriber);
}

struct subscriber *
subscriber_start(const struct settings *s, struct topology *topology, subscriber_revoked *revoked,
    void *arg)
{
	struct subscriber *subscriber;

	subscriber = calloc(1, sizeof(*subscriber));
	if (subscriber == NULL)
		return NULL;
	subscriber->revoked = revoked;
	subscriber->revoked_arg = arg;
	subscriber->revoke_at = INT64_MAX;
	/* The process ends if this fails, so nothing is undone. */
	if (!subscriber_init(subscriber, s))
		return NULL;
	subscriber->connector = connector_start(topology, subscriber->wake_fd,
	    subscriber->probe_name);
	if (subscriber->connector == NULL ||
	    thread_start(subscriber_run, subscriber) != 0)
		return NULL;
	return subscriber;
}

bool
subscriber_unreachable(struct subscriber *subscriber)
{
	return subscriber->unreachable;
}

bool
subscriber_working(struct subscriber *subscriber)
{
	return clock_ms() - subscriber->alive_at < STUCK_MS;
}

void
subscriber_look(struct subscriber *subscriber, struct subscriber_view *view)
{
	view->state = subscriber->connected ? SUBSCRIBER_CONNECTED :
	    subscriber->unreachable ? SUBSCRIBER_UNREACHABLE : SUBSCRIBER_CONNECTING;
	view->channels = subscriber->channel_count;
	view->message_at = subscriber->message_at;
}

static void
free_subscription(struct subscription *sub)
{
	stream_release(sub->stream);
	free(sub->names);
	free(sub);
}

/* Adds to the queue of joins, unless that or the table of channels is full. */
static bool
queue_join(struct subscriber *subscriber, struct subscription *sub)
{
	uint32_t count = (uint32_t)sub->count, queued;
	bool first, fits;

	pthread_mutex_lock(&subscriber->lock);
	first = TAILQ_EMPTY(&subscriber->joining);
	queued = subscriber->queued_joins + count;
	fits = queued + subscriber->queued_leaves <= QUEUED_MAX &&
	    subscriber->channel_count + queued <= subscriber->channels_max;
	if (fits) {
		subscriber->queued_joins = queued;
		TAILQ_INSERT_TAIL(&subscriber->joining, sub, join_link);
	}
	pthread_mutex_unlock(&subscriber->lock);
	if (fits && first)
		thread_wake(subscriber->wake_fd);
	return fits;
}

struct subscription *
subscriber_join(struct subscriber *subscriber, struct stream *stream, char *names, int count,
    void (*begin)(struct stream *stream))
{
	struct subscription *sub;

	sub = calloc(1, sizeof(*sub) + (size_t)count * sizeof(sub->members[0]));
	if (sub == NULL) {
		free(names);
		return NULL;
	}
	sub->subscriber = subscriber;
	sub->stream = stream_hold(stream);
	sub->begin = begin;
	sub->names = names;
	sub->count = count;
	if (queue_join(subscriber, sub))
		return sub;
	free_subscription(sub);
	errno = EAGAIN;
	return NULL;
}

bool
subscriber_leave_some(struct subscription *sub, char *names, int count)
{
	struct subscriber *subscriber = sub->subscriber;
	struct partial_leave *n;

	n = malloc(sizeof(*n));
	if (n == NULL) {
		free(names);
		return false;
	}
	*n = (struct partial_leave){ .subscription = sub, .names = names, .count = count };
	pthread_mutex_lock(&subscriber->lock);
	STAILQ_INSERT_TAIL(&subscriber->partial, n, link);
	pthread_mutex_unlock(&subscriber->lock);
	thread_wake(subscriber->wake_fd);
	return true;
}

void
subscriber_leave(struct subscription *sub)
{
	struct subscriber *subscriber = sub->subscriber;
	bool taken, first;

	pthread_mutex_lock(&subscriber->lock);
	taken = sub->taken;
	first = taken && TAILQ_EMPTY(&subscriber->leaving);
	if (taken) {
		TAILQ_INSERT_TAIL(&subscriber->leaving, sub, leave_link);
		subscriber->queued_leaves += (uint32_t)sub->count;
	} else {
		TAILQ_REMOVE(&subscriber->joining, sub, join_link);
		subscriber->queued_joins -= (uint32_t)sub->count;
	}
	pthread_mutex_unlock(&subscriber->lock);
	if (first)
		thread_wake(subscriber->wake_fd);
	if (!taken)
		free_subscription(sub);
}

void
subscriber_stop(struct subscriber *subscriber, int timeout_ms)
{
	int64_t deadline = clock_ms() + timeout_ms;

	pthread_mutex_lock(&subscriber->lock);
	subscriber->stopping = true;
	thread_wake(subscriber->wake_fd);
	while (!subscriber->stopped &&
	    thread_cond_wait(&subscriber->stop_done, &subscriber->lock, deadline))
		continue;
	pthread_mutex_unlock(&subscriber->lock);
}
