"""tpi-publish revoke: every daemon of the tenant asks again for the streams concerned, at once, or ends them; nobody
else's suffer, and no answer from before counts."""

import json
import re
import threading
import time
import uuid

import pytest

import standins
from answers import after_first, check_answer, check_ended, check_first, check_later, frame, notification
from application import ANN, BEN, PROJECTS, SESSION, by, listen, synced
from fcgi import wait_all
from servers import broadcast_channel, project_channel, user_channel
from test_app_recheck import published
from test_publish import run
from timing import eventually, scaled

ALLOWED = {"TPI_PROJECT_ACCESS": "allow", "TPI_LOG_LEVEL": "debug"}
SOON = 5  # seconds; far less than an interval between two re-checks
LATER = 20


@pytest.fixture
def tenant():
    """One of the test's own, because all share a Valkey."""
    return f"t-{uuid.uuid4().hex[:8]}"


def revoke_channel(tenant):
    return f"notifications:tenant:{tenant}:revoke"


@pytest.fixture
def revoke(valkey, tenant):
    """revoke(user=, project=) runs the command; returns how many daemons have heard it."""
    def call(user=None, project=None, tenant=tenant, url=valkey.url):
        option = ("--user", user) if user else ("--project", str(project))
        done = run("revoke", *option, "--tenant", tenant, "--url", url, "--verbose")
        assert (done.status, done.err) == (0, "")
        found = re.fullmatch(rb"(\S+): (\d+) subscribers\n", done.out)
        assert found[1].decode() == revoke_channel(tenant)
        return int(found[2])
    return call


def check_open(*peers):
    for peer in peers:
        assert not peer.quiet(0).closed, peer


def check_got(peer, *payloads):
    """Just these wake-ups, once, and nothing else."""
    peer.wait_body(frame(payloads[-1]))
    assert after_first(peer) == b"".join(map(frame, payloads))


# The command

def test_nobody_listens(valkey, tenant):
    """Nobody needs to listen; without --verbose the command says nothing."""
    run("revoke", "--user", "u1", "--tenant", tenant, VALKEY_URL=valkey.url).silent()
    done = run("revoke", "--project", "7", "--dry-run", INSTANCE_TENANT_ID=tenant, VALKEY_URL="unix:///nonexistent")
    assert (done.status, done.err) == (0, "")
    assert done.out.decode() == revoke_channel(tenant) + ' {"event":"revoke","projectId":7}\n'


def test_valkey_away():
    """Where it cannot be published that is an error, or a warning with --best-effort."""
    args = ("revoke", "--user", "u1", "--url", "unix:///nonexistent")
    assert run(*args).status == 69
    done = run(*args, "--best-effort", "--tag", "idp")
    assert done.status == 0 and done.warning("idp")["channel"] == revoke_channel("default")


def test_not_in_a_batch(valkey):
    """It is no line of a batch."""
    done = run("batch", stdin=b'{"stream":"revoke","user":"u1"}\n', VALKEY_URL=valkey.url)
    assert done.status == 65 and 'stream must be "notification", "issue", "test-run" or "milestone"' in done.err


# Identity by the web server: it ends them

def test_user(streamd, valkey, revoke, tenant):
    """All streams of this user end cleanly, of both kinds and in both daemons of the tenant; no other does, of whatever
    user or tenant, and no wake-up is lost on those."""
    first, second = (streamd(INSTANCE_TENANT_ID=tenant, **ALLOWED) for _ in range(2))
    other = streamd(INSTANCE_TENANT_ID=tenant + "x", **ALLOWED)
    ends = [daemon.stream("u1", projects=projects) for daemon in (first, second) for projects in (None, 7, "8,9")]
    stays = [daemon.stream("u2", projects=projects) for daemon in (first, second) for projects in (None, 7)]
    stays += [first.stream("u11"), first.stream("u"), first.stream("revoke")]
    elsewhere = [other.stream("u1"), other.stream("u1", projects=7)]
    everywhere = [project_channel(7, tenant), broadcast_channel(tenant)]
    with published(valkey, everywhere) as ledger:
        assert revoke("u1") == 2
        wait_all(ends, lambda peer: peer.closed, SOON, "the end")
    for peer in ends:
        check_ended(peer)
        assert len(peer.events.retries) == 1 and {event.type for event in peer.events.events} == {"message"}
    ledger.settle({stays[0]: everywhere[1:], stays[1]: everywhere[:1], stays[2]: everywhere[1:],
                   stays[3]: everywhere[:1], **{peer: everywhere[1:] for peer in stays[4:]}})
    check_open(*stays, *elsewhere)
    for daemon in first, second:
        line = daemon.wait_for_log(r"^\[revoke\] user ")
        assert json.loads(line.partition("user ")[2]) == {"tenantId": tenant, "userId": "u1", "streams": 3}
        daemon.wait_for_log("revoked, ended.*u1", count=3)
        assert not daemon.matching("revoked.*u2")
    assert not other.matching("revoke")
    # He is welcome as far as the web server lets him in.
    first.stream("u1")


