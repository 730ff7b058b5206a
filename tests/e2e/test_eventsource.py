# SPDX-License-Identifier: ISC
"""Pages that use plain EventSource as TestPlanIt's hooks do, with contrib/browser/eventsource.js inserted by a real nginx
or Apache (tpi-stream-eventsource.conf), in a real Chromium, and in a real Firefox where browsers may differ."""

import base64
import gzip
import hashlib
import os
import re
import shutil
import socketserver
import statistics
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler

import pytest

from answers import issue, notification
from application import ANN, BEN, COOKIE, TOKEN
from fronts import Apache, Nginx, substitute, read, write
from servers import ROOT, broadcast_channel, project_channel, user_channel
from timing import eventually, scaled
from topics import BY_NAME, LIVE

pytestmark = pytest.mark.slow

PAGES = os.path.join(ROOT, "tests", "e2e", "browser")
SCRIPT = os.path.join(ROOT, "contrib", "browser", "eventsource.js")
TAG = b'<script src="/tpi-stream-eventsource.js"></script>'
SYNC = '{"event":"sync"}'
NAMES = ["bell", "alerts", "issues", "run", "runs", "milestone", "milestones"]
CONNECTING, OPEN, CLOSED = 0, 1, 2
COMBINED = "combined"


class Upstream(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """What the front server takes for TestPlanIt: pages, compressed if the request allows it; the session; and a stream
    at a path of its own."""

    daemon_threads = True
    allow_reuse_address = True
    headers = ()

    def __init__(self):
        self.seen = []
        super().__init__(("127.0.0.1", 0), Page)
        self.url = "http://127.0.0.1:%d" % self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        self.server.seen.append(path)
        if path == "/events":
            return self.answer(b"data: other\n\n", "text/event-stream")
        if path == "/api/auth/session":
            token = TOKEN.search(self.headers.get("Cookie", ""))
            name = {ANN: "ann", BEN: "ben"}.get(token and token[1])
            return self.answer(b'{"user":{"id":"%s"}}' % name.encode() if name else b"{}", "application/json")
        name = os.path.join(PAGES, os.path.basename(path))
        if path == "/ping.txt":
            return self.answer(b"pong", "text/plain")
        if not os.path.isfile(name):
            return self.answer(b"not found", "text/plain", 404)
        with open(name, "rb") as file:
            return self.answer(file.read(), "text/html" if name.endswith("html") else "text/javascript")

    def answer(self, body, kind, status=200):
        packed = "gzip" in self.headers.get("Accept-Encoding", "") and kind != "text/event-stream"
        body = gzip.compress(body) if packed else body
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", len(body))
        if packed:
            self.send_header("Content-Encoding", "gzip")
        if kind == "text/html":
            for name, value in self.server.headers:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def nginx(rundir, address, upstream, inserted=True, integrity=None, site=""):
    copy = os.path.join(rundir, "eventsource.conf")
    write(copy, substitute(read(os.path.join(ROOT, "contrib", "nginx", "tpi-stream-eventsource.conf")),
                           {"/usr/share/tpi-stream/browser/eventsource.js": readable_script(rundir),
                            '.js\\"': f'.js\\" integrity=\\"{integrity}\\"' if integrity else '.js\\"'}))
    return Nginx(rundir, address, auth="app", site=f"""
        {site}
        location / {{
            proxy_pass {upstream.url};
            {f'include "{copy}";' if inserted else ''}
        }}""")


def apache(rundir, address, upstream, inserted=True):
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
                        for name in ("filter", "deflate", "setenvif", "substitute"))
    return Apache(rundir, address, auth="app", site=f"""
        {modules}
        AddOutputFilterByType DEFLATE text/html text/javascript
        ProxyPass "/api/.tpi-stream-later" "!"
        ProxyPass "/" "{upstream.url}/" """, after=f"""
        Define TPI_EVENTSOURCE "{readable_script(rundir)}"
        Include "{ROOT}/contrib/apache/tpi-stream-eventsource.conf" """ if inserted else "")


