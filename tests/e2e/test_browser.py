# SPDX-License-Identifier: ISC
"""Pages in a real Chromium, with the client library and without it, through a real Apache and a real nginx; and the
library's own tests.

Who is signed in has the cookie of a session, which the daemon shows to the application. Where requests are counted
they are counted at the daemon's door, by a relay in front of it.
"""

import json
import os
import shutil
import subprocess
import time

import pytest

from answers import issue, notification
from application import ANN, BEN, COOKIE, PROJECTS, by, listen
from certificates import Authority
from chromium import FIRST, LATER, NAME
from fcgi import ISSUES, NOTIFICATIONS
from fronts import Apache, Nginx
from node import npm_ci
from relay import Relay
from servers import (ROOT, broadcast_channel, clean_environment, free_port, listening_socket, project_channel,
                     user_channel)
from timing import eventually, scaled
from topics import BY_NAME, LIVE, TOPICS

pytestmark = pytest.mark.slow

OPEN = ["--mode", "0666"]  # the front servers' workers are another user
SERVERS = {"Apache": Apache, "nginx": Nginx}
both = pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
LIBRARY = os.path.join(ROOT, "contrib", "browser")
PAGES = os.path.join(ROOT, "tests", "e2e", "browser")
SYNC = {"event": "sync"}  # as a plain EventSource gets it
SOON = {"firstMs": 200, "maxMs": 400}  # retry times that a test can wait for
CONNECTING, CLOSED = 0, 2  # of EventSource
NO_ROOM = "no free slot for an evicted stream"
CLIENTS = ["native", "event-source-polyfill", "reconnecting-eventsource"]
BOTH_TOLD = "seen.a.messages.length >= {0} && seen.b.messages.length >= {0}"


def wakeup(id):
    return {"type": "wakeup", "event": "notification", "id": str(id)}


def issue_wakeup(number, project):
    return {"type": "wakeup", "event": "issue-updated", "issueId": number, "projectId": project}


def raw(id):
    return {"id": str(id), "event": "notification"}


@pytest.fixture
def browser(chromium):
    """The browser, without tabs and cookies."""
    yield chromium
    chromium.forget()


@pytest.fixture
def counted(rundir):
    """counted(daemon) is a relay to the daemon; its .connections are the requests that came."""
    made = []

    def make(daemon):
        directory = os.path.join(rundir, f"relay{len(made)}")
        os.mkdir(directory)
        os.chmod(directory, 0o755)
        made.append(Relay(directory, daemon.address))
        os.chmod(made[-1].path, 0o666)
        return made[-1]
    yield make
    for relay in made:
        relay.close()


# The same origin once more with TLS and HTTP/2, over which a browser has any number of streams

def apache_tls(port, certificate, key):
    modules = "/usr/lib/apache2/modules"
    return f"""
        LoadModule ssl_module {modules}/mod_ssl.so
        LoadModule http2_module {modules}/mod_http2.so
        Listen 127.0.0.1:{port} https
        <VirtualHost 127.0.0.1:{port}>
            Protocols h2
            SSLEngine on
            SSLCertificateFile {certificate}
            SSLCertificateKeyFile {key}
        </VirtualHost>"""


def nginx_tls(port, certificate, key):
    return f"""
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};"""


class Site:
    """A front server with the pages, and the browser, in which ann is signed in. name is the site's, as the browser
    knows it."""

    def __init__(self, browser, server, rundir, address, http2=False, name="127.0.0.1"):
        self.browser = browser
        tls, port = "", free_port()
        if http2:
            tls = (apache_tls if server is Apache else nginx_tls)(port, *Authority(rundir).certificate())
        self.front = server(rundir, address, auth="app", site=tls)
        self.url = f"https://{name}:{port}" if http2 else f"http://{name}:{self.front.address[1]}"
        for name in "page.html", "page.js":
            self.add(os.path.join(PAGES, name))
        self.add(os.path.join(LIBRARY, "tpi-stream.js"))
        self.sign_in()

    def add(self, path):
        os.chmod(shutil.copy(path, os.path.join(self.front.directory, "www")), 0o644)

    def add_clients(self):
        """What a page may use for EventSource."""
        packages = os.path.join(npm_ci(PAGES, "chromium-test_browser"), "node_modules")
        self.add(os.path.join(packages, "event-source-polyfill", "src", "eventsource.js"))
        self.add(os.path.join(packages, "reconnecting-eventsource", "build", "esm", "reconnecting-eventsource.js"))

    def sign_in(self):
        self.browser.sign_in(self.url, COOKIE, ANN)

    def tab(self):
        return self.browser.open(f"{self.url}/page.html")


