# SPDX-License-Identifier: ISC
"""The process: settings, sockets, signals, shutdown and exit statuses."""

import grp
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import time

import pytest

import fcgi
from answers import LATER, SHUTDOWN, after_first, check_ended, check_first, check_later, notification
from fcgi import wait_all
from fronts import open_directory
from servers import BUILD, NotifySocket, Streamd, free_port, listening_socket, run_streamd, tunables, user_channel
from test_publish import run as publish
from timing import eventually, scaled

USAGE, SYSTEM, CONFIG = 64, 71, 78

NUMBERS = {  # setting: default, minimum, maximum, whether 0 turns it off
    "SSE_PER_TENANT_CAP": (1000, 1, 1000000, False),
    "SSE_PER_USER_CAP": (4, 1, 10000, False),
    "SSE_ISSUES_PER_TENANT_CAP": (1000, 1, 1000000, False),
    "SSE_ISSUES_PER_USER_CAP": (8, 1, 10000, False),
    "SSE_LIVE_PER_TENANT_CAP": (1000, 1, 1000000, False),
    "SSE_LIVE_PER_USER_CAP": (8, 1, 10000, False),
    "SSE_COMBINED_PER_TENANT_CAP": (1000, 1, 1000000, False),
    "SSE_COMBINED_PER_USER_CAP": (8, 1, 10000, False),
    "SSE_HEARTBEAT_MS": (25000, 100, 3600000, False),
    "SSE_METRICS_MS": (30000, 100, 3600000, False),
    "SSE_BACKLOG_BYTES": (65536, 16384, 16777216, False),
    "SSE_STALL_MS": (60000, 1000, 3600000, False),
    "SSE_SYNC_SPREAD_MS": (2000, 0, 60000, False),
    "SSE_MAX_AGE_SECONDS": (0, 10, 604800, True),
    "TPI_REQUEST_TIMEOUT_MS": (10000, 100, 60000, False),
    "TPI_DRAIN_SECONDS": (5, 1, 300, False),
}
TEXTS = {  # setting: default, good values, bad values
    "INSTANCE_TENANT_ID": ("default", ["t", "a" * 255], ["a b", "a:b", "*", 'a"b', "a" * 256, "\u00e4", "a\tb",
                                                         "[x]", "a\\b", "a?"]),
    "TPI_ISSUES_CHANNEL_PREFIX": ("issues,issue-updates", ["issue-updates", " a, b ,c,d "],
                                  ["a b", "a:b", "a*", "a" * 256, "a,", "a,,b", "a, a", "a,b,c,d,e"]),
    "TPI_IDENTITY": ("web-server", [], ["Web-Server", "nobody", "web-server "]),
    "TPI_PROJECT_ACCESS": ("deny", ["allow"], ["Deny", "file", "file:", "all", "deny,allow"]),
    "TPI_STATUS": ("off", ["on"], ["On", "1", "true", "yes"]),
    "TPI_LOG_LEVEL": ("info", ["error", "warn", "debug"], ["INFO", "2", "trace"]),
    "TPI_LISTEN": (None, ["/tmp/x", "unix:/tmp/x", "127.0.0.1:9000", "[::1]:9000", "localhost:9000"],
                   ["x", "127.0.0.1", "127.0.0.1:0x", "127.0.0.1:65536", "127.0.0.1:-1", "[::1]", ":", "unix:",
                    "unix:x", "/" + "x" * 200]),
    "VALKEY_URL": (None, ["valkey://h", "redis://h:1/0", "unix:///s", "valkey://u:p@h:6379/15", "redis://:p@[::1]:1",
                          "valkey://h?family=6", "valkey://h:1/0?family=0", "valkey://a, valkey://b"],
                   ["h", "http://h", "valkey://", "valkey://h:0", "valkey://h:65536",
                    "valkey://h/x", "valkey://h?family=5", "unix:///s?family=4", "unix://", "valkey://[::1", "valkey://u:%zz@h"]),
}


