# SPDX-License-Identifier: ISC
"""The checks, in their order, and the examination that runs them."""

import ssl

from .checks_host import (
    check_apache, check_daemon_limits, check_nginx, check_socket, check_web_server, find_daemon)
from .checks_site import (
    check_address, check_clock, check_connection, check_health, check_http2, check_probe, check_tls)
from .checks_streams import (
    check_last_event_id, check_prefixes, check_publisher, check_streams, check_user, check_watch)
from .finding import FAILED, Finding, Stop
from .untrusted import Malformed, reason_of

CHECKS = (check_address, check_connection, check_tls, check_probe, check_web_server, find_daemon, check_http2,
          check_clock, check_health, check_daemon_limits, check_socket, check_nginx, check_apache, check_user,
          check_streams, check_publisher, check_prefixes, check_watch, check_last_event_id)


def examine(e):
    """The findings, one by one. Each check is a generator of them; one that raises Stop is the last."""
    try:
        for check in CHECKS:
            try:
                yield from check(e)
            except Stop as stop:
                yield stop.finding
                return
            except (OSError, ssl.SSLError, Malformed) as error:
                yield Finding(check.__name__.partition("_")[2].replace("_", " "), FAILED, reason_of(error),
                              "Read the web server's error log, and try again: the site answered a moment ago.")
                return
    finally:
        for exchange in e.exchanges.values():
            exchange.close()
