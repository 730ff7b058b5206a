# SPDX-License-Identifier: ISC
"""The combined stream carries any topics together, each wake-up labelled with its topic; access, re-checks and caps are
as for every stream."""

import itertools
import json
import random
import time
import uuid
from types import SimpleNamespace

import pytest

from answers import FIRST, SYNC, after_first, check_answer, check_ended, check_evicted, check_first, check_later, frame
from application import ANN, MILESTONES, MODELS, PROJECTS, SESSION, TEST_RUNS, by, listen, message
from fcgi import live, wait_all
from ledger import Ledger
from test_exact import Publisher
from test_publish import run
from timing import eventually
from topics import BY_NAME, RESTRICTED, TOPICS

PATH = "/api/stream"
INTERVAL = 5  # seconds; the shortest TPI_RECHECK_SECONDS
ALL = {"notifications": 1, **{topic.name: 7 for topic in RESTRICTED}}


def combined(parameters=None, **named):
    """The arguments of fcgi.params() for a combined stream."""
    query = "&".join(f"{name}={value}" for name, value in (ALL if parameters is None else parameters).items())
    return {"SCRIPT_NAME": PATH, "QUERY_STRING": query, **named}


def label(topic, id=7):
    return topic.name if topic.model is None else f"{topic.name}:{id}"


def labelled(topic, payload, id=7):
    return f"event: {label(topic, id)}\n".encode() + frame(payload)


@pytest.fixture
def tenant():
    """A tenant of the test's own, because all tests share one Valkey."""
    return f"t-{uuid.uuid4().hex[:8]}"


NUMBERS = itertools.count(1000)


def check_carries(valkey, peer, topics, tenant, user="u1", id=7):
    """Of wake-ups on the channels of all topics the stream gets those of these topics, labelled, in order."""
    before, expected = len(peer.quiet(0).body), b""
    for topic in TOPICS:
        for channel in topic.all_channels(id, user, tenant):
            payload = topic.payload % next(NUMBERS)
            valkey.publish(channel, payload)
            expected += labelled(topic, payload, id) if topic in topics else b""
    peer.wait(lambda p: len(p.body) - before >= len(expected), what="the wake-ups")
    assert bytes(peer.body[before:]) == expected


# The stream

def test_every_topic(streamd, valkey, tenant):
    """It begins like every stream; each wake-up carries the label of its topic, and a sync carries none."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant)
    with daemon.stream(**combined()) as peer:
        check_first(peer)
        check_carries(valkey, peer, TOPICS, tenant)
        assert {event.type for event in peer.events.events} == {"message", *map(label, TOPICS)}
        assert [event.data for event in peer.events.events if event.type == "message"] == ['{"event":"sync"}']


def test_several_ids(streamd, valkey, tenant):
    """Each id has its own label, whatever the payload says; ids that were not asked for are not carried."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant)
    issues, runs = BY_NAME["issues"], BY_NAME["testRuns"]
    with daemon.stream(**combined({"issues": "9,7", "testRuns": "3,4"})) as peer:
        expected = b""
        for topic, id in (issues, 7), (runs, 3), (issues, 8), (issues, 9), (runs, 4), (runs, 7):
            payload = '{"event":"issues:1","runId":5,"projectId":6}'
            valkey.publish(topic.channel(id, tenant=tenant), payload)
            expected += labelled(topic, payload, id) if id in ((7, 9) if topic is issues else (3, 4)) else b""
        peer.wait(lambda p: len(after_first(p)) >= len(expected), what="the wake-ups")
        assert after_first(peer) == expected


def test_two_channels_are_two_events(streamd, valkey, tenant):
    """A wake-up that tpi-publish sends to the channels of a test run and its project is two events."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant)
    with daemon.stream(**combined({"testRuns": "42", "projectTestRuns": "7"})) as peer:
        run("test-run", "--project", "7", "--run", "42", "--tenant", tenant, "--url", valkey.url).silent()
        peer.wait(lambda p: len(p.events.events) == 3, what="two events")
        first, second = peer.events.events[1:]
        assert {first.type, second.type} == {"testRuns:42", "projectTestRuns:7"} and first.data == second.data


def test_plain_streams_beside(streamd, valkey, tenant):
    """Combined streams and streams of single topics on the same channels each get their own form."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant)
    topic = BY_NAME["projectTestRuns"]
    peers = [(i % 2, daemon.stream(f"u{i}", **(combined({topic.name: "7"}) if i % 2 else topic.params())))
             for i in range(20)]
    payloads = [topic.payload % n for n in range(200)]
    valkey.publish_all(topic.channel(tenant=tenant), payloads)
    for is_combined, peer in peers:
        expected = b"".join(labelled(topic, p) if is_combined else frame(p) for p in payloads)
        peer.wait(lambda p: len(after_first(p)) >= len(expected), what="the burst")
        assert after_first(peer) == expected
        peer.close()


