# SPDX-License-Identifier: ISC
"""contrib/kubernetes, traefik, alb, helm, container and nginx/tpi-stream-proxy.conf: what can be read is compared with
the daemon and with the contract, what can run runs.

No Kubernetes or container engine is needed: manifests are parsed, the chart is rendered by helm, the Containerfile's
build stage is run in a directory, and its nginx.conf by the nginx that is installed.
"""

import glob
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

import chart
from answers import FIRST, SHUTDOWN, STREAM_HEADERS, after_first, frame, issue, notification
from application import ANN, SESSION, page
from chart import Refused, read_yaml
from fcgi import ISSUES, NOTIFICATIONS
from fronts import CONTRIB, PATH, Apache, Front, Nginx, installed, open_directory, read, substitute, write
from paths import LOOKALIKES, OTHER_CASE, ROUTED
from servers import (ROOT, Process, basic, clean_environment, free_port, http, project_channel, run_streamd, tunables,
                     user_channel)
from timing import eventually, scaled

pytestmark = pytest.mark.slow

KUBERNETES = sorted(glob.glob(f"{CONTRIB}/kubernetes/*.yaml"))
INGRESSES = {"ingress-nginx": f"{CONTRIB}/kubernetes/ingress.yaml", "traefik": f"{CONTRIB}/traefik/ingress.yaml",
             "alb": f"{CONTRIB}/alb/ingress.yaml"}
REQUIRED = {
    "ingress-nginx": {"nginx.ingress.kubernetes.io/use-regex": "true",
                      "nginx.ingress.kubernetes.io/proxy-buffering": "off",
                      "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
                      "nginx.ingress.kubernetes.io/proxy-send-timeout": "3600"},
    "traefik": {"traefik.ingress.kubernetes.io/router.entrypoints": "websecure",
                "traefik.ingress.kubernetes.io/router.pathmatcher": "PathRegexp"},
    "alb": {"alb.ingress.kubernetes.io/load-balancer-attributes": "idle_timeout.timeout_seconds=3600",
            "alb.ingress.kubernetes.io/scheme": "internet-facing"},
}
ALB_GROUP = {"alb.ingress.kubernetes.io/group.name": "testplanit"}
CLASSES = {"ingress-nginx": "nginx", "traefik": "traefik", "alb": "alb"}
controllers = pytest.mark.parametrize("controller", REQUIRED)
PASSWORD = {"valkey": {"passwordSecret": {"name": "tpi-stream-valkey"}}}
USERS = {"streamd": "10001", "nginx": "10002"}
GROUP = "10001"
FILES = {"VALKEY_PASSWORD_FILE", "VALKEY_SENTINEL_PASSWORD_FILE", "VALKEY_TLS_CA", "VALKEY_TLS_CERT", "VALKEY_TLS_KEY"}
OPEN = ["--mode", "0666"]  # the web server's workers are another user


@pytest.fixture
def password(rundir):
    return write(os.path.join(rundir, "password"), "secret\n")


@pytest.fixture(scope="module")
def render():
    """render(values): the chart's objects by kind."""
    chart.require("helm")
    return chart.objects


HEALTH, LIVE, METRICS = "/api/streams/health", "/api/streams/health/live", "/api/streams/metrics"


# What holds for every object, wherever it comes from

API = {"Deployment": "apps/v1", "Service": "v1", "Ingress": "networking.k8s.io/v1",
       "NetworkPolicy": "networking.k8s.io/v1", "PodDisruptionBudget": "policy/v1"}


def manifests():
    found = {}
    for path in KUBERNETES:
        document = read_yaml(path)
        found[document["kind"]] = document
    return found


def container(deployment, name):
    return next(entry for entry in deployment["spec"]["template"]["spec"]["containers"] if entry["name"] == name)


def environment(deployment):
    """The daemon's variables. None is from a Secret: kubectl describe and the process table show the environment."""
    entries = container(deployment, "streamd")["env"]
    names = [entry["name"] for entry in entries]
    assert len(names) == len(set(names)), names
    for entry in entries:
        assert set(entry) == {"name", "value"} and isinstance(entry["value"], str), f"not quoted: {entry}"
    return {entry["name"]: entry["value"] for entry in entries}


def check_settings(env, password):
    """The daemon knows each name, and takes all values; password is a file that stands in for those of Secrets."""
    env = {name: password if name.endswith("_PASSWORD_FILE") else value for name, value in env.items()}
    assert env.pop("GLIBC_TUNABLES") == tunables()
    done = run_streamd("--check-config", **env)
    assert done.returncode == 0, done.stderr
    effective = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert set(env) <= set(effective)
    for name, value in env.items():
        assert effective[name] == value
    assert (env["TPI_IDENTITY"], env["TPI_PROJECT_ACCESS"]) == ("app", "app")


