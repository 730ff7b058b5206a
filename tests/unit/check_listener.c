/* SPDX-License-Identifier: ISC */
/*
 * check_listener: parsing of addresses, and which sockets are created, replaced, kept, inherited
 * and removed.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/listener.h"

#define IN_USE "in use: another process may be listening there"

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);

static char directory[] = "/tmp/check-listener-XXXXXX";
static char path[128], other[128], lock_file[136];

static const struct listener_options options = { .mode = 0660, .group = (gid_t)-1, .backlog = 16 };

static void
setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/socket", directory);
	snprintf(other, sizeof(other), "%s/other", directory);
	snprintf(lock_file, sizeof(lock_file), "%s.lock", path);
}

static void
teardown(void)
{
	unlink(path);
	unlink(other);
	unlink(lock_file);
	rmdir(path);
	rmdir(directory);
}

/* Addresses */

static void
expect_path(const char *text, const char *expected)
{
	struct address a;

	ck_assert_msg(address_parse(&a, text), "%s", text);
	ck_assert_str_eq(a.path, expected);
	ck_assert_str_eq(a.tcp.host, "");
	ck_assert_int_eq(a.tcp.port, 0);
}

static void
expect_tcp(const char *text, const char *host, int port)
{
	struct address a;

	ck_assert_msg(address_parse(&a, text), "%s", text);
	ck_assert_str_eq(a.path, "");
	ck_assert_str_eq(a.tcp.host, host);
	ck_assert_int_eq(a.tcp.port, port);
}

/* The four forms of an address. */
START_TEST(addresses)
{
	expect_path("/run/tpi.sock", "/run/tpi.sock");
	expect_path("unix:/run/tpi.sock", "/run/tpi.sock");
	expect_path(LISTENER_DEFAULT, "/run/tpi-stream/streamd.sock");
	expect_path("/with:colon:9000", "/with:colon:9000");
	expect_path("unix:/with space", "/with space");
	expect_tcp("localhost:9000", "localhost", 9000);
	expect_tcp("127.0.0.1:1", "127.0.0.1", 1);
	expect_tcp("0.0.0.0:65535", "0.0.0.0", 65535);
	expect_tcp("[::1]:9000", "::1", 9000);
	expect_tcp("[::]:9000", "::", 9000);
	expect_tcp("[fe80::1%lo]:9000", "fe80::1%lo", 9000);
	expect_tcp("host.example:80", "host.example", 80);
}
END_TEST

/* Anything else is not an address. */
START_TEST(not_addresses)
{
	static const char *const texts[] = { "", "relative", "./relative", "relative/socket",
		"unix:", "unix:relative", "unix:localhost:9000", "unix:9000", "unix:[::1]:9000",
		"9000",
		":9000", "localhost", "localhost:", "localhost:0", "localhost:65536",
		"localhost:99999", "localhost:100000", "localhost:-1", "localhost:+1",
		"localhost: 9", "localhost:9 ", "localhost:9x", "localhost:http", "::1",
		"::1:9000", "[::1]", "[::1]:", "[::1]9000", "[::1", "[]:9000", "[::1:9000",
		"::1]:9000", "tcp:localhost:9000", "http://localhost:9000" };
	struct address a;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		ck_assert_msg(!address_parse(&a, texts[i]), "%s", texts[i]);
}
END_TEST

/* What is too long is refused, not truncated: a path of 108 bytes, a host of 254. */
START_TEST(too_long)
{
	char text[400] = "unix:/";
	struct address a;

	memset(text + 6, 'p', 106);
	ck_assert(address_parse(&a, text));
	ck_assert_uint_eq(strlen(a.path), 107);
	strcat(text, "p");
	ck_assert(!address_parse(&a, text));
	ck_assert(!address_parse(&a, text + 5));
	memset(text, 'h', 253);
	strcpy(text + 253, ":9000");
	ck_assert(address_parse(&a, text));
	ck_assert_uint_eq(strlen(a.tcp.host), 253);
	memset(text, 'h', 254);
	strcpy(text + 254, ":9000");
	ck_assert(!address_parse(&a, text));
}
END_TEST

