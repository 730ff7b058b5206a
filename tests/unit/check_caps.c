/* SPDX-License-Identifier: ISC */
/*
 * check_caps: how many slots are taken, which requests are cancelled and which streams are evicted.
 *
 * The streams are real, over pairs of Unix sockets: the tests check their marks and what they send.
 */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream/caps.h"
#include "base/clock.h"
#include "wire/frame.h"
#include "fake_clock.h"

#define CONNECTIONS_MAX 16

/* One connection. */
struct connection {
	struct caps_entry entry;
	struct stream *stream;
	int writer, reader;
};

static struct caps *caps;
static struct connection connections[CONNECTIONS_MAX];
static uint64_t arrivals;

static _Atomic int64_t now = 1000000;

static int64_t
still_clock(void)
{
	return now;
}

/* Each reading is CAPS_SETTLE_MS later than the last. */
static int64_t
racing_clock(void)
{
	return atomic_fetch_add(&now, CAPS_SETTLE_MS);
}

static void
setup(void)
{
	clock_set_source(still_clock);
	for (int i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *p = &connections[i];
		int pair[2];

		memset(p, 0, sizeof(*p));
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		p->writer = pair[0];
		p->reader = pair[1];
		p->stream = stream_new(p->writer, 65536);
		ck_assert_ptr_nonnull(p->stream);
		stream_set_id(p->stream, 1);
	}
}

static void
teardown(void)
{
	for (int i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *p = &connections[i];

		caps_leave(caps, &p->entry);
		stream_close(p->stream);
		stream_release(p->stream);
		close(p->writer);
		close(p->reader);
		caps_release(caps, &p->entry);
		memset(p, 0, sizeof(*p));
	}
	/* It is one block; a sanitizer finds a user that caps did not free. */
	free(caps);
}

static void
new_caps(int tenant_cap, int user_cap)
{
	caps = caps_new(tenant_cap, user_cap);
	ck_assert_ptr_nonnull(caps);
}

/* A request has arrived, but is not claimed yet. */
static void
arrive(int i)
{
	connections[i].entry.arrival = ++arrivals;
}

/* A request of a user, up to its claim. */
static void
claim(int i, const char *user)
{
	if (connections[i].entry.arrival == 0)
		arrive(i);
	ck_assert(caps_reserve(caps, &connections[i].entry));
	ck_assert_int_eq(caps_claim(caps, &connections[i].entry, user, connections[i].stream),
	    CAPS_CLAIMED);
}

static bool
live(int i)
{
	struct stream_view view;

	caps_live(connections[i].stream, "head");
	stream_look(connections[i].stream, &view);
	ck_assert(view.started);
	return (view.marks & STREAM_OVER) != 0;
}

/* Opens a stream; returns whether its user is over the cap now. */
static bool
open_stream(int i, const char *user)
{
	claim(i, user);
	return live(i);
}

/* The eviction for a new stream, after CAPS_SETTLE_MS. */
static void
evict(int i)
{
	now += CAPS_SETTLE_MS;
	ck_assert_int_eq(caps_evict(caps, &connections[i].entry), INT64_MAX);
}

static unsigned
marks(int i)
{
	struct stream_view view;

	stream_look(connections[i].stream, &view);
	return view.marks;
}

/* The contents of the records that the reader has received since the last call. */
static const char *
received(int i)
{
	static char text[4096];
	uint8_t bytes[4096];
	size_t used = 0, at = 0, length;
	ssize_t n = recv(connections[i].reader, bytes, sizeof(bytes), MSG_DONTWAIT);

	while (n > 0 && at < (size_t)n) {
		length = (size_t)bytes[at + 4] << 8 | bytes[at + 5];
		if (bytes[at + 1] == FCGI_STDOUT) {
			memcpy(text + used, bytes + at + FCGI_HEADER_LEN, length);
			used += length;
		} else
			used += (size_t)sprintf(text + used, "<%d>", bytes[at + 1]);
		at += FCGI_HEADER_LEN + length;
	}
	text[used] = '\0';
	return text;
}

