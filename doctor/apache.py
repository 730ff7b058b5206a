# SPDX-License-Identifier: ISC
"""Read Apache's configuration, and judge what it sets for the streams."""

import glob
import os
import re

from .configuration import STREAM_PATH, judge_no_tpi_user, last, seconds_of
from .finding import Finding, OK, SKIPPED, WARNING
from .procfs import read
from .untrusted import number

INCLUDES_MAX = 20   # deep


def read_apache(text, base):
    """(name, words) of each directive; sections and conditions are entered, includes are followed."""
    defined = {}

    def expand(words):
        return re.sub(r"\$\{(\w+)\}", lambda found: defined.get(found[1], found[0]), words)

    def lines(text, depth):
        for line in re.sub(r"\\\n", " ", text).splitlines():
            words = [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', line.partition(" #")[0].strip())]
            if not words or words[0].startswith("#"):
                continue
            name, words = words[0].lower(), [expand(word) for word in words[1:]]
            if name == "define" and len(words) == 2:
                defined.setdefault(*words)
            elif name in ("include", "includeoptional") and words and depth < INCLUDES_MAX:
                pattern = os.path.join(base, words[0])
                pattern += "/*" if os.path.isdir(pattern) else ""
                for path in sorted(glob.glob(pattern)):
                    yield from lines(read(path) or "", depth + 1)
            else:
                yield name, words
    return list(lines(text, 0))


def judge_apache_workers(stage, directives, needed):
    """A stream takes one thread; graceful reloads need twice the processes."""
    threads = number(last(directives, "threadsperchild"), 25)
    limit = number(last(directives, "threadlimit"), 64)
    servers = number(last(directives, "serverlimit"), 16)
    workers = number(last(directives, "maxrequestworkers") or last(directives, "maxclients"),
                     servers * threads)
    threads = min(threads, limit)
    workers = min(workers, servers * threads)
    remedy = (f"Set MaxRequestWorkers above {needed}, ThreadsPerChild and ThreadLimit 128, and ServerLimit to twice "
              "what that needs, as in contrib/apache/tpi-stream-workers.conf; then restart Apache, as a reload does "
              "not suffice. Or lower the caps of the daemon.")
    if workers < needed:
        return Finding(stage, WARNING, f"too few workers: MaxRequestWorkers is {workers}, the caps allow {needed} "
                       f"streams; at {workers} the site hangs", remedy)
    if servers * threads < 2 * workers:
        return Finding(stage, WARNING, f"too few processes: ServerLimit {servers} x ThreadsPerChild {threads} leave "
                       "no room for a graceful reload while streams are open", remedy)
    return Finding(stage, OK, f"MaxRequestWorkers {workers} for {needed} streams, with room for a reload")


def streams_proxy_passes(directives):
    """The ProxyPass to FastCGI of each stream; others may lead to PHP-FPM."""
    section = ""
    for name, words in directives:
        if name.startswith("<location"):
            section = " ".join(words)
        elif name.startswith("</location"):
            section = ""
        elif name == "proxypass" and words and "fcgi://" in " ".join(words) and \
                STREAM_PATH.search(section or words[0]):
            yield words


def judge_apache_streams(stage, directives, heartbeat):
    found = list(streams_proxy_passes(directives))
    if not found:
        return Finding(stage, SKIPPED, "no ProxyPass for the streams")
    for words in found:
        values = dict(word.lower().split("=", 1) for word in words if re.match(r"\w+=", word))
        timeout = seconds_of(values.get("timeout"), seconds_of(
            last(directives, "proxytimeout"), seconds_of(last(directives, "timeout"), 60)))
        for wrong, text, remedy in (
                (values.get("flushpackets") != "on", "has no flushpackets=on",
                 "Set flushpackets=on: without it nothing arrives until a buffer is full."),
                (values.get("enablereuse") == "on", "has enablereuse=on",
                 "Set enablereuse=off: a kept connection holds a thread of the daemon."),
                (values.get("retry") != "0", "has no retry=0",
                 "Set retry=0: without it one failed connect means 60 s of 503 for everybody."),
                (timeout < 2 * heartbeat, f"has a time limit of {timeout:g} s",
                 f"Set timeout=60, or more than two heartbeats of {heartbeat:g} s.")):
            if wrong:
                return Finding(stage, WARNING, f"the ProxyPass {text}", remedy)
    return Finding(stage, OK, "flushpackets, enablereuse, retry and timeout of the ProxyPass")


def judge_apache_identity(stage, directives):
    """Under TPI_IDENTITY=web-server something must set TPI_USER."""
    if not any(streams_proxy_passes(directives)):
        return Finding(stage, SKIPPED, "no ProxyPass for the streams")
    sets = [words for name, words in directives
            if name.startswith(("proxyfcgisetenvif", "setenv", "rewriterule"))]
    if any("TPI_USER" in word for words in sets for word in words):
        return Finding(stage, OK, "TPI_USER is set")
    # A successful authentication sets REMOTE_USER, and AUTH_TYPE.
    authenticates = any(name == "authtype" for name, _ in directives)
    return judge_no_tpi_user(
        stage, "the configuration", authenticates,
        "Include tpi-stream-user.conf, or set ProxyFCGISetEnvIf \"true\" TPI_USER \"%{REMOTE_USER}\" in the location "
        "of the streams.")
