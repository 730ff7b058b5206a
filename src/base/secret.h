/* SPDX-License-Identifier: ISC */
/*
 * secret: keeps passwords, and strikes them out of text from a peer, which may echo one, before the
 * text becomes part of an error or a log line.
 */
#ifndef TPI_BASE_SECRET_H
#define TPI_BASE_SECRET_H

#include <stddef.h>

/*
 * Returns a copy of a password, which secret_strike() knows from now on. Equal passwords share one
 * copy. NULL: no memory. Call this and secret_drop() only while no other thread calls any function
 * here.
 */
char *secret_keep(const char *text);

/* Drops a reference; the last one overwrites and frees the copy. Safe for NULL. */
void secret_drop(char *secret);

/*
 * Replaces each known password in text with "***", in place: the text never grows. Do it before the
 * text is cut, because a part of a password is not recognized. Thread-safe.
 */
void secret_strike(char *text);

/* The same for one secret, of length bytes, given by the caller. */
void secret_strike_one(char *text, const char *secret, size_t length);

/* Like realloc(), but overwrites a block that it frees. */
void *secret_realloc(void *p, size_t size);

/* Overwrites a string, which becomes "". Safe for NULL. */
void secret_wipe(char *text);

#endif
