/* SPDX-License-Identifier: ISC */
/* channel_table: the table of channels and the commands in flight. See channel_table.h. */
#include "pubsub/channel_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash_table.h"

/* What is to be sent for a channel. */
enum queue { QUEUE_NONE, QUEUE_SUBSCRIBE, QUEUE_UNSUBSCRIBE };

struct channel {
	UT_hash_handle hh;
	struct channel_member *members; /* each is a stream, so the caps bound them */
	uint32_t count, size; /* of members: in use, allocated */
	uint32_t unanswered;  /* commands in flight for this channel */
	bool requested;       /* the last command was SUBSCRIBE, and was not refused */
	bool kept;            /* subscribed even without members */
	char *label;          /* NULL until a labelled stream has joined */
	bool alone;           /* a command has no other channel */
	enum queue queue;
	TAILQ_ENTRY(channel) link; /* in queues[queue] */
	int64_t since;             /* when it was queued, for QUEUE_UNSUBSCRIBE */
	char name[];
};
TAILQ_HEAD(channel_queue, channel);

struct in_flight {
	struct channel *channel;
	bool subscribe;
	bool alone; /* the only channel of its command */
	bool last;  /* the last channel of its command */
};

struct channel_table {
	channel_table_command *command;
	void *arg;
	bool up;
	/* The channels of all subscriptions, and lingering ones; subscriber_join() bounds both. */
	struct channel *table;
	uint32_t kept_count;
	/*
	 * Each has channels of the table. Those to unsubscribe are the lingering ones, the oldest
	 * first; the second array counts the channels.
	 */
	struct channel_queue queues[3];
	uint32_t queued[3];
	int64_t now;            /* of the last channel_table_send() */
	int64_t unsubscribe_at; /* none is unsubscribed before: one was refused */
	/* Ring of the channels in flight; the oldest is at head. */
	struct in_flight ring[CHANNEL_IN_FLIGHT_MAX];
	size_t ring_head, ring_count;
};

static bool
confirmed(const struct channel *ch)
{
	return ch->requested && ch->unanswered == 0;
}

struct channel_table *
channel_table_new(channel_table_command *command, void *arg)
{
	struct channel_table *c;

	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return NULL;
	c->command = command;
	c->arg = arg;
	for (size_t i = 0; i < sizeof(c->queues) / sizeof(c->queues[0]); i++)
		TAILQ_INIT(&c->queues[i]);
	return c;
}

static void
enqueue(struct channel_table *c, struct channel *ch, enum queue queue)
{
	if (ch->queue == queue)
		return;
	if (ch->queue != QUEUE_NONE) {
		TAILQ_REMOVE(&c->queues[ch->queue], ch, link);
		c->queued[ch->queue]--;
	}
	ch->queue = queue;
	if (queue == QUEUE_NONE)
		return;
	ch->since = c->now;
	TAILQ_INSERT_TAIL(&c->queues[queue], ch, link);
	c->queued[queue]++;
}

static void
free_unused(struct channel_table *c, struct channel *ch)
{
	if (ch->count > 0 || ch->kept || ch->unanswered > 0 || ch->requested)
		return;
	enqueue(c, ch, QUEUE_NONE);
	HASH_DEL(c->table, ch);
	free(ch->label);
	free(ch->members);
	free(ch);
}

/* Queues the channel for the command that it needs, if any; frees it if it is not needed at all. */
static void
settle(struct channel_table *c, struct channel *ch)
{
	bool needed = ch->count > 0 || ch->kept;

	if (needed && !ch->requested && c->up)
		enqueue(c, ch, QUEUE_SUBSCRIBE);
	else if (!needed && ch->requested)
		enqueue(c, ch, QUEUE_UNSUBSCRIBE);
	else
		enqueue(c, ch, QUEUE_NONE);
	free_unused(c, ch);
}