/* Unix sockets */

/* Listens at a path, or fails with exactly this error. */
static void
open_at(struct listener *l, const char *text, const char *expected)
{
	struct error error = { "" };
	struct address a;

	ck_assert(address_parse(&a, text));
	ck_assert(listener_open(l, &a, &options, &error) == (expected[0] == '\0'));
	ck_assert_str_eq(error.text, expected);
	ck_assert(expected[0] == '\0' ? l->fd >= 0 : l->fd == -1);
}

/* Connects to a Unix socket. Returns the descriptor, or -1 with errno. */
static int
connect_to(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_uint_lt(strlen(name), sizeof(address.sun_path));
	strcpy(address.sun_path, name);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Expects that a client can connect and that its bytes arrive. */
static void
expect_served(const struct listener *l, const char *name)
{
	int client = connect_to(name), server;
	char byte;

	ck_assert_int_ge(client, 0);
	server = accept(l->fd, NULL, NULL);
	ck_assert_int_ge(server, 0);
	ck_assert_int_eq(write(client, "x", 1), 1);
	ck_assert_int_eq(read(server, &byte, 1), 1);
	close(client);
	close(server);
}

/* Leaves a socket file that no process listens on, as a killed daemon does. */
static void
leave_stale(const char *name)
{
	struct listener l;

	open_at(&l, name, "");
	free(l.path);
	close(l.fd);
	ck_assert_int_eq(connect_to(name), -1);
	ck_assert_int_eq(errno, ECONNREFUSED);
}

static bool
exists(const char *name)
{
	struct stat st;

	return lstat(name, &st) == 0;
}

/*
 * The socket accepts connections, is non-blocking and close-on-exec, and is removed when it is
 * closed.
 */
START_TEST(unix_socket)
{
	struct listener l;

	open_at(&l, path, "");
	ck_assert(!l.inherited);
	ck_assert_str_eq(l.path, path);
	ck_assert_int_eq(accept(l.fd, NULL, NULL), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(fcntl(l.fd, F_GETFD), FD_CLOEXEC);
	expect_served(&l, path);
	listener_close(&l);
	ck_assert(!exists(path));
	ck_assert_int_eq(l.fd, -1);
	listener_close(&l);
}
END_TEST

/* Mode and group are as requested, whatever the umask, which does not change. */
START_TEST(mode_and_group)
{
	static const unsigned modes[] = { 0660, 0600, 0666, 0777, 0 };
	static const mode_t masks[] = { 0, 022, 077, 0777 };
	struct listener_options o = options;
	struct error error = { "" };
	struct listener l;
	struct address a;
	struct stat st;

	ck_assert(address_parse(&a, path));
	if (geteuid() == 0)
		o.group = 4242;
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		for (size_t k = 0; k < sizeof(masks) / sizeof(masks[0]); k++) {
			o.mode = modes[i];
			umask(masks[k]);
			ck_assert(listener_open(&l, &a, &o, &error));
			ck_assert_uint_eq(umask(022), masks[k]);
			ck_assert_int_eq(stat(path, &st), 0);
			ck_assert_uint_eq(st.st_mode & 07777, modes[i]);
			if (geteuid() == 0)
				ck_assert_uint_eq(st.st_gid, 4242);
			listener_close(&l);
		}
	}
}
END_TEST

/* A path of the maximum length works. */
START_TEST(longest_path)
{
	struct listener l;

	memset(other, '\0', sizeof(other));
	snprintf(other, sizeof(other), "%s/", directory);
	memset(other + strlen(other), 's', 107 - strlen(other));
	ck_assert_uint_eq(strlen(other), 107);
	open_at(&l, other, "");
	expect_served(&l, other);
	listener_close(&l);
	ck_assert(!exists(other));
}
END_TEST

/* A stale socket is replaced. */
START_TEST(stale)
{
	struct listener l;

	leave_stale(path);
	ck_assert(exists(path));
	open_at(&l, path, "");
	expect_served(&l, path);
	listener_close(&l);
}
END_TEST

/*
 * A live socket is not replaced, even if its queue is full; it keeps working, and its file stays.
 */
START_TEST(live)
{
	struct listener_options o = options;
	struct listener first, second;
	struct error error;
	struct address a;
	int clients[8];
	int count = 0;

	ck_assert(address_parse(&a, path));
	o.backlog = 1;
	ck_assert(listener_open(&first, &a, &o, &error));
	open_at(&second, path, IN_USE);
	listener_close(&second);
	close(accept(first.fd, NULL, NULL)); /* the connection by which the check found it live */
	expect_served(&first, path);
	while ((clients[count] = connect_to(path)) != -1)
		ck_assert_int_lt(++count, 8);
	ck_assert_int_eq(errno, EAGAIN);
	open_at(&second, path, IN_USE);
	ck_assert(exists(path));
	while (count > 0)
		close(clients[--count]);
	listener_close(&first);
}
END_TEST

/*
 * A socket is stale only if it refuses connections, not if we may not connect or it is of another
 * type.
 */
START_TEST(not_connectable)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct listener first, second;
	int datagram = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	ck_assert_int_eq(bind(datagram, (const struct sockaddr *)&address, sizeof(address)), 0);
	open_at(&second, path, IN_USE);
	ck_assert(exists(path));
	close(datagram);
	ck_assert_int_eq(unlink(path), 0);
	if (geteuid() != 0)
		return;
	open_at(&first, path, "");
	ck_assert_int_eq(chmod(directory, 0777), 0);
	ck_assert_int_eq(setegid(65534), 0);
	ck_assert_int_eq(seteuid(65534), 0);
	open_at(&second, path, IN_USE);
	ck_assert_int_eq(seteuid(0), 0);
	ck_assert_int_eq(setegid(0), 0);
	expect_served(&first, path);
	listener_close(&first);
}
END_TEST

