# SPDX-License-Identifier: ISC
"""Judge an answer that is not a stream, or that does not come from tpi-streamd."""

import re

from .finding import FAILED, Finding, OK, WARNING
from .proxies import between, buffer_remedy
from .untrusted import plain, reason_of, split_location

UNREACHABLE = (
    "Start tpi-streamd if it does not run (systemctl status tpi-stream.socket tpi-stream.service). Use the same "
    "path of the socket in the web server (ProxyPass, fastcgi_pass), not one in /tmp, and let the web server's "
    "user write to it (mode 0660, group www-data: SocketGroup= of tpi-stream.socket, or --group). The web "
    "server's error log names the reason.")
LATER = " Add error_page 429 502 503 504 = @tpi_later; so that browsers reconnect."
NOT_MAPPED = (
    "Pass this path on to tpi-streamd: include tpi-stream.conf from contrib/apache or contrib/nginx in the "
    "<VirtualHost> or server { } that serves this host name, before rules that forward everything, and reload "
    "the web server. No location ^~ or earlier regular expression of nginx, and no RewriteRule of Apache, may take "
    "the path away. In Kubernetes compare the Ingress with contrib/kubernetes, traefik or alb.")
NO_IDENTITY = (
    "TPI_IDENTITY=web-server: authenticate the streams in the web server, and set TPI_USER to the verified user "
    "(tpi-stream-auth-basic.conf or tpi-stream-user.conf). TPI_USER alone counts: REMOTE_USER and AUTH_TYPE, as "
    "in nginx's stock fastcgi_params, are ignored. TPI_IDENTITY=app: the application finds no session in these "
    "credentials; TPI_LOG_LEVEL=debug logs its answers. ")
NO_ITEM = (
    "Give one that the user can read, or give the user access in the application. If TPI_PROJECT_ACCESS is deny, the "
    "default, or file:PATH, which decides about projects only, set it to app in /etc/default/tpi-stream; then run "
    "systemctl restart tpi-stream.service.")

# Status, who sent it, words in the error of tpi-streamd, what failed, the remedy. The first row that fits counts.
ANSWERS = (
    (400, "daemon", "", "bad request: {error}",
     "Use an id without spaces as the user name, set each FastCGI parameter once, and give --project a number."),
    (401, "server", "", "the web server asks for a user and a password",
     "Give --user NAME:FILE with the right password. If the application authenticates users "
     "(TPI_IDENTITY=app), remove the authentication of the streams (tpi-stream-app.conf)."),
    (403, "daemon", "API access", "the application answers, not tpi-streamd: {error}", NOT_MAPPED),
    (403, "daemon", "", "forbidden: {error}",
     "tpi-streamd refuses requests from pages of another site. Give the URL that browsers use, and let proxies "
     "pass Host, Origin and Sec-Fetch-Site on unchanged. If the page is on another host, list its origin in "
     "TPI_ALLOWED_ORIGINS."),
    (403, "server", "", "forbidden by the web server or a firewall",
     "Look for Require, deny, an allow-list or a WAF rule for /api/; the web server's error log names it."),
    (404, "daemon", "no such project", "tpi-streamd reports no such project",
     "Give the user access to the project, or a project that the user can read. If TPI_PROJECT_ACCESS is deny, "
     "the default, set it in /etc/default/tpi-stream to app, to file:PATH with a rule for user and project, or "
     "to allow; then run systemctl restart tpi-stream.service."),
    (404, "daemon", "no such test run", "tpi-streamd reports no such test run", NO_ITEM),
    (404, "daemon", "no such milestone", "tpi-streamd reports no such milestone", NO_ITEM),
    (404, "daemon", "nothing to watch", "tpi-streamd reports nothing that the user can read", NO_ITEM),
    (404, "daemon", "no such stream", "tpi-streamd receives the request under another path",
     "Make SCRIPT_NAME followed by PATH_INFO exactly the path. nginx: fastcgi_param SCRIPT_NAME "
     "$fastcgi_script_name; and no rewrite or prefix before it. If only this stream is concerned, the daemon is "
     "too old for it: upgrade tpi-streamd."),
    (404, "server", "", "not found by the web server or the application, not by tpi-streamd", NOT_MAPPED),
    (405, "daemon", "", "tpi-streamd receives a method other than GET",
     "Set fastcgi_param REQUEST_METHOD $request_method; and remove rules that change the method."),
    (405, "server", "", "refused by the web server or the application, not by tpi-streamd", NOT_MAPPED),
    (500, "", "", "internal error of the web server",
     "Read its error log. Usual reasons: it cannot read its file of users (chown root:www-data, mode 0640), the "
     "check of an auth_request does not answer, or worker_connections of nginx are exhausted "
     "(tpi-stream-workers.conf)."),
    (502, "", "", "the web server cannot connect to tpi-streamd", UNREACHABLE + LATER),
    (504, "", "", "tpi-streamd, or a web server on the way, did not answer in time", UNREACHABLE + LATER),
    (503, "daemon", "too many streams", "the tenant is at its cap of streams",
     "Raise SSE_PER_TENANT_CAP (notifications), SSE_ISSUES_PER_TENANT_CAP, SSE_LIVE_PER_TENANT_CAP (test runs and "
     "milestones) or SSE_COMBINED_PER_TENANT_CAP, with the limits that tpi-stream(7) names, or run another process."),
    (503, "server", "", "the web server cannot reach tpi-streamd",
     "Set retry=0 in Apache's ProxyPass, so that it connects again after one failure, and the ErrorDocument "
     "503 of contrib/apache/tpi-stream.conf. " + UNREACHABLE),
)


