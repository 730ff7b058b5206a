# SPDX-License-Identifier: ISC
"""A FastCGI client for tests. It can send invalid requests, and checks every byte of a response.

Requests: record(), pair(), begin() and request() return bytes; all accept invalid values.
Responses: a Response checks every record and keeps head, body and ends. A Peer is a socket with such
a parser. wait_all() reads many peers in one thread until each meets a condition, so waiting on one
Peer looks like a blocking call, and 2000 of them need no threads.
"""

import os
import re
import selectors
import socket
import struct
import threading
import time

from eventstream import EventStream
from timing import scaled

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR = 1, 2, 3, 4, 5, 6, 7
DATA, GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE = 8, 9, 10, 11
RESPONDER, AUTHORIZER, FILTER = 1, 2, 3
COMPLETE, CANT_MPX_CONN, OVERLOADED, UNKNOWN_ROLE = 0, 1, 2, 3
KEEP_CONN = 1

NOTIFICATIONS = "/api/notifications/stream"
ISSUES = "/api/issues/stream"


# Building

def record(kind, content=b"", id=1, padding=0, version=1, length=None):
    """One record; length overrides the content length in its header."""
    length = len(content) if length is None else length
    return struct.pack(">BBHHBx", version, kind, id, length, padding) + content + bytes(padding)


def lengths(*values, wide=False):
    return b"".join(struct.pack(">I", n | 1 << 31) if wide or n > 127 else bytes([n]) for n in values)


def pair(name, value, wide=False):
    name = name.encode("latin-1") if isinstance(name, str) else name
    value = value.encode("latin-1") if isinstance(value, str) else value
    return lengths(len(name), len(value), wide=wide) + name + value


def pairs_of(pairs):
    return b"".join(pair(name, value) for name, value in pairs)


def begin(role=RESPONDER, flags=0, id=1):
    return record(BEGIN, struct.pack(">HB5x", role, flags), id)


def cut_records(kind, content, id=1, cut=65528, padding=0):
    """The content in records of at most cut bytes, then the empty record that ends the stream."""
    pieces = [content[i:i + cut] for i in range(0, len(content), cut)]
    return b"".join(record(kind, piece, id, padding) for piece in pieces) + record(kind, b"", id)


def request(pairs, id=1, role=RESPONDER, flags=0, stdin=b"", cut=65528, padding=0):
    """A complete request; pairs is a list of (name, value), or the PARAMS content as bytes."""
    content = pairs if isinstance(pairs, bytes) else pairs_of(pairs)
    return (begin(role, flags, id) + cut_records(PARAMS, content, id, cut, padding)
            + cut_records(STDIN, stdin, id, cut, padding))


def params(user="u1", projects=None, **named):
    """The parameters a web server sends. With projects it requests the issues stream. Each further name
    overrides a parameter: None omits it, a list repeats it."""
    values = {
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "" if projects is None else f"projectIds={projects}",
        "SCRIPT_NAME": NOTIFICATIONS if projects is None else ISSUES,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "TPI_USER": user,
    }
    values.update(named)
    return [(name, value) for name, entry in values.items() if entry is not None
            for value in (entry if isinstance(entry, list) else [entry])]


# Reading

class ProtocolError(AssertionError):
    pass


