# SPDX-License-Identifier: ISC
"""The streams through real web servers, set up from the files in contrib/."""

import dataclasses
import os
import re
import statistics
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import fcgi
from answers import (EVICTED, FIRST, LATER, PING, RETURNED, SHUTDOWN, STREAM_HEADERS, after_first, frame,
                     issue, notification)
from fcgi import ISSUES, NOTIFICATIONS, live, wait_all
from fronts import CONTRIB, Apache, Caddy, Haproxy, Lighttpd, Nginx, require
from paths import LOOKALIKES, OTHER_CASE, ROUTED, SERVED
from servers import (basic, broadcast_channel, clean_environment, free_port, http, listening_socket, program,
                     project_channel, user_channel)
from timing import eventually, scaled
from topics import BY_NAME, TOPICS

FRONTS = {"Apache": Apache, "nginx": Nginx}
OTHERS = {"lighttpd": Lighttpd, "HAProxy": Haproxy, "Caddy": Caddy}
both = pytest.mark.parametrize("server", FRONTS.values(), ids=FRONTS)
every = pytest.mark.parametrize("server", [*FRONTS.values(), *OTHERS.values()], ids=[*FRONTS, *OTHERS])
PROJECTS = ISSUES + "?projectIds=7,8"


@pytest.fixture
def front(rundir):
    """front(server, daemon or address, ...) starts a web server."""
    started = []

    def start(server, daemon, **named):
        if server in OTHERS.values():
            require(server)
        address = daemon if isinstance(daemon, (str, tuple)) else daemon.address
        started.append(server(rundir, address, **named))
        return started[-1]
    yield start
    for process in started:
        process.kill()


# Its frame has 16 KiB.
LARGEST = b'{"event":"%s"}' % (b"x" * (16384 - len(frame(b'{"event":""}'))))
OPEN = ["--mode", "0666"]  # the web server's workers run as another user


def get(front, target=NOTIFICATIONS, user="ann", **headers):
    """Sends a request as user, whose password is the user name. None: without Authorization."""
    if user:
        headers.setdefault("Authorization", basic(user, user))
    return http(front.address, target, **headers)


def stream(front, target=NOTIFICATIONS, user="ann", **headers):
    peer = get(front, target, user, **headers).wait_live(20)
    assert peer.status == 200 and FIRST.match(peer.body)
    assert peer.header("Content-Type").split(";")[0] == "text/event-stream"
    for name in "cache-control", "x-accel-buffering":
        assert peer.header(name) == STREAM_HEADERS[name]
    return peer


def check_error(peer, status):
    peer.wait(lambda p: p.ended, what="a complete response")
    assert peer.status == status, peer
    return peer


STREAMS = [*TOPICS, dataclasses.replace(BY_NAME["testRuns"], name="combined", path="/api/stream", query="testRuns={id}")]


def test_streams():
    """The tests below open each of the daemon's streams."""
    assert [topic.path.format(id=7) for topic in STREAMS] == SERVED


@both
@pytest.mark.parametrize("topic", STREAMS, ids=lambda topic: topic.name)
def test_every_stream(streamd, valkey, front, server, topic):
    """Each stream begins with sync, and carries what tpi-publish publishes for it."""
    web = front(server, streamd(OPEN, TPI_PROJECT_ACCESS="allow"))
    with stream(web, topic.target()) as peer:
        subprocess.run([program("tpi-publish"), *topic.command(user="ann"), "--event", "doctor"],
                       env=clean_environment(VALKEY_URL=valkey.url), timeout=scaled(20), check=True)
        peer.wait_body(b'"event":"doctor"')


@every
def test_both_streams(streamd, valkey, front, server):
    """Both streams carry sync first, wake-ups as published, pings when idle, and shutdown at the end."""
    daemon = streamd(OPEN, TPI_PROJECT_ACCESS="allow", SSE_HEARTBEAT_MS=1000)
    web = front(server, daemon)
    for target, channel, payload in [
            (NOTIFICATIONS, user_channel("ann"), notification(1)),
            (NOTIFICATIONS, broadcast_channel(), notification(2)),
            (NOTIFICATIONS, broadcast_channel(), LARGEST),
            (PROJECTS, project_channel(8), issue(3, 8))]:
        with stream(web, target) as peer:
            valkey.publish(channel, payload)
            peer.wait_body(frame(payload))
            peer.wait_body(PING)
            assert after_first(peer).replace(PING, b"") == frame(payload)
    peers = [stream(web), stream(web, PROJECTS)]
    daemon.stop()
    for peer in peers:
        peer.wait(lambda p: p.ended, what="the end")
        assert after_first(peer).replace(PING, b"") == SHUTDOWN


