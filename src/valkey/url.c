/* SPDX-License-Identifier: ISC */
/*
 * url: see url.h.
 *
 * No error text contains a password: URLs are masked.
 */
#include "config.h"

#include "valkey/url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/hostport.h"
#include "base/secret.h"
#include "base/text.h"
#include "config/settings.h"

#ifdef HAVE_TLS
#define TLS_ALLOWED ", with TLS valkeys:// or rediss://"
#else
#define TLS_ALLOWED ""
#endif
#define URL_ALLOWED                                                                               \
	"valkey:// or redis:// [user[:password]@]host[:port][/db][?family=0|4|6]" TLS_ALLOWED \
	", or unix:///path; " \
	"separate several nodes of one Cluster with commas"
#define DEFAULT_PORT  6379
#define PASSWORD_MAX  4096
#define SHOWN_MAX     160 /* bytes of a URL in an error */
#define PARAMETER_MAX 32   /* bytes of the name of a parameter in an error */
#define DIGITS        "0123456789"
#define LETTERS       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static const char no_memory[] = "out of memory";

/* Decodes percent-encoding. The caller frees *out in any case. */
static bool
decode(const char *text, size_t length, char **out, struct error *error)
{
	char *p = calloc(1, length + 1); /* always terminated */

	*out = p;
	if (p == NULL)
		return error_set(error, no_memory);
	for (size_t i = 0; i < length; i++) {
		int high, low;

		if (text[i] != '%') {
			*p++ = text[i];
			continue;
		}
		high = i + 2 < length ? text_hex_digit(text[i + 1]) : -1;
		low = high >= 0 ? text_hex_digit(text[i + 2]) : -1;
		if (low < 0 || high + low == 0)
			return error_set(error,
			    "%% must be followed by two hexadecimal digits, not 00");
		*p++ = (char)(high * 16 + low);
		i += 2;
	}
	return true;
}

/* Parses user[:password]; an empty user or password counts as none. */
static bool
parse_userinfo(struct valkey *v, const char *text, size_t length, struct error *error)
{
	const char *colon = memchr(text, ':', length);
	size_t user_length = colon != NULL ? (size_t)(colon - text) : length;
	char *password = NULL;
	bool good;

	if (user_length > 0 && !decode(text, user_length, &v->user, error))
		return false;
	if (colon == NULL || user_length + 1 == length)
		return true;
	good = decode(colon + 1, length - user_length - 1, &password, error) &&
	    (valkey_set_password(v, password) || error_set(error, no_memory));
	secret_wipe(password);
	free(password);
	return good;
}

bool
valkey_parse_address(struct valkey *v, const char *text, size_t length, int port,
    struct error *error)
{
	char label[VALKEY_LABEL_SIZE];
	struct hostport address;

	if (!hostport_parse(&address, text, length, error))
		return false;
	v->port = address.port != 0 ? address.port : port;
	hostport_format(label, sizeof(label), address.host, v->port);
	v->host = strdup(address.host);
	v->label = strdup(label);
	return (v->host != NULL && v->label != NULL) || error_set(error, no_memory);
}

/* The length of the name in a query, to show it; 0 if it might be part of a password. */
static int
query_name_length(const char *query)
{
	size_t length = strspn(query, LETTERS "_");

	return length <= PARAMETER_MAX && query[length] == '=' && strchr(query, '@') == NULL
	    ? (int)length : 0;
}

/* Parses the text after the '?', with ioredis's name and values for the address family. */
static bool
parse_query(struct valkey *v, const char *query, struct error *error)
{
	static const struct {
		const char *query;
		int family;
	} families[] = {
		{ "family=0", AF_UNSPEC }, { "family=4", AF_INET }, { "family=6", AF_INET6 },
	};

	int length = query_name_length(query);

	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		if (strcmp(query, families[i].query) == 0) {
			v->family = families[i].family;
			return true;
		}
	}
	return error_set(error, "the query may only be family=0, family=4 or family=6%s%.*s",
	    length > 0 ? ", not " : "", length, query);
}

/* [user[:password]@]host[:port][/db][?query] */
static bool
parse_network(struct valkey *v, const char *text, struct error *error)
{
	const char *at = memrchr(text, '@', strcspn(text, "/")), *end;

	if (at != NULL) {
		if (!parse_userinfo(v, text, (size_t)(at - text), error))
			return false;
		text = at + 1;
	}
	end = text + strcspn(text, "/?");
	if (!valkey_parse_address(v, text, (size_t)(end - text), DEFAULT_PORT, error))
		return false;
	if (*end == '/') {
		end += 1 + strspn(end + 1, DIGITS);
		if (*end != '\0' && *end != '?')
			return error_set(error, "the db must be a number");
	}
	return *end != '?' || parse_query(v, end + 1, error);
}

