# SPDX-License-Identifier: ISC
"""A real web server in front of tpi-streamd, configured with the files in contrib/.

    front = Apache(rundir, daemon_address)        # or Nginx, Lighttpd, Haproxy, Caddy; users ann and ben, each with
                                                  # their name as password
    servers.http(front.address, "/api/notifications/stream", Authorization=basic("ann", "ann"))
    front.stop()

Apache includes contrib/apache directly and gets its paths by Define. The others use copies of the files in which the
paths and ports are substituted; a value that is not found is an error. If the tests run as root the workers run
as www-data, which needs access to rundir (servers.run_directory() gives it) and to the daemon's socket (--mode 0666
or --group www-data).
"""

import base64
import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile

import pytest

from servers import ROOT, Process, clean_environment, free_port
from timing import eventually, scaled

CONTRIB = os.path.join(ROOT, "contrib")
USERS = {"ann": "ann", "ben": "ben"}
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def installed(program):
    found = shutil.which(program, path=PATH)
    assert found, f"{program} is not installed: contrib/install-deps.sh test"
    return found


def require(server):
    """Skips the test if the server is not installed."""
    name = server.__name__.lower()
    if not shutil.which(name, path=PATH):
        pytest.skip(f"{name} is not installed: contrib/install-deps.sh test")
    if server is Lighttpd and not os.path.exists("/usr/lib/lighttpd/mod_magnet.so"):
        pytest.skip("lighttpd has no mod_magnet: contrib/install-deps.sh test")


def split_address(address):
    """("unix", path) or ("tcp", "host:port") from a path, "unix:/path", "host:port" or (host, port)."""
    if isinstance(address, tuple):
        return "tcp", f"{address[0]}:{address[1]}"
    if address.startswith(("/", "unix:")):
        return "unix", address.removeprefix("unix:")
    return "tcp", address


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, 0o644)
    return path


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


def substitute(text, values):
    for old, new in values.items():
        assert old in text, f"contrib/ does not have {old!r} where it is expected"
        text = text.replace(old, new)
    return text


def open_directory(parent, prefix):
    """A new directory that the workers can read; fails if they cannot enter one of its parents."""
    path = os.path.realpath(tempfile.mkdtemp(prefix=prefix, dir=parent))
    os.chmod(path, 0o755)
    above = path
    while os.geteuid() == 0 and above != "/":
        above = os.path.dirname(above)
        assert os.stat(above).st_mode & stat.S_IXOTH, f"{above} is closed to the user www-data"
    return path


class Front(Process):
    """A web server that accepts connections. url has no trailing slash; address is (host, port)."""

    reload_signal = None

    def __init__(self, directory, name, argv, check=None, env=None):
        """argv starts the server in the foreground; check, or argv with -t added, checks its configuration."""
        self.directory = directory
        self.env = env
        checked = subprocess.run(check or [*argv, "-t"], capture_output=True, text=True, errors="replace",
                                 timeout=scaled(20), env=env)
        assert checked.returncode == 0, f"{name} rejects its configuration: {checked.stdout}{checked.stderr}"
        self._launch(name, argv)

    def _launch(self, name, argv):
        # A process group, so that kill() reaches the workers.
        super().__init__(name, argv, self.env, start_new_session=True)
        eventually(self._accepts, what=f"{name} accepts connections")

    def start_again(self):
        """Starts the same server on the same address again, after kill()."""
        self._launch(self.name, self.child.args)

    def _accepts(self):
        assert self.alive, f"{self.name} ended: {self.wait()} {self.log()}"
        with socket.socket(socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET) as probe:
            return probe.connect_ex(self.address) == 0

    def _listen(self, users):
        self.address = self.status_address = ("127.0.0.1", free_port())
        self.url = "http://%s:%d" % self.address
        write(os.path.join(self.directory, "users"), "".join(
            f"{name}:{{SHA}}{base64.b64encode(hashlib.sha1(word.encode()).digest()).decode()}\n"
            for name, word in users.items()))
        www = os.path.join(self.directory, "www")
        os.mkdir(www)
        os.chmod(www, 0o755)
        write(os.path.join(www, "index.html"), "static\n")

    def log(self):
        """The error log."""
        return self.stderr

    def reload(self):
        """Reloads gracefully: new workers take over, and old ones exit after their last stream."""
        self.signal(self.reload_signal)

    def stop(self):
        """Stops the server and its open streams within 2 s. Apache would give its workers up to 10 s."""
        if self.alive:
            self.signal(signal.SIGTERM)
        try:
            self.child.wait(scaled(2))
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self.wait()