@every
def test_latency(streamd, valkey, front, server):
    """The median latency of a wake-up is below 100 ms."""
    web = front(server, streamd(OPEN))
    with stream(web) as peer:
        times = []
        for number in range(20):
            started = time.monotonic()
            valkey.publish(user_channel("ann"), notification(number))
            peer.wait_data(notification(number))
            times.append(time.monotonic() - started)
    print(f"median {statistics.median(times) * 1000:.1f} ms, longest {max(times) * 1000:.1f} ms")
    assert statistics.median(times) < scaled(0.1)


@every
def test_responses_pass_through(streamd, front, server):
    """The daemon's 400, 401, 404, 405, and 503 with Retry-After reach the client unchanged."""
    daemon = streamd(OPEN, SSE_PER_TENANT_CAP=1, SSE_PER_USER_CAP=1)
    web = front(server, daemon)
    assert b'"error"' in check_error(get(web, PROJECTS), 404).body  # access: deny
    assert b'"error"' in check_error(get(web, ISSUES), 400).body
    peer = check_error(http(web.address, NOTIFICATIONS, "POST", Authorization=basic("ann", "ann"),
                            Content_Length="0"), 405)
    assert peer.header("Allow") == "GET"
    check_error(get(web, user=None), 401)
    check_error(get(web, Authorization=basic("ann", "wrong")), 401)
    with stream(web):
        peer = check_error(get(web, user="ben"), 503)
        assert peer.header("Retry-After") == "30" and b'"error"' in peer.body
        assert peer.header("Cache-Control") == "no-store"


@every
def test_evicted(streamd, front, server):
    """An evicted stream gets the closing event and ends; its reconnect has to retry in minutes, and gets a stream
    when a slot is free."""
    # Apache notices only at a heartbeat that the second client has closed.
    web = front(server, streamd(OPEN, SSE_PER_USER_CAP=1, SSE_HEARTBEAT_MS=500))
    first = stream(web)
    second = stream(web)
    first.wait(lambda p: p.ended, what="eviction")
    assert EVICTED.search(first.body).end() == len(first.body)
    for named in {"Last_Event_ID": first.events.last_event_id}, {"target": f"{NOTIFICATIONS}?lastEventId=evicted"}:
        peer = get(web, **named).wait(lambda p: p.ended, what="retry later")
        assert peer.status == 200 and 120000 <= int(LATER.fullmatch(peer.body)[1]) <= 300000
    assert not second.quiet(0).ended
    second.close()

    def again():
        peer = get(web, Last_Event_ID=first.events.last_event_id)
        return RETURNED.match(peer.wait(lambda p: p.ended or live(p)).body)
    eventually(again, 20, "a stream when a slot is free")


# Paths

class Elsewhere:
    """The site's own application: answers each request with a text, and keeps its target."""

    def __init__(self):
        self.targets = targets = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                targets.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", "12")
                self.end_headers()
                self.wfile.write(b"application\n")

            def log_message(self, *_):
                pass
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def site(self, server):
        """What makes it the rest of the site."""
        address = "%s:%d" % self.server.server_address
        return {Apache: f'ProxyPass "/" "http://{address}/"',
                Nginx: f"location / {{ proxy_pass http://{address}; }}",
                Lighttpd: 'server.modules += ( "mod_proxy" )\nproxy.server = ( "" => (( "host" => "%s", "port" => %d )) )'
                          % self.server.server_address,
                Haproxy: address,
                Caddy: f"handle {{\nreverse_proxy {address}\n}}"}[server]

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def elsewhere():
    server = Elsewhere()
    yield server
    server.close()


@pytest.fixture
def routed(rundir, front, elsewhere):
    """routed(server, target, ...) sends a request by ann: the peer, the paths that reached the daemon, and the targets that
    reached the application."""
    recorder = fcgi.Recorder(f"{rundir}/recorder")
    webs = {}

    def ask(server, target, **headers):
        if server not in webs:
            webs[server] = front(server, recorder.path, site=elsewhere.site(server))
        recorder.requests.clear()
        elsewhere.targets.clear()
        with get(webs[server], target, **headers) as peer:
            peer.wait(lambda p: p.ended, what="a complete response")
        return peer, [path_of(dict(sent)) for sent in recorder.requests], list(elsewhere.targets)
    yield ask
    recorder.close()


