# SPDX-License-Identifier: ISC
"""Re-checks: every TPI_RECHECK_SECONDS the daemon authorizes open streams again, past the cache, and takes from a stream
what its user has lost, and nothing else."""

import os
import threading
from contextlib import contextmanager

import pytest

from answers import after_first, check_answer, check_ended, frame, notification
from application import ANN, BEN, PROJECTS, SESSION, by, listen, message
from fcgi import wait_all
from ledger import Ledger
from servers import ValkeyClient, project_channel, project_channels, user_channel
from timing import eventually, scaled

INTERVAL = 5  # seconds, the least that is allowed
SETTINGS = {"TPI_RECHECK_SECONDS": INTERVAL, "TPI_APP_CACHE_SECONDS": 300, "SSE_SYNC_SPREAD_MS": 0}


@contextmanager
def published(valkey, channels):
    """Publishes numbered wake-ups on these channels in the context; its value is their ledger."""
    client = ValkeyClient(valkey.address)
    ledger = Ledger(lambda channel, payload: client("PUBLISH", channel, payload))
    stop = threading.Event()

    def publish():
        while not stop.wait(0.005):
            for channel in channels:
                ledger.publish(channel)
    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield ledger
    finally:
        stop.set()
        thread.join()
        client.close()


def read(*peers):
    """Reads what has arrived: during published() a stream that is not read overflows within seconds."""
    for peer in peers:
        peer.quiet(0)


def sign_in(app, user, projects=()):
    return app.sign_in(f"SECRET-{user}", user, projects)


def reply_by_token(app, kind, answers):
    """Queries of this kind get the response that answers has for their token, else the correct one."""
    app.faults[kind] = lambda exchange: exchange.send(answers.get(exchange.query.token) or exchange.honest())


def test_what_is_lost(with_app, valkey):
    """Within the interval, past the cache: a stream ends cleanly if its session is lost, belongs to another user, or can
    read none of the projects; it leaves the channels of the projects it can no longer read, without a gap or a
    duplicate on the others; every other stream stays open, also where the response is invalid."""
    app, daemon = with_app(**SETTINGS, SSE_ISSUES_PER_USER_CAP=100)
    ends, stays = {}, {}

    def stream(user, projects=None, of=ends, **named):
        peer = listen(daemon, **by(sign_in(app, user, [100, *range(200, 450)]), projects=projects, **named))
        of[peer] = f"{user}, {projects}"
        return peer
    many = ",".join(map(str, range(200, 450)))
    stream("signed-out")
    stream("signed-out", "100")
    stream("other")
    stream("other", "100")
    stream("invalid")
    stream("no-project", "100,201")
    stream("refused", "100")
    stream("no-project", of=stays)
    stream("confused", "100", stays)
    stream("renewed", "100", stays)
    some = stream("some", f"7,100,{many}", stays)
    bystanders = {stream(f"bystander{number}", "100", stays): [project_channel(100)] for number in range(30)}
    app.forget()

    def rechecked():
        read(*ends, *stays)
        return (all(peer.closed for peer in ends) and daemon.matching("topics lost.*some.*201")
                and {f"SECRET-bystander{n}" for n in range(30)} <= {r.token for r in app.asked(PROJECTS)})
    with published(valkey, [project_channel(project) for project in (100, 300)]) as ledger:
        app.sign_out("SECRET-signed-out")
        app.people["SECRET-other"].id = "ben"
        app.people["SECRET-invalid"].id = "a b"
        app.people["SECRET-no-project"].projects.clear()
        app.people["SECRET-some"].projects -= {201, *range(400, 450)}
        app.sign_in("SECRET-renewed", "renewed", [100, 101, 102])
        reply_by_token(app, PROJECTS, {"SECRET-refused": message({"error": "no"}, 403),
                                       "SECRET-confused": message(b"<html>")})
        eventually(rechecked, INTERVAL + 1, "a re-check of every stream")
    for peer, name in ends.items():
        check_ended(peer)
        wakeups = [event.data for event in peer.events.events if "numbered" in event.data]
        assert after_first(peer).count(b"\n") == 2 * len(wakeups), f"{name}: more than wake-ups"
    ledger.settle({some: [project_channel(100), project_channel(300)], **bystanders})
    for peer, name in stays.items():
        assert not peer.quiet(0).closed, name
    for project, count in (201, 0), (400, 0), (449, 0), (200, 1), (300, 1), (399, 1):
        valkey.wait_subscribers(project_channel(project), count)
    times = [request.started for request in app.asked(SESSION) if "bystander" in request.token]
    assert max(times) - min(times) > INTERVAL / 2, f"not spread over the interval: {sorted(times)}"
    daemon.wait_for_log("session lost.*signed-out")
    # A new stream can have a project again whose access was lost and granted again.
    check_answer(daemon.ask(**by("SECRET-some", projects="201", HTTP_AUTHORIZATION="x")), 404)
    app.people["SECRET-some"].projects.add(201)
    listen(daemon, **by("SECRET-some", projects="201", HTTP_AUTHORIZATION="y")).close()


