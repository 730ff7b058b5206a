# SPDX-License-Identifier: ISC
"""The application identifies users and authorizes their streams (TPI_IDENTITY=app, TPI_PROJECT_ACCESS=app, each alone
and both): which queries it receives, how often, and with which headers."""

import os
import random
import re
import selectors
import time

import pytest

import fcgi
from answers import (EVICTED, after_first, check_answer, check_evicted, check_later, frame, issue,
                     notification)
from application import ANN, BEN, COOKIE, PROJECTS, SESSION, Application, bearer, by, listen, message, says, synced
from fcgi import wait_all
from servers import listening_socket, project_channel, run_streamd, user_channel
from timing import eventually, scaled


@pytest.fixture(scope="module")
def shared(module_with_app):
    """An application and a daemon for tests that leave both as they found them."""
    return module_with_app(SSE_PER_USER_CAP=10000, SSE_ISSUES_PER_USER_CAP=10000,
                           TPI_ALLOWED_ORIGINS="https://portal")


def check_user(daemon, valkey, user, **named):
    """Checks that a notification stream receives this user's wake-ups."""
    with listen(daemon, **named) as peer:
        valkey.publish(user_channel(user), notification("x"))
        peer.wait_data(notification("x"))


def check_projects(daemon, valkey, projects, requested, **named):
    """Checks that an issue stream receives the wake-ups of projects, and of no other project that it requested."""
    last = issue(2, projects[-1])
    with listen(daemon, projects=requested, **named) as peer:
        for project in sorted(set(map(int, requested.split(",")))):
            valkey.publish(project_channel(project), issue(1, project))
        valkey.publish(project_channel(projects[-1]), last)
        peer.wait_data(last)
        assert after_first(peer) == b"".join(frame(issue(1, project)) for project in projects) + frame(last)


# Identity and access

@pytest.mark.parametrize("sign", [by, bearer])
def test_identity_alone(with_app, valkey, sign):
    """With TPI_IDENTITY=app alone, the application names the user of a cookie or a bearer token; 401 if it names none."""
    app, daemon = with_app(TPI_PROJECT_ACCESS="deny")
    check_user(daemon, valkey, "ann", **sign(ANN))
    check_user(daemon, valkey, "ben", **sign(BEN))
    check_answer(daemon.ask(**sign("SECRET-unknown")), 401)
    check_answer(daemon.ask(**sign(ANN, projects="7")), 404)
    assert not app.asked(PROJECTS)


def test_deny_sends_no_query(with_app):
    """With TPI_PROJECT_ACCESS=deny, a request for a project is 404 without a query, even an identity query."""
    app, daemon = with_app(TPI_PROJECT_ACCESS="deny")
    with app.quiet():
        check_answer(daemon.ask(**by(ANN, projects="7")), 404)


def test_web_server_user_is_ignored(shared, valkey):
    """With TPI_IDENTITY=app, the user that the web server authenticated is ignored."""
    _, daemon = shared
    verified = {"TPI_USER": "ben", "REMOTE_USER": "ben", "AUTH_TYPE": "Basic"}
    check_user(daemon, valkey, "ann", **by(ANN, **verified))
    check_answer(daemon.ask(**by("SECRET-unknown", **verified)), 401)


def test_access_alone(with_app, valkey):
    """With TPI_PROJECT_ACCESS=app alone, the web server names the user, and the request's own credentials decide which
    projects the stream may have."""
    app, daemon = with_app(TPI_IDENTITY=None)
    with app.quiet():
        check_user(daemon, valkey, "eve", TPI_USER="eve", HTTP_COOKIE=by(ANN)["HTTP_COOKIE"])
        check_answer(daemon.ask(TPI_USER=None, projects="7", HTTP_COOKIE=by(ANN)["HTTP_COOKIE"]), 401)
        check_answer(daemon.ask("eve", projects="7"), 404)
    check_projects(daemon, valkey, [7, 8], "7,8", **by(ANN, TPI_USER="eve"))
    check_projects(daemon, valkey, [8], "7,8", **bearer(BEN, TPI_USER="eve"))
    check_answer(daemon.ask(**by(BEN, TPI_USER="eve", projects="7")), 404)
    check_answer(daemon.ask(**by("SECRET-unknown", TPI_USER="eve", projects="7")), 404)
    assert not app.asked(SESSION)


def test_api_token(with_app, valkey):
    """An API token has no session in TestPlanIt, so a request with one is 401 unless the web server names the user. The
    token then authorizes the projects, whatever page the request comes from."""
    app, daemon = with_app()
    token = app.sign_in("tpi_SECRET-sam", "sam", [8], is_api=True)
    check_answer(daemon.ask(**bearer(token)), 401)
    check_answer(daemon.ask(**bearer(token, projects="8")), 401)
    _, daemon = with_app(app=app, TPI_IDENTITY=None)
    check_projects(daemon, valkey, [8], "7,8", **bearer(token, TPI_USER="sam"))


def test_head_too_long(with_app):
    """A 431, which Node.js sends for a head longer than 16 KiB, is a failed query: retry later, not anonymous."""
    _, daemon = with_app()
    check_later(daemon.ask(**by(ANN, HTTP_COOKIE=f"{COOKIE}={ANN}; x=" + "x" * 17000)))
    daemon.wait_for_log(r"\[app\] cannot query the application .*\"status\":431")


