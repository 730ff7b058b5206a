/* SPDX-License-Identifier: ISC */
/*
 * wire: what a stream's request looks like, and the content of what comes back, over FastCGI or
 * HTTP/1.1 (chunked, or up to the end of the connection). Pure: no input or output, no memory.
 */
#ifndef TPI_BENCH_WIRE_H
#define TPI_BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_REQUEST_MAX 4096

enum wire_state {
	WIRE_RECORD,     /* FastCGI: the header of a record */
	WIRE_PADDING,    /* FastCGI: what follows its content */
	WIRE_HEAD,       /* HTTP: a line of the head */
	WIRE_CHUNK_SIZE, /* HTTP: the line before a chunk */
	WIRE_CHUNK_END,  /* HTTP: the line end behind it */
	WIRE_CONTENT,    /* of a record, a chunk, or all that comes */
};

/* Where the bytes of one connection are; all fields are wire.c's, but for error. */
struct wire {
	const char *error; /* why nothing more can be taken; NULL: nothing is wrong */
	uint64_t left;     /* content still to come */
	enum wire_state state;
	uint8_t padding;
	bool http, chunked;
	uint8_t length; /* of line */
	char line[118]; /* a record's header, or the start of a line of HTTP that has not ended */
};

/* Before the first byte. */
void wire_init(struct wire *w, bool http);

/*
 * Takes bytes from *at on, which it moves, up to end or to a piece of content; returns the length
 * of that piece and where it is, or 0 when there is none up to the end, or with w->error set.
 */
size_t wire_next(struct wire *w, const uint8_t **at, const uint8_t *end, const char **content);

/* Whether the head of an HTTP response, with the status 200, has been taken. */
bool wire_answered(const struct wire *w);

/* Writes a GET request of a user, as a browser's arrives; returns its length. */
size_t wire_request(uint8_t out[WIRE_REQUEST_MAX], bool http, const char *path, const char *query,
    const char *user);

#endif
