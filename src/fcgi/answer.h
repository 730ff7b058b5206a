/* SPDX-License-Identifier: ISC */
/*
 * answer: builds a complete response (any response that is not a stream) as the text of a CGI
 * response (RFC 3875, 6). stream_finish() sends it.
 */
#ifndef TPI_FCGI_ANSWER_H
#define TPI_FCGI_ANSWER_H

struct answer {
	int status;
	const char *reason;
	const char *headers; /* more header lines, each with CR LF; "": none */
	const char *type;    /* value of Content-Type */
	const char *body;
};

/*
 * Returns head and body, or only the head if the method is HEAD (RFC 3875, 4.3.2). more has further
 * header lines, as in struct answer. The caller frees it. NULL: no memory.
 */
char *answer_text(const struct answer *answer, const char *more, const char *method);

#endif
