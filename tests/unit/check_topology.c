/* SPDX-License-Identifier: ISC */
/*
 * check_topology: parsing of lists of nodes and sentinels, and the choice of the server, depending
 * on the replies of servers and sentinels, their order, and the time limit.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "fake_valkey.h"
#include "valkey/topology.h"

#define TIMEOUT_MS 600

static struct error error;

static bool
parse(struct topology *t, const char *url, const char *sentinels, const char *option)
{
	struct settings settings = {
		.valkey_url = (char *)(uintptr_t)url, .valkey_password_file = (char[]){ "" },
		.valkey_sentinels = (char *)(uintptr_t)sentinels,
		.valkey_sentinel_master = sentinels[0] != '\0' ? (char[]){ "m" }
		    : (char[]){ SETTINGS_MASTER_DEFAULT },
		.valkey_sentinel_password = sentinels[0] != '\0' ? (char[]){ "sesame" } : (char[]){ "" },
		.valkey_sentinel_password_file = (char[]){ "" },
		.valkey_tls_ca = (char[]){ "" }, .valkey_tls_cert = (char[]){ "" },
		.valkey_tls_key = (char[]){ "" },
	};

	return topology_parse(t, &settings, option, &error);
}

/* Parsing */

START_TEST(lists)
{
	static const struct {
		const char *url, *sentinels, *option, *label;
		int nodes, sentinel_count;
	} rows[] = {
		{ "valkey://a", "", NULL, "a:6379", 1, 0 },
		{ "valkey://a:1,redis://[::1]:2,unix:///s,t", "", NULL, "a:1,[::1]:2,unix:/s,t", 3, 0 },
		{ "valkey://u:x,y@a", "", NULL, "a:6379", 1, 0 },
		{ "valkey://a", "b,[::1]:1,10.0.0.1:2", NULL, "m@b:26379,[::1]:1,10.0.0.1:2", 1, 3 },
		{ "nonsense", "nonsense,", "valkey://c:3", "c:3", 1, 0 },
		{ "valkey://a:1\n", "", NULL, "a:1", 1, 0 },
		{ " valkey://a:1 ,\tredis://b/0 , unix:///s t ", "", NULL, "a:1,b:6379,unix:/s t", 3, 0 },
		{ "valkey://a", " b , [::1]:1\r\n,\n10.0.0.1:2\t", NULL, "m@b:26379,[::1]:1,10.0.0.1:2",
		    1, 3 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct topology t;

		ck_assert_msg(parse(&t, rows[i].url, rows[i].sentinels, rows[i].option), "%s",
		    error.text);
		ck_assert_str_eq(t.label, rows[i].label);
		ck_assert_int_eq(t.node_count, rows[i].nodes);
		ck_assert_int_eq(t.sentinel_count, rows[i].sentinel_count);
		topology_free(&t);
		topology_free(&t);
	}
}
END_TEST

/* Each URL has its own user and password; the password file takes precedence over all of them. */
START_TEST(passwords)
{
	char path[] = "/tmp/check_topology.XXXXXX";
	struct settings settings = {
		.valkey_url = (char[]){ "valkey://u:p@a,valkey://v:q@b,valkey://c" },
		.valkey_password_file = (char[]){ "" }, .valkey_sentinels = (char[]){ "" },
		.valkey_sentinel_master = (char[]){ SETTINGS_MASTER_DEFAULT },
		.valkey_sentinel_password = (char[]){ "" },
		.valkey_sentinel_password_file = (char[]){ "" },
		.valkey_tls_ca = (char[]){ "" }, .valkey_tls_cert = (char[]){ "" },
		.valkey_tls_key = (char[]){ "" },
	};
	struct topology t;
	int fd;

	ck_assert(topology_parse(&t, &settings, NULL, &error));
	ck_assert_str_eq(t.nodes[0].valkey.password, "p");
	ck_assert_str_eq(t.nodes[1].valkey.user, "v");
	ck_assert_str_eq(t.nodes[1].valkey.password, "q");
	ck_assert_ptr_null(t.nodes[2].valkey.password);
	topology_free(&t);
	fd = mkstemp(path);
	ck_assert_int_eq((int)write(fd, "new\n", 4), 4);
	close(fd);
	settings.valkey_password_file = path;
	ck_assert(topology_parse(&t, &settings, NULL, &error));
	for (int i = 0; i < 3; i++)
		ck_assert_str_eq(t.nodes[i].valkey.password, "new");
	topology_free(&t);
	unlink(path);
	ck_assert(!topology_parse(&t, &settings, NULL, &error));
}
END_TEST

/* The sentinels' password comes from its file or, if there is none, from the environment. */
START_TEST(sentinel_passwords)
{
	static const struct {
		const char *content, *password;
	} rows[] = {
		{ NULL, "old" }, { "new", "new" }, { "new\n", "new" }, { "new\r\n", "new" },
	};
	char path[] = "/tmp/check_topology.XXXXXX", expected[128];
	int fd = mkstemp(path);
	struct settings settings = {
		.valkey_url = (char[]){ "valkey://u:p@a" }, .valkey_password_file = (char[]){ "" },
		.valkey_sentinels = (char[]){ "b, c" },
		.valkey_sentinel_master = (char[]){ SETTINGS_MASTER_DEFAULT },
		.valkey_sentinel_password = (char[]){ "old" },
		.valkey_tls_ca = (char[]){ "" }, .valkey_tls_cert = (char[]){ "" },
		.valkey_tls_key = (char[]){ "" },
	};
	struct topology t;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *content = rows[i].content != NULL ? rows[i].content : "";

		ck_assert_int_eq(ftruncate(fd, 0), 0);
		ck_assert_int_eq((int)pwrite(fd, content, strlen(content), 0), (int)strlen(content));
		settings.valkey_sentinel_password_file = rows[i].content != NULL ? path : (char[]){ "" };
		ck_assert_msg(topology_parse(&t, &settings, NULL, &error), "%s", error.text);
		for (int k = 0; k < 2; k++)
			ck_assert_str_eq(t.sentinels[k].valkey.password, rows[i].password);
		ck_assert_str_eq(t.nodes[0].valkey.password, "p");
		topology_free(&t);
	}
	close(fd);
	unlink(path);
	ck_assert(!topology_parse(&t, &settings, NULL, &error));
	snprintf(expected, sizeof(expected), "VALKEY_SENTINEL_PASSWORD_FILE=%s: No such file", path);
	ck_assert_msg(strncmp(error.text, expected, strlen(expected)) == 0, "%s", error.text);
}
END_TEST