static struct channel *
find_or_add(struct channel_table *c, const char *name, size_t length)
{
	struct channel *ch = channel_table_find(c, name, length);

	if (ch != NULL)
		return ch;
	ch = calloc(1, sizeof(*ch) + length + 1);
	if (ch == NULL)
		return NULL;
	memcpy(ch->name, name, length);
	HASH_ADD_KEYPTR(hh, c->table, ch->name, length, ch);
	if (ch->hh.tbl == NULL) {
		free(ch);
		return NULL;
	}
	return ch;
}

struct channel *
channel_table_keep(struct channel_table *c, const char *name, size_t length)
{
	struct channel *ch = find_or_add(c, name, length);

	if (ch == NULL)
		return NULL;
	ch->kept = ch->alone = true;
	c->kept_count++;
	settle(c, ch);
	return ch;
}

struct subscription *
member_subscription(struct member *m)
{
	char *first = (char *)(m - m->position);

	return (void *)(first - offsetof(struct subscription, members));
}

static bool
add_member(struct channel *ch, struct member *m)
{
	uint32_t size = ch->size != 0 ? ch->size * 2 : 1;
	struct channel_member *grown;

	if (ch->count == ch->size) {
		grown = realloc(ch->members, size * sizeof(*grown));
		if (grown == NULL)
			return false;
		ch->members = grown;
		ch->size = size;
	}
	m->index = ch->count;
	m->channel = ch;
	ch->members[ch->count++] = (struct channel_member){ m, member_subscription(m)->stream };
	return true;
}

/* A channel has the same label for every stream that names one; NULL: none. False: no memory. */
static bool
set_label(struct channel *ch, const char *label)
{
	if (label != NULL && ch->label == NULL)
		ch->label = strdup(label);
	return label == NULL || ch->label != NULL;
}

static bool
join_one(struct channel_table *c, struct subscription *sub, struct member *m, const char *name,
    const char *label)
{
	struct channel *ch = find_or_add(c, name, strlen(name));

	if (ch == NULL)
		return false;
	m->position = (uint32_t)(m - sub->members);
	if (!set_label(ch, label) || !add_member(ch, m)) {
		free_unused(c, ch);
		return false;
	}
	if (!confirmed(ch))
		sub->unconfirmed++;
	settle(c, ch);
	return true;
}

static void
notify_if_confirmed(struct subscription *sub)
{
	if (sub->unconfirmed > 0)
		return;
	if (sub->confirmed_once)
		stream_mark(sub->stream, STREAM_CONFIRMED);
	else {
		sub->confirmed_once = true;
		sub->begin(sub->stream);
	}
}

void
channel_table_join(struct channel_table *c, struct subscription *sub)
{
	const char *name = sub->names, *label = NULL;
	int i;

	for (i = 0; i < sub->count; i++) {
		if (sub->stream->labelled)
			label = name + strlen(name) + 1;
		if (!join_one(c, sub, &sub->members[i], name, label))
			break;
		name = label != NULL ? label : name;
		name += strlen(name) + 1;
	}
	free(sub->names);
	sub->names = NULL;
	if (i < sub->count) {
		/* Never 0 again: it is not in all of its channels, so it is never confirmed. */
		sub->unconfirmed++;
		stream_mark(sub->stream, STREAM_REFUSED);
	} else
		notify_if_confirmed(sub);
}

static void
leave_one(struct channel_table *c, struct member *m)
{
	struct channel *ch = m->channel;

	if (ch == NULL)
		return;
	ch->members[m->index] = ch->members[--ch->count];
	ch->members[m->index].member->index = m->index;
	m->channel = NULL;
	/* While others are left, a refused channel waits for the next join to be tried again. */
	if (ch->count == 0)
		settle(c, ch);
}

