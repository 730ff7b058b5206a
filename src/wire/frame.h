/* SPDX-License-Identifier: ISC */
/*
 * frame: what goes over the wire, as bytes: an event of an event stream (WHATWG HTML, 9.2.6) and
 * the record of FastCGI around it (FastCGI 1.0, 3.3). Pure: no input or output, no memory.
 */
#ifndef TPI_WIRE_FRAME_H
#define TPI_WIRE_FRAME_H

#include <fastcgi.h> /* the FCGI_ names of FastCGI 1.0, section 8 */
#include <stddef.h>
#include <stdint.h>

/* Largest content of a record that we write: a multiple of 8, so that it needs no padding. */
#define FRAME_RECORD_MAX 65528
#define FRAME_END_SIZE (FCGI_HEADER_LEN + FCGI_HEADER_LEN + 8)

/*
 * The bytes of "data: <payload>\n\n", one "data:" line for each line of the payload; a line ends at
 * CR LF, LF or CR, and none of them is part of the frame but our own LF. frame_event_size() says
 * how many bytes frame_event() will write.
 */
size_t frame_event_size(const char *payload, size_t length);
size_t frame_event(char *out, const char *payload, size_t length);

/*
 * Writes a record's header (type: FCGI_STDOUT and so on); returns FCGI_HEADER_LEN. length is at
 * most 65535.
 */
size_t frame_record(uint8_t *out, int type, uint16_t id, size_t length);

/*
 * Writes a text as records of STDOUT, as many as it takes and none for an empty one;
 * frame_stdout_size() says how many bytes that are.
 */
size_t frame_stdout_size(size_t length);
size_t frame_stdout(uint8_t *out, uint16_t id, const char *text, size_t length);

/* Writes an END_REQUEST record; returns its 16 bytes. */
size_t frame_end_request(uint8_t *out, uint16_t id, int status);

/* Writes the end of STDOUT and END_REQUEST with FCGI_REQUEST_COMPLETE: FRAME_END_SIZE bytes. */
size_t frame_end(uint8_t *out, uint16_t id);

#endif
