"""Each allocation and each system call of the daemon fails once, in turn (faults.c): it goes on, or refuses
cleanly, and serves again at once. The calls that libfcgi's allocator makes are left out: it aborts."""

import errno
import mmap
import os
import shutil
import struct
import subprocess

import pytest

from answers import frame, notification
from fcgi import live, params, request, wait_all, Peer
from ledger import descriptors_and_threads, wait_released
from servers import Streamd, project_channel, user_channel
from timing import eventually

pytestmark = pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the allocator themselves")

FUNCTIONS = ("malloc calloc realloc pthread_create accept4 socket connect send recv read write poll ppoll "
             "memfd_create eventfd setsockopt ioctl open").split()
ERRORS = {"malloc": "ENOMEM", "calloc": "ENOMEM", "realloc": "ENOMEM", "pthread_create": "EAGAIN",
          "accept4": "EMFILE", "socket": "EMFILE", "connect": "ECONNREFUSED", "send": "ENOBUFS",
          "recv": "ENOMEM", "read": "EIO", "write": "EIO", "poll": "ENOMEM", "ppoll": "ENOMEM",
          "memfd_create": "EMFILE", "eventfd": "EMFILE", "setsockopt": "EINVAL", "ioctl": "EINVAL",
          "open": "EMFILE"}


class Faults:
    """The library and the file through which it is told what is to fail."""

    def __init__(self, directory):
        self.library = os.path.join(directory, "faults.so")
        source = os.path.join(os.path.dirname(__file__), "faults.c")
        subprocess.run([shutil.which("gcc") or "cc", "-shared", "-fPIC", "-O1", "-o", self.library, source,
                        "-ldl"], check=True)
        self.path = os.path.join(directory, "faults")
        with open(self.path, "wb") as file:
            file.write(struct.pack("<4i", -1, 0, 0, 0) + bytes(4 * len(FUNCTIONS)))
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": self.library, "TPI_FAULTS": self.path}

    def _get(self, position):
        return struct.unpack_from("<i", self.memory, 4 * position)[0]

    @property
    def failed(self):
        return self._get(3)

    def calls(self, function):
        return self._get(4 + FUNCTIONS.index(function))

    def arm(self, function, countdown):
        """The countdown-th call from now fails. The function is set last: it arms."""
        struct.pack_into("<3i", self.memory, 4, countdown, getattr(errno, ERRORS[function]), 0)
        struct.pack_into("<i", self.memory, 0, FUNCTIONS.index(function))

    def disarm(self):
        struct.pack_into("<i", self.memory, 0, -1)


@pytest.fixture
def faults(rundir):
    return Faults(rundir)


def scenario(daemon, valkey):
    """A bit of everything that a daemon does; what fails in it is not looked at."""
    peers = []
    try:
        for named in ({"user": "t1"}, {"user": "t2", "projects": "1,2"}, {"SCRIPT_NAME": "/nope"},
                      {"REQUEST_METHOD": "POST"}):
            peers.append(daemon.open(**named))
        cut = Peer(daemon.address, request(params("t5"))[:40])
        wait_all(peers, lambda peer: peer.closed or live(peer), 1, "answers")
        valkey.publish(user_channel("t1"), notification("1"))
        valkey.publish(project_channel(1), notification("2"))
        for peer in peers:
            peer.quiet(0)
        cut.close()
    except (AssertionError, OSError):
        pass
    for peer in peers:
        peer.close()


def serves(daemon, valkey, marker):
    """A stream opens and gets an event; tried again for as long as the one failure may have left it
    without Valkey or a place."""
    def whole():
        try:
            with daemon.open("good").wait(lambda p: live(p) or p.closed, 6) as peer:
                if b"sync" not in peer.body:
                    return False
                valkey.publish(user_channel("good"), notification(marker))
                peer.wait(lambda p: frame(notification(marker)) in p.body or p.closed, 2)
                return frame(notification(marker)) in peer.body
        except (AssertionError, OSError):
            return False
    eventually(whole, 20, f"it serves again ({marker})")


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_call_fails_once(streamd, valkey, faults, function):
    """In service: whatever call of this function fails, the daemon lives, serves and leaks nothing."""
    daemon = streamd(**faults.environment, TPI_PROJECT_ACCESS="allow", TPI_REQUEST_TIMEOUT_MS=300)
    serves(daemon, valkey, "start")
    before = descriptors_and_threads(daemon.pid)
    start = faults.calls(function)
    scenario(daemon, valkey)
    serves(daemon, valkey, "count")
    count = faults.calls(function) - start
    for countdown in range(1, count + 3):
        faults.arm(function, countdown)
        scenario(daemon, valkey)
        faults.disarm()
        assert daemon.alive, f"{function}, call {countdown}:\n{daemon.stderr}"
        serves(daemon, valkey, f"{function} {countdown}")
    wait_released(daemon.pid, before)


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_call_fails_once_at_the_start(rundir, valkey, faults, function):
    """At the start: it serves all the same, or says in one line why not and exits with 71 or 78."""
    for countdown in range(1, 200):
        faults.arm(function, countdown)
        daemon = Streamd(rundir, {**faults.environment, "VALKEY_URL": valkey.url}, wait=False)
        try:
            eventually(lambda: not daemon.alive or "started" in daemon.stderr, 10, "started or refused")
            failed = faults.failed
            faults.disarm()
            if "[streamd] started" in daemon.stderr:
                daemon.wait_accepts()
                serves(daemon, valkey, f"{function} {countdown}")
                daemon.stop()
            else:
                assert daemon.wait() in (71, 78), daemon.stderr
                assert [line for line in daemon.lines["stderr"] if line.startswith("tpi-streamd: ")]
        finally:
            daemon.kill()
        if not failed:
            return
