/*
 * hub: the thread that reads from Valkey and writes to the streams. See hub.h.
 *
 * Everything here belongs to the hub's thread, except the fields that name the lock, the atomic
 * ones and the eventfd. The lock is held for a few instructions at a time, and no other is taken
 * under it.
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

#include "wire/channel_name.h"
#include "pubsub/channel_table.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "pubsub/connector.h"
#include "pubsub/fanout.h"
#include "base/log.h"
#include "base/thread.h"
#include "wire/wakeup.h"

#define TURN_MS    1000  /* longest sleep */
#define PING_MS    5000  /* silence after which PING is sent */
#define SILENCE_MS 12000 /* silence after which the connection is given up */
#define STUCK_MS   10000 /* without a turn: something is wrong */
#define READ_SIZE  (64 * 1024)

/*
 * Joins in one go, so that a storm of newcomers does not hold up events. Tests under sanitizers meet
 * the bound with any two.
 */
#ifdef TPI_SANITIZED
#define JOINS_MAX 1
#else
#define JOINS_MAX 256
#endif

/*
 * Of a reply that has not come whole: a payload may have 16 KiB, but hiredis keeps what Valkey lets
 * pass.
 */
#define PENDING_MAX (16 * 1024 * 1024)

STAILQ_HEAD(subscription_queue, subscription);

/* Channels that a stream is to leave while it stays in others. */
struct narrowing {
	STAILQ_ENTRY(narrowing) link;
	struct subscription *subscription;
	char *names; /* owned */
	int count;
};
STAILQ_HEAD(narrowing_queue, narrowing);

struct hub {
	const struct settings *settings;
	hub_revoked *revoked;
	void *revoked_arg;
	struct dialer *dialer;
	struct channels *channels;
	struct channel *revocations; /* that revocations come through; kept */
	struct fanout *fanout;
	int wake_fd;
	_Atomic bool away, connected;
	_Atomic int64_t alive_at, message_at;
	_Atomic uint32_t channel_count;

	pthread_mutex_t lock; /* these: */
	struct subscription_queue joining, leaving;
	struct narrowing_queue narrowing;
	bool stopping, stopped;
	pthread_cond_t stop_done;

	redisContext *link; /* NULL while Valkey is away */
	bool unsent;        /* the link's output buffer may hold something */
	bool unread;        /* there may be more to read than poll() shows */
	bool pinged;        /* PING is unanswered */
	size_t before_pong; /* answers that are due before PING's */
	int64_t heard_at;   /* clock_ms() of the last bytes from Valkey */
	uint32_t messages;  /* of one read */
	char *input;        /* READ_SIZE bytes */
	struct subscription_queue newcomers; /* who has not joined yet */
	struct log_limit dropped;
	unsigned refused; /* a bit for each prefix_of() the channels that were, on this link */
};

/* Called by channels.c: a command for the link's output buffer. */
static bool
command(void *arg, bool subscribe, const char *name, size_t length)
{
	struct hub *hub = arg;
	const char *argv[] = { subscribe ? "SUBSCRIBE" : "UNSUBSCRIBE", name };
	size_t lengths[] = { strlen(argv[0]), length };

	if (redisAppendCommandArgv(hub->link, 2, argv, lengths) != REDIS_OK)
		return false;
	hub->unsent = true;
	return true;
}

static void
link_down(struct hub *hub, const char *error)
{
	/* error may be in the context that is freed. */
	dialer_lost(hub->dialer, error);
	redisFree(hub->link);
	hub->link = NULL;
	hub->connected = hub->unsent = hub->unread = false;
	counter_add(COUNTER_VALKEY_LOSSES, 1);
	channels_down(hub->channels);
}

static void
link_up(struct hub *hub, redisContext *link)
{
	hub->link = link;
	hub->connected = true;
	counter_add(COUNTER_VALKEY_CONNECTS, 1);
	hub->pinged = false;
	hub->refused = 0;
	hub->unread = true; /* behind what the dialer has read */
	hub->heard_at = clock_ms();
	if (!channels_up(hub->channels))
		link_down(hub, "out of memory");
}

