/* SPDX-License-Identifier: ISC */
/*
 * lines: reads lines of bounded length from a descriptor, however the bytes arrive. It buffers no
 * more than one line. Not thread-safe.
 */
#ifndef TPI_PUBLISH_LINES_H
#define TPI_PUBLISH_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINES_MAX 65536 /* bytes of a line, without its line break */

/* Set fd, and everything else to zero. The caller closes fd. */
struct lines {
	int fd;
	uint64_t number;   /* of the line returned last, from 1 */
	size_t start, end; /* of the unread part of bytes */
	bool ended;        /* end of file, or a read error */
	bool skipping;     /* the next bytes belong to a line that was too long */
	char bytes[LINES_MAX + 1];
};

enum lines_next {
	LINES_LINE, /* a line was returned */
	LINES_MORE, /* call lines_read() */
	LINES_END   /* no more lines */
};

/*
 * Returns the next line, without its line break, valid until the next call. The last line may lack
 * the line break. A length above LINES_MAX means that the line is too long: it is truncated, and
 * the next call returns the line after it.
 */
enum lines_next lines_next(struct lines *in, const char **line, size_t *length);

/*
 * Reads once, after LINES_MORE; blocks if fd does. Returns 0 or an errno value: then the input has
 * ended, and an incomplete last line is dropped.
 */
int lines_read(struct lines *in);

#endif
