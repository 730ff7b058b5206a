"""The lines of an event stream, and when they came."""

import codecs
import contextlib
import json
import re
from dataclasses import dataclass


@dataclass
class Event:
    """A block of an event stream; a comment or a retry time alone is one, too."""
    at: float
    data: str = None
    event: str = ""
    retry: int = None
    comment: bool = False

    def json(self):
        with contextlib.suppress(TypeError, ValueError):
            value = json.loads(self.data)
            if isinstance(value, dict):
                return value
        return {}

    @property
    def is_sync(self):
        return self.json().get("event") == "sync"


class EventParser:
    """The lines of an event stream; events has the blocks."""

    def __init__(self):
        self.events = []
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""
        self._block = None

    def feed(self, data, now):
        self._text += self._decode(data)
        # A CR at the end may be half of a CRLF.
        *lines, self._text = re.split(r"\r\n|\n|\r(?!\Z)", self._text)
        for line in lines:
            self._line(line, now)

    def _line(self, line, now):
        if not line:
            if self._block:
                self.events.append(self._block)
            self._block = None
            return
        block = self._block = self._block or Event(now)
        block.at = now
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            block.data = value if block.data is None else block.data + "\n" + value
        elif name == "event":
            block.event = value
        elif name == "retry" and value.isdecimal():
            block.retry = int(value)
        elif not name:
            block.comment = True
