# SPDX-License-Identifier: ISC
"""tpi-publish against a real Valkey, in the order of its manual page."""

import errno
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

import servers
from servers import broadcast_channel, project_channel, user_channel
from test_torture import FUNCTIONS, Faults
from timing import scaled

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
USER = ("notification", "--user", "u1", "--id", "n1")
USER_PAYLOAD = b'{"id":"n1","event":"notification"}'
FAILED = "[tpi-publish] SSE publish failed "
ALLOWED = {0, 65, 66, 69, 71, 74, 78}  # exit statuses except that of wrong usage


class Result:
    """A finished tpi-publish, all of whose errors are its own lines, not a sanitizer's."""

    def __init__(self, status, out, err, seconds):
        self.status, self.out, self.seconds = status, out, seconds
        self.err = err.decode()
        self.lines = self.err.splitlines()
        assert not servers.REPORT.search(self.err), self.err
        assert all(re.match(r"tpi-publish: .|\[", line) for line in self.lines), self.err
        assert err in (b"", err.rstrip(b"\n") + b"\n"), err

    def line(self):
        assert len(self.lines) == 1, self.err
        return self.lines[0].removeprefix("tpi-publish: ")

    def warning(self, tag="tpi-publish"):
        prefix = f"[{tag}] SSE publish failed "
        assert self.line().startswith(prefix), self.err
        return json.loads(self.line().removeprefix(prefix))

    def silent(self, status=0):
        assert (self.status, self.out, self.err) == (status, b"", "")


def run(*args, stdin=None, timeout=60, popen=None, **env):
    began = time.monotonic()
    given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    given |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | (popen or {})
    done = subprocess.run([servers.program("tpi-publish"), *args], timeout=scaled(timeout),
                          env=servers.clean_environment(**env), check=False, **given)
    return Result(done.returncode, done.stdout or b"", done.stderr or b"",
                  time.monotonic() - began)


def lines_of(*members):
    return b"".join(json.dumps(member).encode() + b"\n" for member in members)


def notification(user, **more):
    return {"stream": "notification", "user": user, **more}


class Subscriber:
    """Receives everything that is published, in order."""

    def __init__(self, valkey):
        self.client = servers.ValkeyClient(valkey.address)
        if valkey.password:
            self.client("AUTH", valkey.password)
        self.valkey = valkey
        self.client("PSUBSCRIBE", "*")

    def next(self):
        kind, _, channel, payload = self.client.read()
        assert kind == b"pmessage"
        return channel.decode(), payload

    def nothing_more(self):
        """Checks that nothing else was published: a message published now arrives first."""
        self.valkey.publish("end", "end")
        assert self.next() == ("end", b"end")


@pytest.fixture
def subscriber(valkey):
    subscriber = Subscriber(valkey)
    yield subscriber
    subscriber.client.close()


@pytest.fixture
def publish(valkey):
    """publish(*args) runs tpi-publish with the shared Valkey."""
    def call(*args, **named):
        return run(*args, **{"VALKEY_URL": valkey.url, **named})
    return call


# What is published

@pytest.mark.parametrize("args, env, channel, payload", [
    (USER, {}, user_channel("u1"), USER_PAYLOAD),
    (("notification", "--broadcast", "--id", "b"), {}, broadcast_channel(),
     b'{"id":"b","event":"SYSTEM_ANNOUNCEMENT"}'),
    (("issue", "--project", "7", "--issue", "42"), {}, project_channel(7),
     b'{"event":"issue-updated","issueId":42,"projectId":7}'),
    (("issue", "--project", "2147483647", "--issue", "1", "--event", "x"), {},
     project_channel(2147483647), b'{"event":"x","issueId":1,"projectId":2147483647}'),
    ((*USER, "--event", "e"), {}, user_channel("u1"), b'{"id":"n1","event":"e"}'),
    (("notification", "--broadcast", "--id", "b", "--event", "e"), {}, broadcast_channel(),
     b'{"id":"b","event":"e"}'),
    # Any UTF-8, escaped only where JSON requires it.
    (("notification", "--user", "u1", "--id", 'a"b\\c/d\n\t', "--event", "é€😀'<>&"), {},
     user_channel("u1"), '{"id":"a\\"b\\\\c/d\\n\\t","event":"é€😀\'<>&"}'.encode()),
    # The tenant: the option, then the environment, then "default"; an empty variable is unset.
    (USER, {"INSTANCE_TENANT_ID": "t1"}, user_channel("u1", "t1"), USER_PAYLOAD),
    ((*USER, "--tenant", "t2"), {"INSTANCE_TENANT_ID": "t1"}, user_channel("u1", "t2"),
     USER_PAYLOAD),
    ((*USER, "--tenant", "t2"), {"INSTANCE_TENANT_ID": "not good"}, user_channel("u1", "t2"),
     USER_PAYLOAD),
    (USER, {"INSTANCE_TENANT_ID": ""}, user_channel("u1"), USER_PAYLOAD),
    (("issue", "--project", "7", "--issue", "1", "--tenant", "t"),
     {"TPI_ISSUES_CHANNEL_PREFIX": "issue-updates"}, project_channel(7, "t", "issue-updates"),
     b'{"event":"issue-updated","issueId":1,"projectId":7}'),
    (("issue", "--project", "7", "--issue", "1"), {}, project_channel(7),
     b'{"event":"issue-updated","issueId":1,"projectId":7}'),
    (("issue", "--project", "7", "--issue", "1"), {"TPI_ISSUES_CHANNEL_PREFIX": " issue-updates, issues"},
     project_channel(7, prefix="issue-updates"), b'{"event":"issue-updated","issueId":1,"projectId":7}'),
    # Options may be anywhere, abbreviated, and joined with their value.
    (("--tenant", "t", "--id=n1", "notification", "--us", "u1"), {}, user_channel("u1", "t"),
     USER_PAYLOAD),
    (("notification", "--id", "n1", "--user", "u1"), {"POSIXLY_CORRECT": "1"}, user_channel("u1"),
     USER_PAYLOAD),
    (("--user", "notification", "--id", "n1", "--", "notification"), {},
     user_channel("notification"), USER_PAYLOAD),
    # Settings of tpi-streamd are ignored.
    (USER, {"SSE_PER_USER_CAP": "none", "TPI_LOG_LEVEL": "x"}, user_channel("u1"), USER_PAYLOAD),
])
def test_published(publish, subscriber, args, env, channel, payload):
    """A command publishes exactly one message, with this payload on this channel, and prints nothing."""
    publish(*args, **env).silent()
    assert subscriber.next() == (channel, payload)
    subscriber.nothing_more()


