/* SPDX-License-Identifier: ISC */
/*
 * check_stream: the bytes that a stream sends, their order, and when its owner is woken.
 *
 * Each test has a pair of Unix sockets. What the reader receives is parsed as FastCGI records; a
 * byte out of place fails the test. A syscall() of our own truncates sends and makes them fail.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "wire/frame.h"
#include "stream/stream.h"
#include "wire/wakeup.h"
#include "fake_clock.h"

#define BACKLOG_BYTES 16384 /* minimum of SSE_BACKLOG_BYTES */
#define BACKLOG       (BACKLOG_BYTES + FCGI_HEADER_LEN)
#define EVENT_SIZE    512  /* of numbered events */
#define LONG_MS       5000 /* far longer than anything here takes */

/* How many more bytes syscall() lets through, and the error it returns. */
static size_t send_limit = SIZE_MAX;
static int send_error;

long
syscall(long number, ...)
{
	const void *bytes;
	size_t length;
	int fd, flags;
	va_list ap;
	ssize_t n;

	ck_assert_int_eq(number, SYS_sendto);
	va_start(ap, number);
	fd = va_arg(ap, int);
	bytes = va_arg(ap, const void *);
	length = va_arg(ap, size_t);
	flags = va_arg(ap, int);
	va_end(ap);
	errno = send_error != 0 ? send_error : EAGAIN;
	if (send_error != 0 || (send_limit == 0 && length > 0))
		return -1;
	n = sendto(fd, bytes, length < send_limit ? length : send_limit, flags, NULL, 0);
	if (n > 0 && send_limit != SIZE_MAX)
		send_limit -= (size_t)n;
	return n;
}

static int writer, reader;
static struct stream *stream;

/* What the reader has received. */
static uint8_t *got;
static size_t got_length, got_size;
static size_t at; /* offset of the next record for next() */

static void
start(uint32_t backlog_bytes, int send_buffer)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	writer = pair[0];
	reader = pair[1];
	if (send_buffer != 0)
		ck_assert_int_eq(setsockopt(writer, SOL_SOCKET, SO_SNDBUF, &send_buffer,
		    sizeof(send_buffer)), 0);
	stream = stream_new(writer, backlog_bytes);
	ck_assert_ptr_nonnull(stream);
	stream_set_id(stream, 1);
}

static void
setup(void)
{
	start(BACKLOG_BYTES, 0);
}

/* A socket that takes only a few events, and splits them. */
static void
setup_small(void)
{
	start(BACKLOG_BYTES, 1);
}

/* The same, and a backlog that never overflows. */
static void
setup_large_backlog(void)
{
	start(1 << 24, 1);
}

static void
teardown(void)
{
	stream_close(stream);
	stream_release(stream);
	close(writer);
	close(reader);
	free(got);
	got = NULL;
}

/* Reads up to max bytes if there are any. */
static size_t
read_some(size_t max)
{
	ssize_t n;

	if (got_size - got_length < max) {
		got_size = got_size * 2 + max;
		got = realloc(got, got_size);
		ck_assert_ptr_nonnull(got);
	}
	n = recv(reader, got + got_length, max, MSG_DONTWAIT);
	if (n == -1) {
		ck_assert_int_eq(errno, EAGAIN);
		return 0;
	}
	got_length += (size_t)n;
	return (size_t)n;
}

static void
look(struct stream_view *view)
{
	stream_look(stream, view);
}

/* Reads and flushes in turn until everything has arrived. */
static void
drain(void)
{
	struct stream_view view;

	do {
		while (read_some(4096) > 0)
			continue;
		stream_flush(stream);
		look(&view);
		ck_assert(!view.broken);
	} while (view.pending);
	while (read_some(4096) > 0)
		continue;
}

/* Returns the type of the next record, with its content in *content; -1 if it is incomplete. */
static int
next(uint16_t id, const char **content, size_t *length)
{
	const uint8_t *r = got + at;

	if (got_length - at < FCGI_HEADER_LEN)
		return -1;
	*length = (size_t)r[4] << 8 | r[5];
	if (got_length - at < FCGI_HEADER_LEN + *length)
		return -1;
	ck_assert_uint_eq(r[0], 1);
	ck_assert_uint_eq((unsigned)(r[2] << 8 | r[3]), id);
	ck_assert_uint_eq(r[6], 0);
	*content = (const char *)r + FCGI_HEADER_LEN;
	at += FCGI_HEADER_LEN + *length;
	return r[1];
}

/* Expects one STDOUT record with this text. */
static void
expect_text_of(uint16_t id, const char *text)
{
	const char *content;
	size_t length;

	ck_assert_int_eq(next(id, &content, &length), FCGI_STDOUT);
	ck_assert_msg(length == strlen(text) && memcmp(content, text, length) == 0, "%.*s, not %s",
	    (int)length, content, text);
}

static void
expect_text(const char *text)
{
	expect_text_of(1, text);
}

static void
expect_nothing(void)
{
	ck_assert_uint_eq(at, got_length);
}

static void
expect_end_of(uint16_t id)
{
	uint8_t end[FRAME_END_SIZE];

	frame_end(end, id);
	ck_assert_uint_ge(got_length - at, sizeof(end));
	ck_assert_mem_eq(got + at, end, sizeof(end));
	at += sizeof(end);
}

static bool
send_event(const char *text)
{
	uint8_t record[1024];
	size_t length = strlen(text);

	frame_record(record, FCGI_STDOUT, 1, length);
	memcpy(record + FCGI_HEADER_LEN, text, length);
	return stream_send(stream, record, FCGI_HEADER_LEN + length, clock_ms());
}

/* Sends an event of EVENT_SIZE bytes that contains a number. */
static bool
send_number(int sender, int number)
{
	char text[EVENT_SIZE + 1];
	int n = snprintf(text, sizeof(text), "data: %d %d ", sender, number);

	memset(text + n, '.', (size_t)(EVENT_SIZE - n - 2));
	memcpy(text + EVENT_SIZE - 2, "\n\n", 3);
	return send_event(text);
}

