/* SPDX-License-Identifier: ISC */
/*
 * check_access: the rules of an access file, and when the file is reloaded.
 *
 * The program is linked with --wrap, so that a test can make reading the file hang, as it does on an
 * unreachable file server. close() is what hangs: the other calls have different names on different
 * systems.
 */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/access.h"
#include "base/clock.h"
#include "wire/channel_name.h"

#define PROJECT "a rule begins with a project id from 1 to 2147483647 or *"
#define USER    "a user is * or " CHANNEL_ID_ALLOWED
#define NO_USER "a rule names at least one user or *"

#define CUT     "no line break at the end: the file may be half written"

/* Parses from a block of exactly this size, so that a sanitizer finds reads beyond it. */
static struct access_rules *
parse_bytes(const char *text, size_t length, struct error *error)
{
	char *copy = malloc(length > 0 ? length : 1);
	struct access_rules *rules;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, text, length);
	rules = access_rules_parse(copy, length, error);
	free(copy);
	return rules;
}

/* Parses a text, with a line break added at its end. */
static struct access_rules *
parse(const char *text)
{
	struct error error = { "" };
	char *line;
	struct access_rules *rules;
	int length = asprintf(&line, "%s\n", text);

	ck_assert_int_gt(length, 0);
	rules = parse_bytes(line, (size_t)length, &error);
	free(line);

	ck_assert_msg(rules != NULL, "%s: %s", text, error.text);
	return rules;
}

/* Whether these rules allow a user to read a project. */
static bool
allows(const char *text, int32_t project, const char *user)
{
	struct access_rules *rules = parse(text);
	bool yes = access_rules_allow(rules, project, user) != 0;

	access_rules_free(rules);
	return yes;
}

static void
expect_error_bytes(const char *text, size_t length, int line, const char *reason)
{
	struct error error = { "" };
	char expected[ERROR_SIZE];

	snprintf(expected, sizeof(expected), "line %d: %s", line, reason);
	ck_assert_ptr_null(parse_bytes(text, length, &error));
	ck_assert_msg(strcmp(error.text, expected) == 0, "%s: %s", text, error.text);
}

static void
expect_error(const char *text, int line, const char *reason)
{
	char lines[512];

	snprintf(lines, sizeof(lines), "%s\n", text);
	expect_error_bytes(lines, strlen(lines), line, reason);
}

/* A rule allows its users to read its project, and nothing else. */
START_TEST(rule)
{
	ck_assert(allows("7 u1", 7, "u1"));
	ck_assert(!allows("7 u1", 7, "u2"));
	ck_assert(!allows("7 u1", 7, "u"));
	ck_assert(!allows("7 u1", 7, "u11"));
	ck_assert(!allows("7 u1", 7, "U1"));
	ck_assert(!allows("7 u1", 8, "u1"));
	ck_assert(!allows("7 u1", 77, "u1"));
	ck_assert(!allows("17 u1", 7, "u1"));
	ck_assert(allows("7 u1 u2 u3", 7, "u1"));
	ck_assert(allows("7 u1 u2 u3", 7, "u3"));
	ck_assert(!allows("7 u1 u2 u3", 7, "u4"));
	ck_assert(allows("2147483647 u1", 2147483647, "u1"));
	/* A user id may be a number, which is not a project then. */
	ck_assert(allows("7 8", 7, "8"));
	ck_assert(!allows("7 8", 8, "7"));
	ck_assert(!allows("7 8 9", 8, "9"));
}
END_TEST

/* '*' stands for every project and for every user. */
START_TEST(stars)
{
	ck_assert(allows("* u1", 7, "u1"));
	ck_assert(allows("* u1", 1, "u1"));
	ck_assert(!allows("* u1", 7, "u2"));
	ck_assert(allows("7 *", 7, "u1"));
	ck_assert(allows("7 *", 7, "anybody"));
	ck_assert(!allows("7 *", 8, "u1"));
	ck_assert(allows("* *", 7, "u1"));
	ck_assert(allows("7 u1 *", 7, "u2"));
	ck_assert(allows("* u2 u1", 9, "u1"));
}
END_TEST

