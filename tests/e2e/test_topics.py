# SPDX-License-Identifier: ISC
"""Every topic of tpi-stream(7), STREAMS, has its own stream, with the access check, the channels and the caps that the
page gives it."""

import itertools
import json
import os
import re
import uuid

import pytest

from answers import check_answer, check_ended, check_evicted, check_later, frame
from application import ANN, MILESTONES, MODELS, PROJECTS, SESSION, TEST_RUNS, by, listen, message
from fcgi import ISSUES, NOTIFICATIONS, wait_all
from servers import ROOT, ValkeyClient
from test_publish import run
from timing import eventually
from topics import BY_NAME, LIVE, RESTRICTED, TOPICS

INTERVAL = 5  # seconds; the shortest TPI_RECHECK_SECONDS
MODEL_PATHS = {model: path for path, model in MODELS.items()}

every = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
restricted = pytest.mark.parametrize("topic", RESTRICTED, ids=lambda topic: topic.name)
live = pytest.mark.parametrize("topic", LIVE, ids=lambda topic: topic.name)


@pytest.fixture
def tenant():
    """A tenant of the test's own, because all tests share one Valkey."""
    return f"t-{uuid.uuid4().hex[:8]}"


NUMBERS = itertools.count(1000, 1000)


def check_carries(valkey, peer, topic, tenant="default", **named):
    """The stream gets the wake-ups of its own channels, byte for byte, and of no other topic's."""
    first = next(NUMBERS)  # so that wake-ups for earlier calls are recognised
    own = topic.all_channels(tenant=tenant, **named)
    others = [channel for other in TOPICS for channel in other.all_channels(tenant=tenant, **named)]
    for channel in set(others) - set(own):
        valkey.publish(channel, topic.payload % (first + len(own)))
    payloads = [topic.payload % (first + position) for position in range(len(own))]
    for channel, payload in zip(own, payloads):
        valkey.publish(channel, payload)
    peer.wait_data(payloads[-1])
    got = [event.data for event in peer.events.events if re.search(rf"\b{first // 1000}\d\d\d\b", event.data)]
    assert got == payloads
    assert b"".join(map(frame, payloads)) in peer.body


# Access

@every
def test_by_the_application(with_app, valkey, topic):
    """The application decides; what the user cannot read is 404, and what is deleted as well, except for issues."""
    app, daemon = with_app()
    with listen(daemon, **by(ANN, **topic.params())) as peer:
        check_carries(valkey, peer, topic, user="ann")
    if topic.model is None:
        assert not app.asked(PROJECTS)
        return
    asked = app.asked(MODEL_PATHS[topic.model])
    assert [(request.ids, request.present) for request in asked] == [([7], topic.present)]
    assert len(app.asked()) == 2, "one query for the user, one for access"
    check_answer(daemon.ask(**by(ANN, **topic.params(5))), 404)
    app.deleted = {topic.model: {7}}
    with daemon.open(**by(ANN, **topic.params())) as peer:
        peer.wait(lambda p: p.status)
        assert peer.status == (404 if topic.present else 200)


