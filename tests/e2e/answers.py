# SPDX-License-Identifier: ISC
"""The responses that tpi-stream(7) defines, byte for byte, and checks for them."""

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
    """The bytes of an event whose payload is one line."""
    payload = payload if isinstance(payload, bytes) else payload.encode()
    return b"data: " + payload + b"\n\n"


def notification(id):
    return f'{{"id":"{id}","event":"notification"}}'


def issue(number, project=7):
    return f'{{"event":"issue-updated","issueId":{number},"projectId":{project}}}'


def plain_headers(peer):
    """The headers without Status, with names in lower case; no header may occur twice."""
    names = [name.lower() for name, _ in peer.headers]
    assert len(names) == len(set(names)), f"a header twice: {peer.headers}"
    return {name.lower(): value for name, value in peer.headers if name.lower() != "status"}


def check_ended(peer):
    """STDOUT and END_REQUEST were complete, and the connection closed."""
    assert peer.closed and not peer.reset, peer
    assert peer.ends == {peer.id: (0, fcgi.COMPLETE)}, peer
    assert not peer.stderr


def cors(origin):
    """The headers of every response to a page of an origin in TPI_ALLOWED_ORIGINS."""
    return {"access-control-allow-origin": origin, "access-control-allow-credentials": "true"} if origin else {}


def check_stream_head(peer, origin=None):
    assert peer.status == 200, peer
    assert plain_headers(peer) == {**STREAM_HEADERS, **cors(origin)}


def check_answer(peer, status, method="GET", origin=None):
    """A complete response that is not a stream. A response to HEAD has the headers of GET and no body."""
    check_ended(peer)
    assert peer.status == status, peer
    headers = plain_headers(peer)
    for name, value in cors(origin).items():
        assert headers.pop(name, None) == value
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
    """A "retry later" response: status and headers of a stream, a retry time, no sync, end of stream."""
    check_ended(peer)
    check_stream_head(peer)
    found = LATER.fullmatch(peer.body)
    assert found, peer
    assert shortest <= int(found[1]) <= longest


def check_still_evicted(peer):
    """The response to an evicted stream that reconnects and finds no free slot: retry in minutes."""
    check_later(peer, 120000, 300000)


def check_first(peer):
    """Checks the first bytes of a stream; returns the retry time in milliseconds."""
    check_stream_head(peer)
    found = FIRST.match(peer.body)
    assert found, peer
    assert 1000 <= int(found[1]) <= 5000
    return int(found[1])


def check_returned(peer):
    """The first bytes of a stream that reconnects after eviction. They reset the browser's last event ID, which
    marked the stream as evicted."""
    check_stream_head(peer)
    found = RETURNED.match(peer.body)
    assert found, peer
    assert 1000 <= int(found[1]) <= 5000
    assert peer.events.last_event_id == ""


def syncs(peer):
    """The number of sync events received, including the first."""
    return peer.events.data.count('{"event":"sync"}')


def after_first(peer):
    """The bytes received after the first sync and its retry time."""
    return bytes(peer.body[FIRST.match(peer.body).end():])


def check_evicted(peer):
    """The stream ended with the eviction event, whose retry time delays the browser's reconnect."""
    check_ended(peer)
    found = EVICTED.search(peer.body)
    assert found and found.end() == len(peer.body), peer
    assert 120000 <= int(found[1]) <= 300000
