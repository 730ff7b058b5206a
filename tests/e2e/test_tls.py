# SPDX-License-Identifier: ISC
"""TLS between the programs and Valkey: a real server with certificates of the test's own, and servers that
stall. A build without TLS refuses it; the rest is skipped there."""

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


# A build without it

@pytest.mark.skipif(HAS_TLS, reason="this build has TLS")
@pytest.mark.parametrize("env", [{"VALKEY_URL": "valkeys://:s3cret@h"}, {"VALKEY_URL": "rediss://h:1"},
                                 {"VALKEY_TLS_CA": "/ca"}, {"VALKEY_TLS_CERT": "/cert"}, {"VALKEY_TLS_KEY": "/key"}],
                         ids=lambda env: "".join(env))
def test_refused_without(env):
    """A build without TLS says so of each setting that wants it, and exits with 78."""
    daemon, publish = run_streamd("--check-config", **env), run(*USER, **env)
    assert daemon.returncode == publish.status == 78
    for line in daemon.stderr, publish.err:
        assert line.count("\n") == 1 and "".join(env) in line and "this build has no TLS: it " in line
        assert "s3cret" not in line


@pytest.mark.skipif(HAS_TLS, reason="this build has TLS")
def test_url_refused_without():
    """The same of tpi-publish's option."""
    result = run(*USER, "--url", "rediss://h")
    assert result.status == 64 and "this build has no TLS: it " in result.line()


# Certificates

class Pki:
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
    """tls_valkey(certificate, auth=, extra...) starts one whose port speaks TLS; its socket is for the test."""
    def start(certificate=None, auth="no", *extra, **named):
        certificate, key = certificate or pki.server
        port = free_port()
        valkey = new_valkey(config=["--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key,
                                    "--tls-ca-cert-file", pki.ours.pem, "--tls-auth-clients", auth,
                                    *extra], **named)
        valkey.tls_port = port
        return valkey.start()
    return start


def published(valkey, *args, **env):
    """tpi-publish publishes one, which is heard."""
    subscriber = Subscriber(valkey)
    result = run(*USER, *args, **env)
    assert (result.status, result.err) == (0, "")
    assert subscriber.next() == (user_channel("u1"), USER_PAYLOAD)
    subscriber.client.close()


# It works

@needs_tls
@pytest.mark.parametrize("scheme", ["valkeys", "REDISS"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_works(streamd, tls_valkey, pki, scheme, host):
    """A stream has its sync and its wake-ups, and tpi-publish publishes, by a name and by an address."""
    valkey = tls_valkey()
    env = settings(pki, valkey.tls_port, host)
    env["VALKEY_URL"] = env["VALKEY_URL"].replace("valkeys", scheme)
    daemon = streamd(**env)
    check_works(daemon, valkey)
    published(valkey, **env)


@needs_tls
@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])
def test_versions(streamd, tls_valkey, pki, protocol):
    """Either version, with a password, and a certificate of the client's that the server wants."""
    valkey = tls_valkey(None, "yes", "--tls-protocols", protocol, password="s3cret")
    env = settings(pki, valkey.tls_port, ":s3cret@localhost", pki.client)
    check_works(streamd(**env), valkey)
    published(valkey, **env)


@needs_tls
def test_url_of_another_server(tls_valkey, pki, valkey):
    """tpi-publish --url goes before the environment, also to a server without TLS."""
    other = tls_valkey()
    env = settings(pki, other.tls_port)
    published(valkey, "--url", valkey.url, **env)
    published(other, "--url", env["VALKEY_URL"], **{**env, "VALKEY_URL": valkey.url})


@pytest.fixture
def tls_sentinel(rundir, tls_valkey, pki):
    """A primary and a sentinel, both by TLS alone."""
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
    """A URL for TLS is one for the sentinels and the primary that they name."""
    valkey, sentinel = tls_sentinel
    env = {**settings(pki, 1), "VALKEY_SENTINELS": sentinel.name}
    check_works(streamd(**env), valkey)
    published(valkey, **env)
    result = run(*USER, **env | {"VALKEY_TLS_CA": pki.other.pem})
    assert result.status == 69 and f"{sentinel.name}: TLS: " in result.line()
    result = run(*USER, VALKEY_URL="valkey://h", VALKEY_SENTINELS=sentinel.name)
    assert result.status == 69 and f"{sentinel.name}: the server closed the connection" in result.line()


@needs_tls
def test_several_nodes(streamd, tls_valkey, pki):
    """Each URL of a list says for itself whether it is for TLS, and one that is bad costs nobody the others."""
    valkey, bad = tls_valkey(), tls_valkey(pki.names["expired"])
    valkey("ACL", "SETUSER", "default", "-cluster")  # it is in none
    env = settings(pki, valkey.tls_port)
    env["VALKEY_URL"] = f"valkeys://localhost:{bad.tls_port},{env['VALKEY_URL']}"
    check_works(streamd(**env), valkey)
    published(valkey, **env)


