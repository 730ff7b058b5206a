# SPDX-License-Identifier: ISC
"""NextAuth.js (v4) and tpi-streamd behind Apache and nginx: the cookies of a signed-in browser open its streams, and
no others do."""

import json
import os
import ssl
from http.cookiejar import CookieJar
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, HTTPSHandler, ProxyHandler, Request, build_opener

import pytest

from answers import FIRST, after_first, frame, issue, notification
from application import ANN, COOKIE, synced
from certificates import Authority
from fcgi import ISSUES, NOTIFICATIONS, wait_all
from fronts import Apache, Nginx
from node import npm_ci
from servers import Process, clean_environment, free_port, http, project_channel, user_channel
from timing import scaled
from topics import RESTRICTED

pytestmark = pytest.mark.slow

OPEN = ["--mode", "0666"]  # the web server's workers run as another user
SERVERS = {"Apache": Apache, "nginx": Nginx}
both = pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
schemes = pytest.mark.parametrize("scheme", ["http", "https"])


# The application

@pytest.fixture(scope="session")
def nextauth_directory():
    """Where NextAuth.js is installed."""
    return npm_ci(os.path.join(os.path.dirname(__file__), "nextauth"), "nextauth")


class NextAuth(Process):
    """Runs nextauth/server.js."""

    def __init__(self, directory, port, secret="SECRET", **env):
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        super().__init__("next-auth", ["node", "server.js"], cwd=directory, env=clean_environment(
            PORT=port, NEXTAUTH_SECRET=secret, AUTH_TRUST_HOST=1, NODE_ENV="production", **env))
        self.wait_for_log("ready", 20, "stdout")


@pytest.fixture
def nextauth(nextauth_directory):
    """nextauth(port=, secret=) starts an application."""
    started = []

    def start(port=None, **named):
        started.append(NextAuth(nextauth_directory, port or free_port(), **named))
        return started[-1]
    yield start
    for process in started:
        process.kill()


# The web servers, with the application and the streams on one origin, over HTTP and HTTPS

def apache_site(app, secure, certificate, key):
    modules = "/usr/lib/apache2/modules"
    routes = f"""
        ProxyPass "/" "{app.url}/"
        <LocationMatch "^/api/(auth|model)/">
            RequestHeader set X-Forwarded-Proto "expr=%{{REQUEST_SCHEME}}"
        </LocationMatch>"""
    return f"""
        <IfModule !proxy_http_module>
            LoadModule proxy_http_module {modules}/mod_proxy_http.so
        </IfModule>
        LoadModule ssl_module {modules}/mod_ssl.so
        {routes}
        Listen 127.0.0.1:{secure} https
        <VirtualHost 127.0.0.1:{secure}>
            SSLEngine on
            SSLCertificateFile {certificate}
            SSLCertificateKeyFile {key}
            {routes}
        </VirtualHost>"""


def nginx_site(app, secure, certificate, key):
    return f"""
        listen 127.0.0.1:{secure} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{
            proxy_pass {app.url};
            proxy_buffer_size 16k;  # for the cookies of a sign-in
            proxy_buffers 8 16k;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}"""


class Site:
    """One origin: a web server with the application and the streams behind it."""

    def __init__(self, server, rundir, daemon, app, scheme):
        authority = Authority(rundir)
        secure = free_port()
        files = authority.certificate()
        site = (apache_site if server is Apache else nginx_site)(app, secure, *files)
        self.front = server(rundir, daemon.address, auth="app", site=site)
        self.tls = ssl.create_default_context(cafile=authority.pem) if scheme == "https" else None
        self.address = ("127.0.0.1", secure) if self.tls else self.front.address
        self.url = f"{scheme}://127.0.0.1:{self.address[1]}"


@pytest.fixture
def site(rundir):
    """site(server, daemon, app, scheme) starts a web server."""
    made = []

    def make(*args):
        made.append(Site(args[0], rundir, *args[1:]))
        return made[-1]
    yield make
    for each in made:
        each.front.kill()


