/* SPDX-License-Identifier: ISC */
/*
 * check_subscriber: a storm of streams joins in bounded steps, and a stream that leaves before its
 * turn never begins.
 */
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "fake_valkey.h"
#include "pubsub/subscriber.h"

#define STEP       256 /* JOINS_MAX of subscriber.c */
#define STORM      (3 * STEP)
#define TIMEOUT_MS 10000
#define CHANNEL    "notifications:tenant:t:broadcast"
#define SUBSCRIBED(length, name) "*3\r\n$9\r\nsubscribe\r\n$" #length "\r\n" name "\r\n:1\r\n"

static struct fake server = { .rules = {
	{ "SUBSCRIBE notifications:tenant:t:revoke", SUBSCRIBED(29, "notifications:tenant:t:revoke") },
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
static struct subscription *storm[STORM];
static sem_t begun, proceed;
static _Atomic int begins;

static size_t
revoked(void *arg, const struct revocation *r)
{
	(void)arg, (void)r;
	return 0;
}

/* In the subscriber's thread: the first call holds it up until the test lets it proceed. */
static void
begin(struct stream *s)
{
	ck_assert_ptr_eq(s, stream);
	if (begins++ == 0) {
		sem_post(&begun);
		sem_wait(&proceed);
	}
}

static struct subscription *
join(void)
{
	struct subscription *sub;

	sub = subscriber_join(subscriber, stream, strdup(CHANNEL), 1, begin);
	ck_assert_ptr_nonnull(sub);
	return sub;
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
setup(void)
{
	struct error error;

	fake_start(&server);
	snprintf(url, sizeof(url), "valkey://%s", server.label);
	ck_assert(topology_parse(&topology, &settings, NULL, &error));
	ck_assert_int_eq(sem_init(&begun, 0, 0), 0);
	ck_assert_int_eq(sem_init(&proceed, 0, 0), 0);
	stream_signal_init();
	stream = stream_new(-1, 65536);
	ck_assert_ptr_nonnull(stream);
	subscriber = subscriber_start(&settings, &topology, revoked, NULL);
	ck_assert_ptr_nonnull(subscriber);
}

/*
 * While the subscriber is busy, three steps' worth of streams join, and those of the third leave
 * again: the subscriber takes the first step and then the leaves, so the third never begins.
 */
START_TEST(a_storm_joins_in_steps)
{
	struct subscription *first = join();

	sem_wait(&begun);
	for (int i = 0; i < STORM; i++)
		storm[i] = join();
	for (int i = 2 * STEP; i < STORM; i++)
		subscriber_leave(storm[i]);
	sem_post(&proceed);
	wait_references(1 + 2 * STEP);
	ck_assert_int_eq(begins, 1 + 2 * STEP);

	for (int i = 0; i < 2 * STEP; i++)
		subscriber_leave(storm[i]);
	subscriber_leave(first);
	wait_references(0);
	stream_release(stream);
	subscriber_stop(subscriber, TIMEOUT_MS);
	fake_stop(&server);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("subscriber");
	TCase *cases = tcase_create("subscriber");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(cases, setup, NULL);
	tcase_add_test(cases, a_storm_joins_in_steps);
	suite_add_tcase(suite, cases);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
