# SPDX-License-Identifier: ISC
"""Tabs of a real Chromium that share one connection (contrib/browser with combined), against a small web server with
the combined stream, over HTTP/1.1."""

import os
import shutil
import threading
import time

import pytest

from chromium import FIRST, LATER, NAME
from combined import StreamServer
from servers import ROOT
from timing import eventually, scaled

pytestmark = pytest.mark.slow

LIBRARY = os.path.join(ROOT, "contrib", "browser")
PAGES = os.path.join(ROOT, "tests", "e2e", "browser")
KINDS = ["Issues", "TestRuns", "ProjectTestRuns", "Milestones", "ProjectMilestones"]
FETCH = "(async () => { const start = performance.now(); await fetch('ping.txt', { cache: 'no-store' });" \
        " return performance.now() - start; })()"
# A frame that hands every message to the page around it.
FRAME = """<!DOCTYPE html>
<script type="module">
import { watchIssues } from "./tpi-stream.js";
watchIssues([7], (message) => parent.postMessage(message, "*"), { combined: true });
</script>
"""
EMBED = """(() => {{
    window.framed = [];
    addEventListener("message", ({{ data }}) => framed.push(data));
    document.body.innerHTML = '<iframe {0}></iframe>';
}})()"""


def issue(project, number=1):
    return {"event": "issue-updated", "issueId": number, "projectId": project}


def issue_wakeup(project, number=1):
    return {"type": "wakeup", **issue(project, number)}


class Site:
    """The web server, and the browser with tabs of its pages."""

    def __init__(self, browser, directory):
        self.browser = browser
        self.directory = directory
        for path in (os.path.join(PAGES, "page.html"), os.path.join(PAGES, "page.js"),
                     os.path.join(LIBRARY, "tpi-stream.js")):
            shutil.copy(path, directory)
        self.write("ping.txt", "pong")
        self.write("index.html", "<!DOCTYPE html><title>Another page</title>")
        self.write("frame.html", FRAME)
        self.server = StreamServer(directory)

    def write(self, name, text):
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(text)

    def tab(self, page="page.html", host="127.0.0.1"):
        return self.browser.open(self.server.url(page, host))

    def tabs(self, count, **options):
        """Tabs that watch the issues of one project each, from 1 on, on one stream."""
        tabs = [self.tab() for _ in range(count)]
        for number, tab in enumerate(tabs, 1):
            tab.watch("a", [number], combined=True, **options)
            tab.wait("a", FIRST)
        self.wait_streams(1)
        return tabs

    def wait_streams(self, count):
        eventually(lambda: len(self.server.open_streams()) == count, what=f"{count} streams")
        assert self.server.refused == []

    def check_live(self, *pairs):
        """Each watcher gets a wake-up of its project, once."""
        for tab, name, project in pairs:
            before = tab.messages(name)
            self.server.publish(f"issues:{project}", issue(project, 77))
            tab.wait(name, *before, issue_wakeup(project, 77))


@pytest.fixture
def site(chromium, tmp_path):
    site = Site(chromium, str(tmp_path))
    yield site
    chromium.forget()
    site.server.close()


class Publisher:
    """Publishes numbered changes of issues of some projects, 100 per second for each, until it is stopped."""

    def __init__(self, server, *projects):
        self.number = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(server, projects), daemon=True)
        self.thread.start()

    def run(self, server, projects):
        while not self.stopping.wait(0.01):
            self.number += 1
            for project in projects:
                server.publish(f"issues:{project}", issue(project, self.number))

    def stop(self):
        self.stopping.set()
        self.thread.join()
        return self.number


def check_nothing_missed(messages, last):
    """All numbers after the last sync arrived, up to this one. During a change-over two streams deliver, so that some
    may have come twice or out of order."""
    syncs = [index for index, message in enumerate(messages) if message["type"] == "sync"]
    numbers = [message["issueId"] for message in messages[syncs[-1] + 1:]]
    found = sorted(set(numbers))
    assert found and found == list(range(found[0], last + 1)), numbers
    assert all(numbers.count(number) <= 2 for number in found)