/* Returns the number in the next event; -1 for a sync, -2 if there is none. */
static int
next_number(int *sender)
{
	const char *content;
	size_t length;
	int number;

	switch (next(1, &content, &length)) {
	case -1:
		return -2;
	case FCGI_STDOUT:
		break;
	default:
		ck_abort_msg("a record that is not of STDOUT");
	}
	if (length == strlen(STREAM_SYNC) && memcmp(content, STREAM_SYNC, length) == 0)
		return -1;
	ck_assert_uint_eq(length, EVENT_SIZE);
	ck_assert_int_eq(sscanf(content, "data: %d %d ", sender, &number), 2);
	ck_assert_mem_eq(content + length - 3, ".\n\n", 3);
	return number;
}

/* The life of a stream */

/* Nothing is sent before stream_start(), and nothing sent earlier arrives later. */
START_TEST(nothing_before_start)
{
	ck_assert(!send_event("data: early\n\n"));
	ck_assert(!stream_send_text(stream, STREAM_PING));
	ck_assert_uint_eq(read_some(100), 0);
	stream_start(stream, STREAM_HEAD STREAM_SYNC_LINE "retry: 1000\n\n");
	ck_assert(send_event("data: one\n\n"));
	ck_assert(stream_send_text(stream, STREAM_PING));
	drain();
	expect_text("Status: 200 OK\r\nContent-Type: text/event-stream\r\n"
	    "Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n\r\n"
	    "data: {\"event\":\"sync\"}\nretry: 1000\n\n");
	expect_text("data: one\n\n");
	expect_text(": ping\n");
	expect_nothing();
}
END_TEST

/* Nothing follows stream_finish(): its text and the end of the request are the last bytes. */
START_TEST(nothing_after_finish)
{
	struct stream_view view;

	stream_start(stream, "head");
	look(&view);
	ck_assert(!view.finished);
	stream_finish(stream, "event: shutdown\ndata: {}\n\n");
	ck_assert(!send_event("data: late\n\n"));
	ck_assert(!stream_send_text(stream, STREAM_PING));
	ck_assert(!stream_send_raw(stream, (const uint8_t *)"late", 4));
	stream_finish(stream, "data: again\n\n");
	stream_start(stream, "again");
	look(&view);
	ck_assert(view.finished);
	ck_assert(view.marks & STREAM_FLUSH);
	drain();
	expect_text("head");
	expect_text("event: shutdown\ndata: {}\n\n");
	expect_end_of(1);
	expect_nothing();
}
END_TEST

/* A stream that was never started can be finished with a text; it can then no longer start. */
START_TEST(finish_before_start)
{
	stream_finish(stream, STREAM_HEAD "retry: 10000\n\n");
	stream_start(stream, "head");
	ck_assert(!send_event("data: late\n\n"));
	drain();
	expect_text(STREAM_HEAD "retry: 10000\n\n");
	expect_end_of(1);
	expect_nothing();
}
END_TEST

/* An empty text adds no record: an empty STDOUT record would end STDOUT twice. */
START_TEST(finish_without_text)
{
	stream_start(stream, "head");
	stream_finish(stream, "");
	drain();
	expect_text("head");
	expect_end_of(1);
	expect_nothing();
}
END_TEST

/* Protocol replies are sent unchanged, also before the start. */
START_TEST(raw_records)
{
	uint8_t reply[FRAME_END_SIZE], end[FRAME_END_SIZE];

	frame_end_request(reply, 2, FCGI_CANT_MPX_CONN);
	ck_assert(stream_send_raw(stream, reply, 16));
	stream_start(stream, "head");
	ck_assert(stream_send_raw(stream, reply, 16));
	drain();
	frame_end_request(end, 2, FCGI_CANT_MPX_CONN);
	ck_assert_uint_eq(got_length, 16 + FCGI_HEADER_LEN + 4 + 16);
	ck_assert_mem_eq(got, end, 16);
	ck_assert_mem_eq(got + 16 + FCGI_HEADER_LEN, "head", 4);
	ck_assert_mem_eq(got + got_length - 16, end, 16);
}
END_TEST

/* A peer that reads nothing gets no more replies than fit in a backlog. */
START_TEST(raw_records_are_bounded)
{
	uint8_t reply[16];
	struct stream_view view;
	int count = 0;

	frame_end_request(reply, 1, FCGI_CANT_MPX_CONN);
	while (stream_send_raw(stream, reply, sizeof(reply)))
		ck_assert_int_lt(++count, 100000);
	look(&view);
	ck_assert(!view.broken);
	ck_assert(view.pending);
	ck_assert(view.marks & STREAM_FLUSH);
	ck_assert_uint_eq(stream->backlog_length, BACKLOG / sizeof(reply) * sizeof(reply));
	drain();
	ck_assert_uint_eq(got_length, (size_t)count * sizeof(reply));
	for (int i = 0; i < count; i++)
		ck_assert_mem_eq(got + (size_t)i * sizeof(reply), reply, sizeof(reply));
	ck_assert(stream_send_raw(stream, reply, sizeof(reply)));
}
END_TEST

