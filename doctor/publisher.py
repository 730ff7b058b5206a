"""Wake-ups, published by tpi-publish."""

import re
import secrets
import subprocess
import time
from dataclasses import dataclass


@dataclass
class Published:
    """A run of tpi-publish. marker is what tells the wake-up from others."""
    marker: object
    at: float
    status: int
    channel: str = ""
    subscribers: int = 0
    error: str = ""

    def arrival(self, response):
        """When it came on this stream, or None."""
        return next((event.at for event in response.events
                     if self.marker in (event.json().get("id"), event.json().get("issueId"))), None)


class Publisher:
    def __init__(self, path, environment):
        self.path = path
        self.environment = environment
        self.run_id = secrets.token_hex(4)
        self.first_issue = 1000000000 + secrets.randbelow(1000000000)
        self.count = 0

    @property
    def tenant(self):
        return self.environment.get("INSTANCE_TENANT_ID") or "default"

    @property
    def prefix(self):
        return self.environment.get("TPI_ISSUES_CHANNEL_PREFIX") or "issues"

    def publish(self, kind, whom, tenant=None, prefix=None):
        """One wake-up for a user or a project."""
        self.count += 1
        if kind == "notifications":
            marker = f"doctor-{self.run_id}-{self.count}"
            words = ["notification", "--user", whom, "--id", marker]
        else:
            marker = self.first_issue + self.count
            words = ["issue", "--project", str(whom), "--issue", str(marker)]
        words += ["--event", "doctor", "--verbose", "--tenant", tenant or self.tenant]
        environment = dict(self.environment)
        if prefix:
            environment["TPI_ISSUES_CHANNEL_PREFIX"] = prefix
        started = time.monotonic()
        try:
            done = subprocess.run([self.path, *words], env=environment, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, errors="replace", timeout=30,
                                  check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Published(marker, started, -1, error=f"{self.path}: {error}")
        found = re.search(r"^(\S+): (\d+) subscribers$", done.stdout, re.M)
        return Published(marker, started, done.returncode, found[1] if found else "",
                         int(found[2]) if found else 0,
                         done.stderr.strip().removeprefix("tpi-publish: "))
