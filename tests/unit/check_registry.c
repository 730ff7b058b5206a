/* SPDX-License-Identifier: ISC */
/*
 * check_registry: which connections revocations mark, whatever their phase, and when.
 *
 * This program has its own app_client_invalidate(), and the clock stands still until a test advances it.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "session/registry.h"
#include "fake_clock.h"

#define MANY  100 /* re-checked at once */
#define APART 100 /* ms between two walks */

static struct registry registry;
static int forgotten; /* calls of app_client_invalidate() */
static uint64_t applied_before;
static int64_t now = 1000000;

static int64_t
read_now(void)
{
	return now;
}

void
app_client_invalidate(struct app_client *g)
{
	ck_assert_ptr_eq(g, registry.app_client);
	/*
	 * The answers are invalidated before the revocation counts as applied, so a connection that the
	 * walk does not find cannot use an answer from before it.
	 */
	ck_assert_uint_eq(registry.applied, applied_before);
	forgotten++;
}

struct named {
	struct registry_entry entry;
	struct stream *stream;
	struct watch_list watches;
};

static void
setup(void)
{
	static const struct settings settings;

	clock_set_source(read_now);
	stream_signal_init();
	registry_init(&registry, &settings);
	registry.app_client = (struct app_client *)&forgotten;
}

static void
add(struct named *n)
{
	n->stream = stream_new(-1, 65536);
	ck_assert_ptr_nonnull(n->stream);
	registry_add(&registry, &n->entry);
}

static void
name(struct named *n, const char *user, const int32_t *projects, int count)
{
	watch_list_free(&n->watches);
	ck_assert(count == 0 || watch_list_add(&n->watches, topic_find("/api/issues/stream"), projects, count));
	registry_name(&registry, &n->entry, n->stream, user, &n->watches);
}

static void
leave(struct named *n)
{
	registry_unname(&registry, &n->entry);
	registry_remove(&registry, &n->entry);
	stream_release(n->stream);
	watch_list_free(&n->watches);
}

static void
leave_all(struct named *n, int count)
{
	for (int i = 0; i < count; i++)
		leave(&n[i]);
	ck_assert_int_eq(registry_count(&registry), 0);
}

/* What registry_revoke() returns. */
static int64_t
receive(const char *user, int32_t project)
{
	struct revocation r = { .project = project };

	strcpy(r.user, user);
	applied_before = registry.applied;
	return registry_revoke(&registry, &r);
}

/* A revocation that nothing delays. */
static void
take(const char *user, int32_t project)
{
	now += APART;
	ck_assert_int_eq(receive(user, project), INT64_MAX);
	ck_assert_uint_eq(registry.applied, registry.revoked.last);
}

/* The marks since the last call: in a stream that has begun, reading clears them. */
static unsigned
marks(struct named *n)
{
	struct stream_view view;

	if (!n->stream->started)
		stream_start(n->stream, "");
	stream_look(n->stream, &view);
	return view.marks & STREAM_LASTING_MARKS;
}

static const int32_t some[] = { 3, 7 };

/* A revocation marks all connections of its user, or of its project, and no others. */
START_TEST(concerned)
{
	struct named n[4] = { 0 };

	for (int i = 0; i < 4; i++)
		add(&n[i]);
	name(&n[0], "u1", NULL, 0);
	name(&n[1], "u1", some, 2);
	name(&n[2], "u2", some, 1);
	name(&n[3], "u11", NULL, 0);
	take("u1", 0);
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(marks(&n[i]), i < 2 ? STREAM_REVOKED : 0);
	take("", 3);
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(marks(&n[i]), i == 1 || i == 2 ? STREAM_REVOKED : 0);
	take("", 9);
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(marks(&n[i]), 0);
	ck_assert_int_eq(forgotten, 3);
	registry.app_client = NULL;
	leave(&n[1]);
	take("", 7);
	ck_assert_uint_eq(marks(&n[2]), 0);
	take("", 3);
	ck_assert_uint_eq(marks(&n[2]), STREAM_REVOKED);
	ck_assert_int_eq(forgotten, 3);
	add(&n[1]);
	leave_all(n, 4);
}
END_TEST

