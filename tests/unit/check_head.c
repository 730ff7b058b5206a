/* SPDX-License-Identifier: ISC */
/*
 * check_head: what the FastCGI parser makes of any bytes, in pieces of any size.
 *
 * run() feeds the bytes in pieces, each in an allocation of exactly its size, and records what
 * happened in one line: "complete", "reply:<hex>", "abort", "role", "bad:<text>".
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"
#include "fcgi/head.h"

#define STORY_SIZE 2048
#define LIST(...)  (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

#define BEYOND    "bad:a parameter extends past the end of PARAMS"
#define UNUSABLE  "bad:a parameter name is empty or contains NUL or '='"
#define TOO_LARGE "bad:more than 64 KiB of PARAMS"
/* A pair with lengths 15 and 1: "FCGI_MPXS_CONNS", "0". */
#define MPXS "reply:010a000000120000" "0f01" "464347495f4d5058535f434f4e4e53" "30"

/* Bytes sent by a peer. */
struct wire {
	uint8_t *bytes;
	size_t length, size;
};

static void
add(struct wire *w, const void *bytes, size_t length)
{
	while (w->length + length > w->size) {
		w->size = w->size * 2 + 256;
		w->bytes = realloc(w->bytes, w->size);
		ck_assert_ptr_nonnull(w->bytes);
	}
	if (length > 0)
		memcpy(w->bytes + w->length, bytes, length);
	w->length += length;
}

/* A record whose padding is not zero. */
static void
record_padded(struct wire *w, int type, uint16_t id, const void *content, size_t length,
    uint8_t padding)
{
	uint8_t header[FCGI_HEADER_LEN], rubbish[255];

	memset(rubbish, 0x5a, sizeof(rubbish));
	frame_record(header, type, id, length);
	header[6] = padding;
	header[7] = 0x77; /* reserved: has no meaning */
	add(w, header, sizeof(header));
	add(w, content, length);
	add(w, rubbish, padding);
}

static void
record(struct wire *w, int type, uint16_t id, const void *content, size_t length)
{
	record_padded(w, type, id, content, length, 0);
}

static void
begin_role(struct wire *w, uint16_t id, uint16_t role)
{
	const uint8_t body[8] = { (uint8_t)(role >> 8), (uint8_t)role, FCGI_KEEP_CONN };

	record(w, FCGI_BEGIN_REQUEST, id, body, sizeof(body));
}

static void
begin(struct wire *w, uint16_t id)
{
	begin_role(w, id, FCGI_RESPONDER);
}

/* The empty records that end PARAMS and STDIN. */
static void
end(struct wire *w, uint16_t id)
{
	record(w, FCGI_PARAMS, id, NULL, 0);
	record(w, FCGI_STDIN, id, NULL, 0);
}

static void
tell(char story[STORY_SIZE], const struct head *h, enum head_event event)
{
	size_t used = strlen(story);

	if (used > 0)
		used += (size_t)snprintf(story + used, STORY_SIZE - used, " ");
	switch (event) {
	case HEAD_COMPLETE:
		snprintf(story + used, STORY_SIZE - used, "complete");
		break;
	case HEAD_ABORT:
		snprintf(story + used, STORY_SIZE - used, "abort");
		break;
	case HEAD_ROLE:
		snprintf(story + used, STORY_SIZE - used, "role");
		break;
	case HEAD_BAD:
		snprintf(story + used, STORY_SIZE - used, "bad:%s", h->error);
		break;
	case HEAD_REPLY:
		used += (size_t)snprintf(story + used, STORY_SIZE - used, "reply:");
		for (size_t i = 0; i < h->reply_length; i++)
			used += (size_t)snprintf(story + used, STORY_SIZE - used, "%02x",
			    h->reply[i]);
		break;
	case HEAD_MORE:
		ck_abort_msg("HEAD_MORE is no happening");
	}
	ck_assert_uint_lt(strlen(story) + 100, STORY_SIZE);
}

/* Feeds one piece completely. False if the connection is unusable. */
static bool
feed(struct head *h, const uint8_t *bytes, size_t length, char story[STORY_SIZE])
{
	uint8_t *piece = malloc(length > 0 ? length : 1);
	enum head_event event = HEAD_MORE;
	size_t used = 0, n;

	ck_assert_ptr_nonnull(piece);
	memcpy(piece, bytes, length);
	do {
		n = head_feed(h, piece + used, length - used, &event);
		ck_assert_uint_le(n, length - used);
		used += n;
		if (event == HEAD_MORE)
			ck_assert_uint_eq(used, length);
		else
			tell(story, h, event);
	} while (event != HEAD_MORE && event != HEAD_ROLE && event != HEAD_BAD);
	free(piece);
	return event == HEAD_MORE;
}

