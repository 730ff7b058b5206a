/* SPDX-License-Identifier: ISC */
/*
 * check_web_identity: the user that a request's parameters name. Each row is a request.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/web_identity.h"

#define PARAMS_MAX 8
#define ID_255                                                                                    \
	"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"                        \
	"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"                        \
	"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"                        \
	"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"

struct row {
	const char *params[PARAMS_MAX];
	enum identity_result result;
	const char *user;
};

static void
expect(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char *params[PARAMS_MAX + 1] = { NULL };
		const char *user = "unchanged";
		enum identity_result result;

		for (int k = 0; k < PARAMS_MAX && rows[i].params[k] != NULL; k++)
			params[k] = strdup(rows[i].params[k]);
		result = identity_web_server(params, &user);
		ck_assert_msg(result == rows[i].result, "row %zu (%s): %d, not %d", i,
		    rows[i].params[0] != NULL ? rows[i].params[0] : "", (int)result,
		    (int)rows[i].result);
		if (result == IDENTITY_KNOWN)
			ck_assert_str_eq(user, rows[i].user);
		else
			ck_assert_ptr_null(user);
		for (int k = 0; k < PARAMS_MAX; k++)
			free(params[k]);
	}
}

#define EXPECT(...)                                                                               \
	do {                                                                                      \
		static const struct row rows[] = { __VA_ARGS__ };                                 \
		expect(rows, sizeof(rows) / sizeof(rows[0]));                                     \
	} while (0)

/* Without a TPI_USER the request is anonymous. */
START_TEST(absent)
{
	EXPECT(
	    { { NULL }, IDENTITY_ANONYMOUS, NULL },
	    { { "REQUEST_METHOD=GET", "QUERY_STRING=TPI_USER=u1", "SCRIPT_NAME=/x" },
		IDENTITY_ANONYMOUS, NULL },
	    { { "AUTH_TYPE=Basic" }, IDENTITY_ANONYMOUS, NULL },
	    /* Names that are only similar. */
	    { { "TPI_USER2=u1", "XTPI_USER=u1", "TPI_USE=u1", "tpi_user=u1", "Tpi_User=u1" },
		IDENTITY_ANONYMOUS, NULL },
	    { { "REDIRECT_TPI_USER=u1", "REDIRECT_REMOTE_USER=u1" }, IDENTITY_ANONYMOUS, NULL },
	    { { "REMOTE_USER_=u1", "remote_user=u1", "AUTH_TYPE=Basic" }, IDENTITY_ANONYMOUS, NULL });
}
END_TEST

/* TPI_USER names the user, whatever else the request carries. */
START_TEST(tpi_user)
{
	EXPECT(
	    { { "TPI_USER=u1" }, IDENTITY_KNOWN, "u1" },
	    { { "TPI_USER=a=b" }, IDENTITY_KNOWN, "a=b" },
	    { { "TPI_USER=" ID_255 }, IDENTITY_KNOWN, ID_255 },
	    { { "TPI_USER=u1", "REMOTE_USER=u2" }, IDENTITY_KNOWN, "u1" },
	    { { "REMOTE_USER=u2", "AUTH_TYPE=Basic", "TPI_USER=u1" }, IDENTITY_KNOWN, "u1" },
	    { { "TPI_USER=u1", "REMOTE_USER=not valid", "AUTH_TYPE=" }, IDENTITY_KNOWN, "u1" },
	    { { "TPI_USER=u1", "REMOTE_USER=", "AUTH_TYPE=Basic" }, IDENTITY_KNOWN, "u1" });
}
END_TEST

/* An empty TPI_USER is anonymous. */
START_TEST(empty_tpi_user)
{
	EXPECT(
	    { { "TPI_USER=" }, IDENTITY_ANONYMOUS, NULL },
	    { { "TPI_USER=", "TPI_USER=" }, IDENTITY_ANONYMOUS, NULL },
	    { { "TPI_USER=", "AUTH_TYPE=Basic" }, IDENTITY_ANONYMOUS, NULL });
}
END_TEST

