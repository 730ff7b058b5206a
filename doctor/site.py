# SPDX-License-Identifier: ISC
"""Send requests to the site, as a browser would, and time the responses.

Connecting, the TLS handshake and each answer have one time limit as a whole, however slowly the bytes come.
"""

import select
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

from . import VERSION
from .response import STREAM_MAX, Response
from .untrusted import Budget, Malformed

HEALTH = "/api/streams/health"
SHORT_MAX = 1024 * 1024     # bytes read of an answer that is no stream
STREAM, JSON = "text/event-stream", "application/json"


class Exchange(threading.Thread):
    """A request, and a thread that notes when each part of the response arrives."""

    def __init__(self, site, target, headers=(), method="GET", budget=None):
        super().__init__(daemon=True)
        self.budget = budget or Budget(STREAM_MAX)
        self.response = Response(time.monotonic(), method, self.budget)
        self.changed = threading.Condition()
        self._closing = False
        self._socket = site.connect(seconds=self.budget.seconds(site.timeout))
        head = [f"{method} {target} HTTP/1.1", f"Host: {site.host_header}", *site.headers, *headers, "", ""]
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
            while not self._closing and self.response.ended_at is None:
                try:
                    data = self._socket.recv(65536)
                except socket.timeout:
                    continue
                with self.changed:
                    if not data:
                        break
                    self.response.feed(data, time.monotonic())
                    self.changed.notify_all()
        except (OSError, Malformed) as caught:
            error = caught
        finally:
            self._socket.close()
            with self.changed:
                if error is not None or not self._closing:
                    self.response.close(time.monotonic(), error)
                self.changed.notify_all()

    def wait(self, condition, seconds):
        """Waits until condition(response), or the end of the response; returns the response."""
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
        self.headers = ["User-Agent: tpi-stream-doctor/" + VERSION, "Cache-Control: no-cache", *credentials]
        # What shows that a page of the site asks. By it the application decides what a user without API rights
        # can query.
        self.page_headers = [f"Referer: {parts.scheme}://{parts.netloc}{parts.path}/", "Sec-Fetch-Site: same-origin",
                             "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"]

    def resolve(self):
        self.addresses = list(dict.fromkeys(
            entry[4] for entry in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)))

    def connect_plain(self, address, seconds=None):
        family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        plain_socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            plain_socket.settimeout(self.timeout if seconds is None else seconds)
            plain_socket.connect(address)
        except OSError:
            plain_socket.close()
            raise
        return plain_socket

    def connect(self, protocols=("http/1.1",), seconds=None):
        """A connection to the first address."""
        budget = Budget(0, self.timeout if seconds is None else seconds)
        connection = self.connect_plain(self.addresses[0], budget.seconds(self.timeout))
        if not self.tls:
            return connection
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(list(protocols))
        try:
            connection = context.wrap_socket(connection, server_hostname=self.host, do_handshake_on_connect=False)
            shake_hands(connection, budget)
        except (OSError, ValueError):
            connection.close()
            raise
        connection.settimeout(self.timeout)
        return connection

    def open_stream(self, target):
        return Exchange(self, self.prefix + target, ["Accept: " + STREAM, "Accept-Encoding: gzip, deflate, br",
                                                     *self.page_headers])

    def get(self, target, *headers, method="GET", accept=STREAM, as_page=True):
        """A complete response, or what of it arrived in time. as_page: show that a page of the site asks."""
        budget = Budget(SHORT_MAX, self.timeout)
        exchange = Exchange(self, self.prefix + target, [
            "Accept: " + accept, "Accept-Encoding: gzip, deflate", *(self.page_headers if as_page else ()), *headers],
                            method, budget)
        exchange.wait(lambda response: response.synced_at is not None, budget.seconds(self.timeout))
        exchange.close()
        return exchange.response


def shake_hands(connection, budget):
    """The TLS handshake; each of its reads may take no longer than what is left of the whole time."""
    connection.setblocking(False)
    while True:
        try:
            connection.do_handshake()
            return
        except ssl.SSLWantReadError:
            ready = select.select([connection], [], [], budget.seconds(60))
        except ssl.SSLWantWriteError:
            ready = select.select([], [connection], [], budget.seconds(60))
        if not any(ready) and budget.expired:
            raise socket.timeout("the TLS handshake took too long")
