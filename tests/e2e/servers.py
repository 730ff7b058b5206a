# SPDX-License-Identifier: ISC
"""Real servers for tests, Valkey (or Redis) and tpi-streamd, and an HTTP client for the web servers.

A Process collects its child's output, line by line, in threads; wait_for_log() waits for a line. No
child outlives the tests; each is killed by its pid. Every wait has a deadline.
"""

import base64
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import fcgi
from eventstream import EventStream
from timing import eventually, scaled

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.realpath(os.environ.get("TPI_BUILD", os.path.join(ROOT, "_build")))
LINGER = 6  # seconds for which a daemon stays subscribed to a channel without streams, at most
REPORT = re.compile(r"ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer|LeakSanitizer:")


def program(name):
    path = os.path.join(BUILD, name)
    assert os.access(path, os.X_OK), f"{path} is missing: build it, or set TPI_BUILD"
    return path


def run_directory():
    """A new directory with a short path: the path of a Unix socket in it must fit in 108 bytes."""
    path = tempfile.mkdtemp(prefix="tpi-")
    os.chmod(path, 0o755)
    assert len(path) < 70, f"TMPDIR is too long for sockets: {path}"
    return path


def free_port():
    """A free port below the kernel's range of ephemeral ports: an outgoing connection could take one of those before
    the server binds it. From 15000 up, browsers block none."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first = int(file.read().split()[0])
    for port in random.sample(range(15000, first), 100) if first > 15100 else [0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise AssertionError("no free port")


def clean_environment(**settings):
    """The environment without the daemon's settings and systemd's variables, plus settings that are not None."""
    ours = re.compile(r"(TPI|SSE|VALKEY|INSTANCE|LISTEN|NOTIFY|WATCHDOG)_")
    env = {name: value for name, value in os.environ.items() if not ours.match(name)}
    env.update({name: str(value) for name, value in settings.items() if value is not None})
    return env


class Process:
    """A child process and the lines of its output."""

    everything = []  # every process started, for reports of failed tests and the final cleanup

    def __init__(self, name, argv, env=None, **popen):
        self.name = name
        self.lines = {"stdout": [], "stderr": []}
        self.streams_open = 0
        self.changed = threading.Condition()
        popen = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                 **popen}
        self.child = subprocess.Popen(argv, env=env, **popen)
        self.pid = self.child.pid
        for stream in ("stdout", "stderr"):
            pipe = getattr(self.child, stream)
            if pipe:
                self.streams_open += 1
                threading.Thread(target=self._collect, args=(stream, pipe), daemon=True).start()
        Process.everything.append(self)

    def _collect(self, stream, pipe):
        for line in pipe:
            with self.changed:
                self.lines[stream].append(line.rstrip(b"\n").decode("utf-8", "surrogateescape"))
                self.changed.notify_all()
        pipe.close()
        with self.changed:
            self.streams_open -= 1
            self.changed.notify_all()

    @property
    def stderr(self):
        return "\n".join(self.lines["stderr"])

    @property
    def stdout(self):
        return "\n".join(self.lines["stdout"])

    def mark(self, stream="stderr"):
        """The current end of the log, for wait_for_log(start=...), which then ignores earlier lines."""
        return len(self.lines[stream])

    def matching(self, regex, stream="stderr", start=0):
        return [line for line in self.lines[stream][start:] if re.search(regex, line)]

    def wait_for_log(self, regex, timeout=10, stream="stderr", start=0, count=1):
        """Waits for the count-th matching line and returns it."""
        deadline = time.monotonic() + scaled(timeout)
        with self.changed:
            while len(found := self.matching(regex, stream, start)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"{self.name}: no line like {regex!r} in time"
                assert self.streams_open, f"{self.name}: ended without a line like {regex!r}"
                self.changed.wait(left)
            return found[count - 1]

    @property
    def alive(self):
        return self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, timeout=10):
        """Waits until the process has exited and its output is read; returns the exit status."""
        try:
            status = self.child.wait(scaled(timeout))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} (pid {self.pid}) did not exit in time") from None
        with self.changed:
            self.changed.wait_for(lambda: not self.streams_open, scaled(5))
        return status

    def kill(self):
        if self.alive:
            self.child.kill()
            self.signal(signal.SIGCONT)
        return self.wait()

    def report(self):
        state = "running" if self.alive else f"exit status {self.child.returncode}"
        for stream, lines in self.lines.items():
            yield f"{self.name} (pid {self.pid}, {state}) {stream}", "\n".join(lines[-300:])


# Valkey

class ValkeyError(Exception):
    pass


class ValkeyClient:
    """A connection to Valkey with the RESP2 protocol."""

    def __init__(self, address, timeout=10):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(scaled(timeout))
        self.socket.connect(address)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words)
                            + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("Valkey closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ValkeyError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        return [self.read() for _ in range(int(rest))]

    def __call__(self, *words):
        self.send(*words)
        return self.read()

    def close(self):
        self.file.close()
        self.socket.close()


class Valkey:
    """A Valkey server on a Unix socket or on TCP. It can be started and stopped repeatedly."""

    def __init__(self, directory, tcp=False, password=None, config=(), port=None):
        self.directory = tempfile.mkdtemp(prefix="valkey-", dir=directory)
        self.port = (port or free_port()) if tcp else 0
        self.path = os.path.join(self.directory, "s")
        self.address = ("127.0.0.1", self.port) if tcp else self.path
        self.url = f"valkey://127.0.0.1:{self.port}" if tcp else f"unix://{self.path}"
        self.password = password
        self.config = [*config, *(["--requirepass", password] if password else [])]
        self.process = None
        self.client = None

    def start(self):
        server = shutil.which("valkey-server") or shutil.which("redis-server")
        assert server, "neither valkey-server nor redis-server is installed"
        self.process = Process("valkey", [
            server, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.path,
            "--save", "", "--appendonly", "no", "--dir", self.directory, "--loglevel", "notice",
            "--maxclients", "4000", "--tcp-backlog", "512", "--repl-diskless-sync-delay", "0",
            *self.config])
        self.process.wait_for_log("eady to accept connections", stream="stdout")
        return self

    def stop(self):
        """Stops the server with SIGTERM, as an administrator would."""
        self.forget_client()
        self.process.signal(signal.SIGTERM)
        self.process.wait()

    def kill(self):
        self.forget_client()
        if self.process:
            self.process.kill()

    def restart(self):
        self.kill()
        return self.start()

    def pause(self):
        self.process.signal(signal.SIGSTOP)

    def resume(self):
        self.process.signal(signal.SIGCONT)

    def forget_client(self):
        if self.client:
            self.client.close()
            self.client = None

    def __call__(self, *words):
        """Runs one command and returns its reply, like valkey-cli."""
        if not self.client:
            self.client = ValkeyClient(self.address)
            if self.password:
                self.client("AUTH", self.password)
        return self.client(*words)

    def publish(self, channel, payload):
        """Publishes a message; returns how many connections received it."""
        return self("PUBLISH", channel, payload)

    def publish_all(self, channel, payloads):
        """Publishes several messages with one write, so that they arrive together."""
        self("PING")
        words = [b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n"
                 % (len(channel), channel.encode(), len(raw), raw)
                 for raw in (p if isinstance(p, bytes) else p.encode() for p in payloads)]
        self.client.socket.sendall(b"".join(words))
        return [self.client.read() for _ in words]

    def subscribers(self, channel):
        return self("PUBSUB", "NUMSUB", channel)[1]

    def wait_subscribers(self, channel, count, timeout=10):
        """Waits until that many daemons are subscribed. For 0, the time a channel lingers is added to the limit."""
        timeout += LINGER if count == 0 else 0
        eventually(lambda: self.subscribers(channel) == count, timeout,
                   f"{count} subscribers of {channel}")


def user_channel(user, tenant="default"):
    return f"notifications:tenant:{tenant}:user:{user}"


def broadcast_channel(tenant="default"):
    return f"notifications:tenant:{tenant}:broadcast"


def project_channel(project, tenant="default", prefix="issues"):
    return f"{prefix}:tenant:{tenant}:project:{project}"


def project_channels(project, tenant="default"):
    """A project's channels with each prefix that TestPlanIt has used."""
    return [project_channel(project, tenant, prefix) for prefix in ("issues", "issue-updates")]


