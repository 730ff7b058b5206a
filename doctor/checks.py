"""The checks, in their order."""

import contextlib
import fnmatch
import glob
import json
import os
import re
import socket
import ssl
import sys
import time

from .answers import judge_answer, judge_probe, judge_silence
from .apache import judge_apache_streams, judge_apache_workers, read_apache, streams_proxy_passes
from .daemon import check_access, judge_limits
from .finding import FAILED, Finding, OK, SKIPPED, Stop, WARNING
from .health import judge_clock, judge_health
from .nginx import (
    judge_nginx_streams, judge_nginx_workers, nginx_files, read_nginx, streams_locations)
from .procfs import (
    credentials_of, descriptors_of, environment_of, output_of, pids_max, processes, read)
from .proxies import front
from .settings import caps, heartbeat_of, is_cluster, judge_settings
from .site import Exchange, HEALTH, PATHS, SESSION
from .stream import judge_end, judge_headers, judge_heartbeat, judge_sync
from .tls import judge_certificate, judge_http2, judge_tls_error
from .untrusted import plain
from .wakeups import Delivery, judge_publish, judge_wakeups

WAKEUPS = 5            # published on each stream; 2 with --quick
PAUSE = 0.2            # seconds between them: what then arrives together has been held back


def check_address(e):
    try:
        e.site.resolve()
    except (OSError, UnicodeError) as error:
        raise Stop(Finding("address", FAILED, f"{e.site.host}: {plain(error)}",
                           "The name is wrong, or not in the DNS as seen from here.")) from None
    yield Finding("address", OK, f"{e.site.host} is "
                  + ", ".join(address[0] for address in e.site.addresses))


def check_connection(e):
    failures, good, took = [], [], 0
    for address in e.site.addresses:
        started = time.monotonic()
        try:
            e.site.connect_plain(address).close()
            took = took or time.monotonic() - started
            good.append(address)
        except OSError as error:
            failures.append(f"{address[0]}: {plain(error.strerror or error)}")
    if not good:
        raise Stop(Finding("connection", FAILED, f"port {e.site.port}: " + "; ".join(failures),
                           "The web server does not run, does not listen there, or a firewall is in "
                           "between: systemctl status apache2 nginx, ss -ltn."))
    e.site.addresses = good
    if failures:
        yield Finding("connection", WARNING, "; ".join(failures),
                      "Browsers try this address, too, and lose time: let the web server listen there, "
                      "or take it out of the DNS.")
        return
    yield Finding("connection", OK, f"port {e.site.port}, after {took * 1000:.0f} ms")


def check_tls(e):
    if not e.site.tls:
        yield Finding("TLS", SKIPPED, "the URL is http: cookies and passwords travel in the clear")
        return
    try:
        connection = e.site.connect(("h2", "http/1.1"))
    except (OSError, ValueError) as error:
        raise Stop(judge_tls_error("TLS", error)) from None
    with connection:
        e.protocol = connection.selected_alpn_protocol()
        expires = ssl.cert_time_to_seconds(connection.getpeercert()["notAfter"])
        yield judge_certificate("TLS", connection.version(), expires, time.time())


def check_daemon(e):
    """One short answer of tpi-streamd for each path, and what it tells of the web server."""
    for kind in PATHS:
        if kind == "issues" and not e.whom[kind]:
            continue
        response = e.probes[kind] = e.site.get(e.target(kind), "Last-Event-ID: evicted")
        others = None
        if response.status is None and response.ended_at is None:
            others = e.site.get("/")
        yield judge_probe(f"{kind}: tpi-streamd", response, e.site, e.given, others)


def check_http2(e):
    if not e.site.tls:
        yield Finding("HTTP/2", SKIPPED, "browsers use it over TLS alone")
    else:
        yield judge_http2("HTTP/2", e.protocol, e.any_probe)


def check_clock(e):
    response = e.any_probe
    if response.head_at is None:
        yield Finding("clock", SKIPPED, "no answer")
        return
    yield judge_clock("clock", response, time.time() - (time.monotonic() - response.head_at))


