# SPDX-License-Identifier: ISC
"""Each program of contrib/examples works as its first comment says, and what it publishes reaches Valkey."""

import base64
import concurrent.futures
import hmac
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import time

import pytest

from fronts import Apache
from node import require_node
from servers import BUILD, ROOT, broadcast_channel, clean_environment, project_channel, user_channel
from test_publish import Subscriber
from timing import scaled

EXAMPLES = os.path.join(ROOT, "contrib", "examples")
KEY = b"the key of the webhook, long enough"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
ISSUE = b'{"stream":"issue","project":7,"issue":42}\n'
HOOKS = {"Node": ["node", f"{EXAMPLES}/worker-hook.mjs"],
         "Python": ["/usr/bin/python3", "-B", f"{EXAMPLES}/worker_hook.py"]}
hooks = pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)


def environment(url, **more):
    """An environment in which tpi-publish is on the PATH."""
    return clean_environment(**{"VALKEY_URL": url, "PATH": f"{BUILD}:{os.environ['PATH']}", **more})


def run(argv, env, stdin=b""):
    return subprocess.run(argv, env=env, input=stdin, capture_output=True, timeout=scaled(30), check=False)


@pytest.fixture
def subscriber(valkey):
    """Receives everything that is published."""
    subscriber = Subscriber(valkey)
    yield subscriber
    subscriber.client.close()


# crontab

def test_crontab(valkey, subscriber):
    """The crontab's command, run by /bin/sh like cron does, publishes an announcement to all users of the tenant."""
    env, commands = {}, []
    with open(os.path.join(EXAMPLES, "crontab"), encoding="ascii") as file:
        for line in file.read().splitlines():
            if setting := re.fullmatch(r"([A-Z_]+)=(\S+)", line):
                env[setting[1]] = setting[2]
            elif line and not line.startswith("#"):
                *when, command = line.split(None, 5)
                assert all(re.fullmatch(r"\*|[0-9]+", field) for field in when) and "%" not in command
                commands.append(command)
    assert env.pop("PATH") and env.pop("VALKEY_URL") == "valkey://127.0.0.1:6379" and len(commands) == 1
    done = run(["/bin/sh", "-c", commands[0]], environment(valkey.url, **env))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    channel, payload = subscriber.next()
    assert channel == broadcast_channel(env["INSTANCE_TENANT_ID"])
    assert json.loads(payload)["event"] == "SYSTEM_ANNOUNCEMENT"
    subscriber.nothing_more()


# The webhook

def signature(body, key=KEY, name="m1", stamp=None):
    """The value of webhook-signature."""
    stamp = int(time.time()) if stamp is None else stamp
    return "v1," + base64.b64encode(hmac.new(key, b"%s.%d." % (name.encode(), stamp) + body, "sha256").digest()).decode()


def signed(body, name="m1", age=0, key=KEY):
    """The meta-variables of a request that was signed so many seconds ago."""
    stamp = int(time.time()) - age
    return {"HTTP_WEBHOOK_ID": name, "HTTP_WEBHOOK_TIMESTAMP": stamp,
            "HTTP_WEBHOOK_SIGNATURE": signature(body, key, name, stamp)}


@pytest.fixture
def secret_file(rundir):
    path = os.path.join(rundir, "secret")
    with open(path, "w", encoding="ascii") as file:
        file.write(SECRET + "\n")
    return path


@pytest.fixture
def seen(rundir):
    """The directory in which the webhook records the ids that it has accepted."""
    path = os.path.join(rundir, "seen")
    os.mkdir(path)
    return path


@pytest.fixture
def webhook(valkey, secret_file, seen):
    """webhook(body, NAME=value) makes a CGI request; returns its status and log."""
    def call(body, url=valkey.url, **meta):
        meta = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": len(body), "TPI_WEBHOOK_SECRET_FILE": secret_file,
                "TPI_WEBHOOK_SEEN": seen, **signed(body), **meta}
        done = run([f"{EXAMPLES}/webhook"], environment(url, **meta), body)
        assert done.returncode == 0, done.stderr
        head, blank, rest = done.stdout.partition(b"\r\n\r\n")
        assert blank and not rest and SECRET[6:] not in done.stderr.decode()
        return int(re.match(rb"Status: (\d+) ", head)[1]), done.stderr.decode()
    return call


