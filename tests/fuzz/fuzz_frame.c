/* SPDX-License-Identifier: ISC */
/*
 * fuzz_frame: the frame of an event (frame.h). A parser that follows WHATWG HTML 9.2.6 step by step
 * reads exactly one event of type "message", whose data is the payload with each CR LF, CR and LF
 * replaced by LF; also between other events of a stream, and if it is sent twice. The frame
 * contains no CR and has the length that frame_event_size() returns.
 */
#include "fuzz.h"

#include "wire/frame.h"
#include "stream/stream.h"

struct buffer {
	char *bytes; /* owned */
	size_t length, size;
};

/* The parser: its buffers, and the dispatched event whose number is wanted. */
struct parser {
	struct buffer data, type;
	bool last_event_id_set;
	bool reconnection_set;
	size_t dispatched;
	size_t wanted;
	struct buffer found_data, found_type;
};

static void
append(struct buffer *b, const char *bytes, size_t length)
{
	if (length == 0)
		return;
	if (length > b->size - b->length) {
		b->size = 2 * (b->length + length);
		b->bytes = realloc(b->bytes, b->size);
		REQUIRE(b->bytes != NULL);
	}
	memcpy(b->bytes + b->length, bytes, length);
	b->length += length;
}

static void
set(struct buffer *b, const char *bytes, size_t length)
{
	b->length = 0;
	append(b, bytes, length);
}

static void
release(struct buffer *b)
{
	free(b->bytes);
	*b = (struct buffer){ 0 };
}

/* "When a user agent is required to dispatch the event" */
static void
dispatch(struct parser *p)
{
	if (p->data.length == 0) {
		p->type.length = 0;
		return;
	}
	if (p->data.bytes[p->data.length - 1] == '\n')
		p->data.length--;
	if (p->type.length == 0)
		set(&p->type, "message", strlen("message"));
	if (p->dispatched++ == p->wanted) {
		append(&p->found_data, p->data.bytes, p->data.length);
		append(&p->found_type, p->type.bytes, p->type.length);
	}
	p->data.length = p->type.length = 0;
}

static bool
is_field(const char *name, size_t length, const char *field)
{
	return length == strlen(field) && memcmp(name, field, length) == 0;
}

/* "The steps to process the field given a field name and a field value" */
static void
process_field(struct parser *p, const char *name, size_t name_length, const char *value,
    size_t value_length)
{
	if (is_field(name, name_length, "event")) {
		set(&p->type, value, value_length);
	} else if (is_field(name, name_length, "data")) {
		append(&p->data, value, value_length);
		append(&p->data, "\n", 1);
	} else if (is_field(name, name_length, "id")) {
		if (memchr(value, '\0', value_length) == NULL)
			p->last_event_id_set = true;
	} else if (is_field(name, name_length, "retry")) {
		p->reconnection_set = true;
	}
}

static void
process_line(struct parser *p, const char *line, size_t length)
{
	const char *colon = memchr(line, ':', length), *value;

	if (length == 0) {
		dispatch(p);
	} else if (colon == line) {
		return; /* a comment */
	} else if (colon != NULL) {
		value = colon + 1;
		if (value != line + length && *value == ' ')
			value++;
		process_field(p, line, (size_t)(colon - line), value,
		    (size_t)(line + length - value));
	} else {
		process_field(p, line, length, "", 0);
	}
}

/* An incomplete last line is ignored, and so is the event it belongs to. */
static void
parse(struct parser *p, const char *stream, size_t length)
{
	const char *at = stream, *end = stream + length, *line;

	if (length >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
		at += 3;
	for (line = at; at < end; at++) {
		if (*at != '\r' && *at != '\n')
			continue;
		process_line(p, line, (size_t)(at - line));
		if (*at == '\r' && at + 1 < end && at[1] == '\n')
			at++;
		line = at + 1;
	}
	release(&p->data);
	release(&p->type);
}

/* The payload with each line break replaced by LF. */
static struct buffer
normalised(const char *payload, size_t length)
{
	struct buffer b = { 0 };

	for (size_t i = 0; i < length; i++) {
		if (payload[i] == '\n' && i > 0 && payload[i - 1] == '\r')
			continue;
		append(&b, payload[i] == '\r' ? "\n" : payload + i, 1);
	}
	return b;
}

/* The stream has count events; the one whose number is wanted has this data. */
static void
check_stream(const char *stream, size_t length, size_t count, size_t wanted,
    const struct buffer *data)
{
	struct parser p = { .wanted = wanted };

	parse(&p, stream, length);
	REQUIRE(p.dispatched == count);
	REQUIRE(p.found_data.length == data->length);
	REQUIRE(data->length == 0 || memcmp(p.found_data.bytes, data->bytes, data->length) == 0);
	REQUIRE(is_field(p.found_type.bytes, p.found_type.length, "message"));
	REQUIRE(!p.last_event_id_set && !p.reconnection_set);
	release(&p.found_data);
	release(&p.found_type);
}

/* Checks the frame twice among a sync, a ping and a truncated copy of itself. */
static void
check_among_others(const char *frame, size_t length, const struct buffer *data)
{
	struct buffer stream = { 0 };

	append(&stream, STREAM_SYNC, strlen(STREAM_SYNC));
	append(&stream, frame, length);
	append(&stream, STREAM_PING, strlen(STREAM_PING));
	append(&stream, frame, length);
	append(&stream, frame, length - 1);
	check_stream(stream.bytes, stream.length, 3, 1, data);
	check_stream(stream.bytes, stream.length, 3, 2, data);
	release(&stream);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *payload = (const char *)data;
	size_t length = frame_event_size(payload, size);
	char *frame = fuzz_memory(length);
	struct buffer expected = normalised(payload, size);

	REQUIRE(frame_event(frame, payload, size) == length);
	REQUIRE(memchr(frame, '\r', length) == NULL);
	check_stream(frame, length, 1, 0, &expected);
	check_among_others(frame, length, &expected);
	free(frame);
	release(&expected);
	return 0;
}