@pytest.fixture
def site(browser, rundir):
    """site(server, daemon or relay or path) starts one."""
    made = []

    def make(server, behind, **named):
        address = next((getattr(behind, name) for name in ("path", "address") if hasattr(behind, name)), behind)
        made.append(Site(browser, server, rundir, address, **named))
        return made[-1]
    yield make
    for each in made:
        each.front.kill()


def stays(condition, what, seconds):
    """Proves that something stays true for a while."""
    with pytest.raises(AssertionError, match="not in time: "):
        eventually(lambda: not condition(), seconds / scaled(1), f"a change of {what}")


# Messages

@both
@pytest.mark.parametrize("name", ["127.0.0.1", NAME])
def test_ordinary_user(with_app, valkey, site, server, name):
    """A user without API access gets the issues of their projects, also over plain http to a name that is not loopback,
    where the browser sends Referer but not Sec-Fetch-Site."""
    app, daemon = with_app(OPEN)
    tab = site(server, daemon, name=name).tab()
    assert tab("isSecureContext") == (name != NAME)
    tab.plain("a", f"{ISSUES}?projectId=7")
    tab.until("seen.a.messages.length")
    valkey.publish(project_channel(7), issue(1, 7))
    tab.until("seen.a.messages.length === 2")
    assert [query.header("Sec-Fetch-Site") for query in app.asked(PROJECTS)] == ["same-origin"]


@both
def test_sync_then_wakeups(with_app, valkey, site, server):
    """Both kinds: the first sync and then each wake-up of this user and of these projects, in order."""
    _, daemon = with_app(OPEN)
    tab = site(server, daemon).tab()
    tab.watch("bell")
    tab.watch("board", [7, 8, 9])  # 9 is not ann's
    tab.wait("bell", FIRST)
    tab.wait("board", FIRST)
    valkey.publish(user_channel("ben"), notification("ben's"))
    valkey.publish(user_channel("ann"), notification(1))
    valkey.publish(broadcast_channel(), notification(2))
    for project in 9, 8, 7:
        valkey.publish(project_channel(project), issue(3, project))
    tab.wait("bell", FIRST, wakeup(1), wakeup(2))
    tab.wait("board", FIRST, issue_wakeup(3, 8), issue_wakeup(3, 7))
    assert tab.states("bell") == tab.states("board") == ["connecting", "live"]


@both
def test_live_topics(with_app, valkey, site, server):
    """Test runs and milestones, singly and of a project: the first sync, and then the wake-ups of each."""
    _, daemon = with_app(OPEN)
    place = site(server, daemon)
    for topic in LIVE:
        tab = place.tab()
        tab.watch("a", [7], kind=function_of(topic))
        tab.wait("a", FIRST)
        for id in 8, 7:
            valkey.publish(topic.channel(id), topic.payload % id)
        tab.wait("a", FIRST, {"type": "wakeup", **json.loads(topic.payload % 7)})


def test_no_access_to_one_of_several(with_app, valkey, counted, site):
    """A watcher of several test runs, one of which the user may not read: a sync and the wake-ups of the others."""
    _, daemon = with_app(OPEN)
    tab = site(Nginx, counted(daemon)).tab()
    tab.watch("a", [7, 8], kind="TestRuns")  # 8 is not ann's
    tab.wait("a", FIRST)
    assert tab("seen.a.closed") >= 1
    topic = BY_NAME["testRuns"]
    valkey.publish(topic.channel(7), topic.payload % 7)
    tab.wait("a", FIRST, {"type": "wakeup", **json.loads(topic.payload % 7)})


def test_components_share(with_app, valkey, counted, site):
    """30 watchers are two requests; who comes within the grace time joins; the last one's end is the stream's."""
    _, daemon = with_app(OPEN)
    relay = counted(daemon)
    tab = site(Nginx, relay).tab()
    bells, boards = [f"bell{n}" for n in range(20)], [f"board{n}" for n in range(10)]
    tab("".join(f"watch('{name}'); " for name in bells)
        + "".join(f"watch('{name}', [{7 + n % 2}]); " for n, name in enumerate(boards)))
    for name in bells + boards:
        tab.wait(name, FIRST)
    valkey.publish(user_channel("ann"), notification(1))
    for name in bells:
        tab.wait(name, FIRST, wakeup(1))
    tab("".join(f"seen.{name}.stop(); " for name in bells + boards) + "watch('joiner')")
    tab.wait("joiner", FIRST)
    valkey.wait_subscribers(project_channel(7), 0)
    tab.stop("joiner")
    valkey.wait_subscribers(user_channel("ann"), 0)
    assert relay.connections == 2


