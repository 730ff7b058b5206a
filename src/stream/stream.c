/* SPDX-License-Identifier: ISC */
/*
 * stream: the socket of one peer and its backlog. See stream.h.
 *
 * The lock is held during send(), which does not block here, and never across anything that waits.
 * No other lock is taken while it is held.
 */
#include "stream/stream.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "wire/frame.h"

/* The longest text sent without an allocation; the head, a sync and a retry fit. */
#define TEXT_MAX 512

/* Pause between attempts to send while the kernel has no memory. */
#define STARVED_MS 100

static sigset_t wait_mask; /* set once, before other threads start */

static void
on_wake(int number)
{
	(void)number;
}

void
stream_signal_init(void)
{
	struct sigaction action = { .sa_handler = on_wake };

	sigemptyset(&action.sa_mask);
	sigaction(STREAM_WAKE_SIGNAL, &action, NULL);
	sigemptyset(&wait_mask);
	sigaddset(&wait_mask, STREAM_WAKE_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &wait_mask, NULL);
	/* An owner waits with the current mask, except that STREAM_WAKE_SIGNAL is not blocked. */
	pthread_sigmask(SIG_BLOCK, NULL, &wait_mask);
	sigdelset(&wait_mask, STREAM_WAKE_SIGNAL);
}

struct stream *
stream_new(int fd, uint32_t backlog_bytes)
{
	struct stream *s;

	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	pthread_mutex_init(&s->lock, NULL);
	s->references = 1;
	s->owner = pthread_self();
	/* The largest event is as large as the smallest backlog (settings.c): add its header. */
	s->backlog_max = backlog_bytes + FCGI_HEADER_LEN;
	s->fd = fd;
	return s;
}

void
stream_adopt(struct stream *s)
{
	s->owner = pthread_self();
}

void
stream_set_id(struct stream *s, uint16_t id)
{
	s->id = id;
}

struct stream *
stream_hold(struct stream *s)
{
	s->references++;
	return s;
}

void
stream_release(struct stream *s)
{
	if (--s->references > 0)
		return;
	pthread_mutex_destroy(&s->lock);
	free(s->backlog);
	free(s);
}

/* Requires the lock. */
static void
wake(struct stream *s)
{
	if (s->fd != -1)
		pthread_kill(s->owner, STREAM_WAKE_SIGNAL);
}

/* Requires the lock. */
static void
mark(struct stream *s, unsigned marks)
{
	bool new = (s->marks & marks) != marks;

	s->marks |= marks;
	if (new)
		wake(s);
}

/* The marks that stream_look() does not clear. Requires the lock. */
static unsigned
lasting(const struct stream *s)
{
	return s->started ? 0 : s->marks & STREAM_LASTING_MARKS;
}

void
stream_mark(struct stream *s, unsigned marks)
{
	pthread_mutex_lock(&s->lock);
	mark(s, marks);
	pthread_mutex_unlock(&s->lock);
}

/* Bytes that the kernel holds for the peer. Requires the lock. */
static int
queued(const struct stream *s)
{
	int bytes = 0;

	if (ioctl(s->fd, SIOCOUTQ, &bytes) == -1)
		return 0;
	return bytes;
}

/*
 * Checks whether the peer has read anything since the last check or send. If it has read
 * everything, stops watching. Requires the lock.
 */
static void
check_untaken(struct stream *s, int64_t now)
{
	int bytes = queued(s);

	if (bytes < s->untaken)
		s->untaken_since = now;
	if (bytes == 0 && s->backlog_length == 0)
		s->untaken_since = 0;
	s->untaken = bytes;
}

