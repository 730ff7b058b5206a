# SPDX-License-Identifier: ISC
"""Cluster: both programs try several nodes in turn, and recognize a server that is not a node."""

import contextlib
import shutil
import socket
import subprocess

import pytest

import test_publish
from answers import SYNC, after_first, check_later, frame, issue, notification
from sentinels import SilentServer
from servers import Valkey, ValkeyClient, ValkeyError, free_port, project_channel, user_channel
from test_valkey import ABOUT_VALKEY, check_works, wait_attempts
from timing import eventually, scaled

COUNT = 3
CHECK = 10 + 2  # seconds within which the daemon checks its server again


def node_port():
    """A free port whose port for the cluster bus, 10000 higher, is free as well."""
    while True:
        port = free_port()
        if port > 55535:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 10000))
                return port
            except OSError:
                continue


class Cluster:
    """A Cluster of primaries made by valkey-cli or redis-cli, the first with a replica if requested."""

    def __init__(self, directory, replica=False):
        self.directory = directory
        self.nodes = [self._node() for _ in range(COUNT)]
        self._tool("create", *self.addresses(), "--cluster-yes")
        if replica:
            self.nodes.append(self._node())
            self._tool("add-node", self.addresses()[-1], self.addresses()[0], "--cluster-slave")
            eventually(lambda: self.nodes[-1]("ROLE")[0] == b"slave", 30, "the replica")
        for node in self.nodes:
            eventually(lambda n=node: self._complete(n), 30, "all nodes know each other")
        self._wait_forwarding()

    def _node(self):
        node = Valkey(self.directory, tcp=True, port=node_port(), config=[
            "--cluster-enabled", "yes", "--cluster-node-timeout", str(int(scaled(2000)))])
        return node.start()

    def _tool(self, *words):
        tool = shutil.which("valkey-cli") or shutil.which("redis-cli")
        done = subprocess.run([tool, "--cluster", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=scaled(60), check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _complete(self, node):
        info = node("CLUSTER", "INFO").decode()
        links = node("CLUSTER", "NODES").decode().splitlines()
        return ("cluster_state:ok" in info and f"cluster_known_nodes:{len(self.nodes)}" in info
                and all(" connected" in line for line in links))

    def _wait_forwarding(self):
        """Waits until each node forwards messages to all others: it may not yet do so when they know each other."""
        subscribers = [socket.create_connection(node.address, timeout=0.1) for node in self.nodes]
        received = [b""] * len(subscribers)
        for subscriber in subscribers:
            subscriber.sendall(b"SUBSCRIBE probe\r\n")

        def all_receive(number):
            self.nodes[number]("PUBLISH", "probe", f"node-{number}")
            for i, subscriber in enumerate(subscribers):
                with contextlib.suppress(TimeoutError):
                    received[i] += subscriber.recv(4096)
            return all(b"node-%d" % number in data for data in received)
        for number in range(len(self.nodes)):
            eventually(lambda n=number: all_receive(n), 30, f"messages from node {number} to all nodes")
        for subscriber in subscribers:
            subscriber.close()

    def addresses(self):
        return ["%s:%d" % node.address for node in self.nodes]

    @property
    def url(self):
        return ",".join(node.url for node in self.nodes)

    def in_use(self, daemon, start=0):
        """The node to which the daemon has connected."""
        line = daemon.wait_for_log(r"^\[valkey\] connected", start=start)
        found, = (node for node in self.nodes if f'"127.0.0.1:{node.port}"' in line)
        return found

    def kill(self):
        for node in self.nodes:
            node.kill()


@pytest.fixture(scope="module")
def cluster(module_rundir):
    """Three primaries and a replica, for tests that stop no node."""
    made = Cluster(module_rundir, replica=True)
    yield made
    made.kill()


@pytest.fixture
def new_cluster(rundir):
    """new_cluster(replica=) makes a Cluster for this test."""
    made = []

    def make(**named):
        made.append(Cluster(rundir, **named))
        return made[-1]
    yield make
    for one in made:
        one.kill()


def publish(number, url, *args):
    return test_publish.run("notification", "--user", "ann", "--id", str(number), *args, VALKEY_URL=url)


def wait_subscribed(cluster, channel, count=1):
    """Waits for the subscribers at all nodes together: NUMSUB counts those of one node."""
    eventually(lambda: sum(node.subscribers(channel) for node in cluster.nodes) == count, 20, "the subscription")


def test_any_node(streamd, cluster):
    """Any node, also the replica, can serve the daemon and tpi-publish: messages reach the streams of every node."""
    daemons = [streamd(VALKEY_URL=node.url, TPI_PROJECT_ACCESS="allow") for node in cluster.nodes]
    peers = [daemon.stream("ann") for daemon in daemons]
    issues = [daemon.stream("ann", projects="7") for daemon in daemons]
    for number, node in enumerate(cluster.nodes):
        publish(number, node.url).silent()
        test_publish.run("issue", "--project", "7", "--issue", str(number + 1), VALKEY_URL=node.url).silent()
        for peer in peers:
            peer.wait_body(frame(notification(number)))
        for peer in issues:
            peer.wait_body(frame(issue(number + 1)))
    for peer in peers:
        assert after_first(peer) == b"".join(frame(notification(n)) for n in range(len(cluster.nodes)))
    assert all(node.subscribers(project_channel(7)) == 1 for node in cluster.nodes)


def test_acl(streamd, cluster):
    """An ACL user needs +cluster|info to use a replica in a Cluster, but not for a primary; the error says so."""
    primary, replica = cluster.nodes[0], cluster.nodes[-1]
    for node in primary, replica:
        node("ACL", "SETUSER", "limited", "on", ">pw", "resetchannels", "&notifications:*", "+role", "+subscribe",
             "+unsubscribe", "+ping", "+publish")
    urls = [node.url.replace("://", "://limited:pw@") for node in (primary, replica)]
    publish(1, urls[0]).silent()
    done = publish(1, urls[1])
    assert done.status == 69 and "(to use a replica in a Cluster, give the user +cluster|info)" in done.line()
    replica("ACL", "SETUSER", "limited", "+cluster|info")
    publish(1, urls[1]).silent()
    daemon = streamd(VALKEY_URL=urls[1])
    with daemon.stream("ann") as peer:
        publish(2, urls[0]).silent()
        peer.wait_body(frame(notification(2)))


@pytest.mark.slow
def test_node_dies(streamd, new_cluster):
    """When the node in use dies, streams stay open and get a sync and each later wake-up once from another node;
    tpi-publish skips the dead node."""
    cluster = new_cluster()
    daemon = streamd(VALKEY_URL=cluster.url, SSE_SYNC_SPREAD_MS=0)
    peer = daemon.stream("ann")
    publish(1, cluster.url).silent()
    peer.wait_body(frame(notification(1)))
    first, mark = cluster.in_use(daemon), daemon.mark()
    first.kill()
    peer.wait(lambda p: SYNC in after_first(p), 10, "the sync from another node")
    second = cluster.in_use(daemon, mark)
    assert second is not first
    cluster.nodes.remove(first)
    wait_subscribed(cluster, user_channel("ann"))
    for number, node in enumerate(cluster.nodes, 2):
        publish(number, ",".join([first.url, first.url, node.url])).silent()
        peer.wait_body(frame(notification(number)))
    assert after_first(peer) == frame(notification(1)) + SYNC + frame(notification(2)) + frame(notification(3))
    line, = daemon.matching(ABOUT_VALKEY, start=mark)
    assert '"lost":"' in line and "connected" in line


@pytest.mark.slow
def test_node_is_silent(streamd, new_cluster):
    """The daemon leaves a node that is silent for another; for tpi-publish a silent node uses only part of the time
    limit."""
    cluster = new_cluster()
    daemon = streamd(VALKEY_URL=cluster.url, SSE_SYNC_SPREAD_MS=0)
    peer = daemon.stream("ann")
    first, mark = cluster.in_use(daemon), daemon.mark()
    first.pause()
    done = publish(1, f"{first.url},{next(n for n in cluster.nodes if n is not first).url}", "--timeout", "1000")
    done.silent()
    assert done.seconds < 1 + scaled(1)
    peer.wait(lambda p: SYNC in after_first(p), 15 + scaled(5), "the sync from another node")
    assert cluster.in_use(daemon, mark) is not first
    first.kill()
    cluster.nodes.remove(first)
    publish(2, cluster.url).silent()
    peer.wait_body(frame(notification(2)))


def fail_over(primary, replica):
    """Makes the replica the primary. Valkey gives up after 5 s if the replica has only just synchronized."""
    for _ in range(3):
        assert replica("CLUSTER", "FAILOVER") == "OK"
        with contextlib.suppress(AssertionError):
            eventually(lambda: primary("ROLE")[0] == b"slave", 6)
            return
    raise AssertionError("no failover after three attempts")


@pytest.mark.slow
def test_failover_inside(streamd, cluster):
    """The daemon keeps its connection to a node that becomes a replica within its Cluster."""
    node, replica = cluster.nodes[0], cluster.nodes[-1]
    daemon = streamd(VALKEY_URL=node.url, TPI_LOG_LEVEL="debug")
    with daemon.stream("ann") as peer:
        daemon.wait_for_log(r"^\[valkey\] connected")
        mark = daemon.mark()
        fail_over(node, replica)
        peer.quiet(CHECK)
        publish(1, replica.url).silent()
        peer.wait_body(frame(notification(1)))
        assert not daemon.matching(ABOUT_VALKEY, start=mark) and after_first(peer) == frame(notification(1))


def on_node(streamd, cluster, wanted, url):
    """A daemon that has connected to this node; daemons are started until one does, since it chooses at random."""
    for _ in range(50):
        daemon = streamd(VALKEY_URL=url, SSE_SYNC_SPREAD_MS=0)
        if cluster.in_use(daemon) is wanted:
            return daemon
        daemon.stop()
    raise AssertionError("the daemon never connects to one of the two nodes first")


@pytest.mark.slow
def test_node_leaves(streamd, new_cluster):
    """At the next check the daemon leaves a node that is no longer in the Cluster, which still replies but gets no
    messages; tpi-publish prefers another node to it."""
    cluster = new_cluster(replica=True)
    *others, leaver = cluster.nodes
    url = f"{leaver.url},{others[0].url}"
    daemon = on_node(streamd, cluster, leaver, url)
    peer = daemon.stream("ann")
    mark = daemon.mark()
    name = leaver("CLUSTER", "MYID").decode()
    leaver("CLUSTER", "RESET", "HARD")
    for node in others:
        node("CLUSTER", "FORGET", name)
    assert leaver("ROLE")[0] == b"master"
    line = daemon.wait_for_log(r"^\[valkey\] connected", CHECK + scaled(5), start=mark)
    assert cluster.in_use(daemon, mark) is others[0] and '"lost":"the node was cut off from its Cluster"' in line
    peer.wait(lambda p: after_first(p) == SYNC, 10, "the sync")
    for number in range(5):
        publish(number, url).silent()
    peer.wait_body(frame(notification(4)))
    assert after_first(peer) == SYNC + b"".join(frame(notification(number)) for number in range(5))
    # If no other node can be used, tpi-publish uses it all the same.
    publish(5, leaver.url).silent()
    publish(6, f"{leaver.url},valkey://127.0.0.1:1").silent()


# Servers that are not Cluster nodes

def test_replica_in_a_list(streamd, new_valkey):
    """A replica outside a Cluster is refused in a list of URLs, too, and the daemon logs that once."""
    primary = new_valkey(tcp=True).start()
    replica = new_valkey(tcp=True, config=["--replicaof", f"127.0.0.1 {primary.port}"]).start()
    other = f"valkey://127.0.0.1:{free_port()}"
    error = (f"no usable node: 127.0.0.1:{replica.port}: is a replica, not a primary: messages published there "
             f"reach no other server; {other.removeprefix('valkey://')}: Connection refused")
    daemon = streamd(VALKEY_URL=f"{replica.url},{other}")
    assert f'"error":"{error}"' in daemon.wait_for_log(ABOUT_VALKEY)
    check_later(daemon.ask())
    done = publish(1, f"{replica.url},{other}")
    assert done.status == 69 and done.line() == error
    wait_attempts(replica, 4)
    assert len(daemon.matching(ABOUT_VALKEY)) == 1


def test_primaries_in_a_list(streamd, new_valkey):
    """Primaries outside a Cluster are refused in a list: messages published on one would not reach the others. A single
    one is used, and so is, with a warning, one that refuses CLUSTER INFO."""
    first, second = (new_valkey(tcp=True).start() for _ in range(2))
    url = f"{first.url},{second.url}"
    error = "no usable node: " + "; ".join(
        f"127.0.0.1:{valkey.port}: is not a Cluster node, but VALKEY_URL names several servers"
        for valkey in (first, second))
    assert f'"error":"{error}"' in streamd(VALKEY_URL=url).wait_for_log(ABOUT_VALKEY)
    done = publish(1, url)
    assert done.status == 69 and done.line() == error
    publish(1, first.url).silent()
    second("ACL", "SETUSER", "default", "-cluster")
    warning = f"127.0.0.1:{second.port}: cannot verify that it is a Cluster node: the user needs +cluster|info"
    done = publish(1, url)
    assert done.status == 0 and done.line() == f"warning: {warning}"
    daemon = streamd(VALKEY_URL=url)
    check_works(daemon, second)
    assert f'"error":"{warning}"' in daemon.wait_for_log(r"^\[valkey\] server not verified")


def test_loading(streamd, new_valkey):
    """A server that is loading its data accepts ROLE, SUBSCRIBE and PUBLISH, so a single URL works. Servers older than
    Valkey 8 refuse CLUSTER INFO: with several URLs they count as unreachable, and the error says LOADING, until the
    data is loaded."""
    valkey = new_valkey(tcp=True, port=node_port(), config=[
        "--cluster-enabled", "yes", "--enable-debug-command", "yes",
        "--loading-process-events-interval-bytes", "1024", "--rdbcompression", "no"]).start()
    valkey("DEBUG", "POPULATE", 3000, "key", 1000)
    valkey("CONFIG", "SET", "key-load-delay", 20000)  # microseconds
    alone = streamd(VALKEY_URL=valkey.url)
    alone.wait_for_log(r"^\[valkey\] connected")
    loader = ValkeyClient(valkey.address, timeout=60)
    loader.send("DEBUG", "RELOAD")
    eventually(lambda: b"\nloading:1" in valkey("INFO", "persistence"), what="loading")
    check_works(alone, valkey)
    other = free_port()
    url = f"{valkey.url},valkey://127.0.0.1:{other}"
    error = (f"no usable node: 127.0.0.1:{valkey.port}: LOADING: the server is loading its data; "
             f"127.0.0.1:{other}: Connection refused")
    daemon = streamd(VALKEY_URL=url)
    try:
        valkey("CLUSTER", "INFO")
    except ValkeyError as refusal:
        assert str(refusal).startswith("LOADING ")
        assert f'"error":"{error}"' in daemon.wait_for_log(ABOUT_VALKEY)
        check_later(daemon.ask())
        done = publish(1, url)
        assert done.status == 69 and done.line() == error
    else:
        check_works(daemon, valkey)
        publish(1, url).silent()
    publish(1, valkey.url).silent()
    valkey("CONFIG", "SET", "key-load-delay", 0)
    assert loader.read() == "OK"
    loader.close()
    check_works(daemon, valkey, "ann")
    assert len(alone.matching(ABOUT_VALKEY)) == 1


def test_dead_nodes_first(streamd, new_valkey):
    """Of five nodes two are silent and two unreachable: both programs use the fifth, tpi-publish within its 2 s."""
    valkey = new_valkey(tcp=True, port=node_port(), config=["--cluster-enabled", "yes"]).start()
    silent = [SilentServer(), SilentServer()]
    dead = [f"valkey://{entry.name}" for entry in silent] + ["valkey://127.0.0.1:1", "unix:///nonexistent"]
    for _ in range(4):
        done = publish(1, ",".join([*dead, valkey.url]))
        done.silent()
        assert done.seconds < 2 + scaled(1)
    check_works(streamd(VALKEY_URL=",".join([*dead, valkey.url])), valkey)
    for entry in silent:
        entry.stop()
