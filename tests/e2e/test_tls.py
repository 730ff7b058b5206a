# SPDX-License-Identifier: ISC
"""TLS between the programs and Valkey, with real servers and with servers whose handshake stalls or fails. A build
without TLS must refuse the settings for it; there the other tests are skipped."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

import servers
from answers import SYNC, after_first, check_later, notification
from certificates import Authority
from sentinels import Sentinel
from servers import BUILD, free_port, listening_socket, processor_time, run_streamd, user_channel
from test_publish import USER, USER_PAYLOAD, Subscriber, lines_of, run
from test_valkey import ABOUT_VALKEY, check_works, of_frame
from timing import eventually, scaled

with open(os.path.join(BUILD, "config.h"), encoding="ascii") as config:
    HAS_TLS = "#define HAVE_TLS 1" in config.read()
needs_tls = pytest.mark.skipif(not HAS_TLS, reason="this build has no TLS: hiredis is older than 1.0, or "
                                                   "--without-tls")


SYNC_DATA = '{"event":"sync"}'


# A build without TLS

@pytest.mark.skipif(HAS_TLS, reason="this build has TLS")
@pytest.mark.parametrize("env", [{"VALKEY_URL": "valkeys://:s3cret@h"}, {"VALKEY_URL": "rediss://h:1"},
                                 {"VALKEY_TLS_CA": "/ca"}, {"VALKEY_TLS_CERT": "/cert"}, {"VALKEY_TLS_KEY": "/key"}],
                         ids=lambda env: "".join(env))
def test_settings_without_tls(env):
    """In a build without TLS each setting that needs it is exit 78, with a line that names it and why."""
    daemon, publish = run_streamd("--check-config", **env), run(*USER, **env)
    assert daemon.returncode == publish.status == 78
    for line in daemon.stderr, publish.err:
        assert line.count("\n") == 1 and "".join(env) in line and "this build has no TLS: it " in line
        assert "s3cret" not in line


@pytest.mark.skipif(HAS_TLS, reason="this build has TLS")
def test_option_without_tls():
    """In a build without TLS, tpi-publish --url with a URL that needs it is a usage error that says why."""
    result = run(*USER, "--url", "rediss://h")
    assert result.status == 64 and "this build has no TLS: it " in result.line()


# Certificates

class Pki:
    """Two authorities, and the certificates that the tests need: VALKEY_TLS_CA is ours, the other is unknown."""

    def __init__(self, directory):
        self.ours, self.other = Authority(directory, "ours"), Authority(directory, "other")
        self.server = self.ours.certificate()
        self.names = {
            "expired": self.ours.certificate(days=-1),
            "early": self.ours.certificate(begin=1, days=2),
            "other name": self.ours.certificate("DNS:elsewhere,IP:127.0.0.2"),
            "name alone": self.ours.certificate("DNS:localhost"),
            "other authority": self.other.certificate(),
            "self-signed": (self.other.pem, self.other.key),
        }
        self.client, self.stranger = self.ours.certificate("DNS:c"), self.other.certificate("DNS:c")


@pytest.fixture(scope="module")
def pki():
    directory = servers.run_directory()
    yield Pki(directory)
    shutil.rmtree(directory, ignore_errors=True)


def settings(pki, port, host="localhost", client=None, ca=None):
    env = {"VALKEY_URL": f"valkeys://{host}:{port}", "VALKEY_TLS_CA": ca or pki.ours.pem}
    if client:
        env |= {"VALKEY_TLS_CERT": client[0], "VALKEY_TLS_KEY": client[1]}
    return env


@pytest.fixture
def tls_valkey(new_valkey, pki):
    """tls_valkey(certificate, auth, extra...) starts a Valkey with a TLS port; the test itself uses its Unix socket."""
    def start(certificate=None, auth="no", *extra, **named):
        certificate, key = certificate or pki.server
        port = free_port()
        valkey = new_valkey(config=["--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key,
                                    "--tls-ca-cert-file", pki.ours.pem, "--tls-auth-clients", auth,
                                    *extra], **named)
        valkey.tls_port = port
        return valkey.start()
    return start


def check_publishes(valkey, *args, **env):
    """tpi-publish publishes a message that a subscriber of this Valkey receives."""
    subscriber = Subscriber(valkey)
    result = run(*USER, *args, **env)
    assert (result.status, result.err) == (0, "")
    assert subscriber.next() == (user_channel("u1"), USER_PAYLOAD)
    subscriber.client.close()


# Connections that succeed

@needs_tls
@pytest.mark.parametrize("scheme", ["valkeys", "REDISS"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_works(streamd, tls_valkey, pki, scheme, host):
    """Both programs connect over TLS, with either URL scheme, to a host name and to an address."""
    valkey = tls_valkey()
    env = settings(pki, valkey.tls_port, host)
    env["VALKEY_URL"] = env["VALKEY_URL"].replace("valkeys", scheme)
    daemon = streamd(**env)
    check_works(daemon, valkey)
    check_publishes(valkey, **env)


@needs_tls
@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])
def test_versions(streamd, tls_valkey, pki, protocol):
    """Both programs connect with TLS 1.2 and 1.3, a password and a client certificate."""
    valkey = tls_valkey(None, "yes", "--tls-protocols", protocol, password="s3cret")
    env = settings(pki, valkey.tls_port, ":s3cret@localhost", pki.client)
    check_works(streamd(**env), valkey)
    check_publishes(valkey, **env)


@needs_tls
def test_url_of_another_server(tls_valkey, pki, valkey):
    """tpi-publish --url takes precedence over VALKEY_URL, to and from a server without TLS."""
    other = tls_valkey()
    env = settings(pki, other.tls_port)
    check_publishes(valkey, "--url", valkey.url, **env)
    check_publishes(other, "--url", env["VALKEY_URL"], **{**env, "VALKEY_URL": valkey.url})


@pytest.fixture
def tls_sentinel(rundir, tls_valkey, pki):
    """A primary and a sentinel that accept TLS connections only."""
    valkey = tls_valkey()
    valkey.port = valkey.tls_port
    sentinel = Sentinel(rundir, valkey, quorum=1)
    with open(sentinel.file, "a", encoding="ascii") as file:
        file.write(f"port 0\ntls-port {sentinel.port}\ntls-cert-file {pki.server[0]}\ntls-key-file {pki.server[1]}\n"
                   f"tls-ca-cert-file {pki.ours.pem}\ntls-auth-clients no\ntls-replication yes\n")
    sentinel.start()
    yield valkey, sentinel
    sentinel.kill()


@needs_tls
def test_sentinel(streamd, tls_sentinel, pki):
    """With a valkeys:// URL both programs use TLS to the sentinels and to the primary, and verify their certificates."""
    valkey, sentinel = tls_sentinel
    env = {**settings(pki, 1), "VALKEY_SENTINELS": sentinel.name}
    check_works(streamd(**env), valkey)
    check_publishes(valkey, **env)
    result = run(*USER, **env | {"VALKEY_TLS_CA": pki.other.pem})
    assert result.status == 69 and f"{sentinel.name}: TLS: " in result.line()
    result = run(*USER, VALKEY_URL="valkey://h", VALKEY_SENTINELS=sentinel.name)
    assert result.status == 69 and f"{sentinel.name}: the server closed the connection" in result.line()


