# SPDX-License-Identifier: ISC
"""Caps: the slots of a tenant and of a user are exact, and are given back."""

import socket
import time

import pytest

import fcgi
from answers import (EVICTED, PING, after_first, check_answer, check_evicted, check_first, check_later,
                     check_returned, check_still_evicted, frame, notification)
from application import ANN, BEN, PROJECTS, SESSION, by, listen, says
from fcgi import wait_all
from servers import user_channel
from timing import eventually, scaled

KINDS = {"notifications": ("SSE_PER_TENANT_CAP", "SSE_PER_USER_CAP", {}),
         "issues": ("SSE_ISSUES_PER_TENANT_CAP", "SSE_ISSUES_PER_USER_CAP", {"projects": "7"})}
kinds = pytest.mark.parametrize("tenant_cap, user_cap, kind", KINDS.values(), ids=KINDS)


# The tenant's

@kinds
def test_tenant_cap(streamd, tenant_cap, user_cap, kind):
    """The cap's last stream is let in, the next one gets 503 with Retry-After; the other kind is not touched."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", **{tenant_cap: 3})
    peers = [daemon.stream(f"u{number}", **kind) for number in range(3)]
    check_answer(daemon.ask("u9", **kind), 503)
    check_answer(daemon.ask("u0", **kind), 503)  # a place is not freed by evicting his own
    with daemon.stream("u9", **({} if kind else {"projects": "7"})):
        pass
    for peer in peers:
        assert after_first(peer.quiet(0.1)) == b""


@kinds
def test_tenant_cap_in_a_burst(streamd, tenant_cap, user_cap, kind):
    """Three times the cap at once: exactly the cap is let in, each of the others gets 503."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", **{tenant_cap: 40, user_cap: 10000})
    data = fcgi.request(fcgi.params(**kind))
    peers = [fcgi.Peer(daemon.address) for _ in range(120)]
    for peer in peers:
        peer.send(data)
    wait_all(peers, lambda p: fcgi.live(p) or p.closed, 20, "an answer")
    for peer in peers:
        if peer.closed:
            check_answer(peer, 503)
        else:
            check_first(peer)
    assert sum(not peer.closed for peer in peers) == 40
    for peer in peers:
        peer.close()
    eventually(lambda: all_free(daemon, 40, kind), what="40 free places")


def all_free(daemon, count, kind):
    peers = [daemon.open("probe", **kind) for _ in range(count)]
    wait_all(peers, lambda p: p.status, what="an answer")
    answer = all(peer.status == 200 for peer in peers)
    for peer in peers:
        peer.close()
    return answer


def stream_when_free(daemon):
    """A stream as soon as there is a place for it."""
    def attempt():
        peer = daemon.open()
        peer.wait(lambda p: p.closed or fcgi.live(p))
        return None if peer.closed else peer
    return eventually(attempt, what="a place")


def leave_by_close(peer):
    peer.close()


def leave_by_half_close(peer):
    peer.socket.shutdown(socket.SHUT_WR)


def leave_by_abort(peer):
    peer.send(fcgi.record(fcgi.ABORT))


@pytest.mark.parametrize("leave", [leave_by_close, leave_by_half_close, leave_by_abort])
def test_place_is_given_back(streamd, leave):
    """A place is free within a second of the stream's end, however it ended."""
    daemon = streamd(SSE_PER_TENANT_CAP=1)
    peer = daemon.stream()
    for _ in range(3):
        check_answer(daemon.ask("u2"), 503)
        leave(peer)
        started = time.monotonic()
        peer = stream_when_free(daemon)
        assert time.monotonic() - started < scaled(1)


def test_refusals_hold_no_place(streamd, rundir):
    """Answers without a stream, aborted heads and bad peers leave the places as they were."""
    rules = f"{rundir}/rules"
    with open(rules, "w", encoding="ascii") as file:
        file.write("7 probe\n")
    daemon = streamd(TPI_PROJECT_ACCESS=f"file:{rules}", SSE_PER_TENANT_CAP=1, SSE_ISSUES_PER_TENANT_CAP=1)
    for _ in range(5):
        daemon.ask(SCRIPT_NAME="/x")
        daemon.ask(REQUEST_METHOD="HEAD")
        daemon.ask(TPI_USER=None)
        daemon.ask("a b")
        daemon.ask("stranger", projects="7")
        daemon.ask("probe", projects="x")
        fcgi.Peer(daemon.address, fcgi.begin() + fcgi.record(fcgi.ABORT)).wait_end()
        fcgi.Peer(daemon.address, fcgi.request(fcgi.params())[:-20]).close()
        fcgi.Peer(daemon.address, b"\2" * 64).wait_end()
    with daemon.stream(), daemon.stream("probe", projects="7"):
        check_answer(daemon.ask(), 503)


