/* SPDX-License-Identifier: ISC */
/*
 * settings: the table of all settings, and the functions that read, print and describe them.
 *
 * All fields of a loaded struct come from the table; a default passes through the same parser as a
 * value from the environment. Each setting is printed as one line of printable ASCII, never with a
 * password.
 */
#include "config/settings.h"

#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/secret.h"
#include "base/text.h"
#include "config/allowed_origins.h"
#include "config/app_url.h"
#include "wire/channel_name.h"

#define SHOWN_MAX 100   /* characters of a value in an error */
#define MASKED_MAX 4096 /* bytes of a URL that is printed */
#define RANGE_MAX 256

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"
#define MASTER_MAX 255

#define FILE_PREFIX "file:"

#define OF(field) offsetof(struct settings, field)
#define STREAMD SETTINGS_STREAMD
#define BOTH (SETTINGS_STREAMD | SETTINGS_PUBLISH)

static int check_id(const char *);
static int check_prefixes(const char *);
static int check_master(const char *);
static int check_access(const char *);
static int check_app_url(const char *);
static int check_origins(const char *);
static int check_readable(const char *);

static const char *const identity_choices[] = {
	[IDENTITY_WEB_SERVER] = "web-server",
	[IDENTITY_APP] = "app",
	NULL,
};

static const char *const app_proxy_choices[] = {
	[APP_PROXY_NONE] = "none",
	[APP_PROXY_ENVIRONMENT] = "environment",
	NULL,
};

static const char *const status_choices[] = {
	[STATUS_OFF] = "off",
	[STATUS_ON] = "on",
	NULL,
};

static const char *const sandbox_choices[] = {
	[SANDBOX_OFF] = "off",
	[SANDBOX_ON] = "on",
	NULL,
};

static const char *const log_level_choices[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
	NULL,
};

#define STRING(n, field, default_, allowed_, ...)                                                 \
	.name = n, .type = SETTING_STRING, .offset = OF(field), .default_value = default_,        \
	.allowed = allowed_, __VA_ARGS__
#define NUMBER(n, field, default_, low, high, ...)                                                \
	.name = n, .type = SETTING_NUMBER, .offset = OF(field), .default_value = default_,        \
	.minimum = low, .maximum = high, .programs = STREAMD, __VA_ARGS__
#define CHOICE(n, field, default_, choices_, ...)                                                 \
	.name = n, .type = SETTING_CHOICE, .offset = OF(field), .default_value = default_,        \
	.choices = choices_, .programs = STREAMD, __VA_ARGS__

