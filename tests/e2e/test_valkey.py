# SPDX-License-Identifier: ISC
"""A single Valkey named by VALKEY_URL: outages, reconnects, passwords, ACLs, and which payloads reach a stream."""

import ctypes
import os
import re
import shutil
import socket
import threading
import time

import pytest

import test_publish
from answers import (SYNC, after_first, check_first, check_later, frame, issue, notification)
from fcgi import live
from relay import Relay
from servers import (LINGER, ROOT, Process, ValkeyClient, ValkeyError, broadcast_channel, free_port, listening_socket,
                     processor_time, project_channel, user_channel)
from timing import eventually, scaled

ABOUT_VALKEY = r"^\[valkey\]"


def wait_stream(daemon, *args, timeout=15, **named):
    """Opens a stream as soon as Valkey can be used; until then every response must be "retry later"."""
    def attempt():
        peer = daemon.open(*args, **named)
        peer.wait(lambda p: p.closed or live(p) and p.events.data, 15)
        if not peer.events.data:
            check_later(peer)
            return None
        return peer
    return eventually(attempt, timeout, "a stream")


def check_works(daemon, valkey, user="works"):
    """A new stream gets its sync and a wake-up."""
    with wait_stream(daemon, user) as peer:
        check_first(peer)
        assert valkey.publish(user_channel(user), notification(1)) >= 1  # an earlier daemon's channel may linger
        peer.wait_data(notification(1))


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_unreachable_at_start(streamd, new_valkey, tcp):
    """The daemon starts without Valkey, tells clients to retry later, and serves streams once Valkey is reachable."""
    valkey = new_valkey(tcp=tcp)
    daemon = streamd(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow")
    check_later(daemon.ask())
    check_later(daemon.ask(projects="7"))
    valkey.start()
    check_works(daemon, valkey)


@pytest.mark.parametrize("scheme", ["valkey", "redis"])
@pytest.mark.parametrize("rest", ["", "/", "/0", "/5"])
def test_urls(streamd, new_valkey, scheme, rest):
    """Both schemes and a database number are accepted; the database makes no difference to pub/sub."""
    valkey = new_valkey(tcp=True).start()
    daemon = streamd(VALKEY_URL=f"{scheme}://127.0.0.1:{valkey.port}{rest}")
    check_works(daemon, valkey)


def test_host_name(streamd, new_valkey):
    """The host in VALKEY_URL may be a name."""
    valkey = new_valkey(tcp=True).start()
    check_works(streamd(VALKEY_URL=f"valkey://localhost:{valkey.port}"), valkey)


def test_killed_and_restarted(streamd, new_valkey):
    """While Valkey is down, streams stay open and new ones are deferred; after a restart every channel is
    subscribed again before the streams get their sync."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow", SSE_SYNC_SPREAD_MS=0)
    user, project = daemon.stream("ann"), daemon.stream("bob", projects="7,8")
    valkey.kill()
    started = time.monotonic()
    eventually(lambda: daemon.ask("new").body.startswith(b"retry"), what="retry later for new streams")
    check_later(daemon.ask("new"))
    assert time.monotonic() - started < scaled(2), "known to be unreachable, yet not answered at once"
    assert not user.quiet(0).closed and not project.quiet(0).closed
    valkey.start()
    user.wait(lambda p: after_first(p) == SYNC, 20, "the second sync")
    assert valkey.publish(user_channel("ann"), notification(1)) == 1
    assert valkey.publish(broadcast_channel(), notification(2)) == 1
    project.wait(lambda p: after_first(p) == SYNC, 20, "the second sync")
    assert valkey.publish(project_channel(8), issue(3, 8)) == 1
    user.wait_body(frame(notification(2)))
    project.wait_body(frame(issue(3, 8)))
    assert after_first(user) == SYNC + frame(notification(1)) + frame(notification(2))
    assert after_first(project) == SYNC + frame(issue(3, 8))
    check_works(daemon, valkey)


def test_restarted_many_times(streamd, new_valkey):
    """After each of five restarts a stream gets one sync, and in the end its wake-ups."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        for number in range(5):
            valkey.restart()
            peer.wait(lambda p, n=number: after_first(p) == (n + 1) * SYNC, 20, "another sync")
        assert valkey.publish(user_channel("ann"), notification(1)) == 1
        peer.wait_data(notification(1))


def test_pubsub_client_killed(streamd, new_valkey):
    """After Valkey closes the connection, the daemon reconnects at once, and streams get a sync."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        assert valkey("CLIENT", "KILL", "TYPE", "pubsub") == 1
        started = time.monotonic()
        peer.wait(lambda p: after_first(p) == SYNC, what="the second sync")
        assert time.monotonic() - started < scaled(1.5), "the first reconnect is not immediate"
        assert valkey.publish(user_channel("ann"), notification(1)) == 1
        peer.wait_data(notification(1))


@pytest.mark.slow
def test_sync_is_not_postponed(streamd, new_valkey):
    """A stream gets its sync within SSE_SYNC_SPREAD_MS of the first reconnect, also if Valkey is lost again and again
    meanwhile."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=4000, SSE_PER_USER_CAP=100)
    peers = [daemon.stream(f"u{number}") for number in range(20)]
    started = time.monotonic()
    while time.monotonic() - started < 4.4:
        assert valkey("CLIENT", "KILL", "TYPE", "pubsub") == 1
        time.sleep(1.1)  # a connection that lasts a shorter time delays the next attempt
        valkey.wait_subscribers(user_channel("u0"), 1)
    late = [peer for peer in peers if not after_first(peer.quiet(0)).startswith(SYNC)]
    assert not late, f"{len(late)} streams without a sync after {time.monotonic() - started:.1f} s"


def test_one_log_line_per_change(streamd, new_valkey, rundir):
    """The loss of Valkey is one log line, and its return another, however many attempts fail in between."""
    valkey = new_valkey().start()
    relay = Relay(rundir, valkey.address)
    daemon = streamd(VALKEY_URL=relay.url)
    check_works(daemon, valkey)
    daemon.wait_for_log(r"^\[valkey\] connected")
    mark = daemon.mark()
    valkey.kill()
    daemon.wait_for_log(ABOUT_VALKEY, start=mark)
    before = relay.attempts
    eventually(lambda: relay.attempts >= before + 4, what="attempts to reconnect")
    lines = daemon.matching(ABOUT_VALKEY, start=mark)
    assert len(lines) == 1, lines
    mark = daemon.mark()
    valkey.start()
    daemon.wait_for_log(ABOUT_VALKEY, start=mark)
    check_works(daemon, valkey)
    assert len(daemon.matching(ABOUT_VALKEY, start=mark)) == 1
    relay.close()


def test_no_busy_loop(streamd, new_valkey):
    """Attempts to reach an unreachable Valkey take little CPU time."""
    valkey = new_valkey()
    daemon = streamd(VALKEY_URL=valkey.url)
    before = processor_time(daemon)
    time.sleep(2)
    assert processor_time(daemon) - before < 0.2


# A Valkey that does not respond

def test_join_of_a_confirmed_channel(streamd, new_valkey):
    """A stream joins a channel that is already confirmed without a round trip, even while Valkey is stopped."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url)
    with daemon.stream("ann"):
        valkey.pause()
        with daemon.stream("ann") as second:
            check_first(second)
        valkey.resume()


def test_unconfirmed_subscription(streamd, new_valkey):
    """If Valkey does not confirm a subscription within 5 s, the client is deferred, and a warning names the
    user and the projects."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow")
    daemon.stream("x").close()
    valkey.pause()
    started = time.monotonic()
    peers = [daemon.open("ann"), daemon.open("bob", projects="8,7")]
    for peer in peers:
        check_later(peer.wait_end(15))
        assert 4.5 < peer.closed_at - started < 5 + scaled(2)
    valkey.resume()
    line = daemon.wait_for_log(r"^\[sse/notifications\] subscribe failed \{")
    assert '"tenantId":"default"' in line and '"userId":"ann"' in line and '"error":"' in line
    line = daemon.wait_for_log(r"^\[sse/issues\] subscribe failed \{")
    assert re.search(r'"projectIds":\[(7,8|8,7)\]', line) and '"userId":"bob"' in line


