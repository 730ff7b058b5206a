# SPDX-License-Identifier: ISC
"""Abuse budgets: one attacker process does one thing as fast as it can; nobody else notices.

Meanwhile an honest stream receives a wake-up every 10 ms, and honest users open streams. Each attack is a function in
attacker.py and a row of ATTACKS here. At the end there is a table of what was measured. TPI_ABUSE_SECONDS is how long
each attack takes (default: 4).
"""

import math
import os
import select
import shutil
import subprocess
import sys
import time

import fcgi
import pytest
import servers
from servers import project_channel
from timing import SCALE

import attacker

pytestmark = pytest.mark.abuse

SECONDS = float(os.environ.get("TPI_ABUSE_SECONDS", "4"))
EVERY = 0.01  # seconds between wake-ups to the honest stream
OPEN_EVERY = 0.2  # seconds between honest opens
OPEN_LIMIT = 5 * SCALE  # seconds an honest open may take

# The budgets.
DELAY = 0.05 * SCALE  # p99, seconds
GROWTH = 64 << 20  # bytes
LINES = 100  # log lines a second
RECOVERY = 2 * SCALE  # seconds

ATTACKS = ["nothing", "project_streams", "same_projects", "own_streams", "anonymous", "made_up_cookies", "aborted_heads",
           "bad_requests", "revocations", "to_nobody", "oversized", "not_json"]
BY_APPLICATION = ["made_up_cookies"]  # the application knows the users, and is slow
SLOW = "0.02", "8"  # seconds for each of its answers, and how many at a time: 400 a second
USERS = 20  # honest users
SETTINGS = {"TPI_PROJECT_ACCESS": "allow"}
HEADINGS = ("attack", "per s", "p50 ms", "p99 ms", "max ms", "opens", "failed", "MiB", "lines/s", "recovery s", "syncs")
table = []


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS:"))


class Honest:
    """An honest stream with its wake-ups, and honest opens one after the other. One thread, which never blocks long."""

    def __init__(self, daemon, valkey):
        self.daemon = daemon
        self.publisher = servers.ValkeyClient(valkey.address)
        self.stream = self.request("honest", attacker.VICTIM).wait_live()
        for number in range(USERS):  # from here on they are known
            self.request(f"user{number}", 500).wait_live().close()
        self.seen = len(self.stream.events.items)
        self.sent = 0  # number of wake-ups
        self.missing = {}  # number of the wake-up: when it was sent
        self.delays = []  # (when it was sent, delay) of the others
        self.last = -1  # the last one that arrived
        self.opens = self.failed = self.syncs = 0
        self.opening = None  # (peer, time) of the open in progress
        self.next_wakeup = self.next_open = time.monotonic()

    def request(self, user, project):
        return self.daemon.open(user, project, HTTP_COOKIE=f"session={user}")

    def close(self):
        self.stream.close()
        self.publisher.close()
        if self.opening:
            self.opening[0].close()

    def publish(self, now):
        self.publisher.send("PUBLISH", project_channel(attacker.VICTIM), '{"event":"n%d"}' % self.sent)
        self.missing[self.sent] = now
        self.sent += 1
        self.next_wakeup = max(self.next_wakeup + EVERY, now - 1)

    def receive(self):
        self.stream.pump()
        items = self.stream.events.items
        for item in items[self.seen:]:
            data = getattr(item, "data", "")
            if "sync" in data:  # makes up for whatever is missing
                self.syncs += 1
                self.missing, late = {}, self.missing
                self.delays += [(sent, item.time - sent) for sent in late.values()]
            elif data:
                number = int(data[11:-2])
                assert number > self.last, "a wake-up came twice, or out of order"
                self.last = number
                if sent := self.missing.pop(number, None):
                    self.delays.append((sent, item.time - sent))
        self.seen = len(items)

    def open(self, now):
        self.opens += 1
        self.next_open = now + OPEN_EVERY
        self.opening = self.request(f"user{self.opens % USERS}", 500 + self.opens % 400), now

    def check_open(self, now):
        peer, since = self.opening
        peer.pump()
        if fcgi.live(peer):
            pass
        elif peer.ended or peer.eof or now - since > OPEN_LIMIT:
            self.failed += 1
        else:
            return
        peer.close()
        self.opening = None

    def run(self, until):
        """Goes on until the condition, of the time, is true."""
        while not until(now := time.monotonic()):
            while self.next_wakeup <= now:
                self.publish(now)
            if not self.opening and self.next_open <= now:
                self.open(now)
            peers = [self.stream, *([self.opening[0]] if self.opening else [])]
            ready = select.select([*(peer.socket for peer in peers), self.publisher.socket], [], [],
                                  max(0, self.next_wakeup - now))[0]
            if self.publisher.socket in ready:
                self.publisher.socket.recv(65536)  # replies
            if self.stream.socket in ready:
                self.receive()
            if self.opening:
                self.check_open(time.monotonic())

    def run_for(self, seconds):
        end = time.monotonic() + seconds
        self.run(lambda now: now >= end)


