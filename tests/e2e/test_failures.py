# SPDX-License-Identifier: ISC
"""Failures and overload: of Valkey and the network, by slow readers and hostile peers, of the clock and the system's
resources."""

import json
import os
import random
import socket
import statistics
import threading
import time

import pytest

import fcgi
from answers import check_answer, check_evicted, check_first, check_later, notification, syncs
from faults import Faults
from fcgi import live, params, request, wait_all
from fronts import Apache
from ledger import Ledger, descriptors_and_threads, wait_released
from relay import Relay
from servers import basic, broadcast_channel, http, processor_time, project_channel, user_channel
from timing import eventually, scaled


def close_all(peers):
    for peer in peers:
        peer.close()


# Valkey

@pytest.mark.slow
def test_fifteen_restarts(streamd, new_valkey):
    """After 15 restarts of Valkey the streams are still open and subscribed, and no descriptor or thread has leaked."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=100)
    peers = {daemon.stream(f"u{i}", projects="7,8"): [project_channel(7), project_channel(8)] for i in range(10)}
    before = descriptors_and_threads(daemon.pid)
    for round in range(15):
        mark = daemon.mark()
        valkey.restart()
        daemon.wait_for_log(r"^\[valkey\] connected", start=mark)
    ledger = Ledger(valkey.publish)

    def recovered():
        for peer in peers:
            peer.pump()
        return valkey.subscribers(project_channel(7)) == 1 and all(syncs(peer) > 1 for peer in peers)
    eventually(recovered, 20, "subscriptions, and a sync for each stream")
    assert max(syncs(peer) for peer in peers) <= 16, "more than one sync for each loss"
    ledger.publish(project_channel(7))
    ledger.publish(project_channel(8))
    wait_all(list(peers), lambda p: ledger.complete(p, peers[p]), 10, "both wake-ups")
    wait_released(daemon.pid, before)
    for peer in peers:
        assert not peer.closed
        peer.close()


@pytest.mark.slow
def test_silent_connection(streamd, valkey, rundir):
    """The daemon notices a silent connection to Valkey within 15 s, and replaces it as soon as it can."""
    relay = Relay(rundir, valkey.address)
    daemon = streamd(VALKEY_URL=relay.url, SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        started = time.monotonic()
        relay.mute()
        daemon.wait_for_log(r'^\[valkey\] unreachable .*"lost":"no data', timeout=20)
        assert time.monotonic() - started < 15 + scaled(3)
        check_later(daemon.ask("bob"))
        relay.unmute()
        peer.wait(lambda p: syncs(p) == 2, 15, "the sync")
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
    relay.close()


def test_address_without_response(streamd):
    """If Valkey's address does not respond to a connect, clients are deferred, at once after the first
    attempt, and the exit is not delayed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # the queue is full: further SYNs are dropped
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        daemon = streamd(VALKEY_URL="valkey://127.0.0.1:%d" % listener.getsockname()[1])
        started = time.monotonic()
        check_later(daemon.ask())
        assert time.monotonic() - started < scaled(4)
        started = time.monotonic()
        check_later(daemon.ask())
        assert time.monotonic() - started < scaled(1)
        assert daemon.stop() < scaled(2)
        for filler in fillers:
            filler.close()


def test_output_buffer_limit(streamd, new_valkey):
    """When Valkey closes the connection because of its output buffer limit, the daemon reconnects, and streams get a
    sync."""
    valkey = new_valkey(config=["--client-output-buffer-limit", "pubsub", "300kb", "0", "0"]).start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        # More than the limit in one transaction: Valkey sends nothing before its end.
        valkey("MULTI")
        for number in range(100):
            valkey("PUBLISH", user_channel("ann"), '{"event":"x","filler":"%s"}' % ("x" * 10000))
        valkey("EXEC")
        peer.wait(lambda p: syncs(p) >= 2, 15, "the sync")
        daemon.wait_for_log(r'^\[valkey\] connected .*"lost":')
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))