def test_union_of_projects(with_app, valkey, counted, site):
    """A further project is one reconnect, after which those who were there get a sync as well; each is told of its
    own projects."""
    _, daemon = with_app(OPEN)
    relay = counted(daemon)
    tab = site(Nginx, relay).tab()
    tab.watch("a", [7])
    tab.wait("a", FIRST)
    tab("watch('b', [8]); watch('c', [8, 7])")
    tab.wait("b", FIRST)
    tab.wait("a", FIRST, LATER)
    for project in 7, 8:
        valkey.publish(project_channel(project), issue(1, project))
    tab.wait("c", FIRST, issue_wakeup(1, 7), issue_wakeup(1, 8))
    tab.wait("a", FIRST, LATER, issue_wakeup(1, 7))
    tab.wait("b", FIRST, issue_wakeup(1, 8))
    assert relay.connections == 2


# Caps

@both
def test_tabs_over_the_cap_settle(with_app, valkey, counted, site, server, cap=3):
    """Twice the cap of tabs, with the library and with a plain EventSource: the newest keep their streams. The others
    open none by themselves, and the browser's own reconnects, after minutes, evict nobody; a tab is live again when
    another one is closed, and one with the library also when it is used."""
    # Behind Apache only a heartbeat reveals that a tab was closed.
    _, daemon = with_app(OPEN, SSE_PER_USER_CAP=cap, SSE_ISSUES_PER_USER_CAP=cap, SSE_HEARTBEAT_MS=500)
    relay = counted(daemon)
    place = site(server, relay, http2=True)
    tabs = [place.tab() for _ in range(2 * cap)]
    plain = [place.tab() for _ in range(2 * cap)]
    for tab, other in zip(tabs, plain):
        tab.watch("a")
        tab.wait_state("a", "live")
        other.plain("a", f"{ISSUES}?projectId=7")
        other.wait("a", SYNC)
    for tab, other in zip(tabs[:cap], plain[:cap]):
        tab.wait_state("a", "parked")
        other.until("seen.a.events.join() === 'open,evicted,error'")
    tabs[0].show()  # seen, but not used
    tabs[0].until("document.visibilityState === 'visible'")
    assert relay.connections == 4 * cap
    stays(lambda: relay.connections == 4 * cap, "the count of requests", 6)  # longer than retry
    for tab in tabs[1:cap] + plain[:cap]:  # the clock of the first tab goes on, for it is used later
        ask_for_room(tab, daemon)
        assert tab("seen.a.messages.length") == 1
    for other in plain[:cap]:
        assert other("seen.a.source.readyState") == CONNECTING
    valkey.publish(user_channel("ann"), notification(1))
    valkey.publish(project_channel(7), issue(1))
    for tab, other in zip(tabs[cap:], plain[cap:]):
        tab.wait("a", FIRST, wakeup(1))
        other.until("seen.a.messages.length === 2")
    tabs[-1].close()
    plain[-1].close()
    tabs[1].skip_until(310, "seen.a.states.at(-1) === 'live'")
    plain[1].skip_until(310, "seen.a.messages.length === 2")
    tabs[1].wait("a", FIRST, LATER)
    plain[1].wait("a", SYNC, SYNC)
    before = relay.connections
    tabs[0].click()
    tabs[0].wait("a", FIRST, LATER)
    tabs[cap].wait_state("a", "parked")
    assert relay.connections == before + 1


def ask_for_room(tab, daemon):
    """The reconnect of a parked tab, ahead of its time."""
    told = len(daemon.matching(NO_ROOM))
    eventually(lambda: tab.skip(310) or len(daemon.matching(NO_ROOM)) > told, what="a reconnect")


