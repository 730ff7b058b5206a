# SPDX-License-Identifier: ISC
"""The log: metric lines on standard output, messages on standard error."""

import datetime
import json
import math
import re
import socket
import time

import pytest

import fcgi
from answers import check_answer, notification
from fcgi import Peer
from servers import project_channel, run_streamd, user_channel
from timing import eventually, scaled

KEYS = ["metric", "tenantId", "count", "podId", "ts"]
LINE = re.compile(r"[\x20-\x7e]*")


def check_lines(daemon):
    """Checks that each line is printable ASCII."""
    for line in daemon.lines["stderr"] + daemon.lines["stdout"]:
        assert LINE.fullmatch(line), line


def metric(line):
    found = json.loads(line)
    assert list(found) == KEYS and " " not in line
    assert found["podId"] == socket.gethostname()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["ts"])
    logged = datetime.datetime.fromisoformat(found["ts"].replace("Z", "+00:00"))
    assert abs((datetime.datetime.now(datetime.timezone.utc) - logged).total_seconds()) < scaled(60)
    return found["metric"], found["count"], found["tenantId"]


def test_metrics(streamd):
    """Each kind with an open stream, and no other, gets a metric line with exactly the documented keys."""
    daemon = streamd(SSE_METRICS_MS=200, TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID="acme")
    time.sleep(scaled(0.7))
    assert daemon.stdout == "", "a metric line without a stream"
    peers = [daemon.stream(f"u{number}") for number in range(3)]
    daemon.wait_for_log('"count":3', stream="stdout")
    assert {metric(line)[0] for line in daemon.lines["stdout"]} == {"sse.connections.active"}
    issues = daemon.stream(projects="7,8,9")
    daemon.wait_for_log(r"sse\.issues\.connections\.active", stream="stdout")
    start = daemon.mark("stdout")
    daemon.wait_for_log("", stream="stdout", start=start, count=4)
    lines = [metric(line) for line in daemon.lines["stdout"][start:]]
    assert set(lines) == {("sse.connections.active", 3, "acme"), ("sse.issues.connections.active", 1, "acme")}
    for peer in peers:
        peer.close()
    eventually(lambda: all("sse.issues" in line for line in daemon.lines["stdout"][-2:]),
               what="metrics without the closed streams")
    start = daemon.mark("stdout")
    daemon.wait_for_log(r"sse\.issues", stream="stdout", start=start, count=2)
    assert not daemon.matching(r"sse\.connections", "stdout", start)
    issues.close()