def redirected(response, site):
    location = split_location(response.header("location"))
    where = plain(f"{location.scheme}://{location.netloc}{location.path}" if location.netloc
                  else location.path)  # without the query, which may hold tokens
    if re.search(r"log-?in|sign-?in|auth|sso", location.path, re.I):
        return (f"redirected to {where}, which looks like a sign-in page",
                "Give a fresh cookie of this host name. If the site's sign-in protects every path, exempt the "
                "streams: a browser must get 401 there, not a page.")
    if location.netloc and not site.tls and location.scheme == "https":
        return f"redirected to {where}", "Give the https URL, which browsers use."
    return (f"redirected to {where}",
            "Give the URL that it ends at, and exempt the streams from rules that add a slash or another host name.")


def unauthorized(given):
    """The 401 of tpi-streamd."""
    remedy = NO_IDENTITY
    if given == "nothing":
        remedy = "Give --cookie-file or --user: the request had no credentials. " + remedy
    elif given == "cookie":
        remedy += ("Copy the whole Cookie header from a browser that is signed in: the cookie may have expired, or "
                   "have another name over https (__Secure-...). Set NEXTAUTH_URL to the https address of the site.")
    else:
        remedy += ("The application ignores Basic credentials: give --cookie-file. Apache passes Authorization on "
                   "only with CGIPassAuth On.")
    return "tpi-streamd finds no authenticated user", remedy


def judge_answer(stage, response, site, given):
    """An answer that should be a stream, and is not."""
    status, error = response.status, response.daemon_error()
    whose = "server" if error is None else "daemon"

    def failed(text, remedy):
        return Finding(stage, FAILED, f"{status} by {between(response)}: {text}", remedy)
    if 300 <= status < 400:
        return failed(*redirected(response, site))
    if status == 401 and whose == "daemon":
        return failed(*unauthorized(given))
    for row_status, by, words, text, remedy in ANSWERS:
        if row_status == status and by in ("", whose) and words in (error or ""):
            return failed(text.format(error=plain(error or "")), remedy)
    if 200 <= status < 300:
        kind = plain(response.header("content-type") or "no Content-Type")
        return failed(f"not a stream ({kind})", NOT_MAPPED)
    return failed("not an answer of tpi-streamd", NOT_MAPPED)


def judge_silence(stage, response, probe, others):
    """
    No head in time. probe: a request that tpi-streamd answers without a stream; others: an answer of
    the site to something else. Either is None if there was no such request.
    """
    if response.error is not None or response.ended_at is not None:
        return Finding(stage, FAILED, "no answer: " + (reason_of(response.error) if response.error else
                                                       "the connection was closed"),
                       "Read the error log of the outermost proxy. nginx closes connections when its "
                       "worker_connections or descriptors are exhausted (tpi-stream-workers.conf, "
                       "worker_rlimit_nofile), a proxy when the server after it ends.")
    if probe is not None:
        return Finding(stage, FAILED, "no answer, not even headers, while short answers of tpi-streamd arrive: a "
                       "buffer holds the stream back", buffer_remedy(response, probe))
    if others is not None and others.status is not None:
        return Finding(stage, FAILED, "no answer, while the web server answers other requests",
                       "Check tpi-streamd, which may hang (systemctl status tpi-stream.service; under systemd its "
                       "watchdog restarts it; a backtrace: gdb -p PID, thread apply all bt), and the path to it. "
                       "With auth_request or an authentication module check that the site's check answers.")
    return Finding(stage, FAILED, "no answer to any request, although the web server accepts connections",
                   "Give the web server more workers: each stream holds one of Apache's threads "
                   "(MaxRequestWorkers, 150 on Debian; old processes after reloads: ServerLimit). "
                   "contrib/apache/tpi-stream-workers.conf has values; restart Apache. nginx: "
                   "worker_connections, contrib/nginx/tpi-stream-workers.conf.")


def judge_probe(stage, head, response, site, given, others=None):
    """
    head: the answer to HEAD, which tpi-streamd refuses before it checks anything else. response: where head did
    not come from it, the answer to GET, else None.
    """
    if head.is_refused_method:
        return Finding(stage, OK, f"reached, through {between(head)}")
    if response is None or response.status is None:
        return judge_silence(stage, response or head, None, others)
    if response.is_deferred:
        return Finding(stage, FAILED, "not reached: the web server itself answers \"retry later\"",
                       UNREACHABLE + " Set retry=0 in Apache's ProxyPass, or one failed connect stops it for a "
                       "minute. With auth_request check that the site's check answers.")
    if response.is_stream:
        return Finding(stage, WARNING, f"a stream, but {between(head)} answers HEAD with "
                       f"{head.status}, not tpi-streamd",
                       "The application may serve this path itself. " + NOT_MAPPED + " If it is tpi-streamd, let the "
                       "proxies pass HEAD on; tpi-streamd answers 405.")
    error = response.daemon_error()
    if error is not None and response.status in (401, 403, 404) and error != "no such stream":
        # tpi-streamd would have answered HEAD with 405.
        return Finding(stage, FAILED, f"{response.status} by {between(response)}: the application answers, not "
                       f"tpi-streamd: {plain(error)}", NOT_MAPPED)
    return judge_answer(stage, response, site, given)


def judge_other_routes(stage, findings):
    """The streams without an id on the command line. findings: kind: that of judge_probe()."""
    wrong = {kind: finding for kind, finding in findings.items() if finding.state != OK}
    if not wrong:
        return Finding(stage, OK, "tpi-streamd is reached: " + ", ".join(findings))
    text = next(iter(wrong.values())).text
    return Finding(stage, WARNING, f"tpi-streamd is not reached: {', '.join(wrong)}: {text}",
                   "If the application is to serve these itself, nothing is wrong. Otherwise: "
                   + next(iter(wrong.values())).remedy)