/* Every record gets the stream's own id, whatever the id of the record passed in. */
START_TEST(request_id)
{
	uint8_t record[FCGI_HEADER_LEN + 9];

	stream_set_id(stream, 515);
	frame_record(record, FCGI_STDOUT, 1, 9);
	memcpy(record + FCGI_HEADER_LEN, "data: x\n\n", 9);
	stream_start(stream, "head");
	ck_assert(stream_send(stream, record, sizeof(record), 1));
	ck_assert(stream_send(stream, record, sizeof(record), 1));
	ck_assert(stream_send_text(stream, STREAM_PING));
	/* A record whose id was corrected for one stream is correct for the next one, too. */
	stream_set_id(stream, 3);
	ck_assert(stream_send(stream, record, sizeof(record), 1));
	stream_set_id(stream, 0x0203);
	stream_finish(stream, "data: last\n\n");
	drain();
	expect_text_of(515, "head");
	expect_text_of(515, "data: x\n\n");
	expect_text_of(515, "data: x\n\n");
	expect_text_of(515, STREAM_PING);
	expect_text_of(3, "data: x\n\n");
	expect_text_of(515, "data: last\n\n");
	expect_end_of(515);
	expect_nothing();
}
END_TEST

/*
 * After stream_close() nothing is sent, no owner is woken, and the socket still belongs to the
 * caller.
 */
START_TEST(closed)
{
	struct stream_view view;

	stream_start(stream, "head");
	look(&view);
	stream_close(stream);
	ck_assert(!send_event("data: late\n\n"));
	stream_mark(stream, STREAM_EVICTED);
	stream_finish(stream, "data: late\n\n");
	ck_assert_int_eq(write(writer, "mine", 4), 4);
	while (read_some(100) > 0)
		continue;
	expect_text("head");
	ck_assert_uint_eq(got_length - at, 4);
	ck_assert_mem_eq(got + at, "mine", 4);
}
END_TEST

/* A stream lives until its last reference is released (checked by the address sanitizer). */
START_TEST(references)
{
	ck_assert_ptr_eq(stream_hold(stream), stream);
	stream_hold(stream);
	stream_release(stream);
	stream_release(stream);
	stream_start(stream, "head");
	drain();
	expect_text("head");
}
END_TEST

static int64_t moved_clock;

static int64_t
moved_source(void)
{
	return moved_clock;
}

/* last_sent is when the socket took the last byte, not when one went into the backlog. */
START_TEST(last_sent)
{
	uint8_t record[FCGI_HEADER_LEN + EVENT_SIZE] = { 0 };
	struct stream_view view;

	clock_set_source(moved_source);
	moved_clock = 1000;
	frame_record(record, FCGI_STDOUT, 1, EVENT_SIZE);
	stream_start(stream, "head");
	look(&view);
	ck_assert_int_eq(view.last_sent, 1000);
	ck_assert(stream_send(stream, record, sizeof(record), 2000));
	look(&view);
	ck_assert_int_eq(view.last_sent, 2000);
	send_limit = 1;
	ck_assert(stream_send(stream, record, sizeof(record), 3000));
	ck_assert(stream_send(stream, record, sizeof(record), 4000));
	look(&view);
	ck_assert_int_eq(view.last_sent, 3000);
	moved_clock = 5000;
	stream_flush(stream);
	look(&view);
	ck_assert_int_eq(view.last_sent, 3000);
	send_limit = SIZE_MAX;
	stream_flush(stream);
	look(&view);
	ck_assert_int_eq(view.last_sent, 5000);
}
END_TEST

/* Sends an event that has the socket's buffer to itself, at a given time. */
static void
send_at(int64_t now)
{
	uint8_t record[FCGI_HEADER_LEN + 9];

	frame_record(record, FCGI_STDOUT, 1, 9);
	memcpy(record + FCGI_HEADER_LEN, "data: x\n\n", 9);
	ck_assert(stream_send(stream, record, sizeof(record), now));
}

/* untaken_since: bytes sent later neither count as read nor hide what was read. */
START_TEST(untaken_since)
{
	clock_set_source(moved_source);
	moved_clock = 500;
	ck_assert_int_eq(stream_untaken_since(stream, 900), 0);
	stream_start(stream, "head");
	ck_assert_int_eq(stream_untaken_since(stream, 1000), 1000);
	ck_assert_int_eq(stream_untaken_since(stream, 2000), 1000);
	send_at(3000);
	send_at(3000);
	ck_assert_int_eq(stream_untaken_since(stream, 4000), 1000);
	/* The peer reads one, and another is sent. */
	ck_assert_uint_eq(read_some(FCGI_HEADER_LEN + 4), FCGI_HEADER_LEN + 4);
	send_at(5000);
	ck_assert_int_eq(stream_untaken_since(stream, 6000), 5000);
	ck_assert_uint_eq(read_some(FCGI_HEADER_LEN + 9), FCGI_HEADER_LEN + 9);
	ck_assert_int_eq(stream_untaken_since(stream, 7000), 7000);
	ck_assert_int_eq(stream_untaken_since(stream, 8000), 7000);
	/* More is sent than the peer reads. */
	send_at(8100);
	send_at(8100);
	ck_assert_uint_eq(read_some(FCGI_HEADER_LEN + 9), FCGI_HEADER_LEN + 9);
	ck_assert_int_eq(stream_untaken_since(stream, 8200), 8200);
	/* The peer reads everything: nothing is unread until something is sent again. */
	while (read_some(100) > 0)
		continue;
	ck_assert_int_eq(stream_untaken_since(stream, 9000), 0);
	send_at(10000);
	ck_assert_int_eq(stream_untaken_since(stream, 11000), 11000);
	while (read_some(100) > 0)
		continue;
	/*
	 * The send finds that everything was read and stops watching; the next call starts again.
	 */
	send_at(12000);
	ck_assert_int_eq(stream->untaken_since, 0);
	ck_assert_int_eq(stream_untaken_since(stream, 13000), 13000);
	/* With only the backlog left to send, something is still unread. */
	while (read_some(100) > 0)
		continue;
	send_limit = 0;
	send_at(14000);
	ck_assert_int_eq(stream_untaken_since(stream, 15000), 15000);
	ck_assert_int_eq(stream_untaken_since(stream, 16000), 15000);
}
END_TEST

/* A reader that is slower than the events */

#define MANY 1000 /* more events than any of these sockets and backlogs take */