/* Feeds a first piece, then pieces of a given size. The caller releases the head. */
static void
run(struct head *h, const struct wire *w, size_t first, size_t size, char story[STORY_SIZE])
{
	size_t at = 0, n = first;

	memset(h, 0, sizeof(*h));
	story[0] = '\0';
	while (at < w->length) {
		if (n > w->length - at)
			n = w->length - at;
		if (!feed(h, w->bytes + at, n, story))
			break;
		at += n;
		n = size;
	}
}

/* Expects the same events and PARAMS however the bytes are split; frees the bytes. */
static void
expect_params(struct wire *w, const char *expected, const void *params, size_t params_length)
{
	char story[STORY_SIZE];
	struct head h;

	for (size_t first = 0; first <= w->length; first++) {
		/* All in one piece, then every split in two. */
		run(&h, w, first != 0 ? first : w->length, w->length, story);
		ck_assert_msg(strcmp(story, expected) == 0, "cut at %zu: %s, not %s", first, story,
		    expected);
		ck_assert_uint_eq(h.params_length, params_length);
		if (params_length > 0)
			ck_assert_mem_eq(h.params, params, params_length);
		head_release(&h);
	}
	for (size_t size = 1; size <= 17; size++) {
		run(&h, w, size, size, story);
		ck_assert_msg(strcmp(story, expected) == 0, "pieces of %zu: %s, not %s", size,
		    story, expected);
		ck_assert_uint_eq(h.params_length, params_length);
		if (params_length > 0)
			ck_assert_mem_eq(h.params, params, params_length);
		head_release(&h);
	}
	free(w->bytes);
	memset(w, 0, sizeof(*w));
}

/* The same if the PARAMS do not matter. */
static void
expect(struct wire *w, const char *expected)
{
	char story[STORY_SIZE];
	struct head h;

	for (size_t first = 0; first <= w->length; first++) {
		run(&h, w, first != 0 ? first : w->length, w->length, story);
		ck_assert_msg(strcmp(story, expected) == 0, "cut at %zu: %s, not %s", first, story,
		    expected);
		head_release(&h);
	}
	run(&h, w, 1, 1, story);
	ck_assert_str_eq(story, expected);
	head_release(&h);
	free(w->bytes);
	memset(w, 0, sizeof(*w));
}

/* A complete request with these PARAMS, in one record. */
static void
expect_of_params(const uint8_t *params, size_t length, const char *expected)
{
	struct wire w = { 0 };

	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, params, length);
	end(&w, 1);
	expect(&w, expected);
}

static const uint8_t pairs[] = { 1, 2, 'a', 'x', 'y', 3, 0, 'b', 'c', 'd',
	0x80, 0, 0, 4, 0x80, 0, 0, 1, 'l', 'o', 'n', 'g', '=' };

/* A request is the same in pieces of any size: its id, its PARAMS, complete once. */
START_TEST(any_pieces)
{
	struct wire w = { 0 };
	char story[STORY_SIZE];
	struct head h;

	begin(&w, 0x0203);
	record(&w, FCGI_PARAMS, 0x0203, pairs, sizeof(pairs));
	end(&w, 0x0203);
	run(&h, &w, w.length, 1, story);
	ck_assert_uint_eq(h.id, 0x0203);
	head_release(&h);
	expect_params(&w, "complete", pairs, sizeof(pairs));
}
END_TEST

/* PARAMS may be split anywhere into records, each with any padding or none. */
START_TEST(any_records)
{
	static const uint8_t paddings[] = { 0, 1, 7, 255 };

	for (size_t size = 1; size <= sizeof(pairs); size++) {
		struct wire w = { 0 };
		size_t n;

		begin(&w, 1);
		for (size_t at = 0; at < sizeof(pairs); at += n) {
			n = sizeof(pairs) - at < size ? sizeof(pairs) - at : size;
			record_padded(&w, FCGI_PARAMS, 1, pairs + at, n, paddings[(at / size) % 4]);
		}
		record_padded(&w, FCGI_PARAMS, 1, NULL, 0, 5);
		record_padded(&w, FCGI_STDIN, 1, NULL, 0, 255);
		expect_params(&w, "complete", pairs, sizeof(pairs));
	}
}
END_TEST

