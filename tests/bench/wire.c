/* SPDX-License-Identifier: ISC */
/*
 * wire: see wire.h.
 */
#include "wire.h"

#include <fastcgi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "wire/frame.h"

#define ACCEPT     "text/event-stream"
#define LANGUAGES  "en-US,en;q=0.9"
#define ENCODINGS  "gzip, deflate, br"
#define USER_AGENT "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML)"

static size_t
smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

void
wire_init(struct wire *w, bool http)
{
	*w = (struct wire){ .http = http, .state = http ? WIRE_HEAD : WIRE_RECORD };
}

bool
wire_answered(const struct wire *w)
{
	return w->http && w->state != WIRE_HEAD;
}

/* ---- FastCGI */

static void
take_record(struct wire *w)
{
	const uint8_t *header = (const uint8_t *)w->line;

	w->length = 0;
	if (header[1] != FCGI_STDOUT)
		w->error = "ended by the responder";
	w->left = (uint64_t)(header[4] << 8 | header[5]);
	w->padding = header[6];
	w->state = w->left > 0 ? WIRE_CONTENT : w->padding > 0 ? WIRE_PADDING : WIRE_RECORD;
}

static void
take_header(struct wire *w, const uint8_t **at, const uint8_t *end)
{
	size_t n = smaller((size_t)(FCGI_HEADER_LEN - w->length), (size_t)(end - *at));

	memcpy(w->line + w->length, *at, n);
	w->length += (uint8_t)n;
	*at += n;
	if (w->length == FCGI_HEADER_LEN)
		take_record(w);
}

static void
take_padding(struct wire *w, const uint8_t **at, const uint8_t *end)
{
	size_t n = smaller(w->padding, (size_t)(end - *at));

	w->padding -= (uint8_t)n;
	*at += n;
	if (w->padding == 0)
		w->state = WIRE_RECORD;
}

/* ---- HTTP */

/* Handles a line of the head; the first is the status line. */
static void
take_head_line(struct wire *w)
{
	static const char status[] = "HTTP/1.1 ", coding[] = "Transfer-Encoding: chunked";

	if (strncmp(w->line, status, strlen(status)) == 0) {
		if (strncmp(w->line + strlen(status), "200", 3) != 0)
			w->error = "the HTTP status is not 200";
	} else if (strcasecmp(w->line, coding) == 0) {
		w->chunked = true;
	} else if (w->line[0] == '\0') {
		w->left = UINT64_MAX;
		w->state = w->chunked ? WIRE_CHUNK_SIZE : WIRE_CONTENT;
	}
}

static void
take_chunk_size(struct wire *w)
{
	w->left = strtoull(w->line, NULL, 16);
	if (w->left == 0)
		w->error = "ended by the server";
	w->state = WIRE_CONTENT;
}

/* Keeps only the start of a long line. */
static void
take_http_line(struct wire *w, const uint8_t **at, const uint8_t *end)
{
	const uint8_t *stop = memchr(*at, '\n', (size_t)(end - *at));
	size_t length = (size_t)((stop != NULL ? stop : end) - *at);
	size_t n = smaller(length, sizeof(w->line) - 1 - w->length);

	memcpy(w->line + w->length, *at, n);
	w->length += (uint8_t)n;
	*at += length + (stop != NULL);
	if (stop == NULL)
		return;
	if (w->length > 0 && w->line[w->length - 1] == '\r')
		w->length--;
	w->line[w->length] = '\0';
	w->length = 0;
	if (w->state == WIRE_HEAD)
		take_head_line(w);
	else if (w->state == WIRE_CHUNK_SIZE)
		take_chunk_size(w);
	else
		w->state = WIRE_CHUNK_SIZE;
}

/* ---- Both */

static size_t
take_content(struct wire *w, const uint8_t **at, const uint8_t *end, const char **content)
{
	size_t n = smaller(w->left, (size_t)(end - *at));

	*content = (const char *)*at;
	*at += n;
	w->left -= n;
	if (w->left > 0)
		return n;
	if (w->http)
		w->state = WIRE_CHUNK_END;
	else
		w->state = w->padding > 0 ? WIRE_PADDING : WIRE_RECORD;
	return n;
}

