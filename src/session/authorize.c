/* SPDX-License-Identifier: ISC */
/*
 * authorize: see authorize.h.
 */
#include "session/authorize.h"

static int
keep_none(void *arg, enum app_check check, int32_t *ids, int count)
{
	(void)arg, (void)check, (void)ids, (void)count;
	return 0;
}

void
authorize_none(struct watch_list *w)
{
	watch_list_filter(w, keep_none, NULL);
}

struct local {
	struct access *access;
	const char *user;
};

static int
keep_local(void *arg, enum app_check check, int32_t *ids, int count)
{
	const struct local *l = arg;

	return access_filter(l->access, l->user, check, ids, count);
}

void
authorize_locally(struct watch_list *w, struct access *access, const char *user)
{
	watch_list_filter(w, keep_local, &(struct local){ access, user });
}

struct app_query *
authorize_query(const struct watch_list *w, struct app_client *client, struct credentials *c,
    int64_t after, struct stream *stream, int64_t deadline)
{
	struct app_part parts[TOPIC_MAX];
	const int32_t *ids = w->ids;
	int i, count = 0;

	for (i = 0; i < topic_count; ids += w->counts[i++])
		if (w->counts[i] > 0 && topics[i].check != CHECK_USER)
			parts[count++] = (struct app_part){ topics[i].check, ids, w->counts[i] };
	return app_query_start(client, c, parts, count, after, stream, deadline);
}

/* An answer, and how many of its ids have been read. */
struct reading {
	const struct app_query *query;
	int at;
};

static int
keep_granted(void *arg, enum app_check check, int32_t *ids, int count)
{
	struct reading *r = arg;
	int at = r->at;

	(void)check;
	r->at += count;
	return app_query_filter(r->query, at, ids, count);
}

void
authorize_by_answer(struct watch_list *w, const struct app_query *q)
{
	watch_list_filter(w, keep_granted, &(struct reading){ q, 0 });
}
