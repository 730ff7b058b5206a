/* SPDX-License-Identifier: ISC */
/*
 * sandbox: gives up access that the daemon never needs, even without systemd or a container.
 *
 * Landlock restricts files: the daemon can read below the directories of the system's configuration
 * and libraries and those of the files in the settings, and remove files where its socket is. What
 * is denied fails with EACCES. seccomp denies, with EPERM, system calls that the daemon never
 * makes, such as those that start a program. Each is used if the kernel and the build have it.
 */
#ifndef TPI_DAEMON_SANDBOX_H
#define TPI_DAEMON_SANDBOX_H

#include "config/settings.h"
#include "daemon/listener.h"

/*
 * Enters the sandbox, unless TPI_SANDBOX is off, and logs one line that says what is restricted.
 * Call it when the socket is open and before any thread starts: only the calling thread and those
 * that it starts are restricted.
 */
void sandbox_enter(const struct settings *s, const struct listener *l);

#endif
