/* SPDX-License-Identifier: ISC */
/*
 * lines: lines of bounded length from a descriptor, in whatever pieces it gives them. What is held
 * is bounded by the length of one line. For one thread.
 */
#ifndef TPI_PUBLISH_LINES_H
#define TPI_PUBLISH_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINES_MAX 65536 /* bytes of a line, without its line break */

/* Set fd, and the rest to zero; fd stays the caller's. */
struct lines {
	int fd;
	uint64_t number;   /* of the line taken last, from 1 */
	size_t start, end; /* in bytes: what is read and not yet taken */
	bool ended;        /* nothing more is to be read */
	bool skipping;     /* what comes next is the rest of a line that was too long */
	char bytes[LINES_MAX + 1];
};

enum lines_next {
	LINES_LINE, /* a line was taken */
	LINES_MORE, /* lines_read() is needed */
	LINES_END   /* there is no further line */
};

/*
 * Takes the next line, without its line break, valid until the next call. The last one may lack
 * the line break. A length above LINES_MAX says that the line is too long; it is taken as a whole
 * all the same.
 */
enum lines_next lines_next(struct lines *in, const char **line, size_t *length);

/*
 * Reads once, after LINES_MORE; blocks where fd does. Returns 0 or an errno value: then the input
 * has ended, and what stands behind the last line break is dropped.
 */
int lines_read(struct lines *in);

#endif
