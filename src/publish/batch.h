/* SPDX-License-Identifier: ISC */
/*
 * batch: from what someone wants published to a channel and a payload. tpi-publish fills a struct
 * batch_wish from its options; batch_parse() fills one from a line of `tpi-publish batch`. Pure: no
 * input or output, no clock, no chance.
 */
#ifndef TPI_PUBLISH_BATCH_H
#define TPI_PUBLISH_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/channel_name.h"

#define BATCH_ERROR_SIZE 256
#define BATCH_STREAMS_ALLOWED "\"notification\", \"issue\", \"test-run\" or \"milestone\""

/* BATCH_REVOCATION is for tpi-streamd itself, and never a line of a batch. */
enum batch_stream {
	BATCH_NOTIFICATION,
	BATCH_ISSUE,
	BATCH_TEST_RUN,
	BATCH_MILESTONE,
	BATCH_REVOCATION
};

/* A test run or milestone is published to its own channel and to its project's. */
#define BATCH_CHANNELS_MAX 2

/* Strings are the caller's and not checked yet; NULL and 0 stand for what was not given. */
struct batch_request {
	enum batch_stream stream;
	const char *tenant;  /* always given */
	const char *event;   /* standard: that of the stream */
	const char *user;    /* BATCH_NOTIFICATION: this one, or; BATCH_REVOCATION: his, or */
	bool broadcast;      /* everybody */
	const char *id;      /* BATCH_NOTIFICATION: always given */
	int32_t project;     /* all but BATCH_NOTIFICATION; BATCH_REVOCATION: this one, or user */
	int32_t item;        /* the issue, test run or milestone */
	int32_t target;      /* BATCH_TEST_RUN, BATCH_MILESTONE: what changed in it */
	const char *prefix;  /* of issue channels; a valid id */
	const char *dashes;  /* "--" where errors are to name options, else "" */
	bool only_tenant;    /* a line for another tenant is an error */
};

struct batch_item {
	char tenant[CHANNEL_ID_MAX + 1];
	char channels[BATCH_CHANNELS_MAX][CHANNEL_NAME_SIZE];
	int channel_count;
	char *payload; /* passed wakeup_check(); the caller frees it */
};

/*
 * Fills *item. Returns false with one reason in error: which part of the request was wrong and what
 * is allowed; then the item holds nothing to free, and errno is ENOMEM where memory is out, else
 * EINVAL. The error may quote bytes of the request as they are.
 */
bool batch_make(const struct batch_request *request, struct batch_item *item, char *error,
    size_t error_size);

/*
 * The same for a line: one JSON object with "stream" ("notification", "issue", "test-run" or
 * "milestone") and the options of that stream as members; any other member is an error, and the last
 * of a doubled one counts. standard gives tenant and id where the line has none, prefix and
 * only_tenant. line need not be terminated and has no line break.
 */
bool batch_parse(const char *line, size_t length, const struct batch_request *standard,
    struct batch_item *item, char *error, size_t error_size);

#endif
