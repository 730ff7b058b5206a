/* SPDX-License-Identifier: ISC */
/*
 * check_sentinel: how the replies of a sentinel are interpreted.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "fake_valkey.h"
#include "valkey/sentinel.h"

#define EPOCH "*4\r\n$4\r\nname\r\n$1\r\nm\r\n$12\r\nconfig-epoch\r\n$1\r\n7\r\n"
#define ADDRESS "*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6380\r\n"

static struct error error;

static bool
ask(struct fake *f, struct sentinel_answer *answer, const char *password)
{
	struct valkey v = { .host = (char[]){ "127.0.0.1" } };
	bool good;

	fake_start(f);
	v.port = f->port;
	v.label = f->label;
	ck_assert(password == NULL || valkey_set_password(&v, password));
	memset(answer, 0, sizeof(*answer));
	error.text[0] = '\0';
	good = sentinel_query(&v, "m", clock_ms() + 400, answer, &error);
	fake_stop(f);
	valkey_set_password(&v, NULL);
	return good;
}

/* The host may be a name or an address; config-epoch may be anywhere in the reply. */
START_TEST(answers)
{
	static const struct {
		const char *epoch, *address, *host;
		int port;
		long long number;
	} rows[] = {
		{ EPOCH, ADDRESS, "10.0.0.1", 6380, 7 },
		/* A value that reads "config-epoch" is not mistaken for a name. */
		{ "*4\r\n$4\r\nname\r\n$12\r\nconfig-epoch\r\n$12\r\nconfig-epoch\r\n$1\r\n7\r\n",
		    ADDRESS, "10.0.0.1", 6380, 7 },
		{ "*2\r\n$12\r\nconfig-epoch\r\n$1\r\n0\r\n", "*2\r\n$3\r\n::1\r\n$1\r\n1\r\n", "::1", 1, 0 },
		{ "*2\r\n+config-epoch\r\n+123456789012345678\r\n",
		    "*2\r\n$8\r\nvalkey-0\r\n$5\r\n65535\r\n", "valkey-0", 65535, 123456789012345678 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fake f = { .rules = { { "SENTINEL GET-MASTER-ADDR-BY-NAME m", rows[i].address },
		    { "SENTINEL MASTER m", rows[i].epoch } } };
		struct sentinel_answer answer;

		ck_assert_msg(ask(&f, &answer, NULL), "%s", error.text);
		ck_assert_str_eq(answer.host, rows[i].host);
		ck_assert_int_eq(answer.port, rows[i].port);
		ck_assert(answer.epoch == rows[i].number);
	}
}
END_TEST

/* The password is sent to the sentinel. */
START_TEST(password)
{
	struct fake f = { .rules = { { "AUTH pw", "+OK\r\n" },
	    { "SENTINEL GET-MASTER-ADDR-BY-NAME m", ADDRESS }, { "SENTINEL MASTER m", EPOCH } } };
	struct sentinel_answer answer;

	ck_assert_msg(ask(&f, &answer, "pw"), "%s", error.text);
}
END_TEST

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define UNEXPECTED "SENTINEL: unexpected reply"

static const struct {
	const char *epoch, *address, *error;
} refusals[] = {
	{ "-ERR No such master with that name\r\n", NULL,
	    "no primary named m: check VALKEY_SENTINEL_MASTER" },
	{ EPOCH, "*-1\r\n", "no primary named m: check VALKEY_SENTINEL_MASTER" },
	{ "-NOAUTH Authentication required.\r\n", NULL, "requires a password: set VALKEY_SENTINEL_PASSWORD" },
	{ "-ERR unknown command 'SENTINEL', with args beginning with: 'MASTER'\r\n", NULL,
	    "not a sentinel" },
	{ "-ERR unknown command `SENTINEL`\r\n", NULL, "not a sentinel" },
	{ "-NOPERM \033 no right\r\n", NULL, "SENTINEL: NOPERM ? no right" },
	{ "+OK\r\n", ADDRESS, UNEXPECTED }, { "*0\r\n", ADDRESS, UNEXPECTED },
	{ "*1\r\n$12\r\nconfig-epoch\r\n", ADDRESS, UNEXPECTED },
	{ "*2\r\n$12\r\nconfig-epoch\r\n$2\r\n-1\r\n", ADDRESS, UNEXPECTED },
	{ "*2\r\n$12\r\nconfig-epoch\r\n$0\r\n\r\n", ADDRESS, UNEXPECTED },
	{ "*2\r\n$12\r\nconfig-epoch\r\n$19\r\n1234567890123456789\r\n", ADDRESS, UNEXPECTED },
	{ "*2\r\n:1\r\n:2\r\n", ADDRESS, UNEXPECTED },
	{ EPOCH, "*1\r\n$1\r\nh\r\n", UNEXPECTED }, { EPOCH, "*2\r\n$1\r\nh\r\n$1\r\n0\r\n", UNEXPECTED },
	{ EPOCH, "*2\r\n$1\r\nh\r\n$5\r\n65536\r\n", UNEXPECTED },
	{ EPOCH, "*2\r\n$1\r\nh\r\n$2\r\n1x\r\n", UNEXPECTED },
	{ EPOCH, "*2\r\n$0\r\n\r\n$1\r\n1\r\n", UNEXPECTED }, { EPOCH, "*2\r\n:1\r\n$1\r\n1\r\n", UNEXPECTED },
	{ EPOCH, "*2\r\n$256\r\n" A64 A64 A64 A64 "\r\n$1\r\n1\r\n", UNEXPECTED },
	{ EPOCH, NULL, "no answer in time" },
};

/* Each bad reply has its own error, with the sentinel's label in front. */
START_TEST(refused)
{
	struct fake f = { .rules = { { "SENTINEL GET-MASTER-ADDR-BY-NAME m", refusals[_i].address },
	    { "SENTINEL MASTER m", refusals[_i].epoch } } };
	char expected[ERROR_SIZE];
	struct sentinel_answer answer;

	ck_assert(!ask(&f, &answer, NULL));
	snprintf(expected, sizeof(expected), "%s: %s", f.label, refusals[_i].error);
	ck_assert_str_eq(error.text, expected);
}
END_TEST

/* A wrong password is reported without showing it. */
START_TEST(password_refused)
{
	struct fake f = { .rules = { { "AUTH", "-WRONGPASS invalid 'secret'\r\n" } } };
	struct sentinel_answer answer;

	ck_assert(!ask(&f, &answer, "secret"));
	ck_assert_ptr_nonnull(strstr(error.text, "authentication failed: WRONGPASS"));
	ck_assert_ptr_null(strstr(error.text, "secret"));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("sentinel");
	TCase *tc = tcase_create("sentinel");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, answers);
	tcase_add_test(tc, password);
	tcase_add_loop_test(tc, refused, 0, sizeof(refusals) / sizeof(refusals[0]));
	tcase_add_test(tc, password_refused);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