/* Sends numbered events until the backlog is not empty. Returns the next number. */
static int
fill_socket(int number)
{
	struct stream_view view;

	do {
		ck_assert(send_number(0, number++));
		look(&view);
		ck_assert_int_lt(number, MANY);
	} while (!view.pending);
	ck_assert(view.marks & STREAM_FLUSH);
	return number;
}

/* What the socket splits or rejects arrives later, complete and in order, at any reading speed. */
START_TEST(partial_sends)
{
	static const size_t paces[] = { 1, 7, 100, 513, 1000, 4096 };
	struct stream_view view;
	int number = 0, read = 0, sender;

	stream_start(stream, "head");
	for (size_t i = 0; i < sizeof(paces) / sizeof(paces[0]); i++) {
		number = fill_socket(number);
		for (int k = 0; k < 20; k++)
			ck_assert(send_number(0, number++));
		do {
			read_some(paces[i]);
			stream_flush(stream);
			look(&view);
			ck_assert_uint_eq(view.marks & STREAM_SLOW, 0);
		} while (view.pending);
	}
	drain();
	expect_text("head");
	while (read < number)
		ck_assert_int_eq(next_number(&sender), read++);
	expect_nothing();
}
END_TEST

/* No event overtakes the backlog, even if the socket has room and the owner has not flushed yet. */
START_TEST(no_overtaking)
{
	int number = 0, sender;

	stream_start(stream, "head");
	for (int i = 0; i < 10; i++) {
		number = fill_socket(number);
		while (read_some(4096) > 0)
			continue;
		ck_assert(send_number(0, number++));
		ck_assert(send_number(0, number++));
		drain();
	}
	expect_text("head");
	for (int i = 0; i < number; i++)
		ck_assert_int_eq(next_number(&sender), i);
	expect_nothing();
}
END_TEST

/* The largest event, with its header, fits in an empty backlog of the minimum size. */
START_TEST(largest_event_fits_smallest_backlog)
{
	uint8_t record[FCGI_HEADER_LEN + WAKEUP_FRAME_MAX];
	struct stream_view view;

	stream_start(stream, "head");
	send_limit = 0;
	frame_record(record, FCGI_STDOUT, 1, WAKEUP_FRAME_MAX);
	memset(record + FCGI_HEADER_LEN, 'x', WAKEUP_FRAME_MAX);
	ck_assert(stream_send_raw(stream, record, sizeof(record)));
	look(&view);
	ck_assert_uint_eq(view.marks & STREAM_SLOW, 0);
	ck_assert_uint_le(stream->backlog_length, stream->backlog_max);
	send_limit = SIZE_MAX;
	drain();
	ck_assert_uint_eq(got_length, FCGI_HEADER_LEN + 4 + sizeof(record));
	ck_assert_mem_eq(got + FCGI_HEADER_LEN + 4, record, sizeof(record));
}
END_TEST

/* A backlog holds backlog_max bytes, and not one more. */
START_TEST(backlog_max_is_exact)
{
	uint8_t record[BACKLOG];
	struct stream_view view;
	size_t left;

	stream_start(stream, "head");
	fill_socket(0);
	left = BACKLOG - stream->backlog_length;
	frame_record(record, FCGI_STDOUT, 1, left - FCGI_HEADER_LEN);
	memset(record + FCGI_HEADER_LEN, 'x', left - FCGI_HEADER_LEN);
	ck_assert(stream_send(stream, record, left, 1));
	look(&view);
	ck_assert_uint_eq(view.marks & STREAM_SLOW, 0);
	ck_assert_uint_eq(stream->backlog_length, BACKLOG);
	ck_assert(stream_send_text(stream, "\n"));
	look(&view);
	ck_assert(view.marks & STREAM_SLOW);
}
END_TEST

/*
 * On overflow the backlog becomes one sync: the reader gets what was sent before, the rest of the
 * split record, one sync, and then only what was sent after the overflow.
 */
static void
overflow_by(int events)
{
	const size_t event = FCGI_HEADER_LEN + EVENT_SIZE;
	struct stream_view view;
	size_t taken;
	int number, begun, sender, n;

	stream_start(stream, "head");
	number = fill_socket(0);
	for (int i = 0; i < 20; i++)
		ck_assert(send_number(0, number++));
	while (read_some(4096) > 0)
		continue;
	stream_flush(stream);
	look(&view);
	taken = (size_t)number * event - stream->backlog_length;
	ck_assert_msg(view.pending && taken % event != 0, "the socket has cut no record");
	begun = (int)(taken / event) + 1;
	do {
		ck_assert(send_number(0, number++));
		look(&view);
		ck_assert_int_lt(number, MANY);
	} while (!(view.marks & STREAM_SLOW));
	/* Only the last event was too much, by one byte or by its whole length. */
	ck_assert_uint_le((size_t)(number - 1) * event - taken, BACKLOG);
	ck_assert_uint_gt((size_t)number * event - taken, BACKLOG);
	for (int i = 0; i < events; i++)
		ck_assert(send_number(0, number++));
	drain();
	ck_assert(send_number(0, number++));
	drain();

	expect_text("head");
	for (int i = 0; i < begun; i++)
		ck_assert_int_eq(next_number(&sender), i);
	ck_assert_int_eq(next_number(&sender), -1);
	n = next_number(&sender);
	ck_assert_int_gt(n, begun);
	for (; n < number - 1; n++)
		ck_assert_int_eq(next_number(&sender), n + 1);
	ck_assert_int_eq(n, number - 1);
	expect_nothing();
}

/* Overflow once. */
START_TEST(overflow_once)
{
	overflow_by(3);
}
END_TEST

/* Overflow many times: there is still one sync, because each overflow replaces the last. */
START_TEST(overflow_often)
{
	overflow_by(MANY);
}
END_TEST

