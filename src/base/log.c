/* SPDX-License-Identifier: ISC */
/*
 * log: builds and writes log lines and metric lines. See log.h.
 *
 * Each line is built in a buffer of LOG_LINE_MAX bytes and written with one write(), or dropped.
 * Every step reserves room for what must still follow: the shortest form of each later field, the
 * closing brace and the line break. A truncated line is therefore still valid and has all its keys.
 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_TAIL 2    /* "}\n" */
#define INTEGER_MAX 20 /* digits of INT64_MIN with its sign */

/* Priority prefixes of sd-daemon(3). */
static const char *const journal_prefix[] = {
	[LOG_LEVEL_ERROR] = "<3>",
	[LOG_LEVEL_WARN] = "<4>",
	[LOG_LEVEL_INFO] = "<6>",
	[LOG_LEVEL_DEBUG] = "<7>",
};

/* Both are set before any thread starts. */
static enum log_level log_level = LOG_LEVEL_INFO;
static bool log_to_journal;

/* Held from poll() to write(): otherwise two threads could see room for one line, and one block. */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

struct line {
	char text[LOG_LINE_MAX];
	size_t used;
	size_t limit; /* line_add() writes nothing past this offset */
};

/* Whether standard error goes to the journal: JOURNAL_STREAM has its device and inode. */
static bool
is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char own[64];
	struct stat st;

	if (stream == NULL || fstat(STDERR_FILENO, &st) != 0)
		return false;
	snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	return strcmp(stream, own) == 0;
}

void
log_set_level(enum log_level level)
{
	log_level = level;
	log_to_journal = is_journal();
}

bool
log_enabled(enum log_level level)
{
	return level <= log_level;
}

/* Adds all the bytes, or none if they do not fit. */
static bool
line_add(struct line *line, const char *bytes, size_t length)
{
	if (line->used + length > line->limit)
		return false;
	memcpy(line->text + line->used, bytes, length);
	line->used += length;
	return true;
}

static bool
line_text(struct line *line, const char *text)
{
	return line_add(line, text, strlen(text));
}

/* Adds as much of text as fits, escaped; never splits an escape sequence. */
static void
line_escaped(struct line *line, const char *text, bool quoted)
{
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;
		char escape[8];
		int n;

		if (c < ' ' || c > '~')
			n = snprintf(escape, sizeof(escape), "\\u%04x", c);
		else if (quoted && (c == '"' || c == '\\'))
			n = snprintf(escape, sizeof(escape), "\\%c", c);
		else
			n = snprintf(escape, sizeof(escape), "%c", c);
		if (!line_add(line, escape, (size_t)n))
			return;
	}
}

/* The shortest that a field can be, including the comma in front of it. */
static size_t
field_minimum(const struct log_field *field)
{
	size_t key = strlen(",\"\":") + strlen(field->key);

	switch (field->type) {
	case LOG_FIELD_INTEGER:
		return key + INTEGER_MAX;
	case LOG_FIELD_STRING:
		return key + (field->string == NULL ? strlen("null") : strlen("\"\""));
	case LOG_FIELD_LIST:
		break;
	}
	return key + strlen("[]");
}

static void
line_string(struct line *line, const char *string)
{
	if (string == NULL) {
		line_text(line, "null");
		return;
	}
	line_text(line, "\"");
	line->limit--;
	line_escaped(line, string, true);
	line->limit++;
	line_text(line, "\"");
}

static void
line_list(struct line *line, const int32_t *list, size_t length)
{
	line_text(line, "[");
	line->limit--;
	for (size_t i = 0; i < length; i++) {
		char number[INTEGER_MAX + 2];
		int n;

		n = snprintf(number, sizeof(number), "%s%" PRId32, i > 0 ? "," : "", list[i]);
		if (!line_add(line, number, (size_t)n))
			break;
	}
	line->limit++;
	line_text(line, "]");
}

static void
line_field(struct line *line, const struct log_field *field)
{
	char number[INTEGER_MAX + 1];

	line_text(line, "\"");
	line_text(line, field->key);
	line_text(line, "\":");
	switch (field->type) {
	case LOG_FIELD_STRING:
		line_string(line, field->string);
		break;
	case LOG_FIELD_INTEGER:
		snprintf(number, sizeof(number), "%" PRId64, field->integer);
		line_text(line, number);
		break;
	case LOG_FIELD_LIST:
		line_list(line, field->list, field->length);
		break;
	}
}

