# SPDX-License-Identifier: ISC
"""What remains of cookies and passwords: in the daemon's memory, and in logs when a server echoes them."""

import contextlib
import ctypes.util
import os
import re
import subprocess
import uuid

import pytest

import servers
from answers import check_answer, check_later
from application import PROJECTS, SESSION, by, listen, says
from servers import clean_environment, program
from standins import Sentinel, Server
from timing import eventually, scaled

SANITIZED = "TPI_SANITIZED 1" in open(os.path.join(servers.BUILD, "config.h"), encoding="utf-8").read()


def secret(length=400):
    """A token that is in the daemon's memory only if it was sent there. It repeats, so that a copy is found even if the
    allocator has overwritten its start."""
    return f"{uuid.uuid4().hex}." * (length // 33)


def copies(daemon, token):
    """The copies of a secret in the daemon's writable memory. Adjacent repetitions are one copy."""
    unit = token.split(".")[0].encode() + b"."
    runs = re.compile(b"(?:%s)+" % re.escape(unit))
    found = 0
    with open(f"/proc/{daemon.pid}/maps", encoding="ascii") as maps, open(f"/proc/{daemon.pid}/mem", "rb") as memory:
        for line in maps:
            span, mode = line.split()[:2]
            if mode[:2] != "rw":
                continue
            first, end = (int(part, 16) for part in span.split("-"))
            memory.seek(first)
            with contextlib.suppress(OSError):  # gone meanwhile
                data = memory.read(end - first)
                found += len(runs.findall(data)) if unit in data else 0
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read the memory of a process that is not dumpable")
@pytest.mark.skipif(SANITIZED, reason="sanitizers keep freed memory")
@pytest.mark.parametrize("allocator", ["", "jemalloc"])
def test_memory(with_app, streamd, new_valkey, rundir, allocator):
    """While a stream is open, its cookie is in the daemon's memory once, for re-checks. Afterwards, and after a refused
    or deferred request, nothing of it is left, not even in libraries. The password of Valkey is there once. The
    same with a preloaded allocator that moves a block when it shrinks."""
    preload = {}
    if allocator:
        preload["LD_PRELOAD"] = ctypes.util.find_library(allocator) or pytest.skip(f"{allocator} not found")
    password = secret()
    valkey = new_valkey(tcp=True, password=password).start()
    path = os.path.join(rundir, "password")
    with open(path, "w", encoding="ascii") as file:
        file.write(password + "\n")
    app, daemon = with_app(VALKEY_URL=valkey.url, VALKEY_PASSWORD_FILE=path, **preload)
    known, unknown, failed = (f"SECRET-{secret(length)}" for length in (10000, 400, 400))
    app.sign_in(known, "eve", [7])
    streams = [listen(daemon, **by(known)), listen(daemon, projects="7", **by(known))]
    eventually(lambda: copies(daemon, known) == len(streams), 10, "one copy of the cookie for each stream")
    check_answer(daemon.ask(**by(unknown)), 401)
    app.faults[SESSION] = says(b"no JSON")
    check_later(daemon.ask(**by(failed)))
    for peer in streams:
        peer.close()
    for name, token in {"of a stream": known, "unknown": unknown, "of a failed query": failed}.items():
        eventually(lambda token=token: copies(daemon, token) == 0, 10, f"no copy of the cookie, {name}")
    eventually(lambda: copies(daemon, password) == 1, what="one copy of the password")
    other = streamd(VALKEY_URL=f"valkey://:{password}@127.0.0.1:{valkey.port}", **preload)
    other.wait_for_log("connected")
    assert copies(other, password) == 2  # one of them in its environment
    with other.stream("ann", HTTP_COOKIE=known):
        assert copies(other, known) == 0  # of no use to it


class Echo(Server):
    """A Valkey that repeats the password it was sent, in its reply to one command."""

    def __init__(self, command, reply):
        super().__init__("s3cr3t-pa'ss")
        self.url = f"valkey://:{self.password}@{self.name}"
        least, most, _ = self.commands.get(command, (1, 9, None))
        self.commands[command] = least, most, lambda session, words: reply % self.password.encode()


@pytest.mark.parametrize("command, reply, shown", [
    (b"AUTH", b"-ERR no user has password %s\r\n", "no user has password ***"),
    (b"ROLE", b"*1\r\n$12\r\n%s\r\n", "is a ***, not a primary"),
    (b"SUBSCRIBE", b"-ERR %s may not\r\n", "*** may not"),
    (b"PUBLISH", b"-ERR %s may not\r\n", "*** may not"),
], ids=["auth", "role", "subscribe", "publish"])
def test_echoed_password(streamd, command, reply, shown):
    """A server that echoes the password gets it into no log line, and into no error of tpi-publish."""
    server = Echo(command, reply)
    if command != b"PUBLISH":
        daemon = streamd(VALKEY_URL=server.url, TPI_LOG_LEVEL="debug")
        daemon.wait_for_log(re.escape(shown))
        daemon.stop()
        assert "s3cr3t" not in daemon.stderr
    if command != b"SUBSCRIBE":
        done = subprocess.run([program("tpi-publish"), "notification", "--user", "u1"], capture_output=True, text=True,
                              env=clean_environment(VALKEY_URL=server.url), timeout=scaled(10), check=False)
        assert done.returncode == 69 and shown in done.stderr and "s3cr3t" not in done.stderr
    server.stop()


def test_echoed_host(streamd):
    """A sentinel that names the password as the primary's host gets it into no log line."""
    sentinel = Sentinel(port=1, host=b"s3cr3t.invalid", password="s3cr3t")
    daemon = streamd(VALKEY_URL="valkey://primary", VALKEY_SENTINELS=sentinel.name, VALKEY_SENTINEL_PASSWORD="s3cr3t")
    daemon.wait_for_log(r"\*\*\*\.invalid:1")
    daemon.stop()
    assert "s3cr3t" not in daemon.stderr
    sentinel.stop()


def test_echoed_cookie(with_app):
    """An application that echoes the cookie in its reason for a 403 gets it into no log line."""
    app, daemon = with_app()
    app.sign_in("SECRET-0123456789", "eve", [7])
    app.faults[PROJECTS] = says(b'{"error":"may not: SECRET-0123456789"}', 403)
    check_answer(daemon.ask(**by("SECRET-0123456789", projects="7")), 404)
    daemon.wait_for_log(r'query forbidden .*"reason":"may not: \*\*\*"')
