# SPDX-License-Identifier: ISC
"""The one boundary for data from other machines.

HTTP, JSON, URLs, dates, numbers and text that a server or tpi-publish sends are read here and nowhere
else. Each function returns a value that is safe to use, or None or a default where there is none;
Malformed is raised only where an answer as a whole cannot be read, and becomes a finding.
"""

import json
import re
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from .mask import mask

SHOWN_MAX = 160             # characters of such a text in a finding
DIGITS_MAX = 15
JSON_MAX = 65536            # bytes


class Malformed(Exception):
    """An answer cannot be read. The message says why, and is safe to print."""


def plain(text, length=SHOWN_MAX):
    """Text from another machine: without secrets, printable ASCII, and short."""
    text = "".join(c if " " <= c <= "~" else "?" for c in mask(str(text)))
    return text if len(text) <= length else text[:length] + "..."


def reason_of(error):
    """Why something failed, without the number of an OSError."""
    return plain(getattr(error, "strerror", None) or error)


def number(text, default=None):
    """The number that a text begins with, else the default."""
    found = re.match(r"[0-9]+", text or "")
    return int(found[0][:DIGITS_MAX]) if found else default


def whole_number(text):
    """A text that is a number and nothing else, or None."""
    return int(text) if re.fullmatch(r"[0-9]{1,%d}" % DIGITS_MAX, text or "") else None


def json_value(data):
    """The value of a JSON text, or None."""
    if len(data) > JSON_MAX:
        return None
    try:
        return json.loads(data.decode("utf-8") if isinstance(data, (bytes, bytearray)) else data)
    except (ValueError, RecursionError):
        return None


def json_object(data):
    """The members of a JSON object; none where it is anything else."""
    value = json_value(data)
    return value if isinstance(value, dict) else {}


def http_date(text):
    """Seconds since 1970, or None."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError, OSError):
        return None


def split_location(text):
    """The parts of a URL. What cannot be parsed is all path."""
    try:
        return urlsplit(text)
    except ValueError:
        return urlsplit("")._replace(path=text)


class Budget:
    """What one answer may cost: bytes, received and decompressed together, and time."""

    def __init__(self, size, seconds=None):
        self.size = self.left = size
        self.deadline = None if seconds is None else time.monotonic() + seconds

    def spend(self, count):
        self.left -= count
        if self.left < 0:
            raise Malformed(f"the answer is longer than {self.size} bytes")

    def seconds(self, most):
        """The time that is left, up to most."""
        return most if self.deadline is None else max(0.0, min(most, self.deadline - time.monotonic()))

    @property
    def expired(self):
        return self.deadline is not None and time.monotonic() >= self.deadline
