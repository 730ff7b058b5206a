/* SPDX-License-Identifier: ISC */
/*
 * wire: encodes a stream's request and decodes the content of the response, over FastCGI or HTTP/1.1
 * (chunked, or up to the end of the connection). It does no input or output and allocates nothing.
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
	WIRE_CHUNK_END,  /* HTTP: the line break after it */
	WIRE_CONTENT,    /* of a record, of a chunk, or up to the end */
};

/* The state of decoding one connection. Callers use only error. */
struct wire {
	const char *error; /* why nothing more can be decoded, or NULL */
	uint64_t left;     /* content still to come */
	enum wire_state state;
	uint8_t padding;
	bool http, chunked;
	uint8_t length; /* of line */
	char line[118]; /* an incomplete record header, or the start of an incomplete HTTP line */
};

/* Call it before the first byte. */
void wire_init(struct wire *w, bool http);

/*
 * Decodes from *at, which it advances, to end or to the next piece of content. Returns the length of
 * that piece and sets *content to it; 0 if there is none before the end, or an error.
 */
size_t wire_next(struct wire *w, const uint8_t **at, const uint8_t *end, const char **content);

/* Whether the head of an HTTP response with status 200 has been decoded. */
bool wire_answered(const struct wire *w);

/* Writes a user's GET request as it arrives from a browser; returns its length. */
size_t wire_request(uint8_t out[WIRE_REQUEST_MAX], bool http, const char *path, const char *query,
    const char *user);

#endif