static const struct setting table[] = {
	{ STRING("INSTANCE_TENANT_ID", tenant, "default", CHANNEL_ID_ALLOWED,
	    .check = check_id, .programs = BOTH,
	    .help = "the tenant to serve") },
	{ STRING("TPI_LISTEN", listen, "", "/path, unix:/path, host:port or [v6]:port",
	    .programs = STREAMD,
	    .help = "the address to listen on, as --listen") },
	{ STRING("VALKEY_URL", valkey_url, "valkey://127.0.0.1:6379",
	    "one or more valkey://, valkeys://, redis://, rediss:// or unix:// URLs, "
	    "separated by commas",
	    .programs = BOTH, .is_url = 1,
	    .help = "the Valkey (or Redis) server") },
	{ STRING("VALKEY_PASSWORD_FILE", valkey_password_file, "", "the path of a file",
	    .programs = BOTH,
	    .help = "file with Valkey's password") },
	{ STRING("VALKEY_SENTINELS", valkey_sentinels, "", SETTINGS_SENTINELS_ALLOWED,
	    .programs = BOTH, .is_url = 1,
	    .help = "the sentinels to query for the primary") },
	{ STRING("VALKEY_SENTINEL_MASTER", valkey_sentinel_master, SETTINGS_MASTER_DEFAULT,
	    "1 to 255 of A-Z a-z 0-9 . - _", .check = check_master, .programs = BOTH,
	    .help = "the sentinels' name for the primary") },
	{ STRING("VALKEY_SENTINEL_PASSWORD", valkey_sentinel_password, "", "any text",
	    .programs = BOTH, .is_secret = 1,
	    .help = "the password of the sentinels") },
	{ STRING("VALKEY_SENTINEL_PASSWORD_FILE", valkey_sentinel_password_file, "",
	    "the path of a file", .programs = BOTH,
	    .help = "file with the password of the sentinels") },
	{ STRING("VALKEY_TLS_CA", valkey_tls_ca, "", "the path of a file of PEM certificates",
	    .programs = BOTH,
	    .help = "authorities whose certificates are trusted for Valkey") },
	{ STRING("VALKEY_TLS_CERT", valkey_tls_cert, "", "the path of a file of PEM certificates",
	    .programs = BOTH,
	    .help = "the client certificate for Valkey") },
	{ STRING("VALKEY_TLS_KEY", valkey_tls_key, "", "the path of a file with a PEM key",
	    .programs = BOTH,
	    .help = "the key of VALKEY_TLS_CERT") },
	{ NUMBER("SSE_PER_TENANT_CAP", tenant_cap, "1000", 1, 1000000,
	    .help = "notification streams of the tenant in this process") },
	{ NUMBER("SSE_PER_USER_CAP", user_cap, "4", 1, 10000,
	    .help = "notification streams of one user") },
	{ NUMBER("SSE_ISSUES_PER_TENANT_CAP", issues_tenant_cap, "1000", 1, 1000000,
	    .help = "issue streams of the tenant in this process") },
	{ NUMBER("SSE_ISSUES_PER_USER_CAP", issues_user_cap, "8", 1, 10000,
	    .help = "issue streams of one user") },
	{ NUMBER("SSE_LIVE_PER_TENANT_CAP", live_tenant_cap, "1000", 1, 1000000,
	    .help = "test run and milestone streams of the tenant in this process") },
	{ NUMBER("SSE_LIVE_PER_USER_CAP", live_user_cap, "8", 1, 10000,
	    .help = "test run and milestone streams of one user") },
	{ NUMBER("SSE_COMBINED_PER_TENANT_CAP", combined_tenant_cap, "1000", 1, 1000000,
	    .help = "combined streams of the tenant in this process") },
	{ NUMBER("SSE_COMBINED_PER_USER_CAP", combined_user_cap, "8", 1, 10000,
	    .help = "combined streams of one user") },
	{ NUMBER("TPI_USER_OPENS_PER_SECOND", user_opens_per_second, "20", 1, 1000,
	    .zero_is_off = 1,
	    .help = "streams that one user may open per second") },
	{ NUMBER("SSE_HEARTBEAT_MS", heartbeat_ms, "25000", 100, 3600000,
	    .help = "time without data after which a stream gets a ping") },
	{ NUMBER("SSE_METRICS_MS", metrics_ms, "30000", 100, 3600000,
	    .help = "time between two metric lines") },
	{ NUMBER("SSE_BACKLOG_BYTES", backlog_bytes, "65536", 16384, 16777216,
	    .help = "unsent bytes to keep for a slow reader") },
	{ NUMBER("SSE_STALL_MS", stall_ms, "60000", 1000, 3600000,
	    .help = "time after which a reader that takes nothing is closed") },
	{ NUMBER("SSE_SYNC_SPREAD_MS", sync_spread_ms, "2000", 0, 60000,
	    .help = "time over which syncs are spread after a reconnect to Valkey") },
	{ NUMBER("SSE_MAX_AGE_SECONDS", max_age_seconds, "0", 10, 604800, .zero_is_off = 1,
	    .help = "age at which a stream ends") },
	{ NUMBER("TPI_REQUEST_TIMEOUT_MS", request_timeout_ms, "10000", 100, 60000,
	    .help = "time for a complete request to arrive") },
	{ NUMBER("TPI_DRAIN_SECONDS", drain_seconds, "5", 1, 300,
	    .help = "time for a graceful shutdown") },
	{ CHOICE("TPI_IDENTITY", identity, "web-server", identity_choices,
	    .help = "who authenticates the user") },
	{ STRING("TPI_PROJECT_ACCESS", project_access, "deny", "deny | allow | app | file:PATH",
	    .check = check_access, .programs = STREAMD,
	    .help = "who decides about access to projects, test runs and milestones") },
	{ STRING("TPI_APP_URL", app_url, "", APP_URL_ALLOWED,
	    .check = check_app_url, .programs = STREAMD, .is_url = 1,
	    .help = "the URL of the application") },
	{ STRING("TPI_APP_CA", app_ca, "", "the path of a file of PEM certificates",
	    .check = check_readable, .programs = STREAMD,
	    .help = "authorities whose certificates are trusted for the application") },
	{ CHOICE("TPI_APP_PROXY", app_proxy, "none", app_proxy_choices,
	    .help = "the proxy for requests to the application") },
	{ NUMBER("TPI_APP_TIMEOUT_MS", app_timeout_ms, "2000", 50, 60000,
	    .help = "time for all queries of one request to the application") },
	{ NUMBER("TPI_APP_CACHE_SECONDS", app_cache_seconds, "5", 0, 300,
	    .help = "time for which an answer of the application is kept") },
	{ NUMBER("TPI_APP_CONCURRENCY", app_concurrency, "32", 1, 1000,
	    .help = "requests to the application at once") },
	{ NUMBER("TPI_APP_PENDING", app_pending, "256", 1, 100000,
	    .help = "requests that wait for the application to identify their user") },
	{ NUMBER("TPI_RECHECK_SECONDS", recheck_seconds, "300", 5, 86400, .zero_is_off = 1,
	    .help = "time between two re-checks of an open stream") },
	{ STRING("TPI_ALLOWED_ORIGINS", allowed_origins, "", ALLOWED_ORIGINS_ALLOWED,
	    .check = check_origins, .programs = STREAMD,
	    .help = "origins of other sites whose pages may open streams") },
	{ STRING("TPI_ISSUES_CHANNEL_PREFIX", issues_channel_prefix, "issues,issue-updates",
	    "1 to 4 different prefixes, separated by commas, each " CHANNEL_ID_ALLOWED,
	    .check = check_prefixes, .programs = BOTH,
	    .help = "the prefixes of issue channels; tpi-publish uses the first") },
	{ CHOICE("TPI_STATUS", status, "off", status_choices,
	    .help = "whether to serve health and metrics") },
	{ CHOICE("TPI_SANDBOX", sandbox, "on", sandbox_choices,
	    .help = "whether to deny itself files and system calls that it does not need") },
	{ CHOICE("TPI_LOG_LEVEL", log_level, "info", log_level_choices,
	    .help = "the least severe lines to log") },
};
#define TABLE_COUNT (sizeof(table) / sizeof(table[0]))

