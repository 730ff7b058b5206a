"""tpi-publish against a real Valkey: section by section what its manual page says."""

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
ALLOWED = {0, 65, 66, 69, 71, 74, 78}  # exit status of what was used rightly


class Result:
    """An ended tpi-publish; its errors are lines of its own, and no sanitizer found anything."""

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


class Ear:
    """Hears everything that is published, in order."""

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
        """Nothing was published before this, because it comes first."""
        self.valkey.publish("end", "end")
        assert self.next() == ("end", b"end")


@pytest.fixture
def ear(valkey):
    ear = Ear(valkey)
    yield ear
    ear.client.close()


@pytest.fixture
def publish(valkey):
    """publish(*args): with the shared Valkey."""
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
    # A text is any UTF-8, escaped where JSON wants it and nowhere else.
    (("notification", "--user", "u1", "--id", 'a"b\\c/d\n\t', "--event", "é€😀'<>&"), {},
     user_channel("u1"), '{"id":"a\\"b\\\\c/d\\n\\t","event":"é€😀\'<>&"}'.encode()),
    # The tenant: the option, then the environment, then "default"; an empty variable is none.
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
    # Options stand anywhere, may be short of letters, and may hold their value.
    (("--tenant", "t", "--id=n1", "notification", "--us", "u1"), {}, user_channel("u1", "t"),
     USER_PAYLOAD),
    (("notification", "--id", "n1", "--user", "u1"), {"POSIXLY_CORRECT": "1"}, user_channel("u1"),
     USER_PAYLOAD),
    (("--user", "notification", "--id", "n1", "--", "notification"), {},
     user_channel("notification"), USER_PAYLOAD),
    # Settings of tpi-streamd alone are not looked at.
    (USER, {"SSE_PER_USER_CAP": "none", "TPI_LOG_LEVEL": "x"}, user_channel("u1"), USER_PAYLOAD),
])
def test_published(publish, ear, args, env, channel, payload):
    """One message with exactly this payload on exactly this channel, without a word."""
    publish(*args, **env).silent()
    assert ear.next() == (channel, payload)
    ear.nothing_more()


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
def test_published_to_both_channels(publish, ear, args, channels, payload):
    """A test run or milestone wakes its own channel and its project's, singly and in a batch."""
    publish(*args).silent()
    for channel in channels:
        assert ear.next() == (channel, payload)
    options = dict(zip([name[2:] for name in args[1::2]], args[2::2]))
    line = {name: int(value) if value.isdigit() else value for name, value in options.items()}
    done = publish("batch", stdin=lines_of({"stream": args[0], **line}))
    assert (done.status, done.lines) == (0, ["tpi-publish: published 1, bad 0"])
    for channel in channels:
        assert ear.next() == (channel, payload)
    ear.nothing_more()
    done = publish(*args, "--verbose", "--dry-run")
    assert done.out.decode().splitlines() == [f"{channel} {payload.decode()}" for channel in channels]


def test_only_tenant(publish, ear):
    """With --only-tenant a line for another tenant is bad, and the others are published."""
    done = publish("batch", "--only-tenant", stdin=lines_of(
        notification("u", id="1"), notification("u", id="2", tenant="t"), notification("u", id="3", tenant="default")))
    assert done.status == 65
    assert done.lines == ["tpi-publish: line 2: tenant t: only default is allowed",
                          "tpi-publish: published 2, bad 1"]
    assert [ear.next()[0] for _ in range(2)] == [user_channel("u")] * 2
    ear.nothing_more()


def test_random_id(publish, ear):
    """Without --id each publish has a random UUID of its own."""
    seen = set()
    for args in (("--user", "u"), ("--user", "u"), ("--broadcast",)):
        publish("notification", *args).silent()
        seen.add(json.loads(ear.next()[1])["id"])
    assert len(seen) == 3
    assert all(re.fullmatch(UUID4, uuid) for uuid in seen), seen


def test_nobody_listens(publish):
    """It is published also with nobody listening."""
    publish(*USER).silent()


