/* SPDX-License-Identifier: ISC */
/*
 * app_http: see app_http.h.
 */
#include "config.h"

#include "auth/app_http.h"

#include <curl/curl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"

#define STARVED_MS 100 /* between two attempts while memory is out */

struct app_http {
	CURLM *multi; /* up to TPI_APP_CONCURRENCY requests, and as many idle connections */
	const struct settings *settings;
	const char *socket;   /* of a unix: URL, else NULL */
	const char *base;     /* to which a target is appended */
	size_t base_length;
	app_http_done *done;
	void *arg;
};

/* One request in flight. */
struct transfer {
	void *request;
	struct curl_slist *headers;
	char *body;
	size_t length, size; /* of body: up to APP_HTTP_BODY_MAX */
	size_t head_length;  /* up to APP_HTTP_HEAD_MAX; the head itself is not kept */
	bool too_long;
	char error[CURL_ERROR_SIZE];
};

static size_t
on_body(char *data, size_t one, size_t length, void *arg)
{
	struct transfer *t = arg;
	size_t size = t->size != 0 ? t->size : 4096;
	char *grown;

	(void)one;
	if (t->length + length > APP_HTTP_BODY_MAX) {
		t->too_long = true;
		return 0;
	}
	while (size < t->length + length)
		size *= 2;
	if (size != t->size) {
		grown = realloc(t->body, size);
		if (grown == NULL)
			return 0;
		t->body = grown;
		t->size = size;
	}
	memcpy(t->body + t->length, data, length);
	t->length += length;
	return length;
}

static size_t
on_head(char *data, size_t one, size_t length, void *arg)
{
	struct transfer *t = arg;

	(void)data;
	(void)one;
	t->head_length += length;
	t->too_long |= t->head_length > APP_HTTP_HEAD_MAX;
	return t->too_long ? 0 : length;
}

static void
transfer_free(struct transfer *t)
{
	curl_slist_free_all(t->headers);
	free(t->body);
	free(t);
}

/* False: no memory. */
static bool
add_header(struct transfer *t, const char *line)
{
	struct curl_slist *longer = curl_slist_append(t->headers, line);

	if (longer == NULL)
		return false;
	t->headers = longer;
	return true;
}

static struct transfer *
transfer_new(const char *lines, size_t size, void *request)
{
	struct transfer *t;
	size_t at;
	bool fine;

	t = calloc(1, sizeof(*t));
	if (t == NULL)
		return NULL;
	t->request = request;
	fine = add_header(t, "Accept: application/json");
	for (at = 0; fine && at < size; at += strlen(lines + at) + 1)
		fine = add_header(t, lines + at);
	if (fine)
		return t;
	transfer_free(t);
	return NULL;
}

struct app_http *
app_http_new(const struct settings *s, app_http_done *done, void *arg)
{
	struct app_http *http;

	http = calloc(1, sizeof(*http));
	if (http == NULL)
		return NULL;
	/* curl's request buffers, which hold the user's cookies, grow by realloc(). */
	if (curl_global_init_mem(CURL_GLOBAL_ALL, malloc, free, secret_realloc, strdup,
		calloc) != CURLE_OK ||
	    (http->multi = curl_multi_init()) == NULL) {
		free(http);
		return NULL;
	}
	http->settings = s;
	http->done = done;
	http->arg = arg;
	http->base = s->app_url;
	if (strncmp(s->app_url, "unix:", 5) == 0) {
		http->socket = s->app_url + 5;
		http->base = "http://localhost";
	}
	http->base_length = strlen(http->base);
	while (http->base[http->base_length - 1] == '/')
		http->base_length--;
	curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)s->app_concurrency);
	return http;
}

static bool
set_url(const struct app_http *http, CURL *curl, const char *target)
{
	char *url;
	bool fine;

	url = malloc(http->base_length + strlen(target) + 1);
	if (url == NULL)
		return false;
	memcpy(url, http->base, http->base_length);
	strcpy(url + http->base_length, target);
	fine = curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK;
	free(url);
	return fine;
}

/* Sets all limits of a request. False: no memory. */
static bool
configure(const struct app_http *http, CURL *curl, int64_t timeout_ms)
{
	const struct settings *s = http->settings;
	bool fine = true;

#define SET(option, value) (fine = fine && curl_easy_setopt(curl, option, value) == CURLE_OK)
#if CURL_AT_LEAST_VERSION(7, 85, 0)
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if CURL_AT_LEAST_VERSION(7, 87, 0)
	/* Resolving a name never delays another request. */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)timeout_ms);
	SET(CURLOPT_USERAGENT, "tpi-streamd/" PACKAGE_VERSION);
	if (http->socket != NULL)
		SET(CURLOPT_UNIX_SOCKET_PATH, http->socket);
	if (s->app_proxy == APP_PROXY_NONE)
		SET(CURLOPT_PROXY, "");
	if (s->app_ca[0] != '\0') {
		SET(CURLOPT_CAINFO, s->app_ca);
		/* Trust these authorities instead of the system's. */
		SET(CURLOPT_CAPATH, NULL);
	}
#undef SET
	return fine;
}

bool
app_http_start(struct app_http *http, const char *target, const char *lines, size_t size,
    int64_t timeout_ms, void *request)
{
	struct transfer *t;
	CURL *curl;

	t = transfer_new(lines, size, request);
	if (t == NULL)
		return false;
	curl = curl_easy_init();
	if (curl == NULL || !set_url(http, curl, target) || !configure(http, curl, timeout_ms) ||
	    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, t->headers) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, t->error) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_PRIVATE, t) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_WRITEDATA, t) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_head) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_HEADERDATA, t) != CURLE_OK ||
	    curl_multi_add_handle(http->multi, curl) != CURLM_OK) {
		curl_easy_cleanup(curl);
		transfer_free(t);
		return false;
	}
	return true;
}

/* Whether the application could not be connected to. */
static bool
is_dead(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
		return true;
	default:
		return false;
	}
}

static void
end(struct app_http *http, CURL *curl, CURLcode code)
{
	struct app_http_result result = { .dead = is_dead(code),
		.timed_out = code == CURLE_OPERATION_TIMEDOUT };
	struct transfer *t = NULL;
	long status = 0;

	curl_easy_getinfo(curl, CURLINFO_PRIVATE, (char **)&t);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OK) {
		result.status = (int)status;
		result.body = t->body != NULL ? t->body : "";
		result.length = t->length;
	} else if (t->too_long)
		result.error = "the response is too long";
	else
		result.error = t->error[0] != '\0' ? t->error : curl_easy_strerror(code);
	http->done(http->arg, t->request, &result);
	curl_multi_remove_handle(http->multi, curl);
	curl_easy_cleanup(curl);
	transfer_free(t);
}

void
app_http_turn(struct app_http *http, int wait_ms)
{
	const CURLMsg *message;
	int left;

	/* Without memory it returns at once: do not spin. */
	if (curl_multi_poll(http->multi, NULL, 0, wait_ms, NULL) != CURLM_OK)
		poll(NULL, 0, STARVED_MS);
	curl_multi_perform(http->multi, &left);
	while ((message = curl_multi_info_read(http->multi, &left)) != NULL)
		if (message->msg == CURLMSG_DONE)
			end(http, message->easy_handle, message->data.result);
}

void
app_http_wake(struct app_http *http)
{
	curl_multi_wakeup(http->multi);
}
