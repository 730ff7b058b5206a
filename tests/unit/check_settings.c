/* SPDX-License-Identifier: ISC */
/*
 * check_settings: the table of settings: the values it accepts and refuses, its errors, what
 * --check-config prints, and that the manual agrees with it. TPI_MAN8 is the path of
 * man/tpi-streamd.8; without it the manual is not checked.
 */
#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/settings.h"

/* The environment of a test: pairs of name and value, ended by NULL. */
static const char *const *environment;

static char *
get(const char *name)
{
	for (const char *const *p = environment; p != NULL && *p != NULL; p += 2) {
		if (strcmp(p[0], name) == 0)
			return (char *)(uintptr_t)p[1];
	}
	return NULL;
}

/* Loads settings from these pairs of name and value. */
static bool
load_pairs(struct settings *s, enum settings_program program, const char *const *pairs,
    struct error *error)
{
	bool result;

	environment = pairs;
	result = settings_load(s, program, get, error);
	environment = NULL;
	return result;
}

/* Loads settings with one variable set. */
static bool
load_one(struct settings *s, enum settings_program program, const char *name, const char *value,
    struct error *error)
{
	const char *const pair[] = { name, value, NULL };

	return load_pairs(s, program, pair, error);
}

/* Expects that NAME=value is refused with exactly this error. */
static void
expect_error(const char *name, const char *value, const char *expected)
{
	struct error error = { "" };
	struct settings s;

	ck_assert_msg(!load_one(&s, SETTINGS_STREAMD, name, value, &error), "%s=%s", name, value);
	ck_assert_str_eq(error.text, expected);
}

/* Expects that NAME=value is accepted, or refused with any error. */
static void
expect_accepted(const char *name, const char *value, bool expected)
{
	struct error error = { "" };
	struct settings s;
	bool loaded = load_one(&s, SETTINGS_STREAMD, name, value, &error);

	ck_assert_msg(loaded == expected, "%s=%s: %s", name, value, error.text);
	if (loaded)
		settings_free(&s);
	else
		ck_assert_str_ne(error.text, "");
}

/* What settings_print() prints with one variable set; the caller frees it. */
static char *
printed(enum settings_program program, const char *name, const char *value)
{
	struct error error;
	char *text = NULL;
	struct settings s;
	size_t size;
	FILE *out;

	ck_assert(load_one(&s, program, name, value, &error));
	out = open_memstream(&text, &size);
	ck_assert_ptr_nonnull(out);
	settings_print(&s, program, out);
	fclose(out);
	settings_free(&s);
	return text;
}

/* In an empty environment every setting has its documented default. */
START_TEST(defaults)
{
	struct error error;
	struct settings s;

	ck_assert(settings_load(&s, SETTINGS_STREAMD, get, &error));
	ck_assert_str_eq(s.tenant, "default");
	ck_assert_str_eq(s.listen, "");
	ck_assert_str_eq(s.valkey_url, "valkey://127.0.0.1:6379");
	ck_assert_str_eq(s.valkey_password_file, "");
	ck_assert_str_eq(s.valkey_sentinels, "");
	ck_assert_str_eq(s.valkey_sentinel_master, "mymaster");
	ck_assert_str_eq(s.valkey_sentinel_password, "");
	ck_assert_str_eq(s.valkey_sentinel_password_file, "");
	ck_assert_str_eq(s.project_access, "deny");
	ck_assert_str_eq(s.app_url, "");
	ck_assert_str_eq(s.app_ca, "");
	ck_assert_str_eq(s.issues_channel_prefix, "issues,issue-updates");
	ck_assert_int_eq(s.issues_prefix_count, 2);
	ck_assert_str_eq(s.issues_prefixes[0], "issues");
	ck_assert_str_eq(s.issues_prefixes[1], "issue-updates");
	ck_assert_int_eq(s.tenant_cap, 1000);
	ck_assert_int_eq(s.user_cap, 4);
	ck_assert_int_eq(s.issues_tenant_cap, 1000);
	ck_assert_int_eq(s.issues_user_cap, 8);
	ck_assert_int_eq(s.live_tenant_cap, 1000);
	ck_assert_int_eq(s.live_user_cap, 8);
	ck_assert_int_eq(s.combined_tenant_cap, 1000);
	ck_assert_int_eq(s.combined_user_cap, 8);
	ck_assert_int_eq(s.heartbeat_ms, 25000);
	ck_assert_int_eq(s.metrics_ms, 30000);
	ck_assert_int_eq(s.backlog_bytes, 65536);
	ck_assert_int_eq(s.stall_ms, 60000);
	ck_assert_int_eq(s.sync_spread_ms, 2000);
	ck_assert_int_eq(s.max_age_seconds, 0);
	ck_assert_int_eq(s.request_timeout_ms, 10000);
	ck_assert_int_eq(s.drain_seconds, 5);
	ck_assert_int_eq(s.app_timeout_ms, 2000);
	ck_assert_int_eq(s.app_cache_seconds, 5);
	ck_assert_int_eq(s.app_concurrency, 32);
	ck_assert_int_eq(s.recheck_seconds, 300);
	ck_assert_int_eq(s.identity, IDENTITY_WEB_SERVER);
	ck_assert_int_eq(s.app_proxy, APP_PROXY_NONE);
	ck_assert_int_eq(s.status, STATUS_OFF);
	ck_assert_int_eq(s.log_level, LOG_LEVEL_INFO);
	ck_assert_int_eq(s.access, ACCESS_DENY);
	ck_assert_ptr_null(s.access_file);
	ck_assert(!settings_queries_app(&s));
	settings_free(&s);
}
END_TEST

