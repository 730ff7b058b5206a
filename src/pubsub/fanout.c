/* SPDX-License-Identifier: ISC */
/*
 * fanout: collects a batch of events and sends each stream its own. See fanout.h.
 *
 * Each stream in the batch has a list of deliveries, in the order of the events. Consecutive
 * streams with equal lists, as in a broadcast, share the bytes formatted for the first of them.
 */
#include "pubsub/fanout.h"

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
};

struct fanout_delivery {
	struct fanout_delivery *next;
	uint32_t event;
};

struct fanout {
	size_t record_max;
	void (*yield)(void *arg);
	void *arg;

	struct event events[EVENT_MAX];
	uint32_t event_count;
	uint8_t *frames; /* the frames of all events in a row */
	size_t frames_length;

	struct stream **streams; /* those with deliveries; room for delivery_size */
	size_t stream_count;
	struct fanout_delivery *deliveries;
	size_t delivery_count, delivery_size;

	uint8_t *records; /* for the current stream: records in a row */
	size_t records_length;
	uint32_t records_count, records_events; /* in records: the number of records and events */
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
	f->records = malloc(FRAMES_MAX + EVENT_MAX * FCGI_HEADER_LEN);
	f->streams = malloc(f->delivery_size * sizeof(struct stream *));
	f->deliveries = malloc(f->delivery_size * sizeof(*f->deliveries));
	if (f->frames == NULL || f->records == NULL || f->streams == NULL ||
	    f->deliveries == NULL) {
		free(f->frames);
		free(f->records);
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

void
fanout_add(struct fanout *f, struct channel *channel, const char *payload, size_t length)
{
	struct event *e;
	const struct channel_member *members;
	size_t count, done = 0, i;

	members = channel_members(channel, &count);
	if (f->event_count == EVENT_MAX || f->delivery_count + count > f->delivery_size ||
	    f->frames_length + WAKEUP_FRAME_MAX > FRAMES_MAX)
		fanout_flush(f);
	/* A channel with more members than a batch holds takes several batches. */
	while (done < count) {
		/* yield() may have moved the members during the flush. */
		members = channel_members(channel, &i);
		e = &f->events[f->event_count];
		e->offset = f->frames_length;
		e->length = frame_event((char *)f->frames + f->frames_length, payload, length);
		f->frames_length += e->length;
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
format(struct fanout *f, const struct fanout_delivery *d)
{
	uint8_t *header = f->records, *at = header + FCGI_HEADER_LEN;
	const struct event *e;
	size_t content = 0;

	f->records_count = 1;
	f->records_events = 0;
	for (; d != NULL; d = d->next) {
		e = &f->events[d->event];
		if (content > 0 && content + e->length > f->record_max) {
			frame_record(header, FCGI_STDOUT, 1, content);
			header = at;
			f->records_count++;
			at += FCGI_HEADER_LEN;
			content = 0;
		}
		memcpy(at, f->frames + e->offset, e->length);
		at += e->length;
		content += e->length;
		f->records_events++;
	}
	frame_record(header, FCGI_STDOUT, 1, content);
	f->records_length = (size_t)(at - f->records);
}

/* Returns whether the stream accepted all of them. */
static bool
send_records(struct fanout *f, struct stream *s, int64_t now)
{
	uint8_t *at = f->records, *end = at + f->records_length;
	size_t length;
	bool taken = true;

	for (; at != end; at += length) {
		length = FCGI_HEADER_LEN + ((size_t)at[4] << 8 | at[5]);
		taken &= stream_send(s, at, length, now);
	}
	return taken;
}

void
fanout_flush(struct fanout *f)
{
	const struct fanout_delivery *formatted = NULL;
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
		if (formatted == NULL || !same_deliveries(s->first, formatted)) {
			format(f, s->first);
			formatted = s->first;
		}
		if (send_records(f, s, now)) {
			sent += f->records_events;
			merged += f->records_events - f->records_count;
		}
		s->first = s->last = NULL;
		if (i % YIELD_EVERY == YIELD_EVERY - 1) {
			f->yield(f->arg);
			now = clock_ms();
		}
	}
	f->stream_count = f->delivery_count = f->event_count = 0;
	f->frames_length = 0;
	metric_add(METRIC_SENT, sent);
	metric_add(METRIC_MERGED, merged);
	metric_observe(METRIC_FANOUT, (uint64_t)(clock_us() - started));
}
