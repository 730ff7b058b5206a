# SPDX-License-Identifier: ISC
"""A misbehaving peer loses its own connection and affects nothing else."""

import os
import random
import socket
import struct
import threading
import time

import pytest

import fcgi
from answers import after_first, check_answer, check_ended, check_first, check_later
from fcgi import (ABORT, BEGIN, DATA, GET_VALUES, GET_VALUES_RESULT, KEEP_CONN, PARAMS, STDIN, STDOUT,
                  UNKNOWN_TYPE, Peer, begin, cut_records, lengths, pair, pairs_of, params, record,
                  request)
from ledger import descriptors_and_threads, wait_released
from servers import user_channel
from timing import eventually, scaled

HEAD_MAX = 65536
GOOD = pairs_of(params())
VALUES = record(GET_VALUES, pair("FCGI_MPXS_CONNS", ""), id=0)
MPXS = {"FCGI_MPXS_CONNS": "0"}


@pytest.fixture(scope="module")
def daemon(module_streamd):
    return module_streamd(SSE_PER_USER_CAP=10000, TPI_REQUEST_TIMEOUT_MS=20000)


@pytest.fixture(scope="module")
def hasty(module_streamd):
    """A daemon that waits half a second for a complete request."""
    return module_streamd(SSE_PER_USER_CAP=10000, TPI_REQUEST_TIMEOUT_MS=500)


def check_good(daemon):
    """Checks that the daemon answers a valid request at once."""
    started = time.monotonic()
    daemon.stream().close()
    assert time.monotonic() - started < scaled(1)


def head(content, **named):
    return begin() + cut_records(PARAMS, content, **named) + record(STDIN)


def params_of_size(size):
    """PARAMS content of exactly this size that asks for a stream."""
    pad = pair("X", "x" * 60000)
    rest = size - len(GOOD) - len(pad)
    return GOOD + pad + pair("Y", "y" * (rest - 9), wide=True)


# Unusual but legal

LEGAL = {
    "byte by byte": (head(GOOD), 1),
    "in threes": (head(GOOD), 3),
    "one-byte records": (head(GOOD, cut=1), None),
    "one-byte records, padded": (head(GOOD, cut=1, padding=255), None),
    "padded": (head(GOOD, padding=7), None),
    "padded, byte by byte": (begin() + cut_records(PARAMS, GOOD, cut=100, padding=3) + record(STDIN), 1),
    "wide lengths": (head(b"".join(pair(n, v, wide=True) for n, v in params())), None),
    "empty values": (head(GOOD + pair("A", "") * 50), None),
    "flags": (begin(flags=255) + cut_records(PARAMS, GOOD) + record(STDIN), None),
    "reserved bytes": (record(BEGIN, b"\0\1\0rubbi") + cut_records(PARAMS, GOOD) + record(STDIN), None),
    "STDIN with content": (request(params(), stdin=b"x" * 100000), None),
    "GET_VALUES first": (VALUES + head(GOOD), None),
    "10000 parameters": (head(GOOD + pair("A", "") * 10000), None),
    "a head of 64 KiB": (head(params_of_size(HEAD_MAX)), None),
    "a head of 64 KiB, cut": (head(params_of_size(HEAD_MAX), cut=1000, padding=255), None),
    "longest record": (head(params_of_size(65535), cut=65535), None),
}


@pytest.mark.parametrize("data, step", LEGAL.values(), ids=LEGAL)
def test_legal_head(daemon, data, step):
    """A legal head gets its stream, however it is split and padded."""
    with Peer(daemon.address) as peer:
        step = step or len(data)
        for position in range(0, len(data), step):
            peer.send(data[position:position + step])
        check_first(peer.wait_live())


# Illegal

