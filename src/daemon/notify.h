/* SPDX-License-Identifier: ISC */
/* notify: reports the daemon's state to systemd (sd_notify(3)), if it was started by it. */
#ifndef TPI_DAEMON_NOTIFY_H
#define TPI_DAEMON_NOTIFY_H

/*
 * Sends one or more assignments, such as "READY=1", to $NOTIFY_SOCKET. Never blocks. Thread-safe.
 */
void notify_send(const char *state);

/*
 * Returns how often to send "WATCHDOG=1", in ms; 0: never. From $WATCHDOG_USEC and $WATCHDOG_PID.
 */
int notify_watchdog_ms(void);

#endif
