/* SPDX-License-Identifier: ISC */
/*
 * frame: see frame.h.
 *
 * A browser that decodes an event gets the payload, each line break as one LF; one at the end of
 * the payload becomes an empty "data:" line. frame_event_size() and frame_event() find the lines
 * with the same two functions, so they cannot disagree.
 */
#include "wire/frame.h"

#include <assert.h>
#include <string.h>

static const char data[] = "data: ";
#define DATA_LENGTH (sizeof(data) - 1)

/* The length of the first line of text, without its line break. */
static size_t
line_length(const char *text, size_t length)
{
	size_t n = 0;

	while (n < length && text[n] != '\n' && text[n] != '\r')
		n++;
	return n;
}

/* The length of the line break at the start of text. */
static size_t
break_length(const char *text, size_t length)
{
	return length >= 2 && text[0] == '\r' && text[1] == '\n' ? 2 : 1;
}

size_t
frame_event_size(const char *payload, size_t length)
{
	size_t size = 1; /* the blank line */

	for (;;) {
		size_t n = line_length(payload, length);

		size += DATA_LENGTH + n + 1;
		if (n == length)
			return size;
		n += break_length(payload + n, length - n);
		payload += n;
		length -= n;
	}
}

size_t
frame_event(char *out, const char *payload, size_t length)
{
	char *p = out;

	for (;;) {
		size_t n = line_length(payload, length);

		p = mempcpy(p, data, DATA_LENGTH);
		p = mempcpy(p, payload, n);
		*p++ = '\n';
		if (n == length)
			break;
		n += break_length(payload + n, length - n);
		payload += n;
		length -= n;
	}
	*p++ = '\n';
	return (size_t)(p - out);
}

size_t
frame_label(char out[FRAME_LABEL_MAX], const char *label)
{
	static const char event[] = "event: ";
	size_t length = strlen(label);
	char *p = out;

	assert(sizeof(event) + length <= FRAME_LABEL_MAX);
	p = mempcpy(p, event, sizeof(event) - 1);
	p = mempcpy(p, label, length);
	*p++ = '\n';
	return (size_t)(p - out);
}

size_t
frame_record(uint8_t *out, int type, uint16_t id, size_t length)
{
	assert(length <= UINT16_MAX);
	out[0] = FCGI_VERSION_1;
	out[1] = (uint8_t)type;
	out[2] = (uint8_t)(id >> 8);
	out[3] = (uint8_t)(id & 0xff);
	out[4] = (uint8_t)(length >> 8);
	out[5] = (uint8_t)(length & 0xff);
	out[6] = 0; /* padding */
	out[7] = 0;
	return FCGI_HEADER_LEN;
}

size_t
frame_stdout_size(size_t length)
{
	size_t records = (length + FRAME_RECORD_MAX - 1) / FRAME_RECORD_MAX;

	return records * FCGI_HEADER_LEN + length;
}

size_t
frame_stdout(uint8_t *out, uint16_t id, const char *text, size_t length)
{
	uint8_t *p = out;
	size_t n;

	while (length > 0) {
		n = length < FRAME_RECORD_MAX ? length : FRAME_RECORD_MAX;
		p += frame_record(p, FCGI_STDOUT, id, n);
		p = mempcpy(p, text, n);
		text += n;
		length -= n;
	}
	return (size_t)(p - out);
}

size_t
frame_end_request(uint8_t *out, uint16_t id, int status)
{
	FCGI_EndRequestBody body = { .protocolStatus = (uint8_t)status };
	size_t n;

	n = frame_record(out, FCGI_END_REQUEST, id, sizeof(body));
	memcpy(out + n, &body, sizeof(body));
	return n + sizeof(body);
}

size_t
frame_end(uint8_t *out, uint16_t id)
{
	size_t n;

	n = frame_record(out, FCGI_STDOUT, id, 0);
	return n + frame_end_request(out + n, id, FCGI_REQUEST_COMPLETE);
}