#define RACERS 8
#define RACES  40

/*
 * A racing process: waits for the start, reports on result whether it listens, and keeps running.
 */
static void
race(int start, int result)
{
	struct error error = { "" };
	char byte;
	struct listener l;
	struct address a;

	address_parse(&a, path);
	if (read(start, &byte, 1) != 0)
		_exit(1);
	byte = listener_open(&l, &a, &options, &error) ? 'w' :
	    strcmp(error.text, IN_USE) == 0 ? 'l' : '?';
	if (write(result, &byte, 1) == 1)
		pause();
	_exit(1);
}

/*
 * Of several processes that start at once and find a stale socket, one listens and the others fail.
 */
START_TEST(simultaneous_starts)
{
	for (int round = 0; round < RACES; round++) {
		pid_t racers[RACERS];
		int start[2], result[2], winners = 0, losers = 0;
		char byte;

		leave_stale(path);
		ck_assert_int_eq(pipe(start), 0);
		ck_assert_int_eq(pipe(result), 0);
		for (int i = 0; i < RACERS; i++) {
			racers[i] = fork();
			ck_assert_int_ne(racers[i], -1);
			if (racers[i] == 0) {
				close(start[1]);
				race(start[0], result[1]);
			}
		}
		close(start[0]);
		close(start[1]); /* start */
		for (int i = 0; i < RACERS; i++) {
			ck_assert_int_eq(read(result[0], &byte, 1), 1);
			winners += byte == 'w';
			losers += byte == 'l';
		}
		for (int i = 0; i < RACERS; i++) {
			kill(racers[i], SIGKILL);
			waitpid(racers[i], NULL, 0);
		}
		close(result[0]);
		close(result[1]);
		ck_assert_msg(winners == 1 && losers == RACERS - 1,
		    "round %d: %d winners, %d losers", round, winners, losers);
		ck_assert(!exists(lock_file));
		ck_assert_int_eq(unlink(path), 0);
	}
}
END_TEST