class Apache(Front):
    """
    auth: "basic": Basic authentication; "user": TPI_USER is set by the authentication that site or after
    configures (without one all users are anonymous); "app": the application decides; "none": no identity.
    site, after: directives for the server before and after the files in contrib/.
    """

    reload_signal = signal.SIGUSR1
    AUTH = {"basic": ("auth-basic",), "user": ("user",), "app": ("app",), "none": ()}

    def __init__(self, rundir, fcgi_address, users=USERS, auth="basic", site="", after=""):
        self.directory = open_directory(rundir, "apache-")
        self._listen(users)
        kind, backend = split_address(fcgi_address)
        self.backend = f"unix:{backend}|fcgi://localhost" if kind == "unix" else f"fcgi://{backend}"
        source = os.path.join(CONTRIB, "apache")
        # The workers read this file, and may not have access to the source tree.
        later = shutil.copy(os.path.join(source, "later.asis"), self.directory)
        os.chmod(later, 0o644)
        snippets = ["tpi-stream-workers.conf", "tpi-stream.conf",
                    *(f"tpi-stream-{name}.conf" for name in self.AUTH[auth])]
        write(os.path.join(self.directory, "site.conf"), "\n".join([
            "Listen %s:%d" % self.address,
            "LogLevel info",
            f'<Directory "{self.directory}/www">', "Require all granted", "</Directory>",
            f'Define TPI_BACKEND "{self.backend}"',
            f'Define TPI_LATER "{later}"',
            f'Define TPI_USERS "{self.directory}/users"',
            site,
            *(f'Include "{source}/{snippet}"' for snippet in snippets), after, ""]))
        super().__init__(self.directory, "apache2", [
            installed("apache2"), "-d", self.directory, "-f", f"{CONTRIB}/demo/apache.conf",
            "-D", "FOREGROUND"])


class Nginx(Front):
    """
    auth: "basic": Basic authentication; "request": auth_request with GET /api/stream-user at check, the
    (host, port) of an HTTP server; "app": the application decides; "stock": no authentication and nginx's
    stock parameters, a mistake that must not give a user an identity; "none": no identity.
    site, http: additional directives for the server { } and the http { }.
    """

    reload_signal = signal.SIGHUP
    AUTH = {"basic": "include tpi-stream/tpi-stream-auth-basic.conf;",
            "request": "include tpi-stream/tpi-stream-auth-request.conf;",
            "app": "include tpi-stream/tpi-stream-app.conf;",
            "stock": "include /etc/nginx/fastcgi_params;",
            "none": ""}

    def __init__(self, rundir, fcgi_address, users=USERS, auth="basic", check=None, site="", http=""):
        self.directory = open_directory(rundir, "nginx-")
        self._listen(users)
        kind, backend = split_address(fcgi_address)
        self._snippets({
            "tpi-stream.conf": {
                "include /etc/nginx/tpi-stream/tpi-stream-auth-basic.conf;": self.AUTH[auth],
                "include /etc/nginx/tpi-stream/tpi-stream-fastcgi":
                    "include tpi-stream/tpi-stream-fastcgi"},
            "tpi-stream-fastcgi.conf": {
                "unix:/run/tpi-stream/streamd.sock": f"unix:{backend}" if kind == "unix" else backend},
            "tpi-stream-status.conf": {
                "unix:/run/tpi-stream/streamd.sock": f"unix:{backend}" if kind == "unix" else backend},
            "tpi-stream-auth-basic.conf": {
                "/etc/nginx/tpi-stream/users;": f'"{self.directory}/users";'},
            "tpi-stream-check.conf": {"127.0.0.1:3000": "%s:%d" % (check or ("127.0.0.1", 1))}})
        write(os.path.join(self.directory, "site.conf"), "\n".join([
            "listen %s:%d backlog=4096;" % self.address,
            "error_log stderr info;",
            site,
            "include tpi-stream/tpi-stream.conf;",
            "include tpi-stream/tpi-stream-check.conf;" if auth == "request" else "", ""]))
        main = write(os.path.join(self.directory, "nginx.conf"),
                     substitute(read(os.path.join(CONTRIB, "demo", "nginx.conf")), {"http {": f"http {{\n{http}"}))
        super().__init__(self.directory, "nginx", [
            installed("nginx"), "-p", self.directory, "-c", main, "-e", "stderr"])

    def _snippets(self, values):
        """Copies contrib/nginx, substituting values: {file name: {old: new}}."""
        source = os.path.join(CONTRIB, "nginx")
        copy = os.path.join(self.directory, "tpi-stream")
        os.mkdir(copy)
        for name in os.listdir(source):
            text = read(os.path.join(source, name))
            write(os.path.join(copy, name), substitute(text, values.get(name, {})))