def test_webhook(webhook, subscriber):
    """Each line of a body with a valid signature is published."""
    body = ISSUE + b'{"stream":"notification","user":"u1","id":"n1"}'
    assert webhook(body) == (204, "")
    assert subscriber.next() == (project_channel(7), b'{"event":"issue-updated","issueId":42,"projectId":7}')
    assert subscriber.next() == (user_channel("u1"), b'{"id":"n1","event":"notification"}')
    subscriber.nothing_more()


def test_webhook_published_signature(secret_file, seen):
    """The signature is that of the Standard Webhooks specification: its published example is accepted as signed."""
    with open(secret_file, "w", encoding="ascii") as file:
        file.write("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    body = b'{"test": 2432232314}'
    meta = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": len(body), "TPI_WEBHOOK_SECRET_FILE": secret_file,
            "TPI_WEBHOOK_SEEN": seen, "HTTP_WEBHOOK_ID": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "HTTP_WEBHOOK_TIMESTAMP": 1614265330}
    for claim, log in (("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", b"expired signature"),
                       ("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF=", b"")):
        done = run([f"{EXAMPLES}/webhook"], environment("", HTTP_WEBHOOK_SIGNATURE=claim, **meta), body)
        assert done.stdout.startswith(b"Status: 401 ")
        assert (log in done.stderr) if log else not done.stderr


@pytest.mark.parametrize("claim", [
    None, "", "v1,", signature(ISSUE)[:-1], signature(ISSUE) + "=", signature(ISSUE)[3:],
    signature(ISSUE, KEY + b"x"), signature(ISSUE + b" "), "v1a" + signature(ISSUE)[2:], "v1,\u00e9",
    signature(ISSUE, name="m2"), signature(ISSUE, stamp=1)],
    ids=["none", "empty", "no digest", "short", "long", "no version", "another secret", "another body",
         "another version", "not ASCII", "another id", "another time"])
def test_webhook_wrong_signature(webhook, subscriber, seen, claim):
    """A request without the signature of this id, time and body by this secret gets 401; nothing is published."""
    assert webhook(ISSUE, HTTP_WEBHOOK_SIGNATURE=claim) == (401, "")
    subscriber.nothing_more()
    assert not os.listdir(seen)


def test_webhook_several_signatures(webhook, subscriber):
    """While the sender changes its secret, one of several signatures suffices."""
    right = signed(ISSUE)["HTTP_WEBHOOK_SIGNATURE"]
    assert webhook(ISSUE, HTTP_WEBHOOK_SIGNATURE=f"{signature(ISSUE, b'old')} v1a,x {right}") == (204, "")
    assert subscriber.next()[0] == project_channel(7)


@pytest.mark.parametrize("missing", ["HTTP_WEBHOOK_ID", "HTTP_WEBHOOK_TIMESTAMP"])
def test_webhook_incomplete_headers(webhook, subscriber, missing):
    """Without id or timestamp a request gets 401, also if the signature leaves them out."""
    for value in None, "", "x y", "-1":
        name = value or "" if missing == "HTTP_WEBHOOK_ID" else "m1"
        stamp = value or "" if missing == "HTTP_WEBHOOK_TIMESTAMP" else int(time.time())
        digest = hmac.new(KEY, f"{name}.{stamp}.".encode() + ISSUE, "sha256").digest()
        claim = "v1," + base64.b64encode(digest).decode()
        if (missing, value) != ("HTTP_WEBHOOK_ID", "-1"):   # which is an id
            assert webhook(ISSUE, **{missing: value, "HTTP_WEBHOOK_SIGNATURE": claim}) == (401, "")
    subscriber.nothing_more()