/* Settings for sentinels are errors without VALKEY_SENTINELS, unless an option gives the URL. */
START_TEST(sentinels_not_set)
{
	static const struct {
		const char *master, *password, *file, *error;
	} rows[] = {
		{ "m", "", "", "VALKEY_SENTINEL_MASTER: is set, but VALKEY_SENTINELS is not" },
		{ SETTINGS_MASTER_DEFAULT, "sesame", "",
		    "VALKEY_SENTINEL_PASSWORD: is set, but VALKEY_SENTINELS is not" },
		{ SETTINGS_MASTER_DEFAULT, "", "/file",
		    "VALKEY_SENTINEL_PASSWORD_FILE: is set, but VALKEY_SENTINELS is not" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct settings settings = {
			.valkey_url = (char[]){ "valkey://a" }, .valkey_password_file = (char[]){ "" },
			.valkey_sentinels = (char[]){ "" },
			.valkey_sentinel_master = (char *)(uintptr_t)rows[i].master,
			.valkey_sentinel_password = (char *)(uintptr_t)rows[i].password,
			.valkey_sentinel_password_file = (char *)(uintptr_t)rows[i].file,
			.valkey_tls_ca = (char[]){ "" }, .valkey_tls_cert = (char[]){ "" },
			.valkey_tls_key = (char[]){ "" },
		};
		struct topology t;

		ck_assert(!topology_parse(&t, &settings, NULL, &error));
		ck_assert_str_eq(error.text, rows[i].error);
		ck_assert(topology_parse(&t, &settings, "valkey://b", &error));
		topology_free(&t);
	}
}
END_TEST

#define L8(text) text "," text "," text "," text "," text "," text "," text "," text
#define SENTINELS_ALLOWED "; must be a comma-separated list of host[:port] or [v6][:port]"
#define ONE_URL ": must be one URL with a host if VALKEY_SENTINELS is set: " \
	"it supplies the user and password"

static const struct {
	const char *url, *sentinels, *error;
} bad[] = {
	{ "valkey://u:pw@a,valkey://v:pw@b:0", "", "VALKEY_URL=valkey://u:***@b:0: the port must be a number" },
	{ "valkey://a,", "", "VALKEY_URL=valkey://a,: the host must be a name" },
	{ "valkey://a,b", "", "VALKEY_URL=valkey://a,b: the host must be a name" },
	{ "valkey://a,valkey://u:pw@b?db=pw,valkey://c", "", "VALKEY_URL=valkey://***@b?***: the query "
	    "may only be family=0, family=4 or family=6, not db; must be" },
	{ "valkey://a,valkey://b?db=1", "", "VALKEY_URL=valkey://b?***: the query may only be family=0, "
	    "family=4 or family=6, not db; must be" },
	{ "valkey://a b", "", "VALKEY_URL=valkey://a b: the host must be a name" },
	{ "valkey://a,http://u:pw@b", "", "VALKEY_URL=valkey://***@b: unknown scheme" },
	{ "valkey://:pw,redis://pw@b", "", "VALKEY_URL=valkey://:***@b: the host is missing" },
	{ "valkey://u:pw@a/pw,redis://pw@b", "", "VALKEY_URL=valkey://u:***@b: the db must be a number" },
	{ "valkey://a,valkey://b:pw,valkey://c", "", "VALKEY_URL=valkey://b:***: the port must be a number" },
	{ L8(L8("valkey://a")), "", "VALKEY_URL: 64 entries; at most 32 are allowed" },
	{ "valkey://a", L8(L8("a")), "VALKEY_SENTINELS: 64 entries; at most 32 are allowed" },
	{ "valkey://a", "a,", "VALKEY_SENTINELS=a,: the host is missing" SENTINELS_ALLOWED },
	{ "valkey://a", ",a", "VALKEY_SENTINELS=,a: the host is missing" SENTINELS_ALLOWED },
	{ "valkey://a", "a:x,b", "VALKEY_SENTINELS=a:x,b: the port must be a number from 1 to 65535"
	    SENTINELS_ALLOWED },
	{ "valkey://a", "a?b", "VALKEY_SENTINELS=a?***: the host must be a name" },
	{ "valkey://a", "a:1 b:1", "VALKEY_SENTINELS=a:1 b:1: only commas may separate sentinels"
	    SENTINELS_ALLOWED },
	{ "valkey://a", "a : 1", "VALKEY_SENTINELS=a : 1: only commas may separate sentinels"
	    SENTINELS_ALLOWED },
	{ "valkey://a", "a, ,b", "VALKEY_SENTINELS=a, ,b: the host is missing" SENTINELS_ALLOWED },
	{ "valkey://a", "a:1;b:1", "VALKEY_SENTINELS=a:1;b:1: only commas may separate sentinels"
	    SENTINELS_ALLOWED },
	{ "valkey://a", "redis://a:1,b:1", "VALKEY_SENTINELS=redis://a:***: a sentinel is not a URL"
	    SENTINELS_ALLOWED },
	{ "valkey://a", "a,redis://b:1", "VALKEY_SENTINELS=a,redis://b:1: a sentinel is not a URL"
	    SENTINELS_ALLOWED },
	{ "valkey://a", "[::1", "VALKEY_SENTINELS=[::1: '[' without ']'" },
	{ "valkey://a", "a,valkey://u:pw@b", "VALKEY_SENTINELS=***@b: " },
	{ "valkey://a", "u:pw@b", "VALKEY_SENTINELS=***@b: " },
	{ "valkey://u:pw@a,valkey://b", "c", "VALKEY_URL=valkey://u:***@a,valkey://b" ONE_URL },
	{ "unix:///s", "c", "VALKEY_URL=unix:///s" ONE_URL },
};

/* Errors name the setting, show the value without its password, and say what is allowed. */
START_TEST(bad_lists)
{
	struct topology t;

	ck_assert(!parse(&t, bad[_i].url, bad[_i].sentinels, NULL));
	ck_assert_msg(strncmp(error.text, bad[_i].error, strlen(bad[_i].error)) == 0, "%s\n%s",
	    error.text, bad[_i].error);
	ck_assert_ptr_null(strstr(error.text, "pw"));
	ck_assert_ptr_null(t.nodes);
	ck_assert_ptr_null(t.sentinels);
}
END_TEST

/* Nodes */

#define PRIMARY { .rules = { { "ROLE", FAKE_MASTER }, { "CLUSTER INFO", FAKE_CLUSTER } } }
#define STANDALONE { .rules = { { "ROLE", FAKE_MASTER }, { "CLUSTER INFO", FAKE_ALONE } } }
#define CLOSED { .rules = { { "ROLE", FAKE_MASTER }, { "CLUSTER INFO", "-NOPERM no\r\n" } } }
#define LONELY { .rules = { { "ROLE", FAKE_REPLICA }, { "CLUSTER INFO", FAKE_ALONE } } }
#define CLUSTER_DOWN { .rules = { { "ROLE", FAKE_MASTER }, { "CLUSTER INFO", FAKE_CLUSTER_DOWN } } }
#define NODE { .rules = { { "ROLE", FAKE_REPLICA }, { "CLUSTER INFO", FAKE_CLUSTER } } }
#define SILENT { .rules = { { "ROLE", NULL } } }
#define NOBODY "valkey://127.0.0.1:1"

static void
parse_fakes(struct topology *t, struct fake *fakes, int count, const char *more)
{
	char urls[1024] = "";

	for (int i = 0; i < count; i++) {
		fake_start(&fakes[i]);
		snprintf(urls + strlen(urls), sizeof(urls) - strlen(urls), "%svalkey://%s",
		    i > 0 ? "," : "", fakes[i].label);
	}
	ck_assert(parse(t, more != NULL ? more : urls, "", NULL));
}

static bool
try_connect(struct topology *t)
{
	int64_t began = clock_ms();
	redisContext *c = topology_connect(t, TIMEOUT_MS, &error);

	ck_assert_int_le((int)(clock_ms() - began), 4 * TIMEOUT_MS);
	if (c != NULL)
		redisFree(c);
	return c != NULL;
}

/* The first attempt starts at a random node, later ones at the node that was used last. */
START_TEST(begins_anywhere)
{
	struct fake fakes[3] = { PRIMARY, PRIMARY, NODE };
	struct topology t;
	int asked, used;

	parse_fakes(&t, fakes, 3, NULL);
	for (int i = 0; i < 200 && (fakes[0].accepted == 0 || fakes[1].accepted == 0 || fakes[2].accepted == 0);
	     i++) {
		t.used_node = -1;
		ck_assert_msg(try_connect(&t), "%s", error.text);
		ck_assert_str_eq(t.used, fakes[t.used_node].label);
	}
	used = t.used_node;
	ck_assert(fakes[0].accepted > 0 && fakes[1].accepted > 0 && fakes[2].accepted > 0);
	asked = fakes[used].accepted;
	for (int i = 0; i < 3; i++)
		ck_assert(try_connect(&t) && t.used_node == used);
	ck_assert_int_eq(fakes[used].accepted, asked + 3);
	for (int i = 0; i < 3; i++)
		fake_stop(&fakes[i]);
	topology_free(&t);
}
END_TEST

/* Nodes that do not answer, do not run, or are replicas without a Cluster are skipped in time. */
START_TEST(passes_over)
{
	struct fake fakes[3] = { SILENT, LONELY, PRIMARY };
	char urls[256];
	struct topology t;

	for (int i = 0; i < 3; i++)
		fake_start(&fakes[i]);
	snprintf(urls, sizeof(urls), "valkey://%s," NOBODY ",valkey://%s,valkey://%s", fakes[0].label,
	    fakes[1].label, fakes[2].label);
	ck_assert(parse(&t, urls, "", NULL));
	t.used_node = 0;
	ck_assert_msg(try_connect(&t), "%s", error.text);
	ck_assert_int_eq(t.used_node, 3);
	ck_assert_str_eq(t.used, fakes[2].label);
	for (int i = 0; i < 3; i++)
		fake_stop(&fakes[i]);
	topology_free(&t);
}
END_TEST

/* If no node is usable, the error lists all nodes in the order of the setting. */
START_TEST(none)
{
	struct fake fakes[2] = { SILENT, LONELY };
	char urls[256], expected[ERROR_SIZE];
	struct topology t;

	fake_start(&fakes[0]);
	fake_start(&fakes[1]);
	snprintf(urls, sizeof(urls), "valkey://%s," NOBODY ",valkey://%s", fakes[0].label,
	    fakes[1].label);
	ck_assert(parse(&t, urls, "", NULL));
	snprintf(expected, sizeof(expected), "no usable node: %s: no answer in time; "
	    "127.0.0.1:1: Connection refused; %s: is a replica, not a primary: messages published there "
	    "reach no other server", fakes[0].label, fakes[1].label);
	for (int i = -1; i < 3; i++) {
		t.used_node = i;
		ck_assert(!try_connect(&t));
		ck_assert_str_eq(error.text, expected);
		ck_assert_int_eq(t.used_node, i);
	}
	fake_stop(&fakes[0]);
	fake_stop(&fakes[1]);
	topology_free(&t);
}
END_TEST

/* With a single server, the error is that of the server. */
START_TEST(none_alone)
{
	struct topology t;

	ck_assert(parse(&t, NOBODY, "", NULL));
	ck_assert(!try_connect(&t));
	ck_assert_str_eq(error.text, "127.0.0.1:1: Connection refused");
	topology_free(&t);
}
END_TEST

/*
 * If VALKEY_URL names several servers, a primary that is not in a Cluster is refused, unless the
 * user is not permitted to query CLUSTER INFO.
 */
START_TEST(standalone)
{
	struct fake fakes[2] = { STANDALONE, STANDALONE }, other = CLOSED;
	char expected[ERROR_SIZE], url[128];
	struct topology t;

	parse_fakes(&t, fakes, 2, NULL);
	snprintf(expected, sizeof(expected), "no usable node: %s: is not a Cluster node, but VALKEY_URL "
	    "names several servers; %s: is not a Cluster node, but VALKEY_URL names several servers",
	    fakes[0].label, fakes[1].label);
	ck_assert(!try_connect(&t));
	ck_assert_str_eq(error.text, expected);
	topology_free(&t);
	/* A single server need not be in a Cluster. */
	snprintf(url, sizeof(url), "valkey://%s", fakes[0].label);
	ck_assert(parse(&t, url, "", NULL));
	ck_assert_msg(try_connect(&t), "%s", error.text);
	topology_free(&t);
	fake_start(&other);
	snprintf(url, sizeof(url), "valkey://%s,valkey://%s", fakes[0].label, other.label);
	ck_assert(parse(&t, url, "", NULL));
	t.used_node = 0;
	ck_assert_msg(try_connect(&t), "%s", error.text);
	ck_assert_str_eq(t.used, other.label);
	topology_free(&t);
	for (int i = 0; i < 2; i++)
		fake_stop(&fakes[i]);
	fake_stop(&other);
}
END_TEST

/* A node whose Cluster is down is used only as long as no other node is usable. */
START_TEST(cluster_down)
{
	struct fake fakes[3] = { CLUSTER_DOWN, CLUSTER_DOWN, NODE };
	struct topology t;
	int asked;

	parse_fakes(&t, fakes, 3, NULL);
	for (int i = 0; i < 3; i++) {
		t.used_node = i;
		ck_assert_msg(try_connect(&t), "%s", error.text);
		ck_assert_int_eq(t.used_node, 2);
	}
	ck_assert_ptr_null(topology_check(&t, NULL, TIMEOUT_MS, &error));
	t.used_node = 1;
	asked = fakes[1].accepted;
	ck_assert_str_eq(topology_check(&t, NULL, TIMEOUT_MS, &error),
	    "the node was cut off from its Cluster");
	/* The node in use is queried only once. */
	ck_assert_int_eq(fakes[1].accepted, asked + 1);
	fake_stop(&fakes[2]);
	ck_assert_ptr_null(topology_check(&t, NULL, TIMEOUT_MS, &error));
	ck_assert_str_eq(error.text, "");
	for (int i = 0; i < 3; i++) {
		t.used_node = i;
		ck_assert_msg(try_connect(&t), "%s", error.text);
		ck_assert_int_eq(t.used_node, i % 2);
	}
	fake_stop(&fakes[0]);
	fake_stop(&fakes[1]);
	topology_free(&t);
}
END_TEST

/* Such a node is returned in time even if the last node to be tried does not answer. */
START_TEST(cluster_down_and_silent)
{
	struct fake fakes[2] = { CLUSTER_DOWN, SILENT };
	struct topology t;
	int64_t began = clock_ms();
	redisContext *c;

	parse_fakes(&t, fakes, 2, NULL);
	t.used_node = 0;
	c = topology_connect(&t, 3000, &error);
	ck_assert_int_lt((int)(clock_ms() - began), 3000);
	ck_assert_msg(c != NULL, "%s", error.text);
	ck_assert_int_eq(t.used_node, 0);
	redisFree(c);
	fake_stop(&fakes[0]);
	fake_stop(&fakes[1]);
	topology_free(&t);
}
END_TEST

/* Only the node in use is checked; if that fails, it stays in use. */
START_TEST(check_nodes)
{
	struct fake fakes[3] = { PRIMARY, LONELY, SILENT };
	struct topology t;

	parse_fakes(&t, fakes, 3, NULL);
	t.used_node = 0;
	ck_assert_ptr_null(topology_check(&t, NULL, TIMEOUT_MS, &error));
	ck_assert_str_eq(error.text, "");
	t.used_node = 1;
	ck_assert_str_eq(topology_check(&t, NULL, TIMEOUT_MS, &error),
	    "the server is no longer a primary");
	t.used_node = 2;
	ck_assert_ptr_null(topology_check(&t, NULL, TIMEOUT_MS, &error));
	ck_assert_ptr_nonnull(strstr(error.text, "no answer in time"));
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(fakes[i].accepted, 1);
		fake_stop(&fakes[i]);
	}
	topology_free(&t);
}
END_TEST

