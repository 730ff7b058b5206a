"""Numbered wake-ups, and the proof that a stream got each of them: once, in order, none missing.

tpi-stream(7), STREAM FORMAT: nothing published after a sync was sent on a stream may be missing from it,
in order, once, unless another sync follows. A publication counts as made after the sync when it began
after the sync was read here.
"""

import bisect
import json
import os
import time

import fcgi
from timing import eventually

SYNC = '{"event":"sync"}'


class Ledger:
    """Publishes on channels of one Valkey, and remembers when each publication began."""

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
        """The time of the last sync of a stream, and the numbers of each channel behind it."""
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
        """Whether the stream has got the last publication of each channel, or has no need of it."""
        synced, numbers = self.last_segment(peer)
        return all(self._last(numbers, channel) == self.count(channel)
                   or self._required(channel, synced) > self.count(channel) for channel in channels)

    def _required(self, channel, synced):
        """The first number that a stream synced at that time must have got."""
        return bisect.bisect_right(self._began.get(channel, ()), synced) + 1

    @staticmethod
    def _last(numbers, channel):
        return numbers[channel][-1] if numbers.get(channel) else 0

    def check_once(self, peer, channels, **named):
        """check(), for a stream that had no reason for a second sync: that one would excuse a gap."""
        assert [event.data for event in peer.events.events].count(SYNC) <= 1, "a second sync"
        self.check(peer, channels, **named)

    def check(self, peer, channels, whole=True, gapless=True):
        """Asserts it for an open stream whose channels have fallen silent. whole=False: for one that
        was cut off somewhere, where the end may be missing. gapless=False: the sync that follows a
        gap may be missing, too; then only order and repetition are looked at."""
        before = {}
        for event in peer.events.events:
            if event.type == "message" and event.data != SYNC:
                content = json.loads(event.data)
                channel, n = content["channel"], content["n"]
                assert channel in channels, f"{channel} is none of {channels}"
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
    """What a process holds now."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def wait_released(pid, before, timeout=10):
    """Waits until a process holds no more than before."""
    eventually(lambda: all(now <= then for now, then in zip(descriptors_and_threads(pid), before)),
               timeout, f"no more descriptors and threads than {before}")