static void
dialer_read(struct hub *hub)
{
	redisContext *link;
	enum dialer_state state;
	const char *give_up;

	state = dialer_news(hub->dialer, &link, &give_up);
	/* Newcomers find out by themselves. */
	if (state == DIALER_AWAY && !hub->away)
		channels_away(hub->channels);
	hub->away = state == DIALER_AWAY;
	if (link != NULL)
		link_up(hub, link);
	else if (give_up != NULL && hub->link != NULL)
		link_down(hub, give_up);
}

static void
take_join(struct hub *hub, struct subscription *sub)
{
	if (sub->left) {
		channels_leave(hub->channels, sub);
		return;
	}
	sub->joined = true;
	channels_join(hub->channels, sub);
	if (hub->away && !sub->confirmed_once)
		stream_mark(sub->stream, STREAM_REFUSED);
}

/* New members, and nothing else: also in the middle of a fan-out. */
static void
take_joins(void *arg)
{
	struct hub *hub = arg;
	struct subscription *sub;
	int i;

	pthread_mutex_lock(&hub->lock);
	STAILQ_CONCAT(&hub->newcomers, &hub->joining);
	pthread_mutex_unlock(&hub->lock);
	for (i = 0; i < JOINS_MAX && (sub = STAILQ_FIRST(&hub->newcomers)) != NULL; i++) {
		STAILQ_REMOVE_HEAD(&hub->newcomers, join_link);
		take_join(hub, sub);
	}
}

static void
take_leaves(struct hub *hub)
{
	struct subscription_queue leaving = STAILQ_HEAD_INITIALIZER(leaving);
	struct narrowing_queue narrowing = STAILQ_HEAD_INITIALIZER(narrowing);
	struct subscription *sub;
	struct narrowing *n;

	/*
	 * First those that want to leave, then the joins: whoever leaves is a newcomer at least. Who
	 * leaves some channels has joined, and may leave all behind that.
	 */
	pthread_mutex_lock(&hub->lock);
	STAILQ_CONCAT(&leaving, &hub->leaving);
	STAILQ_CONCAT(&narrowing, &hub->narrowing);
	pthread_mutex_unlock(&hub->lock);
	take_joins(hub);
	while ((n = STAILQ_FIRST(&narrowing)) != NULL) {
		STAILQ_REMOVE_HEAD(&narrowing, link);
		channels_leave_some(hub->channels, n->subscription, n->names, n->count);
		free(n->names);
		free(n);
	}
	while ((sub = STAILQ_FIRST(&leaving)) != NULL) {
		STAILQ_REMOVE_HEAD(&leaving, leave_link);
		if (sub->joined)
			channels_leave(hub->channels, sub);
		else
			sub->left = true;
	}
}

static void
drop(struct hub *hub, const redisReply *channel, const char *reason)
{
	uint32_t suppressed;

	counter_add(COUNTER_DROPPED, 1);
	if (!log_allowed(&hub->dropped, 1000, &suppressed))
		return;
	LOG(LOG_LEVEL_WARN, "valkey", "payload dropped", LOG_STR("channel", channel->str),
	    LOG_STR("reason", reason), LOG_INT("suppressed", suppressed));
}

static void
take_revocation(struct hub *hub, const redisReply *name, const redisReply *payload)
{
	struct revocation r;
	size_t count;

	if (!revocation_read(&r, payload->str, (size_t)payload->len)) {
		drop(hub, name, "is no revocation");
		return;
	}
	count = hub->revoked(hub->revoked_arg, &r);
	if (r.project == 0) {
		LOG(LOG_LEVEL_INFO, "revoke", "user", LOG_STR("tenantId", hub->settings->tenant),
		    LOG_STR("userId", r.user), LOG_INT("streams", count));
		return;
	}
	LOG(LOG_LEVEL_INFO, "revoke", "project", LOG_STR("tenantId", hub->settings->tenant),
	    LOG_INT("projectId", r.project), LOG_INT("streams", count));
}

