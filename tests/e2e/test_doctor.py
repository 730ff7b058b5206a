# SPDX-License-Identifier: ISC
"""tpi-stream-doctor: all is well through real servers, and each thing that it knows, broken in turn."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

import fronts
import test_publish
from application import ANN, cookie
from certificates import Authority
from fcgi import ISSUES, NOTIFICATIONS
from fronts import Apache, Nginx
from servers import basic, clean_environment, free_port, http, program, user_channel
from test_cluster import Cluster
from test_doctor_parts import FIRST, HEAD, parts  # noqa: F401 (a fixture)
from timing import scaled

FRONTS = {"Apache": Apache, "nginx": Nginx}
both = pytest.mark.parametrize("server", FRONTS.values(), ids=FRONTS)
DOCTOR = program("tpi-stream-doctor")
OPEN = ["--mode", "0666"]
OF_PROJECT = ("issues", "project-test-runs", "project-milestones", "combined")
KINDS = ("notifications", "test-run", "milestone", *OF_PROJECT)


def few(parts):
    """Caps that fit into the limits of any machine."""
    return {name: 100 for name in parts.DEFAULTS if name.endswith("_PER_TENANT_CAP")}


class Diagnosis:
    """What a run has said."""

    def __init__(self, done):
        self.status, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        assert "Warning" not in done.stderr and "Traceback" not in done.stderr, done.stderr
        self.findings = {}
        for finding in json.loads(done.stdout)["findings"] if done.stdout.startswith("{") else []:
            assert finding["stage"] not in self.findings, finding
            self.findings[finding["stage"]] = SimpleNamespace(**finding)
            assert (finding["state"] in ("ok", "skipped")) != bool(finding["remedy"]), finding

    @property
    def wrong(self):
        return {stage for stage, finding in self.findings.items() if finding.state in ("warning", "FAILED")}

    def only(self, *stages, state="FAILED"):
        """Nothing else is wrong; returns the first of them, text and remedy as one."""
        assert self.wrong == set(stages), self.stdout
        assert self.status == (1 if state == "FAILED" else 0)
        assert all(self.findings[stage].state == state for stage in stages), self.stdout
        return self.says(stages[0])

    def says(self, stage):
        finding = self.findings[stage]
        return f"{finding.text} | {finding.remedy}"


@pytest.fixture
def doctor(rundir, valkey):
    """doctor(url, option, ..., NAME=value) runs it as ann, unless who= says otherwise."""
    password = os.path.join(rundir, "password")
    with open(password, "w", encoding="ascii") as file:
        file.write("ann\n")

    def run(url, *options, who=("--user", f"ann:{password}"), local=("--no-local",), as_json=True, stdin="",
            **env):
        env.setdefault("VALKEY_URL", valkey.url)
        words = ["/usr/bin/python3", "-B", "-W", "error", DOCTOR, url, *who, *local, "--late", scaled(1),
                 *(["--json"] if as_json else []), *options]
        return Diagnosis(subprocess.run([*map(str, words)], env=clean_environment(**env), input=stdin,
                                        capture_output=True, text=True, timeout=scaled(60), check=False))
    return run


@pytest.fixture
def front(rundir):
    """front(Apache or Nginx, daemon, ...) starts one."""
    started = []

    def start(server, daemon, **named):
        started.append(server(rundir, daemon if isinstance(daemon, str) else daemon.address, **named))
        return started[-1]
    yield start
    for process in started:
        process.kill()


@both
def test_all_is_well(streamd, front, doctor, parts, server):
    """All streams, wake-ups, a heartbeat: all ok, and exit status 0."""
    daemon = streamd(OPEN, TPI_PROJECT_ACCESS="allow", SSE_HEARTBEAT_MS=int(scaled(500)), **few(parts))
    fore = front(server, daemon)
    name = "nginx" if server is Nginx else "Apache"
    told = doctor(fore.url, "--project", 7, "--test-run", 8, "--milestone", 9, "--seconds", scaled(2.2), local=("--local", "--pid", daemon.pid))
    print(told.stdout)
    assert told.status == 0 and not told.wrong
    assert {stage for stage, finding in told.findings.items() if finding.state == "ok"} == {
        "address", "connection", "clock", "web server", "daemon", "limits", "socket", "issues: prefixes", "Last-Event-ID",
        *(f"{name}: {stage}" for stage in ("workers", "streams", "identity")),
        *(f"{kind}: {stage}" for kind in KINDS for stage in
          ("tpi-streamd", "answer", "sync", "tpi-publish", "wake-ups", "heartbeat", "open"))}
    assert all("5 of 5" in told.says(f"{kind}: wake-ups") for kind in KINDS)


# What breaks things

@pytest.fixture
def change(rundir, monkeypatch):
    """change(file, old, new): contrib/ with this difference, for what starts from now on; old=None: all of it."""
    copy = os.path.join(rundir, "contrib")

    def apply(name, old, new):
        if not os.path.exists(copy):
            for part in "apache", "nginx", "demo":
                shutil.copytree(os.path.join(fronts.CONTRIB, part), os.path.join(copy, part))
            monkeypatch.setattr(fronts, "CONTRIB", copy)
        path = os.path.join(copy, name)
        text = fronts.read(path)
        fronts.write(path, new if old is None else fronts.substitute(text, {old: new}))
    return apply


class StandIn:
    """A web server that does what real ones here cannot be made to do: tpi-streamd's 405 to HEAD, and stream(handler)."""

    def __init__(self, stream, other=None, server="stand-in", other_head=False,
                 probe=b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nCache-Control: no-store\r\n{}\r\n"):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                head = b""
                while b"\r\n\r\n" not in head:
                    data = self.connection.recv(65536)
                    if not data:
                        return
                    head += data
                self.head, self.target = head.decode(), head.split()[1].decode()
                if b"HEAD " == head[:5] and not other_head:
                    date = formatdate(time.time() + self.server.ahead, usegmt=True)
                    self.send(probe.replace(b"{}", f"Server: {server}\r\nDate: {date}\r\n".encode()))
                elif self.target.startswith((NOTIFICATIONS, ISSUES)):
                    stream(self)
                elif other:
                    other(self)
                else:
                    self.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

            def send(self, data):
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            def wait_gone(self):
                with contextlib.suppress(OSError):
                    self.connection.recv(1)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads, block_on_close, ahead = True, True, False, 0
        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def stand_in():
    started = []

    def start(stream, **named):
        started.append(StandIn(stream, **named))
        return started[-1]
    yield start
    for server in started:
        server.stop()


RESET = FIRST.replace(b"data:", b"id\ndata:", 1)     # the answer to Last-Event-ID: evicted


def opens(tail=b"", head=FIRST):
    """A stream for StandIn, with these bytes behind its sync, and the end if there are some."""
    def stream(handler):
        if "Last-Event-ID: evicted" in handler.head:
            handler.send(RESET)
            return
        handler.send(head)
        if tail is None or tail:
            handler.send(tail or b"")
        else:
            handler.wait_gone()
    return stream


class Held:
    """A proxy that hands bytes on to the browser every so many seconds only, or each so much later."""

    def __init__(self, address, every=0, delay=0):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.address, self.every, self.delay, self.ended = address, every, delay, False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        with near, socket.create_connection(self.address) as far, contextlib.suppress(OSError):
            far.sendall(near.recv(65536))
            far.settimeout(0.01)
            held, since = [], time.monotonic()
            while not self.ended:
                with contextlib.suppress(TimeoutError):
                    data = far.recv(65536)
                    if not data:
                        break
                    held.append((time.monotonic(), data))
                now = time.monotonic()
                if now - since > self.every:
                    since = now
                    while held and now - held[0][0] >= self.delay:
                        near.sendall(held.pop(0)[1])
            near.sendall(b"".join(data for _, data in held))

    def stop(self):
        self.ended = True
        self.listener.close()


def streams(fore, count, user="ann"):
    """Streams of others, open."""
    peers = [http(fore.address, NOTIFICATIONS, Authorization=basic(user, user)) for _ in range(count)]
    for peer in peers:
        peer.wait_live(20)
    return peers


# The way there

def test_names_and_ports(doctor):
    """A name that is not in the DNS, and a port where nobody listens."""
    assert "cannot resolve" in doctor("http://nothing.invalid").only("address")
    told = doctor(f"http://127.0.0.1:{free_port()}").only("connection")
    assert "refused" in told and "systemctl status apache2" in told


def test_one_address_of_two(parts, stand_in):
    """Nobody listens at the other one, which browsers try, too."""
    server = stand_in(opens())
    site = parts.Site(server.url, [], None, scaled(5))
    site.addresses = [("127.0.0.2", site.port), ("127.0.0.1", site.port)]
    options = SimpleNamespace(as_user=None, project=None, test_run=None, milestone=None)
    examination = parts.Examination(options, site, parts.Publisher(None, {}), "nothing")
    finding, = parts.check_connection(examination)
    assert finding.state == "warning" and "127.0.0.2: " in finding.text and "DNS" in finding.remedy
    assert site.addresses == [("127.0.0.1", site.port)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("tls")))