class Response:
    """The response to one request. Checks every record against the FastCGI 1.0 specification, section 3."""

    def __init__(self, id=1):
        self.id = id
        self.head = None  # bytes of the CGI head; None until complete
        self.status = None
        self.headers = []
        self.body = bytearray()
        self.arrivals = []  # (time, bytes) of the body
        self.events = EventStream()
        self.ends = {}  # request id: (application status, protocol status)
        self.management = []  # (type, content)
        self.stderr = bytearray()
        self.eof = False
        self._buffer = bytearray()
        self._stdout = bytearray()
        self._stdout_ended = False

    @property
    def ended(self):
        return self.id in self.ends

    def header(self, name):
        """The value of a header, None if it is missing; it must not occur twice."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} twice: {values}"
        return values[0] if values else None

    def feed(self, data, now):
        self._buffer += data
        while len(self._buffer) >= 8:
            version, kind, id, length, padding, _ = struct.unpack(">BBHHBB", self._buffer[:8])
            if version != 1:
                raise ProtocolError(f"version {version} in {bytes(self._buffer[:64])!r}")
            if len(self._buffer) < 8 + length + padding:
                return
            content = bytes(self._buffer[8:8 + length])
            del self._buffer[:8 + length + padding]
            self._record(kind, id, content, now)

    def close(self):
        """The peer closed the connection; an incomplete record is allowed only before the end of the request."""
        self.eof = True
        if self.ended and self._buffer:
            raise ProtocolError(f"{len(self._buffer)} bytes of a record cut off after the end")

    def _record(self, kind, id, content, now):
        if id == 0:
            if kind not in (GET_VALUES_RESULT, UNKNOWN_TYPE):
                raise ProtocolError(f"type {kind} with id 0")
            if kind == UNKNOWN_TYPE and len(content) != 8:
                raise ProtocolError(f"UNKNOWN_TYPE of {len(content)} bytes")
            self.management.append((kind, content))
            return
        if kind == END:
            if len(content) != 8:
                raise ProtocolError(f"END_REQUEST of {len(content)} bytes")
            if id in self.ends:
                raise ProtocolError(f"END_REQUEST twice for id {id}")
            self.ends[id] = struct.unpack(">IBxxx", content)
            return
        if id != self.id or kind not in (STDOUT, STDERR):
            raise ProtocolError(f"type {kind} for id {id}")
        if self.ended:
            raise ProtocolError(f"type {kind} after END_REQUEST")
        if kind == STDERR:
            self.stderr += content
        elif self._stdout_ended:
            raise ProtocolError("STDOUT after its end")
        elif not content:
            self._stdout_ended = True
        else:
            self._content(content, now)

    def _check_head(self, length):
        """Fails for heads that nginx (larger than a page, a repeated header) or RFC 3875, section 6.3, reject."""
        names = [name.lower() for name, _ in self.headers]
        if length > 4000 or len(names) != len(set(names)):
            raise ProtocolError(f"a head that nginx refuses: {self.headers}")
        if not re.fullmatch(r"[1-5][0-9][0-9] [ -~]+", self.header("Status") or "200 OK"):
            raise ProtocolError(f"malformed status: {self.headers}")

    def _content(self, content, now):
        if self.head is None:
            self._stdout += content
            head, blank, content = bytes(self._stdout).partition(b"\r\n\r\n")
            if not blank:
                return
            if not re.fullmatch(rb"([A-Za-z-]+: [^\r\n]*(\r\n|$))+", head):
                raise ProtocolError(f"malformed head: {head!r}")
            self.head = head
            self.headers = [tuple(part.strip() for part in line.split(":", 1))
                            for line in head.decode("ascii").split("\r\n")]
            self._check_head(len(head))
            self.status = int((self.header("Status") or "200").split()[0])
        if content:
            if self.header("Content-Type") is None:
                raise ProtocolError(f"a body without a type: {self.headers}")
            self.body += content
            self.arrivals.append((now, content))
            self.events.feed(content, now)


class Recorder:
    """A responder that answers each request with one event and keeps its parameters as a list of (name, value). Like
    the daemon, it requires that a connection carries one request, with id 1."""

    def __init__(self, path):
        self.path = path
        self.requests = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        os.chmod(path, 0o666)
        self._listener.listen(16)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                connection.settimeout(scaled(20))
                self.requests.append(self._read(file))
                connection.sendall(record(STDOUT, b"Content-Type: text/event-stream\r\n\r\ndata: x\n\n")
                                   + record(STDOUT) + record(END, struct.pack(">IBxxx", 0, COMPLETE)))

    @staticmethod
    def _read(file):
        streams = {PARAMS: bytearray(), STDIN: bytearray()}
        for kind, id, content in Recorder._records(file):
            assert id == 1
            if kind == BEGIN:
                assert struct.unpack(">HB5x", content)[0] == RESPONDER
            streams.get(kind, bytearray()).extend(content)
            if kind == STDIN and not content:
                assert not streams[STDIN]
                return Recorder._pairs(bytes(streams[PARAMS]))
        raise ProtocolError("the request was cut off")

    @staticmethod
    def _records(file):
        while len(head := file.read(8)) == 8:
            version, kind, id, length, padding, _ = struct.unpack(">BBHHBB", head)
            assert version == 1
            yield kind, id, file.read(length + padding)[:length]

    @staticmethod
    def _pairs(data):
        found = []
        while data:
            sizes = []
            for _ in "name", "value":
                wide = data[0] & 0x80
                sizes.append(struct.unpack(">I", data[:4])[0] & 0x7fffffff if wide else data[0])
                data = data[4 if wide else 1:]
            name, value, data = data[:sizes[0]], data[sizes[0]:sum(sizes)], data[sum(sizes):]
            found.append((name.decode("latin-1"), value.decode("latin-1")))
        return found

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Peer:
    """A socket and the parser of its input. address is a path or (host, port)."""

    def __init__(self, address, data=b"", parser=None, rcvbuf=None, id=1):
        self.parser = parser or Response(id)
        self.closed = False
        self.closed_at = None
        self.reset = False
        self.opened = time.monotonic()
        family = socket.AF_UNIX
        if not isinstance(address, str):  # a host name, or an IPv4 or IPv6 address
            family, *_, address = socket.getaddrinfo(*address[:2], type=socket.SOCK_STREAM)[0]
        self.socket = socket.socket(family)
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        # Not settimeout(): with that, connecting to a Unix socket whose queue is full fails instead of waiting.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(scaled(20)), 0))
        self.socket.connect(address)
        self.socket.settimeout(scaled(20))
        if data:
            self.socket.sendall(data)
        self.socket.setblocking(False)

    def __getattr__(self, name):  # status, headers, header(), body, events, ended, ...
        return getattr(self.__dict__["parser"], name)

    def __repr__(self):
        tail = bytes(self.body[-300:])
        return (f"<status {self.status}, {len(self.body)} bytes ending {tail!r}, "
                f"ends {getattr(self.parser, 'ends', None)}, closed {self.closed}>")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        return self.socket.fileno()

    def send(self, data):
        self.socket.settimeout(scaled(20))
        try:
            self.socket.sendall(data)
        finally:
            self.socket.setblocking(False)

    def send_or_closed(self, data):
        """Sends the data; returns False if the other side has closed the connection."""
        try:
            self.send(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def close(self):
        self.closed = True
        self.socket.close()

    def pump(self):
        """Reads the input that is available now."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except (ConnectionResetError, BrokenPipeError):
            self.reset = True
            data = b""
        if data:
            self.parser.feed(data, time.monotonic())
        else:
            self.closed = True
            self.closed_at = time.monotonic()
            self.parser.close()

    def wait(self, condition, timeout=10, what=""):
        wait_all([self], condition, timeout, what)
        return self

    def wait_end(self, timeout=10):
        """Waits until the other side has closed the connection."""
        return self.wait(lambda p: p.closed, timeout, "the end")

    def wait_live(self, timeout=10):
        """Waits for the first sync and its retry time."""
        return self.wait(live, timeout, "sync and retry")

    def wait_body(self, needle, timeout=10):
        return self.wait(lambda p: needle in p.body, timeout, repr(needle))

    def wait_data(self, data, timeout=10):
        """Waits for an event with this data."""
        return self.wait(lambda p: data in p.events.data, timeout, f"data {data!r}")

    def quiet(self, seconds):
        """Reads for this long (0: only available input); for tests that expect no further data."""
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            if not self.closed:
                selector.register(self, selectors.EVENT_READ)
            while not self.closed:
                left = max(end - time.monotonic(), 0)
                if not selector.select(left) and not left:
                    break
                self.pump()
        return self


def live(peer):
    """Whether the stream has its first sync; a "retry later" response has none."""
    return bool(peer.events.data and peer.events.retries)


def wait_all(peers, condition, timeout=10, what=""):
    """Reads all peers until each meets the condition. Fails at the deadline, or when the remaining
    peers have closed."""
    deadline = time.monotonic() + scaled(timeout)
    waiting = {peer for peer in peers if not condition(peer)}
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            if not peer.closed:
                selector.register(peer, selectors.EVENT_READ)
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.get_map():
                first = next(iter(waiting))
                raise AssertionError(f"{len(waiting)} of {len(peers)} peers: no {what or 'such state'} "
                                     f"{'in time' if left <= 0 else 'before the end'}; one: {first!r}")
            for key, _ in selector.select(left):
                peer = key.fileobj
                peer.pump()
                if peer.closed:
                    selector.unregister(peer)
                if peer in waiting and condition(peer):
                    waiting.discard(peer)
