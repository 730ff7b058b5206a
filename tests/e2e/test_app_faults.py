# SPDX-License-Identifier: ISC
"""Bad days of the application: whatever it says or does not say, it is never a yes; the request is answered later
within TPI_APP_TIMEOUT_MS and a little, and the next one finds the way back."""

import contextlib
import json
import socket
import time

import pytest

from answers import check_answer, check_later
from application import (ANN, BEN, PROJECTS, SESSION, by, close_after, close_reused, cut, dribble,
                         endless, half_close, hold, listen, message, raw, reset, says, synced)
from certificates import Authority
from fcgi import wait_all
from ledger import descriptors_and_threads, wait_released
from timing import eventually, scaled

LIMIT = 0.4  # seconds, of the daemons that meet a slow application
SLOW = {"TPI_APP_TIMEOUT_MS": int(LIMIT * 1000)}
LITTLE = 0.35


@pytest.fixture(scope="module")
def shared(module_gated):
    return module_gated(SSE_PER_USER_CAP=10000, SSE_ISSUES_PER_USER_CAP=10000)


@contextlib.contextmanager
def fault(app, kind, what):
    app.faults[kind] = what
    try:
        yield
    finally:
        app.release()
        app.faults.clear()


def check_recovered(daemon):
    """The very next question is asked again, and answered."""
    with listen(daemon, **by(ANN, projects="7")):
        pass


def taken(daemon, **named):
    """How long an answer took that must be later."""
    started = time.monotonic()
    check_later(daemon.ask(**named))
    return time.monotonic() - started


# Wrong answers

USER = json.dumps({"user": {"id": "ann"}}).encode()

GOOD = b'{"user":{"id":"ann"},"data":[{"id":7}]}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(GOOD), GOOD)

NOT_UNDERSTOOD = {  # of both questions; with a good answer in it, so that the flaw is the reason
    "HTML": says(b"<!doctype html><html>" + GOOD + b"</html>", kind="text/html"),
    "nothing": says(b""),
    "blanks": says(b" \n"),
    "a text": says("ann"),
    "a number": says(7),
    "true": says(True),
    "a list": says([{"user": {"id": "ann"}, "data": [{"id": 7}]}]),
    "invalid UTF-8": says(GOOD[:-1] + b',"x":"\xff"}'),
    "truncated": says(GOOD[:-1]),
    "behind it more": says(GOOD + b" x"),
    "twice": says(GOOD + b"{}"),
    "before it more": says(b")]}'\n" + GOOD),
    "single quotes": says(GOOD.replace(b'"', b"'")),
    "NaN": says(GOOD[:-1] + b',"x":NaN}'),
    "a comment": says(GOOD[:-1] + b"/* */}"),
    "nested deeply": says(GOOD[:-1] + b',"x":' + b"[" * 50000 + b"]" * 50000 + b"}"),
    **{f"status {status}": says(GOOD, status)
       for status in (201, 204, 206, 304, 400, 404, 405, 429, 500, 502, 503, 504)},
    "200 KB of headers": says(GOOD, headers=["X-More: " + "x" * 1000] * 200),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n" + GOOD),
    "half a head": raw(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "shorter than it says": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + GOOD),
    "a negative length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + GOOD),
    "a bad chunk": raw(CHUNKED + b"zz\r\n\r\n"),
    "no last chunk": raw(CHUNKED),
    "compressed": raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"),
    "the middle of an answer cut": cut(0.6),
    "the last byte cut": lambda exchange: raw(exchange.honest()[:-1])(exchange),
    "reset": reset,
}


