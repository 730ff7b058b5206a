/*
 * log: one line per happening on standard error, one JSON line per metric on standard output.
 *
 * A line reads "[tag] message {"key":"value",...}". Values are escaped as JSON strings, with every
 * byte that is not printable ASCII written as \u00XX, so that no value can forge a line or a
 * terminal sequence. A line is at most LOG_LINE_MAX bytes: values and lists are cut to fit and the
 * line stays valid. Nothing here ever blocks: where standard error or output is closed or full the
 * line is dropped. Cookies, passwords and payloads are never passed to these functions.
 */
#ifndef TPI_BASE_LOG_H
#define TPI_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* PIPE_BUF: a pipe that polls writable takes this many bytes at once without blocking. */
#define LOG_LINE_MAX 4096

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* One key and value of a line; made by the macros below, ended by LOG_END. */
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

/* Lines above this level are not written. LOG_LEVEL_INFO until it is called. Before any thread. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* Writes one line to standard error. fields may be NULL (no JSON object). Thread-safe. */
void log_write(enum log_level level, const char *tag, const char *message,
    const struct log_field *fields);

/*
 * Writes one JSON object and a line break, made of fields alone, to standard output. Thread-safe.
 */
void log_metric(const struct log_field *fields);

/*
 * A app_client for lines that could come in floods. log_allowed() is true at most once per interval_ms;
 * *suppressed (may be NULL) gets the number of refusals since the last true. Thread-safe.
 * A zeroed struct is ready for use.
 */
struct log_limit {
	_Atomic int64_t next; /* clock_ms() from which the next line may be written */
	_Atomic uint32_t suppressed;
};
bool log_allowed(struct log_limit *limit, int interval_ms, uint32_t *suppressed);

#endif
