/* SPDX-License-Identifier: ISC */
/*
 * topology: see topology.h.
 *
 * All sentinels are queried and the newest answer wins, so that a sentinel that was cut off from
 * the others cannot lead back to an old primary. Among equally new answers the one of most sentinels
 * is tried first, then the others. Errors are listed in the order of the setting,
 * whatever the order of the attempts, so that the same failure always has the same text.
 */
#include "valkey/topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hostport.h"
#include "base/secret.h"
#include "base/text.h"
#include "valkey/tls.h"

#define SENTINEL_PORT 26379
#define SHOWN_MAX 160 /* bytes of a setting in an error */

/* Parsing */

/* The length of the first part of a list, up to a comma or the end. */
static size_t
part_length(const char *list)
{
	return strcspn(list, ",");
}

static int
count_parts(const char *list, size_t (*length_of)(const char *))
{
	int count = 1;

	for (list += length_of(list); *list != '\0'; list += length_of(list)) {
		list++;
		count++;
	}
	return count;
}

static bool
check_count(const char *setting, int count, struct error *error)
{
	return count <= TOPOLOGY_MAX || error_set(error,
	    "%s: %d entries; at most %d are allowed", setting, count, TOPOLOGY_MAX);
}

/* Always returns false. */
static bool
out_of_memory(const char *setting, struct error *error)
{
	return error_set(error, "%s: out of memory", setting);
}

/* The password file applies to all nodes and is read once, because it may be a pipe. */
static bool
parse_node(struct topology *t, const char *url, const char *list, const char *password_file,
    struct error *error)
{
	const struct valkey *first = t->node_count > 0 ? &t->nodes[0].valkey : NULL;
	struct valkey *v = &t->nodes[t->node_count].valkey;

	if (!valkey_parse(v, url, list, first == NULL ? password_file : "", error))
		return false;
	t->node_count++;
	return first == NULL || password_file[0] == '\0' ||
	    valkey_set_password(v, first->password) ||
	    out_of_memory("VALKEY_PASSWORD_FILE", error);
}

static bool
parse_nodes(struct topology *t, const char *urls, const char *password_file, struct error *error)
{
	const char *list = urls;
	int count = count_parts(urls, settings_url_length);

	if (!check_count("VALKEY_URL", count, error))
		return false;
	t->nodes = calloc((size_t)count, sizeof(*t->nodes));
	if (t->nodes == NULL)
		return out_of_memory("VALKEY_URL", error);
	while (t->node_count < count) {
		size_t length = settings_url_length(urls), trimmed = length;
		const char *part = urls;
		char *url;
		bool good;

		text_trim(&part, &trimmed);
		url = strndup(part, trimmed);
		good = url != NULL ? parse_node(t, url, list, password_file, error)
					   : out_of_memory("VALKEY_URL", error);
		free(url);
		if (!good)
			return false;
		urls += length + 1;
	}
	return true;
}

/* Always returns false. Masks the value, in case it is a URL with a password. */
static bool
refuse(const char *setting, const char *list, const char *wrong, struct error *error)
{
	char masked[SHOWN_MAX];

	settings_mask_text(list, masked, sizeof(masked));
	return error_set(error, "%s=%s: %s", setting, masked, wrong);
}

/* Parses one part of VALKEY_SENTINELS. The error is only what is wrong, without the setting. */
static bool
parse_sentinel(struct valkey *v, const char *text, size_t length, struct error *error)
{
	text_trim(&text, &length);
	/* Without these two checks, the error would only mention a wrong host or port. */
	if (memmem(text, length, "://", 3) != NULL)
		return error_set(error, "a sentinel is not a URL");
	for (size_t i = 0; i < length; i++)
		if (strchr(";" TEXT_SPACE, text[i]) != NULL)
			return error_set(error, "only commas may separate sentinels");
	return valkey_parse_address(v, text, length, SENTINEL_PORT, error);
}

