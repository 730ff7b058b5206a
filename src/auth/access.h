/* SPDX-License-Identifier: ISC */
/*
 * access: what a user has access to, where that needs no query to the application
 * (TPI_PROJECT_ACCESS: deny, file:PATH or allow). For app see app_client.h.
 *
 * An access file holds one rule per line, "<project id or *> <user or *> ...", separated by spaces
 * or tabs; '#' begins a comment anywhere. The last line must end in a line break, too: without one
 * the file may be half written. The file is reloaded when it changes. If it then does not parse, or
 * is gone, that is logged once, and the previous rules stay.
 */
#ifndef TPI_AUTH_ACCESS_H
#define TPI_AUTH_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/app_api.h"
#include "base/error.h"
#include "config/settings.h"

struct access_rules;

/*
 * Reads rules from length bytes of text. NULL with an error that names the number of the line, or
 * is "out of memory".
 */
struct access_rules *access_rules_parse(const char *text, size_t length, struct error *error);
int access_rules_allow(const struct access_rules *rules, int32_t project, const char *user);
void access_rules_free(struct access_rules *rules);

struct access;

/* settings must outlive it. NULL with an error. */
struct access *access_open(const struct settings *settings, struct error *error);

/*
 * Starts the thread that reloads the access file within about a second after it has changed. Call
 * it at most once. False with errno if the thread cannot be started.
 */
bool access_watch(struct access *access);

/* Waits for the thread, which may hang with the file system. */
void access_close(struct access *access);

/*
 * Keeps those ids to which the user has access without a query to the application, in their order;
 * returns how many. A file decides about projects only: of other ids it keeps none. Never waits
 * for the file. Thread-safe.
 */
int access_filter(struct access *access, const char *user, enum app_check check, int32_t *ids,
    int count);

/*
 * Has the thread check the file now, and waits for that up to a second, so that access_filter()
 * uses the current rules. For re-checks; requests do not wait. Thread-safe.
 */
void access_refresh(struct access *access);

#endif