@pytest.mark.parametrize("client", CLIENTS)
def test_evicted_tab_revives(with_app, valkey, counted, site, client):
    """Two tabs at a cap of 1, whatever a page uses for EventSource: the evicted one asks after minutes, disturbs
    nobody, is live once the other one is closed, and is evicted like any other then."""
    _, daemon = with_app(OPEN, SSE_PER_USER_CAP=1)
    place = site(Nginx, counted(daemon))
    place.add_clients()
    tab, other = place.tab(), place.tab()
    # A clock that is put forward must not look like silence to the polyfill.
    tab.plain("a", NOTIFICATIONS, client, heartbeatTimeout=18000000)
    tab.wait("a", SYNC)
    other.plain("a", NOTIFICATIONS, client)
    other.wait("a", SYNC)
    tab.until("seen.a.events.includes('evicted')")
    for _ in range(3):
        ask_for_room(tab, daemon)
    valkey.publish(user_channel("ann"), notification(1))
    other.wait("a", SYNC, raw(1))
    other.close()
    tab.skip_until(310, "seen.a.messages.length === 2")
    valkey.publish(user_channel("ann"), notification(2))
    tab.wait("a", SYNC, SYNC, raw(2))
    third = place.tab()
    third.plain("a", NOTIFICATIONS, client)
    third.wait("a", SYNC)
    tab.until("seen.a.events.filter((type) => type === 'evicted').length === 2")
    valkey.publish(user_channel("ann"), notification(3))
    third.wait("a", SYNC, raw(3))


@pytest.mark.long
def test_evicted_tabs_for_ten_minutes(with_app, valkey, counted, site):
    """The same in real time, for each client and the library: in ten minutes no tab is stopped for good, none makes
    more than a request every two minutes, and the tab that has the stream keeps it. Then it is closed, and the other
    one revives."""
    app, rows = None, []
    for client in *CLIENTS, "library":
        app, daemon = with_app(OPEN, app=app, SSE_PER_USER_CAP=1)
        relay = counted(daemon)
        place = site(Nginx, relay)
        place.add_clients()
        tabs = [place.tab() for _ in range(2)]
        for tab in tabs:
            if client == "library":
                tab.watch("a")
                tab.wait("a", FIRST)
            else:
                tab.plain("a", NOTIFICATIONS, client)
                tab.wait("a", SYNC)
        rows.append((client, relay, *tabs))
    started = time.monotonic()
    time.sleep(600)
    requests = {client: relay.connections - 2 for client, relay, *_ in rows}
    print(f"requests of the evicted tab in {time.monotonic() - started:.0f} s: {requests}")
    assert all(2 <= count <= 5 for count in requests.values()), requests
    valkey.publish(user_channel("ann"), notification(1))
    for client, _, tab, other in rows:
        other.until("seen.a.messages.length === 2")
        assert tab("seen.a.messages.length") == 1
        if client == "library":
            assert tab.states("a") == ["connecting", "live", "parked"]
            assert other.states("a") == ["connecting", "live"]
        else:
            assert tab("seen.a.events.filter((type) => type === 'evicted').length") == 1
            assert tab("seen.a.source.readyState") != CLOSED
            assert other("seen.a.events") == ["open"]
        other.close()
    closed = time.monotonic()
    waiting = {client: tab for client, _, tab, _ in rows}
    while waiting:  # a hidden page's timers may be a minute late
        for client, tab in list(waiting.items()):
            if tab("seen.a.messages.length") == 2:
                print(f"{client}: live again after {time.monotonic() - closed:.0f} s")
                del waiting[client]
        assert time.monotonic() - closed < 370, list(waiting)
        time.sleep(1)
    valkey.publish(user_channel("ann"), notification(2))
    for _, _, tab, _ in rows:
        tab.until("seen.a.messages.length === 3")


@both
def test_tenant_cap(with_app, valkey, site, server):
    """503: the library tries again until there is a place, and tells of each refusal. A plain EventSource has given
    up."""
    _, daemon = with_app(OPEN, SSE_PER_TENANT_CAP=1)
    tab = site(server, daemon).tab()
    with listen(daemon, **by(BEN)):
        tab.watch("a", retry=SOON)
        tab.plain("b", NOTIFICATIONS)
        tab.until("seen.a.closed >= 3")
        tab.wait_ready_state("b", CLOSED)
        assert tab.messages("a") == []
    tab.wait("a", FIRST)
    assert tab.states("a")[:3] == ["connecting", "waiting", "connecting"] and tab.states("a")[-1] == "live"
    valkey.publish(user_channel("ann"), notification(1))
    tab.wait("a", FIRST, wakeup(1))
    assert tab("seen.b.events") == ["error"] and tab.messages("b") == []


# Servers that go and come back

