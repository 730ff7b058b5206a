# SPDX-License-Identifier: ISC
"""A stand-in for TestPlanIt. It answers session queries (which user?) and model queries (which projects, test runs or
milestones may the user read?), correctly or with a fault that a test chooses. It refuses what TestPlanIt refuses: a
model query by a user without API access unless it comes from one of TestPlanIt's own pages, a model that does not
exist, a request head too long for Node.js, and a session query with an API token.

    app = Application().start()           # on TCP; path= for a Unix socket; tls=Authority(...).issue(...)
    app.sign_in("SECRET-x", "eve", [7])   # a token, sent in a cookie or in Authorization: Bearer
    app.sign_in("SECRET-x", "eve", test_runs=[3], milestones=[4])
    app.deleted["projects"] = {7}         # marked as deleted: only a query that asks for such ones as well has them
    app.sign_in("SECRET-y", "kim", [7], access="ADMIN")     # ADMIN or is_api=True: scripts may query as well
    app.sign_in("tpi_SECRET-z", "sam", [7], is_api=True)    # an API token
    app.faults[SESSION] = hold            # what it does instead of the correct response
    app.requests                          # the queries it received

ANN and BEN are signed in from the start. Every token contains SECRET, which must not appear in any log. A request
that the daemon must never send is recorded as a complaint, and stop() fails if there is one.
"""

import contextlib
import json
import os
import re
import socket
import socketserver
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, urlsplit

from answers import check_first
from timing import eventually

SESSION, PROJECTS = "/api/auth/session", "/api/model/projects/findMany"
TEST_RUNS, MILESTONES = "/api/model/testRuns/findMany", "/api/model/milestones/findMany"
MODELS = {PROJECTS: "projects", TEST_RUNS: "testRuns", MILESTONES: "milestones"}
COOKIE = "next-auth.session-token"
HEADERS = {"host", "user-agent", "accept", "cookie", "authorization", "x-forwarded-for", "x-forwarded-proto",
           "x-forwarded-host", "sec-fetch-site"}
TOKEN = re.compile(rf"(?:^|; )(?:__Secure-)?{re.escape(COOKIE)}=([^;]*)")
HEAD_MAX = 16384  # bytes of a request's head that Node.js reads
LONGEST = 60  # seconds; the limit of every wait here
ANN, BEN = "SECRET-ann", "SECRET-ben"  # tokens


def cookie(token):
    """The Cookie header of a browser in which the user is signed in."""
    return f"theme=dark; {COOKIE}={token}"


def page(token):
    """Headers for servers.http(): a request from a page of the site, by a signed-in user."""
    return {"Cookie": cookie(token), "Sec_Fetch_Site": "same-origin"}


def by(token, **named):
    """Arguments of fcgi.params() for the same request, from a web server that authenticates no users."""
    return {"TPI_USER": None, "HTTP_COOKIE": cookie(token), "HTTP_SEC_FETCH_SITE": "same-origin", **named}


def bearer(token, **named):
    """The same for a script with a bearer token."""
    return {"TPI_USER": None, "HTTP_AUTHORIZATION": f"Bearer {token}", **named}


def synced(peer):
    """Whether the stream has its first sync. (A "retry later" response has a retry time, but no sync.)"""
    return bool(peer.events.data and peer.events.retries)


def listen(daemon, **named):
    """Opens a stream and waits for its first sync; the arguments are those of fcgi.params()."""
    peer = daemon.open(**named).wait(synced, what="sync")
    check_first(peer)
    return peer


@dataclass
class Person:
    id: str
    projects: set
    access: str = "USER"   # or ADMIN, PROJECTADMIN, NONE
    is_api: bool = False   # whether scripts may query models
    test_runs: set = field(default_factory=set)
    milestones: set = field(default_factory=set)

    def readable(self, model):
        if self.access == "NONE":
            return set()
        return {"projects": self.projects, "testRuns": self.test_runs, "milestones": self.milestones}[model]


@dataclass
class Request:
    kind: str
    target: str
    headers: list
    connection: int
    token: str = None
    ids: list = None
    present: bool = False  # whether it excludes what is marked as deleted
    started: float = field(default_factory=time.monotonic)
    finished: float = None

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} twice: {values}"
        return values[0] if values else None


