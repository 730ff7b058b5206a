# SPDX-License-Identifier: ISC
"""Bad days that take a while: of Valkey, of readers, of peers, of the machine (marked slow where they take
more than 3 s)."""

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
    """15 restarts in a row: the streams stay open, everything is subscribed again, and nothing has leaked."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=100)
    peers = {daemon.stream(f"u{i}", projects="7,8"): [project_channel(7), project_channel(8)] for i in range(10)}
    before = descriptors_and_threads(daemon.pid)
    for round in range(15):
        mark = daemon.mark()
        valkey.restart()
        daemon.wait_for_log(r"^\[valkey\] connected", start=mark)
    ledger = Ledger(valkey.publish)

    def again():
        for peer in peers:
            peer.pump()
        return valkey.subscribers(project_channel(7)) == 1 and all(syncs(peer) > 1 for peer in peers)
    eventually(again, 20, "subscribed again, and a sync for each stream")
    seen = max(syncs(peer) for peer in peers)
    assert seen <= 16
    ledger.publish(project_channel(7))
    ledger.publish(project_channel(8))
    wait_all(list(peers), lambda p: ledger.complete(p, peers[p]), 10, "both wake-ups")
    wait_released(daemon.pid, before)
    for peer in peers:
        assert not peer.closed
        peer.close()


@pytest.mark.slow
def test_mute_connection(streamd, valkey, rundir):
    """A connection on which nothing comes any more is found within 15 s, and replaced when that works again."""
    relay = Relay(rundir, valkey.address)
    daemon = streamd(VALKEY_URL=relay.url, SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        started = time.monotonic()
        relay.mute()
        daemon.wait_for_log(r'^\[valkey\] away .*"lost":"silent', timeout=20)
        assert time.monotonic() - started < 15 + scaled(3)
        check_later(daemon.ask("bob"))
        relay.unmute()
        peer.wait(lambda p: syncs(p) == 2, 15, "the sync")
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
    relay.close()


def test_address_that_swallows(streamd):
    """An address that answers no SYN: later at once after the first attempt, and the exit is not held up."""
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


def test_cut_off_in_a_flood(streamd, new_valkey):
    """Valkey cuts the daemon off by its output-buffer limit: open again, with a sync, and the streams go on."""
    valkey = new_valkey(config=["--client-output-buffer-limit", "pubsub", "300kb", "0", "0"]).start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        # More than the limit in one transaction: Valkey writes nothing out before its end.
        valkey("MULTI")
        for number in range(100):
            valkey("PUBLISH", user_channel("ann"), '{"event":"x","filler":"%s"}' % ("x" * 10000))
        valkey("EXEC")
        peer.wait(lambda p: syncs(p) >= 2, 15, "the sync")
        daemon.wait_for_log(r'^\[valkey\] connected .*"lost":')
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))


def test_slow_way_to_valkey(streamd, valkey, rundir):
    """A burst of subscriptions that Valkey's side takes slowly: whoever is subscribed already waits for nothing."""
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
    """The sync after a loss comes when the last of a stream's channels is subscribed again, and once."""
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
    """A payload of 60 MB is not kept: memory stays bounded, and the streams get a sync in its place."""
    # Without Valkey's own limit, which would cut the daemon off before it has seen 16 MiB.
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
    """Whose ACL has no +ping is served all the same: the refusal shows that Valkey is there, and costs nobody."""
    valkey = new_valkey().start()
    with open(f"{valkey.directory}/pw", "w", encoding="ascii") as file:
        file.write("pw\n")
    valkey("ACL", "SETUSER", "default", "on", "resetpass", ">pw", "-@all", "+subscribe", "+unsubscribe", "+role",
           "+auth")
    daemon = streamd(VALKEY_URL=valkey.url, VALKEY_PASSWORD_FILE=f"{valkey.directory}/pw")
    with daemon.stream("ann") as peer:
        peer.quiet(6.5)
        with daemon.stream("bob"):
            peer.quiet(0)
            assert syncs(peer) == 1 and not daemon.matching("lost|refused")