def check_nothing_missed(messages, sync, number):
    """Behind the last sync come consecutive numbers up to this one."""
    behind = messages[len(messages) - messages[::-1].index(sync):]
    ids = [int(message["id"]) for message in behind]
    assert ids == list(range(number - len(ids) + 1, number + 1)), messages
    assert ids


@both
def test_daemon_restart(with_app, valkey, rundir, site, server):
    """The daemon is drained and started again on its inherited socket while wake-ups are published: both kinds of
    page are back by themselves, and miss nothing that was published after their sync."""
    path = f"{rundir}/inherited"
    published = 0

    def publish_until(condition, what):
        def publish():
            nonlocal published
            published += 1
            valkey.publish(user_channel("ann"), notification(published))
            return condition()
        eventually(publish, 15, what)
    with listening_socket(path) as listener:
        app, daemon = with_app(inherit=[listener])
        tab = site(server, path).tab()
        tab.watch("a")
        tab.plain("b", NOTIFICATIONS)
        for name in "a", "b":
            tab.until(f"seen.{name}.messages.length === 1")
        publish_until(lambda: published == 10, "10 wake-ups")
        tab.until("seen.a.messages.length === 11 && seen.b.messages.length === 11")
        daemon.stop()
        publish_until(lambda: tab.states("a")[-1] == "connecting", "the loss of the stream")
        with_app(inherit=[listener], app=app)
        publish_until(lambda: LATER in tab.messages("a") and tab.messages("b").count(SYNC) == 2, "the second sync")
        publish_until(lambda: published % 50 == 0, "some more")
        for name in "a", "b":
            tab.until(f"seen.{name}.messages.at(-1).id === '{published}'")
        check_nothing_missed(tab.messages("a"), LATER, published)
        check_nothing_missed(tab.messages("b"), SYNC, published)
        assert tab("seen.b.events") == ["open", "shutdown", "error", "open"]
        assert tab("seen.a.closed") == 0


@both
def test_daemon_is_gone(with_app, valkey, site, server):
    """While there is no daemon the front server's answer keeps both kinds of page coming back; once there is one
    they are live."""
    app, daemon = with_app(OPEN)
    address = daemon.address
    tab = site(server, daemon).tab()
    tab.watch("a")
    tab.plain("b", NOTIFICATIONS)
    tab.wait("a", FIRST)
    tab.wait("b", SYNC)
    daemon.stop()
    tab.until("seen.b.events.join().startsWith('open,shutdown,error')")
    tab.skip(6)  # past the retry time of a stream
    tab.until("seen.b.events.join() === 'open,shutdown,error,open,error'")
    with_app([*OPEN, "--listen", address], app=app, address=address)
    tab.skip_until(11, BOTH_TOLD.format(2))  # past that of the front server
    tab.wait("a", FIRST, LATER)
    tab.wait("b", SYNC, SYNC)
    valkey.publish(user_channel("ann"), notification(1))
    tab.wait("a", FIRST, LATER, wakeup(1))
    tab.wait("b", SYNC, SYNC, raw(1))
    assert tab("seen.a.closed") == 0


def test_valkey_restart(with_app, new_valkey, counted, site):
    """Valkey is restarted: open streams stay open and get a sync."""
    valkey = new_valkey().start()
    _, daemon = with_app(OPEN, VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0)
    relay = counted(daemon)
    tab = site(Nginx, relay).tab()
    tab.watch("a")
    tab.plain("b", NOTIFICATIONS)
    tab.wait("a", FIRST)
    tab.wait("b", SYNC)
    valkey.restart()
    tab.wait("a", FIRST, LATER)
    tab.wait("b", SYNC, SYNC)
    valkey.publish(user_channel("ann"), notification(1))
    tab.wait("a", FIRST, LATER, wakeup(1))
    tab.wait("b", SYNC, SYNC, raw(1))
    assert tab.states("a") == ["connecting", "live"] and relay.connections == 2


@both
def test_opened_while_valkey_is_away(with_app, new_valkey, site, server):
    """A page that is opened while Valkey is unreachable heals by itself, a plain EventSource too."""
    valkey = new_valkey()
    _, daemon = with_app(OPEN, VALKEY_URL=valkey.url)
    tab = site(server, daemon).tab()
    tab.watch("a")
    tab.plain("b", NOTIFICATIONS)
    tab.until("seen.b.events.join() === 'open,error'")
    tab.wait_ready_state("b", CONNECTING)
    mark = daemon.mark()
    valkey.start()
    daemon.wait_for_log(r"^\[valkey\] .*connected", start=mark)
    tab.skip_until(31, BOTH_TOLD.format(1))  # past the retry time of "later"
    tab.wait("a", FIRST)
    tab.wait("b", SYNC)
    valkey.publish(user_channel("ann"), notification(1))
    tab.wait("a", FIRST, wakeup(1))
    tab.wait("b", SYNC, raw(1))
    assert tab("seen.a.closed") == 0


