"""A stand-in for TestPlanIt: answers who a session belongs to and which projects the user may read, honestly, or
wrongly in the way that a test wants. It refuses what TestPlanIt refuses: projects to a user without API access, unless
one of its own pages asks; a head that is too long for Node.js; and it gives a session to no API token.

    app = Application().start()           # on TCP; path= for a Unix socket; tls=Authority(...).issue(...)
    app.sign_in("SECRET-x", "eve", [7])   # the token of a cookie, or of Authorization: Bearer
    app.sign_in("SECRET-y", "kim", [7], access="ADMIN")     # or is_api=True: a script may ask, too
    app.sign_in("tpi_SECRET-z", "sam", [7], is_api=True)    # an API token
    app.faults[SESSION] = hold            # what it does in place of the honest answer
    app.requests                          # what it was asked

ANN and BEN are signed in from the start. Every token has SECRET in it, which no log may have. Whatever a gate must
never send is a complaint; stop() raises what there is of them.
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
COOKIE = "next-auth.session-token"
HEADERS = {"host", "user-agent", "accept", "cookie", "authorization", "x-forwarded-for", "x-forwarded-proto",
           "x-forwarded-host", "sec-fetch-site"}
TOKEN = re.compile(rf"(?:^|; )(?:__Secure-)?{re.escape(COOKIE)}=([^;]*)")
HEAD_MAX = 16384  # bytes of a request's head that Node.js reads
LONGEST = 60  # seconds that anything here waits
ANN, BEN = "SECRET-ann", "SECRET-ben"  # tokens


def cookie(token):
    """The Cookie header of a browser that is signed in."""
    return f"theme=dark; {COOKIE}={token}"


def page(token):
    """Headers, as servers.http() takes them, of a request by a page of the site in a browser that is signed in."""
    return {"Cookie": cookie(token), "Sec_Fetch_Site": "same-origin"}


def by(token, **named):
    """Arguments of fcgi.params() for such a request, from a web server that verifies nobody."""
    return {"TPI_USER": None, "HTTP_COOKIE": cookie(token), "HTTP_SEC_FETCH_SITE": "same-origin", **named}


def bearer(token, **named):
    """The same for a script with a token."""
    return {"TPI_USER": None, "HTTP_AUTHORIZATION": f"Bearer {token}", **named}


def synced(peer):
    """Past its first sync. (A stream that is to come later has a retry time, too.)"""
    return bool(peer.events.data and peer.events.retries)


def listen(daemon, **named):
    """A stream past its first sync; the arguments are those of fcgi.params()."""
    peer = daemon.open(**named).wait(synced, what="sync")
    check_first(peer)
    return peer


@dataclass
class Person:
    id: str
    projects: set
    access: str = "USER"   # or ADMIN, PROJECTADMIN, NONE
    is_api: bool = False   # whether scripts may ask for anything


@dataclass
class Request:
    kind: str
    target: str
    headers: list
    connection: int
    token: str = None
    ids: list = None
    started: float = field(default_factory=time.monotonic)
    finished: float = None

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} twice: {values}"
        return values[0] if values else None


def message(body, status=200, headers=(), kind="application/json"):
    """A whole answer; body is bytes, or what JSON is made of."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


# Faults. Each is called with the exchange, whose honest() is the whole honest answer.

def no_fault(exchange):
    exchange.send(exchange.honest())


def hold(exchange):
    """No answer until release(), then an honest one."""
    exchange.app.released.wait(LONGEST)
    exchange.send(exchange.honest())


def says(*args, **named):
    """Another answer; the arguments are those of message()."""
    return lambda exchange: exchange.send(message(*args, **named))


def raw(data):
    """These bytes, and the end of the connection."""
    def fault(exchange):
        exchange.send(data)
        exchange.close_connection = True
    return fault


def dribble(seconds):
    """The honest answer a byte at a time."""
    def fault(exchange):
        for byte in exchange.honest():
            exchange.send(bytes([byte]))
            if exchange.app.stopped.wait(seconds):
                return
    return fault


def cut(share):
    """The first part of the honest answer, and the end of the connection."""
    def fault(exchange):
        honest = exchange.honest()
        exchange.send(honest[:int(len(honest) * share)])
        exchange.close_connection = True
    return fault


def half_close(exchange):
    """Says no more after half a head, and waits for the other side to close."""
    exchange.send(exchange.honest()[:20])
    exchange.connection.shutdown(socket.SHUT_WR)
    exchange.app.stopped.wait(LONGEST)


def reset(exchange):
    """The connection breaks off without an answer."""
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    exchange.close_connection = True


def close_after(exchange):
    """An honest answer; then the connection closes, which the head has not said."""
    exchange.send(exchange.honest())
    exchange.close_connection = True


def close_reused(exchange):
    """Only the first request of a connection is answered, the next one finds it closed."""
    if exchange.served == 1:
        exchange.send(exchange.honest())
    else:
        exchange.close_connection = True


def endless(start, piece, limit=10 << 20):
    """Start, and the piece over and over, until the limit or until nobody takes it."""
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
        self.question = self.app.begin(self.path, self.headers.items(), self.number)
        try:
            self.app.stopped.wait(self.app.delay)
            self.app.faults.get(self.question.kind, no_fault)(self)
        finally:
            self.app.end(self.question)

    def honest(self):
        return self.app.answer(self.question)

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
        self.address_family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        super().__init__(address, Exchange)

    def get_request(self):
        connection, _ = super().get_request()
        connection.settimeout(LONGEST)
        if self.tls:  # the handshake is for the thread of the connection
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.app.sockets.append(connection)
        return connection, ("peer", 0)

    def handle_error(self, *_):
        if not isinstance(sys.exc_info()[1], OSError):  # whoever asked may leave at any time
            self.app.complain(traceback.format_exc())