def path_of(parameters):
    return parameters.get("SCRIPT_NAME", "") + parameters.get("PATH_INFO", "")


@every
def test_routes(routed, server):
    """The web server sends the path of each stream to the daemon, unchanged, and all others to the application."""
    for path in ROUTED:
        assert routed(server, path + "?x=1")[1:] == ([path], []), path
    for path in LOOKALIKES + OTHER_CASE:
        peer, daemon, application = routed(server, path + "?x=1")
        assert (peer.body, daemon, application) == (b"application\n", [], [path + "?x=1"]), path


def test_apache_rewrite_rule(rundir, front, elsewhere):
    """A site that proxies everything with [P] excludes the streams as tpi-stream.conf says."""
    recorder = fcgi.Recorder(f"{rundir}/recorder")
    url = "http://%s:%d" % elsewhere.server.server_address
    web = front(Apache, recorder.path, after=f"""LoadModule rewrite_module ${{MODULES}}/mod_rewrite.so
        RewriteEngine On
        RewriteCond %{{REQUEST_URI}} "!${{TPI_STREAMS}}"
        RewriteRule ^/(.*) {url}/$1 [P]""")
    for path in ROUTED + LOOKALIKES:
        with get(web, path) as peer:
            peer.wait(lambda p: p.ended, what="a complete response")
    recorder.close()
    assert [path_of(dict(sent)) for sent in recorder.requests] == ROUTED
    assert elsewhere.targets == LOOKALIKES


def test_apache_some_streams(rundir, front, elsewhere):
    """TPI_STREAMS leaves the other streams to the application, without the authentication of these."""
    recorder = fcgi.Recorder(f"{rundir}/recorder")
    web = front(Apache, recorder.path, site=elsewhere.site(Apache)
                + '\nDefine TPI_STREAMS "^/api/(?:notifications|issues)/stream$"')
    for path in ROUTED:
        with get(web, path) as peer:
            peer.wait(lambda p: p.ended, what="a complete response")
    with get(web, "/api/stream", user=None) as peer:
        peer.wait(lambda p: p.ended, what="a complete response")
    recorder.close()
    assert [path_of(dict(sent)) for sent in recorder.requests] == [ISSUES, NOTIFICATIONS]
    assert sorted(elsewhere.targets) == sorted([*set(ROUTED) - {ISSUES, NOTIFICATIONS}, "/api/stream"])


# Targets that a web server may normalise to the path of a stream.
SPELLINGS = ["/api//test-runs/7/stream", "//api/test-runs/7/stream", "/api/test-runs/7//stream", "/api/test-runs/7/./stream",
             "/x/../api/test-runs/7/stream", "/api/test-runs/%37/stream", "/api/test%2Druns/7/stream",
             "/api/test-runs/7%2Fstream", "/api%2Ftest-runs/7/stream", "/api/test-runs%2f7/stream", "/api%2fstream",
             "/api/test-runs/7%2Fresults/stream", "/api/test-runs/..%2F7/stream", "/api/test-runs/7/stream%2F",
             "/api/test-runs/7/stream%2Fx", "/api/test-runs/%2537/stream", "/api/test-runs/7%00/stream",
             "/api/test-runs/7/stream%00", "/api/test-runs/7/stream%20", "/api/test-runs/7/stream;x",
             "/api/test-runs/7/stream%3Fx", "/api/test-runs/7/stream%23", "/api/test-runs/%EF%BC%97/stream"]


@every
def test_spellings(routed, server):
    """Another spelling of a stream's path is that path for the daemon, or reaches the application as it was sent, or is
    refused."""
    for target in SPELLINGS:
        peer, daemon, application = routed(server, target)
        if daemon:  # Caddy sends the path as it was, which the daemon answers 404
            assert (daemon[0] in ROUTED or server is Caddy) and not application, target
        elif not application:
            assert 400 <= peer.status < 500, target
    peer, daemon, application = routed(server, "/api/test-runs/7/stream%0A")
    assert daemon in ([], ["/api/test-runs/7/stream\n"])  # "$" may match before a line break


@pytest.mark.parametrize("auth", ["app", "auth-basic", "user"])
def test_apache_order(front, auth):
    """An authentication file before tpi-stream.conf would apply to nothing: Apache does not start, and says why."""
    with pytest.raises(AssertionError, match="Include tpi-stream.conf before this file"):
        front(Apache, "/none", site=f'Include "{CONTRIB}/apache/tpi-stream-{auth}.conf"')


# Unverified identities

