#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""One attacker: a process that repeats one kind of request or message as fast as it can.

    attacker.py ATTACK STREAMD-SOCKET VALKEY-SOCKET SECONDS

Prints how often it did. The functions below are the attacks; test_abuse.py has a row for each.
"""

import collections
import contextlib
import itertools
import os
import select
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "e2e"))
sys.dont_write_bytecode = True

import fcgi  # noqa: E402
from servers import project_channel  # noqa: E402

OPEN = 8  # connections that an attacker has open at the same time; SSE_ISSUES_PER_USER_CAP
VICTIM = 7  # the project that the honest stream watches


def connect(address):
    """A new connection, None if the daemon's queue of connections is full."""
    peer = socket.socket(socket.AF_UNIX)
    peer.setblocking(False)
    try:
        peer.connect(address)
    except BlockingIOError:
        peer.close()
        return None
    return peer


def requests(address, make):
    """Opens a connection for each step, sends make(step), and closes the oldest once OPEN are open."""
    peers = collections.deque()
    for step in itertools.count(1):
        data = make(step)
        while not (peer := connect(address)):
            time.sleep(0.001)
        with contextlib.suppress(OSError):
            peer.send(data)
        peers.append(peer)
        if len(peers) > OPEN:
            peers.popleft().close()
        yield step


def patient(address, make, most):
    """Keeps up to most connections open, and replaces each as soon as it is answered."""
    peers = {}
    with select.epoll() as answered:
        for step in itertools.count(1):
            if peer := connect(address):
                with contextlib.suppress(OSError):
                    peer.send(make(step))
                answered.register(peer, select.EPOLLIN)
                peers[peer.fileno()] = peer
            wait = 0 if peer else 0.001
            while wait is not None:
                for number, _ in answered.poll(wait):
                    peers.pop(number).close()
                wait = 0.01 if len(peers) >= most else None
                yield step


def messages(address, make, at_once=64):
    """Publishes make(step), a (channel, payload), many with one write, and reads the replies."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address)
        for first in itertools.count(1, at_once):
            wanted = at_once
            words = [[b"PUBLISH", *make(step)] for step in range(first, first + at_once)]
            client.sendall(b"".join(b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in three)
                                    for three in words))
            while wanted > 0:
                wanted -= client.recv(65536).count(b"\n")
            yield first + at_once - 1


def nothing(*_):
    """No attack: what the others' figures are compared with."""
    for step in itertools.count(1):
        time.sleep(0.1)
        yield step


def project_streams(daemon, _):
    """Opens and closes streams of 500 projects that nobody else watches."""
    def make(step):
        first = 1000 + step * 500
        return fcgi.request(fcgi.params("attacker", ",".join(map(str, range(first, first + 500)))))
    return requests(daemon, make)


def same_projects(daemon, _):
    """Opens and closes streams of the same 500 projects."""
    data = fcgi.request(fcgi.params("attacker", ",".join(map(str, range(1000, 1500)))))
    return requests(daemon, lambda _: data)


def anonymous(daemon, _):
    """Requests without a user."""
    data = fcgi.request(fcgi.params(None))
    return requests(daemon, lambda _: data)


def made_up_cookies(daemon, _):
    """Requests with made-up cookies, each a different one. They stay open until they are answered."""
    return patient(daemon, lambda step: fcgi.request(fcgi.params(None, HTTP_COOKIE=f"session=made-up{step}")), 900)


def cross_site(daemon, _):
    """Pages of another site open streams with the user's cookies."""
    data = fcgi.request(fcgi.params("honest", VICTIM, HTTP_SEC_FETCH_SITE="cross-site",
                                    HTTP_ORIGIN="https://evil.example", HTTP_HOST="tpi.example"))
    return requests(daemon, lambda _: data)


def own_streams(daemon, _):
    """Opens and closes notification streams of one user."""
    data = fcgi.request(fcgi.params("attacker"))
    return requests(daemon, lambda _: data)


def aborted_heads(daemon, _):
    """Closes the connection in the middle of the request's parameters."""
    data = fcgi.request(fcgi.params("attacker", COOKIE="x" * 2000))[:1000]
    return requests(daemon, lambda _: data)


def bad_requests(daemon, _):
    """Requests that are wrong in ways that may be logged, each different."""
    kinds = [fcgi.params("attacker", "1,,2"), fcgi.params("bad user\x1b[31m\n"), fcgi.params(["a", "b"]),
             fcgi.params("attacker", SCRIPT_NAME="/\x07"), fcgi.params("attacker", REQUEST_METHOD="PUT")]
    datas = [fcgi.request(pairs) for pairs in kinds]
    datas += [b"\x01\x01" + bytes(100), b"GET / HTTP/1.1\r\n\r\n",
              fcgi.request(fcgi.params("attacker", COOKIE="x" * 70000))]
    return requests(daemon, lambda step: datas[step % len(datas)])


def revocations(_, valkey):
    """Revokes the access of users who have no stream."""
    return messages(valkey, lambda step: (b"notifications:tenant:default:revoke", b'{"event":"revoke","user":"nobody%d"}' % step))


def to_nobody(_, valkey):
    """Wake-ups on channels that nobody watches."""
    return messages(valkey, lambda step: (project_channel(100000 + step).encode(), b'{"event":"issue-updated"}'))


def oversized(_, valkey):
    """Payloads over the limit, on a channel that is watched."""
    payload = b'{"event":"%s"}' % (b"x" * 20000)
    return messages(valkey, lambda _: (project_channel(VICTIM).encode(), payload), 1)


def not_json(_, valkey):
    """Payloads that are no JSON, on a channel that is watched."""
    return messages(valkey, lambda _: (project_channel(VICTIM).encode(), b"\x1b[31m\r\n"))


def main():
    name, daemon, valkey, seconds = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    count = 0
    for count in globals()[name](daemon, valkey):
        if time.monotonic() >= end:
            break
    print(count)


if __name__ == "__main__":
    main()
