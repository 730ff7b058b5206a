/* SPDX-License-Identifier: ISC */
/*
 * url: the address of a server, and the user and password for it, from VALKEY_URL and
 * VALKEY_PASSWORD_FILE.
 */
#ifndef TPI_VALKEY_URL_H
#define TPI_VALKEY_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define VALKEY_LABEL_SIZE 280

struct valkey {
	char *host;     /* NULL if path is set; IPv6 without brackets */
	int port;       /* 1 to 65535 */
	int family;     /* for resolving host: AF_INET, AF_INET6, or AF_UNSPEC for both */
	bool tls;       /* see tls.h */
	char *path;     /* of a Unix socket; NULL if host is set */
	char *user;     /* NULL: the default user */
	char *password; /* NULL: none; from secret_keep() */
	char *label;    /* "host:port" or "unix:/path", for logs; contains no secret */
};

/*
 * Parses a URL: valkey:// or redis:// [user[:password]@]host[:port][/db][?family=0|4|6], or
 * unix:///path. User and password are percent-decoded, the host may be [v6], and the default port
 * is 6379. db is checked but not used, because pub/sub ignores databases. valkeys:// and rediss://
 * mean TLS; a build without TLS refuses them, and the error says so.
 *
 * password_file ("" for none) overrides the password; see valkey_read_password(). list is the list
 * that url is part of, or url itself. If it contains an '@', errors show the masked list instead of
 * url: a password with a comma may have been split, so that url is a part of it.
 *
 * False with an error that names the setting (VALKEY_URL or VALKEY_PASSWORD_FILE), shows the value
 * with the password masked, and says what is allowed; *v then needs no valkey_free().
 */
bool valkey_parse(struct valkey *v, const char *url, const char *list, const char *password_file,
    struct error *error);
void valkey_free(struct valkey *v);

/*
 * Parses host[:port] or [v6][:port]; port is the default. False with an error that says what is
 * wrong, but does not repeat the text. Call valkey_free() in either case.
 */
bool valkey_parse_address(struct valkey *v, const char *text, size_t length, int port,
    struct error *error);

/*
 * Reads the password from the first line of a file, without its line break (LF or CRLF). False with
 * an error that names the setting and the file.
 */
bool valkey_read_password(struct valkey *v, const char *setting, const char *path,
    struct error *error);

/* Sets the password to a copy, or removes it if NULL. False: no memory. */
bool valkey_set_password(struct valkey *v, const char *password);

#endif
