# SPDX-License-Identifier: ISC
"""tpi-stream-doctor on a host that runs other servers: it examines the web server that serves the URL."""

import pytest

from fronts import Apache, Nginx
from test_doctor import OPEN, both, doctor, few, front  # noqa: F401 (fixtures)
from test_doctor_parts import parts  # noqa: F401 (a fixture)
from timing import scaled


@pytest.fixture
def foreign(rundir, new_valkey):
    """An nginx, an Apache and a Valkey in directories of their own, which do not lead to tpi-streamd."""
    new_valkey(tcp=True).start()
    started = [server(rundir, "/none", auth="none") for server in (Nginx, Apache)]
    yield started
    for process in started:
        process.kill()


@both
def test_beside_other_servers(foreign, front, streamd, doctor, server, parts):  # noqa: F811
    """Each is found by its port: its configuration, its workers, and the daemon that it passes the streams to."""
    other = streamd(OPEN, INSTANCE_TENANT_ID="other")
    daemon = streamd(OPEN, TPI_PROJECT_ACCESS="allow", **few(parts))
    fore = front(server, daemon)
    told = doctor(fore.url, "--quick", local=("--local",))
    name = "nginx" if server is Nginx else "Apache"
    said = told.says("web server")
    assert f"{name} (pid " in said and f"listens on port {fore.address[1]}" in said, told.stdout
    assert (fore.directory if server is Nginx else "demo/apache.conf") in said
    assert told.findings[f"{name}: streams"].state == "ok" and told.findings["socket"].state == "ok", told.stdout
    # That of two: by the socket in the web server's configuration.
    assert told.findings["daemon"].state == "ok" and told.findings["limits"].state == "ok", told.stdout
    assert other.address not in told.stdout


def test_the_one_that_was_asked_about(foreign, doctor):  # noqa: F811
    """A foreign one by its own URL: it is examined, and nothing of the other."""
    for process, name in zip(foreign, ("nginx", "Apache")):
        told = doctor(process.url, "--quick", local=("--local",))
        assert f"{name} (pid " in told.says("web server")
        assert process.directory in told.says("web server") or "apache.conf" in told.says("web server")


def test_another_program_listens(foreign, front, streamd, doctor, parts, monkeypatch):  # noqa: F811
    """A port that no web server known here holds: it says so, and takes the one that answers if it is the only one."""
    mains = {10: [11], 20: [21], 30: []}
    names = {10: "nginx", 11: "nginx", 20: "apache2", 21: "apache2", 30: "nginx", 5: "haproxy"}
    monkeypatch.setattr(parts, "listening_inodes", lambda addresses, port: {"1"})
    monkeypatch.setattr(parts, "holders_of", lambda inodes: [5])
    monkeypatch.setattr(parts, "name_of", names.get)
    monkeypatch.setattr(parts, "processes", lambda *wanted: sorted(names))
    monkeypatch.setattr(parts, "main_processes", lambda pids: mains)
    found = parts.find_web_server(["127.0.0.1"], 80, "Apache")
    assert found.pid == 20 and "the only one here; haproxy (pid 5) listens on port 80" in found.reason
    found = parts.find_web_server(["127.0.0.1"], 80, "nginx")
    assert found.pid is None and "2 nginx run here" in found.reason
    monkeypatch.setattr(parts, "holders_of", lambda inodes: [])
    assert "cannot be seen (root can)" in parts.find_web_server(["127.0.0.1"], 80, "").reason
    monkeypatch.setattr(parts, "holders_of", lambda inodes: [11, 21])
    assert "several web servers listen on port 80" in parts.find_web_server(["127.0.0.1"], 80, "").reason


@both
def test_only_remote_user(front, streamd, doctor, server, parts):  # noqa: F811
    """A web server that sets REMOTE_USER and AUTH_TYPE, not TPI_USER: 401, and the configuration is named."""
    daemon = streamd(OPEN, **few(parts))
    if server is Nginx:
        fore = front(server, daemon, auth="stock")
    else:
        fore = front(server, daemon, auth="none", after='<Location "/api/notifications/stream">\nAuthType Basic\n'
                     'AuthName x\nAuthBasicProvider file\nAuthUserFile "${TPI_USERS}"\nRequire valid-user\n</Location>')
    told = doctor(fore.url, "--quick", "--timeout", scaled(5), local=("--local", "--pid", daemon.pid))
    name = "nginx" if server is Nginx else "Apache"
    said = told.says(f"{name}: identity")
    assert "REMOTE_USER is set, but not TPI_USER, so every request is anonymous" in said
    assert ("fastcgi_param TPI_USER $remote_user;" if server is Nginx else "tpi-stream-user.conf") in said
