# SPDX-License-Identifier: ISC
"""Failures of the application: none of them lets a user in. The request is to retry later, at the latest a moment
after TPI_APP_TIMEOUT_MS, and the daemon uses the application again as soon as it works."""

import contextlib
import json
import socket
import time

import pytest

from answers import after_first, check_answer, check_later, frame, issue
from application import (ANN, BEN, PROJECTS, SESSION, by, close_after, close_reused, cut, dribble,
                         endless, half_close, hold, listen, message, raw, reset, says, synced)
from certificates import Authority
from fcgi import wait_all
from ledger import descriptors_and_threads, wait_released
from servers import project_channel
from timing import eventually, scaled

LIMIT = 0.4  # seconds: TPI_APP_TIMEOUT_MS where the application is slow
SLOW = {"TPI_APP_TIMEOUT_MS": int(LIMIT * 1000)}
MARGIN = 1  # seconds after the limit in which the response must come


@pytest.fixture(scope="module")
def shared(module_with_app):
    return module_with_app(SSE_PER_USER_CAP=10000, SSE_ISSUES_PER_USER_CAP=10000)


@contextlib.contextmanager
def fault(app, kind, what):
    """Queries of this kind get this fault in the context."""
    app.faults[kind] = what
    try:
        yield
    finally:
        app.release()
        app.faults.clear()


def check_recovered(daemon):
    """The very next request queries the application again, and gets a stream."""
    with listen(daemon, **by(ANN, projects="7")):
        pass


def later_after(daemon, **named):
    """Sends a request that must be told to retry later; returns the seconds until it was."""
    started = time.monotonic()
    check_later(daemon.ask(**named))
    return time.monotonic() - started


# Invalid responses

USER = json.dumps({"user": {"id": "ann"}}).encode()

GOOD = b'{"user":{"id":"ann"},"data":[{"id":7}]}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(GOOD), GOOD)