/* The password file takes precedence and is read once, because it may be a pipe. */
static bool
set_sentinel_password(const struct topology *t, struct valkey *v, const struct settings *settings,
    struct error *error)
{
	struct valkey *first = &t->sentinels[0].valkey;
	const char *file = settings->valkey_sentinel_password_file;
	const char *password = settings->valkey_sentinel_password;

	if (file[0] != '\0' && v == first)
		return valkey_read_password(v, "VALKEY_SENTINEL_PASSWORD_FILE", file, error);
	if (file[0] != '\0')
		password = first->password;
	return password[0] == '\0' || valkey_set_password(v, password) ||
	    out_of_memory("VALKEY_SENTINELS", error);
}

static bool
parse_sentinels(struct topology *t, const struct settings *settings, struct error *error)
{
	const char *rest = settings->valkey_sentinels;
	int count = count_parts(rest, part_length);

	if (t->node_count > 1 || t->nodes[0].valkey.path != NULL)
		return refuse("VALKEY_URL", settings->valkey_url, "must be one URL with a host if "
		    "VALKEY_SENTINELS is set: it supplies the user and password", error);
	if (!check_count("VALKEY_SENTINELS", count, error))
		return false;
	t->sentinels = calloc((size_t)count, sizeof(*t->sentinels));
	if (t->sentinels == NULL)
		return out_of_memory("VALKEY_SENTINELS", error);
	while (t->sentinel_count < count) {
		struct valkey *v = &t->sentinels[t->sentinel_count++].valkey;

		if (!parse_sentinel(v, rest, part_length(rest), error)) {
			error_set(error, "%s; must be " SETTINGS_SENTINELS_ALLOWED, error->text);
			return refuse("VALKEY_SENTINELS", settings->valkey_sentinels, error->text,
			    error);
		}
		v->tls = t->nodes[0].valkey.tls;
		v->family = t->nodes[0].valkey.family;
		if (!set_sentinel_password(t, v, settings, error))
			return false;
		rest += part_length(rest) + 1;
	}
	return true;
}

/*
 * Settings for sentinels without VALKEY_SENTINELS are a mistake: sentinels were meant to be used.
 */
static bool
check_no_sentinels(const struct settings *settings, struct error *error)
{
	const char *set = NULL;

	if (strcmp(settings->valkey_sentinel_master, SETTINGS_MASTER_DEFAULT) != 0)
		set = "VALKEY_SENTINEL_MASTER";
	else if (settings->valkey_sentinel_password[0] != '\0')
		set = "VALKEY_SENTINEL_PASSWORD";
	else if (settings->valkey_sentinel_password_file[0] != '\0')
		set = "VALKEY_SENTINEL_PASSWORD_FILE";
	return set == NULL || error_set(error, "%s: is set, but VALKEY_SENTINELS is not", set);
}

/* "a:1,b:2", or "mymaster@a:26379,b:26379". */
static char *
make_label(const struct topology *t)
{
	const struct topology_entry *entries = t->sentinel_count > 0 ? t->sentinels : t->nodes;
	int count = t->sentinel_count > 0 ? t->sentinel_count : t->node_count;
	char *label = NULL;
	size_t size;
	FILE *out = open_memstream(&label, &size);

	if (out == NULL)
		return NULL;
	if (t->sentinel_count > 0)
		fprintf(out, "%s@", t->master);
	for (int i = 0; i < count; i++)
		fprintf(out, "%s%s", i > 0 ? "," : "", entries[i].valkey.label);
	if (fclose(out) == 0)
		return label;
	free(label);
	return NULL;
}

/* TLS settings in the environment need not fit the server that an option (url) gives. */
static bool
configure_tls(const struct topology *t, const struct settings *settings, const char *url,
    struct error *error)
{
	bool used = false;

	for (int i = 0; i < t->node_count; i++)
		used |= t->nodes[i].valkey.tls;
	return (url != NULL && !used) || tls_configure(settings, used, error);
}

