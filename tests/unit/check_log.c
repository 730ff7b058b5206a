/* SPDX-License-Identifier: ISC */
/*
 * check_log: log lines are complete, valid and cannot be forged, and writing them never blocks.
 *
 * Each test runs in its own process and reads the output through a pipe. If a test hangs, Check's
 * time limit ends it, and it fails.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "fake_clock.h"

#define THREADS 4
#define LINES_EACH 200

static int reader = -1; /* read end of the pipe that replaced the descriptor given to capture() */

static void
capture(int fd)
{
	int ends[2];

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	ck_assert_int_eq(dup2(ends[1], fd), fd);
	close(ends[1]);
	ck_assert_int_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	reader = ends[0];
}

/* Reads the output since the last call, at most size - 1 bytes, and terminates it. */
static char *
captured(char *buffer, size_t size)
{
	size_t used = 0;
	ssize_t n;

	while (used < size - 1 && (n = read(reader, buffer + used, size - 1 - used)) > 0)
		used += (size_t)n;
	buffer[used] = '\0';
	return buffer;
}

/* Returns the output since the last call, which is expected to be one line. */
static const char *
line(void)
{
	static char buffer[2 * LOG_LINE_MAX];

	return captured(buffer, sizeof(buffer));
}

/* Checks the format of any line. Returns the line's JSON object, or NULL if it has none. */
static struct json_object *
object(const char *text)
{
	struct json_tokener *tokener = json_tokener_new_ex(8);
	const char *brace = strchr(text, '{');
	struct json_object *result = NULL;
	size_t length = strlen(text);

	ck_assert_uint_gt(length, 0);
	ck_assert_uint_le(length, LOG_LINE_MAX);
	ck_assert_int_eq(text[length - 1], '\n');
	for (size_t i = 0; i < length - 1; i++) {
		if (text[i] < ' ' || text[i] > '~')
			ck_abort_msg("byte %d at %zu", text[i], i);
	}
	if (brace != NULL) {
		json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
		result = json_tokener_parse_ex(tokener, brace, (int)strlen(brace) - 1);
		ck_assert_msg(result != NULL, "not JSON: %s", brace);
		ck_assert_str_eq(brace + json_tokener_get_parse_end(tokener), "\n");
	}
	json_tokener_free(tokener);
	return result;
}

static const char *
string_of(struct json_object *o, const char *key)
{
	struct json_object *value;

	ck_assert_msg(json_object_object_get_ex(o, key, &value), "no key %s", key);
	return json_object_get_string(value);
}

/* A line reads "[tag] message {...}", with each kind of value in its JSON form. */
START_TEST(line_format)
{
	static const int32_t ids[] = { 7, 8, INT32_MAX };

	capture(STDERR_FILENO);
	LOG(LOG_LEVEL_WARN, "sse/issues", "subscribe failed", LOG_STR("tenantId", "default"),
	    LOG_STR("error", NULL), LOG_INT("n", INT64_MIN), LOG_LIST("projectIds", ids, 3),
	    LOG_LIST("none", NULL, 0));
	ck_assert_str_eq(line(),
	    "[sse/issues] subscribe failed {\"tenantId\":\"default\",\"error\":null,"
	    "\"n\":-9223372036854775808,\"projectIds\":[7,8,2147483647],\"none\":[]}\n");
}
END_TEST

/* Without fields a line has no object. */
START_TEST(line_without_fields)
{
	capture(STDERR_FILENO);
	log_write(LOG_LEVEL_INFO, "tpi-streamd", "ready", NULL);
	ck_assert_str_eq(line(), "[tpi-streamd] ready\n");
}
END_TEST

/* Lines above the level are not written; the level is info until it is set. */
START_TEST(levels)
{
	static const char *const expected[] = { "[t] 0\n", "[t] 0\n[t] 1\n",
		"[t] 0\n[t] 1\n[t] 2\n", "[t] 0\n[t] 1\n[t] 2\n[t] 3\n" };

	capture(STDERR_FILENO);
	ck_assert(log_enabled(LOG_LEVEL_INFO));
	ck_assert(!log_enabled(LOG_LEVEL_DEBUG));
	for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
		log_set_level((enum log_level)level);
		log_write(LOG_LEVEL_ERROR, "t", "0", NULL);
		log_write(LOG_LEVEL_WARN, "t", "1", NULL);
		log_write(LOG_LEVEL_INFO, "t", "2", NULL);
		log_write(LOG_LEVEL_DEBUG, "t", "3", NULL);
		ck_assert_str_eq(line(), expected[level]);
	}
}
END_TEST