/* Padding is part of its record: a request is complete only after the last byte of it. */
START_TEST(padding_belongs_to_the_record)
{
	struct wire w = { 0 };
	char story[STORY_SIZE];
	struct head h;

	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, NULL, 0);
	record_padded(&w, FCGI_STDIN, 1, NULL, 0, 3);
	w.length--;
	run(&h, &w, w.length, 1, story);
	ck_assert_str_eq(story, "");
	ck_assert(feed(&h, (const uint8_t *)"x", 1, story));
	ck_assert_str_eq(story, "complete");
	head_release(&h);
	free(w.bytes);
}
END_TEST

/* A request without parameters is valid. */
START_TEST(no_params)
{
	struct wire w = { 0 };

	begin(&w, 65535);
	end(&w, 65535);
	expect_params(&w, "complete", NULL, 0);
}
END_TEST

/* STDIN may end before PARAMS; both have to end. */
START_TEST(both_have_to_end)
{
	struct wire w = { 0 };

	begin(&w, 1);
	record(&w, FCGI_STDIN, 1, NULL, 0);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	expect(&w, "");
	begin(&w, 1);
	record(&w, FCGI_STDIN, 1, NULL, 0);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	record(&w, FCGI_PARAMS, 1, NULL, 0);
	expect_params(&w, "complete", pairs, sizeof(pairs));
	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	record(&w, FCGI_PARAMS, 1, NULL, 0);
	expect(&w, "");
}
END_TEST

/* A pair named "n" whose value makes all PARAMS length bytes long. */
static uint8_t *
large_params(size_t length)
{
	uint8_t *params = malloc(length);
	size_t value = length - 6;

	ck_assert_ptr_nonnull(params);
	memset(params, 'v', length);
	params[0] = 1;
	params[1] = (uint8_t)(0x80 | value >> 24);
	params[2] = (uint8_t)(value >> 16);
	params[3] = (uint8_t)(value >> 8);
	params[4] = (uint8_t)value;
	params[5] = 'n';
	return params;
}

/* The same, in records of a given size. */
static void
large_request(struct wire *w, const uint8_t *params, size_t length, size_t size)
{
	size_t at, n;

	memset(w, 0, sizeof(*w));
	begin(w, 1);
	for (at = 0; at < length; at += n) {
		n = length - at < size ? length - at : size;
		record(w, FCGI_PARAMS, 1, params + at, n);
	}
	end(w, 1);
}

/*
 * 65536 bytes of PARAMS are accepted, and one more is refused, in records and pieces of any size.
 */
START_TEST(limit_is_exact)
{
	static const size_t sizes[] = { 65535, 65528, 32768, 32767, 8192, 1000, 255, 16 };
	static const size_t pieces[] = { 61, 4099, 65536, SIZE_MAX };
	char story[STORY_SIZE];
	struct head h;

	for (size_t length = HEAD_PARAMS_MAX - 1; length <= HEAD_PARAMS_MAX + 1; length++) {
		uint8_t *params = large_params(length);

		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			struct wire w;

			large_request(&w, params, length, sizes[i]);
			for (size_t k = 0; k < sizeof(pieces) / sizeof(pieces[0]); k++) {
				run(&h, &w, pieces[k], pieces[k], story);
				if (length <= HEAD_PARAMS_MAX) {
					ck_assert_str_eq(story, "complete");
					ck_assert_uint_eq(h.params_length, length);
					ck_assert_mem_eq(h.params, params, length);
				} else {
					ck_assert_str_eq(story, TOO_LARGE);
					ck_assert_uint_le(h.params_length, HEAD_PARAMS_MAX);
				}
				head_release(&h);
			}
			free(w.bytes);
		}
		free(params);
	}
}
END_TEST

/* A record that would exceed the limit is refused at its header, before its content. */
START_TEST(limit_applies_at_the_header)
{
	uint8_t *params = large_params(65535), header[FCGI_HEADER_LEN];
	struct wire w = { 0 };

	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, params, 65535);
	frame_record(header, FCGI_PARAMS, 1, 2);
	add(&w, header, sizeof(header));
	for (size_t piece = 1000; piece <= w.length; piece += 16384) {
		char story[STORY_SIZE];
		struct head h;

		run(&h, &w, piece, piece, story);
		ck_assert_str_eq(story, TOO_LARGE);
		head_release(&h);
	}
	free(w.bytes);
	free(params);
}
END_TEST

