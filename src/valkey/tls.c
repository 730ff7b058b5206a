/* SPDX-License-Identifier: ISC */
/*
 * tls: see tls.h.
 *
 * The read and write functions follow the conventions of hiredis's own: they return 0 for "try
 * again", and a negative number for a permanent failure, with the reason in the context.
 * SSL_get_error() consults OpenSSL's error queue, of which each thread has one. It is cleared
 * before each call, because it may hold errors of another connection.
 */
#include "config.h"

#include "valkey/tls.h"


/* The name of the first TLS setting that is set, or NULL. */
static const char *
first_set(const struct settings *s)
{
	if (s->valkey_tls_ca[0] != '\0')
		return "VALKEY_TLS_CA";
	if (s->valkey_tls_cert[0] != '\0')
		return "VALKEY_TLS_CERT";
	return s->valkey_tls_key[0] != '\0' ? "VALKEY_TLS_KEY" : NULL;
}

#ifdef HAVE_TLS

#include <errno.h>
#include <hiredis/sds.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define FILES     4
#define SETTLE_MS 1000

static const struct settings *settings; /* set by tls_configure() */

/* The context that connections share, and the state of its files just before they were read. */
static struct {
	pthread_mutex_t lock; /* guards the other fields */
	SSL_CTX *ctx;         /* NULL: not created yet */
	struct stat files[FILES];
	bool settled; /* any further change of the files would change their timestamps */
} current = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct tls {
	redisContextFuncs funcs; /* hiredis's own, except for read, write and free_privctx */
	SSL *ssl;
	size_t unsent; /* length of the write that OpenSSL requires to be repeated; 0: none */
};

static const char closed[] = "the server closed the connection";

/* Errors for which we have better texts than OpenSSL. */
static const struct {
	int code;
	const char *text;
} refusals[] = {
	{ X509_V_ERR_CERT_HAS_EXPIRED, "the server's certificate has expired" },
	{ X509_V_ERR_CERT_NOT_YET_VALID, "the server's certificate is not valid yet" },
	{ X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
	    "the server's certificate is self-signed: to trust it, set VALKEY_TLS_CA" },
	{ X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
	    "the server's certificate is from an unknown authority: check VALKEY_TLS_CA" },
	{ X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
	    "the server's certificate is from an unknown authority: check VALKEY_TLS_CA" },
	{ X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
	    "the server's certificate is from an unknown authority: check VALKEY_TLS_CA" },
	{ X509_V_ERR_HOSTNAME_MISMATCH, "the server's certificate is for another name" },
	{ X509_V_ERR_IP_ADDRESS_MISMATCH, "the server's certificate is not for this address" },
}, failures[] = {
	{ SSL_R_WRONG_VERSION_NUMBER, "the server does not speak TLS on this port" },
	{ SSL_R_UNSUPPORTED_PROTOCOL, "the server does not support TLS 1.2 or newer" },
	{ SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, "the server does not support TLS 1.2 or newer" },
	{ SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED,
	    "the server requires a client certificate: set VALKEY_TLS_CERT" },
	{ SSL_R_TLSV1_ALERT_UNKNOWN_CA, "the server does not trust VALKEY_TLS_CERT" },
	{ SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, "the server does not accept VALKEY_TLS_CERT" },
	{ SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, "VALKEY_TLS_CERT has expired" },
};

/* Why a call on ssl has failed permanently; error is the result of SSL_get_error(). */
static const char *
reason_of(const SSL *ssl, int error)
{
	int system = errno;
	long verified = SSL_get_verify_result(ssl);
	unsigned long code = ERR_peek_error();
	const char *text = ERR_reason_error_string(code);

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		if (verified == refusals[i].code)
			return refusals[i].text;
	if (verified != X509_V_OK)
		return X509_verify_cert_error_string(verified);
	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
		if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == failures[i].code)
			return failures[i].text;
	if (text != NULL)
		return text;
	/* If the server closes before it has read everything, we see a reset. */
	if (error == SSL_ERROR_ZERO_RETURN || system == ECONNRESET || system == EPIPE)
		return closed;
	return strerror(system);
}

