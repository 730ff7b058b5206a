# SPDX-License-Identifier: ISC
"""Judge a stream: its headers, its first sync, its heartbeat and its end."""

from .finding import FAILED, Finding, OK, SKIPPED, WARNING
from .proxies import between, buffer_remedy, front
from .settings import LOG, acl_channels, heartbeat_of, number_setting
from .untrusted import plain, reason_of


def judge_headers(stage, response):
    coding, cache = response.header("content-encoding"), response.header("cache-control")
    if response.header("content-length"):
        return Finding(stage, FAILED, "the stream has a Content-Length: a proxy collected all of it before sending",
                       buffer_remedy(response, None))
    if coding:
        return Finding(stage, WARNING, f"the stream is compressed ({plain(coding)})",
                       buffer_remedy(response, None))
    if "no-transform" not in cache or "no-cache" not in cache:
        return Finding(stage, WARNING, f"Cache-Control is {plain(cache) or 'missing'}, not no-cache, no-transform",
                       "Do not set, unset or hide Cache-Control for the streams (Header, expires, "
                       "proxy_hide_header): caches and compressors obey the one that tpi-streamd sends.")
    return Finding(stage, OK, f"200 {plain(response.header('content-type'))} by {between(response)}")


def deferred_remedy(response, other, publish_error, settings):
    """tpi-streamd answers "retry later". other: another stream that has begun."""
    look = f"Read the reason in the log: {LOG} | grep -E 'subscribe failed|valkey|app'. "
    if publish_error and "NOPERM" not in publish_error:
        return (look + f"tpi-publish cannot publish either ({plain(publish_error)}): start Valkey, or correct "
                "VALKEY_URL.")
    rights = f"ACL SETUSER with {acl_channels(settings)} (tpi-stream(7))"
    if other is not None and other.synced_at is not None:
        return (look + "Valkey is reachable, as another stream works. Give its user the right to these channels: "
                f"{rights}. With TPI_PROJECT_ACCESS=app, check TPI_APP_URL: the application may be unreachable.")
    if response.ended_at - response.opened > 4:
        look += "It took 5 s, the time limit for Valkey's confirmation: Valkey is slow or hangs. "
    return (look + "If Valkey is unreachable, correct VALKEY_URL and the password of the daemon. If Valkey refuses "
            f"a channel, give its user the right to it: {rights}. If the application is unreachable, correct "
            "TPI_APP_URL. If there is no such line, the daemon is ending, or the user has too many requests in "
            "flight.")


def judge_sync(stage, response, late, settings, other=None, publish_error="", probe=None):
    if response.synced_at is not None:
        seconds = response.synced_at - response.opened
        text = f"after {seconds * 1000:.0f} ms"
        if seconds <= late:
            return Finding(stage, OK, text)
        return Finding(stage, WARNING, text + ": late",
                       "Find out whether Valkey's confirmation or the application's answer (TPI_IDENTITY=app) "
                       f"takes long: TPI_LOG_LEVEL=debug, {LOG}.")
    if response.is_deferred:
        return Finding(stage, FAILED, f"none: tpi-streamd answers \"retry later\" (retry {response.events[0].retry})",
                       deferred_remedy(response, other, publish_error, settings))
    if response.ended_at is not None:
        return Finding(stage, FAILED, "none: the stream ended after "
                       f"{response.ended_at - response.opened:.1f} s, with {len(response.body)} bytes"
                       + (f": {reason_of(response.error)}" if response.error else ""),
                       "Read the logs of the daemon and of the proxies: one of them ended the stream. Try again.")
    if response.arrivals:
        return Finding(stage, FAILED, f"none, but {len(response.body)} other bytes",
                       "Look for a server on the way that answers itself or changes the bytes, for example with a "
                       "compression that nobody asked for.")
    return Finding(stage, FAILED, "none: the headers arrived, and then nothing",
                   buffer_remedy(response, probe))