/* The backlog can overflow again after each recovery, with one sync each time. */
START_TEST(overflow_again)
{
	struct stream_view view;
	int number = 0, sender, expected = 0, n;

	stream_start(stream, "head");
	for (int round = 0; round < 5; round++) {
		do {
			ck_assert(send_number(0, number++));
			look(&view);
			ck_assert_int_lt(number, MANY);
		} while (!(view.marks & STREAM_SLOW));
		drain();
	}
	ck_assert(send_number(0, number++));
	drain();
	expect_text("head");
	for (int syncs = 0; expected < number;) {
		n = next_number(&sender);
		if (n == -1) {
			ck_assert_int_lt(syncs++, 5);
			/* The next number may be any later one. */
			n = next_number(&sender);
			ck_assert_int_gt(n, expected);
			expected = n;
		}
		ck_assert_int_eq(n, expected++);
		if (expected == number)
			ck_assert_int_eq(syncs, 5);
	}
	expect_nothing();
}
END_TEST

/* An overflow while the backlog is just the rest of a split record keeps that rest. */
START_TEST(overflow_of_a_rest)
{
	struct stream_view view;
	uint8_t *record = malloc(FCGI_HEADER_LEN + FRAME_RECORD_MAX);
	const char *content;
	size_t length;

	/* One record that is larger than the socket's buffer and the backlog together. */
	frame_record(record, FCGI_STDOUT, 1, FRAME_RECORD_MAX);
	memset(record + FCGI_HEADER_LEN, 'x', FRAME_RECORD_MAX);
	stream_start(stream, "head");
	ck_assert(stream_send(stream, record, FCGI_HEADER_LEN + FRAME_RECORD_MAX, 1));
	look(&view);
	ck_assert(view.pending);
	for (int i = 0; i < 10; i++)
		ck_assert(send_event("data: dropped\n\n"));
	look(&view);
	ck_assert(view.marks & STREAM_SLOW);
	drain();
	expect_text("head");
	ck_assert_int_eq(next(1, &content, &length), FCGI_STDOUT);
	ck_assert_uint_eq(length, FRAME_RECORD_MAX);
	for (size_t i = 0; i < length; i++)
		ck_assert_int_eq(content[i], 'x');
	expect_text(STREAM_SYNC);
	expect_nothing();
	free(record);
}
END_TEST

/* If the last send ended at the end of a record, the next record is dropped with the others. */
START_TEST(overflow_between_records)
{
	struct stream_view view;
	int number = 0, sender;

	stream_start(stream, "head");
	send_limit = 2 * (FCGI_HEADER_LEN + EVENT_SIZE);
	do {
		ck_assert(send_number(0, number++));
		look(&view);
		ck_assert_int_lt(number, MANY);
	} while (!(view.marks & STREAM_SLOW));
	send_limit = SIZE_MAX;
	drain();
	expect_text("head");
	ck_assert_int_eq(next_number(&sender), 0);
	ck_assert_int_eq(next_number(&sender), 1);
	ck_assert_int_eq(next_number(&sender), -1);
	expect_nothing();
	/* The same if a flush ended there. */
	number = 0;
	send_limit = 0;
	for (int i = 0; i < 10; i++)
		ck_assert(send_number(0, number++));
	send_limit = 2 * (FCGI_HEADER_LEN + EVENT_SIZE);
	stream_flush(stream);
	do {
		ck_assert(send_number(0, number++));
		look(&view);
		ck_assert_int_lt(number, MANY);
	} while (!(view.marks & STREAM_SLOW));
	send_limit = SIZE_MAX;
	drain();
	ck_assert_int_eq(next_number(&sender), 0);
	ck_assert_int_eq(next_number(&sender), 1);
	ck_assert_int_eq(next_number(&sender), -1);
	expect_nothing();
}
END_TEST

/*
 * No overflow drops the head of the response and the first event, sent in full, in part or not at
 * all.
 */
START_TEST(overflow_keeps_the_start)
{
	struct stream_view view;
	int number = 0;

	/* _i bytes of it are sent. */
	send_limit = (size_t)_i;
	stream_start(stream, STREAM_HEAD STREAM_SYNC);
	do {
		ck_assert(send_number(0, number++));
		look(&view);
		ck_assert_int_lt(number, MANY);
	} while (!(view.marks & STREAM_SLOW));
	send_limit = SIZE_MAX;
	drain();
	expect_text(STREAM_HEAD STREAM_SYNC);
	expect_text(STREAM_SYNC);
	expect_nothing();
}
END_TEST

/* A send truncated at any byte is completed by the next ones, wherever those are truncated. */
START_TEST(any_cut)
{
	for (size_t cut = 0; cut <= 60; cut++) {
		size_t total = 0;

		teardown();
		setup_small();
		at = got_length = got_size = 0;
		send_limit = cut;
		stream_start(stream, "head");
		ck_assert(send_event("data: one\n\n"));
		ck_assert(send_event("data: two\n\n"));
		stream_finish(stream, "last\n\n");
		while (stream->backlog_length > 0) {
			send_limit = total++ % 13;
			stream_flush(stream);
			read_some(4096);
			ck_assert_uint_lt(total, MANY);
		}
		send_limit = SIZE_MAX;
		drain();
		expect_text("head");
		expect_text("data: one\n\n");
		expect_text("data: two\n\n");
		expect_text("last\n\n");
		expect_end_of(1);
		expect_nothing();
	}
}
END_TEST

/* The sync of an overflow has the stream's id. */
START_TEST(overflow_of_another_id)
{
	struct stream_view view;
	const char *content;
	size_t length;
	int number = 0, syncs = 0;

	stream_set_id(stream, 515);
	stream_start(stream, "head");
	do {
		ck_assert(send_number(0, number++));
		look(&view);
		ck_assert_int_lt(number, MANY);
	} while (!(view.marks & STREAM_SLOW));
	drain();
	while (next(515, &content, &length) == FCGI_STDOUT)
		if (length == strlen(STREAM_SYNC))
			syncs++;
	ck_assert_int_eq(syncs, 1);
	expect_nothing();
}
END_TEST

