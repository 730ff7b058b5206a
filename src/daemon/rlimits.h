/* SPDX-License-Identifier: ISC */
/*
 * rlimits: whether the machine lets the process have as many descriptors and threads as the caps
 * need.
 */
#ifndef TPI_DAEMON_RLIMITS_H
#define TPI_DAEMON_RLIMITS_H

#include "config/settings.h"

/* Raises RLIMIT_NOFILE to its hard limit, and warns where a limit is below what the caps need. */
void rlimits_apply(const struct settings *s);

#endif
