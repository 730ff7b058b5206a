/*
 * identity: the web server's word on who is asking. See identity.h.
 */
#include "identity.h"

#include <stdbool.h>
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

enum identity_result
identity_web_server(char *const *params, const char **user)
{
	/*
	 * What the answer depends on; TPI_USER and the two of remote_user() are looked at here,
	 * too.
	 */
	static const char *const unique[] = { "TPI_USER", "REMOTE_USER", "AUTH_TYPE", "REQUEST_METHOD",
		"QUERY_STRING", "SCRIPT_NAME", "PATH_INFO" };
	enum identity_result result;
	bool conflict = false;
	const char *name;
	size_t i;

	*user = NULL;
	name = params_get(params, "TPI_USER", &conflict);
	if (name == NULL) {
		result = remote_user(params, &name);
		if (result != IDENTITY_KNOWN)
			return result;
	} else if (name[0] == '\0' && !conflict)
		return IDENTITY_NOBODY;
	for (i = 0; i < sizeof(unique) / sizeof(unique[0]); i++)
		params_get(params, unique[i], &conflict);
	if (conflict || !channel_id_valid(name, strlen(name)))
		return IDENTITY_BAD;
	*user = name;
	return IDENTITY_KNOWN;
}