/* Calls send() once. Returns how many bytes the socket took. Requires the lock. */
static size_t
send_some(struct stream *s, const uint8_t *bytes, size_t length, int64_t now)
{
	ssize_t n;

	/* Otherwise the bytes sent now would hide how many the peer has read. */
	if (s->untaken_since != 0)
		check_untaken(s, now);
	/* send() is 5 % slower, because it is a cancellation point. We cancel no threads. */
	n = syscall(SYS_sendto, s->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
	s->starved = n == -1 && (errno == ENOBUFS || errno == ENOMEM);
	if (n == -1) {
		if (!s->starved && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
			s->broken = true;
			mark(s, STREAM_FLUSH);
		}
		return 0;
	}
	s->last_sent = now;
	if (s->untaken_since != 0)
		s->untaken = queued(s);
	return (size_t)n;
}

/* Makes room for length more bytes; false: no memory. Requires the lock. */
static bool
backlog_reserve(struct stream *s, size_t length)
{
	size_t size = s->backlog_size != 0 ? s->backlog_size : 1024;
	uint8_t *grown;

	while (size < s->backlog_length + length)
		size *= 2;
	if (size == s->backlog_size)
		return true;
	grown = realloc(s->backlog, size);
	if (grown == NULL)
		return false;
	s->backlog = grown;
	s->backlog_size = (uint32_t)size;
	return true;
}

/* Appends bytes and notifies the owner. Requires the lock. */
static bool
backlog_append(struct stream *s, const uint8_t *bytes, size_t length)
{
	if (!backlog_reserve(s, length)) {
		s->broken = true;
		mark(s, STREAM_FLUSH);
		return false;
	}
	memcpy(s->backlog + s->backlog_length, bytes, length);
	s->backlog_length += (uint32_t)length;
	mark(s, STREAM_FLUSH);
	return true;
}

/*
 * Removes the first n bytes, which were sent. Walks over the records' headers to update rest.
 * Requires the lock.
 */
static void
backlog_consume(struct stream *s, size_t n)
{
	uint32_t at = s->rest;

	while (at < n)
		at += FCGI_HEADER_LEN + ((uint32_t)s->backlog[at + 4] << 8 | s->backlog[at + 5]) +
		    s->backlog[at + 6];
	s->rest = at - (uint32_t)n;
	s->backlog_length -= (uint32_t)n;
	memmove(s->backlog, s->backlog + n, s->backlog_length);
	if (s->backlog_length == 0) {
		free(s->backlog);
		s->backlog = NULL;
		s->backlog_size = 0;
	}
}

/* Sends whole records after the backlog; keeps what the socket does not take. Requires the lock. */
static bool
put(struct stream *s, const uint8_t *bytes, size_t length, int64_t now)
{
	size_t n = 0;

	if (s->broken || s->fd == -1)
		return false;
	if (s->backlog_length > 0)
		return backlog_append(s, bytes, length);
	n = send_some(s, bytes, length, now);
	if (s->broken)
		return false;
	if (n == length)
		return true;
	if (n == 0)
		return backlog_append(s, bytes, length);
	/* Append all of it first: backlog_consume() needs the headers of the records. */
	if (!backlog_append(s, bytes, length))
		return false;
	backlog_consume(s, n);
	return true;
}

static size_t
text_record(uint8_t record[FCGI_HEADER_LEN + TEXT_MAX], uint16_t id, const char *text)
{
	return frame_stdout(record, id, text, strlen(text));
}

/* Replaces the backlog, except the rest of a partly sent record, by one sync. Requires the lock. */
static void
overflow(struct stream *s)
{
	uint8_t record[FCGI_HEADER_LEN + TEXT_MAX];
	size_t length;

	s->backlog_length = s->rest;
	length = text_record(record, s->id, STREAM_SYNC);
	backlog_append(s, record, length);
	mark(s, STREAM_SLOW);
	metric_add(METRIC_OVERFLOWS, 1);
}

bool
stream_start(struct stream *s, const char *text)
{
	uint8_t record[FCGI_HEADER_LEN + TEXT_MAX];
	size_t length = text_record(record, s->id, text);
	bool started;

	pthread_mutex_lock(&s->lock);
	if (!s->finished) {
		if (lasting(s) != 0)
			wake(s);
		s->started = true;
		s->started_at = clock_ms();
		put(s, record, length, s->started_at);
		s->rest = s->backlog_length;
	}
	started = s->started;
	pthread_mutex_unlock(&s->lock);
	return started;
}

bool
stream_send(struct stream *s, uint8_t *record, size_t length, int64_t now)
{
	bool taken = false;

	if (s->id != (uint16_t)(record[2] << 8 | record[3])) {
		record[2] = (uint8_t)(s->id >> 8);
		record[3] = (uint8_t)s->id;
	}
	pthread_mutex_lock(&s->lock);
	if (s->started && !s->finished) {
		if (s->backlog_length > 0 && s->backlog_length + length > s->backlog_max) {
			overflow(s);
			taken = !s->broken;
		} else
			taken = put(s, record, length, now);
	}
	pthread_mutex_unlock(&s->lock);
	return taken;
}

bool
stream_send_text(struct stream *s, const char *text)
{
	uint8_t record[FCGI_HEADER_LEN + TEXT_MAX];
	size_t length = text_record(record, s->id, text);

	return stream_send(s, record, length, clock_ms());
}

bool
stream_ping(struct stream *s)
{
	uint8_t record[FCGI_HEADER_LEN + sizeof(STREAM_PING) ];
	size_t length = frame_stdout(record, s->id, STREAM_PING, sizeof(STREAM_PING) - 1);

	return stream_send(s, record, length, clock_ms());
}

bool
stream_send_raw(struct stream *s, const uint8_t *bytes, size_t length)
{
	bool taken = false;

	pthread_mutex_lock(&s->lock);
	if (!s->finished && s->backlog_length + length <= s->backlog_max)
		taken = put(s, bytes, length, clock_ms());
	pthread_mutex_unlock(&s->lock);
	return taken;
}

void
stream_finish(struct stream *s, const char *text)
{
	uint8_t small[FCGI_HEADER_LEN + TEXT_MAX + FRAME_END_SIZE], *records = small;
	size_t length = strlen(text), size;

	if (length > TEXT_MAX)
		records = malloc(frame_stdout_size(length) + FRAME_END_SIZE);
	pthread_mutex_lock(&s->lock);
	if (!s->finished) {
		if (records != NULL) {
			size = frame_stdout(records, s->id, text, length);
			size += frame_end(records + size, s->id);
			put(s, records, size, clock_ms());
		} else
			s->broken = true; /* no memory: close the connection without a response */
		s->finished = true;
		mark(s, STREAM_FLUSH);
	}
	pthread_mutex_unlock(&s->lock);
	if (records != small)
		free(records);
}

void
stream_look(struct stream *s, struct stream_view *view)
{
	pthread_mutex_lock(&s->lock);
	view->marks = s->marks;
	s->marks = lasting(s);
	view->started = s->started;
	view->broken = s->broken;
	view->finished = s->finished;
	view->pending = s->backlog_length > 0;
	view->last_sent = s->last_sent;
	pthread_mutex_unlock(&s->lock);
}

bool
stream_stats(struct stream *s, struct stream_stats *stats)
{
	bool open;

	pthread_mutex_lock(&s->lock);
	open = s->started && !s->finished && !s->broken;
	stats->started_at = s->started_at;
	stats->backlog = s->backlog_length;
	pthread_mutex_unlock(&s->lock);
	stats->events = atomic_load_explicit(&s->events, memory_order_relaxed);
	return open;
}

void
stream_flush(struct stream *s)
{
	size_t n;

	pthread_mutex_lock(&s->lock);
	if (s->backlog_length > 0 && !s->broken) {
		n = send_some(s, s->backlog, s->backlog_length, clock_ms());
		if (n > 0)
			backlog_consume(s, n);
	}
	pthread_mutex_unlock(&s->lock);
}

short
stream_wait(struct stream *s, int64_t deadline)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN | POLLRDHUP };
	int64_t left = deadline - clock_ms();
	struct timespec limit;
	bool starved;
	int ready;

	/* A mark that is set after this check sends the signal, which is blocked until ppoll(). */
	pthread_mutex_lock(&s->lock);
	starved = s->starved;
	if (s->backlog_length > 0 && !starved)
		p.events |= POLLOUT;
	/* Without kernel memory the socket still polls writable: retry after a pause instead. */
	if (starved && left > STARVED_MS)
		left = STARVED_MS;
	if (s->marks != lasting(s) || left < 0)
		left = 0;
	pthread_mutex_unlock(&s->lock);
	limit.tv_sec = left / 1000;
	limit.tv_nsec = left % 1000 * 1000000;
	ready = ppoll(&p, 1, &limit, &wait_mask);
	if (ready == 0 && starved)
		return POLLOUT;
	return ready > 0 ? p.revents : 0;
}

int64_t
stream_untaken_since(struct stream *s, int64_t now)
{
	int64_t since;

	pthread_mutex_lock(&s->lock);
	if (s->untaken_since == 0)
		s->untaken_since = now;
	check_untaken(s, now);
	since = s->untaken_since;
	pthread_mutex_unlock(&s->lock);
	return since;
}

void
stream_close(struct stream *s)
{
	pthread_mutex_lock(&s->lock);
	s->fd = -1;
	pthread_mutex_unlock(&s->lock);
}
