/* SPDX-License-Identifier: ISC */
/*
 * text: small string helpers shared by several modules. Pure and thread-safe.
 */
#ifndef TPI_BASE_TEXT_H
#define TPI_BASE_TEXT_H

#include <stddef.h>

/* The value of a hexadecimal digit, or -1. */
int text_hex_digit(char c);

/*
 * Like snprintf(), but replaces every byte that is not printable ASCII with '?', so that untrusted
 * text can neither start a new line nor control a terminal.
 */
void text_line(char *line, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The text of a macro's value: TEXT_OF(EOF) is "(-1)". */
#define TEXT_OF_TOKENS(x) #x
#define TEXT_OF(x)        TEXT_OF_TOKENS(x)

/* White space that is allowed around the parts of a list. */
#define TEXT_SPACE " \t\r\n"

/* Strips TEXT_SPACE from both ends. */
void text_trim(const char **text, size_t *length);

#endif