/* The closing event follows everything in the backlog and is not lost when the backlog is full. */
START_TEST(finish_with_a_backlog)
{
	int number, sender, n, expected = 0;

	stream_start(stream, "head");
	number = fill_socket(0);
	for (int i = 0; i < 29; i++)
		ck_assert(send_number(0, number++));
	stream_finish(stream, "event: evicted\ndata: {}\n\n");
	ck_assert(!send_number(0, number));
	drain();
	expect_text("head");
	while (expected < number) {
		n = next_number(&sender);
		ck_assert_int_eq(n, expected++);
	}
	expect_text("event: evicted\ndata: {}\n\n");
	expect_end_of(1);
	expect_nothing();
}
END_TEST

/*
 * A response of several records arrives complete, after protocol replies that the peer has not
 * read.
 */
START_TEST(finish_with_a_long_text)
{
	static char text[200001];
	uint8_t reply[16];
	struct stream_view view;
	const char *content;
	size_t length, replies = 0, used = 0;

	frame_end_request(reply, 2, FCGI_CANT_MPX_CONN);
	do {
		ck_assert(stream_send_raw(stream, reply, sizeof(reply)));
		ck_assert_uint_lt(++replies, 100000);
		look(&view);
	} while (!view.pending);
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('a' + i % 23);
	stream_finish(stream, text);
	drain();
	for (; replies > 0; replies--, at += sizeof(reply))
		ck_assert_mem_eq(got + at, reply, sizeof(reply));
	while (used < sizeof(text) - 1) {
		ck_assert_int_eq(next(1, &content, &length), FCGI_STDOUT);
		ck_assert_uint_gt(length, 0);
		ck_assert_uint_le(length, sizeof(text) - 1 - used);
		ck_assert_mem_eq(content, text + used, length);
		used += length;
	}
	expect_end_of(1);
	expect_nothing();
}
END_TEST

#define SENDERS     4
#define EVENTS_EACH 300

static void *
send_many(void *arg)
{
	int sender = *(int *)arg;

	for (int i = 0; i < EVENTS_EACH; i++)
		if (!send_number(sender, i))
			return NULL;
	return arg;
}

/*
 * Several threads send while the owner flushes: every event arrives once, complete, in its sender's
 * order.
 */
START_TEST(many_senders)
{
	pthread_t threads[SENDERS];
	int senders[SENDERS], seen[SENDERS] = { 0 }, count = 0, sender, n = -2;
	int64_t deadline = clock_ms() + 6 * LONG_MS;
	struct stream_view view;
	const char *content;
	size_t length;
	void *result;

	stream_start(stream, "head");
	for (int i = 0; i < SENDERS; i++) {
		senders[i] = i;
		ck_assert_int_eq(pthread_create(&threads[i], NULL, send_many, &senders[i]), 0);
	}
	do {
		ck_assert_int_lt(clock_ms(), deadline);
		stream_wait(stream, clock_ms() + 10);
		look(&view);
		stream_flush(stream);
		while (read_some(333) > 0)
			stream_flush(stream);
		if (at == 0 && got_length >= FCGI_HEADER_LEN + 4)
			next(1, &content, &length);
		while (at > 0 && (n = next_number(&sender)) >= 0) {
			ck_assert(sender >= 0 && sender < SENDERS);
			ck_assert_int_eq(n, seen[sender]++);
			count++;
		}
		ck_assert_int_ne(n, -1);
	} while (count < SENDERS * EVENTS_EACH);
	for (int i = 0; i < SENDERS; i++) {
		ck_assert_int_eq(pthread_join(threads[i], &result), 0);
		ck_assert_ptr_nonnull(result);
	}
	drain();
	expect_nothing();
}
END_TEST

/* A peer that is gone */

/* A failed send breaks the stream: no signal, no more sends, and the owner is notified. */
START_TEST(broken_by_a_send)
{
	struct stream_view view;

	stream_start(stream, "head");
	look(&view);
	ck_assert(!view.broken);
	shutdown(reader, SHUT_RDWR);
	ck_assert(!send_event("data: lost\n\n"));
	ck_assert(!send_event("data: lost\n\n"));
	ck_assert(!stream_send_text(stream, STREAM_PING));
	ck_assert(!stream_send_raw(stream, (const uint8_t *)"12345678", 8));
	look(&view);
	ck_assert(view.broken);
	ck_assert(view.marks & STREAM_FLUSH);
	ck_assert(!view.pending);
	stream_finish(stream, "data: lost\n\n");
	stream_flush(stream);
	ck_assert_uint_eq(stream->backlog_length, 0);
}
END_TEST

/* Temporary errors break nothing and lose nothing: a full socket, a signal, no kernel memory. */
START_TEST(temporary_errors)
{
	static const int errors[] = { EAGAIN, EINTR, ENOBUFS, ENOMEM };
	struct stream_view view;

	stream_start(stream, "head");
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		send_error = errors[i];
		ck_assert(send_event("data: kept\n\n"));
		stream_flush(stream);
		look(&view);
		ck_assert(!view.broken);
		ck_assert(view.pending);
		send_error = 0;
		stream_flush(stream);
	}
	drain();
	expect_text("head");
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		expect_text("data: kept\n\n");
	expect_nothing();
}
END_TEST

/* All other errors break the stream. */
START_TEST(permanent_errors)
{
	static const int errors[] = { EPIPE, ECONNRESET, ETIMEDOUT, EBADF };
	struct stream_view view;

	send_error = errors[_i];
	stream_start(stream, "head");
	look(&view);
	ck_assert(view.broken);
	ck_assert(view.marks & STREAM_FLUSH);
	send_error = 0;
	ck_assert(!send_event("data: lost\n\n"));
	ck_assert_uint_eq(read_some(100), 0);
}
END_TEST