/* A connection whose user is not known yet is marked when it is, if the revocation concerns it. */
START_TEST(not_named_yet)
{
	struct named before[3] = { 0 }, behind = { 0 };

	for (int i = 0; i < 3; i++)
		add(&before[i]);
	take("u1", 0);
	add(&behind);
	name(&before[0], "u1", NULL, 0);
	ck_assert_uint_eq(marks(&before[0]), STREAM_REVOKED);
	name(&before[1], "u2", some, 2);
	ck_assert_uint_eq(marks(&before[1]), 0);
	name(&behind, "u1", NULL, 0);
	ck_assert_uint_eq(marks(&behind), 0);
	take("", 7);
	ck_assert_uint_eq(marks(&before[0]), 0);
	ck_assert_uint_eq(marks(&before[1]), STREAM_REVOKED);
	/* Neither of the two that it missed concerns it. */
	name(&before[2], "u2", NULL, 0);
	ck_assert_uint_eq(marks(&before[2]), 0);
	leave(&behind);
	leave_all(before, 3);
}
END_TEST

/* A revocation that arrives while the projects change is not missed, and no revocation marks twice. */
START_TEST(unnamed_for_a_change)
{
	struct named n = { 0 };

	add(&n);
	name(&n, "u1", some, 2);
	take("", 7);
	ck_assert_uint_eq(marks(&n), STREAM_REVOKED);
	registry_unname(&registry, &n.entry);
	name(&n, "u1", some, 2);
	ck_assert_uint_eq(marks(&n), 0);
	registry_unname(&registry, &n.entry);
	take("", 7);
	name(&n, "u1", some, 2);
	ck_assert_uint_eq(marks(&n), STREAM_REVOKED);
	registry_unname(&registry, &n.entry);
	take("", 7);
	name(&n, "u1", some, 1);
	ck_assert_uint_eq(marks(&n), 0);
	leave_all(&n, 1);
}
END_TEST

/* Of many streams the first are marked for an immediate re-check, the others for one that is spread. */
START_TEST(many)
{
	static struct named n[3 * MANY];
	int at_once = 0, spread = 0;

	for (int i = 0; i < 3 * MANY; i++) {
		add(&n[i]);
		name(&n[i], "u", some, 2);
	}
	take("", 7);
	for (int i = 0; i < 3 * MANY; i++) {
		unsigned found = marks(&n[i]);

		at_once += found == STREAM_REVOKED;
		spread += found == (STREAM_REVOKED | STREAM_MANY);
	}
	ck_assert_int_eq(at_once, MANY);
	ck_assert_int_eq(spread, 2 * MANY);
	leave_all(n, 3 * MANY);
}
END_TEST

static struct registry_entry place, other_place;
static struct registry_view view;

/* The next user of a walk; NULL at its end. */
static const char *
next(struct registry_entry *at)
{
	if (!registry_next(&registry, at, &view))
		return NULL;
	stream_release(view.stream);
	return view.user;
}

/* A walk finds each connection with a user once, with a copy of what it watches; not the others. */
START_TEST(walk)
{
	static struct named n[3 * MANY + 2];
	const int count = sizeof(n) / sizeof(n[0]);

	registry_walk(&registry, &place);
	ck_assert_ptr_null(next(&place));
	registry_walk_end(&registry, &place);
	for (int i = 0; i < count; i++)
		add(&n[i]);
	/* The last one that was added is found first. */
	name(&n[count - 1], "u1", some, 2);
	name(&n[0], "u2", NULL, 0);
	registry_walk(&registry, &place);
	registry_walk(&registry, &other_place);
	ck_assert_str_eq(next(&place), "u1");
	ck_assert_ptr_eq(view.stream, n[count - 1].stream);
	ck_assert_int_eq(watch_list_total(&view.watches), 2);
	ck_assert_ptr_eq(view.watches.ids, view.ids);
	ck_assert_mem_eq(view.ids, some, sizeof(some));
	ck_assert_str_eq(next(&place), "u2");
	ck_assert_int_eq(watch_list_total(&view.watches), 0);
	ck_assert_ptr_null(next(&place));
	ck_assert_ptr_null(next(&place));
	ck_assert_str_eq(next(&other_place), "u1");
	registry_walk_end(&registry, &place);
	/* What leaves during a walk is not found, and nobody else notices the walk. */
	leave(&n[0]);
	ck_assert_int_eq(registry_count(&registry), count - 1);
	take("u1", 0);
	ck_assert_uint_eq(marks(&n[count - 1]), STREAM_REVOKED);
	registry_drain(&registry);
	ck_assert_ptr_null(next(&other_place));
	registry_walk_end(&registry, &other_place);
	leave_all(n + 1, count - 1);
}
END_TEST

