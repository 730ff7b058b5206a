/* SPDX-License-Identifier: ISC */
/*
 * rlimits: see rlimits.h.
 */
#include "daemon/rlimits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "session/topic.h"

/* Threads and descriptors not for streams: listener, Valkey, log, requests being refused. */
#define SPARE 64

static void
warn_if_below(const char *limit, int64_t allowed, int64_t needed)
{
	if (allowed >= needed)
		return;
	LOG(LOG_LEVEL_WARN, "streamd", "caps exceed a resource limit", LOG_STR("limit", limit),
	    LOG_INT("allowed", allowed), LOG_INT("needed", needed));
}

static int64_t
rlimit(int which)
{
	struct rlimit r;

	if (getrlimit(which, &r) == -1 || r.rlim_cur == RLIM_INFINITY || r.rlim_cur > INT64_MAX)
		return INT64_MAX;
	return (int64_t)r.rlim_cur;
}

/* Returns the number in a file; INT64_MAX if there is none ("max"). */
static int64_t
read_number(const char *path)
{
	int64_t number = INT64_MAX;
	char text[32], *end;
	FILE *file;

	file = fopen(path, "re");
	if (file == NULL)
		return INT64_MAX;
	if (fgets(text, sizeof(text), file) != NULL) {
		number = strtoll(text, &end, 10);
		if (end == text)
			number = INT64_MAX;
	}
	fclose(file);
	return number;
}

/* Returns the smallest pids.max from the process's cgroup (version 2) up to the root. */
static int64_t
cgroup_pids_max(void)
{
	int64_t smallest = INT64_MAX, here;
	char line[4096], path[4200], *group = NULL, *slash;
	FILE *file;

	file = fopen("/proc/self/cgroup", "re");
	if (file == NULL)
		return smallest;
	while (group == NULL && fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, "0::", 3) == 0)
			group = line + 3;
	fclose(file);
	if (group == NULL)
		return smallest;
	group[strcspn(group, "\n")] = '\0';
	for (;;) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/pids.max", group);
		here = read_number(path);
		if (here < smallest)
			smallest = here;
		slash = strrchr(group, '/');
		if (slash == NULL)
			return smallest;
		*slash = '\0';
	}
}

void
rlimits_apply(const struct settings *s)
{
	int64_t needed = SPARE;
	struct rlimit r;
	unsigned i;

	if (settings_queries_app(s))
		needed += s->app_concurrency;
	/* Those of known users have as many places again. */
	if (s->identity == IDENTITY_APP)
		needed += 2 * s->app_pending;
	for (i = 0; i < KIND_COUNT; i++)
		needed += kind_tenant_cap(i, s);
	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	warn_if_below("RLIMIT_NOFILE", rlimit(RLIMIT_NOFILE), needed);
	warn_if_below("RLIMIT_NPROC", rlimit(RLIMIT_NPROC), needed);
	warn_if_below("pids.max", cgroup_pids_max(), needed);
}