/* Expects that exactly these streams were evicted since the last call, with the documented bytes. */
static void
expect_evicted(const char *which)
{
	for (int i = 0; i < CONNECTIONS_MAX; i++) {
		bool expected = strchr(which, "0123456789abcdef"[i]) != NULL;
		unsigned retry = 0;
		const char *text = received(i);
		struct stream_view view;
		int end = 0;

		if (strncmp(text, "head", 4) == 0)
			text += 4;
		stream_look(connections[i].stream, &view);
		ck_assert_msg(!!(view.marks & STREAM_EVICTED) == expected, "%d", i);
		if (!expected) {
			ck_assert_msg(strstr(text, "evicted") == NULL, "%d: %s", i, text);
			continue;
		}
		ck_assert(view.finished);
		sscanf(text, "retry: %u\nid: evicted\nevent: evicted\ndata: {}\n\n<3>%n", &retry,
		    &end);
		ck_assert_msg(end > 0 && text[end] == '\0', "%s", text);
		ck_assert_ptr_nonnull(
		    strstr(text, "\nid: evicted\nevent: evicted\ndata: {}\n\n<3>"));
		ck_assert_uint_ge(retry, 120000);
		ck_assert_uint_le(retry, 300000);
	}
}

/* Exactly as many slots as the cap can be taken; one that is released can be taken again. */
START_TEST(tenant_cap)
{
	new_caps(3, 1);
	for (int i = 0; i < 3; i++)
		ck_assert(caps_reserve(caps, &connections[i].entry));
	for (int i = 3; i < 6; i++) {
		ck_assert(!caps_reserve(caps, &connections[i].entry));
		/* Releasing a slot that was not taken changes nothing. */
		caps_release(caps, &connections[i].entry);
	}
	ck_assert(!caps_reserve(caps, &connections[3].entry));
	caps_release(caps, &connections[0].entry);
	caps_release(caps, &connections[0].entry);
	ck_assert(caps_reserve(caps, &connections[3].entry));
	ck_assert(!caps_reserve(caps, &connections[4].entry));
}
END_TEST

#define THREADS 8

static struct crowd {
	pthread_barrier_t barrier;
	_Atomic int out, most, granted;
} crowd;

/* Takes and releases slots, and records how many were taken at once at most. */
static void *
hammer(void *arg)
{
	struct caps_entry entries[3] = { { .reserved = false } };

	(void)arg;
	pthread_barrier_wait(&crowd.barrier);
	for (int i = 0; i < 20000; i++) {
		struct caps_entry *e = &entries[i % 3];

		if (e->reserved) {
			/* Before another thread can take it. */
			crowd.out--;
			caps_release(caps, e);
		}
		if (caps_reserve(caps, e)) {
			int out = ++crowd.out, most = crowd.most;

			while (out > most &&
			    !atomic_compare_exchange_weak(&crowd.most, &most, out))
				continue;
		}
	}
	for (int i = 0; i < 3; i++) {
		if (entries[i].reserved)
			crowd.out--;
		caps_release(caps, &entries[i]);
	}
	return NULL;
}

static void
run_crowd(void *(*run)(void *))
{
	pthread_t threads[THREADS];

	ck_assert_int_eq(pthread_barrier_init(&crowd.barrier, NULL, THREADS), 0);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, run, &connections[i]), 0);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
}

/* Eight threads never have more slots than the cap, and release all of them. */
START_TEST(tenant_cap_of_threads)
{
	struct caps_entry entries[6] = { { .reserved = false } };

	new_caps(5, 1);
	run_crowd(hammer);
	ck_assert_int_gt(crowd.most, 0);
	ck_assert_int_le(crowd.most, 5);
	for (int i = 0; i < 5; i++)
		ck_assert(caps_reserve(caps, &entries[i]));
	ck_assert(!caps_reserve(caps, &entries[5]));
	for (int i = 0; i < 6; i++)
		caps_release(caps, &entries[i]);
}
END_TEST

static void *
take_all(void *arg)
{
	struct caps_entry *entries = calloc(1000, sizeof(*entries));

	(void)arg;
	pthread_barrier_wait(&crowd.barrier);
	for (int i = 0; i < 1000; i++)
		if (caps_reserve(caps, &entries[i]))
			crowd.granted++;
	pthread_barrier_wait(&crowd.barrier);
	for (int i = 0; i < 1000; i++)
		caps_release(caps, &entries[i]);
	free(entries);
	return NULL;
}

/* Of 8000 simultaneous requests exactly 1003 get one of 1003 slots. */
START_TEST(burst)
{
	new_caps(1003, 1);
	run_crowd(take_all);
	ck_assert_int_eq(crowd.granted, 1003);
}
END_TEST

