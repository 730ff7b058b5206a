/* SPDX-License-Identifier: ISC */
/*
 * check_request: the requests that libfcgi decodes from a checked head.
 *
 * request.c uses fields of FCGX_Request that the library declares internal: these tests fail if
 * another version of it decodes, closes or frees anything else.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/frame.h"
#include "fcgi/request.h"

/* A complete head without parameters. */
static void
head_init(struct head *head, uint16_t id)
{
	memset(head, 0, sizeof(*head));
	head->id = id;
	head->params = malloc(HEAD_PARAMS_MAX);
	ck_assert_ptr_nonnull(head->params);
}

static void
add_length(struct head *head, size_t length)
{
	uint8_t *p = head->params + head->params_length;

	if (length < 0x80) {
		p[0] = (uint8_t)length;
		head->params_length++;
		return;
	}
	p[0] = (uint8_t)(0x80 | length >> 24);
	p[1] = (uint8_t)(length >> 16);
	p[2] = (uint8_t)(length >> 8);
	p[3] = (uint8_t)length;
	head->params_length += 4;
}

static void
add_bytes(struct head *head, const char *name, const char *value, size_t value_length)
{
	size_t length = strlen(name);

	ck_assert_uint_le(head->params_length + 8 + length + value_length, HEAD_PARAMS_MAX + 8);
	add_length(head, length);
	add_length(head, value_length);
	memcpy(head->params + head->params_length, name, length);
	head->params_length += length;
	memcpy(head->params + head->params_length, value, value_length);
	head->params_length += value_length;
}

static void
add(struct head *head, const char *name, const char *value)
{
	add_bytes(head, name, value, strlen(value));
}

/* Parses the head, then frees it, as the daemon does. */
static void
parse(struct request *r, struct head *head)
{
	ck_assert_int_eq(request_parse(r, head), 0);
	head_release(head);
}

/* The parameters that were sent; the library adds one before them. */
static char *const *
sent_params(const struct request *r)
{
	ck_assert_str_eq(request_params(r)[0], "FCGI_ROLE=RESPONDER");
	return request_params(r) + 1;
}

static int
open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

/* Every parameter is decoded unchanged and in its order, whatever bytes it has. */
START_TEST(parameters)
{
	char every[255], expected[300];
	struct head head;
	struct request r;
	char *const *p;

	for (int i = 0; i < 255; i++)
		every[i] = (char)(i + 1);
	head_init(&head, 1);
	add(&head, "REQUEST_METHOD", "GET");
	add(&head, "QUERY_STRING", "projectIds=7%2C8&x=%zz+");
	add(&head, "SCRIPT_NAME", "/api");
	add(&head, "PATH_INFO", "/issues/stream");
	add(&head, "HTTP_LAST_EVENT_ID", "evicted");
	add(&head, "EMPTY", "");
	add(&head, "EQUALS", "=a=b=");
	add_bytes(&head, "EVERY", every, sizeof(every));
	add(&head, "EQUALS", "again");
	add(&head, "name with space and \303\244", "v");
	parse(&r, &head);
	ck_assert_str_eq(r.method, "GET");
	ck_assert_str_eq(r.query, "projectIds=7%2C8&x=%zz+");
	ck_assert_str_eq(r.path, "/api/issues/stream");
	ck_assert_str_eq(r.last_event_id, "evicted");
	p = sent_params(&r);
	ck_assert_str_eq(p[0], "REQUEST_METHOD=GET");
	ck_assert_str_eq(p[5], "EMPTY=");
	ck_assert_str_eq(p[6], "EQUALS==a=b=");
	snprintf(expected, sizeof(expected), "EVERY=%.255s", every);
	ck_assert_str_eq(p[7], expected);
	ck_assert_str_eq(p[8], "EQUALS=again");
	ck_assert_str_eq(p[9], "name with space and \303\244=v");
	ck_assert_ptr_null(p[10]);
	request_free(&r);
}
END_TEST

