# SPDX-License-Identifier: ISC
"""Streams: the bytes on the wire, and which streams a wake-up reaches."""

import itertools
import random
import re
import threading

import pytest

from answers import (PING, SHUTDOWN, SYNC, after_first, check_ended, check_first, frame, issue,
                     notification)
from fcgi import live, wait_all
from servers import ValkeyClient, broadcast_channel, project_channel, run_streamd, user_channel
from timing import eventually, scaled


@pytest.fixture(scope="module")
def daemon(module_streamd):
    return module_streamd(TPI_PROJECT_ACCESS="allow", SSE_PER_USER_CAP=10000,
                          SSE_ISSUES_PER_USER_CAP=10000)


@pytest.mark.parametrize("named", [{}, {"projects": "7"}], ids=["notifications", "issues"])
def test_first_bytes(daemon, named):
    """A stream begins with its headers, the sync and a retry time of 1000 to 5000 ms, and then nothing."""
    with daemon.stream(**named) as peer:
        check_first(peer)
        assert after_first(peer.quiet(0.3)) == b""


def test_retry_is_spread(daemon):
    """The retry times differ, so that browsers do not reconnect in the same second."""
    peers = daemon.streams(40)
    times = [check_first(peer) for peer in peers]
    assert len(set(times)) > 20 and max(times) - min(times) > 1000
    for peer in peers:
        peer.close()


def test_subscribed_before_sync(daemon, valkey):
    """When a stream gets its sync, all its channels are subscribed."""
    with daemon.stream("early"):
        assert valkey.subscribers(user_channel("early")) == 1
        assert valkey.subscribers(broadcast_channel()) == 1
    with daemon.stream(projects="501,502"):
        assert [valkey.subscribers(project_channel(p)) for p in (501, 502)] == [1, 1]


def test_wakeups_byte_for_byte(daemon, valkey):
    """Wake-ups of the user's and the broadcast channel arrive in order and unchanged."""
    with daemon.stream("ann") as peer:
        sent = []
        for number in range(20):
            channel = broadcast_channel() if number % 2 else user_channel("ann")
            sent.append(f'{{"id":"n{number}","event":"notification","x":[{number},"\u00e4\u20ac\U0001f600"]}}'.encode())
            valkey.publish(channel, sent[-1])
        peer.wait_body(frame(sent[-1]))
        assert after_first(peer) == b"".join(frame(payload) for payload in sent)


LINES = {  # published payload, and its bytes on the wire; None: only the parsed lines are defined
    "LF": (b'{"id":"1",\n"event":"e"}', b'data: {"id":"1",\ndata: "event":"e"}\n\n'),
    "CR LF": (b'{"id":"1",\r\n"event":"e"}', b'data: {"id":"1",\ndata: "event":"e"}\n\n'),
    "CR": (b'{"id":"1",\r"event":"e"}', b'data: {"id":"1",\ndata: "event":"e"}\n\n'),
    "LF CR": (b'{"id":"1",\n\r"event":"e"}', b'data: {"id":"1",\ndata: \ndata: "event":"e"}\n\n'),
    "empty lines": (b'{\n\n\r\n"id":"1"}', b'data: {\ndata: \ndata: \ndata: "id":"1"}\n\n'),
    "LF after": (b'{"id":"1"}\n', None),
    "LF before": (b'\n{"id":"1"}', b'data: \ndata: {"id":"1"}\n\n'),
    "spaces around": (b' \t{"id":"1"} ', b'data:  \t{"id":"1"} \n\n'),
    "several lines": (b'{\n"a":"x"\n}', b'data: {\ndata: "a":"x"\ndata: }\n\n'),
    "Unicode line separators": ('{"a":"\u2028\u2029\u0085"}'.encode(),
                                   'data: {"a":"\u2028\u2029\u0085"}\n\n'.encode()),
}


@pytest.mark.parametrize("payload, wire", LINES.values(), ids=LINES)
def test_payload_with_line_breaks(daemon, valkey, payload, wire):
    """Each line of a payload becomes one data: line without CR, and a parser gets the same lines back."""
    with daemon.stream("lines") as peer:
        valkey.publish(user_channel("lines"), payload)
        valkey.publish(user_channel("lines"), notification("end"))
        peer.wait_data(notification("end"))
        got = after_first(peer).removesuffix(frame(notification("end")))
        assert b"\r" not in got
        if wire is not None:
            assert got == wire
        text = payload.decode().replace("\r\n", "\n").replace("\r", "\n")
        assert peer.events.data[-2].removesuffix("\n") == text.removesuffix("\n")