@needs_tls
def test_several_nodes(streamd, tls_valkey, pki):
    """In a list of nodes, one with an expired certificate does not keep the programs from using another."""
    valkey, bad = tls_valkey(), tls_valkey(pki.names["expired"])
    valkey("ACL", "SETUSER", "default", "-cluster")  # it is not a node, and must not be able to say so
    env = settings(pki, valkey.tls_port)
    env["VALKEY_URL"] = f"valkeys://localhost:{bad.tls_port},{env['VALKEY_URL']}"
    check_works(streamd(**env), valkey)
    check_publishes(valkey, "--quiet", **env)  # without the warning that the server cannot be verified


def pings(valkey):
    found = re.search(rb"cmdstat_ping:calls=(\d+)", valkey("INFO", "commandstats"))
    return int(found.group(1)) if found else 0


class Bursts:
    """Sends bursts to a stream while the daemon is stopped, so that it then finds each complete in its socket."""

    def __init__(self, valkey, daemon, peer):
        self.valkey, self.daemon, self.peer = valkey, daemon, peer
        self.expected = [SYNC_DATA]

    def send(self, first, payloads):
        """Checks that the burst arrives without a PING by the daemon: data that OpenSSL has buffered does not make the
        socket readable, so its end could wait there for the reply to the next PING."""
        channel = user_channel("ann")
        self.expected += [first, *payloads]
        before = pings(self.valkey)
        self.daemon.signal(signal.SIGSTOP)
        eventually(self._stopped, what="all threads have stopped")
        self.valkey.publish(channel, first)  # a TLS record of its own
        self.valkey.publish_all(channel, payloads)
        self.valkey("ECHO", "x")  # its reply shows that Valkey has sent everything before it
        self.daemon.signal(signal.SIGCONT)
        self.peer.wait(lambda p: len(p.events.data) >= len(self.expected), 20, "the complete burst")
        assert pings(self.valkey) - before == 1  # publish_all() sends one itself

    def _stopped(self):
        tasks = f"/proc/{self.daemon.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/stat", encoding="ascii", errors="replace") as file:
                if file.read().rpartition(")")[2].split()[0] != "T":
                    return False
        return True

    def check(self):
        assert self.peer.events.data == self.expected