@pytest.mark.parametrize("prefixes", [None, "issue-updates", "a,b,issue-updates"])
def test_project(streamd, valkey, revoke, tenant, prefixes):
    """A project's streams end, also those of several projects, each counted once whatever the number of its channels;
    a notification stream is none of them."""
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
    assert json.loads(line.partition("project ")[2]) == {"tenantId": tenant, "projectId": 7, "streams": 2}
    assert revoke(project=9) == 1
    daemon.wait_for_log('"projectId":9,"streams":0')
    check_open(*stays)


@pytest.mark.parametrize("settings", [
    {"TPI_IDENTITY": None}, {"TPI_RECHECK_SECONDS": 0}, {"TPI_PROJECT_ACCESS": "allow"}], ids=str)
def test_not_all_can_be_asked(gated, revoke, tenant, settings):
    """Where a re-check would not ask for all that let a stream in, it ends, though the application still says yes."""
    _, daemon = gated(INSTANCE_TENANT_ID=tenant, **settings)
    peer = listen(daemon, **by(ANN, TPI_USER="ann", projects=7))
    revoke("ann")
    check_ended(peer.wait_end(SOON))
    peer = listen(daemon, **by(ANN, TPI_USER="ann", projects=7))
    revoke(project=7)
    check_ended(peer.wait_end(SOON))


# Identity by the application: it is asked again

def test_asked_again(gated, valkey, revoke, tenant):
    """The session is asked for at once, past the cache: who has lost it loses the stream, who has not keeps it, and
    every wake-up before and after comes once. Who has lost some projects leaves those channels alone."""
    app, daemon = gated(INSTANCE_TENANT_ID=tenant, TPI_APP_CACHE_SECONDS=300)
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
        wait_all(gone, lambda peer: peer.closed, SOON, "the end")
        daemon.wait_for_log("projects lost.*some", SOON)
        app.wait_asked(1, SESSION, "SECRET-good", SOON)
        app.wait_asked(1, PROJECTS, "SECRET-good", SOON)
    for peer in gone:
        check_ended(peer)
    ledger.settle({good[0]: [broadcast_channel(tenant)], good[1]: [project_channel(8, tenant)],
                   some: [project_channel(8, tenant)]})
    eventually(lambda: valkey.subscribers(project_channel(7, tenant)) == 1, what="the others stay in 7")
    valkey.publish(project_channel(7, tenant), '{"event":"numbered","channel":"x","n":1}')
    good[1].wait(lambda peer: any('"x"' in data for data in peer.events.data), what="the wake-up of 7")
    assert not any('"x"' in data for data in some.quiet(0).events.data)
    assert len(app.asked(SESSION, "SECRET-good")) in (1, 2), "not once for each stream, or for both"
    # Nothing is owed any more.
    with app.quiet():
        time.sleep(scaled(0.5))
    check_open(*good, some)


def test_project_asked_again(gated, revoke, tenant):
    """A project's streams are asked for, whoever has them, and no others."""
    app, daemon = gated(INSTANCE_TENANT_ID=tenant)
    app.people[BEN].projects |= {7, 8}
    ann, ben = (listen(daemon, **by(token, projects="7,8")) for token in (ANN, BEN))
    other = listen(daemon, **by(ANN, projects="8"))
    app.people[BEN].projects.clear()
    app.forget()
    assert revoke(project=7) == 1
    check_ended(ben.wait_end(SOON))
    app.wait_asked(1, PROJECTS, ANN, SOON)
    daemon.wait_for_log("revoked, asked again", count=2)
    check_open(ann, other)
    assert {tuple(request.ids) for request in app.asked(PROJECTS)} == {(7, 8)}


