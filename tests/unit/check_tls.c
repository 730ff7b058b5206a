/*
 * check_tls: what is wrong with settings of TLS, in a build with it and without, and a handshake
 * that does not come to its end. What needs certificates is in tests/e2e/test_tls.py.
 */
#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "tls.h"

static char error[512];

static int
configure(const char *ca, const char *cert, const char *key, bool used)
{
	static char texts[3][64];
	static struct settings s = { .valkey_tls_ca = texts[0], .valkey_tls_cert = texts[1],
		.valkey_tls_key = texts[2] };

	strcpy(texts[0], ca);
	strcpy(texts[1], cert);
	strcpy(texts[2], key);
	return tls_configure(&s, used, error, sizeof(error));
}

/* Nothing is set and nothing asked for: good in any build. */
START_TEST(nothing)
{
	ck_assert_int_eq(configure("", "", "", false), 0);
}
END_TEST

#ifdef HAVE_TLS

static const struct {
	const char *ca, *cert, *key;
	bool used;
	const char *error;
} rows[] = {
	{ "/a", "", "", false,
	    "VALKEY_TLS_CA: is set, but VALKEY_URL is no valkeys:// or rediss:// URL" },
	{ "", "/a", "/b", false,
	    "VALKEY_TLS_CERT: is set, but VALKEY_URL is no valkeys:// or rediss:// URL" },
	{ "", "/a", "", true, "VALKEY_TLS_CERT, VALKEY_TLS_KEY: one without the other" },
	{ "", "", "/a", true, "VALKEY_TLS_CERT, VALKEY_TLS_KEY: one without the other" },
	{ "", "", "/a", false, "VALKEY_TLS_CERT, VALKEY_TLS_KEY: one without the other" },
	{ "/nonexistent", "", "", true, "VALKEY_TLS_CA=/nonexistent: No such file or directory; "
	    "allowed is the path of a file of PEM certificates" },
	{ "/", "", "", true, "VALKEY_TLS_CA=/: Is a directory; "
	    "allowed is the path of a file of PEM certificates" },
	{ "", "/a", "/non\n", true, "VALKEY_TLS_KEY=/non?: No such file or directory; "
	    "allowed is the path of a file with a PEM key, without a passphrase" },
};

/* Each is one line that names the setting. */
START_TEST(wrong)
{
	ck_assert_int_eq(configure(rows[_i].ca, rows[_i].cert, rows[_i].key, rows[_i].used), -1);
	ck_assert_str_eq(error, rows[_i].error);
}
END_TEST

/* A connection to somebody who reads and says nothing. */
static redisContext *
silence(int *other)
{
	redisContext *c;
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	*other = ends[1];
	c = redisConnectFd(ends[0]);
	ck_assert_ptr_nonnull(c);
	return c;
}

/* The deadline holds, also one that has passed. */
START_TEST(stalled)
{
	int64_t began = clock_ms();
	int other;
	redisContext *c = silence(&other);

	ck_assert_int_eq(configure("", "", "", true), 0);
	ck_assert(!tls_start(c, "h", began + 200 * _i, error, sizeof(error)));
	ck_assert_str_eq(error, "TLS: no handshake in time: does the server speak TLS on this port?");
	ck_assert_int_ge((int)(clock_ms() - began), 200 * _i);
	ck_assert_int_lt((int)(clock_ms() - began), 5000);
	redisFree(c);
	close(other);
}
END_TEST

/* The peer has gone. */
START_TEST(closed)
{
	int other;
	redisContext *c = silence(&other);

	ck_assert_int_eq(configure("", "", "", true), 0);
	shutdown(other, SHUT_WR);
	ck_assert(!tls_start(c, "h", clock_ms() + 20000, error, sizeof(error)));
	ck_assert_str_eq(error, "TLS: the server closed the connection");
	redisFree(c);
	close(other);
}
END_TEST

#else

static const struct {
	const char *ca, *cert, *key, *error;
} rows[] = {
	{ "/a", "", "", "VALKEY_TLS_CA: " NO_TLS },
	{ "", "/a", "", "VALKEY_TLS_CERT: " NO_TLS },
	{ "", "", "/a", "VALKEY_TLS_KEY: " NO_TLS },
};

/* Any of the settings is refused. */
START_TEST(wrong)
{
	ck_assert_int_eq(configure(rows[_i].ca, rows[_i].cert, rows[_i].key, false), -1);
	ck_assert_str_eq(error, rows[_i].error);
}
END_TEST

#endif

int
main(void)
{
	Suite *s = suite_create("tls");
	TCase *tc = tcase_create("tls");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, nothing);
	tcase_add_loop_test(tc, wrong, 0, (int)(sizeof(rows) / sizeof(rows[0])));
#ifdef HAVE_TLS
	tcase_add_loop_test(tc, stalled, 0, 2);
	tcase_add_test(tc, closed);
#endif
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
