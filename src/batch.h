/*
 * batch: from what someone wants published to a channel and a payload. tpi-publish fills a struct
 * batch_wish from its options; batch_parse() fills one from a line of `tpi-publish batch`. Pure: no
 * input or output, no clock, no chance.
 */
#ifndef TPI_BATCH_H
#define TPI_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel.h"

#define BATCH_ERROR_SIZE 256

/* BATCH_REVOCATION is for tpi-streamd itself, and never a line of a batch. */
enum batch_stream { BATCH_NOTIFICATION, BATCH_ISSUE, BATCH_REVOCATION };

/* Strings are the caller's and not checked yet; NULL and 0 stand for what was not given. */
struct batch_wish {
	enum batch_stream stream;
	const char *tenant;  /* always given */
	const char *event;   /* standard: that of the stream */
	const char *user;    /* BATCH_NOTIFICATION: this one, or; BATCH_REVOCATION: his, or */
	bool broadcast;      /* everybody */
	const char *id;      /* BATCH_NOTIFICATION: always given */
	int32_t project;     /* BATCH_ISSUE; BATCH_REVOCATION: its */
	int32_t issue;       /* BATCH_ISSUE */
	const char *prefix;  /* of issue channels; a valid id */
	const char *dashes;  /* "--" where errors are to name options, else "" */
};

struct batch_item {
	char tenant[CHANNEL_ID_MAX + 1];
	char channel[CHANNEL_NAME_SIZE];
	char *payload; /* passed wakeup_check(); the caller frees it */
};

/*
 * Fills *item. Returns false with one reason in error: which part of the wish was wrong and what
 * is allowed; then the item holds nothing to free, and errno is ENOMEM where memory is out, else
 * EINVAL. The error may quote bytes of the wish as they are.
 */
bool batch_make(const struct batch_wish *wish, struct batch_item *item, char *error,
    size_t error_size);

/*
 * The same for a line: one JSON object with "stream" ("notification" or "issue") and the members
 * "tenant", "event", "user", "broadcast", "id", "project", "issue", each at most of its stream; any
 * other member is an error, of a doubled one the last counts. standard gives tenant and id where
 * the line has none, and prefix. line need not be terminated and has no line break.
 */
bool batch_parse(const char *line, size_t length, const struct batch_wish *standard,
    struct batch_item *item, char *error, size_t error_size);

#endif
