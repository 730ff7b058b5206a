/* SPDX-License-Identifier: ISC */
/*
 * head: reads what a web server sends on a FastCGI connection (FastCGI 1.0, sections 3 to 5), in
 * pieces of any size. Nothing is believed: every length is checked against what is really there,
 * the PARAMS of the one request are kept up to HEAD_PARAMS_MAX bytes, all other content is passed
 * over, and what needs an answer of the protocol itself becomes a reply for the caller to send.
 * Pure but for the memory of the PARAMS: no input or output.
 */
#ifndef TPI_FCGI_HEAD_H
#define TPI_FCGI_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_PARAMS_MAX 65536

enum head_event {
	HEAD_MORE,     /* all input is used up, nothing happened */
	HEAD_REPLY,    /* reply[] is to be sent; go on with the rest of the input */
	HEAD_COMPLETE, /* PARAMS and STDIN have ended; once for a connection */
	HEAD_ROLE,     /* a role other than RESPONDER is asked for: refuse and close */
	HEAD_ABORT,    /* FCGI_ABORT_REQUEST for the request */
	HEAD_BAD       /* error says what is wrong; the connection is of no more use */
};

struct head {
	uint16_t id; /* of the request; 0 before FCGI_BEGIN_REQUEST */
	const char *error;

	/* Name-value pairs, checked and without a NUL once HEAD_COMPLETE was returned; owned. */
	uint8_t *params;
	size_t params_length;

	uint8_t reply[32];
	size_t reply_length;

	/* Private. */
	size_t params_size;
	bool params_ended, stdin_ended, completed;
	uint8_t header[8]; /* of the record at hand */
	uint8_t header_length;
	uint8_t padding; /* still to come */
	uint16_t content; /* still to come */
	uint8_t small[128]; /* the first content of a record that is looked into */
	uint8_t small_length;
};

/* A zeroed struct is ready for use. */

/*
 * Takes up to length bytes of input and returns how many it has used; *event says why it stopped.
 * Call again with the rest until HEAD_MORE; not after HEAD_ROLE or HEAD_BAD.
 */
size_t head_feed(struct head *h, const uint8_t *input, size_t length, enum head_event *event);

/* Frees the PARAMS; the struct can go on to be fed. */
void head_release(struct head *h);

#endif
