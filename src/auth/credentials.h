/* SPDX-License-Identifier: ISC */
/*
 * credentials: the part of a request that the application bases its decision on: Cookie and
 * Authorization, how the request reached the web server, and whether a page of the same site sent
 * it. They are secrets: never logged, and overwritten when the last reference is released.
 */
#ifndef TPI_AUTH_CREDENTIALS_H
#define TPI_AUTH_CREDENTIALS_H

#include <stddef.h>
#include <stdint.h>

#define CREDENTIALS_DIGEST_SIZE 32

struct credentials {
	_Atomic int references;
	/* SHA-256 of the lines: credentials with equal digests are the same. */
	uint8_t digest[CREDENTIALS_DIGEST_SIZE];
	size_t size; /* of lines */
	/* Header lines for the application: "Name: value" each, terminated, one after the other. */
	char lines[];
};

enum credentials_result {
	CREDENTIALS_FOUND,
	/*
	 * No Cookie and no Authorization, one with a control character, or two different
	 * Authorizations.
	 */
	CREDENTIALS_NONE,
	CREDENTIALS_NO_MEMORY
};

/*
 * Reads the parameters of a request, as from request_params(): HTTP_COOKIE (several are joined with
 * "; "), HTTP_AUTHORIZATION, and for X-Forwarded-For, -Proto and -Host the web server's
 * HTTP_X_FORWARDED_*, REMOTE_ADDR, HTTPS, REQUEST_SCHEME and HTTP_HOST. Sec-Fetch-Site is
 * HTTP_SEC_FETCH_SITE or, if that is absent and the host of HTTP_ORIGIN or HTTP_REFERER equals
 * HTTP_HOST, "same-origin". *c gets one reference. Thread-safe.
 */
enum credentials_result credentials_read(char *const *params, struct credentials **c);

/* The value of Sec-Fetch-Site in the lines; NULL if there is none. */
const char *credentials_site(const struct credentials *c);

/*
 * Replaces with "***" each part of a cookie's value or of Authorization in a text that the
 * application sent. A part is CREDENTIALS_SECRET_MIN or more letters and digits in a row, so a
 * value is also found if the application decoded it. Shorter ones may be ordinary words, such as
 * "dark".
 */
#define CREDENTIALS_SECRET_MIN 8
void credentials_strike(const struct credentials *c, char *text);

struct credentials *credentials_hold(struct credentials *c);
/* Safe for NULL. */
void credentials_release(struct credentials *c);

#endif
