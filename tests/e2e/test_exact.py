# SPDX-License-Identifier: ISC
"""Under concurrency, caps are exact and no wake-up after a sync is missing or repeated."""

import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import fcgi
from answers import EVICTED, LATER, check_answer
from fcgi import live, params, request, wait_all
from ledger import Ledger, descriptors_and_threads, wait_released
from relay import Relay
from servers import ValkeyClient, broadcast_channel, project_channel, project_channels, user_channel
from timing import eventually
from topics import TOPICS


def burst(daemon, requests, workers=8):
    """Opens all streams at once from several threads; returns the peers in order."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda named: daemon.open(**named), requests))


def decided(peer):
    return live(peer) or peer.closed


def close_all(peers):
    for peer in peers:
        peer.close()


class Publisher:
    """Publishes on the channels in its own thread until it is stopped."""

    def __init__(self, address, channels, pause=0.001, filler=0):
        self.client = ValkeyClient(address)
        self.ledger = Ledger(lambda channel, payload: self.client("PUBLISH", channel, payload))
        self._channels, self._pause, self._filler = channels, pause, filler
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        chance = random.Random(1)
        while not self._stop.wait(self._pause):
            self.ledger.publish(chance.choice(self._channels), "x" * chance.randint(0, self._filler))

    def __enter__(self):
        self._thread.start()
        return self.ledger

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("kind", [{}, {"projects": "7"}], ids=["notifications", "issues"])
def test_tenant_cap_in_a_burst(streamd, kind):
    """Of three times as many requests as the cap, exactly the cap get streams and all others 503, every time."""
    cap = 40
    daemon = streamd(SSE_PER_TENANT_CAP=cap, SSE_ISSUES_PER_TENANT_CAP=cap, TPI_PROJECT_ACCESS="allow")
    before = descriptors_and_threads(daemon.pid)
    for round in range(3):
        peers = burst(daemon, [{"user": f"u{i}", **kind} for i in range(3 * cap)])
        wait_all(peers, decided, 30, "stream or refusal")
        assert sum(map(live, peers)) == cap
        for peer in peers:
            if not live(peer):
                check_answer(peer, 503)
        close_all(peers)
        wait_released(daemon.pid, before)


def test_user_cap_in_a_burst(streamd, valkey):
    """Of three times as many streams as a user's cap, exactly the cap stay open and get wake-ups; the others are
    evicted or told to retry later."""
    daemon = streamd(SSE_PER_USER_CAP=4)
    peers = burst(daemon, [{"user": "burst"}] * 12)
    wait_all(peers, lambda p: p.closed or live(p), 30, "stream or end")
    eventually(lambda: [p.pump() for p in peers if not p.closed] and sum(not p.closed for p in peers) == 4,
               10, "four open streams")
    valkey.publish(user_channel("burst"), '{"id":"1","event":"x"}')
    remaining = [peer for peer in peers if not peer.closed]
    wait_all(remaining, lambda p: '{"id":"1","event":"x"}' in p.events.data, 10, "the wake-up")
    for peer in peers:
        if peer.closed:
            assert peer.ended and (EVICTED.search(peer.body) or LATER.fullmatch(peer.body))
        peer.close()


def only_stream(daemon):
    """Opens a stream as soon as the only slot is free again."""
    def attempt():
        peer = daemon.open("a").wait(decided, 10, "stream or refusal")
        return peer if live(peer) else peer.close()
    return eventually(attempt, 10, "a free slot")


def release_by_close(daemon, valkey):
    only_stream(daemon).close()


def release_by_abort(daemon, valkey):
    with only_stream(daemon) as peer:
        peer.send(fcgi.record(fcgi.ABORT))
        peer.wait_end(2)


def release_by_truncated_head(daemon, valkey):
    data = request(params("a"))
    for cut in range(1, len(data), 7):
        fcgi.Peer(daemon.address, data[:cut]).close()


def release_by_immediate_close(daemon, valkey):
    for _ in range(20):
        daemon.open("a").close()


numbers = itertools.count()


def release_by_failed_subscription(daemon, valkey):
    valkey.pause()
    try:
        daemon.ask(f"a{next(numbers)}", timeout=15)  # not one whose channel is subscribed already
    finally:
        valkey.resume()


PATHS = [release_by_close, release_by_abort, release_by_truncated_head, release_by_immediate_close,
         pytest.param(release_by_failed_subscription, marks=pytest.mark.slow)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_slot_is_released(streamd, new_valkey, path):
    """However a request ends, the next one gets the tenant's only slot."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_PER_TENANT_CAP=1)
    for _ in range(3):
        path(daemon, valkey)

        def opened():
            peer = daemon.open("b").wait(decided, 10, "stream or refusal")
            peer.close()
            return live(peer)
        eventually(opened, 15, "the slot is free again")


