# SPDX-License-Identifier: ISC
"""Sentinel: tpi-streamd and tpi-publish use the primary that the sentinels name."""

import os
import re
import signal
import socket
import time

import pytest

import sentinels
import standins
import test_publish
from answers import SYNC, after_first, check_later, frame, notification
from sentinels import Group, SilentServer
from servers import ValkeyClient, run_streamd, user_channel
from test_valkey import ABOUT_VALKEY, accepted, check_works, wait_attempts
from timing import eventually, scaled

NO_SENTINEL = "no sentinel in VALKEY_SENTINELS named the primary"
CHECK = 10 + 2  # seconds within which the daemon leaves a primary that was replaced
BACK = 15       # seconds within which it finds the new primary after it has lost the old one


@pytest.fixture
def group(rundir):
    """group(...) starts a primary, a replica and sentinels."""
    made = []

    def make(**named):
        made.append(Group(rundir, **named))
        return made[-1]
    yield make
    for one in made:
        one.kill()


@pytest.fixture
def others():
    """A list of other servers; the fixture stops them."""
    made = []
    yield made
    for one in made:
        one.stop()


def settings(names, **more):
    return {"VALKEY_URL": None, "VALKEY_SENTINELS": names, "SSE_SYNC_SPREAD_MS": 0, **more}


def publish(number, names, *args, **env):
    return test_publish.run("notification", "--user", "ann", "--id", str(number), *args, VALKEY_SENTINELS=names, **env)


def wait_sync(peer, already, timeout=BACK):
    peer.wait(lambda p: after_first(p).startswith(already + SYNC), timeout, "the sync from the new primary")


def wait_subscribed(server, user="ann"):
    server.wait_subscribers(user_channel(user), 1, 30)


def epoch(g):
    return int(g.sentinels[0].facts()[b"config-epoch"])


def connected_to(server):
    return rf'^\[valkey\] connected {{"server":"127.0.0.1:{server.port}"'


def test_primary_is_found(streamd, group):
    """Both programs use the primary that the sentinels name, not the host of VALKEY_URL; white space around the commas of
    the list is allowed."""
    g = group()
    spaced = f" {g.names} \r\n".replace(",", " ,\t")
    for url, names in (None, g.names), ("valkey://nowhere.invalid:1", g.names), ("valkey://x?family=4", spaced):
        daemon = streamd(**settings(names, VALKEY_URL=url))
        check_works(daemon, g.primary)
        daemon.wait_for_log(connected_to(g.primary))
        done = test_publish.run("notification", "--user", "works", "--verbose", VALKEY_SENTINELS=names,
                                **({"VALKEY_URL": url} if url else {}))
        assert (done.status, done.err) == (0, "")
        daemon.stop()


@pytest.mark.slow
def test_primary_dies(streamd, group):
    """When the primary dies, streams stay open, get a sync from the new primary and then each wake-up once; tpi-publish
    uses the new primary, too."""
    g = group()
    daemon = streamd(**settings(g.names))
    peers = [daemon.stream("ann"), daemon.stream("ann")]
    assert publish(1, g.names).status == 0
    for peer in peers:
        peer.wait_body(frame(notification(1)))
    mark = daemon.mark()
    g.primary.kill()
    daemon.wait_for_log(r"^\[valkey\] unreachable .*\"lost\":", start=mark)
    check_later(daemon.ask("new"))
    g.wait_failover()
    for peer in peers:
        wait_sync(peer, frame(notification(1)), BACK + scaled(5))
    wait_subscribed(g.replica)
    assert publish(2, g.names).status == 0
    assert publish(3, g.names, "--url", g.replica.url).status == 0
    for peer in peers:
        peer.wait_body(frame(notification(3)))
        assert after_first(peer) == frame(notification(1)) + SYNC + frame(notification(2)) + frame(notification(3))
    # At most one line for each change of state: connection lost, another primary named, connected.
    daemon.wait_for_log(connected_to(g.replica), start=mark)
    assert len(daemon.matching(ABOUT_VALKEY, start=mark)) <= 3


@pytest.mark.slow
def test_primary_is_partitioned(streamd, group):
    """The daemon leaves a stopped primary for its successor, and does not return when the old one continues."""
    g = group()
    daemon = streamd(**settings(g.names))
    peer = daemon.stream("ann")
    mark = daemon.mark()
    g.primary.pause()
    started = time.monotonic()
    g.wait_failover()
    wait_sync(peer, b"", CHECK + scaled(5))
    assert time.monotonic() - started < CHECK + scaled(10)
    wait_subscribed(g.replica)
    # The dead server does not delay tpi-publish: the sentinels no longer name it.
    assert publish(1, g.names).status == 0
    peer.wait_body(frame(notification(1)))
    g.primary.resume()
    g.wait_role(g.primary, b"slave")
    assert publish(2, g.names).status == 0
    peer.wait_body(frame(notification(2)))
    assert g.primary.subscribers(user_channel("ann")) == 0
    assert after_first(peer) == SYNC + frame(notification(1)) + frame(notification(2))
    assert len(daemon.matching(connected_to(g.replica), start=mark)) == 1
    assert not daemon.matching(connected_to(g.primary), start=mark)


