# SPDX-License-Identifier: ISC
"""tpi-publish revoke: every daemon of the tenant re-checks or ends the streams concerned at once; other streams are not
affected, and answers from before the revocation do not count."""

import contextlib
import json
import re
import threading
import time
import uuid

import pytest

import servers
import standins
from answers import after_first, check_answer, check_ended, check_first, check_later, frame, notification
from application import ANN, BEN, PROJECTS, SESSION, by, listen, synced
from fcgi import wait_all
from servers import broadcast_channel, project_channel, user_channel
from test_app_recheck import published, read
from test_publish import run
from timing import eventually, scaled

ALLOWED = {"TPI_PROJECT_ACCESS": "allow", "TPI_LOG_LEVEL": "debug"}
SOON = 5  # seconds; far less than the interval between two re-checks
LATER = 20


@pytest.fixture
def tenant():
    """A tenant of the test's own, because all tests share one Valkey."""
    return f"t-{uuid.uuid4().hex[:8]}"


def revoke_channel(tenant):
    return f"notifications:tenant:{tenant}:revoke"


@pytest.fixture
def revoke(valkey, tenant):
    """revoke(user=, project=) runs the command; returns the number of daemons that received it."""
    def call(user=None, project=None, tenant=tenant, url=valkey.url):
        option = ("--user", user) if user else ("--project", str(project))
        done = run("revoke", *option, "--tenant", tenant, "--url", url, "--verbose")
        assert (done.status, done.err) == (0, "")
        found = re.fullmatch(rb"(\S+): (\d+) subscribers?\n", done.out)
        assert found[1].decode() == revoke_channel(tenant)
        return int(found[2])
    return call


def check_open(*peers):
    for peer in peers:
        assert not peer.quiet(0).closed, peer


def check_got(peer, *payloads):
    """Checks that the stream got exactly these wake-ups, once each."""
    peer.wait_body(frame(payloads[-1]))
    assert after_first(peer) == b"".join(map(frame, payloads))


# The command

def test_without_subscribers(valkey, tenant):
    """The command succeeds without subscribers and, without --verbose, prints nothing; --dry-run needs no Valkey."""
    run("revoke", "--user", "u1", "--tenant", tenant, VALKEY_URL=valkey.url).silent()
    done = run("revoke", "--project", "7", "--dry-run", INSTANCE_TENANT_ID=tenant, VALKEY_URL="unix:///nonexistent")
    assert (done.status, done.err) == (0, "")
    assert done.out.decode() == revoke_channel(tenant) + ' {"event":"revoke","projectId":7}\n'


def test_valkey_unreachable():
    """While Valkey is unreachable the command fails, or with --best-effort prints a warning."""
    args = ("revoke", "--user", "u1", "--url", "unix:///nonexistent")
    assert run(*args).status == 69
    done = run(*args, "--best-effort", "--tag", "idp")
    assert done.status == 0 and done.warning("idp")["channel"] == revoke_channel("default")


def test_not_in_a_batch(valkey):
    """A batch does not accept a revocation."""
    done = run("batch", stdin=b'{"stream":"revoke","user":"u1"}\n', VALKEY_URL=valkey.url)
    assert done.status == 65 and 'stream: must be "notification", "issue", "test-run" or "milestone"' in done.err


# Identity from the web server: streams end

