/* SPDX-License-Identifier: ISC */
/*
 * revoked: see revoked.h.
 */
#include "session/revoked.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash_table.h"
#include "base/log.h"

/* Up to this many are compared with a connection one by one; beyond that, use the hash tables. */
#define FEW 16

/* Log lines a second. */
#define LINES_MAX 50

struct revoked_one {
	UT_hash_handle hh; /* in users or projects */
	TAILQ_ENTRY(revoked_one) link;
	uint64_t number;
	size_t streams; /* that it concerns */
	int32_t project; /* 0: user is set */
	char user[];
};

void
revoked_init(struct revoked *r)
{
	memset(r, 0, sizeof(*r));
	TAILQ_INIT(&r->list);
}

static struct revoked_one *
find_user(const struct revoked *r, const char *user)
{
	struct revoked_one *one;

	HASH_FIND(hh, r->users, user, strlen(user), one);
	return one;
}

static struct revoked_one *
find_project(const struct revoked *r, int32_t project)
{
	struct revoked_one *one;

	HASH_FIND(hh, r->projects, &project, sizeof(project), one);
	return one;
}

static void
forget(struct revoked *r, struct revoked_one *one)
{
	if (one->project != 0)
		HASH_DEL(r->projects, one);
	else
		HASH_DEL(r->users, one);
	TAILQ_REMOVE(&r->list, one, link);
	r->count--;
	free(one);
}

/* NULL: no memory. */
static struct revoked_one *
new_one(struct revoked *r, const struct revocation *revocation)
{
	size_t length = strlen(revocation->user);
	struct revoked_one *one;

	one = calloc(1, sizeof(*one) + length + 1);
	if (one == NULL)
		return NULL;
	one->project = revocation->project;
	memcpy(one->user, revocation->user, length);
	if (one->project != 0)
		HASH_ADD(hh, r->projects, project, sizeof(one->project), one);
	else
		HASH_ADD_KEYPTR(hh, r->users, one->user, length, one);
	if (one->hh.tbl == NULL) {
		free(one);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&r->list, one, link);
	r->count++;
	return one;
}

void
revoked_add(struct revoked *r, const struct revocation *revocation)
{
	struct revoked_one *one, *oldest;

	r->last++;
	if (revocation->project != 0)
		r->last_project = r->last;
	one = revocation->project != 0 ? find_project(r, revocation->project) :
	    find_user(r, revocation->user);
	if (one == NULL && r->count == REVOKED_MAX) {
		oldest = TAILQ_FIRST(&r->list);
		r->forgotten = oldest->number;
		forget(r, oldest);
	}
	if (one == NULL)
		one = new_one(r, revocation);
	if (one == NULL) {
		r->forgotten = r->last;
		return;
	}
	one->number = r->last;
	one->streams = 0;
	TAILQ_REMOVE(&r->list, one, link);
	TAILQ_INSERT_TAIL(&r->list, one, link);
}

static bool
concerns(const struct revoked_one *one, const char *user, const struct watch_list *watches)
{
	if (one->project == 0)
		return strcmp(one->user, user) == 0;
	return watch_list_depends_on(watches, one->project);
}

struct search {
	const struct revoked *revoked;
	uint64_t since;
	struct revoked_one *found;
};

static bool
is_newer(void *arg, int32_t project)
{
	struct search *s = arg;

	s->found = find_project(s->revoked, project);
	return s->found != NULL && s->found->number > s->since;
}

/*
 * Searches the hash tables. *found gets a revocation that concerns the connection; NULL if true is
 * returned because any project may concern it.
 */
static bool
search(const struct revoked *r, uint64_t since, const char *user, const struct watch_list *watches,
    struct revoked_one **found)
{
	struct search s = { .revoked = r, .since = since };

	*found = find_user(r, user);
	if (*found != NULL && (*found)->number > since)
		return true;
	*found = NULL;
	if (r->last_project <= since)
		return false;
	if (watch_list_has_items(watches))
		return true;
	if (!watch_list_has_project(watches, is_newer, &s))
		return false;
	*found = s.found;
	return true;
}

bool
revoked_concerns(struct revoked *r, uint64_t since, const char *user,
    const struct watch_list *watches, bool count)
{
	struct revoked_one *one;
	bool found = false;

	if (since < r->forgotten)
		return true;
	if (r->last - since > FEW) {
		found = search(r, since, user, watches, &one);
		if (one != NULL && count)
			one->streams++;
		return found;
	}
	TAILQ_FOREACH_REVERSE(one, &r->list, revoked_list, link) {
		if (one->number <= since)
			break;
		if (!concerns(one, user, watches))
			continue;
		found = true;
		if (count)
			one->streams++;
	}
	return found;
}

static void
log_one(const struct revoked_one *one, const char *tenant, uint32_t suppressed)
{
	struct log_field fields[] = { LOG_STR("tenantId", tenant), LOG_STR("userId", one->user),
		LOG_INT("streams", (int64_t)one->streams), LOG_INT("suppressed", suppressed),
		LOG_END };

	if (one->project != 0)
		fields[1] = (struct log_field)LOG_INT("projectId", one->project);
	log_write(LOG_LEVEL_INFO, "revoke", one->project != 0 ? "project" : "user", fields);
}

void
revoked_log(const struct revoked *r, uint64_t since, const char *tenant)
{
	static struct log_limit limit;
	const struct revoked_one *one = TAILQ_LAST(&r->list, revoked_list), *before;
	uint32_t suppressed;

	while (one != NULL && (before = TAILQ_PREV(one, revoked_list, link)) != NULL &&
	    before->number > since)
		one = before;
	for (; one != NULL && one->number > since; one = TAILQ_NEXT(one, link))
		if (log_allowed_some(&limit, LINES_MAX, 1000, &suppressed))
			log_one(one, tenant, suppressed);
}
