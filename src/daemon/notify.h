/* SPDX-License-Identifier: ISC */
/*
 * notify: tells systemd how the daemon is (sd_notify(3)); nothing happens where nobody wants to
 * know.
 */
#ifndef TPI_DAEMON_NOTIFY_H
#define TPI_DAEMON_NOTIFY_H

/*
 * Sends one or more assignments, such as "READY=1", to $NOTIFY_SOCKET. Never blocks. Thread-safe.
 */
void notify_send(const char *state);

/*
 * How often "WATCHDOG=1" is to be sent, in milliseconds; 0 for never ($WATCHDOG_USEC,
 * $WATCHDOG_PID).
 */
int notify_watchdog_ms(void);

#endif
