/* SPDX-License-Identifier: ISC */
/*
 * stream: writes to one peer without blocking, from any thread.
 *
 * A stream belongs to the thread of its connection, its owner. Any thread may send an event, leave
 * a mark for the owner or finish the stream; only the owner waits, flushes and closes. Bytes that
 * the socket does not take are kept in the backlog: the rest of a partly sent FastCGI record, then
 * whole records. The owner sends them when the socket has room. When the backlog is full, all but
 * the rest of the partly sent record is replaced by one `sync`.
 *
 * No event is sent before stream_start(), which the subscriber calls, or after stream_finish().
 */
#ifndef TPI_STREAM_STREAM_H
#define TPI_STREAM_STREAM_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What other threads report to the owner, which takes all marks at once with stream_look(). */
enum stream_mark {
	STREAM_CONFIRMED = 1 << 0, /* all subscriptions are confirmed again after a loss */
	STREAM_REFUSED = 1 << 1,   /* Valkey refused a subscription or is unreachable; no memory */
	STREAM_CANCELLED = 1 << 2, /* the user no longer has a slot for this request */
	STREAM_EVICTED = 1 << 3,   /* evicted; the closing event is queued */
	STREAM_SLOW = 1 << 4,      /* the backlog has overflowed since the last stream_look() */
	STREAM_FLUSH = 1 << 5,     /* the backlog is no longer empty */
	STREAM_ANSWERED = 1 << 6,  /* the application client has a result */
	STREAM_OVER = 1 << 7,      /* the stream has started and its user is over the cap */
	STREAM_REVOKED = 1 << 8,   /* re-check whether the user has access, or end the stream */
	STREAM_MANY = 1 << 9       /* with STREAM_REVOKED: many streams are; spread the re-checks */
};

/* These stay set until the stream has started; starting it then wakes the owner. */
#define STREAM_LASTING_MARKS (STREAM_REVOKED | STREAM_MANY)

/* Ends an owner's wait. Blocked in every thread, except in stream_wait(). */
#define STREAM_WAKE_SIGNAL SIGURG

/* The fields that a fan-out uses come first, to share cache lines. */
struct stream {
	pthread_mutex_t lock;

	/* Used by fanout.c only: the events of the current batch for this stream. */
	struct fanout_delivery *first, *last;

	/* Guarded by lock. */
	int fd;       /* -1 once closed */
	uint16_t id;  /* set before any other thread knows the stream, as is labelled */
	bool labelled; /* its wake-ups carry the labels of their channels */
	bool started; /* set by the subscriber's thread only, which reads it without the lock */
	bool finished;
	bool broken;  /* a send has failed because the peer is gone, or memory ran out */
	bool starved; /* the last send failed because the kernel had no memory */
	uint32_t backlog_length;

	/* Wake-ups accepted so far. Only the subscriber's thread changes it; any may read it. */
	_Atomic uint32_t events;

	/* Guarded by lock. */
	int64_t last_sent;     /* clock_ms() of the last byte */
	int64_t untaken_since; /* see stream_untaken_since() */

	/* Guarded by lock. */
	uint8_t *backlog; /* up to backlog_max, and the closing event or response */
	uint32_t backlog_size;
	uint32_t rest;  /* bytes at the start of the backlog that complete a partly sent record */
	unsigned marks; /* bits of enum stream_mark */
	int untaken;    /* bytes that the kernel held at untaken_since */
	int64_t started_at; /* clock_ms() of stream_start() */

	_Atomic int references;

	/* Set before any other thread knows the stream. */
	uint32_t backlog_max; /* bytes, including record headers */
	/*
	 * An entry of TPI_ALLOWED_ORIGINS, up to its comma: the page's origin, if it is listed. NULL
	 * if it is not.
	 */
	const char *allowed_origin;
	pthread_t owner;
	struct caps *caps; /* the caps that slot belongs to */

	/* Set while the request is pending and may still start; guarded by the lock of caps. */
	struct caps_entry *slot;
};

/*
 * Sets the handler of STREAM_WAKE_SIGNAL and blocks it in the calling thread. Call it once, before
 * other threads start: they inherit the mask.
 */
void stream_signal_init(void);

