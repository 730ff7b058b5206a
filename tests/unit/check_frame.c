/* SPDX-License-Identifier: ISC */
/*
 * check_frame: the exact bytes of events and records.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"

/* Frames a payload in memory of exactly the computed size, and compares. */
static void
expect_bytes(const char *payload, size_t length, const char *frame, size_t frame_length)
{
	size_t size = frame_event_size(payload, length);
	char *out = malloc(size);

	ck_assert_ptr_nonnull(out);
	ck_assert_uint_eq(size, frame_length);
	ck_assert_uint_eq(frame_event(out, payload, length), size);
	ck_assert_mem_eq(out, frame, size);
	free(out);
}

static void
expect(const char *payload, const char *frame)
{
	expect_bytes(payload, strlen(payload), frame, strlen(frame));
}

/* A payload of one line is sent byte for byte. */
START_TEST(one_line)
{
	expect("{\"event\":\"sync\"}", "data: {\"event\":\"sync\"}\n\n");
	expect(" {\"a\":\"\xc3\xa4\"}\t", "data:  {\"a\":\"\xc3\xa4\"}\t\n\n");
	expect("x", "data: x\n\n");
	expect("", "data: \n\n");
}
END_TEST

/* Each kind of line break begins a new "data:" line and is not sent itself. */
START_TEST(line_breaks)
{
	expect("a\nb", "data: a\ndata: b\n\n");
	expect("a\rb", "data: a\ndata: b\n\n");
	expect("a\r\nb", "data: a\ndata: b\n\n");
	expect("a\n\nb", "data: a\ndata: \ndata: b\n\n");
	expect("a\n\rb", "data: a\ndata: \ndata: b\n\n");
	expect("a\r\r\nb", "data: a\ndata: \ndata: b\n\n");
}
END_TEST

/* Line breaks at both ends are kept, too, so the browser's data equals the payload. */
START_TEST(line_breaks_at_the_ends)
{
	expect("\na", "data: \ndata: a\n\n");
	expect("a\n", "data: a\ndata: \n\n");
	expect("a\r", "data: a\ndata: \n\n");
	expect("a\r\n", "data: a\ndata: \n\n");
	expect("\r\n", "data: \ndata: \n\n");
}
END_TEST

/* No payload can inject a field or an event. */
START_TEST(no_forgery)
{
	expect("x\n\nevent: evicted\nid: evicted\rretry: 1",
	    "data: x\ndata: \ndata: event: evicted\ndata: id: evicted\ndata: retry: 1\n\n");
}
END_TEST

/* A payload has the length that is passed: it can contain a NUL and need not be terminated. */
START_TEST(length_counts)
{
	expect_bytes("a\0b", 3, "data: a\0b\n\n", 11);
	expect_bytes("a\r\nb", 2, "data: a\ndata: \n\n", 16);
	expect_bytes("abc", 1, "data: a\n\n", 9);
}
END_TEST

/* Any text of line breaks and letters, decoded as a browser does, gives its lines. */
START_TEST(decodes_to_its_lines)
{
	static const char letters[] = "\r\nx";
	char payload[7], frame[128], decoded[16], expected[16];

	for (int n = 0; n < 2187; n++) { /* 3 to the power of 7 */
		size_t used = 0, want = 0, size;

		for (int i = 0, rest = n; i < 7; i++, rest /= 3)
			payload[i] = letters[rest % 3];
		for (int i = 0; i < 7; i++) {
			if (payload[i] == '\n' && i > 0 && payload[i - 1] == '\r')
				continue;
			expected[want++] = payload[i] == '\r' ? '\n' : payload[i];
		}
		size = frame_event(frame, payload, 7);
		ck_assert_ptr_null(memchr(frame, '\r', size));
		for (size_t i = 0; i + 1 < size;) {
			ck_assert_mem_eq(frame + i, "data: ", 6);
			for (i += 6; frame[i] != '\n'; i++)
				decoded[used++] = frame[i];
			decoded[used++] = frame[i++];
		}
		ck_assert_int_eq(frame[size - 1], '\n');
		used--; /* a browser removes the last line break */
		ck_assert_uint_eq(used, want);
		ck_assert_mem_eq(decoded, expected, want);
	}
}
END_TEST

