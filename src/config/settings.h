/* SPDX-License-Identifier: ISC */
/*
 * settings: all settings, each declared once in the table in settings.c: name, type, range,
 * default, one line of help. Parsing, --check-config, and the test that compares the man page with
 * the program use that table.
 *
 * An empty variable counts as unset. The first value that does not parse, or is out of range, is
 * an error that names the setting, the value and what is allowed.
 */
#ifndef TPI_CONFIG_SETTINGS_H
#define TPI_CONFIG_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "wire/channel_name.h"

#define SETTINGS_PREFIXES_MAX 4
#define SETTINGS_SENTINELS_ALLOWED "a comma-separated list of host[:port] or [v6][:port]"
#define SETTINGS_MASTER_DEFAULT "mymaster"

enum identity_source { IDENTITY_WEB_SERVER, IDENTITY_APP };
enum access_policy { ACCESS_DENY, ACCESS_FILE, ACCESS_APP, ACCESS_ALLOW };
enum status_pages { STATUS_OFF, STATUS_ON };
enum sandbox_use { SANDBOX_OFF, SANDBOX_ON };
enum app_proxy { APP_PROXY_NONE, APP_PROXY_ENVIRONMENT };

struct settings {
	/* The struct owns the strings, which are never NULL; "" means none. */
	char *tenant;                /* INSTANCE_TENANT_ID */
	char *listen;                /* TPI_LISTEN */
	char *valkey_url;            /* VALKEY_URL */
	char *valkey_password_file;  /* VALKEY_PASSWORD_FILE */
	char *valkey_sentinels;      /* VALKEY_SENTINELS */
	char *valkey_sentinel_master;   /* VALKEY_SENTINEL_MASTER */
	char *valkey_sentinel_password; /* VALKEY_SENTINEL_PASSWORD */
	char *valkey_sentinel_password_file; /* VALKEY_SENTINEL_PASSWORD_FILE */
	char *valkey_tls_ca;         /* VALKEY_TLS_CA */
	char *valkey_tls_cert;       /* VALKEY_TLS_CERT */
	char *valkey_tls_key;        /* VALKEY_TLS_KEY */
	char *project_access;        /* TPI_PROJECT_ACCESS as written */
	char *app_url;               /* TPI_APP_URL */
	char *app_ca;                /* TPI_APP_CA */
	char *allowed_origins;       /* TPI_ALLOWED_ORIGINS, see allowed_origins_normalize() */
	char *issues_channel_prefix; /* TPI_ISSUES_CHANNEL_PREFIX, without white space */

	int tenant_cap;        /* SSE_PER_TENANT_CAP */
	int user_cap;          /* SSE_PER_USER_CAP */
	int issues_tenant_cap; /* SSE_ISSUES_PER_TENANT_CAP */
	int issues_user_cap;   /* SSE_ISSUES_PER_USER_CAP */
	int live_tenant_cap;   /* SSE_LIVE_PER_TENANT_CAP */
	int live_user_cap;     /* SSE_LIVE_PER_USER_CAP */
	int combined_tenant_cap; /* SSE_COMBINED_PER_TENANT_CAP */
	int combined_user_cap;   /* SSE_COMBINED_PER_USER_CAP */

	int user_opens_per_second; /* TPI_USER_OPENS_PER_SECOND; 0 is off */

	int heartbeat_ms;       /* SSE_HEARTBEAT_MS */
	int metrics_ms;         /* SSE_METRICS_MS */
	int backlog_bytes;      /* SSE_BACKLOG_BYTES */
	int stall_ms;           /* SSE_STALL_MS */
	int sync_spread_ms;     /* SSE_SYNC_SPREAD_MS */
	int max_age_seconds;    /* SSE_MAX_AGE_SECONDS; 0 is off */
	int request_timeout_ms; /* TPI_REQUEST_TIMEOUT_MS */
	int drain_seconds;      /* TPI_DRAIN_SECONDS */

	int app_timeout_ms;     /* TPI_APP_TIMEOUT_MS */
	int app_cache_seconds;  /* TPI_APP_CACHE_SECONDS */
	int app_concurrency;    /* TPI_APP_CONCURRENCY */
	int app_pending;        /* TPI_APP_PENDING */
	int recheck_seconds;    /* TPI_RECHECK_SECONDS; 0 is off */