APACHE_TLS = """
LoadModule ssl_module ${{MODULES}}/mod_ssl.so
LoadModule http2_module ${{MODULES}}/mod_http2.so
Listen 127.0.0.1:{port} https
<VirtualHost 127.0.0.1:{port}>
	SSLEngine on
	SSLCertificateFile "{pem}"
	SSLCertificateKeyFile "{key}"
	Protocols {protocols}
</VirtualHost>
"""
NGINX_TLS = """
listen 127.0.0.1:{port} ssl http2;
ssl_certificate "{pem}";
ssl_certificate_key "{key}";
"""


@pytest.fixture
def tls(front, streamd, authority):
    """tls(server, protocols=, ...) is a front with TLS; the last words are those of Authority.certificate()."""
    def start(server, protocols="http/1.1", days=90, **named):
        pem, key = authority.certificate(days=days, **named)
        port = free_port()
        template = APACHE_TLS if server is Apache else NGINX_TLS
        fore = front(server, streamd(OPEN), site=template.format(port=port, pem=pem, key=key,
                                                                 protocols=protocols))
        fore.tls = f"https://127.0.0.1:{port}"
        return fore
    return start


def test_tls(tls, doctor, authority):
    """nginx with HTTP/2, and Apache without: nothing is wrong."""
    for server, http2 in (Nginx, "offered"), (Apache, "not offered"):
        told = doctor(tls(server).tls, "--ca", authority.pem, "--quick")
        assert told.status == 0, told.stdout
        assert told.says("HTTP/2").startswith(http2) and "valid for" in told.says("TLS")


def test_http2_on_apache(tls, doctor, authority):
    told = doctor(tls(Apache, protocols="h2 http/1.1").tls, "--ca", authority.pem, "--quick")
    assert "Protocols http/1.1" in told.only("HTTP/2", state="warning")


def test_certificates(tls, doctor, authority):
    """From an authority that is not known, expired, for another name, soon to expire; and no TLS at all."""
    fore = tls(Nginx, days=3)
    assert "--ca FILE" in doctor(fore.tls).only("TLS")
    assert "certbot renew" in doctor(fore.tls, "--ca", authority.pem, "--quick").only("TLS", state="warning")
    expired = tls(Nginx, days=-1).tls
    assert "has expired" in doctor(expired, "--ca", authority.pem).only("TLS")
    other = tls(Nginx, names="DNS:other.example").tls
    assert "another name" in doctor(other, "--ca", authority.pem).only("TLS")
    assert "port for https" in doctor(fore.url.replace("http:", "https:")).only("TLS")


@pytest.mark.parametrize("ahead, state", [(-30, "warning"), (300, "FAILED")])
def test_clock(stand_in, doctor, ahead, state):
    server = stand_in(opens())
    server.server.ahead = ahead
    told = doctor(server.url, "--quick", who=())
    assert "timedatectl" in told.only("clock", state=state)
    assert ("ahead of" if ahead > 0 else "behind") in told.says("clock")


# Answers that are no stream

def test_wrong_password(front, streamd, doctor, rundir):
    """The web server's 401, by both."""
    path = fronts.write(os.path.join(rundir, "wrong"), "nonsense\n")
    daemon = streamd(OPEN)
    for server in FRONTS.values():
        told = doctor(front(server, daemon).url, who=("--user", f"ann:{path}"))
        assert "right password" in told.only("notifications: tpi-streamd")
        assert "nonsense" not in told.stdout + told.stderr


@both
def test_nobody(front, streamd, doctor, server, rundir):
    """tpi-streamd's 401: the remedy is by what was shown."""
    fore = front(server, streamd(OPEN), auth="none")
    told = doctor(fore.url, who=())
    assert "had no credentials" in told.only("notifications: answer") and "TPI_USER" in told.says(
        "notifications: answer")
    assert "CGIPassAuth" in doctor(fore.url).only("notifications: answer")
    told = doctor(fore.url, who=("--cookie", "-"), stdin="Cookie: a=b; session=SECRET-x\n")
    assert "NEXTAUTH_URL" in told.only("notifications: answer")


def test_forbidden(front, streamd, doctor):
    told = doctor(front(Nginx, streamd(OPEN), site="deny all;").url)
    assert "allow-list" in told.only("notifications: tpi-streamd")


@pytest.mark.parametrize("server, rules", [(Apache, None), (Nginx, "8 ann\n")], ids=FRONTS)
def test_no_project(front, streamd, doctor, rundir, server, rules):
    """tpi-streamd's 404: nobody, or not this user, has access."""
    access = "file:" + fronts.write(os.path.join(rundir, "access"), rules) if rules else "deny"
    told = doctor(front(server, streamd(OPEN, TPI_PROJECT_ACCESS=access)).url, "--project", 7, "--quick")
    assert "TPI_PROJECT_ACCESS is deny, the default" in told.only(*(f"{kind}: answer" for kind in OF_PROJECT))
    assert told.findings["notifications: wake-ups"].state == "ok"