@pytest.mark.parametrize("args, channels, payload", [
    (("test-run", "--project", "7", "--run", "42"),
     ("live:tenant:default:testrun:42", "live:tenant:default:project:7:testruns"),
     b'{"event":"test_run.state_changed","runId":42,"projectId":7}'),
    (("test-run", "--project", "7", "--run", "42", "--target", "3", "--event", "test_run.completed",
      "--tenant", "t"),
     ("live:tenant:t:testrun:42", "live:tenant:t:project:7:testruns"),
     b'{"event":"test_run.completed","runId":42,"projectId":7,"targetId":3}'),
    (("milestone", "--project", "7", "--milestone", "9"),
     ("live:tenant:default:milestone:9", "live:tenant:default:project:7:milestones"),
     b'{"event":"milestone.updated","milestoneId":9,"projectId":7}'),
])
def test_published_to_both_channels(publish, subscriber, args, channels, payload):
    """A test run or milestone is published to its own channel and its project's, by a command and by a batch."""
    publish(*args).silent()
    for channel in channels:
        assert subscriber.next() == (channel, payload)
    options = dict(zip([name[2:] for name in args[1::2]], args[2::2]))
    line = {name: int(value) if value.isdigit() else value for name, value in options.items()}
    done = publish("batch", stdin=lines_of({"stream": args[0], **line}))
    assert (done.status, done.lines) == (0, ["tpi-publish: published 1, bad 0"])
    for channel in channels:
        assert subscriber.next() == (channel, payload)
    subscriber.nothing_more()
    done = publish(*args, "--verbose", "--dry-run")
    assert done.out.decode().splitlines() == [f"{channel} {payload.decode()}" for channel in channels]


def test_only_tenant(publish, subscriber):
    """With --only-tenant a line for another tenant is an error, and the other lines are published."""
    done = publish("batch", "--only-tenant", stdin=lines_of(
        notification("u", id="1"), notification("u", id="2", tenant="t"), notification("u", id="3", tenant="default")))
    assert done.status == 65
    assert done.lines == ["tpi-publish: line 2: tenant t: only default is allowed",
                          "tpi-publish: published 2, bad 1"]
    assert [subscriber.next()[0] for _ in range(2)] == [user_channel("u")] * 2
    subscriber.nothing_more()


def test_random_id(publish, subscriber):
    """Without --id each notification has its own random UUID."""
    seen = set()
    for args in (("--user", "u"), ("--user", "u"), ("--broadcast",)):
        publish("notification", *args).silent()
        seen.add(json.loads(subscriber.next()[1])["id"])
    assert len(seen) == 3
    assert all(re.fullmatch(UUID4, uuid) for uuid in seen), seen


def test_without_subscribers(publish):
    """Publishing succeeds without subscribers."""
    publish(*USER).silent()


def test_largest_payload(publish, subscriber):
    """The largest payload that tpi-streamd accepts is published; one byte more is an error."""
    longest = 16384 - len('data: {"id":"","event":"notification"}\n\n')
    publish("notification", "--user", "u", "--id", "x" * longest).silent()
    assert len(subscriber.next()[1]) == 16384 - len("data: \n\n")
    refused = publish("notification", "--user", "u", "--id", "x" * (longest + 1))
    assert refused.status == 64
    assert "over 16384 bytes" in refused.line()
    subscriber.nothing_more()


def test_verbose(publish, subscriber):
    """--verbose prints the number of subscribers."""
    done = publish(*USER, "--verbose")
    assert (done.status, done.err) == (0, "")
    assert done.out == b"notifications:tenant:default:user:u1: 1 subscriber\n"
    subscriber.client.close()


def test_url(publish, valkey, new_valkey):
    """--url takes precedence over VALKEY_URL, and may be a TCP address, an address with a database, or a name."""
    other = new_valkey(tcp=True).start()
    subscriber = Subscriber(other)
    publish(*USER, "--url", other.url).silent()
    publish(*USER, "--url", other.url.replace("valkey:", "redis:") + "/5",
            VALKEY_URL="nonsense").silent()
    publish(*USER, "--url", other.url.replace("127.0.0.1", "localhost")).silent()
    for _ in range(3):
        assert subscriber.next() == (user_channel("u1"), USER_PAYLOAD)
    subscriber.nothing_more()
    subscriber.client.close()


# Usage and configuration

