#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Schedules: short soak runs (soak.py) in which the daemon's threads run in another order for each seed
(e2e/schedule.c).

    tests/schedules.py [COUNT] [FIRST]      COUNT seeds (20 by default), from FIRST (1 by default)

Uses the programs in $TPI_BUILD (default: _build). Runs two seeds at a time. For each seed that fails it prints the
reason, the output of the servers, and the command that repeats the seed. A seed repeats what the test does and where
the daemon's threads are delayed, but not the kernel's timing: a rare failure may need several runs of its seed.
The last line is "N passed, N failed".
"""

import argparse
import concurrent.futures
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import soak
import fcgi
import servers
from application import Application, by
from timing import eventually

REVOKE = "notifications:tenant:default:revoke"


class Short(soak.Soak):
    """One second of churn with few users, so that streams are evicted and revoked, too. With an odd seed the
    application decides who the user is and what they can read."""

    USERS, PROJECTS = 6, 5
    ROUND = 0.8
    PUBLISH = 10
    HEALTHY, STALLED, INCOMPLETE = 40, 2, 5
    UNREAD = 20
    CALM = 0.1
    CAP = 4
    SETTINGS = {**soak.Soak.SETTINGS, "SSE_HEARTBEAT_MS": 100, "SSE_SYNC_SPREAD_MS": 20, "SSE_PER_USER_CAP": CAP,
                "SSE_ISSUES_PER_USER_CAP": CAP, "TPI_REQUEST_TIMEOUT_MS": 500, "TPI_DRAIN_SECONDS": 2,
                "TPI_STATUS": "on"}

    def __init__(self, directory, seed, library):
        # The library comes before that of the address sanitizer, which then has to accept it.
        environment = {"LD_PRELOAD": library, "SCHEDULE_SEED": seed, "ASAN_OPTIONS": "verify_asan_link_order=0"}
        self.app = None
        if seed % 2:
            self.app = Application(os.path.join(directory, "app")).start()
            environment |= {"TPI_APP_URL": self.app.url, "TPI_IDENTITY": "app", "TPI_PROJECT_ACCESS": "app"}
            for number in range(self.USERS):
                self.sign_in(f"u{number}")
        self.owners = {}  # the user of each stream
        self.revoked = set()  # streams that have to end
        self.signed_out = set()  # users
        super().__init__(directory, seed, **environment)

    # Steps

    def sign_in(self, user):
        self.app.sign_in(f"SECRET-{user}", user, range(1, self.PROJECTS + 1))

    def arguments(self, named):
        return {**named, **by(f"SECRET-{named['user']}")} if self.app else named

    def open(self, user=None, **more):
        if len(self.streams) >= self.HEALTHY:
            return
        named, channels = self.draw()
        while user not in (None, named["user"]):
            named, channels = self.draw()
        peer = self.daemon.open(**self.arguments(named), **more)
        self.streams[peer], self.owners[peer] = channels, named["user"]
        if named["user"] in self.signed_out:
            self.revoked.add(peer)
        self.counts["opened"] += 1

    def open_returning(self):
        self.open(HTTP_LAST_EVENT_ID="evicted")

    def storm(self):
        """One user opens more streams at once than can be pending, and is revoked meanwhile."""
        user = f"u{self.chance.randrange(self.USERS)}"
        for _ in range(2 * self.CAP + 2):
            self.open(user)
            if self.chance.random() < 0.1:
                self.revoke(user)

    def revoke(self, user=None):
        """Signs a user out, if the application decides, and revokes their streams. Those that are open now have to
        end; with the application, those that are still opening and all later ones, too."""
        user = user or f"u{self.chance.randrange(self.USERS)}"
        concerned = {peer for peer in self.streams if self.owners[peer] == user and (self.app or fcgi.live(peer))}
        if self.app and user not in self.signed_out:
            self.app.sign_out(f"SECRET-{user}")
            self.signed_out.add(user)
        if self.try_publish(REVOKE, '{"event":"revoke","user":"%s"}' % user):
            self.revoked |= concerned
            self.counts["revoked"] += len(concerned)
        else:
            self.forgive()

    def restore(self):
        """Signs a user in again whose revoked streams have all ended."""
        for user in self.signed_out - {self.owners[peer] for peer in self.revoked}:
            self.sign_in(user)
            self.signed_out.discard(user)

    def forgive(self):
        """A revocation may not have reached the daemon."""
        self.revoked.clear()
        for user in self.signed_out:
            self.sign_in(user)
        self.signed_out.clear()

    def fault(self):
        if self.chance.random() < 0.5:
            self.forgive()
            super().fault()

    def steps(self):
        return super().steps() + [self.storm, self.revoke, self.restore, self.open_returning]

    # Checks

    def read(self):
        super().read()
        time.sleep(self.chance.choice((0, 0, 0.001, 0.003)))

    def check_end(self, peer):
        assert peer.status == 200 or (self.app and peer.status in (401, 404)), f"not an answer: {peer!r}"

    def forget(self, peer):
        assert b"Status:" not in peer.body, f"two answers: {peer!r}"
        super().forget(peer)
        self.revoked.discard(peer)

    def over(self):
        """The users who have more streams than the cap."""
        kinds = [(self.owners[peer], "notifications" in channels[0]) for peer, channels in self.streams.items()]
        return [kind for kind in kinds if kinds.count(kind) > self.CAP]

    def calm(self):
        def none_left(what):
            self.read()
            return not what()
        eventually(lambda: none_left(lambda: self.revoked), 10, "the revoked streams have ended")
        eventually(lambda: none_left(self.over), 10, "no user is over the cap")
        super().calm()

    def released(self):
        """Whether the open streams have a slot each, and no other slot is in use."""
        answer = self.daemon.ask(SCRIPT_NAME="/api/streams/metrics").body.decode()
        slots = re.findall(r"^tpi_stream_slots\{.*\} (\d+)$", answer, re.M)
        self.read()
        return slots and sum(map(int, slots)) == len(self.streams)

    def drain(self):
        """Ends the daemon while streams are open and others are opened."""
        live = list(self.streams)
        for _ in range(10):
            self.open()
        self.daemon.stop()
        for peer in self.streams:
            peer.wait_end()
        for peer in live:
            assert peer.ended and peer.events.events[-1].type in ("shutdown", "evicted"), f"no shutdown: {peer!r}"

    def run_once(self):
        self.churn()
        self.open_and_close()
        self.calm()
        live = list(self.streams)
        for peer in [*self.stalled, *self.heads, *live[::2]]:
            peer.close()
            self.streams.pop(peer, None)
        eventually(self.released, 10, "no slots but those of the open streams")
        self.drain()
        assert "ld.so" not in self.daemon.stderr, "the library was not loaded"
        if self.app:
            self.app.stop()


def run(seed, library):
    """Returns None, or the report of a failure."""
    directory = servers.run_directory()
    try:
        Short(directory, seed, library).run_once()
        return None
    except BaseException:
        report = [traceback.format_exc()]
        report += [f"--- {title}\n{text[-4000:]}" for process in servers.Process.everything
                   for title, text in process.report()]
        return "\n".join(report)
    finally:
        for process in servers.Process.everything:
            process.kill()
        servers.Process.everything.clear()
        shutil.rmtree(directory, ignore_errors=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("count", type=int, nargs="?", default=20)
    arguments.add_argument("first", type=int, nargs="?", default=1)
    chosen = arguments.parse_args()
    count, first = chosen.count, chosen.first
    failed = 0
    with tempfile.TemporaryDirectory() as directory, concurrent.futures.ProcessPoolExecutor(2) as pool:
        library = os.path.join(directory, "schedule.so")
        source = os.path.join(servers.ROOT, "tests", "e2e", "schedule.c")
        subprocess.run([shutil.which("gcc") or "cc", "-shared", "-fPIC", "-O1", "-ftls-model=initial-exec", "-o",
                        library, source, "-ldl"], check=True)
        seeds = range(first, first + count)
        for seed, report in zip(seeds, pool.map(run, seeds, itertools.repeat(library))):
            if (seed - first) % 100 == 99:
                print(f"{seed - first + 1} seeds of {count}", flush=True)
            if report:
                failed += 1
                print(f"######## seed {seed} failed; to repeat it: tests/schedules.py 1 {seed}\n{report}", flush=True)
    print(f"{count - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