@pytest.mark.parametrize("kind", [SESSION, PROJECTS], ids=["user", "projects"])
@pytest.mark.parametrize("what", NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
def test_not_understood(shared, kind, what):
    """An answer that is not understood is answered later; after it the application is asked again at once."""
    app, daemon = shared
    with fault(app, kind, what):
        assert taken(daemon, **by(ANN, projects="7")) < scaled(1)
    check_recovered(daemon)


UNDERSTOOD = {  # what the answers above are made of, without their flaws
    "white space": says(b" \r\n" + GOOD + b"\t\n"),
    "another type": says(GOOD, kind="text/plain"),
    "chunks": raw(CHUNKED + b"0\r\n\r\n"),
    "until it closes": raw(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD),
    "HTTP/1.0": raw(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD),
    "behind an interim answer": raw(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + message(GOOD)),
    "large cookies": says(GOOD, headers=[f"Set-Cookie: next-auth.session-token.{n}=" + "x" * 4000 for n in range(3)]),
}


@pytest.mark.parametrize("kind", [SESSION, PROJECTS], ids=["user", "projects"])
@pytest.mark.parametrize("what", UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_understood(shared, kind, what):
    """However a good answer is framed, it counts."""
    app, daemon = shared
    with fault(app, kind, what):
        listen(daemon, **by(ANN, projects="7")).close()


WRONG_USER = {
    **{f"id {json.dumps(id)}": {"user": {"id": id}} for id in (7, -1, {}, [], ["ann"], {"id": "ann"}, True, 1.5)},
    "user a text": {"user": "ann"},
    "user a list": {"user": [{"id": "ann"}]},
    "user a number": {"user": 7},
    "user true": {"user": True},
}


@pytest.mark.parametrize("answer", WRONG_USER.values(), ids=WRONG_USER)
def test_wrong_user(shared, answer):
    """A user or an id of another type is no answer: later."""
    app, daemon = shared
    with fault(app, SESSION, says(answer)):
        check_later(daemon.ask(**by(ANN)))
    check_recovered(daemon)


WRONG_PROJECTS = {
    "data an object": {"data": {"id": 7}},
    "data missing": {"id": 7},
    "data null": {"data": None},
    "data a text": {"data": "7"},
    "data true": {"data": True},
    "an error": {"error": "something went wrong"},
    "ids alone": {"data": [7, 8]},
    "lists": {"data": [[7]]},
    "no id": {"data": [{"id": 7}, {"name": "x"}]},
    **{f"id {json.dumps(id)}": {"data": [{"id": 7}, {"id": id}]} for id in ("7", None, True, 7.5, 7.0, [7], {"id": 7})},
}


@pytest.mark.parametrize("answer", WRONG_PROJECTS.values(), ids=WRONG_PROJECTS)
def test_wrong_projects(shared, answer):
    """data that is no list of objects with whole numbers is no answer: later."""
    app, daemon = shared
    with fault(app, PROJECTS, says(answer)):
        check_later(daemon.ask(**by(ANN, projects="7")))
    check_recovered(daemon)


NEVER_ASKED = {  # asked are 7 and 8
    "others": ([{"id": 9}, {"id": 70}, {"id": 1}], []),
    "one of them": ([{"id": 9}, {"id": 8}, {"id": 2147483647}], [8]),
    "repeated": ([{"id": 7}, {"id": 7}, {"id": 8}, {"id": 7}], [7, 8]),
    "in another order, with more": ([{"name": "x", "id": 8}, {"id": 7, "data": [{"id": 9}]}], [7, 8]),
    "many": ([{"id": id} for id in range(8, 5000)], [8]),
    "none": ([], []),
}


@pytest.mark.parametrize("data, expected", NEVER_ASKED.values(), ids=NEVER_ASKED)
def test_what_was_not_asked_for(shared, valkey, data, expected):
    """Projects that were not asked for are no yes to anything; what was asked for counts once."""
    app, daemon = shared
    with fault(app, PROJECTS, says({"data": data})):
        if not expected:
            check_answer(daemon.ask(**by(ANN, projects="7,8")), 404)
            return
        with listen(daemon, **by(ANN, projects="7,8")):
            channels = valkey("PUBSUB", "CHANNELS", "issues:tenant:default:project:*")
            assert sorted(int(name.rpartition(b":")[2]) for name in channels) == expected


@pytest.mark.parametrize("id", [-7, 0, -1, 2147483648, 4294967303, 1 << 63, 10 ** 30, -(10 ** 30)])
def test_ids_that_are_none(shared, id):
    """A number that is no project's id is a yes to no project, 4294967303 not to 7 either."""
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
    """A redirect to what would say yes is not followed: later."""
    app, daemon = shared
    app.faults["/yes"] = says(GOOD)
    with fault(app, kind, says(GOOD, status, headers=[f"Location: {app.url}/yes"])):
        check_later(daemon.ask(**by(ANN, projects="7")))
    assert not app.asked("/yes")


# Bounds

@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
@pytest.mark.parametrize("size, fits", [(262144, True), (262145, False)])
def test_longest_answer(shared, framing, size, fits):
    """An answer of 256 KiB is read, one of a byte more is not."""
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
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
}


@pytest.mark.parametrize("what", ENDLESS.values(), ids=ENDLESS)
def test_endless(shared, what):
    """10 MB are not read to their end, wherever in the answer they are: later, well before the time limit."""
    app, daemon = shared
    app.sent = 0
    with fault(app, SESSION, what):
        assert taken(daemon, **by(ANN)) < scaled(1)
    assert app.sent < 8 << 20
    check_recovered(daemon)


# Connections that end

def test_closed_behind_an_answer(shared):
    """A kept connection that the application has closed, unannounced, costs nobody anything."""
    app, daemon = shared
    with fault(app, SESSION, close_after):
        for _ in range(5):
            listen(daemon, **by(ANN)).close()


def test_closed_at_the_next_question(shared):
    """One that it closes at the moment of the next question, either: that is asked on a new one."""
    app, daemon = shared
    with fault(app, SESSION, close_reused):
        for _ in range(5):
            listen(daemon, **by(ANN)).close()


def test_half_closed(gated):
    """An application that closes its side amid an answer: later at once."""
    app, daemon = gated()
    with fault(app, SESSION, half_close):
        assert taken(daemon, **by(ANN)) < scaled(0.5)
        assert taken(daemon, **by(ANN)) < scaled(0.5)
    check_recovered(daemon)


# Time limits

SLUGGISH = {"holds": hold, "dribbles": dribble(0.05)}


@pytest.mark.parametrize("kind", [SESSION, PROJECTS], ids=["user", "projects"])
@pytest.mark.parametrize("what", SLUGGISH.values(), ids=SLUGGISH)
def test_time_limit(gated, kind, what):
    """Who hangs, or sends a byte at a time, gets TPI_APP_TIMEOUT_MS."""
    app, daemon = gated(**SLOW)
    with fault(app, kind, what):
        assert LIMIT - 0.05 < taken(daemon, **by(ANN, projects="7")) < LIMIT + scaled(LITTLE)
    assert len(app.requests) == (1 if kind == SESSION else 2)


def test_one_limit_for_all_questions(gated):
    """The limit is that of a request, for all its questions together."""
    app, daemon = gated(**SLOW)
    app.delay = LIMIT * 0.6
    assert LIMIT - 0.05 < taken(daemon, **by(ANN, projects="7")) < LIMIT + scaled(LITTLE)
    assert [request.kind for request in app.requests] == [SESSION, PROJECTS]


def test_one_limit_for_all_lots(gated):
    """The lots of one request share it, too, the time in the queue included."""
    app, daemon = gated(**SLOW, TPI_APP_CONCURRENCY=1, TPI_IDENTITY=None)
    app.delay = LIMIT * 0.4
    app.sign_in("SECRET-many", "many", range(1000, 1500))
    projects = ",".join(map(str, range(1000, 1500)))
    assert LIMIT - 0.05 < taken(daemon, **by("SECRET-many", TPI_USER="x", projects=projects)) < LIMIT + scaled(LITTLE)
    assert len(app.requests) <= 3


def test_nobody_accepts(gated):
    """A connect that is not answered has the same limit."""
    with socket.socket() as listener, contextlib.ExitStack() as queued:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):  # fills its queue
            probe = queued.enter_context(socket.socket())
            probe.setblocking(False)
            probe.connect_ex(listener.getsockname())
        _, daemon = gated(**SLOW, TPI_APP_URL="http://%s:%d" % listener.getsockname())
        assert LIMIT - 0.05 < taken(daemon, **by(ANN)) < LIMIT + scaled(LITTLE)


