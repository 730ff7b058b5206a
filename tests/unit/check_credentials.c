/* SPDX-License-Identifier: ISC */
/*
 * check_credentials: which header lines of a query follow from the parameters of a request. Each row
 * is a request, and the expected lines, each with '|' at its end.
 */
#include <check.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/credentials.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define PARAMS_MAX   8

struct row {
	const char *params[PARAMS_MAX];
	const char *lines; /* NULL: CREDENTIALS_NONE */
};

static struct credentials *
read_params(const char *const *given, enum credentials_result expected)
{
	char *params[PARAMS_MAX + 1] = { NULL };
	struct credentials *c = (struct credentials *)&params;
	enum credentials_result result;

	/* Copies of exactly their size: a sanitizer finds reads beyond them. */
	for (int i = 0; i < PARAMS_MAX && given[i] != NULL; i++)
		params[i] = strdup(given[i]);
	result = credentials_read(params, &c);
	ck_assert_msg(result == expected, "%s: %d, not %d", given[0] != NULL ? given[0] : "",
	    (int)result, (int)expected);
	ck_assert_int_eq(c != NULL, result == CREDENTIALS_FOUND);
	for (int i = 0; i < PARAMS_MAX; i++)
		free(params[i]);
	return c;
}

/* The lines, each with '|' at its end; the caller frees them. */
static char *
lines_of(const struct credentials *c)
{
	char *lines = malloc(c->size + 1);

	ck_assert_ptr_nonnull(lines);
	ck_assert_int_eq(c->lines[c->size - 1], '\0');
	for (size_t i = 0; i < c->size; i++)
		lines[i] = c->lines[i] != '\0' ? c->lines[i] : '|';
	lines[c->size] = '\0';
	return lines;
}

static void
expect_rows(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct credentials *c = read_params(rows[i].params,
		    rows[i].lines != NULL ? CREDENTIALS_FOUND : CREDENTIALS_NONE);
		char *lines;

		if (c == NULL)
			continue;
		lines = lines_of(c);
		ck_assert_msg(strcmp(lines, rows[i].lines) == 0, "row %zu: %s, not %s", i, lines,
		    rows[i].lines);
		ck_assert_int_eq(c->references, 1);
		free(lines);
		credentials_release(c);
	}
}

#define EXPECT(...)                                                                               \
	do {                                                                                      \
		static const struct row rows[] = { __VA_ARGS__ };                                 \
		expect_rows(rows, COUNT(rows));                                                   \
	} while (0)

/* Cookie and Authorization are forwarded unchanged, and no other header of the browser. */
START_TEST(forwarded_lines)
{
	EXPECT(
	    { { "HTTP_COOKIE=a=1" }, "Cookie: a=1|" },
	    { { "HTTP_COOKIE=next-auth.session-token=x; b=\"2\"" },
		"Cookie: next-auth.session-token=x; b=\"2\"|" },
	    { { "HTTP_AUTHORIZATION=Bearer x" }, "Authorization: Bearer x|" },
	    { { "HTTP_AUTHORIZATION=Bearer x", "HTTP_COOKIE=a=1" },
		"Cookie: a=1|Authorization: Bearer x|" },
	    { { "HTTP_COOKIE=\xc3\xa4 ~" }, "Cookie: \xc3\xa4 ~|" },
	    { { "HTTP_COOKIE=a=1", "HTTP_USER_AGENT=x", "HTTP_ACCEPT=y", "HTTP_ORIGIN=z",
		  "HTTP_X_API_KEY=k", "HTTP_PROXY=p", "CONTENT_LENGTH=7", "QUERY_STRING=a=2" },
		"Cookie: a=1|" });
}
END_TEST

/* Parameters whose names are only similar are ignored. */
START_TEST(other_names)
{
	EXPECT(
	    { { "HTTP_COOKIE2=a", "XHTTP_COOKIE=a", "HTTP_COOKI=a", "http_cookie=a", "COOKIE=a",
		  "HTTP_AUTHORIZATION_=a", "AUTHORIZATION=a", "HTTP_PROXY_AUTHORIZATION=a" },
		NULL },
	    { { "HTTP_COOKIE=a=1", "X_HTTP_X_FORWARDED_FOR=1", "HTTP_X_FORWARDED_FOR2=2",
		  "HTTP_X_FORWARDED=3", "HTTP_FORWARDED=4", "REMOTE_ADDR2=5", "SERVER_NAME=6" },
		"Cookie: a=1|" });
}
END_TEST

