# SPDX-License-Identifier: ISC
"""The monitoring URLs (TPI_STATUS): health, liveness, metrics and the open streams. Each counter grows by exactly what
happened."""

import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import termios
import threading
import time

import pytest
import yaml

import fcgi
import servers
from answers import (PING, check_answer, check_ended, check_evicted, check_later, check_still_evicted, issue,
                     notification, plain_headers)
from application import ANN, BEN, SESSION, by, listen, says
from fcgi import ISSUES, NOTIFICATIONS, wait_all
from faults import Faults
from fronts import CONTRIB, PATH, Apache, Caddy, Haproxy, Lighttpd, Nginx, require
from servers import basic, broadcast_channel, listening_socket, project_channel, user_channel
from timing import eventually, scaled

HEALTH, LIVE, METRICS = "/api/streams/health", "/api/streams/health/live", "/api/streams/metrics"
CONNECTIONS = "/api/streams/connections"
PAGES = [HEALTH, LIVE, METRICS, CONNECTIONS]
SAMPLE = re.compile(r'(?P<name>[a-z_]+)(\{(?P<labels>[^}]*)\})? (?P<value>[0-9.]+)')


def ask(daemon, path, **named):
    """Requests a monitoring URL, like a monitoring system, without a user."""
    return daemon.ask(SCRIPT_NAME=path, TPI_USER=None, **named)


def check_page(peer, status, kind):
    check_ended(peer)
    assert peer.status == status, peer
    assert plain_headers(peer) == {"cache-control": "no-store", "content-type": kind}
    return bytes(peer.body).decode()


def health(daemon, path=HEALTH):
    """The HTTP status and the JSON object of a health or liveness response."""
    peer = ask(daemon, path)
    assert peer.status in (200, 503)
    return peer.status, json.loads(check_page(peer, peer.status, "application/json"))


def healthy(application="off"):
    return 200, {"valkey": {"state": "connected"}, "application": {"state": application}, "draining": False,
                 "status": "ok"}


ALIVE = 200, {"status": "ok"}


def metrics_text(daemon):
    return check_page(ask(daemon, METRICS), 200, "text/plain; version=0.0.4; charset=utf-8")


def metrics(daemon):
    """Every sample by its name without the prefix and with its labels: 'ended_total{kind="issues",reason="age"}'."""
    return parse(metrics_text(daemon))


def parse(text):
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        assert SAMPLE.fullmatch(line), line
        series, value = line.rsplit(" ", 1)
        assert series not in found
        found[series.removeprefix("tpi_stream_")] = float(value)
    return found


def counters(daemon):
    """The samples that may only grow."""
    return {series: value for series, value in metrics(daemon).items() if "_total" in series}


