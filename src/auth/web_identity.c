/* SPDX-License-Identifier: ISC */
/*
 * web_identity: the user that the web server has verified. See web_identity.h.
 */
#include "auth/web_identity.h"

#include <string.h>

#include "fcgi/request.h"
#include "wire/channel_name.h"

bool
identity_consistent(char *const *params)
{
	static const char *const unique[] = { "TPI_USER", "REQUEST_METHOD", "QUERY_STRING",
		"SCRIPT_NAME", "PATH_INFO" };
	bool conflict = false;
	size_t i;

	for (i = 0; i < sizeof(unique) / sizeof(unique[0]); i++)
		params_get(params, unique[i], &conflict);
	return !conflict;
}

/* REMOTE_USER does not identify the user: it only makes the log line clearer. */
static enum identity_result
anonymous(char *const *params)
{
	const char *name = params_get(params, "REMOTE_USER", NULL);

	return name == NULL || name[0] == '\0' ? IDENTITY_ANONYMOUS : IDENTITY_REMOTE_USER;
}

enum identity_result
identity_web_server(char *const *params, const char **user)
{
	bool conflict = false;
	const char *name;

	*user = NULL;
	name = params_get(params, "TPI_USER", &conflict);
	/* An empty TPI_USER followed by another is a conflict, not an anonymous request. */
	if (name == NULL || (name[0] == '\0' && !conflict))
		return anonymous(params);
	if (!identity_consistent(params) || !channel_id_valid(name, strlen(name)))
		return IDENTITY_BAD;
	*user = name;
	return IDENTITY_KNOWN;
}
