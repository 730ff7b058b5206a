# SPDX-License-Identifier: ISC
"""A relay between the daemon and a server that adds latency and network failures."""

import contextlib
import os
import selectors
import socket
import threading
import time


class Relay:
    """Accepts on a Unix socket and forwards to target after delay seconds. mute() stops forwarding, but connections
    stay open and new ones are accepted. A new target is used for new connections: a load balancer, or a name that
    moves."""

    def __init__(self, directory, target, delay=0.0):
        self.path = os.path.join(directory, "relay")
        self.url = f"unix://{self.path}"
        self.target = target
        self.delay = delay
        self.muted = False
        self.rate = None  # bytes per second read from the clients; None: no limit
        self.attempts = 0     # connections from clients
        self.connections = 0  # those that the target accepted
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._other = {}  # the other end of the relay, by socket
        self._near = set()  # the sockets of the clients
        self._queue = []  # (due time, socket, data), ordered by due time
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def open(self):
        """The number of connections that are open."""
        return len(self._other) // 2

    def mute(self):
        self.muted = True

    def unmute(self):
        self.muted = False

    def close(self):
        self._ended = True
        self._thread.join(5)
        for end in [self._listener, *self._other]:
            end.close()

    def _accept(self):
        near, _ = self._listener.accept()
        self.attempts += 1
        far = socket.socket(socket.AF_UNIX if isinstance(self.target, str) else socket.AF_INET)
        try:
            far.connect(self.target)
        except OSError:
            # Unread data would turn the close into a reset, which clients report as another error.
            near.settimeout(1)
            with contextlib.suppress(OSError):
                near.recv(65536)
            near.close()
            far.close()
            return
        self.connections += 1
        self._near.add(near)
        for one, other in ((near, far), (far, near)):
            self._other[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _drop(self, end):
        for one in (end, self._other[end]):
            self._stop_reading(one)
            del self._other[one]
            one.close()

    def _stop_reading(self, end):
        if end.fileno() in self._selector.get_map():
            self._selector.unregister(end)

    def _run(self):
        while not self._ended:
            wait = 0.05
            if self._queue and not self.muted:
                wait = max(0, min(wait, self._queue[0][0] - time.monotonic()))
            for key, _ in self._selector.select(wait):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._other:
                    self._read(key.fileobj)
            while self._queue and not self.muted and self._queue[0][0] <= time.monotonic():
                self._forward(*self._queue.pop(0)[1:])

    def _read(self, end):
        try:
            data = end.recv(4096 if self.rate else 65536)
        except OSError:
            data = b""
        if self.rate and end in self._near:
            time.sleep(len(data) / self.rate)
        self._queue.append((time.monotonic() + self.delay, self._other[end], data))
        if not data:
            self._stop_reading(end)

    def _forward(self, end, data):
        if end not in self._other:
            return
        try:
            if data:
                end.sendall(data)
                return
        except OSError:
            pass
        self._drop(end)
