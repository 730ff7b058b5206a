/* SPDX-License-Identifier: ISC */
/*
 * head: parses what a web server sends on a FastCGI connection (FastCGI 1.0, 3 to 5), in pieces of
 * any size. The input is not trusted: every length is checked against the bytes present. Keeps up
 * to HEAD_PARAMS_MAX bytes of PARAMS of one request, and ignores all other content. Produces the
 * replies that the protocol requires, for the caller to send. Does no input or output.
 */
#ifndef TPI_FCGI_HEAD_H
#define TPI_FCGI_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_PARAMS_MAX 65536

enum head_event {
	HEAD_MORE,     /* needs more input */
	HEAD_REPLY,    /* the caller should send reply[], and feed the rest of the input */
	HEAD_COMPLETE, /* PARAMS and STDIN have ended; reported once */
	HEAD_ROLE,     /* the role is not RESPONDER: refuse the request and close */
	HEAD_ABORT,    /* FCGI_ABORT_REQUEST for the request */
	HEAD_BAD       /* error says what is wrong; close the connection */
};

struct head {
	uint16_t id; /* of the request; 0 before FCGI_BEGIN_REQUEST */
	const char *error;

	/*
	 * Name-value pairs, up to HEAD_PARAMS_MAX bytes, checked and free of NUL after
	 * HEAD_COMPLETE; owned.
	 */
	uint8_t *params;
	size_t params_length;

	uint8_t reply[32];
	size_t reply_length;

	/* Private. */
	size_t params_size;
	bool params_ended, stdin_ended, completed;
	uint8_t header[8]; /* of the current record */
	uint8_t header_length;
	uint8_t padding;    /* bytes of it still to come */
	uint16_t content;   /* bytes of it still to come */
	uint8_t small[128]; /* the first content of a record that is examined */
	uint8_t small_length;
};

/* A zeroed struct is ready for use. */

/*
 * Parses up to length bytes of input and returns how many it used; *event is why it stopped. Call
 * it again with the rest until HEAD_MORE, but not after HEAD_ROLE or HEAD_BAD.
 */
size_t head_feed(struct head *h, const uint8_t *input, size_t length, enum head_event *event);

/* Overwrites and frees the PARAMS. More input may follow. */
void head_release(struct head *h);

#endif
