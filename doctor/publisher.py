# SPDX-License-Identifier: ISC
"""Publish wake-ups with tpi-publish, as the application would."""

import re
import secrets
import subprocess
import time
from dataclasses import dataclass

from .settings import prefixes, setting
from .streams import STREAMS
from .untrusted import number


MARKED = ("id", "issueId", "runId", "milestoneId", "targetId")   # members of a payload that may be the marker


@dataclass
class Published:
    """A run of tpi-publish. marker tells its wake-up from all others."""
    marker: object
    at: float
    status: int
    channel: str = ""
    subscribers: int = 0
    error: str = ""

    def arrival(self, response):
        """When it arrived on this stream, or None."""
        return next((event.at for event in response.events
                     if self.marker in [event.json().get(name) for name in MARKED]), None)


class Publisher:
    def __init__(self, path, environment):
        self.path = path
        self.environment = environment
        self.run_id = secrets.token_hex(4)
        self.first_id = 1000000000 + secrets.randbelow(1000000000)
        self.count = 0

    @property
    def tenant(self):
        return setting(self.environment, "INSTANCE_TENANT_ID")

    @property
    def prefix(self):
        return prefixes(self.environment)[0]

    def publish(self, kind, whom, tenant=None, prefix=None):
        """One wake-up for a stream of this kind."""
        self.count += 1
        marker = f"doctor-{self.run_id}-{self.count}" if kind == "notifications" else self.first_id + self.count
        words = [word.format(id=whom, marker=marker) for word in STREAMS[kind].publish]
        words += ["--event", "doctor", "--verbose", "--tenant", tenant or self.tenant]
        environment = dict(self.environment)
        if prefix:
            environment["TPI_ISSUES_CHANNEL_PREFIX"] = prefix
        started = time.monotonic()
        try:
            done = subprocess.run([self.path, *words], env=environment, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, errors="replace", timeout=30,
                                  check=False)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return Published(marker, started, -1, error=f"{self.path}: {error}")
        found = re.search(rf"^(\S*{re.escape(STREAMS[kind].channel.format(id=whom))}): ([0-9]+) subscribers?$",
                          done.stdout, re.M)
        return Published(marker, started, done.returncode, found[1] if found else "",
                         number(found[2]) if found else 0,
                         done.stderr.strip().removeprefix("tpi-publish: "))