def test_payload_with_line_breaks(streamd, valkey, tenant):
    """A payload of several lines has one label."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant)
    with daemon.stream(**combined({"issues": "7"})) as peer:
        valkey.publish(BY_NAME["issues"].channel(tenant=tenant), '{"event":\n"x"}')
        peer.wait_body(b'event: issues:7\ndata: {"event":\ndata: "x"}\n\n')


@pytest.mark.parametrize("query", [
    "", "x=1", "projectId=7", "issues=", "issues", "issues=0", "issues=7,", "issues=07", "issues=2147483648",
    "issues=x", "testRuns=1,2,-3", "issues=7&issues=8", "issues=7&%69ssues=7", "notifications=", "notifications=2",
    "notifications=1&notifications=1", "notifications=1&milestones=a", "projectTestRuns=7%00",
    "issues=" + ",".join(map(str, range(1, 252))) + "&testRuns=" + ",".join(map(str, range(1, 251)))])
def test_bad_parameters(module_streamd, query):
    """A missing, malformed or repeated parameter, and more than 500 ids in all, are 400 with a message."""
    if not hasattr(test_bad_parameters, "daemon"):
        test_bad_parameters.daemon = module_streamd(TPI_PROJECT_ACCESS="allow")
    check_answer(test_bad_parameters.daemon.ask(SCRIPT_NAME=PATH, QUERY_STRING=query), 400)


@pytest.mark.parametrize("path", ["/api/stream/", "/api/streams", "/api/Stream", "/api//stream", "/api/stream/7",
                                  "/stream"])
def test_lookalike_paths(module_streamd, path):
    """Paths that only resemble it are 404."""
    check_answer(module_streamd(TPI_PROJECT_ACCESS="allow").ask(**combined(SCRIPT_NAME=path)), 404)


def test_500_ids(streamd, valkey, tenant):
    """500 ids in all are served; unknown parameters are ignored."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant)
    ids = {"issues": range(1, 251), "testRuns": range(101, 351)}
    with daemon.stream(**combined({**{name: ",".join(map(str, of)) for name, of in ids.items()}, "x": 1})) as peer:
        for name, of in ids.items():
            valkey.publish(BY_NAME[name].channel(of[-1], tenant=tenant), '{"event":"x"}')
            peer.wait_body(labelled(BY_NAME[name], '{"event":"x"}', of[-1]))


# Access