static void
message(struct hub *hub, const redisReply *name, const redisReply *payload)
{
	struct channel *channel;
	const char *wrong;

	/* Also what was on its way when the last member left. */
	channel = channels_find(hub->channels, name->str, (size_t)name->len);
	if (channel == NULL)
		return;
	hub->messages++;
	if (channel == hub->revocations) {
		take_revocation(hub, name, payload);
		return;
	}
	wrong = wakeup_check(payload->str, (size_t)payload->len);
	if (wrong != NULL)
		drop(hub, name, wrong);
	else
		fanout_add(hub->fanout, channel, payload->str, (size_t)payload->len);
}

static bool
is_text(const redisReply *r)
{
	return r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS;
}

/* The answer to SUBSCRIBE or UNSUBSCRIBE. False where none is due. */
static bool
answered(struct hub *hub, const char *name, size_t length, bool refused)
{
	if (!channels_answer(hub->channels, name, length, refused))
		return false;
	if (hub->before_pong > 0)
		hub->before_pong--;
	return true;
}

/* Which prefix of the issue channels this one has; their count where it has none of them. */
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

#define ALLOW "let the user of Valkey subscribe to it, see tpi-stream(7)"

/* Once for a connection and a prefix; each stream that it concerns has a line of its own. */
static void
log_refused(struct hub *hub, const char *channel, const char *error)
{
	int prefix = prefix_of(hub->settings, channel);
	bool of_issues = prefix < hub->settings->issues_prefix_count;

	LOG(hub->refused & 1u << prefix ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, "valkey",
	    "channel refused", LOG_STR("channel", channel), LOG_STR("error", error),
	    LOG_STR("remedy", of_issues ? ALLOW ", or remove its prefix from TPI_ISSUES_CHANNEL_PREFIX "
	    "where nobody publishes under it" : ALLOW));
	hub->refused |= 1u << prefix;
}

/* An error is the answer to a command. NULL, or why the link is of no more use. */
static const char *
refusal(struct hub *hub, const char *error)
{
	const char *channel = channels_awaited(hub->channels);

	if (hub->pinged && hub->before_pong == 0) {
		/* Whoever may not PING hears that at least. */
		hub->pinged = false;
		return NULL;
	}
	if (channel == NULL)
		return "an error that answers nothing";
	if (channels_find(hub->channels, channel, strlen(channel)) == hub->revocations)
		/* Asked for once a connection. */
		LOG(LOG_LEVEL_WARN, "valkey", "channel refused, tpi-publish revoke does not work",
		    LOG_STR("channel", channel), LOG_STR("error", error),
		    LOG_STR("remedy", ALLOW));
	else
		log_refused(hub, channel, error);
	answered(hub, NULL, 0, true);
	return NULL;
}

/* NULL, or why the link is of no more use. */
static const char *
reply(struct hub *hub, const redisReply *r)
{
	const redisReply *kind = r, *name;

	if (r->type == REDIS_REPLY_ERROR)
		return refusal(hub, r->str);
	if (r->type == REDIS_REPLY_ARRAY && r->elements >= 2)
		kind = r->element[0];
	if (!is_text(kind))
		return "a reply that is not of pub/sub";
	if (strcasecmp(kind->str, "pong") == 0) {
		hub->pinged = false;
		return NULL;
	}
	if (r->type != REDIS_REPLY_ARRAY || r->elements != 3)
		return "a reply that is not of pub/sub";
	name = r->element[1];
	if (strcmp(kind->str, "message") == 0) {
		if (!is_text(name) || !is_text(r->element[2]))
			return "a malformed message";
		message(hub, name, r->element[2]);
		return NULL;
	}
	if (strcmp(kind->str, "subscribe") != 0 && strcmp(kind->str, "unsubscribe") != 0)
		return "a reply that is not of pub/sub";
	if (!is_text(name) ||
	    !answered(hub, name->str, (size_t)name->len, false))
		return "an answer to no command";
	return NULL;
}

static void
count_messages(struct hub *hub)
{
	if (hub->messages == 0)
		return;
	counter_add(COUNTER_MESSAGES, hub->messages);
	hub->message_at = hub->heard_at;
	hub->messages = 0;
}