@pytest.fixture
def bursts(streamd, tls_valkey, pki):
    valkey = tls_valkey()
    daemon = streamd(**settings(pki, valkey.tls_port), SSE_BACKLOG_BYTES=16777216)
    with daemon.stream("ann") as peer:
        yield Bursts(valkey, daemon, peer)


@needs_tls
def test_burst_around_a_full_buffer(bursts):
    """A burst of about 64 KiB, which is what the daemon reads at once, is read to its end wherever its TLS records are
    cut."""
    for step in range(60):
        size = 13000 + 55 * step
        bursts.send(of_frame(3000 + 100 * step), [of_frame(size - n).replace("x", str(n)) for n in range(4)])
    bursts.check()


@needs_tls
def test_burst_is_one_record(bursts):
    """What has arrived at once is sent to a stream at once, however many TLS records it took."""
    before = len(bursts.peer.arrivals)
    bursts.send("{}", ['{"n":%d}' % n for n in range(200)])
    assert len(bursts.peer.arrivals) - before == 1
    bursts.check()


@needs_tls
@pytest.mark.parametrize("size, count", [(16384, 30), (9000, 40), (100, 700), (100, 5000)])
def test_burst(bursts, size, count):
    """A burst arrives complete and in order, whatever its length and the size of its payloads."""
    for turn in range(8):
        bursts.send("{}", [of_frame(size - turn).replace("x", str(n % 10)) for n in range(count + turn)])
    bursts.check()


@needs_tls
def test_thousands_pipelined(streamd, tls_valkey, pki):
    """8 MB published while the daemon reads arrive complete and in order."""
    valkey = tls_valkey()
    daemon = streamd(**settings(pki, valkey.tls_port), SSE_BACKLOG_BYTES=16777216)
    payloads = [of_frame(16384 if number % 16 == 0 else 200).replace("x", str(number % 10))
                for number in range(5000)]
    with daemon.stream("ann") as peer:
        valkey.publish_all(user_channel("ann"), payloads)
        peer.wait(lambda p: len(p.events.data) > len(payloads), 30, "all of them")
        assert peer.events.data == [SYNC_DATA, *payloads]


@needs_tls
def test_many_channels(streamd, tls_valkey, pki):
    """400 streams that open and close at once get their wake-ups."""
    valkey = tls_valkey()
    daemon = streamd(**settings(pki, valkey.tls_port))
    peers = [daemon.open(f"user{number}") for number in range(400)]
    servers.fcgi.wait_all(peers, servers.fcgi.live, 30, "sync")
    for number, peer in enumerate(peers):
        valkey.publish(user_channel(f"user{number}"), notification(number))
    for number, peer in enumerate(peers):
        peer.wait_data(notification(number))
        peer.close()
    valkey.wait_subscribers(user_channel("user7"), 0)