@pytest.mark.parametrize("age", [301, 86400, -310], ids=["5 minutes", "a day", "the future"])
def test_webhook_expired(webhook, subscriber, age):
    """A valid signature more than 5 minutes from its timestamp gets 401, and the log says why."""
    status, log = webhook(ISSUE, **signed(ISSUE, age=age))
    assert status == 401 and "expired signature" in log
    subscriber.nothing_more()


def test_webhook_replay(webhook, subscriber, seen):
    """A request that was accepted is refused when it is repeated, also with a new signature; another id is accepted."""
    first = signed(ISSUE, age=200)
    assert webhook(ISSUE, **first) == (204, "")
    assert subscriber.next()[0] == project_channel(7)
    assert webhook(ISSUE, **first) == (409, "")
    assert webhook(ISSUE, **signed(ISSUE)) == (409, "")
    subscriber.nothing_more()
    assert webhook(ISSUE, **signed(ISSUE, "m2")) == (204, "")
    assert subscriber.next()[0] == project_channel(7)
    assert len(os.listdir(seen)) == 2


def test_webhook_simultaneous_replays(webhook, subscriber):
    """Of several equal requests at the same time, exactly one is published."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda meta: webhook(ISSUE, **meta), [signed(ISSUE)] * 8))
    assert sorted(answers) == [(204, ""), *[(409, "")] * 7]
    assert subscriber.next()[0] == project_channel(7)
    subscriber.nothing_more()


def test_webhook_forgets(webhook, seen):
    """A record is removed only when no signature of that id can be valid any more."""
    for age, name in (590, "younger"), (610, "older"):
        path = os.path.join(seen, name)
        with open(path, "wb"):
            pass
        os.utime(path, (time.time() - age,) * 2)
    assert webhook(ISSUE)[0] == 204
    assert "younger" in os.listdir(seen) and "older" not in os.listdir(seen)


def test_webhook_failure_can_be_repeated(webhook, subscriber):
    """A message that could not be published because of an error is accepted when it is sent again."""
    status, log = webhook(ISSUE, PATH="/nonexistent:/usr/bin:/bin")
    assert status == 500 and "tpi-publish" in log
    assert webhook(ISSUE) == (204, "")
    assert subscriber.next()[0] == project_channel(7)


def test_webhook_other_tenant(webhook, subscriber):
    """A line for another tenant is a bad line."""
    body = b'{"stream":"issue","project":7,"issue":42,"tenant":"t2"}\n' + ISSUE
    status, log = webhook(body, INSTANCE_TENANT_ID="t1")
    assert status == 400 and "line 1: " in log
    assert subscriber.next()[0] == project_channel(7, "t1")
    subscriber.nothing_more()


def test_webhook_bad_requests(webhook, subscriber, rundir):
    """Each kind of bad request or configuration gets its own status, and nothing is published."""
    assert webhook(ISSUE, REQUEST_METHOD="GET") == (405, "")
    assert webhook(ISSUE, CONTENT_LENGTH=None) == (411, "")
    assert webhook(ISSUE, CONTENT_LENGTH="1 -o 1") == (411, "")
    assert webhook(ISSUE, CONTENT_LENGTH=len(ISSUE) + 1) == (400, "")
    for length in "65537", "99999999999999999999":
        assert webhook(ISSUE, CONTENT_LENGTH=length) == (413, "")
    for name in "TPI_WEBHOOK_SECRET_FILE", "TPI_WEBHOOK_SEEN":
        status, log = webhook(ISSUE, **{name: f"{rundir}/none"})
        assert status == 500 and f"{rundir}/none" in log
    bad = os.path.join(rundir, "bad")
    for text in "", "whsec_", "whsec_" + base64.b64encode(b"x" * 23).decode(), "not Base64!":
        with open(bad, "w", encoding="ascii") as file:
            file.write(text)
        status, log = webhook(ISSUE, TPI_WEBHOOK_SECRET_FILE=bad, **signed(ISSUE, key=b""))
        assert status == 500 and bad in log
    subscriber.nothing_more()


def test_webhook_bad_lines(webhook, subscriber):
    """A bad line in a signed body gives 400 and is named in the log; the other lines are published."""
    status, log = webhook(b"nonsense\n" + ISSUE)
    assert status == 400 and "line 1: " in log
    assert subscriber.next()[0] == project_channel(7)
    subscriber.nothing_more()


def test_webhook_without_valkey(webhook, rundir):
    """While Valkey is unreachable the webhook still answers 204, so that the sender does not repeat it."""
    assert webhook(ISSUE, url=f"unix://{rundir}/none")[0] == 204


def documented(begin, end):
    """The lines of the webhook's first comment that begin and end with these words."""
    with open(f"{EXAMPLES}/webhook", encoding="ascii") as file:
        text = re.search(rf"^\t({begin}.*?{end})$", file.read(), re.M | re.S)[1]
    return re.sub(r"^\t", "", text, flags=re.M)