static bool
parse_unix(struct valkey *v, const char *path, struct error *error)
{
	static const struct sockaddr_un address;

	if (path[0] != '/' || path[1] == '\0')
		return error_set(error, "the socket path must begin with / and name a socket");
	if (strchr(path, '?') != NULL)
		return error_set(error, "a unix:// URL cannot have a query");
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(error, "the socket path is over 107 bytes");
	v->path = strdup(path);
	if (asprintf(&v->label, "unix:%s", path) < 0)
		v->label = NULL;
	return (v->path != NULL && v->label != NULL) || error_set(error, no_memory);
}

static bool
parse_tls(struct valkey *v, const char *text, struct error *error)
{
#ifdef HAVE_TLS
	v->tls = true;
	return parse_network(v, text, error);
#else
	(void)v;
	(void)text;
	return error_set(error, NO_TLS);
#endif
}

/* The error is only what is wrong, without the URL. */
static bool
parse_url(struct valkey *v, const char *url, struct error *error)
{
	static const struct {
		const char *prefix;
		bool (*parse)(struct valkey *, const char *, struct error *);
	} schemes[] = {
		{ "valkey://", parse_network }, { "redis://", parse_network },
		{ "unix://", parse_unix },
		{ "valkeys://", parse_tls }, { "rediss://", parse_tls },
	};

	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t length = strlen(schemes[i].prefix);

		if (strncasecmp(url, schemes[i].prefix, length) == 0)
			return schemes[i].parse(v, url + length, error);
	}
	return error_set(error, "unknown scheme");
}

bool
valkey_set_password(struct valkey *v, const char *password)
{
	char *old = v->password;

	v->password = password != NULL ? secret_keep(password) : NULL;
	secret_drop(old);
	return (v->password != NULL) == (password != NULL);
}

/* Reads the password from the first line of a file. Returns NULL, or what is wrong. */
static const char *
read_password(struct valkey *v, const char *path)
{
	char line[PASSWORD_MAX + 2]; /* with a line break and the terminating NUL */
	const char *wrong = NULL;
	FILE *file = fopen(path, "re");
	size_t length, read;

	if (file == NULL)
		return strerror(errno);
	setvbuf(file, NULL, _IONBF, 0); /* no second copy of the password */
	read = fread(line, 1, sizeof(line) - 1, file);
	line[read] = '\0';
	length = strcspn(line, "\n");
	if (ferror(file))
		wrong = strerror(errno);
	else if (length > PASSWORD_MAX)
		wrong = "the first line is over 4096 bytes";
	else if (length < read && line[length] == '\0')
		wrong = "the first line contains a NUL";
	fclose(file);
	if (length > 0 && line[length] == '\n' && line[length - 1] == '\r')
		length--;
	if (wrong == NULL && length == 0)
		wrong = "the first line is empty";
	line[length] = '\0';
	if (wrong == NULL && !valkey_set_password(v, line))
		wrong = no_memory;
	explicit_bzero(line, sizeof(line));
	return wrong;
}

bool
valkey_read_password(struct valkey *v, const char *setting, const char *path, struct error *error)
{
	const char *wrong = read_password(v, path);

	return wrong == NULL || error_set(error,
	    "%s=%s: %s; must be a file whose first line is the password", setting, path, wrong);
}

bool
valkey_parse(struct valkey *v, const char *url, const char *list, const char *password_file,
    struct error *error)
{
	char masked[SHOWN_MAX];

	memset(v, 0, sizeof(*v));
	if (!parse_url(v, url, error)) {
		settings_mask_text(strchr(list, '@') != NULL ? list : url, masked, sizeof(masked));
		error_set(error, "VALKEY_URL=%s: %s; must be " URL_ALLOWED, masked, error->text);
	} else if (password_file[0] == '\0' || valkey_read_password(v, "VALKEY_PASSWORD_FILE",
		     password_file, error))
		return true;
	valkey_free(v);
	return false;
}

void
valkey_free(struct valkey *v)
{
	valkey_set_password(v, NULL);
	free(v->user);
	free(v->host);
	free(v->path);
	free(v->label);
	memset(v, 0, sizeof(*v));
}