def pings(valkey):
    found = re.search(rb"cmdstat_ping:calls=(\d+)", valkey("INFO", "commandstats"))
    return int(found.group(1)) if found else 0


class Bursts:
    """Sends bursts to a stream, each while the daemon is stopped, so that it finds all of it at once."""

    def __init__(self, valkey, daemon, peer):
        self.valkey, self.daemon, self.peer = valkey, daemon, peer
        self.expected = [SYNC_DATA]

    def send(self, first, payloads):
        """All arrives, and no PING was needed to shake the end of it out of OpenSSL."""
        channel = user_channel("ann")
        self.expected += [first, *payloads]
        before = pings(self.valkey)
        self.daemon.signal(signal.SIGSTOP)
        eventually(self._stopped, what="all threads have stopped")
        self.valkey.publish(channel, first)  # goes out by itself
        self.valkey.publish_all(channel, payloads)
        self.valkey("ECHO", "all is sent")  # the answers may come before that
        self.daemon.signal(signal.SIGCONT)
        self.peer.wait(lambda p: len(p.events.data) >= len(self.expected), 20, "the whole burst")
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
    """The daemon reads 64 KiB at a time: a burst that is a little longer, in records cut anywhere, is read to
    its end at once."""
    for step in range(60):
        size = 13000 + 55 * step
        bursts.send(of_frame(3000 + 100 * step), [of_frame(size - n).replace("x", str(n)) for n in range(4)])
    bursts.check()


@needs_tls
def test_burst_is_one_record(bursts):
    """What has come in one go goes to a stream in one go, in however many records of TLS it came."""
    before = len(bursts.peer.arrivals)
    bursts.send("{}", ['{"n":%d}' % n for n in range(200)])
    assert len(bursts.peer.arrivals) - before == 1
    bursts.check()


@needs_tls
@pytest.mark.parametrize("size, count", [(16384, 30), (9000, 40), (100, 700), (100, 5000)])
def test_burst(bursts, size, count):
    """A burst is whole and in order."""
    for turn in range(8):
        bursts.send("{}", [of_frame(size - turn).replace("x", str(n % 10)) for n in range(count + turn)])
    bursts.check()


@needs_tls
def test_thousands_pipelined(streamd, tls_valkey, pki):
    """Eight megabytes while the daemon reads: all whole and in order."""
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
    """Hundreds of streams join and leave in one go."""
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
    """The server goes and comes: a sync for the open streams, and all works again."""
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
    """A server that says nothing any more is noticed within 15 s, and one that is idle is kept."""
    valkey = tls_valkey()
    daemon = streamd(**settings(pki, valkey.tls_port), SSE_SYNC_SPREAD_MS=0)
    with daemon.stream("ann") as peer:
        peer.quiet(7)  # PING is sent, and answered
        valkey.pause()
        daemon.wait_for_log(r"^\[valkey\] .*silent", 15 + scaled(3))
        valkey.resume()
        peer.wait(lambda p: after_first(p) == SYNC, 20, "the second sync")


@needs_tls
def test_idle_costs_nothing(streamd, tls_valkey, pki):
    """The thread that reads sleeps when nothing comes, also behind what filled its buffer."""
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
    """Files that were replaced count from the next connection on, without a restart."""
    files = {name: os.path.join(rundir, name) for name in ("ca", "crt", "key")}

    def install(ca, client):
        for name, source in zip(files.values(), (ca, *client)):
            shutil.copy(source, name + ".new")
            os.utime(name + ".new", (1, 1))  # one that was written just now would be read anew without a change
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
    """A batch arrives whole and in order, however often a write has to be tried again."""
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
    """While Valkey reads nothing more is added behind what could not be sent: all of it arrives, in order."""
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
    """Answers that are longer than a buffer are taken to the last one."""
    valkey = tls_valkey()
    valkey("ACL", "SETUSER", "limited", "on", ">pw", "resetchannels", "+@all")
    lines = lines_of(*({"stream": "notification", "user": "u", "id": str(n)} for n in range(3000)))
    result = run("batch", "--timeout", "4000", stdin=lines,
                 **settings(pki, valkey.tls_port, "limited:pw@localhost"))
    assert result.status == 69 and "refused 3000" in result.err


# It does not work, and says why

def check_refused(streamd, env, regex):
    """Both programs say so; the daemon in one line, however often it was tried."""
    daemon = streamd(**env)
    check_later(daemon.ask())
    daemon.wait_for_log(regex)
    time.sleep(0.5)
    lines = daemon.matching(ABOUT_VALKEY)
    assert lines and all(re.search(regex, line) for line in lines), lines
    assert len(lines) == 1, lines
    result = run(*USER, **env)
    assert result.status == 69 and re.search(regex, result.line()), result.err


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
    """A certificate that is not good is refused, with the reason."""
    check_refused(streamd, settings(pki, tls_valkey(pki.names[name]).tls_port, host), regex)