/*
 * Without kernel memory the socket polls writable all the time: the owner must not spin, but is
 * told to retry after a pause, well before its deadline.
 */
START_TEST(kernel_without_memory)
{
	struct stream_view view;
	int64_t begun;

	stream_start(stream, "head");
	send_error = _i == 0 ? ENOBUFS : ENOMEM;
	ck_assert(send_event("data: kept\n\n"));
	look(&view);
	/* The signal of the mark ends one wait. */
	stream_wait(stream, clock_ms());
	for (int i = 0; i < 3; i++) {
		begun = clock_ms();
		ck_assert_int_eq(stream_wait(stream, begun + LONG_MS), POLLOUT);
		ck_assert_int_ge(clock_ms(), begun + 50);
		ck_assert_int_lt(clock_ms(), begun + LONG_MS);
		stream_flush(stream);
	}
	send_error = 0;
	stream_flush(stream);
	look(&view);
	ck_assert(!view.pending);
	begun = clock_ms();
	ck_assert_int_eq(stream_wait(stream, begun + 150), 0);
	ck_assert_int_ge(clock_ms(), begun + 150);
	drain();
	expect_text("head");
	expect_text("data: kept\n\n");
}
END_TEST

/* So does a failed flush. */
START_TEST(broken_by_a_flush)
{
	struct stream_view view;

	stream_start(stream, "head");
	fill_socket(0);
	look(&view);
	shutdown(reader, SHUT_RDWR);
	stream_flush(stream);
	look(&view);
	ck_assert(view.broken);
	ck_assert(view.marks & STREAM_FLUSH);
	ck_assert(!send_event("data: lost\n\n"));
	stream_flush(stream);
}
END_TEST

/* Waiting */

/* If nothing happens, the wait lasts exactly until its deadline. */
START_TEST(wait_until_the_deadline)
{
	int64_t begun = clock_ms();

	ck_assert_int_eq(stream_wait(stream, begun + 50), 0);
	ck_assert_int_ge(clock_ms(), begun + 50);
	ck_assert_int_lt(clock_ms(), begun + LONG_MS);
	/*
	 * With a deadline in the past it returns at once; an open socket with room is no reason to
	 * return.
	 */
	begun = clock_ms();
	ck_assert_int_eq(stream_wait(stream, begun - 1000), 0);
	ck_assert_int_eq(stream_wait(stream, INT64_MIN / 2), 0);
	ck_assert_int_lt(clock_ms(), begun + LONG_MS);
}
END_TEST

/* Data from the peer ends the wait, and so does its close or half-close. */
START_TEST(wait_for_the_peer)
{
	int64_t begun = clock_ms();
	char byte;

	ck_assert_int_eq(write(reader, "x", 1), 1);
	ck_assert_int_eq(stream_wait(stream, begun + LONG_MS), POLLIN);
	ck_assert_int_eq(read(writer, &byte, 1), 1);
	shutdown(reader, SHUT_WR);
	ck_assert_int_eq(stream_wait(stream, begun + LONG_MS) & POLLRDHUP, POLLRDHUP);
	shutdown(reader, SHUT_RDWR);
	ck_assert_int_eq(stream_wait(stream, begun + LONG_MS) & POLLHUP, POLLHUP);
	ck_assert_int_lt(clock_ms(), begun + LONG_MS);
}
END_TEST

/* Room for the backlog ends the wait; there is none while the reader does not read. */
START_TEST(wait_for_room)
{
	struct stream_view view;
	int64_t begun;

	stream_start(stream, "head");
	fill_socket(0);
	look(&view);
	ck_assert_int_eq(stream_wait(stream, clock_ms() + 50), 0);
	begun = clock_ms();
	ck_assert_int_eq(stream_wait(stream, begun + 50), 0);
	ck_assert_int_ge(clock_ms(), begun + 50);
	while (read_some(4096) > 0)
		continue;
	begun = clock_ms();
	ck_assert_int_eq(stream_wait(stream, begun + LONG_MS), POLLOUT);
	ck_assert_int_lt(clock_ms(), begun + LONG_MS);
	drain();
}
END_TEST

/* A mark that was set before ends each wait at once until the owner looks at it. */
START_TEST(wait_with_a_mark)
{
	int64_t begun = clock_ms();
	struct stream_view view;

	stream_mark(stream, STREAM_EVICTED);
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(stream_wait(stream, begun + LONG_MS), 0);
	ck_assert_int_lt(clock_ms(), begun + LONG_MS);
	stream_mark(stream, STREAM_CONFIRMED);
	look(&view);
	ck_assert_uint_eq(view.marks, STREAM_EVICTED | STREAM_CONFIRMED);
	look(&view);
	ck_assert_uint_eq(view.marks, 0);
}
END_TEST

/*
 * A revocation before the start stays set without keeping the owner awake, wakes the owner at the
 * start, and is then a mark like any other.
 */
START_TEST(revoked_before_the_start)
{
	const unsigned revoked = STREAM_REVOKED | STREAM_MANY;
	int64_t begun = clock_ms();
	struct stream_view view;

	stream_mark(stream, revoked | STREAM_ANSWERED);
	ck_assert_int_eq(stream_wait(stream, begun + LONG_MS), 0);
	look(&view);
	ck_assert_uint_eq(view.marks, revoked | STREAM_ANSWERED);
	ck_assert_int_lt(clock_ms(), begun + LONG_MS);
	begun = clock_ms();
	ck_assert_int_eq(stream_wait(stream, begun + 50), 0);
	ck_assert_int_ge(clock_ms(), begun + 50);
	look(&view);
	ck_assert_uint_eq(view.marks, revoked);
	begun = clock_ms();
	stream_start(stream, "head");
	ck_assert_int_eq(stream_wait(stream, begun + LONG_MS), 0);
	ck_assert_int_lt(clock_ms(), begun + LONG_MS);
	look(&view);
	ck_assert_uint_eq(view.marks, revoked);
	look(&view);
	ck_assert_uint_eq(view.marks, 0);
}
END_TEST