/* Several Cookie parameters are joined into one line, in their order, without empty ones. */
START_TEST(several_cookies)
{
	EXPECT(
	    { { "HTTP_COOKIE=a=1", "HTTP_COOKIE=b=2" }, "Cookie: a=1; b=2|" },
	    { { "HTTP_COOKIE=b=2", "X=y", "HTTP_COOKIE=a=1; c=3", "HTTP_COOKIE=b=2" },
		"Cookie: b=2; a=1; c=3; b=2|" },
	    { { "HTTP_COOKIE=", "HTTP_COOKIE=a=1", "HTTP_COOKIE=", "HTTP_COOKIE=b=2",
		  "HTTP_COOKIE=" },
		"Cookie: a=1; b=2|" },
	    { { "HTTP_COOKIE=", "HTTP_AUTHORIZATION=x" }, "Authorization: x|" });
}
END_TEST

/* Without a cookie and an authorization, or with empty ones only, there are no credentials. */
START_TEST(none)
{
	EXPECT(
	    { { NULL }, NULL },
	    { { "HTTP_COOKIE=" }, NULL },
	    { { "HTTP_COOKIE=", "HTTP_COOKIE=", "HTTP_AUTHORIZATION=" }, NULL },
	    { { "REMOTE_ADDR=1.2.3.4", "HTTPS=on", "HTTP_HOST=h", "HTTP_X_FORWARDED_FOR=1" },
		NULL });
}
END_TEST

/* Two equal Authorization parameters count as one; two different ones are no credentials. */
START_TEST(authorizations)
{
	EXPECT(
	    { { "HTTP_AUTHORIZATION=Bearer x", "HTTP_AUTHORIZATION=Bearer x" },
		"Authorization: Bearer x|" },
	    { { "HTTP_AUTHORIZATION=Bearer x", "HTTP_AUTHORIZATION=Bearer y" }, NULL },
	    { { "HTTP_AUTHORIZATION=Bearer x", "HTTP_AUTHORIZATION=" }, NULL },
	    { { "HTTP_AUTHORIZATION=", "HTTP_AUTHORIZATION=Bearer x" }, NULL },
	    { { "HTTP_COOKIE=a=1", "HTTP_AUTHORIZATION=x", "HTTP_AUTHORIZATION=y" }, NULL },
	    { { "HTTP_COOKIE=a=1", "HTTP_AUTHORIZATION=" }, "Cookie: a=1|" });
}
END_TEST

/* Credentials with a control character are none, so none can add a header line. */
START_TEST(control_characters)
{
	static const char *const names[] = { "HTTP_COOKIE", "HTTP_AUTHORIZATION" };

	for (int c = 1; c < 256; c++) {
		bool control = c < ' ' || c == 0x7f;
		char bad[64];

		for (size_t i = 0; i < COUNT(names); i++) {
			const char *alone[PARAMS_MAX] = { bad };
			const char *second[PARAMS_MAX] = { "HTTP_COOKIE=a=1", bad };
			const char *first[PARAMS_MAX] = { bad, "HTTP_COOKIE=a=1" };
			enum credentials_result expected =
			    control ? CREDENTIALS_NONE : CREDENTIALS_FOUND;

			snprintf(bad, sizeof(bad), "%s=x%cX-Forwarded-For: 1", names[i], c);
			credentials_release(read_params(alone, expected));
			credentials_release(read_params(second, expected));
			credentials_release(read_params(first, expected));
			snprintf(bad, sizeof(bad), "%s=%c", names[i], c);
			credentials_release(read_params(second, expected));
			snprintf(bad, sizeof(bad), "%s=x%c", names[i], c);
			credentials_release(read_params(second, expected));
		}
	}
	EXPECT({ { "HTTP_COOKIE=a=1\r\nCookie: b=2", "HTTP_AUTHORIZATION=x" }, NULL },
	    { { "HTTP_COOKIE=a=1", "HTTP_AUTHORIZATION=x\r\nHost: evil" }, NULL });
}
END_TEST

