/* SPDX-License-Identifier: ISC */
/*
 * fuzz_web_identity: the user that the web server names (web_identity.h). The input is that of
 * fuzz_params(). Only TPI_USER names the user. Other parameters have no effect, except that those
 * which decide about a request must not be present with different values.
 */
#include "fuzz.h"

#include "auth/web_identity.h"

static const char *const unique[] = { "TPI_USER=", "REQUEST_METHOD=", "QUERY_STRING=",
	"SCRIPT_NAME=", "PATH_INFO=" };

/* The value of the first parameter of that name, or NULL. Sets *twice if another one differs. */
static const char *
value_of(char *const *params, int count, const char *name, bool *twice)
{
	const char *value = NULL;

	for (int i = count - 1; i >= 0; i--) {
		if (strncmp(params[i], name, strlen(name)) != 0)
			continue;
		*twice |= value != NULL && strcmp(value, params[i] + strlen(name)) != 0;
		value = params[i] + strlen(name);
	}
	return value;
}

static bool
is_id(const char *text)
{
	size_t length = strlen(text);

	for (; *text != '\0'; text++)
		if (*text <= ' ' || *text > '~' || strchr(":*?[]\\\"", *text) != NULL)
			return false;
	return length >= 1 && length <= 255;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *params[FUZZ_PARAMS_MAX + 1];
	int count = fuzz_params(data, size, params);
	bool contradiction = false, two_users = false, ignored = false;
	const char *name, *remote, *user = "left as it was";
	enum identity_result result = identity_web_server(params, &user);

	name = value_of(params, count, unique[0], &two_users);
	remote = value_of(params, count, "REMOTE_USER=", &ignored);
	for (size_t i = 0; i < sizeof(unique) / sizeof(unique[0]); i++)
		value_of(params, count, unique[i], &contradiction);
	REQUIRE(identity_consistent(params) == !contradiction);
	REQUIRE((result == IDENTITY_KNOWN) == (user != NULL));
	if (name == NULL || (name[0] == '\0' && !two_users))
		REQUIRE(result == (remote != NULL && remote[0] != '\0' ? IDENTITY_REMOTE_USER :
									 IDENTITY_ANONYMOUS));
	else if (contradiction || !is_id(name))
		REQUIRE(result == IDENTITY_BAD);
	else
		REQUIRE(result == IDENTITY_KNOWN && strcmp(user, name) == 0);
	for (int i = 0; i < count; i++)
		free(params[i]);
	return 0;
}