def test_file(gated, revoke, tenant, rundir):
    """The access file is looked at again, too."""
    path = f"{rundir}/rules"

    def write(text):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    write("7 ann ben\n8 ann\n")
    _, daemon = gated(INSTANCE_TENANT_ID=tenant, TPI_PROJECT_ACCESS=f"file:{path}")
    ann, ben = (listen(daemon, **by(token, projects="7,8")) for token in (ANN, BEN))
    write("8 ann\n")
    revoke(project=7)
    check_ended(ben.wait_end(SOON))
    daemon.wait_for_log("projects lost.*ann", SOON)
    check_open(ann)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["down", "hold"])
def test_application_away(gated, revoke, tenant, how):
    """A revocation is not lost while the application cannot be asked: the streams stay open, and who has lost his
    session loses his as soon as that is known. Then nobody is asked for any more."""
    app, daemon = gated(INSTANCE_TENANT_ID=tenant, TPI_APP_TIMEOUT_MS=500)
    gone, good = (listen(daemon, **by(token)) for token in (ANN, BEN))
    app.sign_out(ANN)
    getattr(app, how)()
    mark = daemon.mark()
    revoke("ann")
    revoke("ben")
    # More than once each.
    daemon.wait_for_log("user asked|nobody", LATER, start=mark, count=4)
    check_open(gone, good)
    app.release()
    if how == "down":
        app.start()
    check_ended(gone.wait_end(LATER))
    app.wait_asked(1, SESSION, BEN, LATER)
    daemon.wait_for_log('user answered.*"userId":"ben"', LATER, start=mark)
    check_open(good)
    app.forget()
    with app.quiet():
        time.sleep(scaled(8))
    check_open(good)


def test_recheck_under_way(gated, revoke, tenant):
    """A good answer to a re-check that was under way when the revocation came is not the last word."""
    app, daemon = gated(INSTANCE_TENANT_ID=tenant, TPI_RECHECK_SECONDS=5, TPI_APP_TIMEOUT_MS=20000)
    peer = listen(daemon, **by(ANN))
    app.forget()
    release = answer_from_now(app, SESSION)
    app.wait_asked(1, SESSION, timeout=8)
    app.sign_out(ANN)
    del app.faults[SESSION]
    revoke("ann")
    check_open(peer)
    release.set()
    check_ended(peer.wait_end(SOON))


# Who is on the way in

def answer_from_now(app, kind):
    """Questions of this kind get the answer that is honest now when the event that this returns is set."""
    release = threading.Event()

    def fault(exchange):
        honest = exchange.honest()
        release.wait(60)
        exchange.send(honest)
    app.faults[kind] = fault
    return release


def test_no_answer_from_before(gated, revoke, tenant):
    """Neither a kept answer nor one to a question that is under way lets anybody in after the revocation; who waits
    for that one already is asked for again as soon as he has begun."""
    app, daemon = gated(INSTANCE_TENANT_ID=tenant, TPI_APP_CACHE_SECONDS=300, TPI_APP_TIMEOUT_MS=30000)
    kept = listen(daemon, **by(ANN))
    app.sign_in("SECRET-eve", "eve", [7])
    for _ in range(2):
        listen(daemon, **by("SECRET-eve", projects=7)).close()
    daemon.wait_for_log('user asked.*"from":"cache"')
    daemon.wait_for_log('projects asked.*"from":"cache"')
    release = answer_from_now(app, SESSION)
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
    daemon.wait_for_log("revoked, asked again.*ben")


def test_newcomer_is_good(gated, revoke, tenant):
    """A newcomer whose session is good gets his stream, and keeps it, though he was on his way."""
    app, daemon = gated(INSTANCE_TENANT_ID=tenant, TPI_APP_TIMEOUT_MS=30000)
    release = answer_from_now(app, SESSION)
    ann, ben = (daemon.open(**by(token)) for token in (ANN, BEN))
    app.wait_asked(2)
    del app.faults[SESSION]
    revoke("ann")
    daemon.wait_for_log(r"\[revoke\]")
    app.forget()
    release.set()
    wait_all([ann, ben], synced, what="sync")
    app.wait_asked(1, SESSION, ANN, SOON)
    daemon.wait_for_log("user answered", count=3)
    check_open(ann, ben)
    assert not app.asked(SESSION, BEN)


