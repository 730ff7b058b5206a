# SPDX-License-Identifier: ISC
"""The servers that the benchmark compares. Each starts on construction, and is stopped by stop().

The attribute arguments has the options of tests/bench/load for it. Each constructor gets a directory
that the workers of nginx and Apache can read, the Valkey, and the number of users (u0, u1, ...).
Servers without a web server in front listen on a Unix socket, which costs all of them least; web
servers listen on TCP, as for browsers.
"""

import base64
import hmac
import json
import os
import shutil
import subprocess
import sys
import urllib.parse

BENCH = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(BENCH, "..", "e2e"))

import fcgi  # noqa: E402
import fronts  # noqa: E402
import servers  # noqa: E402

TENANT = "bench"
USER_HEADER = "X-User"
NCHAN_MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"
NODE_DIRECTORY = os.path.join(servers.BUILD, "tests", "bench", "peer-node")

SETTINGS = {  # with the tunables of the systemd unit, so that memory is as in production
    "GLIBC_TUNABLES": servers.tunables(), "INSTANCE_TENANT_ID": TENANT, "TPI_LOG_LEVEL": "warn",
    "TPI_PROJECT_ACCESS": "allow",
    "SSE_PER_TENANT_CAP": 100000, "SSE_ISSUES_PER_TENANT_CAP": 100000,
    "SSE_LIVE_PER_TENANT_CAP": 100000, "SSE_COMBINED_PER_TENANT_CAP": 100000,
    "TPI_USER_OPENS_PER_SECOND": 0}
# If a web server lags in a burst, its streams must get events late rather than a sync instead: nchan
# drops none either.
WEB_SETTINGS = {"SSE_BACKLOG_BYTES": 16777216}


def program(name):
    return shutil.which(name, path=fronts.PATH)


class Streamd:
    """tpi-streamd over FastCGI."""

    about = "tpi-streamd"
    settings = {}

    @staticmethod
    def missing():
        return None

    def __init__(self, directory, valkey, _users, **settings):
        self.daemon = servers.Streamd(
            directory, {**SETTINGS, **self.settings, **settings, "VALKEY_URL": valkey.url},
            args=("--mode", "0666"))
        self.arguments = {"server": self.daemon.address, "server-pid": self.daemon.pid}

    def log(self):
        return self.daemon.stderr

    def stop(self):
        self.daemon.stop()


class Fleet:
    """Several tpi-streamd on one Valkey; daemons is their number."""

    about = "tpi-streamd, several of them"
    missing = Streamd.missing

    def __init__(self, directory, valkey, _users, daemons, **settings):
        self.daemons = [
            servers.Streamd(directory, {**SETTINGS, **settings, "VALKEY_URL": valkey.url},
                            address=os.path.join(directory, f"fleet-{number}"),
                            args=("--listen", os.path.join(directory, f"fleet-{number}")))
            for number in range(daemons)]
        self.arguments = {"server": [daemon.address for daemon in self.daemons],
                          "server-pid": [daemon.pid for daemon in self.daemons]}

    def log(self):
        return "".join(daemon.stderr for daemon in self.daemons)

    def stop(self):
        for daemon in self.daemons:
            daemon.stop()


class Alone(Streamd):
    """One tpi-streamd with the streams of a fleet."""

    about = "one tpi-streamd with as many streams as the fleet"

    def __init__(self, directory, valkey, users, daemons, **settings):
        del daemons
        super().__init__(directory, valkey, users, **settings)


class Channels(Streamd):
    """tpi-streamd that is subscribed to this number of channels by combined streams of up to 500 topics."""

    about = "tpi-streamd with many channels"

    def __init__(self, directory, valkey, users, channels, **settings):
        super().__init__(directory, valkey, users, TPI_ISSUES_CHANNEL_PREFIX="issues", **settings)
        self.peers = []
        for first in range(1, channels + 1, 500):
            ids = ",".join(map(str, range(first, min(first + 500, channels + 1))))
            self.peers.append(fcgi.Peer(self.daemon.address, fcgi.request(fcgi.params(
                f"background{first}", SCRIPT_NAME="/api/stream", QUERY_STRING=f"issues={ids}"))))
        fcgi.wait_all(self.peers, lambda peer: peer.events, 20, "sync on every background stream")

    def stop(self):
        for peer in self.peers:
            peer.close()
        super().stop()


class SingleProcess:
    """A server that is one process on a Unix socket."""

    def start(self, name, socket, argv, **arguments):
        if os.path.exists(socket):
            os.unlink(socket)
        self.process = servers.Process(name, argv)
        self.arguments = {"server": socket, "server-pid": self.process.pid, **arguments}

    def log(self):
        return self.process.stderr

    def stop(self):
        self.process.kill()  # it has nothing to clean up