/* REMOTE_USER is never an identity, even with AUTH_TYPE; it has a result of its own for the log. */
START_TEST(remote_user)
{
	EXPECT(
	    { { "REMOTE_USER=u1", "AUTH_TYPE=Basic" }, IDENTITY_REMOTE_USER, NULL },
	    { { "AUTH_TYPE=x", "REMOTE_USER=u1" }, IDENTITY_REMOTE_USER, NULL },
	    { { "REMOTE_USER=u1" }, IDENTITY_REMOTE_USER, NULL },
	    { { "REMOTE_USER=u1", "AUTH_TYPE=" }, IDENTITY_REMOTE_USER, NULL },
	    { { "REMOTE_USER=not valid" }, IDENTITY_REMOTE_USER, NULL },
	    { { "REMOTE_USER=u1", "REMOTE_USER=u2", "AUTH_TYPE=Basic" }, IDENTITY_REMOTE_USER, NULL },
	    { { "REMOTE_USER=u1", "HTTP_AUTHORIZATION=Basic dTE6eA==" }, IDENTITY_REMOTE_USER, NULL },
	    { { "TPI_USER=", "REMOTE_USER=u1", "AUTH_TYPE=Basic" }, IDENTITY_REMOTE_USER, NULL },
	    { { "REMOTE_USER=u1", "AUTH_TYPE=Basic", "TPI_USER=" }, IDENTITY_REMOTE_USER, NULL },
	    { { "REMOTE_USER=", "AUTH_TYPE=Basic" }, IDENTITY_ANONYMOUS, NULL },
	    { { "REMOTE_USER=" }, IDENTITY_ANONYMOUS, NULL });
}
END_TEST

/* No HTTP_* parameter is an identity: a browser can send any. */
START_TEST(http_headers)
{
	EXPECT(
	    { { "HTTP_TPI_USER=u1" }, IDENTITY_ANONYMOUS, NULL },
	    { { "HTTP_REMOTE_USER=u1", "HTTP_AUTH_TYPE=Basic" }, IDENTITY_ANONYMOUS, NULL },
	    { { "HTTP_REMOTE_USER=u1", "AUTH_TYPE=Basic" }, IDENTITY_ANONYMOUS, NULL },
	    { { "HTTP_X_FORWARDED_USER=u1", "HTTP_X_REMOTE_USER=u1" }, IDENTITY_ANONYMOUS, NULL },
	    { { "TPI_USER=", "HTTP_TPI_USER=u1" }, IDENTITY_ANONYMOUS, NULL },
	    { { "TPI_USER=u1", "HTTP_TPI_USER=u2", "HTTP_REMOTE_USER=u3" }, IDENTITY_KNOWN, "u1" });
}
END_TEST