def test_ping(streamd, valkey):
    """A ping is sent after SSE_HEARTBEAT_MS of silence, counted from the last byte sent."""
    daemon = streamd(SSE_HEARTBEAT_MS=1000)
    with daemon.stream("ann") as peer:
        for number in range(6):
            peer.quiet(0.4)
            valkey.publish(user_channel("ann"), notification(number))
        peer.wait(lambda p: after_first(p).endswith(PING + PING), 20, "two pings")
        last = peer.opened
        for time, content in peer.arrivals:
            assert content != PING or time - last > 0.5, "a ping without silence before it"
            last = time
        text = after_first(peer)
        assert text.endswith(PING + PING)
        assert [comment.text for comment in peer.events.comments] == [" ping"] * text.count(PING)


@pytest.mark.slow
def test_max_age(streamd):
    """A stream ends at the age of SSE_MAX_AGE_SECONDS, plus or minus 20 %, without a closing event."""
    daemon = streamd(SSE_MAX_AGE_SECONDS=10)
    peers = [daemon.stream(f"u{number}") for number in range(20)]
    wait_all(peers, lambda p: p.closed, 20, "the end by age")
    for peer in peers:
        check_ended(peer)
        assert after_first(peer) == b""
        assert 7.9 < peer.closed_at - peer.opened < 12 + scaled(2)
    ages = [peer.closed_at - peer.opened for peer in peers]
    assert max(ages) - min(ages) > 0.5, "not spread"