/* The lengths of names and values are checked against the bytes present. */
START_TEST(false_lengths)
{
	static const struct {
		uint8_t bytes[12];
		size_t length;
	} rows[] = {
		{ { 1 }, 1 },                                  /* no second length */
		{ { 1, 0 }, 2 },                               /* no name */
		{ { 2, 0, 'a' }, 3 },                          /* half a name */
		{ { 1, 1, 'a' }, 3 },                          /* no value */
		{ { 1, 3, 'a', 'v', 'v' }, 5 },                /* part of a value */
		{ { 127, 0, 'a' }, 3 },
		{ { 1, 127, 'a' }, 3 },
		{ { 1, 0, 'a', 1 }, 4 },                       /* the second pair */
		{ { 0x80 }, 1 },                               /* an incomplete length */
		{ { 0x80, 0, 0 }, 3 },
		{ { 0x80, 0, 0, 1 }, 4 },
		{ { 1, 0x80, 0, 0 }, 4 },
		{ { 1, 0x80, 0, 0, 0 }, 5 },
		{ { 1, 0x80, 0, 0, 1, 'a' }, 6 },
		{ { 0x80, 0, 0, 2, 0, 'a' }, 6 },
		{ { 0xff, 0xff, 0xff, 0xff, 1, 'a', 'v' }, 7 },
		{ { 1, 0xff, 0xff, 0xff, 0xff, 'a', 'v' }, 7 },
		{ { 1, 0x80, 1, 0, 0, 'a', 'v' }, 7 },
		/* The sum is 2^32 - 2: with the '=' and NUL of a C string it is 0 in 32 bits. */
		{ { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'a', 'v' }, 10 },
		/* 2^31, which is negative as an int: name 2^31 - 1, value 1. */
		{ { 0xff, 0xff, 0xff, 0xff, 1, 'a', 'v', 'v' }, 8 },
		{ { 0xc0, 0, 0, 0, 0xc0, 0, 0, 0, 'a', 'v' }, 10 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		expect_of_params(rows[i].bytes, rows[i].length, BEYOND);
}
END_TEST

/* Nor is any byte after the PARAMS read: here they fill their allocation completely. */
START_TEST(false_lengths_at_the_limit)
{
	static const struct {
		uint8_t bytes[4];
		size_t length;
	} rows[] = { { { 1 }, 1 }, { { 1, 1, 'a' }, 3 }, { { 2, 0, 'a' }, 3 },
		{ { 0x80, 0, 0 }, 3 }, { { 0xff, 0, 0 }, 3 }, { { 1, 0x80, 0, 0 }, 4 },
		{ { 1, 0x80 }, 2 } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t *params = large_params(HEAD_PARAMS_MAX - rows[i].length);
		struct wire w = { 0 };
		char story[STORY_SIZE];
		struct head h;

		begin(&w, 1);
		record(&w, FCGI_PARAMS, 1, params, HEAD_PARAMS_MAX - rows[i].length);
		record(&w, FCGI_PARAMS, 1, rows[i].bytes, rows[i].length);
		end(&w, 1);
		run(&h, &w, w.length, 1, story);
		ck_assert_msg(strcmp(story, BEYOND) == 0, "row %zu: %s", i, story);
		head_release(&h);
		free(w.bytes);
		free(params);
	}
}
END_TEST

/* Four-byte lengths of small numbers, empty values and repeated names are valid. */
START_TEST(valid_lengths)
{
	expect_of_params(LIST(0x80, 0, 0, 1, 0x80, 0, 0, 0, 'a'), "complete");
	expect_of_params(LIST(1, 0, 'a', 1, 0, 'a', 1, 1, 'a', 'x'), "complete");
	expect_of_params(LIST(1, 0x80, 0, 0, 2, 'a', 0xff, 0x01), "complete");
}
END_TEST

/* A name that could not precede '=' in a C string is refused; '=' in a value is not. */
START_TEST(names)
{
	expect_of_params(LIST(0, 1, 'v'), UNUSABLE);
	expect_of_params(LIST(0, 0), UNUSABLE);
	expect_of_params(LIST(1, 0, '='), UNUSABLE);
	expect_of_params(LIST(3, 1, 'a', '=', 'b', 'v'), UNUSABLE);
	expect_of_params(LIST(3, 1, 'a', 'b', '=', 'v'), UNUSABLE);
	expect_of_params(LIST(1, 0, '\0'), UNUSABLE);
	expect_of_params(LIST(3, 1, 'a', '\0', 'b', 'v'), UNUSABLE);
	expect_of_params(LIST(1, 1, 'a', 'v', 1, 0, '\0'), UNUSABLE);
	expect_of_params(LIST(1, 3, 'a', '=', '=', '='), "complete");
}
END_TEST

/* A NUL in a value becomes byte 1, so it cannot hide what follows; nothing else changes. */
START_TEST(nul_in_a_value)
{
	static const uint8_t sent[] = { 1, 4, 'a', '\0', 'v', '\0', '\0',
		1, 0, 'b', 1, 1, 'c', '\0' };
	static const uint8_t kept[] = { 1, 4, 'a', 1, 'v', 1, 1, 1, 0, 'b', 1, 1, 'c', 1 };
	struct wire w = { 0 };

	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, sent, sizeof(sent));
	end(&w, 1);
	expect_params(&w, "complete", kept, sizeof(kept));
}
END_TEST

/* A version other than 1 is refused once the header is complete, in the first record or later. */
START_TEST(version)
{
	static const uint8_t versions[] = { 0, 2, 'G', 0x16, 0x80, 0xff };

	for (size_t i = 0; i < sizeof(versions); i++) {
		struct wire w = { 0 };

		begin(&w, 1);
		w.bytes[0] = versions[i];
		w.length = FCGI_HEADER_LEN;
		expect(&w, "bad:not FastCGI version 1");
		begin(&w, 1);
		end(&w, 1);
		w.bytes[16] = versions[i];
		expect(&w, "bad:not FastCGI version 1");
	}
}
END_TEST

/* An unknown management record is answered with FCGI_UNKNOWN_TYPE and has no other effect. */
START_TEST(unknown_management_type)
{
	struct wire w = { 0 };

	record_padded(&w, 12, 0, "what?", 5, 3);
	record(&w, 255, 0, NULL, 0);
	begin(&w, 1);
	record(&w, 0, 0, "x", 1);
	end(&w, 1);
	expect(&w,
	    "reply:010b000000080000" "0c00000000000000 "
	    "reply:010b000000080000" "ff00000000000000 "
	    "reply:010b000000080000" "0000000000000000 complete");
}
END_TEST

/* An unknown record type with a request id is refused. */
START_TEST(unknown_type_of_a_request)
{
	static const uint8_t types[] = { 0, 12, 255 };

	for (size_t i = 0; i < sizeof(types); i++) {
		struct wire w = { 0 };

		begin(&w, 1);
		record(&w, types[i], 1, NULL, 0);
		expect(&w, "bad:record of unknown type with a request id");
		record(&w, types[i], 9, NULL, 0);
		expect(&w, "bad:record of unknown type with a request id");
	}
}
END_TEST

/* Record types that only applications send are refused, whatever their request id. */
START_TEST(application_types)
{
	static const uint8_t types[] = { FCGI_END_REQUEST, FCGI_STDOUT, FCGI_STDERR,
		FCGI_GET_VALUES_RESULT, FCGI_UNKNOWN_TYPE };

	for (size_t i = 0; i < sizeof(types); i++) {
		for (uint16_t id = 0; id < 3; id++) {
			struct wire w = { 0 };

			begin(&w, 1);
			record(&w, types[i], id, "12345678", 8);
			expect(&w, "bad:record of a type that only applications send");
		}
	}
}
END_TEST

/* Request id 0 is not valid for a request. */
START_TEST(request_id_0)
{
	struct wire w = { 0 };

	begin(&w, 0);
	expect(&w, "bad:malformed FCGI_BEGIN_REQUEST");
	begin(&w, 1);
	record(&w, FCGI_PARAMS, 0, NULL, 0);
	expect(&w, "bad:request id 0");
	record(&w, FCGI_PARAMS, 0, pairs, sizeof(pairs));
	expect(&w, "bad:request id 0");
	begin(&w, 1);
	record(&w, FCGI_STDIN, 0, NULL, 0);
	expect(&w, "bad:request id 0");
}
END_TEST

/*
 * A second request is answered with FCGI_CANT_MPX_CONN and its own id, before and after the first
 * is complete.
 */
START_TEST(second_request)
{
	struct wire w = { 0 };

	begin(&w, 1);
	begin(&w, 2);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	record(&w, FCGI_PARAMS, 2, "\1\1xy", 4);
	end(&w, 2);
	end(&w, 1);
	begin(&w, 0x1234);
	expect_params(&w,
	    "reply:0103000200080000" "0000000001000000 complete "
	    "reply:0103123400080000" "0000000001000000", pairs, sizeof(pairs));
	/* Its role does not matter. */
	begin(&w, 1);
	begin_role(&w, 2, FCGI_AUTHORIZER);
	end(&w, 1);
	expect(&w, "reply:0103000200080000" "0000000001000000 complete");
}
END_TEST

/* A second request with the same id is refused. */
START_TEST(same_request_twice)
{
	struct wire w = { 0 };

	begin(&w, 7);
	begin(&w, 7);
	expect(&w, "bad:second FCGI_BEGIN_REQUEST for one request id");
	begin(&w, 7);
	end(&w, 7);
	begin(&w, 7);
	expect(&w, "complete bad:second FCGI_BEGIN_REQUEST for one request id");
}
END_TEST

/* FCGI_BEGIN_REQUEST has 8 bytes. */
START_TEST(begin_length)
{
	static const uint8_t body[300] = { 0, FCGI_RESPONDER };

	for (size_t length = 0; length <= sizeof(body); length++) {
		struct wire w = { 0 };

		if (length == 8)
			continue;
		record(&w, FCGI_BEGIN_REQUEST, 1, body, length);
		expect(&w, "bad:malformed FCGI_BEGIN_REQUEST");
	}
}
END_TEST

/* Any role but RESPONDER, in either of its bytes, ends the parsing; the id is known. */
START_TEST(role)
{
	static const uint16_t roles[] = { 0, FCGI_AUTHORIZER, FCGI_FILTER, 0x0101, 0x0100, 0xffff };

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
		struct wire w = { 0 };
		char story[STORY_SIZE];
		struct head h;

		begin_role(&w, 0x0405, roles[i]);
		end(&w, 0x0405);
		run(&h, &w, w.length, 1, story);
		ck_assert_uint_eq(h.id, 0x0405);
		head_release(&h);
		expect(&w, "role");
	}
}
END_TEST