def check_health(e):
    if e.any_probe.status is not None:
        yield judge_health("health", e.site.get(HEALTH))


def check_user(e):
    """Whom to publish to: --as-user, the name of --user, or who the application says it is."""
    if e.whom["notifications"]:
        return
    if e.given == "cookie":
        with contextlib.suppress(ValueError, TypeError, KeyError):
            user = json.loads(e.site.get(SESSION).body)["user"]["id"]
            if re.fullmatch(r"[!-~]{1,255}", user):
                e.whom["notifications"] = user
                yield Finding("user", OK, f"{plain(user)}, says the application")
                return
    yield Finding("user", SKIPPED, "unknown: no wake-up is sent to him (--as-user ID)")


def check_streams(e):
    """Opens both at the same time, and waits for their first sync."""
    for kind, probe in e.probes.items():
        # With another status than 204 there is something wrong already that the stream would meet.
        if probe.status == 204 or probe.synced_at is not None:
            e.exchanges[kind] = Exchange(e.site, e.site.prefix + e.target(kind))
    for exchange in e.exchanges.values():
        exchange.wait(lambda response: response.synced_at is not None, e.options.timeout)
    error = ""
    if any(e.response(kind).is_later for kind in e.exchanges) and e.publisher.path:
        kind = next((kind for kind in PATHS if e.whom[kind]), None)
        if kind:
            error = e.publisher.publish(kind, e.whom[kind]).error
    for kind in e.exchanges:
        other = e.response("issues" if kind == "notifications" else "notifications")
        yield from judge_stream(kind, e, e.response(kind), other, error)
    if not e.whom["issues"]:
        yield Finding("issues", SKIPPED, "no --project")


def judge_stream(kind, e, response, other, error):
    if response.status is None:
        yield judge_silence(f"{kind}: answer", response, e.probes[kind], None)
        return
    if not response.is_stream:
        yield judge_answer(f"{kind}: answer", response, e.site, e.given)
        return
    yield judge_headers(f"{kind}: answer", response)
    yield judge_sync(f"{kind}: sync", response, e.options.late, other, error, e.probes[kind])


def check_publisher(e):
    """Publishes on each open stream in turn."""
    kinds = [kind for kind in e.open_kinds() if e.whom[kind]]
    if not e.publisher.path:
        yield Finding("tpi-publish", SKIPPED, "not found beside this program or in PATH: --publish PATH")
        return
    for turn in range(2 if e.options.quick else WAKEUPS):
        if turn > 0:
            # Whether the one before has come or not: else a buffer would be waited for.
            time.sleep(PAUSE)
        for kind in kinds:
            run = e.publisher.publish(kind, e.whom[kind])
            e.runs.setdefault(kind, []).append(run)
        # What fails does so again. 0 subscribers are no failure: a node of a Cluster counts its own.
        kinds = [kind for kind in kinds if e.runs[kind][-1].status == 0]
        if not kinds:
            break
    for kind, runs in e.runs.items():
        e.exchanges[kind].wait(runs[-1].arrival, e.options.late if runs[-1].status == 0 else 0)
    if not e.open_kinds():
        # It may be Valkey: does the publisher reach it?
        kind = next((kind for kind in PATHS if e.whom[kind]), None)
        if kind:
            yield judge_publish("tpi-publish", [e.publisher.publish(kind, e.whom[kind])])
    for kind, runs in e.runs.items():
        yield judge_publish(f"{kind}: tpi-publish", runs)


def elsewhere(e, kind):
    """
    The wake-up did not arrive: would it with another tenant or prefix? Those that are tried are the
    default ones and those that are known of the daemon.
    """
    daemon = environment_of(e.daemon) if e.daemon else None
    daemon = daemon or {}
    attempts = []
    if kind == "issues":
        ours = e.publisher.prefix
        attempts += [("TPI_ISSUES_CHANNEL_PREFIX", prefix, ours, {"prefix": prefix}) for prefix in
                     ("issues", "issue-updates", daemon.get("TPI_ISSUES_CHANNEL_PREFIX"))
                     if prefix and prefix != ours]
    ours = e.publisher.tenant
    attempts += [("INSTANCE_TENANT_ID", tenant, ours, {"tenant": tenant}) for tenant in
                 dict.fromkeys(("default", os.environ.get("INSTANCE_TENANT_ID"),
                                daemon.get("INSTANCE_TENANT_ID")))
                 if tenant and tenant != ours]
    for setting, theirs, ours, named in attempts:
        run = e.publisher.publish(kind, e.whom[kind], **named)
        if run.status == 0:
            response = e.exchanges[kind].wait(run.arrival, e.options.late)
            if run.arrival(response) is not None:
                return [(setting, theirs, ours)]
    return []


