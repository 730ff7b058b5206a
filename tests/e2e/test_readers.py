# SPDX-License-Identifier: ISC
"""Slow readers do not delay other streams, and their own streams stay intact."""

import re
import select
import statistics
import time

import pytest

from answers import FIRST, SHUTDOWN, after_first, check_ended, check_first, frame, notification
from fcgi import wait_all
from servers import free_port, user_channel
from timing import eventually, scaled

OVERFLOW = "(?i)slow reader"  # the warning
SLOW = 4096  # a small receive buffer, so that the kernel holds little


def big(number, size=1000):
    return f'{{"id":"{number}","event":"notification","x":"{"x" * size}"}}'


def wait_gone(peer, timeout=10):
    """Waits until the daemon closes, without reading."""
    poller = select.poll()
    poller.register(peer, select.POLLRDHUP)
    assert poller.poll(scaled(timeout) * 1000), "not closed in time"


def flood(daemon, valkey):
    """Publishes to ann until a backlog overflows, no faster than the daemon reads; returns the number of wake-ups."""
    sent = 0
    with daemon.stream("pacer") as pacer:
        while not daemon.matching(OVERFLOW):
            valkey.publish_all(user_channel("ann"), [big(number) for number in range(sent, sent + 50)])
            sent += 50
            valkey.publish(user_channel("pacer"), notification(sent))
            pacer.wait_data(notification(sent))
            assert sent < 100000, "no overflow"
    return sent


def numbers(peer):
    """The events after the first sync as their numbers, None for a sync."""
    return [None if data == '{"event":"sync"}' else int(re.match(r'{"id":"(\d+)"', data)[1])
            for data in peer.events.data[1:]]


def test_others_are_not_delayed(streamd, valkey):
    """Readers that do not read do not delay another one on the same channel."""
    daemon = streamd(SSE_PER_USER_CAP=10000, SSE_BACKLOG_BYTES=16384)
    stuck = [daemon.stream("ann", rcvbuf=SLOW) for _ in range(20)]
    good = daemon.stream("ann")
    times = []
    for number in range(600):
        payload = big(number)
        started = time.monotonic()
        valkey.publish(user_channel("ann"), payload)
        good.wait_data(payload)
        times.append(time.monotonic() - started)
    daemon.wait_for_log(OVERFLOW)
    assert numbers(good) == list(range(600))
    assert statistics.median(times) < scaled(0.1)
    assert max(times) < scaled(2)
    for peer in stuck:
        peer.close()


def on_tcp():
    """Arguments for TCP: a full TCP socket takes part of a record, a Unix socket all or nothing."""
    port = free_port()
    return {"args": ["--listen", f"127.0.0.1:{port}"], "address": ("127.0.0.1", port)}


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("backlog", [16384, 262144])
def test_overflow(streamd, valkey, backlog, tcp):
    """A slow reader gets complete events in order, with one sync instead of what was dropped."""
    daemon = streamd(SSE_BACKLOG_BYTES=backlog, **(on_tcp() if tcp else {}))
    peer = daemon.stream("ann", rcvbuf=SLOW)
    sent = flood(daemon, valkey)
    valkey.publish(user_channel("ann"), big(sent))
    size = -1
    while len(peer.body) > size:  # until nothing arrives for a while
        size = len(peer.body)
        peer.quiet(0.5)
    got = numbers(peer)
    assert None in got
    last = -1
    synced = False
    for number in got:
        if number is None:
            assert not synced, "two syncs in a row"
            synced = True
            continue
        assert number > last, "out of order or twice"
        assert number == last + 1 or synced, f"{last} to {number} without a sync"
        last, synced = number, False
    assert synced or last == sent
    assert len(daemon.matching(OVERFLOW)) < 5 + scaled(5)
    valkey.publish(user_channel("ann"), notification("after"))
    peer.wait_data(notification("after"))


def test_stall(streamd, valkey):
    """A stream whose reader reads nothing for SSE_STALL_MS is closed and unsubscribed."""
    daemon = streamd(SSE_STALL_MS=1000, SSE_BACKLOG_BYTES=16384)
    peer = daemon.stream("ann", rcvbuf=SLOW)
    valkey.publish_all(user_channel("ann"), [big(number) for number in range(1000)])
    started = time.monotonic()
    wait_gone(peer)
    assert time.monotonic() - started > 0.8
    valkey.wait_subscribers(user_channel("ann"), 0)
    peer.wait_end()
    assert numbers(peer)[:5] == [0, 1, 2, 3, 4], "not complete events"


@pytest.mark.parametrize("pause", [None, 0.2])
def test_stall_without_a_backlog(streamd, valkey, pause):
    """SSE_STALL_MS also applies while everything fits in the kernel's buffer: to one unread event, and to events that
    keep arriving. The heartbeat is too far away to reveal it."""
    daemon = streamd(SSE_STALL_MS=1000, SSE_HEARTBEAT_MS=60000)
    peer = daemon.stream("ann")
    poller = select.poll()
    poller.register(peer, select.POLLRDHUP)
    peer.quiet(scaled(2.2))  # the sync has been read, and no check of it is due any more
    started = time.monotonic()
    valkey.publish(user_channel("ann"), notification(0))
    while not poller.poll(1000 * (pause or 0.05)):
        if pause:
            valkey.publish(user_channel("ann"), notification(1))
        assert time.monotonic() - started < scaled(3)
    assert time.monotonic() - started > 0.9


