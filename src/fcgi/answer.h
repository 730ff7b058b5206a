/* SPDX-License-Identifier: ISC */
/*
 * answer: a complete answer, that is, every answer but a stream, as the text of a CGI response
 * (RFC 3875, 6). Pure: the stream sends it (stream_finish()).
 */
#ifndef TPI_FCGI_ANSWER_H
#define TPI_FCGI_ANSWER_H

struct answer {
	int status;
	const char *reason;
	const char *headers; /* further ones, each ended by CR LF; "" for none */
	const char *type;    /* the body's Content-Type */
	const char *body;
};

/*
 * Head and body; the head alone where the method is HEAD (RFC 3875, 4.3.2). The caller frees it.
 * NULL: no memory.
 */
char *answer_text(const struct answer *answer, const char *method);

#endif
