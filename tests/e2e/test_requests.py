# SPDX-License-Identifier: ISC
"""Requests: the checks in their order, and the response of each."""

import itertools

import pytest

import answers
import fcgi
from answers import FIRST, check_answer, check_first, check_later, check_stream_head
from fcgi import ISSUES, NOTIFICATIONS


@pytest.fixture(scope="module")
def daemon(module_streamd):
    return module_streamd(TPI_PROJECT_ACCESS="allow", SSE_PER_USER_CAP=10000,
                          SSE_ISSUES_PER_USER_CAP=10000)


def split(script, path):
    return {"SCRIPT_NAME": script, "PATH_INFO": path}


RESPONSES = {
    # Paths: SCRIPT_NAME followed by PATH_INFO, compared exactly
    "notifications": (200, {}),
    "notifications split": (200, split("/api", "/notifications/stream")),
    "notifications in PATH_INFO alone": (200, split(None, NOTIFICATIONS)),
    "empty PATH_INFO": (200, split(NOTIFICATIONS, "")),
    "issues split": (200, {**split("/api", "/issues/stream"), "QUERY_STRING": "projectId=7"}),
    "no path": (404, {"SCRIPT_NAME": None}),
    "empty path": (404, {"SCRIPT_NAME": ""}),
    "other path": (404, {"SCRIPT_NAME": "/api/milestones/stream"}),
    "root": (404, {"SCRIPT_NAME": "/"}),
    "trailing slash": (404, {"SCRIPT_NAME": NOTIFICATIONS + "/"}),
    "PATH_INFO after a complete path": (404, split(NOTIFICATIONS, NOTIFICATIONS)),
    "two slashes": (404, {"SCRIPT_NAME": "/api//notifications/stream"}),
    "dot": (404, {"SCRIPT_NAME": "/api/./notifications/stream"}),
    "dots": (404, {"SCRIPT_NAME": "/x/../api/notifications/stream"}),
    "encoded": (404, {"SCRIPT_NAME": "/api/notifications%2Fstream"}),
    "encoded letter": (404, {"SCRIPT_NAME": "/api/%6Eotifications/stream"}),
    "upper case": (404, {"SCRIPT_NAME": NOTIFICATIONS.upper()}),
    "prefix": (404, {"SCRIPT_NAME": NOTIFICATIONS[:-1]}),
    "query in the path": (404, {"SCRIPT_NAME": NOTIFICATIONS + "?x"}),
    "trailing NUL": (404, {"SCRIPT_NAME": NOTIFICATIONS + "\0"}),
    "REQUEST_URI is ignored": (404, {"SCRIPT_NAME": "/x", "REQUEST_URI": NOTIFICATIONS}),
    # Methods
    **{f"method {method!r}": (405, {"REQUEST_METHOD": method})
       for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "GET ", "GETX", "", "GET\0",
                      None)},
    "HEAD of an unknown path": (404, {"SCRIPT_NAME": "/x", "REQUEST_METHOD": "HEAD"}),
    "HEAD without a user": (405, {"TPI_USER": None, "REQUEST_METHOD": "HEAD"}),
    # Other ids than that of an evicted stream's reconnect (more in test_caps.py)
    "other Last-Event-ID": (200, {"HTTP_LAST_EVENT_ID": "evicted2"}),
    "other lastEventId": (200, {"QUERY_STRING": "lastEventId=evicted2"}),
    "empty Last-Event-ID": (200, {"HTTP_LAST_EVENT_ID": ""}),
    # Identity (more in test_identity_access.py)
    "anonymous": (401, {"TPI_USER": None}),
    "invalid user": (400, {"TPI_USER": "a b"}),
    # A notification stream ignores its query
    "unknown query": (200, {"QUERY_STRING": "projectId=x&projectId=y&%zz"}),
    "no query": (200, {"QUERY_STRING": None}),
}

# Pages of other sites

def page(site=None, origin=None, host="tpi.example"):
    return {"HTTP_SEC_FETCH_SITE": site, "HTTP_ORIGIN": origin, "HTTP_HOST": host}