# tpi-streamd

def tunables():
    """GLIBC_TUNABLES in the systemd unit."""
    with open(os.path.join(ROOT, "contrib", "systemd", "tpi-stream.service.in"), encoding="ascii") as file:
        return re.search(r"^Environment=GLIBC_TUNABLES=(\S+)$", file.read(), re.M)[1]


# Moves sockets to the descriptors that systemd uses, or to 0, then executes the daemon in the same process.
LAUNCHER = """
import fcntl, os, sys
how, numbers, argv = sys.argv[1], sys.argv[2], sys.argv[3:]
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, 100) for number in numbers.split(",")]
for position, number in enumerate(high):
    os.dup2(number, position + (3 if how == "systemd" else 0))
if how == "systemd":
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(high))
os.execv(argv[0], argv)
"""


def listening_socket(address, backlog=4096):
    listener = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(backlog)
    if isinstance(address, str):
        os.chmod(address, 0o666)
    return listener


class Streamd(Process):
    """tpi-streamd, on a Unix socket in directory unless inherit, args or env set another one."""

    def __init__(self, directory, env, args=(), inherit=None, how="systemd", address=None, wait=True,
                 **popen):
        self.address = address or os.path.join(directory, "s")
        argv = [program("tpi-streamd"), *args]
        if inherit:
            numbers = ",".join(str(listener.fileno()) for listener in inherit)
            argv = [sys.executable, "-ISc", LAUNCHER, how, numbers, *argv]
            popen["pass_fds"] = [listener.fileno() for listener in inherit]
            self.address = address or inherit[0].getsockname()
        elif "--listen" not in args and "TPI_LISTEN" not in env:
            argv += ["--listen", self.address]
        super().__init__("tpi-streamd", argv, clean_environment(**env), **popen)
        self.drain = float(env.get("TPI_DRAIN_SECONDS") or 5)
        if wait:
            self.wait_accepts()

    def wait_accepts(self):
        """Waits until the daemon answers on its socket, with a FastCGI management record instead of a request."""
        def answers():
            assert self.alive, f"tpi-streamd ended at its start:\n{self.wait()}\n{self.stderr}"
            try:
                with fcgi.Peer(self.address, fcgi.record(fcgi.GET_VALUES,
                                                         fcgi.pair("FCGI_MPXS_CONNS", ""), id=0)) as peer:
                    peer.wait(lambda p: p.management, what="answer to GET_VALUES")
                return True
            except (FileNotFoundError, ConnectionError):  # no socket yet, or no thread for this connection
                return False
        eventually(answers, 20, "tpi-streamd accepts connections")

    def check_clean(self):
        found = REPORT.search(self.stderr)
        assert not found, f"sanitizer report of pid {self.pid}: {found.group()}"

    def stop(self, number=signal.SIGTERM):
        """Drains and stops the daemon, which must exit with status 0 in time; returns the seconds it took."""
        self.signal(number)
        started = time.monotonic()
        status = self.wait(self.drain + 10)
        self.check_clean()
        assert status == 0, f"exit status {status} after signal {number}"
        return time.monotonic() - started

    # Requests

    def open(self, *args, rcvbuf=None, **named):
        """Sends a request; the arguments are those of fcgi.params()."""
        return fcgi.Peer(self.address, fcgi.request(fcgi.params(*args, **named)), rcvbuf=rcvbuf)

    def stream(self, *args, **named):
        """Opens a stream and waits for its first sync."""
        return self.open(*args, **named).wait_live()

    def streams(self, count, *args, **named):
        peers = [self.open(*args, **named) for _ in range(count)]
        fcgi.wait_all(peers, fcgi.live, 30, "sync")
        return peers

    def ask(self, *args, timeout=10, **named):
        """Sends a request and waits for the complete response."""
        return self.open(*args, **named).wait_end(timeout)