class Strict:
    """
    The application as TestPlanIt is: 403 to /api/model from anything but a page of the site, unless the account has
    API access. stripped: what the web server takes out on the way to tpi-streamd ("daemon") or to the application.
    """

    def __init__(self, api=False, readable=True, stripped=""):
        self.api, self.readable, self.stripped, self.heads = api, readable, stripped, []

    def allows(self, head):
        page = "Sec-Fetch-Site: same-origin" in head
        return self.api or page and self.stripped != "application"

    def stream(self, handler):
        self.heads.append(handler.head)
        if handler.target.startswith(NOTIFICATIONS) or \
                self.readable and (self.allows(handler.head) and self.stripped != "daemon"):
            opens()(handler)
        else:
            self.answer(handler, 404, {"error": "no such project"})

    def other(self, handler):
        if handler.target == "/api/auth/session":
            self.answer(handler, 200, {"user": {"id": "ann"}})
        elif not handler.target.startswith("/api/model/projects/findMany?q=%7B%22where"):
            self.answer(handler, 404, {})
        elif self.allows(handler.head):
            self.answer(handler, 200, {"data": [{"id": 7}] if self.readable else []})
        else:
            self.answer(handler, 403, {"error": "External API access not enabled for this account"})

    @staticmethod
    def answer(handler, status, value):
        body = json.dumps(value).encode()
        handler.send(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            status, len(body), body))


@pytest.mark.parametrize("strict, text, remedies, others", [
    (Strict(stripped="daemon"), "refuses only the same query without Sec-Fetch-Site: 403: External API access not enabled",
     ("on to tpi-streamd unchanged", "For a script, send Sec-Fetch-Site", "TPI_PROJECT_ACCESS=app"), ("to the application unch",)),
    (Strict(stripped="application"), "refuses the query of a page: 403: External API access not enabled",
     ("on to the application unchanged", "enable API access"), ("to tpi-streamd unch",)),
    (Strict(api=True, stripped="daemon"), "although the application lets this user read it",
     ("TPI_PROJECT_ACCESS=app", "TPI_APP_URL"), ("Sec-Fetch",)),
    (Strict(readable=False), "the application lets this user read it neither", ("a project that the user can read",),
     ("Sec-Fetch", "TPI_PROJECT_ACCESS"))],
    ids=["stripped before tpi-streamd", "stripped before the application", "not app", "no access"])
def test_why_there_is_no_such_project(stand_in, doctor, strict, text, remedies, others):
    """tpi-streamd's 404 hides the application's 403; the doctor asks the application as a page and as a script."""
    told = doctor(stand_in(strict.stream, other=strict.other).url, "--project", 7, "--quick", "--late", 0.3,
                  who=("--cookie-file", "-"), stdin="session=SECRET-x\n", VALKEY_URL="unix:///none")
    said = told.says("issues: answer")
    assert text in said and told.findings["issues: answer"].state == "FAILED"
    assert all(words in said for words in remedies) and not any(words in said for words in others), said


