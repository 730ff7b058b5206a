/* SPDX-License-Identifier: ISC */
/*
 * live: what the thread of an open stream does. It sends heartbeats, notices that the peer is gone,
 * and acts on the marks that other threads leave.
 *
 * Events do not pass through here: the subscriber's thread sends them. Everything timed is a
 * deadline, and the thread sleeps until the first of them.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "session/connection.h"

#define NEVER INT64_MAX

/* Before sleeping at least this long the thread returns the unused pages of its stack. */
#define TRIM_MS 1000

struct live {
	struct connection *c;
	const struct settings *settings;
	int ended; /* enum metric_ended; -1: not known yet */
	/* Deadlines, of clock_ms(). */
	int64_t end_at;      /* SSE_MAX_AGE_SECONDS */
	int64_t sync_at;     /* after a reconnect to Valkey */
	int64_t cap_ping_at; /* the second ping to the user's other streams */
	int64_t cap_evict_at;
	int64_t recheck_at;
};

static void
log_stream(const struct live *l, enum log_level level, const char *message)
{
	LOG(level, l->c->topic->tag, message, LOG_STR("tenantId", l->settings->tenant),
	    LOG_STR("userId", l->c->user));
}

static void
log_slow(const struct live *l, const char *message)
{
	static struct log_limit limit;
	uint32_t suppressed;

	if (log_allowed(&limit, 1000, &suppressed))
		LOG(LOG_LEVEL_WARN, l->c->topic->tag, message,
		    LOG_STR("tenantId", l->settings->tenant), LOG_STR("userId", l->c->user),
		    LOG_INT("suppressed", suppressed));
}

static void
end_stream(struct live *l, enum metric_ended reason, const char *closing_event)
{
	if (l->ended == -1)
		l->ended = reason;
	stream_finish(l->c->stream, closing_event);
}

static void
handle_marks(struct live *l, unsigned marks, int64_t now)
{
	if (marks & STREAM_OVER) {
		caps_ping(l->c->caps, &l->c->slot);
		l->cap_ping_at = now + CAPS_PING_MS;
		l->cap_evict_at = now + CAPS_SETTLE_MS;
	}
	if (marks & STREAM_EVICTED) {
		l->ended = ENDED_EVICTED;
		log_stream(l, LOG_LEVEL_INFO, "evicted");
	}
	if (marks & STREAM_SLOW)
		log_slow(l, "slow reader, events dropped");
	/* A sync that is due covers this loss, too; further losses must not postpone it. */
	if ((marks & STREAM_CONFIRMED) && l->sync_at == NEVER)
		l->sync_at = now + clock_jitter(0, (uint32_t)l->settings->sync_spread_ms);
	if (marks & STREAM_REVOKED)
		recheck_revoked(l->c, marks & STREAM_MANY, now);
	if (marks & STREAM_REFUSED) {
		/* The browser reconnects, and then gets a stream or "retry later". */
		log_stream(l, LOG_LEVEL_WARN, "subscription lost");
		end_stream(l, ENDED_REFUSED, "");
	}
}

static void
handle_time(struct live *l, int64_t now)
{
	struct connection *c = l->c;

	if (now >= l->end_at)
		end_stream(l, ENDED_AGE, "");
	if (now >= l->sync_at) {
		l->sync_at = NEVER;
		stream_send_text(c->stream, STREAM_SYNC);
	}
	if (now >= l->cap_ping_at) {
		l->cap_ping_at = NEVER;
		caps_ping(c->caps, &c->slot);
	}
	if (now >= l->cap_evict_at)
		l->cap_evict_at = caps_evict(c->caps, &c->slot);
	l->recheck_at = recheck_turn(c, now);
}

static int64_t
earliest(const struct live *l, int64_t heartbeat_at, int64_t stall_at)
{
	const int64_t deadlines[] = { l->end_at, l->sync_at, l->cap_ping_at, l->cap_evict_at,
		l->recheck_at, heartbeat_at, stall_at };
	int64_t first = NEVER;
	size_t i;

	for (i = 0; i < sizeof(deadlines) / sizeof(deadlines[0]); i++)
		if (deadlines[i] < first)
			first = deadlines[i];
	return first;
}

/* Does everything that is due; *wait_until gets the next deadline. False: the stream has ended. */
static bool THREAD_STEP
turn(struct live *l, int64_t *wait_until)
{
	struct connection *c = l->c;
	struct stream_view view;
	int64_t now = clock_ms(), heartbeat_at = NEVER, stall_at, since;

	stream_look(c->stream, &view);
	handle_marks(l, view.marks, now);
	if (c->peer.gone || view.broken || view.finished) {
		/* Only a re-check or a revocation finishes it without setting ended. */
		if (l->ended == -1)
			l->ended = c->peer.gone || view.broken ? ENDED_CLOSED : ENDED_REVOKED;
		return false;
	}
	if (c->registry->draining) {
		end_stream(l, ENDED_DRAINED, "event: shutdown\ndata: {}\n\n");
		return false;
	}
	/*
	 * An event does not wake this thread, so check again later even if nothing waits to be read
	 * now.
	 */
	since = stream_untaken_since(c->stream, now);
	stall_at = since != 0 ? since + l->settings->stall_ms : now + l->settings->stall_ms / 2;
	if (now >= stall_at) {
		log_slow(l, "stalled reader closed");
		l->ended = ENDED_STALLED;
		return false;
	}
	handle_time(l, now);
	/* While the backlog is not empty, its data serves as the heartbeat. */
	if (!view.pending)
		heartbeat_at = view.last_sent + l->settings->heartbeat_ms;
	if (now >= heartbeat_at) {
		stream_send_text(c->stream, STREAM_PING);
		heartbeat_at = now + l->settings->heartbeat_ms;
	}
	*wait_until = earliest(l, heartbeat_at, stall_at);
	return true;
}

void
live_run(struct connection *c, unsigned marks)
{
	const struct settings *s = c->registry->settings;
	int64_t now = clock_ms(), wait_until;
	struct live l = { .c = c, .settings = s, .ended = -1, .end_at = NEVER, .sync_at = NEVER,
		.cap_ping_at = NEVER, .cap_evict_at = NEVER };

	if (s->max_age_seconds > 0)
		l.end_at = c->slot.live_at + clock_jitter((uint32_t)s->max_age_seconds * 800,
		    (uint32_t)s->max_age_seconds * 1200);
	handle_marks(&l, marks, now);
	while (turn(&l, &wait_until)) {
		if (wait_until - clock_ms() >= TRIM_MS)
			thread_trim_stack();
		peer_wait(&c->peer, wait_until);
	}
	metric_add_kind(METRIC_ENDED, (int)c->topic->kind, l.ended);
}