BAD_LENGTHS = {
    "lengths whose sum overflows": struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF),
    "lengths whose sum overflows to a small number": struct.pack(">II", 0xFFFFFFFF, 0x80000002) + b"ab",
    "a name of 2 GiB": struct.pack(">II", 0xFFFFFFFF, 0x80000000),
    "a value of 2 GiB": struct.pack(">II", 0x80000000, 0xFFFFFFFF),
    "a name longer than the rest": b"\x20\x00abc",
    "a value longer than the rest": b"\x01\x7fabc",
    "wide lengths longer than the rest": lengths(1000, 1000, wide=True) + b"abc",
    "no value length": b"\x01",
    "half a name length": b"\x80\x00",
    "half a value length": b"\x01\x80\x00\x00",
    "one byte short": pair("NAME", "value")[:-1],
}
BAD = {
    **{f"bad lengths: {name}": head(content) for name, content in BAD_LENGTHS.items()},
    **{f"bad lengths after valid parameters: {name}": head(GOOD + content) for name, content in BAD_LENGTHS.items()},
    **{f"bad lengths before valid parameters: {name}": head(content + GOOD) for name, content in BAD_LENGTHS.items()
       if name in ("lengths whose sum overflows", "a name of 2 GiB", "a value of 2 GiB")},
    "version 0": record(BEGIN, b"\0\1\0\0\0\0\0\0", version=0),
    "version 2": record(BEGIN, b"\0\1\0\0\0\0\0\0", version=2),
    "version 2 in PARAMS": begin() + record(PARAMS, GOOD, version=2),
    "version 255": b"\xff" * 64,
    "HTTP": b"GET /api/notifications/stream HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100,
    "zeros": bytes(64),
    "short BEGIN": record(BEGIN, b"\0\1\0"),
    "empty BEGIN": record(BEGIN, b""),
    "BEGIN with id 0": begin(id=0) + cut_records(PARAMS, GOOD, id=0) + record(STDIN, id=0),
    "BEGIN twice": begin() + begin() + cut_records(PARAMS, GOOD) + record(STDIN),
    "a head of 64 KiB and a byte": head(params_of_size(HEAD_MAX + 1)),
    "a head of 64 KiB and a byte, cut": head(params_of_size(HEAD_MAX + 1), cut=1000, padding=200),
    "20000 parameters": head(GOOD + pair("AB", "") * 20000),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_bad_head(daemon, data):
    """The connection of a malformed head is closed at once without a stream, and the next peer is served."""
    with Peer(daemon.address) as peer:
        peer.send_or_closed(data)
        peer.wait_end()
        assert peer.status is None or peer.status >= 400, peer
        check_good(daemon)


def test_head_limit_is_logged(streamd):
    """A head over 64 KiB is logged with the limit."""
    daemon = streamd()
    Peer(daemon.address, head(params_of_size(HEAD_MAX + 1))).wait_end()
    daemon.wait_for_log("64 KiB|65536")


def test_endless_params(daemon):
    """The connection of a peer that sends endless PARAMS is closed after 64 KiB."""
    with Peer(daemon.address, begin()) as peer:
        sent = 0
        piece = record(PARAMS, pair("X", "x" * 60000))
        while sent < 200 << 20 and peer.send_or_closed(piece):
            sent += len(piece)
        peer.wait_end()
        assert sent < 2 << 20
        check_good(daemon)


@pytest.mark.parametrize("cut", range(0, len(head(GOOD)), 7))
def test_truncated_head(daemon, cut):
    """A peer that closes in the middle of its head does no harm."""
    Peer(daemon.address, head(GOOD)[:cut]).close()


def test_bad_peers_are_logged_at_most_once_a_second(streamd):
    """Malformed heads are logged at most once a second."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow")
    started = time.monotonic()
    mark = daemon.mark()
    for _ in range(100):
        Peer(daemon.address, bytes(64)).wait_end()
    daemon.wait_for_log("FastCGI", start=mark)
    elapsed = time.monotonic() - started
    lines = daemon.matching("FastCGI", start=mark)
    assert 1 <= len(lines) <= elapsed + 1, lines


# Silent peers

def test_silent_peer(hasty):
    """A connection on which nothing arrives is closed after TPI_REQUEST_TIMEOUT_MS."""
    with Peer(hasty.address) as peer:
        peer.wait_end()
        assert 0.4 < peer.closed_at - peer.opened < scaled(2)


@pytest.mark.parametrize("data", [begin(), head(GOOD)[:-8], head(GOOD)[:20], VALUES, head(GOOD)[:3],
                                  cut_records(PARAMS, GOOD) + record(STDIN)],
                         ids=["BEGIN", "no end", "part", "values", "part of a header", "no BEGIN"])
def test_incomplete_request(hasty, data):
    """A connection whose request stays incomplete is closed after TPI_REQUEST_TIMEOUT_MS."""
    with Peer(hasty.address, data) as peer:
        peer.wait_end()
        assert peer.status is None
        assert 0.4 < peer.closed_at - peer.opened < scaled(2)


def test_slow_sender(hasty):
    """TPI_REQUEST_TIMEOUT_MS limits the whole request: a peer that keeps sending single bytes does not extend it."""
    data = head(GOOD, cut=1)
    with Peer(hasty.address) as peer:
        for position in range(len(data)):
            if not peer.send_or_closed(data[position:position + 1]):
                break
            if peer.quiet(0.05).closed:
                break
        peer.wait_end()
        assert 0.4 < peer.closed_at - peer.opened < scaled(2)


def test_get_values_does_not_extend_the_timeout(hasty):
    """GET_VALUES records do not extend TPI_REQUEST_TIMEOUT_MS."""
    with Peer(hasty.address) as peer:
        while not peer.quiet(0.05).closed and peer.send_or_closed(VALUES):
            pass
        peer.wait_end()
        assert 0.4 < peer.closed_at - peer.opened < scaled(2)


def test_500_silent_peers(daemon):
    """500 silent connections do not delay other requests."""
    peers = [Peer(daemon.address) for _ in range(500)]
    for _ in range(20):
        check_good(daemon)
    for peer in peers:
        peer.close()


def test_unread_replies(hasty):
    """A peer that sends GET_VALUES and never reads is closed at the timeout and does not delay other requests."""
    with Peer(hasty.address, rcvbuf=4096) as peer:
        peer.socket.settimeout(scaled(5))
        try:
            for _ in range(100000):
                peer.socket.sendall(VALUES * 10)
        except (BrokenPipeError, ConnectionResetError, TimeoutError) as error:
            assert not isinstance(error, TimeoutError), "not closed"
        check_good(hasty)


# Management records and request ids

def values(content):
    found = {}
    while content:
        name, value = content[0], content[1]
        found[content[2:2 + name].decode()] = content[2 + name:2 + name + value].decode()
        content = content[2 + name + value:]
    return found


@pytest.mark.parametrize("names, expected", [
    (["FCGI_MPXS_CONNS"], MPXS), (["FCGI_MPXS_CONNS", "FCGI_UNHEARD_OF"], MPXS),
    (["FCGI_UNHEARD_OF"], {}), ([], {})], ids=["one", "and an unknown", "unknown", "none"])
def test_get_values(daemon, names, expected):
    """The reply to GET_VALUES has FCGI_MPXS_CONNS=0 and no unknown names; a request may follow."""
    query = record(GET_VALUES, pairs_of([(name, "") for name in names]), id=0)
    with Peer(daemon.address, query) as peer:
        peer.wait(lambda p: p.management, what="a reply")
        kind, content = peer.management[0]
        assert kind == GET_VALUES_RESULT
        found = values(content)
        assert {name: found[name] for name in expected} == expected
        assert set(found) <= {"FCGI_MPXS_CONNS", "FCGI_MAX_CONNS", "FCGI_MAX_REQS"} & set(names)
        peer.send(head(GOOD))
        check_first(peer.wait_live())


def test_get_values_during_a_stream(daemon):
    """GET_VALUES during a stream is answered between complete records and does not disturb the stream."""
    with daemon.stream() as peer:
        peer.send(VALUES)
        peer.wait(lambda p: p.management, what="a reply")
        assert values(peer.management[0][1]) == MPXS
        assert after_first(peer) == b"" and not peer.closed


def is_counted(daemon, series):
    """Whether the metric has become 1."""
    page = daemon.ask(SCRIPT_NAME="/api/streams/metrics", TPI_USER=None)
    return f"tpi_stream_{series} 1\n".encode() in page.body


@pytest.mark.parametrize("status, series, changes", [
    (404, 'refused_total{reason="path"}', {"SCRIPT_NAME": "/x"}),
    (401, 'refused_total{reason="anonymous"}', {"TPI_USER": None}),
    (200, 'deferred_total{reason="valkey_unreachable"}', {})], ids=["404", "401", "later"])
def test_response_after_unread_replies(streamd, status, series, changes):
    """A response is sent after replies that the peer has not read yet, not dropped."""
    daemon = streamd(TPI_STATUS="on", VALKEY_URL="redis://127.0.0.1:1")
    daemon.wait_for_log("Valkey|valkey")
    queries = 1500  # more replies than a Unix socket takes, fewer than a backlog
    with Peer(daemon.address, VALUES * queries + request(params(**changes))) as peer:
        eventually(lambda: is_counted(daemon, series), what=series)
        peer.wait_end()
        assert len(peer.management) == queries
        if status == 200:
            check_later(peer)
        else:
            check_answer(peer, status)


@pytest.mark.parametrize("kind", [0, 12, 100, 255])
def test_unknown_type(daemon, kind):
    """A management record of an unknown type gets FCGI_UNKNOWN_TYPE with that type; a request may follow."""
    with Peer(daemon.address, record(kind, b"whatever", id=0, padding=3)) as peer:
        peer.wait(lambda p: p.management, what="a reply")
        reply, content = peer.management[0]
        assert reply == UNKNOWN_TYPE and content[0] == kind and content[1:] == bytes(7)
        peer.send(head(GOOD))
        check_first(peer.wait_live())


def test_second_request(daemon):
    """A second request id, in the head or during the stream, gets FCGI_CANT_MPX_CONN; the first request goes on."""
    for early in True, False:
        second = request(params("u2"), id=2)
        data = begin() + (begin(id=2) if early else b"") + cut_records(PARAMS, GOOD) + record(STDIN)
        with Peer(daemon.address, data) as peer:
            check_first(peer.wait_live())
            if not early:
                peer.send(second)
            peer.wait(lambda p: 2 in p.ends, what="END_REQUEST of the second")
            assert peer.ends == {2: (0, fcgi.CANT_MPX_CONN)}
            assert not peer.quiet(0.1).closed and after_first(peer) == b""


def test_second_request_of_the_same_id(daemon, valkey):
    """A second BEGIN with the same request id does not start a second stream."""
    with daemon.stream("same") as peer:
        peer.send_or_closed(begin())
        peer.quiet(0.2)
        assert after_first(peer) == b""
    valkey.wait_subscribers(user_channel("same"), 0)


@pytest.mark.parametrize("kind", [STDIN, DATA, PARAMS, STDOUT])
def test_stray_data_after_the_head(daemon, kind):
    """Data after a complete request does not affect other streams or the daemon."""
    with daemon.stream() as other, daemon.stream("stray") as peer:
        for _ in range(50):
            if not peer.send_or_closed(record(kind, b"x" * 5000)):
                break
        peer.quiet(0.1)
        assert after_first(peer) == b""
        assert not other.quiet(0).closed
        check_good(daemon)


def test_garbage_after_the_head(daemon, valkey):
    """Bytes after the head that are not a record end at most their own stream."""
    with daemon.stream("garbage") as peer:
        peer.send_or_closed(os.urandom(100000))
        peer.quiet(0.2)
        check_good(daemon)
    valkey.wait_subscribers(user_channel("garbage"), 0)


# Ended by the web server

@pytest.mark.parametrize("flags", [0, KEEP_CONN])
def test_abort(daemon, valkey, flags):
    """FCGI_ABORT_REQUEST ends an idle stream within a second, with END_REQUEST."""
    with Peer(daemon.address, request(params("abort"), flags=flags)) as peer:
        peer.wait_live()
        started = time.monotonic()
        peer.send(record(ABORT))
        check_ended(peer.wait_end())
        assert peer.closed_at - started < scaled(1)
        assert after_first(peer) == b""
    valkey.wait_subscribers(user_channel("abort"), 0, 1)


@pytest.mark.parametrize("data", [begin() + record(ABORT),
                                  begin() + record(PARAMS, GOOD) + record(ABORT),
                                  begin() + cut_records(PARAMS, GOOD) + record(ABORT)],
                         ids=["after BEGIN", "in PARAMS", "before STDIN"])
def test_abort_in_the_head(daemon, data):
    """FCGI_ABORT_REQUEST in the head ends the request."""
    with Peer(daemon.address, data) as peer:
        peer.wait_end()
        assert peer.status is None
        assert peer.ends in ({}, {1: (0, fcgi.COMPLETE)})
        assert peer.closed_at - peer.opened < scaled(1)


def test_abort_of_another_id(daemon):
    """FCGI_ABORT_REQUEST for another request id is ignored."""
    with daemon.stream() as peer:
        peer.send(record(ABORT, id=7))
        assert not peer.quiet(0.3).closed


@pytest.mark.parametrize("how", ["close", "half"])
def test_close(daemon, valkey, how):
    """When the web server closes its connection, even for writing only, an idle stream ends within a second."""
    peer = daemon.stream("leaver")
    assert valkey.subscribers(user_channel("leaver")) == 1
    if how == "half":
        peer.socket.shutdown(socket.SHUT_WR)
    else:
        peer.close()
    valkey.wait_subscribers(user_channel("leaver"), 0, 1)
    if how == "half":
        peer.wait_end()


def test_close_while_subscribing(streamd, new_valkey):
    """A peer that closes before Valkey confirms the subscription leaves no slot reserved and no channel subscribed."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_PER_TENANT_CAP=1)
    daemon.stream("x").close()
    valkey.pause()
    with daemon.open("leaver") as peer:
        peer.quiet(0.2)
    valkey.resume()
    eventually(lambda: daemon.open("other").wait(lambda p: p.closed or fcgi.live(p)).events.data,
               what="the only slot")
    valkey.wait_subscribers(user_channel("leaver"), 0)


def test_many_come_and_go(daemon, valkey):
    """Streams that open and close from several threads leave no channel subscribed and no descriptor open."""
    eventually(lambda: valkey.subscribers(user_channel("u1")) == 0, what="a quiet start")
    before = descriptors_and_threads(daemon.pid)
    failures = []

    def come_and_go(user):
        try:
            for number in range(100):
                peer = daemon.open(user)
                if number % 3:
                    peer.wait_live()
                peer.close()
        except Exception as error:  # noqa: BLE001 - reported by the main thread
            failures.append(error)
    threads = [threading.Thread(target=come_and_go, args=(f"u{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for number in range(4):
        valkey.wait_subscribers(user_channel(f"u{number}"), 0)
    wait_released(daemon.pid, before)


def test_noise(daemon):
    """Random bytes, and valid heads with random bytes changed, cost at most their own connection."""
    rng = random.Random(7)
    good = request(params(), cut=50, padding=3)
    peers = []
    for number in range(300):
        if number % 3 == 0:
            data = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300)))
        else:
            data = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        peer = Peer(daemon.address)
        peer.send_or_closed(bytes(data))
        peers.append(peer)
    check_good(daemon)
    for peer in peers:
        peer.close()
    assert daemon.alive