def without_basic(text, first, last, instead=None):
    """A configuration changed as it says for TPI_IDENTITY=app: without the lines from first to last, and with one that
    is a comment."""
    lines = text.split("\n")
    start, = (number for number, line in enumerate(lines) if line.strip().startswith(first))
    end = next(number for number in range(start, len(lines)) if lines[number].strip().startswith(last))
    text = "\n".join(lines[:start] + lines[end + 1:])
    return substitute(text, {f"#{instead}": instead}) if instead else text


class Lighttpd(Front):
    """auth: "basic" or "app". site: directives after contrib/lighttpd. status: with access to health and metrics."""

    reload_signal = signal.SIGUSR1

    def __init__(self, rundir, fcgi_address, users=USERS, auth="basic", site="", status=False):
        self.directory = open_directory(rundir, "lighttpd-")
        self._listen(users)
        source = os.path.join(CONTRIB, "lighttpd")
        for name in "user.lua", "later.lua":
            os.chmod(shutil.copy(os.path.join(source, name), self.directory), 0o644)
        kind, backend = split_address(fcgi_address)
        host, _, port = backend.rpartition(":")
        socket_at = {'"socket" => "/run/tpi-stream/streamd.sock"': f'"socket" => "{backend}"' if kind == "unix"
                     else f'"host" => "{host}", "port" => {port}'}
        config = substitute(read(os.path.join(source, "tpi-stream.conf")), {
            '"/etc/lighttpd/tpi-stream/': f'"{self.directory}/', **socket_at})
        if auth == "app":
            config = without_basic(config, "auth.backend =", "magnet.attract-raw-url-to", "setenv.set-request-header")
        if status:
            config += substitute(read(os.path.join(source, "tpi-stream-status.conf")), socket_at)
        main = write(os.path.join(self.directory, "lighttpd.conf"), "\n".join([
            f'server.document-root = "{self.directory}/www"',
            'server.bind = "%s"\nserver.port = %d' % self.address,
            *(['server.username = "www-data"', 'server.groupname = "www-data"'] if os.geteuid() == 0 else []),
            config, site, ""]))
        argv = [installed("lighttpd"), "-f", main]
        super().__init__(self.directory, "lighttpd", [*argv, "-D"], [*argv, "-tt"])

    def reload(self):
        start = self.mark()
        super().reload()
        self.wait_for_log("server started", start=start)