static bool
parse(struct topology *t, const struct settings *settings, const char *url, struct error *error)
{
	const char *urls = url != NULL ? url : settings->valkey_url;

	if (!parse_nodes(t, urls, settings->valkey_password_file, error))
		return false;
	if (url == NULL && !(settings->valkey_sentinels[0] != '\0'
		? parse_sentinels(t, settings, error)
		: check_no_sentinels(settings, error)))
		return false;
	if (!configure_tls(t, settings, url, error))
		return false;
	t->master = strdup(settings->valkey_sentinel_master);
	t->label = t->master != NULL ? make_label(t) : NULL;
	return t->label != NULL || out_of_memory("VALKEY_URL", error);
}

bool
topology_parse(struct topology *t, const struct settings *settings, const char *url,
    struct error *error)
{
	memset(t, 0, sizeof(*t));
	t->used_node = -1;
	if (parse(t, settings, url, error))
		return true;
	topology_free(t);
	return false;
}

void
topology_free(struct topology *t)
{
	for (int i = 0; i < t->node_count; i++)
		valkey_free(&t->nodes[i].valkey);
	for (int i = 0; i < t->sentinel_count; i++)
		valkey_free(&t->sentinels[i].valkey);
	free(t->nodes);
	free(t->sentinels);
	free(t->master);
	free(t->label);
	memset(t, 0, sizeof(*t));
}

/* Connecting */

/* The deadline of an attempt that has to leave equal shares of the time to others after it. */
static int64_t
share_until(int64_t deadline, int others)
{
	int64_t now = valkey_clock();

	return deadline > now ? now + (deadline - now) / (others + 1) : now;
}

/* Joins the errors of all entries, after a prefix. */
static void
explain_all(const struct topology_entry *entries, int count, const char *prefix,
    struct error *error)
{
	error_set(error, "%s", prefix);
	for (int i = 0; i < count; i++)
		error_set(error, "%s%s%s", error->text, i > 0 ? "; " : "", entries[i].error.text);
}

/* The distinct answers of the greatest epoch, those of most sentinels first. */
struct candidates {
	struct {
		struct sentinel_answer answer;
		int votes;
	} list[TOPOLOGY_MAX];
	int count;
	int answers; /* of all sentinels, older ones included */
};

/* Returns the candidate with this address; -1: there is none. */
static int
find_candidate(const struct candidates *all, const struct sentinel_answer *answer)
{
	for (int i = 0; i < all->count; i++)
		if (all->list[i].answer.port == answer->port &&
		    strcmp(all->list[i].answer.host, answer->host) == 0)
			return i;
	return -1;
}

/* Counts an answer. Candidates with equally many keep the order of the setting. */
static void
add_answer(struct candidates *all, const struct sentinel_answer *answer)
{
	int i;

	all->answers++;
	if (all->count > 0 && answer->epoch < all->list[0].answer.epoch)
		return;
	if (all->count > 0 && answer->epoch > all->list[0].answer.epoch)
		all->count = 0;
	i = find_candidate(all, answer);
	if (i < 0) {
		i = all->count++;
		all->list[i].answer = *answer;
		all->list[i].votes = 0;
	}
	all->list[i].votes++;
}

static void
sort_candidates(struct candidates *all)
{
	for (int i = 1; i < all->count; i++)
		for (int j = i; j > 0 && all->list[j].votes > all->list[j - 1].votes; j--) {
			typeof(all->list[0]) lesser = all->list[j - 1];

			all->list[j - 1] = all->list[j];
			all->list[j] = lesser;
		}
}

static bool
most_answered(const struct topology *t, const struct candidates *all)
{
	return all->answers * 2 > t->sentinel_count;
}

/*
 * Queries all sentinels. Answers older than the one in use are accepted only if most sentinels
 * answered: the sentinels were then set up again. If only a few answered, they were probably cut
 * off from the others.
 */
