/* SPDX-License-Identifier: ISC */
/*
 * stream_list: see stream_list.h.
 *
 * Lines are collected in a chunk, which fits in an empty backlog. A full chunk is sent, and the next
 * one is begun when the peer has taken all of it.
 */
#include "session/stream_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "session/topic.h"
#include "wire/frame.h"

#define CHUNK_MAX 16384 /* the least SSE_BACKLOG_BYTES */

/* The longest line: that many labels, quoted, with commas; the user; the rest. */
#define LIST_LINE_MAX (WATCH_LIST_MAX * (TOPIC_LABEL_SIZE + 3) + CHANNEL_ID_MAX + 256)

struct list {
	struct registry *registry;
	struct peer *peer;
	int64_t deadline;
	struct registry_view view;
	size_t used; /* of text, never more than CHUNK_MAX between two lines */
	char text[CHUNK_MAX + LIST_LINE_MAX];
	uint8_t record[FCGI_HEADER_LEN + CHUNK_MAX];
};

/* Waits until the peer has taken what was sent; false if the response has to be cut off. */
static bool THREAD_STEP
await_taken(const struct list *l)
{
	struct stream_view view;

	for (;;) {
		stream_look(l->peer->stream, &view);
		if (view.broken || l->peer->gone)
			return false;
		if (!view.pending)
			return true;
		if (clock_ms() >= l->deadline || l->registry->draining)
			return false;
		peer_wait(l->peer, l->deadline);
	}
}

/* Sends the first length bytes of the text, at most CHUNK_MAX. */
static bool
send_chunk(struct list *l, size_t length)
{
	size_t size = frame_stdout(l->record, l->peer->head.id, l->text, length);

	l->used -= length;
	memmove(l->text, l->text + length, l->used);
	return stream_send_raw(l->peer->stream, l->record, size) && await_taken(l);
}

static enum stream_kind
kind(const struct registry_view *v)
{
	int i = 0;

	if (v->stream->labelled)
		return KIND_COMBINED;
	while (v->watches.counts[i] == 0)
		i++;
	return topics[i].kind;
}

/* Adds the labels of all topics, the ones that wake-ups have on the combined stream. */
static char *
add_topics(char *at, const struct watch_list *watches)
{
	const int32_t *id = watches->ids, *end;
	const char *comma = "";
	char label[TOPIC_LABEL_SIZE];
	int i;

	for (i = 0; i < topic_count; i++) {
		for (end = id + watches->counts[i]; id < end; id++, comma = ",") {
			topic_label(&topics[i], *id, label);
			at += sprintf(at, "%s\"%s\"", comma, label);
		}
	}
	return at;
}

/* A user id has no character that JSON escapes (channel_id_valid()). */
static void
add_line(struct list *l, const struct stream_stats *stats)
{
	const struct registry_view *v = &l->view;
	char *at = l->text + l->used;

	at += sprintf(at, "{\"group\":\"%s\",\"user\":\"%s\",\"topics\":[", metric_kinds[kind(v)],
	    v->user);
	at = add_topics(at, &v->watches);
	at += sprintf(at, "],\"age\":%lld,\"events\":%u,\"backlog\":%u}\n",
	    (long long)(clock_ms() - stats->started_at) / 1000, stats->events, stats->backlog);
	l->used = (size_t)(at - l->text);
}

/* Adds a line for each open stream, and sends each full chunk; false if cut off. */
static bool
add_streams(struct list *l, struct registry_entry *place)
{
	struct stream_stats stats;

	while (registry_next(l->registry, place, &l->view)) {
		if (watch_list_total(&l->view.watches) > 0 &&
		    stream_stats(l->view.stream, &stats))
			add_line(l, &stats);
		stream_release(l->view.stream);
		while (l->used >= CHUNK_MAX)
			if (!send_chunk(l, CHUNK_MAX))
				return false;
	}
	return true;
}

bool
stream_list_send(struct registry *r, struct peer *peer, int64_t deadline)
{
	struct list *l = malloc(sizeof(*l)); /* too large for the stack of this thread */
	struct registry_entry place;
	bool complete;

	if (l == NULL)
		return false;
	l->registry = r;
	l->peer = peer;
	l->deadline = deadline;
	l->used = (size_t)sprintf(l->text, "Status: 200 OK\r\nCache-Control: no-store\r\n"
	    "Content-Type: application/x-ndjson\r\n\r\n");
	registry_walk(r, &place);
	complete = add_streams(l, &place) && send_chunk(l, l->used);
	registry_walk_end(r, &place);
	free(l);
	if (complete)
		stream_finish(peer->stream, "");
	return true;
}