/* Sentinels */

/* The replies of a sentinel: the address of a server on loopback, and its epoch. */
struct replies {
	char address[64], epoch[64];
};

static struct fake
sentinel_naming(struct replies *o, const char *host, const struct fake *server, int epoch)
{
	char port[8], number[8];

	snprintf(port, sizeof(port), "%d", server->port);
	snprintf(number, sizeof(number), "%d", epoch);
	snprintf(o->address, sizeof(o->address), "*2\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n",
	    strlen(host), host, strlen(port), port);
	snprintf(o->epoch, sizeof(o->epoch), "*2\r\n$12\r\nconfig-epoch\r\n$%zu\r\n%s\r\n",
	    strlen(number), number);
	return (struct fake){ .rules = { { "AUTH sesame", "+OK\r\n" },
	    { "SENTINEL GET-MASTER-ADDR-BY-NAME m", o->address }, { "SENTINEL MASTER m", o->epoch } } };
}

static struct fake
sentinel(struct replies *o, const struct fake *server, int epoch)
{
	return sentinel_naming(o, "127.0.0.1", server, epoch);
}

static void
parse_sentinels(struct topology *t, struct fake *sentinels, int count)
{
	char list[256] = "";

	for (int i = 0; i < count; i++) {
		fake_start(&sentinels[i]);
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i > 0 ? "," : "",
		    sentinels[i].label);
	}
	ck_assert(parse(t, "valkey://u:pw@elsewhere", list, NULL));
}

