/* SPDX-License-Identifier: ISC */
/*
 * check_revocation: the payload of a revocation.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/revocation.h"

#define U "{\"event\":\"revoke\",\"user\":\""
#define P "{\"event\":\"revoke\",\"projectId\":"

/* Reads a copy that ends where its memory ends, so that a sanitizer sees a read past the end. */
static bool
read_bytes(struct revocation *r, const char *payload, size_t length)
{
	char *copy = malloc(length > 0 ? length : 1);
	bool good;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, payload, length);
	good = revocation_read(r, copy, length);
	free(copy);
	return good;
}

static bool
is_read(struct revocation *r, const char *payload)
{
	return read_bytes(r, payload, strlen(payload));
}

static void
expect_payload(const struct revocation *r, const char *expected)
{
	char *payload = revocation_payload(r);

	ck_assert_str_eq(payload, expected);
	free(payload);
}

/* A payload that is read is written again unchanged. */
START_TEST(round_trip)
{
	struct revocation r;

	ck_assert(is_read(&r, U "u1\"}"));
	ck_assert_str_eq(r.user, "u1");
	ck_assert_int_eq(r.project, 0);
	expect_payload(&r, U "u1\"}");
	ck_assert(is_read(&r, U "a/b}{',\"}"));
	ck_assert_str_eq(r.user, "a/b}{',");
	expect_payload(&r, U "a/b}{',\"}");
	ck_assert(is_read(&r, P "7}"));
	ck_assert_str_eq(r.user, "");
	ck_assert_int_eq(r.project, 7);
	expect_payload(&r, P "7}");
	ck_assert(is_read(&r, P "2147483647}"));
	ck_assert_int_eq(r.project, INT32_MAX);
	expect_payload(&r, P "2147483647}");
}
END_TEST

static const char *const bad[] = {
	"", "{", "{}", "[]", "null", "x",
	/* Incomplete, repeated, or with more around it. */
	U, U "u1", U "u1\"", U "\"}", U "u1\"}}", U "u1\"} ", " " U "u1\"}", U "u1\"}\n", P "}", P "7",
	P "7}}", P "7} ", U "u1\"}" U "u1\"}", P "7}" P "7}", U "u1\",\"projectId\":7}",
	P "7,\"user\":\"u1\"}", U "u1\",\"user\":\"u2\"}", P "7,\"projectId\":8}",
	/* Equal as JSON, or similar. */
	"{\"user\":\"u1\",\"event\":\"revoke\"}", "{\"event\": \"revoke\",\"user\":\"u1\"}",
	"{\"event\":\"revoke\",\"user\":\"u1\" }", "{\"event\":\"revoke\", \"user\":\"u1\"}",
	"{'event':'revoke','user':'u1'}", U "\\u0075\"}", U "u\\/1\"}",
	"{\"event\":\"revok\\u0065\",\"user\":\"u1\"}", "{\"EVENT\":\"revoke\",\"user\":\"u1\"}",
	"{\"event\":\"Revoke\",\"user\":\"u1\"}", "{\"event\":\"revoke\",\"User\":\"u1\"}",
	"{\"event\":\"sync\",\"user\":\"u1\"}", "{\"event\":\"revoke\"}",
	"{\"event\":\"revoke\",\"user\":null}", "{\"event\":\"revoke\",\"user\":1}",
	/* Not a valid id. */
	U "a b\"}", U "a:b\"}", U "*\"}", U "a?\"}", U "[\"}", U "\\\"}", U "\"\"}", U "\xc3\xa4\"}",
	U "\x1b\"}", U "\x7f\"}", P "0}", P "-1}", P "+1}", P "01}", P "1.0}", P "1e1}", P " 7}", P "7 }",
	P "2147483648}", P "4294967303}", P "\"7\"}", P "x}", P "null}",
};

/* Anything but the two documented forms is refused. */
START_TEST(refused)
{
	struct revocation r;

	ck_assert_msg(!is_read(&r, bad[_i]), "%s", bad[_i]);
}
END_TEST

/* A NUL is not allowed, and does not end the payload. */
START_TEST(nul)
{
	struct revocation r;

	ck_assert(!read_bytes(&r, U "u\0001\"}", sizeof(U "u\0001\"}") - 1));
	ck_assert(!read_bytes(&r, U "u1\"}\0", sizeof(U "u1\"}")));
	ck_assert(!read_bytes(&r, P "7\0}", sizeof(P "7\0}") - 1));
}
END_TEST

/* A payload that is cut short is refused. */
START_TEST(cut_short)
{
	struct revocation r;

	for (size_t n = 0; n < strlen(U "u1\"}"); n++)
		ck_assert(!read_bytes(&r, U "u1\"}", n));
	for (size_t n = 0; n < strlen(P "7}"); n++)
		ck_assert(!read_bytes(&r, P "7}", n));
}
END_TEST

/* The longest id fits, one byte more does not. */
START_TEST(long_id)
{
	char id[CHANNEL_ID_MAX + 2] = "", payload[2 * CHANNEL_ID_MAX];
	struct revocation r;

	memset(id, 'x', CHANNEL_ID_MAX);
	sprintf(payload, U "%s\"}", id);
	ck_assert(is_read(&r, payload));
	ck_assert_str_eq(r.user, id);
	expect_payload(&r, payload);
	id[CHANNEL_ID_MAX] = 'x';
	sprintf(payload, U "%s\"}", id);
	ck_assert(!is_read(&r, payload));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("revocation");
	TCase *tc = tcase_create("revocation");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, round_trip);
	tcase_add_loop_test(tc, refused, 0, (int)(sizeof(bad) / sizeof(bad[0])));
	tcase_add_test(tc, nul);
	tcase_add_test(tc, cut_short);
	tcase_add_test(tc, long_id);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