def check_config_error(result, name, value=None):
    """Checks for exit status 78 and one line on stderr that names the setting and the value."""
    assert result.returncode == CONFIG, result
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert name in lines[0]
    if value is not None:
        assert value in lines[0]
    return lines[0]


def effective(**env):
    result = run_streamd("--check-config", **env)
    assert result.returncode == 0, result
    return dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)


# Settings

@pytest.mark.parametrize("name", NUMBERS)
def test_number(name):
    """A number is accepted within its range and empty means unset; anything else exits with 78 and one line that
    names setting, value and range, at start and with --check-config."""
    default, low, high, off = NUMBERS[name]
    assert effective()[name] == str(default)
    assert effective(**{name: ""})[name] == str(default)
    for good in [low, high] + [0] * off:
        assert effective(**{name: good})[name] == str(good)
    bad = [high + 1, low - 1, "-1", "+5", "1.5", "5x", "x", " 5", "5 ", "0x10", "1e3", "99999999999999999999",
           "4294967297"]
    for value in map(str, bad):
        if (off or low == 0) and value in ("0", "-0"):
            continue
        for args in ["--check-config"], []:
            line = check_config_error(run_streamd(*args, **{name: value}), name, value)
            assert str(low) in line and str(high) in line


@pytest.mark.parametrize("name", TEXTS)
def test_text(name):
    """A text setting accepts its valid values, and empty means unset; anything else exits with 78 and one line that
    names it."""
    default, good, bad = TEXTS[name]
    if default is not None:
        assert effective()[name] == default
        assert effective(**{name: ""})[name] == default
    for value in good:
        assert name in effective(**{name: value})
    for value in bad:
        result = run_streamd("--check-config", **{name: value})
        line = check_config_error(result, name)
        if value.isascii() and value.isprintable() and len(value) < 50 and "%" not in value:
            assert value in line or value.replace("\\", "\\\\").replace('"', '\\"') in line, line


@pytest.mark.parametrize("url", ["valkeys://h", "rediss://h:1"])
def test_tls_url(url):
    """A build without TLS rejects a TLS URL and says why."""
    result = run_streamd("--check-config", VALKEY_URL=url)
    if result.returncode:
        assert "TLS" in check_config_error(result, "VALKEY_URL")


def test_password_is_masked():
    """Neither the effective settings nor an error shows a password."""
    result = run_streamd("--check-config", VALKEY_URL="valkey://user:s3cret@h:1")
    assert result.returncode == 0 and "s3cret" not in result.stdout + result.stderr
    assert "user" not in result.stdout or "***" in result.stdout
    # An invalid port may be a password whose '@' is missing.
    for url in "valkey://h:s3cret", "valkey://h:1:s3cret", "valkey://user:s3cret@h:x", "http://:s3cret@h",\
            "valkey://:s3cret@h:1/x", "user:s3cret@h":
        assert "s3cret" not in check_config_error(run_streamd("--check-config", VALKEY_URL=url), "VALKEY_URL")


SECRETS = ["SECRET", "SEC,RET", "SEC@RET", "SEC/RET", "SEC%RET", "SEC%40RET", "SEC:RET", "redis://SECRET",
           "SEC,redis://RET", "SEC, redis://RET", "SEC@RET/,redis://SEC@RET", "SEC,RET@redis://SEC%RET/"]


@pytest.mark.parametrize("url", [url.format(secret) for secret in SECRETS for url in [
    "redis://:{}@h:x", "redis://u:{}@h/x", "redis://a,redis://:{}@h:0,redis://b", "h:{}@h"]] + [
        f"redis://u:{secret}%40h" for secret in SECRETS if "@" not in secret])
def test_no_part_of_a_password_is_printed(url):
    """An error about a URL, in a setting or an argument, prints no part of its password, whatever that contains."""
    for name in "VALKEY_URL", "VALKEY_SENTINELS", "TPI_APP_URL":
        more = {"TPI_IDENTITY": "app"} if name == "TPI_APP_URL" else {}
        line = check_config_error(run_streamd("--check-config", **{name: url}, **more), name)
        assert not re.search("SEC|RET", line), line
    user = ["notification", "--user", "u"]
    for arguments in user + ["--url", url], user + [url], user + ["--ulr=" + url]:
        result = publish(*arguments)
        assert result.status == 64 and not re.search("SEC|RET", result.line()), result.line()