/* The X-Forwarded lines come from the web server's parameters, or from those that a proxy sent it. */
START_TEST(forwarded)
{
	EXPECT(
	    { { "HTTP_COOKIE=a", "REMOTE_ADDR=1.2.3.4" }, "Cookie: a|X-Forwarded-For: 1.2.3.4|" },
	    { { "HTTP_COOKIE=a", "HTTP_X_FORWARDED_FOR=9.9.9.9" },
		"Cookie: a|X-Forwarded-For: 9.9.9.9|" },
	    { { "HTTP_COOKIE=a", "REMOTE_ADDR=1.2.3.4", "HTTP_X_FORWARDED_FOR=9.9.9.9, 8.8.8.8" },
		"Cookie: a|X-Forwarded-For: 9.9.9.9, 8.8.8.8, 1.2.3.4|" },
	    { { "HTTP_COOKIE=a", "REMOTE_ADDR=", "HTTP_X_FORWARDED_FOR=" }, "Cookie: a|" },
	    { { "HTTP_COOKIE=a", "REMOTE_ADDR=::1", "HTTP_X_FORWARDED_FOR=" },
		"Cookie: a|X-Forwarded-For: ::1|" },

	    { { "HTTP_COOKIE=a", "HTTPS=on" }, "Cookie: a|X-Forwarded-Proto: https|" },
	    { { "HTTP_COOKIE=a", "HTTPS=1" }, "Cookie: a|X-Forwarded-Proto: https|" },
	    { { "HTTP_COOKIE=a", "HTTPS=off" }, "Cookie: a|" },
	    { { "HTTP_COOKIE=a", "HTTPS=" }, "Cookie: a|" },
	    { { "HTTP_COOKIE=a", "REQUEST_SCHEME=http" }, "Cookie: a|X-Forwarded-Proto: http|" },
	    { { "HTTP_COOKIE=a", "HTTPS=off", "REQUEST_SCHEME=http" },
		"Cookie: a|X-Forwarded-Proto: http|" },
	    { { "HTTP_COOKIE=a", "HTTPS=on", "REQUEST_SCHEME=http" },
		"Cookie: a|X-Forwarded-Proto: https|" },
	    { { "HTTP_COOKIE=a", "HTTPS=", "REQUEST_SCHEME=https" },
		"Cookie: a|X-Forwarded-Proto: https|" },
	    { { "HTTP_COOKIE=a", "HTTPS=on", "HTTP_X_FORWARDED_PROTO=http" },
		"Cookie: a|X-Forwarded-Proto: http|" },
	    { { "HTTP_COOKIE=a", "HTTP_X_FORWARDED_PROTO=https", "REQUEST_SCHEME=http" },
		"Cookie: a|X-Forwarded-Proto: https|" },
	    { { "HTTP_COOKIE=a", "HTTP_X_FORWARDED_PROTO=", "HTTPS=on" },
		"Cookie: a|X-Forwarded-Proto: https|" },

	    { { "HTTP_COOKIE=a", "HTTP_HOST=h:8080" }, "Cookie: a|X-Forwarded-Host: h:8080|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_X_FORWARDED_HOST=tpi.example.com" },
		"Cookie: a|X-Forwarded-Host: tpi.example.com|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_X_FORWARDED_HOST=" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=" }, "Cookie: a|" },

	    { { "HTTP_X_FORWARDED_HOST=h", "HTTPS=on", "HTTP_AUTHORIZATION=x",
		  "HTTP_X_FORWARDED_FOR=9.9.9.9", "HTTP_COOKIE=a", "REMOTE_ADDR=1.2.3.4",
		  "HTTP_HOST=i", "REQUEST_SCHEME=http" },
		"Cookie: a|Authorization: x|X-Forwarded-For: 9.9.9.9, 1.2.3.4|"
		"X-Forwarded-Proto: https|X-Forwarded-Host: h|" });
}
END_TEST

