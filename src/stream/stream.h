/* SPDX-License-Identifier: ISC */
/*
 * stream: what may be written to one peer, by whom and when.
 *
 * A stream belongs to the thread of its connection, its owner. Any thread may send an event, leave
 * a mark for the owner or finish the stream; only the owner waits, flushes and closes. Writing
 * never blocks: what the socket does not take is kept in the backlog, as whole FastCGI records
 * behind the rest of the one that was partly sent, and the owner sends it when the socket has room.
 * When the backlog is full, what is not partly sent gives way to one `sync`.
 *
 * Nothing is sent before stream_start(), which is the subscriber's to call, and nothing is accepted after
 * stream_finish().
 */
#ifndef TPI_STREAM_STREAM_H
#define TPI_STREAM_STREAM_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What others tell the owner; it takes them all at once with stream_look(). */
enum stream_mark {
	STREAM_CONFIRMED = 1 << 0, /* every subscription is confirmed again */
	STREAM_REFUSED = 1 << 1,   /* Valkey refused a subscription, or is away, or memory is out */
	STREAM_CANCELLED = 1 << 2, /* the user has no slot for this request any more */
	STREAM_EVICTED = 1 << 3,   /* the last words of an evicted stream are queued */
	STREAM_SLOW = 1 << 4,      /* the backlog has overflowed since the last look */
	STREAM_FLUSH = 1 << 5,     /* the backlog is no longer empty */
	STREAM_ANSWERED = 1 << 6,  /* the application client has answered */
	STREAM_OVER = 1 << 7,      /* it has begun, and its user is over his cap */
	STREAM_REVOKED = 1 << 8,   /* re-check whether its user has access, or end it */
	STREAM_MANY = 1 << 9       /* with STREAM_REVOKED: many others do, so not at once */
};

/* Not cleared before the stream has begun; that wakes the owner then. */
#define STREAM_LASTING_MARKS (STREAM_REVOKED | STREAM_MANY)

/* The signal that ends an owner's wait; blocked in every thread but while an owner waits. */
#define STREAM_WAKE_SIGNAL SIGURG

/* What a fan-out touches comes first. */
struct stream {
	pthread_mutex_t lock;

	/* fanout.c's alone: what this stream gets of the batch at hand. */
	struct fanout_delivery *first, *last;

	/* Guarded by lock. */
	int fd; /* -1 once closed */
	uint16_t id; /* set before any other thread knows of the stream */
	bool started; /* set by the subscriber's thread alone, which may look without the lock */
	bool finished;
	bool broken;  /* a send has failed: the peer is gone */
	bool starved; /* the last send failed because the kernel had no memory */
	uint32_t backlog_length;
	int64_t last_sent;     /* clock_ms() of the last byte */
	int64_t untaken_since; /* see stream_untaken_since() */

	/* Guarded by lock. */
	uint8_t *backlog;
	uint32_t backlog_size;
	uint32_t rest;  /* bytes at the start of the backlog that end a partly sent record */
	unsigned marks; /* enum stream_mark, or-ed */
	int untaken;    /* bytes that the kernel held at untaken_since */

	_Atomic int references;

	/* Set before any other thread knows of the stream. */
	uint32_t backlog_max; /* bytes, headers of records included */
	pthread_t owner;
	struct caps *caps; /* that its place is of */

	/* Its place while it has not begun and may yet begin; guarded by the lock of caps. */
	struct caps_entry *slot;
};

/*
 * Blocks the wake-up signal, for the process, and sets its handler. Once, before any other thread.
 */
void stream_signal_init(void);

/*
 * A stream on fd, which stays the caller's; so does one reference. An empty backlog takes a record
 * with backlog_bytes of content. NULL: no memory.
 */
struct stream *stream_new(int fd, uint32_t backlog_bytes);
/* The calling thread becomes its owner. Before any other thread knows of the stream. */
void stream_adopt(struct stream *s);
struct stream *stream_hold(struct stream *s);
void stream_release(struct stream *s);

/* The request id of its records. Owner only, before any other thread knows of the stream. */
void stream_set_id(struct stream *s, uint16_t id);

/*
 * The head of the 200 and the first event, which no overflow drops. From now on events are sent.
 * False where it was finished before. The subscriber's thread.
 */
bool stream_start(struct stream *s, const char *text);

/*
 * Sends a whole record of STDOUT (its header is for any request id: it is rewritten where it has to
 * be) with one or more whole events. Dropped before stream_start() and after stream_finish(). now
 * is clock_ms(). False where the stream is not open: not started, finished, or its peer gone. Any
 * thread.
 */
bool stream_send(struct stream *s, uint8_t *record, size_t length, int64_t now);

/* The same for a short text that is one or more whole events or comments. Any thread. */
bool stream_send_text(struct stream *s, const char *text);

/*
 * Whole records that are no events: replies of the protocol. False where the peer is gone or takes
 * nothing and the backlog is full. Owner only.
 */
bool stream_send_raw(struct stream *s, const uint8_t *bytes, size_t length);

/*
 * Queues a text of any length and the end of the request: the closing event of a stream ("" for
 * none), or a whole answer. It follows whatever is still in the backlog, whose limit is for events
 * and replies alone. Only the first call counts. Any thread.
 */
void stream_finish(struct stream *s, const char *text);

/* Leaves marks and wakes the owner. Any thread. */
void stream_mark(struct stream *s, unsigned marks);

/* What a look at the stream shows its owner; it clears the marks, but see above. Owner only. */
struct stream_view {
	unsigned marks;
	bool started;
	bool broken;
	bool finished;
	bool pending; /* the backlog is not empty */
	int64_t last_sent;
};
void stream_look(struct stream *s, struct stream_view *view);

/* Sends what the socket takes of the backlog. Owner only. */
void stream_flush(struct stream *s);

/*
 * Waits until the peer has sent something or is gone, a mark is left, there is room for the
 * backlog, or the clock reaches deadline. Returns poll's revents of the socket, 0 for none. Owner
 * only.
 */
short stream_wait(struct stream *s, int64_t deadline);

/*
 * Since when the peer has taken nothing of what the kernel holds for it (SIOCOUTQ; clock_ms()), 0
 * where nothing waits to be taken. Judged from the first call on that finds something waiting. now
 * is clock_ms(). Owner only.
 */
int64_t stream_untaken_since(struct stream *s, int64_t now);

/* Detaches the socket: nothing is sent any more, and the owner may close fd. Owner only. */
void stream_close(struct stream *s);

/*
 * The 200 and its headers, for streams that begin and for those that are told to come back later
 * (tpi-stream(7), STREAM FORMAT).
 */
#define STREAM_HEAD                                                                               \
	"Status: 200 OK\r\nContent-Type: text/event-stream\r\n"                                   \
	"Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n\r\n"
#define STREAM_SYNC_LINE "data: {\"event\":\"sync\"}\n" /* of a block with further lines */
#define STREAM_SYNC      STREAM_SYNC_LINE "\n"
/* No blank line: to some clients that would be an empty message. */
#define STREAM_PING      ": ping\n"

#endif
