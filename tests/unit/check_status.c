/* SPDX-License-Identifier: ISC */
/*
 * check_status: which paths are monitoring URLs, and when new streams would be told to retry later.
 * tests/e2e/test_status.py tests the responses.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "session/status.h"

static const char *const paths[] = { "/api/streams/health", "/api/streams/health/live",
	"/api/streams/metrics", "/api/streams/connections" };

/* Exactly four paths are monitoring URLs, and only with TPI_STATUS=on. */
START_TEST(pages)
{
	static const char *const others[] = { "", "/", "/api/streams", "/api/streams/", "/api/streams/health/",
		"/api/streams/healthy", "/api/streams/health/live/", "/api/streams/Metrics", "/api/streams/metrics?",
		"/api/notifications/stream", "/api/streams/metric" };
	struct settings on = { .status = STATUS_ON }, off = { .status = STATUS_OFF };
	size_t i, k;

	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		ck_assert_ptr_nonnull(status_find(&on, paths[i]));
		ck_assert_ptr_null(status_find(&off, paths[i]));
		for (k = 0; k < i; k++)
			ck_assert_ptr_ne(status_find(&on, paths[i]), status_find(&on, paths[k]));
	}
	for (i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		ck_assert_msg(status_find(&on, others[i]) == NULL, "%s", others[i]);
}
END_TEST

/* Of all combinations, only the two without a failure have no obstacle: application client off or ok. */
START_TEST(obstacles)
{
	struct status s;
	int healthy = 0;

	for (int i = 0; i < 2 * 3 * 3 * 2; i++) {
		s = (struct status){ .working = i % 2, .valkey = (enum subscriber_state)(i / 2 % 3),
			.draining = i / 18 };
		s.app_client = i / 6 % 3;
		if (status_obstacle(&s) != NULL)
			continue;
		ck_assert(s.working && !s.draining);
		ck_assert_int_eq(s.valkey, SUBSCRIBER_CONNECTED);
		ck_assert_int_ne(s.app_client, STATUS_APP_PAUSED);
		healthy++;
	}
	ck_assert_int_eq(healthy, 2);
}
END_TEST

/* Each obstacle has its own reason. */
START_TEST(reasons)
{
	static const struct { struct status status; const char *word; } rows[] = {
		{ { true, SUBSCRIBER_CONNECTED, STATUS_APP_OK, true }, "draining" },
		{ { false, SUBSCRIBER_CONNECTED, STATUS_APP_OK, false }, "stuck" },
		{ { true, SUBSCRIBER_UNREACHABLE, STATUS_APP_OK, false }, "Valkey is unreachable" },
		{ { true, SUBSCRIBER_CONNECTING, STATUS_APP_OFF, false }, "not connected" },
		{ { true, SUBSCRIBER_CONNECTED, STATUS_APP_PAUSED, false }, "application" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_ptr_nonnull(strstr(status_obstacle(&rows[i].status), rows[i].word));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("status");
	TCase *tc = tcase_create("status");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, pages);
	tcase_add_test(tc, obstacles);
	tcase_add_test(tc, reasons);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