def test_a_stream_counts_from_its_sync(streamd, new_valkey):
    """A request that waits for its subscription is not counted as an active stream."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_METRICS_MS=100)
    daemon.stream("x").close()
    valkey.wait_subscribers(user_channel("x"), 0)
    valkey.pause()
    with daemon.open("ann") as peer:
        peer.quiet(0.3)
        start = daemon.mark("stdout")
        peer.quiet(1)
        assert daemon.lines["stdout"][start:] == []
        valkey.resume()
        peer.wait_live()
        daemon.wait_for_log('"count":1', stream="stdout", start=start)


def test_subscribe_failed(streamd, new_valkey):
    """The warning about a failed subscription has the exact tag and keys of each kind."""
    daemon = streamd(VALKEY_URL=new_valkey().url, TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID="acme")
    daemon.ask("ann")
    daemon.ask("bob", projects="8,7,8")
    for tag, keys, user in [("notifications", ["tenantId", "userId", "error"], "ann"),
                            ("issues", ["tenantId", "userId", "error", "projectIds"], "bob")]:
        line = daemon.wait_for_log(rf"^\[sse/{tag}\] subscribe failed \{{")
        found = json.loads(line.split("failed ", 1)[1])
        assert sorted(found) == sorted(keys)
        assert (found["tenantId"], found["userId"]) == ("acme", user) and found["error"]
        assert sorted(found.get("projectIds", [7, 8])) == [7, 8]


def test_many_failed(streamd, new_valkey):
    """There are at most 50 of these warnings a second; a later one counts those left out."""
    daemon = streamd(VALKEY_URL=new_valkey().url, SSE_PER_USER_CAP=1000)
    asked = 200
    started = time.monotonic()
    fcgi.wait_all([daemon.open("ann") for _ in range(asked)], lambda peer: peer.closed, what="the end")
    daemon.wait_for_log("subscribe failed", count=50)
    lines = len(daemon.matching("subscribe failed"))
    assert 50 <= lines <= 50 * (1 + math.ceil(time.monotonic() - started))

    def counted():
        nonlocal asked
        asked += 1
        daemon.ask("ann")
        return daemon.matching('subscribe failed.*"suppressed"')
    eventually(counted, what="a line that counts the others")

    def all_counted():
        found = daemon.matching("subscribe failed")
        return asked == len(found) + sum(json.loads(line.split("failed ", 1)[1]).get("suppressed", 0) for line in found)
    eventually(all_counted, what="all are counted")


def test_long_project_list(streamd, new_valkey):
    """The warning about a failed subscription to 500 projects is one complete JSON line."""
    daemon = streamd(VALKEY_URL=new_valkey().url, TPI_PROJECT_ACCESS="allow")
    projects = ",".join(str(2147483647 - number) for number in range(500))
    daemon.ask("bob", projects=projects)
    line = daemon.wait_for_log(r"^\[sse/issues\] subscribe failed")
    found = json.loads(line.split("failed ", 1)[1])
    assert 0 < len(found["projectIds"]) <= 500
    assert found["error"] == "Valkey is unreachable", "the list is cut, not the reason"


EVIL = "x\n[valkey] connection lost {}\r\x1b[31m\x1b]0;title\x07\x9b31m\xff%s%n\"\\"


def test_values_are_escaped(streamd, valkey):
    """Line breaks, escape sequences and format directives in untrusted values are escaped in the log."""
    daemon = streamd(TPI_LOG_LEVEL="debug", TPI_PROJECT_ACCESS="allow", SSE_PER_USER_CAP=1)
    for name in ("TPI_USER", "REMOTE_USER", "AUTH_TYPE", "REQUEST_METHOD", "QUERY_STRING", "SCRIPT_NAME",
                 "PATH_INFO", "HTTP_LAST_EVENT_ID", "HTTP_COOKIE", "REMOTE_ADDR", EVIL):
        with daemon.open(projects="7", **{name: EVIL}) as peer:
            peer.wait(lambda p: p.status)
    Peer(daemon.address, EVIL.encode("latin-1") * 10).wait_end()
    with daemon.stream("ann"):
        valkey.publish(user_channel("ann"), EVIL.encode("latin-1"))
        valkey.publish(project_channel(7), EVIL.encode())
        daemon.wait_for_log("(?i)drop")
    with daemon.stream("%s%n%d%n"), daemon.stream("%s%n%d%n"):
        assert "%s%n%d%n" in daemon.wait_for_log("(?i)evict")
    check_lines(daemon)
    assert not daemon.matching(r"^\[valkey\] connection lost \{\}")


@pytest.mark.parametrize("env", [{"TPI_LISTEN": EVIL}, {"TPI_PROJECT_ACCESS": "file:/" + EVIL},
                                 {"SSE_STALL_MS": EVIL}, {"VALKEY_URL": EVIL}, {"INSTANCE_TENANT_ID": EVIL}])
def test_startup_error_is_one_line(env):
    """A start-up error is one printable line, whatever the setting contains."""
    env = {name: value.encode("latin-1").decode("utf-8", "surrogateescape") for name, value in env.items()}
    result = run_streamd("--check-config", **env)
    assert result.returncode == 78
    assert result.stderr.count("\n") == 1 and result.stderr[:-1].isascii() and result.stderr[:-1].isprintable()


def test_path_is_escaped(streamd, rundir):
    """Control characters in a path are escaped in the log."""
    path = f"{rundir}/\x1b[31m\n[valkey] x\x7f\udc9b"
    daemon = streamd(["--listen", path], address=path)
    assert r"\u001b[31m\u000a[valkey] x\u007f\u009b" in daemon.wait_for_log("started")
    check_lines(daemon)


def test_cookies_and_payloads_are_not_logged(streamd, valkey):
    """Cookies, Authorization headers and payloads are not logged, not even at level debug."""
    daemon = streamd(TPI_LOG_LEVEL="debug")
    with daemon.stream("ann", HTTP_COOKIE="session=s3cret", HTTP_AUTHORIZATION="Bearer s3cret") as peer:
        valkey.publish(user_channel("ann"), b"bad s3cret payload")
        valkey.publish(user_channel("ann"), notification("s3cret"))
        peer.wait_data(notification("s3cret"))
        check_answer(daemon.ask(TPI_USER=None, HTTP_COOKIE="session=s3cret"), 401)
        daemon.wait_for_log("(?i)drop")
    daemon.stop()
    assert "s3cret" not in daemon.stderr + daemon.stdout


KUBERNETES = {"VALKEY_SERVICE_HOST": "10.0.0.1", "VALKEY_SERVICE_PORT": 6379, "VALKEY_SERVICE_PORT_REDIS": 6379,
              "VALKEY_PORT": "tcp://10.0.0.1:6379", "VALKEY_PORT_6379_TCP": "tcp://10.0.0.1:6379",
              "VALKEY_PORT_6379_TCP_ADDR": "10.0.0.1", "TPI_STREAM_SERVICE_HOST": "10.0.0.2"}


def test_unknown_settings(streamd):
    """An unknown variable with one of our prefixes is logged without its value; those that Kubernetes sets are not."""
    wrong = {"VALKEY_SENTINEL": "s3cret", "SSE_PER_USERCAP": 1, "TPI_\x1b": 1}
    lines = ["[streamd] no such setting: " + name.replace("\x1b", "?") for name in wrong]
    daemon = streamd(**wrong, **KUBERNETES)
    daemon.wait_for_log("started")
    assert sorted(daemon.matching("no such setting")) == sorted(lines) and "s3cret" not in daemon.stderr
    result = run_streamd("--check-config", **wrong, **KUBERNETES)
    assert result.returncode == 0 and sorted(result.stderr.splitlines()) == sorted(lines)
    result = run_streamd("--check-config", TPI_IDENTITY="app", TPI_APPURL="http://app")
    assert result.returncode == 78 and result.stderr.startswith("[streamd] no such setting: TPI_APPURL\ntpi-streamd: TPI_APP_URL")
    assert run_streamd("--check-config", TPI_LOG_LEVEL="error", **wrong).stderr == ""


def test_levels(streamd):
    """At level error neither the start nor an eviction is logged."""
    daemon = streamd(TPI_LOG_LEVEL="error", SSE_PER_USER_CAP=1)
    with daemon.stream("ann") as first, daemon.stream("ann"):
        first.wait_end()
    assert daemon.stderr == ""