@both
def test_front_server_restart(with_app, valkey, site, server):
    """The front server dies and refuses connections, then it is back: so are both kinds of page."""
    _, daemon = with_app(OPEN)
    place = site(server, daemon)
    tab = place.tab()
    tab.watch("a")
    tab.plain("b", NOTIFICATIONS)
    tab.wait("a", FIRST)
    tab.wait("b", SYNC)
    place.front.kill()
    tab.skip_until(6, "seen.b.events.join().startsWith('open,error,error')")  # the connection is lost, then refused
    tab.wait_ready_state("b", CONNECTING)
    place.front.start_again()
    tab.skip_until(6, BOTH_TOLD.format(2))
    tab.wait("a", FIRST, LATER)
    tab.wait("b", SYNC, SYNC)
    valkey.publish(user_channel("ann"), notification(1))
    tab.wait("a", FIRST, LATER, wakeup(1))
    assert tab("seen.a.closed") == 0


# Who may no longer listen

def test_signed_out(with_app, counted, site):
    """Nobody is signed in: a refusal is told, tried again as often as was asked for, and never more. Signed in and
    shown again, the page is live."""
    _, daemon = with_app(OPEN)
    relay = counted(daemon)
    place = site(Nginx, relay)
    place.browser.sign_out()
    tab = place.tab()
    tab.watch("a", retry={**SOON, "limit": 3})
    tab.wait_state("a", "closed")
    assert tab("seen.a.closed") == relay.connections == 4
    stays(lambda: relay.connections == 4, "the count of requests", 2)
    place.sign_in()
    other = place.tab()
    tab.until("document.visibilityState === 'hidden'")
    other.close()
    tab.show()
    tab.wait("a", FIRST)


@pytest.mark.slow
def test_session_ends(with_app, counted, site):
    """The session ends while the page is open: the daemon's re-check closes the stream, the browser comes back and is
    refused, and the page is told so."""
    app, daemon = with_app(OPEN, TPI_RECHECK_SECONDS=5)
    relay = counted(daemon)
    tab = site(Nginx, relay).tab()
    tab.watch("a", retry={"limit": 0})
    tab.wait("a", FIRST)
    app.sign_out(ANN)
    tab.wait_state("a", "connecting", 5 + 4)
    tab.skip(6)
    tab.until("seen.a.closed === 1")
    assert tab.states("a") == ["connecting", "live", "connecting", "closed"] and relay.connections == 2


# Pages that are left, hidden and frozen

def leave_and_return(tab, place, meanwhile):
    tab.goto(f"{place.url}/index.html")
    meanwhile()
    tab.back()
    tab.until("shown.length === 2")
    assert tab("shown") == [False, True]  # out of the back-forward cache


def test_back_forward_cache(with_app, valkey, counted, site):
    """A page in the back-forward cache has no stream; when it is shown again it gets a sync."""
    _, daemon = with_app(OPEN)
    relay = counted(daemon)
    place = site(Nginx, relay)
    tab = place.tab()
    tab.watch("a")
    tab.wait("a", FIRST)

    def meanwhile():
        valkey.wait_subscribers(user_channel("ann"), 0)
        valkey.publish(user_channel("ann"), notification("missed"))
    leave_and_return(tab, place, meanwhile)
    tab.wait("a", FIRST, LATER)
    valkey.publish(user_channel("ann"), notification(1))
    tab.wait("a", FIRST, LATER, wakeup(1))
    assert relay.connections == 2


def test_back_forward_cache_plain(with_app, valkey, counted, site):
    """A plain EventSource stays open in the back-forward cache, and hands over what has come meanwhile."""
    _, daemon = with_app(OPEN)
    relay = counted(daemon)
    place = site(Nginx, relay)
    tab = place.tab()
    tab.plain("a", NOTIFICATIONS)
    tab.wait("a", SYNC)
    leave_and_return(tab, place, lambda: valkey.publish(user_channel("ann"), notification(1)))
    valkey.publish(user_channel("ann"), notification(2))
    tab.wait("a", SYNC, raw(1), raw(2))
    assert relay.connections == 1


