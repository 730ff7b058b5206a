/* SPDX-License-Identifier: ISC */
/*
 * channel_name: see channel_name.h. The names keep tenants and users apart: a name consists of
 * valid identifiers only, which contain no ':', so two different sets of identifiers never result
 * in the same name.
 */
#include "wire/channel_name.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NUMBER_DIGITS 10 /* of 2147483647 */

bool
channel_id_valid(const char *text, size_t length)
{
	static const char refused[] = ":*?[]\\\"";

	if (length < 1 || length > CHANNEL_ID_MAX)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] <= ' ' || text[i] > '~')
			return false;
		if (strchr(refused, text[i]) != NULL)
			return false;
	}
	return true;
}

bool
channel_number_parse(const char *text, size_t length, int32_t *number)
{
	int64_t n = 0;

	if (length < 1 || length > NUMBER_DIGITS || text[0] == '0')
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		n = n * 10 + (text[i] - '0');
	}
	if (n > INT32_MAX)
		return false;
	*number = (int32_t)n;
	return true;
}

__attribute__((format(printf, 2, 3)))
static size_t
name_write(char name[CHANNEL_NAME_SIZE], const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(name, CHANNEL_NAME_SIZE, format, ap);
	va_end(ap);
	assert(n > 0 && n < CHANNEL_NAME_SIZE);
	return (size_t)n;
}

size_t
channel_name_user(char name[CHANNEL_NAME_SIZE], const char *tenant, const char *user)
{
	return name_write(name, "notifications:tenant:%s:user:%s", tenant, user);
}

size_t
channel_name_broadcast(char name[CHANNEL_NAME_SIZE], const char *tenant)
{
	return name_write(name, "notifications:tenant:%s:broadcast", tenant);
}

size_t
channel_name_revoke(char name[CHANNEL_NAME_SIZE], const char *tenant)
{
	return name_write(name, "notifications:tenant:%s:revoke", tenant);
}

size_t
channel_name_check(char name[CHANNEL_NAME_SIZE], const char *tenant, uint64_t number)
{
	return name_write(name, "notifications:tenant:%s:check:%016" PRIx64, tenant, number);
}

size_t
channel_name_project(char name[CHANNEL_NAME_SIZE], const char *prefix, const char *tenant,
    int32_t project)
{
	return name_write(name, "%s:tenant:%s:project:%d", prefix, tenant, (int)project);
}

size_t
channel_name_test_run(char name[CHANNEL_NAME_SIZE], const char *tenant, int32_t run)
{
	return name_write(name, "live:tenant:%s:testrun:%d", tenant, (int)run);
}

size_t
channel_name_project_test_runs(char name[CHANNEL_NAME_SIZE], const char *tenant, int32_t project)
{
	return name_write(name, "live:tenant:%s:project:%d:testruns", tenant, (int)project);
}

size_t
channel_name_milestone(char name[CHANNEL_NAME_SIZE], const char *tenant, int32_t milestone)
{
	return name_write(name, "live:tenant:%s:milestone:%d", tenant, (int)milestone);
}

size_t
channel_name_project_milestones(char name[CHANNEL_NAME_SIZE], const char *tenant, int32_t project)
{
	return name_write(name, "live:tenant:%s:project:%d:milestones", tenant, (int)project);
}
