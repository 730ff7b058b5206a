"""Each allocation and each system call of the daemon fails once, in turn (faults.c): it goes on, or refuses
cleanly, and serves again at once. Left out are the allocations of libfcgi and some of hiredis 0.14, which abort
by design."""

import os

import pytest

from answers import frame, notification
from faults import FUNCTIONS, Faults
from fcgi import Peer, live, params, request, wait_all
from ledger import descriptors_and_threads, wait_released
from servers import Streamd, project_channel, user_channel
from timing import eventually

pytestmark = pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the allocator themselves")

NOT_IN_SERVICE = {"socket", "connect", "eventfd", "open", "setsockopt", "ioctl"}  # or not surely
SLOW = {"malloc", "calloc", "realloc"}  # each failure may cost the connection to Valkey


def marked(functions):
    return [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in functions]


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
@pytest.mark.parametrize("function", marked(FUNCTIONS))
def test_each_call_fails_once(streamd, valkey, faults, function):
    """In service: whatever call of this function fails, the daemon lives, serves and leaks nothing."""
    daemon = streamd(**faults.environment, TPI_PROJECT_ACCESS="allow", TPI_REQUEST_TIMEOUT_MS=300)
    serves(daemon, valkey, "start")
    before = descriptors_and_threads(daemon.pid)
    start = faults.calls(function)
    scenario(daemon, valkey)
    serves(daemon, valkey, "count")
    count = faults.calls(function) - start
    assert count or function in NOT_IN_SERVICE
    for countdown in range(1, count + 3):
        faults.arm(function, countdown)
        scenario(daemon, valkey)
        faults.disarm()
        assert daemon.alive, f"{function}, call {countdown}:\n{daemon.stderr}"
        serves(daemon, valkey, f"{function} {countdown}")
    wait_released(daemon.pid, before)


def accepts(daemon):
    """The failure may also have hit the connection that asks."""
    try:
        daemon.wait_accepts()
        return True
    except AssertionError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("function", marked(FUNCTIONS))
def test_each_call_fails_once_at_the_start(rundir, valkey, faults, function):
    """At the start: it serves all the same, or says in one line why not and exits with 71 or 78."""
    for countdown in range(1, 200):
        faults.arm(function, countdown)
        daemon = Streamd(rundir, {**faults.environment, "VALKEY_URL": valkey.url}, wait=False)
        try:
            eventually(lambda: not daemon.alive or accepts(daemon), 20, "it serves or ends")
            failed = faults.failed
            faults.disarm()
            if daemon.alive:
                serves(daemon, valkey, f"{function} {countdown}")
                daemon.stop()
            else:
                assert daemon.wait() in (71, 78), daemon.stderr
                assert [line for line in daemon.lines["stderr"] if line.startswith("tpi-streamd: ")]
        finally:
            daemon.kill()
        if not failed:
            return
