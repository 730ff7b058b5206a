/*
 * url: where a server is and who we are there, from VALKEY_URL and VALKEY_PASSWORD_FILE.
 */
#ifndef TPI_VALKEY_URL_H
#define TPI_VALKEY_URL_H

#include <stdbool.h>
#include <stddef.h>

#define VALKEY_ERROR_SIZE 512 /* of a line that says why a server cannot be used */
#define VALKEY_LABEL_SIZE 280

struct valkey {
	char *host;     /* NULL where path is set; an IPv6 address without brackets */
	int port;       /* 1..65535 */
	int family;     /* of the addresses of a name: AF_INET, AF_INET6, or AF_UNSPEC for both */
	bool tls;       /* see tls.h */
	char *path;     /* of a Unix socket */
	char *user;     /* NULL: the default user */
	char *password; /* NULL: none */
	char *label;    /* "host:port" or "unix:/path", for logs; holds no secret */
};

/*
 * Reads a URL: valkey:// or redis:// [user[:password]@]host[:port][/db][?family=0|4|6], or
 * unix:///path; user and password percent-decoded, [v6] hosts, port 6379 where none is given. db is
 * checked and otherwise unused: pub/sub knows no databases. valkeys:// and rediss:// are for TLS, and
 * refused with a text that says so in a build without it. password_file ("" for none) overrides the
 * password, see valkey_read_password(). list is the list that url is from, or url itself: where it
 * holds an '@', it is shown instead of url, which may be part of a password. Returns 0, or -1 with
 * one line in error that names the setting (VALKEY_URL or VALKEY_PASSWORD_FILE), shows the value
 * with the password masked, and says what is allowed; then *v holds nothing to free.
 */
int valkey_parse(struct valkey *v, const char *url, const char *list, const char *password_file,
    char *error, size_t error_size);
void valkey_free(struct valkey *v);

/*
 * Reads host[:port] or [v6][:port]; port is that where none is given. Returns NULL, or what is
 * wrong; valkey_free() is due in either case.
 */
const char *valkey_parse_address(struct valkey *v, const char *text, size_t length, int port);

/*
 * Takes the password from the first line of a file; the line break, LF or CRLF, is not part of it.
 * False with one line in error that names the setting and the file.
 */
bool valkey_read_password(struct valkey *v, const char *setting, const char *path, char *error,
    size_t error_size);

/* Sets (a copy) or, by NULL, removes the password. False: no memory. */
bool valkey_set_password(struct valkey *v, const char *password);

#endif
