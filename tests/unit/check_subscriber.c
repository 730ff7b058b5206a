/* SPDX-License-Identifier: ISC */
/*
 * check_subscriber: a storm of streams joins in turns, a stream that leaves before its turn costs
 * nothing, and the queues are bounded.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "fake_valkey.h"
#include "pubsub/subscriber.h"

#define STORM        5000   /* more than TURN_NAMES of subscriber.c */
#define QUEUED_MAX   131072 /* of subscriber.c */
#define CHANNELS_MAX 262144 /* of subscriber.c, without caps */
#define LARGE        2048   /* channels of a large subscription */
#define TIMEOUT_MS 10000
#define CHANNEL    "notifications:tenant:t:broadcast"
#define SUBSCRIBED(length, name) "*3\r\n$9\r\nsubscribe\r\n$" #length "\r\n" name "\r\n:1\r\n"

static struct fake server = { .rules = {
	{ "SUBSCRIBE notifications:tenant:t:revoke", SUBSCRIBED(29, "notifications:tenant:t:revoke") },
	{ "SUBSCRIBE notifications:tenant:t:check:*", "-NOPERM no\r\n" },
	{ "SUBSCRIBE " CHANNEL, SUBSCRIBED(32, CHANNEL) },
	{ "UNSUBSCRIBE", NULL },
} };
static struct topology topology;
static char url[64];
static struct settings settings = {
	.valkey_url = url, .valkey_password_file = (char[]){ "" },
	.valkey_sentinels = (char[]){ "" }, .valkey_sentinel_master = (char[]){ "mymaster" },
	.valkey_sentinel_password = (char[]){ "" }, .valkey_sentinel_password_file = (char[]){ "" },
	.valkey_tls_ca = (char[]){ "" }, .valkey_tls_cert = (char[]){ "" },
	.valkey_tls_key = (char[]){ "" }, .tenant = (char[]){ "t" }, .backlog_bytes = 65536,
};
static struct subscriber *subscriber;
static struct stream *stream; /* of all subscriptions */
static struct subscription *storm[2 * STORM];
static sem_t begun, proceed;
static _Atomic int begins;
static int hold_at; /* the number of begins before the one that is held up */

static int64_t
revoked(void *arg, const struct revocation *r)
{
	(void)arg, (void)r;
	return INT64_MAX;
}

/* In the subscriber's thread: one call, the first at first, holds it up until the test lets it proceed. */
static void
begin(struct stream *s)
{
	ck_assert_ptr_eq(s, stream);
	if (begins++ == hold_at) {
		sem_post(&begun);
		sem_wait(&proceed);
	}
}

/* Joins the channel, count times. */
static struct subscription *
try_join(int count)
{
	char *names = malloc((size_t)count * sizeof(CHANNEL));

	for (int i = 0; i < count; i++)
		memcpy(names + (size_t)i * sizeof(CHANNEL), CHANNEL, sizeof(CHANNEL));
	return subscriber_join(subscriber, stream, names, count, begin);
}

static struct subscription *
join(void)
{
	struct subscription *sub = try_join(1);

	ck_assert_ptr_nonnull(sub);
	return sub;
}

/* Waits until that many streams have begun. */
static void
wait_begins(int count)
{
	int64_t deadline = clock_ms() + TIMEOUT_MS;

	while (begins != count) {
		ck_assert_int_lt(clock_ms(), deadline);
		usleep(1000);
	}
}

/* Waits until the subscriber holds count references to the stream. */
static void
wait_references(int count)
{
	int64_t deadline = clock_ms() + TIMEOUT_MS;

	while (stream->references != 1 + count) {
		ck_assert_int_lt(clock_ms(), deadline);
		usleep(1000);
	}
}

static void
setup_alone(void)
{
	struct error error;

	snprintf(url, sizeof(url), "valkey://%s",
	    server.label[0] != '\0' ? server.label : "127.0.0.1:1");
	ck_assert(topology_parse(&topology, &settings, NULL, &error));
	ck_assert_int_eq(sem_init(&begun, 0, 0), 0);
	ck_assert_int_eq(sem_init(&proceed, 0, 0), 0);
	stream_signal_init();
	stream = stream_new(-1, 65536);
	ck_assert_ptr_nonnull(stream);
	subscriber = subscriber_start(&settings, &topology, revoked, NULL);
	ck_assert_ptr_nonnull(subscriber);
}

static void
stop(void)
{
	wait_references(0);
	stream_release(stream);
	subscriber_stop(subscriber, TIMEOUT_MS);
	fake_stop(&server);
}

static void
setup(void)
{
	fake_start(&server);
	setup_alone();
}