def test_both(shared, valkey):
    """With both set to app, the daemon queries the user, then the projects; it drops unreadable projects silently, and
    does not query the projects of an anonymous request."""
    app, daemon = shared
    app.forget()
    check_projects(daemon, valkey, [7, 8], "8,7,9,8", **by(ANN))
    assert [(request.kind, request.ids) for request in app.requests] == [(SESSION, None), (PROJECTS, [7, 8, 9])]
    check_projects(daemon, valkey, [8], "7,8", **bearer(BEN))
    check_answer(daemon.ask(**by(BEN, projects="7,9")), 404)
    with app.quiet(1):
        check_answer(daemon.ask(**by("SECRET-unknown", projects="7")), 401)


def test_access_file_with_app_identity(with_app, valkey, rundir):
    """The access file applies to the user that the application names, not to the web server's."""
    path = os.path.join(rundir, "rules")
    with open(path, "w", encoding="ascii") as file:
        file.write("7 ben\n")
    app, daemon = with_app(TPI_PROJECT_ACCESS=f"file:{path}")
    check_projects(daemon, valkey, [7], "7,8", **by(BEN, TPI_USER="ann"))
    check_answer(daemon.ask(**by(ANN, projects="7")), 404)
    assert not app.asked(PROJECTS)


def test_allow_with_app_identity(with_app, valkey):
    """With TPI_PROJECT_ACCESS=allow, a user with a session reads every requested project; an anonymous request is 401."""
    _, daemon = with_app(TPI_PROJECT_ACCESS="allow")
    check_projects(daemon, valkey, [7, 9], "7,9", **by(BEN))
    check_answer(daemon.ask(**by("SECRET-unknown", projects="7")), 401)


# What the daemon sends

@pytest.fixture(scope="module")
def version():
    return run_streamd("--version").stdout.split()[-1]


LONG = f"{COOKIE}=" + "x" * 7000
HEADERS = {  # parameters of the request, and the headers they add to those of every query
    "cookie": ({"HTTP_COOKIE": "a=SECRET1"}, {"Cookie": "a=SECRET1"}),
    "several cookies": ({"HTTP_COOKIE": ["a=SECRET1", "b=SECRET2; c", "d=3"]},
                        {"Cookie": "a=SECRET1; b=SECRET2; c; d=3"}),
    "a long cookie": ({"HTTP_COOKIE": LONG}, {"Cookie": LONG}),
    "a cookie beyond ASCII": ({"HTTP_COOKIE": "a=\xe4\xff\x80"}, {"Cookie": "a=\xe4\xff\x80"}),
    "authorization": ({"HTTP_AUTHORIZATION": "Bearer SECRET"}, {"Authorization": "Bearer SECRET"}),
    "both": ({"HTTP_COOKIE": "a=1", "HTTP_AUTHORIZATION": "Basic SECRET"},
             {"Cookie": "a=1", "Authorization": "Basic SECRET"}),
    "address": ({"HTTP_COOKIE": "a", "REMOTE_ADDR": "192.0.2.1"}, {"Cookie": "a", "X-Forwarded-For": "192.0.2.1"}),
    "address after earlier proxies": (
        {"HTTP_COOKIE": "a", "REMOTE_ADDR": "2001:db8::1", "HTTP_X_FORWARDED_FOR": "203.0.113.5, 198.51.100.2"},
        {"Cookie": "a", "X-Forwarded-For": "203.0.113.5, 198.51.100.2, 2001:db8::1"}),
    "scheme": ({"HTTP_COOKIE": "a", "REQUEST_SCHEME": "https"}, {"Cookie": "a", "X-Forwarded-Proto": "https"}),
    "HTTPS": ({"HTTP_COOKIE": "a", "HTTPS": "on", "REQUEST_SCHEME": "http"},
              {"Cookie": "a", "X-Forwarded-Proto": "https"}),
    "HTTPS off": ({"HTTP_COOKIE": "a", "HTTPS": "off", "REQUEST_SCHEME": "http"},
                  {"Cookie": "a", "X-Forwarded-Proto": "http"}),
    "X-Forwarded-Proto from a proxy": ({"HTTP_COOKIE": "a", "HTTP_X_FORWARDED_PROTO": "http", "HTTPS": "on"},
                        {"Cookie": "a", "X-Forwarded-Proto": "http"}),
    "host": ({"HTTP_COOKIE": "a", "HTTP_HOST": "tpi.example:8443"},
             {"Cookie": "a", "X-Forwarded-Host": "tpi.example:8443"}),
    "X-Forwarded-Host from a proxy": ({"HTTP_COOKIE": "a", "HTTP_HOST": "inner", "HTTP_X_FORWARDED_HOST": "tpi.example"},
                      {"Cookie": "a", "X-Forwarded-Host": "tpi.example"}),
    "Sec-Fetch-Site": ({"HTTP_COOKIE": "a", "HTTP_SEC_FETCH_SITE": "same-origin"},
                           {"Cookie": "a", "Sec-Fetch-Site": "same-origin"}),
    "Sec-Fetch-Site takes precedence": (
        {"HTTP_COOKIE": "a", "HTTP_SEC_FETCH_SITE": "none", "HTTP_HOST": "h", "HTTP_ORIGIN": "http://h",
         "HTTP_REFERER": "http://h/"},
        {"Cookie": "a", "X-Forwarded-Host": "h", "Sec-Fetch-Site": "none"}),
    "Referer alone": ({"HTTP_COOKIE": "a", "HTTP_HOST": "h:81", "HTTP_REFERER": "http://h:81/en-US/projects"},
                      {"Cookie": "a", "X-Forwarded-Host": "h:81", "Sec-Fetch-Site": "same-origin"}),
    "Origin alone": ({"HTTP_COOKIE": "a", "HTTP_HOST": "h", "HTTP_ORIGIN": "https://h"},
                     {"Cookie": "a", "X-Forwarded-Host": "h", "Sec-Fetch-Site": "same-origin"}),
    "an allowed origin": (
        {"HTTP_COOKIE": "a", "HTTP_HOST": "h", "HTTP_ORIGIN": "https://portal", "HTTP_SEC_FETCH_SITE": "same-site"},
        {"Cookie": "a", "X-Forwarded-Host": "h", "Sec-Fetch-Site": "same-site"}),
    "Referer of another site": (
        {"HTTP_COOKIE": "a", "HTTP_HOST": "h", "HTTP_REFERER": "http://evil/"},
        {"Cookie": "a", "X-Forwarded-Host": "h"}),
    "not forwarded": (
        {"HTTP_COOKIE": "a", **{name: "SECRET" for name in (
            "HTTP_USER_AGENT", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE", "HTTP_REFERER",
            "HTTP_CONNECTION", "HTTP_EXPECT", "HTTP_RANGE", "HTTP_TE", "HTTP_TRANSFER_ENCODING",
            "HTTP_PROXY", "HTTP_PROXY_AUTHORIZATION", "HTTP_X_USER", "HTTP_X_REAL_IP", "HTTP_FORWARDED",
            "HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_USER", "HTTP_IF_NONE_MATCH", "HTTP_COOKIE2",
            "HTTP_LAST_EVENT_ID", "CONTENT_TYPE", "SERVER_NAME", "REMOTE_USER", "AUTH_TYPE")}},
        {"Cookie": "a"}),
}