@needs_tls
def test_restarted(streamd, tls_valkey, pki):
    """After each restart of the server, an open stream gets one sync and its wake-ups."""
    valkey = tls_valkey()
    daemon = streamd(**settings(pki, valkey.tls_port), SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        for number in range(3):
            (valkey.kill, valkey.stop)[number % 2]()
            valkey.start()
            peer.wait(lambda p, n=number: after_first(p).count(SYNC) == n + 1, 20, "another sync")
            valkey.publish(user_channel("ann"), notification(number))
            peer.wait_data(notification(number))


@needs_tls
@pytest.mark.slow
def test_silent(streamd, tls_valkey, pki):
    """The daemon keeps an idle connection, and notices within 15 s that the server is silent."""
    valkey = tls_valkey()
    daemon = streamd(**settings(pki, valkey.tls_port), SSE_SYNC_SPREAD_MS=0, SSE_HEARTBEAT_MS=600000)
    with daemon.stream("ann") as peer:
        eventually(lambda: pings(valkey) > 1, 30, "two PINGs, the first of which was answered")
        assert after_first(peer.quiet(0)) == b"" and not daemon.matching("no data")
        valkey.pause()
        daemon.wait_for_log(r"^\[valkey\] .*no data from the server", 15 + scaled(3))
        valkey.resume()
        peer.wait(lambda p: after_first(p) == SYNC, 20, "the second sync")


@needs_tls
def test_idle_costs_nothing(streamd, tls_valkey, pki):
    """The subscriber thread sleeps when nothing arrives, also after a burst that filled its buffer."""
    valkey = tls_valkey()
    daemon = streamd(**settings(pki, valkey.tls_port), SSE_BACKLOG_BYTES=16777216)
    with daemon.stream("ann") as peer:
        payloads = [of_frame(16384)] * 30
        valkey.publish_all(user_channel("ann"), payloads)
        peer.wait(lambda p: len(p.events.data) == 31, what="the burst")
        before = processor_time(daemon)
        time.sleep(2)
        assert processor_time(daemon) - before < 0.2


@needs_tls
def test_renewed(streamd, tls_valkey, pki, rundir):
    """The daemon uses replaced TLS files from the next connection on, without a restart."""
    files = {name: os.path.join(rundir, name) for name in ("ca", "crt", "key")}

    def install(ca, client):
        for name, source in zip(files.values(), (ca, *client)):
            shutil.copy(source, name + ".new")
            os.utime(name + ".new", (1, 1))  # a file with a recent time is read again in any case
            os.replace(name + ".new", name)

    install(pki.other.pem, pki.stranger)
    valkey = tls_valkey(pki.server, "yes")
    daemon = streamd(**settings(pki, valkey.tls_port, client=(files["crt"], files["key"]), ca=files["ca"]))
    daemon.wait_for_log("unknown authority")
    install(pki.ours.pem, pki.client)
    check_works(daemon, valkey)
    mark = daemon.mark()
    os.unlink(files["key"])
    valkey.restart()
    daemon.wait_for_log(r"VALKEY_TLS_KEY=\S+: No such file or directory", start=mark)
    install(pki.ours.pem, pki.client)
    check_works(daemon, valkey)


# tpi-publish

@needs_tls
@pytest.mark.parametrize("size, count", [(8, 5000), (16000, 1500)])
def test_batch(tls_valkey, pki, size, count):
    """A batch arrives complete and in order, however often TLS makes tpi-publish repeat a write."""
    valkey = tls_valkey(None, "no", "--client-output-buffer-limit", "pubsub 0 0 0")
    lines = [{"stream": "notification", "user": "u", "id": f"{number:08}" + "x" * (size - 8)}
             for number in range(count)]
    subscriber = Subscriber(valkey)
    result = run("batch", stdin=lines_of(*lines), **settings(pki, valkey.tls_port))
    assert result.status == 0, result.err
    assert result.out + result.err.encode() != b"" and f"published {count}" in result.err + result.out.decode()
    for line in lines:
        assert f'"id":"{line["id"]}"'.encode() in subscriber.next()[1]
    subscriber.client.close()


@needs_tls
def test_batch_into_a_full_socket(tls_valkey, pki):
    """A batch written while Valkey does not read arrives complete and in order."""
    valkey = tls_valkey(None, "no", "--client-output-buffer-limit", "pubsub 0 0 0")
    lines = [{"stream": "notification", "user": "u", "id": f"{number:08}" + "x" * 15992} for number in range(950)]
    subscriber = Subscriber(valkey)
    publish = subprocess.Popen([servers.program("tpi-publish"), "batch", "--timeout", "60000"],
                               env=servers.clean_environment(**settings(pki, valkey.tls_port)),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        publish.stdin.write(lines_of(lines[0]))
        publish.stdin.flush()
        assert lines[0]["id"].encode() in subscriber.next()[1]
        valkey.pause()
        publish.stdin.write(lines_of(*lines[1:]))
        publish.stdin.flush()
        valkey.resume()
        _, error = publish.communicate(timeout=scaled(30))
        assert publish.returncode == 0, error
    finally:
        publish.kill()
        publish.wait()
    for line in lines[1:]:
        assert f'"id":"{line["id"]}"'.encode() in subscriber.next()[1]
    subscriber.client.close()


@needs_tls
def test_batch_refused(tls_valkey, pki):
    """tpi-publish reads every reply, also when they exceed its buffer: all 3000 refusals are counted."""
    valkey = tls_valkey()
    valkey("ACL", "SETUSER", "limited", "on", ">pw", "resetchannels", "+@all")
    lines = lines_of(*({"stream": "notification", "user": "u", "id": str(n)} for n in range(3000)))
    result = run("batch", "--timeout", "4000", stdin=lines,
                 **settings(pki, valkey.tls_port, "limited:pw@localhost"))
    assert result.status == 69 and "refused 3000" in result.err


# Connections that fail

def check_refused(streamd, env, regex, publish=None):
    """Both programs report this error, the daemon in one line, however often it tries. publish: another regex for the
    error of tpi-publish."""
    daemon = streamd(**env)
    check_later(daemon.ask())
    daemon.wait_for_log(regex)
    time.sleep(0.5)  # two attempts at least: the backoff begins with 100 ms
    lines = daemon.matching(ABOUT_VALKEY)
    assert lines and all(re.search(regex, line) for line in lines), lines
    assert len(lines) == 1, lines
    result = run(*USER, **env)
    assert result.status == 69 and re.search(publish or regex, result.line()), result.err


UNKNOWN = "TLS: the server's certificate is from an unknown authority"


@needs_tls
@pytest.mark.parametrize("name, host, regex", [
    ("other authority", "localhost", UNKNOWN),
    ("self-signed", "localhost", "TLS: the server's certificate is self-signed"),
    ("expired", "localhost", "TLS: the server's certificate has expired"),
    ("early", "localhost", "TLS: the server's certificate is not valid yet"),
    ("other name", "localhost", "TLS: the server's certificate is for another name"),
    ("other name", "127.0.0.1", "TLS: the server's certificate is not for this address"),
    ("name alone", "127.0.0.1", "TLS: the server's certificate is not for this address"),
])
def test_bad_server(streamd, tls_valkey, pki, name, host, regex):
    """A server certificate that cannot be verified is refused, and the error says why."""
    check_refused(streamd, settings(pki, tls_valkey(pki.names[name]).tls_port, host), regex)


@needs_tls
def test_system_authorities_refuse(streamd, tls_valkey, pki):
    """Without VALKEY_TLS_CA the system's authorities decide, and refuse a certificate of the test's own."""
    env = settings(pki, tls_valkey().tls_port)
    del env["VALKEY_TLS_CA"]
    check_refused(streamd, env, UNKNOWN)


@needs_tls
def test_system_authorities_accept(streamd, tls_valkey, pki):
    """Without VALKEY_TLS_CA a certificate of one of the system's authorities is accepted."""
    valkey = tls_valkey()
    env = settings(pki, valkey.tls_port)
    env["SSL_CERT_FILE"] = env.pop("VALKEY_TLS_CA")
    check_works(streamd(**env), valkey)


@needs_tls
@pytest.mark.parametrize("protocol, client, regex", [
    ("TLSv1.3", None, "TLS: the server requires a client certificate"),
    ("TLSv1.3", "stranger", "TLS: the server does not trust VALKEY_TLS_CERT"),
    ("TLSv1.2", None, "TLS: .*(alert|client certificate)"),
    ("TLSv1.2", "stranger", "TLS: the server does not trust VALKEY_TLS_CERT"),
])
def test_bad_client(streamd, tls_valkey, pki, protocol, client, regex):
    """The error says that the server requires a client certificate, or does not trust the one it got."""
    valkey = tls_valkey(None, "yes", "--tls-protocols", protocol)
    check_refused(streamd, settings(pki, valkey.tls_port, client=getattr(pki, client) if client else None), regex)


@needs_tls
def test_plain_server(streamd, new_valkey, pki):
    """A valkeys:// URL to a port without TLS is an error that says so. (The server may ignore the handshake, and then
    tpi-publish may reach its own time limit first.)"""
    valkey = new_valkey(tcp=True).start()
    error = "TLS: .*speak TLS on this port"
    check_refused(streamd, settings(pki, valkey.port), error, publish=f"{error}|no answer within 2000 ms")


@needs_tls
def test_plain_url(streamd, tls_valkey):
    """With a valkey:// URL to a TLS port, the error is that the server closed the connection."""
    env = {"VALKEY_URL": f"valkey://localhost:{tls_valkey().tls_port}"}
    check_refused(streamd, env, "the server closed the connection")


class StallingServer:
    """Accepts connections, sends the reply to each, a byte every 50 ms, then closes the connection or stays silent."""

    def __init__(self, reply=b"", close=False):
        self.reply, self.close_then = reply, close
        self.listener = listening_socket(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ended = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while not self.ended:
            try:
                threading.Thread(target=self._talk, args=(self.listener.accept()[0],), daemon=True).start()
            except OSError:
                return

    def _talk(self, peer):
        with peer, peer.makefile("rb", 0) as file:
            try:
                file.read(1)
                for byte in self.reply:
                    peer.sendall(bytes([byte]))
                    time.sleep(0.05)
                while not self.close_then and file.read(65536):
                    pass
            except OSError:
                pass

    def stop(self):
        self.ended = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


RECORD = b"\x16\x03\x03\x20\x00\x02\x00\x1f\xfc\x03\x03" + bytes(200)  # the beginning of a ServerHello of 8 KiB


@needs_tls
@pytest.mark.parametrize("reply", [b"", RECORD], ids=["silent", "slow"])
def test_handshake_stalls(streamd, pki, reply):
    """Both programs give up a handshake that stalls when its time limit is over, and the daemon's exit is in time."""
    stalling = StallingServer(reply)
    env = settings(pki, stalling.port, "127.0.0.1")
    daemon = streamd(**env)
    started = time.monotonic()
    daemon.wait_for_log(r"^\[valkey\] unreachable .*handshake timed out", timeout=4)
    check_later(daemon.ask())
    assert time.monotonic() - started < 2 + scaled(2)
    result = run(*USER, "--timeout", "700", **env)
    assert result.status == 69 and 0.6 < result.seconds < 0.7 + scaled(1.5)
    assert "in time" in result.line() or "no answer within 700 ms" in result.line()
    assert daemon.stop() < scaled(3)
    stalling.stop()


@needs_tls
@pytest.mark.parametrize("reply, regex", [
    (b"", "TLS: the server closed the connection"),
    (b"-ERR unknown command\r\n", "TLS: the server does not speak TLS on this port"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "TLS: .+"),
    (b"\x15\x03\x03\x00\x02\x02\x28", "TLS: .*handshake failure"),
    (b"\x15\x03\x03\x00\x02\x02\x46", "TLS: the server does not support TLS 1.2 or newer"),
], ids=["no reply", "RESP", "HTTP", "alert", "old version"])
def test_handshake_fails(streamd, pki, reply, regex):
    """A failed handshake is logged with its reason, and the daemon tries again without a busy loop."""
    failing = StallingServer(reply, close=True)
    daemon = streamd(**settings(pki, failing.port))
    daemon.wait_for_log(rf"^\[valkey\] unreachable .*{regex}")
    before = processor_time(daemon)
    time.sleep(1)
    assert processor_time(daemon) - before < 0.3
    assert all(line.isascii() and line.isprintable() for line in daemon.lines["stderr"])
    failing.stop()


@needs_tls
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_old_versions_are_refused(streamd, pki):
    """A server that supports nothing newer than TLS 1.1 is refused, and the error says so."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.server)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with listening_socket(("127.0.0.1", 0)) as listener:
        def serve():
            while True:
                try:
                    context.wrap_socket(listener.accept()[0], server_side=True).close()
                except ssl.SSLError:
                    pass
                except OSError:
                    return
        threading.Thread(target=serve, daemon=True).start()
        daemon = streamd(**settings(pki, listener.getsockname()[1]))
        daemon.wait_for_log("TLS: the server does not support TLS 1.2 or newer")
        listener.shutdown(socket.SHUT_RDWR)


# Configuration

@needs_tls
def test_bad_configuration(pki, rundir):
    """An unusable file, or a certificate without its key, is exit 78 with one line that names the setting."""
    junk, locked, fifo = (os.path.join(rundir, name) for name in ("junk", "locked", "fifo"))
    with open(junk, "w", encoding="ascii") as file:
        file.write("-----BEGIN NOTHING-----\n")
    os.mkfifo(fifo)
    subprocess.run(["openssl", "pkcs8", "-topk8", "-in", pki.client[1], "-passout", "pass:x", "-out", locked],
                   check=True)
    certificate, key = pki.client
    url = {"VALKEY_URL": "valkeys://h"}
    both = {**url, "VALKEY_TLS_CERT": certificate, "VALKEY_TLS_KEY": key}
    for env, words in [
            ({**url, "VALKEY_TLS_CA": "/missing"}, "VALKEY_TLS_CA=/missing: No such file or directory; must be"),
            ({**url, "VALKEY_TLS_CA": rundir}, "VALKEY_TLS_CA=.*: Is a directory"),
            ({**url, "VALKEY_TLS_CA": fifo}, "VALKEY_TLS_CA=.*: Invalid argument"),
            ({**url, "VALKEY_TLS_CA": junk}, "VALKEY_TLS_CA=.*junk: "),
            ({**url, "VALKEY_TLS_CA": "/dev/null"}, "VALKEY_TLS_CA=/dev/null: "),
            ({**both, "VALKEY_TLS_KEY": ""}, "VALKEY_TLS_CERT, VALKEY_TLS_KEY: set both or neither"),
            ({**both, "VALKEY_TLS_CERT": ""}, "VALKEY_TLS_CERT, VALKEY_TLS_KEY: set both or neither"),
            ({**both, "VALKEY_TLS_CERT": "/missing"}, "VALKEY_TLS_CERT=/missing: No such file"),
            ({**both, "VALKEY_TLS_CERT": junk}, "VALKEY_TLS_CERT=.*junk: "),
            ({**both, "VALKEY_TLS_KEY": "/missing"}, "VALKEY_TLS_KEY=/missing: No such file"),
            ({**both, "VALKEY_TLS_KEY": junk}, "VALKEY_TLS_KEY=.*junk: .*without a passphrase"),
            ({**both, "VALKEY_TLS_KEY": locked}, "VALKEY_TLS_KEY=.*locked: .*without a passphrase"),
            ({**both, "VALKEY_TLS_KEY": pki.stranger[1]}, "VALKEY_TLS_KEY=.*: is not the key of VALKEY_TLS_CERT=")]:
        for result in run_streamd("--check-config", **env), run_streamd(**env):
            assert result.returncode == 78 and re.match(f"tpi-streamd: {words}", result.stderr), (env, result.stderr)
            assert result.stderr.count("\n") == 1
        result = run(*USER, **env)
        assert result.status == 78 and re.match(words, result.line()), (env, result.err)
        # Files that a command does not need are not read.
        assert run(*USER, "--dry-run", **env).status == 0
        assert run(*USER, "--url", f"unix://{rundir}/none", **env).status == 69


@needs_tls
@pytest.mark.parametrize("name", ["VALKEY_TLS_CA", "VALKEY_TLS_CERT"])
def test_settings_without_a_url(pki, name):
    """TLS settings without a TLS URL are exit 78: they would suggest that the connection is encrypted."""
    env = {"VALKEY_URL": "valkey://h", name: pki.ours.pem}
    if name == "VALKEY_TLS_CERT":
        env["VALKEY_TLS_KEY"] = pki.ours.key
    words = f"{name}: is set, but VALKEY_URL is not a valkeys:// or rediss:// URL"
    result = run_streamd("--check-config", **env)
    assert result.returncode == 78 and result.stderr == f"tpi-streamd: {words}\n"
    result = run(*USER, **env)
    assert result.status == 78 and result.line() == words


@needs_tls
def test_effective_settings(pki):
    """--check-config prints the TLS settings, and masks the password."""
    env = {**settings(pki, 1, "u:s3cret@h", pki.client)}
    result = run_streamd("--check-config", **env)
    assert result.returncode == 0 and "s3cret" not in result.stdout
    shown = result.stdout.splitlines()
    assert {f"{name}={env[name]}" for name in env if "TLS" in name} <= set(shown)
    assert "VALKEY_URL=valkeys://u:***@h:1" in shown