@pytest.mark.slow
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_stopped(streamd, new_valkey, tcp):
    """The daemon notices within 15 s that a stopped Valkey is silent; streams stay open and get a sync when it
    continues."""
    valkey = new_valkey(tcp=tcp).start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0)
    peer = daemon.stream("ann")
    daemon.wait_for_log(r"^\[valkey\] connected")
    mark = daemon.mark()
    valkey.pause()
    daemon.wait_for_log(ABOUT_VALKEY, 15 + scaled(3), start=mark)
    check_later(daemon.ask("new", timeout=12))
    assert not peer.quiet(0).closed
    valkey.resume()
    peer.wait(lambda p: after_first(p) == SYNC, 20, "the second sync")
    assert valkey.publish(user_channel("ann"), notification(1)) >= 1
    peer.wait_data(notification(1))
    assert after_first(peer) == SYNC + frame(notification(1))


# Passwords

def accepted(valkey):
    """The number of connections that Valkey has accepted."""
    return int(re.search(rb"total_connections_received:(\d+)", valkey("INFO", "stats"))[1])


def wait_attempts(valkey, count):
    """Waits until Valkey has accepted this many connections from now, each of them an attempt of the daemon."""
    before = accepted(valkey)
    eventually(lambda: accepted(valkey) >= before + count, what=f"{count} attempts to connect")


PASSWORD = "s3cr:t/@%\u00e4"
ENCODED = "s3cr%3At%2F%40%25%C3%A4"


def with_password(valkey, user=""):
    return f"valkey://{user}:{ENCODED}@127.0.0.1:{valkey.port}"


@pytest.mark.parametrize("user", ["", "default"])
def test_password_in_url(streamd, new_valkey, user):
    """A percent-encoded password in VALKEY_URL works and is in no log line."""
    valkey = new_valkey(tcp=True, password=PASSWORD).start()
    daemon = streamd(VALKEY_URL=with_password(valkey, user), TPI_LOG_LEVEL="debug")
    check_works(daemon, valkey)
    assert "s3cr" not in daemon.stderr + daemon.stdout


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\nsecond line\n"])
def test_password_file(streamd, new_valkey, rundir, ending):
    """The password is the first line of VALKEY_PASSWORD_FILE without its line break, whatever the URL contains."""
    valkey = new_valkey(tcp=True, password=PASSWORD).start()
    path = os.path.join(rundir, "password")
    with open(path, "wb") as file:
        file.write((PASSWORD + ending).encode())
    for url in f"valkey://127.0.0.1:{valkey.port}", f"valkey://:wr0ng@127.0.0.1:{valkey.port}":
        check_works(streamd(VALKEY_URL=url, VALKEY_PASSWORD_FILE=path), valkey)


@pytest.mark.parametrize("separator", [",", " ,\t"])
def test_family(streamd, new_valkey, separator):
    """?family= selects the address family of the host name, for both programs and for each URL of a list."""
    valkey = new_valkey(tcp=True).start()
    url = f"valkey://localhost:{valkey.port}"
    check_works(streamd(VALKEY_URL=f"{url}/0?family=4\n"), valkey)
    assert test_publish.run("notification", "--user", "u", VALKEY_URL=f"{url}?family=4").status == 0
    daemon = streamd(VALKEY_URL=f"{url}?family=6")  # the server listens on 127.0.0.1 only
    check_later(daemon.ask())
    daemon.wait_for_log(rf'^\[valkey\] unreachable .*"server":"localhost:{valkey.port}"')
    assert test_publish.run("notification", "--user", "u", VALKEY_URL=f"{url}?family=6").status == 69
    node = f"valkey://localhost:{valkey.port}?family=4"
    done = test_publish.run("notification", "--user", "u", VALKEY_URL=separator.join([f"{url}?family=6", node]))
    assert (done.status, "is not a Cluster node" in done.err) == (69, True)


