/* SPDX-License-Identifier: ISC */
/*
 * report: what tpi-publish says on standard error: lines, and on a terminal one line of progress
 * that gives way to them. For one thread. Standard error that cannot be written stops nothing.
 */
#ifndef TPI_PUBLISH_REPORT_H
#define TPI_PUBLISH_REPORT_H

#include <stdint.h>

/*
 * How long a line waits, in milliseconds, for a standard error that takes nothing before it is
 * dropped; -1, which it is at the start, is without end.
 */
void report_patience(int ms);

/* "tpi-publish: <text>", made one line of printable ASCII and cut at 1023 bytes. */
void report_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Shows how a batch gets on, at most 10 times a second, and only on a terminal. */
void report_progress(uint64_t published, uint64_t bad);

/* Takes the progress away, before somebody else writes a line. */
void report_clear(void);

#endif