@pytest.mark.parametrize("sent, expected", HEADERS.values(), ids=HEADERS)
def test_headers(shared, version, sent, expected):
    """The daemon forwards exactly the documented headers."""
    app, daemon = shared
    app.forget()
    origin = sent.get("HTTP_ORIGIN")
    check_answer(daemon.ask(TPI_USER=None, **sent), 401, origin=origin if origin == "https://portal" else None)
    [request] = app.requests
    host, _, _ = app.url.removeprefix("http://").partition("/")
    of_every_query = {"Host": host, "Accept": "application/json", "User-Agent": f"tpi-streamd/{version}"}
    assert sorted(request.headers) == sorted({**of_every_query, **expected}.items())


@pytest.mark.parametrize("name", ["HTTP_HOST", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "REMOTE_ADDR",
                                  "HTTP_X_FORWARDED_PROTO", "REQUEST_SCHEME", "HTTP_SEC_FETCH_SITE"])
def test_header_injection(shared, name):
    """A line break in a forwarded value adds neither a header nor a request."""
    app, daemon = shared
    app.forget()
    check_answer(daemon.ask(TPI_USER=None, HTTP_COOKIE="a", **{name: "x\r\nX-Evil: 1\r\n\r\nGET /x HTTP/1.1\r\n"}), 401)
    # A header that the daemon must not send makes the stand-in fail when it stops.
    assert [request.target for request in app.requests] == [SESSION]


NO_CREDENTIALS = {
    "none": {},
    "an empty cookie": {"HTTP_COOKIE": ""},
    "all empty": {"HTTP_COOKIE": ["", ""], "HTTP_AUTHORIZATION": ""},
    **{f"a cookie with {bad!r}": {"HTTP_COOKIE": f"{COOKIE}={ANN}{bad}x"} for bad in "\n\r\t\0\x1b\x7f"},
    "the second cookie with a line break": {"HTTP_COOKIE": [f"{COOKIE}={ANN}", "a=b\r\nX-Evil: 1"]},
    **{f"an authorization with {bad!r}": {"HTTP_AUTHORIZATION": f"Bearer {ANN}{bad}x"} for bad in "\n\r\t\0\x1b\x7f"},
    "a valid cookie with an invalid authorization": {"HTTP_COOKIE": f"{COOKIE}={ANN}", "HTTP_AUTHORIZATION": "a\nb"},
}


@pytest.fixture(scope="module")
def access_alone(module_with_app):
    return module_with_app(TPI_IDENTITY=None)


@pytest.mark.parametrize("sent", NO_CREDENTIALS.values(), ids=NO_CREDENTIALS)
def test_no_credentials(shared, access_alone, sent):
    """A request without credentials, or with a control character in them, is anonymous (401) and can read no project
    (404), without a query."""
    app, daemon = shared
    with app.quiet():
        check_answer(daemon.ask(TPI_USER=None, **sent), 401)
        check_answer(daemon.ask(TPI_USER=None, projects="7", **sent), 401)
    app, daemon = access_alone
    with app.quiet():
        check_answer(daemon.ask("eve", projects="7", **sent), 404)