/* A server that requires the user and password of VALKEY_URL. */
#define SERVER(role)                                                                              \
	{                                                                                         \
		.rules = { { "AUTH u pw", "+OK\r\n" }, { "ROLE", role },                          \
			{ "CLUSTER INFO", FAKE_ALONE } }                                          \
	}

/* The highest epoch wins, whichever sentinel it comes from, even if one does not answer. */
START_TEST(newest)
{
	struct fake servers[2] = { SERVER(FAKE_MASTER), SERVER(FAKE_MASTER) }, sentinels[3];
	struct replies replies[3];
	struct topology t;

	fake_start(&servers[0]);
	fake_start(&servers[1]);
	for (int i = 0; i < 3; i++)
		sentinels[i] = sentinel(&replies[i], &servers[i == _i], i == _i ? 10 : 9);
	sentinels[(_i + 1) % 3] = (struct fake){ .rules = { { "AUTH", NULL } } };
	parse_sentinels(&t, sentinels, 3);
	ck_assert_msg(try_connect(&t), "%s", error.text);
	ck_assert_str_eq(t.used, servers[1].label);
	ck_assert_int_eq(servers[0].accepted, 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(sentinels[i].accepted, 1);
		fake_stop(&sentinels[i]);
	}
	fake_stop(&servers[0]);
	fake_stop(&servers[1]);
	topology_free(&t);
}
END_TEST