def test_slow_network_to_valkey(streamd, valkey, rundir):
    """While a burst of subscriptions is slow to reach Valkey, open streams get their wake-ups without delay."""
    relay = Relay(rundir, valkey.address)
    daemon = streamd(VALKEY_URL=relay.url, TPI_PROJECT_ACCESS="allow")
    with daemon.stream("ann") as peer:
        relay.rate = 400000
        joining = [daemon.open(f"u{i}", projects=",".join(str(1000 * i + n) for n in range(1, 501)))
                   for i in range(1, 31)]
        times = []
        for number in range(20):
            started = time.monotonic()
            valkey.publish(user_channel("ann"), notification(number))
            peer.wait_data(notification(number))
            times.append(time.monotonic() - started)
        relay.rate = None
        wait_all(joining, live, 20, "streams")
        assert max(times) < scaled(0.5), times
    close_all(joining)
    relay.close()


def test_sync_after_all_are_subscribed(streamd, new_valkey, rundir):
    """After a loss a stream gets one sync, and not before its last channel is subscribed again."""
    valkey = new_valkey().start()
    relay = Relay(rundir, valkey.address)
    daemon = streamd(VALKEY_URL=relay.url, TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=0)
    peers = [daemon.stream(f"u{i}", projects=",".join(map(str, range(1, 501)))) for i in range(3)]
    relay.rate = 40000  # 1000 subscriptions take two seconds
    valkey("CLIENT", "KILL", "TYPE", "pubsub")
    wait_all(peers, lambda p: syncs(p) == 2, 15, "the sync")
    assert len(valkey("PUBSUB", "CHANNELS", "issue*:project:*")) == 1000
    for peer in peers:
        assert syncs(peer.quiet(0.3)) == 2
        peer.close()
    relay.close()


def test_huge_payload(streamd, new_valkey):
    """The daemon does not buffer a payload of 60 MB: its memory stays below that, and streams get a sync instead."""
    # Without Valkey's own limit, by which it would close the connection before the daemon has read 16 MiB.
    valkey = new_valkey(config=["--client-output-buffer-limit", "pubsub", "0", "0", "0"]).start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        valkey.publish(user_channel("ann"), b"x" * (60 << 20))
        peer.wait(lambda p: syncs(p) == 2, 15, "the sync")
        if "TPI_SANITIZED" not in os.environ:
            with open(f"/proc/{daemon.pid}/status", encoding="ascii") as file:
                assert next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) < 60 << 10
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))


@pytest.mark.slow
def test_user_without_ping(streamd, new_valkey):
    """With an ACL user without +ping the daemon keeps its connection: the error reply shows that Valkey is reachable."""
    valkey = new_valkey(tcp=True).start()
    valkey("ACL", "SETUSER", "limited", "on", ">pw", "allchannels", "+subscribe", "+unsubscribe", "+role")
    daemon = streamd(VALKEY_URL=f"valkey://limited:pw@127.0.0.1:{valkey.port}")
    with daemon.stream("ann") as peer:
        eventually(lambda: b"cmdstat_ping:" in valkey("INFO", "commandstats"), 10, "a refused PING")
        with daemon.stream("bob"):
            peer.quiet(0)
            assert syncs(peer) == 1 and not daemon.matching("lost|refused")


@pytest.mark.slow
def test_reload_evicts_no_live_tab(streamd, rundir):
    """Through Apache, a page that is reloaded ten times evicts none of the user's three other streams."""
    daemon = streamd(args=["--mode", "0666"], SSE_PER_USER_CAP=4)
    apache = Apache(rundir, daemon.address)

    def tab():
        return http(apache.address, fcgi.NOTIFICATIONS, Authorization=basic("ann", "ann")).wait_live(20)
    tabs = [tab() for _ in range(3)]
    for _ in range(10):
        reloaded = tab()
        started = time.monotonic()
        while time.monotonic() - started < 0.3:  # a person who presses the key again and again
            for peer in tabs:
                peer.quiet(0.01)
        reloaded.close()
    last = tab()
    # An eviction would come 600 ms after the last new stream.
    last.quiet(1.5)
    for peer in [*tabs, last]:
        peer.quiet(0)
        assert not peer.closed and b"evicted" not in peer.body
        peer.close()
    apache.stop()