/* An identity that is not a valid id is refused. */
START_TEST(invalid)
{
	EXPECT(
	    { { "TPI_USER= " }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=a b" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=u1 " }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=a:b" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=*" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=a?" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=[a]" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=a\\b" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=\"a\"" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=u1\001" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=u\303\244" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=u\177" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=" ID_255 "u" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=a b", "REMOTE_USER=u1", "AUTH_TYPE=Basic" }, IDENTITY_BAD, NULL });
}
END_TEST

/* A parameter that is present twice with the same value counts once. */
START_TEST(doubled)
{
	EXPECT(
	    { { "TPI_USER=u1", "TPI_USER=u1" }, IDENTITY_KNOWN, "u1" },
	    { { "TPI_USER=u1", "REQUEST_METHOD=GET", "REQUEST_METHOD=GET", "QUERY_STRING=",
		  "QUERY_STRING=", "PATH_INFO=/x", "PATH_INFO=/x" }, IDENTITY_KNOWN, "u1" });
}
END_TEST

/* A parameter with two different values is refused, in either order and even if one is empty. */
START_TEST(contradictions)
{
	EXPECT(
	    { { "TPI_USER=u1", "TPI_USER=u2" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=u1", "TPI_USER=u1", "TPI_USER=u2" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=u1", "A=b", "C=d", "E=f", "G=h", "I=j", "K=l", "TPI_USER=u2" },
		IDENTITY_BAD, NULL },
	    { { "TPI_USER=u1", "TPI_USER=U1" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=u1", "TPI_USER=" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=", "TPI_USER=u1" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=", "TPI_USER=", "TPI_USER=u1" }, IDENTITY_BAD, NULL },
	    /* Also parameters that do not name the user. */
	    { { "TPI_USER=u1", "REQUEST_METHOD=GET", "REQUEST_METHOD=POST" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=u1", "QUERY_STRING=projectId=1", "QUERY_STRING=projectId=2" },
		IDENTITY_BAD, NULL },
	    { { "SCRIPT_NAME=/a", "TPI_USER=u1", "SCRIPT_NAME=/b" }, IDENTITY_BAD, NULL },
	    { { "TPI_USER=u1", "PATH_INFO=", "PATH_INFO=/b" }, IDENTITY_BAD, NULL });
}
END_TEST

/* A missing identity takes precedence over contradictions in other parameters. */
START_TEST(missing_takes_precedence)
{
	EXPECT(
	    { { "SCRIPT_NAME=/a", "SCRIPT_NAME=/b" }, IDENTITY_ANONYMOUS, NULL },
	    { { "TPI_USER=", "QUERY_STRING=a", "QUERY_STRING=b" }, IDENTITY_ANONYMOUS, NULL },
	    { { "REMOTE_USER=u1", "QUERY_STRING=a", "QUERY_STRING=b" }, IDENTITY_REMOTE_USER, NULL });
}
END_TEST

/* Parameters that decide nothing may have two different values. */
START_TEST(others_may_differ)
{
	EXPECT(
	    { { "TPI_USER=u1", "HTTP_COOKIE=a", "HTTP_COOKIE=b", "HTTP_TPI_USER=x",
		  "HTTP_TPI_USER=y", "REQUEST_URI=/a" }, IDENTITY_KNOWN, "u1" },
	    { { "TPI_USER=u1", "REMOTE_USER=x", "REMOTE_USER=y", "AUTH_TYPE=x", "AUTH_TYPE=y" },
		IDENTITY_KNOWN, "u1" });
}
END_TEST

static bool
consistent(const char *first, const char *second)
{
	char *params[] = { strdup("X=y"), strdup(first), strdup("TPI_USER=not valid"),
		strdup(second), NULL };
	bool result = identity_consistent(params);

	for (int i = 0; i < 4; i++)
		free(params[i]);
	return result;
}

/* identity_consistent(): the parameters that decide about a request must not contradict themselves. */
START_TEST(consistency)
{
	static const char *const unique[] = { "REQUEST_METHOD", "QUERY_STRING", "SCRIPT_NAME",
		"PATH_INFO" };
	char *nothing[] = { NULL };

	ck_assert(identity_consistent(nothing));
	for (size_t i = 0; i < sizeof(unique) / sizeof(unique[0]); i++) {
		char a[64], b[64], empty[64];

		snprintf(a, sizeof(a), "%s=a", unique[i]);
		snprintf(b, sizeof(b), "%s=b", unique[i]);
		snprintf(empty, sizeof(empty), "%s=", unique[i]);
		ck_assert(consistent(a, "Y=z"));
		ck_assert(consistent(a, a));
		ck_assert(consistent(empty, empty));
		ck_assert_msg(!consistent(a, b), "%s", a);
		ck_assert_msg(!consistent(a, empty), "%s", a);
		ck_assert_msg(!consistent(empty, a), "%s", a);
	}
	ck_assert(consistent("TPI_USER=not valid", "Y=z"));
	ck_assert(!consistent("TPI_USER=u1", "Y=z"));
	ck_assert(consistent("HTTP_COOKIE=a", "HTTP_COOKIE=b"));
	ck_assert(consistent("HTTP_AUTHORIZATION=a", "HTTP_AUTHORIZATION=b"));
	ck_assert(consistent("REQUEST_URI=/a", "REQUEST_URI=/b"));
	ck_assert(consistent("REMOTE_USER=a", "REMOTE_USER=b"));
	ck_assert(consistent("AUTH_TYPE=a", "AUTH_TYPE=b"));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("web_identity");
	TCase *tc = tcase_create("web_identity");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, absent);
	tcase_add_test(tc, tpi_user);
	tcase_add_test(tc, empty_tpi_user);
	tcase_add_test(tc, remote_user);
	tcase_add_test(tc, http_headers);
	tcase_add_test(tc, invalid);
	tcase_add_test(tc, doubled);
	tcase_add_test(tc, contradictions);
	tcase_add_test(tc, missing_takes_precedence);
	tcase_add_test(tc, others_may_differ);
	tcase_add_test(tc, consistency);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
