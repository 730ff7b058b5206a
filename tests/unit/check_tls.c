/* SPDX-License-Identifier: ISC */
/*
 * check_tls: errors in the TLS settings, in builds with and without TLS, handshakes that fail, and
 * the sharing of contexts. Handshakes that succeed are tested in tests/e2e/test_tls.py.
 */
#include "config.h"

#include <check.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef HAVE_TLS
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#endif

#include "base/clock.h"
#include "valkey/tls.h"

static struct error error;

static bool
configure(const char *ca, const char *cert, const char *key, bool used)
{
	static char texts[3][64];
	static struct settings s = { .valkey_tls_ca = texts[0], .valkey_tls_cert = texts[1],
		.valkey_tls_key = texts[2] };

	strcpy(texts[0], ca);
	strcpy(texts[1], cert);
	strcpy(texts[2], key);
	return tls_configure(&s, used, &error);
}

/* Without TLS settings and TLS URLs, every build accepts the configuration. */
START_TEST(nothing)
{
	ck_assert(configure("", "", "", false));
}
END_TEST

#ifdef HAVE_TLS

static const struct {
	const char *ca, *cert, *key;
	bool used;
	const char *error;
} rows[] = {
	{ "/a", "", "", false,
	    "VALKEY_TLS_CA: is set, but VALKEY_URL is not a valkeys:// or rediss:// URL" },
	{ "", "/a", "/b", false,
	    "VALKEY_TLS_CERT: is set, but VALKEY_URL is not a valkeys:// or rediss:// URL" },
	{ "", "/a", "", true, "VALKEY_TLS_CERT, VALKEY_TLS_KEY: set both or neither" },
	{ "", "", "/a", true, "VALKEY_TLS_CERT, VALKEY_TLS_KEY: set both or neither" },
	{ "", "", "/a", false, "VALKEY_TLS_CERT, VALKEY_TLS_KEY: set both or neither" },
	{ "/nonexistent", "", "", true, "VALKEY_TLS_CA=/nonexistent: No such file or directory; "
	    "must be the path of a file of PEM certificates" },
	{ "/", "", "", true, "VALKEY_TLS_CA=/: Is a directory; "
	    "must be the path of a file of PEM certificates" },
	{ "", "/a", "/non\n", true, "VALKEY_TLS_KEY=/non?: No such file or directory; "
	    "must be the path of a file with a PEM key, without a passphrase" },
};

/* Each error is one line that names the setting. */
START_TEST(wrong)
{
	ck_assert(!configure(rows[_i].ca, rows[_i].cert, rows[_i].key, rows[_i].used));
	ck_assert_str_eq(error.text, rows[_i].error);
}
END_TEST

/* A connection to a peer that sends nothing. */
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

/* A handshake ends at its deadline, even if that has passed already. */
START_TEST(stalled)
{
	int64_t began = clock_ms();
	int other;
	redisContext *c = silence(&other);

	ck_assert(configure("", "", "", true));
	ck_assert(!tls_start(c, "h", began + 200 * _i, &error));
	ck_assert_str_eq(error.text, "TLS: handshake timed out: does the server speak TLS on this port?");
	ck_assert_int_ge((int)(clock_ms() - began), 200 * _i);
	ck_assert_int_lt((int)(clock_ms() - began), 5000);
	redisFree(c);
	close(other);
}
END_TEST

static int made; /* number of SSL_CTX_new() calls */

SSL_CTX *
SSL_CTX_new(const SSL_METHOD *method)
{
	__typeof__(&SSL_CTX_new) real = (__typeof__(real))(uintptr_t)dlsym(RTLD_NEXT, "SSL_CTX_new");

	made++;
	return real(method);
}

/* Connects to a peer that closes. Returns the error. */
static const char *
connect_once(void)
{
	int other;
	redisContext *c = silence(&other);

	shutdown(other, SHUT_WR);
	ck_assert(!tls_start(c, "h", clock_ms() + 20000, &error));
	redisFree(c);
	close(other);
	return error.text;
}

#define CLOSED "TLS: the server closed the connection"

static char directory[] = "/tmp/check_tls.XXXXXX";
static char ca[sizeof(directory) + 8];

