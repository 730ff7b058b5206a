# SPDX-License-Identifier: ISC
"""tpi-stream-doctor and what other machines send: malformed answers, endless ones, and secrets."""

import contextlib
import gzip
import itertools
import json
import random
import socket
import threading
import time
import zlib

import pytest

from test_doctor import doctor, opens, stand_in  # noqa: F401 (fixtures)
from test_doctor_parts import CHUNKED, FIRST, HEAD, chunk, parts, response  # noqa: F401 (a fixture)
from timing import scaled

OK = b"HTTP/1.1 200 OK\r\n"
STREAM = b"Content-Type: text/event-stream\r\n"
BIG = b"9" * 5000
DEEP = b"[" * 60000

# What a server sends for the stream, and words of the finding.
MALFORMED = {
    "no head": (b"", "closed"),
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n", "not HTTP/1.1"),
    "binary": (bytes(range(256)), "not HTTP/1.1"),
    "status": (b"HTTP/1.1 2e2 OK\r\n\r\n", "not HTTP/1.1"),
    "status of ten digits": (b"HTTP/1.1 2000000000 OK\r\n\r\n", "not HTTP/1.1"),
    "endless head": (OK + b"X: y\r\n" * 20000, "not HTTP/1.1"),
    "interim answers": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000, "not HTTP/1.1"),
    "length": (OK + b"Content-Length: abc\r\n\r\nx", "Content-Length that is not a number"),
    "huge length": (OK + b"Content-Length: " + BIG + b"\r\n\r\nx", "Content-Length that is not a number"),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", "Content-Length that is not a number"),
    "negative length": (OK + b"Content-Length: -1\r\n\r\nx", "Content-Length that is not a number"),
    "coding": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\nx", "unknown Transfer-Encoding"),
    "chunk": (CHUNKED + b"zz\r\n", "chunk without a length"),
    "negative chunk": (CHUNKED + b"-5\r\nabcde\r\n", "chunk without a length"),
    "underscore chunk": (CHUNKED + b"1_0\r\n", "chunk without a length"),
    "huge chunk": (CHUNKED + b"f" * 40 + b"\r\nabc", "chunk without a length"),
    "endless chunk line": (CHUNKED + b"1;" + b"x" * 100000, "chunk without a length"),
    "longer chunk": (CHUNKED + b"2\r\nabcd\r\n", "longer than its length"),
    "compressed": (HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\nnot gzip", "not compressed as it says"),
    "cut gzip": (HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"data: x\n\n")[:12], "ended"),
    "retry": (HEAD + b"retry: " + BIG + b"\n\n", "ended"),
    "retry in Arabic": (HEAD + "retry: \u0663\n\n".encode(), "ended"),
    "endless line": (HEAD + b"data: " + b"x" * 200000, "longer than"),
    "NUL and surrogates": (HEAD + b"data: \x00\xed\xa0\x80\xff\n\n", "ended"),
    "surrogate in JSON": (FIRST[:-1] + b'data: {"event":"\\ud800","id":"\\udfff"}\n\n', "arrived|answer"),
    "deep JSON": (HEAD + b"data: " + DEEP + b"\n\n", "ended"),
    "JSON number": (HEAD + b'data: {"event":' + BIG + b"}\n\n", "ended"),
    "JSON list": (HEAD + b'data: [{"event":"sync"}]\n\n', "ended"),
    "JSON event": (HEAD + b'data: {"event":{"sync":[]}}\n\n', "ended"),
    "location": (b"HTTP/1.1 302 X\r\nLocation: http://[::1/x\r\nContent-Length: 0\r\n\r\n", "redirected"),
    "location port": (b"HTTP/1.1 302 X\r\nLocation: http://h:99999999/\r\nContent-Length: 0\r\n\r\n", "redirected"),
    "no location": (b"HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n", "redirected"),
    "error of another type": (b'HTTP/1.1 404 X\r\nContent-Length: 14\r\n\r\n{"error":[1,2]}', "404"),
    "deep error": (b"HTTP/1.1 404 X\r\nContent-Length: 60000\r\n\r\n" + DEEP, "404"),
    "unknown status": (b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", "999"),
    "terminal escapes": (b"HTTP/1.1 418 X\r\nServer: \x1b[2J\x9b\r\nContent-Length: 0\r\n\r\n", "418"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_answers(stand_in, doctor, name):  # noqa: F811
    """Each is a finding, never a traceback, and none takes longer than an answer may."""
    data, words = MALFORMED[name]
    server = stand_in(lambda handler: handler.send(data), other=lambda handler: handler.send(data))
    told = doctor(server.url, "--quick", "--timeout", scaled(2), who=())
    assert told.status in (0, 1) and told.findings["notifications: tpi-streamd"].state == "ok", told.stdout
    assert any(word in told.stdout for word in words.split("|")), told.stdout
    assert all(" " <= c <= "~" or c == "\n" for c in told.stdout)
    if words != "arrived|answer":
        assert told.status == 1, told.stdout


@pytest.mark.parametrize("name", [name for name, (data, _) in MALFORMED.items() if not data.startswith((HEAD[:40], b"X"))])
def test_malformed_probes(stand_in, doctor, name):  # noqa: F811
    """The same in answer to everything, the first HEAD included."""
    data, _ = MALFORMED[name]
    server = stand_in(lambda handler: handler.send(data), other=lambda handler: handler.send(data), probe=data)
    told = doctor(server.url, "--quick", "--timeout", scaled(1), who=("--cookie-file", "-"), stdin="a=secret-x\n")
    assert told.status in (0, 1) and len(told.findings) > 3, told.stdout


JSON_BODIES = [b"", b"null", b"[]", b'"x"', b"{", DEEP, b'{"user":null}', b'{"user":[]}', b'{"user":{"id":null}}',
               b'{"user":{"id":' + BIG + b"}}", b'{"user":{"id":{"a":1}}}', b'{"user":{"id":"a b"}}', b"\xff\xfe",
               b'{"status":[1],"reason":{"a":2}}', b'{"status":"x","reason":"\\ud800"}', b'{"data":7}',
               b'{"data":[null,7,{"id":[]}]}', b'{"error":{"message":[1]}}', b'{"error":7}', b'{"error":null}']


@pytest.mark.parametrize("body", JSON_BODIES)
def test_malformed_json(parts, body):  # noqa: F811
    """As the application's session and model, as health, and as an error of the daemon."""
    for status in (200, 401, 403, 404, 503):
        got = response(parts, (0.0, b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)))

        class Site:
            def get(self, *_, **__):
                return got
        assert parts.session_user(Site()) is None
        answers = parts.query_model(Site(), "issues", "7")
        assert not any(answer.readable for answer in answers)
        for settings in (None, {}, {"TPI_PROJECT_ACCESS": "app"}):
            finding = parts.judge_not_found("x", "test-run", got, *answers, settings)
            assert finding is None or finding.remedy
        assert parts.judge_health("x", got).text
        assert parts.judge_answer("x", got, parts.Site("https://example.org", [], None, 1), "cookie").remedy


@pytest.mark.parametrize("date", ["", "x", "Mon, 99 Foo 2026 99:99:99 GMT", "Mon, 01 Jan 0001 00:00:00 -0000", "9" * 5000,
                                  "Fri, 31 Dec 9999 23:59:59 -9999", "Mon, 01 Jan 99999999999 00:00:00 GMT"])
def test_malformed_dates(parts, date):  # noqa: F811
    got = response(parts, (0.0, b"HTTP/1.1 405 X\r\nDate: " + date.encode() + b"\r\n\r\n"))
    assert parts.judge_clock("x", got, 1e9).state in ("skipped", "FAILED")


def judge_all(parts, got):  # noqa: F811
    """Everything that is concluded from an answer."""
    site = parts.Site("https://example.org", [], None, 1)
    if got.status is not None:
        parts.judge_answer("x", got, site, "cookie")
        parts.judge_headers("x", got)
        parts.judge_sync("x", got, 1.0, {})
        parts.judge_clock("x", got, 1e9)
        parts.judge_health("x", got)
        parts.judge_last_event_id("x", got)
        parts.read_model_answer(got, "7")
    parts.judge_probe("x", got, got, site, "cookie")
    parts.judge_heartbeat("x", got, 99.0, 25.0)
    parts.judge_end("x", got, 99.0, {})
    parts.judge_silence("x", got, None, None)
    parts.judge_wakeups("x", parts.Delivery("issues", [parts.Published("m", 1.0, 0, "c", 1)], got), 1.0)


def test_mutated_answers(parts):  # noqa: F811
    """Correct answers with bytes changed, dropped, doubled: nothing but Malformed, and in bounded time."""
    packer = zlib.compressobj(wbits=31)
    squeezed = packer.compress(FIRST.partition(b"\r\n\r\n")[2]) + packer.flush()
    seeds = [FIRST + b": ping\ndata: {\"id\":\"m\"}\n\nretry: 9\nid: evicted\nevent: evicted\ndata: {}\n\n",
             CHUNKED + chunk(b"data: {\"event\":\"sync\"}\nretry: 7\n\n") + chunk(b": ping\n") + b"0\r\n\r\n",
             HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n" + squeezed,
             b"HTTP/1.1 302 X\r\nLocation: https://h:1/login?x\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\n"
             b"Content-Length: 15\r\n\r\n{\"error\":\"none\"}"]
    chance = random.Random(1)
    for turn in range(4000):
        data = bytearray(seeds[turn % len(seeds)])
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at:at + chance.randint(0, 3)] = chance.choice(
                [b"", bytes([chance.randrange(256)]), b"\r\n", b"\n\n", b":", b"-1", b"9" * 30, b"\xc3", data[at:at + 40]])
        got, size = parts.Response(0.0), chance.choice((1, 7, 1000))
        with contextlib.suppress(parts.Malformed):
            for at in range(0, len(data), size):
                got.feed(bytes(data[at:at + size]), float(at))
        if chance.random() < 0.8:
            got.close(9999.0)
        judge_all(parts, got)