def test_largest_payload(publish, ear):
    """The largest payload that tpi-streamd would send is published, one byte more is not."""
    room = 16384 - len('data: {"id":"","event":"notification"}\n\n')
    publish("notification", "--user", "u", "--id", "x" * room).silent()
    assert len(ear.next()[1]) == 16384 - len("data: \n\n")
    refused = publish("notification", "--user", "u", "--id", "x" * (room + 1))
    assert refused.status == 64
    assert "over 16384 bytes" in refused.line()
    ear.nothing_more()


def test_verbose(publish, ear):
    """--verbose prints how many subscribers Valkey counted."""
    done = publish(*USER, "--verbose")
    assert (done.status, done.err) == (0, "")
    assert done.out == b"notifications:tenant:default:user:u1: 1 subscribers\n"
    ear.client.close()


def test_url(publish, valkey, new_valkey):
    """--url stands before VALKEY_URL; a TCP address works as a Unix socket does."""
    other = new_valkey(tcp=True).start()
    ear = Ear(other)
    publish(*USER, "--url", other.url).silent()
    publish(*USER, "--url", other.url.replace("valkey:", "redis:") + "/5",
            VALKEY_URL="nonsense").silent()
    publish(*USER, "--url", other.url.replace("127.0.0.1", "localhost")).silent()
    for _ in range(3):
        assert ear.next() == (user_channel("u1"), USER_PAYLOAD)
    ear.nothing_more()
    ear.client.close()


# Usage and configuration

@pytest.mark.parametrize("args, error", [
    ((), "a command is needed: notification, issue, test-run, milestone, revoke or batch"),
    (("frobnicate",), "frobnicate: must be notification, issue, test-run, milestone, revoke or batch"),
    (("",), ": must be notification, issue, test-run, milestone, revoke or batch"),
    ((*USER, "more"), "more: one argument too many"),
    (("batch", "a", "b"), "b: one argument too many"),
    (("--frobnicate", *USER), "unknown or ambiguous option --frobnicate"),
    (("--t", "x", *USER), "unknown or ambiguous option --t"),
    (("-x", *USER), "unknown option -x"),
    ((*USER, "--tenant"), "--tenant needs a value"),
    ((*USER, "--quiet=1"), "--quiet takes no value"),
    (("issue", "--user", "u", "--project", "7", "--issue", "1"), "issue takes no --user"),
    (("notification", "--user", "u", "--user", "u"), "--user: may be there once"),
    (("revoke", "--project", "7", "--project=8"), "--project: may be there once"),
    (("notification", "--user", "u", "--project", "7"), "notification takes no --project"),
    (("batch", "--event", "e"), "batch takes no --event"),
    (("notification",), "either --user or --broadcast is needed, and not both"),
    (("revoke",), "either --user or --project is needed, and not both"),
    (("revoke", "--user", "u", "--project", "7"), "either --user or --project is needed, and not both"),
    (("revoke", "--user", ""), "--user : must be 1 to 255 printable ASCII"),
    (("revoke", "--user", "u:1"), "--user u:1: must be 1 to 255 printable ASCII"),
    (("revoke", "--project", "0"), "--project 0: must be a whole number from 1 to 2147483647"),
    *((("revoke", "--user", "u", option, "1"), f"revoke takes no {option}")
      for option in ("--id", "--event", "--issue")),
    (("revoke", "--user", "u", "--broadcast"), "revoke takes no --broadcast"),
    ((*USER, "--broadcast"), "either --user or --broadcast is needed, and not both"),
    (("issue", "--issue", "1"), "--project is needed"),
    (("issue", "--project", "1"), "--issue is needed"),
    (("test-run", "--project", "1"), "--run is needed"),
    (("test-run", "--run", "1"), "--project is needed"),
    (("test-run", "--project", "1", "--run", "1", "--target", "0"),
     "--target 0: must be a whole number from 1 to 2147483647"),
    (("milestone", "--project", "1"), "--milestone is needed"),
    (("milestone", "--project", "1", "--run", "1"), "milestone takes no --run"),
    ((*USER, "--only-tenant"), "notification takes no --only-tenant"),
    *((("issue", "--issue", "1", "--project", bad),
       f"--project {bad}: must be a whole number from 1 to 2147483647")
      for bad in ("", "0", "-1", "+1", "01", " 1", "1 ", "1.0", "2147483648", "x", "4294967297")),
    *((("notification", "--user", bad), f"--user {bad[:40]}: must be 1 to 255 printable ASCII")
      for bad in ("", "a b", "a:b", "*", "a?", "[", "]", "\\", '"', "x" * 256)),
    (("notification", "--user", "\x1b[1m"), "--user ?[1m: must be 1 to 255 printable ASCII"),
    ((*USER, "--tenant", ""), "--tenant : must be 1 to 255 printable ASCII"),
    (("batch", "--tenant", "a b"), "--tenant a b: must be 1 to 255 printable ASCII"),
    (("notification", "--user", "u", "--id", ""), "--id must not be empty"),
    ((*USER, "--event", ""), "--event must not be empty"),
    ((*USER, "--event", "sync"), 'the payload has the event "sync"'),
    (("notification", "--user", "u", "--id", b"\xff"), "the payload is not UTF-8"),
    ((*USER, "--tag", ""), "--tag : must be"),
    ((*USER, "--tag", "a]b"), "--tag a]b: must be"),
    *(((*USER, "--timeout", bad),
       f"--timeout {bad}: must be a whole number from 1 to 3600000")
      for bad in ("", "0", "-1", "1.5", "3600001", "2s")),
    ((*USER, "--url", "http://u:secret@h"), "--url http://u:***@h: the scheme is unknown"),
    ((*USER, "--url", ""), "--url : the scheme is unknown"),
])
@pytest.mark.parametrize("more", [(), ("--best-effort", "--quiet")])
def test_usage(publish, ear, args, error, more):
    """Wrong usage is 64 and one line that says what was wrong; nothing is published."""
    # In front, because the last option of args may lack its value.
    done = publish(*more, *args)
    assert (done.status, done.out) == (64, b"")
    assert done.line().startswith(error), done.err
    assert done.line().endswith(" (see tpi-publish --help)")
    assert "secret" not in done.err
    ear.nothing_more()


