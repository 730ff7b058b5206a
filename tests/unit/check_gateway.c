/*
 * check_gateway: what a revocation sets off, and whom of those on their way in it concerns.
 *
 * This program's own functions stand in for those of the gate and the caps: they write down, in
 * words, that they were called.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway.h"

static struct gateway gateway;
static char calls[4096];

void
gate_revoke(struct gate *g)
{
	ck_assert_ptr_eq(g, gateway.gate);
	/* Answers from before are gone before a newcomer counts as one that came behind it. */
	strcat(calls, gateway.revocation_count == 0 ? "gate first;" : "gate;");
}

int
caps_revoke(struct caps *c, const char *user)
{
	int kind = c == gateway.caps[0] ? 0 : 1;

	ck_assert_ptr_eq(c, gateway.caps[kind]);
	/* Who claims a place behind this finds the revocation. */
	ck_assert_uint_gt(gateway.revocation_count, 0);
	sprintf(calls + strlen(calls), "%d %s;", kind, user);
	return kind + 2;
}

static void
expect_calls(const char *expected)
{
	ck_assert_str_eq(calls, expected);
	calls[0] = '\0';
}

static void
setup(void)
{
	static const struct settings settings;

	gateway_init(&gateway, &settings);
	gateway.gate = (struct gate *)&calls;
	for (int i = 0; i < ROUTE_COUNT; i++)
		gateway.caps[i] = (struct caps *)&calls[i];
}

static size_t
revoke_user(const char *user)
{
	struct revocation r = { 0 };

	strcpy(r.user, user);
	return gateway_revoke(&gateway, &r);
}

static size_t
revoke_project(int32_t project)
{
	return gateway_revoke(&gateway, &(struct revocation){ .project = project });
}

/* A user's streams of both kinds are marked; a project's are the hub's to mark. */
START_TEST(sets_off)
{
	ck_assert_uint_eq(revoke_user("u1"), 5);
	expect_calls("gate first;0 u1;1 u1;");
	ck_assert_uint_eq(revoke_project(7), 0);
	expect_calls("gate;");
	gateway.gate = NULL;
	ck_assert_uint_eq(revoke_user("u2"), 5);
	expect_calls("0 u2;1 u2;");
	ck_assert_uint_eq(revoke_project(7), 0);
	expect_calls("");
}
END_TEST

/* It concerns who came before it, and nobody else. */
START_TEST(on_their_way)
{
	static const int32_t some[] = { 3, 7 };
	struct gateway_entry before = { 0 }, between = { 0 }, behind = { 0 };

	gateway_add(&gateway, &before);
	ck_assert(!gateway_revoked(&gateway, &before, "u1", some, 2));
	revoke_user("u1");
	gateway_add(&gateway, &between);
	revoke_project(7);
	gateway_add(&gateway, &behind);
	ck_assert(gateway_revoked(&gateway, &before, "u1", NULL, 0));
	ck_assert(gateway_revoked(&gateway, &before, "u2", some, 2));
	ck_assert(!gateway_revoked(&gateway, &before, "u2", some, 1));
	ck_assert(!gateway_revoked(&gateway, &between, "u1", NULL, 0));
	ck_assert(gateway_revoked(&gateway, &between, "u1", some, 2));
	ck_assert(!gateway_revoked(&gateway, &behind, "u1", some, 2));
}
END_TEST

/* Who has missed more than are kept counts as concerned. */
START_TEST(too_many)
{
	struct gateway_entry first = { 0 }, second = { 0 };

	gateway_add(&gateway, &first);
	revoke_user("u1");
	gateway_add(&gateway, &second);
	for (int i = 1; i < GATEWAY_REVOCATIONS; i++)
		revoke_user("u2");
	ck_assert(gateway_revoked(&gateway, &first, "u1", NULL, 0));
	ck_assert(!gateway_revoked(&gateway, &first, "u3", NULL, 0));
	calls[0] = '\0';
	revoke_user("u4");
	ck_assert(gateway_revoked(&gateway, &first, "u3", NULL, 0));
	ck_assert(!gateway_revoked(&gateway, &second, "u3", NULL, 0));
	ck_assert(!gateway_revoked(&gateway, &second, "u1", NULL, 0));
	ck_assert(gateway_revoked(&gateway, &second, "u4", NULL, 0));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("gateway");
	TCase *tc = tcase_create("gateway");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, sets_off);
	tcase_add_test(tc, on_their_way);
	tcase_add_test(tc, too_many);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