/* The start itself does not wake the owner, which has nothing to do for it. */
START_TEST(start_does_not_wake_the_owner)
{
	int64_t begun = clock_ms();

	stream_start(stream, "head");
	ck_assert_int_eq(stream_wait(stream, begun + 50), 0);
	ck_assert_int_ge(clock_ms(), begun + 50);
}
END_TEST

#define ROUNDS 1000

static _Atomic int round_now;

/* Sets a mark in each round, at once or a little later. */
static void *
leave_marks(void *arg)
{
	(void)arg;
	for (int i = 1; i <= ROUNDS; i++) {
		while (round_now < i)
			sched_yield();
		for (int k = 0; k < i % 16 * 64; k++)
			atomic_signal_fence(memory_order_seq_cst);
		if (i % 3 == 0)
			usleep(300);
		stream_mark(stream, STREAM_CONFIRMED);
	}
	return NULL;
}

/* A mark set by another thread always wakes the owner: none is lost between look and sleep. */
START_TEST(marks_wake_the_owner)
{
	struct stream_view view;
	pthread_t thread;
	int64_t begun;

	ck_assert_int_eq(pthread_create(&thread, NULL, leave_marks, NULL), 0);
	for (int i = 1; i <= ROUNDS; i++) {
		begun = clock_ms();
		round_now = i;
		for (;;) {
			look(&view);
			if (view.marks == STREAM_CONFIRMED)
				break;
			ck_assert_uint_eq(view.marks, 0);
			stream_wait(stream, begun + LONG_MS);
			ck_assert_msg(clock_ms() < begun + LONG_MS, "round %d", i);
		}
	}
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

/* An event that another thread could not send completely wakes the owner, which has to flush. */
START_TEST(backlog_wakes_the_owner)
{
	int sender = 0;
	int64_t begun;
	struct stream_view view;
	pthread_t thread;
	void *result;

	stream_start(stream, "head");
	look(&view);
	begun = clock_ms();
	ck_assert_int_eq(pthread_create(&thread, NULL, send_many, &sender), 0);
	do {
		stream_wait(stream, begun + LONG_MS);
		look(&view);
		ck_assert_int_lt(clock_ms(), begun + LONG_MS);
	} while (!view.pending);
	ck_assert(view.marks & STREAM_FLUSH);
	ck_assert_int_eq(pthread_join(thread, &result), 0);
	ck_assert_ptr_nonnull(result);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("stream");
	TCase *life = tcase_create("life"), *slow = tcase_create("slow"),
	    *waiting = tcase_create("waiting"), *crowd = tcase_create("crowd");
	SRunner *sr = srunner_create(s);
	int failed;

	/* Before any thread starts; the test processes inherit it. */
	stream_signal_init();
	tcase_add_checked_fixture(life, setup, teardown);
	tcase_add_test(life, nothing_before_start);
	tcase_add_test(life, nothing_after_finish);
	tcase_add_test(life, finish_before_start);
	tcase_add_test(life, finish_without_text);
	tcase_add_test(life, raw_records);
	tcase_add_test(life, request_id);
	tcase_add_test(life, closed);
	tcase_add_test(life, references);
	tcase_add_test(life, last_sent);
	tcase_add_test(life, untaken_since);
	tcase_add_test(life, broken_by_a_send);
	tcase_add_test(life, temporary_errors);
	tcase_add_loop_test(life, permanent_errors, 0, 4);
	tcase_add_loop_test(life, kernel_without_memory, 0, 2);
	tcase_set_timeout(life, 60);
	suite_add_tcase(s, life);
	tcase_add_checked_fixture(slow, setup_small, teardown);
	tcase_add_test(slow, raw_records_are_bounded);
	tcase_add_test(slow, partial_sends);
	tcase_add_test(slow, no_overtaking);
	tcase_add_test(slow, largest_event_fits_smallest_backlog);
	tcase_add_test(slow, backlog_max_is_exact);
	tcase_add_test(slow, overflow_once);
	tcase_add_test(slow, overflow_often);
	tcase_add_test(slow, overflow_again);
	tcase_add_test(slow, overflow_between_records);
	tcase_add_loop_test(slow, overflow_keeps_the_start, 0,
	    FCGI_HEADER_LEN + (int)sizeof(STREAM_HEAD STREAM_SYNC));
	tcase_add_test(slow, any_cut);
	tcase_add_test(slow, overflow_of_a_rest);
	tcase_add_test(slow, overflow_of_another_id);
	tcase_add_test(slow, finish_with_a_backlog);
	tcase_add_test(slow, finish_with_a_long_text);
	tcase_add_test(slow, broken_by_a_flush);
	tcase_add_test(slow, wait_for_room);
	tcase_add_test(slow, backlog_wakes_the_owner);
	tcase_set_timeout(slow, 60);
	suite_add_tcase(s, slow);
	tcase_add_checked_fixture(waiting, setup, teardown);
	tcase_add_test(waiting, wait_until_the_deadline);
	tcase_add_test(waiting, wait_for_the_peer);
	tcase_add_test(waiting, wait_with_a_mark);
	tcase_add_test(waiting, revoked_before_the_start);
	tcase_add_test(waiting, start_does_not_wake_the_owner);
	tcase_add_test(waiting, marks_wake_the_owner);
	tcase_set_timeout(waiting, 60);
	suite_add_tcase(s, waiting);
	tcase_add_checked_fixture(crowd, setup_large_backlog, teardown);
	tcase_add_test(crowd, many_senders);
	tcase_set_timeout(crowd, 60);
	suite_add_tcase(s, crowd);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