/* Reads once, and fans out all that came in whole. NULL, or why the link is of no more use. */
static const char *
link_read(struct hub *hub)
{
	const char *error = NULL;
	void *r;
	ssize_t n;

	n = valkey_read(hub->link, hub->input, READ_SIZE);
	hub->unread = n == READ_SIZE;
	if (n <= 0)
		return n == 0 ? NULL : hub->link->errstr;
	hub->heard_at = clock_ms();
	if (redisReaderFeed(hub->link->reader, hub->input, (size_t)n) != REDIS_OK)
		return hub->link->reader->errstr;
	while (error == NULL) {
		if (redisReaderGetReply(hub->link->reader, &r) != REDIS_OK) {
			error = hub->link->reader->errstr;
			break;
		}
		if (r == NULL)
			break;
		error = reply(hub, r);
		freeReplyObject(r);
	}
	fanout_flush(hub->fanout);
	count_messages(hub);
	if (error == NULL && hub->link->reader->len - hub->link->reader->pos > PENDING_MAX)
		error = "a message of more than 16 MiB";
	return error;
}

/* Sends what waits in the output buffer. NULL, or why the link is of no more use. */
static const char *
link_write(struct hub *hub)
{
	int done = 0;

	if (valkey_write(hub->link, &done) != REDIS_OK)
		return hub->link->errstr;
	hub->unsent = !done;
	return NULL;
}

static const char *
link_ping(struct hub *hub)
{
	int64_t silence = clock_ms() - hub->heard_at;

	if (silence >= SILENCE_MS)
		return "silent for 12 s";
	if (silence >= PING_MS && !hub->pinged) {
		if (redisAppendCommand(hub->link, "PING") != REDIS_OK)
			return "out of memory";
		hub->pinged = hub->unsent = true;
		hub->before_pong = channels_unanswered(hub->channels);
	}
	return NULL;
}

/* Waits for something to do, and does it. */
static void
turn(struct hub *hub)
{
	struct pollfd p[2] = { { .fd = hub->wake_fd, .events = POLLIN },
		{ .fd = hub->link != NULL ? hub->link->fd : -1, .events = POLLIN } };
	const char *error = NULL;
	uint64_t ignored;

	if (hub->unsent)
		p[1].events |= POLLOUT;
	poll(p, 2, STAILQ_EMPTY(&hub->newcomers) && !hub->unread ? TURN_MS : 0);
	hub->alive_at = clock_ms();
	if (p[0].revents != 0 && read(hub->wake_fd, &ignored, sizeof(ignored)) == -1 &&
	    errno != EAGAIN)
		LOG(LOG_LEVEL_ERROR, "valkey", "eventfd", LOG_STR("error", strerror(errno)));
	if (hub->link != NULL && (hub->unread || (p[1].revents & ~POLLOUT) != 0))
		error = link_read(hub);
	take_leaves(hub);
	hub->channel_count = channels_total(hub->channels);
	if (hub->link != NULL && error == NULL)
		error = link_ping(hub);
	if (hub->link != NULL && error == NULL && hub->unsent)
		error = link_write(hub);
	if (error != NULL)
		link_down(hub, error);
	if (p[0].revents != 0)
		dialer_read(hub);
}

static void
say_goodbye(struct hub *hub)
{
	if (hub->link == NULL)
		return;
	if (redisAppendCommand(hub->link, "UNSUBSCRIBE") == REDIS_OK)
		link_write(hub);
	redisFree(hub->link);
	hub->link = NULL;
}

static void *
hub_run(void *arg)
{
	struct hub *hub = arg;
	bool stopping = false;

	while (!stopping) {
		turn(hub);
		pthread_mutex_lock(&hub->lock);
		stopping = hub->stopping;
		pthread_mutex_unlock(&hub->lock);
	}
	say_goodbye(hub);
	pthread_mutex_lock(&hub->lock);
	hub->stopped = true;
	pthread_cond_signal(&hub->stop_done);
	pthread_mutex_unlock(&hub->lock);
	return NULL;
}

static bool
keep_revocations(struct hub *hub)
{
	char name[CHANNEL_NAME_SIZE];
	size_t length = channel_revoke(name, hub->settings->tenant);

	hub->revocations = channels_keep(hub->channels, name, length);
	return hub->revocations != NULL;
}