@pytest.mark.parametrize("named", [{"user": "ann"}, {"project": 7}], ids=str)
def test_newcomer_is_not_asked_again(gated, revoke, tenant, named):
    """Where a re-check would not tell, a newcomer on his way comes later, and nobody else does."""
    app, daemon = gated(INSTANCE_TENANT_ID=tenant, TPI_IDENTITY=None, TPI_APP_TIMEOUT_MS=30000)
    app.people[BEN].projects.add(9)
    release = answer_from_now(app, PROJECTS)
    ann = daemon.open(**by(ANN, TPI_USER="ann", projects="7"))
    ben = daemon.open(**by(BEN, TPI_USER="ben", projects="9"))
    app.wait_asked(2, PROJECTS)
    revoke(**named)
    daemon.wait_for_log(r"\[revoke\]")
    release.set()
    check_later(ann.wait_end())
    ben.wait(synced, what="sync")
    check_open(ben)


class Script(standins.Server):
    """Before it confirms a channel for the first time it publishes a revocation, and waits."""

    def __init__(self, channel, tenant, payload):
        self.channel = channel.encode()
        self.revocation = standins.array(*map(standins.bulk, (b"message", revoke_channel(tenant).encode(), payload.encode())))
        self.go_on = threading.Event()
        self.waits = threading.Event()
        super().__init__()

    def answer(self, session, words, send):
        if words == [b"SUBSCRIBE", self.channel] and not self.waits.is_set():
            send(self.revocation)
            self.waits.set()
            self.go_on.wait(60)
        super().answer(session, words, send)

    def stop(self):
        self.go_on.set()
        super().stop()


@pytest.mark.parametrize("payload", ['{"event":"revoke","user":"ann"}', '{"event":"revoke","projectId":7}'])
@pytest.mark.parametrize("identity", [None, "app"])
def test_between_join_and_confirmation(gated, tenant, payload, identity):
    """A revocation that comes while Valkey has not confirmed the channels yet reaches the stream: it comes later, or
    begins and is asked for at once."""
    script = Script(project_channel(7, tenant), tenant, payload)
    app, daemon = gated(INSTANCE_TENANT_ID=tenant, TPI_IDENTITY=identity, VALKEY_URL=script.url)
    daemon.wait_for_log("connected")
    peer = daemon.open(**by(ANN, TPI_USER="ann", projects="7,8"))
    assert script.waits.wait(scaled(10))
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
    """Where the ACL forbids the channel streams work, and one warning says what does not and what to grant; another
    refused channel still has its own. With the right, at the next connection, it works."""
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
    assert all(words in warnings[0] for words in ("revoke does not work", revoke_channel(tenant), "remedy", "NOPERM"))
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
    """The channel is asked for at each connection, before any stream's."""
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
    # Without any stream, too.
    other.close()
    valkey.wait_subscribers(user_channel("u2", tenant), 0)
    assert revoke("u2", url=valkey.url) == 1
    daemon.wait_for_log('"userId":"u2","streams":0')


def test_forged(streamd, valkey, tenant):
    """What is not such a payload to the letter does nothing, and neither does one on another channel."""
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
    daemon.wait_for_log("payload dropped.*is no revocation")
    # A good one behind all that is heard.
    valkey.publish(revoke_channel(tenant), good)
    wait_all(peers, lambda peer: peer.closed, SOON, "the end")


# Many

@pytest.mark.slow
def test_storm(gated, revoke, tenant):
    """All streams of a project are asked for within TPI_APP_CONCURRENCY, spread, and each gets its answer."""
    count, most = 300, 8
    app, daemon = gated(INSTANCE_TENANT_ID=tenant, TPI_APP_CONCURRENCY=most, SSE_ISSUES_PER_TENANT_CAP=count)
    tokens = [app.sign_in(f"SECRET-{number}", f"user{number}", [7]) for number in range(count)]
    app.delay = 0.005
    peers = [daemon.open(**by(token, projects="7")) for token in tokens]
    wait_all(peers, synced, 30, "sync")
    app.forget()
    app.most_under_way = 0
    for token in tokens[::2]:
        app.people[token].projects.clear()
    revoke(project=7)
    wait_all(peers[::2], lambda peer: peer.closed, 30, "the end")
    eventually(lambda: {request.token for request in app.asked(PROJECTS)} == set(tokens), 30, "all are asked for")
    assert app.most_under_way <= most
    times = [request.started for request in app.asked(SESSION)]
    assert max(times) - min(times) > 1, "all at once"
    check_open(*peers[1::2])
    daemon.wait_for_log('"streams":300')
    daemon.wait_for_log("revoked, asked again", count=count)