/* Every row has a unique name and field, a help text, a default, and what its type requires. */
START_TEST(table_is_complete)
{
	const struct setting *table;
	size_t count;

	table = settings_table(&count);
	ck_assert_uint_eq(count, 40);
	for (size_t i = 0; i < count; i++) {
		ck_assert_ptr_nonnull(table[i].help);
		ck_assert_ptr_nonnull(table[i].default_value);
		ck_assert(table[i].programs & SETTINGS_STREAMD);
		ck_assert(table[i].type != SETTING_NUMBER || table[i].minimum < table[i].maximum);
		ck_assert((table[i].type == SETTING_CHOICE) == (table[i].choices != NULL));
		ck_assert((table[i].type == SETTING_STRING) == (table[i].allowed != NULL));
		for (size_t k = 0; k < i; k++) {
			ck_assert_str_ne(table[i].name, table[k].name);
			ck_assert_uint_ne(table[i].offset, table[k].offset);
		}
	}
}
END_TEST

/* The limits of each number's range are accepted and stored; one less and one more are refused. */
START_TEST(number_ranges)
{
	const struct setting *table;
	size_t count;

	table = settings_table(&count);
	for (size_t i = 0; i < count; i++) {
		const int edges[] = { table[i].minimum, table[i].maximum };
		struct error error;
		char value[16];
		struct settings s;

		if (table[i].type != SETTING_NUMBER)
			continue;
		for (int k = 0; k < 2; k++) {
			snprintf(value, sizeof(value), "%d", edges[k]);
			ck_assert(load_one(&s, SETTINGS_STREAMD, table[i].name, value,
			    &error));
			ck_assert_int_eq(*(int *)(void *)((char *)&s + table[i].offset), edges[k]);
			settings_free(&s);
		}
		snprintf(value, sizeof(value), "%d", table[i].minimum - 1);
		expect_accepted(table[i].name, value, false);
		snprintf(value, sizeof(value), "%d", table[i].maximum + 1);
		expect_accepted(table[i].name, value, false);
		expect_accepted(table[i].name, "0", table[i].minimum == 0 || table[i].zero_is_off);
	}
}
END_TEST

/* settings_describe_range() prints the documented ranges. */
START_TEST(described_ranges)
{
	static const struct { const char *name, *range; } expected[] = {
		{ "SSE_PER_TENANT_CAP", "1 to 1000000" },
		{ "SSE_PER_USER_CAP", "1 to 10000" },
		{ "SSE_ISSUES_PER_TENANT_CAP", "1 to 1000000" },
		{ "SSE_ISSUES_PER_USER_CAP", "1 to 10000" },
		{ "SSE_LIVE_PER_TENANT_CAP", "1 to 1000000" },
		{ "SSE_LIVE_PER_USER_CAP", "1 to 10000" },
		{ "SSE_COMBINED_PER_TENANT_CAP", "1 to 1000000" },
		{ "SSE_COMBINED_PER_USER_CAP", "1 to 10000" },
		{ "SSE_HEARTBEAT_MS", "100 to 3600000" },
		{ "SSE_METRICS_MS", "100 to 3600000" },
		{ "SSE_BACKLOG_BYTES", "16384 to 16777216" },
		{ "SSE_STALL_MS", "1000 to 3600000" },
		{ "SSE_SYNC_SPREAD_MS", "0 to 60000" },
		{ "SSE_MAX_AGE_SECONDS", "0 (off) or 10 to 604800" },
		{ "TPI_REQUEST_TIMEOUT_MS", "100 to 60000" },
		{ "TPI_DRAIN_SECONDS", "1 to 300" },
		{ "TPI_IDENTITY", "web-server | app" },
		{ "TPI_PROJECT_ACCESS", "deny | allow | app | file:PATH" },
		{ "TPI_APP_URL", "http(s)://host[:port][/prefix] or unix:/path" },
		{ "TPI_APP_PROXY", "none | environment" },
		{ "TPI_APP_TIMEOUT_MS", "50 to 60000" },
		{ "TPI_APP_CACHE_SECONDS", "0 to 300" },
		{ "TPI_APP_CONCURRENCY", "1 to 1000" },
		{ "TPI_RECHECK_SECONDS", "0 (off) or 5 to 86400" },
		{ "TPI_STATUS", "off | on" },
		{ "TPI_SANDBOX", "off | on" },
		{ "TPI_LOG_LEVEL", "error | warn | info | debug" },
	};
	const struct setting *table;
	size_t count, found = 0;
	char range[256];

	table = settings_table(&count);
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; k < sizeof(expected) / sizeof(expected[0]); k++) {
			if (strcmp(table[i].name, expected[k].name) != 0)
				continue;
			settings_describe_range(&table[i], range, sizeof(range));
			ck_assert_str_eq(range, expected[k].range);
			found++;
		}
	}
	ck_assert_uint_eq(found, sizeof(expected) / sizeof(expected[0]));
}
END_TEST