/* Absent parameters are "", and the path is SCRIPT_NAME and PATH_INFO together, or one of them. */
START_TEST(absent_parameters)
{
	struct head head;
	struct request r;

	head_init(&head, 1);
	parse(&r, &head);
	ck_assert_str_eq(r.method, "");
	ck_assert_str_eq(r.query, "");
	ck_assert_str_eq(r.path, "");
	ck_assert_str_eq(r.last_event_id, "");
	ck_assert_ptr_null(sent_params(&r)[0]);
	request_free(&r);

	head_init(&head, 1);
	add(&head, "SCRIPT_NAME", "/api/issues/stream");
	parse(&r, &head);
	ck_assert_str_eq(r.path, "/api/issues/stream");
	request_free(&r);

	head_init(&head, 1);
	add(&head, "PATH_INFO", "/b");
	add(&head, "SCRIPT_NAME", "");
	parse(&r, &head);
	ck_assert_str_eq(r.path, "/b");
	request_free(&r);
}
END_TEST

/* Names and values have lengths around 128, where FastCGI encodes a length in four bytes, not one. */
START_TEST(lengths)
{
	static const size_t sizes[] = { 0, 1, 126, 127, 128, 129, 255, 256, 1000 };
	const size_t count = sizeof(sizes) / sizeof(sizes[0]);
	char name[1001], value[1001], expected[2010];
	struct head head;
	struct request r;

	memset(name, 'N', sizeof(name));
	memset(value, 'v', sizeof(value));
	head_init(&head, 1);
	for (size_t i = 1; i < count; i++) {
		for (size_t k = 0; k < count; k++) {
			name[sizes[i]] = value[sizes[k]] = '\0';
			add(&head, name, value);
			name[sizes[i]] = 'N';
			value[sizes[k]] = 'v';
		}
	}
	parse(&r, &head);
	for (size_t i = 1; i < count; i++) {
		for (size_t k = 0; k < count; k++) {
			snprintf(expected, sizeof(expected), "%.*s=%.*s", (int)sizes[i],
			    name, (int)sizes[k], value);
			ck_assert_str_eq(sent_params(&r)[(i - 1) * count + k], expected);
		}
	}
	ck_assert_ptr_null(sent_params(&r)[(count - 1) * count]);
	request_free(&r);
}
END_TEST

/* The largest head, 65536 bytes, is decoded completely: with 3000 parameters, and with one. */
START_TEST(largest)
{
	char name[16], value[32], expected[64], *large;
	struct head head;
	struct request r;

	head_init(&head, 1);
	for (int i = 0; i < 2999; i++) {
		snprintf(name, sizeof(name), "P%04d", i);
		snprintf(value, sizeof(value), "value-%08d", i * 7919);
		add(&head, name, value);
	}
	large = calloc(1, HEAD_PARAMS_MAX);
	memset(large, 'x', HEAD_PARAMS_MAX - head.params_length - 2 - 4 - 3);
	add(&head, "LAST", large);
	ck_assert_uint_eq(head.params_length, HEAD_PARAMS_MAX);
	parse(&r, &head);
	for (int i = 0; i < 2999; i++) {
		snprintf(expected, sizeof(expected), "P%04d=value-%08d", i, i * 7919);
		ck_assert_str_eq(sent_params(&r)[i], expected);
	}
	ck_assert_str_eq(params_get(request_params(&r), "LAST", NULL), large);
	ck_assert_str_eq(params_get(request_params(&r), "P2998", NULL), "value-23741162");
	ck_assert_ptr_null(sent_params(&r)[3000]);
	request_free(&r);

	memset(large, 'y', HEAD_PARAMS_MAX - 6);
	large[HEAD_PARAMS_MAX - 6] = '\0';
	head_init(&head, 1);
	add(&head, "L", large);
	ck_assert_uint_eq(head.params_length, HEAD_PARAMS_MAX);
	parse(&r, &head);
	ck_assert_str_eq(params_get(request_params(&r), "L", NULL), large);
	ck_assert_ptr_null(sent_params(&r)[1]);
	request_free(&r);
	free(large);
}
END_TEST