def test_access_alone(with_app, valkey):
    """With web-server identity only the projects are re-checked, so a notification stream causes no query."""
    app, daemon = with_app(**SETTINGS, TPI_IDENTITY=None)
    notifications = listen(daemon, **by(ANN, TPI_USER="eve"))
    issues = listen(daemon, **by(ANN, TPI_USER="eve", projects="7,8"))
    app.forget()
    app.people[ANN].projects.discard(7)
    daemon.wait_for_log(r"topics lost.*eve.*\[7\]", INTERVAL + 1)
    assert [request.kind for request in app.requests] == [PROJECTS]
    for lost, kept in zip(project_channels(7), project_channels(8)):
        valkey.wait_subscribers(lost, 0)
        assert valkey.subscribers(kept) == 1
    app.sign_out(ANN)
    check_ended(issues.wait_end(INTERVAL + 1))
    assert not app.asked(SESSION) and not notifications.quiet(0).closed


@pytest.mark.parametrize("identity", [None, "app"])
def test_file(with_app, valkey, rundir, identity):
    """A re-check applies a changed access file to open streams."""
    path = os.path.join(rundir, "rules")

    def write(text):
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write(text)
        os.rename(path + ".new", path)
    write("7 ann ben\n8 ann\n9 ann\n")
    _, daemon = with_app(**SETTINGS, TPI_IDENTITY=identity, TPI_PROJECT_ACCESS=f"file:{path}")
    ann = listen(daemon, **by(ANN, TPI_USER="ann", projects="7,8,9"))
    ben = listen(daemon, **by(BEN, TPI_USER="ben", projects="7,8"))
    kept = project_channels(9)

    def applied():
        read(ann, ben)
        return ben.closed and daemon.matching(r"topics lost.*ann.*\[7,8\]")
    with published(valkey, kept) as ledger:
        write("8 ben\n9 ann\n")
        eventually(applied, INTERVAL + 1, "the new rules")
    check_ended(ben)
    ledger.settle({ann: kept})
    for project, count in (7, 0), (8, 0), (9, 1):
        for channel in project_channels(project):
            valkey.wait_subscribers(channel, count)


@pytest.mark.slow
def test_unreachable_application(with_app):
    """While the application is down or hangs, every stream stays open, with at most one warning a minute; re-checks
    resume when it responds again. With TPI_RECHECK_SECONDS=0 there are none."""
    app, daemon = with_app(**SETTINGS)
    _, never = with_app(**{**SETTINGS, "TPI_RECHECK_SECONDS": 0}, app=app)
    peers = [listen(daemon, **by(sign_in(app, f"user{number}", [7]), projects="7")) for number in range(20)]
    quiet = listen(never, **by("SECRET-user0", projects="7"))
    app.sign_out("SECRET-user0")
    app.down()
    mark = daemon.mark()
    daemon.wait_for_log("user query", INTERVAL * 2 + 2, start=mark, count=22)  # the second time for some
    app.start()
    app.hold()
    daemon.wait_for_log("user query", INTERVAL + 2, start=mark, count=30)
    assert len(daemon.matching("cannot query the application.*suppressed", start=mark)) <= 1
    assert not any(peer.quiet(0).closed for peer in peers[1:])
    app.release()
    check_ended(peers[0].wait_end(INTERVAL + 4))
    assert not any(peer.quiet(0).closed for peer in peers[1:])
    assert not quiet.quiet(0).closed
    assert len(never.matching("user query")) == 1


@pytest.mark.slow
def test_streams_of_a_user_share(with_app):
    """All streams of a user share one session query per interval, and one project query per set of projects; each is
    still re-checked, and ends within the interval when the session does."""
    app, daemon = with_app(**SETTINGS)
    token = sign_in(app, "shared", [7, 8])
    sets = None, "7", "7,8"
    peers = [listen(daemon, **by(token, projects=projects)) for projects in sets * 4]
    app.forget()
    # The streams begin to share during the first interval.
    app.wait_asked(3, SESSION, timeout=3 * INTERVAL)
    mark = daemon.mark()
    app.wait_asked(5, SESSION, timeout=3 * INTERVAL)
    starts = [request.started for request in app.asked(SESSION)[-3:]]
    assert all(after - before > 0.8 * INTERVAL for before, after in zip(starts, starts[1:])), starts
    daemon.wait_for_log("user query", start=mark, count=2 * len(peers))
    projects = [request.ids for request in app.asked(PROJECTS) if starts[0] < request.started < starts[-1]]
    assert sorted(projects) == [[7], [7], [7, 8], [7, 8]], "two intervals"
    assert not any(peer.quiet(0).closed for peer in peers)
    app.sign_out(token)
    wait_all(peers, lambda peer: peer.closed, INTERVAL + 1, "the end")


@pytest.mark.slow
def test_application_slower_than_the_interval(with_app, valkey):
    """A stream has one re-check in flight at a time, however long it takes; meanwhile it gets its wake-ups, and a drain
    does not wait for it."""
    app, daemon = with_app(**SETTINGS, TPI_APP_TIMEOUT_MS=20000, TPI_DRAIN_SECONDS=1)
    peer = listen(daemon, **by(ANN))
    app.forget()
    app.delay = INTERVAL + 1.5
    app.wait_asked(2, timeout=2 * INTERVAL + 4)
    first, second = app.requests
    assert second.started >= first.finished
    assert not daemon.matching("request in flight")
    valkey.publish(user_channel("ann"), notification(1))
    peer.wait_body(frame(notification(1)), 0.5)
    assert daemon.stop() < scaled(1)