void
channel_table_leave_some(struct channel_table *c, struct subscription *sub, const char *names,
    int count)
{
	struct channel *ch;
	bool unconfirmed;
	int i, m = 0, tried;

	for (i = 0; i < count; i++, names += strlen(names) + 1) {
		ch = channel_table_find(c, names, strlen(names));
		if (ch == NULL)
			continue;
		/*
		 * Names are in the order of the members: continue the search where the last one
		 * ended.
		 */
		for (tried = 0; tried < sub->count && sub->members[m].channel != ch; tried++)
			m = (m + 1) % sub->count;
		if (tried == sub->count)
			continue;
		unconfirmed = !confirmed(ch);
		leave_one(c, &sub->members[m]);
		if (unconfirmed) {
			sub->unconfirmed--;
			notify_if_confirmed(sub);
		}
	}
}

void
channel_table_leave(struct channel_table *c, struct subscription *sub)
{
	int i;

	for (i = 0; i < sub->count; i++)
		leave_one(c, &sub->members[i]);
	stream_release(sub->stream);
	free(sub->names);
	free(sub);
}

/* Whether the first channel of the queue may be sent now. */
static bool
is_due(const struct channel_table *c, enum queue queue, int64_t now)
{
	const struct channel *ch = TAILQ_FIRST(&c->queues[queue]);

	if (ch == NULL || c->ring_count == CHANNEL_IN_FLIGHT_MAX)
		return false;
	if (queue == QUEUE_SUBSCRIBE)
		return true;
	return now >= c->unsubscribe_at &&
	    (c->queued[queue] > CHANNEL_LINGER_MAX || now - ch->since >= CHANNEL_LINGER_MS);
}

/* Moves the first channel of the queue to those in flight. */
static struct channel *
take_first(struct channel_table *c, enum queue queue)
{
	struct channel *ch = TAILQ_FIRST(&c->queues[queue]);

	enqueue(c, ch, QUEUE_NONE);
	ch->requested = queue == QUEUE_SUBSCRIBE;
	ch->unanswered++;
	c->ring[(c->ring_head + c->ring_count++) % CHANNEL_IN_FLIGHT_MAX] = (struct in_flight){
		.channel = ch, .subscribe = ch->requested };
	return ch;
}

/* Sends one command, if any is due. *bytes: adds those of its names. False: no memory. */
static bool
send_batch(struct channel_table *c, enum queue queue, int64_t now, size_t *bytes)
{
	const char *names[CHANNEL_BATCH_MAX];
	size_t lengths[CHANNEL_BATCH_MAX];
	struct in_flight *last;
	struct channel *ch;
	bool alone = false;
	int n = 0;

	while (n < CHANNEL_BATCH_MAX && !alone && is_due(c, queue, now)) {
		alone = TAILQ_FIRST(&c->queues[queue])->alone;
		if (alone && n > 0)
			break;
		ch = take_first(c, queue);
		names[n] = ch->name;
		lengths[n] = ch->hh.keylen;
		*bytes += lengths[n++];
	}
	if (n == 0)
		return true;
	last = &c->ring[(c->ring_head + c->ring_count - 1) % CHANNEL_IN_FLIGHT_MAX];
	last->last = true;
	last->alone = n == 1;
	return c->command(c->arg, queue == QUEUE_SUBSCRIBE, n, names, lengths);
}

bool
channel_table_ready(const struct channel_table *c, int64_t now)
{
	return c->up && (is_due(c, QUEUE_SUBSCRIBE, now) || is_due(c, QUEUE_UNSUBSCRIBE, now));
}

bool
channel_table_send(struct channel_table *c, int64_t now, size_t bytes)
{
	size_t sent = 0;

	c->now = now;
	/* In turn, so that a storm of joins cannot keep lingering channels from being freed. */
	while (sent < bytes && channel_table_ready(c, now))
		if (!send_batch(c, QUEUE_SUBSCRIBE, now, &sent) ||
		    !send_batch(c, QUEUE_UNSUBSCRIBE, now, &sent))
			return false;
	return true;
}

size_t
channel_table_unanswered(const struct channel_table *c)
{
	return c->ring_count;
}

const char *
channel_table_awaited(const struct channel_table *c, bool *alone)
{
	if (c->ring_count == 0)
		return NULL;
	*alone = c->ring[c->ring_head].alone;
	return c->ring[c->ring_head].channel->name;
}