/* FCGI_GET_VALUES: FCGI_MPXS_CONNS is 0 and appears once; unknown names are omitted. */
START_TEST(get_values)
{
	struct wire w = { 0 };

	record_padded(&w, FCGI_GET_VALUES, 0, "\17\0FCGI_MPXS_CONNS", 17, 7);
	begin(&w, 1);
	record(&w, FCGI_GET_VALUES, 0, "\16\0FCGI_MAX_CONNS\17\0FCGI_MPXS_CONNS\15\0FCGI_MAX_REQS",
	    48);
	record(&w, FCGI_GET_VALUES, 0, "\17\0FCGI_MPXS_CONNS\17\0FCGI_MPXS_CONNS", 34);
	end(&w, 1);
	expect(&w, MPXS " " MPXS " " MPXS " complete");
}
END_TEST

/* Without that name, or with a similar one, the reply is empty. */
START_TEST(get_values_of_others)
{
	struct wire w = { 0 };

	record(&w, FCGI_GET_VALUES, 0, "\16\0FCGI_MAX_CONNS", 16);
	record(&w, FCGI_GET_VALUES, 0, NULL, 0);
	record(&w, FCGI_GET_VALUES, 0, "\17\0FCGI_MPXS_CONNs", 17);
	record(&w, FCGI_GET_VALUES, 0, "\20\0FCGI_MPXS_CONNSS", 18);
	record(&w, FCGI_GET_VALUES, 0, "\16\0FCGI_MPXS_CONN", 16);
#define NOTHING "reply:010a000000000000"
	expect(&w, NOTHING " " NOTHING " " NOTHING " " NOTHING " " NOTHING);
#undef NOTHING
}
END_TEST