def test_missing_password_file(rundir):
    """A password file that cannot be read exits with 78 and names the file."""
    path = f"{rundir}/missing"
    check_config_error(run_streamd("--check-config", VALKEY_PASSWORD_FILE=path), "VALKEY_PASSWORD_FILE", path)


@pytest.mark.parametrize("text, number", [
    ("7 ann\nx ann\n", 2), ("0 ann\n", 1), ("\n\n07 ann\n", 3), ("2147483648 ann\n", 1), ("-1 ann\n", 1),
    ("7\n", 1), ("7 a:b\n", 1), ("7 ann*\n", 1), ("# c\n7 # nobody\n", 2), ("7,8 ann\n", 1), ("** ann\n", 1),
    ("7 ann\n7 \xe4\n", 2), ("7 " + "a" * 256 + "\n", 1), ("7 ann\n8 ann", 2)])
def test_invalid_access_file(rundir, text, number):
    """An invalid access file is fatal at start, with the line's number."""
    path = f"{rundir}/rules"
    with open(path, "w", encoding="latin-1") as file:
        file.write(text)
    for args in ["--check-config"], ["--listen", f"{rundir}/s"]:
        line = check_config_error(run_streamd(*args, TPI_PROJECT_ACCESS=f"file:{path}"), path)
        assert f":{number}:" in line or f"line {number}" in line, line


def test_unreadable_access_file(rundir):
    """An access file that is missing or a directory is fatal at start."""
    for path in f"{rundir}/missing", rundir:
        line = check_config_error(run_streamd("--check-config", TPI_PROJECT_ACCESS=f"file:{path}"), path)
        assert "TPI_PROJECT_ACCESS" in line


def test_check_config_prints_every_setting():
    """--check-config prints each of the daemon's settings once, without connecting to Valkey."""
    result = run_streamd("--check-config", VALKEY_URL="valkey://127.0.0.1:1")
    names = [line.split("=")[0] for line in result.stdout.splitlines()]
    assert len(names) == len(set(names))
    assert set(NUMBERS) | set(TEXTS) | {"VALKEY_PASSWORD_FILE"} <= set(names)


# Usage

@pytest.mark.parametrize("args", [
    ["--unknown"], ["-x"], ["extra"], ["--listen"], ["--listen", "x"], ["--listen", "127.0.0.1:99999"],
    ["--mode", "9"], ["--mode", "x"], ["--mode", ""], ["--mode", "-1"], ["--mode", "10000"], ["--backlog", "0"],
    ["--backlog", "x"], ["--backlog", "-1"], ["--backlog", "99999999999"], ["--check-config", "extra"],
    ["--group", ""]], ids=" ".join)
def test_wrong_usage(args):
    """Wrong usage exits with 64 and prints the reason on stderr."""
    result = run_streamd(*args)
    assert result.returncode == USAGE, result
    assert result.stderr and not result.stdout
    if len(args) == 2 and args[1] and args[0] != "--check-config":
        assert args[0] in result.stderr and args[1] in result.stderr


def test_help_and_version():
    """--help prints every option on stdout, --version the program's name."""
    result = run_streamd("--help")
    assert result.returncode == 0 and not result.stderr
    for option in "--listen", "--mode", "--group", "--backlog", "--check-config", "--help", "--version":
        assert option in result.stdout
    result = run_streamd("--version")
    assert result.returncode == 0 and result.stdout.startswith("tpi-streamd ") and not result.stderr


# Sockets

def test_missing_directory(rundir):
    """A socket in a missing directory exits with 71 and prints the path."""
    path = f"{rundir}/missing/s"
    result = run_streamd("--listen", path)
    assert result.returncode == SYSTEM and path in result.stderr.splitlines()[-1], result