PAGES = {  # (more in tests/unit/check_origin.c)
    "a script": (200, {}),
    "same-origin": (200, page("same-origin")),
    "an address typed by hand": (200, page("none")),
    "over plain http": (200, page(origin="http://tpi.example")),
    "cross-site": (403, page("cross-site", "https://evil.example")),
    "cross-site without Origin": (403, page("cross-site")),
    "same-site": (403, page("same-site", "https://wiki.example")),
    "over plain http from another host": (403, page(origin="http://evil.example")),
    "over plain http from another port": (403, page(origin="http://tpi.example:81")),
    "from a sandbox": (403, page(origin="null")),
    "Origin without Host": (403, page(origin="http://tpi.example", host=None)),
}
PORTAL, WIKI = "https://portal.example", "http://wiki.example:8080"


@pytest.mark.parametrize("status, headers", PAGES.values(), ids=PAGES)
def test_page(daemon, status, headers):
    """A page of another site gets 403, and no response has CORS headers."""
    check(daemon.open(**headers), status)


@pytest.mark.parametrize("origin", [PORTAL, WIKI])
def test_allowed_origin(module_streamd, origin):
    """A page of a listed origin gets every response, and may read it. Other origins are refused as before."""
    daemon = module_streamd(TPI_ALLOWED_ORIGINS=f"https://Portal.Example:443 , {WIKI}", SSE_PER_TENANT_CAP=1,
                            TPI_USER_OPENS_PER_SECOND=1)
    listed = page("cross-site", origin)
    check_answer(daemon.ask(None, **listed), 401, origin=origin)
    check_answer(daemon.ask("a b", **listed), 400, origin=origin)
    check_answer(daemon.ask("u", "x", **listed), 400, origin=origin)
    check_answer(daemon.ask("u", "7", **listed), 404, origin=origin)
    with daemon.stream("u", **page(None, origin)) as stream:
        check_stream_head(stream, origin)
        assert FIRST.fullmatch(stream.body)
        check_answer(daemon.ask("u", **listed), 503, origin=origin)
        for _ in range(3):
            check_answer(daemon.ask("u", **listed), 503, origin=origin)
        check_stream_head(daemon.ask("u", **listed), origin)
        check_answer(daemon.ask("v"), 503)
    for other in (f"{origin}.evil.example", origin.upper(), f"{origin}/", f"{PORTAL},{WIKI}", "null", "", None,
                  [origin, "https://evil.example"]):
        check_answer(daemon.ask("v", **page("cross-site", other)), 403)


MANY = ",".join(str(n) for n in range(1, 501))
QUERIES = {
    "projectId=7": 200,
    "projectIds=7": 200,
    "projectIds=7,8": 200,
    "projectIds=7%2C8": 200,
    "projectIds=7%2c8": 200,
    "projectIds=7,7,7": 200,
    "projectIds=2147483647": 200,
    "project%49d=7": 200,
    "projectId=%37": 200,
    "x=1&projectId=7&y": 200,
    "&&projectId=7&": 200,
    "projectid=7&projectId=7": 200,
    f"projectIds={MANY}": 200,
    "": 400,
    "x=1": 400,
    "projectid=7": 400,
    "projectId": 400,
    "projectId=": 400,
    "projectIds=": 400,
    "projectIds": 400,
    "projectId=7;x": 400,
    "projectId=0": 400,
    "projectId=-1": 400,
    "projectId=%2B7": 400,
    "projectId=+7": 400,
    "projectId=7+": 400,
    "projectId=%207": 400,
    "projectId=07": 400,
    "projectId=7.0": 400,
    "projectId=0x7": 400,
    "projectId=seven": 400,
    "projectId=7%00": 400,
    "projectId=7%": 400,
    "projectId=%3": 400,
    "projectId=%zz": 400,
    "projectId=%D9%A7": 400,
    "projectId=2147483648": 400,
    "projectId=4294967303": 400,
    "projectId=18446744073709551623": 400,
    "projectId=7,8": 400,
    "projectId=7&projectId=7": 400,
    "projectId=7&projectId=8": 400,
    "projectIds=7&projectIds=8": 400,
    "projectId=7&projectIds=7": 400,
    "projectId=7&project%49ds=8": 400,
    "projectIds=7,": 400,
    "projectIds=,7": 400,
    "projectIds=7,,8": 400,
    "projectIds=7, 8": 400,
    "projectIds=7,x": 400,
    "projectIds=7,0": 400,
    f"projectIds={MANY},501": 400,
}


