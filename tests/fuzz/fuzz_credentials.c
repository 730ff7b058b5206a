/* SPDX-License-Identifier: ISC */
/*
 * fuzz_credentials: the header lines of a query (credentials.h). The input is that of
 * fuzz_params(). The lines are the documented ones, each at most once, in order, without control
 * characters. Cookie and Authorization have the values of the parameters. Sec-Fetch-Site is what
 * the browser sent, or else is derived only if libcurl, too, finds the request's host in Origin or
 * Referer. Parameters in another order have the same digest exactly if they have the same lines.
 */
#include "fuzz.h"

#include <curl/curl.h>
#include <strings.h>

#include "auth/credentials.h"
#include "fcgi/request.h"

static bool
has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if ((*text > 0 && *text < ' ') || *text == 0x7f)
			return true;
	return false;
}

/* All cookies, joined with "; "; the caller frees it. Sets *bad if one has a control character. */
static char *
join_cookies(char *const *params, bool *bad)
{
	char *joined = NULL;
	size_t length;
	FILE *out = open_memstream(&joined, &length);

	REQUIRE(out != NULL);
	for (; *params != NULL; params++) {
		if (strncmp(*params, "HTTP_COOKIE=", 12) != 0)
			continue;
		*bad |= has_control(*params + 12);
		if ((*params)[12] != '\0')
			fprintf(out, "%s%s", ftell(out) > 0 ? "; " : "", *params + 12);
	}
	fclose(out);
	return joined;
}

/* A part of a URL as libcurl parses it, or NULL. The caller frees it. */
static char *
part(const char *text, CURLUPart which)
{
	CURLU *url = curl_url();
	char *value = NULL;

	if (curl_url_set(url, CURLUPART_URL, text, CURLU_ALLOW_SPACE) == CURLUE_OK)
		curl_url_get(url, which, &value, CURLU_DEFAULT_PORT);
	curl_url_cleanup(url);
	return value;
}

/* Whether both have the same part, or libcurl does not find it in one of them. */
static bool
same_part(const char *one, const char *other, CURLUPart which)
{
	char *a = part(one, which), *b = part(other, which);
	bool same = a == NULL || b == NULL || strcasecmp(a, b) == 0;

	free(a);
	free(b);
	return same;
}

/* Whether a parameter may be a URL with that host. */
static bool
has_host(char *const *params, const char *name, const char *host)
{
	bool conflict = false, same;
	const char *url = params_get(params, name, &conflict);
	char *root;

	if (url == NULL || conflict || host == NULL || strncasecmp(url, "http", 4) != 0)
		return false;
	REQUIRE(asprintf(&root, "%.*s://%s/", (int)strcspn(url, ":"), url, host) > 0);
	same = same_part(url, root, CURLUPART_HOST) && same_part(url, root, CURLUPART_PORT);
	free(root);
	return same;
}

/* Sec-Fetch-Site is not derived if libcurl finds another host or port. */
static void
check_site(const char *site, char *const *params)
{
	bool conflict = false, bad_host = false;
	const char *sent = params_get(params, "HTTP_SEC_FETCH_SITE", &conflict);
	const char *host = params_get(params, "HTTP_HOST", &bad_host);

	if (sent != NULL && (sent[0] != '\0' || conflict)) {
		REQUIRE(strcmp(site, conflict || has_control(sent) ? "" : sent) == 0);
		return;
	}
	if (site[0] == '\0')
		return;
	REQUIRE(strcmp(site, "same-origin") == 0 && !bad_host);
	REQUIRE(has_host(params, "HTTP_ORIGIN", host) || has_host(params, "HTTP_REFERER", host));
}

static void
check_lines(const struct credentials *c, const char *cookies, const char *authorization,
    char *const *params)
{
	static const char *const names[] = { "Cookie: ", "Authorization: ", "X-Forwarded-For: ",
		"X-Forwarded-Proto: ", "X-Forwarded-Host: ", "Sec-Fetch-Site: " };
	const char *values[6] = { "", "", "", "", "", "" };
	const char *at = c->lines, *end = c->lines + c->size;

	for (int i = 0; i < 6 && at < end; i++) {
		if (strncmp(at, names[i], strlen(names[i])) != 0)
			continue;
		values[i] = at + strlen(names[i]);
		REQUIRE(values[i][0] != '\0' && !has_control(at));
		at += strlen(at) + 1;
	}
	REQUIRE(at == end);
	REQUIRE(strcmp(values[0], cookies) == 0);
	REQUIRE(strcmp(values[1], authorization) == 0);
	check_site(values[5], params);
	REQUIRE(c->references == 1);
}

/* Reads the parameters in reverse order. */
static void
check_digest(const struct credentials *c, char *const *params, int count)
{
	char *reversed[FUZZ_PARAMS_MAX + 1] = { NULL };
	struct credentials *other;

	for (int i = 0; i < count; i++)
		reversed[i] = params[count - 1 - i];
	REQUIRE(credentials_read(reversed, &other) == CREDENTIALS_FOUND);
	REQUIRE((memcmp(c->digest, other->digest, sizeof(c->digest)) == 0) ==
	    (c->size == other->size && memcmp(c->lines, other->lines, c->size) == 0));
	credentials_release(other);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *params[FUZZ_PARAMS_MAX + 1], *cookies;
	int count = fuzz_params(data, size, params);
	bool bad = false;
	const char *authorization = params_get(params, "HTTP_AUTHORIZATION", &bad);
	struct credentials *c;
	enum credentials_result result = credentials_read(params, &c);

	if (authorization == NULL)
		authorization = "";
	bad |= has_control(authorization);
	cookies = join_cookies(params, &bad);
	if (bad || (cookies[0] == '\0' && authorization[0] == '\0')) {
		REQUIRE(result == CREDENTIALS_NONE && c == NULL);
	} else {
		REQUIRE(result == CREDENTIALS_FOUND);
		check_lines(c, cookies, authorization, params);
		check_digest(c, params, count);
	}
	credentials_release(c);
	free(cookies);
	for (int i = 0; i < count; i++)
		free(params[i]);
	return 0;
}