def test_unknown_group(rundir):
    """The error about an unknown group names it."""
    result = run_streamd("--listen", f"{rundir}/s", "--group", "no-such-group")
    assert result.returncode in (USAGE, SYSTEM) and "no-such-group" in result.stderr


def test_live_socket_is_not_replaced(streamd):
    """A socket that another daemon serves exits with 71, and that daemon is not affected."""
    daemon = streamd()
    result = run_streamd("--listen", daemon.address)
    assert result.returncode == SYSTEM and daemon.address in result.stderr.splitlines()[-1], result
    daemon.stream().close()


def test_stale_socket_is_replaced(streamd, rundir):
    """A socket file without a listener is replaced."""
    path = f"{rundir}/s"
    listening_socket(path).close()
    assert os.path.exists(path)
    daemon = streamd(["--listen", path], address=path)
    daemon.stream().close()
    daemon.stop()
    assert not os.path.exists(path)


def test_other_files_are_not_replaced(rundir):
    """A file that is not a socket is not removed."""
    path = f"{rundir}/s"
    with open(path, "w", encoding="ascii") as file:
        file.write("precious")
    result = run_streamd("--listen", path)
    assert result.returncode == SYSTEM and path in result.stderr, result
    with open(path, encoding="ascii") as file:
        assert file.read() == "precious"


def test_socket_is_removed_only_if_ours(streamd, rundir):
    """A socket file that another process has created at the same path is not removed at exit."""
    path = f"{rundir}/s"
    daemon = streamd(["--listen", path], address=path)
    os.unlink(path)
    with listening_socket(path):
        daemon.stop()
        assert os.path.exists(path)


def test_mode_group_backlog(streamd, rundir):
    """The socket has mode 0660 or that of --mode, the group of --group, and the queue of --backlog."""
    daemon = streamd()
    assert stat.S_IMODE(os.stat(daemon.address).st_mode) == 0o660
    group = grp.getgrgid(os.getegid()) if os.geteuid() else grp.getgrnam("daemon")
    path = f"{rundir}/s"
    daemon = streamd(["--listen", path, "--mode", "0606", "--group", group.gr_name, "--backlog", "77"],
                     address=path)
    found = os.stat(path)
    assert stat.S_IMODE(found.st_mode) == 0o606 and found.st_gid == group.gr_gid
    shown = subprocess.run(["ss", "-lxH", "src", path], capture_output=True, text=True, check=False)
    if shown.returncode == 0 and shown.stdout:
        assert " 77 " in shown.stdout


