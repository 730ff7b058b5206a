# SPDX-License-Identifier: ISC
"""Read nginx's configuration, and judge what it sets for the streams."""

import re

from .configuration import STREAM_PATH, judge_no_tpi_user, last, seconds_of
from .finding import Finding, OK, SKIPPED, WARNING
from .untrusted import number, plain

DEPTH_MAX = 20


def read_nginx(text, find, depth=0):
    """
    The directives of nginx's configuration, a list of [name, words, inner list or None]. find(name)
    returns the texts of the files that an include names.
    """
    tokens = re.findall(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[{};]|#[^\n]*|[^\s{};]+', text)
    tokens = [token for token in tokens if not token.startswith("#")]
    result, words = [], []
    stack = [result]
    for token in tokens:
        if token == ";" and words:
            if words[0] == "include" and len(words) == 2:
                for inner in find(words[1]) if depth < DEPTH_MAX else ():
                    stack[-1] += read_nginx(inner, find, depth + 1)
            else:
                stack[-1].append([words[0], words[1:], None])
            words = []
        elif token == "{" and words:
            stack[-1].append([words[0], words[1:], []])
            stack.append(stack[-1][-1][2])
            words = []
        elif token == "}" and len(stack) > 1:
            stack.pop()
        elif token not in ";{}":
            words.append(token.strip("\"'"))
    return result


def nginx_files(text):
    """What nginx -T prints, as {path: text}."""
    parts = re.split(r"^# configuration file (.*):$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def judge_nginx_workers(stage, tree, needed, descriptors=None, processors=1):
    """A stream takes two connections. descriptors: what a worker has if the configuration does not set it."""
    events = next((inner for name, _, inner in tree if name == "events"), None) or []
    connections = number(last(events, "worker_connections"), 512)
    workers = last(tree, "worker_processes", "1")
    workers = processors if workers == "auto" else number(workers, 1)
    nofile = number(last(tree, "worker_rlimit_nofile"), descriptors)
    streams = connections * workers // 2
    remedy = (f"Set worker_connections {needed * 2 + 192}; or more, and worker_rlimit_nofile {needed * 4}; at the top "
              "of nginx.conf, as in contrib/nginx/tpi-stream-workers.conf, or lower the caps of the daemon.")
    if streams < needed:
        return Finding(stage, WARNING, f"too few connections: worker_connections {connections} x {workers} carry "
                       f"{streams} streams, the caps allow {needed}", remedy)
    if nofile is not None and nofile < connections:
        return Finding(stage, WARNING, f"too few descriptors: a worker has {nofile} for {connections} "
                       "worker_connections", remedy)
    return Finding(stage, OK, f"worker_connections {connections} x {workers} carry {streams} streams")


def streams_locations(tree, outer=()):
    """(words, levels) of each location for one of the streams; levels: the directives, from the outermost in."""
    for name, words, inner in tree:
        if inner is None:
            continue
        levels = [*outer, [entry for entry in tree if entry[2] is None]]
        if name == "location" and words and STREAM_PATH.search(words[-1]):
            yield words, [*levels, inner]
        yield from streams_locations(inner, levels)


def judge_nginx_streams(stage, tree, heartbeat):
    found = list(streams_locations(tree))
    if not found:
        return Finding(stage, SKIPPED, "no location for the streams")
    for words, levels in found:
        directives = sum(levels, [])
        for passes, timeout, buffering in (
                ("fastcgi_pass", "fastcgi_read_timeout", "fastcgi_buffering"),
                ("proxy_pass", "proxy_read_timeout", "proxy_buffering")):
            if last(directives, passes) is None:
                continue
            limit = seconds_of(last(directives, timeout), 60)
            if limit < 2 * heartbeat:
                return Finding(stage, WARNING, f"location {plain(' '.join(words))}: {timeout} is {limit:g} s, below "
                               f"two heartbeats of {heartbeat:g} s", f"Set {timeout} 120s; or longer.")
            ignored = [word for entry in directives if entry[0] in (
                "fastcgi_ignore_headers", "proxy_ignore_headers") for word in entry[1]]
            if last(directives, buffering, "on") != "off" and "X-Accel-Buffering" in ignored:
                return Finding(stage, WARNING, f"location {plain(' '.join(words))}: it buffers, as X-Accel-Buffering "
                               "is ignored", f"Set {buffering} off;")
    return Finding(stage, OK, f"time limits and buffering of {len(found)} locations")


def judge_nginx_identity(stage, tree):
    """Under TPI_IDENTITY=web-server each location must set TPI_USER."""
    count = 0
    for words, levels in streams_locations(tree):
        if last(sum(levels, []), "fastcgi_pass") is None:
            continue
        count += 1
        # Those of an outer level are inherited only where an inner one has none.
        parameters = next((names for names in (
            [entry[1][0] for entry in level if entry[0] == "fastcgi_param" and entry[1]]
            for level in reversed(levels)) if names), [])
        if "TPI_USER" not in parameters:
            return judge_no_tpi_user(
                stage, "location " + " ".join(words), "REMOTE_USER" in parameters,
                "Include tpi-stream-auth-basic.conf or tpi-stream-auth-request.conf, or, next to auth_basic, set "
                "fastcgi_param TPI_USER $remote_user; in the location.")
    if not count:
        return Finding(stage, SKIPPED, "no location passes the streams to tpi-streamd")
    return Finding(stage, OK, "TPI_USER is set")
