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
#include "config/settings.h"
#include "base/text.h"

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
static const char wrong_query[] = "the query may only be family=0, family=4 or family=6";

/* Decodes percent-encoding. The caller frees *out in any case. Returns NULL, or what is wrong. */
static const char *
decode(const char *text, size_t length, char **out)
{
	char *p = calloc(1, length + 1); /* always terminated */

	*out = p;
	if (p == NULL)
		return no_memory;
	for (size_t i = 0; i < length; i++) {
		int high, low;

		if (text[i] != '%') {
			*p++ = text[i];
			continue;
		}
		high = i + 2 < length ? text_hex_digit(text[i + 1]) : -1;
		low = high >= 0 ? text_hex_digit(text[i + 2]) : -1;
		if (low < 0 || high + low == 0)
			return "% must be followed by two hexadecimal digits, not 00";
		*p++ = (char)(high * 16 + low);
		i += 2;
	}
	return NULL;
}

/* Parses user[:password]; an empty user or password counts as none. */
static const char *
parse_userinfo(struct valkey *v, const char *text, size_t length)
{
	const char *colon = memchr(text, ':', length);
	size_t user_length = colon != NULL ? (size_t)(colon - text) : length;
	const char *wrong = NULL;

	if (user_length > 0)
		wrong = decode(text, user_length, &v->user);
	if (wrong == NULL && colon != NULL && user_length + 1 < length)
		wrong = decode(colon + 1, length - user_length - 1, &v->password);
	return wrong;
}

const char *
valkey_parse_address(struct valkey *v, const char *text, size_t length, int port)
{
	char label[VALKEY_LABEL_SIZE];
	struct hostport address;
	const char *wrong = hostport_parse(&address, text, length);

	if (wrong != NULL)
		return wrong;
	v->port = address.port != 0 ? address.port : port;
	hostport_format(label, sizeof(label), address.host, v->port);
	v->host = strdup(address.host);
	v->label = strdup(label);
	return v->host != NULL && v->label != NULL ? NULL : no_memory;
}

/* Parses the text after the '?', with ioredis's name and values for the address family. */
static const char *
parse_query(struct valkey *v, const char *query)
{
	static const struct {
		const char *query;
		int family;
	} families[] = {
		{ "family=0", AF_UNSPEC }, { "family=4", AF_INET }, { "family=6", AF_INET6 },
	};

	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		if (strcmp(query, families[i].query) == 0) {
			v->family = families[i].family;
			return NULL;
		}
	}
	return wrong_query;
}

/* [user[:password]@]host[:port][/db][?query] */
static const char *
parse_network(struct valkey *v, const char *text)
{
	const char *at = memrchr(text, '@', strcspn(text, "/")), *end, *wrong;

	if (at != NULL) {
		wrong = parse_userinfo(v, text, (size_t)(at - text));
		if (wrong != NULL)
			return wrong;
		text = at + 1;
	}
	end = text + strcspn(text, "/?");
	wrong = valkey_parse_address(v, text, (size_t)(end - text), DEFAULT_PORT);
	if (wrong != NULL)
		return wrong;
	if (*end == '/') {
		end += 1 + strspn(end + 1, DIGITS);
		if (*end != '\0' && *end != '?')
			return "the db must be a number";
	}
	return *end == '?' ? parse_query(v, end + 1) : NULL;
}

static const char *
parse_unix(struct valkey *v, const char *path)
{
	static const struct sockaddr_un address;

	if (path[0] != '/' || path[1] == '\0')
		return "the socket path must begin with / and name a socket";
	if (strchr(path, '?') != NULL)
		return "a unix:// URL cannot have a query";
	if (strlen(path) >= sizeof(address.sun_path))
		return "the socket path is over 107 bytes";
	v->path = strdup(path);
	if (asprintf(&v->label, "unix:%s", path) < 0)
		v->label = NULL;
	return v->path != NULL && v->label != NULL ? NULL : no_memory;
}

static const char *
parse_tls(struct valkey *v, const char *text)
{
#ifdef HAVE_TLS
	v->tls = true;
	return parse_network(v, text);
#else
	(void)v;
	(void)text;
	return NO_TLS;
#endif
}

static const char *
parse_url(struct valkey *v, const char *url)
{
	static const struct {
		const char *prefix;
		const char *(*parse)(struct valkey *, const char *);
	} schemes[] = {
		{ "valkey://", parse_network }, { "redis://", parse_network },
		{ "unix://", parse_unix },
		{ "valkeys://", parse_tls }, { "rediss://", parse_tls },
	};

	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t length = strlen(schemes[i].prefix);

		if (strncasecmp(url, schemes[i].prefix, length) == 0)
			return schemes[i].parse(v, url + length);
	}
	return "unknown scheme";
}

bool
valkey_set_password(struct valkey *v, const char *password)
{
	if (v->password != NULL)
		explicit_bzero(v->password, strlen(v->password));
	free(v->password);
	v->password = password != NULL ? strdup(password) : NULL;
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
valkey_read_password(struct valkey *v, const char *setting, const char *path, char *error,
    size_t error_size)
{
	const char *wrong = read_password(v, path);

	if (wrong != NULL)
		text_line(error, error_size, "%s=%s: %s; must be a file whose first line is the "
		    "password", setting, path, wrong);
	return wrong == NULL;
}

/*
 * Finds the name of the first query parameter, for the error. Returns its length, or 0 if the text
 * might be part of a password.
 */
static int
query_name(const char *url, const char **name)
{
	const char *at = strrchr(url, '@'), *query = strchr(at != NULL ? at : url, '?');
	size_t length;

	*name = query != NULL ? query + 1 : "";
	length = strspn(*name, LETTERS "_");
	return length <= PARAMETER_MAX && (*name)[length] == '=' ? (int)length : 0;
}

static void
explain_url(const char *url, const char *list, const char *wrong, char *error, size_t error_size)
{
	const char *name;
	int length = wrong == wrong_query ? query_name(url, &name) : 0;
	char masked[SHOWN_MAX];

	settings_mask_text(strchr(list, '@') != NULL ? list : url, masked, sizeof(masked));
	text_line(error, error_size, "VALKEY_URL=%s: %s%s%.*s; must be " URL_ALLOWED, masked, wrong,
	    length > 0 ? ", not " : "", length, length > 0 ? name : "");
}

int
valkey_parse(struct valkey *v, const char *url, const char *list, const char *password_file,
    char *error, size_t error_size)
{
	const char *wrong;

	memset(v, 0, sizeof(*v));
	wrong = parse_url(v, url);
	if (wrong != NULL)
		explain_url(url, list, wrong, error, error_size);
	else if (password_file[0] == '\0' || valkey_read_password(v, "VALKEY_PASSWORD_FILE",
		     password_file, error, error_size))
		return 0;
	valkey_free(v);
	return -1;
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