static void
make_directory(void)
{
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(ca, sizeof(ca), "%s/ca", directory);
}

static void
remove_directory(void)
{
	unlink(ca);
	rmdir(directory);
}

/* Writes a self-signed certificate (good) or nonsense to a file, with an mtime seconds ago. */
static void
write_file(const char *path, bool good, int seconds)
{
	struct timespec times[2];
	FILE *file = fopen(path, "w");
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();

	ck_assert(file != NULL && key != NULL && certificate != NULL);
	X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	ck_assert_int_eq(X509_set_pubkey(certificate, key), 1);
	ck_assert_int_ne(X509_sign(certificate, key, EVP_sha256()), 0);
	if (good)
		ck_assert_int_eq(PEM_write_X509(file, certificate), 1);
	else
		fputs("nonsense\n", file);
	fflush(file);
	clock_gettime(CLOCK_REALTIME, &times[0]);
	times[0].tv_sec -= seconds;
	times[1] = times[0];
	ck_assert_int_eq(futimens(fileno(file), times), 0);
	fclose(file);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

/* Connections share a context until its file is replaced, rewritten or removed. */
START_TEST(shared)
{
	char next[sizeof(ca) + 4];

	write_file(ca, true, 100);
	ck_assert(configure(ca, "", "", true));
	for (int i = 0; i < 3; i++)
		ck_assert_str_eq(connect_once(), CLOSED);
	ck_assert_int_eq(made, 1);

	snprintf(next, sizeof(next), "%s.new", ca);
	write_file(next, true, 100);
	ck_assert_int_eq(rename(next, ca), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_str_eq(connect_once(), CLOSED);
	ck_assert_int_eq(made, 2);

	write_file(ca, false, 100);
	for (int i = 0; i < 2; i++)
		ck_assert_ptr_nonnull(strstr(connect_once(), "VALKEY_TLS_CA="));
	unlink(ca);
	ck_assert_ptr_nonnull(strstr(connect_once(), "No such file"));
	write_file(ca, true, 100);
	made = 0;
	for (int i = 0; i < 3; i++)
		ck_assert_str_eq(connect_once(), CLOSED);
	ck_assert_int_eq(made, 1);
}
END_TEST

/* A file with an mtime within the last second, or in the future, is read for each connection. */
START_TEST(not_settled)
{
	write_file(ca, true, _i == 0 ? 0 : -3600);
	ck_assert(configure(ca, "", "", true));
	connect_once();
	ck_assert_int_eq(made, 2);
}
END_TEST

/* Without VALKEY_TLS_CA, the system's authorities are shared until they change. */
START_TEST(of_system)
{
	write_file(ca, true, 100);
	setenv("SSL_CERT_FILE", ca, 1);
	setenv("SSL_CERT_DIR", "/nonexistent", 1);
	ck_assert(configure("", "", "", true));
	connect_once();
	ck_assert_int_eq(made, 1);
	write_file(ca, true, 50);
	connect_once();
	connect_once();
	ck_assert_int_eq(made, 2);
}
END_TEST

/* A peer that closes during the handshake has its own error. */
START_TEST(closed)
{
	ck_assert(configure("", "", "", true));
	ck_assert_str_eq(connect_once(), CLOSED);
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

/* A build without TLS refuses each of the settings. */
START_TEST(wrong)
{
	ck_assert(!configure(rows[_i].ca, rows[_i].cert, rows[_i].key, false));
	ck_assert_str_eq(error.text, rows[_i].error);
}
END_TEST

#endif

int
main(void)
{
	Suite *s = suite_create("tls");
	TCase *tc = tcase_create("tls");
#ifdef HAVE_TLS
	TCase *files = tcase_create("files");
#endif
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, nothing);
	tcase_add_loop_test(tc, wrong, 0, (int)(sizeof(rows) / sizeof(rows[0])));
#ifdef HAVE_TLS
	tcase_add_loop_test(tc, stalled, 0, 2);
	tcase_add_test(tc, closed);
	tcase_add_checked_fixture(files, make_directory, remove_directory);
	tcase_add_test(files, shared);
	tcase_add_loop_test(files, not_settled, 0, 2);
	tcase_add_test(files, of_system);
	suite_add_tcase(s, files);
#endif
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