class Browser:
    """Keeps cookies as a browser does."""

    def __init__(self, site):
        self.site = site
        self.jar = CookieJar()
        self.opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self.jar), HTTPSHandler(context=site.tls))

    def get(self, path, **form):
        data = urlencode(form).encode() if form else None
        with self.opener.open(self.site.url + path, data, timeout=scaled(20)) as answer:
            return json.load(answer)

    def sign_in(self, user):
        token = self.get("/api/auth/csrf")["csrfToken"]
        self.get("/api/auth/callback/credentials", csrfToken=token, username=user, password=user, json="true")
        return self

    def sign_out(self):
        self.get("/api/auth/signout", csrfToken=self.get("/api/auth/csrf")["csrfToken"], json="true")

    @property
    def cookie(self):
        """The Cookie header that a request would have now."""
        request = Request(self.site.url + NOTIFICATIONS)
        self.jar.add_cookie_header(request)
        return request.get_header("Cookie")

    @property
    def session_cookies(self):
        return sorted(cookie.name for cookie in self.jar if COOKIE in cookie.name)

    def open(self, target=NOTIFICATIONS, **headers):
        headers = {"Cookie": self.cookie, "Sec_Fetch_Site": "same-origin", **headers}
        return http(self.site.address, target, tls=self.site.tls,
                    **{name: value for name, value in headers.items() if value})

    def stream(self, target=NOTIFICATIONS):
        peer = self.open(target).wait(lambda p: synced(p) or p.ended, what="sync")
        assert peer.status == 200 and FIRST.match(peer.body), peer
        return peer

    def status(self, target=NOTIFICATIONS, **headers):
        peer = self.open(target, **headers).wait(lambda p: p.ended, what="a response")
        return peer.status


@both
@schemes
@pytest.mark.parametrize("user, projects, cookies", [("ann", [8, 7], [""]), ("kim", [7], [".0", ".1"])],
                         ids=["one cookie", "chunked cookie"])
def test_session(with_app, nextauth, valkey, site, server, scheme, user, projects, cookies):
    """A session opens both streams, with the user's own wake-ups and projects; a signed-out session and an altered
    cookie open none."""
    app, daemon = with_app(OPEN, app=nextauth())
    browser = Browser(site(server, daemon, app, scheme))
    assert browser.status() == 401
    assert browser.status(Cookie="next-auth.session-token=SECRET") == 401

    browser.sign_in(user)
    prefix = "__Secure-" if scheme == "https" else ""
    assert browser.session_cookies == [f"{prefix}{COOKIE}{end}" for end in cookies]
    assert (len(browser.cookie) > 4096) == (len(cookies) > 1)
    assert browser.get("/api/auth/session")["user"]["id"] == user
    with browser.stream() as peer:
        valkey.publish(user_channel(user), notification(1))
        peer.wait_body(frame(notification(1)))
    with browser.stream(f"{ISSUES}?projectIds=7,8,9") as peer:
        for project in 9, 8, 7:
            valkey.publish(project_channel(project), issue(1, project))
        peer.wait_data(issue(1, 7))
        assert after_first(peer) == b"".join(frame(issue(1, project)) for project in projects)
    assert browser.status(f"{ISSUES}?projectId=9") == 404

    good = browser.cookie
    first = good.index(COOKIE)
    assert browser.status(Cookie=good[:first] + "x" + good[first:]) == 401
    middle = good.index("..", first) + 30
    assert browser.status(Cookie=good[:middle] + ("A" if good[middle] != "A" else "B") + good[middle + 1:]) == 401
    if len(cookies) > 1:
        assert browser.status(Cookie="; ".join(part for part in good.split("; ") if f"{COOKIE}.1" not in part)) == 401
    for name, _, value in (part.partition("=") for part in good.split("; ")):
        assert COOKIE not in name or value[-40:] not in daemon.stderr
    browser.sign_out()
    assert not browser.session_cookies
    assert browser.status() == 401
    assert browser.status(f"{ISSUES}?projectId=7") == 401


@both
@schemes
@pytest.mark.parametrize("user, status", [("ada", 200), ("sam", 200), ("ann", 404)],
                         ids=["administrator", "API user", "ordinary user"])
