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

/*
 * Before sleeping at least this long, the thread returns the unused pages of its stack, unless it
 * has only sent heartbeats.
 */
#define TRIM_MS 1000

static void
log_stream(const struct connection *c, enum log_level level, const char *message)
{
	LOG(level, c->topic->tag, message, LOG_STR("tenantId", c->registry->settings->tenant),
	    LOG_STR("userId", c->user));
}

static void THREAD_STEP
log_slow(const struct connection *c, const char *message)
{
	static struct log_limit limit;
	uint32_t suppressed;

	if (log_allowed(&limit, 1000, &suppressed))
		LOG(LOG_LEVEL_WARN, c->topic->tag, message,
		    LOG_STR("tenantId", c->registry->settings->tenant), LOG_STR("userId", c->user),
		    LOG_INT("suppressed", suppressed));
}

static void
end_stream(struct connection *c, enum metric_ended reason, const char *closing_event)
{
	if (c->live.ended == -1)
		c->live.ended = reason;
	stream_finish(c->stream, closing_event);
}

static void THREAD_STEP
handle_marks(struct connection *c, unsigned marks, int64_t now)
{
	if (marks & STREAM_OVER) {
		caps_ping(c->caps, &c->slot);
		c->live.cap_ping_at = now + CAPS_PING_MS;
		c->live.cap_evict_at = now + CAPS_SETTLE_MS;
	}
	if (marks & STREAM_EVICTED) {
		c->live.ended = ENDED_EVICTED;
		log_stream(c, LOG_LEVEL_INFO, "evicted");
	}
	if (marks & STREAM_SLOW)
		log_slow(c, "slow reader, events dropped");
	/* A sync that is due covers this loss, too; further losses must not postpone it. */
	if ((marks & STREAM_CONFIRMED) && c->live.sync_at == NEVER)
		c->live.sync_at = now +
		    clock_jitter(0, (uint32_t)c->registry->settings->sync_spread_ms);
	if (marks & STREAM_REVOKED)
		recheck_revoked(c, marks & STREAM_MANY, now);
	if (marks & STREAM_REFUSED) {
		/* The browser reconnects, and then gets a stream or "retry later". */
		log_stream(c, LOG_LEVEL_WARN, "subscription lost");
		end_stream(c, ENDED_REFUSED, "");
	}
}

static void
handle_time(struct connection *c, int64_t now)
{
	if (now >= c->live.end_at)
		end_stream(c, ENDED_AGE, "");
	if (now >= c->live.sync_at) {
		c->live.sync_at = NEVER;
		stream_send_text(c->stream, STREAM_SYNC);
	}
	if (now >= c->live.cap_ping_at) {
		c->live.cap_ping_at = NEVER;
		caps_ping(c->caps, &c->slot);
	}
	if (now >= c->live.cap_evict_at)
		c->live.cap_evict_at = caps_evict(c->caps, &c->slot);
	c->live.recheck_at = recheck_turn(c, now);
}

static int64_t
earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t
earliest(const struct connection *c)
{
	return earlier(earlier(c->live.end_at, c->live.sync_at),
	    earlier(earlier(c->live.cap_ping_at, c->live.cap_evict_at), c->live.recheck_at));
}

/* Does everything that is due; *wait_until gets the next deadline. False: the stream has ended. */
static bool THREAD_STEP
turn(struct connection *c, int64_t *wait_until)
{
	const struct settings *s = c->registry->settings;
	struct stream_view view;
	int64_t now = clock_ms(), heartbeat_at = NEVER, stall_at, since;

	stream_look(c->stream, &view);
	if (view.marks != 0 || now >= earliest(c))
		c->live.grown = true;
	if (view.marks != 0)
		handle_marks(c, view.marks, now);
	if (c->peer.gone || view.broken || view.finished) {
		/* Only a re-check or a revocation finishes it without setting ended. */
		if (c->live.ended == -1)
			c->live.ended = c->peer.gone || view.broken ?
			    ENDED_CLOSED : ENDED_REVOKED;
		return false;
	}
	if (c->registry->draining) {
		end_stream(c, ENDED_DRAINED, "event: shutdown\ndata: {}\n\n");
		return false;
	}
	/*
	 * An event does not wake this thread, so check again later even if nothing waits to be read
	 * now.
	 */
	since = stream_untaken_since(c->stream, now);
	stall_at = since != 0 ? since + s->stall_ms : now + s->stall_ms / 2;
	if (now >= stall_at) {
		log_slow(c, "stalled reader closed");
		c->live.ended = ENDED_STALLED;
		return false;
	}
	handle_time(c, now);
	/* While the backlog is not empty, its data serves as the heartbeat. */
	if (!view.pending)
		heartbeat_at = view.last_sent + s->heartbeat_ms;
	if (now >= heartbeat_at) {
		stream_ping(c->stream);
		heartbeat_at = now + s->heartbeat_ms;
	}
	*wait_until = earlier(earliest(c), earlier(heartbeat_at, stall_at));
	return true;
}

void
live_run(struct connection *c, unsigned marks)
{
	const struct settings *s = c->registry->settings;
	int64_t now = clock_ms(), wait_until;

	c->live = (struct live){ .ended = -1, .grown = true, .end_at = NEVER, .sync_at = NEVER,
		.cap_ping_at = NEVER, .cap_evict_at = NEVER };
	if (s->max_age_seconds > 0)
		c->live.end_at = c->slot.live_at + clock_jitter((uint32_t)s->max_age_seconds * 800,
		    (uint32_t)s->max_age_seconds * 1200);
	handle_marks(c, marks, now);
	while (turn(c, &wait_until)) {
		/* In a build with large frames, heartbeats may keep one page more. */
		if (c->live.grown && wait_until - clock_ms() >= TRIM_MS)
			c->live.grown = thread_trim_stack();
		/* A signal, which ends the wait early, uses the stack, too. */
		if (peer_wait(&c->peer, wait_until) || clock_ms() < wait_until)
			c->live.grown = true;
	}
	metric_add_kind(METRIC_ENDED, (int)c->topic->kind, c->live.ended);
}
