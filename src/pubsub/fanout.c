/* SPDX-License-Identifier: ISC */
/*
 * fanout: collects a batch of events and sends each stream its own. See fanout.h.
 *
 * Each stream in the batch has a list of deliveries, in the order of the events. Consecutive
 * streams with equal lists, as in a broadcast, share the bytes formatted for the first of them.
 *
 * An event is framed once, with its label in front if the channel has one. Labelled streams get the
 * whole frame, the others what follows the label; each of the two variants has its own records.
 */
#include "pubsub/fanout.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "wire/frame.h"
#include "wire/wakeup.h"

/* Limits of a batch; it is sent when it reaches one. */
#define EVENT_MAX    1024
#define FRAMES_MAX   (256 * 1024)
#define DELIVERY_MAX 65536

/* Streams are scattered in memory: prefetch each one this many streams ahead. */
#define AHEAD 4

/* Streams between two calls of yield(). */
#define YIELD_EVERY 64

struct event {
	size_t offset, length; /* of its frame in frames */
	size_t label_length;   /* of the frame's start, for labelled streams only */
};

struct fanout_delivery {
	struct fanout_delivery *next;
	uint32_t event;
};

/* The bytes for one stream and those after it that have the same deliveries. */
struct records {
	const struct fanout_delivery *deliveries; /* NULL: nothing formatted yet */
	uint8_t *bytes; /* records in a row */
	size_t length;
	uint32_t count, events; /* the number of records, and of events in them */
};

struct fanout {
	size_t record_max;
	void (*yield)(void *arg);
	void *arg;

	struct event events[EVENT_MAX];
	uint32_t event_count;
	uint8_t *frames; /* the frames of all events in a row: up to FRAMES_MAX */
	size_t frames_length;

	struct stream **streams; /* those with deliveries; room for delivery_size */
	size_t stream_count;
	struct fanout_delivery *deliveries; /* room for delivery_size: DELIVERY_MAX */
	size_t delivery_count, delivery_size;

	struct records records[2]; /* plain, labelled */
};

struct fanout *
fanout_new(size_t record_max, void (*yield)(void *arg), void *arg)
{
	struct fanout *f;

	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return NULL;
	f->record_max = record_max < FRAME_RECORD_MAX ? record_max : FRAME_RECORD_MAX;
	f->yield = yield;
	f->arg = arg;
	f->delivery_size = DELIVERY_MAX;
	f->frames = malloc(FRAMES_MAX);
	/* A record holds at least one event, so there are at most EVENT_MAX headers. */
	f->records[0].bytes = malloc(FRAMES_MAX + EVENT_MAX * FCGI_HEADER_LEN);
	f->records[1].bytes = malloc(FRAMES_MAX + EVENT_MAX * FCGI_HEADER_LEN);
	f->streams = malloc(f->delivery_size * sizeof(struct stream *));
	f->deliveries = malloc(f->delivery_size * sizeof(*f->deliveries));
	if (f->frames == NULL || f->records[0].bytes == NULL || f->records[1].bytes == NULL ||
	    f->streams == NULL || f->deliveries == NULL) {
		free(f->frames);
		free(f->records[0].bytes);
		free(f->records[1].bytes);
		free(f->streams);
		free(f->deliveries);
		free(f);
		return NULL;
	}
	return f;
}

/*
 * Skips streams that have not started: what was published before a stream's sync is not sent to it,
 * even if the sync is sent before this batch. The daemon may have left the channel and joined it
 * again in between, so there could be a gap between this event and the sync.
 */
static void
deliver(struct fanout *f, struct stream *s, uint32_t event)
{
	struct fanout_delivery *d;

	if (!s->started)
		return;
	d = &f->deliveries[f->delivery_count++];
	d->event = event;
	d->next = NULL;
	if (s->first == NULL) {
		f->streams[f->stream_count++] = s;
		s->first = d;
	} else
		s->last->next = d;
	s->last = d;
}

/* Adds an event's frame, with the label of its channel, if any. */
static void
add_event(struct fanout *f, const char *label, const char *payload, size_t length)
{
	struct event *e = &f->events[f->event_count];
	char *frame = (char *)f->frames + f->frames_length;

	e->offset = f->frames_length;
	e->label_length = label != NULL ? frame_label(frame, label) : 0;
	e->length = e->label_length + frame_event(frame + e->label_length, payload, length);
	f->frames_length += e->length;
}