/* All lines apply together, in any order; a repeated one changes nothing. */
START_TEST(lines_add_up)
{
	static const char text[] = "7 u1\n8 u2\n7 u3\n7 u1 u1\n9 *\n* root\n7 u1\n";

	ck_assert(allows(text, 7, "u1"));
	ck_assert(allows(text, 7, "u3"));
	ck_assert(!allows(text, 7, "u2"));
	ck_assert(allows(text, 8, "u2"));
	ck_assert(!allows(text, 8, "u1"));
	ck_assert(allows(text, 9, "u9"));
	ck_assert(allows(text, 123, "root"));
	ck_assert(!allows(text, 123, "u1"));
}
END_TEST

/* A file without rules allows nothing. */
START_TEST(empty)
{
	static const char *const texts[] = { "", "\n", "\n\n\n", " \t\r\n", "#", "# x\n", "#\n#",
		" # 7 u1" };
	struct error error;
	struct access_rules *rules = parse_bytes("", 0, &error);

	ck_assert_ptr_nonnull(rules);
	access_rules_free(rules);

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		ck_assert_msg(!allows(texts[i], 7, "u1"), "%s", texts[i]);
}
END_TEST

/* A comment begins anywhere, also within a word, and ends with its line. */
START_TEST(comments)
{
	ck_assert(allows("# all\n7 u1 # u2\n", 7, "u1"));
	ck_assert(!allows("# all\n7 u1 # u2\n", 7, "u2"));
	ck_assert(allows("7 u1#u2", 7, "u1"));
	ck_assert(!allows("7 u1#u2", 7, "u1#u2"));
	ck_assert(allows("#7 u1\n8 u1", 8, "u1"));
	ck_assert(!allows("#7 u1\n8 u1", 7, "u1"));
	ck_assert(!allows("#*#* *", 7, "u1"));
	expect_error("7#8 u1", 1, NO_USER);
}
END_TEST

/* Any number of spaces and tabs separates words; lines end with LF or CR LF. */
START_TEST(white_space)
{
	ck_assert(allows("  7 \t u1\t\tu2  ", 7, "u2"));
	ck_assert(allows("\t7\tu1\t\n", 7, "u1"));
	ck_assert(allows("7 u1\r\n8 u2\r\n", 7, "u1"));
	ck_assert(allows("7 u1\r\n8 u2\r\n", 8, "u2"));
	ck_assert(allows("\r\n# x\r\n7 u1 # x\r\n", 7, "u1"));
	ck_assert(allows("7 u1\r\n8 u2\r", 8, "u2"));
}
END_TEST

/* An error names the line, counting empty lines and comments, and what is wrong in it. */
START_TEST(errors)
{
	char long_user[300] = "7 ";

	expect_error("x", 1, PROJECT);
	expect_error("0 u1", 1, PROJECT);
	expect_error("07 u1", 1, PROJECT);
	expect_error("-7 u1", 1, PROJECT);
	expect_error("+7 u1", 1, PROJECT);
	expect_error("2147483648 u1", 1, PROJECT);
	expect_error("7,8 u1", 1, PROJECT);
	expect_error("** u1", 1, PROJECT);
	expect_error("u1 7", 1, PROJECT);
	expect_error("7", 1, NO_USER);
	expect_error("7 ", 1, NO_USER);
	expect_error("* # u1", 1, NO_USER);
	expect_error("7 a:b", 1, USER);
	expect_error("7 u*", 1, USER);
	expect_error("7 **", 1, USER);
	expect_error("7 u1 \"u2\"", 1, USER);
	expect_error("7 \303\244", 1, USER);
	expect_error("7 u1\v", 1, USER);
	memset(long_user + 2, 'u', 255);
	ck_assert(allows(long_user, 7, long_user + 2));
	memset(long_user + 2, 'u', 256);
	expect_error(long_user, 1, USER);

	expect_error("7 u1\n\n# x\r\n8\n", 4, NO_USER);
	expect_error("7 u1\n8 u2\nx u3\ny", 3, PROJECT);
	expect_error("\n\n\n\n7 u1\n7 u1:", 6, USER);
}
END_TEST

/* A NUL is neither white space nor the end of a line or of the file. */
START_TEST(nul)
{
	expect_error_bytes("7 u1\0\n", 6, 1, USER);
	expect_error_bytes("7\0 u1\n", 6, 1, PROJECT);
	expect_error_bytes("\0\n", 2, 1, PROJECT);
	expect_error_bytes("7 u1\n\0" "8 u2\n", 11, 2, PROJECT);
}
END_TEST