static int
check_id(const char *value)
{
	return channel_id_valid(value, strlen(value)) ? 0 : -1;
}

/* Reads a list of prefixes. Returns their number, or -1 if it is invalid. */
static int
parse_prefixes(const char *list, char prefixes[SETTINGS_PREFIXES_MAX][CHANNEL_ID_MAX + 1])
{
	int count = 0;

	for (;; list++) {
		size_t length = strcspn(list, ","), trimmed = length;
		const char *part = list;

		text_trim(&part, &trimmed);
		if (count == SETTINGS_PREFIXES_MAX || !channel_id_valid(part, trimmed))
			return -1;
		memcpy(prefixes[count], part, trimmed);
		prefixes[count][trimmed] = '\0';
		for (int i = 0; i < count; i++)
			if (strcmp(prefixes[i], prefixes[count]) == 0)
				return -1;
		count++;
		list += length;
		if (*list == '\0')
			return count;
	}
}

static int
check_prefixes(const char *value)
{
	char ignored[SETTINGS_PREFIXES_MAX][CHANNEL_ID_MAX + 1];

	return parse_prefixes(value, ignored) > 0 ? 0 : -1;
}

static int
check_master(const char *value)
{
	size_t length = strlen(value);

	/* As Sentinel's own configuration allows. */
	return length > 0 && length <= MASTER_MAX && strspn(value, LETTERS DIGITS ".-_") == length
	    ? 0 : -1;
}

static const char *
access_path(const char *value)
{
	if (strncmp(value, FILE_PREFIX, strlen(FILE_PREFIX)) != 0)
		return NULL;
	return value + strlen(FILE_PREFIX);
}

static int
check_access(const char *value)
{
	const char *path = access_path(value);

	if (path != NULL)
		return path[0] != '\0' ? 0 : -1;
	return strcmp(value, "deny") == 0 || strcmp(value, "allow") == 0 ||
	    strcmp(value, "app") == 0 ? 0 : -1;
}

static int
check_app_url(const char *value)
{
	return value[0] == '\0' || app_url_valid(value) ? 0 : -1;
}

static int
check_origins(const char *value)
{
	return value[0] == '\0' || allowed_origins_valid(value) ? 0 : -1;
}

static int
check_readable(const char *value)
{
	struct stat file;

	if (value[0] == '\0')
		return 0;
	return stat(value, &file) == 0 && S_ISREG(file.st_mode) && access(value, R_OK) == 0
	    ? 0 : -1;
}

