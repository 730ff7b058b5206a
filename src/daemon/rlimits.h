/* SPDX-License-Identifier: ISC */
/* rlimits: checks that the system allows the descriptors and threads that the caps need. */
#ifndef TPI_DAEMON_RLIMITS_H
#define TPI_DAEMON_RLIMITS_H

#include "config/settings.h"

/* Raises RLIMIT_NOFILE to its hard limit. Warns of limits that are too low for the caps. */
void rlimits_apply(const struct settings *s);

#endif