# The pause

def pause_ends(app, daemon, started):
    """For 2 s nothing is asked and everybody is told to come later at once; then it works again."""
    with app.quiet():
        while time.monotonic() < started + 1.6:
            assert taken(daemon, **by(ANN, projects="7")) < scaled(0.2)
            assert taken(daemon, **by(BEN)) < scaled(0.2)
            time.sleep(0.1)

    def again():
        with daemon.open(**by(ANN, projects="7")).wait(lambda p: p.closed or synced(p)) as peer:
            return synced(peer)
    eventually(again, what="a stream after the pause")
    assert 1.9 < time.monotonic() - started < scaled(3.5)


def test_pause_after_a_refused_connect(gated):
    """After a failed connect nothing is asked for 2 s."""
    app, daemon = gated()
    listen(daemon, **by(ANN, projects="7")).close()
    app.down()
    started = time.monotonic()
    assert taken(daemon, **by(ANN)) < scaled(0.5)
    app.start()
    pause_ends(app, daemon, started)


def test_pause_after_a_time_limit(gated):
    """After a time limit, either, and whoever waits at that moment is told at once."""
    app, daemon = gated(**SLOW, TPI_APP_CONCURRENCY=1)
    app.hold()
    peers = [daemon.open(**by(ANN))]
    app.wait_asked(1)
    peers += [daemon.open(**by(BEN)) for _ in range(5)]
    wait_all(peers, lambda p: p.closed, what="later")
    started = time.monotonic()
    for peer in peers:
        check_later(peer)
        assert peer.closed_at - peers[0].opened < LIMIT + scaled(LITTLE)
    assert len(app.requests) == 1
    app.release()
    pause_ends(app, daemon, started)


