/* SPDX-License-Identifier: ISC */
/*
 * fuzz_url: the addresses of Valkey (valkey.h), of several and of sentinels (topology.h), and of our
 * own socket (listener.h). What is accepted is in range and says again what was given. An error is
 * one printable line; neither it nor the label that logs show depends on the letters of a password.
 * What stands behind a NUL of the input is the password file: its first line is the password, and
 * no error shows it.
 */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "daemon/listener.h"
#include "valkey/topology.h"
#include "config/settings.h"
#include "valkey/connect.h"

/* A file in memory, made once, with these bytes; its path. */
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

/* The same URL with another password: the same outcome, the same texts. */
static void
check_password_unseen(const char *url)
{
	char error[VALKEY_ERROR_SIZE] = "", other_error[VALKEY_ERROR_SIZE] = "";
	char *other = strdup(url);
	struct valkey v, w;
	int result;

	fuzz_change_password(other);
	result = valkey_parse(&v, url, url, "", error, sizeof(error));
	REQUIRE(valkey_parse(&w, other, other, "", other_error, sizeof(other_error)) == result);
	REQUIRE(strcmp(error, other_error) == 0);
	if (result == 0) {
		REQUIRE(v.path != NULL || strcmp(v.label, w.label) == 0);
		check_accepted(&v);
	} else {
		REQUIRE(strncmp(error, "VALKEY_URL=", 11) == 0 && fuzz_is_line(error));
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
	char error[VALKEY_ERROR_SIZE] = "", plain_error[VALKEY_ERROR_SIZE] = "";
	struct valkey v, plain;
	int plain_result;

	if (end != NULL && length > 0 && data[length - 1] == '\r')
		length--;
	plain_result = valkey_parse(&plain, url, url, "", plain_error, sizeof(plain_error));
	if (valkey_parse(&v, url, url, path, error, sizeof(error)) == 0) {
		REQUIRE(plain_result == 0 && length > 0 && length <= 4096);
		REQUIRE(v.password != NULL && strlen(v.password) == length &&
		    memcmp(v.password, data, length) == 0);
		check_accepted(&v);
	} else if (plain_result == 0) {
		REQUIRE(length == 0 || length > 4095 || memchr(data, '\0', length) != NULL);
		REQUIRE(strncmp(error, "VALKEY_PASSWORD_FILE=/proc/self/fd/", 35) == 0);
		REQUIRE(fuzz_is_line(error));
		check_empty(&v);
	} else {
		REQUIRE(strcmp(error, plain_error) == 0);
	}
	valkey_free(&v);
	valkey_free(&plain);
}

static int
parse_servers(struct topology *s, char *urls, char *sentinels, char *error)
{
	struct settings settings = {
		.valkey_url = urls, .valkey_password_file = (char[]){ "" },
		.valkey_sentinels = sentinels,
		.valkey_sentinel_master = (char[]){ SETTINGS_MASTER_STANDARD },
		.valkey_sentinel_password = sentinels[0] != '\0' ? (char[]){ "pw" } : (char[]){ "" },
		.valkey_sentinel_password_file = (char[]){ "" },
		.valkey_tls_ca = (char[]){ "" }, .valkey_tls_cert = (char[]){ "" },
		.valkey_tls_key = (char[]){ "" },
	};

	return topology_parse(s, &settings, NULL, error, VALKEY_ERROR_SIZE);
}

/* Either a list of URLs or one of sentinels, and the same with other passwords. */
static void
check_servers(char *urls, char *sentinels, const char *setting)
{
	char error[VALKEY_ERROR_SIZE] = "", other_error[VALKEY_ERROR_SIZE] = "";
	struct topology s, t;
	int result = parse_servers(&s, urls, sentinels, error);

	fuzz_change_password(urls);
	fuzz_change_password(sentinels);
	REQUIRE(parse_servers(&t, urls, sentinels, other_error) == result);
	REQUIRE(strcmp(error, other_error) == 0);
	if (result != 0) {
		REQUIRE(strncmp(error, setting, strlen(setting)) == 0 && fuzz_is_line(error));
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

/* A text in both places. */
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

	if (address_parse(&a, text) != 0)
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
