# SPDX-License-Identifier: ISC
"""The systemd units: valid, confined, with limits that fit the default caps; instances of several tenants behind one
web server, as doc/several-tenants.md sets them up; and the bill of materials of what is installed."""

import hashlib
import json
import os
import re
import shutil
import subprocess

import jsonschema
import pytest

import fcgi
from answers import after_first, frame, notification
from fronts import CONTRIB, USERS, Apache, Front, Nginx, installed, open_directory, read, substitute, write
from servers import BUILD, ROOT, HttpResponse, Streamd, basic, run_streamd, user_channel
from timing import scaled

SERVICES = ["tpi-stream.service", "tpi-stream@.service"]
PAGE = read(os.path.join(ROOT, "doc", "several-tenants.md"))


# The units

def built(name):
    return read(os.path.join(BUILD, "contrib", "systemd", name))


def option(unit, name):
    value, = re.findall(rf"^{name}=(.*)$", built(unit), re.M)
    return value


@pytest.fixture
def analyze(rundir):
    """Runs systemd-analyze with the units of the build, which it finds like installed ones."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze not found")
    for name in SERVICES:
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={BUILD}/tpi-streamd", built(name), flags=re.M)
        write(os.path.join(rundir, name), text)
    for name in "tpi-stream.socket", "tpi-stream@.socket":
        shutil.copy(os.path.join(CONTRIB, "systemd", name), rundir)

    def run(*argv):
        return subprocess.run(["systemd-analyze", "--no-pager", *argv], cwd=rundir, capture_output=True, text=True,
                              env={**os.environ, "SYSTEMD_UNIT_PATH": f"{rundir}:"}, timeout=scaled(60), check=False)
    return run


def test_units_are_valid(analyze):
    """systemd finds no mistake in the units, instances included."""
    done = analyze("verify", "--man=no", "tpi-stream.service", "tpi-stream.socket", "tpi-stream@t1.service",
                   "tpi-stream@t1.socket")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SERVICES)
def test_exposure(analyze, name):
    """systemd's own measure of confinement is at most 1.4."""
    done = analyze("security", "--offline=true", "--threshold=14", name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_limits_fit_the_caps(name):
    """At the default caps the limits of the service suffice, also if no reader reads; and no core dump is written."""
    settings = dict(line.split("=", 1) for line in run_streamd("--check-config").stdout.splitlines())
    streams = sum(int(value) for setting, value in settings.items() if setting.endswith("_PER_TENANT_CAP"))
    assert streams >= 2000
    assert int(option(name, "TasksMax")) >= streams + sum(
        int(settings[name]) for name in ("TPI_APP_CONCURRENCY", "TPI_APP_PENDING", "TPI_APP_PENDING")) + 256
    assert int(option(name, "LimitNOFILE")) >= 2 * streams
    # What a stream takes, its backlog, and the buffer of a Unix socket.
    stream = (36 << 10) + int(settings["SSE_BACKLOG_BYTES"]) + (208 << 10)
    assert int(option(name, "MemoryMax").removesuffix("M")) << 20 >= streams * stream + (128 << 20)
    assert option(name, "LimitCORE") == "0"


@pytest.mark.parametrize("name", SERVICES)
def test_system_calls(analyze, name):
    """The service allows what the threads of streams call, and what the daemon enters its sandbox with."""
    names = re.findall(r"^SystemCallFilter=([^~].*)$", built(name), re.M)
    allowed = " ".join(names).split()
    while sets := [word for word in allowed if word.startswith("@")]:
        allowed = [word for word in allowed if word not in sets] + [
            word for line in analyze("syscall-filter", *sets).stdout.splitlines()
            if line.startswith(" ") for word in line.split("#")[0].split()]
    assert {"ppoll", "sendmsg", "futex", "ioctl", "mincore", "madvise", "clone3", "getrandom", "seccomp",
            "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= set(allowed)


def test_template_differs_in_names_only():
    """An instance has every option of the service, and its own socket, settings and tenant."""
    def options(name):
        return [line for line in built(name).splitlines() if line and not line.startswith("#")]
    service, template = map(options, SERVICES)
    assert set(template) - set(service) == {
        "Description=Server-Sent Events gateway of TestPlanIt for %i", "Requires=tpi-stream@%i.socket",
        "After=tpi-stream@%i.socket network.target", "Environment=INSTANCE_TENANT_ID=%i",
        "EnvironmentFile=/etc/tpi-stream/%i.env", "User=tpi-stream-%i", "Also=tpi-stream@%i.socket"}
    assert len(template) == len(service) + 2
    # systemd lets a file take precedence over Environment=; the file is required.
    assert not re.search(r"#(instance|single)#|@[a-z]+@", built(SERVICES[0]) + built(SERVICES[1]))


# Web servers that choose the instance by the name of the site

def snippet(begin):
    """The indented block of the page that begins with this line."""
    found = re.search(rf"^    {re.escape(begin)}.*?(?=\n\S|\Z)", PAGE, re.M | re.S)
    return re.sub(r"^    ", "", found[0], flags=re.M)


class NginxForInstances(Nginx):
    def __init__(self, rundir, sockets):  # noqa: D107
        self.directory = open_directory(rundir, "nginx-")
        self._listen(USERS)
        self._snippets({
            "tpi-stream.conf": {"/etc/nginx/tpi-stream/": "tpi-stream/"},
            "tpi-stream-auth-basic.conf": {"/etc/nginx/tpi-stream/users;": f'"{self.directory}/users";'}})
        files = [os.path.join(self.directory, "tpi-stream", f"tpi-stream-{name}.conf") for name in ("fastcgi", "status")]
        command = re.search(r"sudo (sed .*?)(?=\n\n)", PAGE, re.S)[1]
        for file in files:
            command = command.replace(f"/etc/nginx/tpi-stream/{os.path.basename(file)}", file)
        subprocess.run(["/bin/sh", "-euc", command], check=True)
        for file in files:
            write(file, substitute(read(file), {"/run/tpi-stream/$tpi_instance.sock": f"{sockets}/$tpi_instance.sock"}))
        listen = "listen %s:%d;\n    " % self.address
        write(os.path.join(self.directory, "site.conf"), substitute(snippet("server {"), {
            "server_name": f"{listen}server_name", "/etc/nginx/tpi-stream/": "tpi-stream/"}))
        main = write(os.path.join(self.directory, "nginx.conf"), substitute(
            read(os.path.join(CONTRIB, "demo", "nginx.conf")),
            {"\tserver {\n\t\troot www;\n\t\tinclude site.conf;\n\t}\n": "\tinclude site.conf;\n"}))
        Front.__init__(self, self.directory, "nginx", [
            installed("nginx"), "-p", self.directory, "-c", main, "-e", "stderr"])


class ApacheForInstances(Apache):
    def __init__(self, rundir, sockets):  # noqa: D107
        self.directory = open_directory(rundir, "apache-")
        self._listen(USERS)
        later = shutil.copy(f"{CONTRIB}/apache/later.asis", self.directory)
        os.chmod(later, 0o644)
        hosts = substitute(snippet("<VirtualHost *:443>"), {
            "<VirtualHost *:443>": "<VirtualHost %s:%d>" % self.address, "/run/tpi-stream/": f"{sockets}/",
            "/etc/apache2/tpi-stream/": f"{CONTRIB}/apache/", "tpi-stream-app.conf": "tpi-stream-auth-basic.conf"})
        write(os.path.join(self.directory, "site.conf"), "\n".join([
            "Listen %s:%d" % self.address, f'Include "{CONTRIB}/apache/tpi-stream-workers.conf"',
            f'Define TPI_LATER "{later}"', f'Define TPI_USERS "{self.directory}/users"', hosts, ""]))
        Front.__init__(self, self.directory, "apache2", [
            installed("apache2"), "-d", self.directory, "-f", f"{CONTRIB}/demo/apache.conf", "-D", "FOREGROUND"])


@pytest.mark.parametrize("server", [NginxForInstances, ApacheForInstances], ids=["nginx", "Apache"])
def test_instances(rundir, valkey, server):
    """Each site reaches its own instance, and its streams get the wake-ups of its own tenant and no others, however
    requests to both alternate."""
    tenants = ["alpha", "beta"]
    for tenant in tenants:
        path = f"{rundir}/{tenant}.sock"
        Streamd(rundir, {"VALKEY_URL": valkey.url, "INSTANCE_TENANT_ID": tenant}, ["--listen", path, "--mode", "0666"],
                address=path)
    front = server(rundir, rundir)
    try:
        peers = []
        for tenant in tenants * 3:
            data = (f"GET /api/notifications/stream HTTP/1.1\r\nHost: {tenant}.example.org\r\n"
                    f"Authorization: {basic('ann', 'ann')}\r\n\r\n")
            peers.append((tenant, fcgi.Peer(front.address, data.encode(), HttpResponse()).wait_live(20)))
        for number, tenant in enumerate(tenants):
            valkey.publish(user_channel("ann", tenant), notification(number))
        for tenant, peer in peers:
            expected = frame(notification(tenants.index(tenant)))
            peer.wait_body(expected)
            assert after_first(peer) == expected
            peer.close()
    finally:
        front.kill()


# The bill of materials

HASHES = {"SHA1": 40, "SHA256": 64}
# The parts of SPDX 2.3 that the bill uses, as its JSON schema and its text define them.
SPDX = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "definitions": {
        "id": {"type": "string", "pattern": "^SPDXRef-[a-zA-Z0-9.-]+$"},
        "package": {
            "required": ["SPDXID", "name", "downloadLocation", "filesAnalyzed"],
            "properties": {
                "SPDXID": {"$ref": "#/definitions/id"},
                "name": {"type": "string"}, "versionInfo": {"type": "string"}, "copyrightText": {"type": "string"},
                "downloadLocation": {"type": "string", "minLength": 1},
                "supplier": {"type": "string", "pattern": "^(NOASSERTION|(Organization|Person): .+)$"},
                "filesAnalyzed": {"type": "boolean"},
                "licenseConcluded": {"type": "string"}, "licenseDeclared": {"type": "string"},
                "licenseInfoFromFiles": {"type": "array", "items": {"type": "string"}},
                "packageVerificationCode": {
                    "required": ["packageVerificationCodeValue"], "additionalProperties": False,
                    "properties": {"packageVerificationCodeValue": {"type": "string", "pattern": "^[0-9a-f]{40}$"}}},
                "externalRefs": {"type": "array", "items": {
                    "required": ["referenceCategory", "referenceType", "referenceLocator"],
                    "additionalProperties": False, "properties": {
                        "referenceCategory": {"enum": ["OTHER", "PERSISTENT-ID", "SECURITY", "PACKAGE-MANAGER"]},
                        "referenceType": {"const": "purl"},
                        "referenceLocator": {"type": "string", "pattern": "^pkg:deb/[a-z]+/[a-z0-9.%-]+@[^ :+?]+[?]arch=[a-z0-9]+$"}}}}},
            "additionalProperties": False,
            "if": {"properties": {"filesAnalyzed": {"const": True}}},
            "then": {"required": ["packageVerificationCode"]},
            "else": {"not": {"required": ["packageVerificationCode"]}}},
        "file": {
            "required": ["SPDXID", "fileName", "checksums"],
            "properties": {
                "SPDXID": {"$ref": "#/definitions/id"}, "fileName": {"type": "string", "pattern": "^[.]/"},
                "licenseConcluded": {"type": "string"}, "copyrightText": {"type": "string"},
                "checksums": {"type": "array", "minItems": 1, "contains": {"properties": {"algorithm": {"const": "SHA1"}}},
                              "items": {"oneOf": [{
                                  "required": ["algorithm", "checksumValue"], "additionalProperties": False,
                                  "properties": {"algorithm": {"const": name}, "checksumValue": {
                                      "type": "string", "pattern": f"^[0-9a-f]{{{length}}}$"}}}
                                  for name, length in HASHES.items()]}}},
            "additionalProperties": False},
        "relationship": {
            "required": ["spdxElementId", "relationshipType", "relatedSpdxElement"],
            "properties": {
                "spdxElementId": {"$ref": "#/definitions/id"}, "relatedSpdxElement": {"$ref": "#/definitions/id"},
                "relationshipType": {"enum": ["DESCRIBES", "CONTAINS", "DYNAMIC_LINK", "STATIC_LINK"]}},
            "additionalProperties": False}},
    "type": "object",
    "required": ["SPDXID", "creationInfo", "dataLicense", "documentNamespace", "name", "packages", "spdxVersion"],
    "properties": {
        "SPDXID": {"const": "SPDXRef-DOCUMENT"}, "spdxVersion": {"const": "SPDX-2.3"},
        "dataLicense": {"const": "CC0-1.0"}, "name": {"type": "string"},
        "documentNamespace": {"type": "string", "pattern": "^https://[^#]+$"},
        "creationInfo": {
            "required": ["created", "creators"], "additionalProperties": False, "properties": {
                "created": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
                "creators": {"type": "array", "minItems": 1, "items": {
                    "type": "string", "pattern": "^(Tool|Organization|Person): "}}}},
        "packages": {"type": "array", "items": {"$ref": "#/definitions/package"}},
        "files": {"type": "array", "items": {"$ref": "#/definitions/file"}},
        "relationships": {"type": "array", "items": {"$ref": "#/definitions/relationship"}}},
    "additionalProperties": False}


@pytest.fixture(scope="module")
def bill(module_rundir):
    """The bill of materials of what `make install` installs, and the directory with these files."""
    if not shutil.which("dpkg-query") or not shutil.which("readelf"):
        pytest.skip("no Debian system with binutils")
    root = os.path.join(module_rundir, "installed")
    subprocess.run(["make", "-s", "-C", BUILD, "install", f"DESTDIR={root}"], check=True, capture_output=True)

    def make(**env):
        return subprocess.run([f"{ROOT}/debian/sbom", root, "1.2-3"], env={**os.environ, **env}, capture_output=True,
                              text=True, timeout=scaled(60), check=True).stdout
    return root, make


def test_bill_of_materials(bill):
    """It is valid SPDX 2.3, and lists each installed file and each package whose library a program names."""
    root, make = bill
    document = json.loads(make(SOURCE_DATE_EPOCH="1796000000"))
    jsonschema.Draft7Validator(SPDX).validate(document)
    assert document["creationInfo"]["created"] == "2026-11-30T00:53:20Z"
    packages = {package["SPDXID"]: package for package in document["packages"]}
    files = {file["SPDXID"]: file for file in document["files"]}
    elements = {"SPDXRef-DOCUMENT", *packages, *files}
    assert len(elements) == 1 + len(document["packages"]) + len(document["files"])
    relations = [tuple(relation.values()) for relation in document["relationships"]]
    assert {element for one, _, other in relations for element in (one, other)} == elements
    assert ("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Package") in relations

    for file in files.values():
        with open(os.path.join(root, file["fileName"]), "rb") as content:
            data = content.read()
        assert {sum["algorithm"]: sum["checksumValue"] for sum in file["checksums"]} == {
            "SHA1": hashlib.sha1(data).hexdigest(), "SHA256": hashlib.sha256(data).hexdigest()}
    present = {os.path.relpath(os.path.join(top, name), root) for top, _, names in os.walk(root) for name in names}
    assert {file["fileName"][2:] for file in files.values()} == present
    sums = sorted(file["checksums"][0]["checksumValue"] for file in files.values())
    ours = packages["SPDXRef-Package"]
    assert ours["packageVerificationCode"]["packageVerificationCodeValue"] == hashlib.sha1("".join(sums).encode()).hexdigest()
    assert (ours["name"], ours["versionInfo"], ours["licenseDeclared"]) == ("tpi-stream", "1.2-3", "ISC")

    linked = {packages[other]["name"] for _, kind, other in relations if kind == "DYNAMIC_LINK"}
    # A build with sanitizers has no sandbox.
    sandbox = () if "TPI_SANITIZED" in os.environ else ("libseccomp",)
    for stem in "libc6", "libcurl", "libfcgi", "libhiredis", "libjson-c", "libmd", *sandbox:
        assert [name for name in linked if name.startswith(stem)], stem
    for package in document["packages"][1:]:
        version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package["name"]], capture_output=True, text=True,
                                 check=True).stdout
        assert package["versionInfo"] == version


def test_bill_of_materials_is_reproducible(bill):
    """Equal files have equal bills; other files have another name."""
    root, make = bill
    first = make()
    assert make() == first
    with open(os.path.join(root, "another"), "wb"):
        pass
    second = make()
    os.unlink(os.path.join(root, "another"))
    assert json.loads(second)["documentNamespace"] != json.loads(first)["documentNamespace"]
