/* SPDX-License-Identifier: ISC */
/*
 * check_lines: lines are returned unchanged, however the input is split between reads.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "publish/lines.h"

#define FIRST_MAX 8 /* bytes of a line to compare */

struct seen {
	size_t length;
	char first[FIRST_MAX];
};

static int ends[2]; /* of a pipe: read from the first, write to the second */
static struct lines in;
static struct seen seen[100];
static size_t seen_count;

static void
make_pipe(void)
{
	ck_assert_int_eq(pipe(ends), 0);
	memset(&in, 0, sizeof(in));
	in.fd = ends[0];
	seen_count = 0;
}

static enum lines_next
take(void)
{
	enum lines_next next;
	const char *line;
	size_t length;

	while ((next = lines_next(&in, &line, &length)) == LINES_LINE) {
		struct seen *s = &seen[seen_count++];

		ck_assert_uint_eq(in.number, seen_count);
		ck_assert_uint_le(length, sizeof(in.bytes));
		s->length = length;
		memcpy(s->first, line, length < FIRST_MAX ? length : FIRST_MAX);
	}
	return next;
}

static void
send_bytes(const char *bytes, size_t length)
{
	int unread = 1;

	ck_assert_int_eq((int)write(ends[1], bytes, length), (int)length);
	while (unread > 0) {
		ck_assert_int_eq(lines_read(&in), 0);
		ck_assert_int_eq(take(), LINES_MORE);
		ck_assert_int_eq(ioctl(ends[0], FIONREAD, &unread), 0);
	}
}

static void
send_end(void)
{
	close(ends[1]);
	ck_assert_int_eq(lines_read(&in), 0);
	ck_assert_int_eq(take(), LINES_END);
	ck_assert_int_eq(take(), LINES_END);
}

/*
 * Writes the text in pieces, of which the first has its own size, and compares the lines returned.
 */
static void
check(const char *text, size_t length, size_t first, size_t piece)
{
	const char *line = text, *end = text + length;

	ck_assert_int_eq(take(), LINES_MORE);
	for (size_t i = 0, n = first; i < length; i += n, n = piece) {
		if (n > length - i)
			n = length - i;
		send_bytes(text + i, n);
	}
	send_end();
	for (size_t i = 0; i < seen_count; i++) {
		size_t left = (size_t)(end - line);
		const char *found = memchr(line, '\n', left);
		size_t n = found != NULL ? (size_t)(found - line) : left;

		if (n > LINES_MAX)
			ck_assert_uint_gt(seen[i].length, LINES_MAX);
		else
			ck_assert_uint_eq(seen[i].length, n);
		ck_assert_int_eq(memcmp(seen[i].first, line, n < FIRST_MAX ? n : FIRST_MAX), 0);
		line = found != NULL ? found + 1 : end;
	}
	ck_assert(line == end);
}

static const char text[] = "one\n\n three \r\nfo\0ur\nlast\n";

/* The text in two pieces, split anywhere, with and without the last line break. */
START_TEST(cut_in_two)
{
	check(text, sizeof(text) - 1 - (size_t)(_i % 2), 1 + (size_t)_i / 2, sizeof(text));
	ck_assert_uint_eq(seen_count, 5);
}
END_TEST

/* The text in pieces of one size. */
START_TEST(pieces)
{
	check(text, sizeof(text) - 1, (size_t)_i, (size_t)_i);
	ck_assert_uint_eq(seen_count, 5);
}
END_TEST

/* Empty input has no line; a line break alone is one. */
START_TEST(empty)
{
	check("", 0, 1, 1);
	ck_assert_uint_eq(seen_count, 0);
	close(ends[0]);
	make_pipe();
	check("\n", 1, 1, 1);
	ck_assert_uint_eq(seen_count, 1);
}
END_TEST

/* A line that is too long is one line, be it first or last, and the next one is complete. */
START_TEST(long_lines)
{
	static const size_t lengths[] = {
		LINES_MAX - 1, LINES_MAX, LINES_MAX + 1, LINES_MAX + 2, 2 * LINES_MAX,
		2 * LINES_MAX + 1, 2 * LINES_MAX + 2, 2 * LINES_MAX + 3, 3 * LINES_MAX + 3,
		10 * LINES_MAX,
	};
	static const char *const before[] = { "", "a\n" };
	static const char *const after[] = { "", "\n", "\nb", "\nb\n" };
	static const size_t sizes[] = { 1000, 1024, 4096 };
	static char longest[10 * LINES_MAX + 10];

	for (int i = 0; i < 24; i++) {
		const char *start = before[i % 2], *rest = after[i / 2 % 4];
		char *p = stpcpy(longest, start);

		memset(p, 'x', lengths[_i]);
		p = stpcpy(p + lengths[_i], rest);
		check(longest, (size_t)(p - longest), sizes[i / 8], sizes[i / 8]);
		ck_assert_uint_eq(seen_count, 1 + (start[0] != '\0') + (strchr(rest, 'b') != NULL));
		close(ends[0]);
		make_pipe();
	}
}
END_TEST

/* After a read error, complete lines have been returned, and an incomplete one is dropped. */
START_TEST(unreadable)
{
	send_bytes("a\nb\nc", 5);
	ck_assert_uint_eq(seen_count, 2);
	close(ends[0]);
	ck_assert_int_eq(lines_read(&in), EBADF);
	ck_assert_int_eq(take(), LINES_END);
	ck_assert_uint_eq(seen_count, 2);
}
END_TEST

/* A descriptor without data is not an error. */
START_TEST(no_data)
{
	ck_assert_int_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	ck_assert_int_eq(lines_read(&in), 0);
	ck_assert_int_eq(take(), LINES_MORE);
	check("a\n", 2, 1, 1);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("lines");
	TCase *tc = tcase_create("lines");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, make_pipe, NULL);
	tcase_add_loop_test(tc, cut_in_two, 0, 2 * sizeof(text) - 4);
	tcase_add_loop_test(tc, pieces, 1, sizeof(text));
	tcase_add_test(tc, empty);
	tcase_add_loop_test(tc, long_lines, 0, 10);
	tcase_add_test(tc, unreadable);
	tcase_add_test(tc, no_data);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
