/*
 * identity: the web server's word on who is asking. See identity.h.
 */
#include "identity.h"

#include <string.h>

#include "channel.h"
#include "request.h"

/*
 * REMOTE_USER, where a server that has authenticated it says so. A missing one comes before a bad
 * one.
 */
static enum identity_result
remote_user(char *const *params, const char **name)
{
	bool conflict = false;
	const char *type;

	*name = params_get(params, "REMOTE_USER", &conflict);
	if (*name == NULL || ((*name)[0] == '\0' && !conflict))
		return IDENTITY_NOBODY;
	type = params_get(params, "AUTH_TYPE", &conflict);
	if ((type == NULL || type[0] == '\0') && !conflict)
		return IDENTITY_FORGEABLE;
	return conflict ? IDENTITY_BAD : IDENTITY_KNOWN;
}

bool
identity_consistent(char *const *params)
{
	static const char *const unique[] = { "TPI_USER", "REMOTE_USER", "AUTH_TYPE",
		"REQUEST_METHOD", "QUERY_STRING", "SCRIPT_NAME", "PATH_INFO" };
	bool conflict = false;
	size_t i;

	for (i = 0; i < sizeof(unique) / sizeof(unique[0]); i++)
		params_get(params, unique[i], &conflict);
	return !conflict;
}

enum identity_result
identity_web_server(char *const *params, const char **user)
{
	enum identity_result result;
	bool conflict = false;
	const char *name;

	*user = NULL;
	name = params_get(params, "TPI_USER", &conflict);
	if (name == NULL) {
		result = remote_user(params, &name);
		if (result != IDENTITY_KNOWN)
			return result;
	} else if (name[0] == '\0' && !conflict)
		return IDENTITY_NOBODY;
	if (!identity_consistent(params) || !channel_id_valid(name, strlen(name)))
		return IDENTITY_BAD;
	*user = name;
	return IDENTITY_KNOWN;
}