def readable_script(rundir):
    """A copy that the workers can read."""
    copy = shutil.copy(SCRIPT, rundir)
    os.chmod(copy, 0o644)
    return copy


FRONTS = {"nginx": nginx, "Apache": apache}
both = pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)


@pytest.fixture
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def browser(request):
    """The browser of a test: Chromium, if it has no parameter."""
    browser = request.getfixturevalue(getattr(request, "param", "chromium"))
    yield browser
    browser.forget()


browsers = pytest.mark.parametrize("browser", ["chromium", "firefox"], indirect=True)


class Site:
    def __init__(self, browser, front, daemon):
        self.browser = browser
        self.front = front
        self.daemon = daemon
        self.sign_in(ANN)

    def sign_in(self, token):
        self.browser.sign_in(self.front.url, COOKIE, token)

    def tab(self, page="hooks.html"):
        return self.browser.open(f"{self.front.url}/{page}")

    def streams(self):
        """The open streams by kind, as the daemon counts them."""
        text = self.daemon.ask(SCRIPT_NAME="/api/streams/metrics").body.decode()
        found = re.findall(r'^tpi_stream_open_streams\{kind="(\w+)"\} (\d+)$', text, re.M)
        return {kind: int(count) for kind, count in found if count != "0"}

    def wait_streams(self, **wanted):
        eventually(lambda: self.streams() == wanted, what=f"{wanted}")


@pytest.fixture
def site(browser, rundir, upstream, with_app):
    """site(front) is a front server with the tag, ann, and a daemon."""
    made = []

    def make(front, **named):
        # Behind Apache only a heartbeat reveals that a tab was closed.
        _, daemon = with_app(["--mode", "0666"], TPI_STATUS="on", SSE_HEARTBEAT_MS=500)
        made.append(Site(browser, front(rundir, daemon.address, upstream, **named), daemon))
        return made[-1]
    yield make
    for each in made:
        each.front.kill()


def fetch(url, **headers):
    """(headers, body) of a response."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=scaled(10)) as response:
        return response.headers, response.read()


@both
def test_inserted_once(site, upstream, front):
    """The tag is the first element of the head, also if TestPlanIt compresses; other types are as they were, and the
    front server compresses for a browser that can read it."""
    place = site(front)
    with open(os.path.join(PAGES, "hooks.html"), "rb") as file:
        page = file.read()
    for encoding in "identity", "gzip":
        headers, body = fetch(f"{place.front.url}/hooks.html", Accept="text/html,*/*", Accept_Encoding=encoding)
        if encoding == "gzip":
            assert headers["Content-Encoding"] == "gzip"
            body = gzip.decompress(body)
        assert body == page.replace(b"<head>", b"<head>" + TAG)
    for path, source in ("tpi-stream-eventsource.js", SCRIPT), ("hooks.js", os.path.join(PAGES, "hooks.js")):
        headers, body = fetch(f"{place.front.url}/{path}", Accept="*/*")
        assert headers.get_content_type() == "text/javascript"
        with open(source, "rb") as file:
            assert body == file.read()


@pytest.mark.parametrize("browser, front", [("chromium", apache), ("firefox", nginx)],
                         ids=["Chromium-Apache", "Firefox-nginx"], indirect=["browser"])
def test_several_tabs(site, valkey, front):
    """Twelve tabs with seven EventSources each are one stream of the daemon; each gets the sync and its wake-ups byte for
    byte, and a request of any tab is answered at once."""
    place = site(front)
    tabs = [place.tab() for _ in range(12)]
    tabs[0]("hooks(100)")
    tabs[0].until("seen.bell.messages.length === 1")  # it is the leader
    for number, tab in enumerate(tabs[1:], 101):
        tab(f"hooks({number})")
    for tab in tabs:
        for name in NAMES:
            tab.until(f"seen.{name}.messages.length === 1")
            assert tab.messages(name) == [SYNC]
            assert tab(f"seen.{name}.source.readyState") == OPEN
    place.wait_streams(combined=1)
    raw = '{ "event":"issue-updated" ,"issueId": 1,"projectId":7, "more":[1.50]}'
    valkey.publish(user_channel("ann"), notification(1))
    valkey.publish(broadcast_channel(), notification(2))
    valkey.publish(project_channel(7), raw)
    for topic in LIVE:
        valkey.publish(topic.channel(7), topic.payload % 7)
    live = dict(zip(("run", "runs", "milestone", "milestones"), LIVE))
    for tab in tabs:
        for name in "bell", "alerts":
            tab.until(f"seen.{name}.messages.length === 3")
            assert tab.messages(name) == [SYNC, notification(1), notification(2)]
        tab.until("seen.issues.messages.length === 2")
        assert tab.messages("issues") == [SYNC, raw]
        for name, topic in live.items():
            tab.until(f"seen.{name}.messages.length === 2")
            assert tab.messages(name) == [SYNC, topic.payload % 7]
        assert [tab(f"seen.{name}.errors") for name in NAMES] == [0] * 7
    times = [tab("ping()") for tab in tabs]
    assert "hangs" not in times, times
    print(f"12 tabs, 84 EventSources, 1 stream: requests took {statistics.median(times)}, at most {max(times)} ms")
    assert statistics.median(times) < scaled(100), times
    tabs[0].close()
    tabs[1].until("seen.bell.messages.length === 4")
    assert tabs[1].messages("bell")[3:] == [SYNC]
    assert tabs[1]("seen.bell.errors") == 1
    for tab in tabs[1:]:
        tab.close()
    place.wait_streams()


@both
def test_taken_out(site, valkey, front):
    """Without the line the pages have the browser's own EventSource: a single tab takes all connections of the browser."""
    place = site(front, inserted=False)
    tab, other = place.tab(), place.tab()
    assert tab("String(EventSource)") == "function EventSource() { [native code] }"
    tab("hooks(100)")
    eventually(lambda: sum(place.streams().values()) == 6, what="six streams")
    assert COMBINED not in place.streams()
    assert other("ping()") == "hangs"