def test_user_streams_end(streamd, valkey, revoke, tenant):
    """A user's streams of both kinds end gracefully in both daemons of the tenant; those of other users and tenants
    stay open and miss no wake-up."""
    first, second = (streamd(INSTANCE_TENANT_ID=tenant, **ALLOWED) for _ in range(2))
    other = streamd(INSTANCE_TENANT_ID=tenant + "x", **ALLOWED)
    ends = [daemon.stream("u1", projects=projects) for daemon in (first, second) for projects in (None, 7, "8,9")]
    stays = [daemon.stream("u2", projects=projects) for daemon in (first, second) for projects in (None, 7)]
    stays += [first.stream("u11"), first.stream("u"), first.stream("revoke")]
    elsewhere = [other.stream("u1"), other.stream("u1", projects=7)]
    everywhere = [project_channel(7, tenant), broadcast_channel(tenant)]
    with published(valkey, everywhere) as ledger:
        assert revoke("u1") == 2
        wait_all([*ends, *stays], lambda peer: peer.closed or peer in stays, SOON, "the end")
    for peer in ends:
        check_ended(peer)
        assert len(peer.events.retries) == 1 and {event.type for event in peer.events.events} == {"message"}
    ledger.settle({stays[0]: everywhere[1:], stays[1]: everywhere[:1], stays[2]: everywhere[1:],
                   stays[3]: everywhere[:1], **{peer: everywhere[1:] for peer in stays[4:]}})
    check_open(*stays, *elsewhere)
    for daemon in first, second:
        line = daemon.wait_for_log(r"^\[revoke\] user ")
        assert json.loads(line.partition("user ")[2]) == {"tenantId": tenant, "userId": "u1", "streams": 3,
                                                         "suppressed": 0}
        daemon.wait_for_log("revoked, ended.*u1", count=3)
        assert not daemon.matching("revoked.*u2")
    assert not other.matching("revoke")
    # The user can connect again, because the web server decides who is authenticated.
    first.stream("u1")


@pytest.mark.parametrize("prefixes", [None, "issue-updates", "a,b,issue-updates"])
def test_project_streams_end(streamd, valkey, revoke, tenant, prefixes):
    """A project's streams end, those with further projects included, and each is counted once, whatever the number of
    its channels; notification streams stay open."""
    daemon = streamd(INSTANCE_TENANT_ID=tenant, TPI_ISSUES_CHANNEL_PREFIX=prefixes, **ALLOWED)
    ends = [daemon.stream("u1", projects=7), daemon.stream("u2", projects="6,7,8")]
    stays = [daemon.stream("u1"), daemon.stream("u1", projects=8), daemon.stream("u2", projects="70,77")]
    assert revoke(project=7) == 1
    wait_all(ends, lambda peer: peer.closed, SOON, "the end")
    for peer in ends:
        check_ended(peer)
    valkey.publish(project_channel(8, tenant, "issue-updates"), notification(1))
    check_got(stays[1], notification(1))
    check_open(*stays)
    line = daemon.wait_for_log(r"^\[revoke\] project ")
    assert json.loads(line.partition("project ")[2]) == {"tenantId": tenant, "projectId": 7, "streams": 2,
                                                        "suppressed": 0}
    assert revoke(project=9) == 1
    daemon.wait_for_log('"projectId":9,"streams":0')
    check_open(*stays)


@pytest.mark.parametrize("settings", [
    {"TPI_IDENTITY": None}, {"TPI_RECHECK_SECONDS": 0}, {"TPI_PROJECT_ACCESS": "allow"}], ids=str)
def test_stream_that_cannot_be_rechecked(with_app, revoke, tenant, settings):
    """A stream ends if a re-check would not cover all that authorized it, even if the application still grants
    access."""
    _, daemon = with_app(INSTANCE_TENANT_ID=tenant, **settings)
    peer = listen(daemon, **by(ANN, TPI_USER="ann", projects=7))
    revoke("ann")
    check_ended(peer.wait_end(SOON))
    peer = listen(daemon, **by(ANN, TPI_USER="ann", projects=7))
    revoke(project=7)
    check_ended(peer.wait_end(SOON))


def test_flood(streamd, valkey, tenant):
    """Many revocations at once are applied together: those concerned end, others stay open, and the log stays short."""
    daemon = streamd(INSTANCE_TENANT_ID=tenant, **ALLOWED)
    ends, stays = [daemon.stream("u1"), daemon.stream("u2", projects=2000)], daemon.stream("u2")
    mark = daemon.mark()
    with contextlib.closing(servers.ValkeyClient(valkey.address)) as client:
        for number in range(1000):
            client.send("PUBLISH", revoke_channel(tenant), '{"event":"revoke","user":"nobody%d"}' % number)
            client.send("PUBLISH", revoke_channel(tenant), '{"event":"revoke","projectId":%d}' % (number + 1001))
        client.send("PUBLISH", revoke_channel(tenant), '{"event":"revoke","user":"u1"}')
    wait_all(ends, lambda peer: peer.closed, SOON, "the end")
    check_open(stays)
    assert len(daemon.matching(r"^\[revoke\]", start=mark)) < 200

    def counted():
        valkey.publish(revoke_channel(tenant), '{"event":"revoke","user":"nobody"}')
        return daemon.matching(r'^\[revoke\].*"suppressed":[1-9]', start=mark)
    eventually(counted, what="a line that counts the others")