/* A number consists of decimal digits only. */
START_TEST(number_syntax)
{
	static const char *const refused[] = { "abc", "4x", "x4", " 4", "4 ", "4\n", "+4",
		"-4", "-0", "4.0", "4e0", "0x4", "4,0", "99999999999", "18446744073709551620",
		"4294967300", "99999999999999999999999999999999", "\xd9\xa4" };

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		expect_accepted("SSE_PER_USER_CAP", refused[i], false);
	expect_accepted("SSE_PER_USER_CAP", "4", true);
	expect_accepted("SSE_PER_USER_CAP", "0004", true);
}
END_TEST

/* An error names the setting, the value and what is allowed. */
START_TEST(error_texts)
{
	expect_error("SSE_PER_USER_CAP", "abc",
	    "SSE_PER_USER_CAP=abc: must be a whole number from 1 to 10000");
	expect_error("SSE_MAX_AGE_SECONDS", "9",
	    "SSE_MAX_AGE_SECONDS=9: must be a whole number, 0 (off) or 10 to 604800");
	expect_error("TPI_LOG_LEVEL", "verbose",
	    "TPI_LOG_LEVEL=verbose: must be error | warn | info | debug");
	expect_error("TPI_IDENTITY", "App", "TPI_IDENTITY=App: must be web-server | app");
	expect_error("TPI_PROJECT_ACCESS", "apps",
	    "TPI_PROJECT_ACCESS=apps: must be deny | allow | app | file:PATH");
	expect_error("TPI_APP_PROXY", "http://proxy",
	    "TPI_APP_PROXY=http://proxy: must be none | environment");
	expect_error("INSTANCE_TENANT_ID", "a:b", "INSTANCE_TENANT_ID=a:b: must be "
	    "1 to 255 printable ASCII characters without space : * ? [ ] \\ \"");
}
END_TEST

/* An error escapes the value's control bytes, and cuts it at 100 characters, but not in an escape. */
START_TEST(error_values_are_escaped)
{
	char value[302], shown[128], expected[ERROR_SIZE];

	expect_error("SSE_PER_USER_CAP", "4\n\033[2J\x7f\xc2\x9b", "SSE_PER_USER_CAP="
	    "4\\u000a\\u001b[2J\\u007f\\u00c2\\u009b: must be a whole number from 1 to 10000");
	for (int n = 99; n <= 300; n += n == 101 ? 199 : 1) {
		memset(value, 'x', (size_t)n);
		value[n] = '\0';
		snprintf(shown, sizeof(shown), "%.*s%s", n > 100 ? 97 : n, value,
		    n > 100 ? "..." : "");
		snprintf(expected, sizeof(expected),
		    "SSE_PER_USER_CAP=%s: must be a whole number from 1 to 10000", shown);
		expect_error("SSE_PER_USER_CAP", value, expected);
	}
	memset(value, '\n', 300);
	value[300] = '\0';
	strcpy(expected, "SSE_PER_USER_CAP=");
	for (int i = 0; i < 16; i++)
		strcat(expected, "\\u000a");
	strcat(expected, "...: must be a whole number from 1 to 10000");
	expect_error("SSE_PER_USER_CAP", value, expected);
}
END_TEST

/* An empty variable counts as unset. */
START_TEST(empty_is_unset)
{
	const struct setting *table;
	size_t count;

	table = settings_table(&count);
	for (size_t i = 0; i < count; i++) {
		char *empty = printed(SETTINGS_STREAMD, table[i].name, "");
		char *unset = printed(SETTINGS_STREAMD, "UNRELATED", "1");

		ck_assert_str_eq(empty, unset);
		free(empty);
		free(unset);
	}
}
END_TEST

/* After an error in the first or the last row nothing is left to free. */
START_TEST(errors_leave_nothing)
{
	struct error error;
	struct settings s;

	ck_assert(!load_one(&s, SETTINGS_STREAMD, "INSTANCE_TENANT_ID", "a b", &error));
	ck_assert_ptr_null(s.tenant);
	ck_assert(!load_one(&s, SETTINGS_STREAMD, "TPI_LOG_LEVEL", "all", &error));
	ck_assert_ptr_null(s.tenant);
	ck_assert_ptr_null(s.issues_channel_prefix);
	settings_free(&s);
	settings_free(&s);
}
END_TEST

