/* SPDX-License-Identifier: ISC */
/*
 * revocation: see revocation.h. JSON escapes no character of a valid id, so reading needs no
 * parser.
 */
#include "wire/revocation.h"

#include <stdio.h>
#include <string.h>

#define START "{\"event\":\"revoke\","

static const char user_start[] = START "\"user\":\"", user_end[] = "\"}";
static const char project_start[] = START "\"projectId\":", project_end[] = "}";

char *
revocation_payload(const struct revocation *r)
{
	char *payload;
	int n;

	if (r->project != 0)
		n = asprintf(&payload, "%s%d%s", project_start, (int)r->project, project_end);
	else
		n = asprintf(&payload, "%s%s%s", user_start, r->user, user_end);
	return n != -1 ? payload : NULL;
}

/*
 * Returns what is between start and end, and replaces *length by its length; NULL if the payload
 * does not have both.
 */
static const char *
between(const char *payload, size_t *length, const char *start, const char *end)
{
	size_t start_length = strlen(start), end_length = strlen(end);

	if (*length < start_length + end_length || memcmp(payload, start, start_length) != 0 ||
	    memcmp(payload + *length - end_length, end, end_length) != 0)
		return NULL;
	*length -= start_length + end_length;
	return payload + start_length;
}

bool
revocation_read(struct revocation *r, const char *payload, size_t length)
{
	size_t n = length;
	const char *id;

	memset(r, 0, sizeof(*r));
	id = between(payload, &n, project_start, project_end);
	if (id != NULL)
		return channel_number_parse(id, n, &r->project);
	id = between(payload, &length, user_start, user_end);
	if (id == NULL || !channel_id_valid(id, length))
		return false;
	memcpy(r->user, id, length);
	return true;
}