def message(body, status=200, headers=(), kind="application/json"):
    """A complete HTTP response; body is bytes, or a value to encode as JSON."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


# Faults. Each is called with the exchange; exchange.honest() is the complete correct response.

def no_fault(exchange):
    exchange.send(exchange.honest())


def hold(exchange):
    """Sends nothing until release(), then the correct response."""
    exchange.app.released.wait(LONGEST)
    exchange.send(exchange.honest())


def says(*args, **named):
    """Sends another response; the arguments are those of message()."""
    return lambda exchange: exchange.send(message(*args, **named))


def raw(data):
    """Sends these bytes and closes the connection."""
    def fault(exchange):
        exchange.send(data)
        exchange.close_connection = True
    return fault


def dribble(seconds):
    """Sends the correct response one byte at a time, with this pause after each."""
    def fault(exchange):
        for byte in exchange.honest():
            exchange.send(bytes([byte]))
            if exchange.app.stopped.wait(seconds):
                return
    return fault


def cut(share):
    """Sends this share of the correct response and closes the connection."""
    def fault(exchange):
        honest = exchange.honest()
        exchange.send(honest[:int(len(honest) * share)])
        exchange.close_connection = True
    return fault


def half_close(exchange):
    """Stops sending in the middle of the head, and waits for the other side to close."""
    exchange.send(exchange.honest()[:20])
    exchange.connection.shutdown(socket.SHUT_WR)
    exchange.app.stopped.wait(LONGEST)


def reset(exchange):
    """Resets the connection without a response."""
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    exchange.close_connection = True


def close_after(exchange):
    """Sends the correct response, then closes the connection without having sent Connection: close."""
    exchange.send(exchange.honest())
    exchange.close_connection = True


def close_reused(exchange):
    """Answers the first request on a connection, and closes it when a second one arrives."""
    if exchange.served == 1:
        exchange.send(exchange.honest())
    else:
        exchange.close_connection = True


def endless(start, piece, limit=10 << 20):
    """Sends start, then piece repeatedly, until the limit in bytes or until the other side closes."""
    def fault(exchange):
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        exchange.send(start)
        exchange.close_connection = True
        while exchange.app.sent < limit:
            exchange.send(piece)
            exchange.app.sent += len(piece)
    return fault


class Exchange(BaseHTTPRequestHandler):
    """One connection to the application."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = False
    timeout = LONGEST
    served = 0

    @property
    def app(self):
        return self.server.app

    def setup(self):
        super().setup()
        self.number = self.app.connected()

    def finish(self):
        self.app.disconnected()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_):
        pass

    def send(self, data):
        self.connection.sendall(data)

    def do_GET(self):
        self.served += 1
        self.query = self.app.begin(self.path, self.headers.items(), self.number)
        try:
            self.app.stopped.wait(self.app.delay)
            self.app.faults.get(self.query.kind, no_fault)(self)
        finally:
            self.app.end(self.query)

    def honest(self):
        return self.app.answer(self.query)

    def __getattr__(self, name):
        if name.startswith("do_"):
            self.app.complain(f"method {name[3:]}")
        raise AttributeError(name)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(self, app, address, tls):
        self.app = app
        self.tls = tls
        self.address_family = socket.AF_UNIX if isinstance(address, str) else (
            socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        super().__init__(address, Exchange)

    def get_request(self):
        connection, _ = super().get_request()
        connection.settimeout(LONGEST)
        if self.tls:  # the handshake is done in the connection's thread
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.app.sockets.append(connection)
        return connection, ("peer", 0)

    def handle_error(self, *_):
        if not isinstance(sys.exc_info()[1], OSError):  # the client may close at any time
            self.app.complain(traceback.format_exc())


class Application:
    """The stand-in. A test may change its attributes while it runs; sessions survive stop() and start()."""

    def __init__(self, path=None, tls=None, prefix=""):
        self.address = path or ("127.0.0.1", 0)
        self.tls = tls
        self.prefix = prefix
        self.people = {ANN: Person("ann", {7, 8}, test_runs={7}, milestones={7}), BEN: Person("ben", {8})}
        self.deleted = {}  # ids by model
        self.faults = {}
        self.delay = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.stopped = threading.Event()
        self.sockets = []
        self.complaints = []
        self.sent = 0  # bytes sent by endless()
        self.server = None
        self.in_flight = 0
        self.open_connections = 0
        self.forget()

    def forget(self):
        """Resets the counts and the list of requests."""
        self.requests = []
        self.connections = 0
        self.most_in_flight = self.in_flight
        self.most_connections = self.open_connections

    @property
    def url(self):
        if isinstance(self.address, str):
            return f"unix:{self.address}"
        host = "[::1]" if ":" in self.address[0] else "127.0.0.1"
        return f"http{'s' if self.tls else ''}://{host}:{self.address[1]}{self.prefix}"

    def start(self):
        self.stopped.clear()
        self.server = Server(self, self.address, self.tls)
        self.address = self.server.server_address
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def down(self):
        """Refuses new connections and closes the open ones."""
        if not self.server:
            return
        self.stopped.set()
        self.release()
        self.server.shutdown()
        self.server.server_close()
        self.server = None
        if isinstance(self.address, str):
            os.unlink(self.address)
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.sockets.clear()

    def stop(self):
        self.down()
        assert not self.complaints, self.complaints

    def hold(self, *kinds):
        """From now on queries of these kinds are not answered until release()."""
        self.released.clear()
        for kind in kinds or (SESSION, *MODELS):
            self.faults[kind] = hold

    def release(self):
        """Answers the held queries and all later ones."""
        self.faults = {kind: fault for kind, fault in self.faults.items() if fault is not hold}
        self.released.set()

    def complain(self, what):
        self.complaints.append(what)

    # Sessions

    def sign_in(self, token, user, projects=(), test_runs=(), milestones=(), **named):
        self.people[token] = Person(user, set(projects), test_runs=set(test_runs), milestones=set(milestones), **named)
        return token

    def sign_out(self, token):
        del self.people[token]

    # Queries received

    def asked(self, kind=None, token=None):
        return [request for request in list(self.requests) if kind in (None, request.kind)
                and token in (None, request.token)]

    def wait_asked(self, count, kind=None, token=None, timeout=10):
        eventually(lambda: len(self.asked(kind, token)) >= count, timeout, f"{count} queries")

    @contextlib.contextmanager
    def quiet(self, count=0):
        """Checks that exactly count queries are received in this context."""
        before = len(self.requests)
        yield
        asked = [request.target for request in self.requests[before:]]
        assert len(asked) == count, asked

    # Called by the connections' threads

    def connected(self):
        with self.lock:
            self.connections += 1
            self.open_connections += 1
            self.most_connections = max(self.most_connections, self.open_connections)
            return self.connections

    def disconnected(self):
        with self.lock:
            self.open_connections -= 1

    def begin(self, target, headers, connection):
        """Records a request, with a complaint if tpi-streamd(8), THE APPLICATION does not allow it."""
        path, _, query = target.partition("?")
        through_proxy = path.startswith("http://")
        path = (urlsplit(path).path if through_proxy else path).removeprefix(self.prefix)
        request = Request(path, target, headers, connection)
        names = [name.lower() for name, _ in headers]
        allowed = HEADERS | {"proxy-connection"} if through_proxy else HEADERS
        if len(names) != len(set(names)) or not set(names) <= allowed:
            self.complain(f"headers {names}")
        request.token = self._token(request)
        if path in MODELS:
            request.ids, request.present = self._ids(path, query)
        elif path != SESSION or query:
            self.complain(f"target {target}")
        with self.lock:
            self.requests.append(request)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return request

    def end(self, request):
        with self.lock:
            request.finished = time.monotonic()
            self.in_flight -= 1

    @staticmethod
    def _token(request):
        found = TOKEN.search(request.header("Cookie") or "")
        return found[1] if found else Application._bearer(request)

    @staticmethod
    def _bearer(request):
        kind, _, token = (request.header("Authorization") or "").partition(" ")
        return token if kind == "Bearer" else None

    def _ids(self, path, query):
        """The ids of a query, which must have exactly the documented form, and whether it excludes deleted ones."""
        try:
            [(name, value)] = parse_qsl(query, strict_parsing=True, errors="strict")
            content = json.loads(value)
            ids = content["where"]["id"]["in"]
            present = content["where"].pop("isDeleted", None)
            good = (name == "q" and re.fullmatch(r"q=[\w.~%-]*", query, re.ASCII)
                    and content == {"where": {"id": {"in": ids}}, "select": {"id": True}}
                    and present in ((None, False) if path == PROJECTS else (False,))
                    and content["select"]["id"] is True and 1 <= len(ids) <= 100
                    and len(ids) == len(set(ids)) and all(type(id) is int for id in ids))
        except (ValueError, TypeError, KeyError):
            good = False
        if not good:
            self.complain(f"query {query}")
            return [], False
        return ids, present is False

    def answer(self, request):
        """The correct response to a request."""
        if len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers) > HEAD_MAX:
            return message(b"", 431)
        if request.kind == SESSION:
            return self._session(request)
        if request.kind in MODELS:
            return self._model(request, MODELS[request.kind])
        if request.kind.startswith("/api/model/"):
            return message({"error": {"message": f"unknown model name: {request.kind.split('/')[3]}"}}, 400)
        return message({"error": "no such page"}, 404)

    def _session(self, request):
        """NextAuth.js accepts only cookies. A bearer token that is not an API token gets a session here as well, as
        other applications may do it."""
        person = self.people.get(request.token)
        if not person or request.token.startswith("tpi_"):
            return message({})
        return message({"user": {
            "name": "A", "email": "a@example.com", "id": person.id, "access": person.access, "image": None,
            "emailVerified": "2026-01-01T08:00:00.000Z", "authMethod": "INTERNAL",
            "preferences": {"id": "p", "userId": person.id, "theme": "Purple", "itemsPerPage": "P10"}},
            "expires": "2036-12-24T08:00:00.000Z"})

    def _model(self, request, model):
        """First the access check on the API, then the filter by id: an anonymous user can read nothing."""
        person = self.people.get(request.token)
        if request.token and request.token == self._bearer(request):
            if not person or (request.token.startswith("tpi_") and not person.is_api):
                return message({"error": "Invalid API token", "code": "INVALID_TOKEN"}, 401)
        elif person and not (person.access == "ADMIN" or person.is_api or self._from_own_page(request)):
            return message({"error": "External API access not enabled for this account"}, 403)
        readable = person.readable(model) if person else set()
        if request.present:
            readable = readable - self.deleted.get(model, set())
        return message({"data": [{"id": id} for id in request.ids if id in readable]})

    @staticmethod
    def _from_own_page(request):
        """How TestPlanIt distinguishes its pages from scripts: a script does not send these headers on its own."""
        return (request.header("Sec-Fetch-Site") in ("same-origin", "same-site")
                or request.header("Host") in [urlsplit(request.header(name) or "").netloc
                                              for name in ("Origin", "Referer")])
