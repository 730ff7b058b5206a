# SPDX-License-Identifier: ISC
"""A headless Firefox, driven by its own Marionette protocol. It has what the tests use of chromium.Chromium.

    browser = Firefox(directory)
    tab = browser.open("http://127.0.0.1:…/page.html")
    tab("document.title")               # the value of an expression, or of its promise
"""

import json
import os
import signal
import socket

from chromium import BrowserError
from servers import Process, clean_environment
from timing import eventually, scaled

# Firefox connects only to the tests' servers.
PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "marionette.port": 0,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}
EVALUATE = """
const done = arguments[arguments.length - 1];
Promise.resolve().then(() => window.eval(arguments[0])).then(
    (value) => done({ value: value === undefined ? null : value }), (error) => done({ error: String(error) }));
"""


class Firefox:
    def __init__(self, directory):
        self.calls = 0
        self.tabs = []
        self.cookies = {}  # to set in a page of the site, because Marionette cannot set them elsewhere
        profile = os.path.join(directory, "firefox")
        os.mkdir(profile)
        with open(os.path.join(profile, "user.js"), "w", encoding="ascii") as file:
            for name, value in PREFERENCES.items():
                file.write(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n")
        self.process = Process("firefox", ["firefox-esr", "--headless", "--marionette", "--no-remote", "--profile",
                                           profile], start_new_session=True,
                               env=clean_environment(HOME=directory, TMPDIR=directory))
        port = os.path.join(profile, "MarionetteActivePort")
        eventually(lambda: os.path.exists(port) and os.path.getsize(port), 60, "Firefox has started")
        with open(port, encoding="ascii") as file:
            self.socket = socket.create_connection(("127.0.0.1", int(file.read())))
        self.socket.settimeout(scaled(60))
        self.file = self.socket.makefile("rb")
        self.receive()
        self.call("NewSession")
        self.first = self.call("GetWindowHandle")["value"]

    def receive(self):
        length = b""
        while (byte := self.file.read(1)) != b":":
            assert byte.isdigit(), "Firefox has closed the connection"
            length += byte
        return json.loads(self.file.read(int(length)))

    def call(self, name, **params):
        self.calls += 1
        data = json.dumps([0, self.calls, f"WebDriver:{name}", params]).encode()
        self.socket.sendall(b"%d:%s" % (len(data), data))
        _, number, error, value = self.receive()
        assert number == self.calls
        if error:
            raise BrowserError(error["message"])
        return value

    def open(self, url):
        """Opens a page in a new tab."""
        tab = Tab(self)
        self.tabs.append(tab)
        tab.select()
        self.call("Navigate", url=url)
        if self.cookies:
            self.set_cookies()
            self.call("Navigate", url=url)
        return tab

    def set_cookies(self):
        for name, value in self.cookies.items():
            self.call("AddCookie", cookie={"name": name, "value": value})
        self.cookies = {}

    def sign_in(self, _, name, value):
        self.cookies[name] = value

    def forget(self):
        """Closes all tabs and deletes the cookies of their site, for the next test."""
        self.cookies = {}
        for tab in [tab for tab in self.tabs if not tab.closed]:
            tab.select()
            self.call("DeleteAllCookies")
            tab.close()
        self.tabs.clear()

    def kill(self):
        self.socket.close()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Tab:
    def __init__(self, browser):
        self.browser = browser
        self.closed = False
        browser.call("SwitchToWindow", handle=browser.first)
        self.handle = browser.call("NewWindow", type="tab")["handle"]

    def select(self):
        self.browser.call("SwitchToWindow", handle=self.handle)

    def close(self):
        if not self.closed:
            self.select()
            self.browser.call("CloseWindow")
            self.browser.call("SwitchToWindow", handle=self.browser.first)
        self.closed = True

    def __call__(self, expression):
        self.select()
        result = self.browser.call("ExecuteAsyncScript", script=EVALUATE, args=[expression], sandbox=None)["value"]
        if "error" in result:
            raise BrowserError(result["error"])
        return result["value"]

    def until(self, expression, timeout=10):
        return eventually(lambda: self(expression), timeout, expression)

    def messages(self, name):
        return self(f"seen.{name}.messages")