def substitute(text, values):
    for old, new in values.items():
        assert old in text
        text = text.replace(old, new)
    return text


def test_webhook_behind_apache(rundir, new_valkey, seen):
    """The commands and the Apache configuration in the webhook's first comment work."""
    for tool in "jq", "openssl", "curl":
        if not shutil.which(tool):
            pytest.skip(f"{tool} not found")
    secret, directory = os.path.join(rundir, "documented"), os.path.join(rundir, "var")
    paths = {"/etc/tpi-stream/webhook-secret": secret, "/var/lib/tpi-stream-webhook": directory}
    setup = substitute(documented("install -d", "webhook-secret"), paths)
    owner = "www-data" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    setup = setup.replace("www-data", owner)
    assert run(["/bin/sh", "-euc", setup], clean_environment()).returncode == 0
    assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600 and stat.S_IMODE(os.stat(directory).st_mode) == 0o700

    valkey = new_valkey(tcp=True).start()
    subscriber = Subscriber(valkey)
    program = shutil.copy(f"{EXAMPLES}/webhook", rundir)
    lines = substitute(documented("ScriptAlias ", "</Location>"), {
        "/usr/local/lib/tpi-stream/webhook": program, "valkey://127.0.0.1:6379": valkey.url, **paths})
    # The web server's user may have no access to the build directory.
    bindir = os.path.join(rundir, "bin")
    os.mkdir(bindir)
    os.chmod(bindir, 0o755)
    shutil.copy(os.path.join(BUILD, "tpi-publish"), bindir)
    site = "\n".join(["LoadModule cgid_module ${MODULES}/mod_cgid.so", f"ScriptSock {rundir}/cgid",
                      f'SetEnv PATH "{bindir}:/usr/bin:/bin"', lines])
    web = Apache(rundir, f"{rundir}/no-daemon", site=site)
    try:
        send = substitute(documented("body=", r'v1,\$signature"'), {
            "https://example.org": "http://%s:%d" % web.address, "curl -i": "curl -is",
                "/etc/tpi-stream/webhook-secret": secret})
        # The second time with the same id and the same time: a replay.
        again = f"{send}\n{send[send.index('curl'):]}\n{send[send.index('curl'):].replace('v1,', 'v1,x')}"
        done = run(["/bin/sh", "-euc", again], clean_environment())
        assert re.findall(rb"^HTTP/1.1 (\d+)", done.stdout, re.M) == [b"204", b"409", b"401"], (done, web.log())
        assert subscriber.next()[0] == project_channel(7)
        subscriber.nothing_more()
    finally:
        web.kill()


# The manual pages

def shell_examples(page):
    """The shell commands in a manual page that publish with the help of jq."""
    with open(os.path.join(ROOT, "man", page), encoding="ascii") as file:
        blocks = re.findall(r"^\.Bd -literal -offset indent\n(.*?)^\.Ed$", file.read(), re.M | re.S)
    return [block.replace(r"\(aq", "'").replace(r"\e", "\\") for block in blocks
            if "jq " in block and "curl " not in block]


def test_manual_builds_json_with_a_tool():
    """No manual page, document or example builds JSON with printf or echo, which do not escape values."""
    paths = [os.path.join(top, name) for part in ("man", "doc", "contrib/examples", "README.md")
             for top, _, names in (os.walk(os.path.join(ROOT, part)) if "." not in part else [(ROOT, [], [part])])
             for name in names if "__pycache__" not in top]
    assert len(paths) > 10
    for path in paths:
        with open(path, encoding="utf-8") as file:
            assert not re.search(r"\b(printf|echo)\b[^|\n]*\{\\?[\"']?[a-z]+\\?[\"']?:", file.read()), path


