# SPDX-License-Identifier: ISC
"""The parts of tpi-stream-doctor that need no server: what it reads, and what it concludes from it."""

import importlib.machinery
import importlib.util
import json
import os
import re
import socket
import sys
import zlib
from types import SimpleNamespace

import pytest

import fronts
from servers import ROOT, program

DOCTOR = program("tpi-stream-doctor")
HEAD = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n"
        b"X-Accel-Buffering: no\r\n\r\n")
FIRST = HEAD + b'data: {"event":"sync"}\nretry: 1000\n\n'


@pytest.fixture(scope="module")
def parts():
    loader = importlib.machinery.SourceFileLoader("tpi_stream_doctor", DOCTOR)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def response(parts, *pieces, closed=None, opened=0.0):
    """An answer of (time, bytes); closed: when the connection ended."""
    answer = parts.Response(opened)
    for at, data in pieces:
        answer.feed(data, at)
    if closed is not None:
        answer.close(closed)
    return answer


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
SYNC, PING = b'data: {"event":"sync"}\n\n', b": ping\n"


def test_response_in_any_pieces(parts):
    """Chunks, an interim answer, CRLF, comments and retry times, cut anywhere."""
    whole = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + CHUNKED + chunk(SYNC + b"retry: 1234\n\n") + \
        chunk(b"data: a\r\ndata:b\r\n\r\n: pi") + chunk(b"ng\n\nevent: evicted\ndata: \xc3\xa4\n\n") + b"0\r\n\r\n"
    for size in (1, 2, 3, 7, len(whole)):
        got = response(parts, *((float(at), whole[at:at + size]) for at in range(0, len(whole), size)))
        assert got.status == 200 and got.complete and got.ended_at is not None
        assert [(event.data, event.event, event.retry, event.comment) for event in got.events] == [
            ('{"event":"sync"}', "", None, False), (None, "", 1234, False), ("a\nb", "", None, False),
            (None, "", None, True), ("\u00e4", "evicted", None, False)]
        assert not got.is_deferred and got.synced_at is not None


def test_bytes_of_this_daemon_and_of_earlier_ones(parts):
    """The retry time in the block of the sync or after it, pings with or without a blank line, data first or last."""
    for data in (b'data: {"event":"sync"}\nretry: 7\n\n: ping\n: ping\ndata: {"id":"m"}\n\n',
                 b'data: {"event":"sync"}\n\nretry: 7\n\n: ping\n\n: ping\n\ndata: {"id":"m"}\n\n',
                 b'id\ndata: {"event":"sync"}\nretry: 7\n\n: ping\n: ping\n\ndata: {"id":"m"}\n\n'):
        got = response(parts, (0.0, HEAD), (1.0, data))
        assert got.synced_at == 1.0 and sum(event.comment for event in got.events) == 2
        assert [event.retry for event in got.events if event.retry is not None] == [7]
        assert got.events[-1].json() == {"id": "m"} and got.events[0].id == ("" if data[:2] == b"id" else None)
    ping = response(parts, (0.0, HEAD), (1.0, SYNC), (26.0, PING))
    assert ping.events[-1].comment and ping.events[-1].at == 26.0    # without waiting for what follows


