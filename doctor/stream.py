"""The stream: its headers, its sync, its heartbeat and its end."""

from .finding import FAILED, Finding, OK, SKIPPED, WARNING
from .proxies import between, buffer_remedy, front
from .settings import LOG, heartbeat_of
from .untrusted import number, plain


def judge_headers(stage, response):
    coding, cache = response.header("content-encoding"), response.header("cache-control")
    if response.header("content-length"):
        return Finding(stage, FAILED, "the stream has a Content-Length: a proxy has collected it whole",
                       buffer_remedy(response, None))
    if coding:
        return Finding(stage, WARNING, f"the stream is compressed ({plain(coding)})",
                       buffer_remedy(response, None))
    if "no-transform" not in cache or "no-cache" not in cache:
        return Finding(stage, WARNING, f"Cache-Control is {plain(cache) or 'gone'}",
                       "tpi-streamd says no-cache, no-transform, and caches and compressors obey it: do "
                       "not set, unset or hide Cache-Control for the two paths (Header, expires, "
                       "proxy_hide_header).")
    return Finding(stage, OK, f"200 {plain(response.header('content-type'))} by {between(response)}")


def later_remedy(response, other, publish_error):
    """tpi-streamd says: come back later. other: the stream of the other kind."""
    seconds = response.ended_at - response.opened
    look = (f"The log says why: {LOG} | grep -E 'subscribe failed|valkey|gate'. ")
    if publish_error and "NOPERM" not in publish_error:
        return (look + f"tpi-publish cannot publish either ({plain(publish_error)}): Valkey is away, or "
                "VALKEY_URL is wrong.")
    if other is not None and other.synced_at is not None:
        return (look + "The other stream works, so Valkey is there: its user has no right to these "
                "channels ('Valkey refused the channel'): ACL SETUSER with "
                "&notifications:tenant:TENANT:* and &PREFIX:tenant:TENANT:* for TENANT of "
                "INSTANCE_TENANT_ID and PREFIX of TPI_ISSUES_CHANNEL_PREFIX (tpi-stream(7)); or, with "
                "TPI_PROJECT_ACCESS=app, the application cannot be asked ('[gate]': TPI_APP_URL).")
    if seconds > 4:
        look += "After 5 s without a confirmation: Valkey is slow or hangs. "
    return (look + "'Valkey is away': VALKEY_URL and the password of the daemon. 'Valkey refused the "
            "channel': rights of its user (ACL, tpi-stream(7)). 'the application cannot be asked': "
            "TPI_APP_URL. No line: the daemon is ending, or the user has too many requests under way.")