def answered_in_turn(daemon, **named):
    """The statuses of 200 requests, each sent when the end of the last answer has come, not the connection's close."""
    statuses = set()
    for _ in range(200):
        with daemon.open(**named) as peer:
            statuses.add(peer.wait(lambda p: p.ended, what="END_REQUEST").status)
    return statuses


def test_slot_is_free_before_the_end_of_an_answer(with_app, valkey):
    """At a cap of 1, a client that has read one response finds the slot free, after 401, 404 and retry later alike.
    The same holds for the user's slots, and for TPI_APP_PENDING=1."""
    caps = {"SSE_PER_TENANT_CAP": 1, "SSE_ISSUES_PER_TENANT_CAP": 1, "SSE_PER_USER_CAP": 1, "TPI_APP_PENDING": 1}
    app, daemon = with_app(**caps)
    assert answered_in_turn(daemon, **by("SECRET-unknown")) == {401}
    assert answered_in_turn(daemon, **by(ANN, projects="9")) == {404}
    app.faults[SESSION] = says({}, 500)
    assert answered_in_turn(daemon, **by(ANN)) == {200}
    assert not daemon.matching("too many requests wait")
    app.faults.clear()
    with listen(daemon, **by(ANN)), listen(daemon, **by(ANN, projects="7")):
        pass


def test_slot_is_free_before_the_end_without_valkey(streamd, new_valkey):
    """The same where Valkey is unreachable, and where it refuses the channel after the subscription has begun."""
    daemon = streamd(VALKEY_URL="redis://127.0.0.1:1", SSE_PER_TENANT_CAP=1)
    daemon.wait_for_log("127.0.0.1:1: ")
    assert answered_in_turn(daemon) == {200}
    valkey = new_valkey().start()
    valkey("ACL", "SETUSER", "default", "resetchannels", "&revoke:*")
    daemon = streamd(VALKEY_URL=valkey.url, SSE_PER_TENANT_CAP=1)
    daemon.wait_for_log("started")
    assert answered_in_turn(daemon) == {200}


def test_failed_subscription_gives_its_place_back(streamd, new_valkey):
    """Later for want of Valkey costs no place."""
    valkey = new_valkey()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_PER_TENANT_CAP=2, SSE_PER_USER_CAP=1)
    for _ in range(5):
        check_later(daemon.ask())
    valkey.start()

    eventually(lambda: daemon.open().wait(lambda p: p.closed or p.events.data).events.data, 20,
               "a stream after Valkey came")


# The user's