class Application:
    """Changeable while it runs; sessions outlive stop() and start()."""

    def __init__(self, path=None, tls=None, prefix=""):
        self.address = path or ("127.0.0.1", 0)
        self.tls = tls
        self.prefix = prefix
        self.people = {ANN: Person("ann", {7, 8}), BEN: Person("ben", {8})}
        self.faults = {}
        self.delay = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.stopped = threading.Event()
        self.sockets = []
        self.complaints = []
        self.sent = 0  # bytes that endless() has got rid of
        self.server = None
        self.in_flight = 0
        self.open_connections = 0
        self.forget()

    def forget(self):
        """Counts anew."""
        self.requests = []
        self.connections = 0
        self.most_in_flight = self.in_flight
        self.most_connections = self.open_connections

    @property
    def url(self):
        if isinstance(self.address, str):
            return f"unix:{self.address}"
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.address[1]}{self.prefix}"

    def start(self):
        self.stopped.clear()
        self.server = Server(self, self.address, self.tls)
        self.address = self.server.server_address
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def down(self):
        """Refuses connections, and breaks off those that there are."""
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
        """From now on questions of these kinds get no answer before release()."""
        self.released.clear()
        for kind in kinds or (SESSION, PROJECTS):
            self.faults[kind] = hold

    def release(self):
        """Answers those that wait, and all that follow."""
        self.faults = {kind: fault for kind, fault in self.faults.items() if fault is not hold}
        self.released.set()

    def complain(self, what):
        self.complaints.append(what)

    # Sessions

    def sign_in(self, token, user, projects=(), **named):
        self.people[token] = Person(user, set(projects), **named)
        return token

    def sign_out(self, token):
        del self.people[token]

    # What it was asked

    def asked(self, kind=None, token=None):
        return [request for request in list(self.requests) if kind in (None, request.kind)
                and token in (None, request.token)]

    def wait_asked(self, count, kind=None, token=None, timeout=10):
        eventually(lambda: len(self.asked(kind, token)) >= count, timeout, f"{count} questions")

    @contextlib.contextmanager
    def quiet(self, count=0):
        """Proves that there are so many questions within, and no more."""
        before = len(self.requests)
        yield
        asked = [request.target for request in self.requests[before:]]
        assert len(asked) == count, asked

    # For the connections

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
        """Takes a request down; complains where the contract forbids it."""
        path, _, query = target.partition("?")
        through_proxy = path.startswith("http://")
        path = (urlsplit(path).path if through_proxy else path).removeprefix(self.prefix)
        request = Request(path, target, headers, connection)
        names = [name.lower() for name, _ in headers]
        allowed = HEADERS | {"proxy-connection"} if through_proxy else HEADERS
        if len(names) != len(set(names)) or not set(names) <= allowed:
            self.complain(f"headers {names}")
        request.token = self._token(request)
        if path == PROJECTS:
            request.ids = self._ids(query)
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

    def _ids(self, query):
        """The ids of a question of exactly the contract's shape."""
        try:
            [(name, value)] = parse_qsl(query, strict_parsing=True, errors="strict")
            content = json.loads(value)
            ids = content["where"]["id"]["in"]
            good = (name == "q" and re.fullmatch(r"q=[\w.~%-]*", query, re.ASCII)
                    and content == {"where": {"id": {"in": ids}}, "select": {"id": True}}
                    and content["select"]["id"] is True and 1 <= len(ids) <= 100
                    and len(ids) == len(set(ids)) and all(type(id) is int for id in ids))
        except (ValueError, TypeError, KeyError):
            good = False
        if not good:
            self.complain(f"query {query}")
            return []
        return ids

    def answer(self, request):
        """The honest one."""
        if len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers) > HEAD_MAX:
            return message(b"", 431)
        if request.kind == SESSION:
            return self._session(request)
        return self._projects(request) if request.kind == PROJECTS else message({"error": "no such page"}, 404)

    def _session(self, request):
        """NextAuth.js knows cookies alone. Other applications may take a token of another kind for a session, too."""
        person = self.people.get(request.token)
        if not person or request.token.startswith("tpi_"):
            return message({})
        return message({"user": {
            "name": "A", "email": "a@example.com", "id": person.id, "access": person.access, "image": None,
            "emailVerified": "2026-01-01T08:00:00.000Z", "authMethod": "INTERNAL",
            "preferences": {"id": "p", "userId": person.id, "theme": "Purple", "itemsPerPage": "P10"}},
            "expires": "2036-12-24T08:00:00.000Z"})

    def _projects(self, request):
        """What the front door lets in, the policies filter: who is not signed in reads nothing."""
        person = self.people.get(request.token)
        if request.token and request.token == self._bearer(request):
            if not person or (request.token.startswith("tpi_") and not person.is_api):
                return message({"error": "Invalid API token", "code": "INVALID_TOKEN"}, 401)
        elif person and not (person.access == "ADMIN" or person.is_api or self._from_own_page(request)):
            return message({"error": "External API access not enabled for this account"}, 403)
        readable = person.projects if person and person.access != "NONE" else ()
        return message({"data": [{"id": id} for id in request.ids if id in readable]})

    @staticmethod
    def _from_own_page(request):
        """As TestPlanIt tells a page from a script: a script sends none of these headers by itself."""
        return (request.header("Sec-Fetch-Site") in ("same-origin", "same-site")
                or request.header("Host") in [urlsplit(request.header(name) or "").netloc
                                              for name in ("Origin", "Referer")])
