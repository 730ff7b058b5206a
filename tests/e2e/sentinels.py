# SPDX-License-Identifier: ISC
"""A highly available Valkey on loopback: a primary, a replica and real sentinels."""

import os
import shutil
import tempfile

from servers import Process, Valkey, ValkeyClient, free_port, listening_socket
from timing import eventually, scaled

DOWN_MS = 500  # a sentinel considers the primary down if it has not replied for this long


class Sentinel:
    """A real sentinel that monitors one primary."""

    def __init__(self, directory, primary, master="mymaster", quorum=2, password=None, server_password=None,
                 host="127.0.0.1", hostnames=False):
        self.directory = tempfile.mkdtemp(prefix="sentinel-", dir=directory)
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        self.name = "%s:%d" % self.address
        self.master = master
        self.password = password
        self.file = os.path.join(self.directory, "sentinel.conf")
        down = int(scaled(DOWN_MS))
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}",
                 *(["sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"] if hostnames else []),
                 f"sentinel monitor {master} {host} {primary.port} {quorum}",
                 f"sentinel down-after-milliseconds {master} {down}", f"sentinel failover-timeout {master} {10 * down}"]
        if password:
            lines += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]
        if server_password:
            lines.append(f"sentinel auth-pass {master} {server_password}")
        with open(self.file, "w", encoding="utf-8") as file:
            file.write("\n".join([*lines, ""]))
        self.process = None

    def start(self):
        server = shutil.which("valkey-server") or shutil.which("redis-server")
        self.process = Process("sentinel", [server, self.file, "--sentinel"])
        self.process.wait_for_log(r"\+monitor master", stream="stdout")
        return self

    def __call__(self, *words):
        client = ValkeyClient(self.address)
        try:
            if self.password:
                client("AUTH", self.password)
            return client("SENTINEL", *words)
        finally:
            client.close()

    def primary(self):
        return int(self("GET-MASTER-ADDR-BY-NAME", self.master)[1])

    def facts(self):
        words = self("MASTER", self.master)
        return dict(zip(words[::2], words[1::2]))

    def kill(self):
        if self.process:
            self.process.kill()


class SilentServer:
    """Accepts connections and never sends anything."""

    def __init__(self):
        self.listener = listening_socket(("127.0.0.1", 0))
        self.name = "127.0.0.1:%d" % self.listener.getsockname()[1]

    def stop(self):
        self.listener.close()


class Group:
    """A primary, its replica, and sentinels that have discovered each other."""

    def __init__(self, directory, sentinels=3, password=None, sentinel_password=None, **named):
        auth = ["--masterauth", password] if password else []
        self.primary = Valkey(directory, tcp=True, password=password, config=auth).start()
        self.replica = Valkey(directory, tcp=True, password=password,
                              config=[*auth, "--replicaof", f"127.0.0.1 {self.primary.port}"]).start()
        eventually(lambda: self.replica("ROLE")[3] == b"connected", 20, "the replica follows")
        self.sentinels = []
        for _ in range(sentinels):
            self.sentinels.append(Sentinel(directory, self.primary, quorum=sentinels // 2 + 1, server_password=password,
                                           password=sentinel_password, **named).start())
        for sentinel in self.sentinels:
            eventually(lambda s=sentinel: self._complete(s), 30, "the sentinels know each other and the replica")

    def _complete(self, sentinel):
        facts = sentinel.facts()
        replicas = sentinel("REPLICAS", sentinel.master)
        return (int(facts[b"num-other-sentinels"]) == len(self.sentinels) - 1 and len(replicas) == 1
                and dict(zip(replicas[0][::2], replicas[0][1::2]))[b"master-link-status"] == b"ok")

    @property
    def names(self):
        return ",".join(sentinel.name for sentinel in self.sentinels)

    def wait_failover(self, timeout=30):
        """Waits until all sentinels name the former replica as primary and its own role agrees."""
        for sentinel in self.sentinels:
            if sentinel.process.alive:
                eventually(lambda s=sentinel: s.primary() == self.replica.port, timeout, "the failover")
        self.wait_role(self.replica, b"master", timeout)

    @staticmethod
    def wait_role(server, role, timeout=30):
        """Waits for a server's role, with a new connection for each query: when sentinels change the role of a server
        they close its connections."""
        def has_role():
            client = ValkeyClient(server.address)
            try:
                if server.password:
                    client("AUTH", server.password)
                return client("ROLE")[0] == role
            except OSError:
                return False
            finally:
                client.close()
        server.forget_client()
        eventually(has_role, timeout, f"port {server.port} is {role.decode()}")

    def kill(self):
        for sentinel in self.sentinels:
            sentinel.kill()
        for server in self.primary, self.replica:
            server.kill()
