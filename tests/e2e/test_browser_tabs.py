# SPDX-License-Identifier: ISC
"""Tabs of a real Chromium or Firefox that share one connection (contrib/browser with combined), or must not, against a
small web server with the combined stream, over HTTP/1.1. test_tabs.py has the main cases, with the daemon."""

import os
import shutil

import pytest

from chromium import FIRST, LATER, NAME, Firefox
from combined import StreamServer
from servers import ROOT
from timing import eventually

pytestmark = pytest.mark.slow

LIBRARY = os.path.join(ROOT, "contrib", "browser")
PAGES = os.path.join(ROOT, "tests", "e2e", "browser")
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
def site(request, tmp_path):
    """The site in a browser: Chromium, if the test has no parameter."""
    browser = request.getfixturevalue(getattr(request, "param", "chromium"))
    site = Site(browser, str(tmp_path))
    yield site
    browser.forget()
    site.server.close()


browsers = pytest.mark.parametrize("site", ["chromium", "firefox"], indirect=True)


def test_back_forward_cache(site):
    """A leader in the back-forward cache is replaced; when its page is shown again, it follows and gets a sync. Firefox
    does not put these pages into its cache."""
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


@browsers
def test_insecure_origin(site):
    """Plain http to a name that is not loopback has no Web Locks: each tab has its own combined stream."""
    tabs = [site.tab(host=NAME) for _ in range(2)]
    assert tabs[0]("navigator.locks === undefined")
    for tab in tabs:
        tab.watch("a", [7], combined=True)
        tab.watch("bell", combined=True)
        tab.wait("a", FIRST)
        tab.wait("bell", FIRST)
    site.wait_streams(2)  # not those that the change-overs replaced
    site.check_live((tabs[0], "a", 7))
    tabs[1].wait("a", FIRST, issue_wakeup(7, 77))


@browsers
def test_private_window(site):
    """A private window, or a container of Firefox, has its own leader."""
    tabs = site.tabs(2)
    private = site.browser.open_private(site.server.url("page.html"))
    private.watch("a", [7], combined=True)
    private.wait("a", FIRST)
    site.wait_streams(2)
    tabs[0].close()
    tabs[1].wait("a", FIRST, LATER)
    site.check_live((tabs[1], "a", 2), (private, "a", 7))
    assert private.messages("a").count(LATER) == 0


@pytest.mark.long
@pytest.mark.usefixtures("firefox")  # which skips the test if there is none
def test_private_firefox(rundir, tmp_path):
    """In a Firefox with only private windows tabs share one connection, too."""
    private = Firefox(rundir, private=True)
    site = Site(private, str(tmp_path))
    try:
        tabs = site.tabs(2)
        tabs[0].close()
        tabs[1].wait("a", FIRST, LATER)
        site.check_live((tabs[1], "a", 2))
    finally:
        private.kill()
        site.server.close()


@browsers
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
