/*
 * access: may this user read these projects (TPI_PROJECT_ACCESS: deny, file:PATH or allow)? By the
 * application's word (app): app_client.h.
 *
 * An access file holds one rule a line, "<project id or *> <user or *> ...", separated by spaces or
 * tabs; '#' begins a comment anywhere. It is read again when it has changed; one that does not
 * parse, or has gone, is logged once for that change, and the old rules stay.
 */
#ifndef TPI_AUTH_ACCESS_H
#define TPI_AUTH_ACCESS_H

#include <stddef.h>
#include <stdint.h>

#include "config/settings.h"

struct access_rules;

/*
 * Reads rules from length bytes of text. Returns NULL with one line in error that names the line
 * number, or "out of memory".
 */
struct access_rules *access_rules_parse(const char *text, size_t length, char *error,
    size_t error_size);
int access_rules_allow(const struct access_rules *rules, int32_t project, const char *user);
void access_rules_free(struct access_rules *rules);

struct access;

/* settings must outlive it. NULL with one line in error. */
struct access *access_open(const struct settings *settings, char *error, size_t error_size);
void access_close(struct access *access);

/*
 * Keeps those projects that user may read without asking the application, in their order; returns how
 * many. Thread-safe.
 */
int access_filter(struct access *access, const char *user, int32_t *projects, int count);

#endif