static bool
would_block(int error)
{
	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

/* Handles a result of SSL_read() or SSL_write() that is not a success. */
static ssize_t
failed(redisContext *c, int result)
{
	struct tls *t = c->privctx;
	int error = SSL_get_error(t->ssl, result);
	const char *reason;

	if (would_block(error))
		return 0;
	reason = reason_of(t->ssl, error);
	/* Not REDIS_ERR_IO: for that, callers would consult errno. */
	c->err = reason == closed ? REDIS_ERR_EOF : REDIS_ERR_OTHER;
	snprintf(c->errstr, sizeof(c->errstr), "%s%s", error == SSL_ERROR_SSL ? "TLS: " : "",
	    reason);
	return -1;
}

/* Fills the buffer as far as possible: poll() does not report data that stays inside OpenSSL. */
static ssize_t
tls_read(redisContext *c, char *buffer, size_t size)
{
	struct tls *t = c->privctx;
	size_t used = 0, n;
	int result;

	do {
		ERR_clear_error();
		result = SSL_read_ex(t->ssl, buffer + used, size - used, &n);
		if (result > 0)
			used += n;
	} while (result > 0 && used < size);
	if (used == 0)
		return failed(c, result);
	/*
	 * Data came before a permanent error: return the data, and make sure that poll() reports
	 * the socket as readable, so that the caller reads again and gets the error.
	 */
	if (result <= 0 && !would_block(SSL_get_error(t->ssl, result)))
		shutdown(c->fd, SHUT_RD);
	return (ssize_t)used;
}

static ssize_t
tls_write(redisContext *c)
{
	struct tls *t = c->privctx;
	size_t n, length = t->unsent > 0 ? t->unsent : sdslen(c->obuf);
	int result;

	ERR_clear_error();
	result = SSL_write_ex(t->ssl, c->obuf, length, &n);
	t->unsent = result > 0 ? 0 : length;
	if (result > 0)
		return (ssize_t)n;
	/* A server that refused us and closed has sent an alert with the reason: report that. */
	if (SSL_get_error(t->ssl, result) == SSL_ERROR_SYSCALL) {
		char byte;

		ERR_clear_error();
		result = SSL_read_ex(t->ssl, &byte, 1, &n);
	}
	return failed(c, result);
}

static void
tls_free(void *arg)
{
	struct tls *t = arg;

	SSL_free(t->ssl);
	free(t);
}

/* Fails, where OpenSSL's default would prompt for the passphrase on the terminal. */
static int
no_passphrase(char *buffer, int size, int writing, void *arg)
{
	(void)buffer, (void)size, (void)writing, (void)arg;
	return -1;
}

/* Returns 0 if path is a readable regular file, else an errno value. */
static int
cannot_read(const char *path)
{
	struct stat file;

	if (stat(path, &file) != 0 || access(path, R_OK) != 0)
		return errno;
	return S_ISREG(file.st_mode) ? 0 : S_ISDIR(file.st_mode) ? EISDIR : EINVAL;
}

/* The text of the first error in OpenSSL's queue. */
static const char *
first_error(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_error());

	return text != NULL ? text : "out of memory";
}

static int
use_key(SSL_CTX *ctx, const char *path)
{
	return SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM);
}

/* Loads the file of a setting, if it is set. False with an error. */
static bool
load(SSL_CTX *ctx, const char *setting, const char *path, int (*use)(SSL_CTX *, const char *),
    const char *allowed, struct error *error)
{
	int wrong;

	if (path[0] == '\0')
		return true;
	ERR_clear_error();
	wrong = cannot_read(path);
	if (wrong == 0 && use(ctx, path) == 1)
		return true;
	return error_set(error, "%s=%s: %s; must be the path of a file %s", setting, path,
	    wrong != 0 ? strerror(wrong) : first_error(), allowed);
}