@pytest.mark.parametrize("number", [15, 2], ids=["SIGTERM", "SIGINT"])
def test_shutdown(streamd, number):
    """On SIGTERM and SIGINT every stream gets the shutdown event and ends; the exit status is 0."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow")
    peers = [daemon.stream("ann"), daemon.stream("bob"), daemon.stream("ann", projects="7")]
    daemon.stop(number)
    for peer in peers:
        check_ended(peer.wait_end())
        assert after_first(peer) == SHUTDOWN


# Isolation

def test_isolation(streamd, valkey):
    """A stream gets the wake-ups of its own tenant, kind, user and projects only, also where channel names are alike."""
    one = streamd(INSTANCE_TENANT_ID="one", TPI_PROJECT_ACCESS="allow")
    two = streamd(INSTANCE_TENANT_ID="two", TPI_PROJECT_ACCESS="allow")
    streams = {
        "one ann": one.stream("ann"), "one bob": one.stream("bob"),
        "one 7": one.stream("ann", projects="7"), "one 7 8": one.stream("bob", projects="7,8"),
        "two ann": two.stream("ann"), "two 7": two.stream("ann", projects="7"),
    }
    expected = {name: [] for name in streams}

    def publish(channel, *names):
        payload = notification(channel)
        valkey.publish(channel, payload)
        for name in names:
            expected[name].append(payload)

    publish(user_channel("ann", "one"), "one ann")
    publish(user_channel("bob", "one"), "one bob")
    publish(user_channel("ann", "two"), "two ann")
    publish(user_channel("bob", "two"))
    publish(project_channel(7, "one"), "one 7", "one 7 8")
    publish(project_channel(8, "one"), "one 7 8")
    publish(project_channel(8, "two"))
    publish(project_channel(7, "two"), "two 7")
    publish(project_channel(77, "one"))
    publish("issues:tenant:one:project:07")
    publish("issue-update:tenant:one:project:7")
    publish(project_channel(7, "one", "issue-updates"), "one 7", "one 7 8")
    publish(project_channel(8, "two", "issue-updates"))
    publish("notifications:tenant:one:user:ann:x")
    publish("notifications:tenant:one:user:*")
    publish("notifications:tenant:default:broadcast")
    publish(broadcast_channel("one"), "one ann", "one bob")
    publish(broadcast_channel("two"), "two ann")
    for project in 7, 8:
        publish(project_channel(project, "one"), "one 7 8", *(["one 7"] if project == 7 else []))
    publish(project_channel(7, "two"), "two 7")
    for name, peer in streams.items():
        peer.wait(lambda p, n=name: len(p.events.data) > len(expected[n]), what=f"wake-ups of {name}")
        assert after_first(peer.quiet(0.05)) == b"".join(map(frame, expected[name])), name


def test_500_projects(daemon, valkey):
    """A stream of 500 projects gets the wake-ups of each in order; each channel is subscribed once, and unsubscribed at
    the end."""
    projects = random.Random(1).sample(range(1, 2147483648), 500)
    with daemon.stream(projects=",".join(map(str, projects))) as peer:
        sent = [issue(n, project) for n, project in enumerate(projects, 1)]
        for project, payload in zip(projects, sent):
            assert valkey.publish(project_channel(project), payload) == 1
        peer.wait_data(sent[-1])
        assert after_first(peer) == b"".join(map(frame, sent))
    for project in projects[0], projects[250], projects[499]:
        valkey.wait_subscribers(project_channel(project), 0)


@pytest.mark.parametrize("setting", [None, "issues", "issue-updates", "c , issue-updates,a,b"])
def test_prefixes(streamd, valkey, setting):
    """A stream gets every wake-up that is published under a prefix of TPI_ISSUES_CHANNEL_PREFIX, in order, and none of
    another prefix; at the end all channels are unsubscribed."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", TPI_ISSUES_CHANNEL_PREFIX=setting)
    ours = [prefix.strip() for prefix in (setting or "issues,issue-updates").split(",")]
    assert f"TPI_ISSUES_CHANNEL_PREFIX={','.join(ours)}\n" in run_streamd(
        "--check-config", **({"TPI_ISSUES_CHANNEL_PREFIX": setting} if setting else {})).stdout
    with daemon.stream(projects="7,8") as peer, daemon.stream("bob", projects="8") as other:
        expected = []
        for number in range(1, 21):
            payload = issue(number // 2, 7)
            for prefix in "issues", "issue-updates", "a", "b", "c", "d":
                assert valkey.publish(project_channel(7, prefix=prefix), payload) == (prefix in ours)
            expected += [payload] * len(ours)
        last = project_channel(8, prefix=ours[-1])
        assert valkey.publish(last, issue(99, 8)) == 1
        for one, payloads in (peer, [*expected, issue(99, 8)]), (other, [issue(99, 8)]):
            one.wait_data(issue(99, 8))
            assert after_first(one) == b"".join(map(frame, payloads))
    for project in 7, 8:
        for prefix in ours:
            valkey.wait_subscribers(project_channel(project, prefix=prefix), 0)


@pytest.mark.parametrize("tenant", ["a" * 255, "!#$%&'()+,-./;<=>@^_`{|}~"], ids=["longest", "odd"])
def test_tenant(streamd, valkey, tenant):
    """The tenant may have any allowed character and 255 bytes, and is part of the channel name unchanged."""
    daemon = streamd(INSTANCE_TENANT_ID=tenant)
    with daemon.stream("b" * 255) as peer:
        assert valkey.publish(user_channel("b" * 255, tenant), notification(1)) == 1
        peer.wait_data(notification(1))


# The reference count of channels

def test_channels_are_counted(daemon, valkey):
    """A channel is subscribed once for all its streams, and unsubscribed when the last one ends."""
    channel = user_channel("count")
    first, second = daemon.stream("count"), daemon.stream("count")
    assert valkey.subscribers(channel) == 1
    first.close()
    with daemon.stream("other"):
        assert valkey.publish(channel, notification(1)) == 1
        second.wait_data(notification(1))
    second.close()
    valkey.wait_subscribers(channel, 0)
    with daemon.stream("count") as third:
        assert valkey.publish(channel, notification(2)) == 1
        third.wait_data(notification(2))


def test_one_connection_for_all(streamd, new_valkey):
    """One connection to Valkey serves all streams of both kinds."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow", SSE_PER_USER_CAP=100,
                     SSE_ISSUES_PER_USER_CAP=100)
    daemon.streams(20)
    daemon.streams(20, projects="1,2,3")
    clients = valkey("CLIENT", "LIST", "TYPE", "pubsub").decode().strip().split("\n")
    assert len(clients) == 1, clients


def test_nothing_is_lost_after_sync(daemon, valkey):
    """While other streams open and close, a stream gets everything published after its sync, once and in order."""
    stop = threading.Event()

    def publish():
        connection = ValkeyClient(valkey.address)
        for number in itertools.count():
            if stop.wait(0.001):
                break
            connection("PUBLISH", user_channel("busy"), notification(number))
        connection.close()
    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for _ in range(30):
            peers = [daemon.open("busy") for _ in range(5)]
            wait_all(peers, lambda p: len(p.events.data) > 20, what="wake-ups")
            for peer in peers:
                check_first(peer)
                numbers = [int(data.split('"')[3]) for data in peer.events.data
                           if data != '{"event":"sync"}']
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                peer.close()
    finally:
        stop.set()
        thread.join()


def test_wakeup_right_after_sync(daemon, valkey):
    """A wake-up published right after the sync arrives, also on a channel whose last stream has just ended."""
    for number in range(50):
        with daemon.stream("again") as peer:
            assert valkey.publish(user_channel("again"), notification(number)) == 1
            peer.wait_data(notification(number))


def test_burst(daemon, valkey):
    """A burst that Valkey delivers at once reaches every stream complete and in order."""
    with daemon.stream("burst") as peer, daemon.stream("burst") as other:
        sent = [notification(number) for number in range(500)]
        valkey.publish_all(user_channel("burst"), sent)
        for reader in peer, other:
            reader.wait_data(sent[-1], 20)
            assert after_first(reader) == b"".join(map(frame, sent))


# Valkey restarts

def test_sync_again_after_restart(streamd, new_valkey):
    """Streams stay open while Valkey restarts; then each gets one sync without a retry time, spread over
    SSE_SYNC_SPREAD_MS, and its wake-ups."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=1000, SSE_PER_USER_CAP=1000)
    peers = daemon.streams(50)
    valkey.restart()
    wait_all(peers, lambda p: after_first(p) == SYNC, 20, "the second sync")
    times = [peer.events.events[-1].time for peer in peers]
    assert max(times) - min(times) > 0.3, "not spread"
    assert valkey.publish(user_channel("u1"), notification(1)) == 1
    wait_all(peers, lambda p: p.events.data[-1] == notification(1), what="a wake-up after the restart")
    for peer in peers:
        assert after_first(peer) == SYNC + frame(notification(1))
        assert len(peer.events.retries) == 1


def test_no_spread(streamd, new_valkey):
    """With SSE_SYNC_SPREAD_MS=0, all streams get the sync at once."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0, SSE_PER_USER_CAP=1000)
    peers = daemon.streams(20)
    valkey.restart()
    wait_all(peers, lambda p: after_first(p) == SYNC, 20, "the second sync")
    times = [peer.events.events[-1].time for peer in peers]
    assert max(times) - min(times) < scaled(0.5)


def test_channels_linger(streamd, new_valkey):
    """A channel without streams stays subscribed for seconds: a stream that joins it meanwhile begins at once, even
    while Valkey does not respond, and misses nothing that is published after its sync."""
    valkey = new_valkey().start()
    # With one slot, a stream can begin only after the one before it has ended.
    daemon = streamd(VALKEY_URL=valkey.url, SSE_PER_TENANT_CAP=1)
    channel = user_channel("linger")

    def opened(user):
        peer = daemon.open(user).wait(lambda p: p.closed or live(p))
        return peer if live(peer) else None
    daemon.stream("linger").close()
    eventually(lambda: opened("other"), what="the slot of the stream that ended").close()
    assert valkey.subscribers(channel) == 1
    valkey.pause()
    try:
        peer = eventually(lambda: opened("linger"), what="a stream without Valkey")
    finally:
        valkey.resume()
    sent = [notification(number) for number in range(100)]
    assert valkey.publish_all(channel, sent) == [1] * 100
    peer.wait_data(sent[-1])
    assert after_first(peer) == b"".join(map(frame, sent))
    peer.close()
    valkey.wait_subscribers(channel, 0)


def test_joins_share_commands(streamd, new_valkey):
    """The channels of a stream are subscribed with few commands, and opening and closing it again costs none."""
    def commands():
        stats = valkey("INFO", "commandstats").decode()
        return sum(int(count) for count in re.findall(r"cmdstat_(?:un)?subscribe:calls=(\d+)", stats))
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow")
    projects = ",".join(map(str, range(1, 501)))
    before = commands()
    for _ in range(20):
        daemon.stream(projects=projects).close()
    assert 1 <= commands() - before <= 20  # 1000 channels, 64 in a command; the channel of revocations
