/* SPDX-License-Identifier: ISC */
/*
 * check_sandbox: what the daemon needs still works in the sandbox, and what it never does is
 * denied. Each test enters the sandbox in its own process. Tests of a restriction pass without
 * it where the kernel or the build lacks it.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/sandbox.h"

/* in/access is in the settings; so is in/link, which leads to target/ca; nothing of out is. */
static char top[] = "/tmp/check_sandbox.XXXXXX";
static char text[4096]; /* what sandbox_enter() has logged */
static struct listener listener;

static const char *
path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	return path;
}

static void
write_file(const char *name)
{
	int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ne(fd, -1);
	ck_assert_int_eq(write(fd, "x", 1), 1);
	close(fd);
}

static void
set_up(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char target[128];

	ck_assert_ptr_nonnull(mkdtemp(top));
	ck_assert_int_eq(mkdir(path_of("in"), 0700), 0);
	ck_assert_int_eq(mkdir(path_of("out"), 0700), 0);
	ck_assert_int_eq(mkdir(path_of("run"), 0700), 0);
	ck_assert_int_eq(mkdir(path_of("target"), 0700), 0);
	write_file("target/ca");
	ck_assert_int_eq(symlink("../target/ca", path_of("in/link")), 0);
	write_file("in/access");
	write_file("out/file");
	ck_assert_int_eq(mkdir(path_of("etc"), 0700), 0);
	ck_assert_int_eq(mkdir(path_of("wsl"), 0700), 0);
	write_file("wsl/resolv.conf");
	strcpy(target, path_of("wsl/resolv.conf"));
	ck_assert_int_eq(symlink(target, path_of("etc/resolv.conf")), 0);
	listener.path = strdup(path_of("run/socket"));
	strcpy(address.sun_path, listener.path);
	listener.fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(listener.fd, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(listener.fd, 1), 0);
}

static void
tear_down(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", top);
	ck_assert_int_eq(system(command), 0);
}

/* Enters it in a child, which the caller has forked. Its log line becomes text. */
static void
enter(int use)
{
	char file[128], link[128];
	struct settings s = { .access_file = file, .app_ca = link, .sandbox = use,
		.valkey_tls_ca = (char[]){ "" }, .valkey_tls_cert = (char[]){ "" },
		.valkey_tls_key = (char[]){ "" } };
	int log[2];
	ssize_t n;

	strcpy(file, path_of("in/access"));
	strcpy(link, path_of("in/link"));
	ck_assert_int_eq(pipe(log), 0);
	dup2(log[1], STDERR_FILENO);
	sandbox_enter(&s, &listener);
	n = read(log[0], text, sizeof(text) - 1);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
}

static bool
has(const char *what)
{
	return strstr(text, what) != NULL;
}

#define FILES "\"files\":\"restricted\""
#define CALLS "\"systemCalls\":\"restricted\""

/* Runs a test in a child: the sandbox cannot be left. */
static void
in_child(void (*test)(void))
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		test();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "line %d, status %x",
	    WIFEXITED(status) ? WEXITSTATUS(status) + 100 : 0, (unsigned)status);
}

/* Exits with the line number as the status: Check's own assertions work in the parent only. */
#define REQUIRE(condition)                                                                        \
	do {                                                                                      \
		if (!(condition))                                                                 \
			_exit(__LINE__ - 100);                                                    \
	} while (0)

static bool
can_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd == -1)
		return false;
	close(fd);
	return true;
}

static void
check_files(void)
{
	enter(SANDBOX_ON);
	if (!has(FILES))
		return;
	REQUIRE(can_read(path_of("in/access")) && can_read("/etc/passwd") && can_read("/dev/null"));
	REQUIRE(can_read(path_of("in/link")));
	REQUIRE(!can_read(path_of("out/file")) && errno == EACCES);
	REQUIRE(open(path_of("in/access"), O_WRONLY) == -1 && errno == EACCES);
	REQUIRE(open(path_of("in/new"), O_WRONLY | O_CREAT, 0600) == -1 && errno == EACCES);
	REQUIRE(open(path_of("run/new"), O_WRONLY | O_CREAT, 0600) == -1 && errno == EACCES);
	REQUIRE(unlink(path_of("out/file")) == -1 && errno == EACCES);
	REQUIRE(unlink(listener.path) == 0);
}