def test_user_and_password(streamd, new_valkey):
    """VALKEY_URL may name an ACL user of Valkey."""
    valkey = new_valkey(tcp=True).start()
    valkey("ACL", "SETUSER", "streamd", "on", ">pw", "resetchannels", "&notifications:*", "+@all")
    check_works(streamd(VALKEY_URL=f"valkey://streamd:pw@127.0.0.1:{valkey.port}"), valkey)


@pytest.mark.parametrize("url", ["valkey://:wr0ng@127.0.0.1:{}", "valkey://nobody:wr0ng@127.0.0.1:{}"],
                         ids=["wrong", "user"])
def test_wrong_password(streamd, new_valkey, url):
    """With a wrong password clients are deferred, one log line without the password says why, and the daemon
    recovers when the password becomes valid."""
    valkey = new_valkey(tcp=True, password="right").start()
    daemon = streamd(VALKEY_URL=url.format(valkey.port))
    check_later(daemon.ask())
    wait_attempts(valkey, 4)
    lines = daemon.matching(ABOUT_VALKEY)
    assert len(lines) == 1, lines
    assert "wr0ng" not in daemon.stderr
    valkey("ACL", "SETUSER", "nobody", "on", ">wr0ng", "allchannels", "+@all")
    valkey("CONFIG", "SET", "requirepass", "wr0ng")
    check_works(daemon, valkey)


def test_password_required_later(streamd, new_valkey):
    """If Valkey requires a password from now on, the daemon logs NOAUTH once, when it has lost its connection; when none
    is required any more, everything works again."""
    valkey = new_valkey(tcp=True).start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        daemon.wait_for_log(r"^\[valkey\] connected")
        mark = daemon.mark()
        valkey("CONFIG", "SET", "requirepass", "pw")
        valkey("CLIENT", "KILL", "TYPE", "pubsub")
        line = daemon.wait_for_log(ABOUT_VALKEY, start=mark)
        assert f'"error":"127.0.0.1:{valkey.port}: NOAUTH: requires a password: set VALKEY_PASSWORD_FILE' in line
        check_later(daemon.ask())
        wait_attempts(valkey, 4)
        assert len(daemon.matching(ABOUT_VALKEY, start=mark)) == 1
        valkey("CONFIG", "SET", "requirepass", "")
        peer.wait(lambda p: after_first(p) == SYNC, what="the second sync")
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))


