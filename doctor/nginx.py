"""The configuration of nginx."""

import re

from .configuration import STREAM_PATH, last, seconds_of
from .finding import Finding, OK, SKIPPED, WARNING
from .untrusted import number, plain


def read_nginx(text, find, outer=None):
    """
    The directives of nginx's configuration, a list of [name, words, inner list or None]. find(name)
    gives the texts of the files that an include names.
    """
    tokens = re.findall(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[{};]|#[^\n]*|[^\s{};]+', text)
    tokens = [token for token in tokens if not token.startswith("#")]
    result, words = [], []
    stack = [result]
    for token in tokens:
        if token == ";" and words:
            if words[0] == "include" and len(words) == 2:
                for inner in find(words[1]):
                    stack[-1] += read_nginx(inner, find)
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
    """Two connections a stream; descriptors: what a worker has where the configuration is silent."""
    events = next((inner for name, _, inner in tree if name == "events"), [])
    connections = number(last(events, "worker_connections"), 512)
    workers = last(tree, "worker_processes", "1")
    workers = processors if workers == "auto" else number(workers, 1)
    nofile = number(last(tree, "worker_rlimit_nofile"), descriptors)
    streams = connections * workers // 2
    remedy = (f"contrib/nginx/tpi-stream-workers.conf: worker_connections {needed * 2 + 192}; or more, "
              f"and worker_rlimit_nofile {needed * 4}; at the top of nginx.conf; or lower the caps of "
              "the daemon.")
    if streams < needed:
        return Finding(stage, WARNING, f"worker_connections {connections} x {workers} carry {streams} "
                       f"streams, and the caps are {needed}", remedy)
    if nofile is not None and nofile < connections:
        return Finding(stage, WARNING, f"a worker has {nofile} descriptors for {connections} "
                       "worker_connections", remedy)
    return Finding(stage, OK, f"worker_connections {connections} x {workers} carry {streams} streams")


def streams_locations(tree, outer=()):
    """(words, the directives in effect) of each location for one of the two paths."""
    for name, words, inner in tree:
        if inner is None:
            continue
        effective = [*outer, *(entry for entry in tree if entry[2] is None)]
        if name == "location" and words and STREAM_PATH.search(words[-1]):
            yield words, [*effective, *inner]
        yield from streams_locations(inner, effective)


def judge_nginx_streams(stage, tree, heartbeat):
    found = list(streams_locations(tree))
    if not found:
        return Finding(stage, SKIPPED, "no location for the two paths")
    for words, directives in found:
        for passes, timeout, buffering in (
                ("fastcgi_pass", "fastcgi_read_timeout", "fastcgi_buffering"),
                ("proxy_pass", "proxy_read_timeout", "proxy_buffering")):
            if last(directives, passes) is None:
                continue
            limit = seconds_of(last(directives, timeout), 60)
            if limit < 2 * heartbeat:
                return Finding(stage, WARNING, f"location {plain(' '.join(words))}: {timeout} is "
                               f"{limit:g} s", f"{timeout} above two heartbeats of {heartbeat:g} s: 120s.")
            ignored = [word for entry in directives if entry[0] in (
                "fastcgi_ignore_headers", "proxy_ignore_headers") for word in entry[1]]
            if last(directives, buffering, "on") != "off" and "X-Accel-Buffering" in ignored:
                return Finding(stage, WARNING, f"location {plain(' '.join(words))} buffers",
                               f"{buffering} off;")
    return Finding(stage, OK, f"time limits and buffering of {len(found)} locations")