# Readers

@pytest.mark.slow
def test_hundreds_of_stuck_readers(streamd, valkey):
    """300 readers on the same channel that read nothing do not delay the others, and the daemon's memory stays
    bounded."""
    daemon = streamd(SSE_PER_USER_CAP=10000, SSE_BACKLOG_BYTES=16384)
    good = [daemon.stream(f"good{i}") for i in range(20)]
    ledger = Ledger(valkey.publish)
    channel = broadcast_channel()

    def latency(rounds):
        times = []
        for _ in range(rounds):
            started = time.monotonic()
            ledger.publish(channel, "x" * 2000)
            last = b'"n": %d,' % ledger.count(channel)
            # Only the end of the body: the cost of a check must not grow with what was received before.
            wait_all(good, lambda p, last=last: last in p.body[-2200:] and p.body.endswith(b"\n\n"), 10, "the wake-up")
            times.append(time.monotonic() - started)
        return statistics.median(times)

    def memory():
        with open(f"/proc/{daemon.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    alone = latency(100)
    stuck = daemon.streams(300, "stuck")
    for _ in range(120):  # until their sockets are full, and their backlogs, too
        latency(1)
    daemon.wait_for_log("slow reader")
    full = memory()
    with_stuck = latency(100)
    print(f"median {alone * 1000:.1f} ms alone, {with_stuck * 1000:.1f} ms with them")
    assert with_stuck < 5 * alone + scaled(0.05), f"{alone} alone, {with_stuck} with them"
    if "TPI_SANITIZED" not in os.environ:  # the sanitizers need memory of their own
        assert memory() < full + 4096
    for peer in good:
        ledger.check(peer, [channel])
    for peer in stuck:
        peer.quiet(0)
        ledger.check(peer, [channel], whole=False, gapless=False)
        peer.close()


# Peers

def test_many_parameters(streamd):
    """A request with 20000 parameters in 64 KiB is served, and uses nothing beyond its connection."""
    daemon = streamd()
    before = descriptors_and_threads(daemon.pid)
    noise = b"".join(fcgi.pair(b"a", b"") for _ in range(20000))
    with fcgi.Peer(daemon.address, request(fcgi.pairs_of(params()) + noise)) as peer:
        check_first(peer.wait_live())
    with fcgi.Peer(daemon.address, request(noise)) as peer:
        check_answer(peer.wait_end(), 404)
    wait_released(daemon.pid, before)


def test_abort_at_every_moment(streamd):
    """Wherever in a request an FCGI_ABORT_REQUEST arrives, its connection ends, the next one is served, and no descriptor
    or thread leaks."""
    daemon = streamd(TPI_REQUEST_TIMEOUT_MS=500)
    before = descriptors_and_threads(daemon.pid)
    whole = request(params())
    peers = []
    for cut in range(0, len(whole) + 1, 3):
        peers.append(fcgi.Peer(daemon.address, whole[:cut] + fcgi.record(fcgi.ABORT)))
    wait_all(peers, lambda p: p.closed, 10, "the end")
    daemon.stream("next").close()
    for peer in peers:
        peer.close()
    wait_released(daemon.pid, before)


def attack(address, ended):
    """Opens hostile connections of every kind, and keeps up to 500 of them, until the event is set."""
    chance = random.Random(3)
    whole = request(params("hostile"))
    held = []
    while not ended.is_set():
        kind = chance.randrange(6)
        data = [b"", whole[:chance.randrange(len(whole))], bytes(chance.randbytes(200)),
                fcgi.begin() + fcgi.record(fcgi.PARAMS, b"\xff\xff\xff\xff" * 2),
                whole + fcgi.record(fcgi.ABORT), whole + chance.randbytes(100)][kind]
        try:
            peer = fcgi.Peer(address, data)
        except OSError:
            continue
        held.append(peer)
        if len(held) > 500:
            held.pop(chance.randrange(len(held))).close()
    close_all(held)


@pytest.mark.slow
def test_hostile_peers(streamd, valkey):
    """Hostile peers, up to 500 at a time, and readers that read nothing do not delay another user's streams and
    wake-ups by more than a second."""
    daemon = streamd(TPI_REQUEST_TIMEOUT_MS=2000, SSE_BACKLOG_BYTES=16384, SSE_PER_TENANT_CAP=10000,
                     SSE_PER_USER_CAP=10000)
    stuck = daemon.streams(50, "stuck")
    slow = "TPI_SANITIZED" in os.environ  # with sanitizers threads start slowly
    limit = scaled(5 if slow else 1)
    ended = threading.Event()
    thread = threading.Thread(target=attack, args=(daemon.address, ended))
    thread.start()
    opens, events = [], []
    try:
        for number in range(20 if slow else 300):
            valkey.publish(user_channel("stuck"), '{"event":"x","filler":"%s"}' % ("x" * 8000))
            started = time.monotonic()
            with daemon.stream("good") as peer:
                opens.append(time.monotonic() - started)
                started = time.monotonic()
                valkey.publish(user_channel("good"), notification(number))
                peer.wait_data(notification(number))
                events.append(time.monotonic() - started)
            assert opens[-1] < limit and events[-1] < limit
    finally:
        ended.set()
        thread.join()
    print(f"open: median {statistics.median(opens):.4f} s, longest {max(opens):.4f} s; "
          f"wake-up: median {statistics.median(events):.4f} s, longest {max(events):.4f} s")
    close_all(stuck)


# The clock and resources

@pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the functions themselves")
def test_clock_set_back(streamd, rundir, valkey):
    """When the wall clock is set back by an hour, heartbeats and evictions keep their times; only the timestamps of the
    metrics change."""
    faults = Faults(rundir)
    daemon = streamd(**faults.environment, SSE_HEARTBEAT_MS=200, SSE_METRICS_MS=200, SSE_PER_USER_CAP=1)
    with daemon.stream("ann") as peer:
        before = daemon.wait_for_log("sse.connections.active", stream="stdout")
        faults.set_clock_back(3600)
        start = daemon.mark("stdout")
        pings = len(peer.events.comments)
        peer.wait(lambda p: len(p.events.comments) >= pings + 3, 5, "pings")
        after = daemon.wait_for_log("sse.connections.active", stream="stdout", start=start, count=2)
        assert json.loads(after)["ts"] < json.loads(before)["ts"]
        with daemon.stream("ann"):
            peer.wait_end(5)
            check_evicted(peer)


@pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the functions themselves")
@pytest.mark.parametrize("function", ["pthread_create", "accept4", "sendmsg", "calloc"])
def test_out_of(streamd, rundir, function):
    """Without threads, descriptors or memory, clients are deferred or refused, with about one log line a
    second; open streams stay open, and new ones are served as soon as the resource is back."""
    faults = Faults(rundir)
    daemon = streamd(**faults.environment)
    with daemon.stream("old") as old:
        mark = daemon.mark()
        faults.arm(function, repeated=10**9)
        started = time.monotonic()
        for _ in range(50):
            with fcgi.Peer(daemon.address) as peer:
                peer.send_or_closed(request(params("new")))
                if function == "accept4":  # connections stay in the listen queue
                    continue
                peer.wait(lambda p: p.closed, 2, "the end")
                if peer.body or function == "sendmsg":  # with sendmsg a response is always possible
                    check_later(peer)
        if function == "accept4":
            before = processor_time(daemon)
            time.sleep(1)
            assert processor_time(daemon) - before < 0.3, "busy loop"
        daemon.wait_for_log("cannot|refused", start=mark)
        lines = daemon.lines["stderr"][mark:]
        assert 1 <= len(lines) <= 2 * (time.monotonic() - started + 1), lines
        faults.disarm()
        with daemon.stream("new"):
            pass
        assert not old.closed
    assert daemon.stop() < scaled(2), "the drain waits for connections that do not exist"