/* Directories listed in an environment variable are readable; their neighbours are not. */
static void
check_list(void)
{
	char list[512];

	REQUIRE(mkdir(path_of("out/a"), 0700) == 0 && mkdir(path_of("out/b"), 0700) == 0);
	write_file("out/a/file");
	write_file("out/b/file");
	snprintf(list, sizeof(list), "%s/out/a:/nonexistent:%s/out/b", top, top);
	setenv("SSL_CERT_DIR", list, 1);
	enter(SANDBOX_ON);
	REQUIRE(can_read(path_of("out/a/file")) && can_read(path_of("out/b/file")));
	REQUIRE(!has(FILES) || (!can_read(path_of("out/file")) && errno == EACCES));
}

/* A file of the settings may be replaced by another process, and is then read again. */
static void
check_replaced(void)
{
	int go[2], done[2];
	char byte;

	REQUIRE(pipe(go) == 0 && pipe(done) == 0);
	if (fork() == 0) {
		char other[128];

		if (read(go[0], &byte, 1) != 1)
			_exit(1);
		write_file("in/other");
		strcpy(other, path_of("in/other"));
		_exit(rename(other, path_of("in/access")) == 0 && write(done[1], "", 1) == 1 ? 0 : 1);
	}
	close(done[1]);
	enter(SANDBOX_ON);
	REQUIRE(write(go[1], "", 1) == 1 && read(done[0], &byte, 1) == 1);
	REQUIRE(can_read(path_of("in/access")));
}

/* The resolver's configuration may be a link to anywhere. Only for who may mount. */
static void
check_resolver(void)
{
	if (unshare(CLONE_NEWNS) == -1 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1 ||
	    mount(path_of("etc"), "/etc", NULL, MS_BIND, NULL) == -1)
		return;
	enter(SANDBOX_ON);
	REQUIRE(can_read("/etc/resolv.conf"));
}

static void *
nothing(void *arg)
{
	return arg;
}

static void
check_calls(void)
{
	char *const argv[] = { (char[]){ "true" }, NULL };
	pthread_t thread;

	enter(SANDBOX_ON);
	/* Landlock alone denies it, too. */
	REQUIRE(!has(CALLS) || (execv("/bin/true", argv) == -1 && errno == EPERM));
	REQUIRE(!has(FILES) || (execv("/bin/true", argv) == -1 && (errno == EPERM || errno == EACCES)));
	REQUIRE(pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0);
	if (!has(CALLS))
		return;
	REQUIRE(fork() == -1 && errno == EPERM);
	REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1 && errno == EPERM);
	REQUIRE(kill(getppid(), 0) == -1 && errno == EPERM);
	REQUIRE(fchmod(listener.fd, 0777) == -1 && errno == EPERM);
	REQUIRE(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
	    0) == MAP_FAILED && errno == EPERM);
}

/* Names are resolved, which loads modules and reads files, and Unix sockets are connected to. */
static void
check_network(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct addrinfo *all;
	int fd;

	enter(SANDBOX_ON);
	REQUIRE(getaddrinfo("localhost", "80", NULL, &all) == 0);
	freeaddrinfo(all);
	strcpy(address.sun_path, listener.path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	REQUIRE(fd != -1 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
}

static void
check_off(void)
{
	enter(SANDBOX_OFF);
	REQUIRE(has("\"files\":\"not restricted\",\"systemCalls\":\"not restricted\","));
	REQUIRE(can_read(path_of("out/file")));
	REQUIRE(kill(getppid(), 0) == 0);
}

START_TEST(sandboxed)
{
	static void (*const tests[])(void) = { check_files, check_list, check_replaced,
		check_resolver, check_calls, check_network, check_off };

	in_child(tests[_i]);
}
END_TEST

/* This build restricts what it can: only then do the other tests show anything. */
static void
check_complete(void)
{
	enter(SANDBOX_ON);
#if defined(HAVE_SECCOMP) && !defined(TPI_SANITIZED)
	REQUIRE(has(CALLS));
#endif
}

START_TEST(complete)
{
	in_child(check_complete);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("sandbox");
	TCase *cases = tcase_create("sandbox");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(cases, set_up, tear_down);
	tcase_add_loop_test(cases, sandboxed, 0, 7);
	tcase_add_test(cases, complete);
	suite_add_tcase(suite, cases);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