def test_twelve_tabs(site):
    """12 tabs with 6 kinds of topics each are one stream, each wake-up reaches each of them once, and a request of any
    tab is answered at once. With a stream for each kind, one tab takes all connections of the browser."""
    tabs = [site.tab() for _ in range(12)]
    for number, tab in enumerate(tabs, 1):
        tab.watch("bell", combined=True)
        for kind in KINDS:
            tab.watch(kind, [7, 100 + number], kind=kind, combined=True)
    for tab in tabs:
        for name in ["bell", *KINDS]:
            tab.wait(name, FIRST)
    site.wait_streams(1)
    for _ in range(3):
        site.server.publish("notifications", {"event": "notification", "id": "n1"})
        site.server.publish("issues:7", issue(7))
        site.server.publish("testRuns:7", {"event": "e", "runId": 7, "projectId": 1})
        site.server.publish("projectTestRuns:7", {"event": "e", "runId": 42, "projectId": 7})
        site.server.publish("milestones:7", {"event": "e", "milestoneId": 7, "projectId": 1})
        site.server.publish("projectMilestones:7", {"event": "e", "milestoneId": 9, "projectId": 7})
    for tab in tabs:
        for name in ["bell", *KINDS]:
            eventually(lambda: len(tab.messages(name)) >= 4, what=f"4 messages for {name}")
    site.server.publish("issues:112", issue(112))
    tabs[-1].wait("Issues", FIRST, *3 * [issue_wakeup(7)], issue_wakeup(112))
    for tab in tabs:
        assert [len(tab.messages(name)) for name in ["bell", *KINDS[1:]]] == [4] * 5
    times = [tab(FETCH) for tab in tabs]
    print(f"12 tabs, 1 stream: requests took {min(times):.0f} to {max(times):.0f} ms")
    assert max(times) < scaled(100), times
    for tab in tabs:
        tab.close()
    site.wait_streams(0)

    tab, other = site.tab(), site.tab()
    tab.watch("bell")
    for kind in KINDS:
        tab.watch(kind, [7], kind=kind)
    site.wait_streams(6)
    hangs = "new Promise((resolve) => setTimeout(resolve, 1000, 'hangs'))"
    assert other(f"Promise.race([{FETCH}, {hangs}])") == "hangs"


@pytest.mark.parametrize("how", ["close", "crash", "freeze", "navigate"])
def test_leader_is_lost(site, how):
    """Another tab takes over at once: every watcher has its sync within two seconds, and misses nothing after it."""
    leader, *others = site.tabs(3)
    publisher = Publisher(site.server, 2, 3)
    for tab in others:
        tab.until("seen.a.messages.length > 10")
    lost = time.time()
    if how == "navigate":
        leader.goto(site.server.url("index.html"))
    else:
        getattr(leader, how)()
    for tab in others:
        tab.until("seen.a.messages.some(({ first }) => first === false)")
    site.wait_streams(1)
    for tab in others:
        tab.until("seen.a.messages.length > 100")
    last = publisher.stop()
    for tab in others:
        tab.until(f"seen.a.messages.at(-1).issueId === {last}")
        messages = tab.messages("a")
        assert messages.count(LATER) == 1
        took = tab("seen.a.times")[messages.index(LATER)] - lost
        print(f"{how}: sync after {1000 * took:.0f} ms")
        assert took < scaled(2)
        check_nothing_missed(messages, last)
    leader.closed = leader.closed or how == "crash"


def test_back_forward_cache(site):
    """A leader in the back-forward cache is replaced; when its page is shown again, it follows and gets a sync."""
    leader, other = site.tabs(2)
    leader.goto(site.server.url("index.html"))
    other.wait("a", FIRST, LATER)
    leader.back()
    leader.until("shown.length === 2")
    assert leader("shown") == [False, True]
    leader.wait("a", FIRST, LATER)
    other.wait("a", FIRST, LATER)
    site.wait_streams(1)
    site.check_live((leader, "a", 1), (other, "a", 2))


def test_navigation_under_load(site):
    """While a tab loads page after page, each with another project, the others get no sync and lose nothing."""
    tab, other = site.tabs(2)
    publisher = Publisher(site.server, 1)
    for project in range(1000, 1030):
        other.goto(site.server.url("page.html"))
        other.watch("a", [project], combined=True)
        other.wait("a", FIRST)
    last = publisher.stop()
    tab.until(f"seen.a.messages.at(-1).issueId === {last}")
    assert LATER not in tab.messages("a")
    check_nothing_missed(tab.messages("a"), last)
    site.wait_streams(1)


def test_growth_in_hidden_tabs(site):
    """A change-over in a hidden leader, for a hidden follower: nobody else gets a sync."""
    leader, other = site.tabs(2)
    site.tab("index.html")
    for tab in leader, other:
        tab.until("document.visibilityState === 'hidden'")
    other.watch("b", [7], combined=True)
    other.wait("b", FIRST)
    site.wait_streams(1)
    assert site.server.open_streams() == [{"issues:1", "issues:2", "issues:7"}]
    for tab in leader, other:
        tab.wait("a", FIRST)
    site.check_live((leader, "a", 1), (other, "a", 2), (other, "b", 7))


def test_hanging_leader(site):
    """A leader whose page hangs: a tab that is shown has a stream of its own, until the leader answers again."""
    leader, other = site.tabs(2)
    site.tab("index.html")
    other.until("document.visibilityState === 'hidden'")
    leader("setTimeout(() => { const end = Date.now() + 12000; while (Date.now() < end); }) && null")
    other.show()
    other.wait("a", FIRST, LATER)
    assert {"issues:2"} in site.server.open_streams()
    site.check_live((other, "a", 2))
    other.until("seen.a.messages.filter(({ first }) => first === false).length === 2", 20)
    site.wait_streams(1)
    site.check_live((leader, "a", 1), (other, "a", 2))


