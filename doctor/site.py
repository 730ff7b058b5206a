"""Where the streams are, and the requests to them."""

import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

from . import VERSION
from .response import BadResponse, Response

PATHS = {"notifications": "/api/notifications/stream", "issues": "/api/issues/stream"}
HEALTH, SESSION = "/api/streams/health", "/api/auth/session"


class Exchange(threading.Thread):
    """A request; a thread of its own notes when which part of the answer comes."""

    def __init__(self, site, target, headers=()):
        super().__init__(daemon=True)
        self.response = Response(time.monotonic())
        self.changed = threading.Condition()
        self._closing = False
        self._socket = site.connect()
        head = [f"GET {target} HTTP/1.1", f"Host: {site.host_header}", *site.headers, *headers, "", ""]
        try:
            self._socket.sendall("\r\n".join(head).encode("latin-1"))
        except OSError as error:
            self._socket.close()
            self.response.close(time.monotonic(), error)
            return
        self._socket.settimeout(0.05)  # how soon close() is noticed
        self.start()

    def run(self):
        error = None
        try:
            while not self._closing and not self.response.whole:
                try:
                    data = self._socket.recv(65536)
                except socket.timeout:
                    continue
                with self.changed:
                    if not data:
                        break
                    self.response.feed(data, time.monotonic())
                    self.changed.notify_all()
        except (OSError, BadResponse) as caught:
            error = caught
        finally:
            self._socket.close()
            with self.changed:
                if not self._closing:
                    self.response.close(time.monotonic(), error)
                self.changed.notify_all()

    def wait(self, condition, seconds):
        """Waits until condition(response), or the end of the answer; returns the response."""
        with self.changed:
            self.changed.wait_for(lambda: self.response.ended_at is not None or
                                  condition(self.response), seconds)
        return self.response

    def close(self):
        self._closing = True
        if self.is_alive():
            self.join()


class Site:
    """Where the streams are, and what each request carries."""

    def __init__(self, url, credentials, ca, timeout):
        parts = urlsplit(url)
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.tls else 80)
        self.host_header = parts.netloc
        self.prefix = parts.path
        self.timeout = timeout
        self.ca = ca
        self.addresses = []
        self.headers = ["User-Agent: tpi-stream-doctor/" + VERSION,
                        "Accept: text/event-stream", "Accept-Encoding: gzip, deflate, br",
                        "Cache-Control: no-cache", *credentials]

    def resolve(self):
        self.addresses = list(dict.fromkeys(
            entry[4] for entry in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)))

    def connect_plain(self, address):
        family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        plain_socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            plain_socket.settimeout(self.timeout)
            plain_socket.connect(address)
        except OSError:
            plain_socket.close()
            raise
        return plain_socket

    def connect(self, protocols=("http/1.1",)):
        """A connection to the first address."""
        connection = self.connect_plain(self.addresses[0])
        if not self.tls:
            return connection
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(list(protocols))
        try:
            return context.wrap_socket(connection, server_hostname=self.host)
        except (OSError, ValueError):
            connection.close()
            raise

    def get(self, target, *headers):
        """A whole answer, or what of it came in time."""
        exchange = Exchange(self, self.prefix + target, headers)
        exchange.wait(lambda response: response.synced_at is not None, self.timeout)
        exchange.close()
        return exchange.response