INVALID = {  # for both queries; each contains the valid response, so that its flaw alone makes it invalid
    "HTML": says(b"<!doctype html><html>" + GOOD + b"</html>", kind="text/html"),
    "an empty body": says(b""),
    "white space alone": says(b" \n"),
    "a string": says("ann"),
    "a number": says(7),
    "true": says(True),
    "a list": says([{"user": {"id": "ann"}, "data": [{"id": 7}]}]),
    "invalid UTF-8": says(GOOD[:-1] + b',"x":"\xff"}'),
    "truncated": says(GOOD[:-1]),
    "text after it": says(GOOD + b" x"),
    "twice": says(GOOD + b"{}"),
    "text before it": says(b")]}'\n" + GOOD),
    "single quotes": says(GOOD.replace(b'"', b"'")),
    "NaN": says(GOOD[:-1] + b',"x":NaN}'),
    "a comment": says(GOOD[:-1] + b"/* */}"),
    "nested deeply": says(GOOD[:-1] + b',"x":' + b"[" * 50000 + b"]" * 50000 + b"}"),
    **{f"status {status}": says(GOOD, status)
       for status in (201, 204, 206, 304, 400, 404, 405, 429, 500, 502, 503, 504)},
    "200 KB of headers": says(GOOD, headers=["X-More: " + "x" * 1000] * 200),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n" + GOOD),
    "half a head": raw(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "shorter than its Content-Length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + GOOD),
    "a negative length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + GOOD),
    "a bad chunk": raw(CHUNKED + b"zz\r\n\r\n"),
    "no last chunk": raw(CHUNKED),
    "compressed": raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"),
    "cut in the middle": cut(0.6),
    "cut before the last byte": lambda exchange: raw(exchange.honest()[:-1])(exchange),
    "reset": reset,
}


@pytest.mark.parametrize("kind", [SESSION, PROJECTS], ids=["user", "projects"])
@pytest.mark.parametrize("what", INVALID.values(), ids=INVALID)
def test_invalid_response(shared, kind, what):
    """After an invalid response the request is to retry later, and the next one queries the application again."""
    app, daemon = shared
    with fault(app, kind, what):
        assert later_after(daemon, **by(ANN, projects="7")) < scaled(1)
    check_recovered(daemon)


VALID = {  # the same responses without the flaw
    "white space around it": says(b" \r\n" + GOOD + b"\t\n"),
    "another content type": says(GOOD, kind="text/plain"),
    "chunks": raw(CHUNKED + b"0\r\n\r\n"),
    "delimited by the end of the connection": raw(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD),
    "HTTP/1.0": raw(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD),
    "after an interim response": raw(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + message(GOOD)),
    "large cookies": says(GOOD, headers=[f"Set-Cookie: next-auth.session-token.{n}=" + "x" * 4000 for n in range(3)]),
}


@pytest.mark.parametrize("kind", [SESSION, PROJECTS], ids=["user", "projects"])
@pytest.mark.parametrize("what", VALID.values(), ids=VALID)
def test_valid_response(shared, kind, what):
    """A valid response is accepted however HTTP delimits it."""
    app, daemon = shared
    with fault(app, kind, what):
        listen(daemon, **by(ANN, projects="7")).close()


WRONG_USER = {
    **{f"id {json.dumps(id)}": {"user": {"id": id}} for id in (7, -1, {}, [], ["ann"], {"id": "ann"}, True, 1.5)},
    "user a string": {"user": "ann"},
    "user a list": {"user": [{"id": "ann"}]},
    "user a number": {"user": 7},
    "user true": {"user": True},
}


@pytest.mark.parametrize("answer", WRONG_USER.values(), ids=WRONG_USER)
def test_wrong_user(shared, answer):
    """A response whose user or id has another type is invalid: retry later."""
    app, daemon = shared
    with fault(app, SESSION, says(answer)):
        check_later(daemon.ask(**by(ANN)))
    check_recovered(daemon)


WRONG_PROJECTS = {
    "data an object": {"data": {"id": 7}},
    "data missing": {"id": 7},
    "data null": {"data": None},
    "data a string": {"data": "7"},
    "data true": {"data": True},
    "an error": {"error": "something went wrong"},
    "ids alone": {"data": [7, 8]},
    "lists": {"data": [[7]]},
    "no id": {"data": [{"id": 7}, {"name": "x"}]},
    **{f"id {json.dumps(id)}": {"data": [{"id": 7}, {"id": id}]} for id in ("7", None, True, 7.5, 7.0, [7], {"id": 7})},
}


@pytest.mark.parametrize("answer", WRONG_PROJECTS.values(), ids=WRONG_PROJECTS)
def test_wrong_projects(shared, answer):
    """A response whose data is not a list of objects with integer ids is invalid: retry later."""
    app, daemon = shared
    with fault(app, PROJECTS, says(answer)):
        check_later(daemon.ask(**by(ANN, projects="7")))
    check_recovered(daemon)


UNREQUESTED = {  # data of the response to a query for 7 and 8, and what the stream may have
    "only others": ([{"id": 9}, {"id": 70}, {"id": 1}], []),
    "others and one of them": ([{"id": 9}, {"id": 8}, {"id": 2147483647}], [8]),
    "repeated": ([{"id": 7}, {"id": 7}, {"id": 8}, {"id": 7}], [7, 8]),
    "in another order, with more": ([{"name": "x", "id": 8}, {"id": 7, "data": [{"id": 9}]}], [7, 8]),
    "many": ([{"id": id} for id in range(8, 5000)], [8]),
    "none": ([], []),
}


@pytest.mark.parametrize("data, expected", UNREQUESTED.values(), ids=UNREQUESTED)
def test_unrequested_projects(shared, valkey, data, expected):
    """Projects in the response that were not requested are ignored, and a repeated one counts once."""
    app, daemon = shared
    with fault(app, PROJECTS, says({"data": data})):
        if not expected:
            check_answer(daemon.ask(**by(ANN, projects="7,8")), 404)
            return
        with listen(daemon, **by(ANN, projects="7,8")) as peer:
            for project in 7, 8, 9:
                valkey.publish(project_channel(project), issue(1, project))
            # Valkey keeps the order: once the end has arrived, so has every wake-up that was sent.
            end = issue(2, expected[-1])
            valkey.publish(project_channel(expected[-1]), end)
            peer.wait_data(end)
            assert after_first(peer) == b"".join(frame(issue(1, p)) for p in expected) + frame(end)


@pytest.mark.parametrize("id", [-7, 0, -1, 2147483648, 4294967303, 1 << 63, 10 ** 30, -(10 ** 30)])
def test_invalid_project_ids(shared, id):
    """A number that cannot be a project id authorizes no project; 4294967303 is not truncated to 7."""
    app, daemon = shared
    with fault(app, PROJECTS, says({"data": [{"id": id}]})):
        answer = daemon.ask(**by(ANN, projects="7,8"))
    assert not answer.events.data
    if answer.status == 200:
        check_later(answer)
    else:
        check_answer(answer, 404)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", [SESSION, PROJECTS], ids=["user", "projects"])
def test_no_redirect(shared, kind, status):
    """A redirect is not followed, even to a valid response: retry later."""
    app, daemon = shared
    app.faults["/yes"] = says(GOOD)
    with fault(app, kind, says(GOOD, status, headers=[f"Location: {app.url}/yes"])):
        check_later(daemon.ask(**by(ANN, projects="7")))
    assert not app.asked("/yes")


# Size limits

@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
@pytest.mark.parametrize("size, fits", [(262144, True), (262145, False)])
def test_longest_response(shared, framing, size, fits):
    """A response of 256 KiB is accepted; with one byte more it is invalid."""
    app, daemon = shared
    body = USER.ljust(size)
    head = b"HTTP/1.1 200 OK\r\n"
    sent = {"length": head + b"Content-Length: %d\r\n\r\n" % size + body,
            "chunks": head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + body + b"\r\n0\r\n\r\n",
            "close": head + b"\r\n" + body}[framing]
    with fault(app, SESSION, raw(sent)):
        if fits:
            listen(daemon, **by(ANN)).close()
        else:
            check_later(daemon.ask(**by(ANN)))
    check_recovered(daemon)


ENDLESS = {
    "body": endless(b"HTTP/1.1 200 OK\r\n\r\n" + USER, b" " * 65536),
    "body with a length": endless(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n" + USER, b" " * 65536),
    "chunks": endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "headers": endless(b"HTTP/1.1 200 OK\r\n", b"X-More: of the same\r\n" * 1000),
    "one header": endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536),
    "interim responses": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
}


@pytest.mark.parametrize("what", ENDLESS.values(), ids=ENDLESS)
def test_endless(shared, what):
    """The daemon stops reading a response of 10 MB, wherever in it they are, and tells the peer to retry later, well
    before the time limit."""
    app, daemon = shared
    app.sent = 0
    with fault(app, SESSION, what):
        assert later_after(daemon, **by(ANN)) < scaled(1)
    assert app.sent < 8 << 20
    check_recovered(daemon)


# Closed connections

def test_closed_after_a_response(shared):
    """If the application closes a kept connection without notice, later requests are not affected."""
    app, daemon = shared
    with fault(app, SESSION, close_after):
        for _ in range(5):
            listen(daemon, **by(ANN)).close()


def test_closed_at_the_next_query(shared):
    """If the application closes a kept connection on the next query, the daemon repeats that query on a new one."""
    app, daemon = shared
    with fault(app, SESSION, close_reused):
        for _ in range(5):
            listen(daemon, **by(ANN)).close()


def test_half_closed(with_app):
    """If the application half-closes the connection within a response, the request is to retry later at once."""
    app, daemon = with_app()
    with fault(app, SESSION, half_close):
        assert later_after(daemon, **by(ANN)) < scaled(0.5)
        assert later_after(daemon, **by(ANN)) < scaled(0.5)
    check_recovered(daemon)


# Time limits

SLUGGISH = {"no response": hold, "a byte at a time": dribble(0.05)}


@pytest.mark.parametrize("kind", [SESSION, PROJECTS], ids=["user", "projects"])
@pytest.mark.parametrize("what", SLUGGISH.values(), ids=SLUGGISH)
def test_time_limit(with_app, kind, what):
    """If the application sends nothing, or a byte at a time, the request waits for TPI_APP_TIMEOUT_MS and no longer."""
    app, daemon = with_app(**SLOW)
    with fault(app, kind, what):
        assert LIMIT - 0.05 < later_after(daemon, **by(ANN, projects="7")) < LIMIT + scaled(MARGIN)
    assert len(app.requests) == (1 if kind == SESSION else 2)


def test_one_limit_for_both_queries(with_app):
    """The identity and the project query of a request share one TPI_APP_TIMEOUT_MS."""
    app, daemon = with_app(TPI_APP_TIMEOUT_MS=2000)
    app.delay = 1.2
    assert 1.95 < later_after(daemon, **by(ANN, projects="7")) < 2 + scaled(MARGIN)
    assert [request.kind for request in app.requests] == [SESSION, PROJECTS]


def test_one_limit_for_all_project_queries(with_app):
    """The project queries of a request share one TPI_APP_TIMEOUT_MS, which includes their time in the queue. The one
    with less than a quarter left is not sent, so nothing pauses."""
    app, daemon = with_app(TPI_APP_TIMEOUT_MS=2000, TPI_APP_CONCURRENCY=1, TPI_IDENTITY=None)
    app.delay = 0.8
    app.sign_in("SECRET-many", "many", range(1000, 1500))
    projects = ",".join(map(str, range(1000, 1500)))
    seconds = later_after(daemon, **by("SECRET-many", TPI_USER="x", projects=projects))
    assert 1.45 < seconds < 2 + scaled(MARGIN)
    assert len(app.requests) == 2
    daemon.wait_for_log('query given up in the queue.*"user":"known"')
    listen(daemon, **by("SECRET-many", TPI_USER="x", projects="1000"))


def test_connect_times_out(with_app):
    """If the application does not accept the connection, TPI_APP_TIMEOUT_MS applies, too."""
    with socket.socket() as listener, contextlib.ExitStack() as queued:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):  # fills the listen queue
            probe = queued.enter_context(socket.socket())
            probe.setblocking(False)
            probe.connect_ex(listener.getsockname())
        _, daemon = with_app(**SLOW, TPI_APP_URL="http://%s:%d" % listener.getsockname())
        assert LIMIT - 0.05 < later_after(daemon, **by(ANN)) < LIMIT + scaled(MARGIN)


