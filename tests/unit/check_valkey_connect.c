/* SPDX-License-Identifier: ISC */
/*
 * check_valkey_connect: parsing of VALKEY_URL and VALKEY_PASSWORD_FILE, and how valkey_connect()
 * handles the replies of a server.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/un.h>

#include "base/clock.h"
#include "fake_valkey.h"
#include "valkey/connect.h"

#define PASSWORD_ALLOWED "; must be a file whose first line is the password"

#define A16 "aaaaaaaaaaaaaaaa"
#define A64 A16 A16 A16 A16
#ifdef HAVE_TLS
#define TLS_ALLOWED ", with TLS valkeys:// or rediss://"
#else
#define TLS_ALLOWED ""
#endif
#define ALLOWED "; must be valkey:// or redis:// [user[:password]@]host[:port][/db][?family=0|4|6]" TLS_ALLOWED \
	", or unix:///path; separate several nodes of one Cluster with commas"
#define NO_HOST ": the host must be a name, an IPv4 address or an [IPv6 address]"

#define NO_QUERY ": the query may only be family=0, family=4 or family=6"

static struct error error;

static bool
parse(struct valkey *v, const char *url, const char *password_file)
{
	return valkey_parse(v, url, url, password_file, &error);
}

/* URLs */

static const struct {
	const char *url, *host;
	int port;
	const char *path, *user, *password, *label;
} good_urls[] = {
#ifdef HAVE_TLS
	{ "valkeys://h", "h", 6379, NULL, NULL, NULL, "h:6379" },
	{ "REDISS://u:p@[::1]:7000/0", "::1", 7000, NULL, "u", "p", "[::1]:7000" },
#endif
	{ "valkey://127.0.0.1:6379", "127.0.0.1", 6379, NULL, NULL, NULL, "127.0.0.1:6379" },
	{ "redis://valkey", "valkey", 6379, NULL, NULL, NULL, "valkey:6379" },
	{ "REDIS://valkey", "valkey", 6379, NULL, NULL, NULL, "valkey:6379" },
	{ "valkey://my_valkey-1.example.org:1/", "my_valkey-1.example.org", 1, NULL, NULL, NULL,
	    "my_valkey-1.example.org:1" },
	{ "valkey://h:65535/15", "h", 65535, NULL, NULL, NULL, "h:65535" },
	{ "valkey://h:06379", "h", 6379, NULL, NULL, NULL, "h:6379" },
	{ "valkey://[::1]", "::1", 6379, NULL, NULL, NULL, "[::1]:6379" },
	{ "valkey://[fe80::1]:7000/0", "fe80::1", 7000, NULL, NULL, NULL, "[fe80::1]:7000" },
	{ "valkey://u:p@[::ffff:10.0.0.1]:7000", "::ffff:10.0.0.1", 7000, NULL, "u", "p",
	    "[::ffff:10.0.0.1]:7000" },
	{ "valkey://u@h", "h", 6379, NULL, "u", NULL, "h:6379" },
	{ "valkey://:p@h", "h", 6379, NULL, NULL, "p", "h:6379" },
	{ "valkey://u:@h", "h", 6379, NULL, "u", NULL, "h:6379" },
	{ "valkey://:@h", "h", 6379, NULL, NULL, NULL, "h:6379" },
	{ "valkey://@h", "h", 6379, NULL, NULL, NULL, "h:6379" },
	{ "valkey://u:p:q@h:1", "h", 1, NULL, "u", "p:q", "h:1" },
	{ "valkey://u:p@q@h:1", "h", 1, NULL, "u", "p@q", "h:1" },
	{ "valkey://%75%3A:%40%2f%25%C3%a9@h", "h", 6379, NULL, "u:", "@/%\303\251", "h:6379" },
	{ "valkey://u:a+b@h", "h", 6379, NULL, "u", "a+b", "h:6379" },
	{ "unix:///run/valkey/s", NULL, 0, "/run/valkey/s", NULL, NULL, "unix:/run/valkey/s" },
	{ "unix:///a@b:c%20", NULL, 0, "/a@b:c%20", NULL, NULL, "unix:/a@b:c%20" },
};

