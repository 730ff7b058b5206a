/*
 * answer: see answer.h.
 */
#include "answer.h"

#include <stdio.h>
#include <string.h>

char *
answer_text(const struct answer *a, const char *method)
{
	const char *name = a->type != NULL ? "Content-Type: " : "";
	const char *type = a->type != NULL ? a->type : "";
	const char *end = a->type != NULL ? "\r\n" : "";
	const char *body = a->type != NULL && strcmp(method, "HEAD") != 0 ? a->body : "";
	char *text;

	if (asprintf(&text, "Status: %d %s\r\nCache-Control: no-store\r\n%s%s%s%s\r\n%s", a->status,
		a->reason, a->headers, name, type, end, body) == -1)
		return NULL;
	return text;
}
