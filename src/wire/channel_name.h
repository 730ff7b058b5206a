/* SPDX-License-Identifier: ISC */
/*
 * channel_name: the names of the pub/sub channels (tpi-stream(7), CHANNELS AND PAYLOADS), and the
 * identifiers they consist of. No other file builds a channel name.
 */
#ifndef TPI_WIRE_CHANNEL_NAME_H
#define TPI_WIRE_CHANNEL_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHANNEL_ID_MAX 255
/* Longest name: prefix, ":tenant:", tenant, ":user:", user. With the terminating NUL. */
#define CHANNEL_NAME_SIZE (3 * CHANNEL_ID_MAX + 32)

/* What an identifier is, for error messages. */
#define CHANNEL_ID_ALLOWED "1 to 255 printable ASCII characters without space : * ? [ ] \\ \""

/* Whether text, which need not be terminated, is a valid tenant id, user id or channel prefix. */
bool channel_id_valid(const char *text, size_t length);

/*
 * Parses a numeric id, such as a project's: decimal, 1 to 2147483647, no sign, no leading zero, no
 * space. False if it is not one.
 */
bool channel_number_parse(const char *text, size_t length, int32_t *number);

/*
 * Each writes a terminated name and returns its length. The ids must be valid.
 */
size_t channel_name_user(char name[CHANNEL_NAME_SIZE], const char *tenant, const char *user);
size_t channel_name_broadcast(char name[CHANNEL_NAME_SIZE], const char *tenant);
size_t channel_name_revoke(char name[CHANNEL_NAME_SIZE], const char *tenant);
/* number tells the channels of the daemons of a tenant apart. */
size_t channel_name_check(char name[CHANNEL_NAME_SIZE], const char *tenant, uint64_t number);
size_t channel_name_project(char name[CHANNEL_NAME_SIZE], const char *prefix, const char *tenant,
    int32_t project);
size_t channel_name_test_run(char name[CHANNEL_NAME_SIZE], const char *tenant, int32_t run);
size_t channel_name_project_test_runs(char name[CHANNEL_NAME_SIZE], const char *tenant,
    int32_t project);
size_t channel_name_milestone(char name[CHANNEL_NAME_SIZE], const char *tenant, int32_t milestone);
size_t channel_name_project_milestones(char name[CHANNEL_NAME_SIZE], const char *tenant,
    int32_t project);

#endif
