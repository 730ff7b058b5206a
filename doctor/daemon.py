# SPDX-License-Identifier: ISC
"""Judge the daemon's limits on this host, and who can connect to its socket."""

import os

from .finding import FAILED, Finding, OK, SKIPPED, WARNING
from .procfs import words_of
from .settings import SOCKET, caps, number_setting, setting, uses_application
from .untrusted import plain, reason_of

SPARE = 64  # descriptors of the daemon other than those of its streams


def judge_limits(stage, settings, descriptors, pids):
    """What the caps need, and what the process has; None where that is not known."""
    needed = caps(settings) + SPARE
    if uses_application(settings):
        needed += number_setting(settings, "TPI_APP_CONCURRENCY")
    if setting(settings, "TPI_IDENTITY") == "app":
        needed += 2 * number_setting(settings, "TPI_APP_PENDING")  # known users have as many places again
    for allowed, what, where in (
            (descriptors, "descriptors (RLIMIT_NOFILE)", "LimitNOFILE"),
            (pids, "threads (pids.max)", "TasksMax")):
        if allowed is not None and allowed < needed:
            return Finding(stage, WARNING, f"too few {what}: the caps need {needed}, the daemon has {allowed}",
                           f"Set [Service] {where}= above {needed} with systemctl edit tpi-stream, or lower "
                           "SSE_PER_TENANT_CAP and the other caps.")
    if descriptors is None:
        return Finding(stage, SKIPPED, "the limits of the daemon cannot be read")
    return Finding(stage, OK, f"enough descriptors and threads for {caps(settings)} streams")


def fcgi_socket(pid, settings):
    """The path of the daemon's Unix socket: by its options, its settings, or the default; None: it has another."""
    words = words_of(pid)
    listen = setting(settings, "TPI_LISTEN") or SOCKET
    for at, word in enumerate(words):
        if word == "--listen" and at + 1 < len(words):
            listen = words[at + 1]
        elif word.startswith("--listen="):
            listen = word.partition("=")[2]
    listen = listen[5:] if listen.startswith("unix:") else listen
    return listen if listen.startswith("/") else None


def has_permission(status, who, bit):
    """As the kernel decides, which never refuses root. bit: 2 to write, 1 to enter a directory."""
    uid, gids = who
    shift = 6 if uid == status.st_uid else 3 if status.st_gid in gids else 0
    return uid == 0 or bool(status.st_mode >> shift & bit)


def judge_access(stage, path, name, who, profile):
    """Whether the web server's workers can connect to the socket. profile: that of AppArmor."""
    try:
        for above in [path[:at] for at in range(1, len(path)) if path[at] == "/"]:
            if not has_permission(os.stat(above), who, 1):
                return Finding(stage, FAILED, f"{name}'s workers (uid {who[0]}) cannot enter {above}",
                               f"Run chmod o+x {above}, or use a socket in /run/tpi-stream.")
        if not has_permission(os.stat(path), who, 2):
            return Finding(stage, FAILED, f"{name}'s workers (uid {who[0]}) cannot write to {path}",
                           "Set SocketGroup= of tpi-stream.socket, or --group of tpi-streamd, to the group of the "
                           "web server (www-data), with mode 0660.")
    except FileNotFoundError:
        return Finding(stage, FAILED, f"{path} does not exist",
                       "Run systemctl start tpi-stream.socket, or correct the path in the web server's "
                       "configuration.")
    except OSError as error:
        return Finding(stage, SKIPPED, reason_of(error))
    if "(enforce)" in profile:
        return Finding(stage, OK, f"{name}'s workers can write to it, if AppArmor's profile {plain(profile)} allows it")
    return Finding(stage, OK, f"{name}'s workers can write to {path}")