def name_of(query):
    return query if len(query) < 60 else f"{query[:20]}...({query.count(',') + 1})"


def check(peer, status, method="GET"):
    """Checks the status of a response, and the first bytes of a stream."""
    with peer:
        if status == 200:
            check_first(peer.wait_live())
        else:
            check_answer(peer.wait_end(), status, method)


@pytest.mark.parametrize("status, changes", RESPONSES.values(), ids=RESPONSES)
def test_response(daemon, status, changes):
    """Each request gets its status, its headers, and a complete response."""
    check(daemon.open(**changes), status, changes.get("REQUEST_METHOD"))


@pytest.mark.parametrize("query", QUERIES, ids=name_of)
def test_project_parameter(daemon, query):
    """The project parameters follow tpi-stream(7), STREAMS."""
    check(daemon.open(projects="", QUERY_STRING=query), QUERIES[query])


def test_no_query_string(daemon):
    """An issue stream without QUERY_STRING gets 400."""
    check(daemon.open(projects="", QUERY_STRING=None), 400)


# Duplicate parameters

DUPLICATES = {
    "TPI_USER": ("u1", "u2"),
    "REQUEST_METHOD": ("GET", "HEAD"),
    "QUERY_STRING": ("projectId=7", "projectId=8"),
    "SCRIPT_NAME": (ISSUES, NOTIFICATIONS),
    "PATH_INFO": ("/issues/stream", "/notifications/stream"),
}


@pytest.mark.parametrize("name", DUPLICATES)
def test_duplicate_parameter(daemon, name):
    """A parameter with two different values gets 400; the same value twice is accepted."""
    named = {"projects": "7", "QUERY_STRING": "projectId=7"}
    if name == "PATH_INFO":
        named["SCRIPT_NAME"] = "/api"
    first, second = DUPLICATES[name]
    check(daemon.open(**{**named, name: [first, second]}), 400)
    check(daemon.open(**{**named, name: [first, first]}), 200)


def test_empty_and_set_are_different_values(daemon):
    """An empty and a set TPI_USER are two different values, in either order."""
    check(daemon.open(TPI_USER=["", "u1"]), 400)
    check(daemon.open(TPI_USER=["u1", ""]), 400)


# Order of the checks

WRONG = [  # in the order of the checks; two that change the same parameter are not combined
    ("unknown path", 404, {"SCRIPT_NAME": "/nowhere"}),
    ("method", 405, {"REQUEST_METHOD": "POST"}),
    ("projects", 400, {"QUERY_STRING": "projectIds=x"}),
    ("another site", 403, {"HTTP_SEC_FETCH_SITE": "cross-site"}),
    ("anonymous", 401, {"TPI_USER": None}),
    ("invalid user", 400, {"TPI_USER": "a b"}),
    ("duplicate", 400, {"PATH_INFO": ["", "/x"]}),
    ("access", 404, {"TPI_USER": "stranger"}),
]
PAIRS = [pair for pair in itertools.combinations(WRONG, 2) if not set(pair[0][2]) & set(pair[1][2])]


@pytest.fixture(scope="module")
def full_daemon(module_streamd, module_rundir):
    """A daemon without free slots."""
    rules = f"{module_rundir}/rules"
    with open(rules, "w", encoding="ascii") as file:
        file.write("7 reader\n")
    daemon = module_streamd(TPI_PROJECT_ACCESS=f"file:{rules}", SSE_PER_TENANT_CAP=1,
                            SSE_ISSUES_PER_TENANT_CAP=1)
    with daemon.stream("holder"), daemon.stream("reader", projects="7"):
        yield daemon


@pytest.mark.parametrize("first, second", PAIRS, ids=[f"{a[0]}, {b[0]}" for a, b in PAIRS])
def test_order(full_daemon, first, second):
    """A request with two errors gets the response of the earlier check."""
    check(full_daemon.open("reader", projects="7", **first[2], **second[2]), first[1])


@pytest.mark.parametrize("name, status, changes", WRONG, ids=[row[0] for row in WRONG])
def test_checks_precede_the_tenant_cap(full_daemon, name, status, changes):
    """Every check that needs no query precedes the tenant's cap and its 503."""
    check(full_daemon.open("reader", projects="7", **changes), status)