# Identity from the application: streams are re-checked

def test_user_is_rechecked(with_app, valkey, revoke, tenant):
    """A user's streams are re-checked at once, without the cache: they end if the session has ended, stay open without
    losing a wake-up if not, and leave only the channels of projects that the user has lost."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_APP_CACHE_SECONDS=300)
    for name in "gone", "good", "some":
        app.sign_in(f"SECRET-{name}", name, [7, 8])
    gone = [listen(daemon, **by("SECRET-gone", projects=projects)) for projects in (None, "7,8")]
    good = [listen(daemon, **by("SECRET-good", projects=projects)) for projects in (None, "7,8")]
    some = listen(daemon, **by("SECRET-some", projects="7,8"))
    app.forget()
    with published(valkey, [broadcast_channel(tenant), project_channel(8, tenant)]) as ledger:
        app.sign_out("SECRET-gone")
        app.people["SECRET-some"].projects.discard(7)
        for name in "gone", "good", "some":
            revoke(name)
            read(*good, some)

        def rechecked():
            read(*gone, *good, some)
            return (all(peer.closed for peer in gone) and daemon.matching("topics lost.*some")
                    and app.asked(SESSION, "SECRET-good") and app.asked(PROJECTS, "SECRET-good"))
        eventually(rechecked, SOON, "a re-check of every stream")
    for peer in gone:
        check_ended(peer)
    ledger.settle({good[0]: [broadcast_channel(tenant)], good[1]: [project_channel(8, tenant)],
                   some: [project_channel(8, tenant)]})
    eventually(lambda: valkey.subscribers(project_channel(7, tenant)) == 1, what="the others stay in 7")
    valkey.publish(project_channel(7, tenant), '{"event":"numbered","channel":"x","n":1}')
    good[1].wait(lambda peer: any('"x"' in data for data in peer.events.data), what="the wake-up of 7")
    assert not any('"x"' in data for data in some.quiet(0).events.data)
    assert len(app.asked(SESSION, "SECRET-good")) in (1, 2), "not once for each stream, or for both"
    # No re-check is pending any more.
    with app.quiet():
        time.sleep(scaled(0.5))
    check_open(*good, some)


def test_project_is_rechecked(with_app, revoke, tenant):
    """A project's streams are re-checked, whoever their user is, and no others."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant)
    app.people[BEN].projects |= {7, 8}
    ann, ben = (listen(daemon, **by(token, projects="7,8")) for token in (ANN, BEN))
    other = listen(daemon, **by(ANN, projects="8"))
    app.people[BEN].projects.clear()
    app.forget()
    assert revoke(project=7) == 1
    check_ended(ben.wait_end(SOON))
    app.wait_asked(1, PROJECTS, ANN, SOON)
    daemon.wait_for_log("revoked, re-checking", count=2)
    check_open(ann, other)
    assert {tuple(request.ids) for request in app.asked(PROJECTS)} == {(7, 8)}


def test_access_file_is_rechecked(with_app, revoke, tenant, rundir):
    """With an access file, a project's streams are re-checked against its present rules."""
    path = f"{rundir}/rules"

    def write(text):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    write("7 ann ben\n8 ann\n")
    _, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_PROJECT_ACCESS=f"file:{path}")
    ann, ben = (listen(daemon, **by(token, projects="7,8")) for token in (ANN, BEN))
    write("8 ann\n")
    revoke(project=7)
    check_ended(ben.wait_end(SOON))
    daemon.wait_for_log("topics lost.*ann", SOON)
    check_open(ann)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["down", "hold"])