class Growth:
    """Calling it returns the counters that have grown since the last call, or since it was made, and by how much."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.before = counters(daemon)

    def __call__(self):
        after = counters(self.daemon)
        assert set(after) == set(self.before)
        assert all(after[series] >= value for series, value in self.before.items())
        difference = {series: value - self.before[series] for series, value in after.items()
                      if value != self.before[series]}
        self.before = after
        return difference

    def expect(self, **expected):
        """Waits until exactly these counters have grown by exactly these numbers. series() expands their names."""
        wanted = {series(name): count for name, count in expected.items() if count}
        before = self.before
        got = {}

        def same():
            nonlocal got
            self.before = before
            got = self()
            return got == wanted
        try:
            eventually(same, 5)
        except AssertionError:
            raise AssertionError(f"{got} instead of {wanted}") from None


def series(name):
    """refused_cap -> refused_total{reason="cap"}; ended_issues_age, opened_issues, requests_yes, from_cache, ..."""
    word, _, rest = name.partition("_")
    if word in ("refused", "deferred"):
        return f'{word}_total{{reason="{rest}"}}'
    if word == "ended":
        kind, reason = rest.split("_", 1)
        return f'ended_total{{kind="{kind}",reason="{reason}"}}'
    if word == "opened":
        return f'opened_total{{kind="{rest}"}}'
    if word == "requests":
        return f'app_requests_total{{result="{rest}"}}'
    if word == "from":
        return f'app_queries_total{{from="{rest}"}}'
    return f"{name}_total"


@pytest.fixture
def watched(streamd):
    """daemon, counted = watched(NAME=value): a healthy daemon with TPI_STATUS=on, and its Growth. (With a VALKEY_URL of
    its own the daemon need not be healthy yet.)"""
    def start(*args, **env):
        daemon = streamd(*args, TPI_STATUS="on", **env)
        eventually(lambda: health(daemon)[0] == 200 or env.get("VALKEY_URL"), what="health")
        return daemon, Growth(daemon)
    return start


# Requests

def test_off(streamd):
    """Without TPI_STATUS=on the monitoring URLs are 404, with the same bytes as an unknown path."""
    daemon = streamd()
    unknown = ask(daemon, "/api/streams/other")
    for path in PAGES:
        peer = ask(daemon, path)
        check_answer(peer, 404)
        assert (peer.head, peer.body) == (unknown.head, unknown.body)
    check_answer(ask(streamd(TPI_STATUS="off"), HEALTH), 404)


def test_requests(watched):
    """Only GET is allowed, and only the exact paths, however they are split into SCRIPT_NAME and PATH_INFO; the query,
    the user and Last-Event-ID are ignored."""
    daemon, _ = watched()
    for path in PAGES:
        for method in "HEAD", "POST", "PUT", "OPTIONS", "get":
            check_answer(ask(daemon, path, REQUEST_METHOD=method), 405, method)
        for named in ({"QUERY_STRING": "projectId=x&verbose"}, {"HTTP_LAST_EVENT_ID": "evicted"},
                      {"TPI_USER": ["a", "b"]}, {"SCRIPT_NAME": path[:8], "PATH_INFO": path[8:]}):
            assert daemon.ask(**{"SCRIPT_NAME": path, **named}).status == 200
        for other in path + "/", path.upper(), path + "x", "/" + path, path + "?":
            check_answer(ask(daemon, other), 404)


def test_takes_no_slot(watched):
    """The monitoring URLs work while all slots are taken, and take none."""
    daemon, counted = watched(SSE_PER_TENANT_CAP=1, SSE_PER_USER_CAP=1)
    with daemon.stream():
        for path in PAGES * 3:
            assert ask(daemon, path).status == 200
        found = metrics(daemon)
        assert found['open_streams{kind="notifications"}'] == found['slots{kind="notifications"}'] == 1
        assert found['slots_limit{kind="notifications"}'] == 1 and found['slots_limit{kind="issues"}'] == 1000
        # A connection is counted until shortly after its end.
        eventually(lambda: metrics(daemon)["connections"] == 2, what="that of the stream and that of this request")
        check_answer(daemon.ask("other"), 503)
        counted.expect(opened_notifications=1, refused_cap=1)


# Health

def test_health_and_valkey(watched, new_valkey):
    """Health is 503 exactly while Valkey is unreachable and new streams are deferred; liveness stays 200."""
    valkey = new_valkey()
    daemon, counted = watched(VALKEY_URL=valkey.url)
    eventually(lambda: health(daemon)[1]["valkey"]["state"] == "unreachable", what="unreachable")
    status, body = health(daemon)
    assert (status, body) == (503, {"valkey": {"state": "unreachable"}, "application": {"state": "off"},
                                    "draining": False, "status": "unavailable", "reason": "Valkey is unreachable"})
    check_later(daemon.ask())
    assert health(daemon, LIVE) == ALIVE and metrics(daemon)["valkey_connected"] == 0
    counted.expect(deferred_valkey_unreachable=1)
    valkey.start()
    eventually(lambda: health(daemon) == healthy(), what="health")
    counted.expect(valkey_connects=1)
    with daemon.stream():
        assert metrics(daemon)["valkey_connected"] == 1 and metrics(daemon)["valkey_channels"] == 2
        valkey.kill()
        eventually(lambda: health(daemon)[0] == 503, what="503")
        assert health(daemon)[1]["valkey"]["state"] in ("connecting", "unreachable")
        eventually(lambda: health(daemon)[1]["reason"] == "Valkey is unreachable", what="away")
        check_later(daemon.ask())
        assert health(daemon, LIVE) == ALIVE
        counted.expect(opened_notifications=1, valkey_losses=1, deferred_valkey_unreachable=1)
        valkey.start()
        eventually(lambda: health(daemon) == healthy(), what="health again")
        counted.expect(valkey_connects=1)
    counted.expect(ended_notifications_closed=1)
    eventually(lambda: metrics(daemon)["valkey_channels"] == 0, what="no channels")


def test_health_and_application(with_app):
    """After a query timed out, health is 503 with the application paused, until the pause ends; liveness stays 200."""
    app, daemon = with_app(TPI_STATUS="on", TPI_APP_TIMEOUT_MS=300)
    eventually(lambda: health(daemon) == healthy("ok"), what="health")
    counted = Growth(daemon)
    app.hold(SESSION)
    check_later(daemon.ask(**by(ANN)))
    app.release()

    def paused():
        status, body = health(daemon)
        assert metrics(daemon)["app_paused"] in (0, 1) and health(daemon, LIVE) == ALIVE
        return status == 503 and body["application"]["state"] == "paused" and body
    body = eventually(paused, 2, "a pause")
    assert body["reason"] == "cannot query the application" and body["valkey"]["state"] == "connected"
    eventually(lambda: health(daemon) == healthy("ok"), 5, "the end of the pause")
    counted.expect(deferred_application=1, requests_failed=1, from_application=1, app_pauses=1)


def test_draining(watched):
    """Requests that arrive during the drain are answered: health is 503, liveness 200, and the metrics count all streams
    that the drain has ended."""
    daemon, counted = watched(TPI_PROJECT_ACCESS="allow", TPI_DRAIN_SECONDS=10)
    streams = [daemon.stream(), daemon.stream(projects="7"), daemon.stream(projects="8")]
    # The daemon does not accept new connections during the drain: send all but the last bytes before it.
    cut = -16
    peers = {}
    for path in [*PAGES, NOTIFICATIONS]:
        request = fcgi.request(fcgi.params(SCRIPT_NAME=path))
        peers[path] = fcgi.Peer(daemon.address, request[:cut]), request[cut:]
    eventually(lambda: metrics(daemon)["connections"] == 3 + len(peers) + 1, what="connections")
    before = counted.before
    daemon.signal(15)
    wait_all(streams, lambda p: p.closed, what="the end")
    for path in NOTIFICATIONS, HEALTH, LIVE, METRICS:
        peer, rest = peers[path]
        peer.send(rest)
        peer.wait_end()
    check_later(peers[NOTIFICATIONS][0])
    peer = peers[HEALTH][0]
    body = json.loads(check_page(peer, 503, "application/json"))
    assert body["draining"] is True and (body["status"], body["reason"]) == ("unavailable", "draining")
    assert json.loads(check_page(peers[LIVE][0], 200, "application/json")) == ALIVE[1]
    after = parse(check_page(peers[METRICS][0], 200, "text/plain; version=0.0.4; charset=utf-8"))
    for name, count in {"ended_notifications_drained": 1, "ended_issues_drained": 2, "deferred_draining": 1}.items():
        assert after[series(name)] - before[series(name)] == count, name
    assert daemon.wait() == 0


PTRACE_ATTACH, PTRACE_DETACH = 16, 17


@contextlib.contextmanager
def stopped_thread(tid):
    """Stops one thread of another process in the context."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_ATTACH, tid, None, None) == -1:
        pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
    os.waitpid(tid, 0x40000000)  # __WALL
    try:
        yield
    finally:
        libc.ptrace(PTRACE_DETACH, tid, None, None)