@every
def test_allow(streamd, valkey, topic):
    """With allow the web server's user gets every stream."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow")
    with daemon.stream("u1", **topic.params()) as peer:
        check_carries(valkey, peer, topic)


@every
@pytest.mark.parametrize("access", ["deny", "file"])
def test_without_the_application(streamd, rundir, topic, access):
    """deny refuses everything but notifications; a file decides about projects alone. Refusals take no slot."""
    path = f"{rundir}/rules"
    with open(path, "w", encoding="ascii") as file:
        file.write("7 u1\n* u2\n")
    daemon = streamd(TPI_PROJECT_ACCESS="deny" if access == "deny" else f"file:{path}", SSE_LIVE_PER_TENANT_CAP=1,
                     SSE_ISSUES_PER_TENANT_CAP=1)
    served = topic.model is None or (access == "file" and topic.model == "projects")
    if served:
        with daemon.stream("u1", **topic.params()), daemon.open("u3", **topic.params()) as other:
            other.wait(lambda p: p.status)
            assert other.status == (200 if topic.model is None else 404)
        return
    for user in "u1", "u2":
        check_answer(daemon.ask(user, **topic.params()), 404)


@restricted
@pytest.mark.parametrize("body, status", [
    ({"data": [{"id": 8}]}, 404),
    ({"data": []}, 404),
    ({"data": [{"id": 70}, {"id": 77}]}, 404),
    ({"data": [{"id": "7"}]}, "later"),
    ({"data": [{"id": 7.0}]}, "later"),
    ({"data": [{"id": [7]}]}, "later"),
    ({"data": [7]}, "later"),
    ({"data": [{"testRunId": 7}]}, "later"),
    ({"data": [{"id": 7}, {"id": "c"}]}, "later"),
    ({"data": {"id": 7}}, "later"),
    ({"data": None}, "later"),
    ([{"id": 7}], "later"),
    ({"user": {"id": "ann"}}, "later"),
    ({"error": {"message": "unknown model name: x"}}, "later"),
], ids=lambda value: json.dumps(value) if not isinstance(value, (int, str)) else str(value))
def test_wrong_answers(module_with_app, topic, body, status):
    """An answer that is not exactly about what was asked is never a yes."""
    if not hasattr(test_wrong_answers, "pair"):
        test_wrong_answers.pair = module_with_app(SSE_LIVE_PER_USER_CAP=100, SSE_ISSUES_PER_USER_CAP=100)
    app, daemon = test_wrong_answers.pair
    app.faults = {MODEL_PATHS[topic.model]: lambda exchange: exchange.send(message(body))}
    peer = daemon.ask(**by(ANN, **topic.params()))
    if status == 404:
        check_answer(peer, 404)
    else:
        check_later(peer)


@restricted
@pytest.mark.parametrize("status, later", [(400, True), (401, False), (403, False), (404, True), (422, True),
                                           (500, True)])
def test_error_statuses(with_app, topic, status, later):
    """401 and 403 mean no access; any other status is no answer."""
    app, daemon = with_app()
    app.faults[MODEL_PATHS[topic.model]] = lambda exchange: exchange.send(message({"error": "no"}, status))
    peer = daemon.ask(**by(ANN, **topic.params()))
    check_later(peer) if later else check_answer(peer, 404)
    if status == 403:
        daemon.wait_for_log(r"\[app\] query forbidden")


# Requests

BAD_IDS = ["0", "00", "07", "-1", "+7", "2147483648", "4294967303", "99999999999999999999", "7a", "a", "%37", "7%20",
           " 7", "7 ", "7,8", "7.0", "1e3", "0x7", "*", "", "7?", "\u00b2", "..", "."]


@live
@pytest.mark.parametrize("id", BAD_IDS)
def test_bad_ids(module_streamd, topic, id):
    """An id that is malformed, missing or too large is 400 with a message that says what is allowed."""
    if not hasattr(test_bad_ids, "daemon"):
        test_bad_ids.daemon = module_streamd(TPI_PROJECT_ACCESS="allow")
    named = topic.params(id.encode().decode("latin-1"))
    peer = test_bad_ids.daemon.ask(**named)
    check_answer(peer, 400)
    assert json.loads(peer.body) == {"error": "the id in the path must be a whole number from 1 to 2147483647"}
    check_answer(test_bad_ids.daemon.ask(REQUEST_METHOD="POST", **named), 405)


@live
def test_range_of_ids(module_streamd, topic):
    """The smallest and the largest id are served."""
    daemon = module_streamd(TPI_PROJECT_ACCESS="allow")
    for id in 1, 2147483647:
        with daemon.stream(**topic.params(id)):
            pass


LOOKALIKES = [
    "/api/test-runs/7/8/stream", "/api/test-runs/7/stream/", "/api/test-runs/7/stream/x", "/api/test-runs/7/streams",
    "/api/test-runs/7//stream", "/api/test-runs/stream", "/api/test-runs/7", "/api/test-runs/7/", "/api/test-runs",
    "/api//test-runs/7/stream", "//api/test-runs/7/stream", "/api/./test-runs/7/stream", "/API/test-runs/7/stream",
    "/api/test%2Druns/7/stream", "/api/test-runs/7%2Fstream", "/api/test-runs%2F7/stream", "/api/testruns/7/stream",
    "/api/testRuns/7/stream", "/api/test-run/7/stream", "/x/api/test-runs/7/stream", "/api/test-runs/../7/stream",
    "/api/milestones/7/8/stream", "/api/milestones/stream", "/api/milestone/7/stream", "/api/milestones/7/Stream",
    "/api/projects/7/stream", "/api/projects/7/testruns/stream", "/api/projects/7/test-runs/8/stream",
    "/api/projects/test-runs/stream", "/api/projects/milestones/stream", "/api/projects/7/milestones",
    "/api/projects/7/8/milestones/stream", "/api/projects/7/milestones/test-runs/stream",
    "/api/projects/7/issues/stream", "/api/issues/7/stream", "/api/notifications/7/stream", "/api/issues/stream/7",
]


@pytest.mark.parametrize("path", LOOKALIKES)
def test_lookalike_paths(module_streamd, path):
    """A path that only resembles a topic's is 404, for POST as well."""
    if not hasattr(test_lookalike_paths, "daemon"):
        test_lookalike_paths.daemon = module_streamd(TPI_PROJECT_ACCESS="allow")
    for method in "GET", "POST":
        check_answer(test_lookalike_paths.daemon.ask(SCRIPT_NAME=path, REQUEST_METHOD=method), 404)


