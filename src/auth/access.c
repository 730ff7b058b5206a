/* SPDX-License-Identifier: ISC */
/*
 * access: the rules of the access file, and the other policies. See access.h.
 *
 * The rules are a set of texts "<project or *> <user or *>", so a check is at most four lookups.
 *
 * A thread checks the file every second, reads it again if it has changed, and replaces the rules.
 * After the start nothing else touches the file, and the thread holds no lock meanwhile: a file
 * system that hangs delays this thread only.
 */
#include "auth/access.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash_table.h"
#include "base/log.h"
#include "base/thread.h"
#include "wire/channel_name.h"

#define RULE_SIZE     (CHANNEL_ID_MAX + 16)
#define FILE_SIZE_MAX (64 << 20)
#define CHECK_MS      1000 /* between two checks of the file */
#define REFRESH_MS    1000 /* the longest that a re-check waits for one */

struct rule {
	UT_hash_handle hh;
	char key[]; /* "<project or *> <user or *>" */
};

struct access_rules {
	struct rule *set; /* bounded by FILE_SIZE_MAX */
};

struct access {
	enum access_policy policy;
	const char *path;
	pthread_t watcher;
	bool watching;    /* set before any other thread */
	struct stat seen; /* the file at the last check, st_ino 0: there was none; the thread's */

	pthread_mutex_t lock; /* everything below */
	struct access_rules *rules;
	pthread_cond_t changed; /* wanted, stop or done has */
	bool wanted; /* a check is wanted now */
	bool stop;
	uint64_t begun, done; /* checks of the file */
};

static bool
rules_add(struct access_rules *rules, const char *project, size_t project_length, const char *user,
    size_t user_length)
{
	size_t length = project_length + 1 + user_length;
	struct rule *rule, *old;

	rule = malloc(sizeof(*rule) + length + 1);
	if (rule == NULL)
		return false;
	memcpy(rule->key, project, project_length);
	rule->key[project_length] = ' ';
	memcpy(rule->key + project_length + 1, user, user_length);
	rule->key[length] = '\0';
	HASH_FIND(hh, rules->set, rule->key, length, old);
	if (old != NULL) {
		free(rule);
		return true;
	}
	HASH_ADD_KEYPTR(hh, rules->set, rule->key, length, rule);
	if (rule->hh.tbl == NULL) {
		free(rule);
		return false;
	}
	return true;
}

/* The next word of [*at, end); its length, 0 at the end. */
static size_t
next_word(const char **at, const char *end, const char **word)
{
	while (*at != end && (**at == ' ' || **at == '\t' || **at == '\r'))
		(*at)++;
	*word = *at;
	while (*at != end && **at != ' ' && **at != '\t' && **at != '\r')
		(*at)++;
	return (size_t)(*at - *word);
}

/* One line without its comment. NULL, or what is wrong. */
static const char *
rules_line(struct access_rules *rules, const char *at, const char *end)
{
	const char *project, *user;
	size_t project_length, user_length;
	int32_t number;
	int users;

	project_length = next_word(&at, end, &project);
	if (project_length == 0)
		return NULL;
	if (!(project_length == 1 && project[0] == '*') &&
	    !channel_number_parse(project, project_length, &number))
		return "a rule begins with a project id from 1 to 2147483647 or *";
	for (users = 0; (user_length = next_word(&at, end, &user)) > 0; users++) {
		if (!(user_length == 1 && user[0] == '*') && !channel_id_valid(user, user_length))
			return "a user is * or " CHANNEL_ID_ALLOWED;
		if (!rules_add(rules, project, project_length, user, user_length))
			return "out of memory";
	}
	return users > 0 ? NULL : "a rule names at least one user or *";
}

struct access_rules *
access_rules_parse(const char *text, size_t length, struct error *error)
{
	struct access_rules *rules;
	const char *end = text + length, *line_end, *comment, *wrong;
	int line;

	rules = calloc(1, sizeof(*rules));
	if (rules == NULL) {
		error_set(error, "out of memory");
		return NULL;
	}
	for (line = 1; text != end; line++) {
		line_end = memchr(text, '\n', (size_t)(end - text));
		if (line_end != NULL) {
			comment = memchr(text, '#', (size_t)(line_end - text));
			wrong = rules_line(rules, text, comment != NULL ? comment : line_end);
		} else
			wrong = "no line break at the end: the file may be half written";
		if (wrong != NULL) {
			error_set(error, "line %d: %s", line, wrong);
			access_rules_free(rules);
			return NULL;
		}
		text = line_end + 1;
	}
	return rules;
}

static bool
rules_has(const struct access_rules *rules, const char *project, const char *user)
{
	char key[RULE_SIZE];
	struct rule *rule;
	int length;

	length = snprintf(key, sizeof(key), "%s %s", project, user);
	HASH_FIND(hh, rules->set, key, (size_t)length, rule);
	return rule != NULL;
}

int
access_rules_allow(const struct access_rules *rules, int32_t project, const char *user)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", (int)project);
	return rules_has(rules, number, user) || rules_has(rules, number, "*") ||
	    rules_has(rules, "*", user) || rules_has(rules, "*", "*");
}

void
access_rules_free(struct access_rules *rules)
{
	struct rule *rule, *next;

	if (rules == NULL)
		return;
	HASH_ITER(hh, rules->set, rule, next) {
		HASH_DEL(rules->set, rule);
		free(rule);
	}
	free(rules);
}