@pytest.mark.parametrize("args, error", [
    ((), "a command is required: notification, issue, test-run, milestone, revoke or batch"),
    (("frobnicate",), "frobnicate: unknown command, must be notification, issue, test-run, milestone, revoke or batch"),
    (("",), ": unknown command, must be notification, issue, test-run, milestone, revoke or batch"),
    ((*USER, "more"), "more: unexpected argument"),
    (("batch", "a", "b"), "b: unexpected argument"),
    (("--frobnicate", *USER), "--frobnicate: unknown or ambiguous option"),
    (("--t", "x", *USER), "--t: unknown or ambiguous option"),
    (("-x", *USER), "-x: unknown option"),
    ((*USER, "--tenant"), "--tenant: requires a value"),
    ((*USER, "--quiet=1"), "--quiet: does not take a value"),
    (("issue", "--user", "u", "--project", "7", "--issue", "1"), "--user: not an option of issue"),
    (("notification", "--user", "u", "--user", "u"), "--user: can be given only once"),
    (("revoke", "--project", "7", "--project=8"), "--project: can be given only once"),
    (("notification", "--user", "u", "--project", "7"), "--project: not an option of notification"),
    (("batch", "--event", "e"), "--event: not an option of batch"),
    (("notification",), "exactly one of --user and --broadcast is required"),
    (("revoke",), "exactly one of --user and --project is required"),
    (("revoke", "--user", "u", "--project", "7"), "exactly one of --user and --project is required"),
    (("revoke", "--user", ""), "--user : must be 1 to 255 printable ASCII"),
    (("revoke", "--user", "u:1"), "--user u:1: must be 1 to 255 printable ASCII"),
    (("revoke", "--project", "0"), "--project 0: must be a whole number from 1 to 2147483647"),
    *((("revoke", "--user", "u", option, "1"), f"{option}: not an option of revoke")
      for option in ("--id", "--event", "--issue")),
    (("revoke", "--user", "u", "--broadcast"), "--broadcast: not an option of revoke"),
    ((*USER, "--broadcast"), "exactly one of --user and --broadcast is required"),
    (("issue", "--issue", "1"), "--project is required"),
    (("issue", "--project", "1"), "--issue is required"),
    (("test-run", "--project", "1"), "--run is required"),
    (("test-run", "--run", "1"), "--project is required"),
    (("test-run", "--project", "1", "--run", "1", "--target", "0"),
     "--target 0: must be a whole number from 1 to 2147483647"),
    (("milestone", "--project", "1"), "--milestone is required"),
    (("milestone", "--project", "1", "--run", "1"), "--run: not an option of milestone"),
    ((*USER, "--only-tenant"), "--only-tenant: not an option of notification"),
    *((("issue", "--issue", "1", "--project", bad),
       f"--project {bad}: must be a whole number from 1 to 2147483647")
      for bad in ("", "0", "-1", "+1", "01", " 1", "1 ", "1.0", "2147483648", "x", "4294967297")),
    *((("notification", "--user", bad), f"--user {bad[:40]}: must be 1 to 255 printable ASCII")
      for bad in ("", "a b", "a:b", "*", "a?", "[", "]", "\\", '"', "x" * 256)),
    (("notification", "--user", "\x1b[1m"), "--user ?[1m: must be 1 to 255 printable ASCII"),
    ((*USER, "--tenant", ""), "--tenant : must be 1 to 255 printable ASCII"),
    (("batch", "--tenant", "a b"), "--tenant a b: must be 1 to 255 printable ASCII"),
    (("notification", "--user", "u", "--id", ""), "--id: must not be empty"),
    ((*USER, "--event", ""), "--event: must not be empty"),
    ((*USER, "--event", "sync"), 'the payload has the event "sync"'),
    (("notification", "--user", "u", "--id", b"\xff"), "the payload is not UTF-8"),
    ((*USER, "--tag", ""), "--tag : must be"),
    ((*USER, "--tag", "a]b"), "--tag a]b: must be"),
    *(((*USER, "--timeout", bad),
       f"--timeout {bad}: must be a whole number from 1 to 3600000")
      for bad in ("", "0", "-1", "1.5", "3600001", "2s")),
    ((*USER, "--url", "http://u:secret@h"), "--url http://u:***@h: unknown scheme"),
    ((*USER, "--url", ""), "--url : unknown scheme"),
])
@pytest.mark.parametrize("more", [(), ("--best-effort", "--quiet")])
def test_usage(publish, subscriber, args, error, more):
    """Wrong usage exits with 64 and one line with the reason, and nothing is published."""
    # First, because the last option of args may lack its value.
    done = publish(*more, *args)
    assert (done.status, done.out) == (64, b"")
    assert done.line().startswith(error), done.err
    assert done.line().endswith(" (see tpi-publish --help)")
    assert "secret" not in done.err
    subscriber.nothing_more()


@pytest.mark.parametrize("env, error", [
    ({"INSTANCE_TENANT_ID": "a b"}, "INSTANCE_TENANT_ID=a b: must be"),
    ({"TPI_ISSUES_CHANNEL_PREFIX": "a,b:c"}, "TPI_ISSUES_CHANNEL_PREFIX=a,b:c: must be 1 to 4 different prefixes, "),
    ({"VALKEY_URL": "valkey://u:secret@h:x"}, "VALKEY_URL=valkey://u:***@h:x: the port must be"),
    ({"VALKEY_URL": "valkey://u:secret@h?password=secret"},
     "VALKEY_URL=valkey://u:***@h?***: the query may only be family=0, family=4 or family=6, not password; must be"),
    ({"VALKEY_PASSWORD_FILE": "/nonexistent"},
     "VALKEY_PASSWORD_FILE=/nonexistent: No such file or directory"),
    ({"VALKEY_PASSWORD_FILE": "/dev/null"},
     "VALKEY_PASSWORD_FILE=/dev/null: the first line is empty"),
])
def test_configuration(publish, env, error):
    """A bad setting exits with 78 and one line that names it, also with --best-effort."""
    for args in (USER, (*USER, "--best-effort", "--quiet"), ("batch",)):
        done = publish(*args, **env)
        assert (done.status, done.out) == (78, b"")
        assert done.line().startswith(error), done.err
        assert "secret" not in done.err


