"""contrib/quickstart.sh: from nothing to an event in a browser-like client, by one command."""

import os
import subprocess

import pytest

from servers import ROOT, clean_environment
from timing import scaled


@pytest.mark.slow
@pytest.mark.parametrize("args", [["--check"], ["--nginx", "--check"]], ids=["Apache", "nginx"])
def test_quickstart(args):
    """--check starts all of it, publishes, sees the event arrive, exits with 0 and leaves no process."""
    script = os.path.join(ROOT, "contrib", "quickstart.sh")
    # A group of its own: what is left in it afterwards was left behind.
    child = subprocess.Popen([script, *args], env=clean_environment(), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             start_new_session=True)
    try:
        output, _ = child.communicate(timeout=scaled(120))
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 15)
        output, _ = child.communicate(timeout=scaled(20))
        pytest.fail(f"not in time:\n{output}")
    print(output)
    assert child.returncode == 0
    left = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == child.pid and fields[0] != "Z":
            left.append(pid)
    assert not left, f"left behind: {left}"