@pytest.mark.slow
def test_reload_evicts_no_live_tab(streamd, rundir):
    """Three live tabs and a fourth that is reloaded ten times, through Apache: none of the three is evicted."""
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
    # Whatever was to be evicted is, 600 ms after the last newcomer.
    eventually(lambda: time.monotonic() - last.opened > 1.5, 5)
    for peer in [*tabs, last]:
        peer.quiet(0)
        assert not peer.closed and b"evicted" not in peer.body
        peer.close()
    apache.stop()


# Readers

@pytest.mark.slow
def test_hundreds_of_stuck_readers(streamd, valkey):
    """300 readers that read nothing or next to nothing, on the same channel: the others' latency does not
    move, and memory stays bounded."""
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
            # What a look costs must not grow with what has come before.
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
    beside = latency(100)
    print(f"median {alone * 1000:.1f} ms alone, {beside * 1000:.1f} ms beside them")
    assert beside < 5 * alone + 0.02, f"{alone} alone, {beside} beside them"
    if "TPI_SANITIZED" not in os.environ:  # they keep books of their own
        assert memory() < full + 4096
    for peer in good:
        ledger.check(peer, [channel])
    for peer in stuck:
        peer.quiet(0)
        ledger.check(peer, [channel], whole=False, gapless=False)
        peer.close()


# Peers

def test_many_parameters(streamd):
    """20000 parameters in 64 KiB are no trouble, and cost no more than their connection."""
    daemon = streamd()
    before = descriptors_and_threads(daemon.pid)
    noise = b"".join(fcgi.pair(b"a", b"") for _ in range(20000))
    with fcgi.Peer(daemon.address, request(fcgi.pairs_of(params()) + noise)) as peer:
        check_first(peer.wait_live())
    with fcgi.Peer(daemon.address, request(noise)) as peer:
        check_answer(peer.wait_end(), 404)
    wait_released(daemon.pid, before)


def test_abort_at_every_moment(streamd):
    """An abort after every byte of a request: the connection ends, and the next one is served."""
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


def hostile(address, ended):
    """Peers of every bad kind, over and over, until the event is set."""
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
def test_healthy_beside_hostile(streamd, valkey):
    """500 connections of hostile peers, ever new ones, and readers that read nothing: whoever is healthy waits
    no longer than a moment for his stream and his wake-ups."""
    daemon = streamd(TPI_REQUEST_TIMEOUT_MS=2000, SSE_BACKLOG_BYTES=16384, SSE_PER_TENANT_CAP=10000,
                     SSE_PER_USER_CAP=10000)
    stuck = daemon.streams(50, "stuck")
    slow = "TPI_SANITIZED" in os.environ  # threads begin slowly there
    limit = scaled(5 if slow else 1)
    ended = threading.Event()
    thread = threading.Thread(target=hostile, args=(daemon.address, ended))
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


# The machine

@pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the functions themselves")
def test_clock_set_back(streamd, rundir, valkey):
    """The wall clock is set back by an hour: heartbeats, caps and wake-ups go on; only the metrics say so."""
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
@pytest.mark.parametrize("function", ["pthread_create", "accept4", "memfd_create", "calloc"])
def test_out_of(streamd, rundir, function):
    """No thread, descriptor or memory for a while: later, or a refused connection; open streams live on; one
    line a second at most; served again at once when they are back."""
    faults = Faults(rundir)
    daemon = streamd(**faults.environment)
    with daemon.stream("old") as old:
        mark = daemon.mark()
        faults.arm(function, repeated=10**9)
        started = time.monotonic()
        for _ in range(50):
            with fcgi.Peer(daemon.address) as peer:
                peer.send_or_closed(request(params("new")))
                if function == "accept4":  # the queue is left alone while there is no descriptor
                    continue
                peer.wait(lambda p: p.closed, 2, "the end")
                if peer.body or function == "memfd_create":  # here it can be said
                    check_later(peer)
        if function == "accept4":
            before = processor_time(daemon)
            time.sleep(1)
            assert processor_time(daemon) - before < 0.3, "it spins"
        daemon.wait_for_log("cannot|refused", start=mark)
        lines = daemon.lines["stderr"][mark:]
        assert 1 <= len(lines) <= 2 * (time.monotonic() - started + 1), lines
        faults.disarm()
        with daemon.stream("new"):
            pass
        assert not old.closed
    assert daemon.stop() < scaled(2), "it waits for connections that there are not"