@pytest.mark.slow
def test_slow_reader_is_not_stalled(streamd, valkey):
    """A reader that reads a little now and then is not closed as stalled."""
    daemon = streamd(SSE_STALL_MS=1000, SSE_BACKLOG_BYTES=16384)
    peer = daemon.stream("ann", rcvbuf=SLOW)
    valkey.publish_all(user_channel("ann"), [big(number) for number in range(1000)])
    for position in range(40):
        data = peer.socket.recv(8000) if select.select([peer], [], [], 0.1)[0] else b""
        assert data or position > 20, "closed or silent"
        peer.parser.feed(data, time.monotonic())
        time.sleep(0.1)
    valkey.publish(user_channel("ann"), notification("end"))
    peer.wait_data(notification("end"))


@pytest.mark.slow
def test_behind_is_not_stalled(streamd, valkey):
    """A reader that is always one event behind is not closed as stalled."""
    daemon = streamd(SSE_STALL_MS=1000, SSE_HEARTBEAT_MS=60000)
    with daemon.stream("ann") as peer:
        size = 8 + len(frame(notification(100)))
        valkey.publish(user_channel("ann"), notification(100))
        for number in range(101, 130):
            valkey.publish(user_channel("ann"), notification(number))
            time.sleep(0.1)
            assert select.select([peer], [], [], scaled(5))[0], "nothing"
            assert len(peer.socket.recv(size)) == size, "closed"


def test_idle_is_not_stalled(streamd, valkey):
    """A stream on which nothing is sent is not closed as stalled."""
    daemon = streamd(SSE_STALL_MS=1000)
    with daemon.stream("ann") as peer:
        assert not peer.quiet(scaled(1.5)).closed
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))


def stuck_peers(daemon, valkey, count):
    """Streams of one user whose backlogs have overflowed."""
    peers = [daemon.stream("ann", rcvbuf=SLOW) for _ in range(count)]
    flood(daemon, valkey)
    valkey.publish_all(user_channel("ann"), [big(number) for number in range(200)])
    return peers


def test_evicted_but_not_reading(streamd, valkey):
    """An evicted stream whose reader does not read is closed after a second."""
    daemon = streamd(SSE_PER_USER_CAP=1, SSE_BACKLOG_BYTES=16384)
    peer, = stuck_peers(daemon, valkey, 1)
    started = time.monotonic()
    new_stream = daemon.stream("ann")
    wait_gone(peer, 5)
    assert time.monotonic() - started > 0.5
    assert not new_stream.quiet(0).closed


def test_drain_with_stalled_readers(streamd, valkey):
    """Readers that do not read do not delay the exit; the others get shutdown and END_REQUEST."""
    daemon = streamd(SSE_BACKLOG_BYTES=16384, SSE_PER_USER_CAP=100)
    stuck = stuck_peers(daemon, valkey, 20)
    good = [daemon.stream(f"u{number}") for number in range(20)]
    daemon.signal(15)
    started = time.monotonic()
    wait_all(good, lambda p: p.closed, what="shutdown and the end")
    for peer in good:
        check_ended(peer)
        assert after_first(peer) == SHUTDOWN
    assert daemon.wait() == 0
    assert time.monotonic() - started < scaled(5)
    for peer in stuck:
        check_first(peer.wait_end())
        complete = peer.body.rpartition(b"\n\n")[0] + b"\n\n"
        assert FIRST.match(complete), "not complete events, but for a last one that the exit truncated"


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_backlog_of_a_pausing_reader(streamd, valkey, tcp):
    """A reader that pauses while events fit in the backlog gets all of them in order, without a sync."""
    daemon = streamd(SSE_BACKLOG_BYTES=1048576, **(on_tcp() if tcp else {}))
    peer = daemon.stream("ann", rcvbuf=SLOW)
    sent = [big(number) for number in range(800)]
    valkey.publish_all(user_channel("ann"), sent)
    assert not daemon.matching(OVERFLOW)
    peer.wait_data(sent[-1], 20)
    assert after_first(peer) == b"".join(map(frame, sent))


def test_memory_is_bounded(streamd, valkey):
    """Wake-ups for readers that do not read do not grow the process."""
    daemon = streamd(SSE_BACKLOG_BYTES=16384, SSE_PER_USER_CAP=100)

    def resident():
        with open(f"/proc/{daemon.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096
    peers = stuck_peers(daemon, valkey, 50)
    before = resident()
    for _ in range(10):
        valkey.publish_all(user_channel("ann"), [big(number, 4000) for number in range(200)])
    eventually(lambda: resident() - before < 16 << 20, what="memory within 16 MiB")
    for peer in peers:
        peer.close()