/*
 * Requests take all steps from reserving to releasing a slot, each thread's for its own user or for
 * one that all share.
 */
static void *
live_and_leave(void *arg)
{
	struct connection *p = arg;
	char own[16];

	snprintf(own, sizeof(own), "u%d", (int)(p - connections));
	pthread_barrier_wait(&crowd.barrier);
	for (int i = 0; i < 2000; i++) {
		if (!caps_reserve(caps, &p->entry))
			continue;
		/* A stream starts only once, but the counts do not depend on that. */
		p->entry.returning = i % 5 == 0;
		if (caps_claim(caps, &p->entry, i % 2 == 0 ? own : "common", p->stream) == CAPS_CLAIMED)
			caps_live(p->stream, "head");
		if (i % 3 == 0) {
			caps_ping(caps, &p->entry);
			caps_evict(caps, &p->entry);
		}
		caps_leave(caps, &p->entry);
		caps_release(caps, &p->entry);
	}
	return NULL;
}

/* After many such requests in many threads no live stream, taken slot, or user's memory is left. */
START_TEST(storm)
{
	new_caps(6, 1);
	clock_set_source(racing_clock);
	run_crowd(live_and_leave);
	ck_assert_int_eq(caps_count(caps), 0);
	for (int i = 0; i < 6; i++)
		ck_assert(caps_reserve(caps, &connections[i].entry));
	ck_assert(!caps_reserve(caps, &connections[6].entry));
}
END_TEST

/*
 * If a user already holds twice the user cap, a new request cancels the user's oldest request in
 * flight.
 */
START_TEST(oldest_request_is_cancelled)
{
	new_caps(100, 2);
	for (int i = 0; i < 4; i++)
		claim(i, "u1");
	claim(4, "u2");
	for (int i = 0; i < 5; i++)
		ck_assert_uint_eq(marks(i), 0);
	claim(5, "u1");
	ck_assert_uint_eq(marks(0), STREAM_CANCELLED);
	claim(6, "u1");
	ck_assert_uint_eq(marks(1), STREAM_CANCELLED);
	for (int i = 2; i < 7; i++)
		ck_assert_uint_eq(marks(i), 0);
	/* The cancelled ones cannot begin; the others can. */
	caps_live(connections[0].stream, "head");
	caps_live(connections[1].stream, "head");
	ck_assert_int_eq(caps_count(caps), 0);
	ck_assert_str_eq(received(0), "");
	ck_assert(!live(2));
	ck_assert_str_eq(received(2), "head");
	/* They hold a slot of the tenant until they are released. */
	ck_assert(connections[0].entry.reserved);
}
END_TEST

/* The oldest request in flight is the one that arrived first, even if it claims last. */
START_TEST(cancelled_by_arrival)
{
	new_caps(100, 1);
	arrive(0);
	arrive(1);
	claim(2, "u1");
	claim(1, "u1");
	ck_assert_uint_eq(marks(1) | marks(2), 0);
	claim(3, "u1");
	ck_assert_uint_eq(marks(1), STREAM_CANCELLED);
	claim(0, "u1");
	ck_assert_uint_eq(marks(0), STREAM_CANCELLED);
	ck_assert_uint_eq(marks(2) | marks(3), 0);
	caps_live(connections[0].stream, "head");
	ck_assert_str_eq(received(0), "");
	ck_assert(caps_withdraw(caps, &connections[0].entry));
	/* If all others are live streams, no request is cancelled, however early it arrived. */
	live(2);
	live(3);
	arrive(5);
	connections[5].entry.arrival = 1;
	claim(5, "u1");
	ck_assert_uint_eq(marks(5), 0);
}
END_TEST

/* Live streams count towards twice the user cap, but only a request in flight is ever cancelled. */
START_TEST(live_streams_are_not_cancelled)
{
	new_caps(100, 2);
	for (int i = 0; i < 3; i++)
		open_stream(i, "u1");
	claim(3, "u1");
	ck_assert_uint_eq(marks(3), 0);
	claim(4, "u1");
	ck_assert_uint_eq(marks(3), STREAM_CANCELLED);
	live(4);
	/* With four live streams a new request is always accepted. */
	claim(5, "u1");
	for (int i = 0; i < CONNECTIONS_MAX; i++)
		ck_assert_msg(marks(i) == 0, "%d", i);
}
END_TEST

