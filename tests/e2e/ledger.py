# SPDX-License-Identifier: ISC
"""Publishes numbered wake-ups and checks that a stream received each of them, once and in order.

tpi-stream(7), STREAM FORMAT: a stream carries everything that was published after its last sync. A
publication counts as made after a sync if it began after the test read that sync.
"""

import bisect
import json
import os
import time

import fcgi
from timing import eventually

SYNC = '{"event":"sync"}'


class Ledger:
    """Publishes on the channels of one Valkey and records when each publication began."""

    def __init__(self, publish):
        self._publish = publish  # publish(channel, payload), as of servers.Valkey
        self._began = {}  # channel: times of publications 1, 2, 3, ...

    def publish(self, channel, filler=""):
        began = self._began.setdefault(channel, [])
        began.append(time.monotonic())
        payload = {"event": "numbered", "channel": channel, "n": len(began)}
        if filler:
            payload["filler"] = filler
        return self._publish(channel, json.dumps(payload))

    def count(self, channel):
        return len(self._began.get(channel, ()))

    def last_segment(self, peer):
        """The time of a stream's last sync, and the numbers received after it, by channel."""
        synced, numbers = None, {}
        for event in peer.events.events:
            if event.type != "message":
                continue
            if event.data == SYNC:
                synced, numbers = event.time, {}
            else:
                content = json.loads(event.data)
                numbers.setdefault(content["channel"], []).append(content["n"])
        return synced, numbers

    def complete(self, peer, channels):
        """Whether the stream has the last publication of each channel, or synced after it."""
        synced, numbers = self.last_segment(peer)
        return all(self._last(numbers, channel) == self.count(channel)
                   or self._required(channel, synced) > self.count(channel) for channel in channels)

    def _required(self, channel, synced):
        """The first number that a stream with a sync at that time must have received."""
        return bisect.bisect_right(self._began.get(channel, ()), synced) + 1

    @staticmethod
    def _last(numbers, channel):
        return numbers[channel][-1] if numbers.get(channel) else 0

    def check_once(self, peer, channels, **named):
        """check() for a stream that must have one sync only: a second one would hide a gap."""
        assert [event.data for event in peer.events.events].count(SYNC) <= 1, "a second sync"
        self.check(peer, channels, **named)

    def check(self, peer, channels, whole=True, gapless=True):
        """Checks a stream after the last publication. whole=False: the stream was closed early, so the last
        publications may be missing. gapless=False: it may also have been closed between a gap and the sync
        that follows; then only order and duplicates are checked."""
        before = {}
        for event in peer.events.events:
            if event.type == "message" and event.data != SYNC:
                content = json.loads(event.data)
                channel, n = content["channel"], content["n"]
                assert channel in channels, f"{channel} is not one of {channels}"
                assert n > before.get(channel, 0), f"{channel}: {n} after {before[channel]}"
                before[channel] = n
        if not gapless:
            return
        synced, numbers = self.last_segment(peer)
        assert synced is not None, "no sync"
        for channel in channels:
            got = numbers.get(channel, [])
            required = self._required(channel, synced)
            if got:
                assert got[0] <= required, f"{channel}: {required} to {got[0] - 1} are missing"
                assert got == list(range(got[0], got[0] + len(got))), f"{channel}: gaps in {got}"
            if whole:
                assert self._last(numbers, channel) == self.count(channel) or \
                    required > self.count(channel), \
                    f"{channel}: {self._last(numbers, channel)} of {self.count(channel)}"

    def settle(self, streams, timeout=20):
        """Waits until each stream of {peer: channels} is complete, then checks all of them."""
        fcgi.wait_all(list(streams), lambda peer: self.complete(peer, streams[peer]), timeout,
                      "the last wake-up")
        for peer, channels in streams.items():
            self.check_once(peer, channels)


def descriptors_and_threads(pid):
    """The numbers of descriptors and threads of a process. The daemon's descriptors are visible to root alone."""
    return len(os.listdir(f"/proc/{pid}/fd")) if os.geteuid() == 0 else 0, len(os.listdir(f"/proc/{pid}/task"))


# tpi-streamd keeps up to 8 socket pairs, through which it reads the heads of later requests.
KEPT_DESCRIPTORS = 16


def wait_released(pid, before, timeout=10):
    """Waits until tpi-streamd has no more descriptors and threads than before."""
    most = before[0] + KEPT_DESCRIPTORS, before[1]
    eventually(lambda: all(now <= then for now, then in zip(descriptors_and_threads(pid), most)),
               timeout, f"no more descriptors and threads than {before}")