/* A forwarded value with a control character is ignored; the credentials stay valid. */
START_TEST(forwarded_control_characters)
{
	EXPECT(
	    { { "HTTP_COOKIE=a", "REMOTE_ADDR=1.2.3.4", "HTTP_X_FORWARDED_FOR=9\r\nCookie: b" },
		"Cookie: a|X-Forwarded-For: 1.2.3.4|" },
	    { { "HTTP_COOKIE=a", "REMOTE_ADDR=1\n", "HTTP_X_FORWARDED_FOR=9" },
		"Cookie: a|X-Forwarded-For: 9|" },
	    { { "HTTP_COOKIE=a", "HTTPS=on", "HTTP_X_FORWARDED_PROTO=http\n" },
		"Cookie: a|X-Forwarded-Proto: https|" },
	    { { "HTTP_COOKIE=a", "HTTPS=\n", "REQUEST_SCHEME=http\x7f" }, "Cookie: a|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_X_FORWARDED_HOST=\001" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h\t" }, "Cookie: a|" });
}
END_TEST

/* Sec-Fetch-Site is forwarded as the browser sent it, whatever Origin and Referer are. */
START_TEST(sec_fetch_site)
{
	EXPECT(
	    { { "HTTP_COOKIE=a", "HTTP_SEC_FETCH_SITE=same-origin" },
		"Cookie: a|Sec-Fetch-Site: same-origin|" },
	    { { "HTTP_COOKIE=a", "HTTP_SEC_FETCH_SITE=same-site" },
		"Cookie: a|Sec-Fetch-Site: same-site|" },
	    { { "HTTP_COOKIE=a", "HTTP_SEC_FETCH_SITE=none" }, "Cookie: a|Sec-Fetch-Site: none|" },
	    { { "HTTP_AUTHORIZATION=x", "HTTP_SEC_FETCH_SITE=Other" },
		"Authorization: x|Sec-Fetch-Site: Other|" },
	    { { "HTTP_COOKIE=a", "HTTP_SEC_FETCH_SITE=cross-site", "HTTP_HOST=h",
		  "HTTP_ORIGIN=http://h", "HTTP_REFERER=http://h/" },
		"Cookie: a|X-Forwarded-Host: h|Sec-Fetch-Site: cross-site|" },
	    { { "HTTP_COOKIE=a", "HTTP_SEC_FETCH_SITE=none", "HTTP_SEC_FETCH_SITE=none" },
		"Cookie: a|Sec-Fetch-Site: none|" },
	    { { "HTTP_SEC_FETCH_SITE=same-origin" }, NULL });
}
END_TEST

/* credentials_site() returns the value of that line, and is not misled by values that look like it. */
START_TEST(site)
{
	static const char *const rows[][PARAMS_MAX] = {
		{ "HTTP_COOKIE=a", "HTTP_SEC_FETCH_SITE=none" },
		{ "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_ORIGIN=http://h" },
		{ "HTTP_COOKIE=Sec-Fetch-Site: none", "HTTP_AUTHORIZATION=Sec-Fetch-Site: none" },
	};
	static const char *const sites[] = { "none", "same-origin", NULL };

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct credentials *c = read_params(rows[i], CREDENTIALS_FOUND);

		ck_assert_pstr_eq(credentials_site(c), sites[i]);
		credentials_release(c);
	}
}
END_TEST

/* Without Sec-Fetch-Site, an Origin or Referer of the request's own Host makes it same-origin. */
START_TEST(sec_fetch_site_derived)
{
	EXPECT(
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h:8080", "HTTP_ORIGIN=http://h:8080" },
		"Cookie: a|X-Forwarded-Host: h:8080|Sec-Fetch-Site: same-origin|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_REFERER=http://H:80/en-US/projects?x#y" },
		"Cookie: a|X-Forwarded-Host: h|Sec-Fetch-Site: same-origin|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_ORIGIN=", "HTTP_REFERER=http://h/" },
		"Cookie: a|X-Forwarded-Host: h|Sec-Fetch-Site: same-origin|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_ORIGIN=http://h", "HTTP_REFERER=" },
		"Cookie: a|X-Forwarded-Host: h|Sec-Fetch-Site: same-origin|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_ORIGIN=null", "HTTP_REFERER=http://h/" },
		"Cookie: a|X-Forwarded-Host: h|Sec-Fetch-Site: same-origin|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_SEC_FETCH_SITE=",
		  "HTTP_REFERER=http://h/" },
		"Cookie: a|X-Forwarded-Host: h|Sec-Fetch-Site: same-origin|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_REFERER=http://h/",
		  "HTTP_REFERER=http://h/" },
		"Cookie: a|X-Forwarded-Host: h|Sec-Fetch-Site: same-origin|" },
	    /* The Host of the request is compared, not X-Forwarded-Host. */
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_X_FORWARDED_HOST=i",
		  "HTTP_ORIGIN=http://h" },
		"Cookie: a|X-Forwarded-Host: i|Sec-Fetch-Site: same-origin|" },
	    { { "HTTP_AUTHORIZATION=x", "HTTP_HOST=h", "HTTP_ORIGIN=http://h" },
		"Authorization: x|X-Forwarded-Host: h|Sec-Fetch-Site: same-origin|" });
}
END_TEST