@live
def test_path_in_two_parts(module_streamd, topic):
    """The path is SCRIPT_NAME followed by PATH_INFO, wherever a web server divides it; the query does not matter."""
    daemon = module_streamd(TPI_PROJECT_ACCESS="allow", SSE_LIVE_PER_USER_CAP=100)
    path = topic.target()
    for at in range(0, len(path), 3):
        with daemon.stream(SCRIPT_NAME=path[:at], PATH_INFO=path[at:], QUERY_STRING="projectId=x&id=5") as peer:
            assert peer.status == 200


# Caps

def test_tenant_cap_is_shared(streamd):
    """The four kinds of the group share the tenant's cap; notifications and issues have their own."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", SSE_LIVE_PER_TENANT_CAP=3, SSE_ISSUES_PER_TENANT_CAP=1)
    peers = [daemon.stream(**topic.params()) for topic in LIVE[:3]]
    check_answer(daemon.ask("u2", **LIVE[3].params()), 503)
    daemon.wait_for_log(r'\[sse/project-milestones\] tenant cap reached .*"cap":3')
    others = [daemon.stream(**BY_NAME[name].params()) for name in ("notifications", "issues")]
    peers.pop().close()
    eventually(lambda: daemon.open("u2", **LIVE[3].params()).wait(lambda p: p.status).status == 200, what="a slot")
    for peer in peers + others:
        assert not peer.quiet(0).closed


def test_user_cap_is_shared(streamd):
    """One stream over the user's cap, of whatever kind, evicts the oldest of the group; the others stay."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", SSE_LIVE_PER_USER_CAP=len(LIVE) - 1)
    others = [daemon.stream(**BY_NAME[name].params()) for name in ("notifications", "issues")]
    peers = [daemon.stream(**topic.params()) for topic in LIVE]
    peers[0].wait_end()
    check_evicted(peers[0])
    for peer in peers[1:] + others:
        assert not peer.quiet(0.2).closed
    daemon.wait_for_log(r"\[sse/test-run\] evicted")


# Monitoring and logs

