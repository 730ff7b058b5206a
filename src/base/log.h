/* SPDX-License-Identifier: ISC */
/*
 * log: one line per event on standard error, one JSON line per metric on standard output.
 *
 * A line reads "[tag] message {"key":"value",...}". Values are escaped as JSON strings, and every
 * byte that is not printable ASCII is written as \u00XX, so no value can forge a log line or a
 * terminal escape sequence. A line has at most LOG_LINE_MAX bytes: values and lists are truncated
 * to fit, and the line stays valid. Nothing here blocks: if standard error or output is closed or
 * full, the line is dropped. Never pass cookies, passwords or payloads to these functions.
 */
#ifndef TPI_BASE_LOG_H
#define TPI_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* PIPE_BUF: a pipe that polls writable accepts this many bytes without blocking. */
#define LOG_LINE_MAX 4096

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* A key and its value. Build arrays of them with the macros below and end them with LOG_END. */
struct log_field {
	const char *key;
	enum { LOG_FIELD_STRING, LOG_FIELD_INTEGER, LOG_FIELD_LIST } type;
	const char *string;  /* LOG_FIELD_STRING; NULL is written as null */
	int64_t integer;     /* LOG_FIELD_INTEGER */
	const int32_t *list; /* LOG_FIELD_LIST */
	size_t length;       /* of list */
};

#define LOG_STR(k, v)     { .key = (k), .type = LOG_FIELD_STRING, .string = (v) }
#define LOG_INT(k, v)     { .key = (k), .type = LOG_FIELD_INTEGER, .integer = (v) }
#define LOG_LIST(k, v, n) { .key = (k), .type = LOG_FIELD_LIST, .list = (v), .length = (n) }
#define LOG_END           { .key = NULL }

/* LOG(LOG_LEVEL_WARN, "valkey", "connection lost", LOG_STR("error", e)): at least one field. */
#define LOG(level, tag, message, ...)                                                             \
	log_write(level, tag, message, (const struct log_field[]){ __VA_ARGS__, LOG_END })

/* Less important lines are not written. Default LOG_LEVEL_INFO. Call it before threads start. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* Writes one line to standard error. fields may be NULL (no JSON object). Thread-safe. */
void log_write(enum log_level level, const char *tag, const char *message,
    const struct log_field *fields);

/* Writes the fields as one line of JSON to standard output. Thread-safe. */
void log_metric(const struct log_field *fields);

/*
 * A rate limit for lines that a peer could provoke in floods. log_allowed() returns true at most
 * once per interval_ms; *suppressed (may be NULL) then gets the number of calls that returned false
 * since the last true. log_allowed_some() returns true up to lines times per interval_ms.
 * Zero-initialize the struct. Thread-safe.
 */
struct log_limit {
	_Atomic int64_t next; /* clock_ms() at which the next interval begins */
	_Atomic uint32_t lines; /* written in this interval */
	_Atomic uint32_t suppressed;
};
bool log_allowed(struct log_limit *limit, int interval_ms, uint32_t *suppressed);
bool log_allowed_some(struct log_limit *limit, uint32_t lines, int interval_ms,
    uint32_t *suppressed);

#endif