@kinds
def test_user_cap(streamd, valkey, tenant_cap, user_cap, kind):
    """One more than the cap: the newcomer's sync at once; two pings on the user's others, 300 ms apart; then the
    oldest gets evicted and its end. Others of the user live on, another user hears nothing."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", **{user_cap: 2})
    oldest = daemon.stream(**kind)
    middle = daemon.stream(**kind)
    other = daemon.stream("other", **kind)
    newcomer = daemon.stream(**kind)
    check_first(newcomer)
    assert EVICTED.search(oldest.quiet(0).body) is None
    oldest.wait_end()
    check_evicted(oldest)
    assert after_first(oldest).startswith(PING + PING + b"retry: ")
    event = oldest.events.events[-1]
    assert (event.type, event.data, event.last_event_id) == ("evicted", "{}", "evicted")
    first, second = [comment.time for comment in oldest.events.comments]
    assert second - newcomer.opened > 0.29 and second - first < scaled(1.3)
    assert event.time - newcomer.opened > 0.59
    assert after_first(middle.quiet(0.2)) == PING + PING
    assert after_first(newcomer.quiet(0)) == b"" and after_first(other.quiet(0)) == b""
    if not kind:
        valkey.publish(user_channel("u1"), notification(1))
        middle.wait_body(frame(notification(1)))
        newcomer.wait_body(frame(notification(1)))


# How fast a user opens streams

def test_opens_per_second(streamd, rundir):
    """A user may open five seconds' worth of streams at once, of all kinds together. Further requests are deferred, even
    if the tenant is full, until the rate permits one. Others, and requests that are refused anyway, do not count."""
    rules = f"{rundir}/rules"
    with open(rules, "w", encoding="ascii") as file:
        file.write("7 ann\n")
    daemon = streamd(TPI_PROJECT_ACCESS=f"file:{rules}", TPI_USER_OPENS_PER_SECOND=1, SSE_PER_TENANT_CAP=5)
    for _ in range(20):
        check_answer(daemon.ask("ann", projects="9"), 404)
        check_answer(daemon.ask("ann", projects="x"), 400)
    started = time.monotonic()
    peers = daemon.streams(3, "ann") + daemon.streams(2, "ann", projects="7")
    for named in {}, {"projects": "7"}, RETURNING:
        check_later(daemon.ask("ann", **named))
    assert time.monotonic() < started + 1, "too slow for this test"
    daemon.wait_for_log(r'^\[sse/\w+\] user opens streams too fast \{"tenantId":"default","userId":"ann",')
    peers += daemon.streams(2, "ben")
    check_answer(daemon.ask("ben"), 503)
    check_later(daemon.ask("ann"))

    def open_again():
        peer = daemon.open("ann", projects="7").wait(lambda p: p.closed or fcgi.live(p))
        return None if peer.closed else peer
    eventually(open_again, what="a stream when the rate permits it").close()
    assert time.monotonic() - started > 0.9


def test_opens_per_second_by_default(streamd):
    """By default a user may open 100 streams at once, which is more than any browser restores."""
    daemon = streamd(TPI_USER_OPENS_PER_SECOND=None, SSE_PER_USER_CAP=100)
    daemon.streams(100)


# An evicted stream that comes back by itself

MARKS = {"header": {"HTTP_LAST_EVENT_ID": "evicted"},
         "query": {"QUERY_STRING": "projectIds=7&lastEventId=evicted"},
         "other query": {"QUERY_STRING": "Last-Event-ID=evicted&projectIds=7"},
         "encoded query": {"QUERY_STRING": "projectIds=7&last%45ventId=%65victed&x"}}
RETURNING = MARKS["header"]
marks = pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)


def returned(daemon, **named):
    """The stream that an evicted one has got; None where it was told to retry."""
    peer = daemon.open(**named).wait(lambda p: p.closed or fcgi.live(p), what="an answer")
    if peer.closed:
        check_still_evicted(peer)
        return None
    check_returned(peer)
    return peer


@kinds
@marks
def test_eviction_heals(streamd, valkey, tenant_cap, user_cap, kind, mark):
    """The automatic reconnect of an evicted stream costs nobody's stream: it retries in minutes until there is room,
    and is a stream like any other then. A new EventSource is always let in."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow", **{user_cap: 1})
    first = daemon.stream(**kind)
    second = daemon.stream(**kind)
    check_evicted(first.wait_end())
    assert first.events.last_event_id == "evicted"
    for _ in range(20):
        assert returned(daemon, **kind, **mark) is None
    assert after_first(second.quiet(0.8)) == b""
    second.close()
    again = eventually(lambda: returned(daemon, **kind, **mark), what="a stream when there is room")
    if not kind:
        valkey.publish(user_channel("u1"), notification(1))
        again.wait_data(notification(1))
    third = daemon.stream(**kind)
    check_evicted(again.wait_end())
    assert not third.quiet(0.1).closed


def test_returning_at_once(streamd):
    """Many evicted streams that come back at once share what is free, and the rest goes on waiting."""
    daemon = streamd(SSE_PER_USER_CAP=5)
    held = daemon.streams(2)
    data = fcgi.request(fcgi.params(**RETURNING))
    peers = [fcgi.Peer(daemon.address) for _ in range(30)]
    for peer in peers:
        peer.send(data)
    wait_all(peers, lambda p: fcgi.live(p) or p.closed, 20, "an answer")
    for peer in peers:
        if peer.closed:
            check_still_evicted(peer)
        else:
            check_returned(peer)
    assert sum(not peer.closed for peer in peers) == 3
    assert all(after_first(peer.quiet(0.8 if peer is held[0] else 0)) == b"" for peer in held)