/* A last line without a line break is an error even if it is valid: its end may be missing. */
START_TEST(half_written)
{
	static const char *const texts[] = { "7 u1", "#", " ", "7 u1 # x", "7", "nonsense", "7 u1\r" };
	char text[64];

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		expect_error_bytes(texts[i], strlen(texts[i]), 1, CUT);
		snprintf(text, sizeof(text), "8 u1\n\n%s", texts[i]);
		expect_error_bytes(text, strlen(text), 3, CUT);
	}
	/* An error of a line before it comes first. */
	expect_error_bytes("x\n7 u1", 6, 1, PROJECT);
}
END_TEST

/* 20000 rules are applied correctly. */
START_TEST(many_rules)
{
	size_t used = 0, size = 20000 * 24;
	char *text = malloc(size), user[16];
	struct access_rules *rules;

	ck_assert_ptr_nonnull(text);
	for (int i = 1; i <= 20000; i++)
		used += (size_t)snprintf(text + used, size - used, "%d u%d\n", i, i);
	rules = parse(text);
	for (int i = 1; i <= 20000; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		ck_assert(access_rules_allow(rules, i, user));
		ck_assert(!access_rules_allow(rules, i + 1, user));
	}
	access_rules_free(rules);
	free(text);
}
END_TEST

/* ---- The file */

static char directory[] = "/tmp/check-access-XXXXXX";
static char path[64], other[64];
static int log_fd;

/* Each test has its own directory; the log goes to a file without a name. */
static void
setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/access", directory);
	snprintf(other, sizeof(other), "%s/other", directory);
	log_fd = open("/tmp", O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
	ck_assert_int_ge(log_fd, 0);
	ck_assert_int_eq(dup2(log_fd, STDERR_FILENO), STDERR_FILENO);
}

static void
teardown(void)
{
	unlink(path);
	unlink(other);
	rmdir(path);
	rmdir(directory);
}

static void
write_file(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
}

/* How often the log contains this. */
static int
logged(const char *what)
{
	static char text[65536];
	const char *at = text;
	ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);
	int count = 0;

	ck_assert_int_ge(n, 0);
	text[n] = '\0';
	while ((at = strstr(at, what)) != NULL) {
		count++;
		at++;
	}
	return count;
}

static struct access *
open_access(enum access_policy policy, const char *file)
{
	static struct settings s;
	struct error error = { "" };
	struct access *access;

	s.access = policy;
	s.access_file = file;
	access = access_open(&s, &error);
	ck_assert_msg(access != NULL, "%s", error.text);
	ck_assert(access_watch(access));
	return access;
}

/* Whether the current rules allow u1 to read a project. */
static bool
allowed(struct access *access, int32_t project)
{
	return access_filter(access, "u1", CHECK_PROJECTS, &project, 1) == 1;
}

/* The same after a reload, if the file has changed. */
static bool
refreshed(struct access *access, int32_t project)
{
	access_refresh(access);
	return allowed(access, project);
}

/* deny and app allow no project here, allow all of them, in the same order. */
START_TEST(without_a_file)
{
	int32_t projects[] = { 9, 7, 8 };
	struct access *access;

	access = open_access(ACCESS_DENY, NULL);
	ck_assert_int_eq(access_filter(access, "u1", CHECK_PROJECTS, projects, 3), 0);
	access_close(access);
	access = open_access(ACCESS_APP, NULL);
	ck_assert_int_eq(access_filter(access, "u1", CHECK_PROJECTS, projects, 3), 0);
	access_close(access);
	access = open_access(ACCESS_ALLOW, NULL);
	ck_assert_int_eq(access_filter(access, "u1", CHECK_PROJECTS, projects, 3), 3);
	ck_assert_int_eq(projects[0], 9);
	ck_assert_int_eq(projects[1], 7);
	ck_assert_int_eq(projects[2], 8);
	access_close(access);
}
END_TEST

/* A file decides about projects, not about test runs and milestones; deny and allow about all. */
START_TEST(other_ids)
{
	static const enum app_check checks[] = { CHECK_TEST_RUNS, CHECK_MILESTONES };
	int32_t id = 7;
	struct access *access;

	write_file(path, "* *\n");
	access = open_access(ACCESS_FILE, path);
	ck_assert_int_eq(access_filter(access, "u1", CHECK_PROJECTS, &id, 1), 1);
	ck_assert_int_eq(access_filter(access, "u1", CHECK_PRESENT_PROJECTS, &id, 1), 1);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(access_filter(access, "u1", checks[i], &id, 1), 0);
	access_close(access);
	access = open_access(ACCESS_DENY, NULL);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(access_filter(access, "u1", checks[i], &id, 1), 0);
	access_close(access);
	access = open_access(ACCESS_ALLOW, NULL);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(access_filter(access, "u1", checks[i], &id, 1), 1);
	access_close(access);
}
END_TEST

