/* SPDX-License-Identifier: ISC */
/*
 * stats_log: see stats_log.h.
 */
#include "session/stats_log.h"

#include <limits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

void
stats_log_write(struct registry *r)
{
	char host[HOST_NAME_MAX + 1] = "", now[CLOCK_ISO_SIZE];
	int i, count;

	gethostname(host, sizeof(host) - 1);
	clock_iso(now, sizeof(now));
	for (i = 0; i < KIND_COUNT; i++) {
		count = caps_count(r->caps[i]);
		if (count == 0)
			continue;
		log_metric((const struct log_field[]){ LOG_STR("metric", kind_caps[i].metric),
		    LOG_STR("tenantId", r->settings->tenant), LOG_INT("count", count),
		    LOG_STR("podId", host), LOG_STR("ts", now), LOG_END });
	}
}