/*
 * The user is over the cap from the first stream beyond it, and a new stream alone evicts none.
 */
START_TEST(newcomer_is_over)
{
	new_caps(100, 2);
	ck_assert(!open_stream(0, "u1"));
	ck_assert(!open_stream(1, "u1"));
	ck_assert(open_stream(2, "u1"));
	ck_assert(open_stream(3, "u1"));
	ck_assert(!open_stream(4, "u2"));
	expect_evicted("");
	ck_assert_int_eq(caps_count(caps), 5);
}
END_TEST

/* caps_counts() returns live streams, taken slots, and all streams that have ever begun. */
START_TEST(all_counts)
{
	struct caps_counts counts;

	new_caps(100, 2);
	open_stream(0, "u1");
	open_stream(1, "u2");
	claim(2, "u1");
	caps_leave(caps, &connections[0].entry);
	caps_counts(caps, &counts);
	ck_assert_int_eq(counts.live, 1);
	ck_assert_int_eq(counts.reserved, 3);
	ck_assert_uint_eq(counts.opened, 2);
	caps_release(caps, &connections[0].entry);
	/* A request that is withdrawn does not begin. */
	ck_assert(caps_withdraw(caps, &connections[2].entry));
	caps_live(connections[2].stream, "head");
	caps_counts(caps, &counts);
	ck_assert_int_eq(counts.live, 1);
	ck_assert_int_eq(counts.reserved, 2);
	ck_assert_uint_eq(counts.opened, 2);
	/* Nor does a stream that was finished before. */
	claim(3, "u3");
	stream_finish(connections[3].stream, "");
	caps_live(connections[3].stream, "head");
	caps_counts(caps, &counts);
	ck_assert_uint_eq(counts.opened, 2);
	ck_assert(caps_withdraw(caps, &connections[3].entry));
}
END_TEST

/* caps_evict() evicts the oldest streams of the same user until the cap holds. */
START_TEST(evict_the_oldest)
{
	new_caps(100, 2);
	open_stream(4, "u2");
	open_stream(5, "u2");
	/* The age is that of the request, not of its claim or sync. */
	arrive(0);
	claim(1, "u1");
	open_stream(2, "u1");
	open_stream(0, "u1");
	live(1);
	open_stream(3, "u1");
	evict(3);
	expect_evicted("01");
	ck_assert_int_eq(caps_count(caps), 4);
	/* Calling it again evicts no more. */
	evict(3);
	evict(0);
	expect_evicted("");
	/* If a stream has ended meanwhile, none is evicted. */
	ck_assert(open_stream(6, "u1"));
	caps_leave(caps, &connections[2].entry);
	evict(6);
	expect_evicted("");
}
END_TEST

/* Of streams that begin at the same time, in any order, the last to arrive remain. */
START_TEST(evict_by_arrival)
{
	static const int orders[][4] = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 1, 3, 0, 2 }, { 2, 0, 3, 1 } };

	new_caps(100, 2);
	for (size_t k = 0; k < sizeof(orders) / sizeof(orders[0]); k++) {
		int base = 4 * (int)k;
		char user[8], expected[3] = { "0123456789abcdef"[base], "0123456789abcdef"[base + 1], '\0' };

		snprintf(user, sizeof(user), "u%zu", k);
		for (int i = 0; i < 4; i++)
			claim(base + i, user);
		for (int i = 0; i < 4; i++)
			ck_assert_int_eq(live(base + orders[k][i]), i >= 2);
		evict(base + orders[k][3]);
		expect_evicted(expected);
	}
}
END_TEST

/* A stream that begins late is itself evicted if newer ones fill twice the cap, but does begin. */
START_TEST(evict_the_late)
{
	struct stream_view view;

	new_caps(100, 1);
	arrive(0);
	open_stream(1, "u1");
	open_stream(2, "u1");
	claim(0, "u1");
	caps_live(connections[0].stream, "head");
	stream_look(connections[0].stream, &view);
	ck_assert(view.started && view.finished);
	ck_assert_uint_eq(view.marks & (STREAM_EVICTED | STREAM_OVER), STREAM_EVICTED);
	ck_assert(!caps_withdraw(caps, &connections[0].entry));
	ck_assert_int_eq(caps_count(caps), 2);
	ck_assert_int_eq(strncmp(received(0), "headretry: ", 11), 0);
	evict(2);
	expect_evicted("1");
}
END_TEST

