/*
 * text: see text.h.
 */
#include "text.h"

#include <stdarg.h>
#include <stdio.h>

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