/* Malformed, or with a request id: refused. */
START_TEST(get_values_refused)
{
	struct wire w = { 0 };

	record(&w, FCGI_GET_VALUES, 0, "\17\0FCGI_MPXS_CONN", 16);
	expect(&w, "bad:malformed FCGI_GET_VALUES");
	record(&w, FCGI_GET_VALUES, 0, "\17", 1);
	expect(&w, "bad:malformed FCGI_GET_VALUES");
	record(&w, FCGI_GET_VALUES, 0, "\17\0FCGI_MPXS_CONNS\377\377\377\377\377\377\377\377", 25);
	expect(&w, "bad:malformed FCGI_GET_VALUES");
	record(&w, FCGI_GET_VALUES, 1, "\17\0FCGI_MPXS_CONNS", 17);
	expect(&w, "bad:management record with a request id");
}
END_TEST

/* It is answered at any length; a known name is found at the start of the record. */
START_TEST(get_values_long)
{
	char content[65535] = "\17\0FCGI_MPXS_CONNS";
	struct wire w = { 0 };
	struct head h;
	char story[STORY_SIZE];

	/* Followed by names of 100 bytes. */
	memset(content + 17, 'n', sizeof(content) - 17);
	for (size_t at = 17; at + 102 <= sizeof(content); at += 102) {
		content[at] = 100;
		content[at + 1] = 0;
	}
	for (size_t length = 17 + 102; length <= 17 + 5 * 102; length += 102) {
		record(&w, FCGI_GET_VALUES, 0, content, length);
		begin(&w, 1);
		end(&w, 1);
		expect(&w, MPXS " complete");
	}
	record(&w, FCGI_GET_VALUES, 0, content, 17 + 642 * 102);
	begin(&w, 1);
	end(&w, 1);
	for (size_t piece = 1; piece <= w.length; piece = piece * 37 + 5) {
		run(&h, &w, piece, piece, story);
		ck_assert_str_eq(story, MPXS " complete");
		head_release(&h);
	}
	free(w.bytes);
}
END_TEST