def silences(response):
    """(seconds of silence, whether a heartbeat ended it)."""
    pings = {event.at for event in response.events if event.comment}
    return [(after - before, after in pings)
            for before, after in zip(response.arrivals, response.arrivals[1:])]


def judge_heartbeat(stage, response, watched_until, expected):
    """expected: SSE_HEARTBEAT_MS, in seconds. watched_until: when the watch ended."""
    seen = [seconds for seconds, ping in silences(response) if ping and seconds > expected / 2]
    if seen:
        if max(seen) < expected * 1.2 + 1:
            return Finding(stage, OK, f"after {max(seen):.1f} s of silence")
        return Finding(stage, WARNING, f"late: after {max(seen):.1f} s of silence, not {expected:g} s",
                       "Give the doctor the daemon's SSE_HEARTBEAT_MS in its environment. If it is the same, look "
                       "for a buffer that delays the heartbeat.")
    silent = (response.ended_at or watched_until) - (response.arrivals or [response.opened])[-1]
    if silent < expected * 1.2 + 1 or response.ended_at is not None:
        return Finding(stage, SKIPPED, f"due after {expected:g} s of silence; the watch had only "
                       f"{silent:.0f} s (--seconds {expected * 1.2 + 5:.0f})")
    return Finding(stage, FAILED, f"none in {silent:.0f} s of silence",
                   "Look for a buffer that holds small pieces back, or give the doctor the daemon's "
                   "SSE_HEARTBEAT_MS. The time limits of proxies must exceed the heartbeat.")


# Seconds of silence, whose limit it is, and the remedy.
TIME_LIMITS = (
    (30, "a usual limit of HAProxy and of clients", "HAProxy: set timeout server and timeout client to 1h"),
    (50, "the limit in HAProxy's examples", "HAProxy: set timeout server and timeout client to 1h"),
    (55, "Heroku's limit", "It cannot be raised: set SSE_HEARTBEAT_MS below half of it"),
    (60, "the default of nginx (fastcgi_read_timeout, proxy_read_timeout), of an AWS ALB, of Apache's "
         "Timeout on newer systems, and of timeout=60 in the ProxyPass",
     "nginx: set fastcgi_read_timeout 120s, and proxy_read_timeout 3600s in front; ALB: "
     "idle_timeout.timeout_seconds=3600; Apache: timeout= of the ProxyPass above two heartbeats"),
    (100, "Cloudflare's limit", "It can be raised only with Enterprise"),
    (120, "fastcgi_read_timeout of contrib/nginx", "It is long enough"),
    (180, "Traefik's idleTimeout", "Traefik: set respondingTimeouts read, write and idle to 1h"),
    (240, "the limit of an Azure load balancer", "Azure: raise the idle timeout"),
    (300, "Apache's Timeout on Debian", "Apache: set timeout= in the ProxyPass, or ProxyTimeout"),
    (350, "the limit of an AWS NLB", "It can be raised, up to 6000 s"),
    (600, "the keep-alive of a Google load balancer", "Raise the backend's timeout"),
)
AGE_LIMITS = (
    (30, "Raise the backend timeout of Google's load balancer to 86400: after 30 s, its default, it cuts every "
         "answer."),
    (60, "Raise the write limit of the proxy (Traefik: respondingTimeouts.writeTimeout) to 1h or 0: it counts from "
         "the start of the answer."),
)
KEEP_ALIVE = 5  # seconds that Apache keeps the connection after a cut: KeepAliveTimeout


def near(seconds, limit):
    return abs(seconds - limit) <= 1 + limit * 0.02