def test_metrics(streamd):
    """The group's slots and streams are counted together, on the metrics page and in the metric line."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", TPI_STATUS="on", SSE_METRICS_MS=200, SSE_LIVE_PER_TENANT_CAP=77)
    peers = [daemon.stream(**topic.params()) for topic in TOPICS]

    def values():
        text = daemon.ask(SCRIPT_NAME="/api/streams/metrics").body.decode()
        return dict(re.findall(r'^tpi_stream_(\w+\{kind="live"[^}]*\}) (\d+)$', text, re.M))
    assert {name: count for name, count in values().items() if count != "0"} == {
        'open_streams{kind="live"}': str(len(LIVE)), 'slots{kind="live"}': str(len(LIVE)),
        'slots_limit{kind="live"}': "77",
        'opened_total{kind="live"}': str(len(LIVE))}
    for name, count in ("live", len(LIVE)), ("issues", 1):
        daemon.wait_for_log(f'"metric":"sse.{name}.connections.active","tenantId":"default","count":{count},',
                            stream="stdout")
    for peer in peers:
        peer.close()
    eventually(lambda: values()['ended_total{kind="live",reason="closed"}'] == str(len(LIVE)), what="the ends")


@every
def test_log_fields(streamd, new_valkey, topic):
    """A warning about a stream has the topic's tag, and the ids under the topic's key."""
    daemon = streamd(VALKEY_URL=new_valkey().url, TPI_PROJECT_ACCESS="allow")
    check_later(daemon.ask("bob", **topic.params()))
    line = daemon.wait_for_log(rf"^\[{topic.tag}\] subscribe failed")
    found = json.loads(line.partition("failed ")[2])
    ids = {topic.key: [7]} if topic.key else {}
    assert found.pop("error") and found == {"tenantId": "default", "userId": "bob", **ids}


# Re-checks and revocations

def test_recheck(with_app, valkey, tenant):
    """A re-check ends the streams of what the user has lost, deleted items included, and no others."""
    app, daemon = with_app(TPI_RECHECK_SECONDS=INTERVAL, INSTANCE_TENANT_ID=tenant, TPI_APP_CACHE_SECONDS=300)
    lost = app.sign_in("SECRET-lost", "lost", [7], test_runs=[7], milestones=[7])
    stays = {topic: listen(daemon, **by(ANN, **topic.params())) for topic in TOPICS}
    ends = {topic: listen(daemon, **by(lost, **topic.params())) for topic in TOPICS}
    app.people[lost].projects.clear()
    app.people[lost].test_runs.clear()
    app.people[lost].milestones.clear()
    kept = ends.pop(TOPICS[0])
    wait_all([*ends.values()], lambda p: p.closed, INTERVAL + 2, "the end")
    for topic, peer in ends.items():
        check_ended(peer)
        line = daemon.wait_for_log(rf"^\[{topic.tag}\] all topics lost .*lost")
        assert json.loads(line.partition("lost ")[2])[topic.key] == [7]
    check_carries(valkey, kept, TOPICS[0], tenant, user="lost")
    # What is deleted is lost to everyone, except the issues of a deleted project.
    app.deleted = {"projects": {7}, "testRuns": {7}, "milestones": {7}}
    wait_all([stays.pop(topic) for topic in LIVE], lambda p: p.closed, INTERVAL + 2, "the end")
    for topic, peer in stays.items():
        check_carries(valkey, peer, topic, tenant, user="ann")


def revoke(valkey, tenant, project):
    run("revoke", "--project", str(project), "--tenant", tenant, "--url", valkey.url).silent()


def test_revoked_project(streamd, valkey, tenant):
    """Without the application, a project's revocation ends its streams and those of any single test run or milestone,
    whose project the daemon does not know."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant, SSE_LIVE_PER_USER_CAP=100)
    ends = [daemon.stream("u1", **topic.params()) for topic in RESTRICTED]
    ends += [daemon.stream("u2", **BY_NAME[name].params(99)) for name in ("testRuns", "milestones")]
    stays = [daemon.stream("u1")]
    stays += [daemon.stream("u1", **topic.params(8)) for topic in RESTRICTED if topic.model == "projects"]
    revoke(valkey, tenant, 7)
    wait_all(ends, lambda p: p.closed, 5, "the end")
    for peer in ends:
        check_ended(peer)
    for peer in stays:
        assert not peer.quiet(0).closed


def test_revoked_project_with_the_application(with_app, valkey, tenant):
    """With the application the same streams are re-checked at once, past the cache, and end where access is lost."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_APP_CACHE_SECONDS=300, TPI_RECHECK_SECONDS=86400,
                        SSE_LIVE_PER_USER_CAP=100)
    peers = {topic: listen(daemon, **by(ANN, **topic.params())) for topic in TOPICS}
    app.people[ANN].test_runs.clear()
    app.forget()
    revoke(valkey, tenant, 7)
    peers.pop(BY_NAME["testRuns"]).wait_end(5)
    eventually(lambda: {request.kind for request in app.asked()} == {SESSION, *MODELS}, what="queries for all models")
    for topic, peer in peers.items():
        check_carries(valkey, peer, topic, tenant, user="ann")
    # Of another project only the single items are concerned.
    app.forget()
    app.people[ANN].milestones.clear()
    revoke(valkey, tenant, 8)
    peers.pop(BY_NAME["milestones"]).wait_end(5)
    assert {request.kind for request in app.asked()} == {SESSION, MILESTONES}
    for peer in peers.values():
        assert not peer.quiet(0).closed


# Publishing, and Valkey's access control lists

@every
def test_published(streamd, valkey, tenant, topic):
    """What tpi-publish sends for the topic arrives on its stream."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", INSTANCE_TENANT_ID=tenant)
    with daemon.stream("u1", **topic.params()) as peer:
        done = run(*topic.command(), "--tenant", tenant, "--url", valkey.url, "--verbose")
        sent = json.loads(run(*topic.command(), "--dry-run", "--tenant", tenant).out.split(b"\n")[0].split(b" ", 1)[1])
        assert done.status == 0 and f"{topic.channel(tenant=tenant)}: 1 subscriber" in done.out.decode()
        peer.wait(lambda p: len(p.events.data) == 2, what="the wake-up")
        got = json.loads(peer.events.data[1])
        assert {**got, "id": None} == {**sent, "id": None}