/* tpi-publish reads and prints its own settings, and ignores a bad value of one of the daemon's. */
START_TEST(publish_settings)
{
	static const char *const both[] = { "INSTANCE_TENANT_ID", "VALKEY_URL",
		"VALKEY_PASSWORD_FILE", "VALKEY_SENTINELS", "VALKEY_SENTINEL_MASTER",
		"VALKEY_SENTINEL_PASSWORD", "VALKEY_SENTINEL_PASSWORD_FILE", "VALKEY_TLS_CA", "VALKEY_TLS_CERT", "VALKEY_TLS_KEY",
		"TPI_ISSUES_CHANNEL_PREFIX" };
	const struct setting *table;
	struct error error;
	char *text;
	struct settings s;
	size_t count;

	table = settings_table(&count);
	for (size_t i = 0; i < count; i++) {
		bool expected = false;

		for (size_t k = 0; k < sizeof(both) / sizeof(both[0]); k++)
			expected |= strcmp(table[i].name, both[k]) == 0;
		ck_assert_msg(((table[i].programs & SETTINGS_PUBLISH) != 0) == expected, "%s",
		    table[i].name);
	}
	ck_assert(load_one(&s, SETTINGS_PUBLISH, "SSE_PER_USER_CAP", "abc", &error));
	ck_assert_int_eq(s.user_cap, 4);
	settings_free(&s);
	ck_assert(!load_one(&s, SETTINGS_PUBLISH, "INSTANCE_TENANT_ID", "a b", &error));
	text = printed(SETTINGS_PUBLISH, "INSTANCE_TENANT_ID", "acme");
	ck_assert_str_eq(text, "INSTANCE_TENANT_ID=acme\nVALKEY_URL=valkey://127.0.0.1:6379\n"
	    "VALKEY_PASSWORD_FILE=\nVALKEY_SENTINELS=\nVALKEY_SENTINEL_MASTER=mymaster\n"
	    "VALKEY_SENTINEL_PASSWORD=\nVALKEY_SENTINEL_PASSWORD_FILE=\nVALKEY_TLS_CA=\nVALKEY_TLS_CERT=\nVALKEY_TLS_KEY=\n"
	    "TPI_ISSUES_CHANNEL_PREFIX=issues,issue-updates\n");
	free(text);
}
END_TEST

/* TPI_PROJECT_ACCESS is deny, allow, app or file: with a path that is not empty. */
START_TEST(project_access)
{
	struct error error;
	struct settings s;

	ck_assert(load_one(&s, SETTINGS_STREAMD, "TPI_PROJECT_ACCESS", "allow", &error));
	ck_assert_int_eq(s.access, ACCESS_ALLOW);
	ck_assert_ptr_null(s.access_file);
	settings_free(&s);
	ck_assert(load_one(&s, SETTINGS_STREAMD, "TPI_PROJECT_ACCESS", "file:/etc/a",
	    &error));
	ck_assert_int_eq(s.access, ACCESS_FILE);
	ck_assert_str_eq(s.access_file, "/etc/a");
	ck_assert_str_eq(s.project_access, "file:/etc/a");
	settings_free(&s);
	expect_accepted("TPI_PROJECT_ACCESS", "file:rules", true);
	expect_accepted("TPI_PROJECT_ACCESS", "file:", false);
	expect_accepted("TPI_PROJECT_ACCESS", "file", false);
	expect_accepted("TPI_PROJECT_ACCESS", "FILE:/x", false);
	expect_accepted("TPI_PROJECT_ACCESS", "Deny", false);
	expect_accepted("TPI_PROJECT_ACCESS", "allow ", false);
}
END_TEST