/*
 * params_get() returns the first value of the exact name; *conflict is set by two different values,
 * and never cleared.
 */
START_TEST(get)
{
	char *const params[] = { (char[]){ "AB=1" }, (char[]){ "A=" }, (char[]){ "B=x=y" },
		(char[]){ "C=1" }, (char[]){ "A=2" }, (char[]){ "C=1" }, (char[]){ "ABC" }, NULL };
	bool conflict = false;

	ck_assert_str_eq(params_get(params, "AB", &conflict), "1");
	ck_assert_str_eq(params_get(params, "B", &conflict), "x=y");
	ck_assert_str_eq(params_get(params, "C", &conflict), "1");
	ck_assert_ptr_null(params_get(params, "D", &conflict));
	ck_assert_ptr_null(params_get(params, "ABC", &conflict));
	ck_assert_ptr_null(params_get(params, "a", &conflict));
	ck_assert(!conflict);
	ck_assert_str_eq(params_get(params, "A", NULL), "");
	ck_assert_str_eq(params_get(params, "A", &conflict), "");
	ck_assert(conflict);
	ck_assert_str_eq(params_get(params, "C", &conflict), "1");
	ck_assert(conflict);
}
END_TEST

/* The first request leaves a socket pair for the next one. */
static void
warm_up(void)
{
	struct head head;
	struct request r;

	head_init(&head, 1);
	parse(&r, &head);
	request_free(&r);
}

/* 1000 requests leak no descriptor, and close none that is not the library's. */
START_TEST(descriptors)
{
	int other = open("/dev/null", O_RDONLY | O_CLOEXEC), before;
	struct head head;
	struct request r;

	warm_up();
	before = open_descriptors();
	for (int i = 0; i < 1000; i++) {
		head_init(&head, 1);
		add(&head, "SCRIPT_NAME", "/x");
		parse(&r, &head);
		request_free(&r);
		request_free(&r);
	}
	ck_assert_int_eq(open_descriptors(), before);
	ck_assert_int_ne(fcntl(other, F_GETFD), -1);
	close(other);
}
END_TEST

/*
 * Without a free descriptor the first request_parse() returns the error, and leaks nothing. Later
 * ones need none.
 */
START_TEST(out_of_descriptors)
{
	struct rlimit old, none = { 0, 0 };
	struct head head;
	struct request r;
	int before = open_descriptors();

	head_init(&head, 1);
	add(&head, "SCRIPT_NAME", "/x");
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	none.rlim_max = old.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	ck_assert_int_eq(request_parse(&r, &head), EMFILE);
	request_free(&r);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(open_descriptors(), before);
	parse(&r, &head);
	ck_assert_str_eq(r.path, "/x");
	request_free(&r);

	/* Now there is a socket pair, so none is needed. */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	parse(&r, &head);
	request_free(&r);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
}
END_TEST

/* What is left in a kept socket pair never becomes part of the next request. */
START_TEST(stray_bytes)
{
	struct head head;
	struct request r;
	int sent = 0;

	warm_up();
	for (int fd = 3; fd < 256; fd++)
		sent += send(fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
	ck_assert_int_eq(sent, 2); /* both ends */
	head_init(&head, 1);
	add(&head, "SCRIPT_NAME", "/x");
	parse(&r, &head);
	ck_assert_str_eq(r.path, "/x");
	request_free(&r);
}
END_TEST

/* A zeroed struct can be freed. */
START_TEST(free_of_nothing)
{
	struct request r = { 0 };

	request_free(&r);
	request_free(&r);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("request");
	TCase *tc = tcase_create("request");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, request_library_init, NULL);
	tcase_add_test(tc, parameters);
	tcase_add_test(tc, absent_parameters);
	tcase_add_test(tc, lengths);
	tcase_add_test(tc, largest);
	tcase_add_test(tc, get);
	tcase_add_test(tc, descriptors);
	tcase_add_test(tc, out_of_descriptors);
	tcase_add_test(tc, stray_bytes);
	tcase_add_test(tc, free_of_nothing);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
