/* SPDX-License-Identifier: ISC */
/*
 * frame: encodes events of an event stream (WHATWG HTML, 9.2.6) and FastCGI records (FastCGI 1.0,
 * 3.3). Pure: no input or output, no allocation. Thread-safe.
 */
#ifndef TPI_WIRE_FRAME_H
#define TPI_WIRE_FRAME_H

#include <fastcgi.h> /* the FCGI_ names in FastCGI 1.0, section 8 */
#include <stddef.h>
#include <stdint.h>

/* The largest content of a record that we write: a multiple of 8, so it needs no padding. */
#define FRAME_RECORD_MAX 65528
#define FRAME_END_SIZE (FCGI_HEADER_LEN + FCGI_HEADER_LEN + 8)

/*
 * frame_event() writes "data: <payload>\n\n", with a "data:" line for each line of the payload, and
 * returns the number of bytes, which is frame_event_size(). A line of the payload ends at CR LF, LF
 * or CR; in the frame each line ends at LF.
 */
size_t frame_event_size(const char *payload, size_t length);
size_t frame_event(char *out, const char *payload, size_t length);

/*
 * Writes "event: <label>\n", which precedes the lines of frame_event() on a combined stream;
 * returns its length. With what is added, the label must fit in FRAME_LABEL_MAX bytes.
 */
#define FRAME_LABEL_MAX 64
size_t frame_label(char out[FRAME_LABEL_MAX], const char *label);

/*
 * Writes the header of a record with length bytes of content, at most 65535; returns
 * FCGI_HEADER_LEN. type is FCGI_STDOUT or another FCGI_ type.
 */
size_t frame_record(uint8_t *out, int type, uint16_t id, size_t length);

/*
 * frame_stdout() writes text as STDOUT records, none if it is empty, and returns the number of
 * bytes, which is frame_stdout_size().
 */
size_t frame_stdout_size(size_t length);
size_t frame_stdout(uint8_t *out, uint16_t id, const char *text, size_t length);

/* Writes an END_REQUEST record with this protocol status; returns its size, 16. */
size_t frame_end_request(uint8_t *out, uint16_t id, int status);

/* Ends STDOUT and the request with FCGI_REQUEST_COMPLETE; returns FRAME_END_SIZE. */
size_t frame_end(uint8_t *out, uint16_t id);

#endif
