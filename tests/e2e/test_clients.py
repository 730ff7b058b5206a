# SPDX-License-Identifier: ISC
"""How the clients that pages and scripts use handle the streams: a table of outcomes, measured in one run.

All clients run at the same time, through one nginx that takes the user from the query and logs each request. The run
takes them through the cases, and each test compares one client with its row of CLIENTS. doc/clients.md has the same table.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import node
from answers import notification
from fronts import Nginx
from servers import Process, Streamd, Valkey, clean_environment, free_port, run_directory, user_channel
from timing import scaled

pytestmark = [pytest.mark.long, pytest.mark.clients,
              pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="tests the clients, not the daemon")]

SYNC = '{"event":"sync"}'
PAGE_PACKAGES = ["event-source-polyfill", "reconnecting-eventsource", "sse.js", "@microsoft/fetch-event-source"]
OUTAGE = 60  # seconds for which the daemon is down
WATCH = 20   # seconds for which evicted clients are watched
FEW = 12     # requests a minute of a client that obeys `retry`
MANY = 90    # requests a minute of one that has its own delay

GOOD = {"sync": "yes", "wake-up": "yes", "Valkey outage": "sync", "restart": "sync", "retry later": "waits",
        "eviction": "waits", "reconnect of an evicted stream": "header", "503": "ends", "401": "ends"}
CASES = list(GOOD)
RETRIES = {"503": "retries", "401": "retries"}
ENDS = {"restart": "ends", "retry later": "ends", "eviction": "ends", "reconnect of an evicted stream": "ends"}
KEPT = {"reconnect of an evicted stream": "header, kept"}


@dataclass(frozen=True)
class Client:
    where: str  # node, python, curl, or a browser
    differs: dict  # from GOOD
    what: str = None  # the client in page.js

    def expects(self, case):
        return self.differs.get(case, GOOD[case])


CLIENTS = {
    "Chromium": Client("chromium", {}, "native"),
    "Firefox": Client("firefox", {}, "native"),
    "WebKitGTK": Client("webkit", {}, "native"),
    "eventsource-2": Client("node", KEPT | {"503": "retries"}),
    "eventsource-3": Client("node", {}),
    "eventsource-4": Client("node", {}),
    "undici": Client("node", KEPT),
    "event-source-polyfill": Client("chromium", {"reconnect of an evicted stream": "query"}),
    "reconnecting-eventsource": Client("chromium", RETRIES),
    "fetch-event-source": Client("chromium", ENDS | RETRIES),
    "fetch-event-source, two lines": Client("chromium", KEPT | RETRIES),
    "event-source-plus": Client("node", KEPT | RETRIES | {"retry later": "floods", "eviction": "floods"}),
    "launchdarkly-eventsource": Client("node", {"503": "retries"}),
    "eventsource-client": Client("node", RETRIES),
    "sse.js": Client("chromium", ENDS),
    "sse.js, autoReconnect": Client("chromium", RETRIES),
    "curl": Client("curl", ENDS),
    "requests": Client("python", {}),
    "httpx": Client("python", {}),
    "aiohttp": Client("python", {}),
}


class QueryUser(Nginx):
    """Takes the user from the query, since most clients cannot send a header."""

    AUTH = {"none": "fastcgi_param TPI_USER $arg_user;"}


class Evicted:
    """A server that evicts a stream as the daemon does, with a short retry time, and keeps what the next requests carry."""

    def __init__(self):
        self.seen = seen = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path, _, query = self.path.partition("?")
                requests = seen.setdefault(path, [])
                in_query = re.search(r"(?:lastEventId|Last-Event-ID)=([^&]*)", query)
                requests.append("header" if self.headers.get("Last-Event-ID") == "evicted"
                                else "query" if in_query and in_query[1] == "evicted" else "no")
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                sync = b'data: {"event":"sync"}\nretry: 1000\n\n'
                if len(requests) == 1:
                    self.wfile.write(sync + b"retry: 1000\nid: evicted\nevent: evicted\ndata: {}\n\n")
                else:
                    self.wfile.write(b"id\n" + sync)

            def log_message(self, *_):
                pass
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.address = "%s:%d" % self.server.server_address

    def outcome(self, number):
        """How the reconnect carries the id; "ends" without one, "…, kept" if it is still there after the reset."""
        requests = self.seen.get(f"/evicted/{number}", [])
        if len(requests) < 2:
            return "ends"
        return requests[1] + (", kept" if requests[1] != "no" and requests[1] in requests[2:] else "")

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Program:
    """A client that is a program: each line of its output is JSON."""

    def __init__(self, name, argv, **named):
        self.process = Process(name, argv, start_new_session=True, **named)

    def lines(self):
        return [json.loads(line) for line in list(self.process.lines["stdout"]) if line.startswith("{")]

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Curl(Program):
    def lines(self):
        kind, found = "message", []
        for line in list(self.process.lines["stdout"]):
            name, _, value = line.partition(": ")
            if name == "data":
                found.append({"type": kind, "data": value})
            kind = value if name == "event" else "message"
        return found


class Page:
    """A client in a page of a browser."""

    def __init__(self, tab):
        self.tab = tab

    def lines(self):
        return self.tab("window.lines ?? []")

    def kill(self):
        self.tab.close()


class Run:
    """Takes all clients through the cases. outcomes[client][case] has what happened, requests[client][case] the requests
    a minute, skipped[client] why it could not run."""

    def __init__(self, browser):
        """browser(name) returns a browser, or skips."""
        self.browser = browser
        self.skipped, self.running, self.begun, self.phases = {}, {}, {}, {}
        self.outcomes = {name: {} for name in CLIENTS}
        self.requests = {name: {} for name in CLIENTS}
        self.directory = run_directory()
        self.valkey = Valkey(self.directory).start()
        self.evicting = Evicted()
        self.daemon = self._daemon("d")
        self.full = self._daemon("full", SSE_PER_TENANT_CAP=1)
        self.full.stream("filler")
        self.log = os.path.join(self.directory, "requests")
        self.web, self.port = self._web(self.daemon)
        self.full_web, self.full_port = self._web(self.full)
        for web in self.web, self.full_web:
            for name in "client.html", "page.js":
                os.chmod(shutil.copy(os.path.join(node.CLIENTS, name), os.path.join(web.directory, "www")), 0o644)
        self.packages, self.python = None, None

    def _daemon(self, name, **settings):
        directory = os.path.join(self.directory, name)
        os.makedirs(directory, exist_ok=True)
        return Streamd(directory, {"VALKEY_URL": self.valkey.url, "SSE_PER_USER_CAP": 1, **settings}, ["--mode", "0666"])

    def _web(self, daemon):
        port = free_port()
        return QueryUser(
            self.directory, daemon.address, auth="none",
            http="log_format requests '$msec $request_time $arg_client $arg_case';",
            site=f"listen {port};\naccess_log {self.log} requests;\n"
                 "location /packages/ { try_files $uri $uri.js =404; }\n"
                 f"location /evicted/ {{ proxy_pass http://{self.evicting.address}; proxy_buffering off; }}\n"), port

    # Clients

    def install(self):
        try:
            self.packages = node.npm_clients()
            for web in self.web, self.full_web:
                for name in PAGE_PACKAGES:
                    copy = os.path.join(web.directory, "www", "packages", name)
                    shutil.copytree(os.path.join(self.packages, "node_modules", name), copy)
                subprocess.run(["chmod", "-R", "a+rX", os.path.join(web.directory, "www", "packages")], check=True)
        except pytest.skip.Exception as reason:
            self.skipped.update({name: str(reason) for name, client in CLIENTS.items()
                                 if client.what != "native" and client.where in ("node", "chromium")})
        try:
            self.python = node.pip_clients()
        except pytest.skip.Exception as reason:
            self.skipped.update({name: str(reason) for name, client in CLIENTS.items() if client.where == "python"})

    def start(self, name, case):
        """Starts a client in one of the cases "main", "503", "401" and "evicted"."""
        client, number = CLIENTS[name], list(CLIENTS).index(name)
        port = self.full_port if case in ("503", "401") else self.port
        # A browser opens at most six connections to one address.
        site = f"http://127.0.0.{2 + number}:{port}"
        path = f"/evicted/{number}" if case == "evicted" else "/api/notifications/stream"
        user = "" if case == "401" else f"&user=u{number}"
        target = f"{path}?client={number}&case={case}{user}"
        page = f"{site}/client.html?" + urllib.parse.urlencode({"client": client.what or name, "url": target})
        try:
            if client.where in ("chromium", "firefox"):
                return Page(self.browser(client.where).open(page))
            if client.where == "webkit":
                return Program("WebKitGTK", webkit() + [page], env=clean_environment(HOME=self.directory))
            if client.where == "node":
                return Program(name, ["node", "client.mjs", name, site + target], cwd=self.packages, env=clean_environment())
            if client.where == "python":
                return Program(name, ["/usr/bin/python3", os.path.join(node.CLIENTS, "client.py"), name, site + target],
                               env=clean_environment(PYTHONPATH=self.python, PYTHONDONTWRITEBYTECODE=1))
            return Curl(name, ["curl", "-sNf", site + target])
        except pytest.skip.Exception as reason:
            self.skipped[name] = str(reason)

    def start_all(self, case, names):
        for name in names:
            if name not in self.skipped:
                self.begun[name, case] = time.time()
                started = self.start(name, case)
                if started:
                    self.running[name, case] = started

    def lines(self, name, kind="message"):
        return [line.get("data") for line in self.running[name, "main"].lines() if line["type"] == kind]

    def syncs(self, name):
        return self.lines(name).count(SYNC)

    def main(self):
        return [name for name, case in self.running if case == "main"]

    def wait(self, condition, seconds, case=None):
        """Waits until the condition is true of all clients, or the time is up; returns those of which it is true. Does not
        wait for those that should have ended in this case."""
        deadline, done = time.monotonic() + scaled(seconds), set()
        wanted = {name for name in self.main() if not case or CLIENTS[name].expects(case) != "ends"}
        while True:
            done |= {name for name in self.main() if name not in done and condition(name)}
            if wanted <= done or time.monotonic() > deadline:
                return done
            time.sleep(0.2)

    # Cases

    def note(self, case, yes, done, otherwise="no"):
        for name in self.main():
            self.outcomes[name][case] = yes if name in done else otherwise

    def wake_up(self, text, case=None):
        """Publishes a wake-up for each user; returns the clients that receive it."""
        for number in range(len(CLIENTS)):
            self.valkey.publish(user_channel(f"u{number}"), notification(text))
        return self.wait(lambda name: notification(text) in self.lines(name), 5, case)

    def gap(self, seconds, case):
        """Waits for another sync after those of mark(); returns the clients that get it and a wake-up after it."""
        synced = self.wait(lambda name: self.syncs(name) > self.before[name], seconds, case)
        return synced & self.wake_up(f"after {case}", case)

    def mark(self):
        self.before = {name: self.syncs(name) for name in self.main()}

    def restart(self):
        self.daemon = self._daemon("d")

    def run(self):
        self.install()
        self.start_all("main", CLIENTS)
        self.note("sync", "yes", self.wait(self.syncs, 30))
        self.note("wake-up", "yes", self.wake_up("1"))

        self.mark()
        started = time.time()
        self.valkey.restart()
        self.note("Valkey outage", "sync", self.gap(15, "Valkey outage"))
        self.phases["Valkey outage"] = started, time.time()

        self.mark()
        self.daemon.stop()
        self.restart()
        self.note("restart", "sync", self.gap(30, "restart"), "ends")

        # Refused clients are watched during the outage.
        self.mark()
        self.daemon.stop()
        started = time.time()
        for case in "503", "401":
            self.start_all(case, CLIENTS)
        self.start_all("evicted", CLIENTS)
        time.sleep(max(0, started + OUTAGE - time.time()))
        self.phases["retry later"] = started, time.time()
        self.phases["503"] = self.phases["401"] = started, time.time()
        for name, case in list(self.running):
            if case != "main":
                self.running.pop((name, case)).kill()
        self.restart()
        self.note("retry later", "waits", self.gap(60, "retry later"), "ends")

        # Those that have ended begin again.
        for name in self.main():
            if self.outcomes[name]["retry later"] == "ends":
                self.running.pop((name, "main")).kill()
                self.start_all("main", [name])
        self.wait(self.syncs, 10)
        others = [self.daemon.stream(f"u{number}") for number in range(len(CLIENTS))]
        evicted = self.wait(lambda name: self.lines(name, "evicted"), 20)
        started = time.time()
        time.sleep(WATCH)
        self.phases["eviction"] = started, time.time()
        self.note("eviction", "waits", evicted, "not evicted")
        for peer in others:
            peer.close()

    def finish(self):
        for client in self.running.values():
            client.kill()
        for web in self.web, self.full_web:
            web.stop()
        for daemon in self.daemon, self.full:
            daemon.kill()
        self.valkey.kill()
        self.evicting.close()

    def count(self):
        """Judges the cases in which the number of requests matters, by nginx's log."""
        requests = {}
        with open(self.log, encoding="ascii") as file:
            for ended, took, number, case in map(str.split, file):
                if number.isdigit():
                    name = list(CLIENTS)[int(number)]
                    requests.setdefault((name, case), []).append(float(ended) - float(took))
        for name in self.main():
            outcomes = self.outcomes[name]
            for case, (first, last) in self.phases.items():
                key = (name, case if case in ("503", "401") else "main")
                first = max(first, self.begun[key])
                count = sum(first <= when <= last for when in requests.get(key, []))
                rate = self.requests[name][case] = round(60 * count / (last - first))
                if case in ("503", "401"):
                    outcomes[case] = "ends" if count == 1 else "retries" if count and rate <= MANY else f"{count} requests"
                elif case == "retry later" and rate > FEW:
                    outcomes[case] = "floods"
                elif case == "eviction" and count:
                    outcomes[case] = "returns" if rate <= FEW else "floods"
                elif case == "Valkey outage" and count:
                    outcomes[case] = "reconnects"
            outcomes["reconnect of an evicted stream"] = carried = self.evicting.outcome(list(CLIENTS).index(name))
            if carried == "ends" and outcomes["eviction"] == "waits":
                outcomes["eviction"] = "ends"

    def table(self):
        rows = [["client", *CASES]]
        for name in CLIENTS:
            rows.append([name, *(f"{self.outcomes[name].get(case, '?')}"
                                 + (f" ({self.requests[name][case]}/min)" if case in self.requests[name] else "")
                                 for case in CASES)])
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def webkit():
    """The command that loads a page in WebKitGTK."""
    node.require("xvfb-run")
    argv = ["xvfb-run", "-a", "/usr/bin/python3"]
    try:
        subprocess.run(["/usr/bin/python3", "-c", "import gi; gi.require_version('WebKit2', '4.1')"], check=True,
                       capture_output=True, timeout=scaled(20))
    except subprocess.CalledProcessError:
        pytest.skip("WebKitGTK for Python is not installed: contrib/install-deps.sh clients")
    return argv + [os.path.join(node.CLIENTS, "webkit.py")]


@pytest.fixture(scope="module")
def run(request):
    done = Run(request.getfixturevalue)
    try:
        try:
            done.run()
        finally:
            done.finish()
        done.count()
    finally:
        shutil.rmtree(done.directory, ignore_errors=True)
    print(done.table())
    return done


@pytest.mark.parametrize("name", CLIENTS)
def test_client(run, name):
    """The client behaves as its row says, in each case."""
    if name in run.skipped:
        pytest.skip(run.skipped[name])
    assert run.outcomes[name] == {case: CLIENTS[name].expects(case) for case in CASES}