/* It is not derived for another site's page, for a script, or from contradictory headers. */
START_TEST(sec_fetch_site_not_derived)
{
	EXPECT(
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h" }, "Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_ORIGIN=http://evil" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_REFERER=http://evil/http://h/" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_ORIGIN=null" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_X_FORWARDED_HOST=i",
		  "HTTP_ORIGIN=http://i" },
		"Cookie: a|X-Forwarded-Host: i|" },
	    { { "HTTP_COOKIE=a", "SERVER_NAME=h", "HTTP_ORIGIN=http://h" }, "Cookie: a|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=", "HTTP_ORIGIN=http://" }, "Cookie: a|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_HOST=i", "HTTP_ORIGIN=http://h" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_REFERER=http://h/",
		  "HTTP_REFERER=http://evil/" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_ORIGIN=http://evil",
		  "HTTP_ORIGIN=http://h" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h\t", "HTTP_ORIGIN=http://h\t" }, "Cookie: a|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_ORIGIN=http://h\n" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_REFERER=http://h/\r\nx" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    /* A malformed Sec-Fetch-Site, or two that differ, do not count as absent. */
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_SEC_FETCH_SITE=cross-site\nX: y",
		  "HTTP_ORIGIN=http://h" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_SEC_FETCH_SITE=cross-site",
		  "HTTP_SEC_FETCH_SITE=same-origin", "HTTP_ORIGIN=http://h" },
		"Cookie: a|X-Forwarded-Host: h|" },
	    { { "HTTP_COOKIE=a", "HTTP_HOST=h", "HTTP_SEC_FETCH_SITE=",
		  "HTTP_SEC_FETCH_SITE=cross-site", "HTTP_ORIGIN=http://h" },
		"Cookie: a|X-Forwarded-Host: h|" });
}
END_TEST

/* Requests have the same digest if and only if they have the same lines. */
START_TEST(digests)
{
	static const char *const requests[][PARAMS_MAX] = {
		{ "HTTP_COOKIE=a=1" },
		{ "X=y", "HTTP_COOKIE=a=1", "HTTP_COOKIE=", "HTTP_AUTHORIZATION=" },
		{ "HTTP_COOKIE=a=2" },
		{ "HTTP_COOKIE=A=1" },
		{ "HTTP_COOKIE=a=1 " },
		{ "HTTP_COOKIE=a=1; b=2" },
		{ "HTTP_COOKIE=a=1", "HTTP_COOKIE=b=2" },
		{ "HTTP_COOKIE=b=2", "HTTP_COOKIE=a=1" },
		{ "HTTP_AUTHORIZATION=a=1" },
		{ "HTTP_COOKIE=a=1", "HTTP_AUTHORIZATION=x" },
		{ "HTTP_COOKIE=a=1", "HTTP_AUTHORIZATION=y" },
		{ "HTTP_COOKIE=a=1", "REMOTE_ADDR=1.2.3.4" },
		{ "HTTP_COOKIE=a=1", "REMOTE_ADDR=1.2.3.5" },
		{ "HTTP_COOKIE=a=1", "HTTP_X_FORWARDED_FOR=1.2.3.4" },
		{ "HTTP_COOKIE=a=1", "HTTP_HOST=h" },
		{ "HTTP_COOKIE=a=1", "HTTPS=on" },
		{ "HTTP_COOKIE=a=1", "HTTP_SEC_FETCH_SITE=same-origin" },
		{ "HTTP_COOKIE=a=1", "HTTP_SEC_FETCH_SITE=cross-site" },
		{ "HTTP_COOKIE=a=1", "HTTP_HOST=h", "HTTP_SEC_FETCH_SITE=same-origin" },
		/* All pages of the site have the same lines. */
		{ "HTTP_COOKIE=a=1", "HTTP_HOST=h", "HTTP_REFERER=http://h/x" },
		{ "HTTP_COOKIE=a=1", "HTTP_HOST=h", "HTTP_REFERER=http://h/y" },
		{ "HTTP_COOKIE=a=1", "HTTP_HOST=h", "HTTP_ORIGIN=http://h" },
		{ "HTTP_COOKIE=a=1", "HTTP_HOST=h", "HTTP_REFERER=http://i/" },
	};
	struct credentials *c[COUNT(requests)];
	int equal = 0;

	for (size_t i = 0; i < COUNT(requests); i++)
		c[i] = read_params(requests[i], CREDENTIALS_FOUND);
	for (size_t i = 0; i < COUNT(requests); i++)
		for (size_t k = 0; k < i; k++) {
			bool same = c[i]->size == c[k]->size &&
			    memcmp(c[i]->lines, c[k]->lines, c[i]->size) == 0;

			ck_assert_msg((memcmp(c[i]->digest, c[k]->digest,
			    CREDENTIALS_DIGEST_SIZE) == 0) == same, "%zu and %zu", i, k);
			equal += same;
		}
	ck_assert_int_eq(equal, 3 + 6 + 1);
	for (size_t i = 0; i < COUNT(requests); i++)
		credentials_release(c[i]);
}
END_TEST

