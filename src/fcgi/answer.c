/* SPDX-License-Identifier: ISC */
/*
 * answer: see answer.h.
 */
#include "fcgi/answer.h"

#include <stdio.h>
#include <string.h>

char *
answer_text(const struct answer *a, const char *more, const char *method)
{
	const char *body = strcmp(method, "HEAD") != 0 ? a->body : "";
	char *text;

	if (asprintf(&text,
		"Status: %d %s\r\nCache-Control: no-store\r\n%s%sContent-Type: %s\r\n\r\n%s",
		a->status, a->reason, a->headers, more, a->type, body) == -1)
		return NULL;
	return text;
}