def manual_users():
    """The users in tpi-stream(7), Access control lists: {name: words of ACL SETUSER}."""
    with open(os.path.join(ROOT, "man", "tpi-stream.7"), encoding="utf-8") as file:
        text = file.read().partition(".Ss Access control lists")[2].partition(".Bd")[2].partition(".Ed")[0]
    lines = [line for line in text.replace("\\e\n", "").split("\n") if line.startswith("user ")]
    return {words[1]: words[2:] for words in (line.split() for line in lines)}


def refused(client, *words):
    with pytest.raises(Exception, match="NOPERM"):
        client(*words)
    return True


def test_acl_users(streamd, new_valkey):
    """The users in the man page suffice for all topics and revocations, and allow nothing else: no other tenant, no
    other command, no revocation by the publisher, and nothing but revocations by tpi-revoke."""
    server = new_valkey(tcp=True).start()
    users = manual_users()
    assert set(users) == {"tpi-streamd", "tpi-publish", "tpi-revoke"}
    for name, words in users.items():
        server("ACL", "SETUSER", name, *words)
    address = server.url.removeprefix("valkey://")
    urls = {name: f"valkey://{name}:{words[1].removeprefix('>')}@{address}" for name, words in users.items()}
    daemon = streamd(TPI_PROJECT_ACCESS="allow", VALKEY_URL=urls["tpi-streamd"], SSE_LIVE_PER_USER_CAP=100)
    for topic in TOPICS:
        with daemon.stream("u1", **topic.params()) as peer:
            run(*topic.command(), "--url", urls["tpi-publish"]).silent()
            peer.wait(lambda p: len(p.events.data) == 2, what="the wake-up")
    run("notification", "--broadcast", "--url", urls["tpi-publish"]).silent()
    for option in ("--user", "u1"), ("--project", "7"):
        done = run("revoke", *option, "--url", urls["tpi-publish"])
        assert done.status == 69 and "NOPERM" in done.err
        run("revoke", *option, "--url", urls["tpi-revoke"]).silent()
        daemon.wait_for_log(r"^\[revoke\] " + option[0].strip("-"))
    for topic in TOPICS:
        assert run(*topic.command(), "--url", urls["tpi-revoke"]).status == 69
    assert not daemon.matching("permission|NOPERM|refused")

    for name, words in users.items():
        client = ValkeyClient(server.address)
        client("AUTH", name, words[1].removeprefix(">"))
        for command in ("GET", "x"), ("SET", "x", "1"), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("FLUSHALL",):
            assert refused(client, *command)
        verb = ["SUBSCRIBE"] if name == "tpi-streamd" else ["PUBLISH"]
        payload = [] if name == "tpi-streamd" else ["x"]
        for topic in TOPICS:
            for channel in topic.all_channels(tenant="other"):
                assert refused(client, *verb, channel, *payload)
        client.close()
    # Each pattern of the daemon is needed. Its selector, in parentheses, is for the check channel alone.
    words = users["tpi-streamd"]
    selector = next(i for i, word in enumerate(words) if word.startswith("("))
    patterns = [word for word in words[:selector] if word.startswith("&")]
    for pattern in patterns:
        rest = ["resetchannels", *(other for other in patterns if other != pattern)]
        server("ACL", "SETUSER", "tpi-streamd", *rest)
        channel = next(name for topic in TOPICS for name in topic.all_channels() if name.startswith(pattern[1:-1]))
        client = ValkeyClient(server.address)
        client("AUTH", "tpi-streamd", users["tpi-streamd"][1].removeprefix(">"))
        assert refused(client, "SUBSCRIBE", channel)
        client.close()


# Caching of the application's answers

def test_models_are_separate(with_app):
    """Equal ids of different models are different questions, and so are projects with and without deleted ones."""
    app, daemon = with_app(TPI_APP_CACHE_SECONDS=300)
    peers = [listen(daemon, **by(ANN, **topic.params())) for topic in TOPICS]
    assert sorted((request.kind, request.present) for request in app.asked()) == sorted([
        (SESSION, False), (PROJECTS, False), (PROJECTS, True), (TEST_RUNS, True), (MILESTONES, True)])
    with app.quiet():
        peers += [listen(daemon, **by(ANN, **topic.params())) for topic in TOPICS]
    for peer in peers:
        peer.close()


def test_paths_are_the_applications():
    """The paths are those of the application's own streams."""
    assert [topic.target() for topic in TOPICS[:6]] == [
        NOTIFICATIONS, f"{ISSUES}?projectId=7", "/api/test-runs/7/stream", "/api/projects/7/test-runs/stream",
        "/api/milestones/7/stream", "/api/projects/7/milestones/stream"]