def test_help_and_version():
    """--help fits on a screen and lists each option and exit status; --version prints the version."""
    done = run("--help")
    assert (done.status, done.err) == (0, "")
    text = done.out.decode()
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 80
    for option in ("user", "broadcast", "id", "event", "project", "issue", "run", "milestone", "target", "tenant",
                   "url", "timeout", "only-tenant", "best-effort", "tag", "dry-run", "verbose", "quiet", "help",
                   "version"):
        assert f"--{option}" in text
    assert {"0", "64", "65", "66", "69", "71", "74", "78"} <= set(re.findall(r"\d+", text.partition("Exit status")[2]))
    assert run("batch", "--help").out == done.out
    done = run("--version")
    assert (done.status, done.err) == (0, "")
    assert re.fullmatch(rb"tpi-publish \d+\.\d+\S*\n", done.out)


# Dry run and output

def test_dry_run():
    """--dry-run needs no Valkey and prints channel and payload."""
    done = run("--dry-run", *USER, VALKEY_URL="unix:///nonexistent")
    assert (done.status, done.err) == (0, "")
    assert done.out == b"notifications:tenant:default:user:u1 " + USER_PAYLOAD + b"\n"


def test_dry_run_publishes_nothing(publish, subscriber):
    assert publish("--dry-run", *USER).status == 0
    assert publish("--dry-run", "batch", stdin=lines_of(notification("u"))).status == 0
    subscriber.nothing_more()


def test_dry_run_of_a_batch():
    """A dry run of a batch reports bad lines and prints what would be published."""
    done = run("batch", "--dry-run", stdin=b'{"stream":"issue","project":7,"issue":1}\nx\n'
               b'{"stream":"notification","broadcast":true,"id":"b","tenant":"t"}\n')
    assert done.status == 65
    assert done.out == (
        b'issues:tenant:default:project:7 {"event":"issue-updated","issueId":1,"projectId":7}\n'
        b'notifications:tenant:t:broadcast {"id":"b","event":"SYSTEM_ANNOUNCEMENT"}\n')
    assert done.lines == ["tpi-publish: line 2: is not one JSON object",
                          "tpi-publish: published 0, bad 1"]


def closed(number):
    return {"preexec_fn": lambda: os.close(number)}


@pytest.mark.parametrize("args", [("--dry-run", *USER), ("--help",), ("--version",)])
def test_unwritable_output(args):
    """Output that cannot be written exits with 74."""
    with open("/dev/full", "wb") as full:
        done = run(*args, popen={"stdout": full})
    assert done.status == 74
    assert done.line() == "cannot write to standard output: No space left on device"
    done = run(*args, popen=closed(1))
    assert done.status == 74
    assert done.line() == "cannot write to standard output: Bad file descriptor"
    reader, writer = os.pipe()
    os.close(reader)
    done = run(*args, popen={"stdout": writer})
    os.close(writer)
    assert done.status == 74


@pytest.mark.parametrize("number", [0, 1, 2])
def test_closed_descriptor(publish, subscriber, number):
    """With a standard descriptor closed tpi-publish works, and does not write output to Valkey's connection."""
    assert publish(*USER, "--verbose", popen=closed(number)).status == 0
    assert subscriber.next() == (user_channel("u1"), USER_PAYLOAD)
    done = publish("batch", stdin=None if number == 0 else lines_of(notification("u")),
                   popen={**closed(number), **({"stdin": None} if number == 0 else {})})
    assert done.status == (66 if number == 0 else 0)
    if number != 0:
        subscriber.next()
    subscriber.nothing_more()


def test_full_errors(publish):
    """An error that cannot be written to stderr does not change the exit status."""
    with open("/dev/full", "wb") as full:
        assert publish("batch", stdin=b"x\n", popen={"stderr": full}).status == 65
        assert run(*USER, VALKEY_URL="unix:///nonexistent", popen={"stderr": full}).status == 69


def full_pipe():
    """Returns both ends of a full pipe."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return reader, writer


def test_blocked_stderr():
    """A command ends within --timeout even if stderr is a full pipe."""
    reader, writer = full_pipe()
    in_time(run(*USER, "--timeout", "300", VALKEY_URL="unix:///nonexistent",
                popen={"stderr": writer}), 0.3, 69)
    os.close(reader)
    os.close(writer)


def test_errors_are_read_late(valkey):
    """A batch waits for the reader of its errors and loses none; that time does not count for --timeout."""
    reader, writer = os.pipe()
    text = b"x\n" * 3000 + lines_of(notification("u"))
    child = subprocess.Popen([servers.program("tpi-publish"), "batch", "--timeout", str(int(scaled(1000)))],
                             stdin=subprocess.PIPE, stderr=writer,
                             env=servers.clean_environment(VALKEY_URL=valkey.url))
    os.close(writer)
    try:
        child.stdin.write(lines_of(notification("u")) + text)
        child.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(scaled(1.5))
        with open(reader, encoding="ascii") as errors:
            lines = errors.read().splitlines()
        assert child.wait(scaled(10)) == 65
        assert len(lines) == 3001
        assert lines[-1] == "tpi-publish: published 2, bad 3000"
    finally:
        child.kill()
        child.wait()


# Valkey unreachable

def fails(error, *args, **env):
    """Checks for 69 and the error; with --best-effort for 0 and the warning; with --quiet also for no output."""
    done = run(*USER, *args, **env)
    assert (done.status, done.out) == (69, b"")
    assert re.fullmatch(error, done.line()), done.err
    quiet = run(*USER, "--quiet", *args, **env)
    assert (quiet.status, quiet.err) == (69, done.err)
    done = run(*USER, "--best-effort", *args, **env)
    assert (done.status, done.out) == (0, b"")
    warning = done.warning()
    assert list(warning) == ["tenantId", "channel", "error"]
    assert (warning["tenantId"], warning["channel"]) == ("default", user_channel("u1"))
    assert re.fullmatch(error, warning["error"])
    assert '"id"' not in done.err
    run(*USER, "--best-effort", "--quiet", *args, **env).silent()


def test_missing_socket():
    fails("unix:/nonexistent: No such file or directory", VALKEY_URL="unix:///nonexistent")


def test_connection_refused():
    port = servers.free_port()
    fails(f"127.0.0.1:{port}: Connection refused", "--url", f"valkey://127.0.0.1:{port}")


def test_unknown_name():
    fails(r"no-such-host.invalid:6379: .+", "--timeout", "10000",
          VALKEY_URL="valkey://no-such-host.invalid")


def test_tag():
    """The warning of --best-effort has the tag and the tenant's channel."""
    done = run(*USER, "--best-effort", "--tag", "notificationWorker", "--tenant", "t",
               VALKEY_URL="unix:///nonexistent")
    assert done.warning("notificationWorker")["channel"] == user_channel("u1", "t")


