"""An answer of HTTP/1.1, and when which part of it came."""

import contextlib
import json
import re
import zlib

from .eventstream import EventParser

BODY_MAX = 65536       # bytes of an answer that is no stream


class BadResponse(Exception):
    pass


class Response:
    """An answer as it arrives. Times are those of time.monotonic()."""

    def __init__(self, opened):
        self.opened = opened
        self.status = None
        self.headers = []
        self.head_at = None
        self.body = bytearray()     # decoded; of a stream only the start
        self.arrivals = []          # when something of the body came
        self.parser = EventParser()
        self.ended_at = None
        self.whole = False          # it ended as its headers said
        self.error = None           # of the connection
        self._head = bytearray()
        self._rest = bytearray()    # of chunks
        self._left = None           # bytes, of a body with a length
        self._inflate = None

    def header(self, name):
        return ", ".join(value for key, value in self.headers if key == name)

    @property
    def events(self):
        return self.parser.events

    @property
    def is_stream(self):
        kind = self.header("content-type").split(";")[0].strip().lower()
        return self.status == 200 and kind == "text/event-stream"

    @property
    def synced_at(self):
        return next((event.at for event in self.events if event.is_sync), None)

    @property
    def is_later(self):
        """A stream that ended with a retry time and without a sync."""
        return self.is_stream and self.ended_at is not None and self.synced_at is None and \
            len(self.events) == 1 and self.events[0].retry is not None

    def daemon_error(self):
        """What tpi-streamd says was wrong, or None where this is not its answer."""
        with contextlib.suppress(ValueError):
            value = json.loads(self.body)
            if isinstance(value, dict) and list(value) == ["error"]:
                return value["error"] if isinstance(value["error"], str) else None
        return None

    def feed(self, data, now):
        while data and self.status is None:
            self._head += data
            head, blank, data = bytes(self._head).partition(b"\r\n\r\n")
            if not blank:
                if len(head) > BODY_MAX or not b"HTTP/1.".startswith(head[:7]):
                    raise BadResponse("the answer is not HTTP/1.1")
                return
            self._head.clear()
            self._take_head(head, now)
        if data and not self.whole:
            self._take_body(data, now)

    def _take_head(self, head, now):
        first, *lines = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.[01] (\d\d\d)(?: .*)?", first)
        if not found:
            raise BadResponse("the answer is not HTTP/1.1")
        status = int(found[1])
        if status < 200:
            return
        self.status, self.head_at = status, now
        for line in lines:
            name, _, value = line.partition(":")
            self.headers.append((name.strip().lower(), value.strip()))
        coding = self.header("content-encoding").lower()
        if coding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        length = self.header("content-length")
        if status in (204, 304):
            self._left = 0
        elif not self._chunked and length.isdecimal():
            self._left = int(length)
        self._end_if(self._left == 0, now)

    @property
    def _chunked(self):
        return self.header("transfer-encoding").lower() == "chunked"

    def _take_body(self, data, now):
        if self._chunked:
            self._take_chunks(data, now)
            return
        self._take_content(data, now)
        if self._left is not None:
            self._left -= len(data)
            self._end_if(self._left <= 0, now)

    def _take_chunks(self, data, now):
        self._rest += data
        while not self.whole:
            size, end, rest = bytes(self._rest).partition(b"\r\n")
            if not end:
                return
            try:
                size = int(size.split(b";")[0], 16)
            except ValueError:
                raise BadResponse("the answer has a chunk without a length") from None
            if size and len(rest) < size + 2:
                return
            self._take_content(rest[:size], now)
            self._rest = bytearray(rest[size + 2:])
            self._end_if(size == 0, now)

    def _take_content(self, data, now):
        if not data:
            return
        self.arrivals.append(now)
        if self._inflate:
            try:
                data = self._inflate.decompress(data)
            except zlib.error:
                raise BadResponse("the answer is not compressed as it says") from None
        self.body += data[:max(0, BODY_MAX - len(self.body))]
        if self.is_stream:
            self.parser.feed(data, now)

    def _end_if(self, whole, now):
        if whole:
            self.whole, self.ended_at = True, now

    def close(self, now, error=None):
        """The connection has ended."""
        self.error = error
        if self.ended_at is None:
            self.ended_at = now
            self.whole = error is None and self.status is not None and self._left is None and \
                not self._chunked
