"""The configuration of Apache."""

import glob
import os
import re

from .configuration import STREAM_PATH, last, seconds_of
from .finding import Finding, OK, SKIPPED, WARNING
from .procfs import read
from .untrusted import number


def read_apache(text, base, depth=0):
    """The directives of Apache's configuration, sections and conditions opened up, in one list."""
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
            elif name in ("include", "includeoptional") and words and depth < 20:
                pattern = os.path.join(base, words[0])
                pattern += "/*" if os.path.isdir(pattern) else ""
                for path in sorted(glob.glob(pattern)):
                    yield from lines(read(path) or "", depth + 1)
            else:
                yield name, words
    return list(lines(text, depth))


def judge_apache_workers(stage, directives, needed):
    """One thread a stream, and twice the processes for graceful reloads."""
    threads = number(last(directives, "threadsperchild"), 25)
    limit = number(last(directives, "threadlimit"), 64)
    servers = number(last(directives, "serverlimit"), 16)
    workers = number(last(directives, "maxrequestworkers") or last(directives, "maxclients"),
                     servers * threads)
    threads = min(threads, limit)
    workers = min(workers, servers * threads)
    remedy = (f"contrib/apache/tpi-stream-workers.conf: MaxRequestWorkers above {needed}, ThreadsPerChild "
              "and ThreadLimit 128, ServerLimit twice what that needs; then restart Apache (a reload "
              "does not do). Or lower the caps of the daemon.")
    if workers < needed:
        return Finding(stage, WARNING, f"MaxRequestWorkers {workers}, and the caps are {needed}: at "
                       f"{workers} streams the site hangs", remedy)
    if servers * threads < 2 * workers:
        return Finding(stage, WARNING, f"ServerLimit {servers} x ThreadsPerChild {threads} is no room for "
                       "a graceful reload while streams are open", remedy)
    return Finding(stage, OK, f"MaxRequestWorkers {workers} for {needed} streams, with room for a reload")


def streams_proxy_passes(directives):
    """The ProxyPass to FastCGI for the two paths: PHP-FPM may have others."""
    section = ""
    for name, words in directives:
        if name.startswith("<location"):
            section = " ".join(words)
        elif name.startswith("</location"):
            section = ""
        elif name == "proxypass" and "fcgi://" in " ".join(words) and \
                STREAM_PATH.search(section or words[0]):
            yield words


def judge_apache_streams(stage, directives, heartbeat):
    found = list(streams_proxy_passes(directives))
    if not found:
        return Finding(stage, SKIPPED, "no ProxyPass for the two paths")
    for words in found:
        values = dict(word.lower().split("=", 1) for word in words if re.match(r"\w+=", word))
        timeout = seconds_of(values.get("timeout"), seconds_of(
            last(directives, "proxytimeout"), seconds_of(last(directives, "timeout"), 60)))
        for wrong, text, remedy in (
                (values.get("flushpackets") != "on", "without flushpackets=on",
                 "flushpackets=on: else nothing arrives until a buffer is full."),
                (values.get("enablereuse") == "on", "with enablereuse=on",
                 "enablereuse=off: a kept connection holds a thread of the daemon."),
                (values.get("retry") != "0", "without retry=0",
                 "retry=0: else one failed connect means 60 s of 503 for everybody."),
                (timeout < 2 * heartbeat, f"with a time limit of {timeout:g} s",
                 f"timeout= above two heartbeats of {heartbeat:g} s: 60.")):
            if wrong:
                return Finding(stage, WARNING, f"the ProxyPass is {text}", remedy)
    return Finding(stage, OK, "flushpackets, enablereuse, retry and timeout of the ProxyPass")