def test_manual_jq(valkey, subscriber, rundir):
    """The manual's commands publish valid payloads, whatever characters the values contain."""
    if not shutil.which("jq"):
        pytest.skip("jq not found")
    client = shutil.which("valkey-cli") or shutil.which("redis-cli")
    shim = os.path.join(rundir, "redis-cli")
    with open(shim, "w", encoding="ascii") as file:
        file.write(f'#!/bin/sh\nexec {client} -s {valkey.path} "$@"\n')
    os.chmod(shim, 0o755)
    odd = 'n"1\\'
    with open(os.path.join(rundir, "users"), "w", encoding="ascii") as file:
        file.write("u1\nu2\n")
    for page in "tpi-stream.7", "tpi-publish.1":
        for commands in shell_examples(page):
            env = environment(valkey.url, ID=odd, USER_ID="u1", ISSUE=42, PROJECT=7)
            env["PATH"] = f"{rundir}:{env['PATH']}"
            done = subprocess.run(["/bin/sh", "-euc", commands], env=env, cwd=rundir, capture_output=True,
                                  timeout=scaled(30), check=False)
            assert done.returncode == 0, done
    assert subscriber.next() == (user_channel("u1"), json.dumps({"id": odd, "event": "notification"},
                                                                separators=(",", ":")).encode())
    channel, payload = subscriber.next()
    assert channel == project_channel(7)
    assert json.loads(payload) == {"event": "issue-updated", "issueId": 42, "projectId": 7}
    assert [subscriber.next()[0] for _ in range(2)] == [user_channel("u1"), user_channel("u2")]
    subscriber.nothing_more()


# Worker hooks

def require(hook):
    if hook[0] == "node":
        require_node()


@hooks
def test_hook(hook, valkey, subscriber):
    """The hook publishes the user's notification and prints nothing."""
    require(hook)
    done = run([*hook, "u1", "n1"], environment(valkey.url, INSTANCE_TENANT_ID="t1"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert subscriber.next() == (user_channel("u1", "t1"), b'{"id":"n1","event":"notification"}')
    subscriber.nothing_more()


@hooks
def test_hook_without_valkey(hook, rundir):
    """While Valkey is unreachable, the hook prints a warning with the worker's name and does not fail the job."""
    require(hook)
    done = run([*hook, "u1", "n1"], environment(f"unix://{rundir}/none"))
    assert (done.returncode, done.stdout) == (0, b"")
    warning, = done.stderr.decode().splitlines()
    assert warning.startswith("[notificationWorker] SSE publish failed {")


@hooks
def test_hook_without_tpi_publish(hook, rundir):
    """Without tpi-publish, the hook prints a warning with the worker's name and does not fail the job."""
    require(hook)
    program = shutil.which(hook[0])
    done = run([program, *hook[1:], "u1", "n1"], clean_environment(PATH=rundir))
    assert (done.returncode, done.stdout) == (0, b"")
    warning, = done.stderr.decode().splitlines()
    assert warning.startswith("[notificationWorker] SSE publish failed ")


def test_python_hook_raises_nothing(valkey, subscriber):
    """The Python hook takes numeric ids, and prints a warning instead of raising an exception."""
    code = "import worker_hook; worker_hook.wake_user(7, 42); worker_hook.wake_user('a\\0', 1)"
    done = run(["/usr/bin/python3", "-B", "-c", code], environment(valkey.url, INSTANCE_TENANT_ID="t1", PYTHONPATH=EXAMPLES))
    assert (done.returncode, done.stdout) == (0, b"")
    assert subscriber.next() == (user_channel("7", "t1"), b'{"id":"42","event":"notification"}')
    warning, = done.stderr.decode().splitlines()
    assert warning.startswith("[notificationWorker] SSE publish failed ")