/* The last release frees the credentials; a sanitizer finds one too many or too few. */
START_TEST(references)
{
	static const char *const params[PARAMS_MAX] = { "HTTP_COOKIE=a=1" };
	struct credentials *c = read_params(params, CREDENTIALS_FOUND);

	ck_assert_ptr_eq(credentials_hold(c), c);
	ck_assert_int_eq(c->references, 2);
	credentials_release(c);
	ck_assert_int_eq(c->references, 1);
	ck_assert_str_eq(c->lines, "Cookie: a=1");
	credentials_release(c);
	credentials_release(NULL);
}
END_TEST

static void *
hold_and_release(void *arg)
{
	for (int i = 0; i < 20000; i++)
		credentials_release(credentials_hold(arg));
	return NULL;
}

/* Threads may hold and release them at the same time. */
START_TEST(threads)
{
	static const char *const params[PARAMS_MAX] = { "HTTP_COOKIE=a=1" };
	struct credentials *c = read_params(params, CREDENTIALS_FOUND);
	pthread_t ids[4];

	for (size_t i = 0; i < COUNT(ids); i++)
		ck_assert_int_eq(pthread_create(&ids[i], NULL, hold_and_release, c), 0);
	for (size_t i = 0; i < COUNT(ids); i++)
		ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
	ck_assert_int_eq(c->references, 1);
	credentials_release(c);
}
END_TEST

static const void *watched;
static size_t wiped; /* bytes wiped from there on */

static void
wipe(void *bytes, size_t size)
{
	volatile char *at = bytes;

	if (bytes == watched)
		wiped = size;
	while (size-- > 0)
		*at++ = '\0';
}

/* This program's explicit_bzero() replaces the one that credentials.c calls. */
#if __USE_FORTIFY_LEVEL > 0
void
__explicit_bzero_chk(void *bytes, size_t size, size_t room)
{
	(void)room;
	wipe(bytes, size);
}
#else
void
explicit_bzero(void *bytes, size_t size)
{
	wipe(bytes, size);
}
#endif

/* Only the last release wipes the credentials, all of their bytes. */
START_TEST(wipes)
{
	static const char *const params[PARAMS_MAX] = { "HTTP_COOKIE=a=1" };
	struct credentials *c = read_params(params, CREDENTIALS_FOUND);

	watched = c;
	credentials_hold(c);
	credentials_release(c);
	ck_assert_uint_eq(wiped, 0);
	credentials_release(c);
	ck_assert_uint_eq(wiped, sizeof(*c) + sizeof("Cookie: a=1"));
}
END_TEST

/* A cookie of nearly the size of a head is forwarded completely. */
START_TEST(large)
{
	const size_t size = 60 * 1024;
	char *param = malloc(size + 1);
	const char *params[PARAMS_MAX] = { param, "HTTP_AUTHORIZATION=x", "HTTP_HOST=h" };
	struct credentials *c;

	ck_assert_ptr_nonnull(param);
	memset(param, 'c', size);
	memcpy(param, "HTTP_COOKIE=", 12);
	param[size] = '\0';
	c = read_params(params, CREDENTIALS_FOUND);
	ck_assert_str_eq(c->lines + strlen("Cookie: "), param + 12);
	ck_assert_str_eq(c->lines + strlen(c->lines) + 1, "Authorization: x");
	ck_assert_uint_eq(c->size, size - strlen("HTTP_COOKIE=") +
	    strlen("Cookie: |Authorization: x|X-Forwarded-Host: h|"));
	credentials_release(c);
	free(param);
}
END_TEST