/* The filter keeps the projects that the user can read, in their order, and drops the others. */
START_TEST(filter)
{
	int32_t projects[] = { 9, 1, 7, 8, 3 };
	struct access *access;

	write_file(path, "3 u1\n7 u2\n8 u1\n9 u1 u2\n");
	access = open_access(ACCESS_FILE, path);
	ck_assert_int_eq(access_filter(access, "u1", CHECK_PROJECTS, projects, 5), 3);
	ck_assert_int_eq(projects[0], 9);
	ck_assert_int_eq(projects[1], 8);
	ck_assert_int_eq(projects[2], 3);
	ck_assert_int_eq(access_filter(access, "u2", CHECK_PROJECTS, projects, 3), 1);
	ck_assert_int_eq(projects[0], 9);
	ck_assert_int_eq(access_filter(access, "u3", CHECK_PROJECTS, projects, 1), 0);
	ck_assert_int_eq(access_filter(access, "u1", CHECK_PROJECTS, projects, 0), 0);
	access_close(access);
}
END_TEST

/* A rewritten file is reloaded, with a log line. */
START_TEST(rewritten)
{
	struct access *access;

	write_file(path, "7 u1\n");
	access = open_access(ACCESS_FILE, path);
	ck_assert(refreshed(access, 7));
	write_file(path, "8 u1 u2\n");
	ck_assert(!refreshed(access, 7));
	ck_assert(refreshed(access, 8));
	write_file(path, "");
	ck_assert(!refreshed(access, 8));
	ck_assert_int_eq(logged("access file reloaded"), 2);
	access_close(access);
}
END_TEST

/* A rewritten file of the same size and modification time is reloaded: its ctime differs. */
START_TEST(rewritten_with_same_size_and_time)
{
	const struct timespec times[2] = { { 1000000000, 0 }, { 1000000000, 0 } };
	struct access *access;

	write_file(path, "7 u1\n");
	ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
	access = open_access(ACCESS_FILE, path);
	ck_assert(refreshed(access, 7));
	usleep(20000); /* the resolution of ctime */
	write_file(path, "8 u1\n");
	ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
	ck_assert(!refreshed(access, 7));
	ck_assert(refreshed(access, 8));
	access_close(access);
}
END_TEST

/* A file that is renamed over the old one is loaded. */
START_TEST(renamed_over)
{
	struct access *access;

	write_file(path, "7 u1\n");
	write_file(other, "8 u1\n");
	access = open_access(ACCESS_FILE, path);
	ck_assert(refreshed(access, 7));
	ck_assert_int_eq(rename(other, path), 0);
	ck_assert(!refreshed(access, 7));
	ck_assert(refreshed(access, 8));
	access_close(access);
}
END_TEST

/* An unchanged file is not reloaded. */
START_TEST(unchanged)
{
	struct access *access;

	write_file(path, "7 u1\n");
	access = open_access(ACCESS_FILE, path);
	for (int i = 0; i < 100; i++)
		ck_assert(refreshed(access, 7));
	ck_assert_int_eq(logged("access"), 0);
	access_close(access);
}
END_TEST

/*
 * If the file is removed, the previous rules remain, with one warning; when there is a file again, it
 * is loaded, changed or not.
 */
START_TEST(removed)
{
	struct access *access;

	write_file(path, "7 u1\n");
	access = open_access(ACCESS_FILE, path);
	ck_assert_int_eq(rename(path, other), 0);
	for (int i = 0; i < 10; i++)
		ck_assert(refreshed(access, 7));
	ck_assert_int_eq(logged("cannot reload the access file; keeping the previous rules"), 1);
	ck_assert_int_eq(logged("No such file or directory"), 1);
	ck_assert_int_eq(rename(other, path), 0);
	ck_assert(refreshed(access, 7));
	ck_assert_int_eq(logged("access file reloaded"), 1);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert(refreshed(access, 7));
	ck_assert_int_eq(logged("cannot reload"), 2);
	write_file(path, "8 u1\n");
	ck_assert(!refreshed(access, 7));
	ck_assert(refreshed(access, 8));
	ck_assert_int_eq(logged("access file reloaded"), 2);
	access_close(access);
}
END_TEST

