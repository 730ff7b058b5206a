/*
 * text: small things that several modules do with texts. Pure and thread-safe.
 */
#ifndef TPI_BASE_TEXT_H
#define TPI_BASE_TEXT_H

#include <stddef.h>

/* The value of a hexadecimal digit, or -1. */
int text_hex_digit(char c);

/*
 * As snprintf(), and every byte that is not printable ASCII becomes '?': what a peer or an
 * administrator wrote can then neither begin a line nor steer a terminal.
 */
void text_line(char *line, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* White space around the parts of a list. */
#define TEXT_SPACE " \t\r\n"

/* Takes TEXT_SPACE off both ends. */
void text_trim(const char **text, size_t *length);

#endif