def test_replica(new_valkey):
    """tpi-publish refuses a replica, where PUBLISH would succeed but reach no subscriber of the primary."""
    replica = new_valkey(config=["--replicaof", "127.0.0.1", str(servers.free_port())]).start()
    subscriber = Subscriber(replica)
    fails(r"unix:\S+: is a replica, not a primary: messages published there reach no other server",
          VALKEY_URL=replica.url)
    done = run("batch", stdin=lines_of(notification("u")), VALKEY_URL=replica.url)
    assert done.status == 69
    subscriber.nothing_more()
    subscriber.client.close()


def test_password(new_valkey, tmp_path):
    """The password of the file takes precedence over that of the URL, and neither is ever printed."""
    server = new_valkey(tcp=True, password="right").start()
    subscriber = Subscriber(server)
    file = tmp_path / "password"

    def url(userinfo):
        return server.url.replace("://", f"://{userinfo}@")
    file.write_text("right\n")
    run(*USER, VALKEY_URL=url(":right")).silent()
    run(*USER, VALKEY_URL=url("default:%72ight")).silent()
    run(*USER, VALKEY_URL=server.url, VALKEY_PASSWORD_FILE=file).silent()
    run(*USER, "--url", url(":wrong"), VALKEY_PASSWORD_FILE=file).silent()
    for _ in range(4):
        assert subscriber.next()[1] == USER_PAYLOAD
    file.write_text("hidden")
    refused = r"127.0.0.1:\d+: authentication failed: WRONGPASS [^']*"
    fails(refused, VALKEY_URL=url(":hidden"))
    fails(refused, VALKEY_URL=server.url, VALKEY_PASSWORD_FILE=file)
    fails(r"127.0.0.1:\d+: NOAUTH: requires a password: .*VALKEY_PASSWORD_FILE.*", VALKEY_URL=server.url)
    done = run(*USER, VALKEY_URL=url(":hidden"))
    assert "hidden" not in done.err
    subscriber.nothing_more()
    subscriber.client.close()


@pytest.fixture
def acl_valkey(new_valkey):
    """A Valkey with a user limited to the tenant "default", and one without permission for ROLE."""
    server = new_valkey(tcp=True).start()
    server("ACL", "SETUSER", "pub", "on", ">pw", "resetchannels", "&*:tenant:default:*",
           "+publish", "+role")
    server("ACL", "SETUSER", "roleless", "on", ">pw", "allchannels", "+publish")
    yield server
    server.kill()


def as_user(server, user):
    return server.url.replace("://", f"://{user}:pw@")


def test_acl(acl_valkey):
    """A PUBLISH that Valkey's ACL refuses exits with 69 and the reason; a refused ROLE is a warning, none with --quiet."""
    run(*USER, VALKEY_URL=as_user(acl_valkey, "pub")).silent()
    done = run(*USER, VALKEY_URL=as_user(acl_valkey, "roleless"))
    assert done.status == 0
    assert re.fullmatch(r"warning: 127.0.0.1:\d+: cannot verify that it is a primary: the user needs \+role", done.line())
    run(*USER, "--quiet", VALKEY_URL=as_user(acl_valkey, "roleless")).silent()
    done = run(*USER, "--tenant", "other", VALKEY_URL=as_user(acl_valkey, "pub"))
    assert done.status == 69
    assert re.fullmatch(r"127.0.0.1:\d+: PUBLISH: NOPERM .*channel.*", done.line())


def tcp_server(serve):
    """Starts a TCP server that calls serve(connection) for each connection, one after the other."""
    sock = socket.create_server(("127.0.0.1", 0))

    def loop():
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:
                return
            with connection:
                try:
                    serve(connection)
                except OSError:
                    pass
    threading.Thread(target=loop, daemon=True).start()
    return sock


def test_wrong_protocol():
    """The error about a server that does not speak Valkey's protocol says so."""
    def serve(connection):
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with tcp_server(serve) as sock:
        fails(r"127.0.0.1:\d+: not a Valkey or Redis server: .*",
              VALKEY_URL=f"valkey://127.0.0.1:{sock.getsockname()[1]}")


# Timeout

def in_time(result, timeout, status):
    assert result.status == status
    assert timeout <= result.seconds < timeout + scaled(1.5), result.seconds


def test_stopped_server(new_valkey):
    """If Valkey does not answer, tpi-publish exits after --timeout, 2000 ms by default."""
    server = new_valkey().start()
    server.pause()
    done = run(*USER, VALKEY_URL=server.url)
    in_time(done, 2, 69)
    assert re.fullmatch(r"unix:\S+: no answer within 2000 ms", done.line())
    done = run(*USER, "--timeout", "300", "--best-effort", VALKEY_URL=server.url)
    in_time(done, 0.3, 0)
    assert done.warning()["channel"] == user_channel("u1")
    done = run("batch", "--timeout", "300", stdin=lines_of(notification("u")),
               VALKEY_URL=server.url)
    in_time(done, 0.3, 69)
    assert done.lines[1:] == ["tpi-publish: published 0, bad 0"]
    server.resume()