def subscriber_thread(daemon):
    """The thread other than the main thread that waits in poll() for two descriptors."""
    for tid in map(int, os.listdir(f"/proc/{daemon.pid}/task")):
        with open(f"/proc/{daemon.pid}/task/{tid}/syscall", encoding="ascii") as file:
            words = file.read().split()
        if tid != daemon.pid and words[0] == "7" and int(words[2], 16) == 2:
            return tid
    return None


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="subscriber_thread() has the number of poll() of x86-64")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can trace the daemon")
def test_not_alive(watched):
    """While the subscriber thread has been stuck for 10 s, liveness and health are 503; afterwards both recover."""
    daemon, _ = watched()
    with stopped_thread(eventually(lambda: subscriber_thread(daemon), what="the subscriber thread")):
        assert health(daemon, LIVE) == ALIVE
        eventually(lambda: health(daemon, LIVE)[0] == 503, 20, "not alive")
        assert health(daemon, LIVE)[1] == {"status": "unavailable",
                                           "reason": "the thread that reads from Valkey is stuck"}
        status, body = health(daemon)
        assert status == 503 and "stuck" in body["reason"]
    eventually(lambda: health(daemon, LIVE) == ALIVE and health(daemon) == healthy(), what="alive again")


# Metrics

def test_format(watched):
    """promtool accepts the metrics without a remark, at the start and after some requests."""
    daemon, _ = watched()
    texts = [metrics_text(daemon)]
    daemon.stream().close()
    daemon.ask(TPI_USER=None)
    texts.append(metrics_text(daemon))
    for text in texts:
        done = subprocess.run([promtool(), "check", "metrics"], input=text, capture_output=True, text=True,
                              timeout=scaled(60), check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert 'build_info{version="' in texts[0] and 'tenant="default"' in texts[0]


def test_time(watched, valkey):
    """The start time is in seconds since the epoch, and the age of the last message in seconds."""
    daemon, _ = watched()
    assert abs(metrics(daemon)["start_time_seconds"] - time.time()) < scaled(30)
    with daemon.stream("clock") as peer:
        eventually(lambda: metrics(daemon)["last_message_age_seconds"] > 0.5, what="age")
        before = time.monotonic()
        valkey.publish(user_channel("clock"), notification(1))
        peer.wait_data(notification(1))
        # The daemon counts a message only after passing it to the streams.
        eventually(lambda: metrics(daemon)["last_message_age_seconds"] <= time.monotonic() - before + 0.002,
                   what="the age of the message")
        age = metrics(daemon)["last_message_age_seconds"]
        eventually(lambda: metrics(daemon)["last_message_age_seconds"] > age + 0.3, what="age")


def test_streams_and_events(watched, valkey):
    """Streams opened and ended, messages received and dropped, and events sent are each counted exactly."""
    daemon, counted = watched(TPI_PROJECT_ACCESS="allow", SSE_ISSUES_PER_USER_CAP=10000)
    watchers = daemon.streams(5, projects="7,8") + daemon.streams(2, projects="8")
    ann = daemon.stream("ann")
    counted.expect(opened_issues=7, opened_notifications=1)
    found = metrics(daemon)
    assert found['open_streams{kind="issues"}'] == found['slots{kind="issues"}'] == 7
    assert found["valkey_channels"] == 6  # two of each project, ann's, and the broadcasts'
    for number in range(3):
        valkey.publish(project_channel(8), issue(number, 8))
    valkey.publish(project_channel(7), issue(9, 7))
    valkey.publish(user_channel("ann"), notification(1))
    valkey.publish(broadcast_channel(), notification(2))
    valkey.publish(user_channel("nobody"), notification(3))
    for payload in "{", '{"event":"sync"}', "[]":
        valkey.publish(project_channel(8), payload)
    last = issue(10, 8)
    valkey.publish(project_channel(8), last)
    wait_all(watchers, lambda p: last in p.events.data, what="the last one")
    ann.wait_data(notification(2))
    # How many messages the daemon got in one read, and therefore merged, varies.
    sent = 4 * 7 + 5 + 2
    eventually(lambda: counters(daemon)["events_sent_total"] == sent, what="all sent")
    merged = counters(daemon)["events_merged_total"]
    assert merged < sent
    counted.expect(messages=10, messages_dropped=3, events_sent=sent, events_merged=merged)
    found = metrics(daemon)
    assert 1 <= found["fanout_seconds_count"] <= 7
    assert found["fanout_seconds_count"] == found['fanout_seconds_bucket{le="+Inf"}']
    assert 0 < found["fanout_seconds_sum"] < scaled(7)
    for peer in watchers:
        peer.close()
    counted.expect(ended_issues_closed=7)
    eventually(lambda: metrics(daemon)['open_streams{kind="issues"}'] == 0, what="no open streams")
    assert metrics(daemon)['open_streams{kind="notifications"}'] == 1
    eventually(lambda: metrics(daemon)['slots{kind="issues"}'] == 0, what="free slots")


def test_merged(watched, valkey):
    """Messages that Valkey delivers at once are written to a stream at once, and counted as merged."""
    daemon, counted = watched(TPI_PROJECT_ACCESS="allow")
    peers = daemon.streams(3, projects="7")
    counted()
    script = "for i = 1, ARGV[1] do redis.call('PUBLISH', KEYS[1], '{\"n\":' .. i .. '}') end"
    valkey("EVAL", script, "1", project_channel(7), "10")
    wait_all(peers, lambda p: '{"n":10}' in p.events.data, what="all")
    counted.expect(messages=10, events_sent=30, events_merged=27)
    assert metrics(daemon)["fanout_seconds_count"] == 1


def test_refused(watched, rundir):
    """Each refused request is counted once, with its reason."""
    rules = os.path.join(rundir, "rules")
    with open(rules, "w", encoding="ascii") as file:
        file.write("7 ann\n")
    daemon, counted = watched(TPI_PROJECT_ACCESS=f"file:{rules}", SSE_ISSUES_PER_TENANT_CAP=1)
    for reason, status, named in [
            ("path", 404, {"SCRIPT_NAME": "/x"}), ("method", 405, {"REQUEST_METHOD": "POST"}),
            ("parameters", 400, {"projects": "x"}), ("parameters", 400, {"SCRIPT_NAME": ISSUES}),
            ("user", 400, {"TPI_USER": "a b"}), ("user", 400, {"TPI_USER": ["a", "b"]}),
            ("anonymous", 401, {"TPI_USER": None}),
            ("anonymous", 401, {"TPI_USER": None, "REMOTE_USER": "ann"}),
            ("projects", 404, {"user": "ben", "projects": "7"}),
            ("method", 405, {"SCRIPT_NAME": METRICS, "REQUEST_METHOD": "HEAD"})]:
        check_answer(daemon.ask(**named), status, named.get("REQUEST_METHOD"))
        counted.expect(**{f"refused_{reason}": 1})
    with daemon.stream("ann", projects="7"):
        for _ in range(3):
            check_answer(daemon.ask("ann", projects="7"), 503)
        counted.expect(opened_issues=1, refused_cap=3)
    counted.expect(ended_issues_closed=1)


def test_ended(watched):
    """A stream that is evicted, aborted or closed is counted as ended with that reason, and a reconnect of an evicted
    stream as deferred."""
    daemon, counted = watched(SSE_PER_USER_CAP=2)
    peers = [daemon.stream() for _ in range(4)]
    for peer in peers[:2]:
        check_evicted(peer.wait_end())
    counted.expect(opened_notifications=4, ended_notifications_evicted=2)
    check_still_evicted(daemon.ask(HTTP_LAST_EVENT_ID="evicted"))
    counted.expect(deferred_evicted=1)
    assert metrics(daemon)['open_streams{kind="notifications"}'] == 2
    peers[2].send(fcgi.record(fcgi.ABORT))
    peers[3].close()
    counted.expect(ended_notifications_closed=2)


def test_ended_by_age(watched):
    """A stream that reaches its maximum age is counted as ended with that reason."""
    daemon, counted = watched(SSE_MAX_AGE_SECONDS=10)
    daemon.stream().wait_end(20)
    counted.expect(opened_notifications=1, ended_notifications_age=1)


def test_ended_by_valkey(watched, new_valkey):
    """A stream whose channel Valkey refuses after a reconnect is counted as ended with that reason. (Valkey itself closes
    the connection of a user who loses a channel.)"""
    valkey = new_valkey().start()
    daemon, counted = watched(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow")
    eventually(lambda: health(daemon) == healthy(), what="health")
    with daemon.stream(projects="7") as peer:
        counted()
        valkey("ACL", "SETUSER", "default", "resetchannels", "&notifications:*")
        peer.wait_end()
    counted.expect(valkey_losses=1, valkey_connects=1, ended_issues_valkey_refused=1)


def test_ended_by_recheck(watched, rundir):
    """A stream whose re-check finds no readable project is counted as ended with that reason."""
    rules = os.path.join(rundir, "rules")

    def write(text):
        with open(rules + ".new", "w", encoding="ascii") as file:
            file.write(text)
        os.rename(rules + ".new", rules)
    write("7 ann\n")
    daemon, counted = watched(TPI_PROJECT_ACCESS=f"file:{rules}", TPI_RECHECK_SECONDS=5)
    peer = daemon.stream("ann", projects="7")
    write("8 ann\n")
    peer.wait_end(15)
    counted.expect(opened_issues=1, ended_issues_revoked=1)


def big(number, size=1000):
    return f'{{"id":"{number}","event":"notification","x":"{"x" * size}"}}'


def test_overflow_and_stall(watched, valkey):
    """Each overflow of a backlog is counted, and a reader that takes nothing as stalled."""
    daemon, counted = watched(SSE_STALL_MS=int(scaled(6000)), SSE_BACKLOG_BYTES=16384)
    slow = daemon.stream("ann", rcvbuf=4096)
    with daemon.stream("pacer") as pacer:
        counted()
        for number in range(100):
            valkey.publish_all(user_channel("ann"), [big(number) for _ in range(20)])
            valkey.publish(user_channel("pacer"), notification(number))
            pacer.wait_data(notification(number))
        # A backlog of 16384 bytes holds 15 of these payloads, then a sync and 15 or 16 more, and so on.
        overflows = counters(daemon)["backlog_overflows_total"]
        kept = len(daemon.matching("slow reader"))
        assert kept >= 1 and 60 < overflows < 2000 / 15
    eventually(lambda: counters(daemon)[series("ended_notifications_stalled")] == 1, 20, "the stalled reader's end")
    slow.close()


def test_deferred(watched, new_valkey):
    """Requests that are deferred are counted by reason: Valkey refuses a channel, does not confirm it, or a
    newer request of the user takes the slot."""
    valkey = new_valkey(config=["--user default on nopass +@all ~* resetchannels &notifications:*"])
    valkey.start()
    daemon, counted = watched(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow", SSE_PER_USER_CAP=1)
    eventually(lambda: health(daemon) == healthy(), what="health")
    counted()
    check_later(daemon.ask(projects="7"))
    counted.expect(deferred_valkey_refused=1)
    valkey.pause()
    try:
        peers = [daemon.open() for _ in range(3)]
        wait_all(peers, lambda p: p.closed, 15, "the end")
        for peer in peers:
            check_later(peer)
        counted.expect(deferred_cancelled=1, deferred_valkey_silent=2)
    finally:
        valkey.resume()


def test_application(with_app):
    """Queries are counted by the source of the response, requests to the application by the result."""
    app, daemon = with_app(TPI_STATUS="on", TPI_APP_CACHE_SECONDS=300)
    eventually(lambda: health(daemon) == healthy("ok"), what="health")
    counted = Growth(daemon)
    listen(daemon, **by(ANN)).close()
    counted.expect(opened_notifications=1, ended_notifications_closed=1, from_application=1, requests_yes=1)
    listen(daemon, **by(ANN, projects="7")).close()
    counted.expect(opened_issues=1, ended_issues_closed=1, from_cache=1, from_application=1, requests_yes=1)
    check_answer(daemon.ask(**by("SECRET-nobody")), 401)
    counted.expect(refused_anonymous=1, from_application=1, requests_no=1)
    check_answer(daemon.ask(**by(ANN, projects="7", HTTP_SEC_FETCH_SITE="none")), 404)
    counted.expect(refused_projects=1, from_application=2, requests_yes=1, requests_forbidden=1)
    app.faults[SESSION] = says(b"<html>")
    check_later(daemon.ask(**by(BEN)))
    counted.expect(deferred_application=1, from_application=1, requests_wrong=1)
    app.faults.clear()
    app.hold(SESSION)
    cat = app.sign_in("SECRET-cat", "cat")
    peers = [daemon.open(**by(cat)) for _ in range(3)]
    counted.expect(from_application=1, from_in_flight=2)
    app.release()
    wait_all(peers, fcgi.live, what="sync")
    counted.expect(requests_yes=1, opened_notifications=3)


unsanitized = pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the functions themselves")


@unsanitized
def test_out_of_resources(watched, rundir):
    """A request without memory is counted as deferred, a connection without a thread as refused."""
    faults = Faults(rundir)
    daemon, counted = watched(**faults.environment)
    faults.arm("sendmsg")
    check_later(daemon.ask())
    counted.expect(deferred_resources=1)
    faults.arm("pthread_create")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        assert daemon.ask().status is None
    counted.expect(connections_refused=1)


@unsanitized
@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("function", ["malloc", "calloc", "realloc"])
def test_out_of_memory(watched, rundir, function, path):
    """Whichever allocation fails, the response is complete, 503, or retry later, and the next one is complete."""
    faults = Faults(rundir)
    daemon, _ = watched(**faults.environment)
    for countdown in range(1, 80):
        faults.arm(function, countdown)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # no memory for the connection
            peer = ask(daemon, path)
            if peer.status == 503:
                check_ended(peer)
                assert json.loads(peer.body) == {"error": "out of memory"}
            elif peer.status == 200 and peer.header("Content-Type") == "text/event-stream":
                check_later(peer)
            elif peer.status is not None:
                check_complete(peer, path)
        failed = faults.failed
        faults.disarm()
        check_complete(ask(daemon, path), path)
        if not failed:  # every call has failed once
            break
    assert not failed and (countdown > 1 or (function, path) == ("realloc", CONNECTIONS))  # an empty list needs none


def check_complete(peer, path):
    check_ended(peer)
    assert peer.status == 200
    if path == CONNECTIONS:
        assert not peer.body
    elif path == METRICS:
        assert parse(bytes(peer.body).decode())[series("requests_failed")] == 0 and peer.body.endswith(b"\n")
    else:
        assert json.loads(peer.body)["status"] == "ok"


# The list of open streams

def connections(daemon):
    """The open streams, each an object."""
    return [json.loads(line) for line in check_page(ask(daemon, CONNECTIONS), 200, "application/x-ndjson").splitlines()]


def check_documented_commands(listed, rundir):
    """The commands of the documents find something in this list, except those that look for idle streams."""
    with open(os.path.join(rundir, "streams"), "wb") as file:
        file.write(listed)
    commands = []
    for name in "monitoring", "troubleshooting":
        with open(os.path.join(servers.ROOT, "doc", f"{name}.md"), encoding="utf-8") as file:
            commands += re.findall(r"`(jq [^`]+)`|^    (jq .* streams .*)$", file.read(), re.M)
    assert len(commands) == 7
    for command in ("".join(pair).replace("\\|", "|") for pair in commands):
        done = subprocess.run(command, shell=True, cwd=rundir, capture_output=True, text=True, check=True)
        assert not done.stderr and (done.stdout or "3600" in command), command


def test_connections(watched, valkey, rundir):
    """Each open stream is a line with its group, user, topics, age in seconds, wake-ups, and backlog in bytes; requests
    that have no stream are not listed."""
    daemon, _ = watched(TPI_PROJECT_ACCESS="allow", SSE_PER_USER_CAP=1, SSE_BACKLOG_BYTES=1000000)
    assert connections(daemon) == []
    odd = "<b>'&$(id)`%0a{},;~"
    silent = fcgi.Peer(daemon.address, fcgi.begin())  # has sent no parameters yet
    peers = [daemon.stream(odd), daemon.stream("ann", SCRIPT_NAME=ISSUES, QUERY_STRING="projectIds=8,7"),
             daemon.stream("u1", rcvbuf=4096, SCRIPT_NAME="/api/milestones/3/stream"),
             daemon.stream("ann", SCRIPT_NAME="/api/stream", QUERY_STRING="issues=7&notifications=1&testRuns=5&"
                           "projectTestRuns=4&milestones=3&projectMilestones=2")]
    valkey.publish_all(project_channel(7), [issue(number, 7) for number in range(3)])
    for peer in (peers[1], peers[3]):
        peer.wait_body(issue(2, 7).encode())
    big = json.dumps({"event": "milestone.updated", "milestoneId": 3, "projectId": 1, "x": "x" * 10000})
    valkey.publish_all("live:tenant:default:milestone:3", [big] * 30)
    peers[3].wait(lambda p: p.body.count(big.encode()) == 30, what="all wake-ups")

    def listed():
        return sorted(connections(daemon), key=lambda line: line["group"])
    eventually(lambda: [line["events"] for line in listed()] == [33, 3, 30, 0], what="all wake-ups counted")
    found = listed()
    assert all(list(line) == ["group", "user", "topics", "age", "events", "backlog"] for line in found)
    assert all(0 <= line.pop("age") < scaled(60) for line in found)
    backlog = found[2].pop("backlog")
    assert found == [
        {"group": "combined", "user": "ann", "events": 33, "backlog": 0, "topics": [
            "notifications", "issues:7", "testRuns:5", "projectTestRuns:4", "milestones:3", "projectMilestones:2"]},
        {"group": "issues", "user": "ann", "topics": ["issues:7", "issues:8"], "events": 3, "backlog": 0},
        {"group": "live", "user": "u1", "topics": ["milestones:3"], "events": 30},
        {"group": "notifications", "user": odd, "topics": ["notifications"], "events": 0, "backlog": 0}]
    assert 10000 < backlog < 30 * len(big)
    check_documented_commands(ask(daemon, CONNECTIONS).body, rundir)
    eventually(lambda: all(line["age"] >= 1 for line in listed()), what="a second")
    for peer in (silent, *peers[:3]):
        peer.close()
    eventually(lambda: [line["group"] for line in listed()] == ["combined"], what="the closed ones are gone")


# 500 topics with long ids, so that few streams make a long list.
MANY_RUNS = "testRuns=" + ",".join(str(2147483647 - number) for number in range(500))


def resident(process):
    """The memory of a process in bytes."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def test_connections_slow_reader(watched, valkey):
    """A reader that does not read the list delays no stream, costs little memory, and is cut off after SSE_STALL_MS,
    or at once when the daemon stops."""
    daemon, _ = watched(TPI_PROJECT_ACCESS="allow", SSE_STALL_MS=5000, SSE_PER_USER_CAP=100,
                        SSE_COMBINED_PER_USER_CAP=100)
    peers = daemon.streams(100, SCRIPT_NAME="/api/stream", QUERY_STRING=MANY_RUNS)
    before = resident(daemon)
    started = time.monotonic()
    slow = [daemon.open(SCRIPT_NAME=CONNECTIONS, TPI_USER=None, rcvbuf=4096) for _ in range(20)]
    for number in range(10):
        with daemon.stream("ann") as peer:
            valkey.publish(user_channel("ann"), notification(number))
            peer.wait_data(notification(number))
    assert time.monotonic() - started < 5, "the readers were closed before"
    if "TPI_SANITIZED" not in os.environ:
        assert resident(daemon) - before < 20 * 128 * 1024, "20 lists of 1 MB each"
    eventually(lambda: metrics(daemon)["connections"] == len(peers) + 1, 20, "the slow readers are closed")
    assert time.monotonic() - started > 4.9
    for peer in slow:
        peer.wait_end()
        assert peer.status == 200 and not peer.ended and len(peer.body) < 1000000
    assert len(connections(daemon)) == 100
    for peer in peers:
        peer.close()


def blocked(peer):
    """Whether the daemon has sent something, but nothing for a while: the buffer of the peer's socket is full."""
    def unread():
        return struct.unpack("i", fcntl.ioctl(peer, termios.FIONREAD, bytes(4)))[0]
    before = unread()
    time.sleep(scaled(0.2))
    return 0 < before == unread()


def test_connections_ends(watched):
    """A reader that goes away while the list is sent frees its thread, and one that does not read it does not delay
    the daemon's exit."""
    daemon, _ = watched(TPI_PROJECT_ACCESS="allow", TPI_DRAIN_SECONDS=30, SSE_COMBINED_PER_USER_CAP=100)
    peers = daemon.streams(50, SCRIPT_NAME="/api/stream", QUERY_STRING=MANY_RUNS)
    slow = [daemon.open(SCRIPT_NAME=CONNECTIONS, TPI_USER=None, rcvbuf=4096) for _ in range(2)]
    eventually(lambda: metrics(daemon)["connections"] == 53, what="both lists are being sent")
    slow[0].close()
    eventually(lambda: metrics(daemon)["connections"] == 52, what="one ends")
    # Before the streams end: a list of few streams would fit into the socket's buffer.
    eventually(lambda: blocked(slow[1]), what="a full buffer of the other")
    assert daemon.stop() < 10
    assert not slow[1].wait_end().ended
    for peer in peers:
        peer.close()


# Under load

def test_concurrent_scrapes(watched):
    """Concurrent responses, while streams open and close, are complete, and no counter decreases; the list has every
    stream that was open all the time once."""
    daemon, _ = watched(SSE_PER_USER_CAP=10000)
    lasting = daemon.streams(20, "lasting")
    errors, done = [], threading.Event()
    scrapes = [0]

    def scrape():
        try:
            last = {}
            while not done.is_set():
                now = counters(daemon)
                assert all(now[name] >= value for name, value in last.items()), "a counter went back"
                assert set(now) >= set(last)
                last = now
                assert health(daemon) == healthy() and health(daemon, LIVE) == ALIVE
                listed = connections(daemon)
                assert sum(line["user"] == "lasting" for line in listed) == 20
                scrapes[0] += 1
        except BaseException as error:  # pylint: disable=broad-except
            errors.append(error)
    threads = [threading.Thread(target=scrape) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        for peer in daemon.streams(20):
            peer.close()
    eventually(lambda: scrapes[0] >= 20 or errors, 60, "scrapes")
    done.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    found = counters(daemon)
    assert found['opened_total{kind="notifications"}'] == 200 + len(lasting)
    eventually(lambda: counters(daemon)[series("ended_notifications_closed")] == 200, what="ends")


@pytest.mark.slow
def test_many_streams(watched, valkey):
    """With 1000 open streams, scrapes neither delay wake-ups noticeably nor lose any."""
    daemon, counted = watched(SSE_PER_USER_CAP=10000)
    peers = daemon.streams(1000)
    counted.expect(opened_notifications=1000)
    done = threading.Event()
    times = {False: [], True: []}
    listed = []

    def publish(scraping):
        for number in range(20):
            payload = notification(f"{scraping}-{number}")
            started = time.monotonic()
            valkey.publish(user_channel("u1"), payload)
            wait_all(peers, lambda p, wanted=payload: p.events.data[-1] == wanted, 30, payload)
            times[scraping].append(time.monotonic() - started)
    publish(False)

    def scrape():
        while not done.is_set():
            metrics(daemon)
            listed.append(len(connections(daemon)))
            time.sleep(0.02)
    thread = threading.Thread(target=scrape)
    thread.start()
    publish(True)
    done.set()
    thread.join()
    alone, with_scrapes = (statistics.median(times[scraping]) for scraping in (False, True))
    assert with_scrapes < 3 * alone + scaled(0.2), (alone, with_scrapes)
    assert set(listed) == {1000}
    counted.expect(messages=40, events_sent=40000)
    assert all(len(peer.events.data) == 41 and not peer.closed for peer in peers)
    for peer in peers:
        peer.close()
    counted.expect(ended_notifications_closed=1000)


# The web servers

FRONTS = {"Apache": (Apache, f'Include "{CONTRIB}/apache/tpi-stream-status.conf"'),
          "nginx": (Nginx, "include tpi-stream/tpi-stream-status.conf;")}
both = pytest.mark.parametrize("server, snippet", FRONTS.values(), ids=FRONTS)
OPEN = ["--mode", "0666"]


@pytest.fixture
def fronts():
    """A list of web servers; the fixture stops them."""
    started = []
    yield started
    for process in started:
        process.kill()


def through(front, path, source="127.0.0.1", method="GET", address=None, **headers):
    connection = http.client.HTTPConnection(*(address or front.address), timeout=scaled(20), source_address=(source, 0))
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)
    finally:
        connection.close()


@both
@pytest.mark.parametrize("auth", ["basic", "app"])
def test_not_exposed_by_default(watched, rundir, fronts, server, snippet, auth):
    """The web-server files for the streams do not expose the monitoring URLs."""
    daemon, counted = watched(OPEN)
    fronts.append(server(rundir, daemon.address, auth=auth))
    for path in PAGES:
        for given in path, path + "?x", path.replace("/api", "//api"), path.replace("streams", "%73treams"):
            assert through(fronts[0], given)[0] == 404
    counted.expect()


@both
def test_only_local_access(watched, rundir, fronts, server, snippet):
    """With tpi-stream-status.conf, the monitoring URLs answer this host only: not another address, nor a proxy."""
    daemon, _ = watched(OPEN)
    front = server(rundir, daemon.address, site=snippet)
    fronts.append(front)
    for path in PAGES:
        status, body, headers = through(front, path)
        assert status == 200 and headers["Cache-Control"] == "no-store"
        assert body.startswith({METRICS: b"# HELP tpi_stream_", CONNECTIONS: b""}.get(path, b"{"))
        assert through(front, path, source="127.0.0.2")[0] == 403
        assert through(front, path, **{"X-Forwarded-For": "127.0.0.1"})[0] == 403
        assert through(front, path, method="POST")[0] == 405
        assert through(front, path + "/")[0] == 404
    assert through(front, METRICS)[2]["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert through(front, NOTIFICATIONS)[0] == 401
    daemon.stop()
    assert through(front, LIVE)[0] in (502, 503)


@pytest.mark.parametrize("server", [Lighttpd, Haproxy, Caddy])
def test_other_fronts_only_local_access(watched, rundir, fronts, server):
    """The same with the status files of the other web servers."""
    require(server)
    daemon, _ = watched(OPEN)
    front = server(rundir, daemon.address, status=True)
    fronts.append(front)

    def ask(path, **named):
        return through(front, path, address=front.status_address, **named)
    for path in PAGES:
        status, body, headers = ask(path)
        assert status == 200
        assert {name.lower(): value for name, value in headers.items()}["cache-control"] == "no-store"
        assert body.startswith({METRICS: b"# HELP tpi_stream_", CONNECTIONS: b""}.get(path, b"{"))
        assert ask(path, source="127.0.0.2")[0] == 403
        assert ask(path, **{"X-Forwarded-For": "127.0.0.1"})[0] == 403
    assert through(front, NOTIFICATIONS)[0] == 401
    daemon.stop()
    assert ask(LIVE)[0] in (502, 503)


@pytest.mark.parametrize("first", ["streams", "status"])
@pytest.mark.parametrize("over", ["unix", "tcp"])
def test_apache_keeps_both_time_limits(streamd, rundir, fronts, over, first):
    """Whichever of the two files comes first, each keeps its own timeout: a stream outlives the 3 s of health."""
    include, define = FRONTS["Apache"][1], ""
    if over == "tcp":
        daemon = streamd(inherit=[listening_socket(("127.0.0.1", 0))], TPI_STATUS="on", SSE_HEARTBEAT_MS=4500)
        define = f'Define TPI_STATUS_BACKEND "fcgi://localhost:{daemon.address[1]}"'
    else:
        daemon = streamd(OPEN, TPI_STATUS="on", SSE_HEARTBEAT_MS=4500)
    front = Apache(rundir, daemon.address, **{
        "site": f"{define}\n{include if first == 'status' else ''}", "after": include if first == "streams" else ""})
    fronts.append(front)
    with servers.http(front.address, NOTIFICATIONS, Authorization=basic("ann", "ann")) as peer:
        peer.wait_live(20)
        assert through(front, HEALTH)[0] == 200
        peer.wait_body(PING)
        assert not peer.closed
    assert "AH01146" not in front.log() and "worker sharing" not in front.log()


@both
def test_front_passes_503(watched, rundir, fronts, server, snippet):
    """The web servers pass on the daemon's 503 with its reason."""
    daemon, _ = watched(OPEN, VALKEY_URL=f"unix://{rundir}/none")
    front = server(rundir, daemon.address, site=snippet)
    fronts.append(front)
    eventually(lambda: b"Valkey is unreachable" in through(front, HEALTH)[1], what="the reason")
    assert through(front, HEALTH)[0] == 503 and through(front, LIVE)[0] == 200


# contrib/prometheus

PROMETHEUS = f"{CONTRIB}/prometheus"


def promtool():
    found = shutil.which("promtool", path=PATH)
    assert found, "promtool is not installed: contrib/install-deps.sh test"
    return found


@pytest.mark.parametrize("arguments", [("check", "config", "scrape.yml"), ("check", "rules", "alerts.yml"),
                                       ("test", "rules", "alerts_test.yml")], ids=" ".join)
def test_promtool(arguments):
    """promtool accepts the scrape configuration and the alerts, and the tests of the alerts pass."""
    done = subprocess.run([promtool(), *arguments], cwd=PROMETHEUS, capture_output=True, text=True,
                          timeout=scaled(60), check=False)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def load(name):
    with open(os.path.join(PROMETHEUS, name), encoding="utf-8") as file:
        return json.load(file) if name.endswith(".json") else yaml.safe_load(file)


def expressions(value):
    """All expressions of a dashboard."""
    if isinstance(value, dict):
        for name, entry in value.items():
            if name in ("expr", "query") and isinstance(entry, str):
                yield entry
            else:
                yield from expressions(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from expressions(entry)


def exported(daemon):
    """The names and labels of all metrics: {name: {label: values}}."""
    found = {}
    for line in metrics_text(daemon).splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            labels = found.setdefault(match["name"], {})
            for label, value in re.findall(r'(\w+)="([^"]*)"', match["labels"] or ""):
                labels.setdefault(label, set()).add(value)
    return found


def rules():
    group, = load("alerts.yml")["groups"]
    return group["rules"]


def test_names(watched):
    """The daemon exports each metric, label and value that the alerts, their tests and the dashboard use, and the
    dashboard shows every metric."""
    known = exported(watched()[0])
    alerts = [rule["expr"] for rule in rules()]
    tests = [entry["series"] for test in load("alerts_test.yml")["tests"] for entry in test["input_series"]]
    board = list(expressions(load("dashboard.json")))
    for text in alerts + tests + board:
        for name, labels in re.findall(r"\b(tpi_stream_\w+)(?:\{([^}]*)\})?", text):
            assert name in known, f"{name} in {text}"
            for label, how, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', labels):
                if label in ("job", "instance"):
                    continue
                values = known[name][label]
                assert all(word in values for word in value.split("|")), f"{label}{how}{value} in {text}"
        for label in re.findall(r"by \(([^)]*)\)", text):
            wanted = set(label.split(", ")) - {"job", "instance", "alertname"}
            assert all(wanted <= set(known[name]) for name in re.findall(r"\btpi_stream_\w+", text)), text
    shown = set(re.findall(r"\btpi_stream_\w+", " ".join(board)))
    assert shown == set(known)


def test_alerts():
    """Each alert has a summary, a description, an action and a severity, and fires in exactly one test."""
    tested = re.findall(r"alertname=\"(\w+)\"", json.dumps(load("alerts_test.yml")).replace("\\", ""))
    assert sorted(tested) == sorted(rule["alert"] for rule in rules())
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description", "action"}
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_dashboard():
    """The dashboard can be imported anywhere: it has no id, all panels use the variable for the data source, every
    variable is defined, and panels do not overlap."""
    board = load("dashboard.json")
    assert "id" not in board and board["uid"] and board["schemaVersion"]
    variables = {entry["name"]: entry for entry in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    cells, ids = set(), set()
    for panel in board["panels"]:
        ids.add(panel["id"])
        assert panel["title"] and panel["targets"]
        for entry in [panel, *panel["targets"]]:
            assert entry["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        grid = panel["gridPos"]
        covered = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"])
                   for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not covered & cells and max(x for x, _ in covered) < 24
        cells |= covered
    assert len(ids) == len(board["panels"])
    for text in expressions(board["panels"]):
        assert set(re.findall(r"\$(\w+)", text)) <= set(variables) | {"__rate_interval"}


def test_kubernetes():
    """The scrape configuration finds the pods by a label and a port name that the manifest has."""
    job, = load("scrape-kubernetes.yml")["scrape_configs"]
    keep = job["relabel_configs"][0]
    with open(f"{CONTRIB}/kubernetes/deployment.yaml", encoding="utf-8") as file:
        template = yaml.safe_load(file)["spec"]["template"]
    ports = [port["name"] for container in template["spec"]["containers"] for port in container.get("ports", ())]
    label, port = keep["regex"].split(";")
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == label and port in ports
    assert keep["action"] == "keep" and job["metrics_path"] == METRICS