	int identity;  /* TPI_IDENTITY: enum identity_source */
	int app_proxy; /* TPI_APP_PROXY: enum app_proxy */
	int status;    /* TPI_STATUS: enum status_pages */
	int sandbox;   /* TPI_SANDBOX: enum sandbox_use */
	int log_level; /* TPI_LOG_LEVEL: enum log_level */

	/* Derived from project_access. */
	enum access_policy access;
	const char *access_file; /* into project_access; NULL unless ACCESS_FILE */

	/* Derived from issues_channel_prefix: distinct prefixes; tpi-publish uses the first. */
	char issues_prefixes[SETTINGS_PREFIXES_MAX][CHANNEL_ID_MAX + 1];
	int issues_prefix_count; /* 1 to SETTINGS_PREFIXES_MAX */
};

/* Which program reads the environment: tpi-publish must not fail for a setting it does not use. */
enum settings_program { SETTINGS_STREAMD = 1, SETTINGS_PUBLISH = 2 };

enum setting_type {
	SETTING_NUMBER,  /* decimal, minimum..maximum, or 0 where zero_is_off */
	SETTING_STRING,  /* any text that check() accepts */
	SETTING_CHOICE   /* one of choices */
};

struct setting {
	const char *name;
	enum setting_type type;
	size_t offset;              /* of the field in struct settings */
	int minimum, maximum;       /* SETTING_NUMBER */
	int zero_is_off;            /* SETTING_NUMBER: 0 is allowed below minimum */
	const char *const *choices; /* SETTING_CHOICE: in the order of its enum, NULL-terminated */
	const char *default_value;  /* the default, as in the environment; "" for none */
	const char *allowed;        /* SETTING_STRING: what is allowed, for the error */
	int (*check)(const char *); /* SETTING_STRING: 0 if the value is valid; may be NULL */
	unsigned programs;          /* enum settings_program, or-ed */
	int is_url;                 /* a password in it is masked wherever it is printed */
	int is_secret;              /* all of it is masked */
	const char *help;
};

/* The table, in the order of the manual; *count gets its length. */
const struct setting *settings_table(size_t *count);

/*
 * Writes what is allowed: "1 to 10000", "0 (off) or 10 to 604800", the choices joined with " | ",
 * or the text in allowed. Error texts and the manual use these words.
 */
void settings_describe_range(const struct setting *setting, char *out, size_t size);

/*
 * Reads the settings of one program through get (getenv in a program). False with an error; then *s
 * holds nothing to free.
 */
bool settings_load(struct settings *s, enum settings_program program,
    char *(*get)(const char *name), struct error *error);
void settings_free(struct settings *s);

/* Overwrites the settings that may contain a password. Call it once they have been parsed. */
void settings_forget_secrets(struct settings *s);

/*
 * Returns the length of the name of an environment variable, "NAME=value", that is named like a
 * setting but is none of either program's; else 0.
 */
size_t settings_unknown(const char *variable);

/* Whether the application is queried. */
bool settings_queries_app(const struct settings *s);

/* Prints NAME=value lines of every setting of that program, secrets masked, for --check-config. */
void settings_print(const struct settings *s, enum settings_program program, FILE *out);

/*
 * The length of the first URL of a list: up to a comma after which another one begins, with letters
 * and "://", or to the end. Any other comma is part of a password.
 */
size_t settings_url_length(const char *list);

/*
 * Copies a URL, or each of a list, with the password replaced by "***". The password extends to the
 * last '@' of the URL, because one that is not percent-encoded may contain '/', '?' and '@'. Also
 * masked: what precedes an '@' in a text that is not a URL; a user name without a password, which
 * redis-cli takes for one; a port that is not a number; a query other than ?family=NUMBER.
 * Truncates to size.
 */
void settings_mask_url(const char *url, char *out, size_t size);

/*
 * The same for a text that is not a valid list: its commas may be part of a password, so everything
 * up to the last '@' is masked or, without an '@', everything after the first masked part.
 */
void settings_mask_text(const char *text, char *out, size_t size);

#endif