/*
 * While the subscriber is busy, a storm of streams joins, and half of them leave again: these are
 * freed at once, without waiting for the subscriber, and never begin.
 */
START_TEST(a_storm_joins_in_turns)
{
	struct subscription *first = join();

	sem_wait(&begun);
	for (int i = 0; i < 2 * STORM; i++)
		storm[i] = join();
	for (int i = 1; i < 2 * STORM; i += 2)
		subscriber_leave(storm[i]);
	ck_assert_int_eq(stream->references, 1 + 1 + STORM);
	sem_post(&proceed);
	wait_begins(1 + STORM);
	for (int i = 0; i < 2 * STORM; i += 2)
		subscriber_leave(storm[i]);
	subscriber_leave(first);
	stop();
	ck_assert_int_eq(begins, 1 + STORM);
}
END_TEST

/* Streams may leave while the subscriber's thread has them in hand, but has not joined them yet. */
START_TEST(leaving_while_taken)
{
	struct subscription *first = join();

	sem_wait(&begun);
	for (int i = 0; i < 100; i++)
		storm[i] = join();
	hold_at = 1 + 10;
	sem_post(&proceed);
	sem_wait(&begun);
	for (int i = 0; i < 100; i++)
		subscriber_leave(storm[i]);
	sem_post(&proceed);
	wait_begins(1 + 100);
	subscriber_leave(first);
	stop();
}
END_TEST

/* Only so many channels wait to join or to leave; a stream beyond them is refused for now. */
START_TEST(the_queues_are_bounded)
{
	struct subscription *first = join(), *last;
	int i;

	sem_wait(&begun);
	for (i = 0; i < QUEUED_MAX / LARGE; i++) {
		storm[i] = try_join(LARGE);
		ck_assert_ptr_nonnull(storm[i]);
	}
	errno = 0;
	ck_assert_ptr_null(try_join(1));
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(stream->references, 1 + 1 + i);
	/* One that leaves makes room. */
	subscriber_leave(storm[--i]);
	last = try_join(LARGE);
	ck_assert_ptr_nonnull(last);
	ck_assert_ptr_null(try_join(1));
	sem_post(&proceed);
	wait_begins(1 + i + 1);
	/* Leaves are taken, too, and the queue is empty again. */
	while (--i >= 0)
		subscriber_leave(storm[i]);
	subscriber_leave(last);
	subscriber_leave(first);
	wait_references(0);
	storm[0] = try_join(LARGE);
	ck_assert_ptr_nonnull(storm[0]);
	subscriber_leave(storm[0]);
	stop();
}
END_TEST

/* Joins count channels that no other stream is in. NULL: EAGAIN. */
static struct subscription *
join_new(int first, int count)
{
	char *names = malloc((size_t)count * 8), *at = names;

	for (int i = first; i < first + count; i++)
		at += sprintf(at, "%d", i) + 1;
	return subscriber_join(subscriber, stream, names, count, begin);
}

/* The table of channels is bounded, also while there is no connection. */
START_TEST(the_table_is_bounded)
{
	int64_t deadline = clock_ms() + TIMEOUT_MS;
	struct subscriber_view view = { .channels = 0 };

	for (int i = 0; i < CHANNELS_MAX; i += LARGE) {
		storm[i / LARGE] = join_new(i, LARGE);
		ck_assert_ptr_nonnull(storm[i / LARGE]);
		while (view.channels != (uint32_t)(i + LARGE)) {
			ck_assert_int_lt(clock_ms(), deadline);
			usleep(100);
			subscriber_look(subscriber, &view);
		}
	}
	ck_assert_ptr_null(join_new(0, 1));
	ck_assert_int_eq(errno, EAGAIN);
	subscriber_leave(storm[0]);
	while (view.channels != CHANNELS_MAX - LARGE) {
		ck_assert_int_lt(clock_ms(), deadline);
		usleep(100);
		subscriber_look(subscriber, &view);
	}
	storm[0] = join_new(0, LARGE);
	ck_assert_ptr_nonnull(storm[0]);
	subscriber_stop(subscriber, TIMEOUT_MS);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("subscriber");
	TCase *cases = tcase_create("subscriber"), *alone = tcase_create("without a server");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(cases, setup, NULL);
	tcase_add_test(cases, a_storm_joins_in_turns);
	tcase_add_test(cases, leaving_while_taken);
	tcase_add_test(cases, the_queues_are_bounded);
	suite_add_tcase(suite, cases);
	tcase_add_checked_fixture(alone, setup_alone, NULL);
	tcase_add_test(alone, the_table_is_bounded);
	suite_add_tcase(suite, alone);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
