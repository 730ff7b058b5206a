/* SPDX-License-Identifier: ISC */
/*
 * error: why a function failed, as one line for the user or the log.
 *
 * A function that can fail for several reasons takes a struct error as its last argument and
 * returns false or NULL: return error_set(error, "...").
 */
#ifndef TPI_BASE_ERROR_H
#define TPI_BASE_ERROR_H

#include <stdbool.h>

#define ERROR_SIZE 512

struct error {
	char text[ERROR_SIZE]; /* undefined unless a function has failed */
};

/*
 * Formats the text as text_line() does; the arguments may include e->text. Always returns false.
 * Thread-safe.
 */
bool error_set(struct error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
