# SPDX-License-Identifier: ISC
"""Parse an event stream, and note when each event came.

A comment is an event of its own, complete with its line: a ping has no blank line after it. A block with
nothing but a retry time is an event, too.
"""

import codecs
import re
from dataclasses import dataclass

from .untrusted import Malformed, json_object, whole_number

LINE_MAX = 65536            # bytes; a wake-up of tpi-streamd has at most 16 KiB
EVENTS_MAX = 100000


@dataclass
class Event:
    at: float
    data: str = None
    event: str = ""
    id: str = None
    retry: int = None
    comment: bool = False
    members: dict = None

    def json(self):
        """The members of the JSON object in its data, if that is one."""
        if self.members is None:
            self.members = json_object(self.data or "")
        return self.members

    @property
    def is_sync(self):
        return self.json().get("event") == "sync"


class EventParser:
    def __init__(self):
        self.events = []
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._pieces = []       # of a line whose end has not come yet
        self._length = 0
        self._block = None

    def feed(self, data, now):
        text = self._decode(data)
        half = bool(self._pieces) and self._pieces[-1].endswith("\r")
        if text:
            self._pieces.append(text)
            self._length += len(text)
        if half or "\n" in text or "\r" in text:
            # A CR at the end may be the first half of a CRLF.
            *lines, rest = re.split(r"\r\n|\n|\r(?!\Z)", "".join(self._pieces))
            self._pieces, self._length = [rest] if rest else [], len(rest)
            for line in lines:
                self._line(line, now)
        if self._length > LINE_MAX:
            raise Malformed(f"a line of the stream is longer than {LINE_MAX} bytes")

    def _line(self, line, now):
        if not line:
            if self._block:
                self._add(self._block)
            self._block = None
            return
        if line.startswith(":"):
            self._add(Event(now, comment=True))
            return
        block = self._block = self._block or Event(now)
        block.at = now
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            block.data = value if block.data is None else block.data + "\n" + value
        elif name == "event":
            block.event = value
        elif name == "id":
            block.id = value
        elif name == "retry":
            block.retry = whole_number(value)

    def _add(self, event):
        if len(self.events) >= EVENTS_MAX:
            raise Malformed(f"the stream has more than {EVENTS_MAX} events")
        self.events.append(event)
