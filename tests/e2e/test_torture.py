# SPDX-License-Identifier: ISC
"""Each allocation and each system call of the daemon fails once, in turn (faults.c): it goes on, or refuses
cleanly, and serves again at once. Left out are the allocations of libfcgi and some of hiredis 0.14, which abort
by design."""

import os

import pytest

from answers import frame, issue, notification, syncs
from faults import FUNCTIONS, Faults
from fcgi import Peer, live, params, request, wait_all
from ledger import descriptors_and_threads, wait_released
from servers import Streamd, broadcast_channel, project_channel, user_channel
from timing import eventually

pytestmark = pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the allocator themselves")

NOT_IN_SERVICE = {"socket", "connect", "eventfd", "open", "setsockopt", "ioctl"}  # or not surely
SLOW = {"malloc", "calloc", "realloc"}  # each failure may cost the connection to Valkey


def marked(functions):
    return [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in functions]


@pytest.fixture
def faults(rundir):
    return Faults(rundir)


def whole(peer, payloads):
    """Closed, told to come back, or in all of its channels; a sync after a loss excuses the rest."""
    return peer.closed or syncs(peer) > 1 or all(frame(payload) in peer.body for payload in payloads)


def scenario(daemon, valkey):
    """A bit of everything that a daemon does. What fails in it is not looked at; who has got a sync must get
    what follows."""
    peers = []
    first = [notification("1"), notification("b")]
    second = [issue(1, 1), issue(2, 2)]
    try:
        for named in ({"user": "t1"}, {"user": "t2", "projects": "1,2"}, {"SCRIPT_NAME": "/nope"},
                      {"REQUEST_METHOD": "POST"}):
            peers.append(daemon.open(**named))
        cut = Peer(daemon.address, request(params("t5"))[:40])
        wait_all(peers, lambda peer: peer.closed or live(peer), 1, "answers")
    except (AssertionError, OSError):
        pass
    else:
        for channel, payload in zip((user_channel("t1"), broadcast_channel(), project_channel(1), project_channel(2)),
                                    first + second):
            valkey.publish(channel, payload)
        for peer, payloads in zip(peers, (first, second)):
            if live(peer) and syncs(peer):
                peer.wait(lambda p, expected=payloads: whole(p, expected), 5, "the wake-ups of each of its channels")
        cut.close()
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
    daemon = streamd(**faults.environment, TPI_PROJECT_ACCESS="allow", TPI_REQUEST_TIMEOUT_MS=300,
                     SSE_SYNC_SPREAD_MS=0)
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


def test_no_memory_to_send(streamd, valkey, faults):
    """While the kernel has no memory for a send the event waits, and the stream lives."""
    daemon = streamd(**faults.environment)
    with daemon.stream("ann") as peer:
        faults.arm("send", 1, 2)
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
        assert faults.failed == 3 and not peer.closed


@pytest.mark.slow
def test_no_memory_for_a_backlog(streamd, valkey, faults):
    """A backlog that cannot grow costs its own stream and nothing else."""
    daemon = streamd(**faults.environment)
    for countdown in range(1, 40):
        with daemon.open("ann", rcvbuf=4096).wait(lambda p: live(p) or p.closed):
            faults.arm("realloc", countdown)
            for number in range(60):
                valkey.publish(user_channel("ann"), '{"event":"x","filler":"%s"}' % ("x" * 8000))
            serves(daemon, valkey, f"realloc {countdown}")
            faults.disarm()
        assert daemon.alive