def test_another_user(site):
    """After reset() no tab has a stream of the previous session, and all get the wake-ups of the new one."""
    site.browser.sign_in(site.server.url(""), "user", "ann")
    tabs = [site.tab() for _ in range(3)]
    for tab in tabs:
        tab.watch("bell", combined=True)
        tab.wait("bell", FIRST)
    site.browser.sign_in(site.server.url(""), "user", "ben")
    tabs[1]("reset()")
    for tab in tabs:
        tab.wait("bell", FIRST, LATER)
    assert site.server.publish("notifications", {"event": "notification", "id": "ann's"}, user="ann") == 0
    assert site.server.publish("notifications", {"event": "notification", "id": "ben's"}, user="ben") == 1
    for tab in tabs:
        tab.wait("bell", FIRST, LATER, {"type": "wakeup", "event": "notification", "id": "ben's"})


def test_insecure_origin(site):
    """Plain http to a name that is not loopback has no Web Locks: each tab has its own combined stream."""
    tabs = [site.tab(host=NAME) for _ in range(2)]
    assert tabs[0]("navigator.locks === undefined")
    for tab in tabs:
        tab.watch("a", [7], combined=True)
        tab.watch("bell", combined=True)
        tab.wait("a", FIRST)
    site.wait_streams(2)
    site.check_live((tabs[0], "a", 7))
    assert tabs[1].messages("a")[1:] == [issue_wakeup(7, 77)]


def test_private_window(site):
    """A private window has its own leader."""
    tabs = site.tabs(2)
    private = site.browser.open_private(site.server.url("page.html"))
    private.watch("a", [7], combined=True)
    private.wait("a", FIRST)
    site.wait_streams(2)
    tabs[0].close()
    tabs[1].wait("a", FIRST, LATER)
    site.check_live((tabs[1], "a", 2), (private, "a", 7))
    assert private.messages("a").count(LATER) == 0


@pytest.mark.parametrize("name, frame", [
    ("partitioned storage", 'src="http://localhost:{0}/frame.html"'),
    ("opaque origin", 'sandbox="allow-scripts" src="frame.html"'),
])
def test_iframe(site, name, frame):
    """A frame whose storage is not that of its site's tabs has its own stream, and disturbs no other page."""
    tab = site.tab(host="localhost" if name == "partitioned storage" else "127.0.0.1")
    tab.watch("a", [1], combined=True)
    tab.wait("a", FIRST)
    page = site.tab()
    page(EMBED.format(frame.format(site.server.port)))
    page.until("framed.length === 1")
    assert page("framed") == [FIRST]
    site.wait_streams(2)
    site.check_live((tab, "a", 1))
    site.server.publish("issues:7", issue(7))
    page.until("framed.length === 2")
    assert page("framed") == [FIRST, issue_wakeup(7)]


def test_other_version(site):
    """Tabs with another version of the messages have their own leader."""
    with open(os.path.join(LIBRARY, "tpi-stream.js"), encoding="utf-8") as file:
        site.write("newer.js", file.read().replace('"tpi-stream/1"', '"tpi-stream/2"'))
    with open(os.path.join(PAGES, "page.js"), encoding="utf-8") as file:
        site.write("newer-page.js", file.read().replace("./tpi-stream.js", "./newer.js"))
    site.write("newer.html", '<!DOCTYPE html><script type="module" src="newer-page.js"></script><body></body>')
    tabs = site.tabs(2)
    newer = [site.tab("newer.html") for _ in range(2)]
    for number, tab in enumerate(newer, 11):
        tab.watch("a", [number], combined=True)
        tab.wait("a", FIRST)
    site.wait_streams(2)
    newer[0]("reset()")
    newer[1].wait("a", FIRST, LATER)
    site.check_live((tabs[0], "a", 1), (tabs[1], "a", 2), (newer[1], "a", 12))
    assert tabs[1].messages("a").count(LATER) == 0


def test_over_500_ids(site):
    """More ids than a stream carries are on two streams, and each watcher gets its wake-ups."""
    tabs = [site.tab() for _ in range(2)]
    for number, tab in enumerate(tabs):
        tab.watch("a", list(range(1 + 300 * number, 301 + 300 * number)), combined=True)
    for tab in tabs:
        tab.until("seen.a.messages.length === 1")
    eventually(lambda: sorted(map(len, site.server.open_streams())) == [100, 500], what="two streams")
    assert site.server.refused == []
    site.check_live((tabs[0], "a", 1), (tabs[0], "a", 300), (tabs[1], "a", 600))