/* CAPS_SETTLE_MS count from the last sync, also if that request arrived early. */
START_TEST(settled_after_the_last_sync)
{
	new_caps(100, 2);
	claim(0, "u1");
	open_stream(1, "u1");
	open_stream(2, "u1");
	now += 10000;
	ck_assert(live(0));
	ck_assert_int_eq(caps_evict(caps, &connections[0].entry), now + CAPS_SETTLE_MS);
	expect_evicted("");
	evict(0);
	expect_evicted("0");
}
END_TEST

/* Request i is the automatic reconnect of an evicted stream. */
static enum caps_claim
claim_returning(int i, const char *user)
{
	arrive(i);
	connections[i].entry.returning = true;
	ck_assert(caps_reserve(caps, &connections[i].entry));
	return caps_claim(caps, &connections[i].entry, user, connections[i].stream);
}

/* A reconnecting request gets a slot only if the user's streams and requests do not fill the cap. */
START_TEST(returning_takes_a_free_slot)
{
	new_caps(100, 2);
	open_stream(0, "u1");
	claim(1, "u1");
	ck_assert_int_eq(claim_returning(2, "u1"), CAPS_NO_SLOT);
	ck_assert_uint_eq(marks(1) | marks(2), 0);
	/* It does not count for the user. */
	ck_assert(caps_withdraw(caps, &connections[2].entry));
	ck_assert_int_eq(claim_returning(3, "u2"), CAPS_CLAIMED);
	caps_leave(caps, &connections[0].entry);
	ck_assert_int_eq(claim_returning(4, "u1"), CAPS_CLAIMED);
	ck_assert(!live(1));
	ck_assert(!live(4));
	evict(4);
	expect_evicted("");
	/* It is then a stream like any other: the oldest is evicted, which is another one. */
	open_stream(5, "u1");
	evict(5);
	expect_evicted("1");
}
END_TEST

/* If the cap fills between its claim and its sync, it is cancelled, and no other. */
START_TEST(returning_gives_way)
{
	new_caps(100, 2);
	ck_assert_int_eq(claim_returning(0, "u1"), CAPS_CLAIMED);
	open_stream(1, "u1");
	open_stream(2, "u1");
	caps_live(connections[0].stream, "head");
	ck_assert_uint_eq(marks(0), STREAM_CANCELLED);
	ck_assert_str_eq(received(0), "");
	ck_assert(caps_withdraw(caps, &connections[0].entry));
	evict(2);
	expect_evicted("");
	/* Requests in flight count, also those that arrived before it. */
	caps_leave(caps, &connections[2].entry);
	arrive(3);
	ck_assert_int_eq(claim_returning(4, "u1"), CAPS_CLAIMED);
	claim(3, "u1");
	caps_live(connections[4].stream, "head");
	ck_assert_uint_eq(marks(4), STREAM_CANCELLED);
	ck_assert(!live(3));
	evict(3);
	expect_evicted("");
	ck_assert_int_eq(caps_count(caps), 2);
}
END_TEST

/* Several reconnecting requests get the free slots; none waits for another. */
START_TEST(returning_together)
{
	new_caps(100, 2);
	ck_assert_int_eq(claim_returning(0, "u1"), CAPS_CLAIMED);
	ck_assert_int_eq(claim_returning(1, "u1"), CAPS_CLAIMED);
	ck_assert_int_eq(claim_returning(2, "u1"), CAPS_NO_SLOT);
	claim(3, "u1");
	caps_live(connections[0].stream, "head");
	ck_assert_uint_eq(marks(0), STREAM_CANCELLED);
	ck_assert(!live(1));
	ck_assert(!live(3));
	evict(3);
	expect_evicted("");
}
END_TEST

/* A stream that caused an eviction is itself evicted if newer ones have begun. */
START_TEST(evict_a_former_newcomer)
{
	new_caps(100, 2);
	for (int i = 0; i < 4; i++)
		open_stream(i, "u1");
	evict(0);
	expect_evicted("01");
	/* An evicted stream evicts none. */
	open_stream(4, "u1");
	evict(0);
	expect_evicted("");
	evict(4);
	expect_evicted("2");
}
END_TEST