static bool
hub_init(struct hub *hub, const struct settings *s)
{
	hub->settings = s;
	pthread_mutex_init(&hub->lock, NULL);
	thread_cond_init(&hub->stop_done);
	STAILQ_INIT(&hub->joining);
	STAILQ_INIT(&hub->leaving);
	STAILQ_INIT(&hub->newcomers);
	STAILQ_INIT(&hub->narrowing);
	hub->alive_at = hub->message_at = clock_ms();
	hub->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	hub->input = malloc(READ_SIZE);
	hub->channels = channels_new(command, hub);
	/* A record that is partly sent must fit into a backlog. */
	hub->fanout = fanout_new((size_t)s->backlog_bytes, take_joins, hub);
	return hub->wake_fd != -1 && hub->input != NULL && hub->channels != NULL &&
	    hub->fanout != NULL && keep_revocations(hub);
}

struct hub *
hub_start(const struct settings *s, struct servers *servers, hub_revoked *revoked, void *arg)
{
	struct hub *hub;

	hub = calloc(1, sizeof(*hub));
	if (hub == NULL)
		return NULL;
	hub->revoked = revoked;
	hub->revoked_arg = arg;
	/* The process ends when this fails: nothing is undone. */
	if (!hub_init(hub, s))
		return NULL;
	hub->dialer = dialer_start(servers, hub->wake_fd);
	if (hub->dialer == NULL || thread_start(THREAD_LARGE, hub_run, hub) != 0)
		return NULL;
	return hub;
}

bool
hub_away(struct hub *hub)
{
	return hub->away;
}

bool
hub_working(struct hub *hub)
{
	return clock_ms() - hub->alive_at < STUCK_MS;
}

void
hub_look(struct hub *hub, struct hub_view *view)
{
	view->state = hub->connected ? HUB_CONNECTED : hub->away ? HUB_AWAY : HUB_CONNECTING;
	view->channels = hub->channel_count;
	view->message_at = hub->message_at;
}

struct subscription *
hub_join(struct hub *hub, struct stream *stream, char *names, int count,
    void (*begin)(struct stream *stream))
{
	struct subscription *sub;
	bool first;

	sub = calloc(1, sizeof(*sub) + (size_t)count * sizeof(sub->members[0]));
	if (sub == NULL) {
		free(names);
		return NULL;
	}
	sub->hub = hub;
	sub->stream = stream_hold(stream);
	sub->begin = begin;
	sub->names = names;
	sub->count = count;
	pthread_mutex_lock(&hub->lock);
	first = STAILQ_EMPTY(&hub->joining);
	STAILQ_INSERT_TAIL(&hub->joining, sub, join_link);
	pthread_mutex_unlock(&hub->lock);
	if (first)
		thread_wake(hub->wake_fd);
	return sub;
}

bool
hub_leave_some(struct subscription *sub, char *names, int count)
{
	struct hub *hub = sub->hub;
	struct narrowing *n;

	n = malloc(sizeof(*n));
	if (n == NULL) {
		free(names);
		return false;
	}
	*n = (struct narrowing){ .subscription = sub, .names = names, .count = count };
	pthread_mutex_lock(&hub->lock);
	STAILQ_INSERT_TAIL(&hub->narrowing, n, link);
	pthread_mutex_unlock(&hub->lock);
	thread_wake(hub->wake_fd);
	return true;
}

void
hub_leave(struct subscription *sub)
{
	struct hub *hub = sub->hub;
	bool first;

	pthread_mutex_lock(&hub->lock);
	first = STAILQ_EMPTY(&hub->leaving);
	STAILQ_INSERT_TAIL(&hub->leaving, sub, leave_link);
	pthread_mutex_unlock(&hub->lock);
	if (first)
		thread_wake(hub->wake_fd);
}

void
hub_stop(struct hub *hub, int timeout_ms)
{
	int64_t deadline = clock_ms() + timeout_ms;

	pthread_mutex_lock(&hub->lock);
	hub->stopping = true;
	thread_wake(hub->wake_fd);
	while (!hub->stopped && thread_cond_wait(&hub->stop_done, &hub->lock, deadline))
		continue;
	pthread_mutex_unlock(&hub->lock);
}