def test_api_access(with_app, nextauth, site, server, scheme, user, status):
    """A page of the site opens any user's issue stream, by Sec-Fetch-Site, Referer or Origin; a script with the same
    cookie opens it only for a user with API access."""
    app, daemon = with_app(OPEN, app=nextauth())
    origin = site(server, daemon, app, scheme)
    browser = Browser(origin).sign_in(user)
    issues = f"{ISSUES}?projectId=7"
    for headers in {}, {"Referer": f"{origin.url}/en-US/projects"}, {"Origin": origin.url}:
        with browser.open(issues, **{"Sec_Fetch_Site": None, **headers} if headers else {}) as peer:
            assert peer.wait(lambda p: synced(p) or p.ended, what="sync").status == 200
    with browser.open(issues, Sec_Fetch_Site=None) as peer:
        assert peer.wait(lambda p: synced(p) or p.ended, what="a response").status == status
    if status == 404:
        daemon.wait_for_log("query forbidden")
    assert len(daemon.matching("query forbidden")) == (status == 404)


def test_cookie_of_another_scheme(with_app, nextauth, site):
    """The application does not accept the cookie of HTTP over HTTPS, nor the reverse: it knows the browser's scheme."""
    app, daemon = with_app(OPEN, app=nextauth())
    origin = site(Nginx, daemon, app, "https")
    browser = Browser(origin).sign_in("ann")
    assert browser.status(Cookie=browser.cookie.replace("__Secure-", "")) == 401
    with browser.stream():
        pass
    cookie = browser.cookie
    origin.tls, origin.address = None, origin.front.address
    assert browser.status(Cookie=cookie) == 401


def test_session_ends(with_app, nextauth, site):
    """Streams stay open while the application restarts; when its sessions are invalid (another secret), the re-check
    ends the streams."""
    app, daemon = with_app(OPEN, app=nextauth(), TPI_RECHECK_SECONDS=5)
    browser = Browser(site(Nginx, daemon, app, "http")).sign_in("ann")
    peers = [browser.stream(), browser.stream(f"{ISSUES}?projectId=7")]
    app.kill()
    app = nextauth(port=app.port)
    assert browser.get("/api/auth/session")["user"]["id"] == "ann"
    assert not any(peer.quiet(0).ended for peer in peers)
    app.kill()
    nextauth(port=app.port, secret="another")
    wait_all(peers, lambda p: p.ended, 5 + 4, "the end")


@both
@schemes
def test_forwarded_headers(with_app, application, site, server, scheme):
    """The application gets the browser's Cookie and Authorization, Sec-Fetch-Site, and the X-Forwarded-* headers of the
    web server, not the browser's own."""
    app = application()
    _, daemon = with_app(OPEN, app=app)
    origin = site(server, daemon, app, scheme)
    headers = {"Cookie": f"a=1; {COOKIE}={ANN}", "Authorization": "Bearer SECRET-other", "Accept_Language": "en",
               "Referer": f"{origin.url}/x"}
    peer = http(origin.address, NOTIFICATIONS, tls=origin.tls, X_Forwarded_For="203.0.113.9",
                X_Forwarded_Proto="gopher", X_Forwarded_Host="evil.example", **headers)
    peer.wait(synced, what="sync").close()
    [request] = app.requests
    sent = dict(request.headers)
    del sent["User-Agent"]
    assert sent == {
        "Host": app.url.removeprefix("http://"), "Accept": "application/json", "Cookie": headers["Cookie"],
        "Authorization": "Bearer SECRET-other", "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": scheme, "X-Forwarded-Host": "%s:%d" % origin.address, "Sec-Fetch-Site": "same-origin"}


def test_topics(with_app, nextauth, site):
    """A session opens the streams of what its user can read; deleted projects have no streams but that of issues."""
    app, daemon = with_app(OPEN, app=nextauth(), SSE_LIVE_PER_USER_CAP=100)
    browser = Browser(site(Nginx, daemon, app, "http")).sign_in("ann")
    request = {"TPI_USER": None, "HTTP_COOKIE": browser.cookie, "HTTP_SEC_FETCH_SITE": "same-origin",
               "HTTP_HOST": "127.0.0.1", "REQUEST_SCHEME": "http"}
    for topic in RESTRICTED:
        deleted = 8 if topic.model == "projects" else 9
        for id, served in (7, True), (deleted, not topic.present), (5, False):
            peer = daemon.open(**topic.params(id, **request)).wait(lambda p: synced(p) or p.ended, what="a response")
            assert peer.status == (200 if served else 404), (topic.name, id)
            peer.close()