def check_watch(e):
    """Keeps the streams open, and says what has come of them."""
    if not e.open_kinds():
        return
    opened = min(e.response(kind).opened for kind in e.open_kinds())
    deadline = opened + e.options.seconds
    lost = {kind: not any(run.arrival(e.response(kind)) for run in runs) and
            any(run.status == 0 for run in runs) for kind, runs in e.runs.items()}
    found = {kind: elsewhere(e, kind) if missing else [] for kind, missing in lost.items()}
    if not e.options.json and sys.stderr.isatty() and deadline - time.monotonic() > 2:
        print(f"(watching until {e.options.seconds:g} s are over)", file=sys.stderr)
    for kind in e.open_kinds():
        e.exchanges[kind].wait(lambda response: False, deadline - time.monotonic())
    e.watched_until = time.monotonic()
    for kind in e.open_kinds():
        response, runs = e.response(kind), e.runs.get(kind, [])
        if runs:
            other = lost.get("issues" if kind == "notifications" else "notifications")
            yield judge_wakeups(f"{kind}: wake-ups", Delivery(
                kind, runs, response, e.probes[kind], found[kind],
                None if other is None else not other, is_cluster(e.publisher.environment)),
                                e.options.late)
        else:
            yield Finding(f"{kind}: wake-ups", SKIPPED, "nothing was published")
        yield judge_heartbeat(f"{kind}: heartbeat", response, e.watched_until,
                              heartbeat_of(e.settings))
        yield judge_end(f"{kind}: open", response, e.watched_until, e.settings)
    for exchange in e.exchanges.values():
        exchange.close()


def is_here(addresses):
    """Is one of these this machine's own? Only such can be bound to."""
    for address in addresses:
        with socket.socket(socket.AF_INET6 if len(address) == 4 else socket.AF_INET,
                           socket.SOCK_DGRAM) as probe:
            with contextlib.suppress(OSError):
                probe.bind((address[0], 0))
                return True
    return False


def find_daemon(e):
    """Which tpi-streamd, if it is here. Before the streams: its settings are good to know."""
    if e.options.local is False:
        return
    if e.options.pid is not None:
        e.daemon = e.options.pid
    elif e.options.local or is_here(e.site.addresses):
        pids = processes("tpi-streamd")
        if len(pids) != 1:
            yield Finding("daemon", SKIPPED, f"{len(pids)} tpi-streamd run here: --pid says which"
                          if pids else "no tpi-streamd runs here, or not yet")
        e.daemon = pids[0] if len(pids) == 1 else None
    if e.daemon:
        settings = environment_of(e.daemon)
        if settings is None:
            yield Finding("daemon", SKIPPED, f"pid {e.daemon}: its environment cannot be read (root can)")
        else:
            e.settings = settings
            yield judge_settings("daemon", settings, e.publisher.environment)


def check_daemon_limits(e):
    if e.daemon:
        yield judge_limits("limits", e.settings, descriptors_of(e.daemon), pids_max(e.daemon))


def fcgi_socket(e):
    """The path of the daemon's Unix socket: by its options, by its settings, or the default one."""
    words = (read(f"/proc/{e.daemon}/cmdline") or "").split("\0")
    listen = e.settings.get("TPI_LISTEN") or "/run/tpi-stream/streamd.sock"
    for at, word in enumerate(words):
        if word == "--listen" and at + 1 < len(words):
            listen = words[at + 1]
        elif word.startswith("--listen="):
            listen = word.partition("=")[2]
    listen = listen[5:] if listen.startswith("unix:") else listen
    return listen if listen.startswith("/") else None


