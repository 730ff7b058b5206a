# SPDX-License-Identifier: ISC
"""Users with and without API access, through a real Apache and a real nginx. TestPlanIt answers the project queries of a
user without API access only for its own pages, which browsers indicate by different headers."""

import pytest

from answers import after_first, frame, issue
from application import PROJECTS, cookie
from fcgi import ISSUES, NOTIFICATIONS
from fronts import Apache, Nginx
from servers import http, project_channel

OPEN = ["--mode", "0666"]  # the web server's workers run as another user
SERVERS = {"Apache": Apache, "nginx": Nginx}
PROJECTS_7_8_9 = f"{ISSUES}?projectIds=7,8,9"
REASON = "External API access not enabled for this account"
USERS = {
    "administrator": {"access": "ADMIN"},
    "API user": {"is_api": True},
    "ordinary user": {},
    "no access": {"access": "NONE"},
}


def headers(way, host):
    """The headers by which a browser indicates the page that sends the request; a script sends none."""
    return {
        "Sec-Fetch-Site": {"Sec_Fetch_Site": "same-origin"},
        "Referer": {"Referer": f"http://{host}/en-US/projects/overview/7"},  # Chromium over plain http
        "Origin": {"Origin": f"http://{host}"},
        "nothing": {},
        "another site": {"Sec_Fetch_Site": "cross-site"},
        "another site's Origin": {"Origin": "http://evil.example"},
        "another site's Referer": {"Referer": f"http://evil.example/http://{host}/"},
    }[way]


OWN_PAGE = "Sec-Fetch-Site", "Referer", "Origin"
NOT_OWN_PAGE = "nothing", "another site's Referer"


class Site:
    """A web server, the daemon, and the application, where each of USERS is signed in and can read projects 7 and 8."""

    def __init__(self, app, daemon, front):
        self.app, self.daemon, self.front = app, daemon, front
        self.host = "%s:%d" % front.address
        for user, rights in USERS.items():
            app.sign_in(f"SECRET-{user}", user.replace(" ", "-"), [7, 8], **rights)

    def get(self, user, way, target=PROJECTS_7_8_9):
        sent = {"Cookie": cookie(f"SECRET-{user}"), **headers(way, self.host)}
        return http(self.front.address, target, **sent)

    def refused(self, user, way, status=404):
        peer = self.get(user, way).wait(lambda p: p.ended, what="a complete response")
        assert peer.status == status, peer


@pytest.fixture(scope="module", params=SERVERS.values(), ids=SERVERS)
def site(request, module_with_app, module_rundir):
    app, daemon = module_with_app(OPEN, SSE_ISSUES_PER_USER_CAP=100)
    front = request.param(module_rundir, daemon.address, auth="app")
    yield Site(app, daemon, front)
    front.kill()


@pytest.mark.parametrize("way", [*OWN_PAGE, *NOT_OWN_PAGE])
@pytest.mark.parametrize("user", USERS)
def test_issues(site, valkey, user, way):
    """Administrators and API users get their projects in any case, an ordinary user only from a page of the site, and a
    user without access never."""
    site.app.forget()
    if user == "no access" or (user == "ordinary user" and way in NOT_OWN_PAGE):
        site.refused(user, way)
    else:
        with site.get(user, way) as peer:
            peer.wait_live(20)
            for project in 9, 8, 7:
                valkey.publish(project_channel(project), issue(1, project))
            peer.wait_data(issue(1, 7))
            assert after_first(peer) == frame(issue(1, 8)) + frame(issue(1, 7))
    [query] = site.app.asked(PROJECTS)
    assert query.header("Sec-Fetch-Site") == ("same-origin" if way in OWN_PAGE else None)


@pytest.mark.parametrize("way", ["another site", "another site's Origin"])
def test_another_site(site, way):
    """A page of another site gets 403 through either web server, for any user, without a query."""
    with site.app.quiet():
        site.refused("administrator", way, 403)


@pytest.mark.parametrize("way", ["Sec-Fetch-Site", "nothing"])
@pytest.mark.parametrize("user", USERS)
def test_notifications(site, user, way):
    """Every user gets their own notifications, also from a script: TestPlanIt does not restrict session queries."""
    site.get(user, way, NOTIFICATIONS).wait_live(20).close()


@pytest.fixture
def fresh(with_app, rundir):
    """A site whose daemon has logged no query yet."""
    app, daemon = with_app(OPEN)
    front = Nginx(rundir, daemon.address, auth="app")
    yield Site(app, daemon, front)
    front.kill()


def test_warning(fresh):
    """Refused scripts cause at most one warning a minute, with the application's reason and the query's Sec-Fetch-Site;
    the debug log has each refusal."""
    for _ in range(3):
        fresh.refused("ordinary user", "nothing")
        fresh.refused("ordinary user", "another site's Referer")
    fresh.daemon.wait_for_log(r'projects answer \{"answer":"no","userId":null,"status":403,', count=6)
    [line] = fresh.daemon.matching(r"^\[app\] query forbidden")
    assert f'"status":403,"reason":"{REASON}","suppressed":0,"secFetchSite":null' in line


@pytest.mark.parametrize("way", OWN_PAGE)
def test_no_warning(fresh, way):
    """A user who can read none of the projects gets 404 without a warning."""
    fresh.refused("no access", way)
    assert not fresh.daemon.matching("forbidden")


def test_page_and_script_do_not_share_the_cache(with_app, rundir):
    """A script does not get the response that is cached for a page with the same cookie, nor a page that of a script."""
    app, daemon = with_app(OPEN, TPI_APP_CACHE_SECONDS=300, SSE_ISSUES_PER_USER_CAP=100)
    front = Nginx(rundir, daemon.address, auth="app")
    try:
        site = Site(app, daemon, front)
        site.get("ordinary user", "Referer").wait_live(20).close()
        site.refused("ordinary user", "nothing")
        site.get("ordinary user", "Sec-Fetch-Site").wait_live(20).close()
        # All pages of the site share one response, whichever header indicates them.
        assert [query.header("Sec-Fetch-Site") for query in app.asked(PROJECTS)] == ["same-origin", None]
    finally:
        front.kill()