def test_a_thousand_do_not_hammer(gated):
    """1000 requests while the application hangs: it sees no more than TPI_APP_CONCURRENCY of them."""
    app, daemon = gated(**SLOW, TPI_APP_CONCURRENCY=8, SSE_PER_TENANT_CAP=2000)
    app.hold()
    started = time.monotonic()
    peers = [daemon.open(**by(f"SECRET-{number}")) for number in range(1000)]
    wait_all(peers, lambda p: p.closed, 20, "later")
    assert time.monotonic() - started < scaled(4)
    for peer in peers:
        check_later(peer)
    assert len(app.requests) <= 8 and app.connections <= 8


def test_what_is_known_is_answered_in_the_pause(gated):
    """While the application is left alone, answers that are still kept count."""
    app, daemon = gated(TPI_APP_CACHE_SECONDS=300)
    listen(daemon, **by(ANN, projects="7")).close()
    app.down()
    check_later(daemon.ask(**by(BEN)))
    check_later(daemon.ask(**by(BEN)))
    listen(daemon, **by(ANN, projects="7")).close()


# Names, certificates, proxies

@pytest.mark.parametrize("name", ["app.invalid", "nowhere.app.invalid:3000"])
def test_no_such_name(gated, name):
    """A name that does not resolve: later, within the limit, and the drain does not wait for it."""
    _, daemon = gated(**SLOW, TPI_APP_URL=f"http://{name}")
    assert taken(daemon, **by(ANN)) < LIMIT + scaled(LITTLE)
    assert daemon.stop() < scaled(2)


@pytest.fixture
def authority(rundir):
    return Authority(rundir)


@pytest.mark.parametrize("names, host", [("DNS:localhost,IP:127.0.0.1", "127.0.0.1"), ("DNS:localhost", "localhost")])
def test_tls(gated, application, authority, names, host):
    """TPI_APP_CA says whom to trust; the connection is kept and used again."""
    app = application(tls=authority.issue(names))
    _, daemon = gated(app=app, TPI_APP_URL=app.url.replace("127.0.0.1", host), TPI_APP_CA=authority.pem)
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
def test_untrusted(gated, application, authority, rundir, what):
    """A certificate that does not check out: later, nothing has been sent, and the log says why."""
    app = application(tls=UNTRUSTED[what](authority, rundir))
    ca = None if what == "an unknown CA" else authority.pem
    _, daemon = gated(app=app, TPI_APP_CA=ca)
    check_later(daemon.ask(**by(ANN)))
    assert not app.requests
    daemon.wait_for_log("certificate|SSL|TLS")


def test_plain_where_tls_is_expected(gated, application):
    """An application without TLS behind an https URL: later, and the cookie is not sent in the clear."""
    app = application()
    _, daemon = gated(app=app, TPI_APP_URL=app.url.replace("http:", "https:"))
    check_later(daemon.ask(**by(ANN)))
    assert not app.requests


def proxies(url):
    return {name: url for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")} | {
        "no_proxy": None, "NO_PROXY": None}


@pytest.mark.parametrize("setting", [None, "none"])
def test_proxies_of_the_environment_are_ignored(gated, application, setting):
    """A proxy in the environment is not used."""
    proxy = application()
    app, daemon = gated(TPI_APP_PROXY=setting, **proxies(proxy.url))
    listen(daemon, **by(ANN, projects="7")).close()
    assert len(app.requests) == 2 and not proxy.connections


def test_proxy_that_is_asked_for(gated, application):
    """TPI_APP_PROXY=environment: the proxy is used, and no_proxy, too."""
    proxy = application()
    _, daemon = gated(app=proxy, TPI_APP_PROXY="environment", TPI_APP_URL="http://app.invalid", **proxies(proxy.url))
    listen(daemon, **by(ANN, projects="7")).close()
    assert [request.target.partition("?")[0] for request in proxy.requests] == [
        f"http://app.invalid{SESSION}", f"http://app.invalid{PROJECTS}"]
    proxy.forget()
    app, daemon = gated(TPI_APP_PROXY="environment", **{**proxies(proxy.url), "no_proxy": "127.0.0.1"})
    listen(daemon, **by(ANN)).close()
    assert len(app.requests) == 1 and not proxy.connections