/* No stream is evicted until CAPS_SETTLE_MS after the user's last new stream. */
START_TEST(evict_when_settled)
{
	new_caps(100, 2);
	open_stream(0, "u1");
	open_stream(1, "u1");
	now += 10000;
	open_stream(2, "u1");
	ck_assert_int_eq(caps_evict(caps, &connections[2].entry), now + CAPS_SETTLE_MS);
	now += CAPS_SETTLE_MS - 1;
	ck_assert_int_eq(caps_evict(caps, &connections[2].entry), now + 1);
	expect_evicted("");
	open_stream(3, "u1");
	open_stream(8, "u2");
	now++;
	ck_assert_int_eq(caps_evict(caps, &connections[2].entry), now + CAPS_SETTLE_MS - 1);
	/* Neither a request in flight nor another user's stream counts as one. */
	claim(4, "u1");
	now += CAPS_SETTLE_MS - 2;
	open_stream(9, "u2");
	ck_assert_int_eq(caps_evict(caps, &connections[2].entry), now + 1);
	expect_evicted("");
	now++;
	ck_assert_int_eq(caps_evict(caps, &connections[2].entry), INT64_MAX);
	expect_evicted("01");
	/* A stream that is not live need not call again. */
	ck_assert_int_eq(caps_evict(caps, &connections[0].entry), INT64_MAX);
	ck_assert_int_eq(caps_evict(caps, &connections[4].entry), INT64_MAX);
}
END_TEST

/* If a user would hold more than twice the user cap, the oldest stream is evicted at once. */
START_TEST(evict_at_once)
{
	new_caps(100, 2);
	for (int i = 0; i < 4; i++)
		open_stream(i, "u1");
	expect_evicted("");
	ck_assert(open_stream(4, "u1"));
	expect_evicted("0");
	ck_assert(open_stream(5, "u1"));
	expect_evicted("1");
	ck_assert_int_eq(caps_count(caps), 4);
	evict(5);
	expect_evicted("23");
}
END_TEST

/* With a cap of one the new stream remains and the other is evicted. */
START_TEST(cap_of_one)
{
	new_caps(100, 1);
	ck_assert(!open_stream(0, "u1"));
	ck_assert(open_stream(1, "u1"));
	evict(1);
	expect_evicted("0");
	ck_assert(open_stream(2, "u1"));
	ck_assert(open_stream(3, "u1"));
	expect_evicted("1");
}
END_TEST

/* The ping is sent on the user's other live streams, and no others. */
START_TEST(ping)
{
	new_caps(100, 3);
	open_stream(0, "u1");
	open_stream(1, "u1");
	open_stream(2, "u1");
	open_stream(3, "u2");
	claim(4, "u1");
	caps_ping(caps, &connections[2].entry);
	ck_assert_str_eq(received(0), "head: ping\n");
	ck_assert_str_eq(received(1), "head: ping\n");
	ck_assert_str_eq(received(2), "head");
	ck_assert_str_eq(received(3), "head");
	ck_assert_str_eq(received(4), "");
	/* A stream that is not live, or not any more, pings none. */
	caps_ping(caps, &connections[4].entry);
	caps_leave(caps, &connections[2].entry);
	caps_ping(caps, &connections[2].entry);
	for (int i = 0; i < CONNECTIONS_MAX; i++)
		ck_assert_str_eq(received(i), "");
}
END_TEST

/* A stream counts from its sync until it leaves or is evicted; leaving twice changes nothing. */
START_TEST(count)
{
	new_caps(100, 1);
	claim(0, "u1");
	ck_assert_int_eq(caps_count(caps), 0);
	live(0);
	ck_assert_int_eq(caps_count(caps), 1);
	open_stream(1, "u1");
	open_stream(2, "u2");
	ck_assert_int_eq(caps_count(caps), 3);
	evict(1);
	ck_assert_int_eq(caps_count(caps), 2);
	caps_leave(caps, &connections[0].entry);
	ck_assert_int_eq(caps_count(caps), 2);
	caps_leave(caps, &connections[1].entry);
	caps_leave(caps, &connections[1].entry);
	ck_assert_int_eq(caps_count(caps), 1);
	caps_leave(caps, &connections[2].entry);
	ck_assert_int_eq(caps_count(caps), 0);
}
END_TEST