static void
same(const char *field, const char *is, const char *expected)
{
	ck_assert_msg((is == NULL) == (expected == NULL) && (is == NULL || !strcmp(is, expected)),
	    "%s is %s, not %s", field, is ? is : "NULL", expected ? expected : "NULL");
}

START_TEST(good)
{
	struct valkey v;

	ck_assert_msg(parse(&v, good_urls[_i].url, ""), "%s",
	    error.text);
	same("host", v.host, good_urls[_i].host);
	same("path", v.path, good_urls[_i].path);
	same("user", v.user, good_urls[_i].user);
	same("password", v.password, good_urls[_i].password);
	same("label", v.label, good_urls[_i].label);
	ck_assert_int_eq(v.port, good_urls[_i].port);
	ck_assert_int_eq(v.tls, strncmp(good_urls[_i].url, "valkeys", 7) == 0 ||
	    strncmp(good_urls[_i].url, "REDISS", 6) == 0);
	valkey_free(&v);
	ck_assert_ptr_null(v.password);
}
END_TEST

static const struct {
	const char *url;
	int family;
	const char *password;
} families[] = {
	{ "valkey://h", AF_UNSPEC, NULL }, { "valkey://h?family=0", AF_UNSPEC, NULL },
	{ "valkey://h?family=4", AF_INET, NULL }, { "redis://h:1?family=6", AF_INET6, NULL },
	{ "valkey://:p@h:1/2?family=6", AF_INET6, "p" }, { "valkey://[::1]/?family=4", AF_INET, NULL },
	{ "valkey://:?family=4@h", AF_UNSPEC, "?family=4" },
	{ "valkey://:a?b@h?family=6", AF_INET6, "a?b" },
};

/* The query sets the address family, even if there is a '?' elsewhere in the URL. */
START_TEST(family)
{
	struct valkey v;

	ck_assert_msg(parse(&v, families[_i].url, ""), "%s", error.text);
	ck_assert_int_eq(v.family, families[_i].family);
	same("password", v.password, families[_i].password);
	valkey_free(&v);
}
END_TEST