/* If a setting is app, TPI_APP_URL must be set; the error names that setting. */
START_TEST(application_needs_url)
{
	static const struct {
		const char *identity, *access;
		const char *needed_by; /* NULL: no queries, so no URL is needed */
	} rows[] = {
		{ "web-server", "deny", NULL },
		{ "web-server", "allow", NULL },
		{ "web-server", "file:/x", NULL },
		{ "web-server", "app", "TPI_PROJECT_ACCESS" },
		{ "app", "deny", "TPI_IDENTITY" },
		{ "app", "file:/x", "TPI_IDENTITY" },
		{ "app", "app", "TPI_IDENTITY" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *pairs[] = { "TPI_IDENTITY", rows[i].identity, "TPI_PROJECT_ACCESS",
			rows[i].access, NULL, "http://h", NULL };
		struct error error = { "" };
		char expected[ERROR_SIZE] = "";
		struct settings s;
		bool loaded = load_pairs(&s, SETTINGS_STREAMD, pairs, &error);

		if (rows[i].needed_by != NULL)
			snprintf(expected, sizeof(expected), "TPI_APP_URL: must be set, to "
			    "http(s)://host[:port][/prefix] or unix:/path, if %s is app",
			    rows[i].needed_by);
		ck_assert(loaded == (rows[i].needed_by == NULL));
		ck_assert_str_eq(error.text, expected);
		if (loaded)
			ck_assert(!settings_queries_app(&s));
		else
			ck_assert_ptr_null(s.tenant);
		settings_free(&s);
		pairs[4] = "TPI_APP_URL";
		ck_assert(load_pairs(&s, SETTINGS_STREAMD, pairs, &error));
		ck_assert_str_eq(s.app_url, "http://h");
		ck_assert_int_eq(s.identity,
		    strcmp(rows[i].identity, "app") == 0 ? IDENTITY_APP : IDENTITY_WEB_SERVER);
		ck_assert_int_eq(s.access == ACCESS_APP, strcmp(rows[i].access, "app") == 0);
		ck_assert_int_eq(settings_queries_app(&s), rows[i].needed_by != NULL);
		settings_free(&s);
		/* tpi-publish never queries the application. */
		pairs[4] = NULL;
		ck_assert(load_pairs(&s, SETTINGS_PUBLISH, pairs, &error));
		ck_assert(!settings_queries_app(&s));
		settings_free(&s);
	}
}
END_TEST

/* TPI_APP_URL is checked even if it is not used; the error masks what may be a password. */
START_TEST(application_url)
{
	expect_accepted("TPI_APP_URL", "https://tpi.example.com/prefix/", true);
	expect_accepted("TPI_APP_URL", "unix:/run/app.sock", true);
	expect_error("TPI_APP_URL", "localhost:3000",
	    "TPI_APP_URL=localhost:3000: must be http(s)://host[:port][/prefix] or unix:/path");
	expect_error("TPI_APP_URL", "http://u:secret@h",
	    "TPI_APP_URL=http://u:***@h: must be http(s)://host[:port][/prefix] or unix:/path");
}
END_TEST

/* TPI_APP_CA must be a readable file. */
START_TEST(application_ca)
{
	expect_accepted("TPI_APP_CA", "/proc/self/status", true);
	expect_error("TPI_APP_CA", "/nonexistent/ca.pem",
	    "TPI_APP_CA=/nonexistent/ca.pem: must be the path of a file of PEM certificates");
}
END_TEST

/* TPI_STATUS is on or off. */
START_TEST(status)
{
	struct error error;
	struct settings s;

	ck_assert(load_one(&s, SETTINGS_STREAMD, "TPI_STATUS", "on", &error));
	ck_assert_int_eq(s.status, STATUS_ON);
	settings_free(&s);
	ck_assert(load_one(&s, SETTINGS_STREAMD, "TPI_STATUS", "off", &error));
	ck_assert_int_eq(s.status, STATUS_OFF);
	settings_free(&s);
	expect_error("TPI_STATUS", "true", "TPI_STATUS=true: must be off | on");
}
END_TEST

/* TPI_APP_PROXY is environment or none. */
START_TEST(application_proxy)
{
	struct error error;
	struct settings s;

	ck_assert(load_one(&s, SETTINGS_STREAMD, "TPI_APP_PROXY", "environment", &error));
	ck_assert_int_eq(s.app_proxy, APP_PROXY_ENVIRONMENT);
	settings_free(&s);
	ck_assert(load_one(&s, SETTINGS_STREAMD, "TPI_APP_PROXY", "none", &error));
	ck_assert_int_eq(s.app_proxy, APP_PROXY_NONE);
	settings_free(&s);
}
END_TEST

/* The tenant must be a valid identifier. */
START_TEST(tenant)
{
	expect_accepted("INSTANCE_TENANT_ID", "acme-1", true);
	expect_accepted("INSTANCE_TENANT_ID", "*", false);
}
END_TEST

/* 1 to 4 different prefixes are accepted, and stored and printed without the white space around. */
START_TEST(prefixes)
{
	static const char *const good[] = { "a", "a,b", " a ,\tb\r\n", "a,aa,b,bb" };
	static const char *const printed_as[] = { "a", "a,b", "a,b", "a,aa,b,bb" };
	static const char *const bad[] = { ",", "a,", ",a", "a,,b", "a, ,b", "a b", "a:b", "a*", "a,b:c",
		"a,a", "a,b, a", "a,b,c,d,e" };
	struct error error;
	char expected[ERROR_SIZE], longest[3 * 256], joined[64];
	struct settings s;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		ck_assert(load_one(&s, SETTINGS_PUBLISH, "TPI_ISSUES_CHANNEL_PREFIX", good[i],
		    &error));
		ck_assert_str_eq(s.issues_channel_prefix, printed_as[i]);
		joined[0] = '\0';
		for (int k = 0; k < s.issues_prefix_count; k++)
			sprintf(joined + strlen(joined), "%s%s", k > 0 ? "," : "", s.issues_prefixes[k]);
		ck_assert_str_eq(joined, printed_as[i]);
		settings_free(&s);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert(!load_one(&s, SETTINGS_STREAMD, "TPI_ISSUES_CHANNEL_PREFIX", bad[i],
		    &error));
		snprintf(expected, sizeof(expected), "TPI_ISSUES_CHANNEL_PREFIX=%s: must be 1 to 4 "
		    "different prefixes, separated by commas, each " CHANNEL_ID_ALLOWED, bad[i]);
		ck_assert_str_eq(error.text, expected);
	}
	memset(longest, 'x', sizeof(longest));
	longest[255] = ',';
	longest[511] = '\0';
	longest[0] = 'y';
	expect_accepted("TPI_ISSUES_CHANNEL_PREFIX", longest, true);
	longest[511] = 'x';
	longest[512] = '\0';
	expect_accepted("TPI_ISSUES_CHANNEL_PREFIX", longest, false);
}
END_TEST

/* Each log level has its name. */
START_TEST(log_levels)
{
	static const char *const names[] = { [LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARN] = "warn",
		[LOG_LEVEL_INFO] = "info", [LOG_LEVEL_DEBUG] = "debug" };
	struct error error;
	struct settings s;

	for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++) {
		ck_assert(load_one(&s, SETTINGS_STREAMD, "TPI_LOG_LEVEL", names[i],
		    &error));
		ck_assert_int_eq(s.log_level, i);
		settings_free(&s);
	}
	expect_accepted("TPI_LOG_LEVEL", "INFO", false);
}
END_TEST

