# SPDX-License-Identifier: ISC
"""A headless Chromium, driven through browser/driver.js, or Firefox, through browser/firefox.js, which has fewer calls.
Tabs of Chromium are visible or hidden as in a window.

    browser = Chromium(directory, node_directory)
    tab = browser.open("http://127.0.0.1:…/page.html")
    tab.watch("a", [7, 8])              # with the browser module; tab.plain("a", url) uses a plain EventSource
    tab.wait("a", SYNC, …)              # waits for exactly these messages
"""

import json
import os
import signal
import subprocess
import time

from servers import ROOT, Process, clean_environment
from timing import eventually

NAME = "tpi.example"  # a host name that the browser does not treat as loopback

# Chromium connects only to the tests' servers and accepts their certificates. It starts without a window, because
# Playwright can hang if it connects while the first window is being created.
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server "
         "--ignore-certificate-errors --no-startup-window --remote-debugging-port=0").split() + [
             f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
# Firefox connects only to the tests' servers, too.
FIREFOX_PREFERENCES = {"network.captive-portal-service.enabled": False, "network.connectivity-service.enabled": False,
                       "network.proxy.type": 0, "network.dns.localDomains": NAME, "app.update.auto": False,
                       "browser.safebrowsing.update.enabled": False,
                       "datareporting.policy.dataSubmissionEnabled": False, "browser.region.update.enabled": False,
                       "services.settings.server": "data:,"}
FIRST = {"type": "sync", "first": True}
LATER = {"type": "sync", "first": False}


class BrowserError(Exception):
    """An error of the browser or of a script in a page."""


class Browser:
    """A browser that runs: argv starts it, and it logs its ws:// address after `announcement`. `driver` are the
    arguments of node for the program that drives it; they are relative to `place`. runs_pages(name, command line)
    returns whether one of the browser's processes runs pages."""

    runs_pages = None

    def __init__(self, directory, argv, announcement, driver, place):
        self.calls = 0
        self.tabs = []
        # A process group, so that kill() reaches all processes of the browser.
        self.process = Process(argv[0], argv, start_new_session=True,
                               env=clean_environment(HOME=directory, TMPDIR=directory))
        line = self.process.wait_for_log(rf"{announcement} ws:", 30)
        self.driver = Process("browser driver", ["node", *driver, line.split()[-1]], cwd=place,
                              stdin=subprocess.PIPE, bufsize=0)
        self.version = self.call("version")

    def call(self, name, *args):
        """Calls a function of the driver."""
        self.calls += 1
        start = self.driver.mark("stdout")
        self.driver.child.stdin.write(json.dumps({"id": self.calls, "call": name, "args": args}).encode() + b"\n")
        answer = json.loads(self.driver.wait_for_log(rf'^{{"id":{self.calls},', 30, "stdout", start))
        if "error" in answer:
            raise BrowserError(answer["error"])
        return answer["value"]

    def open(self, url):
        """Opens a page in a new tab in the foreground."""
        tab = Tab(self)
        self.tabs.append(tab)
        return tab.goto(url)

    def open_window(self, url):
        """Opens a page in a window of its own, which stays visible."""
        tab = Tab(self, "openWindow")
        self.tabs.append(tab)
        return tab.goto(url)

    def open_private(self, url):
        """Opens a page in a private window."""
        tab = Tab(self, "openPrivate")
        self.tabs.append(tab)
        return tab.goto(url)

    def page_processes(self):
        """The processor time of each process that runs pages, by process id."""
        parents, found = {}, {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    name, _, rest = file.read().partition("(")[2].rpartition(")")
                with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                    line = file.read()
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields = rest.split()
            parents[int(pid)] = int(fields[1])
            if self.runs_pages(name, line):
                found[int(pid)] = int(fields[11]) + int(fields[12])

        def own(pid):
            return pid == self.process.pid or (pid in parents and own(parents[pid]))
        return {pid: spent for pid, spent in found.items() if own(pid)}

    def sign_in(self, url, name, value):
        self.call("cookie", url, name, value)

    def sign_out(self):
        self.call("clear")

    def forget(self):
        """Closes all tabs and deletes all cookies, for the next test."""
        for tab in self.tabs:
            tab.close()
        self.tabs.clear()
        self.sign_out()

    def kill(self):
        self.driver.kill()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Chromium(Browser):
    @staticmethod
    def runs_pages(_name, line):
        return "--type=renderer" in line

    def __init__(self, directory, node_directory):
        super().__init__(directory, ["chromium", *FLAGS, f"--user-data-dir={directory}/profile"],
                         "DevTools listening on", ["driver.js"], node_directory)


class Firefox(Browser):
    """Needs no packages of npm: it is driven over WebDriver BiDi. All windows are private, or none: what is called a
    private window elsewhere is a container, which has its own storage."""

    @staticmethod
    def runs_pages(name, _line):
        return name == "Isolated Web Co"

    def __init__(self, directory, program="firefox-esr", private=False):
        profile = os.path.join(directory, "firefox")
        os.mkdir(profile)
        with open(os.path.join(profile, "user.js"), "w", encoding="ascii") as file:
            file.writelines(f'user_pref("{name}", {json.dumps(value)});\n'
                            for name, value in {**FIREFOX_PREFERENCES,
                                                "browser.privatebrowsing.autostart": private}.items())
        super().__init__(directory, [program, "--headless", "--no-remote", "--profile", profile,
                                     "--remote-debugging-port=0", "about:blank"],
                         "WebDriver BiDi listening on", ["--experimental-websocket", "firefox.js"],
                         os.path.join(ROOT, "tests", "e2e", "browser"))


class Tab:
    """A tab with browser/page.html, or with another page that keeps its watchers' callbacks in `seen`."""

    def __init__(self, browser, call="open"):
        self.browser = browser
        self.number = browser.call(call)
        self.closed = False

    def call(self, name, *args):
        return self.browser.call(name, self.number, *args)

    def goto(self, url):
        self.call("goto", url)
        return self

    def back(self):
        self.call("back")

    def show(self):
        self.call("show")

    def click(self):
        """Clicks in the page, as a user does, after bringing the tab to the foreground."""
        self.show()
        self.call("click")

    def press(self, selector):
        """Clicks an element, after waiting until it is visible, enabled and still."""
        self.call("press", selector)

    def size(self, width, height):
        self.call("size", width, height)

    def theme(self, name):
        """Sets the theme of the system: "light" or "dark"."""
        self.call("theme", name)

    def delay(self, seconds):
        """Delays each response to this tab."""
        self.call("delay", 1000 * seconds)

    def close(self):
        if not self.closed:
            self.call("close")
        self.closed = True

    def freeze(self):
        self.call("lifecycle", "frozen")

    def thaw(self):
        self.call("lifecycle", "active")

    def process(self):
        """The id of the process of the page: the one that works hardest while the page is busy. The browser must have
        given each tab its own, as both do for the first few tabs of a site."""
        before = self.browser.page_processes()
        self("{ const end = performance.now() + 500; while (performance.now() < end); }")
        after = self.browser.page_processes()
        return max(after, key=lambda pid: after[pid] - before.get(pid, 0))

    def kill(self):
        """Kills the process of the page; returns when."""
        pid = self.process()
        os.kill(pid, signal.SIGKILL)
        self.closed = True
        return time.time()

    def skip(self, seconds):
        """Advances the page's clock, on which the browser's own reconnects also run. From then on it advances only by
        skip(), in this page and in pages that the tab loads later."""
        self.call("skip", seconds)

    def skip_until(self, seconds, expression):
        """Repeats skip() until the expression is true: a reconnect may not be scheduled yet at the first call."""
        eventually(lambda: self.skip(seconds) or self(expression), 10, expression)

    def __call__(self, expression):
        return self.call("evaluate", expression)

    def until(self, expression, timeout=10):
        return eventually(lambda: self(expression), timeout, expression)

    # Functions of the page

    def watch(self, name, ids=None, kind=None, **options):
        """Watches notifications or, with ids, issues of projects, or another kind by the name of its function."""
        kind = kind or ("Issues" if ids else "Notifications")
        self(f"watch({json.dumps(name)}, {json.dumps(ids)}, {json.dumps(options)}, {json.dumps(kind)})")

    def plain(self, name, url, client="native", **options):
        self(f"plain({json.dumps(name)}, {json.dumps(url)}, {json.dumps(client)}, {json.dumps(options)})")

    def stop(self, name):
        self(f"seen.{name}.stop()")

    def messages(self, name):
        return self(f"seen.{name}.messages")

    def states(self, name):
        return self(f"seen.{name}.states")

    def wait(self, name, *messages, timeout=10):
        """Waits until the watcher has received these messages since its start, and no others."""
        eventually(lambda: len(self.messages(name)) >= len(messages), timeout,
                   f"{len(messages)} messages for {name}")
        assert self.messages(name) == list(messages)

    def wait_state(self, name, state, timeout=10):
        eventually(lambda: self.states(name)[-1:] == [state], timeout, f"{name} is {state}")

    def wait_ready_state(self, name, value, timeout=10):
        eventually(lambda: self(f"seen.{name}.source.readyState") == value, timeout, f"readyState {value} of {name}")
