/* SPDX-License-Identifier: ISC */
/*
 * lines: see lines.h. After LINES_MORE there is always room to read: a full buffer without a line
 * break is returned as a line that is too long, and the rest of that line is skipped.
 */
#include "publish/lines.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static void
make_room(struct lines *in)
{
	memmove(in->bytes, in->bytes + in->start, in->end - in->start);
	in->end -= in->start;
	in->start = 0;
}

enum lines_next
lines_next(struct lines *in, const char **line, size_t *length)
{
	bool is_rest;

	do {
		size_t left = in->end - in->start;
		const char *found = memchr(in->bytes + in->start, '\n', left);
		bool full = left > LINES_MAX;

		if (found == NULL && !full && !in->ended) {
			make_room(in);
			return LINES_MORE;
		}
		if (found == NULL && left == 0)
			return LINES_END;
		*line = in->bytes + in->start;
		*length = found != NULL ? (size_t)(found - *line) : left;
		in->start += *length + (found != NULL);
		is_rest = in->skipping;
		in->skipping = found == NULL && full;
	} while (is_rest);
	in->number++;
	return LINES_LINE;
}

int
lines_read(struct lines *in)
{
	ssize_t n = read(in->fd, in->bytes + in->end, sizeof(in->bytes) - in->end);

	if (n > 0)
		in->end += (size_t)n;
	if (n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN)))
		return 0;
	in->ended = true;
	if (n == 0)
		return 0;
	in->start = in->end;
	return errno;
}