def test_application_unreachable(with_app, revoke, tenant, how):
    """While the application is unreachable the streams of a revocation stay open; as soon as it answers, those without
    a session end, and the others are not re-checked again."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_APP_TIMEOUT_MS=500)
    gone, good = (listen(daemon, **by(token)) for token in (ANN, BEN))
    app.sign_out(ANN)
    getattr(app, how)()
    mark = daemon.mark()
    revoke("ann")
    revoke("ben")
    # At least two attempts for each stream.
    daemon.wait_for_log("user query|nobody", LATER, start=mark, count=4)
    check_open(gone, good)
    app.release()
    if how == "down":
        app.start()
    check_ended(gone.wait_end(LATER))
    app.wait_asked(1, SESSION, BEN, LATER)
    daemon.wait_for_log('user answer.*"userId":"ben"', LATER, start=mark)
    check_open(good)
    app.forget()
    with app.quiet():
        time.sleep(scaled(8))
    check_open(good)


def test_recheck_in_flight(with_app, revoke, tenant):
    """A positive answer to a re-check that was in flight at the revocation does not count."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_RECHECK_SECONDS=5, TPI_APP_TIMEOUT_MS=20000)
    peer = listen(daemon, **by(ANN))
    app.forget()
    release = hold_present_answer(app, SESSION)
    app.wait_asked(1, SESSION, timeout=8)
    app.sign_out(ANN)
    del app.faults[SESSION]
    revoke("ann")
    check_open(peer)
    release.set()
    check_ended(peer.wait_end(SOON))


# Requests in flight

def hold_present_answer(app, kind):
    """Queries of this kind get the answer that is true on arrival, once the returned event is set."""
    release = threading.Event()

    def fault(exchange):
        honest = exchange.honest()
        release.wait(60)
        exchange.send(honest)
    app.faults[kind] = fault
    return release


def test_earlier_answers_do_not_count(with_app, revoke, tenant):
    """After a revocation neither a cached answer nor a query in flight authorizes a request; a request that already
    waits for that query is re-checked as soon as its stream begins."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_APP_CACHE_SECONDS=300, TPI_APP_TIMEOUT_MS=30000)
    kept = listen(daemon, **by(ANN))
    app.sign_in("SECRET-eve", "eve", [7])
    for _ in range(2):
        listen(daemon, **by("SECRET-eve", projects=7)).close()
    daemon.wait_for_log('user query.*"from":"cache"')
    daemon.wait_for_log('projects query.*"from":"cache"')
    release = hold_present_answer(app, SESSION)
    in_flight = daemon.open(**by(BEN))
    app.wait_asked(1, SESSION, BEN)
    for token in ANN, BEN:
        app.sign_out(token)
    app.people["SECRET-eve"].projects.clear()
    del app.faults[SESSION]
    revoke("ann")
    revoke("ben")
    daemon.wait_for_log(r"\[revoke\]", count=2)
    for token in ANN, BEN:
        check_answer(daemon.ask(**by(token)), 401)
    check_answer(daemon.ask(**by("SECRET-eve", projects=7)), 404)
    check_ended(kept.wait_end(SOON))
    assert not in_flight.quiet(0).body
    release.set()
    check_ended(in_flight.wait_end(SOON))
    check_first(in_flight)
    daemon.wait_for_log("revoked, re-checking.*ben")


def test_request_in_flight_stays(with_app, valkey, revoke, tenant):
    """A request in flight at the revocation gets its stream, and keeps it if the session is still valid."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_APP_TIMEOUT_MS=30000)
    release = hold_present_answer(app, SESSION)
    ann, ben = (daemon.open(**by(token)) for token in (ANN, BEN))
    app.wait_asked(2)
    del app.faults[SESSION]
    valkey.wait_subscribers(revoke_channel(tenant), 1)
    revoke("ann")
    daemon.wait_for_log(r"\[revoke\]")
    app.forget()
    release.set()
    wait_all([ann, ben], synced, what="sync")
    app.wait_asked(1, SESSION, ANN, SOON)
    daemon.wait_for_log("user answer", count=3)
    check_open(ann, ben)
    assert not app.asked(SESSION, BEN)


