/* SPDX-License-Identifier: ISC */
/*
 * fuzz_head: the reader of FastCGI records (head.h). However the bytes are split, the same events
 * happen at the same bytes; at most 64 KiB of PARAMS are kept; and once the head is complete they
 * are what a plain walk over the records finds, and consist of complete name-value pairs.
 *
 * The first byte of the input: bits 0 to 5 seed the pieces, bit 6 calls head_release() at
 * HEAD_COMPLETE, bit 7 inserts the start of a request whose PARAMS are nearly full.
 */
#include "fuzz.h"

#include "wire/frame.h"
#include "fcgi/head.h"

#define STEPS_MAX 4096
#define RELEASE 0x40
#define NEARLY_FULL 0x80
#define FULL_CONTENT 65400
#define FULL_SIZE (16 + FCGI_HEADER_LEN + FULL_CONTENT)

struct step {
	enum head_event event;
	size_t at; /* bytes used up to it */
	uint16_t id;
	const char *error;
	uint8_t reply[sizeof(((struct head *)0)->reply)];
	size_t reply_length;
};

struct run {
	const uint8_t *input;
	size_t size, used;
	size_t whole; /* bytes to feed at once, first */
	bool release;
	struct step steps[STEPS_MAX];
	size_t count;
};

enum cut { CUT_NOT, CUT_BYTES, CUT_PIECES };

static void
check_reply(const struct head *h)
{
	const uint8_t *reply = h->reply;
	size_t length = h->reply_length;

	REQUIRE(length >= FCGI_HEADER_LEN && length <= sizeof(h->reply));
	REQUIRE(reply[0] == FCGI_VERSION_1 && reply[6] == 0);
	REQUIRE((size_t)(reply[4] << 8 | reply[5]) == length - FCGI_HEADER_LEN);
	switch (reply[1]) {
	case FCGI_END_REQUEST:
		REQUIRE(length == 16 && reply[12] == FCGI_CANT_MPX_CONN);
		REQUIRE((reply[2] << 8 | reply[3]) != h->id);
		break;
	case FCGI_GET_VALUES_RESULT:
		REQUIRE(length == 8 || length == 8 + 2 + strlen(FCGI_MPXS_CONNS "0"));
		break;
	default:
		REQUIRE(reply[1] == FCGI_UNKNOWN_TYPE && length == 16);
	}
}

/* One length of a pair; SIZE_MAX if it is truncated. */
static size_t
walk_length(uint8_t **at, size_t *left)
{
	size_t bytes = *left > 0 && (*at)[0] & 0x80 ? 4 : 1, length = 0;

	if (*left < bytes)
		return SIZE_MAX;
	for (size_t i = 0; i < bytes; i++)
		length = length << 8 | (*at)[i];
	*at += bytes;
	*left -= bytes;
	return bytes == 4 ? length & 0x7fffffff : length;
}

/* Walks over name-value pairs and, as head.c does, replaces each NUL in a value by 1. */
static void
walk_pairs(uint8_t *at, size_t left)
{
	while (left > 0) {
		size_t name = walk_length(&at, &left), value = walk_length(&at, &left);

		REQUIRE(name != SIZE_MAX && value != SIZE_MAX);
		REQUIRE(name > 0 && name + value <= left);
		for (size_t i = 0; i < name; i++)
			REQUIRE(at[i] != '\0' && at[i] != '=');
		for (size_t i = name; i < name + value; i++)
			at[i] = at[i] == '\0' ? 1 : at[i];
		at += name + value;
		left -= name + value;
	}
}

/*
 * The head is complete after the first at bytes: collects its PARAMS again. PARAMS before its
 * FCGI_BEGIN_REQUEST belong to no request and are ignored.
 */
static void
check_params(const struct head *h, const uint8_t *input, size_t at)
{
	size_t position = 0, found = 0;
	uint8_t *params = fuzz_memory(h->params_length);
	bool begun = false;

	while (position < at) {
		const uint8_t *record = input + position;
		size_t content = (size_t)(record[4] << 8 | record[5]);
		bool ours = (record[2] << 8 | record[3]) == h->id;

		begun |= ours && record[1] == FCGI_BEGIN_REQUEST;
		if (ours && begun && record[1] == FCGI_PARAMS && content > 0) {
			REQUIRE(found + content <= h->params_length);
			memcpy(params + found, record + FCGI_HEADER_LEN, content);
			found += content;
		}
		position += FCGI_HEADER_LEN + content + record[6];
	}
	REQUIRE(position == at && found == h->params_length);
	walk_pairs(params, found);
	REQUIRE(found == 0 || memcmp(params, h->params, found) == 0);
	free(params);
}