def test_hidden_and_frozen(with_app, valkey, counted, site):
    """A tab behind another one is told as before. One that the browser freezes has no stream; unfrozen it gets a
    sync. A plain EventSource stays open there, and hands over what has come meanwhile."""
    _, daemon = with_app(OPEN)
    relay = counted(daemon)
    place = site(Nginx, relay)
    tab = place.tab()
    tab.watch("a")
    tab.wait("a", FIRST)
    place.tab()
    tab.until("document.visibilityState === 'hidden'")
    valkey.publish(user_channel("ann"), notification(1))
    tab.wait("a", FIRST, wakeup(1))
    tab.show()
    tab.until("document.visibilityState === 'visible'")
    assert relay.connections == 1

    tab.plain("b", f"{ISSUES}?projectId=7")
    tab.wait("b", SYNC)
    tab.freeze()
    valkey.wait_subscribers(user_channel("ann"), 0)
    valkey.publish(user_channel("ann"), notification("missed"))
    valkey.publish(project_channel(7), issue(2))
    tab.thaw()
    tab.wait("a", FIRST, wakeup(1), LATER)
    tab.wait("b", SYNC, json.loads(issue(2)))
    assert tab.states("a") == ["connecting", "live", "waiting", "connecting", "live"]
    assert relay.connections == 3


@pytest.mark.parametrize("how", ["visible", "online"])
def test_comes_back_at_once(with_app, site, how):
    """A stream that was refused is opened when the page is seen again, or is online again, whenever the next try would
    have been."""
    _, daemon = with_app(OPEN)
    place = site(Nginx, daemon)
    place.browser.sign_out()
    tab = place.tab()
    tab.watch("a", retry={"firstMs": 2147483647, "maxMs": 2147483647})
    tab.wait_state("a", "waiting")
    if how == "visible":
        place.tab()
        tab.until("document.visibilityState === 'hidden'")
        place.sign_in()
        tab.show()
    else:
        place.browser.call("offline", True)
        tab.until("!navigator.onLine")
        place.sign_in()
        place.browser.call("offline", False)
    tab.wait("a", FIRST)
    assert tab("seen.a.closed") == 1


# One connection for all tabs; test_tabs.py and test_browser_tabs.py have more of it

def function_of(topic):
    return topic.name[0].upper() + topic.name[1:]


def test_combined_daemon_restart(with_app, valkey, rundir, site):
    """The daemon is drained and started again: every tab has one sync, and the browser one stream."""
    path = f"{rundir}/inherited"
    with listening_socket(path) as listener:
        app, daemon = with_app(inherit=[listener])
        place = site(Nginx, path)
        tabs = [place.tab() for _ in range(3)]
        for tab in tabs:
            tab.watch("a", combined=True)
            tab.wait("a", FIRST)
        daemon.stop()
        with_app(inherit=[listener], app=app)
        for tab in tabs:
            tab.wait("a", FIRST, LATER)
        valkey.publish(user_channel("ann"), notification(1))
        for tab in tabs:
            tab.wait("a", FIRST, LATER, wakeup(1))


def test_combined_evicted(with_app, valkey, counted, site):
    """A second browser evicts the first, which parks in all its tabs. Its next leader evicts nobody; a tab that is
    used does."""
    _, daemon = with_app(OPEN, SSE_COMBINED_PER_USER_CAP=1)
    relay = counted(daemon)
    place = site(Nginx, relay)
    tabs = [place.tab() for _ in range(3)]
    for tab in tabs:
        tab.watch("a", combined=True)
        tab.wait("a", FIRST)
    private = place.browser.open_private(f"{place.url}/page.html")
    private("document.cookie = " + json.dumps(f"{COOKIE}={ANN}"))
    private.watch("a", combined=True)
    private.wait("a", FIRST)
    for tab in tabs:
        tab.wait_state("a", "parked")
    mark = len(daemon.matching(NO_ROOM))
    tabs[0].close()
    eventually(lambda: len(daemon.matching(NO_ROOM)) > mark, what="a request of the next leader")
    valkey.publish(user_channel("ann"), notification(1))
    private.wait("a", FIRST, wakeup(1))
    assert [tab.states("a")[-1] for tab in tabs[1:]] == ["parked", "parked"]
    tabs[2].click()
    for tab in tabs[1:]:
        tab.wait("a", FIRST, LATER)
    private.wait_state("a", "parked")


