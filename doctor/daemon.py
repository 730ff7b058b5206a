"""The daemon's process on this host: its limits, and who may connect to its socket."""

import os

from .finding import FAILED, Finding, OK, SKIPPED, WARNING
from .settings import caps
from .untrusted import number, plain

SPARE = 64  # descriptors of the daemon beside its streams


def judge_limits(stage, settings, descriptors, pids):
    """The caps of the daemon and what its process may have; None where it is not known."""
    needed = caps(settings) + SPARE
    if settings.get("TPI_IDENTITY") == "app" or settings.get("TPI_PROJECT_ACCESS") == "app":
        needed += number(settings.get("TPI_APP_CONCURRENCY"), 32)
    for allowed, what, where in (
            (descriptors, "descriptors (RLIMIT_NOFILE)", "LimitNOFILE"),
            (pids, "threads (pids.max)", "TasksMax")):
        if allowed is not None and allowed < needed:
            return Finding(stage, WARNING, f"the caps need {needed} {what}, and there are {allowed}",
                           f"systemctl edit tpi-stream: [Service] {where}= above {needed}; or lower "
                           "SSE_PER_TENANT_CAP and SSE_ISSUES_PER_TENANT_CAP.")
    if descriptors is None:
        return Finding(stage, SKIPPED, "the limits of the daemon cannot be read")
    return Finding(stage, OK, f"enough descriptors and threads for {caps(settings)} streams")


def may_write(status, who):
    """As the kernel decides; root may always."""
    uid, gids = who
    shift = 6 if uid == status.st_uid else 3 if status.st_gid in gids else 0
    return uid == 0 or bool(status.st_mode >> shift & 2)


def may_pass(status, who):
    uid, gids = who
    shift = 6 if uid == status.st_uid else 3 if status.st_gid in gids else 0
    return uid == 0 or bool(status.st_mode >> shift & 1)


def check_access(stage, path, name, who, profile):
    """May the web server's workers connect to the socket?"""
    try:
        for above in [path[:at] for at in range(1, len(path)) if path[at] == "/"]:
            if not may_pass(os.stat(above), who):
                return Finding(stage, FAILED, f"{name}'s workers (uid {who[0]}) may not enter {above}",
                               f"chmod o+x {above}, or a socket in /run/tpi-stream.")
        if not may_write(os.stat(path), who):
            return Finding(stage, FAILED, f"{name}'s workers (uid {who[0]}) may not write to {path}",
                           "SocketGroup= of tpi-stream.socket, or --group of tpi-streamd, has to be the "
                           "group of the web server (www-data), with mode 0660.")
    except FileNotFoundError:
        return Finding(stage, FAILED, f"{path} is not there",
                       "systemctl start tpi-stream.socket; or another path in the web server's "
                       "configuration.")
    except OSError as error:
        return Finding(stage, SKIPPED, plain(error))
    if "(enforce)" in profile:
        return Finding(stage, OK, f"{name}'s workers may write to it; AppArmor's profile {plain(profile)} "
                       f"has to allow it, too")
    return Finding(stage, OK, f"{name}'s workers may write to {path}")