# Budgets of bytes and time

def bomb(size):
    packer = zlib.compressobj(9, wbits=31)
    piece = packer.compress(b"\0" * 1024 * 1024)
    return piece + b"".join(packer.compress(b"\0" * 1024 * 1024) for _ in range(size - 1)) + packer.flush()


def test_bomb_in_an_answer(parts):  # noqa: F811
    """200 MiB of zeros, compressed: no more than the first 64 KiB are kept, and no more is decompressed than needed."""
    got = parts.Response(0.0)
    data = bomb(200)
    got.feed(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data) + data, 1.0)
    assert len(got.body) == parts.BODY_MAX and got.ended_at == 1.0 and not got.complete
    assert parts.STREAM_MAX - got.budget.left < len(data) + 3 * parts.PIECE + 1000


def test_bomb_in_a_stream(parts):  # noqa: F811
    """The same as a stream of empty comments: it ends at the budget."""
    got = parts.Response(0.0)
    packer = zlib.compressobj(9, wbits=31)
    data = b"".join(packer.compress(b"\n" * 1024 * 1024) for _ in range(50)) + packer.flush()
    with pytest.raises(parts.Malformed, match="longer than 16777216 bytes"):
        got.feed(HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n" + data, 1.0)
    assert not got.events and len(got.body) <= parts.BODY_MAX


def test_too_many_events(parts):  # noqa: F811
    got = parts.Response(0.0)
    with pytest.raises(parts.Malformed, match="more than 100000 events"):
        got.feed(HEAD + b":\n" * 100001, 1.0)


def pour(piece, pause=0.0):
    """Sends head and then the same bytes for ever."""
    def stream(handler):
        with contextlib.suppress(OSError):
            for data in itertools.chain(piece[:1], itertools.repeat(piece[1])):
                handler.connection.sendall(data)
                time.sleep(pause)
    return stream


@pytest.mark.parametrize("head, more, pause", [
    (OK + b"Content-Type: text/html\r\n\r\n", b"x" * 65536, 0), (OK + b"\r\n", b"x", 0.01),
    (OK, b"X-More: y\r\n", 0.01), (b"", b"HTTP/1.1 102 Wait\r\n\r\n", 0.01),
    (CHUNKED.replace(b"event-stream", b"html") + b"0\r\n", b"X: y\r\n", 0.01)],
    ids=["endless", "body", "head", "interim", "trailer"])
def test_slow_and_endless_answers(stand_in, doctor, head, more, pause):  # noqa: F811
    """Each answer has one time limit as a whole, which a byte now and then does not prolong."""
    server = stand_in(pour((head, more), pause), other=pour((head, more), pause))
    started = time.monotonic()
    told = doctor(server.url, "--quick", "--timeout", scaled(1), who=())
    assert told.status == 1 and "notifications: answer" in told.findings
    # Three such answers (stream, health, and /), and a start of Python.
    assert time.monotonic() - started < scaled(3 * 1 + 4)


def test_slow_handshake(doctor):  # noqa: F811
    """TLS as well: a byte now and then."""
    listener = socket.create_server(("127.0.0.1", 0))
    gone = threading.Event()

    def serve():
        peers = []
        with contextlib.suppress(OSError):
            while True:
                peers.append(listener.accept()[0])
                threading.Thread(target=drip, args=(peers[-1],), daemon=True).start()

    def drip(peer):
        with peer, contextlib.suppress(OSError):
            peer.sendall(b"\x16\x03\x03\x3f\xff")
            while not gone.wait(0.05):
                peer.sendall(b"\x02")
    threading.Thread(target=serve, daemon=True).start()
    started = time.monotonic()
    told = doctor("https://127.0.0.1:%d" % listener.getsockname()[1], "--timeout", 0.5, who=())
    taken = time.monotonic() - started
    gone.set()
    listener.close()
    assert "took too long" in told.only("TLS") and taken < 0.5 + scaled(3)


# Secrets

@pytest.fixture
def masked(parts):  # noqa: F811
    """remember(word, ...); forgotten afterwards."""
    yield parts.remember_secrets
    parts.secrets_known.clear()


def test_masked_before_it_is_cut(parts, masked):  # noqa: F811
    """No part of a secret is left at the end of a shortened text, nor one that cleaning has changed."""
    secret = "s3cr\u00e9t" * 20
    masked(secret)
    for before in range(40, 170, 7):
        shown = parts.plain("x" * before + secret + "y")
        assert "s3cr" not in shown and len(shown) < 170


@pytest.mark.parametrize("form", ["a/b c+d=e", "a%2Fb%20c%2Bd%3De", "a%2Fb+c%2Bd%3De", "a\\/b c+d=e"])
def test_other_forms_of_a_secret(parts, masked, form):  # noqa: F811
    """Percent-encoded and in JSON."""
    masked("a/b c+d=e")
    assert parts.plain(f"next={form}&x") == "next=***&x"
    masked("%22quoted%22")
    assert parts.plain('<"quoted">') == "<***>"


@pytest.mark.parametrize("text", [
    "valkey://user:SECRET@host:1/0", "redis://:SECRET@h", "cannot connect to rediss://u:SEC@RET/SECRET@h: refused",
    "Authorization: Basic SECRET", "authorization=Bearer SECRET,x", "Set-Cookie: a=SECRET; Path=/; b=SECRET",
    '{"cookie": "session=SECRET"}', "Proxy-Authorization:SECRET", "Bearer SECRETSECRET"])
def test_unknown_secrets(parts, text):  # noqa: F811
    """What looks like credentials is masked although nobody knows it to be secret."""
    assert "***" in parts.plain(text) and "SECRET" not in parts.plain(text)


def test_passwords_of_settings(parts, masked, tmp_path):  # noqa: F811
    """Those that the environment holds, or files that it names."""
    path = tmp_path / "password"
    path.write_text("in-a-file\r\n", encoding="ascii")
    parts.remember_passwords({"VALKEY_URL": "valkey://u:in-a-url@h,redis://:other@i", "VALKEY_PASSWORD_FILE": str(path),
                              "VALKEY_SENTINEL_PASSWORD": "of-sentinels", "TPI_APP_URL": "http://a:b-secret@c"})
    for word in "in-a-url", "other", "in-a-file", "of-sentinels", "b-secret":
        assert parts.plain(f"it says {word}!") == "it says ***!"


def test_nothing_of_ours_is_masked(parts):  # noqa: F811
    """The remedies do not look like secrets."""
    texts = [value for row in (*parts.ANSWERS, *parts.PUBLISH_ERRORS, *parts.TIME_LIMITS, *parts.HEALTH_REMEDIES)
             for value in row if isinstance(value, str)]
    texts += [*parts.CERTIFICATE.values(), parts.NO_IDENTITY, parts.PASS_ON, parts.SCRIPTS, parts.COMPARE]
    assert all(parts.mask(text) == text for text in texts)


def test_errors_of_a_server_that_echoes(stand_in, doctor):  # noqa: F811
    """The cookie in each place that is printed, at each position around the cut."""
    def echo(handler):
        place = int(handler.target.rpartition("n=")[2] or 0) if "n=" in handler.target else 120
        handler.send(b"HTTP/1.1 302 X\r\nLocation: /" + b"x" * place + b"SECRET-cookie-of-length\r\n"
                     b"Server: " + b"y" * 140 + b"SECRET-cookie-of-length\r\nContent-Length: 0\r\n\r\n")
    told = doctor(stand_in(echo).url, who=("--cookie-file", "-"), stdin="session=SECRET-cookie-of-length\n")
    assert "SEC" not in told.stdout and told.status == 1 and json.loads(told.stdout)["ok"] is False