def test_by_the_application(with_app, valkey, tenant):
    """Each topic needs its own access; what the user cannot read is left out silently, and if nothing is left it is
    404."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, SSE_COMBINED_PER_USER_CAP=100)
    with listen(daemon, **by(ANN, **combined())) as peer:
        check_carries(valkey, peer, TOPICS, tenant, user="ann")
    for missing in "testRuns", "milestones", "projects":
        person = app.people[ANN]
        kept = person.readable(missing).copy()
        person.readable(missing).clear()
        left = [topic for topic in TOPICS if topic.model != missing]
        with listen(daemon, **by(ANN, **combined())) as peer:
            check_carries(valkey, peer, left, tenant, user="ann")
        person.readable(missing).update(kept)
    app.deleted = {"projects": {7}}
    with listen(daemon, **by(ANN, **combined())) as peer:
        left = [topic for topic in TOPICS if not (topic.model == "projects" and topic.present)]
        check_carries(valkey, peer, left, tenant, user="ann")
    app.deleted = {}
    check_answer(daemon.ask(**by(ANN, **combined({"issues": 5, "testRuns": 5}))), 404)
    with listen(daemon, **by(ANN, **combined({"issues": "5,7", "testRuns": 5}))) as peer:
        check_carries(valkey, peer, [BY_NAME["issues"]], tenant, user="ann")


def test_queries_go_out_together(with_app):
    """The queries for all models are sent at once, within one time limit, and are as few as can be."""
    app, daemon = with_app(TPI_APP_TIMEOUT_MS=10000)
    app.hold(*MODELS)
    peer = daemon.open(**by(ANN, **combined()))
    app.wait_asked(5)
    assert sorted((request.kind, request.present) for request in app.asked()) == sorted(
        [(SESSION, False), (PROJECTS, False), (PROJECTS, True), (TEST_RUNS, True), (MILESTONES, True)])
    app.release()
    peer.wait_live()
    peer.close()


@pytest.mark.parametrize("model", MODELS)
def test_one_model_fails(with_app, model):
    """If one of the queries has no answer, the request is deferred."""
    app, daemon = with_app()
    app.faults[model] = lambda exchange: exchange.send(message({"error": "x"}, 500))
    check_later(daemon.ask(**by(ANN, **combined())))
    daemon.wait_for_log(r"\[sse/combined\] subscribe failed .*cannot query the application")


@pytest.mark.parametrize("access, carried", [
    ("deny", ["notifications"]), ("file", ["notifications", "issues", "projectTestRuns", "projectMilestones"]),
    ("allow", [topic.name for topic in TOPICS])])
def test_without_the_application(streamd, valkey, tenant, rundir, access, carried):
    """deny leaves notifications only, a file the topics of its projects, allow everything."""
    path = f"{rundir}/rules"
    with open(path, "w", encoding="ascii") as file:
        file.write("7 u1\n")
    daemon = streamd(TPI_PROJECT_ACCESS=f"file:{path}" if access == "file" else access, INSTANCE_TENANT_ID=tenant,
                     SSE_COMBINED_PER_USER_CAP=100)
    with daemon.stream(**combined()) as peer:
        check_carries(valkey, peer, [BY_NAME[name] for name in carried], tenant)
    for topic in RESTRICTED:
        with daemon.open(**combined({topic.name: 7})) as peer:
            peer.wait(lambda p: p.status)
            assert peer.status == (200 if topic.name in carried else 404), topic.name


# Re-checks and revocations

def test_recheck(with_app, valkey, tenant):
    """A re-check takes away what was lost, silently, while the rest goes on; a stream that lost everything ends."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_RECHECK_SECONDS=INTERVAL, TPI_APP_CACHE_SECONDS=300)
    peer = listen(daemon, **by(ANN, **combined()))
    restricted = listen(daemon, **by(ANN, **combined({"testRuns": 7, "milestones": 7})))
    check_carries(valkey, peer, TOPICS, tenant, user="ann")
    app.people[ANN].test_runs.clear()
    line = daemon.wait_for_log(r"\[sse/combined\] topics lost", INTERVAL + 2)
    assert json.loads(line.partition("lost ")[2]) == {"tenantId": tenant, "userId": "ann", "testRuns": [7]}
    valkey.wait_subscribers(BY_NAME["testRuns"].channel(tenant=tenant), 0)
    check_carries(valkey, peer, [topic for topic in TOPICS if topic.name != "testRuns"], tenant, user="ann")
    app.people[ANN].milestones.clear()
    app.people[ANN].projects.clear()
    restricted.wait_end(INTERVAL + 2)
    check_ended(restricted)
    valkey.wait_subscribers(BY_NAME["issues"].channel(tenant=tenant), 0)
    check_carries(valkey, peer, TOPICS[:1], tenant, user="ann")
    app.sign_out(ANN)
    peer.wait_end(INTERVAL + 2)
    assert peer.body.count(SYNC) + len(FIRST.findall(peer.body)) == 1, "a sync"


def test_revocation(with_app, streamd, valkey, tenant):
    """A revocation re-checks it at once if it has the project or a single item; without the application it ends."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_RECHECK_SECONDS=86400, TPI_APP_CACHE_SECONDS=300)
    plain = streamd(INSTANCE_TENANT_ID=tenant, TPI_PROJECT_ACCESS="allow")
    peer = listen(daemon, **by(ANN, **combined()))
    ends = [plain.stream(**combined()), plain.stream(**combined({"notifications": 1, "testRuns": 99}))]
    stays = [plain.stream(**combined({"notifications": 1})), plain.stream(**combined({"issues": 8}))]
    app.people[ANN].milestones.clear()
    run("revoke", "--project", "7", "--tenant", tenant, "--url", valkey.url).silent()
    daemon.wait_for_log(r'\[sse/combined\] topics lost .*"milestones":\[7\]')
    valkey.wait_subscribers(BY_NAME["milestones"].channel(tenant=tenant), 0)
    check_carries(valkey, peer, [topic for topic in TOPICS if topic.name != "milestones"], tenant, user="ann")
    wait_all(ends, lambda p: p.closed, 5, "the end")
    for each in stays:
        assert not each.quiet(0).closed


# Caps

def test_caps(streamd):
    """Combined streams have caps of their own, counted apart from the others and from each other's topics."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", SSE_COMBINED_PER_TENANT_CAP=3, SSE_COMBINED_PER_USER_CAP=2,
                     SSE_PER_TENANT_CAP=1, SSE_ISSUES_PER_TENANT_CAP=1, SSE_LIVE_PER_TENANT_CAP=1, TPI_STATUS="on",
                     SSE_METRICS_MS=200)
    others = [daemon.stream(**BY_NAME[name].params()) for name in ("notifications", "issues", "testRuns")]
    first, *rest = [daemon.stream(**combined()) for _ in range(3)]
    check_answer(daemon.ask("u2", **combined()), 503)
    daemon.wait_for_log(r'\[sse/combined\] tenant cap reached .*"cap":3')
    first.wait_end()
    check_evicted(first)
    for peer in others + rest:
        assert not peer.quiet(0).closed
    daemon.wait_for_log('"metric":"sse.combined.connections.active","tenantId":"default","count":2,', stream="stdout")
    text = daemon.ask(SCRIPT_NAME="/api/streams/metrics").body.decode()
    assert 'tpi_stream_open_streams{kind="combined"} 2\n' in text
    assert 'tpi_stream_ended_total{kind="combined",reason="evicted"} 1\n' in text