/* Needs a project_access that check_access() has accepted. */
static void
derive_access(struct settings *s)
{
	s->access_file = access_path(s->project_access);
	if (s->access_file != NULL)
		s->access = ACCESS_FILE;
	else if (strcmp(s->project_access, "allow") == 0)
		s->access = ACCESS_ALLOW;
	else if (strcmp(s->project_access, "app") == 0)
		s->access = ACCESS_APP;
	else
		s->access = ACCESS_DENY;
}

/* Needs an issues_channel_prefix that check_prefixes() has accepted; removes its white space. */
static void
derive_prefixes(struct settings *s)
{
	char *at = s->issues_channel_prefix;

	s->issues_prefix_count = parse_prefixes(s->issues_channel_prefix, s->issues_prefixes);
	for (int i = 0; i < s->issues_prefix_count; i++) {
		if (i > 0)
			*at++ = ',';
		at = stpcpy(at, s->issues_prefixes[i]);
	}
}

static char **
string_field(struct settings *s, const struct setting *setting)
{
	return (char **)(void *)((char *)s + setting->offset);
}

static int *
int_field(struct settings *s, const struct setting *setting)
{
	return (int *)(void *)((char *)s + setting->offset);
}

const struct setting *
settings_table(size_t *count)
{
	*count = TABLE_COUNT;
	return table;
}

static void
describe_choices(const char *const *choices, char *out, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; choices[i] != NULL && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? " | " : "",
		    choices[i]);
}

void
settings_describe_range(const struct setting *setting, char *out, size_t size)
{
	switch (setting->type) {
	case SETTING_NUMBER:
		snprintf(out, size, "%s%d to %d", setting->zero_is_off ? "0 (off) or " : "",
		    setting->minimum, setting->maximum);
		break;
	case SETTING_STRING:
		snprintf(out, size, "%s", setting->allowed);
		break;
	case SETTING_CHOICE:
		describe_choices(setting->choices, out, size);
		break;
	}
}

/* Only digits: strtol() would accept spaces and signs, too. */
static int
parse_number(const struct setting *setting, const char *value, int *number)
{
	long n;

	if (strspn(value, DIGITS) != strlen(value))
		return -1;
	n = strtol(value, NULL, 10); /* LONG_MAX if it is larger: out of every range */
	if ((n < setting->minimum || n > setting->maximum) && !(n == 0 && setting->zero_is_off))
		return -1;
	*number = (int)n;
	return 0;
}

static int
parse_choice(const struct setting *setting, const char *value, int *number)
{
	for (int i = 0; setting->choices[i] != NULL; i++) {
		if (strcmp(value, setting->choices[i]) == 0) {
			*number = i;
			return 0;
		}
	}
	return -1;
}

/* Returns 0 or an errno value: EINVAL if the value is invalid, or ENOMEM. */
static int
parse(struct settings *s, const struct setting *setting, const char *value)
{
	char **string;

	switch (setting->type) {
	case SETTING_NUMBER:
		return parse_number(setting, value, int_field(s, setting)) == 0 ? 0 : EINVAL;
	case SETTING_CHOICE:
		return parse_choice(setting, value, int_field(s, setting)) == 0 ? 0 : EINVAL;
	case SETTING_STRING:
		break;
	}
	if (setting->check != NULL && setting->check(value) != 0)
		return EINVAL;
	string = string_field(s, setting);
	*string = strdup(value);
	return *string != NULL ? 0 : ENOMEM;
}

/* One byte as printable ASCII; returns the number of characters, at most 6. */
static size_t
escape_byte(char out[8], char byte)
{
	unsigned char c = (unsigned char)byte;

	if (c < ' ' || c > '~')
		return (size_t)snprintf(out, 8, "\\u%04x", c);
	out[0] = byte;
	return 1;
}

/* A value for an error text: escaped, and truncated to SHOWN_MAX characters, "..." included. */
static void
show_value(const char *value, char out[SHOWN_MAX + 1])
{
	size_t used = 0, cut = 0; /* cut: what remains if "..." must follow */

	for (; *value != '\0'; value++) {
		char escape[8];
		size_t n = escape_byte(escape, *value);

		if (used + n > SHOWN_MAX) {
			strcpy(out + cut, "...");
			return;
		}
		memcpy(out + used, escape, n);
		used += n;
		if (used <= SHOWN_MAX - strlen("..."))
			cut = used;
	}
	out[used] = '\0';
}