# React

@pytest.fixture(scope="session")
def react_page():
    """react_page(18 or 19): the page of react-page.jsx as one file."""
    place = npm_ci(LIBRARY, "browser")
    shutil.copy(os.path.join(PAGES, "react-page.jsx"), place)

    def build(version):
        target = os.path.join(place, f"react{version}.js")
        alias = ["--alias:react=react18", "--alias:react-dom=react-dom18"] if version == 18 else []
        result = subprocess.run([
            "node_modules/.bin/esbuild", "react-page.jsx", "--bundle", "--format=esm", "--jsx=automatic", *alias,
            "--define:process.env.NODE_ENV=\"development\"", f"--outfile={target}", "--log-level=error"],
            cwd=place, env=clean_environment(), capture_output=True, text=True, timeout=scaled(60), check=False)
        assert result.returncode == 0, result.stderr
        return target
    return build


@pytest.mark.parametrize("version", [18, 19])
def test_react(with_app, valkey, counted, site, react_page, version):
    """Hooks under StrictMode: the components of a page share a stream of each kind, are told, show the state, and
    one that is taken out and put back makes no request."""
    _, daemon = with_app(OPEN)
    relay = counted(daemon)
    place = site(Nginx, relay)
    place.add(react_page(version))
    tab = place.tab()
    tab(f"import('./react{version}.js').then(() => null)")
    tab.until("document.body.textContent === 'livelivelivelive'")
    assert tab("version").startswith(f"{version}.")
    tab("setBells([])")
    tab.until("document.body.textContent === 'livelive'")
    tab("setBells(['again'])")
    tab.until("document.body.textContent === 'livelivelive'")
    tab("seen.bell.messages.length = seen.board.messages.length = 0")
    valkey.publish(user_channel("ann"), notification(1))
    valkey.publish(project_channel(8), issue(2, 8))
    tab.wait("bell", wakeup(1))
    tab.wait("board", issue_wakeup(2, 8))
    assert relay.connections == 2


# The library alone

@pytest.mark.parametrize("file", ["core", "eventsource", "package", "react", "sharing"])
def test_client_library(file):
    """contrib/browser/test, on Node.js: its rules; types, size and files; its hooks and the example, on React 18 and
    19."""
    # In this file, as its other tests use the same directory: files are run beside each other.
    place = npm_ci(LIBRARY, "browser")
    result = subprocess.run(["node", "--test", f"test/{file}.test.js"], cwd=place, env=clean_environment(),
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=scaled(120), check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stderr


def run(directory, *argv):
    """What a program prints; it must succeed."""
    result = subprocess.run(argv, cwd=directory, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, timeout=scaled(120), check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.long
def test_package(tmp_path):
    """The package that `npm pack` builds of contrib/browser, in an empty project without the registry: it loads, and a
    page that uses every function and hook, and the examples, pass TypeScript with both kinds of module resolution."""
    place = npm_ci(LIBRARY, "browser")
    run(place, "npm", "pack", "--silent", "--pack-destination", str(tmp_path))
    archive, = tmp_path.glob("*.tgz")
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text('{"private": true, "type": "module"}')
    run(project, "npm", "install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", str(archive))
    modules = project / "node_modules"
    assert [name for name in os.listdir(modules) if not name.startswith(".")] == ["tpi-stream-client"]
    names = run(project, "node", "--input-type=module", "-e",
                "import * as all from 'tpi-stream-client'; console.log(Object.keys(all).join())")
    assert names.strip().split(",") == ["reset", *sorted(f"watch{function_of(topic)}" for topic in TOPICS)]
    # The types of the application's own packages.
    for name in "@types", "@tanstack", "csstype":
        (modules / name).symlink_to(os.path.join(place, "node_modules", name))
    shutil.copy(os.path.join(LIBRARY, "testing", "types.ts"), project)
    shutil.copytree(modules / "tpi-stream-client" / "examples", project / "examples")
    for module in "nodenext", "preserve":
        settings = {"strict": True, "noEmit": True, "target": "es2022", "module": module, "jsx": "react-jsx",
                    "lib": ["es2022", "dom"], "types": []}
        (project / "tsconfig.json").write_text(json.dumps({"compilerOptions": settings,
                                                           "include": ["*.ts", "examples"]}))
        run(project, "node", os.path.join(place, "node_modules", "typescript", "bin", "tsc"), "--project", ".")
