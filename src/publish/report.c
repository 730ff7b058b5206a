/* SPDX-License-Identifier: ISC */
/*
 * report: see report.h. Each line is one write, so that lines of several processes do not mix.
 */
#include "publish/report.h"

#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

#define PROGRESS_MS 100

static int patience = -1;
static bool progress_shown; /* the cursor is at the end of the progress */

void
report_patience(int ms)
{
	patience = ms;
}

void
report_clear(void)
{
	if (progress_shown)
		dprintf(STDERR_FILENO, "\r\033[K");
	progress_shown = false;
}

void
report_line(const char *format, ...)
{
	struct pollfd writable = { .fd = STDERR_FILENO, .events = POLLOUT };
	char text[1024], line[1100];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	text_line(line, sizeof(line), "tpi-publish: %s", text);
	report_clear();
	if (poll(&writable, 1, patience) > 0)
		dprintf(STDERR_FILENO, "%s\n", line);
}

void
report_progress(uint64_t published, uint64_t bad)
{
	static int64_t next;
	int64_t now = clock_ms();

	if (now < next || !isatty(STDERR_FILENO))
		return;
	next = now + PROGRESS_MS;
	progress_shown = true;
	dprintf(STDERR_FILENO, "\rtpi-publish: published %ju, bad %ju\033[K", (uintmax_t)published,
	    (uintmax_t)bad);
}