FORGED = {
    "TPI_USER": {"TPI_USER": "ann"}, "Tpi-User": {"Tpi-User": "ann"}, "REMOTE_USER": {"REMOTE_USER": "ann"},
    "Remote-User": {"Remote-User": "ann"}, "X-Remote-User": {"X-Remote-User": "ann"},
    "X-User": {"X-User": "ann"}, "Auth-Type": {"Auth-Type": "Basic", "Remote-User": "ann"},
    "curl -u": {"Authorization": basic("ann", "whatever")},
    "all": {"TPI_USER": "ann", "Tpi-User": "ann", "Remote-User": "ann", "Auth-Type": "Basic",
            "X-User": "ann", "Authorization": basic("ann", "whatever")},
}
SETUPS = {"Apache, none": (Apache, "none"), "Apache, TPI_USER alone": (Apache, "user"),
          "Apache, Basic": (Apache, "basic"), "nginx, none": (Nginx, "none"),
          "nginx, stock parameters": (Nginx, "stock"), "nginx, Basic": (Nginx, "basic"),
          **{f"{name}, Basic": (server, "basic") for name, server in OTHERS.items()}}


@pytest.fixture(scope="module")
def unverified(module_streamd, module_rundir):
    """Starts a web server for each setup when a test first needs it."""
    daemon = module_streamd(OPEN)
    started = {}

    def get_front(server, auth):
        if server in OTHERS.values():
            require(server)
        if (server, auth) not in started:
            started[server, auth] = server(module_rundir, daemon.address, auth=auth)
        return started[server, auth]
    yield get_front
    for process in started.values():
        process.kill()


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("server, auth", SETUPS.values(), ids=SETUPS)
def test_forged_identity(unverified, server, auth, headers):
    """A request that the web server has not authenticated gets 401 on each path, whatever its headers claim."""
    web = unverified(server, auth)
    for peer in [http(web.address, topic.target(), **headers) for topic in STREAMS]:
        check_error(peer, 401)


# Verifies ann with Basic authentication, and leaves the rest to contrib/apache/tpi-stream-user.conf.
BASIC = """<LocationMatch "${TPI_STREAMS}">
    AuthType Basic
    AuthName "TestPlanIt"
    AuthUserFile users
    Require valid-user
</LocationMatch>
"""
SET_HANDLER = """<LocationMatch "${TPI_STREAMS}">
    ProxyPass "!"
    SetHandler "proxy:${TPI_BACKEND}"
</LocationMatch>
<Proxy "${TPI_BACKEND}">
    ProxySet flushpackets=on
</Proxy>
"""
# A site that sets TPI_USER from a header in every way that Apache has, before and after our configuration.
CARELESS = """LoadModule rewrite_module ${MODULES}/mod_rewrite.so
LoadModule setenvif_module ${MODULES}/mod_setenvif.so
SetEnvIf Tpi-User (.+) TPI_USER=$1
SetEnvIfExpr "req('Tpi-User') =~ /(.+)/" TPI_USER=$1
RewriteEngine On
RewriteRule ^ - [E=TPI_USER:%{HTTP:Tpi-User}]
PassEnv TPI_USER
SetEnv TPI_USER ben
"""
VERIFIED = {  # setup: web server, options
    "Apache": (Apache, {"auth": "basic"}),
    "Apache, SetHandler": (Apache, {"auth": "basic", "after": SET_HANDLER}),
    "Apache, careless": (Apache, {"auth": "basic", "site": CARELESS}),
    "Apache, user.conf": (Apache, {"auth": "user", "after": BASIC}),
    "Apache, user.conf, SetHandler": (Apache, {"auth": "user", "after": BASIC + SET_HANDLER}),
    "nginx": (Nginx, {"auth": "basic"}),
    **{name: (server, {}) for name, server in OTHERS.items()},
}


@pytest.mark.parametrize("server, setup", VERIFIED.values(), ids=VERIFIED)
def test_verified_user(streamd, valkey, front, server, setup):
    """The stream belongs to the user whom the web server has authenticated, whatever the client's headers claim."""
    web = front(server, streamd(OPEN), **setup)
    forged = {"TPI_USER": "ben", "Tpi-User": "ben", "REMOTE_USER": "ben", "Remote-User": "ben", "X-User": "ben"}
    with stream(web, **forged) as peer:
        valkey.publish(user_channel("ben"), notification("ben"))
        valkey.publish(user_channel("ann"), notification("ann"))
        peer.wait_data(notification("ann"))
        assert after_first(peer) == frame(notification("ann"))
    check_error(get(web, user=None, **forged), 401)
    check_error(get(web, Authorization=basic("ann", "wrong"), **forged), 401)