/* FCGI_ABORT_REQUEST applies to our request, before and after its head is complete. */
START_TEST(abort_request)
{
	struct wire w = { 0 };

	begin(&w, 5);
	record(&w, FCGI_ABORT_REQUEST, 5, NULL, 0);
	expect(&w, "abort");
	begin(&w, 5);
	end(&w, 5);
	record_padded(&w, FCGI_ABORT_REQUEST, 5, "content", 7, 9);
	expect(&w, "complete abort");
}
END_TEST

/* FCGI_ABORT_REQUEST without an id, or of another request, is ignored. */
START_TEST(abort_of_others)
{
	struct wire w = { 0 };

	record(&w, FCGI_ABORT_REQUEST, 0, NULL, 0);
	record(&w, FCGI_ABORT_REQUEST, 5, NULL, 0);
	begin(&w, 5);
	record(&w, FCGI_ABORT_REQUEST, 0, NULL, 0);
	record(&w, FCGI_ABORT_REQUEST, 4, NULL, 0);
	record(&w, FCGI_ABORT_REQUEST, 0x0105, NULL, 0);
	end(&w, 5);
	expect(&w, "complete");
}
END_TEST

/* Data after the end of PARAMS or STDIN is refused at its header; more empty records are not. */
START_TEST(after_the_end)
{
	struct wire w = { 0 };

	begin(&w, 1);
	end(&w, 1);
	end(&w, 1);
	end(&w, 1);
	expect(&w, "complete");
	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, NULL, 0);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	w.length -= sizeof(pairs);
	expect(&w, "bad:PARAMS after their end");
	begin(&w, 1);
	end(&w, 1);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	expect(&w, "complete bad:PARAMS after their end");
	begin(&w, 1);
	record(&w, FCGI_STDIN, 1, NULL, 0);
	record(&w, FCGI_STDIN, 1, "x", 1);
	w.length--;
	expect(&w, "bad:STDIN after its end");
	begin(&w, 1);
	end(&w, 1);
	record(&w, FCGI_STDIN, 1, "x", 1);
	expect(&w, "complete bad:STDIN after its end");
}
END_TEST