def test_bad_requests_send_no_query(shared):
    """A request that is invalid without knowing its user is answered without a query."""
    app, daemon = shared
    many = ",".join(map(str, range(1, 502)))
    with app.quiet():
        for status, changes in [(404, {"SCRIPT_NAME": "/x"}), (405, {"REQUEST_METHOD": "HEAD"}),
                                (400, {"projects": "x"}),
                                (400, {"projects": many}), (400, {"QUERY_STRING": ["", "a"]})]:
            check_answer(daemon.ask(**by(ANN, **changes)), status, changes.get("REQUEST_METHOD"))


@pytest.mark.parametrize("where", ["prefix", "prefix and slash", "slash", "name", "unix"])
def test_urls(with_app, valkey, rundir, where):
    """A path in TPI_APP_URL precedes that of each query, a slash at its end is ignored, and the Host header is the
    URL's, or localhost over a Unix socket."""
    app = Application(path=f"{rundir}/app" if where == "unix" else None,
                      prefix="/tpi/app" if "prefix" in where else "").start()
    base = app.url.replace("127.0.0.1", "localhost") if where == "name" else app.url
    _, daemon = with_app(app=app, TPI_APP_URL=base + "/" * ("slash" in where))
    check_projects(daemon, valkey, [7], "7", **by(ANN, HTTP_HOST="tpi.example"))
    assert len(app.requests) == 2
    for request in app.requests:
        host = "localhost" if where == "unix" else base.split("/")[2]
        assert request.header("Host") == host and request.header("X-Forwarded-Host") == "tpi.example"
    app.stop()


# Queries for many projects

def subscribed(valkey, projects):
    """The projects whose channels have a subscriber."""
    answer = valkey("PUBSUB", "NUMSUB", *map(project_channel, projects))
    return [project for project, count in zip(projects, answer[1::2]) if count]


@pytest.mark.parametrize("count, queries", [(1, 1), (100, 1), (101, 2), (500, 5)])
def test_query_size(with_app, valkey, count, queries):
    """A query has at most 100 projects, each project is in one query, and the stream gets exactly the readable ones."""
    app, daemon = with_app()
    requested = range(1000, 1000 + count)
    readable = [project for project in requested if project % 7 == 0 or project == 1000]
    app.sign_in("SECRET-many", "many", [*readable, 5, 2000])
    with listen(daemon, **by("SECRET-many", projects=",".join(map(str, requested)))):
        assert subscribed(valkey, range(990, 2010)) == readable
    received = app.asked(PROJECTS)
    assert len(received) == queries
    assert sorted(id for query in received for id in query.ids) == list(requested)


def test_one_query_of_several(with_app, valkey):
    """If one query of several fails, the whole request is to retry later; if one is refused, the projects of the others
    remain."""
    app, daemon = with_app()
    app.sign_in("SECRET-many", "many", range(1000, 1500))
    projects = ",".join(map(str, range(1000, 1500)))
    for status in 500, 401:
        app.faults[PROJECTS] = lambda exchange, status=status: exchange.send(
            message({"error": "x"}, status) if 1250 in exchange.query.ids else exchange.honest())
        if status == 500:
            check_later(daemon.ask(**by("SECRET-many", projects=projects)))
            continue
        with listen(daemon, **by("SECRET-many", projects=projects)):
            assert subscribed(valkey, range(1000, 1500)) == [*range(1000, 1200), *range(1300, 1500)]


# Responses that mean no

@pytest.mark.parametrize("status", [401, 403])
def test_refused(with_app, status):
    """401 and 403 mean anonymous for a session query, and no readable project for a project query, whatever the body."""
    app, daemon = with_app()
    app.faults[PROJECTS] = says({"error": "no", "data": [{"id": 7}]}, status)
    check_answer(daemon.ask(**by(ANN, projects="7")), 404)
    app.faults[SESSION] = says({"error": "no", "user": {"id": "ann"}}, status)
    check_answer(daemon.ask(**by(ANN, projects="7")), 401)
    check_answer(daemon.ask(**by(ANN)), 401)


ANONYMOUS = [{}, None, {"user": None}, {"user": {}}, {"user": {"name": "ann"}}, {"error": "no session"},
             *({"user": {"id": bad}} for bad in (None, False, 0, 0.0, "", "a:b", "a b", "a*", "a\nb", "\xe4", "a" * 256,
                                                 "a" * 5000))]


@pytest.mark.parametrize("answer", ANONYMOUS, ids=range(len(ANONYMOUS)))
def test_anonymous(shared, answer):
    """A response without a user, without an id, with an id that is false in JavaScript, or with an invalid id is 401."""
    app, daemon = shared
    app.faults[SESSION] = says(answer)
    try:
        check_answer(daemon.ask(**by(ANN)), 401)
    finally:
        del app.faults[SESSION]


@pytest.mark.parametrize("user", ["a" * 255, "!#$%&'()+,-./09;<=>@AZ^_`az{|}~", "clx0a1b2c"])
def test_any_valid_id(shared, valkey, user):
    """A user id may have any allowed character and 255 bytes."""
    app, daemon = shared
    app.sign_in("SECRET-other", user)
    check_user(daemon, valkey, user, **by("SECRET-other"))


# Coalescing, caching, concurrency

def open_many(daemon, requests):
    """Connects first, so that the requests themselves are sent at almost the same time."""
    peers = [fcgi.Peer(daemon.address) for _ in requests]
    for peer, named in zip(peers, requests):
        peer.send(fcgi.request(fcgi.params(**named)))
    return peers


