# SPDX-License-Identifier: ISC
"""contrib/quickstart.sh: one command that starts everything and shows events arriving."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from servers import ROOT, clean_environment
from timing import eventually, scaled

SCRIPT = os.path.join(ROOT, "contrib", "quickstart.sh")
PR_SET_CHILD_SUBREAPER = 36


def children():
    """The process ids of this process's running children."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(pid))
    return found


@pytest.fixture
def quickstart(tmp_path):
    """Starts the script; checks afterwards that none of its processes is left, in any session."""
    libc = ctypes.CDLL(None)
    # Orphaned processes become children of this process.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = children()
    output = tmp_path / "output"
    started = []

    def start(*args):
        with output.open("wb") as file:
            child = subprocess.Popen([SCRIPT, *args], env=clean_environment(),
                                     stdin=subprocess.DEVNULL, stdout=file,
                                     stderr=subprocess.STDOUT, start_new_session=True)
        started.append(child)
        return child, output.read_text

    yield start
    for child in started:
        if child.poll() is None:
            child.terminate()
            child.wait(scaled(60))
    left = children() - before
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    print(output.read_text())
    assert not left, f"left behind: {left}"


FRONTS = pytest.mark.parametrize("args", [[], ["--nginx"]], ids=["Apache", "nginx"])


@pytest.mark.slow
@FRONTS
def test_check(quickstart, args):
    """--check starts everything, checks that events arrive and the application is queried, and leaves no process."""
    child, _ = quickstart(*args, "--check")
    assert child.wait(scaled(120)) == 0


@pytest.fixture
def other_server():
    """Occupies the port that the script tries first."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # it may be in use already
            listener.bind(("127.0.0.1", 8080))
            listener.listen()
        yield


@pytest.mark.slow
@FRONTS
def test_interrupt(quickstart, other_server, args):
    """The script takes the next port if its first one is in use; Ctrl-C ends it with 130 and leaves no process and
    no file."""
    child, output = quickstart(*args)
    eventually(lambda: "Ctrl-C to stop" in output() or child.poll() is not None, 120, "the script to serve")
    url = re.search(r"http://\S+", output())[0]
    assert not url.startswith("http://127.0.0.1:8080/")
    directory = re.search(r"Logs are in (/tmp/\S+)\.", output())[1]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=scaled(10))
    assert refused.value.code == 401 and b"signed out" in refused.value.read()
    child.send_signal(signal.SIGINT)
    assert child.wait(scaled(60)) == 130
    assert not os.path.exists(directory)