class Floor(SingleProcess):
    about = "a minimal FastCGI responder, one thread with epoll"

    @staticmethod
    def missing():
        return None

    def __init__(self, directory, valkey, users):
        socket = os.path.join(directory, "floor")
        self.start("floor", socket,
                   [servers.program("tests/bench/floor"), socket, valkey.path, TENANT, str(users)])


class Node(SingleProcess):
    about = "a Node.js server, one ioredis subscriber for each stream"

    @staticmethod
    def missing():
        """Installs its packages in the build directory if they are missing."""
        if not program("node"):
            return "node not found (contrib/install-deps.sh bench)"
        os.makedirs(NODE_DIRECTORY, exist_ok=True)
        for name in ("package.json", "package-lock.json", "server.js"):
            shutil.copy(os.path.join(BENCH, "node", name), NODE_DIRECTORY)
        if os.path.isdir(os.path.join(NODE_DIRECTORY, "node_modules", "ioredis")):
            return None
        if not program("npm"):
            return "npm not found (contrib/install-deps.sh bench)"
        try:
            done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE_DIRECTORY,
                                  capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return "npm ci timed out"
        return None if done.returncode == 0 else f"npm ci: {done.stderr.strip()[:200]}"

    def __init__(self, directory, valkey, _users):
        socket = os.path.join(directory, "node")
        self.start("node", socket, ["node", os.path.join(NODE_DIRECTORY, "server.js"), socket,
                                    valkey.path, TENANT], http=True)


# A header names the user: finding a password in a file of thousands would be most of the cost of
# opening a stream.

class NginxFront(fronts.Nginx):
    AUTH = {"header": f"fastcgi_param TPI_USER $http_{USER_HEADER.lower().replace('-', '_')};"}


class Web(Streamd):
    """tpi-streamd through a web server with the files in contrib/."""

    settings = WEB_SETTINGS
    server = None  # "nginx" or "apache2"

    @classmethod
    def missing(cls):
        return None if program(cls.server) else f"{cls.server} not found (contrib/install-deps.sh bench)"

    def __init__(self, directory, valkey, users, **settings):
        super().__init__(directory, valkey, users, **settings)
        self.front = self.start_front(directory)
        self.arguments.update({"server": self.front.address[1], "front-pid": self.front.pid,
                               "http": True})

    def log(self):
        return f"{self.daemon.stderr}\n{self.front.log()}"

    def stop(self):
        self.front.stop()
        super().stop()


class Nginx(Web):
    about = "tpi-streamd through nginx"
    server = "nginx"

    def start_front(self, directory):
        return NginxFront(directory, self.daemon.address, users={}, auth="header")


class Apache(Web):
    about = "tpi-streamd through Apache"
    server = "apache2"

    def start_front(self, directory):
        header = (f'<Location "/api">\n'
                  f'ProxyFCGISetEnvIf "true" TPI_USER "%{{HTTP:{USER_HEADER}}}"\n</Location>')
        return fronts.Apache(directory, self.daemon.address, users={}, auth="none", site=header)


class Separate(Nginx):
    about = "tpi-streamd through nginx, a stream for each topic and tab of a browser"


class OtherFront(fronts.Front):
    """nginx for another peer: the main configuration of the nginx in front of tpi-streamd, with a separate site."""

    def __init__(self, rundir, name, options=(), **values):
        self.directory = fronts.open_directory(rundir, f"{name}-")
        self._listen({})
        contrib = os.path.join(fronts.CONTRIB, "nginx")
        shutil.copytree(contrib, os.path.join(self.directory, "tpi-stream"))
        site = fronts.read(os.path.join(BENCH, f"{name}.conf"))
        fronts.write(os.path.join(self.directory, "site.conf"), fronts.substitute(
            site, {"127.0.0.1:8080": "%s:%d" % self.address, **values}))
        main = fronts.write(os.path.join(self.directory, "nginx.conf"),
                            fronts.read(os.path.join(fronts.CONTRIB, "demo", "nginx.conf")))
        super().__init__(self.directory, name, [
            program("nginx"), "-p", self.directory, "-c", main, "-e", "stderr", *options])


class Proxied:
    """A mixin for a peer that is an HTTP server: puts nginx in front of it."""

    def proxy(self, directory, upstream):
        self.front = OtherFront(directory, "proxy", **{"http://upstream": upstream})
        self.arguments.update({"server": self.front.address[1], "front-pid": self.front.pid})

    def log(self):
        return f"{super().log()}\n{self.front.log()}"

    def stop(self):
        self.front.stop()
        super().stop()


