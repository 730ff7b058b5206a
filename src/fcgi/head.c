/* SPDX-License-Identifier: ISC */
/*
 * head: parses the FastCGI records of a connection into one request. See head.h.
 *
 * Each record is its header, then its content, then its padding. Records of other requests are
 * ignored, as FastCGI 1.0, 3.3, requires.
 */
#include "fcgi/head.h"

#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "wire/frame.h"

#define PARAMS_FIRST_SIZE 2048

static enum head_event
bad(struct head *h, const char *error)
{
	h->error = error;
	return HEAD_BAD;
}

/* The content length in the header of the current record. */
static size_t
record_length(const struct head *h)
{
	return (size_t)h->header[4] << 8 | h->header[5];
}

/*
 * Reads a length of a name-value pair (3.4): one byte, or four with the top bit set. False if it is
 * incomplete.
 */
static bool
pair_length(const uint8_t **at, const uint8_t *end, size_t *length)
{
	const uint8_t *p = *at;

	if (p == end)
		return false;
	if (p[0] < 0x80) {
		*length = p[0];
		*at = p + 1;
		return true;
	}
	if (end - p < 4)
		return false;
	*length = (size_t)(p[0] & 0x7f) << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
	*at = p + 4;
	return true;
}

/* Reads the next name-value pair. False if it is incomplete. */
static bool
pair_next(const uint8_t **at, const uint8_t *end, const uint8_t **name, size_t *name_length,
    const uint8_t **value, size_t *value_length)
{
	if (!pair_length(at, end, name_length) || !pair_length(at, end, value_length))
		return false;
	if (*name_length > (size_t)(end - *at))
		return false;
	*name = *at;
	*at += *name_length;
	if (*value_length > (size_t)(end - *at))
		return false;
	*value = *at;
	*at += *value_length;
	return true;
}

/*
 * Checks the PARAMS. Returns NULL, or what is wrong. They become C strings "name=value" later, so a
 * NUL in a value is replaced by a byte that no valid identifier, path or number contains: a value
 * with a NUL is then not mistaken for the part before it.
 */
static const char *
params_check(struct head *h)
{
	const uint8_t *at = h->params, *end, *name, *value;
	size_t name_length, value_length;
	uint8_t *byte;

	if (h->params_length == 0)
		return NULL;
	end = at + h->params_length;
	while (at != end) {
		if (!pair_next(&at, end, &name, &name_length, &value, &value_length))
			return "a parameter extends past the end of PARAMS";
		if (name_length == 0 || memchr(name, '=', name_length) != NULL ||
		    memchr(name, '\0', name_length) != NULL)
			return "a parameter name is empty or contains NUL or '='";
		for (byte = h->params + (value - h->params); byte < at; byte++)
			if (*byte == '\0')
				*byte = 1;
	}
	return NULL;
}

static enum head_event
complete_request(struct head *h)
{
	const char *error;

	if (!h->params_ended || !h->stdin_ended || h->completed)
		return HEAD_MORE;
	error = params_check(h);
	if (error != NULL)
		return bad(h, error);
	h->completed = true;
	return HEAD_COMPLETE;
}

static enum head_event
begin_request(struct head *h, uint16_t id)
{
	if (id == 0 || h->small_length != sizeof(FCGI_BeginRequestBody))
		return bad(h, "malformed FCGI_BEGIN_REQUEST");
	if (h->id == id)
		return bad(h, "second FCGI_BEGIN_REQUEST for one request id");
	if (h->id != 0) {
		h->reply_length = frame_end_request(h->reply, id, FCGI_CANT_MPX_CONN);
		return HEAD_REPLY;
	}
	h->id = id;
	if ((h->small[0] << 8 | h->small[1]) != FCGI_RESPONDER)
		return HEAD_ROLE;
	return HEAD_MORE;
}

/* Answers FCGI_MPXS_CONNS (4.1), the only variable with a value here. */
static enum head_event
get_values(struct head *h)
{
	static const char mpxs[] = FCGI_MPXS_CONNS;
	const uint8_t *at = h->small, *end = at + h->small_length, *name, *value;
	size_t name_length, value_length;
	bool requested = false;
	uint8_t *out = h->reply + FCGI_HEADER_LEN;

	while (at != end) {
		if (!pair_next(&at, end, &name, &name_length, &value, &value_length)) {
			/* Names that do not fit in small[] are unknown to us. */
			if (record_length(h) > sizeof(h->small))
				break;
			return bad(h, "malformed FCGI_GET_VALUES");
		}
		if (name_length == sizeof(mpxs) - 1 && memcmp(name, mpxs, name_length) == 0)
			requested = true;
	}
	if (requested) {
		*out++ = sizeof(mpxs) - 1;
		*out++ = 1;
		memcpy(out, mpxs, sizeof(mpxs) - 1);
		out += sizeof(mpxs) - 1;
		*out++ = '0';
	}
	frame_record(h->reply, FCGI_GET_VALUES_RESULT, FCGI_NULL_REQUEST_ID,
	    (size_t)(out - h->reply) - FCGI_HEADER_LEN);
	h->reply_length = (size_t)(out - h->reply);
	return HEAD_REPLY;
}

/* FCGI_UNKNOWN_TYPE (4.2). */
static enum head_event
unknown_type(struct head *h, uint8_t type)
{
	frame_record(h->reply, FCGI_UNKNOWN_TYPE, FCGI_NULL_REQUEST_ID, 8);
	memset(h->reply + FCGI_HEADER_LEN, 0, 8);
	h->reply[FCGI_HEADER_LEN] = type;
	h->reply_length = FCGI_HEADER_LEN + 8;
	return HEAD_REPLY;
}