/*
 * An answer older than the known one is ignored if it comes from a minority of the sentinels, both
 * while connected and when reconnecting. It is accepted from a majority.
 */
START_TEST(stale)
{
	struct fake servers[2] = { SERVER(FAKE_MASTER), SERVER(FAKE_MASTER) }, sentinels[2];
	struct replies replies[2];
	struct topology t;

	fake_start(&servers[0]);
	fake_start(&servers[1]);
	sentinels[0] = sentinel(&replies[0], &servers[0], 1);
	sentinels[1] = sentinel(&replies[1], &servers[1], 2);
	parse_sentinels(&t, sentinels, 2);
	ck_assert_msg(try_connect(&t), "%s", error.text);
	ck_assert_str_eq(t.used, servers[1].label);
	fake_stop(&sentinels[1]);
	ck_assert_ptr_null(topology_check(&t, NULL, TIMEOUT_MS, &error));
	ck_assert(!try_connect(&t));
	ck_assert_ptr_nonnull(strstr(error.text, "most sentinels did not answer"));
	/* The same answer from all the sentinels in the list. */
	t.sentinel_count = 1;
	ck_assert_str_eq(topology_check(&t, NULL, TIMEOUT_MS, &error),
	    "the sentinels name another primary");
	ck_assert(try_connect(&t));
	ck_assert_str_eq(t.used, servers[0].label);
	t.sentinel_count = 2;
	fake_stop(&sentinels[0]);
	fake_stop(&servers[0]);
	fake_stop(&servers[1]);
	topology_free(&t);
}
END_TEST