@pytest.mark.parametrize("server, setup", VERIFIED.values(), ids=VERIFIED)
def test_parameters_sent_to_daemon(front, rundir, server, setup):
    """On each path a real web server sends the parameters of fcgi.params(), those that matter once, and a client's forged
    headers only as HTTP_*."""
    recorder = fcgi.Recorder(f"{rundir}/recorder")
    web = front(server, recorder.path, **setup)
    for path in ROUTED:
        with get(web, path + "?projectIds=7,8", TPI_USER="ben", Tpi_User="ben", Remote_User="ben", Auth_Type="Basic") as peer:
            peer.wait(lambda p: p.ended, what="the end")
            assert peer.body == b"data: x\n\n"
        check_error(get(web, path, user=None, TPI_USER="ben", Tpi_User="ben"), 401)
    recorder.close()
    assert [path_of(dict(sent)) for sent in recorder.requests] == ROUTED
    for sent in recorder.requests:
        given = {name: value for name, value in sent if name not in ("SCRIPT_NAME", "PATH_INFO")}
        expected = dict(fcgi.params("ann", projects="7,8", SCRIPT_NAME=None))
        assert {name: given.get(name) for name in expected} == expected
        for name in "TPI_USER", "REQUEST_METHOD", "QUERY_STRING", "SCRIPT_NAME", "PATH_INFO":
            assert [key for key, _ in sent].count(name) <= 1, sent
        assert {name for name, value in sent if value == "ben"} <= {"HTTP_TPI_USER", "HTTP_REMOTE_USER"}, sent


@every
def test_app_identity(front, rundir, server):
    """If the application identifies the user, it gets the cookies and Authorization; no user and no X-Forwarded- header that
    the client claims reaches the daemon."""
    recorder = fcgi.Recorder(f"{rundir}/recorder")
    web = front(server, recorder.path, auth="app")
    forged = {"X-Forwarded-For": "192.0.2.6", "X-Forwarded-Proto": "wss", "X-Forwarded-Host": "forged.example"}
    for path in ROUTED:
        with get(web, path, Cookie="session=1", Authorization="Bearer x", TPI_USER="ben", Remote_User="ben", **forged) as peer:
            peer.wait(lambda p: p.ended, what="the end")
            assert peer.body == b"data: x\n\n"
    recorder.close()
    assert len(recorder.requests) == len(ROUTED)
    for sent in recorder.requests:
        given = dict(sent)
        assert (given["HTTP_COOKIE"], given["HTTP_AUTHORIZATION"]) == ("session=1", "Bearer x")
        assert not given.get("TPI_USER")
        assert not set(given.values()) & set(forged.values()), sent


# Settings of the surrounding site that must not affect the streams: Debian's default modules with their settings,
# and compression of everything.
APACHE_SITE = "".join(f"LoadModule {name}_module ${{MODULES}}/mod_{name}.so\n" for name in (
    "access_compat", "autoindex", "deflate", "filter", "negotiation", "reqtimeout", "setenvif", "status")) + """
RequestReadTimeout header=1-2,minrate=500
RequestReadTimeout body=1,minrate=500
Timeout 2
<Location "/">
    SetOutputFilter DEFLATE
    AddOutputFilterByType DEFLATE text/event-stream
</Location>
"""
NGINX_SITE = """gzip on; gzip_types *; gzip_min_length 0; fastcgi_buffering on; fastcgi_read_timeout 2s;
fastcgi_intercept_errors on; error_page 401 404 503 /index.html; fastcgi_param TPI_USER ben;"""


CADDY_SITE = """encode gzip
handle_path /* {
    respond "static" 200
}"""


@pytest.mark.parametrize("server, site", [(Apache, APACHE_SITE), (Nginx, NGINX_SITE), (Caddy, CADDY_SITE)],
                         ids=[*FRONTS, "Caddy"])
def test_site_settings_do_not_affect_streams(streamd, valkey, front, server, site):
    """Compression, buffering, timeouts and error pages of the surrounding site do not affect the streams."""
    daemon = streamd(OPEN, SSE_HEARTBEAT_MS=3000)
    web = front(server, daemon, site=site)
    with stream(web, Accept_Encoding="gzip, deflate, br") as peer:
        assert peer.header("Content-Encoding") is None
        peer.wait_body(PING, 20)
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
    assert b'"error"' in check_error(get(web, PROJECTS), 404).body