static bool
params_append(struct head *h, const uint8_t *content, size_t length)
{
	size_t size = h->params_size != 0 ? h->params_size : PARAMS_FIRST_SIZE;
	uint8_t *grown;

	while (size < h->params_length + length)
		size *= 2;
	if (size != h->params_size) {
		grown = secret_realloc(h->params, size);
		if (grown == NULL)
			return false;
		h->params = grown;
		h->params_size = size;
	}
	memcpy(h->params + h->params_length, content, length);
	h->params_length += length;
	return true;
}

/* The header is complete: checks whether this record is valid here. */
static enum head_event
record_begins(struct head *h, uint8_t type, uint16_t id)
{
	bool ours = id != 0 && id == h->id;

	if (h->header[0] != FCGI_VERSION_1)
		return bad(h, "not FastCGI version 1");
	switch (type) {
	case FCGI_BEGIN_REQUEST:
	case FCGI_ABORT_REQUEST:
	case FCGI_DATA:
		break;
	case FCGI_GET_VALUES:
		if (id != 0)
			return bad(h, "management record with a request id");
		break;
	case FCGI_PARAMS:
		if (id == 0)
			return bad(h, "request id 0");
		if (ours && h->content > 0 && h->params_ended)
			return bad(h, "PARAMS after their end");
		if (ours && h->content > HEAD_PARAMS_MAX - h->params_length)
			return bad(h, "more than 64 KiB of PARAMS");
		break;
	case FCGI_STDIN:
		if (id == 0)
			return bad(h, "request id 0");
		if (ours && h->content > 0 && h->stdin_ended)
			return bad(h, "STDIN after its end");
		break;
	case FCGI_END_REQUEST:
	case FCGI_STDOUT:
	case FCGI_STDERR:
	case FCGI_GET_VALUES_RESULT:
	case FCGI_UNKNOWN_TYPE:
		return bad(h, "record of a type that only applications send");
	default:
		if (id != 0)
			return bad(h, "record of unknown type with a request id");
	}
	h->small_length = 0;
	return HEAD_MORE;
}

/* Handles a part of the record's content. */
static enum head_event
record_content(struct head *h, uint8_t type, uint16_t id, const uint8_t *content, size_t length)
{
	size_t room;

	if (type == FCGI_PARAMS && id == h->id) {
		if (!params_append(h, content, length))
			return bad(h, "out of memory");
	} else if (type == FCGI_BEGIN_REQUEST || type == FCGI_GET_VALUES) {
		room = sizeof(h->small) - h->small_length;
		room = length < room ? length : room;
		memcpy(h->small + h->small_length, content, room);
		h->small_length += (uint8_t)room;
	}
	return HEAD_MORE;
}

/* The content and padding of the record are complete. */
static enum head_event
record_ends(struct head *h, uint8_t type, uint16_t id)
{
	bool empty = record_length(h) == 0;

	switch (type) {
	case FCGI_BEGIN_REQUEST:
		return begin_request(h, id);
	case FCGI_ABORT_REQUEST:
		return id != 0 && id == h->id ? HEAD_ABORT : HEAD_MORE;
	case FCGI_PARAMS:
		if (!empty || id != h->id)
			return HEAD_MORE;
		h->params_ended = true;
		return complete_request(h);
	case FCGI_STDIN:
		if (!empty || id != h->id)
			return HEAD_MORE;
		h->stdin_ended = true;
		return complete_request(h);
	case FCGI_DATA:
		return HEAD_MORE;
	case FCGI_GET_VALUES:
		return get_values(h);
	default:
		return unknown_type(h, type);
	}
}

size_t
head_feed(struct head *h, const uint8_t *input, size_t length, enum head_event *event)
{
	const uint8_t *at = input, *end = input + length;
	size_t n;
	uint8_t type;
	uint16_t id;

	*event = HEAD_MORE;
	while (at != end && *event == HEAD_MORE) {
		if (h->header_length < FCGI_HEADER_LEN) {
			h->header[h->header_length++] = *at++;
			if (h->header_length < FCGI_HEADER_LEN)
				continue;
			h->content = (uint16_t)record_length(h);
			h->padding = h->header[6];
			id = (uint16_t)(h->header[2] << 8 | h->header[3]);
			*event = record_begins(h, h->header[1], id);
			if (*event != HEAD_MORE)
				break;
		}
		type = h->header[1];
		id = (uint16_t)(h->header[2] << 8 | h->header[3]);
		n = (size_t)(end - at);
		if (h->content > 0) {
			n = n < h->content ? n : h->content;
			if (n > 0)
				*event = record_content(h, type, id, at, n);
			h->content -= (uint16_t)n;
		} else {
			n = n < h->padding ? n : h->padding;
			h->padding -= (uint8_t)n;
		}
		at += n;
		if (*event == HEAD_MORE && h->content == 0 && h->padding == 0) {
			h->header_length = 0;
			*event = record_ends(h, type, id);
		}
	}
	return (size_t)(at - input);
}

void
head_release(struct head *h)
{
	if (h->params != NULL)
		explicit_bzero(h->params, h->params_size);
	free(h->params);
	h->params = NULL;
	h->params_length = h->params_size = 0;
}
