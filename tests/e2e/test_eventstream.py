# SPDX-License-Identifier: ISC
"""eventstream.py, the parser of the other tests, follows WHATWG HTML 9.2.6, the chapter's examples included."""

import pytest

from eventstream import Comment, EventStream, Retry


def parse(*pieces):
    stream = EventStream()
    for piece in pieces:
        stream.feed(piece, now=0)
    return stream


def messages(stream):
    return [(event.type, event.data, event.last_event_id) for event in stream.events]


CASES = [
    ("one event", b"data: a\n\n", [("message", "a", "")]),
    ("two lines", b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
    ("CR", b"data: a\r\rdata: b\r\r", [("message", "a", ""), ("message", "b", "")]),
    ("CR LF", b"data: a\r\ndata: b\r\n\r\n", [("message", "a\nb", "")]),
    ("LF CR is two line ends", b"data: a\n\rdata: b\n\n", [("message", "a", ""), ("message", "b", "")]),
    ("one leading space is removed", b"data:  a\n\ndata:b\n\n", [("message", " a", ""), ("message", "b", "")]),
    ("empty data lines", b"data\n\ndata\ndata\n\ndata:\n", [("message", "", ""), ("message", "\n", "")]),
    ("no data, no event", b"event: x\n\ndata: a\n\n", [("message", "a", "")]),
    ("type", b"event: add\ndata: 1\n\n", [("add", "1", "")]),
    ("empty type", b"event: x\nevent:\ndata: 1\n\n", [("message", "1", "")]),
    ("id persists", b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n",
     [("message", "a", "1"), ("message", "b", "1"), ("message", "c", "")]),
    ("id without data", b"id: 9\n\ndata: a\n\n", [("message", "a", "9")]),
    ("id with NUL is ignored", b"id: 1\0\ndata: a\n\n", [("message", "a", "")]),
    ("unfinished event", b"data: a\n\ndata: b\n", [("message", "a", "")]),
    ("unknown field", b"datum: x\nDATA: y\n data: z\ndata: a\n\n", [("message", "a", "")]),
    ("colons in values", b"data: a:b: c\n\n", [("message", "a:b: c", "")]),
    ("BOM", b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
    ("only the first BOM", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    ("BOM inside", b"data: \xef\xbb\xbfa\n\n", [("message", "\ufeffa", "")]),
    ("bad UTF-8 is replaced", b"data: \xff\xe2\x82z\n\n", [("message", "\ufffd\ufffdz", "")]),
    ("other line breaks are text", "data: a\u2028b\u0085c\x0b\x0c\n\n".encode(),
     [("message", "a\u2028b\u0085c\x0b\x0c", "")]),
]


@pytest.mark.parametrize("text, expected", [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_events(text, expected):
    """Each input gives the events of the standard, fed in one piece and byte by byte."""
    assert messages(parse(text)) == expected
    assert messages(parse(*(text[i:i + 1] for i in range(len(text))))) == expected


def test_comments_and_retries_in_order():
    """Comments and retry times are reported in order; a retry that is not a number is ignored."""
    stream = parse(b": ping\n\nretry: 120\n\n:x\nretry: 1a\nretry:\nretry: -1\nretry: \xd9\xa1\ndata: a\n\n")
    assert stream.items[:3] == [Comment(" ping", 0), Retry(120, 0), Comment("x", 0)]
    assert stream.reconnection_time == 120
    assert stream.data == ["a"]


def test_event_at_the_carriage_return():
    """An event that ends with CR is dispatched at once, without waiting for an LF."""
    stream = parse(b"data: a\r\r")
    assert stream.data == ["a"]
    stream.feed(b"\ndata: b\n\n")
    assert stream.data == ["a", "b"]
