"""The responses of tpi-stream(7), byte for byte; shared by the tests."""

import json
import re

import fcgi

STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
SYNC = b'data: {"event":"sync"}\n\n'
PING = b": ping\n"
SHUTDOWN = b"event: shutdown\ndata: {}\n\n"
FIRST = re.compile(rb'data: \{"event":"sync"\}\nretry: (\d+)\n\n')
EVICTED = re.compile(rb"retry: (\d+)\nid: evicted\nevent: evicted\ndata: \{\}\n\n")
RETURNED = re.compile(rb'id\ndata: \{"event":"sync"\}\nretry: (\d+)\n\n')
LATER = re.compile(rb"retry: (\d+)\n\n")


def frame(payload):
    """The bytes of a wake-up of one line."""
    payload = payload if isinstance(payload, bytes) else payload.encode()
    return b"data: " + payload + b"\n\n"


def notification(id):
    return f'{{"id":"{id}","event":"notification"}}'


def issue(number, project=7):
    return f'{{"event":"issue-updated","issueId":{number},"projectId":{project}}}'


def plain_headers(peer):
    """The headers but Status, lower case; none twice."""
    names = [name.lower() for name, _ in peer.headers]
    assert len(names) == len(set(names)), f"a header twice: {peer.headers}"
    return {name.lower(): value for name, value in peer.headers if name.lower() != "status"}


def check_ended(peer):
    """STDOUT and END_REQUEST were complete, and the connection closed."""
    assert peer.closed and not peer.reset, peer
    assert peer.ends == {peer.id: (0, fcgi.COMPLETE)}, peer
    assert not peer.stderr


def check_stream_head(peer):
    assert peer.status == 200, peer
    assert plain_headers(peer) == STREAM_HEADERS


def check_answer(peer, status, method="GET"):
    """A complete answer that is no stream. One to HEAD has the headers of one to GET, and no body."""
    check_ended(peer)
    assert peer.status == status, peer
    headers = plain_headers(peer)
    assert headers.pop("cache-control") == "no-store"
    if method == "HEAD":
        assert not peer.body
    else:
        content = json.loads(peer.body)
        assert set(content) == {"error"} and content["error"] and isinstance(content["error"], str)
    assert headers.pop("content-type").split(";")[0] == "application/json"
    if "content-length" in headers:
        assert int(headers.pop("content-length")) == len(peer.body)
    expected = {405: {"allow": "GET"}, 503: {"retry-after": "30"}}.get(status, {})
    assert headers == expected


def check_later(peer, shortest=10000, longest=30000):
    """The stream's 200 and headers, a retry time, no sync, and the end."""
    check_ended(peer)
    check_stream_head(peer)
    found = LATER.fullmatch(peer.body)
    assert found, peer
    assert shortest <= int(found[1]) <= longest


def check_still_evicted(peer):
    """The answer to an evicted stream that comes back and finds no free slot: retry later, in minutes."""
    check_later(peer, 120000, 300000)


def check_first(peer):
    """The bytes that open a stream; returns the retry time."""
    check_stream_head(peer)
    found = FIRST.match(peer.body)
    assert found, peer
    assert 1000 <= int(found[1]) <= 5000
    return int(found[1])


def check_returned(peer):
    """The bytes that open the stream of an evicted one that comes back: the browser forgets that it was."""
    check_stream_head(peer)
    found = RETURNED.match(peer.body)
    assert found, peer
    assert 1000 <= int(found[1]) <= 5000
    assert peer.events.last_event_id == ""


def syncs(peer):
    """How many sync events have come, the first included."""
    return peer.events.data.count('{"event":"sync"}')


def after_first(peer):
    """What came behind the first sync and its retry."""
    return bytes(peer.body[FIRST.match(peer.body).end():])


def check_evicted(peer):
    """Ended by the cap, with the bytes that keep the browser away."""
    check_ended(peer)
    found = EVICTED.search(peer.body)
    assert found and found.end() == len(peer.body), peer
    assert 120000 <= int(found[1]) <= 300000