@pytest.mark.parametrize("env, error", [
    ({"INSTANCE_TENANT_ID": "a b"}, "INSTANCE_TENANT_ID=a b: must be"),
    ({"TPI_ISSUES_CHANNEL_PREFIX": "a,b:c"}, "TPI_ISSUES_CHANNEL_PREFIX=a,b:c: must be 1 to 4 different prefixes, "),
    ({"VALKEY_URL": "valkey://u:secret@h:x"}, "VALKEY_URL=valkey://u:***@h:x: a port is"),
    ({"VALKEY_URL": "valkey://u:secret@h?password=secret"},
     "VALKEY_URL=valkey://u:***@h?***: the query may only be family=0, family=4 or family=6, not password; allowed is"),
    ({"VALKEY_PASSWORD_FILE": "/nonexistent"},
     "VALKEY_PASSWORD_FILE=/nonexistent: No such file or directory"),
    ({"VALKEY_PASSWORD_FILE": "/dev/null"},
     "VALKEY_PASSWORD_FILE=/dev/null: the first line is empty"),
])
def test_configuration(publish, env, error):
    """A bad setting is 78 and one line that names it, also with --best-effort."""
    for args in (USER, (*USER, "--best-effort", "--quiet"), ("batch",)):
        done = publish(*args, **env)
        assert (done.status, done.out) == (78, b"")
        assert done.line().startswith(error), done.err
        assert "secret" not in done.err


def test_help_and_version():
    """--help fits a screen and names each option; both go to standard output."""
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


# Dry run, and standard output

def test_dry_run():
    """--dry-run needs no Valkey and prints channel and payload."""
    done = run("--dry-run", *USER, VALKEY_URL="unix:///nonexistent")
    assert (done.status, done.err) == (0, "")
    assert done.out == b"notifications:tenant:default:user:u1 " + USER_PAYLOAD + b"\n"


def test_dry_run_publishes_nothing(publish, ear):
    assert publish("--dry-run", *USER).status == 0
    assert publish("--dry-run", "batch", stdin=lines_of(notification("u"))).status == 0
    ear.nothing_more()


