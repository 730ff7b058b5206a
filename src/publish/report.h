/* SPDX-License-Identifier: ISC */
/*
 * report: what tpi-publish prints on standard error: lines, and on a terminal the progress, which
 * the next line replaces. Write errors are ignored. Not thread-safe.
 */
#ifndef TPI_PUBLISH_REPORT_H
#define TPI_PUBLISH_REPORT_H

#include <stdint.h>

/*
 * Sets how long a line waits, in milliseconds, for standard error to accept it before it is
 * dropped. The default, -1, is without limit.
 */
void report_patience(int ms);

/* Prints "tpi-publish: <text>" as one line of printable ASCII; text is cut at 1023 bytes. */
void report_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints the progress of a batch, at most 10 times a second, and only on a terminal. */
void report_progress(uint64_t published, uint64_t bad);

/* Clears the progress. Call it before printing a line by other means than report_line(). */
void report_clear(void);

#endif