def test_no_such_project_by_settings(parts):
    """Where the daemon's settings are known, they decide first."""
    got = parts.Response(0.0)
    got.feed(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", 1.0)
    answers = parts.ModelAnswer(200, True), parts.ModelAnswer(403, False, "External")
    for access, text in ("", "TPI_PROJECT_ACCESS is deny"), ("file:/a", "Add a rule"), ("app", "on to tpi-streamd"):
        finding = parts.judge_not_found("x", "issues", got, *answers, {"TPI_PROJECT_ACCESS": access})
        assert text in finding.text + finding.remedy
        assert access != "app" or "TPI_PROJECT_ACCESS" not in finding.remedy


def test_sends_what_a_page_sends(stand_in, doctor):
    """Sec-Fetch-Site and Referer, with every request but that of a script."""
    strict = Strict()
    server = stand_in(strict.stream, other=strict.other)
    told = doctor(server.url, "--project", 7, "--quick", "--late", 0.3, who=("--cookie-file", "-"), stdin="session=SECRET-x\n",
                  VALKEY_URL="unix:///none")
    assert told.findings["issues: sync"].state == "ok", told.stdout
    assert len(strict.heads) >= 2
    for head in strict.heads:
        assert f"\r\nReferer: {server.url}/\r\n" in head and "\r\nSec-Fetch-Site: same-origin\r\n" in head


def test_answer_of_the_application(stand_in, doctor):
    """The path leads to the application itself, which refuses; and HEAD is not refused by tpi-streamd."""
    def forbidden(handler):
        Strict.answer(handler, 403, {"error": "External API access not enabled for this account"})
    told = doctor(stand_in(forbidden, probe=b"HTTP/1.1 403 X\r\n{}\r\n").url, "--quick", who=())
    assert "the application answers, not tpi-streamd" in told.only("notifications: tpi-streamd")
    told = doctor(stand_in(opens(), probe=b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{}\r\n").url, "--quick", who=())
    assert "answers HEAD with 200, not tpi-streamd" in told.only("notifications: tpi-streamd", state="warning")


def serves(status, body, kind="application/json"):
    """The application on the paths that are not passed on to tpi-streamd, for StandIn."""
    def answer(handler):
        handler.send(b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nServer: Next.js\r\nConnection: close\r\n\r\n%s" % (
            status, kind.encode(), body))
        handler.connection.shutdown(socket.SHUT_RDWR)
    return answer


APPLICATION = {
    "refuses": (serves(401, b'{"error":"Unauthorized"}'), "the application answers, not tpi-streamd: Unauthorized"),
    "has no such page": (serves(404, b"<html>", "text/html"), "not found by the web server or the application"),
    "serves the stream": (serves(200, FIRST.partition(b"\r\n\r\n")[2], "text/event-stream"), "answers HEAD with 200"),
}


@pytest.fixture
def some_routes(change, front, streamd, stand_in):
    """some_routes(server, answer): a site that passes notifications and issues on to tpi-streamd, the rest to the
    application, which answers so."""
    def start(server, answer):
        new = "^/api/(?:notifications|issues)/stream$"
        for name in "apache/tpi-stream.conf", "nginx/tpi-stream.conf":
            old = re.search(r"\^/api\S*stream\$", fronts.read(f"{fronts.CONTRIB}/{name}"))[0]
            change(name, old, new)
        app = stand_in(answer, other=answer, other_head=True)
        site = f'ProxyPass "/" "{app.url}/"' if server is Apache else f"location / {{ proxy_pass {app.url}; }}"
        return front(server, streamd(OPEN, TPI_PROJECT_ACCESS="allow"), site=site)
    return start


@both
@pytest.mark.parametrize("answer, text", APPLICATION.values(), ids=APPLICATION)
def test_path_of_the_application(some_routes, doctor, server, answer, text):
    """A path that leads to the application instead of tpi-streamd: a failure for the streams that the command line names,
    a warning for the others, which may be the application's on purpose."""
    fore = some_routes(server, answer)
    told = doctor(fore.url, "--quick")
    said = told.only("other streams", state="warning")
    assert text in said and "is not reached: test-run, project-test-runs, milestone, project-milestones, combined: " in said
    assert "If the application is to serve these itself" in said and "Pass this path on to tpi-streamd" in said
    told = doctor(fore.url, "--quick", "--project", 7, "--test-run", 8)
    stages = ["test-run: tpi-streamd", "project-test-runs: tpi-streamd", "project-milestones: tpi-streamd", "combined: tpi-streamd",
              "other streams"]
    assert told.wrong >= set(stages) and text in told.says(stages[0]) and "Pass this path on" in told.says(stages[0])
    assert "HEAD" in text or told.wrong == set(stages)
    assert told.findings["issues: wake-ups"].state == "ok"


def test_old_daemon(front, streamd, doctor, change):
    """The path reaches a tpi-streamd that does not know the stream."""
    change("nginx/tpi-stream-fastcgi.conf", "SCRIPT_NAME       $fastcgi_script_name;", "SCRIPT_NAME       $tpi_path;")
    site = "set $tpi_path $uri; if ($uri ~ /test-runs/) { set $tpi_path /api/unknown; }"
    told = doctor(front(Nginx, streamd(OPEN), site=site).url, "--quick")
    assert "upgrade tpi-streamd" in told.only("other streams", state="warning")


@both
def test_not_mapped(front, streamd, doctor, server):
    """The web server's 404 is another thing."""
    told = doctor(front(server, streamd(OPEN)).url + "/prefix")
    assert "Pass this path on" in told.only("notifications: tpi-streamd")


@pytest.mark.parametrize("old, new, stage, remedy", [
    ("SCRIPT_NAME       $fastcgi_script_name", "SCRIPT_NAME /x$fastcgi_script_name", "tpi-streamd",
     "SCRIPT_NAME $fastcgi"),
    ("REQUEST_METHOD    $request_method", "REQUEST_METHOD    POST", "answer", "REQUEST_METHOD $request"),
], ids=["404", "405"])
def test_parameters_of_nginx(change, front, streamd, doctor, old, new, stage, remedy):
    change("nginx/tpi-stream-fastcgi.conf", old, new)
    assert remedy in doctor(front(Nginx, streamd(OPEN)).url).only(f"notifications: {stage}")


def test_bad_request(front, streamd, doctor, rundir):
    """A user name that is no id."""
    path = fronts.write(os.path.join(rundir, "password"), "ann\n")
    fore = front(Apache, streamd(OPEN), users={"a*b": "ann"})
    assert "not a valid user id" in doctor(fore.url, who=("--user", f"a*b:{path}")).only("notifications: answer", "tpi-publish")


def test_internal_error(front, streamd, doctor):
    """Apache may not read its file of users."""
    fore = front(Apache, streamd(OPEN))
    os.chmod(os.path.join(fore.directory, "users"), 0)
    assert "chown root:www-data" in doctor(fore.url).only("notifications: tpi-streamd")


def test_redirects(front, streamd, doctor):
    """To a sign-in page, to https, to somewhere else; the query, which may hold a token, is not shown."""
    for target, remedy in (("/sign-in?next=SECRET", "fresh cookie"),
                           ("https://127.0.0.1/x?SECRET", "Give the https URL"), ("/other/", "ends at")):
        fore = front(Nginx, streamd(OPEN), site=f"return 302 {target};")
        told = doctor(fore.url)
        assert remedy in told.only("notifications: tpi-streamd") and "SECRET" not in told.stdout


def test_page_in_place_of_a_stream(front, streamd, doctor):
    fore = front(Nginx, streamd(OPEN), site='default_type text/html; return 200 "<p>Hello";')
    told = doctor(fore.url).only("notifications: tpi-streamd")
    assert "not a stream (text/html)" in told and "Pass this path on" in told


@both
def test_no_daemon(front, streamd, doctor, server):
    """The web server says: later."""
    daemon = streamd(OPEN)
    fore = front(server, daemon)
    daemon.stop()
    told = doctor(fore.url).only("notifications: tpi-streamd")
    assert "the web server itself answers" in told and "systemctl status tpi-stream.socket" in told


def test_no_daemon_and_no_answer_for_it(change, front, streamd, doctor):
    """502 by nginx and 503 by Apache, where they have nothing to say in its place."""
    change("nginx/tpi-stream-fastcgi.conf", "error_page 429 502 503 504 = @tpi_later;", "")
    change("apache/tpi-stream.conf", "ErrorDocument 503 /api/.tpi-stream-later", "")
    daemon = streamd(OPEN)
    pair = [(front(Nginx, daemon), "error_page 429 502 503 504"), (front(Apache, daemon), "retry=0")]
    daemon.stop()
    for fore, remedy in pair:
        assert remedy in doctor(fore.url).only("notifications: tpi-streamd")


@both
def test_socket_is_closed_to_the_web_server(front, streamd, doctor, parts, server):
    """What the kernel would say is said, too."""
    if os.geteuid() != 0:
        pytest.skip("the workers are the user of the tests: no mode keeps them out")
    daemon = streamd(["--mode", "0600"], **few(parts))
    fore = front(server, daemon)
    told = doctor(fore.url, local=("--local", "--pid", daemon.pid), **{})
    assert {"notifications: tpi-streamd", "socket"} <= told.wrong
    assert "SocketGroup=" in told.says("socket") and "mode 0660" in told.says("notifications: tpi-streamd")


def test_tenant_cap(front, streamd, doctor):
    """tpi-streamd's 503."""
    fore = front(Nginx, streamd(OPEN, SSE_PER_TENANT_CAP=1))
    with streams(fore, 1, "ben")[0]:
        assert "SSE_PER_TENANT_CAP" in doctor(fore.url).only("notifications: answer")


def test_apache_without_workers(change, front, streamd, doctor):
    """All threads hold streams: not even a static file comes."""
    change("apache/tpi-stream-workers.conf", None, "StartServers 1\nServerLimit 1\nThreadsPerChild 4\n"
           "ThreadLimit 4\nMinSpareThreads 1\nMaxSpareThreads 4\nMaxRequestWorkers 4\n")
    fore = front(Apache, streamd(OPEN))
    peers = streams(fore, 4)
    told = doctor(fore.url, "--timeout", scaled(1)).only("notifications: tpi-streamd")
    assert "MaxRequestWorkers" in told and "no answer to any request" in told
    for peer in peers:
        peer.close()


def test_nginx_without_connections(change, front, streamd, doctor):
    """All connections of its worker are used."""
    change("demo/nginx.conf", "worker_processes 2", "worker_processes 1")
    change("nginx/tpi-stream-workers.conf", "worker_connections 10000", "worker_connections 8")
    fore = front(Nginx, streamd(OPEN))
    peers = streams(fore, 3)
    told = doctor(fore.url).only("notifications: tpi-streamd")
    assert re.search("connection was closed|Connection reset", told) and "worker_connections" in told
    for peer in peers:
        peer.close()


def test_daemon_hangs(front, streamd, doctor):
    """The web server answers, tpi-streamd does not."""
    daemon = streamd(OPEN)
    fore = front(Nginx, daemon)
    daemon.signal(signal.SIGSTOP)
    told = doctor(fore.url, "--timeout", scaled(1)).only("notifications: tpi-streamd")
    daemon.signal(signal.SIGCONT)
    assert "Check tpi-streamd" in told


def test_last_event_id(change, front, streamd, doctor):
    """It gets lost on the way."""
    change("nginx/tpi-stream-fastcgi.conf", "fastcgi_keep_conn off;",
           'fastcgi_keep_conn off; fastcgi_param HTTP_LAST_EVENT_ID "";')
    told = doctor(front(Nginx, streamd(OPEN)).url, "--quick")
    assert "this request header" in told.only("Last-Event-ID", state="warning")
    assert told.findings["notifications: wake-ups"].state == "ok"


# No sync

def test_valkey_away(front, streamd, new_valkey, doctor):
    """tpi-streamd says: later, and tpi-publish says why."""
    server = new_valkey().start()
    daemon = streamd(OPEN, VALKEY_URL=server.url)
    fore = front(Nginx, daemon)
    server.kill()
    daemon.wait_for_log("unreachable")
    told = doctor(fore.url, VALKEY_URL=server.url)
    assert "start Valkey, or correct VALKEY_URL" in told.only("notifications: sync", "tpi-publish")


def test_daemon_without_valkey(front, streamd, doctor, rundir):
    """The daemon's is another one, that is not there."""
    fore = front(Nginx, streamd(OPEN, VALKEY_URL=f"unix://{rundir}/none"))
    told = doctor(fore.url).only("notifications: sync")
    assert "correct VALKEY_URL and the password of the daemon" in told


@pytest.mark.slow
def test_valkey_hangs(front, streamd, new_valkey, doctor):
    """No confirmation within 5 seconds."""
    server = new_valkey().start()
    daemon = streamd(OPEN, VALKEY_URL=server.url)
    fore = front(Nginx, daemon)
    daemon.wait_for_log("connected")
    server.pause()
    told = doctor(fore.url, VALKEY_URL=server.url)
    server.resume()
    assert "no answer within" in told.only("notifications: sync", "tpi-publish")


def test_no_right_to_a_channel(front, streamd, new_valkey, doctor):
    """A user of Valkey that has access to the channels of notifications only."""
    server = new_valkey().start()
    server("ACL", "SETUSER", "default", "resetchannels", "&notifications:*")
    fore = front(Nginx, streamd(OPEN, VALKEY_URL=server.url, TPI_PROJECT_ACCESS="allow"))
    # The publisher is allowed to.
    server("ACL", "SETUSER", "other", "on", "nopass", "allchannels", "allcommands")
    told = doctor(fore.url, "--project", 7, "--quick", VALKEY_URL=server.url)
    said = told.only(*(f"{kind}: sync" for kind in OF_PROJECT))
    assert "another stream works" in said and "ACL SETUSER" in said and "&live:tenant:default:*" in said


def test_no_right_to_any_channel(front, streamd, new_valkey, doctor):
    """A user of Valkey who may neither read nor publish: that is not a Valkey that is away."""
    server = new_valkey().start()
    server("ACL", "SETUSER", "default", "resetchannels")
    fore = front(Nginx, streamd(OPEN, VALKEY_URL=server.url))
    told = doctor(fore.url, "--quick", VALKEY_URL=server.url).says("notifications: sync")
    assert "If Valkey refuses a channel" in told and "start Valkey" not in told


def test_application_away(front, with_app, doctor, application):
    """The application cannot be queried."""
    app = application()
    _, daemon = with_app(OPEN, app=app)
    fore = front(Nginx, daemon, auth="app")
    app.stop()
    told = doctor(fore.url, who=("--cookie-file", "-"), stdin=cookie(ANN) + "\n")
    assert "TPI_APP_URL" in told.only("notifications: sync") and "SECRET" not in told.stdout


# Publishing

def test_publisher_without_valkey(front, streamd, doctor, rundir):
    fore = front(Nginx, streamd(OPEN))
    told = doctor(fore.url, "--quick", VALKEY_URL=f"unix://{rundir}/none").only("notifications: tpi-publish")
    assert "exit status 69" in told and "--env-file" in told


def test_publisher_without_a_right(front, streamd, new_valkey, doctor):
    server = new_valkey(tcp=True).start()
    server("ACL", "SETUSER", "poor", "on", ">SECRET-word", "resetchannels", "+@all")
    fore = front(Nginx, streamd(OPEN, VALKEY_URL=server.url))
    url = server.url.replace("//", "//poor:SECRET-word@")
    told = doctor(fore.url, "--quick", VALKEY_URL=url)
    assert "the right to the channel: ACL SETUSER" in told.only("notifications: tpi-publish")
    told = doctor(fore.url, "--quick", VALKEY_URL=url.replace("word", "other"))
    assert "VALKEY_PASSWORD_FILE" in told.only("notifications: tpi-publish")
    assert "SECRET" not in told.stdout


@pytest.mark.parametrize("command, several", [("ROLE", False), ("CLUSTER INFO", True)], ids=["role", "cluster"])
def test_server_not_verified(front, streamd, new_valkey, doctor, command, several):
    """A Valkey without ROLE, or, of several, one without CLUSTER INFO, works; daemon, tpi-publish and doctor warn."""
    server = new_valkey(tcp=True, config=["--rename-command", command.split()[0], ""]).start()
    url = f"{server.url},valkey://127.0.0.1:{free_port()}" if several else server.url
    daemon = streamd(OPEN, VALKEY_URL=url)
    told = doctor(front(Nginx, daemon).url, "--quick", VALKEY_URL=url)
    told = told.only("notifications: tpi-publish", state="warning")
    assert f"it does not support {command}" in told and "subscribers: 1" in told
    assert f"it does not support {command}" in daemon.wait_for_log(r"^\[valkey\] server not verified")
    done = test_publish.run("notification", "--user", "ann", VALKEY_URL=url)
    assert done.status == 0 and done.line().endswith(f"it does not support {command}")


def test_publisher_at_a_replica(front, streamd, valkey, new_valkey, doctor):
    replica = new_valkey(tcp=True, config=["--replicaof", "127.0.0.1", str(free_port())]).start()
    fore = front(Nginx, streamd(OPEN))
    told = doctor(fore.url, "--quick", VALKEY_URL=replica.url)
    assert "Set VALKEY_SENTINELS" in told.only("notifications: tpi-publish")


def test_publisher_with_a_wrong_setting(front, streamd, doctor, rundir):
    """Exit status 78, by --env-file."""
    path = fronts.write(os.path.join(rundir, "settings"), "# a file\nexport VALKEY_URL='nonsense'\n")
    told = doctor(front(Nginx, streamd(OPEN)).url, "--quick", "--env-file", path)
    assert "exit status 78" in told.only("notifications: tpi-publish")


@both
def test_other_tenant(front, streamd, doctor, server):
    """The publisher's tenant is another one: both are named."""
    fore = front(server, streamd(OPEN, TPI_PROJECT_ACCESS="allow"))
    told = doctor(fore.url, "--project", 7, "--quick", INSTANCE_TENANT_ID="t1")
    told.only(*(f"{kind}: wake-ups" for kind in ("notifications", *OF_PROJECT)))
    for kind in "notifications", *OF_PROJECT:
        assert "a wake-up with default arrived, the publisher uses t1" in told.says(f"{kind}: wake-ups")


def test_other_tenant_of_the_daemon(front, streamd, doctor, parts):
    """The daemon's is not the default one: known where its process can be read, else not told from two Valkeys."""
    daemon = streamd(OPEN, INSTANCE_TENANT_ID="t2", **few(parts))
    fore = front(Nginx, daemon)
    told = doctor(fore.url, "--quick").only("notifications: wake-ups")
    assert "INSTANCE_TENANT_ID and VALKEY_URL alike" in told
    told = doctor(fore.url, "--quick", local=("--local", "--pid", daemon.pid))
    assert {"daemon", "notifications: wake-ups"} <= told.wrong
    assert "INSTANCE_TENANT_ID differs: t2 for the daemon, default for the publisher" in told.says("daemon")
    assert "a wake-up with t2 arrived" in told.says("notifications: wake-ups")


@pytest.mark.parametrize("theirs, ours", [("issue-updates", None), ("issues", "issue-updates"), ("issues", "own")])
def test_other_prefix(front, streamd, doctor, theirs, ours):
    """The publisher uses a prefix that the daemon does not subscribe to; one that arrives is found."""
    fore = front(Nginx, streamd(OPEN, TPI_PROJECT_ACCESS="allow", TPI_ISSUES_CHANNEL_PREFIX=theirs))
    told = doctor(fore.url, "--project", 7, "--quick", TPI_ISSUES_CHANNEL_PREFIX=ours)
    assert (f"a wake-up with {theirs} arrived, the publisher uses {ours or 'issues'}"
            in told.only("issues: wake-ups"))


def test_prefix_of_the_application(front, streamd, doctor):
    """The publisher's prefix arrives, another one that TestPlanIt uses does not, unless it is known not to be used."""
    fore = front(Nginx, streamd(OPEN, TPI_PROJECT_ACCESS="allow", TPI_ISSUES_CHANNEL_PREFIX="issues"))
    told = doctor(fore.url, "--project", 7, "--quick")
    assert "does not subscribe to issue-updates" in told.only("issues: prefixes", state="warning")
    assert "Set TPI_ISSUES_CHANNEL_PREFIX=issues,issue-updates" in told.says("issues: prefixes")
    told = doctor(fore.url, "--project", 7, "--quick", TPI_ISSUES_CHANNEL_PREFIX="issues")
    assert told.status == 0 and not told.wrong and "issues: prefixes" not in told.findings


def test_unknown_prefix(front, streamd, doctor):
    fore = front(Nginx, streamd(OPEN, TPI_PROJECT_ACCESS="allow", TPI_ISSUES_CHANNEL_PREFIX="own"))
    told = doctor(fore.url, "--project", 7, "--quick").only("issues: wake-ups")
    assert "Other wake-ups arrive, so tenant and Valkey are the same" in told


def test_other_valkey(front, streamd, new_valkey, doctor):
    fore = front(Nginx, streamd(OPEN, TPI_PROJECT_ACCESS="allow"))
    told = doctor(fore.url, "--project", 7, "--quick", VALKEY_URL=new_valkey().start().url)
    assert "two Valkeys" in told.only(*(f"{kind}: wake-ups" for kind in ("notifications", *OF_PROJECT)))


def test_other_user(front, streamd, doctor):
    """--as-user is not who the stream belongs to."""
    fore = front(Nginx, streamd(OPEN, TPI_PROJECT_ACCESS="allow"))
    told = doctor(fore.url, "--project", 7, "--quick", "--as-user", "ben").only("notifications: wake-ups")
    assert "belongs to another user" in told and "Other wake-ups arrive" in told


def test_subscribers_elsewhere(front, streamd, new_valkey, doctor):
    """Valkey counts another daemon's stream of the same user; heartbeats pass, so it is no buffer."""
    server = new_valkey().start()
    fore = front(Nginx, streamd(OPEN, SSE_HEARTBEAT_MS=300))
    other = front(Nginx, streamd(OPEN, VALKEY_URL=server.url))
    with streams(other, 1)[0]:
        told = doctor(fore.url, "--quick", "--seconds", scaled(2), VALKEY_URL=server.url, SSE_HEARTBEAT_MS=300)
    assert "but not this stream's daemon" in told.only("notifications: wake-ups")


def test_user_by_the_application(front, with_app, doctor):
    """The cookie says who it is: the site is asked, as a page would ask it."""
    app, daemon = with_app(OPEN)
    where = "http://%s" % app.url.removeprefix("http://")
    fore = front(Nginx, daemon, auth="app", site=f"location = /api/auth/session {{ proxy_pass {where}; "
                 "proxy_set_header User-Agent x; proxy_set_header Cache-Control ''; proxy_set_header Referer ''; "
                 "proxy_set_header Sec-Fetch-Mode ''; proxy_set_header Sec-Fetch-Dest ''; proxy_set_header Sec-Fetch-Site ''; "
                 "proxy_set_header Accept-Encoding ''; proxy_set_header Connection ''; }")
    told = doctor(fore.url, "--quick", who=("--cookie-file", "-"), stdin=cookie(ANN) + "\n")
    assert told.status == 0 and told.says("user").startswith("ann, by the application"), told.stdout
    assert told.findings["notifications: wake-ups"].state == "ok"


@pytest.fixture(scope="module")
def cluster(module_rundir):
    made = Cluster(module_rundir)
    yield made
    made.kill()


@pytest.mark.parametrize("several", [False, True])
def test_cluster(front, streamd, doctor, cluster, several):
    """The publisher's nodes are not the daemon's: they count 0, and pass on what is published."""
    urls = [node.url for node in cluster.nodes]
    theirs = ",".join(urls[1:] if several else urls[1:2])
    fore = front(Nginx, streamd(OPEN, VALKEY_URL=urls[0], TPI_PROJECT_ACCESS="allow"))
    told = doctor(fore.url, "--project", 7, "--seconds", 0, VALKEY_URL=theirs)
    for kind in "notifications", *OF_PROJECT:
        assert told.says(f"{kind}: tpi-publish").endswith("subscribers: 0 | "), told.stdout
        assert told.says(f"{kind}: wake-ups").startswith("5 of 5, alone and in order"), told.stdout
    told = doctor(fore.url, "--project", 7, "--quick", VALKEY_URL=theirs, TPI_ISSUES_CHANNEL_PREFIX="other")
    assert "a wake-up with issues arrived, the publisher uses other" in told.only("issues: wake-ups")
    proxy = Held(fore.address, every=0.7)
    told = doctor(proxy.url, "--seconds", 0, "--late", 2, VALKEY_URL=theirs).only("notifications: wake-ups")
    proxy.stop()
    assert "together" in told


# Buffers

def test_apache_without_flushpackets(change, front, streamd, doctor):
    """Not even the headers arrive, and short answers do."""
    change("apache/tpi-stream.conf", "flushpackets=on enablereuse", "enablereuse")
    told = doctor(front(Apache, streamd(OPEN)).url, "--timeout", scaled(1)).only("notifications: answer")
    assert "flushpackets=on" in told and "short answers of tpi-streamd arrive" in told


def test_nginx_buffers(change, front, streamd, doctor):
    change("nginx/tpi-stream-fastcgi.conf", "fastcgi_buffering off;",
           "fastcgi_buffering on; fastcgi_ignore_headers X-Accel-Buffering;")
    told = doctor(front(Nginx, streamd(OPEN)).url, "--timeout", scaled(1)).only("notifications: answer")
    assert "fastcgi_buffering off" in told and "flushpackets" not in told


def test_nginx_in_front_buffers(change, front, streamd, doctor):
    """nginx in front of Apache, and X-Accel-Buffering is ignored."""
    behind = front(Apache, streamd(OPEN))
    change("nginx/tpi-stream.conf", None, """
# include /etc/nginx/tpi-stream/tpi-stream-auth-basic.conf; include /etc/nginx/tpi-stream/tpi-stream-fastcgi
location /api/ { proxy_pass http://%s:%d; proxy_ignore_headers X-Accel-Buffering; }
""" % behind.address)
    told = doctor(front(Nginx, "/none").url, "--timeout", scaled(1))
    assert told.wrong <= {"notifications: answer", "notifications: sync"}
    assert "proxy_buffering off" in told.stdout


def test_lumps(front, streamd, doctor):
    """A proxy that collects for a while."""
    proxy = Held(front(Apache, streamd(OPEN)).address, every=0.7)
    told = doctor(proxy.url, "--seconds", 0, "--late", 2).only("notifications: wake-ups")
    proxy.stop()
    assert "together" in told and "flushpackets=on" in told


def test_late(front, streamd, doctor):
    """Each comes alone, and late."""
    proxy = Held(front(Nginx, streamd(OPEN)).address, delay=0.5)
    told = doctor(proxy.url, "--quick", "--seconds", scaled(2), "--late", 0.3)
    proxy.stop()
    assert told.wrong == {"notifications: wake-ups", "notifications: sync"}, told.stdout
    assert re.match(r"2 of 2 arrived, up to [0-9.]+ s late", told.says("notifications: wake-ups"))
    assert "proxy_buffering off" in told.says("notifications: wake-ups")


def test_compressed_by_nginx(change, front, streamd, doctor):
    change("nginx/tpi-stream-fastcgi.conf", "gzip off;",
           "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;")
    told = doctor(front(Nginx, streamd(OPEN)).url, "--quick").only("notifications: answer", state="warning")
    assert "compressed (gzip)" in told and "gzip off" in told


def test_compressed_by_apache(change, front, streamd, doctor):
    change("apache/tpi-stream.conf", "SetEnv no-gzip 1", "SetOutputFilter DEFLATE")
    site = "LoadModule filter_module ${MODULES}/mod_filter.so\nLoadModule deflate_module ${MODULES}/mod_deflate.so"
    told = doctor(front(Apache, streamd(OPEN), site=site).url, "--quick", "--timeout", scaled(2))
    assert "SetEnv no-gzip 1" in told.stdout and "compressed (gzip)" in told.stdout


def test_headers_changed(change, front, streamd, doctor):
    change("nginx/tpi-stream-fastcgi.conf", "fastcgi_keep_conn off;",
           "fastcgi_keep_conn off; fastcgi_hide_header Cache-Control;")
    told = doctor(front(Nginx, streamd(OPEN)).url, "--quick")
    assert "proxy_hide_header" in told.only("notifications: answer", state="warning")


def test_collected_whole(stand_in, doctor):
    body = b'data: {"event":"sync"}\n\n'
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 999\r\n\r\n")
    told = doctor(stand_in(opens(head=head + body)).url, "--quick", who=())
    assert "a proxy collected all of it" in told.only("notifications: answer")


# Cuts and heartbeats

@pytest.mark.parametrize("server, name, old, new, text, remedy", [
    (Apache, "apache/tpi-stream.conf", "Define TPI_TIMEOUT 60", "KeepAlive Off\nDefine TPI_TIMEOUT 3",
     r"the last 3\.\d s of them silent", "timeout= of the ProxyPass"),
    (Nginx, "nginx/tpi-stream-fastcgi.conf", "fastcgi_read_timeout 120s", "fastcgi_read_timeout 3s",
     "a time limit of 3 s", "nginx: fastcgi_read_timeout"),
], ids=FRONTS)
def test_cut(change, front, streamd, doctor, server, name, old, new, text, remedy):
    """The web server's time limit is below the heartbeat."""
    change(name, old, new)
    told = doctor(front(server, streamd(OPEN)).url, "--quick", "--seconds", scaled(8)).only("notifications: open")
    assert re.search(text, told) and remedy in told


def test_no_heartbeat(front, streamd, doctor):
    """The daemon's is longer than is thought."""
    fore = front(Nginx, streamd(OPEN))
    told = doctor(fore.url, "--quick", "--seconds", scaled(5), SSE_HEARTBEAT_MS=200)
    assert "SSE_HEARTBEAT_MS" in told.only("notifications: heartbeat")


def test_heartbeat_too_seldom(front, streamd, doctor):
    fore = front(Nginx, streamd(OPEN, SSE_HEARTBEAT_MS=int(scaled(1500))))
    told = doctor(fore.url, "--quick", "--seconds", scaled(6), SSE_HEARTBEAT_MS=200)
    assert "not 0.2 s" in told.only("notifications: heartbeat", state="warning")


def test_evicted(front, streamd, doctor, valkey):
    """The user opens another stream while the doctor's is open."""
    fore = front(Nginx, streamd(OPEN, SSE_PER_USER_CAP=1, INSTANCE_TENANT_ID="evicted"))
    others = []

    def open_another():
        valkey.wait_subscribers(user_channel("ann", "evicted"), 1)
        others.extend(streams(fore, 1))
    thread = threading.Thread(target=open_another)
    thread.start()
    told = doctor(fore.url, "--seconds", scaled(8), INSTANCE_TENANT_ID="evicted")
    thread.join()
    others[0].close()
    assert told.wrong <= {"notifications: open", "notifications: wake-ups"}
    assert "evicted" in told.says("notifications: open") and "SSE_PER_USER_CAP" in told.says("notifications: open")


def test_daemon_ends(front, streamd, doctor, valkey):
    daemon = streamd(OPEN, INSTANCE_TENANT_ID="ends")
    fore = front(Nginx, daemon)

    def end():
        valkey.wait_subscribers(user_channel("ann", "ends"), 1)
        daemon.stop()
    thread = threading.Thread(target=end)
    thread.start()
    told = doctor(fore.url, "--seconds", scaled(8), INSTANCE_TENANT_ID="ends")
    thread.join()
    assert "the daemon shut down after" in told.says("notifications: open")


# Limits

def test_caps_and_descriptors(front, streamd, doctor, parts):
    """The daemon may not have as many descriptors as its caps need."""
    daemon = streamd(OPEN, TPI_PROJECT_ACCESS="allow")
    fore = front(Nginx, daemon)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (500, 500))
    conf = os.path.join(fore.directory, "nginx.conf")
    told = doctor(fore.url, "--quick", "--nginx-conf", conf, local=("--local", "--pid", daemon.pid))
    needed = parts.caps({}) + parts.SPARE
    assert f"descriptors (RLIMIT_NOFILE): the caps need {needed}, the daemon has 500" in told.only("limits", state="warning")
    assert "LimitNOFILE=" in told.says("limits")


def test_nginx_with_defaults(front, streamd, doctor, change, parts):
    """Debian's worker_connections do not carry the caps; and descriptors that do not do for the connections."""
    daemon = streamd(OPEN)
    change("nginx/tpi-stream-workers.conf", "worker_connections 10000", "worker_connections 768")
    fore = front(Nginx, daemon)
    options = ["--quick", "--nginx-conf", os.path.join(fore.directory, "nginx.conf")]
    told = doctor(fore.url, *options).only("nginx: workers", state="warning")
    assert f"worker_connections 768 x 2 carry 768 streams, the caps allow {parts.caps({})}" in told
    path = os.path.join(fore.directory, "tpi-stream", "tpi-stream-workers.conf")
    fronts.write(path, "worker_rlimit_nofile 1024;\nevents { worker_connections 10000; }\n")
    told = doctor(fore.url, *options).only("nginx: workers", state="warning")
    assert "a worker has 1024 for 10000 worker_connections" in told


DEBIAN = "StartServers 2\nMinSpareThreads 25\nMaxSpareThreads 75\nThreadLimit 64\nThreadsPerChild 25\n" \
         "MaxRequestWorkers 150\nMaxConnectionsPerChild 0\n"


def test_apache_with_defaults(change, front, streamd, doctor, parts):
    """Debian's workers do not carry the caps; and no room for a reload."""
    change("apache/tpi-stream-workers.conf", None, DEBIAN)
    fore = front(Apache, streamd(OPEN))
    options = ["--quick", "--apache-conf", os.path.join(fore.directory, "site.conf")]
    told = doctor(fore.url, *options).only("Apache: workers", state="warning")
    assert f"MaxRequestWorkers is 150, the caps allow {parts.caps({})}" in told
    change("apache/tpi-stream-workers.conf", None, "ServerLimit 36\nThreadsPerChild 128\nThreadLimit 128\n"
           "MaxRequestWorkers 4608\n")
    told = doctor(fore.url, *options).only("Apache: workers", state="warning")
    assert "no room for a graceful reload" in told


# Health

HEALTHY, AWAY = b'{"status":"ok"}', b'{"valkey":{"state":"unreachable"},"status":"unavailable","reason":"Valkey is unreachable"}'


@pytest.mark.parametrize("status, body, state", [
    (200, HEALTHY, "ok"), (503, AWAY, "FAILED"), (404, HEALTHY, "skipped"), (200, b"<p>", "skipped"),
    (200, b'{"error":"x"}', "skipped")])
def test_health(stand_in, doctor, status, body, state):
    """Where there is such an endpoint, it is believed."""
    def health(handler):
        handler.send(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
    told = doctor(stand_in(opens(), other=health).url, "--quick", who=())
    assert told.findings["health"].state == state
    if state == "FAILED":
        assert told.only("health").startswith("unavailable: Valkey is unreachable")


def test_health_of_the_daemon(front, streamd, new_valkey, doctor):
    """Its own word, through the file of contrib/: ok, and Valkey is unreachable."""
    server = new_valkey().start()
    daemon = streamd(OPEN, VALKEY_URL=server.url, TPI_STATUS="on")
    fore = front(Nginx, daemon, site="include tpi-stream/tpi-stream-status.conf;")
    told = doctor(fore.url, "--quick", VALKEY_URL=server.url)
    assert told.status == 0 and told.says("health") == "ok | ", told.stdout
    server.kill()
    daemon.wait_for_log("unreachable")
    told = doctor(fore.url, "--quick", VALKEY_URL=server.url)
    assert told.only("health", "notifications: sync", "tpi-publish").startswith("unavailable: Valkey")


# The command line

@pytest.mark.parametrize("arguments, text", [
    ([], "required: URL"), (["ftp://x"], "http(s)://host"), (["http://"], "http(s)://host"),
    (["http://ann:SECRET@host"], "no user and password in the URL"), (["http://x:99999"], "http(s)://host"),
    (["http://x", "--cookie", "session=SECRET"], "the file cannot be read"),
    (["http://x", "--user", "ann:SECRET"], "the file cannot be read"),
    (["http://x", "--user", "ann"], "NAME:FILE"), (["http://x", "--project", "07"], "whole number"),
    (["http://x", "--test-run", "2147483648"], "--test-run must be a whole number"),
    (["http://x", "--milestone", "x"], "--milestone must be a whole number"), (["http://x", "--seconds", "nan"], "from 0 to 86400"),
    (["http://x", "--cookie", "/dev/null"], "is empty"),
    (["http://x", "--env-file", "/none"], "--env-file /none: cannot be read: No such file or directory (see"),
    (["http://x", "--env-file", "/bin/true"], "--env-file /bin/true: cannot be read: not a text file"),
    (["http://x", "--pid", "1"], "--pid 1: no tpi-streamd"),
    (["http://x", "--pid", "0"], "--pid 0: no tpi-streamd"),
    (["http://x", "--publish", "/none"], "not a program"), (["http://x", "--nonsense"], "unrecognized"),
    (["http://x", "--cookie", "-", "--user", "a:-"], "one of them")])
def test_usage(arguments, text):
    """One clear line, exit status 64, and no secret in it."""
    done = subprocess.run(["/usr/bin/python3", "-B", "-W", "error", DOCTOR, *arguments], capture_output=True,
                          text=True, input="", check=False, env=clean_environment())
    assert done.returncode == 64 and text in done.stderr and "SECRET" not in done.stderr + done.stdout
    assert done.stderr.startswith("tpi-stream-doctor: ") and done.stderr.count("\n") == 1


def test_lines(front, streamd, doctor):
    """What a person reads: a line for each stage, then what is wrong and the remedy; no secret, no colour."""
    fore = front(Nginx, streamd(OPEN))
    told = doctor(fore.url + NOTIFICATIONS, "--quick", as_json=False)
    assert told.status == 0 and told.stdout.endswith("\nNo problem found.\n")
    lines = told.stdout.splitlines()[:-2]
    assert len(lines) > 10 and all(re.match(r"\S.{29,30} (ok|skipped|warning|FAILED) +\S", line) for line in lines)
    told = doctor(fore.url + "/elsewhere", "--project", 7, as_json=False)
    assert told.status == 1
    assert "\n\n" + ", ".join(f"{kind}: tpi-streamd" for kind in ("notifications", *OF_PROJECT)) + ": FAILED: 404" \
        in told.stdout  # said once
    assert "\n    Pass this path on" in told.stdout and "\033" not in told.stdout


def test_secrets_are_struck_out(stand_in, doctor):
    """A server that echoes the cookie."""
    def echo(handler):
        handler.send(b"HTTP/1.1 302 X\r\nLocation: /x/SECRET-cookie\r\nServer: SECRET-cookie\033[31m\r\n"
                     b"Content-Length: 0\r\n\r\n")
    told = doctor(stand_in(echo).url, who=("--cookie-file", "-"), stdin="a=b; session=SECRET-cookie\n")
    told.only("notifications: answer")
    assert "SECRET" not in told.stdout and "/x/***" in told.stdout and "\\u001b" not in told.stdout