def cut_remedy(response, silent, age, settings):
    expected = heartbeat_of(settings)
    heartbeat = f"Time limits must exceed two heartbeats (SSE_HEARTBEAT_MS, {expected:g} s)."
    if silent > expected * 1.2 + 1:
        heartbeat += " No heartbeat arrived in this time: a buffer holds it back, or the daemon's is longer."
    if age - silent > 1:
        # It was cut although bytes arrived: the limit may count from the start.
        for limit, text in AGE_LIMITS:
            if near(age, limit) and not near(silent, limit):
                return text
    name, limits = front(response), f"{silent:.0f} s"
    if name == "Apache" and not response.complete and silent > KEEP_ALIVE:
        limits = f"{silent - KEEP_ALIVE:.0f} s (or {silent:.0f} s: Apache may close KeepAliveTimeout, " \
                 f"{KEEP_ALIVE} s, later)"
    for limit, whose, remedy in TIME_LIMITS:
        if near(silent, limit) or name == "Apache" and near(silent - KEEP_ALIVE, limit):
            return f"{limit} s of silence is {whose}. {remedy}. {heartbeat}"
    own = {"nginx": "nginx: fastcgi_read_timeout, or proxy_read_timeout in front of another web server. ",
           "Apache": "Apache: timeout= of the ProxyPass, else ProxyTimeout, else Timeout. "}
    return (f"Look for a time limit of {limits}: " + own.get(
        name, "".join(own.values())) + "A load balancer: its idle timeout. SSE_MAX_AGE_SECONDS and a session that "
        "ended (see the daemon's log) end a stream as well. " + heartbeat)


def judge_end(stage, response, watched_until, settings):
    """Whether it stayed open."""
    if response.ended_at is None:
        return Finding(stage, OK, f"open for {watched_until - response.opened:.0f} s")
    age = response.ended_at - response.opened
    silent = response.ended_at - (response.arrivals or [response.opened])[-1]
    last = next((event.event for event in reversed(response.events) if not event.comment), "")
    if last == "evicted":
        return Finding(stage, FAILED, f"evicted after {age:.1f} s: the user opened more streams of this kind than "
                       "the cap allows",
                       "Close tabs, share streams between them, or raise SSE_PER_USER_CAP (notifications), "
                       "SSE_ISSUES_PER_USER_CAP, SSE_LIVE_PER_USER_CAP or SSE_COMBINED_PER_USER_CAP. Give "
                       "tpi-stream-doctor an account of its own.")
    if last == "shutdown":
        return Finding(stage, FAILED, f"the daemon shut down after {age:.1f} s",
                       f"Try again if it was a restart; else read who stopped it: {LOG}.")
    oldest = number_setting(settings, "SSE_MAX_AGE_SECONDS")
    if oldest and response.complete and 0.8 * oldest - 1 <= age <= 1.2 * oldest + 1:
        return Finding(stage, OK, f"ended after {age:.0f} s, as SSE_MAX_AGE_SECONDS={oldest} demands")
    how = "ended" if response.complete else "cut off"
    text = f"{how} after {age:.1f} s, the last {silent:.1f} s of them silent"
    if response.error is not None:
        text += f": {reason_of(response.error)}"
    return Finding(stage, FAILED, text, cut_remedy(response, silent, age, settings))


def judge_last_event_id(stage, response):
    """
    The answer to Last-Event-ID: evicted. tpi-streamd resets the id in the first event, or defers the request where
    the user has no free slot.
    """
    if response.is_deferred:
        return Finding(stage, OK, "it reaches tpi-streamd")
    sync = next((event for event in response.events if event.is_sync), None)
    if not response.is_stream or sync is None:
        return Finding(stage, SKIPPED, f"answered with {response.status or 'nothing'}")
    if sync.id == "":
        return Finding(stage, OK, "it reaches tpi-streamd")
    return Finding(stage, WARNING, "it does not reach tpi-streamd: evicted tabs may evict each other for ever",
                   "Let every server on the way pass this request header on, as nginx and Apache do by default. "
                   "nginx: remove fastcgi_param HTTP_LAST_EVENT_ID; Apache: RequestHeader unset Last-Event-ID.")
