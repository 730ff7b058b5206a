/* SPDX-License-Identifier: ISC */
/*
 * head: the FastCGI records of one connection, from the peer's bytes to one request. See head.h.
 *
 * One record at a time: its header, then its content, then its padding. A record of a request that
 * is not ours is passed over, as section 3.3 of FastCGI 1.0 asks.
 */
#include "fcgi/head.h"

#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"

#define PARAMS_FIRST_SIZE 2048

static enum head_event
bad(struct head *h, const char *error)
{
	h->error = error;
	return HEAD_BAD;
}

/* The content length of the record at hand, as its header says. */
static size_t
record_length(const struct head *h)
{
	return (size_t)h->header[4] << 8 | h->header[5];
}

/*
 * One length of a name-value pair (section 3.4): one byte, or four with the top bit set. Returns
 * false where the bytes end before it does.
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

/* The next name-value pair; false where what is left is not one. */
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
 * NULL, or what is wrong with the PARAMS. They become C strings "name=value" later: a NUL in a
 * value becomes another byte that no identifier, path or number has, so that what is behind it
 * still counts.
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
			return "a parameter's length goes beyond the PARAMS";
		if (name_length == 0 || memchr(name, '=', name_length) != NULL ||
		    memchr(name, '\0', name_length) != NULL)
			return "a parameter's name is empty, or has a NUL or '=' in it";
		for (byte = h->params + (value - h->params); byte < at; byte++)
			if (*byte == '\0')
				*byte = 1;
	}
	return NULL;
}

static enum head_event
complete(struct head *h)
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
		return bad(h, "a malformed FCGI_BEGIN_REQUEST");
	if (h->id == id)
		return bad(h, "FCGI_BEGIN_REQUEST twice for one request id");
	if (h->id != 0) {
		h->reply_length = frame_end_request(h->reply, id, FCGI_CANT_MPX_CONN);
		return HEAD_REPLY;
	}
	h->id = id;
	if ((h->small[0] << 8 | h->small[1]) != FCGI_RESPONDER)
		return HEAD_ROLE;
	return HEAD_MORE;
}

/* Section 4.1: answers FCGI_MPXS_CONNS, the only variable that has a fixed value here. */
static enum head_event
get_values(struct head *h)
{
	static const char mpxs[] = FCGI_MPXS_CONNS;
	const uint8_t *at = h->small, *end = at + h->small_length, *name, *value;
	size_t name_length, value_length;
	bool asked = false;
	uint8_t *out = h->reply + FCGI_HEADER_LEN;

	while (at != end) {
		if (!pair_next(&at, end, &name, &name_length, &value, &value_length)) {
			/* Names beyond what is kept are none that we know. */
			if (record_length(h) > sizeof(h->small))
				break;
			return bad(h, "a malformed FCGI_GET_VALUES");
		}
		if (name_length == sizeof(mpxs) - 1 && memcmp(name, mpxs, name_length) == 0)
			asked = true;
	}
	if (asked) {
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

/* Section 4.2. */
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
		grown = realloc(h->params, size);
		if (grown == NULL)
			return false;
		h->params = grown;
		h->params_size = size;
	}
	memcpy(h->params + h->params_length, content, length);
	h->params_length += length;
	return true;
}

/* A header is whole: may this record stand here at all? */
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
			return bad(h, "a management record with a request id");
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
		return bad(h, "a record that only an application sends");
	default:
		if (id != 0)
			return bad(h, "a record of unknown type with a request id");
	}
	h->small_length = 0;
	return HEAD_MORE;
}

/* Some content of the record at hand. */
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

/* The record's content and padding have passed. */
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
		return complete(h);
	case FCGI_STDIN:
		if (!empty || id != h->id)
			return HEAD_MORE;
		h->stdin_ended = true;
		return complete(h);
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
	free(h->params);
	h->params = NULL;
	h->params_length = h->params_size = 0;
}
