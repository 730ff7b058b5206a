/* SPDX-License-Identifier: ISC */
/*
 * access: may this user read these projects (TPI_PROJECT_ACCESS: deny, file:PATH or allow)? By the
 * application's word (app): app_client.h.
 *
 * An access file holds one rule a line, "<project id or *> <user or *> ...", separated by spaces or
 * tabs; '#' begins a comment anywhere. The last line ends in a line break, too: without one the file
 * may be half written. It is reloaded when it has changed; one that does not parse, or has gone, is
 * logged once for that change, and the previous rules stay.
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
 * Reads rules from length bytes of text. NULL with an error that names the number of the line, or is
 * "out of memory".
 */
struct access_rules *access_rules_parse(const char *text, size_t length, struct error *error);
int access_rules_allow(const struct access_rules *rules, int32_t project, const char *user);
void access_rules_free(struct access_rules *rules);

struct access;

/* settings must outlive it. NULL with an error. */
struct access *access_open(const struct settings *settings, struct error *error);

/*
 * Starts the thread that reloads an access file within about a second after it has changed. At most
 * once. False with errno where the thread cannot be started.
 */
bool access_watch(struct access *access);

/* Waits for the thread: on a file system that hangs, for as long as that does. */
void access_close(struct access *access);

/*
 * Keeps those ids to which the user has access without a query to the application, in their order;
 * returns how many. A file decides about projects only: of other ids it keeps none. Never waits
 * for the file. Thread-safe.
 */
int access_filter(struct access *access, const char *user, enum app_check check, int32_t *ids,
    int count);

/*
 * Has the file checked now, so that access_filter() decides by its present rules, and waits for that,
 * at most a second. For re-checks; requests do not wait. Thread-safe.
 */
void access_refresh(struct access *access);

#endif