def test_dry_run_of_a_batch():
    """A batch is checked line by line, and what would be published is printed."""
    done = run("batch", "--dry-run", stdin=b'{"stream":"issue","project":7,"issue":1}\nx\n'
               b'{"stream":"notification","broadcast":true,"id":"b","tenant":"t"}\n')
    assert done.status == 65
    assert done.out == (
        b'issues:tenant:default:project:7 {"event":"issue-updated","issueId":1,"projectId":7}\n'
        b'notifications:tenant:t:broadcast {"id":"b","event":"SYSTEM_ANNOUNCEMENT"}\n')
    assert done.lines == ["tpi-publish: line 2: the line is not one JSON object",
                          "tpi-publish: published 0, bad 1"]


def closed(number):
    return {"preexec_fn": lambda: os.close(number)}


@pytest.mark.parametrize("args", [("--dry-run", *USER), ("--help",), ("--version",)])
def test_unwritable_output(args):
    """Output that was asked for and cannot be written is an error, never a crash."""
    with open("/dev/full", "wb") as full:
        done = run(*args, popen={"stdout": full})
    assert done.status == 74
    assert done.line() == "standard output: No space left on device"
    done = run(*args, popen=closed(1))
    assert done.status == 74
    assert done.line() == "standard output: Bad file descriptor"
    reader, writer = os.pipe()
    os.close(reader)
    done = run(*args, popen={"stdout": writer})
    os.close(writer)
    assert done.status == 74


@pytest.mark.parametrize("number", [0, 1, 2])
def test_closed_descriptor(publish, ear, number):
    """A closed descriptor is not taken for the connection to Valkey, and stops nothing."""
    assert publish(*USER, "--verbose", popen=closed(number)).status == 0
    assert ear.next() == (user_channel("u1"), USER_PAYLOAD)
    done = publish("batch", stdin=None if number == 0 else lines_of(notification("u")),
                   popen={**closed(number), **({"stdin": None} if number == 0 else {})})
    assert done.status == (66 if number == 0 else 0)
    if number != 0:
        ear.next()
    ear.nothing_more()


def test_full_errors(publish):
    """Standard error that cannot be written changes no exit status."""
    with open("/dev/full", "wb") as full:
        assert publish("batch", stdin=b"x\n", popen={"stderr": full}).status == 65
        assert run(*USER, VALKEY_URL="unix:///nonexistent", popen={"stderr": full}).status == 69


def full_pipe():
    """The two ends of a pipe that takes nothing more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return reader, writer


def test_nobody_reads_the_error():
    """A single publish ends in time also where standard error takes nothing."""
    reader, writer = full_pipe()
    in_time(run(*USER, "--timeout", "300", VALKEY_URL="unix:///nonexistent",
                popen={"stderr": writer}), 0.3, 69)
    os.close(reader)
    os.close(writer)


def test_errors_are_read_late(valkey):
    """A batch waits for whoever reads its errors, and loses none; that is not Valkey's silence."""
    reader, writer = os.pipe()
    text = b"x\n" * 3000 + lines_of(notification("u"))
    child = subprocess.Popen([servers.program("tpi-publish"), "batch", "--timeout", "100"],
                             stdin=subprocess.PIPE, stderr=writer,
                             env=servers.clean_environment(VALKEY_URL=valkey.url))
    os.close(writer)
    try:
        child.stdin.write(lines_of(notification("u")) + text)
        child.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.6)
        with open(reader, encoding="ascii") as errors:
            lines = errors.read().splitlines()
        assert child.wait(scaled(10)) == 65
        assert len(lines) == 3001
        assert lines[-1] == "tpi-publish: published 2, bad 3000"
    finally:
        child.kill()
        child.wait()


# Valkey away

def fails(error, *args, **env):
    """69 with this error; with --best-effort 0 and this warning; with --quiet as well, silence."""
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


def test_nothing_there():
    fails("unix:/nonexistent: No such file or directory", VALKEY_URL="unix:///nonexistent")


def test_connection_refused():
    port = servers.free_port()
    fails(f"127.0.0.1:{port}: Connection refused", "--url", f"valkey://127.0.0.1:{port}")