FORM = """LoadModule auth_form_module ${MODULES}/mod_auth_form.so
LoadModule request_module ${MODULES}/mod_request.so
LoadModule session_module ${MODULES}/mod_session.so
LoadModule session_cookie_module ${MODULES}/mod_session_cookie.so
<Location "/">
    Session On
    SessionCookieName session path=/
    AuthFormProvider file
    AuthUserFile users
    AuthType form
    AuthName "TestPlanIt"
</Location>
<Location "/login">
    SetHandler form-login-handler
    AuthFormLoginSuccessLocation "/"
</Location>
<LocationMatch "${TPI_STREAMS}">
    Require valid-user
</LocationMatch>
"""


def test_apache_form_login(streamd, valkey, front):
    """With contrib/apache/tpi-stream-user.conf and a login form, the stream belongs to the user of the session."""
    web = front(Apache, streamd(OPEN), auth="user", after=FORM)
    form = b"httpd_username=ben&httpd_password=ben"
    with http(web.address, "/login", "POST", Content_Length=len(form),
              Content_Type="application/x-www-form-urlencoded") as login:
        login.send(form)
        login.wait(lambda p: p.ended, what="a complete response")
        session = login.header("Set-Cookie").split(";")[0]
    # mod_session adds a Cache-Control of its own.
    with get(web, user=None, Cookie=session, Tpi_User="ann").wait_live(20) as peer:
        valkey.publish(user_channel("ann"), notification("ann"))
        valkey.publish(user_channel("ben"), notification("ben"))
        peer.wait_data(notification("ben"))
        assert after_first(peer) == frame(notification("ben"))
    check_error(get(web, user=None, Cookie="session=forged", Tpi_User="ann"), 401)


def test_upgrade_from_remote_user(streamd, front):
    """An Apache that still sends only REMOTE_USER, as in earlier versions, gets 401, and the log says once what to
    configure."""
    daemon = streamd(OPEN)
    web = front(Apache, daemon, auth="none", after=BASIC)
    for _ in range(3):
        check_error(get(web), 401)
    assert "REMOTE_USER" in daemon.wait_for_log("^.streamd. TPI_USER is not set: ")
    daemon.stop()
    assert len(daemon.matching("TPI_USER")) == 1


def test_nginx_auth_request(streamd, valkey, front, check_server):
    """With contrib/nginx/tpi-stream-auth-request.conf the site's own check names the user from the cookies; a client's
    headers cannot."""
    web = front(Nginx, streamd(OPEN), auth="request", check=check_server)
    with stream(web, user=None, Cookie="session=of-ann", X_User="ben") as peer:
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
    check_error(get(web, user=None, Cookie="session=none"), 401)
    check_error(get(web, user=None, X_User="ann"), 401)
    check_error(get(web, user=None, Cookie="session=nameless", X_User="ann", TPI_USER="ann"), 401)


@pytest.fixture
def check_server():
    """A check that accepts ann's cookie, and another without naming its user; all others get 401."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            session = self.headers.get("Cookie", "")
            self.send_response(200 if session in ("session=of-ann", "session=nameless") else 401)
            if session == "session=of-ann":
                self.send_header("X-User", "ann")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_address
    server.shutdown()
    thread.join()
    server.server_close()


@both
def test_over_tcp(streamd, valkey, front, server):
    """A stream works with the daemon on a TCP port."""
    port = free_port()
    web = front(server, streamd(["--listen", f"127.0.0.1:{port}"], address=("127.0.0.1", port)))
    with stream(web) as peer:
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))


# Restarts

def limit_example(name):
    """This directive, commented out in tpi-stream-fastcgi.conf, with a limit that the second request exceeds."""
    with open(os.path.join(CONTRIB, "nginx", "tpi-stream-fastcgi.conf"), encoding="ascii") as file:
        line = re.search(rf"^#\t?({name} .*;)$", file.read(), re.M)[1]
    return line.replace("10r/s", "1r/m").replace(" burst=100 nodelay", "").replace("tpi_streams 200", "tpi_streams 1")


@pytest.mark.parametrize("limit, more", [("limit_req", ""), ("limit_conn", ""), ("limit_conn", "limit_conn_status 429;")])
def test_nginx_limits(streamd, front, limit, more):
    """A request over a limit of the site is deferred, and the daemon's own 503 passes."""
    web = front(Nginx, streamd(OPEN, SSE_PER_TENANT_CAP=1), http=limit_example(f"{limit}_zone"),
                site=limit_example(limit) + more)
    with stream(web):
        peer = get(web).wait(lambda p: p.ended, what="a complete response")
        assert (peer.status, bytes(peer.body)) == (200, b"retry: 10000\n\n")
    web = front(Nginx, streamd(OPEN, SSE_PER_TENANT_CAP=1))
    with stream(web):
        check_error(get(web, user="ben"), 503)