static void
explain(const struct setting *setting, const char *value, struct error *error)
{
	char masked[MASKED_MAX], shown[SHOWN_MAX + 1], range[RANGE_MAX];
	const char *kind = "";

	if (setting->is_url) {
		settings_mask_text(value, masked, sizeof(masked));
		value = masked;
	}
	show_value(value, shown);
	settings_describe_range(setting, range, sizeof(range));
	if (setting->type == SETTING_NUMBER)
		kind = setting->zero_is_off ? "a whole number, " : "a whole number from ";
	error_set(error, "%s=%s: must be %s%s", setting->name, shown, kind, range);
}

bool
settings_load(struct settings *s, enum settings_program program, char *(*get)(const char *name),
    struct error *error)
{
	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < TABLE_COUNT; i++) {
		const struct setting *setting = &table[i];
		const char *value = setting->programs & program ? get(setting->name) : NULL;
		int problem;

		if (value == NULL || value[0] == '\0')
			value = setting->default_value;
		problem = parse(s, setting, value);
		if (problem == 0)
			continue;
		if (problem == ENOMEM)
			error_set(error, "%s: out of memory", setting->name);
		else
			explain(setting, value, error);
		settings_free(s);
		return false;
	}
	derive_access(s);
	derive_prefixes(s);
	if (s->allowed_origins[0] != '\0')
		allowed_origins_normalize(s->allowed_origins);
	if (settings_queries_app(s) && s->app_url[0] == '\0') {
		error_set(error, "TPI_APP_URL: must be set, to " APP_URL_ALLOWED
		    ", if %s is app", s->identity == IDENTITY_APP ? "TPI_IDENTITY"
								     : "TPI_PROJECT_ACCESS");
		settings_free(s);
		return false;
	}
	return true;
}

static bool
in_table(const char *name, size_t length)
{
	for (size_t i = 0; i < TABLE_COUNT; i++) {
		if (strncmp(table[i].name, name, length) == 0 && table[i].name[length] == '\0')
			return true;
	}
	return false;
}

size_t
settings_unknown(const char *variable)
{
	static const char *const ours[] = { "TPI_*", "SSE_*", "VALKEY_*" };
	/* Kubernetes sets these in each pod for a service named tpi-..., sse-... or valkey-... */
	static const char *const others[] = {
		"*_SERVICE_HOST", "*_SERVICE_PORT", "*_SERVICE_PORT_*", "*_PORT",
		"*_PORT_[0-9]*_TCP*", "*_PORT_[0-9]*_UDP*", "*_PORT_[0-9]*_SCTP*",
	};
	size_t length = strcspn(variable, "=");
	char *name = strndup(variable, length);
	bool unknown = false;

	for (size_t i = 0; name != NULL && i < sizeof(ours) / sizeof(ours[0]); i++)
		unknown |= fnmatch(ours[i], name, 0) == 0 && !in_table(name, length);
	for (size_t i = 0; unknown && i < sizeof(others) / sizeof(others[0]); i++)
		unknown = fnmatch(others[i], name, 0) != 0;
	free(name);
	return unknown ? length : 0;
}

bool
settings_queries_app(const struct settings *s)
{
	return s->identity == IDENTITY_APP || s->access == ACCESS_APP;
}

void
settings_free(struct settings *s)
{
	for (size_t i = 0; i < TABLE_COUNT; i++) {
		if (table[i].type == SETTING_STRING)
			free(*string_field(s, &table[i]));
	}
	memset(s, 0, sizeof(*s));
}

void
settings_forget_secrets(struct settings *s)
{
	secret_wipe(s->valkey_url);
	secret_wipe(s->valkey_sentinel_password);
}

static void
print_escaped(const char *value, FILE *out)
{
	for (; *value != '\0'; value++) {
		char escape[8];

		fwrite(escape, 1, escape_byte(escape, *value), out);
	}
}

static void
print_string(const struct setting *setting, const char *value, FILE *out)
{
	char masked[MASKED_MAX];

	if (setting->is_secret && value[0] != '\0')
		value = "***";
	if (setting->is_url) {
		settings_mask_url(value, masked, sizeof(masked));
		value = masked;
	}
	print_escaped(value, out);
}

void
settings_print(const struct settings *s, enum settings_program program, FILE *out)
{
	for (size_t i = 0; i < TABLE_COUNT; i++) {
		const struct setting *setting = &table[i];
		const void *field = (const char *)s + setting->offset;

		if (!(setting->programs & program))
			continue;
		fprintf(out, "%s=", setting->name);
		switch (setting->type) {
		case SETTING_NUMBER:
			fprintf(out, "%d", *(const int *)field);
			break;
		case SETTING_CHOICE:
			fprintf(out, "%s", setting->choices[*(const int *)field]);
			break;
		case SETTING_STRING:
			print_string(setting, *(char *const *)field, out);
			break;
		}
		fputc('\n', out);
	}
}

