# SPDX-License-Identifier: ISC
"""fuzz_doctor: whatever a server sends, tpi-stream-doctor reads it or raises Malformed (response.py), in the same way
in whatever pieces it arrives, and every text about it is one line of printable ASCII. The events of a stream are
those that a second parser finds (tests/e2e/eventstream.py).

The first byte of the input selects the method and the size of the pieces in which the rest arrives. Needs atheris.
"""

import os
import sys

import atheris

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.dont_write_bytecode = True
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests", "e2e")]

with atheris.instrument_imports(include=["doctor"]):
    from doctor import answers, application, health, response, stream, untrusted

from eventstream import EventStream  # noqa: E402


class Site:
    """Answers every query with one response."""

    tls = False

    def __init__(self, got):
        self.got = got

    def get(self, *_, **__):
        return self.got


def read(data, method, size):
    """The response to a request with this method, or None if it is malformed."""
    got = response.Response(0.0, method, untrusted.Budget(1 << 20))
    try:
        for at in range(0, len(data), size):
            got.feed(data[at:at + size], 1.0)
    except untrusted.Malformed as error:
        assert str(error).isprintable()
        return None
    got.close(2.0)
    return got


def content(got):
    """What must not depend on the pieces in which it arrived."""
    return got and (got.status, got.headers, bytes(got.body), got.complete,
                    [(event.data, event.event, event.id, event.retry, event.comment) for event in got.events])


def check_events(got):
    """A stream whose body is kept in full has the events that the second parser finds."""
    if not got.is_stream or len(got.body) == response.BODY_MAX:
        return
    second = EventStream()
    second.feed(bytes(got.body))
    found = [(event.event or "message", event.data) for event in got.events if event.data is not None]
    expected = [(event.type, event.data) for event in second.events]
    # A CR at the end may be the first half of a CRLF, for which the doctor waits.
    assert found == expected or (got.body.endswith(b"\r") and found == expected[:-1]), (found, expected)


def check_judgements(got):
    """Every text about the answer is one line that a terminal can show."""
    site = Site(got)
    findings = [stream.judge_headers("s", got), stream.judge_sync("s", got, 1.0, {}),
                answers.judge_probe("s", got, None, site, "cookie"),
                answers.judge_probe("s", response.Response(0.0), got, site, "nothing"),
                answers.judge_answer("s", got, site, "user"),
                health.judge_health("s", got), health.judge_clock("s", got, 0.0)]
    answer = application.read_model_answer(got, "7")
    findings.append(application.judge_not_found("s", "issues", got, answer, answer, None))
    for item in findings:
        assert item is None or all(" " <= c <= "~" for c in item.text + (item.remedy or "")), item
    user = application.session_user(site)
    assert user is None or untrusted.plain(user, 255) == user or "***" in untrusted.plain(user, 255)


def one_input(data):
    if not data:
        return
    method = "HEAD" if data[0] & 1 else "GET"
    whole, pieces = read(data[1:], method, 1 << 16), read(data[1:], method, 1 + data[0] // 2)
    assert content(whole) == content(pieces), (content(whole), content(pieces))
    if whole is None or whole.status is None:
        return
    assert len(whole.body) <= response.BODY_MAX and len(whole.events) <= len(data) + whole.budget.size
    check_events(whole)
    check_judgements(whole)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