/* The header of a record has version 1, both numbers in network byte order, and no padding. */
START_TEST(record_header)
{
	static const uint8_t expected[] = { 1, FCGI_STDOUT, 0x12, 0x34, 0xff, 0xf8, 0, 0 };
	static const uint8_t largest[] = { 1, FCGI_STDOUT, 0, 1, 0xff, 0xff, 0, 0 };
	uint8_t out[FCGI_HEADER_LEN];

	memset(out, 0xee, sizeof(out));
	ck_assert_uint_eq(frame_record(out, FCGI_STDOUT, 0x1234, FRAME_RECORD_MAX), sizeof(out));
	ck_assert_mem_eq(out, expected, sizeof(out));
	frame_record(out, FCGI_STDOUT, 1, 65535);
	ck_assert_mem_eq(out, largest, sizeof(out));
	ck_assert_int_eq(FRAME_RECORD_MAX % 8, 0);
}
END_TEST

/* A text becomes STDOUT records, each as large as possible; an empty one becomes none. */
START_TEST(stdout_records)
{
	static const size_t lengths[] = { 0, 1, 7, FRAME_RECORD_MAX - 1, FRAME_RECORD_MAX,
		FRAME_RECORD_MAX + 1, 2 * FRAME_RECORD_MAX, 200000 };
	static char text[200000];
	uint8_t header[FCGI_HEADER_LEN], *out;
	size_t size, at, done, n;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i % 251);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		size = frame_stdout_size(lengths[i]);
		out = malloc(size + 1);
		ck_assert_ptr_nonnull(out);
		out[size] = 0xee;
		ck_assert_uint_eq(frame_stdout(out, 515, text, lengths[i]), size);
		ck_assert_uint_eq(out[size], 0xee);
		for (at = done = 0; at < size; at += FCGI_HEADER_LEN + n, done += n) {
			n = lengths[i] - done < FRAME_RECORD_MAX ? lengths[i] - done : FRAME_RECORD_MAX;
			ck_assert_uint_gt(n, 0);
			frame_record(header, FCGI_STDOUT, 515, n);
			ck_assert_mem_eq(out + at, header, sizeof(header));
			ck_assert_mem_eq(out + at + FCGI_HEADER_LEN, text + done, n);
		}
		ck_assert_uint_eq(done, lengths[i]);
		free(out);
	}
}
END_TEST

/* END_REQUEST has the protocol status and application status 0. */
START_TEST(end_request)
{
	static const uint8_t expected[] = { 1, FCGI_END_REQUEST, 0, 2, 0, 8, 0, 0,
		0, 0, 0, 0, FCGI_UNKNOWN_ROLE, 0, 0, 0 };
	uint8_t out[sizeof(expected)];

	memset(out, 0xee, sizeof(out));
	ck_assert_uint_eq(frame_end_request(out, 2, FCGI_UNKNOWN_ROLE), sizeof(out));
	ck_assert_mem_eq(out, expected, sizeof(out));
}
END_TEST

/* The end of a request is an empty STDOUT record and END_REQUEST with FCGI_REQUEST_COMPLETE. */
START_TEST(end)
{
	static const uint8_t expected[] = { 1, FCGI_STDOUT, 1, 0, 0, 0, 0, 0,
		1, FCGI_END_REQUEST, 1, 0, 0, 8, 0, 0, 0, 0, 0, 0, FCGI_REQUEST_COMPLETE, 0, 0, 0 };
	uint8_t out[FRAME_END_SIZE];

	memset(out, 0xee, sizeof(out));
	ck_assert_uint_eq(frame_end(out, 256), FRAME_END_SIZE);
	ck_assert_uint_eq(sizeof(expected), FRAME_END_SIZE);
	ck_assert_mem_eq(out, expected, sizeof(out));
}
END_TEST

/* The label's line, and its longest form. */
START_TEST(labels)
{
	char out[FRAME_LABEL_MAX];

	ck_assert_uint_eq(frame_label(out, "issues:7"), 16);
	ck_assert_mem_eq(out, "event: issues:7\n", 16);
	ck_assert_uint_eq(frame_label(out, "projectMilestones:2147483647"), 36);
	ck_assert_mem_eq(out, "event: projectMilestones:2147483647\n", 36);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("frame");
	TCase *tc = tcase_create("frame");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, one_line);
	tcase_add_test(tc, labels);
	tcase_add_test(tc, line_breaks);
	tcase_add_test(tc, line_breaks_at_the_ends);
	tcase_add_test(tc, no_forgery);
	tcase_add_test(tc, length_counts);
	tcase_add_test(tc, decodes_to_its_lines);
	tcase_add_test(tc, record_header);
	tcase_add_test(tc, stdout_records);
	tcase_add_test(tc, end_request);
	tcase_add_test(tc, end);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