/*
 * Creates a stream on fd, which the caller still has to close. The caller owns one reference. An
 * empty backlog has room for a record with backlog_bytes of content. NULL: no memory.
 */
struct stream *stream_new(int fd, uint32_t backlog_bytes);
/* Makes the calling thread the owner. Call it before any other thread knows the stream. */
void stream_adopt(struct stream *s);
/* Adds a reference and returns s; drops one, and frees the stream with the last. Any thread. */
struct stream *stream_hold(struct stream *s);
void stream_release(struct stream *s);

/* Sets the request id of its records. Owner only, before any other thread knows the stream. */
void stream_set_id(struct stream *s, uint16_t id);

/*
 * Sends text, the head of the 200 and the first event, which an overflow does not drop. From now on
 * events are sent. Returns false if the stream is finished already. Subscriber's thread only.
 */
bool stream_start(struct stream *s, const char *text);

/*
 * Sends a STDOUT record of one or more whole events; its request id is corrected in place. now is
 * clock_ms(). Returns false, and drops the record, if the stream is not started, finished or
 * broken. Any thread.
 */
bool stream_send(struct stream *s, uint8_t *record, size_t length, int64_t now);

/* The same for a text of at most 512 bytes: one or more whole events or comments. Any thread. */
bool stream_send_text(struct stream *s, const char *text);

/* The same for STREAM_PING. It uses little of the stack, see thread_trim_stack(). Any thread. */
bool stream_ping(struct stream *s);

/*
 * Sends whole records that are not events: replies of the FastCGI protocol. Returns false if the
 * stream is finished or broken, or the backlog has no room. Owner only.
 */
bool stream_send_raw(struct stream *s, const uint8_t *bytes, size_t length);

/*
 * Queues a text of any length and the end of the request: the closing event of a stream ("" for
 * none), or a complete response. It follows what is in the backlog, whose limit does not apply to
 * it. Only the first call has an effect. Any thread.
 */
void stream_finish(struct stream *s, const char *text);

/* Sets marks, and wakes the owner if one of them is new. Any thread. */
void stream_mark(struct stream *s, unsigned marks);

/* Gets the state and clears the marks, except STREAM_LASTING_MARKS (see there). Owner only. */
struct stream_view {
	unsigned marks;
	bool started;
	bool broken;
	bool finished;
	bool pending; /* the backlog is not empty */
	int64_t last_sent;
};
void stream_look(struct stream *s, struct stream_view *view);

/* Gets what monitoring reports about an open stream; false if it is not open. Any thread. */
struct stream_stats {
	int64_t started_at; /* clock_ms() */
	uint32_t events;    /* wake-ups sent or in the backlog */
	uint32_t backlog;   /* bytes */
};
bool stream_stats(struct stream *s, struct stream_stats *stats);

/* Sends as much of the backlog as the socket takes. Owner only. */
void stream_flush(struct stream *s);

/*
 * Waits until the peer has sent something or is gone, a mark is set, the socket has room for the
 * backlog, or the deadline (clock_ms()) has passed. Returns the socket's revents of poll(2), or 0.
 * Owner only.
 */
short stream_wait(struct stream *s, int64_t deadline);

/*
 * Returns since when (clock_ms()) the peer has read nothing although the kernel holds bytes for it
 * (SIOCOUTQ); 0 if nothing is left to read. Measured from the first call that finds unread bytes.
 * now is clock_ms(). Owner only.
 */
int64_t stream_untaken_since(struct stream *s, int64_t now);

/* Detaches the socket: nothing more is sent, and the owner may close fd. Owner only. */
void stream_close(struct stream *s);

/*
 * The 200 and its headers, for streams and for deferred requests, which get the same head
 * (tpi-stream(7), STREAM FORMAT).
 */
#define STREAM_HEADERS                                                                            \
	"Status: 200 OK\r\nContent-Type: text/event-stream\r\n"                                   \
	"Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n"
#define STREAM_HEAD      STREAM_HEADERS "\r\n"
#define STREAM_SYNC_LINE "data: {\"event\":\"sync\"}\n" /* for a block with more lines */
#define STREAM_SYNC      STREAM_SYNC_LINE "\n"
/* Without a blank line, which some clients would report as an empty message. */
#define STREAM_PING      ": ping\n"

#endif