void
fanout_add(struct fanout *f, struct channel *channel, const char *payload, size_t length)
{
	const struct channel_member *members;
	size_t count, done = 0, i;

	members = channel_members(channel, &count);
	if (f->event_count == EVENT_MAX || f->delivery_count + count > f->delivery_size ||
	    f->frames_length + FRAME_LABEL_MAX + WAKEUP_FRAME_MAX > FRAMES_MAX)
		fanout_flush(f);
	/* A channel with more members than a batch holds takes several batches. */
	while (done < count) {
		/* yield() may have moved the members during the flush. */
		members = channel_members(channel, &i);
		add_event(f, channel_label(channel), payload, length);
		for (i = done; i < count && f->delivery_count < f->delivery_size; i++) {
			if (i + AHEAD < count)
				__builtin_prefetch(&members[i + AHEAD].stream->first, 1);
			deliver(f, members[i].stream, f->event_count);
		}
		f->event_count++;
		done = i;
		if (done < count)
			fanout_flush(f);
	}
}

static bool
same_deliveries(const struct fanout_delivery *a, const struct fanout_delivery *b)
{
	for (; a != NULL && b != NULL; a = a->next, b = b->next)
		if (a->event != b->event)
			return false;
	return a == b;
}

/* Formats a stream's events into records of up to record_max. */
static void
format(struct fanout *f, struct records *r, const struct fanout_delivery *d, bool labelled)
{
	uint8_t *header = r->bytes, *at = header + FCGI_HEADER_LEN;
	const struct event *e;
	size_t content = 0, skip, length;

	r->deliveries = d;
	r->count = 1;
	r->events = 0;
	for (; d != NULL; d = d->next) {
		e = &f->events[d->event];
		skip = labelled ? 0 : e->label_length;
		length = e->length - skip;
		if (content > 0 && content + length > f->record_max) {
			frame_record(header, FCGI_STDOUT, 1, content);
			header = at;
			r->count++;
			at += FCGI_HEADER_LEN;
			content = 0;
		}
		memcpy(at, f->frames + e->offset + skip, length);
		at += length;
		content += length;
		r->events++;
	}
	frame_record(header, FCGI_STDOUT, 1, content);
	r->length = (size_t)(at - r->bytes);
}

/* The records for a stream: the last ones of its variant, if its deliveries are the same. */
static const struct records *
records_for(struct fanout *f, const struct stream *s)
{
	struct records *r = &f->records[s->labelled];

	if (r->deliveries == NULL || !same_deliveries(s->first, r->deliveries))
		format(f, r, s->first, s->labelled);
	return r;
}

/* Returns whether the stream accepted all of them. */
static bool
send_records(const struct records *r, struct stream *s, int64_t now)
{
	uint8_t *at = r->bytes, *end = at + r->length;
	size_t length;
	bool taken = true;

	for (; at != end; at += length) {
		length = FCGI_HEADER_LEN + ((size_t)at[4] << 8 | at[5]);
		taken &= stream_send(s, at, length, now);
	}
	return taken;
}

/* Without an atomic addition, which costs more: no other thread changes the count. */
static void
count_events(struct stream *s, uint32_t count)
{
	count += atomic_load_explicit(&s->events, memory_order_relaxed);
	atomic_store_explicit(&s->events, count, memory_order_relaxed);
}

void
fanout_flush(struct fanout *f)
{
	const struct records *r;
	struct stream *s;
	int64_t now = clock_ms(), started = clock_us();
	uint64_t sent = 0, merged = 0;
	size_t i;

	if (f->event_count == 0)
		return;
	for (i = 0; i < f->stream_count; i++) {
		s = f->streams[i];
		if (i + AHEAD < f->stream_count)
			__builtin_prefetch(f->streams[i + AHEAD], 1);
		r = records_for(f, s);
		if (send_records(r, s, now)) {
			sent += r->events;
			count_events(s, r->events);
			merged += r->events - r->count;
		}
		s->first = s->last = NULL;
		if (i % YIELD_EVERY == YIELD_EVERY - 1) {
			f->yield(f->arg);
			now = clock_ms();
		}
	}
	f->records[0].deliveries = f->records[1].deliveries = NULL;
	f->stream_count = f->delivery_count = f->event_count = 0;
	f->frames_length = 0;
	metric_add(METRIC_SENT, sent);
	metric_add(METRIC_MERGED, merged);
	metric_observe(METRIC_FANOUT, (uint64_t)(clock_us() - started));
}
