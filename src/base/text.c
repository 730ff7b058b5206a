/* SPDX-License-Identifier: ISC */
/*
 * text: see text.h.
 */
#include "base/text.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int
text_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

void
text_line(char *line, size_t size, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, size, format, ap);
	va_end(ap);
	for (; *line != '\0'; line++)
		if (*line < ' ' || *line > '~')
			*line = '?';
}

static bool
is_space(char c)
{
	return c != '\0' && strchr(TEXT_SPACE, c) != NULL;
}

void
text_trim(const char **text, size_t *length)
{
	while (*length > 0 && is_space(**text)) {
		(*text)++;
		(*length)--;
	}
	while (*length > 0 && is_space((*text)[*length - 1]))
		(*length)--;
}