REWRITE = "LoadModule rewrite_module ${{MODULES}}/mod_rewrite.so\nRewriteEngine On\nRewriteRule stream$ - [R={}]"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_apache_limits(streamd, front, status):
    """A request that Apache itself refuses, because of a limit of the site for example, is deferred."""
    web = front(Apache, streamd(OPEN), site=REWRITE.format(status))
    peer = get(web).wait(lambda p: p.ended, what="a complete response")
    assert (peer.status, bytes(peer.body)) == (200, b"retry: 10000\n\n")


MODSECURITY = """LoadModule unique_id_module ${MODULES}/mod_unique_id.so
LoadModule security2_module ${MODULES}/mod_security2.so
SecRuleEngine On
SecRequestBodyAccess On
SecResponseBodyAccess On
SecResponseBodyMimeType text/plain text/html text/xml text/event-stream
"""


@pytest.mark.skipif(not os.path.exists("/usr/lib/apache2/modules/mod_security2.so"),
                    reason="libapache2-mod-security2 is not installed")
def test_apache_modsecurity(streamd, valkey, front, rundir):
    """A site that inspects event streams with ModSecurity passes ours on at once; without SecResponseBodyAccess Off
    nothing arrives."""
    daemon = streamd(OPEN, SSE_HEARTBEAT_MS=1000)
    site = f"{MODSECURITY}SecDataDir {rundir}\nSecTmpDir {rundir}\n"
    with stream(front(Apache, daemon, site=site)) as peer:
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
    inspected = '<LocationMatch "${TPI_STREAMS}">\nSecResponseBodyAccess On\n</LocationMatch>'
    with get(front(Apache, daemon, site=site, after=inspected)) as peer:
        assert not peer.quiet(3).body and peer.status is None


H2C = """LoadModule http2_module ${{MODULES}}/mod_http2.so
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    Protocols h2c
</VirtualHost>
"""


@both
def test_http2(streamd, valkey, front, server):
    """Over HTTP/2 each path begins with sync, and carries a wake-up."""
    port = free_port()
    site = H2C.format(port=port) if server is Apache else f"listen 127.0.0.1:{port} http2;"
    front(server, streamd(OPEN, TPI_PROJECT_ACCESS="allow"), site=site)
    for topic in STREAMS:
        with subprocess.Popen(["curl", "-sN", "--http2-prior-knowledge", "-u", "ann:ann", "--max-time", str(scaled(20)),
                               f"http://127.0.0.1:{port}{topic.target()}"], stdout=subprocess.PIPE) as client:
            assert client.stdout.readline() == b'data: {"event":"sync"}\n', topic
            valkey.publish(topic.channel(user="ann"), topic.payload % 1)
            assert b"data: " + (topic.payload % 1).encode() + b"\n" in iter(client.stdout.readline, b""), topic
            client.kill()


SITE_HEADERS = {
    Apache: 'Header always set X-Frame-Options DENY\nHeader always set Access-Control-Allow-Origin https://a.example',
    Nginx: 'add_header X-Frame-Options DENY always; add_header Access-Control-Allow-Origin https://a.example always;'}


@every
def test_daemon_down(streamd, front, server):
    """While the daemon is down the web server itself answers "retry later" on each path, never 502 or 503, with the
    site's own headers; streams open as soon as it runs again."""
    daemon = streamd(OPEN)
    address = daemon.address
    web = front(server, daemon, **({"site": SITE_HEADERS[server]} if server in SITE_HEADERS else {}))
    with stream(web):
        daemon.stop()
    for path in ROUTED:
        peer = get(web, path).wait(lambda p: p.ended, what="a complete response")
        assert peer.status == 200 and peer.header("Content-Type") == "text/event-stream"
        assert LATER.fullmatch(peer.body), peer
        assert peer.events.reconnection_time == 10000 and peer.header("X-Accel-Buffering") in (None, "no")
        if server in SITE_HEADERS:
            assert peer.header("Cache-Control").startswith("no-cache")
            assert peer.header("X-Frame-Options") == "DENY"
            assert peer.header("Access-Control-Allow-Origin") == "https://a.example"
    streamd([*OPEN, "--listen", address], address=address)
    if server is Lighttpd:  # tries a failed daemon again once a second
        eventually(lambda: live(get(web).wait(lambda p: live(p) or p.ended)), 5, "a stream")
    stream(web).close()


