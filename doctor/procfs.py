"""Processes and files of this host."""

import contextlib
import glob
import os
import re
import shutil
import subprocess
import sys

from .untrusted import number


def read(path):
    """A file's text, or None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def processes(*names):
    """pids of processes with these names."""
    found = []
    for path in glob.glob("/proc/[0-9]*/comm"):
        if (read(path) or "").strip() in names:
            found.append(int(path.split("/")[2]))
    return sorted(found)


def environment_of(pid):
    text = read(f"/proc/{pid}/environ")
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry) if text else None


def descriptors_of(pid):
    found = re.search(r"^Max open files +(\S+)", read(f"/proc/{pid}/limits") or "", re.M)
    return number(found[1], sys.maxsize) if found else None


def pids_max(pid):
    """The smallest pids.max above a process."""
    found = re.search(r"^0::(/.*)$", read(f"/proc/{pid}/cgroup") or "", re.M)
    smallest = sys.maxsize
    group = found[1] if found else ""
    while group:
        smallest = min(smallest, number(read(f"/sys/fs/cgroup{group}/pids.max"), sys.maxsize))
        group = group.rpartition("/")[0]
    return smallest


def credentials_of(pid):
    """(uid, the set of gids) with which it reaches files."""
    status = read(f"/proc/{pid}/status") or ""
    found = {name: words.split() for name, words in re.findall(r"^(Uid|Gid|Groups):(.*)$", status, re.M)}
    if "Uid" not in found:
        return None
    return int(found["Uid"][3]), {int(found["Gid"][3]), *map(int, found.get("Groups", []))}


def output_of(*words):
    path = shutil.which(words[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([path, *words[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=20, check=False).stdout
    return ""