# The pause after a failure

def check_pause(app, daemon, started):
    """For 2 s the daemon sends no query and tells every request at once to retry later; then it queries again."""
    with app.quiet():
        while time.monotonic() < started + 1.6:
            assert later_after(daemon, **by(ANN, projects="7")) < scaled(1)
            assert later_after(daemon, **by(BEN)) < scaled(1)
            time.sleep(0.1)

    def again():
        with daemon.open(**by(ANN, projects="7")).wait(lambda p: p.closed or synced(p)) as peer:
            return synced(peer)
    eventually(again, what="a stream after the pause")
    assert 1.9 < time.monotonic() - started < scaled(3.5)


def test_pause_after_a_refused_connect(with_app):
    """After a failed connect the daemon sends no query for 2 s."""
    app, daemon = with_app()
    listen(daemon, **by(ANN, projects="7")).close()
    app.down()
    started = time.monotonic()
    assert later_after(daemon, **by(ANN)) < scaled(0.5)
    app.start()
    check_pause(app, daemon, started)


def test_pause_after_a_time_limit(with_app):
    """After a time limit the daemon sends no query for 2 s, and tells the requests in the queue at once to retry
    later."""
    app, daemon = with_app(**SLOW, TPI_APP_CONCURRENCY=1)
    app.hold()
    peers = [daemon.open(**by(ANN))]
    app.wait_asked(1)
    peers += [daemon.open(**by(BEN)) for _ in range(5)]
    wait_all(peers, lambda p: p.closed, what="retry later")
    started = peers[0].opened + LIMIT  # the pause cannot begin earlier
    for peer in peers:
        check_later(peer)
        assert peer.closed_at - peers[0].opened < LIMIT + scaled(MARGIN)
    assert len(app.requests) == 1
    app.release()
    check_pause(app, daemon, started)