/*
 * The parameters whose lines need the most space in proportion: many cookies of one byte, and each
 * other value as short as possible. A sanitizer finds lines that do not fit.
 */
START_TEST(worst_growth)
{
	static const char *const others[] = { "HTTP_AUTHORIZATION=x", "HTTP_X_FORWARDED_FOR=1",
		"REMOTE_ADDR=1", "HTTPS=1", "HTTP_HOST=h", "HTTP_ORIGIN=http://h" };
	static const int counts[] = { 0, 1, 2, 16, 100, 3000 };

	for (size_t n = 0; n < COUNT(counts); n++) {
		int count = counts[n];
		char **params = calloc((size_t)count + COUNT(others) + 1, sizeof(*params));
		struct credentials *c;
		size_t cookies;
		char *lines;

		ck_assert_ptr_nonnull(params);
		for (int i = 0; i < count; i++)
			params[i] = strdup("HTTP_COOKIE=c");
		for (size_t i = 0; i < COUNT(others); i++)
			params[(size_t)count + i] = strdup(others[i]);
		ck_assert_int_eq(credentials_read(params, &c), CREDENTIALS_FOUND);
		lines = lines_of(c);
		cookies = count > 0 ? strlen("Cookie: |") + 3 * (size_t)count - 2 : 0;
		ck_assert_uint_ge(c->size, cookies);
		ck_assert_str_eq(lines + cookies, "Authorization: x|X-Forwarded-For: 1, 1|"
		    "X-Forwarded-Proto: https|X-Forwarded-Host: h|Sec-Fetch-Site: same-origin|");
		free(lines);
		credentials_release(c);
		for (char **p = params; *p != NULL; p++)
			free(*p);
		free(params);
	}
}
END_TEST

/* What the application echoes of a cookie or of Authorization is struck out of its text. */
START_TEST(struck)
{
	static const struct {
		const char *param, *text, *expected;
	} rows[] = {
		{ "HTTP_COOKIE=theme=dark; next-auth.session-token=abcdefgh1; a=b", "no abcdefgh1 in dark",
		  "no *** in dark" },
		{ "HTTP_COOKIE=a=abcdefgh%7Cijklmnop; b=\"qrstuvwx\"", "abcdefgh|ijklmnop, qrstuvwx",
		  "***|***, ***" },
		{ "HTTP_COOKIE=session-token=x", "session-token is missing", "session-token is missing" },
		{ "HTTP_COOKIE=abcdefgh1; b=%", "abcdefgh1", "abcdefgh1" },
		{ "HTTP_AUTHORIZATION=Bearer tpi_12345678.abcdefghij%4", "Bearer tpi_12345678.abcdefghij?",
		  "Bearer ***.***?" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *params[PARAMS_MAX] = { rows[i].param };
		struct credentials *c = read_params(params, CREDENTIALS_FOUND);
		char text[100];

		strcpy(text, rows[i].text);
		credentials_strike(c, text);
		ck_assert_str_eq(text, rows[i].expected);
		credentials_release(c);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("credentials");
	TCase *tc = tcase_create("credentials");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, struck);
	tcase_add_test(tc, forwarded_lines);
	tcase_add_test(tc, other_names);
	tcase_add_test(tc, several_cookies);
	tcase_add_test(tc, none);
	tcase_add_test(tc, authorizations);
	tcase_add_test(tc, control_characters);
	tcase_add_test(tc, forwarded);
	tcase_add_test(tc, forwarded_control_characters);
	tcase_add_test(tc, sec_fetch_site);
	tcase_add_test(tc, site);
	tcase_add_test(tc, sec_fetch_site_derived);
	tcase_add_test(tc, sec_fetch_site_not_derived);
	tcase_add_test(tc, digests);
	tcase_add_test(tc, references);
	tcase_add_test(tc, threads);
	tcase_add_test(tc, wipes);
	tcase_add_test(tc, large);
	tcase_add_test(tc, worst_growth);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