def test_unknown_name():
    fails(r"no-such-host.invalid:6379: .+", "--timeout", "10000",
          VALKEY_URL="valkey://no-such-host.invalid")


def test_tag():
    """The warning says who publishes, and for which tenant."""
    done = run(*USER, "--best-effort", "--tag", "notificationWorker", "--tenant", "t",
               VALKEY_URL="unix:///nonexistent")
    assert done.warning("notificationWorker")["channel"] == user_channel("u1", "t")


def test_replica(new_valkey):
    """A PUBLISH on a replica would succeed and reach nobody: it is refused."""
    replica = new_valkey(config=["--replicaof", "127.0.0.1", str(servers.free_port())]).start()
    ear = Ear(replica)
    fails(r"unix:\S+: no primary but a replica: what is published there reaches nobody else",
          VALKEY_URL=replica.url)
    done = run("batch", stdin=lines_of(notification("u")), VALKEY_URL=replica.url)
    assert done.status == 69
    ear.nothing_more()
    ear.client.close()


def test_password(new_valkey, tmp_path):
    """A password comes from the URL or, in preference, from the file; it is never shown."""
    server = new_valkey(tcp=True, password="right").start()
    ear = Ear(server)
    file = tmp_path / "password"

    def url(userinfo):
        return server.url.replace("://", f"://{userinfo}@")
    file.write_text("right\n")
    run(*USER, VALKEY_URL=url(":right")).silent()
    run(*USER, VALKEY_URL=url("default:%72ight")).silent()
    run(*USER, VALKEY_URL=server.url, VALKEY_PASSWORD_FILE=file).silent()
    run(*USER, "--url", url(":wrong"), VALKEY_PASSWORD_FILE=file).silent()
    for _ in range(4):
        assert ear.next()[1] == USER_PAYLOAD
    file.write_text("hidden")
    refused = r"127.0.0.1:\d+: user or password refused: WRONGPASS [^']*"
    fails(refused, VALKEY_URL=url(":hidden"))
    fails(refused, VALKEY_URL=server.url, VALKEY_PASSWORD_FILE=file)
    fails(r"127.0.0.1:\d+: wants a password: .*VALKEY_PASSWORD_FILE.*", VALKEY_URL=server.url)
    done = run(*USER, VALKEY_URL=url(":hidden"))
    assert "hidden" not in done.err
    ear.nothing_more()
    ear.client.close()


@pytest.fixture
def acl_valkey(new_valkey):
    """A user who may publish for the tenant "default" alone, and one who may not ask ROLE."""
    server = new_valkey(tcp=True).start()
    server("ACL", "SETUSER", "pub", "on", ">pw", "resetchannels", "&*:tenant:default:*",
           "+publish", "+role")
    server("ACL", "SETUSER", "roleless", "on", ">pw", "allchannels", "+publish")
    yield server
    server.kill()


def as_user(server, user):
    return server.url.replace("://", f"://{user}:pw@")


def test_acl(acl_valkey):
    """What Valkey's access lists refuse is 69 with their reason."""
    run(*USER, VALKEY_URL=as_user(acl_valkey, "pub")).silent()
    fails(r"127.0.0.1:\d+: may not ask ROLE: the user needs \+role",
          VALKEY_URL=as_user(acl_valkey, "roleless"))
    done = run(*USER, "--tenant", "other", VALKEY_URL=as_user(acl_valkey, "pub"))
    assert done.status == 69
    assert re.fullmatch(r"127.0.0.1:\d+: PUBLISH: NOPERM .*channel.*", done.line())


def listener(serve):
    """A TCP server of one thread: serve(connection) for each."""
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
    """A server that is no Valkey is named as one."""
    def serve(connection):
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with listener(serve) as sock:
        fails(r"127.0.0.1:\d+: this is no Valkey: .*",
              VALKEY_URL=f"valkey://127.0.0.1:{sock.getsockname()[1]}")


# The time limit

def in_time(result, timeout, status):
    assert result.status == status
    assert timeout <= result.seconds < timeout + scaled(1.5), result.seconds