def test_a_hanging_application_is_not_flooded(with_app):
    """Of 1000 requests while the application hangs, it gets the queries of TPI_APP_CONCURRENCY at most."""
    app, daemon = with_app(**SLOW, TPI_APP_CONCURRENCY=8, TPI_APP_PENDING=1000)
    app.hold()
    started = time.monotonic()
    peers = [daemon.open(**by(f"SECRET-{number}")) for number in range(1000)]
    wait_all(peers, lambda p: p.closed, 20, "retry later")
    assert time.monotonic() - started < scaled(4)
    for peer in peers:
        check_later(peer)
    assert len(app.requests) <= 8 and app.connections <= 8


def test_cache_during_the_pause(with_app):
    """During the pause, requests whose responses are cached get their stream."""
    app, daemon = with_app(TPI_APP_CACHE_SECONDS=300)
    listen(daemon, **by(ANN, projects="7")).close()
    app.down()
    check_later(daemon.ask(**by(BEN)))
    check_later(daemon.ask(**by(BEN)))
    listen(daemon, **by(ANN, projects="7")).close()


# Names, certificates, proxies

@pytest.mark.parametrize("name", ["app.invalid", "nowhere.app.invalid:3000"])
def test_no_such_name(with_app, name):
    """If the host name does not resolve, the request is to retry later within the limit, and the drain does not wait
    for the resolver."""
    _, daemon = with_app(**SLOW, TPI_APP_URL=f"http://{name}")
    assert later_after(daemon, **by(ANN)) < LIMIT + scaled(MARGIN)
    assert daemon.stop() < scaled(2)