@both
def test_other_urls(site, front):
    """An EventSource for another URL is the browser's own, next to one that is shared."""
    place = site(front)
    tab = place.tab()
    tab("hook('bell', '/api/notifications/stream'); hook('other', '/events')")
    tab.until("seen.bell.messages.length === 1 && seen.other.messages.length >= 1")
    assert tab.messages("other")[0] == "other"
    assert tab("Object.getPrototypeOf(seen.other.source) === EventSource.prototype")
    assert tab("seen.other.source instanceof EventSource && seen.bell.source instanceof EventSource")
    assert tab("document.scripts.length") == 1  # the tag has removed itself
    place.wait_streams(combined=1)


@browsers
def test_same_interface(site, upstream):
    """Each member, each error of the constructor and each event is that of the browser's own."""
    place = site(nginx)
    tab = place.tab()
    url = "/api/notifications/stream"
    assert tab("NativeEventSource === EventSource")
    described = [tab(f"describe(new EventSource('{path}'))") for path in (url, "/events")]
    assert described[0] == described[1]
    assert described[0]["readyState"]["get"] == "get readyState/0"
    assert tab("describe(EventSource)") == place_without(place, upstream)("describe(EventSource)")
    made = [tab(f"construct('{path}')") for path in (url, "/events")]
    for name in made[1]:
        assert made[0][name].replace(url, "/events") == made[1][name], name


def place_without(place, upstream):
    """A tab of the same page from TestPlanIt itself, without the tag."""
    return place.browser.open(f"{upstream.url}/hooks.html")


@browsers
def test_same_events(site, upstream):
    """What a listener sees up to the first message is what it sees with the browser's own EventSource."""
    place = site(nginx)
    plain = site(nginx, inserted=False)
    url = "/api/notifications/stream"
    shared, own = (each.tab()(f"first('{url}')") for each in (place, plain))
    assert repr(shared).replace(place.front.url, plain.front.url) == repr(own)
    assert [step[0] for step in shared] == ["new", OPEN, OPEN, "closed"]