def test_dripping_server():
    """A server that keeps sending single bytes does not extend --timeout."""
    def serve(connection):
        connection.recv(1000)
        connection.sendall(b"*")
        while True:
            time.sleep(0.05)
            connection.sendall(b"1")
    with tcp_server(serve) as sock:
        done = run(*USER, "--timeout", "500",
                   VALKEY_URL=f"valkey://127.0.0.1:{sock.getsockname()[1]}")
    in_time(done, 0.5, 69)
    assert "no answer within 500 ms" in done.line()


def test_server_closes():
    """A connection that the server closes without a reply is an error at once."""
    def serve(connection):
        connection.recv(1000)
        connection.sendall(b"*1\r\n$6\r\nmaster\r\n")
        connection.recv(1000)
    with tcp_server(serve) as sock:
        fails(r"127.0.0.1:\d+: connection lost: .+", "--timeout", "10000",
              VALKEY_URL=f"valkey://127.0.0.1:{sock.getsockname()[1]}")


def test_unexpected_reply():
    """A reply without a command ends the run with an error."""
    def serve(connection):
        connection.recv(1000)
        connection.sendall(b"*1\r\n$6\r\nmaster\r\n")
        connection.recv(1000)
        connection.sendall(b":1\r\n:1\r\n")
        connection.recv(1000)
    with tcp_server(serve) as sock:
        done = run("batch", stdin=lines_of(notification("u")),
                   VALKEY_URL=f"valkey://127.0.0.1:{sock.getsockname()[1]}")
    assert done.status == 69
    assert done.lines[0].endswith(": unexpected reply without a command")
    assert done.lines[1:] == ["tpi-publish: published 1, bad 0"]


@pytest.mark.parametrize("begin, more", [
    (b"-ERR ", b"x" * 50000), (b"*60000\r\n", b"$1000\r\n" + b"x" * 1000 + b"\r\n")], ids=["error", "array"])
def test_endless_reply(begin, more):
    """A reply over 1 MiB, in one text or in many parts, ends the run long before --timeout."""
    def serve(connection):
        connection.recv(1000)
        connection.sendall(b"*1\r\n$6\r\nmaster\r\n")
        connection.recv(1000)
        connection.sendall(begin)
        while True:
            connection.sendall(more)
    with tcp_server(serve) as sock:
        fails(r"127.0.0.1:\d+: the reply is over 1 MiB", "--timeout", "20000",
              VALKEY_URL=f"valkey://127.0.0.1:{sock.getsockname()[1]}")


# Batch

def test_batch_lines(publish, subscriber, tmp_path):
    """A batch from a file, standard input or "-" publishes each line to its channel, in order."""
    text = (b'{"stream":"notification","user":"u1","id":"n1"}\n'
            b'\n  \t\r\n'
            b'{"stream":"notification","broadcast":true,"id":"b"}\r\n'
            b' { "issue" : 42 , "project" : 7 , "stream" : "issue" , "event" : "e" } \n'
            b'{"stream":"issue","project":8,"issue":1,"tenant":"t2"}')
    file = tmp_path / "batch"
    file.write_bytes(text)
    for args, stdin in ((str(file),), None), ((), text), (("-",), text):
        done = publish("batch", *args, stdin=stdin, INSTANCE_TENANT_ID="t1")
        assert (done.status, done.out, done.line()) == (0, b"", "published 4, bad 0")
        assert [subscriber.next() for _ in range(4)] == [
            (user_channel("u1", "t1"), USER_PAYLOAD),
            (broadcast_channel("t1"), b'{"id":"b","event":"SYSTEM_ANNOUNCEMENT"}'),
            (project_channel(7, "t1"), b'{"event":"e","issueId":42,"projectId":7}'),
            (project_channel(8, "t2"), b'{"event":"issue-updated","issueId":1,"projectId":8}')]
    publish("batch", "--quiet", str(file), "--tenant", "t3").silent()
    assert subscriber.next() == (user_channel("u1", "t3"), USER_PAYLOAD)


def test_batch_ids(publish, subscriber):
    """Each notification without an id gets its own UUID."""
    assert publish("batch", stdin=lines_of(*[notification("u")] * 50)).status == 0
    seen = {json.loads(subscriber.next()[1])["id"] for _ in range(50)}
    assert len(seen) == 50
    assert all(re.fullmatch(UUID4, uuid) for uuid in seen)


def test_empty_batch(publish):
    done = publish("batch")
    assert (done.status, done.line()) == (0, "published 0, bad 0")


@pytest.mark.parametrize("path, text, error", [
    ("/nonexistent", "cannot open /nonexistent", errno.ENOENT), ("/", "cannot read /", errno.EISDIR)])
def test_batch_file_missing(publish, path, text, error):
    """A file that cannot be read exits with 66, also with --best-effort."""
    for more in ((), ("--best-effort",)):
        done = publish("batch", path, *more)
        assert done.status == 66
        assert done.lines[0] == f"tpi-publish: {text}: {os.strerror(error)}"


def test_batch_of_10000(publish, subscriber):
    """Bad lines are reported by number, and the others are published in order."""
    bad = {1: b"", 2: b"x", 500: b'{"stream":"issue","project":0,"issue":1}',
           5000: b'{"stream":"notification","user":"u","event":"sync"}', 9999: b"\xff",
           10000: b'{"stream":"notification"}'}
    text = b"".join(bad.get(n, b'{"stream":"issue","project":7,"issue":%d}' % n) + b"\n"
                    for n in range(1, 10001))
    for more in ((), ("--best-effort",)):
        received = []
        thread = threading.Thread(target=lambda: received.extend(subscriber.next() for _ in range(9994)))
        thread.start()
        done = publish("batch", *more, stdin=text)
        assert done.status == 65
        thread.join(scaled(20))
        assert [json.loads(payload)["issueId"] for _, payload in received] == \
            [n for n in range(1, 10001) if n not in bad]
        reported = [int(n) for n in re.findall(r"^tpi-publish: line (\d+): .", done.err, re.M)]
        assert reported == [2, 500, 5000, 9999, 10000]
        assert done.lines[-1] == "tpi-publish: published 9994, bad 5"
        assert len(done.lines) == 6
    subscriber.nothing_more()


