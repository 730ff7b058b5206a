# SPDX-License-Identifier: ISC
"""A parser of event streams as specified in WHATWG HTML, section 9.2.6.

Input comes in pieces of any size. Events, comments and retry times are kept in order, each with the
time of the piece that completed it, so a test can wait for a comment (a ping) as well as for an event.
"""

import codecs
import time
from typing import NamedTuple


class Event(NamedTuple):
    type: str
    data: str
    last_event_id: str
    time: float


class Comment(NamedTuple):
    text: str
    time: float


class Retry(NamedTuple):
    milliseconds: int
    time: float


class EventStream:
    def __init__(self):
        self.items = []  # Event, Comment and Retry in order
        self.last_event_id = ""
        self.reconnection_time = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._after_cr = False
        self._line = []
        self._data = ""
        self._type = ""
        self._id = ""

    @property
    def events(self):
        return [item for item in self.items if isinstance(item, Event)]

    @property
    def comments(self):
        return [item for item in self.items if isinstance(item, Comment)]

    @property
    def retries(self):
        return [item for item in self.items if isinstance(item, Retry)]

    @property
    def data(self):
        """The data of every event of type message."""
        return [event.data for event in self.events if event.type == "message"]

    def feed(self, piece, now=None):
        """Parses the next piece. A carriage return at the end of a piece ends the line immediately."""
        now = time.monotonic() if now is None else now
        text = self._decoder.decode(piece)
        if text and self._at_start:
            self._at_start = False
            text = text[1:] if text[0] == "\ufeff" else text
        start = 0
        for position, character in enumerate(text):
            if character not in "\r\n":
                self._after_cr = False
                continue
            if character == "\n" and self._after_cr:
                self._after_cr = False
                start = position + 1
                continue
            self._after_cr = character == "\r"
            self._line.append(text[start:position])
            start = position + 1
            line = "".join(self._line)
            self._line = []
            self._process(line, now)
        self._line.append(text[start:])

    def _process(self, line, now):
        if line == "":
            self._dispatch(now)
        elif line[0] == ":":
            self.items.append(Comment(line[1:], now))
        else:
            name, colon, value = line.partition(":")
            if colon and value[:1] == " ":
                value = value[1:]
            self._field(name, value, now)

    def _field(self, name, value, now):
        if name == "event":
            self._type = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry":
            if value and all(c in "0123456789" for c in value):
                self.reconnection_time = int(value)
                self.items.append(Retry(int(value), now))

    def _dispatch(self, now):
        self.last_event_id = self._id
        data, kind = self._data, self._type
        self._data = self._type = ""
        if data == "":
            return
        self.items.append(Event(kind or "message", data[:-1], self.last_event_id, now))
