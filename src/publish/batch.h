/* SPDX-License-Identifier: ISC */
/*
 * batch: turns a request to publish into channels and a payload. tpi-publish fills a struct
 * batch_request from its options, batch_parse() from a line of `tpi-publish batch`. Pure: no input
 * or output, no clock, no random numbers.
 */
#ifndef TPI_PUBLISH_BATCH_H
#define TPI_PUBLISH_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "wire/channel_name.h"

#define BATCH_STREAMS_ALLOWED "\"notification\", \"issue\", \"test-run\" or \"milestone\""

/* A BATCH_REVOCATION is for tpi-streamd, not for browsers, and cannot be a line of a batch. */
enum batch_stream {
	BATCH_NOTIFICATION,
	BATCH_ISSUE,
	BATCH_TEST_RUN,
	BATCH_MILESTONE,
	BATCH_REVOCATION
};

/* A test run or milestone is published on its own channel and on its project's. */
#define BATCH_CHANNELS_MAX 2

/*
 * Not validated yet. Strings belong to the caller. NULL, 0 and false mean "not given"; tenant,
 * prefix (a valid id), dashes and, for a notification, id are always given.
 */
struct batch_request {
	enum batch_stream stream;
	const char *tenant;
	const char *event;  /* default: that of the stream */
	const char *user;   /* BATCH_NOTIFICATION: or broadcast; BATCH_REVOCATION: or project */
	bool broadcast;     /* BATCH_NOTIFICATION: all users */
	const char *id;     /* BATCH_NOTIFICATION */
	int32_t project;    /* all but BATCH_NOTIFICATION */
	int32_t item;       /* the issue, test run or milestone */
	int32_t target;     /* BATCH_TEST_RUN, BATCH_MILESTONE: what changed in it */
	const char *prefix; /* of issue channels */
	const char *dashes; /* "--" if errors name options, "" if they name members */
	bool only_tenant;   /* a line for another tenant is an error */
};

struct batch_item {
	char tenant[CHANNEL_ID_MAX + 1];
	char channels[BATCH_CHANNELS_MAX][CHANNEL_NAME_SIZE];
	int channel_count;
	char *payload; /* passed wakeup_check(); the caller frees it */
};

/*
 * Validates a request and fills *item. False with an error: what is wrong, then what is allowed.
 * Then there is nothing to free, and errno is ENOMEM if out of memory, otherwise EINVAL.
 */
bool batch_make(const struct batch_request *request, struct batch_item *item, struct error *error);

/*
 * The same for a line of a batch (tpi-publish(1), BATCH FORMAT), without its line break; it need
 * not be terminated. Of repeated members the last counts. defaults has the tenant and the id for a
 * line without them, the prefix and only_tenant.
 */
bool batch_parse(const char *line, size_t length, const struct batch_request *defaults,
    struct batch_item *item, struct error *error);

#endif
