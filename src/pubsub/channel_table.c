/* SPDX-License-Identifier: ISC */
/* channel_table: the table of channels and the commands in flight. See channel_table.h. */
#include "pubsub/channel_table.h"

#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct channel {
	UT_hash_handle hh;
	struct channel_member *members;
	uint32_t count, size; /* of members: in use, allocated */
	uint32_t unanswered;  /* commands in flight for this channel */
	bool requested;       /* the last command was SUBSCRIBE, and was not refused */
	bool kept;            /* subscribed even without members */
	char *label;          /* NULL until a labelled stream has joined */
	char name[];
};

struct command {
	struct channel *channel;
	bool subscribe;
};

struct channel_table {
	channel_table_command *command;
	void *arg;
	bool up;
	struct channel *table;
	uint32_t kept_count;
	/* Ring of the commands in flight; the oldest is at head. */
	struct command *ring;
	size_t ring_size, ring_head, ring_count;
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
	return c;
}

static bool
ring_push(struct channel_table *c, struct channel *ch, bool subscribe)
{
	struct command *grown;
	size_t size, i;

	if (c->ring_count == c->ring_size) {
		size = c->ring_size != 0 ? c->ring_size * 2 : 64;
		grown = malloc(size * sizeof(*grown));
		if (grown == NULL)
			return false;
		for (i = 0; i < c->ring_count; i++)
			grown[i] = c->ring[(c->ring_head + i) % c->ring_size];
		free(c->ring);
		c->ring = grown;
		c->ring_size = size;
		c->ring_head = 0;
	}
	c->ring[(c->ring_head + c->ring_count++) % c->ring_size] =
	    (struct command){ .channel = ch, .subscribe = subscribe };
	return true;
}

/* Sends SUBSCRIBE or UNSUBSCRIBE if the channel needs it. False: no memory. */
static bool
send_wanted(struct channel_table *c, struct channel *ch)
{
	bool wanted = ch->count > 0 || ch->kept;

	if (!c->up || wanted == ch->requested)
		return true;
	if (!ring_push(c, ch, wanted))
		return false;
	if (!c->command(c->arg, wanted, ch->name, ch->hh.keylen)) {
		c->ring_count--;
		return false;
	}
	ch->requested = wanted;
	ch->unanswered++;
	return true;
}

static void
free_unused(struct channel_table *c, struct channel *ch)
{
	if (ch->count > 0 || ch->kept || ch->unanswered > 0 || ch->requested)
		return;
	HASH_DEL(c->table, ch);
	free(ch->label);
	free(ch->members);
	free(ch);
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
	ch->kept = true;
	c->kept_count++;
	return send_wanted(c, ch) ? ch : NULL;
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
	ch->members[ch->count++] = (struct channel_member){ m, m->subscription->stream };
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
	m->subscription = sub;
	if (!set_label(ch, label) || !add_member(ch, m)) {
		free_unused(c, ch);
		return false;
	}
	if (!confirmed(ch))
		sub->unconfirmed++;
	return send_wanted(c, ch);
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
	if (ch->count > 0)
		return;
	send_wanted(c, ch);
	free_unused(c, ch);
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

size_t
channel_table_unanswered(const struct channel_table *c)
{
	return c->ring_count;
}

const char *
channel_table_awaited(const struct channel_table *c)
{
	return c->ring_count > 0 ? c->ring[c->ring_head].channel->name : NULL;
}

bool
channel_table_answer(struct channel_table *c, const char *name, size_t length, bool refused)
{
	struct command command;
	struct channel *ch;
	uint32_t i;

	if (c->ring_count == 0)
		return false;
	command = c->ring[c->ring_head];
	ch = command.channel;
	if (name != NULL && (ch->hh.keylen != length || memcmp(ch->name, name, length) != 0))
		return false;
	c->ring_head = (c->ring_head + 1) % c->ring_size;
	c->ring_count--;
	ch->unanswered--;
	if (ch->unanswered > 0)
		return true;
	if (refused && command.subscribe) {
		ch->requested = false;
		for (i = 0; i < ch->count; i++)
			stream_mark(ch->members[i].stream, STREAM_REFUSED);
	} else if (confirmed(ch)) {
		for (i = 0; i < ch->count; i++) {
			ch->members[i].member->subscription->unconfirmed--;
			notify_if_confirmed(ch->members[i].member->subscription);
		}
	}
	free_unused(c, ch);
	return true;
}

bool
channel_table_up(struct channel_table *c)
{
	struct channel *ch, *next;

	c->up = true;
	HASH_ITER(hh, c->table, ch, next)
		if (!send_wanted(c, ch))
			return false;
	return true;
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
				ch->members[i].member->subscription->unconfirmed++;
		ch->requested = false;
		ch->unanswered = 0;
		free_unused(c, ch);
	}
}

void
channel_table_unreachable(struct channel_table *c)
{
	struct channel *ch, *next;
	uint32_t i;

	HASH_ITER(hh, c->table, ch, next)
		for (i = 0; i < ch->count; i++)
			if (!ch->members[i].member->subscription->confirmed_once)
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