@both
def test_not_readable(site, front):
    """What the user cannot read, and a page of nobody: CLOSED with an error, as with a stream of its own."""
    place = site(front)
    tab = place.tab()
    tab("hook('issues', '/api/issues/stream?projectId=9')")
    tab.until("seen.issues.errors === 1")
    assert tab("seen.issues.source.readyState") == CLOSED
    place.browser.sign_out()
    other = place.tab()
    other("hook('bell', '/api/notifications/stream')")
    other.until("seen.bell.errors === 1")
    assert other("seen.bell.source.readyState") == CLOSED
    place.wait_streams()


def test_no_combined_stream(site):
    """A site that does not pass /api/stream to the daemon: the pages have the browser's own streams."""
    place = site(nginx, site="location = /api/stream { return 404; }")
    tab = place.tab()
    tab("hook('bell', '/api/notifications/stream'); hook('issues', '/api/issues/stream?projectId=7')")
    for name in "bell", "issues":
        tab.until(f"seen.{name}.messages.length === 1")
        assert tab(f"seen.{name}.errors") == 0
    place.wait_streams(notifications=1, issues=1)


def test_another_user(site, valkey):
    """A tab of a user who has signed in gets none of the wake-ups of the tabs of the user before, and all of its own."""
    place = site(nginx)
    tab = place.tab()
    tab("hook('bell', '/api/notifications/stream')")
    tab.until("seen.bell.messages.length === 1")
    place.sign_in(BEN)
    other = place.tab()
    other("hook('bell', '/api/notifications/stream')")
    other.until("seen.bell.messages.length === 1")
    place.wait_streams(combined=2)
    valkey.publish(user_channel("ann"), notification(1))
    valkey.publish(user_channel("ben"), notification(2))
    other.until("seen.bell.messages.length === 2")
    tab.until("seen.bell.messages.length === 2")
    assert other.messages("bell") == [SYNC, notification(2)]
    assert tab.messages("bell") == [SYNC, notification(1)]


def test_shutdown(site):
    """The daemon is stopped: each tab gets its last event and one error, and reconnects by itself."""
    place = site(nginx)
    tabs = [place.tab() for _ in range(2)]
    for tab in tabs:
        tab("hook('bell', '/api/notifications/stream')")
        tab("seen.bell.source.addEventListener('shutdown', ({ data }) => seen.bell.shutdown = data) && null")
        tab.until("seen.bell.messages.length === 1")
    place.daemon.stop()
    for tab in tabs:
        tab.until("seen.bell.errors === 1")
        assert tab("seen.bell.shutdown") == "{}"
        assert tab("seen.bell.source.readyState") == CONNECTING


def test_content_security_policy(site, upstream):
    """A policy with nonces runs the script only with its hash, in the policy and in the tag. Without it the pages have the
    browser's own EventSource."""
    with open(SCRIPT, "rb") as file:
        digest = "sha256-" + base64.b64encode(hashlib.sha256(file.read()).digest()).decode()
    upstream.headers = [("Content-Security-Policy", f"script-src 'nonce-page' 'strict-dynamic' '{digest}'")]
    for integrity, streams in ((None, {"notifications": 1}), (digest, {COMBINED: 1})):
        place = site(nginx, integrity=integrity)
        tab = place.tab()
        tab("hook('bell', '/api/notifications/stream')")
        tab.until("seen.bell.messages.length === 1")
        place.wait_streams(**streams)
        tab.close()


def test_back_forward_cache(site):
    """A page in the back-forward cache gets open and a sync when it is shown again."""
    place = site(nginx)
    leader, other = place.tab(), place.tab()
    for tab in leader, other:
        tab("hook('bell', '/api/notifications/stream')")
        tab.until("seen.bell.messages.length === 1")
    leader.goto(f"{place.front.url}/page.html")
    other.until("seen.bell.messages.length === 2")
    leader.back()
    leader.until("shown.length === 2 && seen.bell.messages.length === 2")
    assert leader("shown") == [False, True]
    place.wait_streams(combined=1)