/*
 * Of equally new answers that of most sentinels is tried first, wherever the others are in the list;
 * an address that only its own sentinel can reach costs nothing.
 */
START_TEST(majority)
{
	struct fake servers[2] = { SERVER(FAKE_MASTER), SERVER(FAKE_MASTER) }, sentinels[3];
	struct replies replies[3];
	struct topology s;

	fake_start(&servers[0]);
	fake_start(&servers[1]);
	for (int i = 0; i < 3; i++)
		sentinels[i] = sentinel(&replies[i], &servers[i != _i], 7);
	parse_sentinels(&s, sentinels, 3);
	ck_assert_msg(try_connect(&s), "%s", error.text);
	ck_assert_str_eq(s.used, servers[1].label);
	ck_assert_int_eq(servers[0].accepted, 0);
	ck_assert_ptr_null(topology_check(&s, NULL, TIMEOUT_MS, &error));
	for (int i = 0; i < 3; i++)
		fake_stop(&sentinels[i]);
	fake_stop(&servers[0]);
	fake_stop(&servers[1]);
	topology_free(&s);
}
END_TEST

/* Each distinct answer is tried until one can be used; if none can, the error has all of them. */
START_TEST(each_in_turn)
{
	struct fake replica = SERVER(FAKE_REPLICA), primary = SERVER(FAKE_MASTER), sentinels[4];
	char expected[ERROR_SIZE];
	struct replies replies[4];
	struct topology s;

	fake_start(&replica);
	fake_start(&primary);
	for (int i = 0; i < 2; i++)
		sentinels[i] = sentinel(&replies[i], &replica, 7);
	sentinels[2] = sentinel_naming(&replies[2], "127.0.1.1", &primary, 7);
	sentinels[3] = sentinel(&replies[3], &primary, 7);
	parse_sentinels(&s, sentinels, 4);
	ck_assert_msg(try_connect(&s), "%s", error.text);
	ck_assert_str_eq(s.used, primary.label);
	/* Its sentinel is in the minority, but it can be used. */
	ck_assert_ptr_null(topology_check(&s, NULL, TIMEOUT_MS, &error));
	fake_stop(&sentinels[3]);
	ck_assert(!try_connect(&s));
	snprintf(expected, sizeof(expected), "%s: is a replica, not a primary: messages published there "
	    "reach no other server; 127.0.1.1:%d: Connection refused", replica.label, primary.port);
	ck_assert_str_eq(error.text, expected);
	for (int i = 0; i < 3; i++)
		fake_stop(&sentinels[i]);
	fake_stop(&replica);
	fake_stop(&primary);
	topology_free(&s);
}
END_TEST