@pytest.mark.parametrize("form", ["/path", "unix:/path", "TPI_LISTEN", "host:port", "localhost:port", "v6"])
def test_addresses(streamd, rundir, form):
    """The daemon listens on every form of an address."""
    path, port = f"{rundir}/s", free_port()
    args, address, env = {
        "/path": (["--listen", path], path, {}),
        "unix:/path": (["--listen", f"unix:{path}"], path, {}),
        "TPI_LISTEN": ([], path, {"TPI_LISTEN": path}),
        "host:port": (["--listen", f"127.0.0.1:{port}"], ("127.0.0.1", port), {}),
        "localhost:port": (["--listen", f"localhost:{port}"], ("localhost", port), {}),
        "v6": (["--listen", f"[::1]:{port}"], ("::1", port), {}),
    }[form]
    if form == "v6":
        try:
            socket.create_server(("::1", port), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("no IPv6")
        daemon = streamd(args, address=address, wait=False)
        eventually(lambda: socket.socket(socket.AF_INET6).connect_ex(address) == 0, what="a connection")
        return
    daemon = streamd(args, address=address, **env)
    with daemon.stream() as peer:
        check_first(peer)


def test_option_over_setting(streamd, rundir):
    """--listen takes precedence over TPI_LISTEN."""
    path = f"{rundir}/s"
    streamd(["--listen", path], address=path, TPI_LISTEN=f"{rundir}/other").stream().close()
    assert not os.path.exists(f"{rundir}/other")


def test_busy_port():
    """A port in use exits with 71 and prints the address."""
    with listening_socket(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        result = run_streamd("--listen", address)
        assert result.returncode == SYSTEM and address in result.stderr.splitlines()[-1], result


@pytest.mark.parametrize("how", ["systemd", "fd0"])
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_inherited(streamd, rundir, how, tcp):
    """A socket from systemd or on descriptor 0 is used, and left in place at exit."""
    address = ("127.0.0.1", 0) if tcp else f"{rundir}/inherited"
    with listening_socket(address) as listener:
        daemon = streamd(inherit=[listener], how=how)
        with daemon.stream() as peer:
            check_first(peer)
            daemon.stop()
        if not tcp:
            assert os.path.exists(address)
        successor = streamd(inherit=[listener], how=how)
        successor.stream().close()


def test_foreign_listen_pid(streamd, rundir):
    """LISTEN_FDS is ignored when LISTEN_PID is another process."""
    path = f"{rundir}/s"
    daemon = streamd(["--listen", path], address=path, LISTEN_FDS="1", LISTEN_PID="1")
    daemon.stream().close()


def test_queue_of_an_inherited_socket(streamd, rundir):
    """Connections queued on an inherited socket get their streams from the next daemon."""
    with listening_socket(f"{rundir}/inherited") as listener:
        daemon = streamd(inherit=[listener])
        daemon.stream()
        daemon.stop()
        waiting = [daemon.open(f"u{number}") for number in range(20)]
        successor = streamd(inherit=[listener], wait=False)
        wait_all(waiting, fcgi.live, 20, "sync from the successor")
        for peer in waiting:
            check_first(peer)
        successor.stop()


def test_queue_of_our_own_socket(streamd):
    """Connections queued on the daemon's own socket at exit get "retry later", or a stream with shutdown."""
    daemon = streamd()
    daemon.signal(signal.SIGSTOP)
    waiting = [daemon.open(f"u{number}") for number in range(30)]
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGCONT)
    wait_all(waiting, lambda p: p.closed, what="a response")
    for peer in waiting:
        if LATER.fullmatch(peer.body):
            check_later(peer)
        else:
            check_ended(peer)
            check_first(peer)
            assert after_first(peer) == SHUTDOWN
    assert daemon.wait() == 0


@pytest.mark.parametrize("how", ["--listen", "systemd"])
def test_exposed_tcp_address(streamd, how):
    """A TCP address that is not loopback is a warning, for an inherited socket, too; loopback is none."""
    warning = r"^\[streamd\] the TCP address is not loopback: "
    for host, expected in ("127.0.0.1", 0), ("0.0.0.0", 1):
        address = ("127.0.0.1", free_port())
        if how == "systemd":
            with listening_socket((host, address[1])) as listener:
                daemon = streamd(inherit=[listener], address=address)
        else:
            daemon = streamd(["--listen", f"{host}:{address[1]}"], address=address)
        daemon.wait_for_log("started")
        assert len(daemon.matching(warning)) == expected
        daemon.stream().close()


# Shutdown and signals

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain(streamd, valkey, number):
    """On a signal every stream gets shutdown and END_REQUEST, channels are unsubscribed, and the daemon exits with 0
    well within TPI_DRAIN_SECONDS."""
    daemon = streamd(SSE_PER_USER_CAP=1000)
    peers = daemon.streams(100)
    assert daemon.stop(number) < scaled(3)
    wait_all(peers, lambda p: p.closed)
    for peer in peers:
        check_ended(peer)
        assert after_first(peer) == SHUTDOWN
    valkey.wait_subscribers(user_channel("u1"), 0, 1)
    assert not os.path.exists(daemon.address)


def test_drain_without_valkey(streamd, new_valkey):
    """Neither a silent nor an unreachable Valkey delays the exit."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url, TPI_DRAIN_SECONDS=2)
    with daemon.stream() as peer:
        valkey.pause()
        with daemon.open("waiting") as waiting:
            waiting.quiet(0.2)
            assert daemon.stop() < 2 + scaled(1)
            check_later(waiting.wait_end())
        assert after_first(peer.wait_end()) == SHUTDOWN
    valkey.resume()
    daemon = streamd(VALKEY_URL="valkey://127.0.0.1:1", TPI_DRAIN_SECONDS=2)
    assert daemon.stop() < scaled(1)


def test_drain_with_silent_peers(streamd):
    """Peers with incomplete requests do not delay the exit beyond TPI_DRAIN_SECONDS."""
    daemon = streamd(TPI_REQUEST_TIMEOUT_MS=60000)
    peers = [fcgi.Peer(daemon.address, fcgi.begin()) for _ in range(20)]
    daemon.stream().close()
    assert daemon.stop() < 5 + scaled(0.5)
    for peer in peers:
        peer.close()


def test_second_signal(streamd):
    """Further signals during the drain change nothing."""
    daemon = streamd()
    peers = [daemon.stream(f"u{number}") for number in range(30)]
    for number in signal.SIGTERM, signal.SIGTERM, signal.SIGINT:
        daemon.signal(number)
    for peer in peers:
        check_ended(peer.wait_end())
        assert after_first(peer) == SHUTDOWN
    assert daemon.wait() == 0


def test_signal_at_start(rundir, valkey):
    """A signal right after the start exits gracefully, too."""
    for delay in 0.03, 0.06, 0.1:
        daemon = Streamd(rundir, {"VALKEY_URL": valkey.url}, wait=False)
        eventually(lambda d=daemon: os.path.exists(d.address), what="the socket")
        time.sleep(delay - 0.03)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        daemon.check_clean()
        assert not os.path.exists(daemon.address)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can look into the daemon")
@pytest.mark.parametrize("value", [None, "glibc.malloc.arena_max=1", tunables()])
def test_environment_is_left_alone(streamd, value):
    """The daemon runs with the GLIBC_TUNABLES of its environment and does not re-execute itself."""
    daemon = streamd(GLIBC_TUNABLES=value)
    with open(f"/proc/{daemon.pid}/environ", "r", encoding="utf-8") as environment:
        found = dict(entry.split("=", 1) for entry in environment.read().split("\0") if "=" in entry)
    # glibc keeps only the first tunable in the environment.
    expected = value.split(":")[0] if value else os.environ.get("GLIBC_TUNABLES")
    assert found.get("GLIBC_TUNABLES") == expected


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGPIPE, signal.SIGWINCH, signal.SIGUSR1], ids=str)
def test_survived(streamd, valkey, number):
    """Other signals change nothing."""
    daemon = streamd()
    with daemon.stream("ann") as peer:
        for _ in range(5):
            daemon.signal(number)
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))
        daemon.stream("bob").close()


def test_memory_is_protected(rundir, valkey):
    """Cookies are in memory: no core dump is written, and another process of the same user cannot attach or read
    the environment."""
    directory = open_directory(rundir, "protected-")
    os.chmod(directory, 0o777)
    # root may read everything.
    other = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    daemon = Streamd(directory, {"VALKEY_URL": valkey.url}, executable=shutil.copy(f"{BUILD}/tpi-streamd", directory),
                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)), **other)
    with open(f"/proc/{daemon.pid}/limits", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("Max core file size"))
    assert line.split()[4:6] == ["0", "0"]
    for path in "environ", "maps":
        read = subprocess.run(["/bin/cat", f"/proc/{daemon.pid}/{path}"], capture_output=True, check=False, **other)
        assert read.returncode == 1 and b"Permission denied" in read.stderr
    daemon.stop()


# systemd

def test_notify(streamd, rundir):
    """systemd gets READY=1 when the daemon accepts connections, WATCHDOG=1 in time, and STOPPING=1."""
    systemd = NotifySocket(rundir)
    daemon = streamd(NOTIFY_SOCKET=systemd.path, WATCHDOG_USEC="500000", wait=False)
    systemd.wait("READY=1")
    daemon.stream().close()
    systemd.wait("WATCHDOG=1", count=3)
    daemon.stop()
    systemd.wait("STOPPING=1")
    systemd.close()


def test_abstract_notify_socket(streamd):
    """systemd's socket may be an abstract socket."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = f"tpi-test-{os.getpid()}"
    listener.bind("\0" + name)
    listener.settimeout(scaled(10))
    streamd(NOTIFY_SOCKET="@" + name)
    assert "READY=1" in listener.recv(4096).decode().split("\n")
    listener.close()


def test_missing_notify_socket(streamd, rundir):
    """A missing notify socket does not stop the daemon."""
    streamd(NOTIFY_SOCKET=f"{rundir}/gone", WATCHDOG_USEC="200000").stream().close()


# Outputs

def closed(number):
    return {"preexec_fn": lambda: os.close(number)}


def test_closed_outputs(streamd, valkey):
    """With stdin, stdout or stderr closed the daemon works, and no connection gets their descriptors."""
    for popen in closed(1), closed(2), {"preexec_fn": lambda: (os.close(1), os.close(2), os.close(0))}:
        daemon = streamd(popen=popen, SSE_METRICS_MS=100, TPI_LOG_LEVEL="debug", SSE_PER_USER_CAP=1)
        with daemon.stream("ann") as first, daemon.stream("ann"):
            first.wait_end()
        with daemon.stream("bob") as peer:
            peer.quiet(0.3)
            assert after_first(peer) == b""
            valkey.publish(user_channel("bob"), notification(1))
            peer.wait_data(notification(1))


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_blocked_output(streamd, valkey, name):
    """A full pipe at stdout or stderr blocks neither streams nor the exit."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    daemon = streamd(popen={name: writer}, SSE_METRICS_MS=100, TPI_LOG_LEVEL="debug")
    with daemon.stream("ann") as peer:
        for number in range(50):
            daemon.ask(TPI_USER=None, REMOTE_USER="x")
            valkey.publish(user_channel("ann"), b"bad payload")
            valkey.publish(user_channel("ann"), notification(number))
            peer.wait_data(notification(number))
        daemon.stop()
    os.close(reader)
    os.close(writer)


def test_broken_pipe(streamd, valkey):
    """A broken pipe at stdout does not stop the daemon."""
    reader, writer = os.pipe()
    daemon = streamd(popen={"stdout": writer}, SSE_METRICS_MS=100)
    os.close(reader)
    os.close(writer)
    with daemon.stream("ann") as peer:
        peer.quiet(0.4)
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_data(notification(1))


# Resource limits

def test_caps_exceed_descriptors(streamd):
    """Caps that exceed the limit of descriptors are logged at start, with what is needed: for the streams, the daemon
    itself, the queries, and the requests of unknown users and of known ones that wait."""
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))}
    daemon = streamd(popen=limit)
    daemon.wait_for_log('"RLIMIT_NOFILE","allowed":256,"needed":4064}')
    daemon.stream().close()
    app = streamd(popen=limit, TPI_IDENTITY="app", TPI_APP_URL="http://127.0.0.1:1", TPI_APP_CONCURRENCY="10",
                  TPI_APP_PENDING="100")
    app.wait_for_log('"RLIMIT_NOFILE","allowed":256,"needed":4274}')


def test_limit_is_raised(streamd):
    """The soft limit of descriptors is raised to the hard limit."""
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4000))}
    daemon = streamd(popen=limit)
    with open(f"/proc/{daemon.pid}/limits", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("Max open files"))
    assert line.split()[3:5] == ["4000", "4000"]


def test_out_of_descriptors(streamd):
    """Out of descriptors, the daemon keeps its streams, and serves new ones again as soon as some are closed."""
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))}
    daemon = streamd(popen=limit, SSE_PER_USER_CAP=1000)
    first = daemon.stream("ann")
    peers = [daemon.open() for _ in range(150)]
    eventually(lambda: sum(fcgi.live(p.quiet(0)) or p.closed for p in peers) >= 40, what="some responses")
    assert not first.quiet(0).closed
    for peer in peers:
        peer.close()
    eventually(lambda: daemon.open().wait(lambda p: p.closed or fcgi.live(p)).events.data, what="a stream again")
    assert not first.quiet(0).closed