def test_requests_in_flight_take_slots(streamd, new_valkey):
    """A slot is not free while a request in flight claims it."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_PER_USER_CAP=1)
    daemon.stream("bystander").close()
    valkey.pause()
    peer = daemon.open()
    peer.quiet(0.2)
    assert returned(daemon, **RETURNING) is None
    valkey.resume()
    check_first(peer.wait_live())


@pytest.mark.parametrize("early", [True, False], ids=["arrived first", "arrived last"])
def test_slots_fill_before_the_sync(with_app, new_valkey, early):
    """A slot that was free at the claim and is not at the sync: the new stream keeps it, undisturbed, and the
    returning one goes on waiting, whichever arrived first."""
    valkey = new_valkey().start()
    app, daemon = with_app(VALKEY_URL=valkey.url, SSE_PER_USER_CAP=1)
    listen(daemon, **by(BEN)).close()
    valkey.pause()
    if early:
        returning = daemon.open(**by(ANN, **RETURNING))
        returning.quiet(0.2)
        new = daemon.open(**by(ANN))
        new.quiet(0.2)
    else:  # the new one waits for the application until the returning one has its slot
        app.hold()
        new = daemon.open(**by(ANN))
        app.wait_asked(1, token=ANN)
        app.faults.clear()
        app.sign_in("SECRET-ann-2", "ann")
        returning = daemon.open(**by("SECRET-ann-2", **RETURNING))
        returning.quiet(0.2)
        app.release()
        new.quiet(0.2)
    assert new.head is None and returning.head is None
    valkey.resume()
    check_still_evicted(returning.wait_end())
    check_first(new.wait(fcgi.live, what="sync"))
    assert after_first(new.quiet(0.8)) == b"" and not new.closed


def test_returning_in_the_order_of_checks(with_app, new_valkey):
    """No free slot comes after 401 and 503, before the 404 for projects and before Valkey; with a free slot the
    answer is that of any other request."""
    valkey = new_valkey().start()
    app, daemon = with_app(VALKEY_URL=valkey.url, SSE_ISSUES_PER_USER_CAP=1, SSE_ISSUES_PER_TENANT_CAP=2)
    check_answer(daemon.ask(**by("SECRET-unknown", projects="7", **RETURNING)), 401)
    check_answer(daemon.ask(**by(ANN, projects="x", **RETURNING)), 400)
    check_answer(daemon.ask(**by(ANN, projects="9", **RETURNING)), 404)
    with listen(daemon, **by(ANN, projects="7")):
        asked = len(app.asked(PROJECTS))
        check_still_evicted(daemon.ask(**by(ANN, projects="9", **RETURNING)))
        assert len(app.asked(PROJECTS)) == asked
        with listen(daemon, **by(BEN, projects="8")):
            check_answer(daemon.ask(**by(ANN, projects="7", **RETURNING)), 503)
        valkey.kill()
        daemon.wait_for_log("unreachable")
        check_still_evicted(daemon.ask(**by(ANN, projects="7", **RETURNING)))
        check_later(daemon.ask(**by(BEN, projects="8", **RETURNING)))


def test_returning_costs_no_slot(with_app):
    """200 returning requests in turn at a tenant's cap of 2, one of them taken: none is refused."""
    _, daemon = with_app(SSE_PER_TENANT_CAP=2, SSE_PER_USER_CAP=1)
    with listen(daemon, **by(ANN)) as stream:
        assert answered_in_turn(daemon, **by(ANN, **RETURNING)) == {200}
        assert after_first(stream.quiet(0)) == b""


def test_ghost_spares_the_live(streamd):
    """A stream that is gone when it is pinged makes room: no live one is evicted."""
    daemon = streamd(SSE_PER_USER_CAP=3)
    live = [daemon.stream() for _ in range(2)]
    ghost = daemon.stream()
    live.append(daemon.stream())
    ghost.wait_body(PING)
    ghost.close()
    live[0].wait_body(PING + PING)
    for peer in live:
        peer.quiet(1 if peer is live[0] else 0)
        assert not peer.closed and not EVICTED.search(peer.body)


def test_ghosts_of_a_reloaded_tab(streamd):
    """Three live tabs and a fourth reloaded ten times: none of the three is evicted."""
    daemon = streamd()  # the default cap of 4
    tabs = [daemon.stream() for _ in range(3)]
    tab = daemon.stream()
    for _ in range(10):
        successor = daemon.stream()
        tab.close()
        tab = successor
    for peer in tabs:
        peer.quiet(1 if peer is tabs[0] else 0)
        assert not peer.closed and not EVICTED.search(peer.body)