@needs_tls
def test_authorities_of_the_system(streamd, tls_valkey, pki):
    """Without VALKEY_TLS_CA those of the system count, which do not know ours."""
    env = settings(pki, tls_valkey().tls_port)
    del env["VALKEY_TLS_CA"]
    check_refused(streamd, env, UNKNOWN)


@needs_tls
def test_system_trusts(streamd, tls_valkey, pki):
    """And where they know it, it is good."""
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
    """A server that wants a certificate of the client's does not get a good one."""
    valkey = tls_valkey(None, "yes", "--tls-protocols", protocol)
    check_refused(streamd, settings(pki, valkey.tls_port, client=getattr(pki, client) if client else None), regex)


@needs_tls
def test_plain_server(streamd, new_valkey, pki):
    """A server without TLS behind a URL with it: told by its answer, or by its silence."""
    valkey = new_valkey(tcp=True).start()
    check_refused(streamd, settings(pki, valkey.port), "TLS: .*speak TLS on this port")


@needs_tls
def test_plain_url(streamd, tls_valkey):
    """A URL without TLS before a server with it: it closes the connection."""
    env = {"VALKEY_URL": f"valkey://localhost:{tls_valkey().tls_port}"}
    check_refused(streamd, env, "the server closed the connection")


class Mute:
    """Accepts and reads, and answers with words, a byte every 50 ms; then it closes, or says no more."""

    def __init__(self, words=b"", close=False):
        self.words, self.close_then = words, close
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
                for byte in self.words:
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


RECORD = b"\x16\x03\x03\x20\x00\x02\x00\x1f\xfc\x03\x03" + bytes(200)  # a ServerHello of 8 KiB begins


@needs_tls
@pytest.mark.parametrize("words", [b"", RECORD], ids=["nothing", "slowly"])
def test_handshake_stalls(streamd, pki, words):
    """A handshake that does not come to its end is given up in time, and the daemon ends in time, too."""
    mute = Mute(words)
    env = settings(pki, mute.port, "127.0.0.1")
    daemon = streamd(**env)
    started = time.monotonic()
    daemon.wait_for_log(r"^\[valkey\] unreachable .*handshake timed out", timeout=4)
    check_later(daemon.ask())
    assert time.monotonic() - started < 2 + scaled(2)
    result = run(*USER, "--timeout", "700", **env)
    assert result.status == 69 and 0.6 < result.seconds < 0.7 + scaled(1.5)
    assert "in time" in result.line() or "no answer within 700 ms" in result.line()
    assert daemon.stop() < scaled(3)
    mute.stop()


@needs_tls
@pytest.mark.parametrize("words, regex", [
    (b"", "TLS: the server closed the connection"),
    (b"-ERR unknown command\r\n", "TLS: the server does not speak TLS on this port"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "TLS: .+"),
    (b"\x15\x03\x03\x00\x02\x02\x28", "TLS: .*handshake failure"),
    (b"\x15\x03\x03\x00\x02\x02\x46", "TLS: the server does not support TLS 1.2 or newer"),
], ids=["nothing", "RESP", "HTTP", "alert", "old"])
def test_handshake_fails(streamd, pki, words, regex):
    """What is no handshake costs the attempt, in words, without a busy loop."""
    mute = Mute(words, close=True)
    daemon = streamd(**settings(pki, mute.port))
    daemon.wait_for_log(rf"^\[valkey\] unreachable .*{regex}")
    before = processor_time(daemon)
    time.sleep(1)
    assert processor_time(daemon) - before < 0.3
    assert all(line.isascii() and line.isprintable() for line in daemon.lines["stderr"])
    mute.stop()


@needs_tls
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_old_versions_are_refused(streamd, pki):
    """A server that has nothing newer than TLS 1.1 is told by its answer."""
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


# Wrong configuration

@needs_tls
def test_wrong_configuration(pki, rundir):
    """A file that will not do, or a setting without its other, is exit 78 and a line that names it."""
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
        # What is not used is not looked at.
        assert run(*USER, "--dry-run", **env).status == 0
        assert run(*USER, "--url", f"unix://{rundir}/none", **env).status == 69


@needs_tls
@pytest.mark.parametrize("name", ["VALKEY_TLS_CA", "VALKEY_TLS_CERT"])
def test_settings_without_a_url(pki, name):
    """Settings that do nothing would make believe that the connection is safe."""
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
    """--check-config shows them, and no password."""
    env = {**settings(pki, 1, "u:s3cret@h", pki.client)}
    result = run_streamd("--check-config", **env)
    assert result.returncode == 0 and "s3cret" not in result.stdout
    shown = result.stdout.splitlines()
    assert {f"{name}={env[name]}" for name in env if "TLS" in name} <= set(shown)
    assert "VALKEY_URL=valkeys://u:***@h:1" in shown