static bool
query_sentinels(struct topology *t, int64_t deadline, struct candidates *all, struct error *error)
{
	struct sentinel_answer answer = { .port = 0 };

	all->count = all->answers = 0;
	for (int i = 0; i < t->sentinel_count; i++) {
		struct topology_entry *e = &t->sentinels[i];

		/* Even the last one leaves a share of the time for the primary. */
		if (sentinel_query(&e->valkey, t->master,
			share_until(deadline, t->sentinel_count - i), &answer, &e->error))
			add_answer(all, &answer);
	}
	sort_candidates(all);
	if (all->count == 0)
		explain_all(t->sentinels, t->sentinel_count,
		    "no sentinel in VALKEY_SENTINELS named the primary: ", error);
	else if (all->list[0].answer.epoch < t->primary.epoch && !most_answered(t, all))
		return error_set(error, "%s: most sentinels did not answer, and the others missed "
		    "the last failover", t->label);
	return all->count > 0;
}

/* The server at that address, with VALKEY_URL's user and password. The result owns no memory. */
static struct valkey
primary_of(const struct topology *t, struct sentinel_answer *answer, char label[VALKEY_LABEL_SIZE])
{
	struct valkey v = t->nodes[0].valkey;

	hostport_format(label, VALKEY_LABEL_SIZE, answer->host, answer->port);
	secret_strike(label);
	v.host = answer->host;
	v.port = answer->port;
	v.label = label;
	return v;
}

/*
 * Tries the candidates in turn: a sentinel may name the primary by an address that is valid only on
 * its own host.
 */
static redisContext *
connect_primary(struct topology *t, int timeout_ms, struct error *error)
{
	int64_t deadline = valkey_clock() + timeout_ms;
	struct error failed = { "" }, all_failed = { "" };
	char label[VALKEY_LABEL_SIZE];
	struct valkey_state state;
	struct candidates all;
	redisContext *c = NULL;

	if (!query_sentinels(t, deadline, &all, error))
		return NULL;
	for (int i = 0; i < all.count && c == NULL; i++) {
		struct valkey v = primary_of(t, &all.list[i].answer, label);

		c = valkey_connect(&v, share_until(deadline, all.count - 1 - i), 0, false, &state,
		    &failed);
		if (c == NULL)
			error_set(&all_failed, "%s%s%s", all_failed.text, i > 0 ? "; " : "",
			    failed.text);
		else
			t->primary = all.list[i].answer;
	}
	if (c == NULL) {
		*error = all_failed;
		return NULL;
	}
	t->unverified = state.unverified;
	memcpy(t->used, label, sizeof(t->used));
	return c;
}

static redisContext *
try_node(struct topology *t, int node, int64_t deadline, int limit_ms, struct valkey_state *state)
{
	struct topology_entry *e = &t->nodes[node];

	return valkey_connect(&e->valkey, deadline, limit_ms, t->node_count > 1, state, &e->error);
}

/* A node whose Cluster is down is used only if there is no better one. */
static redisContext *
connect_node(struct topology *t, int timeout_ms, struct error *error)
{
	int64_t deadline = valkey_clock() + timeout_ms;
	int count = t->node_count, spare_node = 0, limit_ms = count == 1 ? timeout_ms : 0;
	int first = t->used_node >= 0 ? t->used_node : (int)clock_jitter(0, (uint32_t)count - 1);
	redisContext *spare = NULL;

	for (int i = 0; i < count; i++) {
		int node = (first + i) % count;
		/* With a spare connection, stop early enough to return it before the deadline. */
		int others = count - 1 - i + (spare != NULL);
		struct valkey_state state;
		int64_t until = share_until(deadline, others);
		redisContext *c = try_node(t, node, until, limit_ms, &state);

		if (c == NULL)
			continue;
		if (!state.cluster_down || spare == NULL) {
			t->unverified = state.unverified;
			if (spare != NULL)
				redisFree(spare);
			spare = c;
			spare_node = node;
		} else
			redisFree(c);
		if (!state.cluster_down)
			break;
	}
	if (spare == NULL) {
		explain_all(t->nodes, count, count > 1 ? "no usable node: " : "", error);
		return NULL;
	}
	t->used_node = spare_node;
	snprintf(t->used, sizeof(t->used), "%s", t->nodes[spare_node].valkey.label);
	return spare;
}