static void
check_step(const struct run *r, const struct head *h, const struct step *step, bool completed)
{
	REQUIRE(h->params_length <= HEAD_PARAMS_MAX && h->params_size <= HEAD_PARAMS_MAX);
	switch (step->event) {
	case HEAD_REPLY:
		check_reply(h);
		break;
	case HEAD_COMPLETE:
		REQUIRE(!completed && h->id != 0);
		check_params(h, r->input, step->at);
		break;
	case HEAD_BAD:
		REQUIRE(fuzz_is_line(h->error));
		break;
	case HEAD_ABORT:
		REQUIRE(h->id != 0);
		break;
	default:
		break;
	}
}

/* Feeds one piece until it is used up. False if the connection has failed. */
static bool
feed_piece(struct run *r, struct head *h, const uint8_t *piece, size_t length, bool *completed)
{
	for (;;) {
		struct step *step = &r->steps[r->count];
		size_t used = head_feed(h, piece, length, &step->event);

		REQUIRE(used <= length && (used > 0 || length == 0));
		r->used += used;
		piece += used;
		length -= used;
		step->at = r->used;
		step->id = h->id;
		step->error = step->event == HEAD_BAD ? h->error : NULL;
		step->reply_length = step->event == HEAD_REPLY ? h->reply_length : 0;
		memcpy(step->reply, h->reply, step->reply_length);
		check_step(r, h, step, *completed);
		if (step->event == HEAD_MORE) {
			REQUIRE(length == 0);
			return true;
		}
		r->count++;
		REQUIRE(r->count < STEPS_MAX);
		if (step->event == HEAD_COMPLETE) {
			*completed = true;
			if (r->release)
				head_release(h);
		}
		if (step->event == HEAD_ROLE || step->event == HEAD_BAD)
			return false;
	}
}

static size_t
piece_length(const struct run *r, enum cut cut, uint32_t *state)
{
	size_t length = r->size - r->used;

	if (r->used < r->whole)
		return r->whole - r->used;
	if (cut == CUT_BYTES)
		length = 1;
	if (cut == CUT_PIECES) {
		*state = *state * 1103515245 + 12345;
		length = 1 + (*state >> 16) % (*state >> 30 ? 12 : 300);
	}
	return length < r->size - r->used ? length : r->size - r->used;
}

static void
run_input(struct run *r, enum cut cut, uint32_t state)
{
	struct head h = { 0 };
	bool alive = true, completed = false;

	r->used = r->count = 0;
	while (alive && r->used < r->size) {
		size_t length = piece_length(r, cut, &state);
		uint8_t *piece = NULL;

		if (cut == CUT_PIECES)
			piece = memcpy(fuzz_memory(length), r->input + r->used, length);
		alive = feed_piece(r, &h, piece != NULL ? piece : r->input + r->used, length,
		    &completed);
		free(piece);
	}
	head_release(&h);
}

static void
check_same(const struct run *a, const struct run *b)
{
	REQUIRE(a->count == b->count && a->used == b->used);
	for (size_t i = 0; i < a->count; i++) {
		const struct step *x = &a->steps[i], *y = &b->steps[i];

		REQUIRE(x->event == y->event && x->at == y->at && x->id == y->id &&
		    x->error == y->error);
		REQUIRE(x->reply_length == y->reply_length &&
		    memcmp(x->reply, y->reply, x->reply_length) == 0);
	}
}

/* A request of id 1 with one parameter, 136 bytes short of the limit. */
static void
write_nearly_full(uint8_t *out)
{
	uint8_t *end = out + FULL_SIZE;
	size_t value = FULL_CONTENT - 6;

	memset(out, 'v', FULL_SIZE);
	out += frame_record(out, FCGI_BEGIN_REQUEST, 1, 8);
	memcpy(out, "\0\1\0\0\0\0\0\0", 8);
	out += 8;
	out += frame_record(out, FCGI_PARAMS, 1, FULL_CONTENT);
	*out++ = 1;
	*out++ = 0x80;
	*out++ = (uint8_t)(value >> 16);
	*out++ = (uint8_t)(value >> 8);
	*out++ = (uint8_t)value;
	*out++ = 'P';
	REQUIRE(out + value == end);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct run whole, bytes, pieces;
	uint8_t mode, *input;

	/* Each step uses at least a header. */
	if (size < 1 || size > FCGI_HEADER_LEN * (STEPS_MAX - 4))
		return 0;
	mode = *data++;
	size--;
	whole.whole = mode & NEARLY_FULL ? FULL_SIZE : 0;
	input = fuzz_memory(whole.whole + size);
	if (whole.whole > 0)
		write_nearly_full(input);
	if (size > 0)
		memcpy(input + whole.whole, data, size);
	whole.input = input;
	whole.size = whole.whole + size;
	whole.release = (mode & RELEASE) != 0;
	bytes.input = pieces.input = input;
	bytes.size = pieces.size = whole.size;
	bytes.whole = pieces.whole = whole.whole;
	bytes.release = pieces.release = whole.release;
	run_input(&whole, CUT_NOT, 0);
	run_input(&bytes, CUT_BYTES, 0);
	run_input(&pieces, CUT_PIECES, mode);
	check_same(&whole, &bytes);
	check_same(&whole, &pieces);
	free(input);
	return 0;
}
