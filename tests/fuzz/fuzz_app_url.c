/* SPDX-License-Identifier: ISC */
/*
 * fuzz_app_url: the syntax of TPI_APP_URL (app_url.h). If a URL is accepted, libcurl accepts it
 * with the target of a query appended, finds that target and no user in it; the path of a Unix
 * socket fits in an address.
 */
#include "fuzz.h"

#include <curl/curl.h>

#include "auth/app_api.h"
#include "config/app_url.h"

/* A part of a URL as libcurl parses it, "" if it is absent. The caller frees it. */
static char *
part(CURLU *url, CURLUPart which)
{
	char *text = NULL;

	return curl_url_get(url, which, &text, 0) == CURLUE_OK ? text : strdup("");
}

static void
check_url(const char *text)
{
	static const char target[] = APP_SESSION_TARGET "?q=%7B%7D";
	size_t length = strlen(text);
	char *full = fuzz_memory(length + sizeof(target)), *path, *query, *user;
	CURLU *url = curl_url();

	REQUIRE(url != NULL);
	if (app_url_valid(text)) {
		REQUIRE(fuzz_is_line(text));
		if (strncmp(text, "unix:", 5) == 0) {
			REQUIRE(text[5] == '/' && length - 5 <= 107);
		} else {
			while (text[length - 1] == '/')
				length--;
			strcpy((char *)mempcpy(full, text, length), target);
			REQUIRE(curl_url_set(url, CURLUPART_URL, full, 0) == CURLUE_OK);
			path = part(url, CURLUPART_PATH);
			query = part(url, CURLUPART_QUERY);
			user = part(url, CURLUPART_USER);
			REQUIRE(strlen(path) >= strlen(APP_SESSION_TARGET));
			REQUIRE(strcmp(path + strlen(path) - strlen(APP_SESSION_TARGET),
			    APP_SESSION_TARGET) == 0);
			REQUIRE(strcmp(query, "q=%7B%7D") == 0);
			REQUIRE(user[0] == '\0');
			free(path);
			free(query);
			free(user);
		}
	}
	curl_url_cleanup(url);
	free(full);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);

	check_url(text);
	free(text);
	return 0;
}