static bool
load_files(SSL_CTX *ctx, struct error *error)
{
	static const char certificates[] = "of PEM certificates";
	const char *cert = settings->valkey_tls_cert, *key = settings->valkey_tls_key;

	/*
	 * The key first: once a certificate is loaded, a key that does not match it fails to load.
	 */
	if (!load(ctx, "VALKEY_TLS_CA", settings->valkey_tls_ca, SSL_CTX_load_verify_file,
		certificates, error) ||
	    !load(ctx, "VALKEY_TLS_KEY", key, use_key, "with a PEM key, without a passphrase",
		error) ||
	    !load(ctx, "VALKEY_TLS_CERT", cert, SSL_CTX_use_certificate_chain_file, certificates,
		error))
		return false;
	if (key[0] == '\0' || SSL_CTX_check_private_key(ctx) == 1)
		return true;
	return error_set(error, "VALKEY_TLS_KEY=%s: is not the key of VALKEY_TLS_CERT=%s", key,
	    cert);
}

/* Creates a context with the settings and options that all connections need. NULL with an error. */
static SSL_CTX *
new_context(struct error *error)
{
	SSL_CTX *ctx;

	ERR_clear_error();
	ctx = SSL_CTX_new(TLS_client_method());
	if (ctx == NULL ||
	    (settings->valkey_tls_ca[0] == '\0' && SSL_CTX_set_default_verify_paths(ctx) != 1)) {
		error_set(error, "TLS: %s", first_error());
		SSL_CTX_free(ctx);
		return NULL;
	}
	/*
	 * Respects the minimum in the system's OpenSSL configuration, unless it is below TLS 1.2.
	 */
	if (SSL_CTX_get_min_proto_version(ctx) < TLS1_2_VERSION)
		SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	/*
	 * Without renegotiation, a write never waits for a read. An end without close_notify is
	 * harmless: RESP is self-delimiting, so truncation cannot go unnoticed.
	 */
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(ctx, 1); /* one system call for several small records */
	if (load_files(ctx, error))
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

static const char *
default_path(const char *variable, const char *path)
{
	const char *value = getenv(variable);

	return value != NULL ? value : path;
}

/* Gets the current state of the files; all zero for those that stat() cannot find. */
static void
stat_files(struct stat files[FILES])
{
	bool system_ca = settings->valkey_tls_ca[0] == '\0';
	const char *paths[FILES] = {
		settings->valkey_tls_cert, settings->valkey_tls_key,
		system_ca ? default_path(X509_get_default_cert_file_env(),
				X509_get_default_cert_file())
			  : settings->valkey_tls_ca,
		system_ca ? default_path(X509_get_default_cert_dir_env(),
				X509_get_default_cert_dir()) : "",
	};

	memset(files, 0, FILES * sizeof(*files));
	for (int i = 0; i < FILES; i++)
		if (stat(paths[i], &files[i]) != 0)
			memset(&files[i], 0, sizeof(files[i]));
}

static bool
same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool
same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	    same_time(a->st_mtim, b->st_mtim) && same_time(a->st_ctim, b->st_ctim);
}

/*
 * File timestamps are coarse: a file that was written a moment ago can be written again without a
 * change of its timestamp.
 */
static bool
is_settled(const struct stat *file)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (now.tv_sec - file->st_mtim.tv_sec) * 1000 +
	    (now.tv_nsec - file->st_mtim.tv_nsec) / 1000000 >= SETTLE_MS;
}

/*
 * Returns the context that connections share, after recreating it if a file has changed. It is
 * shared because loading Debian 13's authorities takes 9 ms. The caller owns a reference. NULL with
 * an error.
 */