/* While the file is invalid, the previous rules remain, with one warning that names the line. */
START_TEST(reload_of_invalid_file)
{
	struct access *access;

	write_file(path, "7 u1\n");
	access = open_access(ACCESS_FILE, path);
	write_file(path, "8 u1\nnonsense\n");
	for (int i = 0; i < 10; i++) {
		ck_assert(refreshed(access, 7));
		ck_assert(!refreshed(access, 8));
	}
	ck_assert_int_eq(logged("cannot reload"), 1);
	ck_assert_int_eq(logged("line 2: " PROJECT), 1);
	write_file(path, "8 u1\n");
	ck_assert(refreshed(access, 8));
	ck_assert(!refreshed(access, 7));
	access_close(access);
}
END_TEST

/* While the file is half written, the previous rules remain, with one warning. */
START_TEST(reload_of_half_written_file)
{
	struct access *access;

	write_file(path, "7 u1\n");
	access = open_access(ACCESS_FILE, path);
	write_file(path, "7 u2\n8 u1");
	for (int i = 0; i < 10; i++)
		ck_assert(refreshed(access, 7) && !refreshed(access, 8));
	ck_assert_int_eq(logged("line 2: " CUT), 1);
	write_file(path, "7 u2\n8 u1\n");
	ck_assert(!refreshed(access, 7) && refreshed(access, 8));
	access_close(access);
}
END_TEST

/* A changed file is reloaded without access_refresh(). */
START_TEST(reloaded_automatically)
{
	int64_t deadline = clock_ms() + 20000;
	struct access *access;

	write_file(path, "7 u1\n");
	access = open_access(ACCESS_FILE, path);
	write_file(path, "8 u1\n");
	while (!allowed(access, 8)) {
		ck_assert_int_lt(clock_ms(), deadline);
		usleep(1000);
	}
	ck_assert(!allowed(access, 7));
	access_close(access);
}
END_TEST

int __real_close(int fd);
int __wrap_close(int fd);

static _Atomic bool hanging;
static sem_t hung, resume;

int
__wrap_close(int fd)
{
	if (hanging) {
		sem_post(&hung);
		sem_wait(&resume);
	}
	return __real_close(fd);
}

/*
 * While the file system hangs, access_filter() uses the previous rules at once, and access_refresh()
 * returns after a short wait.
 */
START_TEST(file_system_hangs)
{
	struct access *access;

	sem_init(&hung, 0, 0);
	sem_init(&resume, 0, 0);
	write_file(path, "7 u1\n");
	access = open_access(ACCESS_FILE, path);
	write_file(path, "8 u1\n");
	hanging = true;
	access_refresh(access);
	sem_wait(&hung);
	for (int i = 0; i < 1000; i++)
		ck_assert(allowed(access, 7) && !allowed(access, 8));
	access_refresh(access);
	ck_assert(allowed(access, 7));
	hanging = false;
	sem_post(&resume);
	ck_assert(!refreshed(access, 7) && refreshed(access, 8));
	access_close(access);
}
END_TEST

/* If a FIFO replaces the file, it is not opened, which could hang, and the previous rules remain. */
START_TEST(replaced_by_fifo)
{
	struct access *access;

	write_file(path, "7 u1\n");
	access = open_access(ACCESS_FILE, path);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	for (int i = 0; i < 10; i++)
		ck_assert(refreshed(access, 7));
	ck_assert_int_eq(logged("not a regular file"), 1);
	ck_assert_int_eq(logged("cannot reload"), 1);
	access_close(access);
}
END_TEST

/* Expects that access_open() refuses the file with an error that names setting, file and reason. */
static void
expect_refused(const char *file, const char *reason)
{
	struct settings s = { .access = ACCESS_FILE, .access_file = file };
	struct error error = { "" };
	char expected[ERROR_SIZE];

	ck_assert_ptr_null(access_open(&s, &error));
	snprintf(expected, sizeof(expected),
	    "TPI_PROJECT_ACCESS=file:%s: %s: must be a readable file of rules "
	    "\"<project id or *> <user or *> ...\"", file, reason);
	ck_assert_str_eq(error.text, expected);
}

