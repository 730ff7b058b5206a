# SPDX-License-Identifier: ISC
"""Check the way to the site: name, connection, TLS, whether tpi-streamd is reached, clock, health."""

import ssl
import time

from .answers import judge_other_routes, judge_probe
from .finding import FAILED, Finding, OK, SKIPPED, Stop, WARNING
from .health import judge_clock, judge_health
from .site import HEALTH, JSON
from .streams import STREAMS, option_of
from .tls import judge_certificate, judge_http2, judge_tls_error
from .untrusted import reason_of


def check_address(e):
    try:
        e.site.resolve()
    except (OSError, UnicodeError) as error:
        raise Stop(Finding("address", FAILED, f"cannot resolve {e.site.host}: {reason_of(error)}",
                           "Correct the name, or add it to the DNS that this host uses.")) from None
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
            failures.append(f"{address[0]}: {reason_of(error)}")
    failed = f"cannot connect to port {e.site.port}: " + "; ".join(failures)
    if not good:
        raise Stop(Finding("connection", FAILED, failed,
                           "Start the web server, make it listen there, or open the firewall: systemctl status "
                           "apache2 nginx, ss -ltn."))
    e.site.addresses = good
    if failures:
        yield Finding("connection", WARNING, failed,
                      "Make the web server listen there, or remove the address from the DNS: browsers try it and "
                      "lose time.")
        return
    yield Finding("connection", OK, f"port {e.site.port}, after {took * 1000:.0f} ms")


def expiry_of(certificate):
    try:
        return ssl.cert_time_to_seconds(certificate["notAfter"])
    except (KeyError, TypeError, ValueError):
        return None


def check_tls(e):
    if not e.site.tls:
        yield Finding("TLS", SKIPPED, "the URL is http: cookies and passwords are sent in the clear")
        return
    try:
        connection = e.site.connect(("h2", "http/1.1"))
    except (OSError, ValueError) as error:
        raise Stop(judge_tls_error("TLS", error)) from None
    with connection:
        e.protocol = connection.selected_alpn_protocol()
        yield judge_certificate("TLS", connection.version(), expiry_of(connection.getpeercert()), time.time())


def check_probe(e):
    """Whether tpi-streamd answers on each path, without a stream."""
    unknown = [kind for kind in STREAMS if kind != "notifications" and not e.whom[kind]]
    for kind in STREAMS:
        if kind not in unknown:
            e.probes[kind], finding = probe_path(e, kind)
            yield finding
    if not unknown:
        return
    if not e.any_probe.is_refused_method:
        yield Finding("other streams", SKIPPED, "no " + ", ".join(dict.fromkeys(map(option_of, unknown))))
        return
    yield judge_other_routes("other streams", {kind: probe_path(e, kind)[1] for kind in unknown})


def probe_path(e, kind):
    """(an answer of tpi-streamd that needs no stream, or that of another server; the finding)"""
    probe = head = e.site.get(e.target(kind), method="HEAD")
    response = others = None
    if head.status is not None and not head.is_refused_method:
        # An answer to GET has a body, which shows who sent it.
        probe = response = e.site.get(e.target(kind))
    if probe.status is None and probe.ended_at is None:
        others = e.site.get("/")
    return probe, judge_probe(f"{kind}: tpi-streamd", head, response, e.site, e.given, others)


def check_http2(e):
    if not e.site.tls:
        yield Finding("HTTP/2", SKIPPED, "browsers use it only over TLS")
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
        yield judge_health("health", e.site.get(HEALTH, accept=JSON))