def run_streamd(*args, timeout=20, **env):
    """Runs tpi-streamd until it exits, for usage and configuration errors."""
    result = subprocess.run([program("tpi-streamd"), *args], env=clean_environment(**env),
                            stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=scaled(timeout), check=False)
    assert not REPORT.search(result.stderr), result.stderr
    return result


def processor_time(process):
    """CPU time of a process and all its threads, in seconds."""
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


class NotifySocket:
    """The socket on which systemd receives notifications."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.received = []

    def wait(self, line, timeout=10, count=1):
        deadline = time.monotonic() + scaled(timeout)
        while sum(message.split("\n").count(line) for message in self.received) < count:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                self.received.append(self.socket.recv(4096).decode())
            except TimeoutError:
                raise AssertionError(f"no notification {line}; received {self.received}") from None

    def close(self):
        self.socket.close()


# HTTP, for requests through a web server

class HttpResponse:
    """A response of HTTP/1.1, delimited by length, by chunks, or by the end of the connection."""

    def __init__(self):
        self.status = None
        self.headers = []
        self.body = bytearray()
        self.arrivals = []
        self.events = EventStream()
        self.ended = False
        self._head = bytearray()
        self._chunk = bytearray()
        self._left = None

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} twice: {values}"
        return values[0] if values else None

    def feed(self, data, now):
        if self.status is None:
            self._head += data
            head, blank, data = bytes(self._head).partition(b"\r\n\r\n")
            if not blank:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            self.status = int(first.split()[1])
            self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
            length = self.header("Content-Length")
            self._left = int(length) if length else None
            self.ended = self.status == 204 or self._left == 0
        if self.header("Transfer-Encoding") == "chunked":
            self._chunks(data, now)
        elif data:
            self._content(data, now)
            if self._left is not None:
                self._left -= len(data)
                self.ended = self._left == 0

    def _chunks(self, data, now):
        self._chunk += data
        while True:
            size, line, rest = self._chunk.partition(b"\r\n")
            if not line:
                return
            size = int(size.split(b";")[0], 16)
            if len(rest) < size + 2:
                return
            assert rest[size:size + 2] == b"\r\n", "chunk without its end"
            if size:
                self._content(bytes(rest[:size]), now)
            else:
                self.ended = True
            self._chunk = rest[size + 2:]

    def _content(self, content, now):
        self.body += content
        self.arrivals.append((now, content))
        self.events.feed(content, now)

    def close(self):
        if self.header("Transfer-Encoding") is None and self._left is None:
            self.ended = self.status is not None


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class TlsPeer(fcgi.Peer):
    """A Peer over TLS."""

    def __init__(self, address, data, parser, context):
        super().__init__(address, parser=parser)
        self.socket.settimeout(scaled(20))
        self.socket = context.wrap_socket(self.socket, server_hostname=address[0])
        self.send(data)

    def pump(self):
        """Reads everything available: a selector does not report data that TLS has already buffered."""
        with contextlib.suppress(ssl.SSLWantReadError):
            while not self.closed:
                super().pump()


def http(address, target, method="GET", tls=None, **headers):
    """Sends a request. Header names are written with _ for -; address is (host, port), tls an SSL context."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}:{address[1]}",
             *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    data = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return TlsPeer(address, data, HttpResponse(), tls) if tls else fcgi.Peer(address, data, HttpResponse())