@pytest.fixture
def authority(rundir):
    return Authority(rundir)


@pytest.mark.parametrize("names, host", [("DNS:localhost,IP:127.0.0.1", "127.0.0.1"), ("DNS:localhost", "localhost")])
def test_tls(with_app, application, authority, names, host):
    """A certificate signed by TPI_APP_CA is accepted for a name and for an address, and the connection is reused."""
    app = application(tls=authority.issue(names))
    _, daemon = with_app(app=app, TPI_APP_URL=app.url.replace("127.0.0.1", host), TPI_APP_CA=authority.pem)
    for _ in range(3):
        listen(daemon, **by(ANN, projects="7")).close()
    assert app.connections == 1


UNTRUSTED = {
    "an unknown CA": lambda authority, rundir: authority.issue(),
    "another CA": lambda authority, rundir: Authority(rundir, "other").issue(),
    "another name": lambda authority, rundir: authority.issue("DNS:other.example,IP:127.0.0.2"),
    "expired": lambda authority, rundir: authority.issue(days=-1),
}


@pytest.mark.parametrize("what", UNTRUSTED)
def test_untrusted(with_app, application, authority, rundir, what):
    """If the certificate cannot be verified, the daemon sends nothing, logs why, and tells the peer to retry later."""
    app = application(tls=UNTRUSTED[what](authority, rundir))
    ca = None if what == "an unknown CA" else authority.pem
    _, daemon = with_app(app=app, TPI_APP_CA=ca)
    check_later(daemon.ask(**by(ANN)))
    assert not app.requests
    daemon.wait_for_log("certificate|SSL|TLS")


def test_application_without_tls(with_app, application):
    """If an https URL leads to a server without TLS, the request is to retry later, and its cookie is not sent."""
    app = application()
    _, daemon = with_app(app=app, TPI_APP_URL=app.url.replace("http:", "https:"))
    check_later(daemon.ask(**by(ANN)))
    assert not app.requests


def proxies(url):
    return {name: url for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")} | {
        "no_proxy": None, "NO_PROXY": None}


@pytest.mark.parametrize("setting", [None, "none"])
def test_environment_proxy_is_ignored(with_app, application, setting):
    """Unless TPI_APP_PROXY=environment, a proxy in the environment is not used."""
    proxy = application()
    app, daemon = with_app(TPI_APP_PROXY=setting, **proxies(proxy.url))
    listen(daemon, **by(ANN, projects="7")).close()
    assert len(app.requests) == 2 and not proxy.connections


def test_environment_proxy(with_app, application):
    """With TPI_APP_PROXY=environment, the daemon uses the environment's proxy, except for the hosts in no_proxy."""
    proxy = application()
    _, daemon = with_app(app=proxy, TPI_APP_PROXY="environment", TPI_APP_URL="http://app.invalid", **proxies(proxy.url))
    listen(daemon, **by(ANN, projects="7")).close()
    assert [request.target.partition("?")[0] for request in proxy.requests] == [
        f"http://app.invalid{SESSION}", f"http://app.invalid{PROJECTS}"]
    proxy.forget()
    app, daemon = with_app(TPI_APP_PROXY="environment", **{**proxies(proxy.url), "no_proxy": "127.0.0.1"})
    listen(daemon, **by(ANN)).close()
    assert len(app.requests) == 1 and not proxy.connections


# The log, the drain, peers that close

