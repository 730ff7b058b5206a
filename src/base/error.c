/* SPDX-License-Identifier: ISC */
/*
 * error: see error.h.
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"

bool
error_set(struct error *e, const char *format, ...)
{
	char text[ERROR_SIZE];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	text_line(e->text, sizeof(e->text), "%s", text);
	return false;
}
