# SPDX-License-Identifier: ISC
"""Each program of contrib/examples works as its first comment says, and what it publishes reaches Valkey."""

import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess

import pytest

from fronts import Apache
from node import require_node
from servers import BUILD, ROOT, broadcast_channel, clean_environment, http, project_channel, user_channel
from test_publish import Subscriber
from timing import scaled

EXAMPLES = os.path.join(ROOT, "contrib", "examples")
SECRET = "0123456789abcdef-of-the-webhook"
ISSUE = b'{"stream":"issue","project":7,"issue":42}\n'
HOOKS = {"Node": ["node", f"{EXAMPLES}/worker-hook.mjs"],
         "Python": ["/usr/bin/python3", "-B", f"{EXAMPLES}/worker_hook.py"]}
hooks = pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)


def environment(url, **more):
    """An environment in which tpi-publish is on the PATH."""
    return clean_environment(VALKEY_URL=url, PATH=f"{BUILD}:{os.environ['PATH']}", **more)


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

def signature(body, secret=SECRET):
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@pytest.fixture
def secret_file(rundir):
    path = os.path.join(rundir, "secret")
    with open(path, "w", encoding="ascii") as file:
        file.write(SECRET + "\n")
    return path


@pytest.fixture
def webhook(valkey, secret_file):
    """webhook(body, NAME=value) makes a CGI request; returns its status and log."""
    def call(body, url=valkey.url, **meta):
        meta = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": len(body), "TPI_WEBHOOK_SECRET_FILE": secret_file,
                "HTTP_X_HUB_SIGNATURE_256": signature(body), **meta}
        done = run([f"{EXAMPLES}/webhook"], environment(url, **meta), body)
        assert done.returncode == 0, done.stderr
        head, blank, rest = done.stdout.partition(b"\r\n\r\n")
        assert blank and not rest and SECRET not in done.stderr.decode()
        return int(re.match(rb"Status: (\d+) ", head)[1]), done.stderr.decode()
    return call


def test_webhook(webhook, subscriber):
    """Each line of a body with a valid signature is published."""
    body = ISSUE + b'{"stream":"notification","user":"u1","id":"n1"}'
    assert webhook(body) == (204, "")
    assert subscriber.next() == (project_channel(7), b'{"event":"issue-updated","issueId":42,"projectId":7}')
    assert subscriber.next() == (user_channel("u1"), b'{"id":"n1","event":"notification"}')
    subscriber.nothing_more()


@pytest.mark.parametrize("claim", [
    None, "", "sha256=", signature(ISSUE)[:-1], signature(ISSUE) + "0", signature(ISSUE)[7:],
    signature(ISSUE, SECRET + "x"), signature(ISSUE + b" "), "sha1=" + signature(ISSUE)[7:]],
    ids=["none", "empty", "no digits", "short", "long", "no prefix", "another secret", "another body", "sha1"])
def test_webhook_wrong_signature(webhook, subscriber, claim):
    """A request without the signature of this body by this secret gets 401, and nothing is published."""
    assert webhook(ISSUE, HTTP_X_HUB_SIGNATURE_256=claim) == (401, "")
    subscriber.nothing_more()


def test_webhook_bad_requests(webhook, subscriber, rundir):
    """Each kind of bad request or configuration gets its own status, and nothing is published."""
    assert webhook(ISSUE, REQUEST_METHOD="GET") == (405, "")
    assert webhook(ISSUE, CONTENT_LENGTH=None) == (411, "")
    assert webhook(ISSUE, CONTENT_LENGTH="1 -o 1") == (411, "")
    for length in "65537", "99999999999999999999":
        assert webhook(ISSUE, CONTENT_LENGTH=length) == (413, "")
    status, log = webhook(ISSUE, TPI_WEBHOOK_SECRET_FILE=f"{rundir}/none")
    assert status == 500 and f"{rundir}/none" in log
    empty = os.path.join(rundir, "empty")
    with open(empty, "wb"):
        pass
    status, log = webhook(ISSUE, TPI_WEBHOOK_SECRET_FILE=empty, HTTP_X_HUB_SIGNATURE_256=signature(ISSUE, ""))
    assert status == 500 and "16 bytes" in log
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


def test_webhook_behind_apache(rundir, new_valkey, secret_file):
    """The Apache configuration in the webhook's first comment works."""
    program = shutil.copy(f"{EXAMPLES}/webhook", rundir)
    with open(program, encoding="ascii") as file:
        text = file.read()
    lines = re.search(r"^#\t(ScriptAlias .*?</Location>)$", text, re.M | re.S)[1].replace("\n#\t", "\n")
    os.chmod(secret_file, 0o644)
    valkey = new_valkey(tcp=True).start()
    subscriber = Subscriber(valkey)
    for old, new in {"/usr/local/lib/tpi-stream/webhook": program, "valkey://127.0.0.1:6379": valkey.url,
                     "/etc/tpi-stream/webhook-secret": secret_file}.items():
        assert old in lines
        lines = lines.replace(old, new)
    # The web server's user may have no access to the build directory.
    bindir = os.path.join(rundir, "bin")
    os.mkdir(bindir)
    os.chmod(bindir, 0o755)
    shutil.copy(os.path.join(BUILD, "tpi-publish"), bindir)
    site = "\n".join(["LoadModule cgid_module ${MODULES}/mod_cgid.so", f"ScriptSock {rundir}/cgid",
                      f'SetEnv PATH "{bindir}:/usr/bin:/bin"', lines])
    web = Apache(rundir, f"{rundir}/no-daemon", site=site)
    try:
        for claim, status in (signature(ISSUE), 204), (signature(ISSUE, "another"), 401):
            peer = http(web.address, "/hooks/wake-up", "POST", X_Hub_Signature_256=claim, Content_Length=len(ISSUE))
            peer.send(ISSUE)
            peer.wait(lambda p: p.ended, what="a complete response")
            assert peer.status == status, web.log()
        assert subscriber.next()[0] == project_channel(7)
        subscriber.nothing_more()
    finally:
        web.kill()


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
