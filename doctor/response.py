# SPDX-License-Identifier: ISC
"""An HTTP/1.1 response as it arrives, with the time of each part.

feed() raises Malformed where the bytes cannot be a response. What it keeps and decompresses is bounded:
the body of a short answer is cut off at BODY_MAX, and everything spends the budget.
"""

import re
import zlib

from .eventstream import EventParser
from .untrusted import Budget, Malformed, json_object, whole_number

HEAD_MAX = 65536
BODY_MAX = 65536                # kept of a body
STREAM_MAX = 16 * 1024 * 1024   # read of an answer
PIECE = 65536                   # decompressed at once


class Response:
    """Times are those of time.monotonic()."""

    def __init__(self, opened, method="GET", budget=None):
        self.opened = opened
        self.method = method
        self.budget = budget or Budget(STREAM_MAX)
        self.status = None
        self.headers = []
        self.head_at = None
        self.body = bytearray()     # decompressed; of a stream only the start
        self.arrivals = []          # when a part of the body arrived
        self.parser = EventParser()
        self.ended_at = None
        self.complete = False       # it ended as its headers announced
        self.error = None           # that ended the connection
        self._head = bytearray()
        self._interim = 0           # bytes of interim responses
        self._line = bytearray()    # of the chunked coding: a line whose end has not come yet
        self._left = None           # bytes of the body, or of the chunk
        self._state = "size"        # of the chunked coding: size, data, end, trailer
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
    def is_deferred(self):
        """"Retry later": a stream that ended with a retry time and without a sync."""
        return self.is_stream and self.ended_at is not None and self.synced_at is None and \
            len(self.events) == 1 and self.events[0].retry is not None

    @property
    def is_refused_method(self):
        """The answer of tpi-streamd to a method other than GET. The one to HEAD has no body to show whose it is."""
        return self.status == 405 and self.header("allow") == "GET"

    def daemon_error(self):
        """The error in an answer of tpi-streamd, or None where this is not one."""
        value = json_object(self.body)
        return value["error"] if list(value) == ["error"] and isinstance(value["error"], str) else None

    def feed(self, data, now):
        self.budget.spend(len(data))
        while data and self.status is None:
            data = self._take_head(data, now)
        if data and self.ended_at is None:
            self._take_body(data, now)

    def _take_head(self, data, now):
        """Returns what follows the head."""
        self._head += data
        head, blank, rest = bytes(self._head).partition(b"\r\n\r\n")
        if len(head) + self._interim > HEAD_MAX or not b"HTTP/1.".startswith(head[:7]):
            raise Malformed("the answer is not HTTP/1.1")
        if not blank:
            return b""
        self._head.clear()
        first, *lines = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.[01] ([1-9][0-9][0-9])(?: .*)?", first)
        if not found:
            raise Malformed("the answer is not HTTP/1.1")
        status = int(found[1])
        if status < 200:
            self._interim += len(head)
            return rest
        for line in lines:
            name, _, value = line.partition(":")
            self.headers.append((name.strip().lower(), value.strip()))
        self._find_length(status)
        self.status, self.head_at = status, now
        self._end_if(self._left == 0, now)
        return rest

    def _find_length(self, status):
        if self.header("content-encoding").lower() in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        if self.method == "HEAD" or status in (204, 304):
            self._left = 0
            return
        coding, lengths = self.header("transfer-encoding"), set(re.split(r",\s*", self.header("content-length")))
        if coding:
            if not self._chunked:
                raise Malformed("the answer has an unknown Transfer-Encoding")
        elif lengths != {""}:
            self._left = whole_number(lengths.pop()) if len(lengths) == 1 else None
            if self._left is None:
                raise Malformed("the answer has a Content-Length that is not a number")

    @property
    def _chunked(self):
        return self.header("transfer-encoding").lower() == "chunked"

    def _take_body(self, data, now):
        if self._chunked:
            self._take_chunks(data, now)
            return
        if self._left is not None:
            data = data[:self._left]
            self._left -= len(data)
        self._take_content(data, now)
        self._end_if(self._left == 0, now)

    def _take_chunks(self, data, now):
        while data and self.ended_at is None:
            if self._state == "data":
                piece, data = data[:self._left], data[self._left:]
                self._left -= len(piece)
                self._take_content(piece, now)
                if self._left == 0:
                    self._state = "end"
                continue
            piece, end, data = data.partition(b"\n")
            self._line += piece
            if len(self._line) > HEAD_MAX:
                raise Malformed("the answer has a chunk without a length")
            if end:
                line = bytes(self._line).rstrip(b"\r")
                self._line.clear()
                self._take_chunk_line(line, now)

    def _take_chunk_line(self, line, now):
        if self._state == "size":
            found = re.fullmatch(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?", line)
            if not found:
                raise Malformed("the answer has a chunk without a length")
            self._left = int(found[1], 16)
            self._state = "data" if self._left else "trailer"
        elif self._state == "end":
            if line:
                raise Malformed("the answer has a chunk that is longer than its length")
            self._state = "size"
        else:
            self._end_if(not line, now)

    def _take_content(self, data, now):
        if not data:
            return
        self.arrivals.append(now)
        if not self._inflate:
            self._keep(data, now)
            return
        while data and self.ended_at is None and not self._inflate.eof:
            try:
                piece = self._inflate.decompress(data, PIECE)
            except zlib.error:
                raise Malformed("the answer is not compressed as it says") from None
            data = self._inflate.unconsumed_tail
            self.budget.spend(len(piece))
            self._keep(piece, now)

    def _keep(self, data, now):
        room = BODY_MAX - len(self.body)
        self.body += data[:room]
        if self.is_stream:
            self.parser.feed(data, now)
        elif len(data) > room:
            self.ended_at = now     # enough of an answer that is no stream

    def _end_if(self, complete, now):
        if complete and self.ended_at is None:
            self.complete, self.ended_at = True, now

    def close(self, now, error=None):
        """The connection has ended."""
        self.error = error
        if self.ended_at is None:
            self.ended_at = now
            self.complete = error is None and self.status is not None and self._left is None and \
                not self._chunked