# What it says, and how it ends

@pytest.mark.parametrize("level", ["info", "debug"])
def test_what_the_log_says(gated, level):
    """A failure is a warning that names the application and the reason, at most one a minute; the recovery is a line,
    too. No level shows a cookie or a token."""
    app, daemon = gated(TPI_LOG_LEVEL=level)
    secrets = by("SECRET-abc", HTTP_AUTHORIZATION="Bearer SECRET-def")
    for answer in (says({"error": "SECRET-ghi"}, 502), says(b"<p>SECRET-jkl"), reset,
                   raw(b"HTTP/1.1 200 SECRET-mno\r\nX-SECRET: SECRET-pqr\r\nContent-Length: SECRET\r\n\r\n")):
        app.faults[SESSION] = answer
        check_later(daemon.ask(**secrets))
    app.faults.clear()
    check_answer(daemon.ask(**secrets), 401)
    daemon.wait_for_log("answers again")
    warning = daemon.wait_for_log(r"^\[app\] the application cannot be asked")
    assert app.url in warning and "502" in warning
    assert len(daemon.matching(r"^\[app\] the application cannot be asked")) == (1 if level == "info" else 4)


def test_drain_while_it_hangs(gated):
    """SIGTERM while requests wait for the application: each is told to come later, and the exit is in time."""
    app, daemon = gated(TPI_APP_TIMEOUT_MS=60000, TPI_DRAIN_SECONDS=2, SSE_PER_USER_CAP=100)
    stream = listen(daemon, **by(ANN))
    app.hold()
    peers = [daemon.open(**by(f"SECRET-{number}")) for number in range(40)]
    app.wait_asked(32 + 1)
    assert daemon.stop() < scaled(2)
    stream.wait_body(b"event: shutdown")
    for peer in peers:
        check_later(peer.wait_end())


def test_drain_amid_a_handshake(streamd, application, authority):
    """SIGTERM while the first connection with TLS is being made: a clean exit."""
    app = application(tls=authority.issue())
    app.hold()
    for _ in range(10):
        app.forget()
        daemon = streamd(TPI_IDENTITY="app", TPI_APP_URL=app.url, TPI_DRAIN_SECONDS=1)
        peer = daemon.open(**by(ANN))
        eventually(lambda: app.connections, what="a connection to the application")
        assert daemon.stop() < scaled(1)
        check_later(peer.wait_end())


def test_who_leaves_gives_everything_back(gated):
    """Peers that go away while the application hangs leave no thread and no descriptor behind."""
    app, daemon = gated(TPI_APP_TIMEOUT_MS=60000)
    listen(daemon, **by(ANN)).close()
    app.hold()
    first = daemon.open(**by("SECRET-first"))
    app.wait_asked(2)
    before = descriptors_and_threads(daemon.pid)
    for _ in range(3):
        peers = [daemon.open(**by("SECRET-first")) for _ in range(50)]
        daemon.wait_for_log("request in flight", start=daemon.mark())
        for peer in peers:
            peer.close()
    wait_released(daemon.pid, before)
    assert first.quiet(0).status is None
    app.release()
    check_answer(first.wait_end(), 401)


def test_who_leaves_the_queue(gated):
    """Nothing is asked for a peer that has gone away before its turn."""
    app, daemon = gated(TPI_APP_CONCURRENCY=1, TPI_APP_TIMEOUT_MS=60000)
    app.hold()
    first = daemon.open(**by(ANN))
    app.wait_asked(1)
    before = descriptors_and_threads(daemon.pid)
    peers = [daemon.open(**by(f"SECRET-{number}")) for number in range(20)]
    daemon.wait_for_log("user asked", count=21)
    for peer in peers:
        peer.close()
    wait_released(daemon.pid, before)
    app.release()
    first.wait(synced, what="sync")
    listen(daemon, **by(BEN)).close()
    assert [request.token for request in app.requests] == [ANN, BEN]


def test_other_answers_while_it_hangs(gated):
    """While the application hangs, what needs no question is answered at once."""
    app, daemon = gated(TPI_APP_TIMEOUT_MS=60000, TPI_DRAIN_SECONDS=1)
    app.hold()
    waiting = daemon.open(**by(ANN))
    app.wait_asked(1)
    for status, changes in (404, {"SCRIPT_NAME": "/x"}), (405, {"REQUEST_METHOD": "POST"}), (401, {}):
        started = time.monotonic()
        check_answer(daemon.ask(TPI_USER=None, **changes), status)
        assert time.monotonic() - started < scaled(0.3)
    assert waiting.quiet(0).status is None