# Exactness, and slow readers

def unlabelled(peer, labels):
    """The stream as the ledger reads one: each label must be that of the payload's channel."""
    events = []
    for event in peer.events.events:
        if event.type != "message":
            assert event.type == labels[json.loads(event.data)["channel"]], event
        events.append(SimpleNamespace(type="message", data=event.data, time=event.time))
    return SimpleNamespace(events=SimpleNamespace(events=events))


def test_exact(streamd, valkey, tenant):
    """Streams that are closed and opened again while wake-ups arrive miss nothing after their only sync, get nothing
    twice, and each wake-up has the label of its channel."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant, SSE_SYNC_SPREAD_MS=0,
                     SSE_COMBINED_PER_USER_CAP=100)
    labels = {channel: label(topic, id) for topic in TOPICS for id in (7, 8)
              for channel in topic.all_channels(id, "u", tenant)}
    chance, streams = random.Random(5), {}

    def join(position):
        topics = chance.sample(TOPICS, 3)
        query = {topic.name: chance.choice(["7", "8", "7,8"]) if topic.model else 1 for topic in topics}
        channels = [channel for topic in topics for id in str(query[topic.name]).split(",")
                    for channel in topic.all_channels(int(id), "u", tenant)]
        streams[position] = daemon.open("u", **combined(query)), channels
    with Publisher(valkey.address, sorted(labels)) as ledger:
        for position in range(6):
            join(position)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            position = chance.randrange(6)
            peer, channels = streams[position]
            if live(peer):
                ledger.check_once(unlabelled(peer, labels), channels, whole=False)
            peer.close()
            join(position)
            for peer, _ in streams.values():
                peer.pump()
        wait_all([peer for peer, _ in streams.values()], live, 20, "sync")
    for peer, channels in streams.values():
        peer.wait(lambda p, c=channels: ledger.complete(unlabelled(p, labels), c), 20, "the last wake-up")
        ledger.check_once(unlabelled(peer, labels), channels)
        peer.close()


def test_slow_reader(streamd, valkey, tenant):
    """A backlog that overflows gives way to one sync, and what follows is whole, also with the largest wake-ups."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant, SSE_BACKLOG_BYTES=16384)
    peer = daemon.open(rcvbuf=4096, **combined({"projectMilestones": 2147483647})).wait_live()
    channel = BY_NAME["projectMilestones"].channel(2147483647, tenant=tenant)
    largest = '{"event":"x","pad":"%s"}'
    largest %= "y" * (16376 - len(largest) + 2)
    for _ in range(60):
        valkey.publish(channel, largest)
    daemon.wait_for_log(r"\[sse/combined\] slow reader, events dropped")
    peer.wait(lambda p: p.body.count(SYNC) >= 1, 20, "a sync")
    ledger = Ledger(lambda channel, payload: valkey.publish(channel, payload))
    ledger.publish(channel)
    peer.wait(lambda p: '"numbered"' in p.events.events[-1].data, what="the wake-up after the sync")
    assert {event.type for event in peer.events.events} == {"message", "projectMilestones:2147483647"}
    assert {event.data for event in peer.events.events[1:-1]} <= {largest, '{"event":"sync"}'}
    eventually(lambda: peer.quiet(0.1) and not peer.closed, what="an open stream")
    peer.close()