/* A lock file left by a crash does no harm and is removed. */
START_TEST(stale_lock)
{
	struct listener l;

	close(open(lock_file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	open_at(&l, path, "");
	expect_served(&l, path);
	ck_assert(!exists(lock_file));
	listener_close(&l);
}
END_TEST

/* If another process keeps the lock, we fail after a while and replace nothing. */
START_TEST(lock_held)
{
	struct listener l;
	char expected[256];
	int fd;

	leave_stale(path);
	fd = open(lock_file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ck_assert_int_eq(flock(fd, LOCK_EX), 0);
	snprintf(expected, sizeof(expected), "in use: another process has locked %s", lock_file);
	open_at(&l, path, expected);
	ck_assert(exists(path) && exists(lock_file));
	close(fd);
	open_at(&l, path, "");
	listener_close(&l);
}
END_TEST

/* One more than the number of attempts to lock; 0: not counted. */
static int attempts;

int
__wrap_flock(int fd, int operation)
{
	static int successor;

	if (attempts > 0 && attempts++ == 1) {
		/*
		 * The holder removes its file, and a successor locks a new one, after we opened the
		 * old one.
		 */
		unlink(lock_file);
		successor = open(lock_file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		ck_assert_int_eq(__real_flock(successor, LOCK_EX), 0);
	} else if (attempts == 4)
		close(successor);
	return __real_flock(fd, operation);
}

/*
 * Locking a file that its holder has removed is not enough: another process may hold the new one.
 */
START_TEST(lock_of_a_removed_file)
{
	struct listener l;

	attempts = 1;
	open_at(&l, path, "");
	ck_assert_int_eq(attempts, 4);
	attempts = 0;
	ck_assert(!exists(lock_file));
	listener_close(&l);
}
END_TEST

/* A symbolic link in place of the lock file is not followed. */
START_TEST(lock_is_a_link)
{
	struct listener l;
	char expected[256];

	ck_assert_int_eq(symlink(other, lock_file), 0);
	snprintf(expected, sizeof(expected), "%s: Too many levels of symbolic links", lock_file);
	open_at(&l, path, expected);
	ck_assert(!exists(other) && !exists(path));
}
END_TEST

/* Anything but a socket is kept: a file, a directory, a symbolic link, even to a socket. */
START_TEST(not_a_socket)
{
	static const char expected[] =
	    "exists and is not a socket: remove it or choose another path";
	struct listener l;

	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	open_at(&l, path, expected);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	open_at(&l, path, expected);
	ck_assert_int_eq(rmdir(path), 0);
	leave_stale(other);
	ck_assert_int_eq(symlink(other, path), 0);
	open_at(&l, path, expected);
	ck_assert(exists(path) && exists(other));
}
END_TEST

/* If the directory is missing or not writable, the error says so. */
START_TEST(no_directory)
{
	char name[256], expected[512];
	struct listener l;

	snprintf(name, sizeof(name), "%s/missing/socket", directory);
	snprintf(expected, sizeof(expected),
	    "%s.lock: No such file or directory: the directory must exist", name);
	open_at(&l, name, expected);
	close(open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	snprintf(name, sizeof(name), "%s/socket", other);
	snprintf(expected, sizeof(expected), "%s.lock: Not a directory", name);
	open_at(&l, name, expected);
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(seteuid(65534), 0);
	snprintf(expected, sizeof(expected), "%s: Permission denied", lock_file);
	open_at(&l, path, expected);
	ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

/* listener_close() keeps a file that has replaced ours; if there is none, that is not an error. */
START_TEST(replaced_by_another)
{
	struct listener first, second;

	open_at(&first, path, "");
	ck_assert_int_eq(unlink(path), 0);
	open_at(&second, path, "");
	listener_close(&first);
	ck_assert(exists(path));
	expect_served(&second, path);
	ck_assert_int_eq(unlink(path), 0);
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	listener_close(&second);
	ck_assert(exists(path));
	ck_assert_int_eq(unlink(path), 0);

	open_at(&first, path, "");
	ck_assert_int_eq(unlink(path), 0);
	listener_close(&first);
	ck_assert(!exists(path));
}
END_TEST

/* A failure after bind() leaves neither a file nor a descriptor. */
START_TEST(failure_leaves_nothing)
{
	struct listener_options o = options;
	struct error error = { "" };
	struct listener l;
	struct address a;

	if (geteuid() != 0)
		return;
	ck_assert(address_parse(&a, path));
	ck_assert_int_eq(chmod(directory, 0777), 0);
	o.group = 0; /* a group that this user is not in */
	ck_assert_int_eq(setegid(65534), 0);
	ck_assert_int_eq(seteuid(65534), 0);
	ck_assert(!listener_open(&l, &a, &o, &error));
	ck_assert_int_eq(seteuid(0), 0);
	ck_assert_str_eq(error.text, "cannot set the group: Operation not permitted");
	ck_assert_int_eq(l.fd, -1);
	ck_assert(!exists(path));
}
END_TEST

/* TCP */

/* Returns a port that is free; 0 if this machine has no such address. */
static unsigned
free_port(const struct sockaddr *any, socklen_t size)
{
	struct sockaddr_storage bound;
	socklen_t length = sizeof(bound);
	int fd = socket(any->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unsigned port = 0;

	if (fd == -1)
		return 0;
	if (bind(fd, any, size) == 0 &&
	    getsockname(fd, (struct sockaddr *)&bound, &length) == 0)
		port = ntohs(any->sa_family == AF_INET
			? ((const struct sockaddr_in *)(const void *)&bound)->sin_port
			: ((const struct sockaddr_in6 *)(const void *)&bound)->sin6_port);
	close(fd);
	return port;
}

/* Opens host:port, connects, and opens it again while an old connection lingers. */
static void
serve_tcp(const char *host, const struct sockaddr *to, socklen_t size, unsigned port)
{
	struct listener l, second;
	socklen_t length = sizeof(int);
	char text[64];
	int client, server, no_delay = 0;

	snprintf(text, sizeof(text), "%s:%u", host, port);
	open_at(&l, text, "");
	ck_assert(!l.inherited);
	ck_assert_ptr_null(l.path);
	ck_assert_int_eq(accept(l.fd, NULL, NULL), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(fcntl(l.fd, F_GETFD), FD_CLOEXEC);
	client = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(client, to, size), 0);
	server = accept(l.fd, NULL, NULL);
	ck_assert_int_ge(server, 0);
	ck_assert_int_eq(getsockopt(server, IPPROTO_TCP, TCP_NODELAY, &no_delay, &length), 0);
	ck_assert_int_ne(no_delay, 0);
	open_at(&second, text, "Address already in use");
	/* The server's end closes first: the port is then in TIME_WAIT. */
	close(server);
	close(client);
	listener_close(&l);
	open_at(&l, text, "");
	listener_close(&l);
}

/* IPv4. */
START_TEST(tcp_v4)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	unsigned port;

	ck_assert_int_eq(inet_pton(AF_INET, "127.0.0.1", &to.sin_addr), 1);
	port = free_port((const struct sockaddr *)&to, sizeof(to));
	ck_assert_uint_ne(port, 0);
	to.sin_port = htons((uint16_t)port);
	serve_tcp("127.0.0.1", (const struct sockaddr *)&to, sizeof(to), port);
}
END_TEST

/* IPv6, if the machine has it. */
START_TEST(tcp_v6)
{
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	unsigned port = free_port((const struct sockaddr *)&to, sizeof(to));

	if (port == 0)
		return;
	to.sin6_port = htons((uint16_t)port);
	serve_tcp("[::1]", (const struct sockaddr *)&to, sizeof(to), port);
}
END_TEST

/* An address of another machine is an error. */
START_TEST(tcp_address_of_another_machine)
{
	struct listener l;

	open_at(&l, "203.0.113.1:9000", "Cannot assign requested address");
}
END_TEST

static void
expect_exposed(const char *text, bool expected)
{
	struct listener l;

	open_at(&l, text, "");
	ck_assert_msg(listener_is_exposed(&l) == expected, "%s", text);
	listener_close(&l);
}

/* Only loopback addresses and Unix sockets are out of reach of other hosts. */
START_TEST(exposed)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	unsigned port = free_port((const struct sockaddr *)&v4, sizeof(v4));
	static const struct {
		const char *host;
		bool expected;
	} hosts[] = { { "127.0.0.1", false }, { "127.9.9.9", false }, { "localhost", false },
		{ "0.0.0.0", true }, { "[::1]", false }, { "[::ffff:127.0.0.1]", false },
		{ "[::]", true }, { "[::ffff:0.0.0.0]", true } };
	size_t count = sizeof(hosts) / sizeof(hosts[0]);
	char text[64];

	expect_exposed(path, false);
	if (free_port((const struct sockaddr *)&v6, sizeof(v6)) == 0)
		count -= 4;
	for (size_t i = 0; i < count; i++) {
		snprintf(text, sizeof(text), "%s:%u", hosts[i].host, port);
		expect_exposed(text, hosts[i].expected);
	}
}
END_TEST

/* Inherited sockets */

/* Creates a listening socket at path that blocks and is not close-on-exec. */
static int
blocking_listener(void)
{
	struct listener l;
	int fd;

	open_at(&l, path, "");
	free(l.path);
	fd = fcntl(l.fd, F_DUPFD, 10);
	close(l.fd);
	ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
	return fd;
}

enum { CONNECTED = 100 }; /* a plain connected socket instead of a listening one */

/*
 * Calls listener_inherit() in a child process with these descriptors 0 (in) and 3 (third) and this
 * LISTEN_FDS; for descriptors, 0 is /dev/null, 1 a listening socket. Returns 1 if it takes a
 * socket, 0 if there is none, -1 if it fails. The child also checks the error, the remaining
 * variables and the socket's flags, and exits with 96 to 99 if they are wrong.
 */
static int
inherit(int in, int third, bool own_pid, const char *count, int expected_fd, const char *expected)
{
	struct error error = { "" };
	char pid[16];
	int fds[3], pair[2], status, result;
	struct listener l;
	pid_t child;

	unlink(path);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	fds[1] = blocking_listener();
	fds[2] = pair[0];
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		fds[2] = fcntl(fds[2], F_DUPFD, 20);
		fds[0] = fcntl(fds[0], F_DUPFD, 20);
		dup2(fds[in == CONNECTED ? 2 : in], STDIN_FILENO);
		dup2(fds[third == CONNECTED ? 2 : third], 3);
		snprintf(pid, sizeof(pid), "%d", (int)(own_pid ? getpid() : getppid()));
		if (count != NULL) {
			setenv("LISTEN_PID", pid, 1);
			setenv("LISTEN_FDS", count, 1);
			setenv("LISTEN_FDNAMES", "streamd", 1);
		}
		result = !listener_inherit(&l, &error) ? -1 : l.fd != -1;
		if (strcmp(error.text, expected) != 0)
			_exit(99);
		if (result >= 0 && (getenv("LISTEN_PID") != NULL || getenv("LISTEN_FDS") != NULL ||
		    getenv("LISTEN_FDNAMES") != NULL))
			_exit(98);
		if (result == 1) {
			if (l.fd != expected_fd || !l.inherited || l.path != NULL ||
			    (fcntl(l.fd, F_GETFL) & O_NONBLOCK) == 0 ||
			    fcntl(l.fd, F_GETFD) != FD_CLOEXEC)
				_exit(97);
			/* It is not removed when it is closed. */
			listener_close(&l);
			if (!exists(path))
				_exit(96);
		}
		_exit(result == -1 ? 2 : result);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	ck_assert_msg(WEXITSTATUS(status) < 90, "%d", WEXITSTATUS(status));
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(pair[1]);
	return WEXITSTATUS(status) == 2 ? -1 : WEXITSTATUS(status);
}

/* No socket was passed. */
START_TEST(nothing_inherited)
{
	ck_assert_int_eq(inherit(0, 0, true, NULL, -1, ""), 0);
	ck_assert_int_eq(inherit(CONNECTED, 1, true, NULL, -1, ""), 0);
	/* The variables are for another process. */
	ck_assert_int_eq(inherit(0, 1, false, "1", -1, ""), 0);
	ck_assert_int_eq(inherit(0, 1, false, "2", -1, ""), 0);
}
END_TEST

/* From systemd: descriptor 3, preferred to descriptor 0. */
START_TEST(inherited_from_systemd)
{
	ck_assert_int_eq(inherit(0, 1, true, "1", 3, ""), 1);
	ck_assert_int_eq(inherit(1, 1, true, "1", 3, ""), 1);
}
END_TEST

/* From spawn-fcgi: descriptor 0. */
START_TEST(inherited_as_stdin)
{
	ck_assert_int_eq(inherit(1, 0, true, NULL, 0, ""), 1);
	ck_assert_int_eq(inherit(1, 1, false, "1", 0, ""), 1);
}
END_TEST

/* More than one socket, or one that does not listen, is an error. */
START_TEST(inherited_unusable)
{
	ck_assert_int_eq(inherit(0, 1, true, "2", 3,
	    "LISTEN_FDS=2: must be 1, one listening socket"), -1);
	ck_assert_int_eq(inherit(0, 1, true, "0", 3,
	    "LISTEN_FDS=0: must be 1, one listening socket"), -1);
	ck_assert_int_eq(inherit(0, 1, true, "x", 3,
	    "LISTEN_FDS=x: must be 1, one listening socket"), -1);
	ck_assert_int_eq(inherit(0, 0, true, "1", 3,
	    "LISTEN_FDS=1: descriptor 3 must be a listening stream socket"), -1);
	ck_assert_int_eq(inherit(1, CONNECTED, true, "1", 3,
	    "LISTEN_FDS=1: descriptor 3 must be a listening stream socket"), -1);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("listener");
	TCase *tc = tcase_create("listener");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, addresses);
	tcase_add_test(tc, not_addresses);
	tcase_add_test(tc, too_long);
	tcase_add_test(tc, unix_socket);
	tcase_add_test(tc, mode_and_group);
	tcase_add_test(tc, longest_path);
	tcase_add_test(tc, stale);
	tcase_add_test(tc, live);
	tcase_add_test(tc, not_connectable);
	tcase_add_test(tc, simultaneous_starts);
	tcase_add_test(tc, stale_lock);
	tcase_add_test(tc, lock_held);
	tcase_add_test(tc, lock_of_a_removed_file);
	tcase_add_test(tc, lock_is_a_link);
	tcase_add_test(tc, not_a_socket);
	tcase_add_test(tc, no_directory);
	tcase_add_test(tc, replaced_by_another);
	tcase_add_test(tc, failure_leaves_nothing);
	tcase_add_test(tc, tcp_v4);
	tcase_add_test(tc, tcp_v6);
	tcase_add_test(tc, tcp_address_of_another_machine);
	tcase_add_test(tc, exposed);
	tcase_add_test(tc, nothing_inherited);
	tcase_add_test(tc, inherited_from_systemd);
	tcase_add_test(tc, inherited_as_stdin);
	tcase_add_test(tc, inherited_unusable);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
