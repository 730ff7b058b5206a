"""A headless Chromium whose tabs are as visible or hidden as those of people, driven through browser/driver.js.

    browser = Chromium(directory, node_directory)
    tab = browser.open("http://127.0.0.1:…/page.html")
    tab.watch("a", [7, 8])              # by the library; tab.plain("a", url): by a plain EventSource
    tab.wait("a", SYNC, …)              # exactly these messages
"""

import json
import os
import signal
import subprocess

from servers import Process, clean_environment
from timing import eventually

NAME = "tpi.example"  # of a site that is not on a loopback address, as far as the browser can tell

# It talks to nobody but the servers of the tests, and takes any certificate of theirs. Without a first window:
# Playwright may hang where it connects while that one is made.
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server "
         "--ignore-certificate-errors --no-startup-window --remote-debugging-port=0").split() + [
             f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
FIRST = {"type": "sync", "first": True}
LATER = {"type": "sync", "first": False}


class BrowserError(Exception):
    """The browser, or a script in a page, said no."""


class Chromium:
    def __init__(self, directory, node_directory):
        self.calls = 0
        self.tabs = []
        # A group of its own, so that kill() reaches its processes.
        self.process = Process("chromium", [
            "chromium", *FLAGS, f"--user-data-dir={directory}/profile"], start_new_session=True,
            env=clean_environment(HOME=directory, TMPDIR=directory))
        line = self.process.wait_for_log(r"DevTools listening on ws:", 30)
        self.driver = Process("browser driver", ["node", "driver.js", line.split()[-1]], cwd=node_directory,
                              stdin=subprocess.PIPE, bufsize=0)
        self.version = self.call("version")

    def call(self, name, *args):
        """Calls a function of driver.js."""
        self.calls += 1
        start = self.driver.mark("stdout")
        self.driver.child.stdin.write(json.dumps({"id": self.calls, "call": name, "args": args}).encode() + b"\n")
        answer = json.loads(self.driver.wait_for_log(rf'^{{"id":{self.calls},', 30, "stdout", start))
        if "error" in answer:
            raise BrowserError(answer["error"])
        return answer["value"]

    def open(self, url):
        """A tab in front of the others, loaded with the page."""
        tab = Tab(self)
        self.tabs.append(tab)
        return tab.goto(url)

    def sign_in(self, url, name, value):
        self.call("cookie", url, name, value)

    def sign_out(self):
        self.call("clear")

    def forget(self):
        """Closes all tabs and forgets all cookies: nothing is left for the next test."""
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


class Tab:
    """A tab with browser/page.html, or any page that keeps what its watchers were told in `seen`."""

    def __init__(self, browser):
        self.browser = browser
        self.number = browser.call("open")
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
        """As a person does, in front of the screen."""
        self.show()
        self.call("click")

    def close(self):
        if not self.closed:
            self.call("close")
        self.closed = True

    def freeze(self):
        self.call("lifecycle", "frozen")

    def thaw(self):
        self.call("lifecycle", "active")

    def skip(self, seconds):
        """Puts the page's clock forward, that of the browser's own reconnects included. It stands still then, for
        this page and those that it loads."""
        self.call("skip", seconds)

    def skip_until(self, seconds, expression):
        """The same, over and over: a reconnect may not have been planned yet at the first time."""
        eventually(lambda: self.skip(seconds) or self(expression), 10, expression)

    def __call__(self, expression):
        return self.call("evaluate", expression)

    def until(self, expression, timeout=10):
        return eventually(lambda: self(expression), timeout, expression)

    # What is in the page

    def watch(self, name, projects=None, **options):
        self(f"watch({json.dumps(name)}, {json.dumps(projects)}, {json.dumps(options)})")

    def plain(self, name, url, client="native", **options):
        self(f"plain({json.dumps(name)}, {json.dumps(url)}, {json.dumps(client)}, {json.dumps(options)})")

    def stop(self, name):
        self(f"seen.{name}.stop()")

    def messages(self, name):
        return self(f"seen.{name}.messages")

    def states(self, name):
        return self(f"seen.{name}.states")

    def wait(self, name, *messages, timeout=10):
        """The watcher is told exactly these, from the start on."""
        eventually(lambda: len(self.messages(name)) >= len(messages), timeout,
                   f"{len(messages)} messages for {name}")
        assert self.messages(name) == list(messages)

    def wait_state(self, name, state, timeout=10):
        eventually(lambda: self.states(name)[-1:] == [state], timeout, f"{name} is {state}")

    def wait_ready_state(self, name, value, timeout=10):
        eventually(lambda: self(f"seen.{name}.source.readyState") == value, timeout, f"readyState {value} of {name}")