def test_head_has_no_body(parts):
    """Whatever its headers announce: Content-Length, chunks."""
    for length in b"Content-Length: 31", b"Transfer-Encoding: chunked":
        got = parts.Response(0.0, "HEAD")
        got.feed(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n%s\r\n\r\n" % length, 1.0)
        assert got.complete and got.is_refused_method


@pytest.mark.parametrize("data, state", [
    (b"HTTP/1.1 204 No Content\r\n\r\n", "skipped"), (HEAD + b"retry: 200000\n\n", "ok"),
    (HEAD + b'id\ndata: {"event":"sync"}\nretry: 7\n\n', "ok"), (HEAD + b'id:\ndata: {"event":"sync"}\n\n', "ok"),
    (HEAD + SYNC, "warning"), (HEAD + b'id: 7\ndata: {"event":"sync"}\n\n', "warning"),
    (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", "skipped"), (b"", "skipped")])
def test_last_event_id(parts, data, state):
    """Last-Event-ID has reached the daemon if the id is reset or the request deferred."""
    finding = parts.judge_last_event_id("x", response(parts, (0.0, data), closed=1.0))
    assert finding.state == state and (state != "warning" or "HTTP_LAST_EVENT_ID" in finding.remedy)


def test_response_compressed(parts):
    packer = zlib.compressobj(wbits=31)
    data = [packer.compress(SYNC) + packer.flush(zlib.Z_SYNC_FLUSH), packer.compress(PING) + packer.flush()]
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    got = response(parts, (0.0, head), (1.0, data[0]), (2.0, data[1]), closed=3.0)
    assert got.synced_at == 1.0 and got.events[1].comment and got.complete


@pytest.mark.parametrize("data", [b"\x15\x03\x01", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n",
                                  CHUNKED + b"zz\r\n"])
def test_response_that_is_none(parts, data):
    with pytest.raises(parts.Malformed):
        response(parts, (0.0, data))


def test_response_that_is_cut(parts):
    """Whole or not, by what its headers said."""
    assert response(parts, (0.0, HEAD), closed=1.0).complete
    assert not response(parts, (0.0, CHUNKED + b"5\r\nab"), closed=1.0).complete
    assert not response(parts, (0.0, b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nabc"), closed=1.0).complete
    later = response(parts, (0.0, HEAD + b"retry: 10000\n\n"), closed=1.0)
    assert later.is_deferred and not response(parts, (0.0, FIRST), closed=1.0).is_deferred


@pytest.mark.parametrize("server, silent, text", [
    (b"nginx", 60, "the default of nginx (fastcgi_read_timeout"), (b"Apache", 65.1, "timeout=60 in the ProxyPass"),
    (b"cloudflare", 100.4, "Cloudflare's"), (b"Apache", 305, "Apache's Timeout on Debian"), (b"x", 350, "the limit of an AWS NLB"),
    (b"nginx", 44, "a time limit of 44 s: nginx: fastcgi_read_timeout, or proxy_read"),
    (b"x", 44, "Apache: timeout= of the ProxyPass"), (b"x", 50, "HAProxy"), (b"x", 240, "Azure")])
def test_time_limits(parts, server, silent, text):
    """How long it was silent tells whose limit it was."""
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nServer: " + server + b"\r\n\r\n")
    got = response(parts, (0.0, head + chunk(SYNC)), closed=float(silent))
    finding = parts.judge_end("open", got, 999.0, {})
    assert finding.state == "FAILED" and text in finding.remedy and "two heartbeats" in finding.remedy
    assert "No heartbeat arrived" in finding.remedy
    assert "No heartbeat" not in parts.judge_end("open", got, 999.0, {"SSE_HEARTBEAT_MS": "400000"}).remedy
    assert finding.text.startswith("cut off after")


def test_age_limits(parts):
    """It was not silent: the limit counts from the start."""
    got = response(parts, (0.0, CHUNKED + chunk(SYNC)), (25.0, chunk(PING)), closed=30.2)
    assert "Google's load balancer" in parts.judge_end("open", got, 99.0, {}).remedy
    got = response(parts, (0.0, CHUNKED + chunk(SYNC)), (25.0, chunk(PING)), (28.0, b"0\r\n\r\n"))
    finding = parts.judge_end("open", got, 99.0, {"SSE_MAX_AGE_SECONDS": "30"})
    assert finding.state == "ok" and finding.text == "ended after 28 s, as SSE_MAX_AGE_SECONDS=30 demands"
    assert parts.judge_end("open", got, 99.0, {"SSE_MAX_AGE_SECONDS": "60"}).state == "FAILED"


def delivery(parts, *arrivals, sent=(1.0, 2.0, 3.0), subscribers=1, tail=(), **named):
    """Wake-ups that were published at these times and came at those; None: not."""
    pieces = [(0.5, CHUNKED + chunk(SYNC))]
    for count, at in enumerate(arrivals):
        if at is not None:
            pieces.append((at, chunk(b'data: {"id":"m%d","event":"doctor"}\n\n' % count)))
    pieces = sorted([*pieces, *tail], key=lambda piece: piece[0])
    runs = [parts.Published(f"m{count}", at, 0, "channel", subscribers) for count, at in enumerate(sent)]
    return parts.Delivery("notifications", runs, response(parts, *pieces), **named)


@pytest.mark.parametrize("arrivals, state, text", [
    ((1.1, 2.1, 3.1), "ok", "3 of 3"), ((3.5, 3.5, 3.5), "FAILED", "together"), ((2.5, 3.5, 4.5), "FAILED", "late"),
    ((1.6, 2.1, 3.0), "ok", "3 of 3"), ((1.1, None, 3.1), "FAILED", "2 of 3"), ((1.9, 1.5, 3.1), "FAILED", "order")])
def test_wakeups(parts, arrivals, state, text):
    finding = parts.judge_wakeups("x", delivery(parts, *arrivals), 1.0)
    assert finding.state == state and text in finding.text


def test_sync_in_place_of_wakeups(parts):
    finding = parts.judge_wakeups("x", delivery(parts, 1.1, None, None, tail=[(2.0, chunk(SYNC))]), 1.0)
    assert finding.state == "warning" and "a sync instead" in finding.text


def test_subscribers_and_no_heartbeat(parts):
    """No heartbeat has been seen: it may be a buffer, or another daemon."""
    remedy = parts.judge_wakeups("x", delivery(parts, None, None, None), 1.0).remedy
    assert "flushpackets" in remedy and "other daemons" in remedy


@pytest.mark.parametrize("pings, watched, state", [
    ([26.0], 30.0, "ok"), ([], 20.0, "skipped"), ([], 40.0, "FAILED"), ([45.0], 50.0, "warning"), ([1.5], 20.0, "skipped")])
def test_heartbeats(parts, pings, watched, state):
    got = response(parts, (1.0, CHUNKED + chunk(SYNC)), *((at, chunk(PING)) for at in pings))
    assert parts.judge_heartbeat("x", got, watched, 25.0).state == state


@pytest.mark.parametrize("headers, text", [
    (b"Content-Encoding: br\r\nServer: cloudflare\r\n", "compression for the streams (br)"),
    (b"Server: Caddy\r\n", "X-Accel-Buffering was stripped"), (b"Server: nginx\r\n", "proxy_buffering off"),
    (b"Server: Apache/2.4\r\n", "flushpackets=on"), (b"X-Accel-Buffering: no\r\n", "Disable buffering")])
def test_headers_alone(parts, headers, text):
    """The headers, and then nothing: whose buffer, as far as they tell."""
    got = response(parts, (0.0, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + headers + b"\r\n"))
    finding = parts.judge_sync("x", got, 1.0, {})
    assert finding.state == "FAILED" and text in finding.remedy


def test_answers_of_others(parts):
    """Each row of the table can be reached, by its status and by who says it."""
    site = parts.Site("https://example.org", [], None, 1)
    for status, whose, words, _, remedy in parts.ANSWERS:
        body = json.dumps({"error": words or "something"}) if whose == "daemon" else "<html>"
        got = response(parts, (0.0, b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (
            status, len(body), body.encode())))
        finding = parts.judge_answer("x", got, site, "cookie")
        assert finding.state == "FAILED" and finding.remedy == remedy, (status, whose)


def test_publish_errors(parts):
    """Each row of the table can be reached."""
    found = [parts.judge_publish("x", [parts.Published("m", 0.0, status or -1, error=words)], {}).remedy
             for status, words, _ in parts.PUBLISH_ERRORS]
    assert found == [remedy.format(acl=parts.acl_channels({})) for _, _, remedy in parts.PUBLISH_ERRORS]


def test_env_file(parts, tmp_path):
    """As systemd and a shell read it."""
    path = tmp_path / "settings"
    path.write_text("# VALKEY_URL=no\n\nVALKEY_URL=unix:///a\nexport INSTANCE_TENANT_ID='t 1'\nTPI_X=\"q\"  \n"
                    "SSE_HEARTBEAT_MS=\n", encoding="ascii")
    got = parts.publisher_environment(str(path))
    assert [got[name] for name in ("VALKEY_URL", "INSTANCE_TENANT_ID", "TPI_X", "SSE_HEARTBEAT_MS")] == [
        "unix:///a", "t 1", "q", ""]


def test_settings_of_both(parts):
    """Passwords and users are no difference, and are not shown."""
    same = parts.judge_settings("x", {"VALKEY_URL": "redis://a:SECRET@h"}, {"VALKEY_URL": "valkey://b@h"})
    assert same.state == "ok"
    for password in "SECRET", "SEC@RET", "SEC/RET", "SEC,redis://RET", "SEC%RET":
        other = parts.judge_settings("x", {"VALKEY_URL": f"redis://a:{password}@h"}, {})
        assert other.state == "warning" and not re.search("SEC|RET", other.text + other.remedy)
    for theirs, ours, text in (
            ("redis://u:SECRET@a:1,valkey://u:p@c:1", "valkey://u:p@b:9,valkey://u:p@c:1", "VALKEY_URL differs"),
            ("valkey://a:1,valkey://c", "valkey://b:9,valkey://c", "differs: valkey://a:1,valkey://c for the daemon,"),
            ("unix:///run/a@1/s", "unix:///run/b@1/s", "VALKEY_URL differs"),
            ("unix:///run/a,valkey://u:SECRET@c", "unix:///run/b,valkey://c", "differs: unix://c for the daemon,"),
            ("valkey://a:SEC\nRET@h", "valkey://i", "differs: valkey://h for the daemon,"),
            ("valkey://h", "valkeys://h", "differs: valkey://h for the daemon,")):
        for one, other in (theirs, ours), (ours, theirs):
            finding = parts.judge_settings("x", {"VALKEY_URL": one}, {"VALKEY_URL": other})
            assert finding.state == "warning" and not re.search("SEC|RET", finding.text + finding.remedy), one
            assert text in finding.text or one == ours, finding.text
    assert parts.judge_settings("x", {"VALKEY_URL": "Redis://a:S,E@C/R@a, rediss://b,unix:///c@d"},
                                {"VALKEY_URL": "valkey://a,valkeys://u:p@b,unix:///c@d"}).state == "ok"
    sentinels = {"VALKEY_SENTINELS": "s1,s2"}
    finding = parts.judge_settings("x", sentinels, {})
    assert finding.state == "warning" and "VALKEY_SENTINELS differs: s1,s2 for the daemon, not set for" in finding.text
    assert parts.judge_settings("x", {**sentinels, "VALKEY_URL": "valkey://a@h"}, sentinels).state == "ok"
    finding = parts.judge_settings("x", {"TPI_ISSUES_CHANNEL_PREFIX": "a"}, {"TPI_ISSUES_CHANNEL_PREFIX": "b"})
    assert finding.state == "FAILED" and "the publisher uses b, the daemon subscribes to a" in finding.text


def contrib(name, old="", new=""):
    """A configuration of contrib/ with this difference."""
    return fronts.substitute(fronts.read(os.path.join(fronts.CONTRIB, name)), {old: new} if old else {})


@pytest.mark.parametrize("old, new, text", [
    ("flushpackets=on enable", "enable", "has no flushpackets=on"), ("enablereuse=off retry", "enablereuse=on retry",
                                                                      "has enablereuse=on"),
    ("retry=0 timeout", "timeout", "has no retry=0"), ("TPI_TIMEOUT 60", "TPI_TIMEOUT 30", "a time limit of 30 s"),
    ("", "", "")])
def test_apache_proxy_pass(parts, old, new, text):
    """Each of its parameters is looked at."""
    php = contrib("apache/tpi-stream-status.conf") + '<Location "/php">\nProxyPass "unix:/run/php.sock|fcgi://localhost"\n</Location>\n'
    directives = parts.read_apache(php + contrib("apache/tpi-stream.conf", old, new) + php, "/none")
    finding = parts.judge_apache_streams("x", directives, 25.0)
    assert text in finding.text and finding.state == ("warning" if text else "ok")


@pytest.mark.parametrize("old, new, text", [
    ("fastcgi_read_timeout 120s", "fastcgi_read_timeout 49s", "fastcgi_read_timeout is 49 s"),
    ("fastcgi_read_timeout 120s;", "", ""),
    ("fastcgi_buffering off;", "fastcgi_ignore_headers X-Accel-Buffering;", "buffers"), ("", "", "")])
def test_nginx_locations(parts, old, new, text):
    """Time limits and buffers, through includes and from outer levels."""
    files = {"tpi-stream-fastcgi.conf": contrib("nginx/tpi-stream-fastcgi.conf", old, new)}
    tree = parts.read_nginx("http { server {" + contrib("nginx/tpi-stream.conf") +
                            contrib("nginx/tpi-stream-status.conf") + "} }",
                            lambda name: [files.get(os.path.basename(name), "")])
    finding = parts.judge_nginx_streams("x", tree, 25.0)
    assert text in finding.text and finding.state == ("warning" if text else "ok")


def test_nginx_in_front(parts):
    """contrib's proxy, and the default of 60 s, which is too short for a longer heartbeat."""
    tree = parts.read_nginx(contrib("nginx/tpi-stream-proxy.conf"), lambda name: [])
    assert parts.judge_nginx_streams("x", tree, 25.0).state == "ok"
    tree = parts.read_nginx("location /api/x/stream { proxy_pass http://a; }", lambda name: [])
    assert "proxy_read_timeout is 60 s" in parts.judge_nginx_streams("x", tree, 40.0).text


def test_what_nginx_prints(parts):
    """nginx -T: all files, one after the other."""
    files = parts.nginx_files("# configuration file /a/n.conf:\nevents { }\ninclude x/*.conf;\n"
                              "# configuration file /a/x/1.conf:\nworker_processes 'auto'; # no; {\n")
    assert list(files) == ["/a/n.conf", "/a/x/1.conf"]
    assert parts.read_nginx(files["/a/n.conf"], lambda name: [files["/a/x/1.conf"]]) == [
        ["events", [], []], ["worker_processes", ["auto"], None]]


def test_access_to_a_socket(parts, rundir):
    """As the kernel decides, for owner, group and others, and for the directories above."""
    path = os.path.join(rundir, "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        own, gid = os.stat(path).st_uid, os.stat(path).st_gid
        for mode, who, state in ((0o660, (99, {98}), "FAILED"), (0o660, (99, {gid}), "ok"), (0o666, (99, {98}), "ok"),
                                 (0o606, (99, {gid}), "FAILED"), (0o600, (own, {98}), "ok")):
            os.chmod(path, mode)
            assert parts.judge_access("x", path, "nginx", who, "").state == state, (oct(mode), who)
        os.chmod(rundir, 0o700)
        finding = parts.judge_access("x", path, "nginx", (99, {98}), "")
        os.chmod(rundir, 0o755)
    assert finding.state == "FAILED" and rundir in finding.text
    assert "AppArmor" in parts.judge_access("x", path, "nginx", (0, {0}), "nginx (enforce)").text
    assert "does not exist" in parts.judge_access("x", path + "x", "nginx", (99, {98}), "").text


def test_cluster_and_nothing_arrives(parts):
    """0 on one node: it may as well be a buffer."""
    finding = parts.judge_wakeups("x", delivery(parts, None, None, None, subscribers=0, cluster=True), 1.0)
    assert "no subscriber" not in finding.text and "0 on one node of the Cluster" in finding.text
    assert "flushpackets" in finding.remedy and "each node counts and lists only its own" in finding.remedy
    finding = parts.judge_wakeups("x", delivery(parts, None, None, None, subscribers=0), 1.0)
    assert "no subscriber" in finding.text and "each node counts and lists only its own" in finding.remedy
    assert [parts.is_cluster({"VALKEY_URL": url}) for url in ("", "valkey://a", "valkey://a,valkey://b")] == [
        False, False, True]
    assert not parts.is_cluster({"VALKEY_URL": "valkey://a,valkey://b", "VALKEY_SENTINELS": "s"})


def test_threads(parts, monkeypatch):
    """A cgroup anywhere above the daemon allows fewer threads than its caps need."""
    files = {"/proc/7/cgroup": "0::/system.slice/tpi-stream.service\n",
             "/sys/fs/cgroup/system.slice/tpi-stream.service/pids.max": "max\n",
             "/sys/fs/cgroup/system.slice/pids.max": "2000\n"}
    monkeypatch.setattr(parts, "read", files.get)
    needed = parts.caps({}) + parts.SPARE
    finding = parts.judge_limits("x", {}, 10000, parts.pids_max(7))
    assert finding.state == "warning" and f"threads (pids.max): the caps need {needed}, the daemon has 2000" in finding.text
    assert "TasksMax=" in finding.remedy
    files["/sys/fs/cgroup/system.slice/pids.max"] = f"{needed}\n"
    assert parts.judge_limits("x", {}, 10000, parts.pids_max(7)).state == "ok"
    # Queries, and requests that wait: those of unknown users, and as many of known ones.
    app = {"TPI_IDENTITY": "app", "TPI_APP_URL": "http://a", "TPI_APP_CONCURRENCY": "10", "TPI_APP_PENDING": "100"}
    assert f"need {needed + 210}," in parts.judge_limits("x", app, 1, None).text


def health_remedy(parts, reason):
    body = json.dumps({"status": "unavailable", "reason": reason})
    return parts.judge_health("x", SimpleNamespace(status=503, body=body)).remedy


def test_health_remedies(parts):
    """It advises what the reason is about, and nothing else."""
    about = {"Valkey is unreachable": "VALKEY_URL", "Valkey is not connected yet": "VALKEY_URL",
             "cannot query the application": "TPI_APP_URL", "draining": "is ending",
             "the thread that reads from Valkey is stuck": "journalctl", "another": "journalctl"}
    for reason, text in about.items():
        remedy = health_remedy(parts, reason)
        assert text in remedy and "journalctl" in remedy
        for other in "VALKEY_URL", "TPI_APP_URL", "is ending":
            assert other == text or other not in remedy, reason
    status = fronts.read(os.path.join(ROOT, "src", "session", "status.c"))
    obstacles = status.partition("\nstatus_obstacle(")[2].partition("\n}")[0]
    assert set(re.findall(r'return "(.*)";', obstacles)) == set(about) - {"another"}


# Who the user is

@pytest.mark.parametrize("auth, text", [
    ("fastcgi_param TPI_USER $remote_user;", ""), ("include tpi-stream-auth-basic.conf;", ""),
    ("include fastcgi_params;", "REMOTE_USER is set, but not TPI_USER"),
    ("fastcgi_param REMOTE_USER $remote_user; fastcgi_param AUTH_TYPE Basic;", "REMOTE_USER is set, but not TPI_USER"),
    ("", "TPI_USER is not set")])
def test_identity_in_nginx(parts, auth, text):
    """REMOTE_USER alone is nobody: what is wrong, and what to set."""
    files = {"fastcgi_params": "fastcgi_param REMOTE_USER $remote_user;\n",
             "tpi-stream-auth-basic.conf": contrib("nginx/tpi-stream-auth-basic.conf")}
    tree = parts.read_nginx("http { fastcgi_param TPI_USER x; server { location = /api/issues/stream { "
                            "fastcgi_pass unix:/s; fastcgi_param SCRIPT_NAME x; " + auth + "} } }",
                            lambda name: [files[os.path.basename(name)]])
    finding = parts.judge_nginx_identity("x", tree)
    assert finding.state == ("warning" if text else "ok") and text in finding.text
    assert not text or "fastcgi_param TPI_USER $remote_user;" in finding.remedy


def test_inherited_identity_in_nginx(parts):
    """Parameters of an outer level count where the location has none of its own."""
    tree = parts.read_nginx("server { fastcgi_param TPI_USER x; location = /api/issues/stream { fastcgi_pass unix:/s; } }",
                            lambda name: [])
    assert parts.judge_nginx_identity("x", tree).state == "ok"


@pytest.mark.parametrize("more, text", [
    ('AuthType Basic\nRequire valid-user', "REMOTE_USER is set, but not TPI_USER"), ("", "TPI_USER is not set"),
    ('ProxyFCGISetEnvIf "true" TPI_USER "%{REMOTE_USER}"', ""), ("SetEnvIf X y TPI_USER=ann", ""),
    ("RewriteRule ^ - [E=TPI_USER:%{LA-U:REMOTE_USER}]", "")])
def test_identity_in_apache(parts, more, text):
    directives = parts.read_apache(contrib("apache/tpi-stream.conf") +
                                   f"<Location /api/issues/stream>\n{more}\n</Location>\n", "/none")
    finding = parts.judge_apache_identity("x", directives)
    assert finding.state == ("warning" if text else "ok") and text in finding.text
    assert not text or '"%{REMOTE_USER}"' in finding.remedy


# Which web server

@pytest.mark.parametrize("kind, words, options", [
    ("nginx", ["nginx: master process /usr/sbin/nginx -p /x -c y/n.conf -e stderr"], {"p": "/x", "c": "y/n.conf"}),
    ("nginx", ["nginx: master process nginx -g daemon off;"], {}), ("nginx", ["/usr/sbin/nginx", "-c", "/a b"], {"c": "/a b"}),
    ("nginx", ["nginx: master process nginx -p"], {}), ("Apache", ["/usr/sbin/apache2", "-k", "start"], {}),
    ("Apache", ["apache2", "-d", "/x", "-f", "/y/apache.conf", "-D", "FOREGROUND"], {"d": "/x", "f": "/y/apache.conf"})])
def test_command_line_of_a_web_server(parts, monkeypatch, kind, words, options):
    monkeypatch.setattr(parts, "words_of", lambda pid: words)
    assert parts.WebServer(kind, 1).options() == options


def test_listening_sockets(parts, monkeypatch):
    """The exact address before the unspecified one, IPv6 and mapped addresses, and listening sockets alone."""
    files = {"/proc/net/tcp": "head\n 0: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 11\n 1: 00000000:1F90 0:0 0A 0 0 0 0 0 12\n"
                              " 2: 0100007F:1F90 0100007F:0001 01 0 0 0 0 0 13\n",
             "/proc/net/tcp6": "head\n 0: 00000000000000000000000001000000:1F91 0:0 0A 0 0 0 0 0 14\n"
                               " 1: 0000000000000000FFFF00000200007F:1F90 0:0 0A 0 0 0 0 0 15\n"}
    monkeypatch.setattr(parts, "read", files.get)
    for addresses, port, inodes in ((["127.0.0.1"], 8080, {"11"}), (["10.0.0.1"], 8080, {"12"}), (["::1"], 8081, {"14"}),
                                    (["127.0.0.2"], 8080, {"15"}), (["127.0.0.1"], 8081, set())):
        assert parts.listening_inodes(addresses, port) == inodes, (addresses, port)


@pytest.mark.parametrize("text, expected", [
    ("issues", ["issues"]), ("issues, issue-updates", ["issues", "issue-updates"]), ("", ["issues", "issue-updates"]),
    (" own ,", ["own"])])
def test_prefixes(parts, text, expected):
    """A single value or a list; the rights that Valkey's user needs are for all of them."""
    settings = {"TPI_ISSUES_CHANNEL_PREFIX": text, "INSTANCE_TENANT_ID": "t"}
    assert parts.prefixes(settings) == expected and parts.Publisher(None, settings).prefix == expected[0]
    assert parts.acl_channels(settings) == " ".join(
        f"&{prefix}:tenant:t:*" for prefix in ["notifications", *expected, "live"])
    assert parts.judge_settings("x", settings, {"INSTANCE_TENANT_ID": "t", "TPI_ISSUES_CHANNEL_PREFIX": expected[-1]}).state == "ok"
