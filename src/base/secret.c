/* SPDX-License-Identifier: ISC */
/*
 * secret: see secret.h.
 */
#include "base/secret.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define MASK "***"

struct secret {
	SLIST_ENTRY(secret) link;
	int references;
	char text[];
};

static SLIST_HEAD(, secret) secrets = SLIST_HEAD_INITIALIZER(secrets);

char *
secret_keep(const char *text)
{
	struct secret *s;

	SLIST_FOREACH(s, &secrets, link) {
		if (strcmp(s->text, text) == 0) {
			s->references++;
			return s->text;
		}
	}
	s = malloc(sizeof(*s) + strlen(text) + 1);
	if (s == NULL)
		return NULL;
	s->references = 1;
	strcpy(s->text, text);
	SLIST_INSERT_HEAD(&secrets, s, link);
	return s->text;
}

void
secret_drop(char *secret)
{
	struct secret *s;

	SLIST_FOREACH(s, &secrets, link)
		if (s->text == secret)
			break;
	if (s == NULL || --s->references > 0)
		return;
	SLIST_REMOVE(&secrets, s, secret, link);
	secret_wipe(s->text);
	free(s);
}

void
secret_strike_one(char *text, const char *secret, size_t length)
{
	size_t mask = length < strlen(MASK) ? length : strlen(MASK);

	if (length == 0)
		return;
	while ((text = memmem(text, strlen(text), secret, length)) != NULL) {
		memcpy(text, MASK, mask);
		text += mask;
		memmove(text, text + length - mask, strlen(text + length - mask) + 1);
	}
}

void
secret_strike(char *text)
{
	const struct secret *s;

	SLIST_FOREACH(s, &secrets, link)
		secret_strike_one(text, s->text, strlen(s->text));
}

void *
secret_realloc(void *p, size_t size)
{
	size_t old = malloc_usable_size(p); /* 0 for NULL */
	void *moved;

	if (p != NULL && size <= old)
		return p;
	moved = malloc(size);
	if (moved == NULL || p == NULL)
		return moved;
	memcpy(moved, p, old);
	explicit_bzero(p, old);
	free(p);
	return moved;
}

void
secret_wipe(char *text)
{
	if (text != NULL)
		explicit_bzero(text, strlen(text));
}