class Haproxy(Front):
    """auth: "basic" or "app". site: the address of the application, host:port. status: with health and metrics at
    status_address."""

    reload_signal = signal.SIGUSR2  # of the master process

    def __init__(self, rundir, fcgi_address, users=USERS, auth="basic", site="127.0.0.1:1", status=False):
        self.directory = open_directory(rundir, "haproxy-")
        self._listen(users)
        source = os.path.join(CONTRIB, "haproxy")
        later = shutil.copy(os.path.join(source, "later.http"), self.directory)
        kind, backend = split_address(fcgi_address)
        socket_at = {"unix@/run/tpi-stream/streamd.sock": f"unix@{backend}" if kind == "unix" else backend}
        config = read(os.path.join(source, "tpi-stream.cfg"))
        if auth == "app":
            config = without_basic(config, "http-request auth", "http-request del-header", "http-request del-header X-")
        main = write(os.path.join(self.directory, "haproxy.cfg"), substitute(
            config, {
                **({} if os.geteuid() == 0 else {"\tuser haproxy\n": "", "\tgroup www-data\n": ""}),
                "\tuser ann password $6$replace-this\t# <- yours\n": "".join(
                    f"\tuser {name} insecure-password {word}\n" for name, word in users.items()),
                "bind :80": "bind %s:%d" % self.address,
                "/etc/haproxy/errors/later.http": later,
                **socket_at, "127.0.0.1:3000": site}))
        argv = [installed("haproxy"), "-f", main]
        if status:
            self.status_address = ("127.0.0.1", free_port())
            argv += ["-f", write(os.path.join(self.directory, "status.cfg"), substitute(
                read(os.path.join(source, "tpi-stream-status.cfg")), {
                    **socket_at, "bind 127.0.0.1:9011": "bind %s:%d" % self.status_address}))]
        super().__init__(self.directory, "haproxy", [*argv, "-W", "-db"], [*argv, "-c"])


class Caddy(Front):
    """auth: "basic" or "app". site: directives for the rest of the site. status: with access to health and metrics."""

    # bcrypt, which the hashes of `caddy hash-password` are, at its lowest cost.
    HASHES = {"ann": "$2b$04$NforEkaLITwS5Cb7VPMuxOn4VyCY0IUtHKIWo.NCcVHP6qNdOM8f2",
              "ben": "$2b$04$G8MauR527Rf9F1wfNpu1eO48xvOD7p/oHjQ0Hl5.sL3r3b/PxbGSy"}

    def __init__(self, rundir, fcgi_address, users=USERS, auth="basic", site="", status=False):
        self.directory = open_directory(rundir, "caddy-")
        self._listen(users)
        write(os.path.join(self.directory, "users"), "".join(
            f"{name} {base64.b64encode(self.HASHES[name].encode()).decode()}\n" for name in users))
        kind, backend = split_address(fcgi_address)
        socket_at = {"unix//run/tpi-stream/streamd.sock": f"unix/{backend}" if kind == "unix" else backend}
        values = {"tpi-stream": {"import /etc/caddy/tpi-stream/users": f"import {self.directory}/users", **socket_at},
                  **({"tpi-stream-status": socket_at} if status else {})}
        for name, given in values.items():
            text = substitute(read(os.path.join(CONTRIB, "caddy", f"{name}.caddy")), given)
            if auth == "app" and name == "tpi-stream":
                text = without_basic(text, "basicauth", "}")
            write(os.path.join(self.directory, f"{name}.caddy"), text)
        self.admin = f"127.0.0.1:{free_port()}"
        main = write(os.path.join(self.directory, "Caddyfile"), "\n".join([
            "{", "auto_https off", f"admin {self.admin}", "}",
            f"{self.url} {{", "bind 127.0.0.1", *(f"import {self.directory}/{name}.caddy" for name in values), site, "}", ""]))
        self.arguments = ["--config", main, "--adapter", "caddyfile"]
        super().__init__(self.directory, "caddy", [installed("caddy"), "run", *self.arguments],
                         [installed("caddy"), "validate", *self.arguments],
                         clean_environment(HOME=self.directory, XDG_CONFIG_HOME=self.directory,
                                           XDG_DATA_HOME=self.directory))

    def reload(self):
        subprocess.run([installed("caddy"), "reload", "--force", "--address", self.admin, *self.arguments],
                       capture_output=True, timeout=scaled(20), env=self.env, check=True)