def test_equal_queries_are_coalesced(with_app):
    """Equal lookups with the same credentials share the query in flight; other credentials and other projects need
    their own."""
    app, daemon = with_app(SSE_PER_USER_CAP=10000, SSE_ISSUES_PER_USER_CAP=10000)
    app.hold(SESSION)
    peers = open_many(daemon, [by(ANN)] * 30 + [bearer(ANN)] * 10)
    daemon.wait_for_log("user query", count=40)
    app.wait_asked(2)
    app.release()
    wait_all(peers, synced, what="sync")
    assert len(app.requests) == 2

    app.hold(PROJECTS)
    app.forget()
    peers += open_many(daemon, [by(ANN, projects="7,8")] * 15 + [by(ANN, projects="7")] * 5)
    daemon.wait_for_log("projects query", count=20)
    app.wait_asked(2, PROJECTS)
    app.release()
    wait_all(peers, synced, what="sync")
    assert len(app.asked(PROJECTS)) == 2
    for peer in peers:
        peer.close()


def test_cookie_and_authorization_are_both_in_the_key(with_app):
    """The same cookie alone, with one token and with another token are three different credentials."""
    app, daemon = with_app(TPI_APP_CACHE_SECONDS=300)
    for token in None, "Bearer SECRET-1", "Bearer SECRET-2":
        with listen(daemon, **by(ANN, HTTP_AUTHORIZATION=token)):
            pass
    assert len(app.requests) == 3


def test_sec_fetch_site_is_in_the_key(with_app):
    """A script does not get the response that is cached for a page with the same cookie; all pages of the site share
    theirs."""
    app, daemon = with_app(TPI_APP_CACHE_SECONDS=300, SSE_ISSUES_PER_USER_CAP=10)
    page = {"HTTP_HOST": "tpi.example", "HTTP_SEC_FETCH_SITE": None}
    for path in "projects/7", "dashboard":
        listen(daemon, **by(ANN, projects="7", HTTP_REFERER=f"http://tpi.example/{path}", **page)).close()
    assert [request.header("Sec-Fetch-Site") for request in app.requests] == ["same-origin"] * 2
    with app.quiet(2):
        check_answer(daemon.ask(**by(ANN, projects="7", **page)), 404)
    assert [request.header("Sec-Fetch-Site") for request in app.requests[2:]] == [None] * 2


def test_cache(with_app):
    """A response is cached for TPI_APP_CACHE_SECONDS, which the debug log shows; then the daemon queries again."""
    app, daemon = with_app(TPI_APP_CACHE_SECONDS=2, SSE_ISSUES_PER_USER_CAP=100)
    started = time.monotonic()
    with listen(daemon, **by(ANN, projects="7")):
        assert len(app.requests) == 2
    mark = daemon.mark()
    app.sign_out(ANN)
    with app.quiet():
        with listen(daemon, **by(ANN, projects="7")):
            daemon.wait_for_log("cache", start=mark, count=2)
    eventually(lambda: daemon.open(**by(ANN, projects="7")).wait(lambda p: p.status).status == 401,
               what="401 for the user who signed out")
    assert 1.9 < time.monotonic() - started < scaled(3)


def test_a_no_is_cached_for_a_second(with_app):
    """A user who has just signed in gets a stream after a second, however long a yes is cached."""
    app, daemon = with_app(TPI_APP_CACHE_SECONDS=300)
    for kind, status in ({}, 401), ({"projects": "7"}, 404):
        app.sign_in("SECRET-new", "new")
        if not kind:
            app.sign_out("SECRET-new")
        started = time.monotonic()
        check_answer(daemon.ask(**by("SECRET-new", **kind)), status)
        app.sign_in("SECRET-new", "new", [7])
        with app.quiet(0):
            check_answer(daemon.ask(**by("SECRET-new", **kind)), status)
        eventually(lambda: daemon.open(**by("SECRET-new", **kind)).wait(lambda p: p.status).status == 200,
                   what="a stream for the user who signed in")
        assert 0.8 < time.monotonic() - started < scaled(5)


def test_no_cache(with_app):
    """With TPI_APP_CACHE_SECONDS=0, each request sends its own queries."""
    app, daemon = with_app()
    for _ in range(3):
        with app.quiet(2), listen(daemon, **by(ANN, projects="7")):
            pass
        with app.quiet(1):
            check_answer(daemon.ask(**by("SECRET-unknown")), 401)


@pytest.mark.slow
def test_cache_is_bounded(with_app):
    """After 17000 sessions within the cache time, the oldest needs a new query and a recent one does not."""
    app, daemon = with_app(TPI_APP_CACHE_SECONDS=300, TPI_LOG_LEVEL=None, SSE_PER_USER_CAP=10000,
                           TPI_APP_PENDING=1000)
    for first in range(0, 17000, 500):
        tokens = [app.sign_in(f"SECRET-{number}", "many") for number in range(first, first + 500)]
        peers = open_many(daemon, [by(token) for token in tokens])
        wait_all(peers, synced, what="sync")
        for peer in peers:
            peer.close()
    with app.quiet():
        listen(daemon, **by("SECRET-16990")).close()
    with app.quiet(1):
        listen(daemon, **by("SECRET-0")).close()