/*
 * At the same epoch, another spelling of the server in use is no failover, and neither is another
 * server that a minority of the sentinels names. The same answers with a new epoch are one.
 */
START_TEST(spelling)
{
	struct fake servers[2] = { SERVER(FAKE_MASTER), SERVER(FAKE_MASTER) }, sentinels[2];
	struct replies replies[2];
	struct topology s;

	fake_start(&servers[0]);
	fake_start(&servers[1]);
	sentinels[0] = sentinel_naming(&replies[0], "localhost", &servers[0], 7);
	sentinels[1] = sentinel(&replies[1], &servers[1], 7);
	parse_sentinels(&s, sentinels, 2);
	fake_stop(&sentinels[1]);
	s.primary = (struct sentinel_answer){ .host = "127.0.0.1", .port = servers[0].port, .epoch = 7 };
	s.sentinel_count = 1;
	ck_assert_ptr_null(topology_check(&s, NULL, TIMEOUT_MS, &error));
	s.primary.port = servers[1].port;
	ck_assert_str_eq(topology_check(&s, NULL, TIMEOUT_MS, &error),
	    "the sentinels name another primary");
	s.sentinel_count = 2;
	ck_assert_ptr_null(topology_check(&s, NULL, TIMEOUT_MS, &error));
	s.primary.epoch = 6;
	ck_assert_str_eq(topology_check(&s, NULL, TIMEOUT_MS, &error),
	    "the sentinels name another primary");
	fake_stop(&sentinels[0]);
	fake_stop(&servers[0]);
	fake_stop(&servers[1]);
	topology_free(&s);
}
END_TEST