size_t
wire_next(struct wire *w, const uint8_t **at, const uint8_t *end, const char **content)
{
	while (*at < end && w->error == NULL) {
		switch (w->state) {
		case WIRE_CONTENT:
			return take_content(w, at, end, content);
		case WIRE_RECORD:
			take_header(w, at, end);
			break;
		case WIRE_PADDING:
			take_padding(w, at, end);
			break;
		default:
			take_http_line(w, at, end);
		}
	}
	return 0;
}

/* ---- Requests */

/* The parameters that nginx sends for a browser's request, without path, query and user. */
static const struct {
	const char *name, *value;
} params[] = {
	{ "REQUEST_METHOD", "GET" },
	{ "CONTENT_TYPE", "" },
	{ "CONTENT_LENGTH", "" },
	{ "DOCUMENT_ROOT", "/var/www/html" },
	{ "SERVER_PROTOCOL", "HTTP/1.1" },
	{ "REQUEST_SCHEME", "https" },
	{ "HTTPS", "on" },
	{ "GATEWAY_INTERFACE", "CGI/1.1" },
	{ "SERVER_SOFTWARE", "nginx/1.22.1" },
	{ "REMOTE_ADDR", "127.0.0.1" },
	{ "REMOTE_PORT", "50000" },
	{ "SERVER_ADDR", "127.0.0.1" },
	{ "SERVER_PORT", "443" },
	{ "SERVER_NAME", "localhost" },
	{ "REDIRECT_STATUS", "200" },
	{ "HTTP_HOST", "localhost" },
	{ "HTTP_ACCEPT", ACCEPT },
	{ "HTTP_CACHE_CONTROL", "no-cache" },
	{ "HTTP_ACCEPT_LANGUAGE", LANGUAGES },
	{ "HTTP_ACCEPT_ENCODING", ENCODINGS },
	{ "HTTP_USER_AGENT", USER_AGENT },
};

/* A length of up to 127 takes one byte, a longer one four. */
static uint8_t *
add_length(uint8_t *at, size_t length)
{
	if (length < 128) {
		*at++ = (uint8_t)length;
		return at;
	}
	*at++ = 0x80;
	*at++ = 0;
	*at++ = (uint8_t)(length >> 8);
	*at++ = (uint8_t)length;
	return at;
}

static uint8_t *
add_param(uint8_t *at, const char *name, const char *value)
{
	at = add_length(at, strlen(name));
	at = add_length(at, strlen(value));
	at = mempcpy(at, name, strlen(name));
	return mempcpy(at, value, strlen(value));
}

static size_t
fcgi_request(uint8_t *out, const char *path, const char *query, const char *user)
{
	const FCGI_BeginRequestBody body = { .roleB0 = FCGI_RESPONDER };
	uint8_t *at = out, *header;
	size_t i;

	at += frame_record(at, FCGI_BEGIN_REQUEST, 1, sizeof(body));
	at = mempcpy(at, &body, sizeof(body));
	header = at;
	at += FCGI_HEADER_LEN;
	for (i = 0; i < sizeof(params) / sizeof(params[0]); i++)
		at = add_param(at, params[i].name, params[i].value);
	at = add_param(at, "SCRIPT_NAME", path);
	at = add_param(at, "REQUEST_URI", path);
	at = add_param(at, "DOCUMENT_URI", path);
	at = add_param(at, "QUERY_STRING", query);
	at = add_param(at, "TPI_USER", user);
	frame_record(header, FCGI_PARAMS, 1, (size_t)(at - header) - FCGI_HEADER_LEN);
	at += frame_record(at, FCGI_PARAMS, 1, 0);
	at += frame_record(at, FCGI_STDIN, 1, 0);
	return (size_t)(at - out);
}

static size_t
http_request(uint8_t *out, const char *path, const char *query, const char *user)
{
	return (size_t)snprintf((char *)out, WIRE_REQUEST_MAX,
	    "GET %s?%s HTTP/1.1\r\nHost: localhost\r\nAccept: " ACCEPT "\r\n"
	    "Cache-Control: no-cache\r\nAccept-Language: " LANGUAGES "\r\n"
	    "Accept-Encoding: " ENCODINGS "\r\nUser-Agent: " USER_AGENT "\r\nX-User: %s\r\n\r\n",
	    path, query, user);
}

size_t
wire_request(uint8_t out[WIRE_REQUEST_MAX], bool http, const char *path, const char *query,
    const char *user)
{
	return http ? http_request(out, path, query, user) : fcgi_request(out, path, query, user);
}