/* The shortest that an object of these fields can be, including its braces. */
static size_t
object_minimum(const struct log_field *fields)
{
	size_t need = strlen("{}");

	for (; fields->key != NULL; fields++)
		need += field_minimum(fields);
	return need;
}

/*
 * Adds "{...}". A field may use all the room except the minimum of the fields after it. Keys are
 * short constants; if they do not fit in a line anyway, the last fields are omitted.
 */
static void
line_object(struct line *line, const struct log_field *fields)
{
	size_t need = object_minimum(fields) - strlen("{}");

	line_text(line, "{");
	for (const struct log_field *f = fields; f->key != NULL; f++) {
		size_t minimum = field_minimum(f);

		if (line->used + minimum + LINE_TAIL > LOG_LINE_MAX)
			break;
		need -= minimum;
		line->limit = LOG_LINE_MAX - LINE_TAIL;
		line->limit -= need <= line->limit - line->used - minimum ? need : 0;
		if (f != fields)
			line_text(line, ",");
		line_field(line, f);
	}
	line->limit = LOG_LINE_MAX;
	line_text(line, "}");
}

/*
 * Ends the line and writes it unless that could block: a pipe or socket that polls writable accepts
 * LOG_LINE_MAX bytes. If the reader has gone, poll() reports POLLERR, so no SIGPIPE is raised.
 */
static void
line_write(struct line *line, int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	int saved = errno;
	ssize_t n = 0;

	line->limit = LOG_LINE_MAX;
	line_text(line, "\n");
	pthread_mutex_lock(&log_lock);
	if (poll(&pfd, 1, 0) == 1 && pfd.revents == POLLOUT)
		n = write(fd, line->text, line->used);
	pthread_mutex_unlock(&log_lock);
	(void)n; /* a line that cannot be written is dropped */
	errno = saved;
}

void
log_write(enum log_level level, const char *tag, const char *message,
    const struct log_field *fields)
{
	struct line line;
	size_t need = 1; /* the line break */

	if (!log_enabled(level))
		return;
	if (fields != NULL)
		need += strlen(" ") + object_minimum(fields);
	line.used = 0;
	line.limit = need < LOG_LINE_MAX / 2 ? LOG_LINE_MAX - need : LOG_LINE_MAX / 2;
	if (log_to_journal)
		line_text(&line, journal_prefix[level]);
	line_text(&line, "[");
	line_escaped(&line, tag, false);
	line_text(&line, "] ");
	line_escaped(&line, message, false);
	if (fields != NULL) {
		line.limit = LOG_LINE_MAX;
		line_text(&line, " ");
		line_object(&line, fields);
	}
	line_write(&line, STDERR_FILENO);
}

void
log_metric(const struct log_field *fields)
{
	struct line line;

	line.used = 0;
	line.limit = LOG_LINE_MAX;
	line_object(&line, fields);
	line_write(&line, STDOUT_FILENO);
}

bool
log_allowed(struct log_limit *limit, int interval_ms, uint32_t *suppressed)
{
	return log_allowed_some(limit, 1, interval_ms, suppressed);
}

bool
log_allowed_some(struct log_limit *limit, uint32_t lines, int interval_ms, uint32_t *suppressed)
{
	int64_t now = clock_ms();
	int64_t next = atomic_load(&limit->next);
	uint32_t refused;

	/* If several threads get here at the same time, only one begins the interval. */
	if (now >= next && atomic_compare_exchange_strong(&limit->next, &next, now + interval_ms))
		atomic_store(&limit->lines, 1);
	else if (atomic_load(&limit->lines) >= lines ||
	    atomic_fetch_add(&limit->lines, 1) >= lines) {
		atomic_fetch_add(&limit->suppressed, 1);
		return false;
	}
	refused = atomic_exchange(&limit->suppressed, 0);
	if (suppressed != NULL)
		*suppressed = refused;
	return true;
}