def test_stopped_server(new_valkey):
    """A Valkey that does not answer is given up after --timeout, 2000 ms by default."""
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
    """A server that sends a byte now and then does not prolong the time limit."""
    def serve(connection):
        connection.recv(1000)
        connection.sendall(b"*")
        while True:
            time.sleep(0.05)
            connection.sendall(b"1")
    with listener(serve) as sock:
        done = run(*USER, "--timeout", "500",
                   VALKEY_URL=f"valkey://127.0.0.1:{sock.getsockname()[1]}")
    in_time(done, 0.5, 69)
    assert "no answer within 500 ms" in done.line()


def test_wordless_server():
    """A connection that is closed instead of an answer is an error at once."""
    def serve(connection):
        connection.recv(1000)
        connection.sendall(b"*1\r\n$6\r\nmaster\r\n")
        connection.recv(1000)
    with listener(serve) as sock:
        fails(r"127.0.0.1:\d+: connection lost: .+", "--timeout", "10000",
              VALKEY_URL=f"valkey://127.0.0.1:{sock.getsockname()[1]}")


def test_too_many_answers():
    """A server that answers what nobody asked is not trusted."""
    def serve(connection):
        connection.recv(1000)
        connection.sendall(b"*1\r\n$6\r\nmaster\r\n")
        connection.recv(1000)
        connection.sendall(b":1\r\n:1\r\n")
        connection.recv(1000)
    with listener(serve) as sock:
        done = run("batch", stdin=lines_of(notification("u")),
                   VALKEY_URL=f"valkey://127.0.0.1:{sock.getsockname()[1]}")
    assert done.status == 69
    assert done.lines[0].endswith(": an answer to no query")
    assert done.lines[1:] == ["tpi-publish: published 1, bad 0"]


# Batch

def test_batch_lines(publish, ear, tmp_path):
    """From a file, from standard input, or from "-": each line to its channel, in order."""
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
        assert [ear.next() for _ in range(4)] == [
            (user_channel("u1", "t1"), USER_PAYLOAD),
            (broadcast_channel("t1"), b'{"id":"b","event":"SYSTEM_ANNOUNCEMENT"}'),
            (project_channel(7, "t1"), b'{"event":"e","issueId":42,"projectId":7}'),
            (project_channel(8, "t2"), b'{"event":"issue-updated","issueId":1,"projectId":8}')]
    publish("batch", "--quiet", str(file), "--tenant", "t3").silent()
    assert ear.next() == (user_channel("u1", "t3"), USER_PAYLOAD)


def test_batch_ids(publish, ear):
    """Each notification without an id gets a UUID of its own."""
    assert publish("batch", stdin=lines_of(*[notification("u")] * 50)).status == 0
    seen = {json.loads(ear.next()[1])["id"] for _ in range(50)}
    assert len(seen) == 50
    assert all(re.fullmatch(UUID4, uuid) for uuid in seen)


def test_empty_batch(publish):
    done = publish("batch")
    assert (done.status, done.line()) == (0, "published 0, bad 0")


@pytest.mark.parametrize("path, error", [("/nonexistent", errno.ENOENT), ("/", errno.EISDIR)])
def test_batch_file_missing(publish, path, error):
    """A file that cannot be read is 66, also with --best-effort."""
    for more in ((), ("--best-effort",)):
        done = publish("batch", path, *more)
        assert done.status == 66
        assert done.lines[0] == f"tpi-publish: {path}: {os.strerror(error)}"


def test_batch_of_10000(publish, ear):
    """Bad lines are named by their number, and the others published in order."""
    bad = {1: b"", 2: b"x", 500: b'{"stream":"issue","project":0,"issue":1}',
           5000: b'{"stream":"notification","user":"u","event":"sync"}', 9999: b"\xff",
           10000: b'{"stream":"notification"}'}
    text = b"".join(bad.get(n, b'{"stream":"issue","project":7,"issue":%d}' % n) + b"\n"
                    for n in range(1, 10001))
    for more in ((), ("--best-effort",)):
        heard = []
        thread = threading.Thread(target=lambda: heard.extend(ear.next() for _ in range(9994)))
        thread.start()
        done = publish("batch", *more, stdin=text)
        assert done.status == 65
        thread.join(scaled(20))
        assert [json.loads(payload)["issueId"] for _, payload in heard] == \
            [n for n in range(1, 10001) if n not in bad]
        named = [int(n) for n in re.findall(r"^tpi-publish: line (\d+): .", done.err, re.M)]
        assert named == [2, 500, 5000, 9999, 10000]
        assert done.lines[-1] == "tpi-publish: published 9994, bad 5"
        assert len(done.lines) == 6
    ear.nothing_more()