def test_refused_channel(streamd, new_valkey):
    """If the ACL refuses a channel, its streams are deferred, also where it allows the channel of another
    prefix; the log has one line for each prefix, and other streams work."""
    valkey = new_valkey(tcp=True).start()
    valkey("ACL", "SETUSER", "limited", "on", ">pw", "resetchannels", "&notifications:*", "+@all")
    daemon = streamd(VALKEY_URL=f"valkey://limited:pw@127.0.0.1:{valkey.port}", TPI_PROJECT_ACCESS="allow",
                     SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        for _ in range(3):
            started = time.monotonic()
            check_later(daemon.ask("bob", projects="7"))
            assert time.monotonic() - started < 5 + scaled(2)
        daemon.wait_for_log(r"^\[sse/issues\] subscribe failed \{")
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
        check_works(daemon, valkey)
        daemon.wait_for_log("channel refused", count=2)
        assert [re.search('"channel":"([a-z-]+):', line)[1] for line in daemon.matching("channel refused")] == [
            "issues", "issue-updates"]
        valkey("ACL", "SETUSER", "limited", "&issues:*")
        check_later(daemon.ask("bob", projects="7"))
        valkey.wait_subscribers(project_channel(7), 0)
        valkey("ACL", "SETUSER", "limited", "&issue-updates:*")
        wait_stream(daemon, "bob", projects="7").close()


def test_stock_acl(streamd, new_valkey):
    """With an ACL for issues:* alone no issue stream begins, and one warning names the refused channel and the setting;
    with TPI_ISSUES_CHANNEL_PREFIX=issues they begin."""
    valkey = new_valkey(tcp=True).start()
    valkey("ACL", "SETUSER", "limited", "on", ">pw", "resetchannels", "&notifications:*", "&issues:*", "+@all")
    url = f"valkey://limited:pw@127.0.0.1:{valkey.port}"
    daemon = streamd(VALKEY_URL=url, TPI_PROJECT_ACCESS="allow")
    daemon.wait_for_log(r"^\[valkey\] connected")
    for _ in range(3):
        check_later(daemon.ask(projects="7,8"))
    daemon.wait_for_log("channel refused")
    lines = daemon.matching("channel refused")
    assert len(lines) == 1 and f'"channel":"{project_channel(7, prefix="issue-updates")}"' in lines[0]
    assert "TPI_ISSUES_CHANNEL_PREFIX" in lines[0] and '"error":"NOPERM' in lines[0]
    daemon = streamd(VALKEY_URL=url, TPI_PROJECT_ACCESS="allow", TPI_ISSUES_CHANNEL_PREFIX="issues")
    with wait_stream(daemon, projects="7,8") as peer:
        valkey.publish(project_channel(8), issue(1, 8))
        peer.wait_data(issue(1, 8))


def documented_users(tenant):
    """The ACL users in tpi-stream(7), Access control lists, for this tenant: {name: (password, list of rules)}."""
    with open(os.path.join(ROOT, "man", "tpi-stream.7"), encoding="utf-8") as file:
        text = re.sub(r"\\e\n *", "", file.read())
    lines = re.findall(r"^user (\S+) on >(\S+) (.*)$", text, re.M)
    return {name: (password, rules.replace("tenant:default:", f"tenant:{tenant}:").split())
            for name, password, rules in lines}


def test_documented_users(streamd, new_valkey):
    """With the ACL users of the manual, both programs work for their tenant; each is refused another tenant's channels,
    and the daemon's user may not publish."""
    valkey = new_valkey(tcp=True).start()
    users = documented_users("t1")
    urls = {}
    for name, (password, rules) in users.items():
        valkey("ACL", "SETUSER", name, "on", f">{password}", *rules)
        urls[name] = f"valkey://{name}:{password}@127.0.0.1:{valkey.port}"
    daemon, publisher, revoker = urls["tpi-streamd"], urls["tpi-publish"], urls["tpi-revoke"]
    served = streamd(VALKEY_URL=daemon, INSTANCE_TENANT_ID="t1", TPI_PROJECT_ACCESS="allow")
    with served.stream("ann") as peer, served.stream("ann", projects="7,8") as issues:
        for words, stream, payload in [(("notification", "--user", "ann", "--id", "1"), peer, notification(1)),
                                       (("issue", "--project", "8", "--issue", "2"), issues, issue(2, 8))]:
            test_publish.run(*words, INSTANCE_TENANT_ID="t1", VALKEY_URL=publisher).silent()
            stream.wait_body(frame(payload))
            assert test_publish.run(*words, INSTANCE_TENANT_ID="t2", VALKEY_URL=publisher).status == 69
            for user in daemon, revoker:
                assert test_publish.run(*words, INSTANCE_TENANT_ID="t1", VALKEY_URL=user).status == 69
        revoke = "revoke", "--user", "nobody", "--tenant"
        test_publish.run(*revoke, "t1", VALKEY_URL=revoker).silent()
        served.wait_for_log("^\\[revoke\\]")
        for tenant, user in ("t2", revoker), ("t1", publisher), ("t1", daemon):
            assert test_publish.run(*revoke, tenant, VALKEY_URL=user).status == 69
        assert len(served.matching(ABOUT_VALKEY)) == 1
    other = streamd(VALKEY_URL=daemon, INSTANCE_TENANT_ID="t2")
    check_later(other.ask())
    other.wait_for_log("channel refused")


@pytest.mark.slow
def test_documented_user_verifies(streamd, new_valkey):
    """The daemon's user in the manual may publish on its check channel, and on no other."""
    valkey = new_valkey(tcp=True).start()
    password, rules = documented_users("t1")["tpi-streamd"]
    valkey("ACL", "SETUSER", "daemon", "on", f">{password}", *rules)
    daemon = streamd(VALKEY_URL=f"valkey://daemon:{password}@127.0.0.1:{valkey.port}", INSTANCE_TENANT_ID="t1")
    client = ValkeyClient(valkey.address, timeout=12)
    client("PSUBSCRIBE", "*")
    daemon.wait_for_log(r"^\[valkey\] connected")
    _, _, channel, payload = client.read()
    assert re.fullmatch(b"notifications:tenant:t1:check:[0-9a-f]{16}", channel) and payload == b"1"
    _, _, channel, payload = client.read()
    assert payload == b"2", "the next check"
    client.close()
    assert len(daemon.matching(ABOUT_VALKEY)) == 1
    for channel in user_channel("ann", "t1"), "notifications:tenant:t1:revoke", "notifications:tenant:t2:check:1":
        client = ValkeyClient(valkey.address)
        client("AUTH", "daemon", password)
        with pytest.raises(ValkeyError, match="NOPERM"):
            client("PUBLISH", channel, "x")
        client.close()


def test_refused_prefix(streamd, new_valkey):
    """If the ACL refuses the channel of one prefix, issue streams are told at once to retry later; the connection is kept
    for notifications; one warning is logged for the channel, and one for each stream."""
    valkey = new_valkey(tcp=True).start()
    password, rules = documented_users("t1")["tpi-streamd"]
    valkey("ACL", "SETUSER", "limited", "on", f">{password}", *rules)
    daemon = streamd(VALKEY_URL=f"valkey://limited:{password}@127.0.0.1:{valkey.port}", INSTANCE_TENANT_ID="t1",
                     TPI_PROJECT_ACCESS="allow", TPI_ISSUES_CHANNEL_PREFIX="issues,other")
    with daemon.stream("ann") as peer:
        connection = valkey("CLIENT", "LIST", "TYPE", "pubsub").split()[0]
        for number in range(3):
            started = time.monotonic()
            check_later(daemon.ask("bob", projects="7,8"))
            assert time.monotonic() - started < scaled(2), "waited although Valkey refused"
            valkey.publish(user_channel("ann", "t1"), notification(number))
            peer.wait_body(frame(notification(number)))
        with daemon.stream("carol"):
            assert valkey("CLIENT", "LIST", "TYPE", "pubsub").split()[0] == connection
        assert after_first(peer) == b"".join(frame(notification(number)) for number in range(3))
        daemon.wait_for_log(r"subscribe failed .*Valkey refused the channel", count=3)
        assert len(daemon.matching(r"^\[valkey\] channel refused")) == 1
        assert len(daemon.matching(r"subscribe failed .*Valkey refused the channel")) == 3
        assert len(daemon.matching(r"^\[valkey\] (connected|unreachable)")) == 1


@pytest.mark.slow
def test_refused_channel_before_a_pong(streamd, new_valkey):
    """An error reply that arrives while a PING is pending belongs to the refused channel: the connection is kept."""
    valkey = new_valkey(tcp=True).start()
    valkey("ACL", "SETUSER", "limited", "on", ">pw", "resetchannels", "&notifications:*", "+@all")
    daemon = streamd(VALKEY_URL=f"valkey://limited:pw@127.0.0.1:{valkey.port}", TPI_PROJECT_ACCESS="allow",
                     SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        valkey.pause()
        bob = daemon.open("bob", projects="7")
        bob.wait_end(6)
        peer.quiet(2)  # PING is sent after 5 s of silence
        valkey.resume()
        check_works(daemon, valkey, "carol")
        assert b"cmdstat_ping:" in valkey("INFO", "commandstats"), "no PING was pending"
        assert after_first(peer.quiet(0)) == b"" and not daemon.matching("lost")


# Servers that are not Valkey

class Impostor:
    """Counts connections and sends the same reply to the first bytes of each, then closes it or sends unsolicited."""

    def __init__(self, reply, close, unsolicited=b""):
        self.reply, self.close, self.unsolicited, self.count = reply, close, unsolicited, 0
        self.listener = listening_socket(("127.0.0.1", 0))
        self.url = "valkey://:pw@127.0.0.1:%d" % self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        open_sockets = []
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                break
            self.count += 1
            peer.settimeout(scaled(2))
            try:
                peer.recv(4096)
                peer.sendall(self.reply)
                if self.unsolicited:
                    time.sleep(0.3)  # so that it is not part of the reply
                    peer.sendall(self.unsolicited)
            except OSError:
                pass
            if self.close:
                peer.close()
            else:
                open_sockets.append(peer)
        for peer in open_sockets:
            peer.close()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


EVIL = b"\x1b[31m\x1b]0;title\x07\x9b31m\xff%s%n\"\\ \r[valkey] connected {}"
GARBAGE = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "random bytes": bytes(range(256)) * 4,
    "an error with control characters": b"-ERR " + EVIL + b"\r\n",
    "errors": (b"-ERR " + EVIL + b"\r\n") * 5,
    "OK to everything": b"+OK\r\n" * 5,
    "OK with control characters": b"+" + EVIL + b"\r\n",
    "a role with control characters": b"+OK\r\n*1\r\n$8\r\n\x1b[31m\nx\x07\r\n",
    "a long array": b"+OK\r\n*100000\r\n",
    "a negative length": b"$-5\r\n",
    "deep nesting": b"*1\r\n" * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("close", [True, False], ids=["closes", "stays open"])
@pytest.mark.parametrize("reply", GARBAGE.values(), ids=GARBAGE)
def test_garbage(streamd, reply, close):
    """A server that sends garbage counts as unreachable: retry later, a log line without control characters, and no busy
    loop."""
    impostor = Impostor(reply, close)
    daemon = streamd(VALKEY_URL=impostor.url)
    check_later(daemon.ask())
    daemon.wait_for_log(ABOUT_VALKEY)
    time.sleep(0.5)
    assert impostor.count < 10
    assert len(daemon.matching(ABOUT_VALKEY)) < 4
    assert all(line.isascii() and line.isprintable() for line in daemon.lines["stderr"])
    assert not daemon.matching(r"^\[valkey\] connected")
    daemon.stop()
    impostor.stop()


@pytest.mark.parametrize("unsolicited", [b"-ERR what\r\n" * 2, b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n", b"+OK\r\n",
                                         b"?"],
                         ids=["error", "subscribe", "OK", "garbage"])
def test_unsolicited_reply(streamd, unsolicited):
    """The daemon closes the connection to a primary that sends an unsolicited reply, and logs it. (A single error would
    be the reply to the subscription of the revocation channel.)"""
    impostor = Impostor(b"+OK\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", False, unsolicited)
    daemon = streamd(VALKEY_URL=impostor.url)
    daemon.wait_for_log(r'^\[valkey\] .*"lost":"', timeout=4)
    daemon.stop()
    impostor.stop()


@pytest.mark.long
def test_array_of_two_billion(streamd):
    """An array header that announces two billion elements takes neither the memory nor CPU time for them."""
    impostor = Impostor(b"+OK\r\n*2147483647\r\n", close=True)
    daemon = streamd(VALKEY_URL=impostor.url)
    before = processor_time(daemon)
    time.sleep(3)
    assert processor_time(daemon) - before < 0.5
    daemon.stop()
    impostor.stop()


# Replicas

def test_replica_is_refused(streamd, new_valkey):
    """A replica counts as unreachable, and the log says that it is one; after its promotion it is used."""
    primary = new_valkey(tcp=True).start()
    replica = new_valkey(tcp=True, config=["--replicaof", f"127.0.0.1 {primary.port}"]).start()
    daemon = streamd(VALKEY_URL=replica.url)
    check_later(daemon.ask())
    assert re.search("(?i)replica|primary|master|slave", daemon.wait_for_log(ABOUT_VALKEY))
    replica("REPLICAOF", "NO", "ONE")
    check_works(daemon, replica)


MOVED = 15  # seconds within which the daemon has followed an address that leads to another server


def check_follows(daemon, old, new, peer, move):
    """After move(), a new connection reaches another server while the daemon's own stays with the old one. The daemon
    reconnects, and its stream gets a sync; until then it receives nothing."""
    old.wait_subscribers(user_channel("ann"), 1)
    daemon.wait_for_log(r"^\[valkey\] connected")
    mark = daemon.mark()
    move()
    started = time.monotonic()
    new.publish(user_channel("ann"), notification(1))
    peer.wait(lambda p: after_first(p).startswith(SYNC), MOVED + scaled(3), "the sync from the new server")
    print(f"followed after {time.monotonic() - started:.1f} s")
    assert after_first(peer) == SYNC, "a wake-up arrived: nothing has moved"
    line, = daemon.matching(ABOUT_VALKEY, start=mark)
    assert '"lost":"a message published at the same address did not arrive"' in line
    new.wait_subscribers(user_channel("ann"), 1)
    new.publish(user_channel("ann"), notification(2))
    peer.wait_body(frame(notification(2)))


@pytest.mark.slow
def test_address_moves(streamd, new_valkey, rundir):
    """The daemon follows an address that leads new connections to another server, although the old one still answers,
    and stays there."""
    old, new = new_valkey().start(), new_valkey().start()
    relay = Relay(rundir, old.address)
    daemon = streamd(VALKEY_URL=relay.url, SSE_SYNC_SPREAD_MS=2000)
    with daemon.stream("ann") as peer:
        check_follows(daemon, old, new, peer, lambda: setattr(relay, "target", new.address))
        before = relay.connections
        eventually(lambda: relay.connections > before, 12, "the next check")
        new.publish(user_channel("ann"), notification(3))
        peer.wait_body(frame(notification(3)))
        assert len(daemon.matching(ABOUT_VALKEY)) == 2
    relay.close()


def with_hosts(path):
    """For the preexec_fn of a process: this file is its /etc/hosts."""
    libc = ctypes.CDLL(None)

    def run():
        assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
        # MS_REC | MS_PRIVATE. Fails in a root of tests/root.sh, where / is not a mount; there all are private already.
        libc.mount(None, b"/", None, 0x44000, None)
        assert libc.mount(path.encode(), b"/etc/hosts", None, 0x1000, None) == 0  # MS_BIND
    return run


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/etc/hosts"),
                    reason="only root can replace /etc/hosts for one process")
def test_name_moves(streamd, new_valkey, rundir):
    """The daemon follows a host name that now has the address of another server, although the old one still runs."""
    port, hosts = free_port(), os.path.join(rundir, "hosts")

    def point_to(address):
        with open(hosts, "w", encoding="ascii") as file:
            file.write(f"{address} valkey.test\n")
    old, new = (new_valkey(config=["--port", str(port), "--bind", address]).start()
                for address in ("127.0.0.1", "127.0.0.2"))
    point_to("127.0.0.1")
    daemon = streamd(VALKEY_URL=f"valkey://valkey.test:{port}", SSE_SYNC_SPREAD_MS=2000,
                     popen={"preexec_fn": with_hosts(hosts)})
    with daemon.stream("ann") as peer:
        check_follows(daemon, old, new, peer, lambda: point_to("127.0.0.2"))


HAPROXY = """
global
    stats socket {directory}/stats level admin
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
frontend valkey
    bind {directory}/front
    default_backend servers
backend servers
    option tcp-check
    tcp-check send ROLE\\r\\n
    tcp-check expect string master
    default-server check inter 200 rise 1 fall 1
    server old {old}
    server new {new} backup
"""


@pytest.fixture
def haproxy(rundir):
    """haproxy(old, new) starts HAProxy in front of two servers, of which only a primary gets new connections; returns a
    function that sends a command to its administration socket."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed")
    started = []

    def start(old, new):
        path = os.path.join(rundir, "haproxy.cfg")
        with open(path, "w", encoding="utf-8") as file:
            file.write(HAPROXY.format(directory=rundir, old=f"127.0.0.1:{old.port}", new=f"127.0.0.1:{new.port}"))
        started.append(Process("haproxy", [program, "-db", "-f", path]))

        def command(words):
            with socket.socket(socket.AF_UNIX) as admin:
                admin.connect(os.path.join(rundir, "stats"))
                admin.sendall(words.encode() + b"\n")
                return admin.makefile().read()
        eventually(lambda: os.path.exists(os.path.join(rundir, "stats")), what="HAProxy")
        return command
    yield start
    for process in started:
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["maintenance", "role"])
def test_load_balancer(streamd, new_valkey, haproxy, rundir, how):
    """The daemon follows HAProxy, which keeps established connections, to another server: when the old one is taken into
    maintenance, and when a role check finds that it is no longer a primary."""
    old, new = new_valkey(tcp=True).start(), new_valkey(tcp=True).start()
    command = haproxy(old, new)
    daemon = streamd(VALKEY_URL=f"unix://{rundir}/front", SSE_SYNC_SPREAD_MS=2000)

    def move():
        if how == "role":
            old("REPLICAOF", "127.0.0.1", 1)  # of a primary that is not there: nothing reaches it
            eventually(lambda: re.search("^servers,old,.*DOWN", command("show stat"), re.M), what="the role check")
        else:
            command("set server servers/old state maint")
    if how == "role":
        command("disable server servers/new")
    with wait_stream(daemon, "ann") as peer:
        if how == "role":
            command("enable server servers/new")
        check_follows(daemon, old, new, peer, move)


@pytest.mark.slow
def test_no_right_to_verify(streamd, new_valkey):
    """Without the right to publish on its check channel, the daemon warns once and keeps its connection."""
    valkey = new_valkey(tcp=True).start()
    valkey("ACL", "SETUSER", "limited", "on", ">pw", "allchannels", "-@all", "+role", "+subscribe", "+unsubscribe",
           "+ping")
    daemon = streamd(VALKEY_URL=f"valkey://limited:pw@127.0.0.1:{valkey.port}")
    with daemon.stream("ann") as peer:
        daemon.wait_for_log(r"^\[valkey\] connection not verified .*PUBLISH: NOPERM.*remedy", 10 + scaled(2))
        before = accepted(valkey)
        eventually(lambda: accepted(valkey) > before, 12, "the next check")
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_body(frame(notification(1)))
    assert len(daemon.matching(ABOUT_VALKEY)) == 2


@pytest.fixture
def busy():
    """busy(valkey) makes a Valkey run a script without end; returns a function that ends it."""
    clients = []

    def start(valkey):
        valkey("CONFIG", "SET", "lua-time-limit", 50)
        clients.append(ValkeyClient(valkey.address))
        clients[-1].send("EVAL", "while true do end", 0)

        def answers_busy():
            try:
                valkey("GET", "x")
            except ValkeyError as error:
                return str(error).startswith("BUSY")
            return False
        eventually(answers_busy, what="BUSY")
        return lambda: valkey("SCRIPT", "KILL")
    yield start
    for client in clients:
        client.close()


def test_busy(streamd, new_valkey, busy):
    """A Valkey that runs a script is unreachable for new connections, by the name BUSY; on an open one a new channel is
    refused, without a remedy for ACLs, and open streams stay. Then everything works again."""
    valkey = new_valkey(tcp=True).start()
    connected = streamd(VALKEY_URL=valkey.url)
    with connected.stream("ann") as peer:
        end = busy(valkey)
        check_later(connected.ask("bob"))
        line = connected.wait_for_log(r"^\[valkey\] channel refused .*\"error\":\"BUSY")
        assert "remedy" not in line
        other = streamd(VALKEY_URL=valkey.url)
        check_later(other.ask())
        name = f"127.0.0.1:{valkey.port}: BUSY: the server is running a script or function"
        assert f'"error":"{name}"' in other.wait_for_log(r"^\[valkey\] unreachable")
        done = test_publish.run("notification", "--user", "ann", VALKEY_URL=valkey.url)
        assert done.status == 69 and done.line() == name
        end()
        check_works(other, valkey, "other")
        check_works(connected, valkey, "bob")
        valkey.publish(user_channel("ann"), notification(2))
        peer.wait_body(frame(notification(2)))
        assert after_first(peer) == frame(notification(2)) and not connected.matching("lost")


@pytest.mark.slow
def test_refused_unsubscribe(streamd, new_valkey):
    """The daemon logs an UNSUBSCRIBE that Valkey refuses and repeats it, so it does not stay subscribed forever."""
    valkey = new_valkey(tcp=True).start()
    daemon = streamd(VALKEY_URL=valkey.url)
    valkey("ACL", "SETUSER", "default", "-unsubscribe")
    with daemon.stream("bob"):  # keeps the channel of the broadcasts
        daemon.stream("ann").close()
        line = daemon.wait_for_log(r"^\[valkey\] channel refused", LINGER)
        assert user_channel("ann") in line and "unsubscribe" in line
        assert valkey.subscribers(user_channel("ann")) == 1
        valkey("ACL", "SETUSER", "default", "+unsubscribe")
        valkey.wait_subscribers(user_channel("ann"), 0)


@pytest.mark.parametrize("user", ["", "default:pw@"])
def test_maxclients(streamd, new_valkey, user):
    """A Valkey that accepts no more connections is named as such, once, with and without a password."""
    valkey = new_valkey(tcp=True, password="pw" if user else None).start()
    valkey("CONFIG", "SET", "maxclients", 1)
    daemon = streamd(VALKEY_URL=f"valkey://{user}127.0.0.1:{valkey.port}")
    check_later(daemon.ask())
    name = f"127.0.0.1:{valkey.port}: maxclients reached: the server accepts no more connections"
    assert f'"error":"{name}"' in daemon.wait_for_log(ABOUT_VALKEY)
    rejected = re.compile(rb"rejected_connections:(\d+)")
    eventually(lambda: int(rejected.search(valkey("INFO", "stats"))[1]) >= 4, what="attempts to connect")
    assert len(daemon.matching(ABOUT_VALKEY)) == 1
    valkey("CONFIG", "SET", "maxclients", 100)
    check_works(daemon, valkey)


WITHOUT_ROLE = {
    "renamed": ("", ["--rename-command", "ROLE", ""], "it does not support ROLE"),
    "forbidden": ("limited:pw@", [], "the user needs +role"),
}


@pytest.mark.parametrize("user, config, reason", WITHOUT_ROLE.values(), ids=WITHOUT_ROLE)
def test_no_role(streamd, new_valkey, user, config, reason):
    """A server without ROLE, or whose user has no permission for it, is used; the daemon warns once, not again after a
    loss, and tpi-publish warns, too."""
    valkey = new_valkey(tcp=True, config=config).start()
    valkey("ACL", "SETUSER", "limited", "on", ">pw", "allchannels", "+@pubsub", "+ping")
    url = f"valkey://{user}127.0.0.1:{valkey.port}"
    daemon = streamd(VALKEY_URL=url, SSE_SYNC_SPREAD_MS=0)
    check_works(daemon, valkey)
    with daemon.stream("ann") as peer:
        valkey("CLIENT", "KILL", "TYPE", "pubsub")
        peer.wait(lambda p: after_first(p) == SYNC, what="the second sync")
        warning = f"127.0.0.1:{valkey.port}: cannot verify that it is a primary: {reason}"
        done = test_publish.run("notification", "--user", "ann", "--id", "1", VALKEY_URL=url)
        assert done.status == 0 and done.line() == f"warning: {warning}"
        peer.wait_data(notification(1))
    lines = daemon.matching("server not verified")
    assert len(lines) == 1 and f'"error":"{warning}"' in lines[0]


@pytest.mark.slow
def test_demoted_primary(streamd, new_valkey):
    """The daemon leaves a primary that becomes a replica, which does not tell its subscribers: it checks every 10 s."""
    primary = new_valkey(tcp=True).start()
    valkey = new_valkey(tcp=True).start()
    daemon = streamd(VALKEY_URL=valkey.url, SSE_SYNC_SPREAD_MS=0)
    peer = daemon.stream("ann")
    daemon.wait_for_log(r"^\[valkey\] connected")
    mark = daemon.mark()
    valkey("REPLICAOF", "127.0.0.1", primary.port)
    daemon.wait_for_log(ABOUT_VALKEY, 10 + scaled(5), start=mark)
    check_later(daemon.ask("new"))
    valkey("REPLICAOF", "NO", "ONE")
    peer.wait(lambda p: after_first(p) == SYNC, 20, "the second sync")


# Payloads

def nested(levels):
    return '{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


def of_frame(size):
    """A payload whose event, blank line included, has this size."""
    return '{"a":"' + "x" * (size - len('data: {"a":""}\n\n')) + '"}'


DROPPED = {
    "empty": b"",
    "spaces": b"  ",
    "not JSON": b"hello",
    "array": b'[{"event":"x"}]',
    "string": b'"x"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
    "cut off": b'{"event":"x"',
    "text after": b'{"event":"x"} x',
    "two objects": b'{"event":"x"}{"event":"y"}',
    "brace after": b'{"event":"x"}}',
    "text before": b'x{"event":"x"}',
    "comment": b'{"event":"x"} /* c */',
    "comment inside": b'{/* c */"event":"x"}',
    "single quotes": b"{'event':'x'}",
    "bare key": b'{event:"x"}',
    "trailing comma": b'{"event":"x",}',
    "no comma": b'{"a":1 "b":2}',
    "number key": b'{1:2}',
    "leading zero": b'{"a":01}',
    "plus": b'{"a":+1}',
    "hexadecimal": b'{"a":0x10}',
    "point first": b'{"a":.5}',
    "point last": b'{"a":5.}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "True": b'{"a":True}',
    "line break in a string": b'{"a":"x\ny"}',
    "CR in a string": b'{"a":"x\ry"}',
    "tab in a string": b'{"a":"x\ty"}',
    "control character": b'{"a":"x\x01y"}',
    "wrong escape": rb'{"a":"\x41"}',
    "half an escape": rb'{"a":"\u12"}',
    "NUL byte after": b'{"event":"x"}\0',
    "NUL byte inside": b'{"a":"x\0y"}',
    "NUL byte between": b'{"a":\0"x"}',
    "escaped NUL": rb'{"a":"x\u0000y"}',
    "escaped NUL in a key": rb'{"event\u0000":"x"}',
    "form feed around": b'\x0c{"event":"x"}',
    "no-break space around": '\u00a0{"event":"x"}'.encode(),
    "BOM": b'\xef\xbb\xbf{"event":"x"}',
    "invalid UTF-8": b'{"a":"\xff"}',
    "cut UTF-8": b'{"a":"\xe2\x82"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "beyond Unicode": b'{"a":"\xf4\x90\x80\x80"}',
    "Latin-1": '{"a":"\u00e4"}'.encode("latin-1"),
    "33 deep": nested(33).encode(),
    "10000 deep": (b'{"a":' * 10000) + b"1" + b"}" * 10000,
    "frame of 16385": of_frame(16385).encode(),
    "1 MB": of_frame(1 << 20).encode(),
    "lines make the frame too long": b'{"a":1' + b"\n" * 3000 + b"}",
    "sync": b'{"event":"sync"}',
    "sync with spaces": b' { "event" : "sync" } ',
    "sync among other keys": b'{"id":"1","event":"sync","x":1}',
    "sync in escapes": rb'{"event":"\u0073y\u006ec"}',
    "escaped key": rb'{"\u0065vent":"sync"}',
    "sync in the second event key": b'{"event":"x","event":"sync"}',
    "sync in the first event key": b'{"event":"sync","event":"x"}',
    "sync and a key with NUL": rb'{"event":"sync","event\u0000":"x"}',
    "sync on several lines": b'{\n"event":\n"sync"\n}',
}
PASSED = {
    "empty object": b"{}",
    "no event": b'{"id":"1"}',
    "spaces": b' \t{ "id" : "1" } ',
    "32 deep": nested(32).encode(),
    "frame of 16384": of_frame(16384).encode(),
    "Sync": b'{"event":"Sync"}',
    "sync with a space": b'{"event":"sync "}',
    "sync in another key": b'{"id":"sync","Event":"sync"}',
    "nested sync": b'{"x":{"event":"sync"}}',
    "event is not a string": b'{"event":["sync"]}',
    "escapes": rb'{"a":"\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00"}',
    "numbers": b'{"a":[-0,1.5e+10,0.1E-2,123456789012345678901234567890]}',
    "UTF-8": '{"a":"\u00e4\u20ac\U0001f600\u2028\x7f"}'.encode(),
    "looks like fields": b'{"a":"id: evicted","b":"data: x"}',
}


@pytest.fixture(scope="module")
def payload_stream(module_streamd):
    daemon = module_streamd(TPI_LOG_LEVEL="debug")
    with daemon.stream("ann") as peer:
        peer.daemon = daemon
        yield peer


def through(valkey, peer, payload):
    """The bytes by which the payload reached the stream; the valid payload published after it marks their end."""
    through.count = getattr(through, "count", 0) + 1
    end = notification(f"end{through.count}")
    start = len(peer.body)
    valkey.publish(user_channel("ann"), payload)
    valkey.publish(user_channel("ann"), end)
    peer.wait(lambda p: p.body.endswith(frame(end)), what="the next wake-up")
    return bytes(peer.body[start:]).removesuffix(frame(end))


@pytest.mark.parametrize("payload", DROPPED.values(), ids=DROPPED)
def test_dropped(valkey, payload_stream, payload):
    """An invalid payload is dropped, and the next one still arrives."""
    assert through(valkey, payload_stream, payload) == b""


@pytest.mark.parametrize("payload", PASSED.values(), ids=PASSED)
def test_passed(valkey, payload_stream, payload):
    """An unusual but valid payload arrives byte for byte."""
    assert through(valkey, payload_stream, payload) == frame(payload)


def test_drops_are_logged_at_most_once_a_second(streamd, valkey):
    """Dropped payloads are logged at most once a second, without their contents."""
    daemon = streamd()
    with daemon.stream("ann") as peer:
        started = time.monotonic()
        for _ in range(20):
            valkey.publish_all(user_channel("ann"), [b"v3ry s3cr3t"] * 100)
            time.sleep(0.05)
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
        lines = daemon.matching("(?i)drop")
        assert 1 <= len(lines) <= time.monotonic() - started + 2, lines
        assert "s3cr3t" not in daemon.stderr