def check_socket(e):
    """May the web server's workers reach the daemon's socket?"""
    name = front(e.any_probe) if e.any_probe else ""
    path = fcgi_socket(e) if e.daemon else None
    if not path or not name:
        return
    pids = processes(*({"nginx": ["nginx"], "Apache": ["apache2", "httpd"]}[name]))
    # The master is root; its workers are who connects.
    workers = {who[0]: (pid, who) for pid in pids
               for who in [credentials_of(pid)] if who and who[0] != 0}
    if len(workers) != 1:
        yield Finding("socket", SKIPPED, f"no workers of {name} are to be seen here, or of several users")
        return
    pid, who = next(iter(workers.values()))
    yield check_access("socket", path, name, who, (read(f"/proc/{pid}/attr/current") or "").strip("\n\0"))


def nginx_tree(e):
    if e.options.nginx_conf:
        base = os.path.dirname(e.options.nginx_conf)
        text = read(e.options.nginx_conf)
        return None if text is None else read_nginx(text, lambda name: [
            read(path) or "" for path in sorted(glob.glob(os.path.join(base, name)))])
    files = nginx_files(output_of("nginx", "-T"))
    if not files:
        return None
    main = next(iter(files))
    return read_nginx(files[main], lambda name: [
        text for path, text in files.items()
        if fnmatch.fnmatch(path, os.path.join(os.path.dirname(main), name))])


def check_nginx(e):
    if not e.options.nginx_conf and not (e.daemon and not e.options.apache_conf and
                                         front(e.any_probe) == "nginx"):
        return
    tree = nginx_tree(e)
    if not tree:
        yield Finding("nginx", SKIPPED, "its configuration cannot be read (root can; --nginx-conf FILE)")
        return
    if not e.options.nginx_conf and not any(streams_locations(tree)):
        yield Finding("nginx", SKIPPED, "nginx -T has no location for the two paths (--nginx-conf FILE)")
        return
    heartbeat = heartbeat_of(e.settings)
    workers = [descriptors_of(pid) for pid in processes("nginx")] if not e.options.nginx_conf else []
    yield judge_nginx_workers("nginx: workers", tree, caps(e.settings),
                              min(filter(None, workers), default=None), os.cpu_count() or 1)
    yield judge_nginx_streams("nginx: streams", tree, heartbeat)


def check_apache(e):
    if not e.options.apache_conf and not (e.daemon and not e.options.nginx_conf and
                                          front(e.any_probe) == "Apache"):
        return
    path = e.options.apache_conf or "/etc/apache2/apache2.conf"
    text = (None if e.options.apache_conf else output_of("apachectl", "-t", "-D", "DUMP_CONFIG")) or \
        read(path)
    if not text:
        yield Finding("Apache", SKIPPED, "its configuration cannot be read (--apache-conf FILE)")
        return
    directives = read_apache(text, os.path.dirname(path))
    if not e.options.apache_conf and not any(streams_proxy_passes(directives)):
        yield Finding("Apache", SKIPPED, f"{path} has no ProxyPass for the two paths (--apache-conf FILE)")
        return
    heartbeat = heartbeat_of(e.settings)
    yield judge_apache_workers("Apache: workers", directives, caps(e.settings))
    yield judge_apache_streams("Apache: streams", directives, heartbeat)


CHECKS = (check_address, check_connection, check_tls, find_daemon, check_daemon, check_http2, check_clock,
          check_health, check_daemon_limits, check_socket, check_nginx, check_apache, check_user,
          check_streams, check_publisher, check_watch)


def examine(e):
    """The findings, one by one."""
    try:
        for check in CHECKS:
            try:
                yield from check(e)
            except Stop as stop:
                yield stop.finding
                return
            except (OSError, ssl.SSLError) as error:
                yield Finding(check.__name__.partition("_")[2], FAILED, plain(error),
                              "The web server was there a moment ago: see its error log, and try again.")
                return
    finally:
        for exchange in e.exchanges.values():
            exchange.close()