def test_batch_line_length(publish, ear):
    """A line of 64 KiB is good, a longer one is one bad line, however long; the next is read."""
    line = b'{"stream":"notification","user":"u","id":"%d"}'
    full = (line % 1).ljust(65536)
    done = publish("batch", stdin=b"\n".join([
        full, full + b" ", line % 3, b"x" * 65537, b"x" * 300000, line % 6, b"y" * 131074, full]))
    assert done.status == 65
    assert done.lines == [
        *(f"tpi-publish: line {n}: longer than 65536 bytes" for n in (2, 4, 5, 7)),
        "tpi-publish: published 4, bad 4"]
    assert [json.loads(ear.next()[1])["id"] for _ in range(4)] == ["1", "3", "6", "1"]
    ear.nothing_more()
    # The last line, without a line break.
    assert publish("batch", stdin=full + b" ").lines == [
        "tpi-publish: line 1: longer than 65536 bytes", "tpi-publish: published 0, bad 1"]


def test_batch_unwelcome_bytes(publish, ear):
    """Whatever stands in a line, its error is one line of printable text."""
    done = publish("batch", stdin=b'{"stream":"notification","\\u001b[1m\\nx":1}\n\0\n\x1b[1m\n')
    assert done.status == 65
    assert len(done.lines) == 4
    assert done.err.replace("\n", "").isprintable()
    ear.nothing_more()


def test_batch_answers_have_lines(acl_valkey):
    """What Valkey refuses is named by its line, and the rest published."""
    ear = Ear(acl_valkey)
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
    assert [json.loads(ear.next()[1])["id"] for _ in range(count)] == \
        [str(n) for n in range(1, 3001) if n not in refused]
    done = run("batch", "--best-effort", stdin=text, VALKEY_URL=url)
    assert done.status == 0
    first = json.loads(done.lines[0].removeprefix(FAILED))
    assert (first["tenantId"], first["channel"]) == ("x", user_channel("u", "x"))
    assert first["error"].startswith("line 10: PUBLISH: NOPERM")
    done = run("batch", "--best-effort", "--quiet", stdin=text + b"x\n", VALKEY_URL=url)
    assert (done.status, done.line()) == (65, "line 3001: the line is not one JSON object")
    ear.client.close()


def test_batch_half_refused(acl_valkey):
    """A wake-up is refused if Valkey refuses one of its two channels, and counts once."""
    acl_valkey("ACL", "SETUSER", "half", "on", ">pw", "resetchannels", "&live:tenant:*:testrun:*",
               "+publish", "+role")
    text = lines_of(*({"stream": "test-run", "project": 7, "run": n} for n in (1, 2)))
    done = run("batch", stdin=text, VALKEY_URL=as_user(acl_valkey, "half"))
    assert done.status == 69
    assert [line[:31] for line in done.lines[:-1]] == [f"tpi-publish: line {n}: PUBLISH: NOP" [:31] for n in (1, 2)]
    assert done.lines[-1] == "tpi-publish: published 0, bad 0, refused 2"


def test_batch_verbose(publish, ear):
    """--verbose prints the count for each line."""
    done = publish("batch", "--verbose", stdin=lines_of(notification("a"), notification("b")))
    assert done.out == (b"notifications:tenant:default:user:a: 1 subscribers\n"
                        b"notifications:tenant:default:user:b: 1 subscribers\n")
    assert ear.next()


class Running(servers.Process):
    """tpi-publish batch that is fed by hand."""

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
        """Feeds good lines for as long as they are taken."""
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


