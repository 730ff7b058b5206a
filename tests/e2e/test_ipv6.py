# SPDX-License-Identifier: ISC
"""Where there is only IPv6, and where there is none."""

import contextlib
import ctypes
import errno
import os
import subprocess
import sys

import pytest

from answers import after_first, frame, issue, notification
from application import ANN, page
from fcgi import ISSUES, NOTIFICATIONS
from servers import clean_environment, http, program, project_channel, user_channel
from test_deploy import OPEN, Sidecar
from timing import scaled

CLONE_NEWNET = 0x40000000


@pytest.fixture
def ipv6_only():
    """This thread, and the processes it starts, in a network that has only an IPv6 loopback interface."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as stack:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        stack.callback(os.close, before)
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")
        stack.callback(libc.setns, before, CLONE_NEWNET)
        try:
            for command in "ip link set lo up", "ip -4 address flush dev lo":
                subprocess.run(command.split(), check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"cannot configure a network namespace: {error}")
        if not os.path.exists("/proc/net/if_inet6"):
            pytest.skip("the kernel has no IPv6")
        yield


def test_only_ipv6(ipv6_only, with_app, application, new_valkey, rundir):
    """Daemon, Valkey, application, publisher and the image's nginx work where there is no IPv4 at all."""
    valkey = new_valkey(config=["--port", "6379", "--bind", "::1"]).start()
    app, daemon = with_app(OPEN, app=application(path=("::1", 0)), VALKEY_URL="valkey://[::1]:6379")
    front = Sidecar(rundir, daemon.address, host="::1", ports=(8080, 8081))
    try:
        with http(front.address, NOTIFICATIONS, **page(ANN)) as peer:
            peer.wait_live(20)
            done = subprocess.run([program("tpi-publish"), "notification", "--user", "ann", "--id", "1", "--verbose"],
                                  env=clean_environment(VALKEY_URL="valkey://[::1]:6379"), capture_output=True,
                                  text=True, timeout=scaled(20), check=True)
            peer.wait_body(frame(notification(1)))
            assert after_first(peer) == frame(notification(1)), done
        with http(front.address, ISSUES + "?projectId=7", **page(ANN)) as peer:
            peer.wait_live(20)
            valkey.publish(project_channel(7), issue(1))
            peer.wait_body(frame(issue(1)))
        assert front.probe("/nginx") == 200 and app.requests
    finally:
        front.stop()


# Runs a command in which socket(AF_INET6) fails, as on a kernel without IPv6: a seccomp filter, as systemd's
# RestrictAddressFamilies= makes it.
WITHOUT_IPV6 = """
import ctypes, os, struct, sys
def step(code, true, false, value):
    return struct.pack("HBBI", code, true, false, value)
code = b"".join([step(0x20, 0, 0, 0), step(0x15, 0, 3, 41), step(0x20, 0, 0, 16), step(0x15, 0, 1, 10),
                 step(0x06, 0, 0, 0x00050000 | 97), step(0x06, 0, 0, 0x7fff0000)])
text = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("H6xQ", len(code) // 8, ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
zero = ctypes.c_ulong(0)
assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0
assert libc.prctl(22, ctypes.c_ulong(2), program) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="WITHOUT_IPV6 has the number of socket() of x86-64")
def test_no_ipv6(with_app, valkey, rundir):
    """The image's nginx starts where there is no IPv6; where there is, it listens on both."""
    _, daemon = with_app(OPEN)
    prefix = [sys.executable, "-ISc", WITHOUT_IPV6]
    probe = subprocess.run([*prefix, sys.executable, "-c", "import socket; socket.socket(socket.AF_INET6)"],
                           capture_output=True, text=True, check=False)
    assert f"[Errno {errno.EAFNOSUPPORT}]" in probe.stderr, probe.stderr
    for command, hosts in ((prefix, ["127.0.0.1"]), ([], ["127.0.0.1", "::1"])):
        front = Sidecar(rundir, daemon.address, prefix=command)
        try:
            for host in hosts:
                with http((host, front.address[1]), NOTIFICATIONS, **page(ANN)) as peer:
                    peer.wait_live(20)
                    valkey.publish(user_channel("ann"), notification(host))
                    peer.wait_body(frame(notification(host)))
        finally:
            front.stop()