/* Errors name the setting, show the value without its password, and say what is allowed. */
static const struct {
	const char *url, *error;
} bad_urls[] = {
	{ "", "VALKEY_URL=: unknown scheme" },
	{ "h:6379", "VALKEY_URL=h:6379: unknown scheme" },
	{ "http://h", "VALKEY_URL=http://h: unknown scheme" },
	{ "valkey:/h", "VALKEY_URL=valkey:/h: unknown scheme" },
	{ " valkey://h", "VALKEY_URL= valkey://h: unknown scheme" },
	{ "u:secret@h", "VALKEY_URL=***@h: unknown scheme" },
#ifdef HAVE_TLS
	{ "valkeys://u:secret@:1", "VALKEY_URL=valkeys://u:***@:1: the host is missing" },
	{ "rediss:///run/s", "VALKEY_URL=rediss:///run/s: the host is missing" },
#else
	{ "valkeys://u:secret@h", "VALKEY_URL=valkeys://u:***@h: " NO_TLS },
	{ "rediss://h", "VALKEY_URL=rediss://h: " NO_TLS },
#endif
	{ "valkey://", "VALKEY_URL=valkey://: the host is missing" },
	{ "valkey://:6379", "VALKEY_URL=valkey://:6379: the host is missing" },
	{ "valkey:///0", "VALKEY_URL=valkey:///0: the host is missing" },
	{ "valkey://u:secret@", "VALKEY_URL=valkey://u:***@: the host is missing" },
	{ "valkey://h:", "VALKEY_URL=valkey://h:: the port must be a number from 1 to 65535" },
	{ "valkey://h:0", "VALKEY_URL=valkey://h:0: the port must be a number from 1 to 65535" },
	{ "valkey://h:65536", "VALKEY_URL=valkey://h:65536: the port must be a number from 1 to 65535" },
	{ "valkey://h:+1", "VALKEY_URL=valkey://h:***: the port must be a number from 1 to 65535" },
	{ "valkey://h:6379x", "VALKEY_URL=valkey://h:***: the port must be a number from 1 to 65535" },
	{ "valkey://h:1:2", "VALKEY_URL=valkey://h:***: the port must be a number from 1 to 65535" },
	{ "valkey://h:4294967297",
	    "VALKEY_URL=valkey://h:4294967297: the port must be a number from 1 to 65535" },
	{ "valkey://h/x", "VALKEY_URL=valkey://h/x: the db must be a number" },
	{ "valkey://h/0/1", "VALKEY_URL=valkey://h/0/1: the db must be a number" },
	{ "valkey://h/x?family=4", "VALKEY_URL=valkey://h/x?family=4: the db must be a number" },
	{ "valkey://h/0?db=secret", "VALKEY_URL=valkey://h/0?***" NO_QUERY ", not db" },
	{ "valkey://u:secret@h:1?secure&db=1", "VALKEY_URL=valkey://u:***@h:1?***" NO_QUERY },
	{ "valkey://h:1?db=1&family=4", "VALKEY_URL=valkey://h:1?***" NO_QUERY ", not db" },
	{ "valkey://h?family=4&family=4", "VALKEY_URL=valkey://h?***" NO_QUERY ", not family" },
	{ "valkey://h?family=5", "VALKEY_URL=valkey://h?family=5" NO_QUERY ", not family" },
	{ "valkey://h?family=44", "VALKEY_URL=valkey://h?family=44" NO_QUERY ", not family" },
	{ "valkey://h?family=", "VALKEY_URL=valkey://h?***" NO_QUERY ", not family" },
	{ "valkey://h?family", "VALKEY_URL=valkey://h?***" NO_QUERY },
	{ "valkey://h?Family=4", "VALKEY_URL=valkey://h?***" NO_QUERY ", not Family" },
	{ "valkey://h?family=4/0", "VALKEY_URL=valkey://h?***" NO_QUERY ", not family" },
	{ "valkey://h?family=4#x", "VALKEY_URL=valkey://h?***" NO_QUERY ", not family" },
	{ "valkey://h/?", "VALKEY_URL=valkey://h/?" NO_QUERY },
	{ "valkey://h/?secret=@x", "VALKEY_URL=valkey://***@x" NO_QUERY },
	{ "valkey://h?secret:40h", "VALKEY_URL=valkey://h?***" NO_QUERY },
	{ "valkey://[::1]?db=1", "VALKEY_URL=valkey://[::1]?***" NO_QUERY ", not db" },
	{ "valkey://?family=4", "VALKEY_URL=valkey://?family=4: the host is missing" },
	{ "unix:///run/s?family=4", "VALKEY_URL=unix:///run/s?family=4: a unix:// URL cannot have a query" },
	{ "unix:///run/s?password=secret", "VALKEY_URL=unix:///run/s?***: a unix:// URL cannot have a query" },
	{ "valkey://h h", "VALKEY_URL=valkey://h h" NO_HOST },
	{ "valkey://a,valkey://b", "VALKEY_URL=valkey://a,valkey://b" NO_HOST },
	{ "valkey://\303\251", "VALKEY_URL=valkey://?""?" NO_HOST },
	{ "valkey://::1", "VALKEY_URL=valkey://:***: the host is missing" },
	{ "valkey://[::1", "VALKEY_URL=valkey://[::1: '[' without ']'" },
	{ "valkey://[]", "VALKEY_URL=valkey://[]: the text in [...] is not an IPv6 address" },
	{ "valkey://[h]", "VALKEY_URL=valkey://[h]: the text in [...] is not an IPv6 address" },
	{ "valkey://[127.0.0.1]", "VALKEY_URL=valkey://[127.0.0.1]: the text in [...] is not an IPv6 address" },
	{ "valkey://[::1]6379", "VALKEY_URL=valkey://[::1]6379: only :port may follow ']'" },
	{ "valkey://u:secret%@h",
	    "VALKEY_URL=valkey://u:***@h: % must be followed by two hexadecimal digits, not 00" },
	{ "valkey://u:secret%4@h",
	    "VALKEY_URL=valkey://u:***@h: % must be followed by two hexadecimal digits, not 00" },
	{ "valkey://u:secret%0g@h",
	    "VALKEY_URL=valkey://u:***@h: % must be followed by two hexadecimal digits, not 00" },
	{ "valkey://u%00:secret@h",
	    "VALKEY_URL=valkey://u%00:***@h: % must be followed by two hexadecimal digits, not 00" },
	{ "valkey://u:secret/x@h:1",
	    "VALKEY_URL=valkey://u:***@h:1: the port must be a number from 1 to 65535" },
	{ "valkey://u:secret%40h", "VALKEY_URL=valkey://u:***: the port must be a number from 1 to 65535" },
	{ "valkey://:secret", "VALKEY_URL=valkey://:***: the host is missing" },
	{ "valkey://u:%20secret,@/redis://secret@h",
	    "VALKEY_URL=valkey://u:***@h: the host is missing" },
	{ "unix://", "VALKEY_URL=unix://: the socket path must begin with / and name a socket" },
	{ "unix:///", "VALKEY_URL=unix:///: the socket path must begin with / and name a socket" },
	{ "unix://s", "VALKEY_URL=unix://s: the socket path must begin with / and name a socket" },
	{ "unix:/run/s", "VALKEY_URL=unix:/run/s: unknown scheme" },
	{ "unix:///" A64 A16 A16 "aaaaaaaaaaa",
	    "VALKEY_URL=unix:///" A64 A16 A16 "aaaaaaaaaaa"
	    ": the socket path is over 107 bytes" },
};