def test_twice_the_cap(streamd):
    """Who would hold more than twice his cap loses the oldest at once; after 600 ms the cap holds."""
    daemon = streamd(SSE_PER_USER_CAP=2)
    peers = [daemon.stream() for _ in range(5)]
    check_evicted(peers[0].wait_end())
    for peer in peers[1:3]:
        check_evicted(peer.wait_end())
    for peer in peers[3:]:
        assert not EVICTED.search(peer.quiet(0.3).body) and not peer.closed
    assert peers[0].closed_at <= peers[1].closed_at + 0.05


def test_twice_the_cap_at_once(streamd):
    """The eviction beyond twice the cap does not wait for the 600 ms."""
    daemon = streamd(SSE_PER_USER_CAP=1)
    peers = [daemon.stream() for _ in range(3)]
    check_evicted(peers[0].wait_end())
    assert EVICTED.search(after_first(peers[0])).start() <= 2 * len(PING)
    check_evicted(peers[1].wait_end())
    assert not peers[2].quiet(0.3).closed


def test_twice_the_cap_under_way(streamd, new_valkey):
    """Requests under way count: beyond twice the cap the oldest of them gets later, the others their stream."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_PER_USER_CAP=2, TPI_PROJECT_ACCESS="allow")
    daemon.stream("bystander").close()
    valkey.pause()
    peers = []
    for number in range(5):
        peers.append(daemon.open())
        if number < 4:  # so that the order of arrival is the order of opening
            peers[-1].quiet(0.1)
            assert peers[-1].head is None
    check_later(peers[0].wait_end(3))
    valkey.resume()
    wait_all(peers[1:], fcgi.live, what="sync")
    # Their syncs come in the same instant: the newest requests stay.
    for peer in peers[1:3]:
        check_evicted(peer.wait_end())
    for peer in peers[3:]:
        assert not EVICTED.search(peer.quiet(0.2).body) and not peer.closed


@kinds
def test_oldest_by_arrival(streamd, new_valkey, tenant_cap, user_cap, kind):
    """Twice the cap of requests that begin in one confirmation, as when a browser restores its tabs or Valkey is
    reachable again: the newest by arrival stay."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow", **{user_cap: 8})
    daemon.stream("bystander").close()
    valkey.pause()
    peers = [daemon.open(**kind) for _ in range(16)]
    peers[-1].quiet(0.3)
    assert all(peer.quiet(0).head is None for peer in peers)
    valkey.resume()
    wait_all(peers, fcgi.live, what="sync")
    for peer in peers[:8]:
        check_evicted(peer.wait_end())
    for peer in peers[8:]:
        assert not EVICTED.search(peer.quiet(0).body) and not peer.closed


def test_users_in_a_burst(streamd):
    """Many newcomers of one user at once: all get their sync or later, and in the end he holds his cap."""
    daemon = streamd(SSE_PER_USER_CAP=4)
    data = fcgi.request(fcgi.params())
    peers = [fcgi.Peer(daemon.address) for _ in range(60)]
    for peer in peers:
        peer.send(data)
    wait_all(peers, lambda p: fcgi.live(p) or p.closed, 20, "an answer")

    def still_open():
        for peer in peers:
            if not peer.closed:
                peer.quiet(0)
        return sum(not peer.closed for peer in peers)
    eventually(lambda: still_open() <= 4, what="the cap holds")
    time.sleep(0.7)  # longer than an eviction takes
    assert still_open() == 4
    for peer in peers:
        if peer.closed and peer.events.data:
            check_evicted(peer)
        elif peer.closed:
            check_later(peer)


def test_default_caps(streamd):
    """The defaults are 4 notification and 8 issue streams of a user."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow")
    for cap, kind in (4, {}), (8, {"projects": "7"}):
        peers = [daemon.stream(**kind) for _ in range(cap)]
        assert all(after_first(peer.quiet(0.02)) == b"" for peer in peers)
        peers.append(daemon.stream(**kind))
        check_evicted(peers[0].wait_end())
        wait_all(peers[1:cap], lambda p: after_first(p) == PING + PING, what="two pings")


def test_eviction_is_logged(streamd):
    """An eviction is an info line that names the user."""
    daemon = streamd(SSE_PER_USER_CAP=1)
    with daemon.stream("ann"), daemon.stream("ann"):
        daemon.wait_for_log(r"evict.*ann|ann.*evict")