/* settings_print() prints a line for each row, in the table's order, and no password. */
START_TEST(print)
{
	char *text = printed(SETTINGS_STREAMD, "VALKEY_URL", "redis://u:secret@h:1/2");
	const struct setting *table;
	const char *p = text;
	size_t count;

	ck_assert_ptr_null(strstr(text, "secret"));
	ck_assert_ptr_nonnull(strstr(text, "\nVALKEY_URL=redis://u:***@h:1/2\n"));
	ck_assert_ptr_nonnull(strstr(text, "\nSSE_MAX_AGE_SECONDS=0\n"));
	ck_assert_ptr_nonnull(strstr(text, "\nTPI_LOG_LEVEL=info\n"));
	ck_assert_ptr_nonnull(strstr(text, "\nTPI_LISTEN=\n"));
	table = settings_table(&count);
	for (size_t i = 0; i < count; i++) {
		size_t n = strlen(table[i].name);

		ck_assert_int_eq(strncmp(p, table[i].name, n), 0);
		ck_assert_int_eq(p[n], '=');
		p = strchr(p, '\n') + 1;
	}
	ck_assert_str_eq(p, "");
	free(text);
}
END_TEST

/* settings_print() masks the password of the sentinels. */
START_TEST(print_secret)
{
	char *text = printed(SETTINGS_PUBLISH, "VALKEY_SENTINEL_PASSWORD", "secret");

	ck_assert_ptr_null(strstr(text, "secret"));
	ck_assert_ptr_nonnull(strstr(text, "\nVALKEY_SENTINEL_PASSWORD=***\n"));
	free(text);
}
END_TEST

/* VALKEY_SENTINEL_MASTER has the characters that Sentinel allows. */
START_TEST(sentinel_master)
{
	expect_accepted("VALKEY_SENTINEL_MASTER", "My-master_1.x", true);
	expect_accepted("VALKEY_SENTINEL_MASTER", "my master", false);
	expect_accepted("VALKEY_SENTINEL_MASTER", "a\nb", false);
	expect_accepted("VALKEY_SENTINEL_MASTER", "a@b", false);
}
END_TEST

/* A line break in a value cannot forge a line of the output. */
START_TEST(print_is_escaped)
{
	char *text = printed(SETTINGS_PUBLISH, "VALKEY_PASSWORD_FILE", "a\nVALKEY_URL=b");

	ck_assert_ptr_nonnull(strstr(text, "\nVALKEY_PASSWORD_FILE=a\\u000aVALKEY_URL=b\n"));
	free(text);
}
END_TEST

/* Loading what settings_print() printed gives the same settings. */
START_TEST(print_reads_back)
{
	char *text = printed(SETTINGS_STREAMD, "SSE_MAX_AGE_SECONDS", "3600");
	char *copy = strdup(text), *rest = copy, *again = NULL, *p;
	const char *pairs[128] = { NULL };
	struct error error;
	struct settings s;
	size_t n = 0, size;
	FILE *out;

	while ((p = strsep(&rest, "\n")) != NULL && *p != '\0') {
		ck_assert_uint_lt(n + 2, sizeof(pairs) / sizeof(pairs[0]));
		pairs[n++] = strsep(&p, "=");
		pairs[n++] = p;
	}
	environment = pairs;
	ck_assert(settings_load(&s, SETTINGS_STREAMD, get, &error));
	environment = NULL;
	out = open_memstream(&again, &size);
	settings_print(&s, SETTINGS_STREAMD, out);
	fclose(out);
	ck_assert_str_eq(again, text);
	settings_free(&s);
	free(again);
	free(copy);
	free(text);
}
END_TEST

