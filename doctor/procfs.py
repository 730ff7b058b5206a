# SPDX-License-Identifier: ISC
"""Read processes, their limits and their sockets from /proc. What cannot be read is None or empty."""

import contextlib
import glob
import ipaddress
import os
import re
import shutil
import subprocess
import sys

from .untrusted import number

LISTENING = "0A"    # the state in /proc/net/tcp


def read(path):
    """A file's text, or None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (OSError, ValueError):
        return None


def name_of(pid):
    return (read(f"/proc/{pid}/comm") or "").strip()


def processes(*names):
    """The pids of processes with these names."""
    pids = sorted(int(path.split("/")[2]) for path in glob.glob("/proc/[0-9]*/comm"))
    return [pid for pid in pids if name_of(pid) in names]


def parent_of(pid):
    found = re.search(r"^PPid:\s*([0-9]+)$", read(f"/proc/{pid}/status") or "", re.M)
    return number(found[1]) if found else None


def words_of(pid):
    """Its command line. A title that a program has set is one word."""
    return (read(f"/proc/{pid}/cmdline") or "").rstrip("\0").split("\0")


def directory_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return "/"


def in_container(pid):
    """True where its root directory is another one, so that its paths mean other files than here."""
    with contextlib.suppress(OSError):
        return not os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat("/"))
    return False


def environment_of(pid):
    text = read(f"/proc/{pid}/environ")
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry) if text else None


def descriptors_of(pid):
    found = re.search(r"^Max open files +(\S+)", read(f"/proc/{pid}/limits") or "", re.M)
    return number(found[1], sys.maxsize) if found else None


def pids_max(pid):
    """The smallest pids.max of the cgroups above a process."""
    found = re.search(r"^0::(/.*)$", read(f"/proc/{pid}/cgroup") or "", re.M)
    smallest = sys.maxsize
    group = found[1] if found else ""
    while group:
        smallest = min(smallest, number(read(f"/sys/fs/cgroup{group}/pids.max"), sys.maxsize))
        group = group.rpartition("/")[0]
    return smallest


def credentials_of(pid):
    """(uid, the set of gids) with which it accesses files."""
    status = read(f"/proc/{pid}/status") or ""
    found = {name: words.split() for name, words in re.findall(r"^(Uid|Gid|Groups):(.*)$", status, re.M)}
    if "Uid" not in found:
        return None
    return int(found["Uid"][3]), {int(found["Gid"][3]), *map(int, found.get("Groups", []))}


def socket_address(text):
    """(address, port) of 0100007F:1F90, as /proc/net/tcp and tcp6 write them."""
    digits, _, port = text.partition(":")
    words = [bytes.fromhex(digits[at:at + 8]) for at in range(0, len(digits), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address, int(port, 16)


def listening_inodes(addresses, port):
    """The sockets that listen on this port: those of one of the addresses, else those of all addresses."""
    wanted = {ipaddress.ip_address(address.partition("%")[0]) for address in addresses}
    exact, every = set(), set()
    for path in "/proc/net/tcp", "/proc/net/tcp6":
        for line in (read(path) or "").splitlines()[1:]:
            words = line.split()
            if words[3] != LISTENING:
                continue
            address, where = socket_address(words[1])
            if where == port and address in wanted:
                exact.add(words[9])
            elif where == port and address.is_unspecified:
                every.add(words[9])
    return exact or every


def holders_of(inodes):
    """The pids of processes that have one of these sockets open, as far as this user can see."""
    links = {f"socket:[{inode}]" for inode in inodes}
    found = set()
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(path) in links:
                found.add(int(path.split("/")[2]))
    return sorted(found)


def unix_inodes(path):
    """The sockets that listen at this path."""
    return {line.split()[6] for line in (read("/proc/net/unix") or "").splitlines()[1:]
            if line.split(None, 7)[7:] == [path] and line.split()[3] == "00010000"}


def output_of(*words):
    path = shutil.which(words[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([path, *words[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=20, check=False).stdout
    return ""