def test_a_failure_is_not_cached(with_app):
    """After an invalid response, the next request sends a query again."""
    app, daemon = with_app(TPI_APP_CACHE_SECONDS=300)
    app.faults[SESSION] = says(b"<html>")
    check_later(daemon.ask(**by(ANN)))
    app.faults.clear()
    with listen(daemon, **by(ANN)):
        assert len(app.requests) == 2


def test_concurrency(with_app):
    """The application gets at most TPI_APP_CONCURRENCY queries at once; further ones are queued."""
    app, daemon = with_app(TPI_APP_CONCURRENCY=3)
    app.delay = 0.1
    for number in range(15):
        app.sign_in(f"SECRET-{number}", f"user{number}")
    peers = open_many(daemon, [by(f"SECRET-{number}") for number in range(15)])
    wait_all(peers, synced, what="sync")
    assert app.most_in_flight == 3 and len(app.requests) == 15
    assert app.most_connections <= 3


def test_time_limit_includes_the_queue(with_app):
    """A request whose query is still queued after TPI_APP_TIMEOUT_MS is to retry later, and its query is never sent."""
    app, daemon = with_app(TPI_APP_CONCURRENCY=1, TPI_APP_TIMEOUT_MS=2000)
    for number in range(6):
        app.sign_in(f"SECRET-{number}", f"user{number}")
    app.delay = 1.5
    started = time.monotonic()
    peers = open_many(daemon, [by(f"SECRET-{number}") for number in range(6)])
    wait_all(peers, lambda p: p.closed or synced(p), what="a response")
    assert time.monotonic() - started < 2 + scaled(1)
    for peer in peers:
        if peer.closed:
            check_later(peer)
    assert sum(not peer.closed for peer in peers) == 1
    assert len(app.requests) <= 2


def test_connections_are_reused(with_app):
    """Many queries, sequential or concurrent, need few connections."""
    app, daemon = with_app(TPI_APP_CONCURRENCY=8, SSE_PER_USER_CAP=10000)
    for _ in range(50):
        with listen(daemon, **by(ANN)):
            pass
    assert len(app.requests) == 50 and app.connections <= 2
    app.delay = 0.01
    for number in range(200):
        app.sign_in(f"SECRET-{number}", f"user{number}")
    peers = open_many(daemon, [by(f"SECRET-{number}") for number in range(200)])
    wait_all(peers, synced, what="sync")
    assert len(app.requests) == 250 and app.connections <= 10


# Slots

def test_tenant_cap_counts_requests_in_flight(with_app):
    """A request that waits for an answer about access holds a slot of the tenant. One over the cap gets 503 once its
    user is known, without a query about access."""
    app, daemon = with_app(SSE_ISSUES_PER_TENANT_CAP=2)
    app.hold(PROJECTS)
    peers = [daemon.open(**by(ANN, projects="7")), daemon.open(**by(BEN, projects="8"))]
    app.wait_asked(2, PROJECTS)
    check_answer(daemon.ask(**by(ANN, projects="7")), 503)
    check_answer(daemon.ask(**by("SECRET-unknown", projects="7")), 401)
    assert len(app.asked(PROJECTS)) == 2
    app.release()
    wait_all(peers, synced, what="sync")


def test_unknown_users_hold_no_slot(with_app):
    """Requests that wait for their user to be identified hold no slot: with a cap of 1, none of several is refused, and
    the one user among them gets a stream."""
    app, daemon = with_app(SSE_PER_TENANT_CAP=1)
    app.hold()
    strangers = [daemon.open(**by(f"SECRET-unknown-{number}")) for number in range(4)]
    app.wait_asked(4)
    user = daemon.open(**by(ANN))
    app.wait_asked(5)
    app.release()
    for peer in strangers:
        check_answer(peer.wait_end(), 401)
    user.wait(synced, what="sync")


def test_pending(with_app):
    """Of the requests that wait for their user to be identified, those over TPI_APP_PENDING are deferred, and their
    queries are not sent. A request with a cached answer does not wait, and a peer that closes makes room."""
    app, daemon = with_app(TPI_APP_PENDING=2, TPI_APP_CONCURRENCY=1, TPI_APP_CACHE_SECONDS=300,
                           TPI_APP_TIMEOUT_MS=60000)
    listen(daemon, **by(ANN)).close()
    app.hold()
    first = daemon.open(**by("SECRET-unknown-1"))
    app.wait_asked(2)
    second = daemon.open(**by("SECRET-unknown-2"))
    daemon.wait_for_log("user query", count=3)
    for _ in range(3):
        check_later(daemon.ask(**by(BEN)))
    daemon.wait_for_log(r"^\[app\] too many requests wait for the application \{\"pending\":2")
    listen(daemon, **by(ANN)).close()
    daemon.wait_for_log("user query", count=4)
    second.close()

    def waits():
        mark = daemon.mark()
        candidate = daemon.open(**by(BEN))
        eventually(lambda: candidate.quiet(0).closed or daemon.matching("user query", start=mark),
                   what="a response or a query")
        return None if candidate.closed else candidate
    third = eventually(waits, what="room")
    app.release()
    check_answer(first.wait_end(), 401)
    third.wait(synced, what="sync")
    assert not app.asked(token="SECRET-unknown-2")