/* The length of "scheme" if "://" follows; else 0. */
static size_t
scheme_length(const char *url)
{
	size_t length = strspn(url, LETTERS);

	return strncmp(url + length, "://", 3) == 0 ? length : 0;
}

size_t
settings_url_length(const char *list)
{
	const char *comma = list;

	while ((comma = strchr(comma, ',')) != NULL) {
		size_t spaces = strspn(comma + 1, TEXT_SPACE);

		if (scheme_length(comma + 1 + spaces) > 0)
			return (size_t)(comma - list);
		comma++;
	}
	return strlen(list);
}

/* Appends text. Returns the total length, even if there is no room for it. */
static size_t
append(char *out, size_t size, size_t used, const char *text, size_t length)
{
	if (used < size)
		snprintf(out + used, size - used, "%.*s", (int)length, text);
	return used + length;
}

/*
 * How much of host[:port][/...] is shown. What is not a port may be a password, if the '@' is
 * missing or percent-encoded.
 */
static size_t
mask_port(const char *start, size_t length)
{
	size_t host = strcspn(start, ":/?,@"), digits;

	if (start[0] == '[' || host >= length || start[host] != ':')
		return length;
	host++;
	digits = strspn(start + host, DIGITS);
	host += digits;
	return host >= length || start[host] == '/' || start[host] == '?' ? length : host - digits;
}

/* Leaves out the query, which other programs use for passwords, unless it is ?family=NUMBER. */
static size_t
mask_query(const char *text, size_t length)
{
	static const char family[] = "?family=";
	const char *query = memchr(text, '?', length);
	size_t used = query != NULL ? (size_t)(query - text) : length, known = strlen(family);

	if (used == length || (length - used > known && memcmp(query, family, known) == 0 &&
	    used + known + strspn(query + known, DIGITS) >= length))
		return length;
	return used + 1;
}

/* Appends what may be shown of the end of a URL, and "***" for the rest. */
static size_t
append_end(char *out, size_t size, size_t used, const char *text, size_t length)
{
	size_t shown = mask_query(text, length);

	used = append(out, size, used, text, shown);
	return append(out, size, used, "***", shown < length ? 3 : 0);
}

static bool
is_unix_path(const char *url, size_t length)
{
	return strncmp(url, "unix:///", 8) == 0 && memmem(url + 8, length - 8, "://", 3) == NULL;
}

static size_t
mask(const char *url, size_t length, char *out, size_t size, size_t used)
{
	const char *at = memrchr(url, '@', length), *start;
	size_t spaces = strspn(url, TEXT_SPACE), scheme, shown, user;

	used = append(out, size, used, url, spaces);
	url += spaces;
	length -= spaces;
	scheme = scheme_length(url);
	start = scheme > 0 ? url + scheme + 3 : url;
	if (is_unix_path(url, length))
		return append_end(out, size, used, url, length);
	if (at == NULL) {
		shown = (size_t)(start - url);
		shown += start != url ? mask_port(start, length - shown) : length;
		if (shown == length)
			return append_end(out, size, used, url, length);
		used = append(out, size, used, url, shown);
		return append(out, size, used, "***", 3);
	}
	/* Only after a scheme is the text before the colon certainly a user name. */
	user = strcspn(start, ":/?,@");
	if (start != url && start[user] == ':')
		start += user + 1;
	used = append(out, size, used, url, (size_t)(start - url));
	used = append(out, size, used, "***", 3);
	return append_end(out, size, used, at, length - (size_t)(at - url));
}

void
settings_mask_url(const char *url, char *out, size_t size)
{
	size_t used = 0, length;

	out[0] = '\0';
	for (;; url += length + 1) {
		length = settings_url_length(url);
		used = mask(url, length, out, size, used);
		if (url[length] == '\0')
			return;
		used = append(out, size, used, ",", 1);
	}
}

void
settings_mask_text(const char *text, char *out, size_t size)
{
	char *masked;

	out[0] = '\0';
	if (strchr(text, '@') != NULL) {
		mask(text, strlen(text), out, size, 0);
		return;
	}
	settings_mask_url(text, out, size);
	masked = strstr(out, "***");
	if (masked != NULL)
		masked[3] = '\0';
}
