/* SPDX-License-Identifier: ISC */
/*
 * sandbox: gives up what the daemon never does, for those who run it without systemd or containers.
 *
 * Landlock restricts files: reading below the directories of the system's configuration and
 * libraries and those of the files in the settings, removing the daemon's own socket, nothing else.
 * seccomp denies system calls that the daemon never makes, such as those that start a program. Each
 * is used if the kernel and the build have it. What is denied fails with EACCES or EPERM.
 */
#ifndef TPI_DAEMON_SANDBOX_H
#define TPI_DAEMON_SANDBOX_H

#include "config/settings.h"
#include "daemon/listener.h"

/*
 * Enters the sandbox, unless TPI_SANDBOX is off, and logs one line that says what is restricted.
 * Call it before threads start, because only the calling thread and those that it starts are
 * restricted, and once the socket is open.
 */
void sandbox_enter(const struct settings *s, const struct listener *l);

#endif