def percentile(values, part):
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)] if ordered else math.inf


def slow_application(directory):
    """Starts it; returns the process and the settings with which the daemon uses it."""
    path = os.path.join(directory, "application")
    process = subprocess.Popen(  # pylint: disable=consider-using-with
        [sys.executable, os.path.join(os.path.dirname(__file__), "slow_application.py"), path, *SLOW],
        stdout=subprocess.PIPE)
    process.stdout.readline()
    return process, {"TPI_IDENTITY": "app", "TPI_APP_URL": f"unix:{path}", "TPI_APP_CACHE_SECONDS": "0"}


@pytest.fixture(name="servers_")
def _servers(name):
    directory = servers.run_directory()
    application, settings = slow_application(directory) if name in BY_APPLICATION else (None, {})
    valkey = servers.Valkey(directory).start()
    daemon = servers.Streamd(directory, {"VALKEY_URL": valkey.url, **SETTINGS, **settings})
    yield daemon, valkey
    if application:
        application.kill()
        application.wait()
        application.stdout.close()
    try:
        if daemon.alive:
            daemon.stop()
    finally:
        daemon.kill()
        valkey.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _table():
    yield
    print("\n" + "".join(f"{name:>12}" for name in HEADINGS))
    for row in table:
        print("".join(f"{value:>12}" for value in row))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(servers_, name):
    """The attack delays nobody, makes no honest request fail, and costs a bounded amount of memory and log."""
    daemon, valkey = servers_
    honest = Honest(daemon, valkey)
    honest.run_for(0.5)
    before, lines, opens = resident(daemon.pid), daemon.mark(), honest.opens
    honest.delays.clear()
    with subprocess.Popen([sys.executable, attacker.__file__, name, daemon.address, valkey.path, str(SECONDS)],
                          stdout=subprocess.PIPE, text=True) as attack:
        most = before
        started = time.monotonic()
        while attack.poll() is None:
            assert time.monotonic() < started + SECONDS + 20 * SCALE, "the attacker does not end"
            honest.run_for(0.1)
            most = max(most, resident(daemon.pid))
        count = int(attack.stdout.read())
    stopped = time.monotonic()
    last = honest.sent
    logged = (daemon.mark() - lines) / SECONDS
    honest.run_for(1)
    honest.run(lambda now: min(honest.missing, default=last) >= last or now > stopped + 20 * SCALE)
    most = max(most, resident(daemon.pid))
    delays = [delay for sent, delay in honest.delays if sent < stopped]
    delays += [math.inf for sent in honest.missing.values() if sent < stopped]
    recovery = max([0, *(sent + delay - stopped for sent, delay in honest.delays if delay > DELAY)])
    p99 = percentile(delays, 0.99)
    table.append((name, f"{count / SECONDS:.0f}", f"{percentile(delays, 0.5) * 1000:.1f}", f"{p99 * 1000:.1f}",
                  f"{max(delays) * 1000:.1f}", honest.opens - opens, honest.failed, f"{(most - before) / (1 << 20):.1f}",
                  f"{logged:.0f}", f"{recovery:.1f}", honest.syncs))
    print(dict(zip(HEADINGS, table[-1])), *daemon.lines["stderr"][lines:][:20], sep="\n")  # shown if it fails
    honest.close()
    assert count > 0, "the attacker did nothing"
    assert p99 <= DELAY
    assert honest.failed == 0
    assert most - before <= GROWTH
    assert logged <= LINES
    assert recovery <= RECOVERY
