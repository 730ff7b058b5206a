# SPDX-License-Identifier: ISC
"""contrib/kubernetes, traefik, alb, helm, container and nginx/tpi-stream-proxy.conf: what can be read is compared with
the daemon and with the contract, what can run runs.

No Kubernetes, Helm or container engine is needed: manifests are parsed, the chart is rendered by helm/render.go, the
Containerfile's build stage is run in a directory, and its nginx.conf by the nginx that is installed.
"""

import glob
import json
import os
import re
import shutil
import signal
import subprocess
from urllib.parse import urlsplit

import pytest
import yaml

import chart
from answers import FIRST, SHUTDOWN, STREAM_HEADERS, after_first, frame, issue, notification
from application import ANN, SESSION, page
from chart import Refused, read_yaml
from fcgi import ISSUES, NOTIFICATIONS
from fronts import CONTRIB, PATH, Apache, Front, Nginx, installed, open_directory, read, substitute, write
from paths import LOOKALIKES, OTHER_CASE, ROUTED
from servers import (ROOT, basic, clean_environment, free_port, http, project_channel, run_streamd, tunables,
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
OPEN = ["--mode", "0666"]  # the web server's workers are another user


@pytest.fixture
def password(rundir):
    return write(os.path.join(rundir, "password"), "secret\n")


@pytest.fixture(scope="module")
def render():
    """render(values): the chart's objects by kind."""
    chart.build()
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
    """The daemon's variables; those from a Secret have the value None."""
    entries = container(deployment, "streamd")["env"]
    names = [entry["name"] for entry in entries]
    assert len(names) == len(set(names)), names
    for entry in entries:
        assert isinstance(entry.get("value", ""), str), f"not quoted: {entry}"
    return {entry["name"]: entry.get("value") for entry in entries}


def check_settings(env, password):
    """The daemon knows each name, and takes all values; password is a file that stands in for the Secret's."""
    env = dict(env)
    assert env.pop("GLIBC_TUNABLES") == tunables()
    if "VALKEY_PASSWORD_FILE" in env:
        env["VALKEY_PASSWORD_FILE"] = password
    done = run_streamd("--check-config", **env)
    assert done.returncode == 0, done.stderr
    effective = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert set(env) <= set(effective)
    for name, value in env.items():
        if name in effective and value is not None:
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
    # The password is a file that the daemon's group may read.
    env = environment(deployment)
    secrets = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    if "VALKEY_PASSWORD_FILE" in env:
        directory, name = os.path.split(env["VALKEY_PASSWORD_FILE"])
        mount = next(m for m in container(deployment, "streamd")["volumeMounts"] if m["mountPath"] == directory)
        secret = volumes[mount["name"]]["secret"]
        assert mount["readOnly"] and name == "password" and secret["defaultMode"] == 0o440
    else:
        assert not secrets


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
    assert about["apiVersion"] == "v2" and str(about["appVersion"]) == version


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
    notes = chart.render({"replicas": 3, "sse": {"perTenantCap": 700}})["NOTES.txt"]
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
    reference, = (entry["valueFrom"] for entry in container(deployment, "streamd")["env"] if "valueFrom" in entry)
    assert env["VALKEY_SENTINEL_PASSWORD"] is None and reference == {"secretKeyRef": {"name": "s", "key": "k"}}
    env = environment(render({"valkey": {"sentinels": ["s1"], "url": ""}})["Deployment"])
    check_settings(env, password)
    assert "VALKEY_URL" not in env and "VALKEY_SENTINEL_PASSWORD" not in env
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
    texts = chart.render(values)
    policy, deployment = (yaml.safe_load(texts[name]) for name in ("networkpolicy.yaml", "deployment.yaml"))
    assert outgoing_ports(policy) == [*expected, [53, 53]]
    check_policy(policy, environment(deployment))
    told = re.findall(r"^  (?:Valkey|application): +(.*)$", texts["NOTES.txt"], re.M)
    assert [line for line in told if line != "none"] == [", ".join(map(str, ports)) for ports in expected]
    assert ("sentinels announce" in texts["NOTES.txt"]) == bool(sentinels)
    named = chart.render({**values, "networkPolicy": {"valkeyPorts": [1, 65535], "applicationPorts": [3001, 2]}})
    assert outgoing_ports(yaml.safe_load(named["networkpolicy.yaml"])) == [[1, 65535], [3001, 2], [53, 53]]
    assert "  Valkey:       1, 65535\n  application:  3001, 2\n" in named["NOTES.txt"]
    assert "NetworkPolicy" not in chart.render({**values, "networkPolicy": {"enabled": False}})["NOTES.txt"]


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
        chart.render(values)


def test_chart_sets_nothing_twice(render):
    """What the chart sets itself, or the image's command line does, is refused among the other settings."""
    secret = {"name": "s", "key": "k"}
    found = render({"valkey": {"url": "valkeys://a", "sentinels": ["s1"], "passwordSecret": secret,
                               "sentinelPasswordSecret": secret,
                               "tlsSecret": {"name": "s", "clientCertificate": True}}})
    free = {"GLIBC_TUNABLES", *read_yaml(f"{chart.CHART}/values.yaml")["settings"]}
    own = {"TPI_LISTEN", *environment(found["Deployment"])} - free
    assert {"TPI_STATUS", "VALKEY_SENTINEL_PASSWORD", "VALKEY_TLS_CA", "VALKEY_TLS_KEY"} < own
    for name in own:
        with pytest.raises(Refused, match=f"settings.{name}: not allowed: the chart sets it"):
            chart.render({"settings": {name: "x"}})


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


def test_schema():
    """values.schema.json takes what the daemon takes, and refuses the rest before anything is rendered."""
    for values in GOOD:
        chart.validate(values)
    for values in BAD:
        with pytest.raises(Refused):
            chart.validate(values)


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
    """nginx with the image's own configuration; two ports, and no authentication. With prefix, a command that runs
    another one, it listens on all addresses."""

    def __init__(self, rundir, daemon_address, prefix=(), host="127.0.0.1", ports=None):
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
        main = write(os.path.join(self.directory, "nginx.conf"), substitute(read(f"{CONTRIB}/container/nginx.conf"), {
            "/tmp/": f"{self.directory}/", "/etc/nginx/tpi-stream/": f"{copy}/",
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
                return peer.wait(lambda p: p.closed or p.ended, what="an answer").status == 200
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


@pytest.mark.parametrize("name", ["container/nginx.conf", "nginx/tpi-stream.conf", "nginx/tpi-stream-proxy.conf"])
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