/* If the server that the sentinel names is not a primary, it is refused, or left if in use. */
START_TEST(named_replica)
{
	struct fake server = SERVER(FAKE_REPLICA), sentinels[1];
	char expected[ERROR_SIZE];
	struct replies replies;
	struct topology t;

	fake_start(&server);
	sentinels[0] = sentinel(&replies, &server, 1);
	parse_sentinels(&t, sentinels, 1);
	ck_assert(!try_connect(&t));
	snprintf(expected, sizeof(expected), "%s: is a replica, not a primary: messages published there "
	    "reach no other server", server.label);
	ck_assert_str_eq(error.text, expected);
	t.primary = (struct sentinel_answer){ .host = "127.0.0.1", .port = server.port };
	ck_assert_str_eq(topology_check(&t, NULL, TIMEOUT_MS, &error),
	    "the server is no longer a primary");
	/* Even if no sentinel answers. */
	fake_stop(&sentinels[0]);
	ck_assert_str_eq(topology_check(&t, NULL, TIMEOUT_MS, &error),
	    "the server is no longer a primary");
	fake_stop(&server);
	topology_free(&t);
}
END_TEST

/* If no sentinel names a primary, the error lists each reason in the order of the setting. */
START_TEST(no_sentinel)
{
	struct fake sentinels[2] = { { .rules = { { "AUTH", "-WRONGPASS no\r\n" } } },
		{ .rules = { { "AUTH", "+OK\r\n" },
		    { "SENTINEL MASTER", "-ERR No such master with that name\r\n" } } } };
	char expected[ERROR_SIZE];
	struct topology t;

	parse_sentinels(&t, sentinels, 2);
	snprintf(expected, sizeof(expected), "no sentinel in VALKEY_SENTINELS named the primary: "
	    "%s: authentication failed: WRONGPASS no; %s: no primary named m: check "
	    "VALKEY_SENTINEL_MASTER", sentinels[0].label, sentinels[1].label);
	for (int i = 0; i < 2; i++) {
		ck_assert(!try_connect(&t));
		ck_assert_str_eq(error.text, expected);
	}
	fake_stop(&sentinels[0]);
	fake_stop(&sentinels[1]);
	topology_free(&t);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("topology");
	TCase *parsing = tcase_create("parse"), *nodes = tcase_create("nodes");
	TCase *asking = tcase_create("sentinels");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(parsing, lists);
	tcase_add_test(parsing, passwords);
	tcase_add_test(parsing, sentinel_passwords);
	tcase_add_test(parsing, sentinels_not_set);
	tcase_add_loop_test(parsing, bad_lists, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(nodes, begins_anywhere);
	tcase_add_test(nodes, passes_over);
	tcase_add_test(nodes, none);
	tcase_add_test(nodes, none_alone);
	tcase_add_test(nodes, standalone);
	tcase_add_test(nodes, cluster_down);
	tcase_add_test(nodes, cluster_down_and_silent);
	tcase_add_test(nodes, check_nodes);
	tcase_add_loop_test(asking, newest, 0, 3);
	tcase_add_loop_test(asking, majority, 0, 3);
	tcase_add_test(asking, each_in_turn);
	tcase_add_test(asking, spelling);
	tcase_add_test(asking, stale);
	tcase_add_test(asking, named_replica);
	tcase_add_test(asking, no_sentinel);
	suite_add_tcase(s, parsing);
	suite_add_tcase(s, nodes);
	suite_add_tcase(s, asking);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