def judge_sync(stage, response, late, other=None, publish_error="", probe=None):
    if response.synced_at is not None:
        seconds = response.synced_at - response.opened
        text = f"after {seconds * 1000:.0f} ms"
        if seconds <= late:
            return Finding(stage, OK, text)
        return Finding(stage, WARNING, text + ": late",
                       "Valkey confirms late, or the application (TPI_IDENTITY=app) answers late: "
                       f"TPI_LOG_LEVEL=debug and {LOG} show how long it took.")
    if response.is_later:
        return Finding(stage, FAILED, "none: tpi-streamd says, come back later (retry "
                       f"{response.events[0].retry})", later_remedy(response, other, publish_error))
    if response.ended_at is not None:
        return Finding(stage, FAILED, "none: the stream ended after "
                       f"{response.ended_at - response.opened:.1f} s, with "
                       f"{len(response.body)} bytes"
                       + (f": {plain(response.error)}" if response.error else ""),
                       "The daemon or a proxy has ended in between: see their logs, and try again.")
    if response.arrivals:
        return Finding(stage, FAILED, f"none, but {len(response.body)} other bytes",
                       "Something in between answers in tpi-streamd's place or has changed its bytes; "
                       "an encoding that was not asked for, perhaps.")
    return Finding(stage, FAILED, "none: the headers are here, and then nothing",
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
        return Finding(stage, WARNING, f"only after {max(seen):.1f} s of silence, not {expected:g} s",
                       "SSE_HEARTBEAT_MS of the daemon is another one, or a buffer holds it back.")
    silent = (response.ended_at or watched_until) - (response.arrivals or [response.opened])[-1]
    if silent < expected * 1.2 + 1 or response.ended_at is not None:
        return Finding(stage, SKIPPED, f"it comes after {expected:g} s of silence, and there were "
                       f"{silent:.0f} (--seconds {expected * 1.2 + 5:.0f})")
    return Finding(stage, FAILED, f"none in {silent:.0f} s of silence",
                   "SSE_HEARTBEAT_MS of the daemon is above this, or a buffer holds small pieces back. "
                   "Time limits of proxies have to be above the heartbeat.")


# Seconds of silence, whose limit it is, and the remedy.
TIME_LIMITS = (
    (30, "HAProxy's or a client's usual limit", "HAProxy: timeout server and timeout client 1h"),
    (50, "the limit in HAProxy's examples", "HAProxy: timeout server and timeout client 1h"),
    (55, "Heroku's", "it cannot be raised"),
    (60, "the default of nginx (fastcgi_read_timeout, proxy_read_timeout), of an AWS ALB, of Apache's "
         "Timeout on newer systems, and of timeout=60 at the ProxyPass",
     "nginx: fastcgi_read_timeout 120s, and proxy_read_timeout 3600s in front; ALB: "
     "idle_timeout.timeout_seconds=3600; Apache: timeout= of the ProxyPass above two heartbeats"),
    (100, "Cloudflare's", "it can be raised with Enterprise alone"),
    (120, "fastcgi_read_timeout of contrib/nginx", "it is long enough"),
    (180, "Traefik's idleTimeout", "Traefik: respondingTimeouts read, write and idle 1h"),
    (240, "an Azure load balancer's", "Azure: raise the idle timeout"),
    (300, "Apache's Timeout on Debian", "Apache: timeout= of the ProxyPass, ProxyTimeout"),
    (350, "an AWS NLB's", "it can be raised, to 6000 s"),
    (600, "a Google load balancer's keep-alive", "raise the backend's timeout"),
)


AGE_LIMITS = (
    (30, "Google's load balancer cuts each answer after its backend timeout of 30 s: raise it to 86400"),
    (60, "a write limit of a proxy (Traefik: respondingTimeouts.writeTimeout) counts from the start: 1h "
         "or 0"),
)
KEEP_ALIVE = 5  # after a cut Apache keeps the connection so long: KeepAliveTimeout


def near(seconds, limit):
    return abs(seconds - limit) <= 1 + limit * 0.02


def cut_remedy(response, silent, age, settings):
    expected = heartbeat_of(settings)
    heartbeat = f"Time limits have to be above two heartbeats (SSE_HEARTBEAT_MS, {expected:g} s)."
    if silent > expected * 1.2 + 1:
        heartbeat += " None came in this time: a buffer holds it, or the daemon's is another one."
    if age - silent > 1:
        # Bytes came, and it was cut all the same: it may count from the start.
        for limit, text in AGE_LIMITS:
            if near(age, limit) and not near(silent, limit):
                return text + "."
    name, limits = front(response), f"{silent:.0f} s"
    if name == "Apache" and not response.whole and silent > KEEP_ALIVE:
        limits = f"{silent - KEEP_ALIVE:.0f} s (or {silent:.0f} s: Apache may close KeepAliveTimeout, " \
                 f"{KEEP_ALIVE} s, later)"
    for limit, whose, remedy in TIME_LIMITS:
        if near(silent, limit) or name == "Apache" and near(silent - KEEP_ALIVE, limit):
            return f"{limit} s of silence is {whose}. {remedy[:1].upper()}{remedy[1:]}. {heartbeat}"
    mine = {"nginx": "nginx: fastcgi_read_timeout, or proxy_read_timeout in front of another web server. ",
            "Apache": "Apache: timeout= of the ProxyPass, else ProxyTimeout, else Timeout. "}
    return (f"Look for a time limit of {limits}: " + mine.get(
        name, "".join(mine.values())) + "A load balancer: its idle timeout. SSE_MAX_AGE_SECONDS or a "
        "lost session (the log has 'session lost') end a stream, too. " + heartbeat)


def judge_end(stage, response, watched_until, settings):
    """Did it stay open?"""
    if response.ended_at is None:
        return Finding(stage, OK, f"open for {watched_until - response.opened:.0f} s")
    age = response.ended_at - response.opened
    silent = response.ended_at - (response.arrivals or [response.opened])[-1]
    last = response.events[-1].event if response.events else ""
    if last == "evicted":
        return Finding(stage, FAILED, f"evicted after {age:.1f} s",
                       "The user has opened more streams of the kind than SSE_PER_USER_CAP or "
                       "SSE_ISSUES_PER_USER_CAP allows: close tabs, share streams between them, or raise "
                       "it. An account of its own for tpi-stream-doctor is best.")
    if last == "shutdown":
        return Finding(stage, FAILED, f"the daemon was ended after {age:.1f} s",
                       f"A restart? Try again; else {LOG} says who ended it.")
    oldest = number(settings.get("SSE_MAX_AGE_SECONDS"), 0)
    if oldest and response.whole and 0.8 * oldest - 1 <= age <= 1.2 * oldest + 1:
        return Finding(stage, OK, f"ended after {age:.0f} s, as SSE_MAX_AGE_SECONDS={oldest} says")
    how = "ended" if response.whole else "cut off"
    text = f"{how} after {age:.1f} s, {silent:.1f} s of them silent at the end"
    return Finding(stage, FAILED, text, cut_remedy(response, silent, age, settings))