def test_batch_is_prompt_and_patient(valkey, ear):
    """A line is published when it comes, and silence of the input is not Valkey's."""
    batch = Running(valkey.url, "--timeout", "200")
    try:
        for number in range(3):
            batch.feed(lines_of(notification("u", id=str(number))))
            assert json.loads(ear.next()[1])["id"] == str(number)
            with pytest.raises(subprocess.TimeoutExpired):
                batch.child.wait(0.6)
        batch.feed(b'{"stream":"notification","user"')
        batch.feed(b':"u","id":"cut"}\n')
        assert json.loads(ear.next()[1])["id"] == "cut"
        assert batch.end() == 0
        assert batch.stderr == "tpi-publish: published 4, bad 0"
    finally:
        batch.kill()


def lost(stderr):
    """The error and the summary of a batch that lost its Valkey."""
    error, summary = stderr.splitlines()
    numbers = re.fullmatch(r"tpi-publish: published (\d+), bad 0(?:, not known (\d+))?", summary)
    assert numbers, summary
    return error, int(numbers[1]), int(numbers[2] or 0)


@pytest.mark.parametrize("args, status", [((), 69), (("--best-effort",), 0)])
def test_batch_loses_valkey(new_valkey, args, status):
    """A connection lost midway ends the run, and says how much is known to be published."""
    server = new_valkey().start()
    ear = Ear(server)
    batch = Running(server.url, *args)
    try:
        batch.flood()
        for _ in range(5000):
            ear.next()
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
        ear.client.close()


def test_batch_idle_loses_valkey(new_valkey):
    """A connection that is lost while nothing is under way is noticed as well."""
    server = new_valkey().start()
    ear = Ear(server)
    batch = Running(server.url)
    try:
        batch.feed(lines_of(notification("u")))
        ear.next()
        server.kill()
        assert batch.wait() == 69
        assert lost(batch.stderr)[2] <= 1
    finally:
        batch.kill()
        ear.client.close()


@pytest.mark.parametrize("args, status", [((), 69), (("--best-effort",), 0)])
def test_batch_stopped_server(new_valkey, args, status):
    """--timeout is the longest silence of Valkey's; what is under way is bounded meanwhile."""
    server = new_valkey().start()
    ear = Ear(server)
    batch = Running(server.url, "--timeout", "1000", *args)
    try:
        batch.flood()
        for _ in range(2000):
            ear.next()
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
        ear.client.close()


def test_batch_memory(valkey):
    """Endless input is read as Valkey takes it: memory does not grow with it."""
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
    """On a terminal a progress line is shown, at most 10 times a second."""
    master, slave = pty.openpty()
    batch = Running(valkey.url, stderr=slave)
    os.close(slave)
    began = time.monotonic()
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
    """What a batch writes on a terminal until its end."""
    master, slave = pty.openpty()
    batch = Running(url, *args, stderr=slave)
    os.close(slave)
    batch.feed(text)
    status = batch.end()
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # how Linux says that nobody holds the other end
        pass
    os.close(master)
    return status, shown


def test_batch_progress_and_errors(valkey):
    """An error and the summary stand on lines of their own; --quiet shows no progress."""
    status, shown = terminal_of(valkey.url, text=lines_of(notification("u")) + b"x\n")
    assert status == 65
    # As a terminal shows it: a line that is cleared and begun anew is gone.
    assert re.sub(rb"[^\n]*\r\x1b\[K", b"", shown).splitlines() == [
        b"tpi-publish: line 2: the line is not one JSON object",
        b"tpi-publish: published 1, bad 1"]
    assert terminal_of(valkey.url, "--quiet", text=lines_of(notification("u"))) == (0, b"")


@pytest.mark.slow
@pytest.mark.skipif("TPI_SANITIZED" in os.environ, reason="the sanitizers replace the allocator")
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("args", [USER, ("batch", "-")])
def test_each_call_fails_once(publish, rundir, args, function):
    """Whatever call fails, it published, or an exit status and a line say what is wrong.

    Out of memory, hiredis 0.14 aborts where it copies a path or a host name, by design, and
    json-c 0.16 crashes where it copies the name of a member, which only a batch has it do.
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
        if not failed:
            break
    assert not failed