def test_deferred_requests_send_no_query(with_app):
    """A request over TPI_APP_PENDING is deferred before its query could be sent."""
    app, daemon = with_app(TPI_APP_PENDING=1, TPI_APP_CONCURRENCY=8, TPI_APP_TIMEOUT_MS=60000)
    app.hold()
    first = daemon.open(**by("SECRET-unknown"))
    app.wait_asked(1)
    peers = open_many(daemon, [by(f"SECRET-unknown-{number}") for number in range(300)])
    wait_all(peers, lambda p: p.closed, what="retry later")
    for peer in peers:
        check_later(peer)
    app.release()
    check_answer(first.wait_end(), 401)
    assert len(app.requests) == 1


def test_known_users_have_places_of_their_own(with_app):
    """A user whom the application has identified before waits although strangers have taken all places, up to as many
    requests again."""
    app, daemon = with_app(TPI_APP_PENDING=1, TPI_APP_TIMEOUT_MS=60000)
    for token in ANN, BEN:
        listen(daemon, **by(token)).close()
    app.hold()
    stranger = daemon.open(**by("SECRET-unknown-1"))
    app.wait_asked(3)
    check_later(daemon.ask(**by("SECRET-unknown-2")))
    user = daemon.open(**by(ANN))
    app.wait_asked(4)
    check_later(daemon.ask(**by(BEN)))
    app.release()
    check_answer(stranger.wait_end(), 401)
    user.wait(synced, what="sync")


def test_refused_requests_release_their_slot(with_app):
    """Requests that end with 401, 404 or retry later leave the tenant's only slot free."""
    app, daemon = with_app(SSE_PER_TENANT_CAP=1, SSE_ISSUES_PER_TENANT_CAP=1)
    for _ in range(3):
        check_answer(daemon.ask(**by("SECRET-unknown")), 401)
        check_answer(daemon.ask(**by("SECRET-unknown", projects="7")), 401)
        check_answer(daemon.ask(**by(ANN, projects="9")), 404)
        app.faults[SESSION] = says(b"")
        check_later(daemon.ask(**by(ANN)))
        app.faults.clear()
    with listen(daemon, **by(ANN)), listen(daemon, **by(ANN, projects="7")):
        check_answer(daemon.ask(**by(BEN)), 503)


def test_peer_closes_while_its_query_is_in_flight(with_app):
    """A peer that closes or aborts while its query is in flight releases its slot within a second."""
    app, daemon = with_app(SSE_ISSUES_PER_TENANT_CAP=1, TPI_APP_TIMEOUT_MS=20000)
    app.hold(PROJECTS)
    peer = daemon.open(**by(ANN, projects="7"))
    app.wait_asked(1, PROJECTS)
    for leave in (lambda p: p.close(), lambda p: p.send(fcgi.record(fcgi.ABORT))):
        check_answer(daemon.ask(**by(BEN, projects="8")), 503)
        leave(peer)
        started = time.monotonic()

        def holds_slot():
            """A request whose access is queried holds the slot."""
            asked = len(app.asked(SESSION))
            candidate = daemon.open(**by(ANN, projects="7"))
            app.wait_asked(asked + 1, SESSION)
            return candidate if candidate.quiet(0.1).status is None and not candidate.closed else None
        peer = eventually(holds_slot, what="a free slot")
        assert time.monotonic() - started < scaled(1.2)
    app.release()
    peer.wait(synced, what="sync")


def test_user_cap(with_app):
    """The streams of one user count together, whatever credentials the application identified the user by."""
    _, daemon = with_app(SSE_PER_USER_CAP=2)
    peers = [listen(daemon, **sign(ANN)) for sign in (by, bearer, by)]
    other = listen(daemon, **by(BEN))
    check_evicted(peers[0].wait_end())
    for peer in (*peers[1:], other):
        assert not EVICTED.search(peer.quiet(0).body) and not peer.closed


def test_twice_the_user_cap_in_flight(with_app):
    """A user's requests in flight count towards twice the user cap; beyond it the oldest is to retry later."""
    app, daemon = with_app(SSE_ISSUES_PER_USER_CAP=2, TPI_APP_TIMEOUT_MS=20000)
    app.hold(PROJECTS)
    peers = []
    for number in range(5):
        peers.append(daemon.open(**by(ANN, projects=f"7,{100 + number}")))
        app.wait_asked(min(number + 1, 4), PROJECTS)
        assert number == 4 or peers[-1].quiet(0).head is None
    check_later(peers[0].wait_end(3))
    for peer in peers[1:]:
        assert peer.quiet(0).head is None
    app.release()
    wait_all(peers[1:], synced, what="sync")
    for peer in peers:
        peer.close()


# Configuration

def url(value):
    return {"TPI_IDENTITY": "app", "TPI_APP_URL": value}


BAD_URLS = ["ftp://app", "app:3000", "//app", "http:app", "http://", "http:///x", "http://:80", "http://app:",
            "http://app:0", "http://app:65536", "http://app:80x", "http://app:-1", "http://app?x", "http://app/?x",
            "http://app/#x", "http://a b", "http://app/a b", "http://app/\n", "http://[::1", "http://[]",
            "http://[:::]", "unix:", "unix:relative", "unix://host/x", "unix:/" + "x" * 108, "file:///etc/passwd",
            "http://app\\x", "http://\xe4pp"]
