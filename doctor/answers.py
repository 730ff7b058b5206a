"""Answers that are no stream."""

import re
from urllib.parse import urlsplit

from .finding import FAILED, Finding, OK, WARNING
from .proxies import between, buffer_remedy
from .untrusted import plain

UNREACHABLE = (
    "The web server cannot connect to tpi-streamd. Does it run (systemctl status tpi-stream.socket "
    "tpi-stream.service)? Is the path of the socket the same in the web server (ProxyPass, "
    "fastcgi_pass), not in /tmp, and may the web server's user write to it (mode 0660, group www-data: "
    "SocketGroup= of tpi-stream.socket, or --group)? The web server's error log says which.")


NOT_MAPPED = (
    "The web server does not pass this path to tpi-streamd. Include tpi-stream.conf of contrib/apache "
    "or contrib/nginx in the <VirtualHost> or server { } that serves this host name, before rules that "
    "send everything on, and reload it.")


BASIC_OR_SESSION = (
    "TPI_IDENTITY=web-server: both paths need an authentication in the web server that sets TPI_USER "
    "(tpi-stream-auth-basic.conf or tpi-stream-user.conf); with nginx the stock fastcgi_params are not "
    "believed. TPI_IDENTITY=app: the application knows nobody by these credentials; "
    "TPI_LOG_LEVEL=debug logs what it was asked. ")


# status, who says it, the words of tpi-streamd, what it means, remedy. The first row that fits counts.
ANSWERS = (
    (400, "daemon", "", "the request is refused: {error}",
     "A user name must be an id without spaces, each FastCGI parameter be sent once, and --project be a "
     "number."),
    (401, "server", "", "the web server wants a user and a password",
     "Give --user NAME:FILE with the right password. Where the application decides (TPI_IDENTITY=app) "
     "take the authentication off these two paths (tpi-stream-app.conf)."),
    (403, "", "", "forbidden by the web server or a firewall in front; tpi-streamd never says this",
     "Look for Require, deny, an allow-list or a WAF rule for /api/; the web server's error log names "
     "it."),
    (404, "daemon", "no such project", "tpi-streamd says: no such project",
     "The user may not read this project, or TPI_PROJECT_ACCESS is deny, the default. Set it to "
     "file:PATH with a rule for user and project, to app, or to allow, in /etc/default/tpi-stream; "
     "then systemctl restart tpi-stream.service."),
    (404, "daemon", "no such stream", "tpi-streamd is asked, but for another path",
     "SCRIPT_NAME followed by PATH_INFO must be exactly the path. nginx: fastcgi_param SCRIPT_NAME "
     "$fastcgi_script_name; and no rewrite or prefix before it."),
    (404, "server", "", "the web server or the application says so, not tpi-streamd", NOT_MAPPED),
    (405, "daemon", "", "tpi-streamd is asked with another method than GET",
     "fastcgi_param REQUEST_METHOD $request_method; and no rule that changes the method."),
    (405, "server", "", "the web server or the application says so, not tpi-streamd", NOT_MAPPED),
    (500, "", "", "an internal error of the web server",
     "Its error log has the reason: often a file of users that it cannot read (chown root:www-data, "
     "mode 0640), an auth_request whose check does not answer, or nginx whose worker_connections are "
     "used up (tpi-stream-workers.conf)."),
    (502, "", "", "the web server cannot reach tpi-streamd",
     UNREACHABLE + " error_page 502 504 = @tpi_later; would make browsers come back."),
    (504, "", "", "tpi-streamd, or a web server in between, did not answer in time",
     UNREACHABLE + " error_page 502 504 = @tpi_later; would make browsers come back."),
    (503, "daemon", "too many streams", "the tenant's streams are used up",
     "Raise SSE_PER_TENANT_CAP (notifications) or SSE_ISSUES_PER_TENANT_CAP, with the limits that "
     "tpi-stream(7) names, or run another process."),
    (503, "server", "", "the web server says so, not tpi-streamd",
     "Apache cannot connect, or does not try again after one failed connect: retry=0 at the ProxyPass, "
     "and the ErrorDocument 503 of contrib/apache/tpi-stream.conf. " + UNREACHABLE),
)