/* Each of the 255 possible bytes of a value is written as printable ASCII, as one character. */
START_TEST(values_are_escaped)
{
	char all[256], *p;
	const char *decoded;
	struct json_object *o;

	for (int i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	capture(STDERR_FILENO);
	LOG(LOG_LEVEL_ERROR, "t", "m", LOG_STR("v", all));
	p = strdup(line());
	ck_assert_ptr_nonnull(strstr(p, "{\"v\":\"\\u0001\\u0002"));
	ck_assert_ptr_nonnull(strstr(p, "\\u001f !\\\"#$%&"));
	ck_assert_ptr_nonnull(strstr(p, "[\\\\]"));
	ck_assert_ptr_nonnull(strstr(p, "}~\\u007f\\u0080"));
	ck_assert_ptr_nonnull(strstr(p, "\\u00fe\\u00ff\"}\n"));
	o = object(p);
	decoded = string_of(o, "v");
	for (int c = 1; c < 0x80; c++)
		ck_assert_int_eq(decoded[c - 1], c);
	ck_assert_uint_eq(strlen(decoded), 0x7f + 2 * 0x80); /* UTF-8 from 0x80 on */
	json_object_put(o);
	free(p);
}
END_TEST

/* Neither the tag nor the message can forge a line or a terminal escape sequence. */
START_TEST(tag_and_message_are_harmless)
{
	capture(STDERR_FILENO);
	log_write(LOG_LEVEL_ERROR, "a\nb", "say \"hi\"\r\n[c] \033[2J\xc2\x9b", NULL);
	ck_assert_str_eq(line(),
	    "[a\\u000ab] say \"hi\"\\u000d\\u000a[c] \\u001b[2J\\u00c2\\u009b\n");
}
END_TEST

/* Strings that exceed the limit are truncated, but not inside an escape; later fields remain. */
START_TEST(long_strings_are_cut)
{
	static char text[LOG_LINE_MAX + 8];
	static const char bytes[] = { 'x', '"', '\\', '\001' };

	capture(STDERR_FILENO);
	for (size_t b = 0; b < sizeof(bytes); b++) {
		/* Lengths around those at which escapes of 6, 2 and 1 bytes no longer fit. */
		for (size_t n = 600; n < LOG_LINE_MAX + 8; n += n % 1000 == 100 ? 900 : 1) {
			struct json_object *o;

			memset(text, bytes[b], n);
			text[0] = 'x';
			text[n] = '\0';
			LOG(LOG_LEVEL_ERROR, "t", "m", LOG_STR("a", text), LOG_INT("n", -1),
			    LOG_STR("b", "end"));
			o = object(line());
			ck_assert_int_eq(strncmp(string_of(o, "a"), text,
			    strlen(string_of(o, "a"))), 0);
			ck_assert_str_eq(string_of(o, "n"), "-1");
			string_of(o, "b");
			json_object_put(o);
		}
	}
}
END_TEST

/* A line that fits exactly is not truncated; with one byte more, it is as long as possible. */
START_TEST(exact_fit)
{
	static char text[LOG_LINE_MAX];
	const size_t frame = strlen("[t] m {\"a\":\"\"}\n");
	struct json_object *o;

	capture(STDERR_FILENO);
	memset(text, 'x', LOG_LINE_MAX - frame);
	LOG(LOG_LEVEL_ERROR, "t", "m", LOG_STR("a", text));
	o = object(line());
	ck_assert_str_eq(string_of(o, "a"), text);
	json_object_put(o);

	text[LOG_LINE_MAX - frame] = 'x';
	LOG(LOG_LEVEL_ERROR, "t", "m", LOG_STR("a", text));
	o = object(line());
	ck_assert_uint_eq(strlen(string_of(o, "a")), LOG_LINE_MAX - frame);
	json_object_put(o);
}
END_TEST

/* A long list is truncated between two numbers. */
START_TEST(long_lists_are_cut)
{
	static int32_t ids[1000];
	struct json_object *o, *list;
	size_t n;

	for (int i = 0; i < 1000; i++)
		ids[i] = INT32_MAX - i;
	capture(STDERR_FILENO);
	LOG(LOG_LEVEL_ERROR, "t", "m", LOG_LIST("projectIds", ids, 1000), LOG_STR("error", "e"));
	o = object(line());
	ck_assert(json_object_object_get_ex(o, "projectIds", &list));
	n = json_object_array_length(list);
	ck_assert_uint_gt(n, 360);
	ck_assert_uint_lt(n, 372);
	for (size_t i = 0; i < n; i++)
		ck_assert_int_eq(json_object_get_int(json_object_array_get_idx(list, i)), ids[i]);
	string_of(o, "error");
	json_object_put(o);
}
END_TEST

/* A tag or message longer than a line is truncated; the line is valid and has all its keys. */
START_TEST(long_messages_are_cut)
{
	static char text[3 * LOG_LINE_MAX];
	struct json_object *o;

	memset(text, 'm', sizeof(text) - 1);
	capture(STDERR_FILENO);
	log_write(LOG_LEVEL_ERROR, "t", text, NULL);
	ck_assert_ptr_null(object(line()));
	LOG(LOG_LEVEL_ERROR, text, text, LOG_STR("a", text), LOG_INT("n", INT64_MIN));
	o = object(line());
	ck_assert_str_eq(string_of(o, "n"), "-9223372036854775808");
	json_object_put(o);
}
END_TEST

/* If the keys do not fit in a line, the last ones are omitted. */
START_TEST(long_keys)
{
	static char key[LOG_LINE_MAX / 2];
	struct json_object *o;

	memset(key, 'k', sizeof(key) - 1);
	capture(STDERR_FILENO);
	LOG(LOG_LEVEL_ERROR, "t", "m", LOG_STR("a", "1"), LOG_STR(key, "2"), LOG_STR(key, "3"));
	o = object(line());
	ck_assert_str_eq(string_of(o, "a"), "1");
	json_object_put(o);
}
END_TEST

/* A metric is one JSON object on standard output, regardless of the log level. */
START_TEST(metric)
{
	capture(STDOUT_FILENO);
	log_set_level(LOG_LEVEL_ERROR);
	log_metric((const struct log_field[]){ LOG_STR("metric", "sse.connections.active"),
	    LOG_STR("tenantId", "default"), LOG_INT("count", 3), LOG_STR("podId", "h"), LOG_END });
	ck_assert_str_eq(line(), "{\"metric\":\"sse.connections.active\","
	    "\"tenantId\":\"default\",\"count\":3,\"podId\":\"h\"}\n");
}
END_TEST

/* A full pipe does not block the caller: whole lines are dropped until the pipe is read. */
START_TEST(full_pipe_drops)
{
	char *all = malloc(1 << 20);
	size_t lines = 0, length;

	capture(STDERR_FILENO);
	for (int i = 0; i < 20000; i++)
		LOG(LOG_LEVEL_ERROR, "t", "m", LOG_STR("a", "0123456789"));
	captured(all, 1 << 20);
	length = strlen("[t] m {\"a\":\"0123456789\"}\n");
	for (const char *p = all; *p != '\0'; p += length, lines++)
		ck_assert_int_eq(strncmp(p, "[t] m {\"a\":\"0123456789\"}\n", length), 0);
	ck_assert_uint_gt(lines, 1000);
	ck_assert_uint_lt(lines, 20000);
	log_write(LOG_LEVEL_ERROR, "t", "again", NULL);
	ck_assert_str_eq(line(), "[t] again\n");
	free(all);
}
END_TEST

/* Without a reader, a descriptor or space on the device, the line is lost, and errno is kept. */
START_TEST(no_reader_is_harmless)
{
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	signal(SIGPIPE, SIG_DFL);
	capture(STDERR_FILENO);
	close(reader);
	log_write(LOG_LEVEL_ERROR, "t", "m", NULL);
	close(STDERR_FILENO);
	close(STDOUT_FILENO);
	log_write(LOG_LEVEL_ERROR, "t", "m", NULL);
	log_metric((const struct log_field[]){ LOG_INT("n", 1), LOG_END });
	ck_assert_int_eq(dup2(full, STDERR_FILENO), STDERR_FILENO);
	errno = ENOENT;
	log_write(LOG_LEVEL_ERROR, "t", "m", NULL);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

/* Lines have an sd-daemon(3) priority if, and only if, JOURNAL_STREAM names standard error. */
START_TEST(journal)
{
	struct stat st;
	char stream[64];

	capture(STDERR_FILENO);
	ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_set_level(LOG_LEVEL_DEBUG);
	log_write(LOG_LEVEL_ERROR, "t", "m", NULL);
	log_write(LOG_LEVEL_WARN, "t", "m", NULL);
	log_write(LOG_LEVEL_INFO, "t", "m", NULL);
	log_write(LOG_LEVEL_DEBUG, "t", "m", NULL);
	ck_assert_str_eq(line(), "<3>[t] m\n<4>[t] m\n<6>[t] m\n<7>[t] m\n");

	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino + 1);
	setenv("JOURNAL_STREAM", stream, 1);
	log_set_level(LOG_LEVEL_DEBUG);
	log_write(LOG_LEVEL_ERROR, "t", "m", NULL);
	ck_assert_str_eq(line(), "[t] m\n");
}
END_TEST

static int64_t now;

static int64_t
moved_clock(void)
{
	return now;
}

/* A log_limit allows one line per interval and counts those that it refused. */
START_TEST(limit)
{
	struct log_limit app_client = { 0 };
	uint32_t suppressed = 99;

	clock_set_source(moved_clock);
	now = 5000;
	ck_assert(log_allowed(&app_client, 1000, &suppressed));
	ck_assert_uint_eq(suppressed, 0);
	suppressed = 99;
	ck_assert(!log_allowed(&app_client, 1000, &suppressed));
	now = 5999;
	ck_assert(!log_allowed(&app_client, 1000, &suppressed));
	ck_assert_uint_eq(suppressed, 99);
	now = 6000;
	ck_assert(log_allowed(&app_client, 1000, &suppressed));
	ck_assert_uint_eq(suppressed, 2);
	ck_assert(!log_allowed(&app_client, 1000, NULL));
	now = 10000;
	ck_assert(log_allowed(&app_client, 1000, NULL));
	ck_assert(!log_allowed(&app_client, 1000, NULL));
	now = 11000;
	ck_assert(log_allowed(&app_client, 1000, &suppressed));
	ck_assert_uint_eq(suppressed, 1);
}
END_TEST

/* With more lines per interval, those after them are counted. */
START_TEST(limit_of_some)
{
	struct log_limit some = { 0 };
	uint32_t suppressed;

	clock_set_source(moved_clock);
	for (now = 5000; now < 8000; now += 1000) {
		for (int i = 0; i < 10; i++) {
			suppressed = 99;
			ck_assert_int_eq(log_allowed_some(&some, 3, 1000, &suppressed), i < 3);
			ck_assert_uint_eq(suppressed, i >= 3 ? 99 : i == 0 && now > 5000 ? 7 : 0);
		}
	}
}
END_TEST

static struct log_limit shared_gate;
static _Atomic int app_client_opened;

static void *
write_lines(void *arg)
{
	for (int i = 0; i < LINES_EACH; i++) {
		LOG(LOG_LEVEL_ERROR, "t", "m", LOG_STR("who", arg), LOG_INT("n", i));
		if (log_allowed(&shared_gate, 1000, NULL))
			app_client_opened++;
	}
	return NULL;
}

/* Lines of several threads do not mix and stay in order; a log_limit allows one thread only. */
START_TEST(threads)
{
	static char names[THREADS][2] = { "0", "1", "2", "3" };
	static char all[1 << 17];
	pthread_t thread[THREADS];
	int next[THREADS] = { 0 };
	char *p, *rest = all;

	clock_set_source(moved_clock);
	now = 1;
	capture(STDERR_FILENO);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, write_lines, names[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	captured(all, sizeof(all));
	while ((p = strsep(&rest, "\n")) != NULL && *p != '\0') {
		char expected[64];
		int who = p[strlen("[t] m {\"who\":\"")] - '0';

		ck_assert(who >= 0 && who < THREADS);
		snprintf(expected, sizeof(expected), "[t] m {\"who\":\"%d\",\"n\":%d}", who,
		    next[who]++);
		ck_assert_str_eq(p, expected);
	}
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(next[i], LINES_EACH);
	ck_assert_int_eq(app_client_opened, 1);
	ck_assert_uint_eq(shared_gate.suppressed, THREADS * LINES_EACH - 1);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("log");
	TCase *tc = tcase_create("log");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, line_format);
	tcase_add_test(tc, line_without_fields);
	tcase_add_test(tc, levels);
	tcase_add_test(tc, values_are_escaped);
	tcase_add_test(tc, tag_and_message_are_harmless);
	tcase_add_test(tc, long_strings_are_cut);
	tcase_add_test(tc, exact_fit);
	tcase_add_test(tc, long_lists_are_cut);
	tcase_add_test(tc, long_messages_are_cut);
	tcase_add_test(tc, long_keys);
	tcase_add_test(tc, metric);
	tcase_add_test(tc, full_pipe_drops);
	tcase_add_test(tc, no_reader_is_harmless);
	tcase_add_test(tc, journal);
	tcase_add_test(tc, limit);
	tcase_add_test(tc, limit_of_some);
	tcase_add_test(tc, threads);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
