# SPDX-License-Identifier: ISC
"""Query the application through the site, as a page of it would, and judge what it says about the user.

TestPlanIt refuses /api/model/... with 403 to a user without API rights, unless the request comes from a page
of its own site, which it knows by Sec-Fetch-Site, Origin or Referer. tpi-streamd passes these on in its own
query; where a web server strips them, the user's streams are 404.
"""

import json
import re
from dataclasses import dataclass
from urllib.parse import quote

from .finding import FAILED, Finding
from .proxies import between
from .settings import setting
from .site import JSON
from .streams import STREAMS, THINGS
from .untrusted import json_object, plain

SESSION = "/api/auth/session"
MODEL = "/api/model/{}/findMany?q="


def session_user(site):
    """The id of the user whose cookie it is, or None."""
    user = json_object(site.get(SESSION, accept=JSON).body).get("user")
    found = user.get("id") if isinstance(user, dict) else None
    return found if isinstance(found, str) and re.fullmatch(r"[!-~]{1,255}", found) else None


@dataclass
class ModelAnswer:
    """What the application answers to a query for one project, test run or milestone."""
    status: int = None
    readable: bool = False
    reason: str = ""


def read_model_answer(response, whom):
    value = json_object(response.body)
    rows = value.get("data")
    readable = response.status == 200 and isinstance(rows, list) and any(
        isinstance(row, dict) and str(row.get("id")) == str(whom) for row in rows)
    error = value.get("error", value)
    reason = error.get("message", "") if isinstance(error, dict) else error
    return ModelAnswer(response.status, readable, plain(reason))


def query_model(site, kind, whom):
    """(the answer to a page, the answer to a script)"""
    where = {"id": {"in": [int(whom)]}, **({"isDeleted": False} if STREAMS[kind].present else {})}
    query = json.dumps({"where": where, "select": {"id": True}}, separators=(",", ":"))
    target = MODEL.format(STREAMS[kind].model) + quote(query)
    return tuple(read_model_answer(site.get(target, accept=JSON, as_page=as_page), whom)
                 for as_page in (True, False))


PASS_ON = (
    "Let the web server pass Sec-Fetch-Site, Origin, Referer and Host on to {whom} unchanged. nginx: remove "
    "fastcgi_pass_request_headers off, and fastcgi_param or proxy_set_header that empties them; Apache: remove "
    "RequestHeader unset. ")
SCRIPTS = "For a script, send Sec-Fetch-Site: same-origin, or enable API access for its account in the application."
DENY = "Set TPI_PROJECT_ACCESS=app in /etc/default/tpi-stream if it is deny, the default; then run systemctl " \
       "restart tpi-stream.service. "


def judge_not_found(stage, kind, response, page, script, settings):
    """The 404 of tpi-streamd. settings: the daemon's, or None where they are not known."""
    thing = THINGS[STREAMS[kind].model]

    def failed(text, remedy):
        return Finding(stage, FAILED, f"404 by {between(response)}: tpi-streamd reports no such {thing}, {text}",
                       remedy)
    access = setting(settings, "TPI_PROJECT_ACCESS") if settings is not None else ""
    if access == "deny" or access.startswith("file:"):
        return failed(f"as TPI_PROJECT_ACCESS is {plain(access)}", (
            DENY if access == "deny" else "Add a rule for user and project to the file. " if thing == "project" else
            f"A file decides about projects, not about a single {thing}: set TPI_PROJECT_ACCESS=app. ")
                      + "The choices are in tpi-streamd(8).")
    if page.status == 403:
        return failed(f"and the application refuses the query of a page: 403{': ' * bool(page.reason)}{page.reason}",
                      PASS_ON.format(whom="the application") + SCRIPTS)
    if page.readable and script.status == 403:
        return failed("while the application answers a page and refuses only the same query without Sec-Fetch-Site: "
                      f"403{': ' * bool(script.reason)}{script.reason}",
                      PASS_ON.format(whom="tpi-streamd") + SCRIPTS + ("" if access else " " + DENY.strip()))
    if page.readable:
        return failed("although the application lets this user read it", (
            "" if access else DENY) + "Check that TPI_APP_URL leads to the application of this site, and that the "
                      "web server passes Cookie on to tpi-streamd.")
    if page.status == 200:
        return failed("and the application lets this user read it neither",
                      f"Give a {thing} that the user can read, or give the user access in the application.")
    return None