/* At the start an unusable file is an error. */
START_TEST(unusable_at_start)
{
	expect_refused(path, "No such file or directory");
	expect_refused("/dev/null", "not a regular file");
	expect_refused(directory, "not a regular file");
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	expect_refused(path, "not a regular file");
	ck_assert_int_eq(unlink(path), 0);
	write_file(path, "7 u1\n8\n");
	expect_refused(path, "line 2: " NO_USER);
	write_file(path, "7 u1\n8 u1");
	expect_refused(path, "line 2: " CUT);
	ck_assert_int_eq(truncate(path, (64 << 20) + 1), 0);
	expect_refused(path, "larger than 64 MiB");
}
END_TEST

/* Sets the mode, as root if possible, then continues as another user, whom modes apply to. */
static void
set_mode(mode_t mode)
{
	if (getuid() == 0)
		ck_assert_int_eq(seteuid(0), 0);
	ck_assert_int_eq(chmod(path, mode), 0);
	if (getuid() == 0)
		ck_assert_int_eq(seteuid(65534), 0);
}

/*
 * A file without read permission is refused at the start; later the previous rules remain, with one
 * warning.
 */
START_TEST(unreadable)
{
	struct access *access;

	write_file(path, "7 u1\n");
	ck_assert_int_eq(chmod(directory, 0755), 0);
	set_mode(0);
	expect_refused(path, "Permission denied");
	set_mode(0444);
	access = open_access(ACCESS_FILE, path);
	set_mode(0);
	for (int i = 0; i < 10; i++)
		ck_assert(refreshed(access, 7));
	ck_assert_int_eq(logged("Permission denied"), 1);
	access_close(access);
	if (getuid() == 0)
		ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

struct reader {
	struct access *access;
	const _Atomic bool *stop;
	int checked;
};

/* Both sets of rules allow one of the two projects: both or none would be a mixture. */
static void *
read_rules(void *arg)
{
	struct reader *r = arg;

	while (!*r->stop) {
		int32_t projects[] = { 7, 8 };

		if (access_filter(r->access, "u1", CHECK_PROJECTS, projects, 2) != 1)
			return NULL;
		r->checked++;
	}
	return r;
}

/* Threads that use the rules during reloads see the old or the new ones, never a mixture. */
START_TEST(threads)
{
	_Atomic bool stop = false;
	struct reader readers[4];
	pthread_t ids[4];
	struct access *access;
	void *result;

	write_file(path, "7 u1\n");
	access = open_access(ACCESS_FILE, path);
	for (int i = 0; i < 4; i++) {
		readers[i] = (struct reader){ .access = access, .stop = &stop };
		ck_assert_int_eq(pthread_create(&ids[i], NULL, read_rules, &readers[i]), 0);
	}
	for (int i = 0; i < 200; i++) {
		write_file(other, i % 2 == 0 ? "8 u1\n" : "7 u1\n");
		ck_assert_int_eq(rename(other, path), 0);
		access_refresh(access);
	}
	stop = true;
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(pthread_join(ids[i], &result), 0);
		ck_assert_ptr_nonnull(result);
		ck_assert_int_gt(readers[i].checked, 0);
	}
	access_close(access);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("access");
	TCase *rules = tcase_create("rules"), *file = tcase_create("file");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(rules, 60);
	tcase_add_test(rules, rule);
	tcase_add_test(rules, stars);
	tcase_add_test(rules, lines_add_up);
	tcase_add_test(rules, empty);
	tcase_add_test(rules, comments);
	tcase_add_test(rules, white_space);
	tcase_add_test(rules, errors);
	tcase_add_test(rules, nul);
	tcase_add_test(rules, half_written);
	tcase_add_test(rules, many_rules);
	suite_add_tcase(s, rules);
	tcase_set_timeout(file, 60);
	tcase_add_checked_fixture(file, setup, teardown);
	tcase_add_test(file, without_a_file);
	tcase_add_test(file, filter);
	tcase_add_test(file, other_ids);
	tcase_add_test(file, rewritten);
	tcase_add_test(file, rewritten_with_same_size_and_time);
	tcase_add_test(file, renamed_over);
	tcase_add_test(file, unchanged);
	tcase_add_test(file, removed);
	tcase_add_test(file, reload_of_invalid_file);
	tcase_add_test(file, reload_of_half_written_file);
	tcase_add_test(file, reloaded_automatically);
	tcase_add_test(file, file_system_hangs);
	tcase_add_test(file, replaced_by_fifo);
	tcase_add_test(file, unusable_at_start);
	tcase_add_test(file, unreadable);
	tcase_add_test(file, threads);
	suite_add_tcase(s, file);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