def redirected(response, site):
    location = urlsplit(response.header("location"))
    where = plain(f"{location.scheme}://{location.netloc}{location.path}" if location.netloc
                  else location.path)  # without the query, which may hold tokens
    if re.search(r"log-?in|sign-?in|auth|sso", location.path, re.I):
        return (f"redirected to {where}, which looks like a sign-in page",
                "The site wants a session first: is the cookie fresh, and of this host name? Where the "
                "site's sign-in stands before everything, exempt the two paths: a browser must get 401 "
                "there, not a page.")
    if location.netloc and not site.tls and location.scheme == "https":
        return f"redirected to {where}", "Give the https URL: this is what browsers use."
    return (f"redirected to {where}",
            "Give the URL that it ends at, and exempt the two paths from rules that add a slash or "
            "another host name.")


def unauthorized(given):
    """The 401 of tpi-streamd."""
    remedy = BASIC_OR_SESSION
    if given == "nothing":
        remedy = "Give --cookie-file or --user: nothing was shown. " + remedy
    elif given == "cookie":
        remedy += ("The cookie may have expired, or over https have another name (__Secure-...): copy "
                   "the whole Cookie header of a browser that is signed in. NEXTAUTH_URL has to be the "
                   "https address of the site.")
    else:
        remedy += ("Basic credentials mean nothing to the application: give --cookie-file. Apache "
                   "passes Authorization on with CGIPassAuth On only.")
    return "tpi-streamd says: not signed in", remedy


def judge_answer(stage, response, site, given):
    """An answer that is no stream and should be one."""
    status, error = response.status, response.daemon_error()
    whose = "server" if error is None else "daemon"

    def failed(text, remedy):
        return Finding(stage, FAILED, f"{status} by {between(response)}: {text}", remedy)
    if 300 <= status < 400:
        return failed(*redirected(response, site))
    if status == 401 and whose == "daemon":
        return failed(*unauthorized(given))
    for number, by, words, text, remedy in ANSWERS:
        if number == status and by in ("", whose) and words in (error or ""):
            return failed(text.format(error=plain(error or "")), remedy)
    if 200 <= status < 300:
        kind = plain(response.header("content-type") or "no Content-Type")
        return failed(f"not a stream ({kind})", NOT_MAPPED)
    return failed("nothing that tpi-streamd says", NOT_MAPPED)


def judge_silence(stage, response, probe, others):
    """
    No head in time. probe: a request that tpi-streamd answers without a stream; others: an answer of
    the site to something else. Either is None if it was not asked for.
    """
    if response.error is not None or response.ended_at is not None:
        return Finding(stage, FAILED, "the connection was closed without an answer"
                       + (f": {plain(response.error)}" if response.error else ""),
                       "nginx does so when worker_connections or descriptors are used up "
                       "(tpi-stream-workers.conf, worker_rlimit_nofile), a proxy when what is behind it "
                       "ends. The error log of the outermost one says which.")
    if probe is not None:
        return Finding(stage, FAILED, "no answer, not even its headers, while short answers of "
                       "tpi-streamd pass: something holds the stream back",
                       buffer_remedy(response, probe))
    if others is not None and others.status is not None:
        return Finding(stage, FAILED, "no answer, while the web server answers other requests",
                       "tpi-streamd hangs, or a path to it is blocked: systemctl status "
                       "tpi-stream.service; its watchdog restarts it under systemd. By hand: gdb -p PID, "
                       "thread apply all bt. With auth_request or an authentication module look whether "
                       "the site's check answers.")
    return Finding(stage, FAILED, "connected, but the web server answers nothing at all",
                   "Its workers are used up: each stream holds one of Apache's threads "
                   "(MaxRequestWorkers, 150 on Debian; old processes after reloads: ServerLimit). "
                   "contrib/apache/tpi-stream-workers.conf has values; restart Apache. nginx: "
                   "worker_connections, contrib/nginx/tpi-stream-workers.conf.")


def judge_probe(stage, response, site, given, others=None):
    """The answer to Last-Event-ID: evicted, which is 204 before anything else is looked at."""
    if response.status is None:
        return judge_silence(stage, response, None, others)
    if response.status == 204:
        return Finding(stage, OK, f"answers, behind {between(response)}")
    if response.is_later:
        return Finding(stage, FAILED, "the web server answers in its place (a retry time alone)",
                       UNREACHABLE + " Apache that could not connect once does not try again for a minute "
                       "without retry=0 at the ProxyPass. With auth_request: the site's check does not "
                       "answer.")
    if response.is_stream:
        return Finding(stage, WARNING, "Last-Event-ID does not reach tpi-streamd",
                       "Pass this request header on (nginx and Apache do by themselves): by it evicted "
                       "tabs are told to stay away.")
    return judge_answer(stage, response, site, given)