/* The content of STDIN and FCGI_DATA is ignored, at any length. */
START_TEST(stdin_is_ignored)
{
	static const uint8_t body[65535];
	struct wire w = { 0 };
	char story[STORY_SIZE];
	struct head h;

	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	record(&w, FCGI_STDIN, 1, "\1\1ab", 4);
	record(&w, FCGI_DATA, 1, "\1\1ab", 4);
	record(&w, FCGI_DATA, 1, NULL, 0);
	end(&w, 1);
	expect_params(&w, "complete", pairs, sizeof(pairs));

	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	for (int i = 0; i < 20; i++)
		record_padded(&w, FCGI_STDIN, 1, body, sizeof(body), 255);
	end(&w, 1);
	for (size_t piece = 509; piece < w.length; piece *= 7) {
		run(&h, &w, piece, piece, story);
		ck_assert_str_eq(story, "complete");
		ck_assert_uint_eq(h.params_length, sizeof(pairs));
		head_release(&h);
	}
	free(w.bytes);
}
END_TEST

/* Records of other requests neither add to our PARAMS nor end them. */
START_TEST(other_requests)
{
	struct wire w = { 0 };

	record(&w, FCGI_PARAMS, 2, "\1\1xy", 4); /* before any request */
	record(&w, FCGI_PARAMS, 1, "\1\1xy", 4);
	end(&w, 1);
	begin(&w, 1);
	record(&w, FCGI_PARAMS, 2, "\377\377\377\377", 4);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	record(&w, FCGI_PARAMS, 0x0101, "\1\1xy", 4);
	end(&w, 0x0101);
	end(&w, 2);
	expect(&w, "");

	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	end(&w, 1);
	record(&w, FCGI_PARAMS, 2, "\1\1xy", 4);
	record(&w, FCGI_STDIN, 2, "x", 1);
	expect_params(&w, "complete", pairs, sizeof(pairs));
}
END_TEST

/* Parsing continues after head_release(): records after a complete head are still checked. */
START_TEST(continues_after_release)
{
	struct wire w = { 0 }, more = { 0 };
	char story[STORY_SIZE];
	struct head h;

	begin(&w, 1);
	record(&w, FCGI_PARAMS, 1, pairs, sizeof(pairs));
	end(&w, 1);
	run(&h, &w, w.length, 1, story);
	head_release(&h);
	head_release(&h);
	ck_assert_ptr_null(h.params);
	end(&more, 1);
	begin(&more, 2);
	record(&more, FCGI_ABORT_REQUEST, 1, NULL, 0);
	ck_assert(feed(&h, more.bytes, more.length, story));
	ck_assert_str_eq(story, "complete reply:0103000200080000" "0000000001000000 abort");
	head_release(&h);
	free(w.bytes);
	free(more.bytes);
}
END_TEST

/* No input causes no event. */
START_TEST(no_input)
{
	struct head h = { 0 };
	enum head_event event = HEAD_BAD;

	ck_assert_uint_eq(head_feed(&h, (const uint8_t *)"", 0, &event), 0);
	ck_assert_int_eq(event, HEAD_MORE);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("head");
	TCase *tc = tcase_create("head");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, any_pieces);
	tcase_add_test(tc, any_records);
	tcase_add_test(tc, padding_belongs_to_the_record);
	tcase_add_test(tc, no_params);
	tcase_add_test(tc, both_have_to_end);
	tcase_add_test(tc, limit_is_exact);
	tcase_add_test(tc, limit_applies_at_the_header);
	tcase_add_test(tc, false_lengths);
	tcase_add_test(tc, false_lengths_at_the_limit);
	tcase_add_test(tc, valid_lengths);
	tcase_add_test(tc, names);
	tcase_add_test(tc, nul_in_a_value);
	tcase_add_test(tc, version);
	tcase_add_test(tc, unknown_management_type);
	tcase_add_test(tc, unknown_type_of_a_request);
	tcase_add_test(tc, application_types);
	tcase_add_test(tc, request_id_0);
	tcase_add_test(tc, second_request);
	tcase_add_test(tc, same_request_twice);
	tcase_add_test(tc, begin_length);
	tcase_add_test(tc, role);
	tcase_add_test(tc, get_values);
	tcase_add_test(tc, get_values_of_others);
	tcase_add_test(tc, get_values_refused);
	tcase_add_test(tc, get_values_long);
	tcase_add_test(tc, abort_request);
	tcase_add_test(tc, abort_of_others);
	tcase_add_test(tc, after_the_end);
	tcase_add_test(tc, stdin_is_ignored);
	tcase_add_test(tc, other_requests);
	tcase_add_test(tc, continues_after_release);
	tcase_add_test(tc, no_input);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