static SSL_CTX *
get_context(struct error *error)
{
	struct stat files[FILES];
	bool same = true;
	SSL_CTX *ctx;

	pthread_mutex_lock(&current.lock);
	stat_files(files);
	for (int i = 0; i < FILES; i++)
		same &= same_file(&files[i], &current.files[i]);
	if (current.ctx == NULL || !current.settled || !same) {
		SSL_CTX_free(current.ctx);
		current.ctx = new_context(error);
		memcpy(current.files, files, sizeof(files));
		current.settled = true;
		for (int i = 0; i < FILES; i++)
			current.settled &= is_settled(&files[i]);
	}
	ctx = current.ctx;
	if (ctx != NULL)
		SSL_CTX_up_ref(ctx);
	pthread_mutex_unlock(&current.lock);
	return ctx;
}

/* Sets the host that the certificate must be for. A name is also sent as SNI (RFC 6066). */
static bool
set_host(SSL *ssl, const char *host)
{
	if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1)
		return true;
	return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

/* Performs the handshake on a non-blocking socket. Returns NULL, or what is wrong. */
static const char *
handshake(SSL *ssl, int fd, int64_t deadline)
{
	for (;;) {
		struct pollfd p = { .fd = fd };
		int64_t left = deadline - clock_ms();
		int result, error;

		ERR_clear_error();
		result = SSL_connect(ssl);
		if (result == 1)
			return NULL;
		error = SSL_get_error(ssl, result);
		if (!would_block(error))
			return reason_of(ssl, error);
		p.events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
		if (left <= 0 || poll(&p, 1, (int)left) == 0)
			return "handshake timed out: does the server speak TLS on this port?";
	}
}

/* Makes hiredis read from and write to c through TLS. NULL: no memory. */
static struct tls *
attach(redisContext *c, SSL_CTX *ctx, const char *host)
{
	struct tls *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	t->ssl = SSL_new(ctx);
	if (t->ssl == NULL || !set_host(t->ssl, host) || SSL_set_fd(t->ssl, c->fd) != 1) {
		tls_free(t);
		return NULL;
	}
	t->funcs = *c->funcs;
	t->funcs.read = tls_read;
	t->funcs.write = tls_write;
	t->funcs.free_privctx = tls_free;
	c->funcs = &t->funcs;
	c->privctx = t;
	return t;
}

bool
tls_start(redisContext *c, const char *host, int64_t deadline, struct error *error)
{
	SSL_CTX *ctx = get_context(error);
	const char *wrong = NULL;
	struct tls *t;

	if (ctx == NULL)
		return false;
	t = attach(c, ctx, host);
	SSL_CTX_free(ctx);
	wrong = t != NULL ? handshake(t->ssl, c->fd, deadline) : strerror(ENOMEM);
	return wrong == NULL || error_set(error, "TLS: %s", wrong);
}

bool
tls_configure(const struct settings *s, bool used, struct error *error)
{
	const char *set = first_set(s);
	SSL_CTX *ctx;

	if ((s->valkey_tls_cert[0] == '\0') != (s->valkey_tls_key[0] == '\0'))
		return error_set(error, "VALKEY_TLS_CERT, VALKEY_TLS_KEY: set both or neither");
	if (!used && set != NULL)
		return error_set(error,
		    "%s: is set, but VALKEY_URL is not a valkeys:// or rediss:// URL", set);
	settings = s;
	if (!used)
		return true;
	/* No cleanup at exit: a thread may still be connecting then. */
	OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
	SSL_CTX_free(current.ctx);
	current.ctx = NULL;
	ctx = get_context(error);
	SSL_CTX_free(ctx);
	return ctx != NULL;
}

#else

bool
tls_configure(const struct settings *s, bool used, struct error *error)
{
	const char *set = first_set(s);

	(void)used;
	return set == NULL || error_set(error, "%s: %s", set, NO_TLS);
}

bool
tls_start(redisContext *c, const char *host, int64_t deadline, struct error *error)
{
	(void)c, (void)host, (void)deadline;
	return error_set(error, NO_TLS);
}

#endif
