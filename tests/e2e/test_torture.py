# SPDX-License-Identifier: ISC
"""Each allocation and each system call of the daemon fails once, in turn (faults.c). The daemon must continue, or exit
cleanly at its start, and serve streams again. faults.c lists the allocations that are left out."""

import os

import pytest

from answers import frame, issue, notification, syncs
from faults import FUNCTIONS, Faults
from fcgi import Peer, live, params, request, wait_all
from ledger import descriptors_and_threads, wait_released
from servers import Streamd, broadcast_channel, project_channel, user_channel
from timing import eventually

pytestmark = pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the allocator themselves")

# Not needed to serve a stream once one has been served.
MAY_BE_UNUSED = {"socket", "socketpair", "connect", "eventfd", "open", "setsockopt", "ioctl"}
SLOW = {"malloc", "calloc", "realloc"}  # many calls, and each failure may close the connection to Valkey


def marked(functions):
    return [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in functions]


@pytest.fixture
def faults(rundir):
    return Faults(rundir)


def complete(peer, payloads):
    """Whether the stream has ended, has a second sync, which covers any gap, or has all these payloads."""
    return peer.closed or syncs(peer) > 1 or all(frame(payload) in peer.body for payload in payloads)


def scenario(daemon, valkey):
    """Exercises most of what a daemon does. Requests may fail, but a stream that has its sync must get its wake-ups."""
    peers = []
    first = [notification("1"), notification("b")]
    second = [issue(1, 1), issue(2, 2)]
    try:
        for named in ({"user": "t1"}, {"user": "t2", "projects": "1,2"}, {"SCRIPT_NAME": "/nope"},
                      {"REQUEST_METHOD": "POST"}):
            peers.append(daemon.open(**named))
        incomplete = Peer(daemon.address, request(params("t5"))[:40])
        wait_all(peers, lambda peer: peer.closed or live(peer), 1, "responses")
    except (AssertionError, OSError):
        pass
    else:
        for channel, payload in zip((user_channel("t1"), broadcast_channel(), project_channel(1), project_channel(2)),
                                    first + second):
            valkey.publish(channel, payload)
        for peer, payloads in zip(peers, (first, second)):
            if live(peer) and syncs(peer):
                peer.wait(lambda p, expected=payloads: complete(p, expected), 5, "the wake-ups of all its channels")
        incomplete.close()
    for peer in peers:
        peer.close()


def serves(daemon, valkey, marker):
    """Waits until a stream opens and gets a wake-up: the failure may have cost the connection to Valkey or a slot."""
    def attempt():
        try:
            with daemon.open("good").wait(lambda p: live(p) or p.closed, 6) as peer:
                if b"sync" not in peer.body:
                    return False
                valkey.publish(user_channel("good"), notification(marker))
                peer.wait(lambda p: frame(notification(marker)) in p.body or p.closed, 2)
                return frame(notification(marker)) in peer.body
        except (AssertionError, OSError):
            return False
    eventually(attempt, 20, f"a working stream ({marker})")


@pytest.mark.slow
@pytest.mark.parametrize("function", marked(FUNCTIONS))
def test_each_call_fails_once(streamd, valkey, faults, function):
    """Whichever call of this function fails while the daemon serves streams, it survives, serves again and leaks
    nothing."""
    daemon = streamd(**faults.environment, TPI_PROJECT_ACCESS="allow", TPI_REQUEST_TIMEOUT_MS=300,
                     SSE_SYNC_SPREAD_MS=0)
    serves(daemon, valkey, "start")
    before = descriptors_and_threads(daemon.pid)
    start = faults.calls(function)
    scenario(daemon, valkey)
    serves(daemon, valkey, "count")
    count = faults.calls(function) - start
    assert count or function in MAY_BE_UNUSED
    for countdown in range(1, count + 3):
        faults.arm(function, countdown)
        scenario(daemon, valkey)
        faults.disarm()
        assert daemon.alive, f"{function}, call {countdown}:\n{daemon.stderr}"
        serves(daemon, valkey, f"{function} {countdown}")
    wait_released(daemon.pid, before)


def accepts(daemon):
    """Whether the daemon responds; the failure may have affected this very connection."""
    try:
        daemon.wait_accepts()
        return True
    except AssertionError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("function", marked(FUNCTIONS))
def test_each_call_fails_once_at_the_start(rundir, valkey, faults, function):
    """Whichever call of this function fails at the start, the daemon serves streams, or exits with 71 or 78 and an
    error."""
    for countdown in range(1, 200):
        faults.arm(function, countdown)
        daemon = Streamd(rundir, {**faults.environment, "VALKEY_URL": valkey.url}, wait=False)
        try:
            eventually(lambda: not daemon.alive or accepts(daemon), 20, "a running or an exited daemon")
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
        if not failed:  # every call has failed once
            return
    raise AssertionError(f"{function} is still called after {countdown} calls")


def test_no_memory_to_send(streamd, valkey, faults):
    """If the kernel has no memory for a send, the stream stays open and gets the event later."""
    daemon = streamd(**faults.environment)
    with daemon.stream("ann") as peer:
        faults.arm("send", 1, 2)
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
        assert faults.failed == 3 and not peer.closed


@pytest.mark.slow
def test_no_memory_for_a_backlog(streamd, valkey, faults):
    """A backlog that cannot grow affects its own stream only: others stay open, and new ones work."""
    daemon = streamd(**faults.environment)
    with daemon.stream("other") as other:
        for countdown in range(1, 40):
            with daemon.open("ann", rcvbuf=4096).wait(lambda p: live(p) or p.closed):
                faults.arm("realloc", countdown)
                for _ in range(60):
                    valkey.publish(user_channel("ann"), '{"event":"x","filler":"%s"}' % ("x" * 8000))
                serves(daemon, valkey, f"realloc {countdown}")
                failed = faults.failed
                faults.disarm()
            assert not other.quiet(0).closed
            if not failed:  # every call has failed once
                break
    assert not failed and countdown > 1