@pytest.mark.parametrize("level", ["info", "debug"])
def test_log(with_app, level):
    """A failed query is logged with the URL and the reason, as a warning at most once a minute; so is the recovery. No
    level shows a cookie, a token or what the application sent."""
    app, daemon = with_app(TPI_LOG_LEVEL=level)
    secrets = by("SECRET-abc", HTTP_AUTHORIZATION="Bearer SECRET-def")
    for answer in (says({"error": "SECRET-ghi"}, 502), says(b"<p>SECRET-jkl"), reset,
                   raw(b"HTTP/1.1 200 SECRET-mno\r\nX-SECRET: SECRET-pqr\r\nContent-Length: SECRET\r\n\r\n")):
        app.faults[SESSION] = answer
        check_later(daemon.ask(**secrets))
    app.faults.clear()
    check_answer(daemon.ask(**secrets), 401)
    daemon.wait_for_log("answers again")
    warning = daemon.wait_for_log(r"^\[app\] cannot query the application")
    assert app.url in warning and "502" in warning
    assert len(daemon.matching(r"^\[app\] cannot query the application")) == (1 if level == "info" else 4)


def test_drain_while_the_application_hangs(with_app):
    """On SIGTERM, requests that wait for the application are deferred, and the exit is in time."""
    app, daemon = with_app(TPI_APP_TIMEOUT_MS=60000, TPI_DRAIN_SECONDS=2, SSE_PER_USER_CAP=100)
    stream = listen(daemon, **by(ANN))
    app.hold()
    peers = [daemon.open(**by(f"SECRET-{number}")) for number in range(40)]
    app.wait_asked(32 + 1)
    assert daemon.stop() < scaled(2)
    stream.wait_body(b"event: shutdown")
    for peer in peers:
        check_later(peer.wait_end())


def test_drain_during_a_handshake(streamd, application, authority):
    """SIGTERM during the first TLS handshake leads to a clean exit in time."""
    app = application(tls=authority.issue())
    app.hold()
    for _ in range(10):
        app.forget()
        daemon = streamd(TPI_IDENTITY="app", TPI_APP_URL=app.url, TPI_DRAIN_SECONDS=1)
        peer = daemon.open(**by(ANN))
        eventually(lambda: app.connections, what="a connection to the application")
        assert daemon.stop() < scaled(1)
        check_later(peer.wait_end())


def test_closed_peers_are_released(with_app):
    """Peers that close while they wait for another's query leave no thread and no descriptor behind."""
    app, daemon = with_app(TPI_APP_TIMEOUT_MS=60000)
    listen(daemon, **by(ANN)).close()
    app.hold()
    first = daemon.open(**by("SECRET-first"))
    app.wait_asked(2)
    before = descriptors_and_threads(daemon.pid)
    for _ in range(3):
        mark = daemon.mark()
        peers = [daemon.open(**by("SECRET-first")) for _ in range(50)]
        daemon.wait_for_log("request in flight", start=mark, count=50)
        for peer in peers:
            peer.close()
    wait_released(daemon.pid, before)
    assert first.quiet(0).status is None
    app.release()
    check_answer(first.wait_end(), 401)


def test_closed_peers_leave_the_queue(with_app):
    """The daemon sends no query for a peer that closed while its query was queued."""
    app, daemon = with_app(TPI_APP_CONCURRENCY=1, TPI_APP_TIMEOUT_MS=60000)
    app.hold()
    first = daemon.open(**by(ANN))
    app.wait_asked(1)
    before = descriptors_and_threads(daemon.pid)
    peers = [daemon.open(**by(f"SECRET-{number}")) for number in range(20)]
    daemon.wait_for_log("user query", count=21)
    for peer in peers:
        peer.close()
    wait_released(daemon.pid, before)
    app.release()
    first.wait(synced, what="sync")
    listen(daemon, **by(BEN)).close()
    assert [request.token for request in app.requests] == [ANN, BEN]


def test_other_responses_while_the_application_hangs(with_app):
    """While the application hangs, a request that needs no query is answered at once."""
    app, daemon = with_app(TPI_APP_TIMEOUT_MS=60000, TPI_DRAIN_SECONDS=1)
    app.hold()
    waiting = daemon.open(**by(ANN))
    app.wait_asked(1)
    for status, changes in (404, {"SCRIPT_NAME": "/x"}), (405, {"REQUEST_METHOD": "POST"}), (401, {}):
        started = time.monotonic()
        check_answer(daemon.ask(TPI_USER=None, **changes), status)
        assert time.monotonic() - started < scaled(5)
    assert waiting.quiet(0).status is None