def check_pod(deployment):
    spec = deployment["spec"]["template"]["spec"]
    drain = int(environment(deployment).get("TPI_DRAIN_SECONDS", 5))
    assert not spec["automountServiceAccountToken"] and not spec["enableServiceLinks"]
    context = spec["securityContext"]
    assert context["runAsNonRoot"] and context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert str(context["runAsGroup"]) == str(context["fsGroup"]) == GROUP
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    sleeps = {}
    for name, user in USERS.items():
        entry = container(deployment, name)
        security = entry["securityContext"]
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]} and str(security["runAsUser"]) == user
        assert {"requests", "limits"} <= set(entry["resources"])
        mounts = {mount["mountPath"]: mount["name"] for mount in entry["volumeMounts"]}
        assert "emptyDir" in volumes[mounts["/run/tpi-stream"]]
        assert set(mounts.values()) <= set(volumes)
        command, seconds = entry["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "sleep"
        sleeps[name] = int(seconds)
    # nginx outlives the daemon's drain or is there for its last words, and all of it fits.
    assert sleeps["streamd"] < sleeps["nginx"]
    assert max(sleeps["streamd"] + drain, sleeps["nginx"]) + 5 <= spec["terminationGracePeriodSeconds"]
    # Each file that a setting names is in a Secret that the daemon's group may read, and no Secret is unused.
    env, secrets = environment(deployment), set()
    for name in FILES & set(env):
        directory, file = os.path.split(env[name])
        mount = next(m for m in container(deployment, "streamd")["volumeMounts"] if m["mountPath"] == directory)
        secret = volumes[mount["name"]]["secret"]
        assert mount["readOnly"] and secret["defaultMode"] == 0o440
        assert not name.endswith("_PASSWORD_FILE") or file == "password"
        secrets.add(mount["name"])
    assert secrets == {volume["name"] for volume in spec["volumes"] if "secret" in volume}
    # What the daemon needs at its caps: doc/capacity.md, Memory.
    caps = sum(int(value) for name, value in env.items() if name.endswith("TENANT_CAP"))
    if caps == 4000:
        assert container(deployment, "streamd")["resources"]["limits"] == {"memory": "1536Mi"}


def check_probes(deployment):
    """Each asks a path of the port that no Service leads to; of the daemon only whether it is alive, so that no pod
    is taken out of service while Valkey is unreachable."""
    servers = read(f"{CONTRIB}/container/nginx.conf").split("\tserver {")[1:]
    paths = {re.search(r"listen (\d+)", text)[1]: re.findall(r"location (=|~) (\S+)", text) for text in servers}
    ports = {port["name"]: port["containerPort"] for port in container(deployment, "nginx")["ports"]}
    assert ports == {"http": 8080, "probe": 8081} and set(paths) == {"8080", "8081"}
    assert environment(deployment)["TPI_STATUS"] == "on"
    found = {}
    for name in USERS:
        for kind, probe in container(deployment, name).items():
            if kind.endswith("Probe"):
                found[name, kind] = probe["httpGet"]["path"]
                assert probe["httpGet"]["port"] in (8081, "probe")
    assert found == {("streamd", "startupProbe"): LIVE, ("streamd", "livenessProbe"): LIVE,
                     ("nginx", "readinessProbe"): LIVE, ("nginx", "livenessProbe"): "/nginx"}
    for path in found.values():
        assert any(path == pattern if how == "=" else re.match(pattern, path) for how, pattern in paths["8081"])
        assert not any(path == pattern if how == "=" else re.match(pattern, path) for how, pattern in paths["8080"])


def check_objects(found):
    """Kinds, versions, names and labels go together."""
    assert set(found) <= set(API)
    deployment = found["Deployment"]
    name = deployment["metadata"]["name"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for kind, entry in found.items():
        assert entry["apiVersion"] == API[kind] and entry["metadata"]["name"] == name
    selectors = [deployment["spec"]["selector"]["matchLabels"], found["Service"]["spec"]["selector"],
                 found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
                 *(constraint["labelSelector"]["matchLabels"]
                   for constraint in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"])]
    if "NetworkPolicy" in found:
        selectors.append(found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
    for selector in selectors:
        assert selector == selectors[0] and selector.items() <= labels.items()
    assert found["Service"]["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    check_pod(deployment)
    check_probes(deployment)
    if "Ingress" in found:
        check_ingress(found["Ingress"], name)
    if "NetworkPolicy" in found:
        check_policy(found["NetworkPolicy"], environment(deployment))


def alb_matches(pattern, path):
    """As an Application Load Balancer compares: "*" is any number of characters, "?" is one, case counts."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), path, re.S)


def controller_of(ingress):
    names = " ".join(ingress["metadata"]["annotations"])
    return next(name for name, word in [("ingress-nginx", "nginx.ingress"), ("traefik", "traefik.ingress"),
                                        ("alb", "alb.ingress")] if f"{word}.kubernetes.io/" in names)


def matcher(ingress):
    """matches(path): whether the controller routes it by one of the paths of this Ingress."""
    controller, annotations = controller_of(ingress), ingress["metadata"]["annotations"]
    entries = [(entry["path"], entry["pathType"]) for entry in ingress["spec"]["rules"][0]["http"]["paths"]]

    def matches(path):
        for pattern, kind in entries:
            if controller == "ingress-nginx":
                # Under use-regex every path is one, Exact ones, too.
                assert annotations["nginx.ingress.kubernetes.io/use-regex"] == "true" and kind != "Exact"
                # The characters that its versions allow without further settings.
                assert re.fullmatch(r"[A-Za-z0-9_.~/^%$\[\](){}*+?|-]+", pattern)
                found = re.match("^" + pattern, path, re.I)
            elif kind == "Exact":
                found = path == pattern
            elif controller == "traefik":
                assert annotations["traefik.ingress.kubernetes.io/router.pathmatcher"] == "PathRegexp"
                found = re.search(pattern, path)
            else:
                found = alb_matches(pattern, path)
            if found:
                return True
        return False
    return matches


def stream_location(path):
    """The regular expression of the one location for the streams in a configuration of nginx."""
    pattern, = re.findall(r"^\s*location ~ (\S*stream\$) \{$", read(path), re.M)
    return re.compile(pattern)


def check_ingress(ingress, service):
    """The paths of the streams, and no others, to the Service; what a controller cannot tell apart is 404 there."""
    rule, = ingress["spec"]["rules"]
    assert rule["host"]
    for entry in rule["http"]["paths"]:
        assert entry["backend"] == {"service": {"name": service, "port": {"name": "http"}}}
        assert entry["path"].startswith("/") and set(entry) == {"path", "pathType", "backend"}
    matches = matcher(ingress)
    for path in ROUTED:
        assert matches(path), path
    captured = {path for path in LOOKALIKES + OTHER_CASE if matches(path)}
    inside = {path for path in LOOKALIKES if re.fullmatch(
        "/api/(test-runs|milestones)/.*/stream|/api/projects/.*/(test-runs|milestones)/stream", path)}
    assert captured == {"ingress-nginx": set(OTHER_CASE), "traefik": set(), "alb": inside}[controller_of(ingress)]
    pod = stream_location(f"{CONTRIB}/container/nginx.conf")
    assert not any(pod.search(path) for path in captured)
    assert all(isinstance(value, str) for value in ingress["metadata"]["annotations"].values())


def needed_ports(env):
    """Those of Valkey, and of the application, that the daemon connects to with these settings; the primary of
    sentinels, which no setting names, is on 6379."""
    def ports(urls, standard):
        parts = map(urlsplit, urls)
        return {part.port or standard[part.scheme] for part in parts if part.scheme != "unix"}
    if "VALKEY_SENTINELS" in env:
        valkey = {6379} | ports((f"//{address}" for address in env["VALKEY_SENTINELS"].split(",")), {"": 26379})
    else:
        valkey = ports(env["VALKEY_URL"].split(","), dict.fromkeys(("valkey", "redis", "valkeys", "rediss"), 6379))
    return [valkey, ports([env["TPI_APP_URL"]], {"http": 80, "https": 443})]


def outgoing_ports(policy):
    """What a policy lets out, rule by rule."""
    return [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]


def check_policy(policy, env):
    """In: the streams' port for some peers, that of monitoring for others; out: Valkey and the application where the
    daemon's settings say that they are, name servers, and nothing else."""
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    incoming, monitoring = spec["ingress"]
    assert incoming["from"] and {"port": 8080} in incoming["ports"]
    assert monitoring["from"] and monitoring["ports"] == [{"port": 8081}]
    *ports, names = outgoing_ports(policy)
    assert all(ports) and names == [53, 53]
    assert [sorted(entry) for entry in ports] == [sorted(entry) for entry in needed_ports(env) if entry]
    assert {port["protocol"] for port in spec["egress"][-1]["ports"]} == {"UDP", "TCP"}


# contrib/kubernetes, traefik, alb

def test_kubernetes(password):
    """The manifests fit together, are locked in as promised, and the daemon takes their settings."""
    found = manifests()
    assert set(found) == set(API) and len(KUBERNETES) == len(API)
    check_objects(found)
    deployment = found["Deployment"]
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60
    check_settings(environment(deployment), password)
    assert "VALKEY_PASSWORD_FILE" in environment(deployment)


@controllers
def test_ingress(controller):
    """Each Ingress has the class and annotations of its controller, and differs in nothing else."""
    found = read_yaml(INGRESSES[controller])
    assert found["apiVersion"] == API["Ingress"] and found["kind"] == "Ingress"
    check_ingress(found, "tpi-stream")
    assert REQUIRED[controller].items() <= found["metadata"]["annotations"].items()
    assert found["spec"]["ingressClassName"] == CLASSES[controller]


def test_traefik():
    """The entry point of the routes has time limits of 1h, and the rule the paths of the streams."""
    static, dynamic = (read_yaml(f"{CONTRIB}/traefik/{name}.yaml") for name in ("traefik", "dynamic"))
    router = dynamic["http"]["routers"]["tpi-stream"]
    name, = router["entryPoints"]
    assert static["entryPoints"][name]["transport"]["respondingTimeouts"] == {
        "readTimeout": "1h", "writeTimeout": "1h", "idleTimeout": "1h"}
    host, pattern = re.fullmatch(r"Host\(`([^`]+)`\) && PathRegexp\(`([^`]+)`\)", router["rule"]).groups()
    assert host == read_yaml(INGRESSES["traefik"])["spec"]["rules"][0]["host"]
    assert all(re.search(pattern, path) for path in ROUTED)
    assert not any(re.search(pattern, path) for path in LOOKALIKES + OTHER_CASE)
    assert router["service"] in dynamic["http"]["services"]
    assert os.path.basename(static["providers"]["file"]["filename"]) == "dynamic.yaml"


# contrib/helm

def without_labels(value):
    """Without what a chart adds for the sake of being one."""
    if isinstance(value, dict):
        return {name: without_labels(entry) for name, entry in value.items()
                if name not in ("labels", "matchLabels", "selector", "imagePullPolicy", "items", "tls")}
    return [without_labels(entry) for entry in value] if isinstance(value, list) else value


def test_chart_is_the_manifests(render):
    """With a password and no other value the chart makes just the objects of contrib/kubernetes."""
    found, expected = render(PASSWORD), manifests()
    check_objects(found)
    for kind in set(API) - {"NetworkPolicy"}:
        left, right = without_labels(found[kind]), without_labels(expected[kind])
        for entry in left, right:
            for part in entry["spec"].get("template", {"spec": {"containers": []}})["spec"]["containers"]:
                part.get("env", []).sort(key=lambda variable: variable["name"])
        assert left == right
    about = read_yaml(f"{chart.CHART}/Chart.yaml")
    version = re.search(r"AC_INIT\(\[tpi-stream\], \[([^]]+)\]\)", read(f"{ROOT}/configure.ac"))[1]
    assert about["kubeVersion"] == f">={OLDEST}.0-0" and about["apiVersion"] == "v2" and str(about["appVersion"]) == version


def test_chart_defaults(render, password):
    """The daemon takes the chart's defaults, and where they are its own settings' they are the same."""
    found = render({})
    check_objects(found)
    env = environment(found["Deployment"])
    check_settings(env, password)
    assert "VALKEY_PASSWORD_FILE" not in env and "TPI_ISSUES_CHANNEL_PREFIX" not in env
    defaults = dict(line.split("=", 1) for line in run_streamd("--check-config").stdout.splitlines())
    for name, value in env.items():
        if name.startswith("SSE_"):
            assert defaults[name] == value
    assert {name for name in defaults if name.endswith("_CAP")} <= set(env)


def test_chart_values(render, password):
    """Each value arrives at its setting."""
    found = render({
        "tenant": "t1", "applicationUrl": "https://app.example/tpi", "replicas": 5,
        "sse": {"perTenantCap": 1000000, "perUserCap": 3, "issuesPerTenantCap": 1200, "issuesPerUserCap": 6,
                "livePerTenantCap": 1300, "livePerUserCap": 5, "combinedPerTenantCap": 1400, "combinedPerUserCap": 7},
        "valkey": {"url": "redis://cache:6380?family=6", "passwordSecret": {"name": "s", "key": "k"}},
        "settings": {"SSE_MAX_AGE_SECONDS": 2400, "TPI_LOG_LEVEL": "debug", "TPI_ISSUES_CHANNEL_PREFIX": "issue-updates"},
        "terminationGracePeriodSeconds": 90, "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}}},
        release="blue")
    check_objects(found)
    deployment = found["Deployment"]
    env = environment(deployment)
    check_settings(env, password)
    assert {"INSTANCE_TENANT_ID": "t1", "TPI_APP_URL": "https://app.example/tpi", "SSE_PER_TENANT_CAP": "1000000",
            "SSE_PER_USER_CAP": "3", "SSE_ISSUES_PER_TENANT_CAP": "1200", "SSE_ISSUES_PER_USER_CAP": "6",
            "SSE_LIVE_PER_TENANT_CAP": "1300", "SSE_LIVE_PER_USER_CAP": "5",
            "SSE_COMBINED_PER_TENANT_CAP": "1400", "SSE_COMBINED_PER_USER_CAP": "7", "VALKEY_URL": "redis://cache:6380?family=6", "SSE_MAX_AGE_SECONDS": "2400", "TPI_LOG_LEVEL": "debug",
            "TPI_ISSUES_CHANNEL_PREFIX": "issue-updates"}.items() <= env.items()
    spec = deployment["spec"]["template"]["spec"]
    assert deployment["metadata"]["name"] == "blue-tpi-stream" and deployment["spec"]["replicas"] == 5
    assert spec["terminationGracePeriodSeconds"] == 90
    assert container(deployment, "streamd")["resources"] == {"requests": {"cpu": 1, "memory": "64Mi"},
                                                             "limits": {"memory": "1Gi"}}
    secret, = (volume["secret"] for volume in spec["volumes"] if "secret" in volume)
    assert secret["secretName"] == "s" and secret["items"] == [{"key": "k", "path": "password"}]
    notes = chart.notes({"replicas": 3, "sse": {"perTenantCap": 700}})
    assert "3 pods carry up to 2100 notification streams, 3000 issue streams, 3000 streams of test runs and " in notes


def test_chart_sentinels(render, password):
    """Sentinels, with the name of the primary and a password from a Secret; of the URL the user counts."""
    found = render({"valkey": {"sentinels": ["s1:26379", "s2"], "sentinelMaster": "main", "url": "valkey://x",
                               "sentinelPasswordSecret": {"name": "s", "key": "k"}}})
    check_policy(found["NetworkPolicy"], environment(found["Deployment"]))
    deployment = found["Deployment"]
    env = environment(deployment)
    check_settings(env, password)
    assert env["VALKEY_SENTINELS"] == "s1:26379,s2" and env["VALKEY_SENTINEL_MASTER"] == "main"
    assert env["VALKEY_URL"] == "valkey://x"
    secret, = (volume["secret"] for volume in deployment["spec"]["template"]["spec"]["volumes"] if "secret" in volume)
    assert secret == {"secretName": "s", "defaultMode": 0o440, "items": [{"key": "k", "path": "password"}]}
    check_pod(deployment)
    env = environment(render({"valkey": {"sentinels": ["s1"], "url": ""}})["Deployment"])
    check_settings(env, password)
    assert not {"VALKEY_URL", "VALKEY_SENTINEL_PASSWORD", "VALKEY_SENTINEL_PASSWORD_FILE"} & set(env)
    env = environment(render({"valkey": {"url": "valkey://a:1,valkey://b"}})["Deployment"])
    check_settings(env, password)
    assert env["VALKEY_URL"] == "valkey://a:1,valkey://b" and "VALKEY_SENTINELS" not in env


def test_chart_tls(render):
    """The Secret is mounted where the settings name its files, the client's certificate where it is said to be there."""
    for client in False, True:
        deployment = render({"valkey": {"url": "valkeys://cache", "tlsSecret": {
            "name": "certificates", "clientCertificate": client}}})["Deployment"]
        env = environment(deployment)
        names = {"VALKEY_TLS_CA": "ca.crt"}
        if client:
            names.update(VALKEY_TLS_CERT="tls.crt", VALKEY_TLS_KEY="tls.key")
        directory, = (mount["mountPath"] for mount in container(deployment, "streamd")["volumeMounts"]
                      if mount["name"] == "valkey-tls")
        assert {name: value for name, value in env.items() if name.startswith("VALKEY_TLS_")} == {
            name: f"{directory}/{file}" for name, file in names.items()}
        secret, = (volume["secret"] for volume in deployment["spec"]["template"]["spec"]["volumes"]
                   if volume["name"] == "valkey-tls")
        assert secret == {"secretName": "certificates", "defaultMode": 0o440}


@controllers
def test_chart_ingress(render, controller):
    """The controller's annotations by choice, as in the files for it; those of one's own go before them."""
    group = ALB_GROUP if controller == "alb" else {}
    found = render({"ingress": {"controller": controller, "annotations": group}})
    check_objects(found)
    annotations = found["Ingress"]["metadata"]["annotations"]
    ours = {name: value for name, value in read_yaml(INGRESSES[controller])["metadata"]["annotations"].items()
            if not name.endswith("/certificate-arn")}
    assert REQUIRED[controller].items() <= annotations.items() and annotations == ours
    assert found["Ingress"]["spec"]["ingressClassName"] == CLASSES[controller]
    assert [rule["http"]["paths"] for rule in found["Ingress"]["spec"]["rules"]] == [
        rule["http"]["paths"] for rule in read_yaml(INGRESSES[controller])["spec"]["rules"]]
    # values.yaml tells them all.
    values = read(f"{chart.CHART}/values.yaml")
    for name, value in annotations.items():
        assert re.search(rf"#   {re.escape(name)}: '?{re.escape(value)}'?$", values, re.M), name
    assert controller != "alb" or "#   alb.ingress.kubernetes.io/certificate-arn: arn:" in values
    first = next(iter(REQUIRED[controller]))
    own = render({"ingress": {"controller": controller, "className": "own", "host": "tpi.example", "tlsSecret": "tls",
                              "annotations": {**group, first: "other", "example.org/x": "1"}}})["Ingress"]
    assert own["metadata"]["annotations"] == {**annotations, first: "other", "example.org/x": "1"}
    assert own["spec"]["ingressClassName"] == "own"
    assert own["spec"]["tls"] == [{"hosts": ["tpi.example"], "secretName": "tls"}]


def test_chart_without(render):
    """Ingress and NetworkPolicy can be left out, and the policy's peers be named."""
    found = render({"ingress": {"enabled": False}, "networkPolicy": {"enabled": False}})
    assert set(found) == set(API) - {"Ingress", "NetworkPolicy"}
    check_objects(found)
    peers = [[{"podSelector": {"matchLabels": {"app": name}}}]
             for name in ("front", "prometheus", "valkey", "tpi", "dns")]
    named = dict(zip(("from", "monitoringFrom", "valkeyTo", "applicationTo", "nameServersTo"), peers))
    spec = render({"networkPolicy": named})["NetworkPolicy"]["spec"]
    assert [*(rule["from"] for rule in spec["ingress"]), *(rule["to"] for rule in spec["egress"])] == peers
    assert render({})["NetworkPolicy"]["spec"]["egress"][2] == manifests()["NetworkPolicy"]["spec"]["egress"][2]


PORTS = {
    "none named": ("valkey://a", [], "http://app", [[6379], [80]]),
    "TLS": ("valkeys://a", [], "https://app.example/tpi:1", [[6379], [443]]),
    "redis": ("redis://u@cache:6380/1", [], "https://app:8443/", [[6380], [8443]]),
    "IPv6": ("rediss://[::1]", [], "http://[::1]:3000", [[6379], [3000]]),
    "IPv6, ports": ("redis://u@[fd00::1]:07000/0", [], "http://[fd00::1]/x", [[7000], [80]]),
    "Cluster": ("valkey://a:7000,valkey://b:7001/0,valkey://c,valkey://d:7000", [], "http://a",
                [[7000, 7001, 6379], [80]]),
    "sentinels": ("valkey://u@x:7000", ["s1", "s2:26380", "[::1]", "[::1]:26381"], "http://a",
                  [[6379, 26379, 26380, 26381], [80]]),
    "sentinels and no URL": ("", ["s1"], "http://a", [[6379, 26379], [80]]),
    "Unix": ("unix:///run/valkey:1", [], "unix:/run/app:2", []),
    "Unix and not": ("unix:///run/valkey", [], "http://app:3000", [[3000]]),
}


@pytest.mark.usefixtures("render")
@pytest.mark.parametrize("url, sentinels, application, expected", PORTS.values(), ids=PORTS)
def test_chart_ports(url, sentinels, application, expected):
    """The policy lets out to the ports that the values name, and NOTES.txt says which. (It is the schema that refuses
    Unix sockets.)"""
    values = {"valkey": {"url": url, "sentinels": sentinels}, "applicationUrl": application}
    found, notes = chart.objects(values, "--skip-schema-validation"), chart.notes(values)
    assert outgoing_ports(found["NetworkPolicy"]) == [*expected, [53, 53]]
    check_policy(found["NetworkPolicy"], environment(found["Deployment"]))
    told = re.findall(r"^  (?:Valkey|application): +(.*)$", notes, re.M)
    assert [line for line in told if line != "none"] == [", ".join(map(str, ports)) for ports in expected]
    assert ("sentinels announce" in notes) == bool(sentinels)


@pytest.mark.usefixtures("render")
def test_chart_named_ports():
    """Ports in the values take precedence; without a policy NOTES.txt names none."""
    values = {"networkPolicy": {"valkeyPorts": [1, 65535], "applicationPorts": [3001, 2]}}
    assert outgoing_ports(chart.objects(values)["NetworkPolicy"]) == [[1, 65535], [3001, 2], [53, 53]]
    assert "  Valkey:       1, 65535\n  application:  3001, 2\n" in chart.notes(values)
    assert "NetworkPolicy" not in chart.notes({"networkPolicy": {"enabled": False}})


REFUSED = {
    "grace": ({"terminationGracePeriodSeconds": 29}, "terminationGracePeriodSeconds: 29 is too short: must be 30 or more"),
    "drain": ({"settings": {"TPI_DRAIN_SECONDS": 50}}, "60 is too short for TPI_DRAIN_SECONDS=50: must be 70 or more"),
    "controller": ({"ingress": {"controller": "haproxy"}}, "must be ingress-nginx, traefik or alb"),
    "alb without a group": ({"ingress": {"controller": "alb"}}, "alb.ingress.kubernetes.io/group.name"),
    "no Valkey": ({"valkey": {"url": ""}}, "valkey.url or valkey.sentinels must be set"),
    "sentinels and a Cluster": ({"valkey": {"url": "valkey://a,valkey://b", "sentinels": ["s1"]}},
                                "valkey.url must be one URL if valkey.sentinels is set"),
    "TLS without TLS": ({"valkey": {"tlsSecret": {"name": "s"}}}, "valkey.url must be a valkeys:// or rediss:// URL"),
    "no application": ({"applicationUrl": ""}, "applicationUrl must be set"),
}


@pytest.mark.usefixtures("render")
@pytest.mark.parametrize("values, message", REFUSED.values(), ids=REFUSED)
def test_chart_refuses(values, message):
    """Values that cannot be right are refused by the templates, with what is allowed."""
    with pytest.raises(Refused, match=re.escape(message)):
        chart.template(values, "--skip-schema-validation")


def test_chart_sets_nothing_twice(render):
    """What the chart sets itself, or the image's command line does, is refused among the other settings."""
    secret = {"name": "s", "key": "k"}
    found = render({"valkey": {"url": "valkeys://a", "sentinels": ["s1"], "passwordSecret": secret,
                               "sentinelPasswordSecret": secret,
                               "tlsSecret": {"name": "s", "clientCertificate": True}}})
    free = {"GLIBC_TUNABLES", *read_yaml(f"{chart.CHART}/values.yaml")["settings"]}
    own = {"TPI_LISTEN", "VALKEY_SENTINEL_PASSWORD", *environment(found["Deployment"])} - free
    assert {"TPI_STATUS", *FILES} < own
    for name in own:
        with pytest.raises(Refused, match=f"settings.{name}: not allowed: the chart sets it"):
            chart.template({"settings": {name: "x"}}, "--skip-schema-validation")


BAD = [{"terminationGracePeriodSeconds": 29}, {"terminationGracePeriodSeconds": "60"}, {"replicas": -1},
       {"sse": {"perTenantCap": 0}}, {"sse": {"perTenantCap": 1000001}}, {"sse": {"perUserCap": 10001}},
       {"sse": {"perProjectCap": 1}}, {"tenant": "a:b"}, {"tenant": ""}, {"tenant": "a b"}, {"tenant": "a*"},
       {"applicationUrl": "ftp://x"}, {"applicationUrl": "http://user@x"}, {"applicationUrl": "testplanit:3000"},
       {"valkey": {"url": "valkey://user:secret@valkey"}}, {"valkey": {"url": "valkey:6379"}},
       {"valkey": {"url": "valkey://a?db=1"}}, {"valkey": {"url": "valkey://a?family=5"}},
       {"valkey": {"sentinels": ["s1:"]}}, {"valkey": {"sentinels": ["u:pw@s1:1"]}}, {"valkey": {"sentinels": ["::1"]}},
       {"valkey": {"sentinels": "s1:26379"}}, {"valkey": {"sentinelMaster": "a b"}}, {"ingress": {"controller": "x"}},
       {"ingress": {"annotations": {"a": 1}}}, {"settings": {"lower": "x"}}, {"settings": {"TPI_X": True}},
       {"replica": 3}, {"nginx": {"tag": "x"}}]
GOOD = [{}, PASSWORD, {"terminationGracePeriodSeconds": 30}, {"sse": {"perTenantCap": 1000000, "perUserCap": 10000}},
        {"tenant": "!#$%&'()+,-./09;<=>@AZ^_`az{|}~"}, {"applicationUrl": "https://app.example:8443/tpi"},
        {"valkey": {"url": "valkey://someone@[::1]:6379/0"}}, {"valkey": {"url": "rediss://a:1,rediss://b:2"}},
        {"valkey": {"url": "valkey://a?family=4,valkey://[::1]:1/0?family=6"}},
        {"valkey": {"sentinels": ["s1", "s2.example:26379", "[::1]:26379"], "sentinelMaster": "my-1.x_y"}}]


def test_schema(render):
    """values.schema.json takes what the daemon takes, and refuses the rest before anything is rendered."""
    for values in GOOD:
        render(values)
    for values in BAD:
        with pytest.raises(Refused, match="values don't meet the specifications of the schema"):
            render(values)


@pytest.mark.usefixtures("render")
def test_chart_package(rundir):
    """helm finds no fault with the chart, and the package renders like the directory."""
    chart.helm("lint", "--strict", chart.CHART)
    chart.helm("package", chart.CHART, "--destination", rundir)
    package, = glob.glob(f"{rundir}/*.tgz")
    assert chart.helm("template", "tpi-stream", package) == chart.helm("template", "tpi-stream", chart.CHART)


def test_chart_table():
    """The chart's README.md has the table that tests/tools/values-table.py makes, and describes every value."""
    path = f"{ROOT}/tests/tools/values-table.py"
    spec = importlib.util.spec_from_file_location("values_table", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    table = script.table()
    assert read(script.README).endswith(table), f"run {path}"
    assert not re.search(r"\|\s*\|$", table.removeprefix(script.HEAD), re.M)


def test_chart_passes_settings(render):
    """Any other setting reaches the daemon as it is, also one of a later release."""
    settings = {"TPI_APP_PENDING": 64, "TPI_USER_OPENS_PER_SECOND": 10, "TPI_SANDBOX": "on",
                "TPI_ALLOWED_ORIGINS": "https://a.example,https://b.example", "SSE_MAX_AGE_SECONDS": "14400"}
    env = environment(render({"settings": settings})["Deployment"])
    assert {name: str(value) for name, value in settings.items()}.items() <= env.items()


def documented(path, name):
    """The values in the indented block of a document that follows the name of their file."""
    with open(f"{ROOT}/doc/{path}", encoding="utf-8") as file:
        text = file.read()
    block = re.search(rf"^`{re.escape(name)}`[^\n]*(?:\n[^\n]+)*\n\n((?:    [^\n]*\n)+)", text, re.M)[1]
    return yaml.safe_load(block)


@pytest.mark.parametrize("path, name", [("kubernetes.md", "my-values.yaml"), ("testplanit.md", "tpi-stream-values.yaml")])
def test_documented_values(render, password, path, name):
    """The chart takes the values in the documents."""
    found = render(documented(path, name))
    check_objects(found)
    check_settings(environment(found["Deployment"]), password)


def chart_tests(values):
    """The objects of `helm test` by kind."""
    return {entry["kind"]: entry for entry in chart.template(values)
            if "helm.sh/hook" in entry["metadata"].get("annotations", {})}


def test_chart_test(render, with_app, rundir, fronts):
    """The pod of `helm test` is none of the Service's, may connect, and succeeds while nginx and the daemon work."""
    values = {"ingress": {"host": "tpi.example"}}
    found, (policy, pod) = render(values), (chart_tests(values)[kind] for kind in ("NetworkPolicy", "Pod"))
    assert set(chart_tests({"networkPolicy": {"enabled": False}})) == {"Pod"}
    labels, selector = pod["metadata"]["labels"], found["Service"]["spec"]["selector"]
    assert not selector.items() <= labels.items()
    assert policy["spec"]["podSelector"] == found["NetworkPolicy"]["spec"]["podSelector"]
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}],
                                          "ports": [{"port": 8080}]}]
    container, = pod["spec"]["containers"]
    *command, host, port, site = container["command"]
    assert (host, port, site) == ("tpi-stream", "80", "tpi.example")
    _, daemon = with_app(OPEN)
    front = Sidecar(rundir, daemon.address)
    fronts.append(front)

    def run():
        return subprocess.run([*command, front.address[0], str(front.address[1]), site], capture_output=True, text=True,
                              timeout=scaled(60), check=False)
    assert run().returncode == 0, run().stdout
    daemon.stop()
    assert run().returncode != 0


# The Kubernetes API

COMBINATIONS = {
    "defaults": {},
    "everything": {
        "valkey": {"url": "valkeys://u@cache:6380", "sentinels": ["s1:26379", "s2"],
                   "passwordSecret": {"name": "s", "key": "k"}, "sentinelPasswordSecret": {"name": "s", "key": "k"},
                   "tlsSecret": {"name": "s", "clientCertificate": True}},
        "settings": {"SSE_MAX_AGE_SECONDS": 2400, "TPI_LOG_LEVEL": "debug"}, "imagePullSecrets": ["registry"],
        "image": {"tag": "1"}, "ingress": {"tlsSecret": "tls", "annotations": {"example.org/x": "1"}},
        "networkPolicy": {name: [{"podSelector": {"matchLabels": {"app": "x"}}}] for name in (
            "from", "monitoringFrom", "valkeyTo", "applicationTo", "nameServersTo")}},
    "traefik": {"ingress": {"controller": "traefik"}},
    "alb": {"ingress": {"controller": "alb", "annotations": ALB_GROUP}},
    "without": {"ingress": {"enabled": False}, "networkPolicy": {"enabled": False}},
}
OLDEST, NEWEST = "1.24", "1.37"


def everything(version):
    """The text of each manifest and of each combination of values, by name."""
    paths = [*KUBERNETES, *INGRESSES.values()]
    return {**{os.path.relpath(path, CONTRIB): read(path) for path in paths},
            **{name: chart.helm("template", "tpi-stream", chart.CHART, "--namespace", "testplanit",
                                "--kube-version", version, values=values)
               for name, values in COMBINATIONS.items()}}


def write_all(rundir, texts):
    for name, text in texts.items():
        write(os.path.join(rundir, name.replace("/", "-").removesuffix(".yaml") + ".yaml"), text)


@pytest.mark.usefixtures("render")
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_api_schema(rundir, version):
    """Each manifest, and the chart with each combination of values, is valid in the API of this Kubernetes, without
    unknown fields. Annotations are free text for it: those of the ALB are only compared with REQUIRED."""
    texts = everything(version)
    write_all(rundir, texts)
    schemas = ["--version", version]
    if version == NEWEST:
        schemas = ["--local-schemas", chart.require("kubernetes-" + version)]
    done = subprocess.run([chart.require("kubectl-validate"), rundir, *schemas], capture_output=True, text=True,
                          timeout=scaled(60), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("OK") == len(texts), done.stdout


@pytest.mark.usefixtures("render")
def test_api_types(rundir):
    """The types of the newest Kubernetes have every field of each object, and each pod, that of `helm test` included,
    meets the restricted Pod Security standard."""
    texts = everything(NEWEST)
    write_all(rundir, texts)
    done = subprocess.run([chart.require("manifests"), *glob.glob(f"{rundir}/*.yaml")], capture_output=True, text=True,
                          timeout=scaled(60), check=False)
    assert done.returncode == 0, done.stderr
    # Pods: the Deployment of contrib/kubernetes, and one and a test of each combination.
    objects = sum(len(re.findall("^kind: ", text, re.M)) for text in texts.values())
    assert done.stdout.split() == [str(objects), str(1 + 2 * len(COMBINATIONS))]


class KubernetesApi:
    """etcd and the API server of Kubernetes, without the rest: what it accepts is stored, and nothing runs. The
    namespace testplanit enforces the restricted Pod Security standard."""

    TOKEN = "0123456789abcdef"

    def __init__(self, rundir):
        etcd, server = chart.require("etcd"), chart.require("kube-apiserver")
        self.kubectl_path = chart.require("kubectl")
        self.home = open_directory(rundir, "kubernetes-")
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.port = free_port()
        self.processes = [Process("etcd", [
            etcd, f"--data-dir={self.home}/etcd", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}"])]
        subprocess.run([installed("openssl"), "genrsa", "-out", f"{self.home}/key", "2048"], check=True,
                       capture_output=True)
        tokens = write(f"{self.home}/tokens", f"{self.TOKEN},admin,admin,system:masters\n")
        self.processes.append(Process("kube-apiserver", [
            server, f"--etcd-servers={client}", f"--secure-port={self.port}", "--bind-address=127.0.0.1",
            f"--cert-dir={self.home}", f"--token-auth-file={tokens}", "--authorization-mode=AlwaysAllow",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={self.home}/key",
            f"--service-account-signing-key-file={self.home}/key", "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount"]))
        eventually(lambda: self.kubectl("get", "--raw", "/readyz").returncode == 0, 120, "the API server is ready")
        levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        for command in ["create", "namespace", "testplanit"], ["label", "namespace", "testplanit", *levels]:
            done = self.kubectl(*command)
            assert done.returncode == 0, done.stderr

    def run(self, *command, **named):
        assert all(process.alive for process in self.processes), self.processes[-1].stderr
        return subprocess.run(command, env={"PATH": os.environ["PATH"], "HOME": self.home}, capture_output=True,
                              text=True, timeout=scaled(60), check=False, **named)

    def kubectl(self, *arguments, **named):
        return self.run(self.kubectl_path, f"--server=https://127.0.0.1:{self.port}", f"--token={self.TOKEN}",
                        "--insecure-skip-tls-verify", "--namespace=testplanit", *arguments, **named)

    def helm(self, *arguments, **named):
        return self.run(chart.require("helm"), f"--kube-apiserver=https://127.0.0.1:{self.port}",
                        f"--kube-token={self.TOKEN}", "--kube-insecure-skip-tls-verify", "--namespace=testplanit",
                        *arguments, **named)

    def apply(self, text):
        """Server-side dry run; returns what the server said of it, errors and warnings."""
        return self.kubectl("apply", "--dry-run=server", "--filename=-", input=text).stderr

    def kill(self):
        for process in reversed(self.processes):
            process.kill()


@pytest.mark.long
@pytest.mark.usefixtures("render")
def test_kubernetes_api(rundir):
    """A real API server takes each manifest and each combination of values without an error or a warning, and helm
    installs, upgrades and uninstalls the chart there."""
    api = KubernetesApi(rundir)
    try:
        for name, text in everything(NEWEST).items():
            assert not api.apply(text), name
        # It does say so.
        text = everything(NEWEST)["defaults"]
        assert "restricted" in api.apply(text.replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"))
        assert "unknown field" in api.apply(text.replace("readOnlyRootFilesystem:", "readOnlyRootFileSystem:"))
        for command in ["install"], ["upgrade", "--set", "replicas=3"], ["uninstall"]:
            done = api.helm(command[0], "tpi-stream", *([chart.CHART] if command[0] != "uninstall" else []), *command[1:])
            assert done.returncode == 0, done.stderr
            assert command[0] == "uninstall" or "pods carry up to" in done.stdout
    finally:
        api.kill()


# contrib/container

CONTAINERFILE = f"{CONTRIB}/container/Containerfile"


def instructions():
    """The Containerfile's stages: {name: [(instruction, arguments)]}, and "" for what is before the first."""
    text = re.sub(r"^\s*#.*\n", "", read(CONTAINERFILE), flags=re.M)
    stages, name = {"": []}, ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(None, 1)
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            assert base == "${BASE}" and name not in stages
            stages[name] = []
        else:
            stages[name].append((word, rest))
    return stages


def of(stage, word):
    return [rest for name, rest in stage if name == word]


def test_containerfile():
    """Slim and pinned to a release; small layers; each image ends as its own user without rights, whose numbers are
    those of the manifests; the default is the daemon alone."""
    stages = instructions()
    assert list(stages) == ["", "build", "nginx", "streamd"]
    assert re.fullmatch(r"BASE=docker\.io/library/debian:\d+-slim", *of(stages[""], "ARG"))
    known = {"ARG", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
    for name, stage in stages.items():
        assert {word for word, _ in stage} <= known
        for command in of(stage, "RUN"):
            if "apt-get" in command:
                assert command.startswith("apt-get update && apt-get install -y --no-install-recommends ")
                assert "rm -rf /var/lib/apt/lists/*" in command
        for sources in of(stage, "COPY"):
            *sources, _ = sources.removeprefix("--from=build ").split()
            for source in sources:
                path = os.path.join(ROOT, source)
                assert source.startswith("/out/") or os.path.isfile(path) or os.listdir(path), source
    for name, user in USERS.items():
        stage = stages[name]
        assert of(stage, "USER") == [f"{user}:{GROUP}"]
        after = stage[[word for word, _ in stage].index("USER"):]
        assert not {word for word, _ in after} & {"RUN", "COPY"}
        entry = json.loads(*of(stage, "ENTRYPOINT"))
        assert entry[0] == {"streamd": "tpi-streamd", "nginx": "tpi-stream-nginx"}[name]
        assert name != "nginx" or "contrib/container/nginx.sh /usr/local/bin/tpi-stream-nginx" in of(stage, "COPY")
    assert of(stages["streamd"], "ENV") == [f"GLIBC_TUNABLES={tunables()}"]
    manual = read(f"{ROOT}/man/tpi-streamd.8").replace("\\e\n", "")
    assert f"\nGLIBC_TUNABLES={tunables()}\n" in manual
    assert of(stages["nginx"], "STOPSIGNAL") == ["SIGQUIT"]


@pytest.mark.slow
def test_containerfile_builds(rundir):
    """What the build stage copies is all that its commands need to make both programs."""
    stage = instructions()["build"]
    for sources in of(stage, "COPY"):
        *sources, target = sources.split()
        for source in sources:
            path, place = os.path.join(ROOT, source), os.path.join(rundir, "src", target)
            if os.path.isdir(path):
                shutil.copytree(path, place, ignore=shutil.ignore_patterns(".deps", "*.o", "*.a", ".dirstamp"))
            else:
                os.makedirs(place, exist_ok=True)
                shutil.copy(path, place)
    command, = (command for command in of(stage, "RUN") if "apt-get" not in command)
    command = command.replace("DESTDIR=/out", f"DESTDIR={rundir}/out")
    done = subprocess.run(["/bin/sh", "-c", command], cwd=f"{rundir}/src", env=clean_environment(), capture_output=True,
                          text=True, timeout=scaled(300), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for copied in of(instructions()["streamd"], "COPY"):
        program = rundir + copied.removeprefix("--from=build ").split()[0]
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=scaled(20), check=True)
        assert os.path.basename(program) in done.stdout


class Sidecar(Front):
    """nginx of the image with a configuration of contrib; two ports, and no authentication. With prefix, a command that
    runs another one, it listens on all addresses."""

    def __init__(self, rundir, daemon_address, conf="container", replaced=None, prefix=(), host="127.0.0.1", ports=None):
        self.directory = open_directory(rundir, "sidecar-")
        first, second = ports or (free_port(), free_port())
        self.address, self.probes = (host, first), (host, second)
        listen = "" if prefix or host != "127.0.0.1" else "127.0.0.1:"
        copy = os.path.join(self.directory, "tpi-stream")
        os.mkdir(copy)
        names = [name.split("/")[-1] for sources in of(instructions()["nginx"], "COPY")
                 for name in sources.split()[:-1] if name.startswith("contrib/nginx/")]
        for name in names:
            values = {"unix:/run/tpi-stream/streamd.sock": f"unix:{daemon_address}"} if "fastcgi" in name else {}
            write(os.path.join(copy, name), substitute(read(f"{CONTRIB}/nginx/{name}"), values))
        main = write(os.path.join(self.directory, "nginx.conf"), substitute(read(f"{CONTRIB}/{conf}/nginx.conf"), {
            **(replaced or {}), "/tmp/": f"{self.directory}/", "/etc/nginx/tpi-stream/": f"{copy}/",
            "unix:/run/tpi-stream/streamd.sock": f"unix:{daemon_address}",
            "listen 8080 ": f"listen {listen}{first} ", "listen 8081;": f"listen {listen}{second};"}))
        # A loopback address instead of all: other tests run at the same time.
        start = write(os.path.join(self.directory, "nginx.sh"), substitute(read(f"{CONTRIB}/container/nginx.sh"), {
            "/tmp/": f"{self.directory}/", "[::]:8080": f"[::{'1' if listen else ''}]:{first}",
            "[::]:8081": f"[::{'1' if listen else ''}]:{second}"}))
        super().__init__(self.directory, "nginx", [*prefix, "env", f"PATH={PATH}", "sh", start, "-c", main])

    def _accepts(self):
        """Whether nginx answers. While nginx.sh tries the addresses, connections are accepted, then closed."""
        assert self.alive, f"{self.name} ended: {self.wait()} {self.log()}"
        try:
            with http(self.probes, "/nginx") as peer:
                return peer.wait(lambda p: p.closed or p.ended, what="an answer").status is not None
        except ConnectionError:
            return False

    def probe(self, path):
        with http(self.probes, path) as peer:
            return peer.wait(lambda p: p.ended, what="a whole answer").status


@pytest.fixture
def fronts():
    """Each that is appended is ended."""
    started = []
    yield started
    for front in started:
        front.kill()


def test_sidecar(with_app, valkey, rundir, fronts):
    """The image's nginx carries streams and wake-ups; the application is told of the ingress's scheme and address,
    and of the Host, whatever X-Forwarded-Host says; other paths are 404."""
    app, daemon = with_app(OPEN)
    front = Sidecar(rundir, daemon.address)
    fronts.append(front)
    for target, channel, payload in [(NOTIFICATIONS, user_channel("ann"), notification(1)),
                                     (ISSUES + "?projectId=7", project_channel(7), issue(1))]:
        with http(front.address, target, **page(ANN), X_Forwarded_For="192.0.2.7", X_Forwarded_Proto="https",
                  X_Forwarded_Host="evil.example") as peer:
            peer.wait_live(20)
            assert peer.header("X-Accel-Buffering") == STREAM_HEADERS["x-accel-buffering"]
            valkey.publish(channel, payload)
            peer.wait_body(frame(payload))
            assert after_first(peer) == frame(payload)
    question = app.asked(SESSION)[0]
    assert question.header("X-Forwarded-Proto") == "https"
    assert question.header("X-Forwarded-For") == "192.0.2.7, 127.0.0.1"
    assert question.header("X-Forwarded-Host") == "%s:%d" % front.address
    with http(front.address, NOTIFICATIONS, **page(ANN), X_Long="x" * 32000) as peer:
        peer.wait_live(20)
    for path in HEALTH, LIVE, METRICS, "/nginx", *LOOKALIKES, *OTHER_CASE:
        with http(front.address, path, **page(ANN)) as peer:
            assert peer.wait(lambda p: p.ended, what="a whole answer").status == 404


def test_sidecar_probes(with_app, valkey, rundir, fronts):
    """The probe of the daemon is 200 while it is alive, also where Valkey is unreachable and all places are taken, and asks
    nothing of the application; health is 503 then. The probe fails while there is no daemon, and then browsers are
    told to come back."""
    app, daemon = with_app(OPEN, SSE_PER_TENANT_CAP=1, TPI_STATUS="on")
    front = Sidecar(rundir, daemon.address)
    fronts.append(front)
    eventually(lambda: front.probe(HEALTH) == 200, what="Valkey is connected")
    assert [front.probe(path) for path in (LIVE, HEALTH, METRICS, "/nginx")] == [200] * 4
    with http(front.address, NOTIFICATIONS, **page(ANN)) as peer:
        peer.wait_live(20)
        asked = len(app.requests)
        assert (front.probe(LIVE), front.probe(HEALTH)) == (200, 200)
        assert len(app.requests) == asked
    for path in "/", "/streamd", LIVE + "/", NOTIFICATIONS:
        assert front.probe(path) == 404
    _, away = with_app(OPEN, VALKEY_URL=f"unix://{rundir}/no-valkey", TPI_STATUS="on")
    other = Sidecar(rundir, away.address)
    fronts.append(other)
    assert (other.probe(LIVE), other.probe(HEALTH), other.probe(METRICS)) == (200, 503, 200)
    daemon.stop()
    assert (front.probe(LIVE), front.probe("/nginx")) == (502, 200)
    with http(front.address, NOTIFICATIONS, **page(ANN)) as peer:
        peer.wait(lambda p: p.ended, what="a whole answer")
        assert (peer.status, bytes(peer.body)) == (200, b"retry: 10000\n\n")
        assert peer.header("Content-Type") == "text/event-stream"


def test_sidecar_ends_last(with_app, rundir, fronts):
    """After SIGQUIT nginx waits for the streams: the daemon's last words arrive, and both end."""
    _, daemon = with_app(OPEN)
    front = Sidecar(rundir, daemon.address)
    fronts.append(front)
    with http(front.address, NOTIFICATIONS, **page(ANN)) as peer:
        peer.wait_live(20)
        front.signal(signal.SIGQUIT)
        eventually(lambda: not front._accepts(), what="nginx takes no new connections")
        daemon.stop()
        peer.wait(lambda p: p.ended, what="the end")
        assert after_first(peer) == SHUTDOWN
    assert front.wait() == 0


class IngressNginx(Front):
    """nginx with what ingress-nginx generates for Ingresses of one host: [(Ingress, address of its Service)].

    Derived by hand from its template (rootfs/etc/nginx/template/nginx.tmpl of 1.11): the controller itself needs Lua for
    the choice of a pod, which is a fixed address here, and TLS is left out. If one Ingress has use-regex, the paths of
    all are regular expressions, in the order of their length."""

    LOCATION = """
    location ~* "^{path}" {{
        client_max_body_size 1m;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header X-Request-ID $request_id;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-Port $server_port;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Scheme $scheme;
        proxy_set_header X-Scheme $scheme;
        proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
        proxy_set_header Proxy "";
        proxy_connect_timeout 5s;
        proxy_send_timeout {send}s;
        proxy_read_timeout {read}s;
        proxy_buffering {buffering};
        proxy_buffer_size 4k;
        proxy_buffers 4 4k;
        proxy_max_temp_file_size 1024m;
        proxy_request_buffering on;
        proxy_http_version 1.1;
        proxy_cookie_domain off;
        proxy_cookie_path off;
        proxy_next_upstream error timeout;
        proxy_next_upstream_timeout 0;
        proxy_next_upstream_tries 3;
        proxy_pass http://{address[0]}:{address[1]};
        proxy_redirect off;
    }}"""

    def __init__(self, rundir, ingresses):
        self.directory = open_directory(rundir, "ingress-")
        self._listen({})
        found = []
        for ingress, address in ingresses:
            def annotation(name, default):
                return ingress["metadata"]["annotations"].get(f"nginx.ingress.kubernetes.io/{name}", default)
            for entry in ingress["spec"]["rules"][0]["http"]["paths"]:
                found.append((entry["path"], self.LOCATION.format(
                    path=entry["path"], address=address, buffering=annotation("proxy-buffering", "off"),
                    read=annotation("proxy-read-timeout", "60"), send=annotation("proxy-send-timeout", "60"))))
        found.sort(key=lambda location: len(location[0]), reverse=True)
        main = write(os.path.join(self.directory, "nginx.conf"), "\n".join([
            f"pid {self.directory}/nginx.pid;", "error_log stderr info;", "events {}", "http {", "access_log off;",
            *(f"{kind}_temp_path {self.directory}/{kind};" for kind in (
                "client_body", "proxy", "fastcgi", "scgi", "uwsgi")),
            "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }",
            "large_client_header_buffers 4 8k;", "server {", "listen %s:%d;" % self.address,
            "server_name _;", *(text for _, text in found), "}", "}"]))
        super().__init__(self.directory, "nginx", [installed("nginx"), "-c", main, "-e", "stderr", "-g", "daemon off;"])


def ingress_of_testplanit():
    """One like TestPlanIt's own: all paths, and buffered responses."""
    return {"metadata": {"annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "on"}},
            "spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix"}]}}]}}


def test_ingress_nginx(with_app, valkey, rundir, fronts):
    """Through ingress-nginx: wake-ups arrive at once, the application gets the browser's address and Host, retry later
    passes, and all other paths are TestPlanIt's, which is not running here: 502."""
    app, daemon = with_app(OPEN)
    pod = Sidecar(rundir, daemon.address)
    fronts.append(pod)
    front = IngressNginx(rundir, [(ingress_of_testplanit(), ("127.0.0.1", free_port())),
                                  (read_yaml(INGRESSES["ingress-nginx"]), pod.address)])
    fronts.append(front)
    with http(front.address, NOTIFICATIONS, **page(ANN), X_Forwarded_For="192.0.2.7") as peer:
        peer.wait_live(20)
        for number in 1, 2:
            valkey.publish(user_channel("ann"), notification(number))
            peer.wait_body(frame(notification(number)))
        request = app.asked(SESSION)[0]
        assert request.header("X-Forwarded-For") == "127.0.0.1, 127.0.0.1"
        assert request.header("X-Forwarded-Host") == "%s:%d" % front.address
        for path in [SESSION, *LOOKALIKES]:
            with http(front.address, path, **page(ANN)) as other:
                assert other.wait(lambda p: p.ended, what="an answer").status == 502, path
        daemon.stop()
        peer.wait(lambda p: p.ended, what="the end")
        assert after_first(peer) == frame(notification(1)) + frame(notification(2)) + SHUTDOWN
    with http(front.address, NOTIFICATIONS, **page(ANN)) as peer:
        peer.wait(lambda p: p.ended, what="a whole answer")
        assert (peer.status, bytes(peer.body)) == (200, b"retry: 10000\n\n")


class Traefik(Process):
    """Traefik with the files in contrib/traefik and a certificate that it makes itself."""

    HOST = "testplanit.example.org"

    def __init__(self, rundir, address):
        self.directory = open_directory(rundir, "traefik-")
        self.port = free_port()
        dynamic = write(os.path.join(self.directory, "dynamic.yaml"), substitute(
            read(f"{CONTRIB}/traefik/dynamic.yaml"), {"http://127.0.0.1:8080": "http://%s:%d" % address}))
        main = write(os.path.join(self.directory, "traefik.yaml"), substitute(
            read(f"{CONTRIB}/traefik/traefik.yaml"), {'":443"': f'"127.0.0.1:{self.port}"',
                                                      "/etc/traefik/dynamic.yaml": dynamic}))
        super().__init__("traefik", [chart.require("traefik"), f"--configFile={main}"])

    def get(self, path, *arguments):
        """curl over HTTP/2, whose standard output is the response."""
        return Process("curl", [installed("curl"), "-sSNk", "--http2", "--resolve", f"{self.HOST}:{self.port}:127.0.0.1",
                                "-w", "\\n%{http_code} %{http_version}\\n", *arguments,
                                *(part for name, value in page(ANN).items()
                                  for part in ("-H", f"{name.replace('_', '-')}: {value}")),
                                f"https://{self.HOST}:{self.port}{path}"])

    def answer(self, path):
        """The body and "STATUS VERSION" of a response that ends."""
        done = self.get(path)
        done.wait()
        body, last = done.stdout.strip().rpartition("\n")[::2]
        return body.strip(), last


@pytest.mark.long
def test_traefik_runs(with_app, valkey, rundir, fronts):
    """Through Traefik over HTTP/2: wake-ups arrive at once, also after 70 s of heartbeats alone; the application gets
    the browser's Host, address and scheme, and nothing that the browser claims; the end of the daemon and retry later
    arrive; other paths are not the daemon's."""
    app, daemon = with_app(OPEN)
    pod = Sidecar(rundir, daemon.address)
    fronts.append(pod)
    traefik = Traefik(rundir, pod.address)
    fronts.append(traefik)
    # It answers 404 until it has read its routes; the daemon answers 400 if no project is named.
    eventually(lambda: traefik.answer(ISSUES)[1] == "400 2", 30, "Traefik has its routes")
    stream = traefik.get(NOTIFICATIONS, "-H", "X-Forwarded-For: 192.0.2.7", "-H", "X-Forwarded-Proto: http",
                         "-H", "X-Forwarded-Host: evil.example")
    fronts.append(stream)
    stream.wait_for_log('"sync"', stream="stdout")
    request = app.asked(SESSION)[0]
    assert request.header("X-Forwarded-Host") == f"{Traefik.HOST}:{traefik.port}"
    assert request.header("X-Forwarded-For") == "127.0.0.1, 127.0.0.1"
    assert request.header("X-Forwarded-Proto") == "https"
    for number in 1, 2:
        valkey.publish(user_channel("ann"), notification(number))
        stream.wait_for_log(f'"id":"{number}"', 2, stream="stdout")
        if number == 1:
            stream.wait_for_log("^: ping", 90, stream="stdout", count=3)
    daemon.stop()
    assert stream.wait() == 0
    assert stream.stdout.strip().endswith(SHUTDOWN.decode().strip() + "\n\n\n200 2"), stream.stdout
    assert traefik.answer(NOTIFICATIONS) == ("retry: 10000", "200 2")
    assert {traefik.answer(path) for path in LOOKALIKES + OTHER_CASE} == {("404 page not found", "404 2")}
    with_app(OPEN, address=daemon.address, app=app)
    again = traefik.get(NOTIFICATIONS)
    fronts.append(again)
    again.wait_for_log('"sync"', stream="stdout")


# contrib/compose

COMPOSE = f"{CONTRIB}/compose/tpi-stream.yml"
# The services of TestPlanIt's docker-compose.prod.yml that the overlay refers to.
TESTPLANIT = """
services:
  prod: {image: testplanit, networks: [testplanit-net]}
  valkey: {image: valkey/valkey, networks: [testplanit-net], profiles: [with-valkey]}
networks: {testplanit-net: {driver: bridge}}
"""


def compose():
    text = read(COMPOSE)
    return yaml.safe_load(re.sub(r"\$\{TPI_STREAM_SOURCE:[^}]*\}", ROOT, text))


def test_compose_schema():
    """The overlay is valid by the schema of the Compose Specification, also with the optional password."""
    with open(chart.require("compose-spec.json"), encoding="utf-8") as file:
        schema = jsonschema.Draft202012Validator(json.load(file))
    schema.validate(compose())
    text = re.sub(r"\$\{TPI_STREAM_SOURCE:[^}]*\}", ROOT, read(COMPOSE))
    text = re.sub(r"^( *)# (VALKEY_PASSWORD_FILE|secrets|  valkey-password|    file):", r"\1\2:", text, flags=re.M)
    found = yaml.safe_load(text)
    assert found["secrets"]["valkey-password"] == {"file": "./valkey-password"}
    daemon = found["services"]["tpi-streamd"]
    assert daemon["environment"]["VALKEY_PASSWORD_FILE"] == f"/run/secrets/{daemon['secrets'][0]}"
    schema.validate(found)


def test_compose_services(password):
    """The two images of contrib/container, locked in, with the limits that the caps need; the daemon takes its settings
    and is stopped first."""
    found = compose()
    daemon, nginx = (found["services"][name] for name in ("tpi-streamd", "tpi-stream-nginx"))
    check_settings({**daemon["environment"], "GLIBC_TUNABLES": tunables()}, password)
    for service, target in (daemon, "streamd"), (nginx, "nginx"):
        assert service["build"] == {"context": ROOT, "dockerfile": os.path.relpath(CONTAINERFILE, ROOT), "target": target}
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["ulimits"] == {"nofile": 16384}
        assert service["security_opt"] == ["no-new-privileges:true"] and service["networks"] == ["testplanit-net"]
        assert "tpi-stream-run:/run/tpi-stream" in service["volumes"]
    assert (daemon["mem_limit"], daemon["pids_limit"]) == ("1536m", 8192)
    assert daemon["depends_on"] == ["tpi-stream-nginx"] and "depends_on" not in nginx
    assert nginx["ports"] == ["127.0.0.1:8080:8080"]
    assert f"{CONTRIB}/compose/nginx.conf:/etc/nginx/nginx.conf:ro" in nginx["volumes"]
    assert found["volumes"]["tpi-stream-run"]["driver_opts"]["o"] == f"uid={USERS['streamd']},gid={GROUP},mode=0750"


@pytest.mark.long
def test_compose_config(rundir):
    """Docker Compose merges the overlay into a file like TestPlanIt's, and requires the source tree to be named."""
    base = write(os.path.join(rundir, "docker-compose.prod.yml"), TESTPLANIT)
    command = [chart.require("docker-compose"), "-f", base, "-f", COMPOSE, "--profile", "with-valkey", "config"]

    def run(**env):
        return subprocess.run(command, env={"PATH": os.environ["PATH"], "HOME": rundir, **env}, capture_output=True,
                              text=True, timeout=scaled(60), check=False)
    done = run(TPI_STREAM_SOURCE=ROOT)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = yaml.safe_load(done.stdout)
    assert set(found["services"]) == {"prod", "valkey", "tpi-streamd", "tpi-stream-nginx"}
    assert found["services"]["tpi-streamd"]["environment"] == compose()["services"]["tpi-streamd"]["environment"]
    assert found["services"]["tpi-streamd"]["mem_limit"] == str(1536 << 20)
    done = run()
    assert done.returncode != 0 and "set it to the source tree of tpi-stream" in done.stderr


def test_compose_front(with_app, valkey, rundir, fronts):
    """nginx of the overlay carries the streams; all else goes to TestPlanIt, with the Host, address and scheme that the
    TLS proxy in front reported."""
    app, daemon = with_app(OPEN, TPI_STATUS="on")
    front = Sidecar(rundir, daemon.address, "compose", {"http://prod:3000": app.url, "resolver 127.0.0.11": "resolver 127.0.0.1"})
    fronts.append(front)
    forwarded = {"X_Forwarded_For": "192.0.2.7", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil.example"}
    with http(front.address, NOTIFICATIONS, **page(ANN), **forwarded) as peer:
        peer.wait_live(20)
        valkey.publish(user_channel("ann"), notification(1))
        peer.wait_body(frame(notification(1)))
    with http(front.address, SESSION, **page(ANN), **forwarded) as peer:
        assert peer.wait(lambda p: p.ended, what="TestPlanIt's answer").status == 200
    for request in app.asked(SESSION):
        assert request.header("X-Forwarded-Proto") == "https"
        assert request.header("X-Forwarded-For") == "192.0.2.7, 127.0.0.1"
        assert request.header("X-Forwarded-Host") == "%s:%d" % front.address
    assert len(app.asked(SESSION)) == 2
    assert [front.probe(path) for path in (LIVE, HEALTH, METRICS)] == [200] * 3
    daemon.stop()
    with http(front.address, NOTIFICATIONS, **page(ANN)) as peer:
        peer.wait(lambda p: p.ended, what="a whole answer")
        assert (peer.status, bytes(peer.body)) == (200, b"retry: 10000\n\n")


@pytest.mark.parametrize("name", ["container/nginx.conf", "compose/nginx.conf", "nginx/tpi-stream.conf",
                                  "nginx/tpi-stream-proxy.conf"])
def test_nginx_location(name):
    """Each configuration of nginx has one location for all streams, with the same expression; test_fronts.py tries it."""
    pattern = stream_location(f"{CONTRIB}/{name}")
    assert pattern == stream_location(f"{CONTRIB}/nginx/tpi-stream.conf")
    assert all(pattern.search(path) for path in ROUTED)
    assert not any(pattern.search(path) for path in LOOKALIKES + OTHER_CASE)


# contrib/nginx/tpi-stream-proxy.conf

PROXY = f"{CONTRIB}/nginx/tpi-stream-proxy.conf"
DIRECTIVES = {"proxy_http_version": "1.1", 'proxy_set_header Connection': '""', "proxy_buffering": "off",
              "proxy_cache": "off", "proxy_read_timeout": "3600s", "proxy_send_timeout": "3600s",
              "chunked_transfer_encoding": "off"}


class Proxy(Front):
    """nginx as a reverse proxy before the web server at an address."""

    def __init__(self, rundir, address):
        self.directory = open_directory(rundir, "proxy-")
        self._listen({})
        os.mkdir(os.path.join(self.directory, "tpi-stream"))
        shutil.copy(f"{CONTRIB}/nginx/tpi-stream-workers.conf", os.path.join(self.directory, "tpi-stream"))
        write(os.path.join(self.directory, "site.conf"), "\n".join([
            "listen %s:%d;" % self.address, "error_log stderr info;",
            substitute(read(PROXY), {"127.0.0.1:8080": "%s:%d" % address})]))
        main = write(os.path.join(self.directory, "nginx.conf"), read(f"{CONTRIB}/demo/nginx.conf"))
        super().__init__(self.directory, "nginx", [installed("nginx"), "-p", self.directory, "-c", main,
                                                   "-e", "stderr"])


def test_proxy_directives():
    """Each required directive once, in one location for all streams."""
    text = re.sub(r"#.*", "", read(PROXY))
    location, = re.findall(r"^location ~ \S+ \{\n(.*?)^\}", text, re.M | re.S)
    for name, value in DIRECTIVES.items():
        found = re.findall(rf"^\t{name}\s+(\S+);", location, re.M)
        assert found == [value], name


@pytest.mark.parametrize("server", [Apache, Nginx], ids=["Apache", "nginx"])
def test_proxy(streamd, valkey, rundir, fronts, server):
    """Through nginx in front of the web server: streams, wake-ups, last words, and the daemon's own answers."""
    daemon = streamd(OPEN, TPI_PROJECT_ACCESS="allow")
    behind = server(rundir, daemon.address)
    fronts.append(behind)
    front = Proxy(rundir, behind.address)
    fronts.append(front)
    named = {"Authorization": basic("ann", "ann")}
    peers = []
    for target, channel, payload in [(NOTIFICATIONS, user_channel("ann"), notification(1)),
                                     (ISSUES + "?projectIds=7,8", project_channel(8), issue(1, 8))]:
        peer = http(front.address, target, **named).wait_live(20)
        assert peer.status == 200 and FIRST.match(peer.body)
        for name in "cache-control", "x-accel-buffering":
            assert peer.header(name) == STREAM_HEADERS[name]
        assert peer.header("Transfer-Encoding") is None
        valkey.publish(channel, payload)
        peer.wait_body(frame(payload))
        peers.append((peer, frame(payload)))
    with http(front.address, ISSUES, **named) as peer:
        peer.wait(lambda p: p.ended, what="a whole answer")
        assert peer.status == 400 and b'"error"' in peer.body
    daemon.stop()
    for peer, payload in peers:
        peer.wait(lambda p: p.ended, what="the end")
        assert after_first(peer) == payload + SHUTDOWN
        peer.close()


def test_proxy_alone(rundir, fronts):
    """While the other web server is not there browsers are told to come back."""
    front = Proxy(rundir, ("127.0.0.1", free_port()))
    fronts.append(front)
    with http(front.address, NOTIFICATIONS) as peer:
        peer.wait(lambda p: p.ended, what="a whole answer")
        assert (peer.status, bytes(peer.body)) == (200, b"retry: 10000\n\n")


# All of it

def test_every_file_parses():
    """Each YAML file is one document that a strict parser takes, without a key that stands twice."""
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"a key twice: {node.start_mark}"
            return super().construct_mapping(node, deep)
    paths = [*KUBERNETES, *INGRESSES.values(), *glob.glob(f"{CONTRIB}/traefik/*.yaml"),
             *glob.glob(f"{chart.CHART}/*.yaml")]
    for path in paths:
        with open(path, encoding="utf-8") as file:
            document, = yaml.load_all(file, Strict)
        assert isinstance(document, dict)