/* Reads a whole open file; *length gets its size. NULL with an error. */
static char *
read_all(int fd, size_t size, size_t *length, struct error *error)
{
	char *text;
	ssize_t n = 1;

	if (size > FILE_SIZE_MAX) {
		error_set(error, "larger than 64 MiB");
		return NULL;
	}
	text = malloc(size + 1);
	if (text == NULL) {
		error_set(error, "out of memory");
		return NULL;
	}
	for (*length = 0; *length < size && n > 0; *length += (size_t)n) {
		n = read(fd, text + *length, size - *length);
		if (n == -1) {
			error_set(error, "%s", strerror(errno));
			free(text);
			return NULL;
		}
	}
	return text;
}

/* Reads the file into new rules; NULL with an error. *seen says which file that was. */
static struct access_rules *
load(const char *path, struct stat *seen, struct error *error)
{
	struct access_rules *rules = NULL;
	char *text = NULL;
	size_t length;
	int fd;

	memset(seen, 0, sizeof(*seen));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd == -1 || fstat(fd, seen) == -1)
		error_set(error, "%s", strerror(errno));
	else if (!S_ISREG(seen->st_mode))
		error_set(error, "not a regular file");
	else
		text = read_all(fd, (size_t)seen->st_size, &length, error);
	if (text != NULL)
		rules = access_rules_parse(text, length, error);
	free(text);
	if (fd != -1)
		close(fd);
	return rules;
}

static bool
same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	    a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	    a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Reads the file again if it has changed; NULL if it has not, or cannot be read. */
static struct access_rules *
reload(struct access *access)
{
	struct access_rules *rules;
	struct stat now;
	struct error error;

	if (stat(access->path, &now) == -1)
		memset(&now, 0, sizeof(now));
	if (same_file(&now, &access->seen))
		return NULL;
	rules = load(access->path, &access->seen, &error);
	if (rules == NULL) {
		/* Remember what stat() saw, so that the same state is not reported again. */
		access->seen = now;
		LOG(LOG_LEVEL_WARN, "access",
		    "cannot reload the access file; keeping the previous rules",
		    LOG_STR("path", access->path), LOG_STR("error", error.text));
		return NULL;
	}
	LOG(LOG_LEVEL_INFO, "access", "access file reloaded", LOG_STR("path", access->path),
	    LOG_INT("rules", HASH_COUNT(rules->set)));
	return rules;
}

static void *
watch(void *arg)
{
	struct access *access = arg;
	struct access_rules *rules, *old;
	int64_t next = clock_ms() + CHECK_MS;

	pthread_mutex_lock(&access->lock);
	while (!access->stop) {
		if (!access->wanted && clock_ms() < next) {
			thread_cond_wait(&access->changed, &access->lock, next);
			continue;
		}
		access->wanted = false;
		access->begun++;
		pthread_mutex_unlock(&access->lock);
		old = rules = reload(access);
		pthread_mutex_lock(&access->lock);
		if (rules != NULL) {
			old = access->rules;
			access->rules = rules;
		}
		access->done = access->begun;
		pthread_cond_broadcast(&access->changed);
		pthread_mutex_unlock(&access->lock);
		access_rules_free(old);
		next = clock_ms() + CHECK_MS;
		pthread_mutex_lock(&access->lock);
	}
	pthread_mutex_unlock(&access->lock);
	return NULL;
}

struct access *
access_open(const struct settings *settings, struct error *error)
{
	struct access *access;

	access = calloc(1, sizeof(*access));
	if (access == NULL) {
		error_set(error, "out of memory");
		return NULL;
	}
	access->policy = settings->access;
	access->path = settings->access_file;
	pthread_mutex_init(&access->lock, NULL);
	thread_cond_init(&access->changed);
	if (access->policy != ACCESS_FILE)
		return access;
	access->rules = load(access->path, &access->seen, error);
	if (access->rules == NULL) {
		error_set(error,
		    "TPI_PROJECT_ACCESS=file:%s: %s: must be a readable file of rules "
		    "\"<project id or *> <user or *> ...\"",
		    access->path, error->text);
		access_close(access);
		return NULL;
	}
	return access;
}

bool
access_watch(struct access *access)
{
	access->watching = access->policy == ACCESS_FILE;
	return !access->watching ||
	    thread_start_joinable(&access->watcher, watch, access) == 0;
}

void
access_close(struct access *access)
{
	pthread_mutex_lock(&access->lock);
	access->stop = true;
	pthread_cond_broadcast(&access->changed);
	pthread_mutex_unlock(&access->lock);
	if (access->watching)
		pthread_join(access->watcher, NULL);
	access_rules_free(access->rules);
	pthread_cond_destroy(&access->changed);
	pthread_mutex_destroy(&access->lock);
	free(access);
}

void
access_refresh(struct access *access)
{
	int64_t deadline = clock_ms() + REFRESH_MS;
	uint64_t check;

	if (!access->watching)
		return;
	pthread_mutex_lock(&access->lock);
	/* A check that has begun may have seen the file before it changed. */
	check = access->begun + 1;
	access->wanted = true;
	pthread_cond_broadcast(&access->changed);
	while (access->done < check && clock_ms() < deadline)
		thread_cond_wait(&access->changed, &access->lock, deadline);
	pthread_mutex_unlock(&access->lock);
}

int
access_filter(struct access *access, const char *user, enum app_check check, int32_t *ids,
    int count)
{
	int i, kept = 0;

	if (access->policy != ACCESS_FILE)
		return access->policy == ACCESS_ALLOW ? count : 0;
	if (!app_check_is_project(check))
		return 0;
	pthread_mutex_lock(&access->lock);
	for (i = 0; i < count; i++)
		if (access_rules_allow(access->rules, ids[i], user))
			ids[kept++] = ids[i];
	pthread_mutex_unlock(&access->lock);
	return kept;
}
