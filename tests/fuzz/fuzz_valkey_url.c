/* SPDX-License-Identifier: ISC */
/*
 * fuzz_valkey_url: the URL of a Valkey server (url.h), lists of them and of sentinels (topology.h),
 * and the address of our own socket (listener.h). What is accepted is in range and matches the
 * input. An error is one printable line; neither it nor the label in logs depends on the letters of
 * a password. The input after a NUL becomes the password file: its first line is the password, and
 * no error contains it.
 */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "daemon/listener.h"
#include "valkey/topology.h"
#include "config/settings.h"
#include "valkey/connect.h"

/* Writes the bytes to a file in memory; returns its path. */
static const char *
password_file(const uint8_t *data, size_t size)
{
	static char path[64];
	static int fd = -1;

	if (fd == -1) {
		fd = memfd_create("password", MFD_CLOEXEC);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	REQUIRE(fd != -1 && ftruncate(fd, 0) == 0);
	REQUIRE(pwrite(fd, data, size, 0) == (ssize_t)size);
	return path;
}

static void
check_accepted(const struct valkey *v)
{
	char label[512];

	REQUIRE(v->label != NULL);
	if (v->path != NULL) {
		REQUIRE(v->host == NULL && v->path[0] == '/' && strlen(v->path) <= 107);
		snprintf(label, sizeof(label), "unix:%s", v->path);
	} else {
		REQUIRE(v->host != NULL && v->host[0] != '\0' && v->host[0] != '[');
		REQUIRE(v->port >= 1 && v->port <= 65535);
		snprintf(label, sizeof(label), strchr(v->host, ':') != NULL ? "[%s]:%d" : "%s:%d",
		    v->host, v->port);
	}
	REQUIRE(strcmp(v->label, label) == 0);
	REQUIRE(v->user == NULL || v->user[0] != '\0');
	REQUIRE(v->password == NULL || v->password[0] != '\0');
}

static void
check_empty(const struct valkey *v)
{
	REQUIRE(v->host == NULL && v->path == NULL && v->user == NULL && v->password == NULL &&
	    v->label == NULL);
}

/* The same URL with another password has the same result and the same texts. */
static void
check_password_unseen(const char *url)
{
	struct error error = { "" }, other_error = { "" };
	char *other = strdup(url);
	struct valkey v, w;
	bool result;

	fuzz_change_password(other);
	result = valkey_parse(&v, url, url, "", &error);
	REQUIRE(valkey_parse(&w, other, other, "", &other_error) == result);
	REQUIRE(strcmp(error.text, other_error.text) == 0);
	if (result) {
		REQUIRE(v.path != NULL || strcmp(v.label, w.label) == 0);
		check_accepted(&v);
	} else {
		REQUIRE(strncmp(error.text, "VALKEY_URL=", 11) == 0 && fuzz_is_line(error.text));
		check_empty(&v);
	}
	valkey_free(&v);
	valkey_free(&v);
	valkey_free(&w);
	free(other);
}

static void
check_password_file(const char *url, const uint8_t *data, size_t size)
{
	const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
	size_t length = end != NULL ? (size_t)(end - data) : size;
	const char *path = password_file(data, size);
	struct error error = { "" }, plain_error = { "" };
	struct valkey v, plain;
	bool plain_result;

	if (end != NULL && length > 0 && data[length - 1] == '\r')
		length--;
	plain_result = valkey_parse(&plain, url, url, "", &plain_error);
	if (valkey_parse(&v, url, url, path, &error)) {
		REQUIRE(plain_result && length > 0 && length <= 4096);
		REQUIRE(v.password != NULL && strlen(v.password) == length &&
		    memcmp(v.password, data, length) == 0);
		check_accepted(&v);
	} else if (plain_result) {
		REQUIRE(length == 0 || length > 4095 || memchr(data, '\0', length) != NULL);
		REQUIRE(strncmp(error.text, "VALKEY_PASSWORD_FILE=/proc/self/fd/", 35) == 0);
		REQUIRE(fuzz_is_line(error.text));
		check_empty(&v);
	} else {
		REQUIRE(strcmp(error.text, plain_error.text) == 0);
	}
	valkey_free(&v);
	valkey_free(&plain);
}

static bool
parse_servers(struct topology *t, char *urls, char *sentinels, struct error *error)
{
	struct settings settings = {
		.valkey_url = urls, .valkey_password_file = (char[]){ "" },
		.valkey_sentinels = sentinels,
		.valkey_sentinel_master = (char[]){ SETTINGS_MASTER_DEFAULT },
		.valkey_sentinel_password = sentinels[0] != '\0' ? (char[]){ "pw" } : (char[]){ "" },
		.valkey_sentinel_password_file = (char[]){ "" },
		.valkey_tls_ca = (char[]){ "" }, .valkey_tls_cert = (char[]){ "" },
		.valkey_tls_key = (char[]){ "" },
	};

	return topology_parse(t, &settings, NULL, error);
}

/* Checks a list of URLs or of sentinels, and the same list with other passwords. */
static void
check_servers(char *urls, char *sentinels, const char *setting)
{
	struct error error = { "" }, other_error = { "" };
	struct topology s, t;
	bool result = parse_servers(&s, urls, sentinels, &error);

	fuzz_change_password(urls);
	fuzz_change_password(sentinels);
	REQUIRE(parse_servers(&t, urls, sentinels, &other_error) == result);
	REQUIRE(strcmp(error.text, other_error.text) == 0);
	if (!result) {
		REQUIRE(strncmp(error.text, setting, strlen(setting)) == 0 && fuzz_is_line(error.text));
		REQUIRE(s.nodes == NULL && s.sentinels == NULL && s.label == NULL && s.master == NULL);
	} else {
		REQUIRE(s.node_count >= 1 && s.node_count <= TOPOLOGY_MAX && s.node_count == t.node_count);
		REQUIRE(s.sentinel_count <= TOPOLOGY_MAX && s.sentinel_count == t.sentinel_count);
		for (int i = 0; i < s.node_count; i++)
			check_accepted(&s.nodes[i].valkey);
		for (int i = 0; i < s.sentinel_count; i++) {
			REQUIRE(s.sentinels[i].valkey.path == NULL);
			check_accepted(&s.sentinels[i].valkey);
		}
	}
	topology_free(&s);
	topology_free(&s);
	topology_free(&t);
}

/* Checks the text as either list. */
static void
check_lists(const char *text)
{
	char *copy = strdup(text);

	check_servers(copy, (char[]){ "" }, "VALKEY_URL");
	free(copy);
	copy = strdup(text);
	check_servers((char[]){ "valkey://h" }, copy, "VALKEY_SENTINELS");
	free(copy);
}

static void
check_address(const char *text)
{
	struct address a;
	char again[sizeof(a) + 8];
	size_t length;

	if (!address_parse(&a, text))
		return;
	if (a.path[0] != '\0') {
		REQUIRE(a.path[0] == '/' && strnlen(a.path, sizeof(a.path)) < sizeof(a.path));
		REQUIRE(a.tcp.host[0] == '\0' && a.tcp.port == 0);
		REQUIRE(strcmp(text + (strncmp(text, "unix:", 5) == 0 ? 5 : 0), a.path) == 0);
		return;
	}
	REQUIRE(a.tcp.host[0] != '\0' && strnlen(a.tcp.host, sizeof(a.tcp.host)) < sizeof(a.tcp.host));
	REQUIRE(a.tcp.port >= 1 && a.tcp.port <= 65535);
	length = (size_t)snprintf(again, sizeof(again), text[0] == '[' ? "[%s]:" : "%s:", a.tcp.host);
	REQUIRE(strncmp(again, text, length) == 0 && strtol(text + length, NULL, 10) == a.tcp.port);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *url = fuzz_text(data, size);
	size_t length = strlen(url);

	check_password_unseen(url);
	check_address(url);
	check_lists(url);
	if (length < size)
		check_password_file(url, data + length + 1, size - length - 1);
	free(url);
	return 0;
}