@both
@pytest.mark.slow
def test_restart_on_an_inherited_socket(streamd, rundir, valkey, front, server, count=200):
    """When the daemon restarts on an inherited socket with 200 open streams, all reconnect, and no client sees a status
    other than 200."""
    path = f"{rundir}/inherited"
    with listening_socket(path) as listener:
        daemon = streamd(inherit=[listener], SSE_PER_USER_CAP=1000)
        web = front(server, path)
        peers = [get(web) for _ in range(count)]
        wait_all(peers, live, 60, "sync")
        daemon.stop()
        wait_all(peers, lambda p: p.ended, 20, "the end")
        for peer in peers:
            assert peer.status == 200 and after_first(peer) == SHUTDOWN
            peer.close()
        # They reconnect while no daemon runs, and wait in the socket's queue.
        peers = [get(web) for _ in range(count)]
        streamd(inherit=[listener], SSE_PER_USER_CAP=1000)
        wait_all(peers, lambda p: live(p) or p.status not in (None, 200), 60, "sync")
        assert [peer.status for peer in peers] == [200] * count
        assert all(FIRST.match(peer.body) for peer in peers)
        valkey.publish(user_channel("ann"), notification("back"))
        wait_all(peers, lambda p: notification("back") in p.events.data, 20, "a wake-up")
        for peer in peers:
            peer.close()


@every
def test_front_reload(streamd, valkey, front, server):
    """A graceful reload of the web server keeps open streams and accepts new ones. lighttpd may end streams."""
    web = front(server, streamd(OPEN))
    with stream(web) as peer:
        web.reload()
        if server is Lighttpd:
            eventually(lambda: live(get(web, user="ben").wait(lambda p: live(p) or p.closed, 5)), 10, "a new stream")
            return
        with stream(web, user="ben"):
            valkey.publish(broadcast_channel(), notification(1))
            peer.wait_data(notification(1))


@every
def test_client_disconnects(streamd, front, server):
    """The stream of a client that disconnects ends soon, with Apache by the second heartbeat, with Caddy by the
    fourth: then the tenant's only slot is free."""
    beats = {Apache: 2, Caddy: 4}.get(server)
    daemon = streamd(OPEN, SSE_PER_TENANT_CAP=1, SSE_HEARTBEAT_MS=500 if beats else 25000)
    web = front(server, daemon)
    stream(web).close()

    def free():
        with daemon.open("ben").wait(lambda p: live(p) or p.ended) as peer:
            return peer.status == 200
    eventually(free, beats / 2 + 2 if beats else 5, "a free slot")


# Many streams

def check_many(valkey, count, connect):
    peers = []
    for first in range(0, count, 100):
        peers += [connect(number) for number in range(first, min(first + 100, count))]
        wait_all(peers, live, 60, "sync")
    started = time.monotonic()
    valkey.publish(broadcast_channel(), notification("all"))
    wait_all(peers, lambda p: notification("all") in p.events.data, 30, "the broadcast")
    print(f"{count} streams received the broadcast within {(time.monotonic() - started) * 1000:.0f} ms")
    for peer in peers:
        assert peer.status == 200 and peer.events.data == ['{"event":"sync"}', notification("all")]
        peer.close()


MANY = {"nginx 1000": (Nginx, 1000), "Apache 300": (Apache, 300),
        **{f"{name} 2000": pytest.param(server, 2000, marks=pytest.mark.long) for name, server in OTHERS.items()}}


@pytest.mark.slow
@pytest.mark.parametrize("server, count", MANY.values(), ids=MANY)
def test_many(streamd, valkey, front, server, count):
    """One broadcast reaches all of 1000 streams through nginx, of 300 through Apache, and of 2000 through the others."""
    daemon = streamd(OPEN, SSE_PER_TENANT_CAP=3000, SSE_PER_USER_CAP=3000)
    web = front(server, daemon)
    check_many(valkey, count, lambda _: get(web))


@pytest.mark.slow
def test_many_directly(streamd, valkey):
    """One broadcast reaches all of 2000 streams without a web server."""
    daemon = streamd(SSE_PER_TENANT_CAP=3000)
    check_many(valkey, 2000, lambda number: daemon.open(f"u{number}"))
