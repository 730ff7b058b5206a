/* SPDX-License-Identifier: ISC */
/*
 * fuzz_revocation: the payload of a revocation (revocation.h). If it is accepted, it names one user
 * or one project, is written again byte for byte, and passes wakeup_check(), as tpi-publish
 * requires.
 */
#include "fuzz.h"

#include "wire/revocation.h"
#include "wire/wakeup.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data;
	struct revocation r;
	char *payload;

	if (!revocation_read(&r, bytes, size))
		return 0;
	REQUIRE(r.project >= 0 && (r.project != 0) == (r.user[0] == '\0'));
	REQUIRE(r.project != 0 || channel_id_valid(r.user, strlen(r.user)));
	payload = revocation_payload(&r);
	REQUIRE(payload != NULL && strlen(payload) == size && memcmp(payload, bytes, size) == 0);
	REQUIRE(wakeup_check(payload, size) == NULL);
	free(payload);
	return 0;
}
