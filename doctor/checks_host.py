# SPDX-License-Identifier: ISC
"""Check this host, if the URL leads here: the web server, the daemon, limits and configurations."""

import contextlib
import os
import re
import socket

from .apache import judge_apache_identity, judge_apache_streams, judge_apache_workers, streams_proxy_passes
from .configuration import last
from .daemon import fcgi_socket, judge_access, judge_limits
from .finding import Finding, OK, SKIPPED
from .nginx import judge_nginx_identity, judge_nginx_streams, judge_nginx_workers, streams_locations
from .procfs import (
    credentials_of, descriptors_of, environment_of, holders_of, listening_inodes, pids_max, processes, read,
    unix_inodes)
from .proxies import front
from .settings import caps, heartbeat_of, judge_settings, remember_passwords, setting
from .untrusted import number, plain
from .web_server import (
    WebServer, apache_configuration, find_web_server, nginx_configuration, read_apache_file, read_nginx_file)


def is_here(addresses):
    """Whether one of these is this machine's own: no other can be bound to."""
    for address in addresses:
        with socket.socket(socket.AF_INET6 if len(address) == 4 else socket.AF_INET,
                           socket.SOCK_DGRAM) as probe:
            with contextlib.suppress(OSError):
                probe.bind((address[0], 0))
                return True
    return False


def check_web_server(e):
    """Which web server to look at, and where its configuration is."""
    options = e.options
    if options.local is not False:
        e.local = bool(options.local) or options.pid is not None or is_here(e.site.addresses)
    if e.local:
        e.web_server = find_web_server([address[0] for address in e.site.addresses], e.site.port,
                                       front(e.any_probe) if e.any_probe else "")
    server = e.web_server or WebServer()
    if options.nginx_conf:
        server.kind, server.path, server.directives = "nginx", options.nginx_conf, read_nginx_file(options.nginx_conf)
    elif options.apache_conf:
        server.kind, server.path, server.directives = "Apache", options.apache_conf, read_apache_file(
            options.apache_conf)
    elif server.pid is not None:
        server.path, server.directives = (
            nginx_configuration if server.kind == "nginx" else apache_configuration)(server)
    else:
        if e.local:
            yield Finding("web server", SKIPPED, f"{server.reason} (--nginx-conf, --apache-conf FILE)")
        return
    e.web_server = server
    process = f"{server.kind} (pid {server.pid}) {server.reason}; " if server.pid is not None else ""
    if server.directives is None:
        yield Finding("web server", SKIPPED, f"{process}cannot read the configuration {plain(server.path)} "
                      "(root can; --nginx-conf, --apache-conf FILE)")
    else:
        yield Finding("web server", OK, f"{process}configuration: {plain(server.path)}")


def backends_of(server):
    """What the web server passes the streams to: paths of Unix sockets, and (address, port)."""
    if server is None or not server.directives:
        return
    if server.kind == "nginx":
        texts = [last(sum(levels, []), "fastcgi_pass", "") for _, levels in streams_locations(server.directives)]
    else:
        texts = [word for words in streams_proxy_passes(server.directives) for word in words if "fcgi://" in word]
    for text in texts:
        unix = re.match(r"unix:([^|:]+)", text)
        address = re.fullmatch(r"(?:fcgi://)?\[?([0-9a-f.:]+|localhost)\]?:([0-9]{1,5})/?", text)
        if unix:
            yield unix[1]
        elif address:
            yield "127.0.0.1" if address[1] == "localhost" else address[1], number(address[2])


def daemon_after(server):
    """The pids of the tpi-streamd that this web server connects to, as far as can be seen."""
    found = set()
    for backend in backends_of(server):
        inodes = unix_inodes(backend) if isinstance(backend, str) else listening_inodes([backend[0]], backend[1])
        found.update(holders_of(inodes))
    return found & set(processes("tpi-streamd"))


def find_daemon(e):
    """Which tpi-streamd, if it runs here. Before the streams, as its settings are good to know."""
    if not e.local:
        return
    if e.options.pid is not None:
        e.daemon = e.options.pid
    else:
        pids = processes("tpi-streamd")
        if len(pids) > 1:
            pids = sorted(daemon_after(e.web_server)) or pids
        if len(pids) != 1:
            yield Finding("daemon", SKIPPED, f"{len(pids)} tpi-streamd run here (--pid PID chooses one)"
                          if pids else "no tpi-streamd runs here, or not yet")
            return
        e.daemon = pids[0]
    settings = environment_of(e.daemon)
    if settings is None:
        yield Finding("daemon", SKIPPED, f"cannot read the environment of pid {e.daemon} (root can)")
        return
    remember_passwords(settings)
    e.settings, e.settings_known = settings, True
    yield judge_settings("daemon", settings, e.publisher.environment)


def check_daemon_limits(e):
    if e.daemon:
        yield judge_limits("limits", e.settings, descriptors_of(e.daemon), pids_max(e.daemon))


def check_socket(e):
    """Whether the web server's workers can connect to the daemon's socket."""
    path = fcgi_socket(e.daemon, e.settings) if e.daemon else None
    server = e.web_server
    if not path or server is None or server.pid is None:
        return
    # The main process is often root; its workers connect.
    workers = {who[0]: (pid, who) for pid in server.workers or [server.pid]
               for who in [credentials_of(pid)] if who}
    if len(workers) > 1:
        workers.pop(0, None)
    if len(workers) != 1:
        yield Finding("socket", SKIPPED, f"{server.kind} has no workers that can be seen, or of several users")
        return
    pid, who = next(iter(workers.values()))
    yield judge_access("socket", path, server.kind, who, (read(f"/proc/{pid}/attr/current") or "").strip("\n\0"))


def identity_matters(e):
    """Where the daemon's settings are not known, the web server may not be the one that authenticates."""
    return e.settings_known and setting(e.settings, "TPI_IDENTITY") == "web-server"


def check_nginx(e):
    server = e.web_server
    if server is None or server.kind != "nginx" or server.directives is None:
        return
    tree = server.directives
    if not any(streams_locations(tree)):
        yield Finding("nginx", SKIPPED, f"{plain(server.path)} has no location for the streams (--nginx-conf FILE)")
        return
    workers = [descriptors_of(pid) for pid in server.workers]
    yield judge_nginx_workers("nginx: workers", tree, caps(e.settings),
                              min(filter(None, workers), default=None), os.cpu_count() or 1)
    yield judge_nginx_streams("nginx: streams", tree, heartbeat_of(e.settings))
    if identity_matters(e):
        yield judge_nginx_identity("nginx: identity", tree)


def check_apache(e):
    server = e.web_server
    if server is None or server.kind != "Apache" or server.directives is None:
        return
    if not any(streams_proxy_passes(server.directives)):
        yield Finding("Apache", SKIPPED, f"{plain(server.path)} has no ProxyPass for the streams (--apache-conf FILE)")
        return
    yield judge_apache_workers("Apache: workers", server.directives, caps(e.settings))
    yield judge_apache_streams("Apache: streams", server.directives, heartbeat_of(e.settings))
    if identity_matters(e):
        yield judge_apache_identity("Apache: identity", server.directives)