def test_distant_valkey(streamd, valkey, rundir):
    """With 30 ms of latency to Valkey, streams that leave and join the same channels during wake-ups miss nothing
    after their only sync."""
    relay = Relay(rundir, valkey.address, 0.03)
    daemon = streamd(VALKEY_URL=relay.url, TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=0)
    daemon.wait_for_log(r"^\[valkey\] connected")
    numbers = range(101, 107)
    chance = random.Random(7)
    pairs = {n: [] for n in numbers}

    def read(seconds):
        """Polls often, so that the time of each sync is accurate."""
        until = time.monotonic() + seconds
        while True:
            for peer in sum(pairs.values(), []):
                if not peer.closed:
                    peer.pump()
            if time.monotonic() >= until:
                break
            time.sleep(0.001)
    with Publisher(valkey.address, [project_channel(n) for n in numbers]) as ledger:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            n = chance.choice(numbers)
            for peer in pairs[n]:
                if live(peer):
                    ledger.check_once(peer, [project_channel(n)], whole=False)
                peer.close()
            pairs[n] = []
            read(chance.choice((0, 0.01, 0.05)))
            for i in range(2):
                pairs[n].append(daemon.open(f"d{n}.{i}", projects=str(n)))
                read(chance.choice((0, 0.01)))
        read(0.2)
    ledger.settle({peer: [project_channel(n)] for n, pair in pairs.items() for peer in pair})
    close_all(sum(pairs.values(), []))
    relay.close()


def test_every_topic(streamd, valkey):
    """Streams of every topic that are closed and opened again while wake-ups arrive on all channels miss nothing after
    their only sync, and get nothing from another topic's channels."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=0, SSE_PER_USER_CAP=100,
                     SSE_ISSUES_PER_USER_CAP=100, SSE_LIVE_PER_USER_CAP=100)
    users, ids = ("e1", "e2"), (501, 502)
    places = [(topic, user, id) for topic in TOPICS for user in users for id in ids]
    every = sorted({channel for topic, user, id in places for channel in topic.all_channels(id, user)})
    chance, streams = random.Random(11), {}

    def join(place):
        topic, user, id = place
        streams[place] = daemon.open(user, **topic.params(id))

    def channels(place):
        topic, user, id = place
        return topic.all_channels(id, user)
    with Publisher(valkey.address, every) as ledger:
        for place in places:
            join(place)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            place = chance.choice(places)
            if live(streams[place]):
                ledger.check_once(streams[place], channels(place), whole=False)
            streams[place].close()
            join(place)
            for peer in streams.values():
                peer.pump()
        wait_all(list(streams.values()), live, 20, "sync")
    ledger.settle({peer: channels(place) for place, peer in streams.items()})
    close_all(streams.values())


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_burst(streamd, valkey, topic):
    """A burst on the topic's channels reaches each of 50 streams once, in order, whole."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=0)
    peers = burst(daemon, [{"user": f"b{i}", **topic.params(601)} for i in range(50)])
    wait_all(peers, live, 20, "sync")
    channels = topic.all_channels(601, "b0")
    payloads = [(channels[n % len(channels)], topic.payload % n) for n in range(2000)]
    for channel in channels:
        valkey.publish_all(channel, [payload for to, payload in payloads if to == channel])
    expected = {channel: [payload for to, payload in payloads if to == channel] for channel in channels}
    for position, peer in enumerate(peers):
        mine = [payload for channel in channels if channel in topic.all_channels(601, f"b{position}")
                for payload in expected[channel]]
        peer.wait(lambda p: len(p.events.data) == 1 + len(mine), 20, "the burst")
        assert peer.events.data[1:] == mine
    close_all(peers)


def test_last_leaves_while_next_joins(streamd, valkey):
    """A stream that joins a project's channels while their last stream leaves misses nothing on any of them."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=0)
    channels = project_channels(201)
    ledger = Ledger(valkey.publish)
    old = daemon.stream("a", projects="201")
    for round in range(300):
        if round % 2:
            old.close()
            new = daemon.open("b", projects="201")
        else:
            new = daemon.open("b", projects="201")
            old.close()
        new.wait_live()
        for channel in channels:
            ledger.publish(channel)
        ledger.settle({new: channels})
        old = new
    old.close()


def test_many_join_the_same_channel(streamd, valkey):
    """Sixty users who join two busy projects at once miss nothing after their sync."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=0, SSE_BACKLOG_BYTES=1 << 24)
    channels = [*project_channels(301), *project_channels(302), broadcast_channel()]
    joined = {}
    with Publisher(valkey.address, channels, filler=2000) as ledger:
        for round in range(3):
            named = [{"user": f"m{round}.{i}", **({"projects": "301,302"} if i % 2 else {})} for i in range(20)]
            for peer, how in zip(burst(daemon, named), named):
                joined[peer] = channels[:4] if "projects" in how else channels[4:]
            wait_all(list(joined), live, 20, "sync")
    ledger.settle(joined)
    close_all(joined)


@pytest.mark.slow
def test_thousands_of_opens_and_closes(streamd, valkey):
    """Of 3000 streams on busy channels, 20 at a time, none misses a wake-up, and none leaves a descriptor, a thread
    or a subscription."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=0)
    before = descriptors_and_threads(daemon.pid)
    channels = [channel for n in range(401, 406) for channel in project_channels(n)]
    with Publisher(valkey.address, channels, pause=0.002) as ledger:
        for round in range(150):
            peers = {}
            for i in range(20):
                n = 401 + (round + i) % 5
                peers[daemon.open(f"t{i}", projects=str(n))] = project_channels(n)
            wait_all(list(peers), live, 20, "sync")
            for peer, joined in peers.items():
                peer.pump()
                ledger.check_once(peer, joined, whole=False)
                peer.close()
    wait_released(daemon.pid, before)
    eventually(lambda: not valkey("PUBSUB", "CHANNELS", "issue*:tenant:default:project:40*"), 10,
               "no subscription is left")