static struct in_flight
pop(struct channel_table *c)
{
	struct in_flight f = c->ring[c->ring_head];

	c->ring_head = (c->ring_head + 1) % CHANNEL_IN_FLIGHT_MAX;
	c->ring_count--;
	f.channel->unanswered--;
	return f;
}

static void
notify_confirmed(struct channel *ch)
{
	for (uint32_t i = 0; i < ch->count; i++) {
		member_subscription(ch->members[i].member)->unconfirmed--;
		notify_if_confirmed(member_subscription(ch->members[i].member));
	}
}

/* A refused UNSUBSCRIBE leaves the channel subscribed. It is repeated, after a pause. */
static void
unsubscribe_refused(struct channel_table *c, struct channel *ch)
{
	c->unsubscribe_at = c->now + CHANNEL_LINGER_MS;
	ch->requested = true;
	settle(c, ch);
	notify_confirmed(ch);
}

static void
take_refusal(struct channel_table *c, const struct in_flight *f)
{
	struct channel *ch = f->channel;

	if (!f->alone)
		ch->alone = true;
	if (ch->unanswered > 0)
		return;
	if (!f->subscribe) {
		unsubscribe_refused(c, ch);
		return;
	}
	ch->requested = false;
	if (!f->alone) {
		settle(c, ch);
		return;
	}
	for (uint32_t i = 0; i < ch->count; i++)
		stream_mark(ch->members[i].stream, STREAM_REFUSED);
	free_unused(c, ch);
}

static void
take_confirmation(struct channel_table *c, const struct in_flight *f)
{
	struct channel *ch = f->channel;

	if (f->subscribe)
		ch->alone = ch->kept;
	if (confirmed(ch))
		notify_confirmed(ch);
	free_unused(c, ch);
}

size_t
channel_table_answer(struct channel_table *c, const char *name, size_t length, bool refused)
{
	const struct channel *ch;
	struct in_flight f;
	size_t popped = 0;

	if (c->ring_count == 0)
		return 0;
	ch = c->ring[c->ring_head].channel;
	if (name != NULL && (ch->hh.keylen != length || memcmp(ch->name, name, length) != 0))
		return 0;
	do {
		f = pop(c);
		popped++;
		if (refused)
			take_refusal(c, &f);
		else
			take_confirmation(c, &f);
	} while (refused && !f.last);
	return popped;
}

void
channel_table_up(struct channel_table *c)
{
	struct channel *ch, *next;

	c->up = true;
	c->unsubscribe_at = 0;
	HASH_ITER(hh, c->table, ch, next)
		settle(c, ch);
}

void
channel_table_down(struct channel_table *c)
{
	struct channel *ch, *next;
	uint32_t i;

	c->up = false;
	c->ring_count = 0;
	HASH_ITER(hh, c->table, ch, next) {
		if (confirmed(ch))
			for (i = 0; i < ch->count; i++)
				member_subscription(ch->members[i].member)->unconfirmed++;
		ch->requested = false;
		ch->alone = ch->kept;
		ch->unanswered = 0;
		settle(c, ch);
	}
}

void
channel_table_unreachable(struct channel_table *c)
{
	struct channel *ch, *next;
	uint32_t i;

	HASH_ITER(hh, c->table, ch, next)
		for (i = 0; i < ch->count; i++)
			if (!member_subscription(ch->members[i].member)->confirmed_once)
				stream_mark(ch->members[i].stream, STREAM_REFUSED);
}

uint32_t
channel_table_total(const struct channel_table *c)
{
	return HASH_COUNT(c->table) - c->kept_count;
}

struct channel *
channel_table_find(struct channel_table *c, const char *name, size_t length)
{
	struct channel *ch;

	HASH_FIND(hh, c->table, name, length, ch);
	return ch;
}

const char *
channel_label(const struct channel *ch)
{
	return ch->label;
}

const struct channel_member *
channel_members(struct channel *ch, size_t *count)
{
	*count = ch->count;
	return ch->members;
}