@pytest.mark.slow
def test_replaced_primary_still_answers(streamd, group, others):
    """At the next check the daemon leaves a primary that still responds, if the sentinels name another with a newer
    epoch."""
    g = group(sentinels=1)
    other = standins.Sentinel(g.primary.port, epoch=epoch(g) + 1)
    others.append(other)
    daemon = streamd(**settings(other.name))
    peer = daemon.stream("ann")
    mark = daemon.mark()
    g.replica("REPLICAOF", "NO", "ONE")
    other.port, other.epoch = g.replica.port, other.epoch + 1
    line = daemon.wait_for_log(connected_to(g.replica), CHECK + scaled(5), start=mark)
    assert '"lost":"the sentinels name another primary"' in line
    wait_sync(peer, b"")
    wait_subscribed(g.replica)
    assert g.primary.subscribers(user_channel("ann")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("position", range(3))
def test_sentinels_disagree(streamd, new_valkey, rundir, position):
    """Three real sentinels name the primary by its address, by its name, and by an address that only its own host can
    use, wherever in the list that is: both programs use the primary, and stay there when a sentinel dies."""
    valkey = new_valkey(tcp=True).start()
    by_host = {host: sentinels.Sentinel(rundir, valkey, host=host, hostnames=host == "localhost").start()
               for host in ("127.0.0.1", "localhost", "127.0.1.1")}
    started = [by_host["127.0.0.1"], by_host["localhost"]]
    started.insert(position, by_host["127.0.1.1"])
    names = ",".join(sentinel.name for sentinel in started)
    try:
        daemon = streamd(**settings(names))
        with daemon.stream("ann") as peer:
            publish(1, names).silent()
            peer.wait_body(frame(notification(1)))
            used = re.search('"server":"(.*):', daemon.wait_for_log(r"^\[valkey\] connected"))[1]
            by_host.pop(used).kill()
            client = ValkeyClient(by_host["127.0.1.1"].address)
            before = accepted(client)
            eventually(lambda: accepted(client) > before, CHECK, "the next check")
            publish(2, names).silent()
            peer.wait_body(frame(notification(2)))
            assert after_first(peer) == frame(notification(1)) + frame(notification(2))
        assert len(daemon.matching(ABOUT_VALKEY)) == 1
    finally:
        for sentinel in started:
            sentinel.kill()


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_announced_host(streamd, new_valkey, others, host):
    """A sentinel may name the primary by a host name or an IPv6 address."""
    if host == "::1":
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                pytest.skip("no IPv6 here")
    valkey = new_valkey(tcp=True, config=["--bind", "127.0.0.1", "-::1"]).start()
    others.append(standins.Sentinel(valkey.port, host=host.encode()))
    daemon = streamd(**settings(others[0].name))
    check_works(daemon, valkey)
    shown = f"[{host}]" if ":" in host else host
    daemon.wait_for_log(re.escape(f'connected {{"server":"{shown}:{valkey.port}"'))
    publish(1, others[0].name).silent()


def test_silent_sentinel_first(streamd, group, others):
    """Sentinels that are dead or silent use only part of the time limit, so a later one still names the primary."""
    g = group(sentinels=1)
    others.append(SilentServer())
    names = ",".join([others[0].name, "127.0.0.1:1", g.names])
    daemon = streamd(**settings(names))
    check_works(daemon, g.primary)
    done = publish(1, names)
    done.silent()
    assert done.seconds < 2 + scaled(1)
    silent = others[0].name
    done = publish(1, f"{silent},127.0.0.1:1", "--timeout", "400")
    assert done.status == 69 and done.seconds < 0.4 + scaled(1)


@pytest.mark.slow
def test_stale_sentinel(streamd, group, others):
    """A partitioned sentinel that still names the old primary does not lead either program back to it, neither together
    with others nor when it alone responds."""
    g = group()
    stale = standins.Sentinel(g.primary.port)
    others.append(stale)
    g.primary.pause()
    g.wait_failover()
    assert epoch(g) > 0
    # The old primary continues, and no sentinel makes it a replica.
    for sentinel in g.sentinels:
        sentinel.process.signal(signal.SIGSTOP)
    g.primary.resume()
    assert g.primary("ROLE")[0] == b"master"
    g.sentinels[0].process.signal(signal.SIGCONT)
    names = f"{stale.name},{g.sentinels[0].name},127.0.0.1:1"
    daemon = streamd(**settings(names, TPI_LOG_LEVEL="debug"))
    peer = daemon.stream("ann")
    wait_subscribed(g.replica)
    done = publish(1, names, "--verbose")
    assert done.out == b"notifications:tenant:default:user:ann: 1 subscriber\n"
    peer.wait_body(frame(notification(1)))
    g.sentinels[0].kill()
    mark, before = daemon.mark(), stale.connections
    daemon.wait_for_log(r"server check failed .*most sentinels did not answer", CHECK + scaled(5), start=mark)
    assert stale.connections > before
    g.replica.publish(user_channel("ann"), notification(2))
    peer.wait_body(frame(notification(2)))
    g.replica("CLIENT", "KILL", "TYPE", "pubsub")
    daemon.wait_for_log(r"^\[valkey\] unreachable .*most sentinels did not answer", start=mark)
    before = stale.connections
    eventually(lambda: stale.connections >= before + 4, what="attempts to find the primary")
    assert g.primary.subscribers(user_channel("ann")) == 0 and not daemon.matching("connected", start=mark)


def test_wrong_master(streamd, group):
    """If the sentinels do not know VALKEY_SENTINEL_MASTER, the error names it; the daemon logs it once."""
    g = group(sentinels=2)
    daemon = streamd(**settings(g.names, VALKEY_SENTINEL_MASTER="other"))
    wanted = "; ".join(f"{s.name}: no primary named other: check VALKEY_SENTINEL_MASTER" for s in g.sentinels)
    line = daemon.wait_for_log(ABOUT_VALKEY)
    assert wanted in line
    check_later(daemon.ask())
    done = publish(1, g.names, VALKEY_SENTINEL_MASTER="other")
    assert done.status == 69 and done.line() == f"{NO_SENTINEL}: {wanted}"
    wait_attempts(ValkeyClient(g.sentinels[0].address), 4)
    assert len(daemon.matching(ABOUT_VALKEY)) == 1


def test_name_of_the_master(streamd, group):
    """VALKEY_SENTINEL_MASTER selects a primary by another name than the default."""
    g = group(sentinels=1, master="tpi-1")
    check_works(streamd(**settings(g.names, VALKEY_SENTINEL_MASTER="tpi-1")), g.primary)


def test_passwords(streamd, group, rundir):
    """The sentinels and Valkey may have different passwords; an error says which one is wrong or missing, and shows
    none."""
    g = group(sentinels=1, password="s3rver", sentinel_password="s3ntinel")
    path = os.path.join(rundir, "password")
    with open(path, "w", encoding="utf-8") as file:
        file.write("s3rver\n")
    good = {"VALKEY_SENTINEL_PASSWORD": "s3ntinel", "VALKEY_PASSWORD_FILE": path}
    check_works(streamd(**settings(g.names, **good)), g.primary)
    publish(1, g.names, **good).silent()
    publish(1, g.names, VALKEY_SENTINEL_PASSWORD="s3ntinel", VALKEY_URL="valkey://:s3rver@x").silent()
    sentinel_path = os.path.join(rundir, "sentinel-password")
    with open(sentinel_path, "wb") as file:
        file.write(b"s3ntinel\r\n")
    from_file = {"VALKEY_SENTINEL_PASSWORD": "wr0ng", "VALKEY_SENTINEL_PASSWORD_FILE": sentinel_path,
                 "VALKEY_PASSWORD_FILE": path}
    publish(1, g.names, **from_file).silent()
    check_works(streamd(**settings(g.names, **from_file)), g.primary)
    sentinel, server = g.sentinels[0].name, f"127.0.0.1:{g.primary.port}"
    for env, error in [({}, f"{NO_SENTINEL}: {sentinel}: requires a password: set VALKEY_SENTINEL_PASSWORD"),
                       ({"VALKEY_SENTINEL_PASSWORD": "s3rver"}, f"{NO_SENTINEL}: {sentinel}: authentication failed: WRONGPASS"),
                       ({"VALKEY_SENTINEL_PASSWORD": "s3ntinel", "VALKEY_PASSWORD_FILE": None},
                        f"{server}: NOAUTH: requires a password: set VALKEY_PASSWORD_FILE"),
                       ({"VALKEY_SENTINEL_PASSWORD": "s3ntinel", "VALKEY_PASSWORD_FILE": None,
                         "VALKEY_URL": "valkey://:s3ntinel@x"}, f"{server}: authentication failed: WRONGPASS")]:
        env = {"VALKEY_PASSWORD_FILE": path, **env}
        done = publish(1, g.names, **env)
        assert done.status == 69 and done.line().startswith(error) and "s3ntinel" not in done.err
        daemon = streamd(**settings(g.names, **env))
        assert f'"error":"{error}' in daemon.wait_for_log(ABOUT_VALKEY)
        assert "s3ntinel" not in daemon.stderr and "s3rver" not in daemon.stderr


@pytest.mark.parametrize("env, error", [
    ({"VALKEY_SENTINELS": "a:x"}, "VALKEY_SENTINELS=a:x: the port must be a number from 1 to 65535; must be a comma-separated list of host"),
    ({"VALKEY_SENTINELS": "a", "VALKEY_URL": "unix:///s"}, "VALKEY_URL=unix:///s: must be one URL with a host"),
    ({"VALKEY_SENTINELS": "a", "VALKEY_URL": "valkey://b,valkey://c"}, "VALKEY_URL=valkey://b,valkey://c: must be one"),
    ({"VALKEY_SENTINELS": "redis://h:26379"}, "VALKEY_SENTINELS=redis://h:26379: a sentinel is not a URL; must be a comma-separated list of host[:"),
    ({"VALKEY_SENTINELS": "a:1, b:2 c:3"}, "VALKEY_SENTINELS=a:1, b:2 c:3: only commas may separate sentinels; must be"),
    ({"VALKEY_URL": "valkey://a, valkey://:s3cret@c?db=1"}, "VALKEY_URL=valkey://***@c?***: the query may only be "
     "family=0, family=4 or family=6, not db; must be"),
    ({"VALKEY_URL": "unix:///s?family=4"}, "VALKEY_URL=unix:///s?family=4: a unix:// URL cannot have a query; must be"),
    ({"VALKEY_SENTINELS": "a:1;b:2"}, "VALKEY_SENTINELS=a:1;b:2: only commas may separate sentinels; must be a comma-separated list of host[:port]"),
    ({"VALKEY_SENTINEL_MASTER": "main"}, "VALKEY_SENTINEL_MASTER: is set, but VALKEY_SENTINELS is not"),
    ({"VALKEY_SENTINEL_PASSWORD": "s3cret"}, "VALKEY_SENTINEL_PASSWORD: is set, but VALKEY_SENTINELS is not"),
    ({"VALKEY_SENTINEL_PASSWORD_FILE": "/f"}, "VALKEY_SENTINEL_PASSWORD_FILE: is set, but VALKEY_SENTINELS is not"),
    ({"VALKEY_SENTINELS": "a", "VALKEY_SENTINEL_PASSWORD_FILE": "/dev/null"},
     "VALKEY_SENTINEL_PASSWORD_FILE=/dev/null: the first line is empty; must be a file whose first line is"),
    ({"VALKEY_SENTINEL_MASTER": "a b"}, "VALKEY_SENTINEL_MASTER=a b: must be 1 to 255 of A-Z a-z 0-9 . - _"),
    ({"VALKEY_URL": "valkey://u:s3cret@b,valkey://:s3cret@c:0"}, "VALKEY_URL=valkey://u:***@c:0: the port must be a number"),
])
def test_configuration(env, error):
    """A bad setting is exit status 78 for both programs, with the same error and without a password."""
    daemon = run_streamd("--check-config", **env)
    done = test_publish.run("notification", "--user", "u", **env)
    assert daemon.returncode == done.status == 78
    assert daemon.stderr.startswith(f"tpi-streamd: {error}") and done.line().startswith(error)
    assert "s3cret" not in daemon.stderr + done.err


def test_check_config():
    """--check-config masks the passwords in a list of URLs, and that of the sentinels."""
    lines = run_streamd("--check-config", VALKEY_URL="valkey://u:s3cret@a:1,valkey://:s3cret@b,unix:///c@d",
                        VALKEY_SENTINEL_MASTER="mymaster").stdout.splitlines()
    assert "VALKEY_URL=valkey://u:***@a:1,valkey://:***@b,unix:///c@d" in lines
    lines = run_streamd("--check-config", VALKEY_SENTINELS="a", VALKEY_SENTINEL_PASSWORD="s3cret").stdout.splitlines()
    assert "VALKEY_SENTINEL_PASSWORD=***" in lines


def test_url_option_precedes_sentinels(valkey):
    """tpi-publish --url takes precedence over VALKEY_SENTINELS, also over an invalid one."""
    for names in "127.0.0.1:1", "a:x":
        publish(1, names, "--url", valkey.url).silent()