@pytest.mark.parametrize("named", [{"user": "ann"}, {"project": 7}], ids=str)
def test_request_in_flight_that_cannot_be_rechecked(with_app, valkey, revoke, tenant, named):
    """A request in flight is deferred if a re-check would not cover it; other requests get their streams."""
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_IDENTITY=None, TPI_APP_TIMEOUT_MS=30000)
    app.people[BEN].projects.add(9)
    release = hold_present_answer(app, PROJECTS)
    ann = daemon.open(**by(ANN, TPI_USER="ann", projects="7"))
    ben = daemon.open(**by(BEN, TPI_USER="ben", projects="9"))
    app.wait_asked(2, PROJECTS)
    valkey.wait_subscribers(revoke_channel(tenant), 1)
    revoke(**named)
    daemon.wait_for_log(r"\[revoke\]")
    release.set()
    check_later(ann.wait_end())
    ben.wait(synced, what="sync")
    check_open(ben)


class RevokeBeforeConfirmation(standins.Server):
    """Publishes a revocation before it first confirms a channel, then waits for go_on."""

    def __init__(self, channel, tenant, payload):
        self.channel = channel.encode()
        self.revocation = standins.array(*map(standins.bulk, (b"message", revoke_channel(tenant).encode(), payload.encode())))
        self.go_on = threading.Event()
        self.waiting = threading.Event()
        super().__init__()

    def answer(self, session, words, send):
        if words[0] == b"SUBSCRIBE" and self.channel in words and not self.waiting.is_set():
            send(self.revocation)
            self.waiting.set()
            self.go_on.wait(60)
        super().answer(session, words, send)

    def stop(self):
        self.go_on.set()
        super().stop()


@pytest.mark.parametrize("payload", ['{"event":"revoke","user":"ann"}', '{"event":"revoke","projectId":7}'])
@pytest.mark.parametrize("identity", [None, "app"])
def test_between_join_and_confirmation(with_app, tenant, payload, identity):
    """A revocation that arrives before Valkey confirms the channels concerns the stream: it is deferred, or
    begins and is re-checked at once."""
    script = RevokeBeforeConfirmation(project_channel(7, tenant), tenant, payload)
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_IDENTITY=identity, VALKEY_URL=script.url)
    daemon.wait_for_log("connected")
    peer = daemon.open(**by(ANN, TPI_USER="ann", projects="7,8"))
    assert script.waiting.wait(scaled(10))
    daemon.wait_for_log(r'\[revoke\].*"streams":1')
    if identity is None:
        check_later(peer.wait_end(SOON))
    else:
        app.forget()
        app.sign_out(ANN)
        script.go_on.set()
        check_ended(peer.wait_end(SOON))
        check_first(peer)
    script.stop()


# Valkey

def test_acl(new_valkey, streamd, revoke, tenant):
    """Without access to the revoke channel, streams work, and one warning names the channel and the remedy; another
    refused channel still gets its own. Once access is granted, revocations work from the next connection on."""
    valkey = new_valkey(tcp=True).start()
    valkey("ACL", "SETUSER", "limited", "on", ">pw", "resetchannels", "+@all",
           f"&notifications:tenant:{tenant}:user:*", f"&notifications:tenant:{tenant}:broadcast")
    daemon = streamd(INSTANCE_TENANT_ID=tenant, VALKEY_URL=f"valkey://limited:pw@127.0.0.1:{valkey.port}",
                     SSE_SYNC_SPREAD_MS=0, TPI_ISSUES_CHANNEL_PREFIX="issues", **ALLOWED)
    peer = daemon.stream("u1")
    check_later(daemon.ask("u1", projects=7))
    daemon.wait_for_log("channel refused", count=2)
    warnings = daemon.matching("channel refused")
    assert len(warnings) == 2, warnings
    assert all(words in warnings[0] for words in ("revoke has no effect", revoke_channel(tenant), "remedy", "NOPERM"))
    assert "revoke" not in warnings[1].partition("{")[0] and project_channel(7, tenant) in warnings[1]
    assert revoke("u1", url=valkey.url) == 0
    valkey.publish(user_channel("u1", tenant), notification(1))
    check_got(peer, notification(1))
    valkey("ACL", "SETUSER", "limited", f"&{revoke_channel(tenant)}")
    valkey("CLIENT", "KILL", "TYPE", "pubsub")
    peer.wait(lambda p: p.events.data.count('{"event":"sync"}') == 2, what="sync")
    assert revoke("u1", url=valkey.url) == 1
    check_ended(peer.wait_end(SOON))
    assert len(daemon.matching("channel refused")) == 2


