/* SPDX-License-Identifier: ISC */
/*
 * fuzz_lines: the reader of lines (lines.h). However the bytes arrive, the lines are those of a
 * plain split at each LF: complete, in order, each once, with the right number, and those over the
 * limit are reported as such.
 *
 * The first byte of the input seeds the pieces. A byte 1 and the next byte, n, become 257 * n
 * bytes, so a short input can reach the limit.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "publish/lines.h"

#define EXPANDED_MAX 150000

struct text {
	char *bytes; /* owned */
	size_t length;
};

static struct text
expand(const uint8_t *data, size_t size)
{
	struct text t = { fuzz_memory(EXPANDED_MAX), 0 };

	for (size_t i = 0; i < size; i++) {
		size_t n = 1;
		char c = (char)data[i];

		if (c == 1 && i + 1 < size) {
			n = 257 * (size_t)data[++i];
			c = 'x';
		}
		if (n > EXPANDED_MAX - t.length)
			break;
		memset(t.bytes + t.length, c, n);
		t.length += n;
	}
	return t;
}

/* Writes as much of the next piece as fits into the pipe; closes it after the last piece. */
static void
send_piece(int *fd, struct text *rest, uint32_t *state)
{
	size_t n;
	ssize_t sent;

	if (rest->length == 0) {
		if (*fd != -1)
			close(*fd);
		*fd = -1;
		return;
	}
	*state = *state * 1103515245 + 12345;
	n = 1 + (*state >> 8) % (*state >> 31 ? EXPANDED_MAX : 40);
	/* Long texts in long pieces, because each is a system call. */
	if (n < rest->length / 20)
		n = rest->length / 20;
	if (n > rest->length)
		n = rest->length;
	sent = write(*fd, rest->bytes, n);
	REQUIRE(sent > 0 || errno == EAGAIN);
	if (sent > 0) {
		rest->bytes += sent;
		rest->length -= (size_t)sent;
	}
}

/* Compares a line with the next one of the text, and removes that. */
static void
check_line(struct text *expected, const char *line, size_t length)
{
	const char *end = memchr(expected->bytes, '\n', expected->length);
	size_t n = end != NULL ? (size_t)(end - expected->bytes) : expected->length;

	REQUIRE(expected->length > 0);
	REQUIRE((length > LINES_MAX) == (n > LINES_MAX));
	REQUIRE(length == n || (length > LINES_MAX && length < n));
	REQUIRE(memcmp(line, expected->bytes, length) == 0);
	n += end != NULL;
	expected->bytes += n;
	expected->length -= n;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lines *in = calloc(1, sizeof(*in));
	struct text text, rest, expected;
	enum lines_next next;
	uint32_t state;
	uint64_t number = 0;
	int fds[2];

	REQUIRE(in != NULL && pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
	state = size > 0 ? data[0] : 0;
	text = size > 0 ? expand(data + 1, size - 1) : expand(data, 0);
	rest = expected = text;
	in->fd = fds[0];
	do {
		const char *line;
		size_t length;

		next = lines_next(in, &line, &length);
		if (next == LINES_MORE) {
			send_piece(&fds[1], &rest, &state);
			REQUIRE(lines_read(in) == 0);
		} else if (next == LINES_LINE) {
			check_line(&expected, line, length);
			REQUIRE(in->number == ++number);
		}
	} while (next != LINES_END);
	REQUIRE(expected.length == 0 && rest.length == 0 && fds[1] == -1);
	close(fds[0]);
	free(text.bytes);
	free(in);
	return 0;
}