BAD = {
    "no URL for the identity": ({"TPI_IDENTITY": "app"}, "TPI_APP_URL.*TPI_IDENTITY"),
    "no URL for the access": ({"TPI_PROJECT_ACCESS": "app"}, "TPI_APP_URL.*TPI_PROJECT_ACCESS"),
    **{f"URL {bad}": (url(bad), "TPI_APP_URL.*http") for bad in BAD_URLS},
    "URL with a user": (url("http://ann:SECRET@app"), "TPI_APP_URL"),
    "URL with a user at a bad port": (url("http://ann:SECRET@app:x/"), "TPI_APP_URL"),
    "URL of another kind with a user": (url("ftp://ann:SECRET@app"), "TPI_APP_URL"),
    "identity": ({"TPI_IDENTITY": "application"}, "TPI_IDENTITY.*web-server.*app"),
    "access": ({"TPI_PROJECT_ACCESS": "App"}, "TPI_PROJECT_ACCESS.*app"),
    "proxy": ({"TPI_APP_PROXY": "http://proxy"}, "TPI_APP_PROXY.*none.*environment"),
    "CA": ({"TPI_APP_CA": "/nonexistent"}, "TPI_APP_CA"),
    "recheck": ({"TPI_RECHECK_SECONDS": "4"}, "TPI_RECHECK_SECONDS.*5"),
    "time limit": ({"TPI_APP_TIMEOUT_MS": "49"}, "TPI_APP_TIMEOUT_MS.*50"),
    "cache": ({"TPI_APP_CACHE_SECONDS": "301"}, "TPI_APP_CACHE_SECONDS.*300"),
    "concurrency": ({"TPI_APP_CONCURRENCY": "0"}, "TPI_APP_CONCURRENCY.*1"),
}


@pytest.mark.parametrize("env, expected", BAD.values(), ids=BAD)
def test_bad_configuration(env, expected):
    """A bad setting is exit 78 with one line that names the setting and what is allowed, but shows no password."""
    for args in (), ("--check-config",):
        result = run_streamd(*args, **env)
        assert result.returncode == 78
        [line] = result.stderr.strip().split("\n")
        assert re.search(expected, line), line
        assert "SECRET" not in line


@pytest.mark.parametrize("good", ["http://app", "HTTPS://app", "http://127.0.0.1:3000", "https://[::1]:443/tpi/",
                                  "http://app.example/a/b", "unix:/run/app.sock"])
def test_good_configuration(good):
    """Every documented form of TPI_APP_URL is accepted and printed by --check-config, as are the defaults."""
    result = run_streamd("--check-config", TPI_IDENTITY="app", TPI_PROJECT_ACCESS="app", TPI_APP_URL=good)
    assert result.returncode == 0, result.stderr
    assert good in result.stdout
    for default in ("TPI_APP_TIMEOUT_MS=2000", "TPI_APP_CACHE_SECONDS=5", "TPI_APP_CONCURRENCY=32",
                    "TPI_RECHECK_SECONDS=300", "TPI_APP_PROXY=none"):
        assert default in result.stdout


# A reconnect storm

def per_user(number):
    """The requests for the five streams of one user, who has one cookie."""
    return [by(f"SECRET-{number}")] * 3 + [by(f"SECRET-{number}", projects=f"{number + 1},5000")] * 2


def reconnect(daemon, requests, seconds):
    """Opens the streams evenly over this many seconds, and reads meanwhile."""
    peers = []
    started = time.monotonic()
    with selectors.DefaultSelector() as selector:
        while len(peers) < len(requests) or not all(map(synced, peers)):
            assert time.monotonic() < started + scaled(20), f"{sum(map(synced, peers))} of {len(requests)} have a sync"
            while len(peers) < len(requests) and time.monotonic() >= started + seconds * len(peers) / len(requests):
                peers.append(daemon.open(**requests[len(peers)]))
                selector.register(peers[-1], selectors.EVENT_READ)
            for key, _ in selector.select(0.001):
                key.fileobj.pump()
                assert not key.fileobj.closed, key.fileobj
    return peers


@pytest.mark.slow
def test_storm(with_app, rundir):
    """1000 streams of 200 users that reconnect within 2 s after a restart cost the application at most 400 queries."""
    app = Application().start()
    app.delay = 0.005
    for number in range(200):
        app.sign_in(f"SECRET-{number}", f"user{number}", [number + 1])
    requests = [request for number in range(200) for request in per_user(number)]
    random.Random(5).shuffle(requests)
    settings = {"app": app, "TPI_APP_CACHE_SECONDS": None, "TPI_LOG_LEVEL": None, "TPI_RECHECK_SECONDS": None}
    with listening_socket(os.path.join(rundir, "storm")) as listener:
        _, daemon = with_app(inherit=[listener], **settings)
        peers = reconnect(daemon, requests, 2)
        daemon.stop()
        wait_all(peers, lambda p: p.closed, 10, "the end")
        app.forget()
        _, daemon = with_app(inherit=[listener], **settings)
        peers = reconnect(daemon, requests, 2)
        times = sorted(peer.events.retries[0].time - peer.opened for peer in peers)
        print(f"1000 streams: {len(app.asked(SESSION))} + {len(app.asked(PROJECTS))} queries, at most "
              f"{app.most_in_flight} at once on {app.connections} connections; to sync: median "
              f"{times[500] * 1000:.1f} ms, 99 % {times[990] * 1000:.1f} ms, longest {times[-1] * 1000:.1f} ms")
        assert len(app.requests) <= 400
        assert times[500] < 0.1 or "TPI_SANITIZED" in os.environ
        daemon.stop()
    app.stop()