def test_batch_line_length(publish, subscriber):
    """A line of 64 KiB is accepted; a longer one is one bad line, however long, and the next line is read."""
    line = b'{"stream":"notification","user":"u","id":"%d"}'
    full = (line % 1).ljust(65536)
    done = publish("batch", stdin=b"\n".join([
        full, full + b" ", line % 3, b"x" * 65537, b"x" * 300000, line % 6, b"y" * 131074, full]))
    assert done.status == 65
    assert done.lines == [
        *(f"tpi-publish: line {n}: is over 65536 bytes" for n in (2, 4, 5, 7)),
        "tpi-publish: published 4, bad 4"]
    assert [json.loads(subscriber.next()[1])["id"] for _ in range(4)] == ["1", "3", "6", "1"]
    subscriber.nothing_more()
    # A last line without a line break.
    assert publish("batch", stdin=full + b" ").lines == [
        "tpi-publish: line 1: is over 65536 bytes", "tpi-publish: published 0, bad 1"]


def test_batch_control_characters(publish, subscriber):
    """The error about a bad line is one printable line, whatever that contains."""
    done = publish("batch", stdin=b'{"stream":"notification","\\u001b[1m\\nx":1}\n\0\n\x1b[1m\n')
    assert done.status == 65
    assert len(done.lines) == 4
    assert done.err.replace("\n", "").isprintable()
    subscriber.nothing_more()


def test_batch_refused_lines(acl_valkey):
    """Lines that Valkey refuses are reported by number, and the others are published."""
    subscriber = Subscriber(acl_valkey)
    refused = range(10, 3000, 7)
    text = lines_of(*(notification("u", id=str(n), tenant="x" if n in refused else "default")
                      for n in range(1, 3001)))
    url = as_user(acl_valkey, "pub")
    done = run("batch", stdin=text, VALKEY_URL=url)
    assert done.status == 69
    lines = [int(n) for n in re.findall(r"^tpi-publish: line (\d+): PUBLISH: NOPERM", done.err,
                                        re.M)]
    assert lines == list(refused)
    count = 3000 - len(refused)
    assert done.lines[-1] == f"tpi-publish: published {count}, bad 0, refused {len(refused)}"
    assert [json.loads(subscriber.next()[1])["id"] for _ in range(count)] == \
        [str(n) for n in range(1, 3001) if n not in refused]
    done = run("batch", "--best-effort", stdin=text, VALKEY_URL=url)
    assert done.status == 0
    first = json.loads(done.lines[0].removeprefix(FAILED))
    assert (first["tenantId"], first["channel"]) == ("x", user_channel("u", "x"))
    assert first["error"].startswith("line 10: PUBLISH: NOPERM")
    done = run("batch", "--best-effort", "--quiet", stdin=text + b"x\n", VALKEY_URL=url)
    assert (done.status, done.line()) == (65, "line 3001: is not one JSON object")
    subscriber.client.close()


def test_batch_half_refused(acl_valkey):
    """A wake-up for two channels counts as refused, once, if Valkey refuses one of them."""
    acl_valkey("ACL", "SETUSER", "half", "on", ">pw", "resetchannels", "&live:tenant:*:testrun:*",
               "+publish", "+role")
    text = lines_of(*({"stream": "test-run", "project": 7, "run": n} for n in (1, 2)))
    done = run("batch", stdin=text, VALKEY_URL=as_user(acl_valkey, "half"))
    assert done.status == 69
    assert [line[:31] for line in done.lines[:-1]] == [f"tpi-publish: line {n}: PUBLISH: NOP" [:31] for n in (1, 2)]
    assert done.lines[-1] == "tpi-publish: published 0, bad 0, refused 2"


def test_batch_verbose(publish, subscriber):
    """--verbose prints the number of subscribers for each line."""
    done = publish("batch", "--verbose", stdin=lines_of(notification("a"), notification("b")))
    assert done.out == (b"notifications:tenant:default:user:a: 1 subscriber\n"
                        b"notifications:tenant:default:user:b: 1 subscriber\n")
    assert subscriber.next()


class Running(servers.Process):
    """A running tpi-publish batch that the test feeds."""

    def __init__(self, url, *args, **popen):
        super().__init__("tpi-publish", [servers.program("tpi-publish"), "batch", *args],
                         servers.clean_environment(VALKEY_URL=url),
                         **{"stdin": subprocess.PIPE, **popen})

    def feed(self, data):
        self.child.stdin.write(data)
        self.child.stdin.flush()

    def end(self):
        self.child.stdin.close()
        return self.wait()

    def flood(self):
        """Feeds valid lines in a thread until a write fails."""
        text = lines_of(*[notification("u", id="x" * 100)] * 100)

        def loop():
            try:
                while True:
                    self.feed(text)
            except (OSError, ValueError):
                pass
        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        return thread


def test_batch_slow_input(valkey, subscriber):
    """A line is published as soon as it is read, and --timeout does not apply to silence of the input."""
    batch = Running(valkey.url, "--timeout", str(int(scaled(1000))))
    try:
        for number in range(2):
            batch.feed(lines_of(notification("u", id=str(number))))
            assert json.loads(subscriber.next()[1])["id"] == str(number)
            with pytest.raises(subprocess.TimeoutExpired):
                batch.child.wait(scaled(1.5))
        batch.feed(b'{"stream":"notification","user"')
        batch.feed(b':"u","id":"cut"}\n')
        assert json.loads(subscriber.next()[1])["id"] == "cut"
        assert batch.end() == 0
        assert batch.stderr == "tpi-publish: published 3, bad 0"
    finally:
        batch.kill()


