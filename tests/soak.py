#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Soak test: streams open, close, abort and stall while wake-ups are published and Valkey fails.

    tests/soak.py [--seconds 300] [--seed 1]

Uses the programs in $TPI_BUILD (default: _build). After each round of churn and faults the test waits until every
healthy stream has received every wake-up since its last sync, once and in order. At the end it compares descriptors,
threads, memory and Valkey's subscriptions with the start.
"""

import argparse
import collections
import json
import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "e2e"))
sys.dont_write_bytecode = True

import fcgi  # noqa: E402
import servers  # noqa: E402
from ledger import SYNC, Ledger, descriptors_and_threads, wait_released  # noqa: E402
from timing import eventually  # noqa: E402

# Bytes by which the heap may grow after the first round, in total and for each connection. Fragmentation makes it
# grow at first, at a falling rate; a leak would be larger for each connection.
GROWTH, GROWTH_EACH = 2 << 20, 40

BAD_PAYLOADS = ['{"event":"sync"}', '{"event":"s\\u0079nc"}', "{", "[]", '{"a":"\\u0000"}', "x" * 20000,
                b'{"event":"\xff"}', '{"event":"a"}{"event":"b"}', '{"a":' * 40 + "1" + "}" * 40]

def resident(pid):
    """Resident bytes of the heap, without the stacks of threads. 0 if not run as root, which alone can see them."""
    total, counts, rss = 0, False, 0
    if os.geteuid() != 0:
        return 0
    with open(f"/proc/{pid}/smaps", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                start, end = (int(word, 16) for word in words[0].split("-"))
                counts = "[heap]" in words or (len(words) == 5 and end - start > 128 << 10)
                rss = 0
            elif counts and words[0] == "Rss:":
                rss = int(words[1]) << 10
            elif words[0] == "VmFlags:" and "nh" not in words:  # "nh": the mappings of base/stacks.c
                total += rss
    return total


class Soak:
    USERS, PROJECTS = 60, 20
    ROUND = 8  # seconds of churn in a round
    PUBLISH = 25  # wake-ups published in a step, at most
    HEALTHY, STALLED, INCOMPLETE = 200, 20, 50  # open connections, at most
    UNREAD = 3000  # streams opened and closed without reading, in each round
    CALM = 1  # seconds; longer than SSE_SYNC_SPREAD_MS
    SETTINGS = {"TPI_PROJECT_ACCESS": "allow", "SSE_HEARTBEAT_MS": 1000, "SSE_STALL_MS": 3000,
                "SSE_BACKLOG_BYTES": 16384, "SSE_SYNC_SPREAD_MS": 300, "SSE_PER_USER_CAP": 20,
                "SSE_ISSUES_PER_USER_CAP": 20, "SSE_METRICS_MS": 1000, "TPI_REQUEST_TIMEOUT_MS": 1000,
                "TPI_USER_OPENS_PER_SECOND": 0}

    def __init__(self, directory, seed, **settings):
        self.chance = random.Random(seed)
        self.counts = collections.Counter()
        self.valkey = servers.Valkey(directory).start()
        self.daemon = servers.Streamd(directory, {"VALKEY_URL": self.valkey.url, **self.SETTINGS, **settings})
        self.before = descriptors_and_threads(self.daemon.pid)
        self.ledger = Ledger(self.try_publish)
        self.streams = {}  # healthy ones: their channels
        self.stalled = []
        self.heads = []  # connections with an incomplete request

    def try_publish(self, channel, payload):
        """Returns how many connections received it."""
        try:
            count = self.valkey.publish(channel, payload)
            self.counts["published"] += 1
            return count
        except (OSError, EOFError, servers.ValkeyError):
            self.valkey.forget_client()
            self.counts["not published"] += 1
            return 0

    # Steps

    def draw(self):
        """Random arguments of a request, and the channels that its stream subscribes to."""
        user = f"u{self.chance.randrange(self.USERS)}"
        if self.chance.random() < 0.5:
            return {"user": user}, [servers.user_channel(user), servers.broadcast_channel()]
        projects = self.chance.sample(range(1, self.PROJECTS + 1), self.chance.randint(1, 4))
        return ({"user": user, "projects": ",".join(map(str, projects))},
                [servers.project_channel(project) for project in projects])

    def open(self):
        if len(self.streams) >= self.HEALTHY:
            return
        named, channels = self.draw()
        self.streams[self.daemon.open(**named)] = channels
        self.counts["opened"] += 1

    def open_stalled(self):
        if len(self.stalled) < self.STALLED:
            named, _ = self.draw()
            self.stalled.append(self.daemon.open(**named))
            self.counts["stalled"] += 1

    def open_incomplete(self):
        named, _ = self.draw()
        whole = fcgi.request(fcgi.params(**named))
        peer = fcgi.Peer(self.daemon.address, whole[:self.chance.randrange(len(whole))])
        if len(self.heads) < self.INCOMPLETE and self.chance.random() < 0.5:
            self.heads.append(peer)
        else:
            peer.close()
        self.counts["incomplete heads"] += 1

    def close(self):
        if not self.streams:
            return
        peer = self.chance.choice(list(self.streams))
        if self.chance.random() < 0.3:
            peer.send_or_closed(fcgi.record(fcgi.ABORT))
        self.forget(peer)

    def open_and_close(self):
        """Opens and closes many streams, so that a leak in each becomes visible."""
        for _ in range(self.UNREAD):
            named, _ = self.draw()
            self.daemon.open(**named).close()
        self.counts["opened and closed"] += self.UNREAD

    def publish(self):
        for _ in range(self.chance.randint(1, self.PUBLISH)):
            _, channels = self.draw()
            self.ledger.publish(self.chance.choice(channels), "x" * self.chance.choice((0, 0, 0, 100, 5000)))

    def publish_bad(self):
        _, channels = self.draw()
        self.try_publish(self.chance.choice(channels), self.chance.choice(BAD_PAYLOADS))
        self.counts["bad payloads"] += 1

    # Faults. Each has ended when the function returns; streams get a sync after it.

    def restart_valkey(self):
        self.valkey.restart()

    def kill_subscribers(self):
        self.valkey("CLIENT", "KILL", "TYPE", "pubsub")

    def pause_valkey(self):
        self.valkey.pause()
        time.sleep(0.5)
        self.valkey.resume()

    # Rounds

    def forget(self, peer):
        self.ledger.check(peer, self.streams[peer], whole=False, gapless=False)
        self.counts["events read"] += len(peer.events.events)
        peer.close()
        del self.streams[peer]

    def read(self):
        for peer in list(self.streams):
            if not peer.closed:
                peer.pump()
            if peer.closed:
                self.check_end(peer)
                self.forget(peer)

    def check_end(self, peer):
        assert peer.status == 200, f"neither a stream nor \"retry later\": {peer!r}"

    def steps(self):
        """What happens in a round, as often as it is listed."""
        return [self.open] * 10 + [self.close] * 6 + [self.publish] * 10 + [
            self.publish_bad, self.open_stalled, self.open_incomplete]

    def fault(self):
        fault = self.chance.choice([self.restart_valkey, self.kill_subscribers, self.pause_valkey])
        fault()
        self.counts[fault.__name__] += 1

    def churn(self):
        steps = self.steps()
        until = time.monotonic() + self.ROUND
        fault_at = time.monotonic() + self.chance.uniform(0.1, 0.75) * self.ROUND
        while time.monotonic() < until:
            self.chance.choice(steps)()
            self.read()
            if time.monotonic() >= fault_at:
                fault_at = until
                self.fault()

    def settled(self):
        self.read()
        return all(fcgi.live(peer) and self.ledger.complete(peer, channels)
                   for peer, channels in self.streams.items())

    def calm(self):
        """Waits until every healthy stream is live and has received every wake-up, then checks all of them."""
        eventually(self.settled, 30, "every stream has every wake-up")
        # A sync that is still to come would hide a gap: wait longer than SSE_SYNC_SPREAD_MS first.
        until = time.monotonic() + self.CALM
        while time.monotonic() < until:
            self.read()
            time.sleep(0.01)
        for peer, channels in self.streams.items():
            self.ledger.check(peer, channels)
            self.counts["streams checked"] += 1

    def finish(self):
        for peer in [*self.streams, *self.stalled, *self.heads]:
            self.counts["syncs"] += sum(event.data == SYNC for event in peer.events.events)
            peer.close()
        wait_released(self.daemon.pid, self.before, 10)
        # Channels linger for five seconds. Those of revocations and of the check stay.
        eventually(lambda: len(self.valkey("PUBSUB", "CHANNELS")) == 2, 20,
                   "only the daemon's own two channels are left in Valkey")
        return resident(self.daemon.pid)

    def run(self, seconds):
        until = time.monotonic() + seconds
        warm = None
        while time.monotonic() < until:
            self.churn()
            self.open_and_close()
            self.calm()
            for peers in (self.stalled, self.heads):
                for peer in peers[:len(peers) // 2]:
                    peer.close()
                    peers.remove(peer)
            self.counts["rounds"] += 1
            warm = warm or resident(self.daemon.pid)
        memory = self.finish()
        print(json.dumps({**self.counts, "heap": [warm, memory]}))
        allowed = warm + GROWTH + GROWTH_EACH * (self.counts["opened"] + self.counts["opened and closed"])
        if "TPI_SANITIZED" not in os.environ:
            assert memory <= allowed, f"the heap grew from {warm} to {memory}, over {allowed} bytes"
        self.daemon.stop()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("--seconds", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    directory = servers.run_directory()
    try:
        Soak(directory, chosen.seed).run(chosen.seconds)
    except BaseException:
        for process in servers.Process.everything:
            for title, text in process.report():
                print(f"--- {title}\n{text[-4000:]}", file=sys.stderr)
        raise
    finally:
        for process in servers.Process.everything:
            process.kill()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