/* Of a flood the first one is applied at once, the rest together after a while; nobody else is marked. */
START_TEST(flood)
{
	enum { FLOOD = 3000 };
	struct named n[4] = { 0 };
	char user[16];

	for (int i = 0; i < 4; i++)
		add(&n[i]);
	name(&n[0], "u0", NULL, 0);
	name(&n[1], "u2999", some, 2);
	name(&n[2], "other", some, 2);
	take("u0", 0);
	ck_assert_uint_eq(marks(&n[0]), STREAM_REVOKED);
	for (int i = 1; i < FLOOD; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		ck_assert_int_eq(receive(user, 0), now + APART);
	}
	ck_assert_int_eq(registry_revoke(&registry, NULL), now + APART);
	ck_assert_uint_eq(marks(&n[1]), 0);
	/* Answers from before the revocation are not invalid yet, so it stays due for this connection. */
	name(&n[3], "u17", NULL, 0);
	marks(&n[3]);
	now += APART;
	applied_before = registry.applied;
	ck_assert_int_eq(registry_revoke(&registry, NULL), INT64_MAX);
	ck_assert_int_eq(forgotten, 2);
	ck_assert_uint_eq(marks(&n[0]), 0);
	ck_assert_uint_eq(marks(&n[1]), STREAM_REVOKED);
	ck_assert_uint_eq(marks(&n[2]), 0);
	ck_assert_uint_eq(marks(&n[3]), STREAM_REVOKED);
	/* The same for projects. */
	take("", 3);
	ck_assert_uint_eq(marks(&n[1]) & marks(&n[2]), STREAM_REVOKED);
	take("", 100);
	for (int i = 0; i < FLOOD; i++)
		receive("", 100 + i);
	now += APART;
	registry_revoke(&registry, NULL);
	ck_assert_uint_eq(marks(&n[1]) | marks(&n[2]), 0);
	take("", 100);
	for (int i = 0; i < FLOOD; i++)
		receive("", 7 + i);
	now += APART;
	registry_revoke(&registry, NULL);
	ck_assert_uint_eq(marks(&n[0]), 0);
	ck_assert_uint_eq(marks(&n[1]), STREAM_REVOKED);
	ck_assert_uint_eq(marks(&n[2]), STREAM_REVOKED);
	ck_assert_int_eq(forgotten, 7);
	leave_all(n, 4);
}
END_TEST

/* A connection that may have missed more than the daemon remembers counts as concerned. */
START_TEST(forgotten_ones)
{
	struct named n[2] = { 0 };
	char user[16];

	add(&n[0]);
	take("u0", 0);
	add(&n[1]);
	for (int i = 1; i <= REVOKED_MAX; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		receive(user, 0);
		receive(user, 0);
	}
	ck_assert_int_eq(registry.revoked.count, REVOKED_MAX);
	name(&n[0], "other", NULL, 0);
	ck_assert_uint_eq(marks(&n[0]), STREAM_REVOKED);
	name(&n[1], "other", NULL, 0);
	ck_assert_uint_eq(marks(&n[1]), 0);
	leave_all(n, 2);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("registry");
	TCase *tc = tcase_create("registry");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, concerned);
	tcase_add_test(tc, not_named_yet);
	tcase_add_test(tc, unnamed_for_a_change);
	tcase_add_test(tc, many);
	tcase_add_test(tc, walk);
	tcase_add_test(tc, flood);
	tcase_add_test(tc, forgotten_ones);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