class NodeWeb(Proxied, Node):
    about = "the Node.js server through nginx"

    @staticmethod
    def missing():
        return Nginx.missing() or Node.missing()

    def __init__(self, directory, valkey, users):
        super().__init__(directory, valkey, users)
        socket = self.arguments["server"]
        servers.eventually(lambda: os.path.exists(socket), what="the socket of Node.js")
        os.chmod(socket, 0o666)  # the workers of nginx are another user
        self.proxy(directory, f"http://unix:{socket}")


class Nchan:
    about = "nginx with nchan, which keeps and delivers the events itself"

    @staticmethod
    def missing():
        if not program("nginx"):
            return "nginx not found (contrib/install-deps.sh bench)"
        found = os.path.exists(NCHAN_MODULE)
        return None if found else "nchan not found (contrib/install-deps.sh bench)"

    def __init__(self, directory, _valkey, _users):
        self.front = OtherFront(directory, "nchan", ["-g", f"load_module {NCHAN_MODULE};"])
        self.arguments = {"server": self.front.address[1], "server-pid": self.front.pid,
                          "http": True, "post": "nchan"}

    def log(self):
        return self.front.log()

    def stop(self):
        self.front.stop()


class Centrifugo(Proxied, SingleProcess):
    """
    Its unidirectional SSE transport and its Redis engine, which its documentation recommends for several
    nodes. Without authentication, and with the broadcast channel alone.
    """

    about = "Centrifugo through nginx, unidirectional SSE with its Redis engine"

    @staticmethod
    def missing():
        return Nginx.missing() or (None if shutil.which("centrifugo") else "centrifugo not found in PATH")

    def __init__(self, directory, valkey, _users):
        port = servers.free_port()
        config = {
            "http_server": {"address": "127.0.0.1", "port": str(port)},
            "http_api": {"insecure": True}, "client": {"insecure": True, "allowed_origins": ["*"]},
            "uni_sse": {"enabled": True}, "log": {"level": "error"},
            "engine": {"type": "redis", "redis": {"address": [f"unix://{valkey.path}"]}}}
        path = fronts.write(os.path.join(directory, "centrifugo.json"), json.dumps(config))
        self.process = servers.Process("centrifugo", [shutil.which("centrifugo"), "--config", path])
        connect = urllib.parse.quote(json.dumps({"subs": {"broadcast": {}}}))
        self.arguments = {"server-pid": self.process.pid, "http": True, "post": "centrifugo",
                          "path": f"/connection/uni_sse?cf_connect={connect}", "channel": "broadcast"}
        self.proxy(directory, f"http://127.0.0.1:{port}")


class Mercure(Proxied, SingleProcess):
    """
    The hub with its in-memory transport: that for several nodes is not free software. Subscribers are
    anonymous and use the broadcast topic alone.
    """

    about = "the Mercure hub through nginx"
    KEY = "a key of the benchmark, as long as HS256 wants it"

    @staticmethod
    def missing():
        return Nginx.missing() or (None if shutil.which("mercure") else "mercure not found in PATH")

    def token(self):
        def encoded(data):
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        text = ".".join(encoded(json.dumps(part).encode()) for part in (
            {"alg": "HS256", "typ": "JWT"}, {"mercure": {"publish": ["*"]}}))
        return f"{text}.{encoded(hmac.digest(self.KEY.encode(), text.encode(), 'sha256'))}"

    def __init__(self, directory, _valkey, _users):
        port = servers.free_port()
        self.process = servers.Process("mercure", [
            shutil.which("mercure"), "--addr", f"127.0.0.1:{port}", "--jwt-key", self.KEY, "--allow-anonymous",
            "--transport-url", "local://local", "--heartbeat-interval", "25s", "--write-timeout", "0"],
            cwd=directory)
        self.arguments = {"server-pid": self.process.pid, "http": True, "post": "mercure",
                          "path": "/.well-known/mercure?topic=broadcast", "channel": "broadcast",
                          "bearer": self.token()}
        self.proxy(directory, f"http://127.0.0.1:{port}")


PEERS = {"streamd": Streamd, "fleet": Fleet, "alone": Alone, "channels": Channels, "floor": Floor, "node": Node,
         "nginx": Nginx, "apache": Apache, "nchan": Nchan, "separate": Separate, "node-web": NodeWeb,
         "centrifugo": Centrifugo, "mercure": Mercure}