def test_tenant_cap_precedes_valkey(new_valkey, streamd):
    """A full tenant gets 503 even while Valkey is unreachable."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_PER_TENANT_CAP=1)
    with daemon.stream():
        valkey.kill()
        check_answer(daemon.ask("u2"), 503)


def test_draining(streamd):
    """While the daemon drains, an unknown path gets 404 and another method 405; all else gets "retry later"."""
    daemon = streamd(TPI_REQUEST_TIMEOUT_MS=60000)
    # Connections accepted before the drain, whose requests are completed during it.
    rows = [({"SCRIPT_NAME": "/nowhere"}, 404), ({"REQUEST_METHOD": "POST"}, 405),
            ({"HTTP_LAST_EVENT_ID": "evicted"}, 200), ({}, 200), ({"TPI_USER": None}, 200),
            ({"SCRIPT_NAME": ISSUES, "QUERY_STRING": "x"}, 200)]
    values = fcgi.record(fcgi.GET_VALUES, fcgi.pair("FCGI_MPXS_CONNS", ""), id=0)
    peers = [fcgi.Peer(daemon.address, values) for _ in rows]
    fcgi.wait_all(peers, lambda p: p.management, what="GET_VALUES_RESULT")
    with daemon.stream("u9") as stream:
        daemon.signal(15)
        stream.wait_body(answers.SHUTDOWN)
    for peer, (changes, status) in zip(peers, rows):
        # The drain may close a connection without a complete request: that is not a wrong response.
        if not peer.send_or_closed(fcgi.request(fcgi.params(**changes))):
            continue
        peer.wait_end()
        if peer.head is None:
            continue
        if status == 200:
            check_later(peer)
        else:
            check_answer(peer, status)
    assert daemon.wait() == 0


# Roles

@pytest.mark.parametrize("role", [0, fcgi.AUTHORIZER, fcgi.FILTER, 4, 257, 65535])
def test_other_role(daemon, role):
    """A role other than RESPONDER gets END_REQUEST with FCGI_UNKNOWN_ROLE and nothing else."""
    with fcgi.Peer(daemon.address, fcgi.request(fcgi.params(), role=role)) as peer:
        peer.wait_end()
        assert peer.ends[1][1] == fcgi.UNKNOWN_ROLE
        assert peer.head is None and not peer.body


def test_role_before_path(daemon):
    """The role is checked first."""
    with fcgi.Peer(daemon.address, fcgi.request([], role=fcgi.AUTHORIZER)) as peer:
        assert peer.wait_end().ends[1][1] == fcgi.UNKNOWN_ROLE


# Records of a request

def test_keep_conn_is_not_kept(daemon):
    """The daemon closes the connection after END_REQUEST, even with FCGI_KEEP_CONN."""
    data = fcgi.request(fcgi.params(SCRIPT_NAME="/x"), flags=fcgi.KEEP_CONN)
    with fcgi.Peer(daemon.address, data) as peer:
        check_answer(peer.wait_end(), 404)


@pytest.mark.parametrize("id", [2, 255, 256, 65535])
def test_request_id(daemon, id):
    """Responses and streams carry the request's id."""
    for changes, status in ({"SCRIPT_NAME": "/x"}, 404), ({}, 200):
        check(fcgi.Peer(daemon.address, fcgi.request(fcgi.params(**changes), id=id), id=id), status)


@pytest.mark.parametrize("size", [0, 1, 65535, 1000000])
def test_stdin_is_read_to_its_end(daemon, size):
    """The daemon reads a body to its end before it closes, so that the web server's writes do not fail."""
    data = fcgi.request(fcgi.params(REQUEST_METHOD="POST"), stdin=b"x" * size)
    with fcgi.Peer(daemon.address, data) as peer:
        check_answer(peer.wait_end(), 405)


def test_no_response_before_the_end_of_stdin(daemon):
    """The response is sent after STDIN has ended, not before."""
    head = fcgi.begin() + fcgi.cut_records(fcgi.PARAMS, fcgi.pairs_of(fcgi.params(SCRIPT_NAME="/x")))
    with fcgi.Peer(daemon.address, head + fcgi.record(fcgi.STDIN, b"abc")) as peer:
        peer.quiet(0.3)
        assert peer.head is None and not peer.closed
        peer.send(fcgi.record(fcgi.STDIN))
        check_answer(peer.wait_end(), 404)