/* A masked URL shows no part of a password, however it is written, and everything else. */
START_TEST(mask_url)
{
	static const struct { const char *url, *masked; } cases[] = {
		{ "valkey://h:1/0", "valkey://h:1/0" },
		{ "valkey://u:pw@h:1/0", "valkey://u:***@h:1/0" },
		{ "redis://:pw@h", "redis://:***@h" },
		{ "redis://u:@h", "redis://u:***@h" },
		{ "redis://u:p:w@h", "redis://u:***@h" },
		{ "redis://u:p@w@h", "redis://u:***@h" },
		{ "redis://u:p/w@h", "redis://u:***@h" },
		{ "redis://u:p@w/w@h", "redis://u:***@h" },
		{ "redis://u:p?w#w@h", "redis://u:***@h" },
		{ "redis://u:p,w@h", "redis://u:***@h" },
		{ "redis://u:pw@[::1]:1", "redis://u:***@[::1]:1" },
		{ "redis://[::1]:1", "redis://[::1]:1" },
		{ "redis://pw@h", "redis://***@h" },
		{ "redis:///:pw@h", "redis://***@h" },
		{ "REDISS://u:pw@h", "REDISS://u:***@h" },
		{ "redis://:p://w@h", "redis://:***@h" },
		{ "valkey://:pw@h1,valkey://:pw@h2", "valkey://:***@h1,valkey://:***@h2" },
		{ "valkey://h1,valkey://u:p@w,w@h2,h3,unix:///a@b",
		    "valkey://h1,valkey://u:***@h2,h3,unix:///a@b" },
		{ "valkey://u:pw@h1, valkey://:pw@h2", "valkey://u:***@h1, valkey://:***@h2" },
		{ "valkey://u:pw@h1,://:pw@h2", "valkey://u:***@h2" },
		{ "valkey://:pw@h1,,", "valkey://:***@h1,," },
		{ "s1:26379,s2,u:pw@s3", "***@s3" },
		{ "unix:///run/a@b.sock", "unix:///run/a@b.sock" },
		{ "unix:///run/a,valkey://:pw@h", "unix:///run/a,valkey://:***@h" },
		{ "u:pw@h:1", "***@h:1" },
		{ "pw@h", "***@h" },
		{ "redis:/u:pw@h", "***@h" },
		{ "pw://x@", "pw://***@" },
		{ "://u:pw@h", "***@h" },
		{ "redis://p@w:pw@h", "redis://***@h" },
		{ "redis://h:x", "redis://h:***" },
		{ "redis://u:pw@h:1/0?family=6", "redis://u:***@h:1/0?family=6" },
		{ "redis://h?family=6,redis://h:1?family=44", "redis://h?family=6,redis://h:1?family=44" },
		{ "redis://h/0?password=pw", "redis://h/0?***" },
		{ "redis://u:pw@h?family=4&password=pw,redis://h?pw", "redis://u:***@h?***,redis://h?***" },
		{ "redis://[::1]?pw:pw", "redis://[::1]?***" },
		{ "redis://h?pw:pw@h", "redis://***@h" },
		{ "unix:///s?password=pw", "unix:///s?***" },
		{ "redis://:pw%40h:1", "redis://:***" },
		{ "http://h:80/base:pw", "http://h:80/base:pw" },
		{ "@", "***@" },
		{ "", "" },
		{ "nonsense", "nonsense" },
	};
	char out[128];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		settings_mask_url(cases[i].url, out, sizeof(out));
		ck_assert_str_eq(out, cases[i].masked);
	}
}
END_TEST

/* A masked text shows no part of a password, whichever characters it has. */
START_TEST(mask_text)
{
	static const char *const passwords[] = {
		"SECRET", "SEC,RET", "SEC@RET", "SEC/RET", "SEC%RET", "SEC:RET", "SEC?RET#SEC", "redis://SECRET",
		"SEC,redis://RET", "SEC, redis://RET", "SEC,redis://RET:SEC", "SEC@RET,redis://SEC",
		"SEC,RET/SEC@RET,redis://SEC@RET:SEC,redis://RET%",
	};
	static const char *const users[] = { "", "u:", ":" };
	char text[256], out[256], expected[256];

	for (size_t i = 0; i < sizeof(passwords) / sizeof(passwords[0]); i++) {
		for (size_t u = 0; u < sizeof(users) / sizeof(users[0]); u++) {
			snprintf(text, sizeof(text), "redis://%s%s@h:1,redis://g", users[u], passwords[i]);
			snprintf(expected, sizeof(expected), "redis://%s***@h:1,redis://g", users[u]);
			settings_mask_text(text, out, sizeof(out));
			ck_assert_ptr_null(strstr(out, "RET"));
			if (u > 0 || strchr(passwords[i], ':') == NULL)
				ck_assert_str_eq(out, expected);
		}
	}
	settings_mask_text("redis://h:1,redis://g:pw,unix:///s", out, sizeof(out));
	ck_assert_str_eq(out, "redis://h:1,redis://g:***");
	settings_mask_text("unix:///run/a@b", out, sizeof(out));
	ck_assert_str_eq(out, "unix:///run/a@b");
}
END_TEST

/*
 * settings_unknown() finds names that look like settings but are none; it ignores other variables
 * and those that Kubernetes makes for services.
 */
START_TEST(unknown)
{
	static const char *const names[] = {
		"VALKEY_SENTINEL", "SSE_PER_USERCAP", "TPI_", "TPI_LISTENER", "TPI_LIST", "VALKEY_PASSWORD",
		"SSE_PORTS", "VALKEY_PORT_A_TCP", "VALKEY_PORT_1_UNIX",
	};
	static const char *const others[] = {
		"PATH", "INSTANCE_TENANT", "tpi_listen", "XTPI_LISTENER", "VALKEY", "VALKEY_SERVICE_HOST",
		"VALKEY_SERVICE_PORT", "VALKEY_SERVICE_PORT_REDIS", "VALKEY_PORT", "VALKEY_PORT_6379_TCP",
		"VALKEY_PORT_6379_TCP_ADDR", "TPI_STREAM_PORT_53_UDP_PROTO", "SSE_PORT_9_SCTP_PORT",
		"VALKEY_SENTINEL_SERVICE_HOST",
	};
	const struct setting *settings;
	size_t count;
	char text[64];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(text, sizeof(text), "%s=TPI_x=", names[i]);
		ck_assert_uint_eq(settings_unknown(text), strlen(names[i]));
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		snprintf(text, sizeof(text), "%s=", others[i]);
		ck_assert_msg(settings_unknown(text) == 0, "%s", text);
	}
	settings = settings_table(&count);
	for (size_t i = 0; i < count; i++) {
		snprintf(text, sizeof(text), "%s=x", settings[i].name);
		ck_assert_msg(settings_unknown(text) == 0, "%s", text);
	}
}
END_TEST