def test_valkey_restarted(new_valkey, streamd, revoke, tenant):
    """Revocations work after each reconnect to Valkey, also without a stream."""
    valkey = new_valkey().start()
    daemon = streamd(INSTANCE_TENANT_ID=tenant, VALKEY_URL=valkey.url, **ALLOWED)
    peer, other = daemon.stream("u1"), daemon.stream("u2")
    for _ in range(2):
        valkey.restart()
        valkey.wait_subscribers(revoke_channel(tenant), 1, LATER)
        syncs = len(other.events.data)
        other.wait(lambda p: len(p.events.data) > syncs, LATER, "sync")  # pylint: disable=cell-var-from-loop
    assert revoke("u1", url=valkey.url) == 1
    check_ended(peer.wait_end(SOON))
    check_open(other)
    # Without a stream, too.
    other.close()
    valkey.wait_subscribers(user_channel("u2", tenant), 0)
    assert revoke("u2", url=valkey.url) == 1
    daemon.wait_for_log('"userId":"u2","streams":0')


def test_forged(streamd, valkey, tenant):
    """A malformed revocation, or one on another channel, has no effect."""
    daemon = streamd(INSTANCE_TENANT_ID=tenant, **ALLOWED)
    peers = [daemon.stream("u1"), daemon.stream("u1", projects=7)]
    good = '{"event":"revoke","user":"u1"}'
    for payload in ("", "x", "{}", good + " ", " " + good, good + good, good[:-1], good.replace(":", ": "),
                    good.replace("u1", "*"), good.replace("u1", "u1\\u0000"), good.replace("revoke", "sync"),
                    '{"user":"u1","event":"revoke"}', '{"event":"revoke","projectId":07}',
                    '{"event":"revoke","projectId":"7"}', '{"event":"revoke","projectId":7,"user":"u1"}',
                    b"\0\xff" * 1000, '{"event":"revoke","user":"' + "u" * 100000 + '"}'):
        assert valkey.publish(revoke_channel(tenant), payload) == 1
    assert valkey.publish(revoke_channel(tenant + "x"), good) == 0
    assert valkey.publish(user_channel("u1", tenant), good) == 1
    check_got(peers[0], good)
    assert after_first(peers[1].quiet(0)) == b""
    check_open(*peers)
    assert not daemon.matching(r"\[revoke\]")
    daemon.wait_for_log("payload dropped.*is not a revocation")
    # A valid one after all that works.
    valkey.publish(revoke_channel(tenant), good)
    wait_all(peers, lambda peer: peer.closed, SOON, "the end")


# Load

@pytest.mark.slow
def test_storm(with_app, revoke, tenant):
    """All streams of a project are re-checked, spread over time and within TPI_APP_CONCURRENCY, and only those without
    access end."""
    count, most = 300, 8
    app, daemon = with_app(INSTANCE_TENANT_ID=tenant, TPI_APP_CONCURRENCY=most, TPI_APP_PENDING=count,
                           SSE_ISSUES_PER_TENANT_CAP=count)
    tokens = [app.sign_in(f"SECRET-{number}", f"user{number}", [7]) for number in range(count)]
    app.delay = 0.005
    peers = [daemon.open(**by(token, projects="7")) for token in tokens]
    wait_all(peers, synced, 30, "sync")
    app.forget()
    app.most_in_flight = 0
    for token in tokens[::2]:
        app.people[token].projects.clear()
    revoke(project=7)
    wait_all(peers[::2], lambda peer: peer.closed, 30, "the end")
    eventually(lambda: {request.token for request in app.asked(PROJECTS)} == set(tokens), 30, "all are queried")
    assert app.most_in_flight <= most
    times = [request.started for request in app.asked(SESSION)]
    assert max(times) - min(times) > 1, "all at once"
    check_open(*peers[1::2])
    daemon.wait_for_log('"streams":300')
    daemon.wait_for_log("revoked, re-checking", count=count)