redisContext *
topology_connect(struct topology *t, int timeout_ms, struct error *error)
{
	if (t->sentinel_count > 0)
		return connect_primary(t, timeout_ms, error);
	return connect_node(t, timeout_ms, error);
}

/* Whether a node other than the one in use is usable and its Cluster is not down. */
static bool
better_node(struct topology *t, int64_t deadline)
{
	bool found = false;

	for (int i = 0; i < t->node_count && !found; i++) {
		int64_t until = share_until(deadline, t->node_count - 1 - i);
		struct valkey_state state;
		redisContext *c;

		if (i == t->used_node)
			continue;
		c = try_node(t, i, until, 0, &state);
		found = c != NULL && !state.cluster_down;
		if (c != NULL)
			redisFree(c);
	}
	return found;
}

static void
publish_probe(redisContext *c, const struct valkey *v, struct topology_probe *probe,
    int64_t deadline, struct error *error)
{
	const char *words[] = { "PUBLISH", probe->channel, probe->payload };
	redisReply *reply = valkey_command(c, v, deadline, 3, words, error);
	bool refused;

	if (reply == NULL)
		return;
	probe->published = reply->type == REDIS_REPLY_INTEGER;
	if (probe->published)
		probe->receivers = reply->integer;
	refused = valkey_refuses(reply);
	if (!probe->published)
		valkey_explain(v, "PUBLISH", reply, error);
	if (refused)
		probe->refused = *error;
	freeReplyObject(reply);
}

static const char *
check_node(struct topology *t, struct topology_probe *probe, int64_t deadline, struct error *error)
{
	int64_t until = share_until(deadline, t->node_count - 1);
	struct valkey_state state;
	redisContext *c = try_node(t, t->used_node, until, 0, &state);

	if (c == NULL)
		*error = t->nodes[t->used_node].error;
	else if (probe != NULL)
		publish_probe(c, &t->nodes[t->used_node].valkey, probe, until, error);
	if (c != NULL)
		redisFree(c);
	if (state.demoted)
		return "the server is no longer a primary";
	return state.cluster_down && better_node(t, deadline)
	    ? "the node was cut off from its Cluster" : NULL;
}

/*
 * Whether the sentinels name another primary than the one in use. At its own epoch there was no
 * failover: they may only spell it in another way, unless most of them answered, and none names it.
 */
static bool
is_replaced(struct topology *t, struct candidates *all)
{
	char label[VALKEY_LABEL_SIZE], other_label[VALKEY_LABEL_SIZE];
	const struct valkey used = primary_of(t, &t->primary, label);

	if (find_candidate(all, &t->primary) >= 0)
		return false;
	if (all->list[0].answer.epoch != t->primary.epoch)
		return true;
	for (int i = 0; i < all->count; i++) {
		const struct valkey other = primary_of(t, &all->list[i].answer, other_label);

		if (valkey_same(&used, &other))
			return false;
	}
	return most_answered(t, all);
}

static const char *
check_primary(struct topology *t, struct topology_probe *probe, int64_t deadline,
    struct error *error)
{
	char label[VALKEY_LABEL_SIZE];
	struct valkey_state state;
	struct candidates all;
	struct valkey v;
	redisContext *c;

	if (query_sentinels(t, deadline, &all, error)) {
		if (is_replaced(t, &all))
			return "the sentinels name another primary";
		t->primary.epoch = all.list[0].answer.epoch;
	}
	v = primary_of(t, &t->primary, label);
	c = valkey_connect(&v, deadline, 0, false, &state, error);
	if (c != NULL && probe != NULL)
		publish_probe(c, &v, probe, deadline, error);
	if (c != NULL)
		redisFree(c);
	return state.demoted ? "the server is no longer a primary" : NULL;
}

const char *
topology_check(struct topology *t, struct topology_probe *probe, int timeout_ms,
    struct error *error)
{
	int64_t deadline = valkey_clock() + timeout_ms;

	error->text[0] = '\0';
	if (t->sentinel_count > 0)
		return check_primary(t, probe, deadline, error);
	return check_node(t, probe, deadline, error);
}