/* In every state, leaving and releasing give back exactly what was held. */
START_TEST(leave_from_every_state)
{
	new_caps(4, 1);
	/* 0: nothing. 1: reserved. 2: cancelled. 3: in flight. 4: live. */
	ck_assert(caps_reserve(caps, &connections[1].entry));
	claim(2, "u1");
	open_stream(4, "u1");
	claim(3, "u1");
	ck_assert_uint_eq(marks(2), STREAM_CANCELLED);
	ck_assert(!caps_reserve(caps, &connections[5].entry));
	for (int i = 0; i < 5; i++) {
		caps_leave(caps, &connections[i].entry);
		caps_leave(caps, &connections[i].entry);
		if (i >= 2)
			caps_live(connections[i].stream, "head");
		/* A stream that has begun cannot be withdrawn. */
		ck_assert_int_eq(caps_withdraw(caps, &connections[i].entry), i < 4);
		evict(i);
		caps_ping(caps, &connections[i].entry);
		caps_release(caps, &connections[i].entry);
		caps_release(caps, &connections[i].entry);
	}
	ck_assert_int_eq(caps_count(caps), 0);
	expect_evicted("");
	for (int i = 0; i < 4; i++)
		ck_assert(caps_reserve(caps, &connections[i].entry));
	ck_assert(!caps_reserve(caps, &connections[4].entry));
}
END_TEST

/* A request that was withdrawn never begins, and one that has begun cannot be withdrawn. */
START_TEST(withdrawing)
{
	new_caps(100, 1);
	claim(0, "u1");
	ck_assert(caps_withdraw(caps, &connections[0].entry));
	ck_assert(caps_withdraw(caps, &connections[0].entry));
	caps_live(connections[0].stream, "head");
	ck_assert_str_eq(received(0), "");
	ck_assert_int_eq(caps_count(caps), 0);
	/* The withdrawn request no longer counts, so it is not cancelled for another. */
	ck_assert(!open_stream(1, "u1"));
	claim(2, "u1");
	ck_assert_uint_eq(marks(0), 0);
	ck_assert(!caps_withdraw(caps, &connections[1].entry));
	ck_assert_int_eq(caps_count(caps), 1);
	/* Nor can one that has been evicted since. */
	open_stream(3, "u1");
	evict(3);
	ck_assert_int_eq(caps_count(caps), 1);
	ck_assert(!caps_withdraw(caps, &connections[1].entry));
}
END_TEST

/* After leaving, the next request of the user cancels and evicts none. */
START_TEST(leaving_makes_room)
{
	new_caps(100, 1);
	for (int i = 0; i < CONNECTIONS_MAX; i++) {
		ck_assert(!open_stream(i, "u1"));
		claim((i + 1) % CONNECTIONS_MAX, "u1");
		caps_leave(caps, &connections[(i + 1) % CONNECTIONS_MAX].entry);
		caps_release(caps, &connections[(i + 1) % CONNECTIONS_MAX].entry);
		caps_leave(caps, &connections[i].entry);
		caps_release(caps, &connections[i].entry);
		ck_assert_uint_eq(marks(i), 0);
	}
	expect_evicted("");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("caps");
	TCase *tc = tcase_create("caps");
	SRunner *sr = srunner_create(s);
	int failed;

	/* Before any thread starts; the tests' processes inherit it. */
	stream_signal_init();
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, tenant_cap);
	tcase_add_test(tc, tenant_cap_of_threads);
	tcase_add_test(tc, burst);
	tcase_add_test(tc, storm);
	tcase_add_test(tc, oldest_request_is_cancelled);
	tcase_add_test(tc, cancelled_by_arrival);
	tcase_add_test(tc, live_streams_are_not_cancelled);
	tcase_add_test(tc, newcomer_is_over);
	tcase_add_test(tc, all_counts);
	tcase_add_test(tc, evict_the_oldest);
	tcase_add_test(tc, evict_by_arrival);
	tcase_add_test(tc, evict_the_late);
	tcase_add_test(tc, settled_after_the_last_sync);
	tcase_add_test(tc, returning_takes_a_free_slot);
	tcase_add_test(tc, returning_gives_way);
	tcase_add_test(tc, returning_together);
	tcase_add_test(tc, evict_a_former_newcomer);
	tcase_add_test(tc, evict_when_settled);
	tcase_add_test(tc, evict_at_once);
	tcase_add_test(tc, cap_of_one);
	tcase_add_test(tc, ping);
	tcase_add_test(tc, count);
	tcase_add_test(tc, leave_from_every_state);
	tcase_add_test(tc, withdrawing);
	tcase_add_test(tc, leaving_makes_room);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