def lost(stderr):
    """Returns error, published and unknown of a batch that lost its connection."""
    error, summary = stderr.splitlines()
    numbers = re.fullmatch(r"tpi-publish: published (\d+), bad 0(?:, unknown (\d+))?", summary)
    assert numbers, summary
    return error, int(numbers[1]), int(numbers[2] or 0)


@pytest.mark.parametrize("args, status", [((), 69), (("--best-effort",), 0)])
def test_batch_loses_valkey(new_valkey, args, status):
    """A lost connection ends the run, and the summary has the number of lines known to be published."""
    server = new_valkey().start()
    subscriber = Subscriber(server)
    batch = Running(server.url, *args)
    try:
        batch.flood()
        for _ in range(5000):
            subscriber.next()
        server.kill()
        assert batch.wait() == status
        error, published, _ = lost(batch.stderr)
        assert published >= 1000
        if args:
            warning = json.loads(error.removeprefix(FAILED))
            assert (warning["tenantId"], warning["channel"]) == ("default", None)
            error = "tpi-publish: " + warning["error"]
        assert re.fullmatch(r"tpi-publish: unix:\S+: connection lost: .+", error)
    finally:
        batch.kill()
        subscriber.client.close()


def test_batch_idle_loses_valkey(new_valkey):
    """A connection lost while no command is in flight ends the run, too."""
    server = new_valkey().start()
    subscriber = Subscriber(server)
    batch = Running(server.url)
    try:
        batch.feed(lines_of(notification("u")))
        subscriber.next()
        server.kill()
        assert batch.wait() == 69
        assert lost(batch.stderr)[2] <= 1
    finally:
        batch.kill()
        subscriber.client.close()


@pytest.mark.parametrize("args, status", [((), 69), (("--best-effort",), 0)])
def test_batch_stopped_server(new_valkey, args, status):
    """A batch ends when Valkey is silent for --timeout, with at most 1000 commands in flight."""
    server = new_valkey().start()
    subscriber = Subscriber(server)
    batch = Running(server.url, "--timeout", "1000", *args)
    try:
        batch.flood()
        for _ in range(2000):
            subscriber.next()
        server.pause()
        began = time.monotonic()
        assert batch.wait() == status
        assert time.monotonic() - began < scaled(3)
        error, published, unknown = lost(batch.stderr)
        assert "no answer within 1000 ms" in error
        assert published > 0
        assert unknown == 1000
    finally:
        batch.kill()
        server.resume()
        subscriber.client.close()


def test_batch_memory(valkey):
    """Memory does not grow with the input: a batch reads no faster than Valkey accepts commands."""
    def peak():
        with open(f"/proc/{batch.pid}/status") as status:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1])
    batch = Running(valkey.url)
    text = lines_of(*[notification("u", id="x" * 200)] * 500)
    try:
        for _ in range(20):
            batch.feed(text)
        first = peak()
        for _ in range(200):
            batch.feed(text)
        grown = peak() - first
        assert batch.end() == 0
        assert batch.stderr == "tpi-publish: published 110000, bad 0"
        if "TPI_SANITIZED" not in os.environ:
            assert grown < 4096, f"{grown} KiB more"
    finally:
        batch.kill()


def test_batch_progress(valkey):
    """On a terminal a batch prints its progress at most 10 times a second."""
    master, slave = pty.openpty()
    began = time.monotonic()
    batch = Running(valkey.url, stderr=slave)
    os.close(slave)
    batch.flood()
    shown = b""
    try:
        while shown.count(b"\r") < 5:
            assert select.select([master], [], [], scaled(10))[0]
            shown += os.read(master, 4096)
        # The first one comes at once.
        assert shown.count(b"\r") <= 10 * (time.monotonic() - began) + 1
        assert re.match(rb"(\rtpi-publish: published \d+, bad 0\x1b\[K)+", shown), shown
    finally:
        batch.kill()
        os.close(master)


def terminal_of(url, *args, text=b""):
    """Returns the exit status of a batch, and its output on a terminal."""
    master, slave = pty.openpty()
    batch = Running(url, *args, stderr=slave)
    os.close(slave)
    batch.feed(text)
    status = batch.end()
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # EIO: the other end is closed
        pass
    os.close(master)
    return status, shown


def test_batch_progress_and_errors(valkey):
    """On a terminal, an error and the summary are separate lines; --quiet suppresses the progress."""
    status, shown = terminal_of(valkey.url, text=lines_of(notification("u")) + b"x\n")
    assert status == 65
    # As a terminal shows it: without cleared lines.
    assert re.sub(rb"[^\n]*\r\x1b\[K", b"", shown).splitlines() == [
        b"tpi-publish: line 2: is not one JSON object",
        b"tpi-publish: published 1, bad 1"]
    assert terminal_of(valkey.url, "--quiet", text=lines_of(notification("u"))) == (0, b"")


@pytest.mark.slow
@pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the allocator")
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("args", [USER, ("batch", "-")])
def test_each_call_fails_once(publish, rundir, args, function):
    """Whichever call fails, tpi-publish succeeds, or exits with a documented status and prints the reason.

    Out of memory, hiredis 0.14 aborts by design where it copies a path or a host name. Parsing a line of a batch,
    json-c 0.16 crashes where it copies the name of a member, or loses the member, which can make the line bad.
    """
    library = {-signal.SIGABRT, *([-signal.SIGSEGV] if "batch" in args else [])}
    faults = Faults(rundir)
    text = lines_of(notification("a"), notification("b"))
    for countdown in range(1, 1000):
        faults.arm(function, countdown)
        done = publish(*args, stdin=text, **faults.environment)
        failed = faults.failed
        if function == "malloc" and done.status in library:
            continue
        assert done.status in ALLOWED, f"{function}, call {countdown}: {done.status} {done.err}"
        assert done.status == 0 or done.lines, f"{function}, call {countdown}: {done.status}"
        assert done.status != 65 or "out of memory" not in done.err, "a good line is reported as bad"
        if not failed:
            break
    assert not failed