/* A masked URL that does not fit is truncated, and shows no password at any size. */
START_TEST(mask_url_sizes)
{
	static const char masked[] = "valkey://u:***@h:1";
	char out[sizeof(masked) + 8];

	for (size_t size = 1; size <= sizeof(out); size++) {
		memset(out, 'x', sizeof(out));
		settings_mask_url("valkey://u:password@h:1", out, size);
		ck_assert_uint_eq(strlen(out), strnlen(masked, size - 1));
		ck_assert_int_eq(strncmp(out, masked, strlen(out)), 0);
	}
}
END_TEST

/* Replaces roff's escapes by the characters they stand for, in place. */
static void
unroff(char *text)
{
	static const struct { const char *roff, *plain; } escapes[] = {
		{ "\\e", "\\" }, { "\\-", "-" }, { "\\&", "" }, { "\\(dq", "\"" },
		{ "\\(rs", "\\" }, { "\\(ba", "|" },
	};
	char *out = text;

	while (*text != '\0') {
		const char *plain = NULL;

		for (size_t i = 0; plain == NULL && i < sizeof(escapes) / sizeof(escapes[0]); i++) {
			if (strncmp(text, escapes[i].roff, strlen(escapes[i].roff)) == 0) {
				text += strlen(escapes[i].roff);
				plain = escapes[i].plain;
			}
		}
		if (plain == NULL)
			*out++ = *text++;
		else if (*plain != '\0')
			*out++ = *plain;
	}
	*out = '\0';
}

/*
 * Reads the manual up to the next setting, that is ".It Ev NAME" and then a text that begins with
 * "Default "; text gets it up to the first line that ends with a full stop. False at the end.
 */
static bool
next_in_manual(FILE *manual, char name[64], char text[1024])
{
	char line[1024];
	bool named = false;

	text[0] = '\0';
	while (fgets(line, sizeof(line), manual) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '.') {
			named = sscanf(line, ".It Ev %63s", name) == 1;
			text[0] = '\0';
			continue;
		}
		if (!named || (text[0] == '\0' && strncmp(line, "Default ", 8) != 0)) {
			named = false;
			continue;
		}
		ck_assert_uint_lt(strlen(text) + strlen(line) + 2, 1024);
		if (text[0] != '\0')
			strcat(text, " ");
		strcat(text, line);
		if (line[strlen(line) - 1] == '.') {
			unroff(text);
			return true;
		}
	}
	return false;
}

/* The manual describes each setting once, with its default and range, and no others. */
START_TEST(manual)
{
	const char *path = getenv("TPI_MAN8");
	char name[64], text[1024], range[256], expected[512];
	const struct setting *table;
	int seen[64] = { 0 };
	size_t count, i;
	FILE *page;

	if (path == NULL || path[0] == '\0') {
		fprintf(stderr, "check_settings: TPI_MAN8 not set: the manual is not checked\n");
		return;
	}
	table = settings_table(&count);
	page = fopen(path, "r");
	ck_assert_msg(page != NULL, "cannot open TPI_MAN8=%s", path);
	while (next_in_manual(page, name, text)) {
		for (i = 0; i < count && strcmp(name, table[i].name) != 0; i++)
			continue;
		ck_assert_msg(i < count, "%s is in the manual, but not in the table", name);
		seen[i]++;
		settings_describe_range(&table[i], range, sizeof(range));
		snprintf(expected, sizeof(expected), "Default %s; %s.",
		    table[i].default_value[0] != '\0' ? table[i].default_value : "none", range);
		ck_assert_msg(strcmp(text, expected) == 0, "%s: the manual says \"%s\", not \"%s\"",
		    name, text, expected);
	}
	fclose(page);
	for (i = 0; i < count; i++)
		ck_assert_msg(seen[i] == 1, "the manual has %s %d times", table[i].name, seen[i]);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("settings");
	TCase *tc = tcase_create("settings");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, defaults);
	tcase_add_test(tc, table_is_complete);
	tcase_add_test(tc, number_ranges);
	tcase_add_test(tc, described_ranges);
	tcase_add_test(tc, number_syntax);
	tcase_add_test(tc, error_texts);
	tcase_add_test(tc, error_values_are_escaped);
	tcase_add_test(tc, empty_is_unset);
	tcase_add_test(tc, errors_leave_nothing);
	tcase_add_test(tc, publish_settings);
	tcase_add_test(tc, project_access);
	tcase_add_test(tc, application_needs_url);
	tcase_add_test(tc, application_url);
	tcase_add_test(tc, application_ca);
	tcase_add_test(tc, application_proxy);
	tcase_add_test(tc, status);
	tcase_add_test(tc, tenant);
	tcase_add_test(tc, prefixes);
	tcase_add_test(tc, log_levels);
	tcase_add_test(tc, print);
	tcase_add_test(tc, print_secret);
	tcase_add_test(tc, sentinel_master);
	tcase_add_test(tc, print_is_escaped);
	tcase_add_test(tc, print_reads_back);
	tcase_add_test(tc, mask_url);
	tcase_add_test(tc, mask_text);
	tcase_add_test(tc, unknown);
	tcase_add_test(tc, mask_url_sizes);
	tcase_add_test(tc, manual);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