START_TEST(bad)
{
	char expected[ERROR_SIZE];
	struct valkey v;

	snprintf(expected, sizeof(expected), "%s" ALLOWED, bad_urls[_i].error);
	ck_assert_msg(!parse(&v, bad_urls[_i].url, ""), "%s",
	    bad_urls[_i].url);
	ck_assert_str_eq(error.text, expected);
	ck_assert(strstr(error.text, "secret") == NULL);
	ck_assert_ptr_null(v.password);
}
END_TEST

/* The longest socket path that is accepted fills sun_path. */
START_TEST(longest_path)
{
	struct valkey v;

	ck_assert(parse(&v, "unix:///" A64 A16 A16 "aaaaaaaaaa", ""));
	ck_assert_uint_eq(strlen(v.path), sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	valkey_free(&v);
}
END_TEST

/* The password file */

static char directory[] = "/tmp/check_valkey_connect.XXXXXX";
static char file[sizeof(directory) + 16];

static void
make_directory(void)
{
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(file, sizeof(file), "%s/password", directory);
}

static void
remove_directory(void)
{
	unlink(file);
	rmdir(directory);
}

static bool
parse_with_file(struct valkey *v, const char *content, size_t length)
{
	FILE *f = fopen(file, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(content, 1, length, f), length);
	ck_assert_int_eq(fclose(f), 0);
	return parse(v, "valkey://u:old@h", file);
}

/* The first line, without its line break, replaces the password of the URL. */
START_TEST(password_file)
{
	static const struct {
		const char *content, *password;
	} rows[] = {
		{ "new", "new" }, { "new\n", "new" }, { "new\r\n", "new" },
		{ "new\nmore\n", "new" }, { " a b \n", " a b " }, { "p%40\n", "p%40" },
		{ "\303\251", "\303\251" }, { "a\rb\n", "a\rb" }, { "x", "x" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct valkey v;

		ck_assert_msg(parse_with_file(&v, rows[i].content, strlen(rows[i].content)),
		    "%s", error.text);
		ck_assert_str_eq(v.password, rows[i].password);
		ck_assert_str_eq(v.user, "u");
		valkey_free(&v);
	}
}
END_TEST

static void
file_refused(const char *content, size_t length, const char *reason)
{
	char expected[ERROR_SIZE];
	struct valkey v;

	snprintf(expected, sizeof(expected), "VALKEY_PASSWORD_FILE=%s: %s" PASSWORD_ALLOWED, file, reason);
	ck_assert(!parse_with_file(&v, content, length));
	ck_assert_str_eq(error.text, expected);
	ck_assert_ptr_null(v.password);
}

/* If there is no password in the file, the error names the file. */
START_TEST(bad_password_file)
{
	static const char empty[] = "the first line is empty";
	char line[4097], expected[ERROR_SIZE];
	struct valkey v;

	file_refused("", 0, empty);
	file_refused("\nsecret", 7, empty);
	file_refused("\r\n", 2, empty);
	file_refused("se\0cret", 7, "the first line contains a NUL");
	file_refused("\0", 1, "the first line contains a NUL");
	memset(line, 'x', sizeof(line));
	file_refused(line, sizeof(line), "the first line is over 4096 bytes");
	ck_assert(parse_with_file(&v, line, sizeof(line) - 1));
	ck_assert_uint_eq(strlen(v.password), 4096);
	valkey_free(&v);

	ck_assert_int_eq(unlink(file), 0);
	snprintf(expected, sizeof(expected), "VALKEY_PASSWORD_FILE=%s: %s" PASSWORD_ALLOWED, file, strerror(ENOENT));
	ck_assert(!parse(&v, "valkey://h", file));
	ck_assert_str_eq(error.text, expected);
	snprintf(expected, sizeof(expected), "VALKEY_PASSWORD_FILE=%s: %s" PASSWORD_ALLOWED, directory,
	    strerror(EISDIR));
	ck_assert(!parse(&v, "valkey://h", directory));
	ck_assert_str_eq(error.text, expected);
}
END_TEST

/* Connecting */

/* Starts a server, and parses a URL for it with this user and password. */
static void
start(struct fake *f, const char *userinfo, struct valkey *v)
{
	char url[64];

	fake_start(f);
	snprintf(url, sizeof(url), "valkey://%s%s", userinfo, f->label);
	ck_assert(parse(v, url, ""));
}

static redisContext *
connect_to(const struct valkey *v, int timeout_ms, struct valkey_state *state)
{
	return valkey_connect(v, valkey_clock() + timeout_ms, timeout_ms, false, state, &error);
}

#define AUTH(reply) { "AUTH", reply }
#define ROLE(reply) { "ROLE", reply }
#define CLUSTER(reply) { "CLUSTER INFO", reply }

/* For each bad reply of a server, the error without the label in front of it. */
static const struct {
	const char *userinfo;
	struct fake_rule rules[3];
	const char *error;
	bool demoted;
} refusals[] = {
	{ "", { ROLE(FAKE_REPLICA), CLUSTER(FAKE_ALONE) },
	    "is a replica, not a primary: messages published there reach no other server", true },
	{ "", { ROLE(FAKE_REPLICA),
	      CLUSTER("-NOPERM this user has no permissions to run 'cluster|info'\r\n") },
	    "is a replica, not a primary: messages published there reach no other server "
	    "(to use a replica in a Cluster, give the user +cluster|info)", true },
	{ "", { ROLE(FAKE_REPLICA), CLUSTER("$2\r\nOK\r\n") },
	    "is a replica, not a primary: messages published there reach no other server", true },
	{ "", { ROLE(FAKE_REPLICA), CLUSTER(NULL) }, "no answer within 300 ms", false },
	{ "", { ROLE(FAKE_SENTINEL) },
	    "is a sentinel, not a primary: messages published there reach no other server", true },
	{ "", { ROLE("-NOAUTH Authentication required.\r\n") },
	    "NOAUTH: requires a password: set VALKEY_PASSWORD_FILE, or user:password@ in the URL", false },
	{ "", { ROLE("-BUSY Redis is busy running a script. You can only call SCRIPT KILL.\r\n") },
	    "BUSY: the server is running a script or function", false },
	{ "", { ROLE("-MASTERDOWN Link with MASTER is down\r\n") },
	    "MASTERDOWN: the replica has lost its primary", false },
	{ "", { ROLE(FAKE_REPLICA), CLUSTER("-BUSY Redis is busy running a script.\r\n") },
	    "BUSY: the server is running a script or function", false },
	{ "", { ROLE("-ERR max number of clients reached\r\n") },
	    "maxclients reached: the server accepts no more connections", false },
	{ ":secret@", { AUTH("-ERR max number of clients + cluster connections reached\r\n") },
	    "maxclients reached: the server accepts no more connections", false },
	{ "", { ROLE("-LOADING the dataset is \033[1mloaded\r\n") },
	    "LOADING: the server is loading its data", false },
	{ "", { ROLE("-ODD the dataset is \033[1mloaded\r\n") },
	    "ROLE: ODD the dataset is ?[1mloaded", false },
	{ "", { ROLE("+OK\r\n") }, "ROLE: unexpected reply", false },
	{ "", { ROLE("*0\r\n") }, "ROLE: unexpected reply", false },
	{ "", { ROLE("*1\r\n:1\r\n") }, "ROLE: unexpected reply", false },
	{ "", { ROLE("HTTP/1.1 400 Bad Request\r\n\r\n") },
	    "not a Valkey or Redis server: Protocol error, got \"H\" as reply type byte", false },
	{ "", { ROLE(FAKE_CLOSED) }, "the server closed the connection", false },
	{ "", { ROLE(FAKE_RESET) }, "the server closed the connection", false },
	{ "", { ROLE(NULL) }, "no answer within 300 ms", false },
	{ "", { ROLE(FAKE_SLOWLY) }, "no answer within 300 ms", false },
	{ "", { ROLE(FAKE_ENDLESS) }, "the reply is over 256 KiB", false },
	{ "u:secret@",
	    { AUTH("-WRONGPASS invalid username-password pair or user is disabled.\r\n") },
	    "authentication failed: WRONGPASS invalid username-password pair or user is "
	    "disabled.", false },
	{ ":secret@",
	    { AUTH("-ERR unknown command 'AUTH', with args beginning with: 'secret'\r\n") },
	    "authentication failed: ERR unknown command ", false },
	{ ":secret@",
	    { AUTH("-ERR unknown command `AUTH`, with args beginning with: `secret`\r\n") },
	    "authentication failed: ERR unknown command ", false },
	{ ":secret@",
	    { AUTH(":1\r\n") }, "authentication failed: unexpected reply", false },
	{ ":secret@", { AUTH(NULL) }, "no answer within 300 ms", false },
	{ ":secret@", { AUTH("+OK\r\n"), ROLE(FAKE_REPLICA), CLUSTER(FAKE_ALONE) },
	    "is a replica, not a primary: messages published there reach no other server", true },
	{ ":secret@", { AUTH("+OK\r\n"), ROLE(FAKE_SLOWLY) }, "no answer within 300 ms", false },
};

START_TEST(refused)
{
	const struct fake_rule *rules = refusals[_i].rules;
	struct fake f = { .rules = { rules[0], rules[1], rules[2] } };
	char expected[ERROR_SIZE];
	struct valkey_state state;
	struct valkey v;
	/* The other errors need no short limit, and a busy machine may need longer for them. */
	int timeout_ms = strstr(refusals[_i].error, "300 ms") != NULL ? 300 : 10000;
	int64_t began;

	start(&f, refusals[_i].userinfo, &v);
	snprintf(expected, sizeof(expected), "%s: %s", v.label, refusals[_i].error);
	began = clock_ms();
	ck_assert_ptr_null(connect_to(&v, timeout_ms, &state));
	ck_assert_int_lt((int)(clock_ms() - began), timeout_ms + 1700);
	fake_stop(&f);
	ck_assert_str_eq(error.text, expected);
	ck_assert_int_eq(state.demoted, refusals[_i].demoted);
	ck_assert(strstr(error.text, "secret") == NULL);
	valkey_free(&v);
}
END_TEST

static int
option(int fd, int level, int name)
{
	int value = -1;
	socklen_t length = sizeof(value);

	ck_assert_int_eq(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

/* A primary is accepted, AUTH includes the user if there is one, and the socket options are set. */
START_TEST(connected)
{
	static const struct {
		const char *userinfo, *sent;
	} rows[] = {
		{ "", "*1\r\n$4\r\nROLE\r\n" },
		{ ":p@", "*2\r\n$4\r\nAUTH\r\n$1\r\np\r\n*1\r\n$4\r\nROLE\r\n" },
		{ "u:p@", "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n*1\r\n$4\r\nROLE\r\n" },
		{ "u@", "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$0\r\n\r\n*1\r\n$4\r\nROLE\r\n" },
	};
	struct fake f = { .rules = { ROLE(FAKE_MASTER), AUTH("+OK\r\n") } };
	struct valkey_state state;
	struct valkey v;
	redisContext *c;
	void *reply = NULL;

	if (rows[_i].userinfo[0] == '\0')
		f.rules[1] = (struct fake_rule){ NULL, NULL };
	start(&f, rows[_i].userinfo, &v);
	c = connect_to(&v, 2000, &state);
	ck_assert_msg(c != NULL, "%s", error.text);
	ck_assert(!state.demoted);
	ck_assert_int_ne(option(c->fd, IPPROTO_TCP, TCP_NODELAY), 0);
	ck_assert_int_ne(option(c->fd, SOL_SOCKET, SO_KEEPALIVE), 0);
	ck_assert_int_le(option(c->fd, IPPROTO_TCP, TCP_KEEPIDLE) +
	    option(c->fd, IPPROTO_TCP, TCP_KEEPINTVL) *
	    option(c->fd, IPPROTO_TCP, TCP_KEEPCNT), 15);
	ck_assert(fcntl(c->fd, F_GETFL) & O_NONBLOCK);
	/* A nested array is a protocol error. */
	ck_assert_int_eq(redisReaderFeed(c->reader, "*1\r\n*1\r\n:1\r\n", 12), REDIS_OK);
	ck_assert_int_eq(redisReaderGetReply(c->reader, &reply), REDIS_ERR);
	redisFree(c);
	fake_stop(&f);
	ck_assert_str_eq(f.received, rows[_i].sent);
	valkey_free(&v);
}
END_TEST

/*
 * A server that has no ROLE, or no CLUSTER INFO where that is needed, is accepted with a warning;
 * so is an active replica, without one.
 */
START_TEST(unverified)
{
	static const struct {
		struct fake_rule rules[2];
		bool needs_cluster;
		const char *warning; /* without the label in front of it */
	} rows[] = {
		{ { ROLE("-NOPERM this user has no permissions to run the 'role' command\r\n") },
		    false, "cannot verify that it is a primary: the user needs +role" },
		{ { ROLE("-ERR unknown command 'ROLE', with args beginning with: \r\n") }, false,
		    "cannot verify that it is a primary: it does not support ROLE" },
		{ { ROLE("-ERR unknown command `ROLE`, with args beginning with: \r\n") }, false,
		    "cannot verify that it is a primary: it does not support ROLE" },
		{ { ROLE("-unsupported command 'role'\r\n") }, false,
		    "cannot verify that it is a primary: it does not support ROLE" },
		{ { ROLE("-ERR command not allowed\r\n") }, false,
		    "cannot verify that it is a primary: it does not support ROLE" },
		{ { ROLE("-NOPERM no\r\n"), CLUSTER(FAKE_CLUSTER) }, true, NULL },
		{ { ROLE("-NOPERM no\r\n"), CLUSTER("-ERR unknown command 'CLUSTER'\r\n") }, true,
		    "cannot verify that it is a Cluster node: it does not support CLUSTER INFO" },
		{ { ROLE(FAKE_MASTER), CLUSTER("-NOPERM no\r\n") }, true,
		    "cannot verify that it is a Cluster node: the user needs +cluster|info" },
		{ { ROLE("*2\r\n$14\r\nactive-replica\r\n:0\r\n") }, false, NULL },
	};
	struct fake f = { .rules = { rows[_i].rules[0], rows[_i].rules[1] } };
	char expected[ERROR_SIZE] = "";
	struct valkey_state state;
	struct valkey v;
	redisContext *c;

	start(&f, "", &v);
	if (rows[_i].warning != NULL)
		snprintf(expected, sizeof(expected), "%s: %s", v.label, rows[_i].warning);
	c = valkey_connect(&v, valkey_clock() + 2000, 2000, rows[_i].needs_cluster, &state, &error);
	ck_assert_msg(c != NULL, "%s", error.text);
	ck_assert_str_eq(state.unverified.text, expected);
	ck_assert(!state.demoted && !state.cluster_down);
	redisFree(c);
	fake_stop(&f);
	valkey_free(&v);
}
END_TEST

/* A replica is accepted if it is a Cluster node. */
START_TEST(cluster_replica)
{
	struct fake f = { .rules = { ROLE(FAKE_REPLICA), CLUSTER(FAKE_CLUSTER_DOWN) } };
	struct valkey_state state;
	struct valkey v;
	redisContext *c;

	start(&f, "", &v);
	c = connect_to(&v, 2000, &state);
	ck_assert_msg(c != NULL, "%s", error.text);
	ck_assert(!state.demoted);
	ck_assert(state.cluster_down);
	redisFree(c);
	fake_stop(&f);
	ck_assert_str_eq(f.received, "*1\r\n$4\r\nROLE\r\n*2\r\n$7\r\nCLUSTER\r\n$4\r\nINFO\r\n");
	valkey_free(&v);
}
END_TEST

/* Address family of the first lookup; later ones are hiredis's own, of the resolved address. */
static int asked_family = -1;

/* Simulates a slow name server: resolving localhost takes one and a half seconds. */
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
    struct addrinfo **result)
{
	__typeof__(&getaddrinfo) real = (__typeof__(real))dlsym(RTLD_NEXT, "getaddrinfo");

	if (asked_family == -1)
		asked_family = hints->ai_family;
	if (strcmp(node, "localhost") == 0)
		usleep(1500000);
	return real(node, service, hints, result);
}

/* The time limit does not include resolving the name, and every address of the name is tried. */
START_TEST(slow_name)
{
	struct fake f = { .rules = { ROLE(FAKE_MASTER) } };
	struct valkey_state state;
	struct valkey v;
	redisContext *c;
	char url[64];

	fake_start(&f);
	snprintf(url, sizeof(url), "valkey://localhost:%d", f.port);
	ck_assert(parse(&v, url, ""));
	c = connect_to(&v, 1400, &state);
	ck_assert_msg(c != NULL, "%s", error.text);
	redisFree(c);
	fake_stop(&f);
	valkey_free(&v);
}
END_TEST

/* Names are resolved to the address family of the URL; an address is used as it is. */
START_TEST(family_of_names)
{
	static const struct {
		const char *host, *query;
		int family;
		bool good;
	} rows[] = {
		{ "localhost", "", AF_UNSPEC, true }, { "localhost", "?family=4", AF_INET, true },
		{ "localhost", "?family=6", AF_INET6, false },
		{ "127.0.0.1", "?family=6", AF_UNSPEC, true },
	};
	struct fake f = { .rules = { ROLE(FAKE_MASTER) } };
	struct valkey_state state;
	struct valkey v;
	redisContext *c;
	char url[64];

	fake_start(&f);
	snprintf(url, sizeof(url), "valkey://%s:%d%s", rows[_i].host, f.port, rows[_i].query);
	ck_assert(parse(&v, url, ""));
	c = connect_to(&v, 2000, &state);
	ck_assert_int_eq(asked_family, rows[_i].family);
	ck_assert_msg((c != NULL) == rows[_i].good, "%s", error.text);
	if (c != NULL)
		redisFree(c);
	fake_stop(&f);
	valkey_free(&v);
}
END_TEST

/* If no server listens there, the error is that of the system. */
START_TEST(no_server)
{
	struct valkey_state state;
	struct valkey v;

	ck_assert(parse(&v, "unix:///nonexistent/s", ""));
	ck_assert_ptr_null(connect_to(&v, 500, &state));
	ck_assert_str_eq(error.text, "unix:/nonexistent/s: No such file or directory");
	valkey_free(&v);
	ck_assert(parse(&v, "valkey://127.0.0.1:1", ""));
	ck_assert_ptr_null(connect_to(&v, 500, &state));
	ck_assert_str_eq(error.text, "127.0.0.1:1: Connection refused");
	valkey_free(&v);
}
END_TEST

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

int
main(void)
{
	Suite *s = suite_create("valkey_connect");
	TCase *url = tcase_create("url"), *password = tcase_create("password");
	TCase *connecting = tcase_create("connect");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(url, good, 0, COUNT(good_urls));
	tcase_add_loop_test(url, family, 0, COUNT(families));
	tcase_add_loop_test(url, bad, 0, COUNT(bad_urls));
	tcase_add_test(url, longest_path);
	tcase_add_checked_fixture(password, make_directory, remove_directory);
	tcase_add_test(password, password_file);
	tcase_add_test(password, bad_password_file);
	tcase_add_loop_test(connecting, refused, 0, COUNT(refusals));
	tcase_add_loop_test(connecting, connected, 0, 4);
	tcase_add_loop_test(connecting, unverified, 0, 9);
	tcase_add_test(connecting, cluster_replica);
	tcase_add_test(connecting, slow_name);
	tcase_add_loop_test(connecting, family_of_names, 0, 4);
	tcase_add_test(connecting, no_server);
	suite_add_tcase(s, url);
	suite_add_tcase(s, password);
	suite_add_tcase(s, connecting);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
