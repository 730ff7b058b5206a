#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""The application of the demo: a test run, issues of two projects, and notifications of two users.

    app.py SOCKET ACCESS TPI-PUBLISH TPI-STREAMD...    with the page's token in DEMO_TOKEN

It shows what an application has to do. It stores each change first and then publishes a wake-up with
tpi-publish. A wake-up carries no data, so the page refetches from here, and the access rules (the
daemon's, from the file ACCESS) decide what it gets. All data is in memory.

An application does not run the daemon. This one does, so that a button of the page can stop it and
start it again with the same command, TPI-STREAMD... The daemon's output goes to standard output.

The web server authenticates the user and passes the name in X-Demo-User; no one else can connect to
SOCKET. With Basic authentication, a browser sends the password with requests that any other page
triggers, so a POST must also prove that it comes from the demo's own page.
"""

import hmac
import http.server
import json
import os
import re
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

SOCKET, ACCESS, PUBLISH, *STREAMD = sys.argv[1:]
TOKEN = os.environ.pop("DEMO_TOKEN")

PREFIX = "/demo/api/"
BODY_MAX = 4096
NOTIFICATIONS_MAX = 50  # per user; keeps the newest
ISSUES_MAX = 100
PUBLISH_SECONDS = 10    # tpi-publish itself times out after 2
STOP_SECONDS = 8        # tpi-streamd itself exits within 5
METRICS_SECONDS = 3
STATUSES = ("open", "in progress", "done")
USERS = {"ann": "Ann", "ben": "Ben"}
PROJECTS = {7: "Mobile app", 8: "Web shop"}
RESULTS = ("untested", "passed", "failed")
RUN = {"id": 42, "projectId": 7, "name": "Release 2.4"}

lock = threading.Lock()     # guards cases, notifications and issues
cases = {number: {"id": number, "title": title, "result": RESULTS[0]}
         for number, title in enumerate((
             "Password sign-in", "Passkey sign-in", "Password reset", "Search by name",
             "Offline results", "Screenshots", "Dark theme", "CSV export", "Barcode scan",
             "Sign-out"), 1)}
notifications = {user: [] for user in USERS}    # oldest first
issues = {number: {"id": number, "projectId": project, "title": title, "status": status}
          for number, project, title, status in (
              (38, 7, "Dark theme: the chart has no labels", "done"),
              (41, 7, "Offline results are sent twice", "in progress"),
              (42, 7, "Login fails after a password reset", "open"),
              (55, 8, "Search finds nothing with an umlaut", "in progress"),
              (57, 8, "Checkout: the total ignores the voucher", "open"))}


class Refused(Exception):
    """A response with this status and {"error": message}."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def read_access(path):
    """The users of each project, from "7 ann ben" and comments."""
    with open(path, encoding="ascii") as file:
        rules = (line.partition("#")[0].split() for line in file)
        return {int(rule[0]): set(rule[1:]) for rule in rules if rule}


def projects_of(user):
    return [project for project in PROJECTS if user in access.get(project, ())]


def publish(*arguments):
    try:
        done = subprocess.run([PUBLISH, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", timeout=PUBLISH_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(502, f"saved, but not published: {error}") from error
    if done.returncode:
        raise Refused(502, f"saved, but not published: {done.stderr.strip()}")


class Daemon:
    """tpi-streamd. Each start runs the same command. An unexpected exit ends the demo."""

    def __init__(self, command):
        self.command = command
        self.lock = threading.Lock()    # one start or stop at a time
        self.child = self.watcher = None
        self.changed_by = None

    def start(self):
        with self.lock:
            if self.child:
                return
            child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                     stderr=subprocess.STDOUT)
            self.child = child
            self.watcher = threading.Thread(target=self.watch, args=(child,), daemon=True)
            self.watcher.start()

    def stop(self):
        with self.lock:
            if not self.child:
                return
            child, self.child = self.child, None
            child.terminate()
            self.watcher.join(STOP_SECONDS)
            child.kill()    # does nothing if it has exited

    def watch(self, child):
        status = child.wait()
        if self.child is child:
            print(f"tpi-streamd exited with status {status}", file=sys.stderr, flush=True)
            os._exit(1)     # quickstart.sh reports it; there is no daemon to stop


# ---- The daemon's metrics

# Types of FastCGI records
BEGIN_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT = 1, 3, 4, 5, 6
RECORD = struct.Struct("!BBHHBx")   # version, type, request id, length, padding


def record(kind, content=b""):
    return RECORD.pack(1, kind, 1, len(content), 0) + content


def param(name, value):
    return bytes((len(name), len(value))) + f"{name}{value}".encode()


def metrics():
    """The page of the daemon's metrics, with its headers, requested as a web server does it."""
    with socket.socket(socket.AF_UNIX) as peer, peer.makefile("rb") as reply:
        peer.settimeout(METRICS_SECONDS)
        peer.connect(STREAMD[STREAMD.index("--listen") + 1].removeprefix("unix:"))
        peer.sendall(
            record(BEGIN_REQUEST, b"\0\1" + bytes(6)) +   # as a responder
            record(PARAMS, param("REQUEST_METHOD", "GET") +
                   param("SCRIPT_NAME", "/api/streams/metrics")) +
            record(PARAMS) + record(STDIN))
        page = b""
        while True:
            _, kind, _, length, padding = RECORD.unpack(reply.read(RECORD.size))
            content = reply.read(length + padding)[:length]
            if kind == END_REQUEST:
                return page.decode()
            if kind == STDOUT:
                page += content


# ---- Queries of the page

def get_me(user):
    return {"user": user, "name": USERS[user], "projects": projects_of(user),
            "runProject": RUN["projectId"]}


def get_daemon(_user):
    return {"running": daemon.child is not None, "by": daemon.changed_by}


def get_connections(_user):
    try:
        page = metrics()
    except (ConnectionError, FileNotFoundError, struct.error):
        return {"connections": 0}   # the daemon is stopped, starting or stopping
    open_streams = re.findall(r"^tpi_stream_open_streams\{.*\} (\d+)$", page, re.MULTILINE)
    return {"connections": sum(map(int, open_streams))}     # of all users


def get_run(user):
    if RUN["projectId"] not in projects_of(user):
        raise Refused(404, "no such test run")
    with lock:
        return {**RUN, "cases": list(cases.values())}


def get_notifications(user):
    with lock:
        return notifications[user][::-1]


def get_issues(user):
    with lock:
        newest = sorted(issues.values(), key=lambda issue: -issue["id"])
    return [{"id": project, "name": PROJECTS[project],
             "issues": [issue for issue in newest if issue["projectId"] == project]}
            for project in projects_of(user)]


# ---- Changes by the page

def text_field(body, name):
    value = body.get(name)
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= 80 or not value.isprintable():
        raise Refused(400, f"{name} must be 1 to 80 printable characters")
    return value.strip()


def choice_field(body, name, allowed):
    value = body.get(name)
    if type(value) not in (str, int) or value not in allowed:
        raise Refused(400, f"{name} must be one of {', '.join(map(str, allowed))}")
    return value


def post_daemon(user, body):
    """Stop the daemon, or start it: {"run": false} or {"run": true}."""
    run = body.get("run")
    if not isinstance(run, bool):
        raise Refused(400, "run must be true or false")
    daemon.changed_by = USERS[user]
    if run:
        daemon.start()
    else:
        daemon.stop()
    return get_daemon(user)


def publish_run(event, *target):
    publish("test-run", "--project", str(RUN["projectId"]), "--run", str(RUN["id"]),
            "--event", event, *target)


def post_result(user, body):
    get_run(user)   # refuses a user without access
    number = choice_field(body, "id", cases)
    result = choice_field(body, "result", RESULTS)
    with lock:
        cases[number] = {**cases[number], "result": result}
    publish_run("test_run.result_added", "--target", str(number))
    return {"id": number}


def post_restart(user, _body):
    """Discard all results of the test run."""
    get_run(user)
    with lock:
        for number in cases:
            cases[number] = {**cases[number], "result": RESULTS[0]}
    publish_run("test_run.state_changed")
    return {}


def post_notify(user, body):
    to = choice_field(body, "to", (*USERS, "everyone"))
    text = text_field(body, "text")
    ident = str(uuid.uuid4())
    with lock:
        for reader in USERS if to == "everyone" else (to,):
            notifications[reader].append({"id": ident, "text": text, "from": USERS[user],
                                          "time": time.time(), "read": False})
            del notifications[reader][:-NOTIFICATIONS_MAX]
    publish("notification", "--id", ident,
            *(("--broadcast",) if to == "everyone" else ("--user", to)))
    return {"id": ident}


def post_read(user, _body):
    """Mark all of them as read, and wake up the user's other pages."""
    with lock:
        notifications[user] = [{**one, "read": True} for one in notifications[user]]
    publish("notification", "--user", user, "--event", "notifications-read")
    return {}


def post_report(user, body):
    project = choice_field(body, "projectId", projects_of(user))
    title = text_field(body, "title")
    with lock:
        if len(issues) >= ISSUES_MAX:
            raise Refused(409, f"the demo allows at most {ISSUES_MAX} issues")
        number = max(issues) + 1
        issues[number] = {"id": number, "projectId": project, "title": title,
                          "status": STATUSES[0]}
    publish("issue", "--project", str(project), "--issue", str(number), "--event", "issue-created")
    return {"id": number}


def post_move(user, body):
    status = choice_field(body, "status", STATUSES)
    mine = projects_of(user)
    with lock:
        number = choice_field(body, "id", [n for n in issues if issues[n]["projectId"] in mine])
        issues[number] = {**issues[number], "status": status}
        project = issues[number]["projectId"]
    publish("issue", "--project", str(project), "--issue", str(number))
    return {"id": number}


GETS = {"me": get_me, "run": get_run, "issues": get_issues, "notifications": get_notifications,
        "daemon": get_daemon, "connections": get_connections}
POSTS = {"result": post_result, "restart": post_restart, "report": post_report, "move": post_move,
         "notify": post_notify, "read": post_read, "daemon": post_daemon}


# ---- Requests

class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10    # closes the connection after this many idle seconds

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == PREFIX + "switch":
            self.switch(urllib.parse.parse_qs(query).get("from"))
        else:
            self.run(lambda: self.find(GETS, path)(self.user()))

    def do_POST(self):
        self.run(lambda: self.find(POSTS, self.path)(self.user(), self.own_body()))

    def run(self, action):
        try:
            self.answer(200, action())
        except Refused as refused:
            self.answer(refused.status, {"error": str(refused)})

    @staticmethod
    def find(actions, path):
        action = actions.get(path.removeprefix(PREFIX))
        if not action or not path.startswith(PREFIX):
            raise Refused(404, f"no such resource: {PREFIX} has {', '.join(actions)}")
        return action

    def user(self):
        user = self.headers.get("X-Demo-User", "")
        if user not in USERS:
            raise Refused(401, "not signed in")
        return user

    def own_body(self):
        """The body of a POST request, after checking that the demo's own page sent it."""
        body = self.body()
        host = self.headers.get("Host", "")
        # Reject other host names that resolve to this address (DNS rebinding).
        if not re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d+)?", host):
            raise Refused(403, "Host must be 127.0.0.1 or localhost")
        if self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise Refused(403, "Origin must be that of this page")
        if self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise Refused(403, "Sec-Fetch-Site must be same-origin")
        token = self.headers.get("X-Demo-Token", "")
        if not hmac.compare_digest(token.encode(), TOKEN.encode()):
            raise Refused(403, "X-Demo-Token is missing or expired: reload the page")
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise Refused(400, "the body must be a JSON object")
        return fields

    def body(self):
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length) or int(length) > BODY_MAX:
            raise Refused(413, f"Content-Length must be at most {BODY_MAX}")
        return self.rfile.read(int(length))

    def switch(self, left):
        """A browser forgets the password after a 401, and prompts for another one."""
        if self.headers.get("X-Demo-User") in (left or ()):
            self.send(401, "text/html", b'<!DOCTYPE html><title>Signed out</title>'
                      b'<meta http-equiv="refresh" content="0; url=/demo/signed-out.html">',
                      ("WWW-Authenticate", 'Basic realm="TestPlanIt"'))
        else:
            self.send(303, "text/plain", b"", ("Location", "/"))

    def answer(self, status, value):
        self.send(status, "application/json", json.dumps(value).encode())

    def send(self, status, kind, body, *headers):
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))),
                            ("Cache-Control", "no-store"), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "browser"    # a Unix socket has no address

    def log_request(self, code="-", size="-"):
        pass                # log errors only


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def terminate(_signal, _frame):
    raise SystemExit


access = read_access(ACCESS)
daemon = Daemon(STREAMD)
signal.signal(signal.SIGTERM, terminate)
os.umask(0o007)     # the sockets are for the user and the group only
try:
    daemon.start()
    with Server(SOCKET, Handler) as server:
        server.serve_forever()
finally:
    daemon.stop()
