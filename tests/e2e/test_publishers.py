# SPDX-License-Identifier: ISC
"""Wake-ups published with the Valkey clients that applications use reach the streams byte for byte."""

import json
import subprocess

import pytest

import node
from answers import after_first, frame
from fcgi import wait_all
from fronts import Nginx
from servers import basic, broadcast_channel, clean_environment, http
from timing import scaled
from topics import BY_NAME, TOPICS

pytestmark = [pytest.mark.long, pytest.mark.clients]

NPM = ["ioredis-5", "ioredis", "iovalkey", "redis-4", "redis-5", "redis-5, RESP3", "redis-6", "redis-6, RESP3",
       "@valkey/valkey-glide", "bullmq"]
PYTHON = {"redis-py": ("redis", "2"), "redis-py, RESP3": ("redis", "3"), "valkey-py": ("valkey", "2"),
          "valkey-py, RESP3": ("valkey", "3")}
TOOL = ["redis-cli", "redis-cli, RESP3"]

# What TestPlanIt publishes, written by JSON.stringify.
RUN = ["created", "result_added", "state_changed", "completed", "case.status_changed", "execution_changed"]
MILESTONE = ["created", "updated", "converted", "membership_changed"]
SHAPES = {
    "notifications": [{"id": "cm4x0z8k20000v8l4h2f9d1ab", "event": "notification"}],
    "issues": [{"event": f"issue-{what}", "issueId": 42, "projectId": 7} for what in ("updated", "created")],
    "testRuns": [{"event": f"test_run.{what}", "runId": 7, "projectId": 7} for what in RUN]
    + [{"event": "test_run.result_added", "runId": 7, "projectId": 7, "targetId": 91}],
    "milestones": [{"event": f"milestone.{what}", "milestoneId": 7, "projectId": 7} for what in MILESTONE]
    + [{"event": "milestone.membership_changed", "milestoneId": 7, "projectId": 7, "targetId": 91}],
}
SHAPES["projectTestRuns"] = SHAPES["testRuns"]
SHAPES["projectMilestones"] = SHAPES["milestones"]


def stringify(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# Legal, though TestPlanIt does not write it: other bytes that must arrive unchanged.
OTHER = ['{"event":"issue-updated", "issueId": 42,\t"projectId":7}', '{"event":"größer ✓ \\u00e9 \\" \\\\","issueId":1}']
WRONG = {"an array": lambda payload: f"[{payload}]", "doubly encoded": stringify}


@pytest.fixture(scope="module")
def publisher():
    """publisher(name) returns a function that publishes (channel, payload) pairs to the Valkey on a port."""
    def make(name):
        env = clean_environment(PYTHONDONTWRITEBYTECODE=1)
        if name in NPM:
            command, where = ["node", "publish.mjs", name], node.npm_clients()
        elif name in PYTHON:
            command, where = ["/usr/bin/python3", "publish.py", *PYTHON[name]], node.CLIENTS
            env["PYTHONPATH"] = node.pip_clients()
        else:
            node.require("redis-cli")
            return lambda port, messages: [
                subprocess.run(["redis-cli", "-p", str(port), *(["-3"] if "RESP3" in name else []), "-x", "PUBLISH", channel],
                               input=payload.encode(), timeout=scaled(20), check=True, stdout=subprocess.DEVNULL)
                for channel, payload in messages]

        def publish(port, messages):
            done = subprocess.run([*command, str(port)], cwd=where, env=env, timeout=scaled(30), check=False,
                                  input="".join(json.dumps(pair) + "\n" for pair in messages).encode(), capture_output=True)
            assert done.returncode == 0, done.stderr.decode()
        return publish
    return make


@pytest.mark.parametrize("name", [*NPM, *PYTHON, *TOOL])
def test_publisher(rundir, new_valkey, streamd, publisher, name):
    """Each of TestPlanIt's payloads reaches its stream, through nginx, byte for byte; an array and a doubly encoded payload
    are dropped and logged."""
    publish = publisher(name)
    valkey = new_valkey(tcp=True).start()
    daemon = streamd(["--mode", "0666"], VALKEY_URL=valkey.url, TPI_PROJECT_ACCESS="allow")
    web = Nginx(rundir, daemon.address)
    try:
        peers = {topic.name: http(web.address, topic.target(), Authorization=basic("ann", "ann")) for topic in TOPICS}
        for peer in peers.values():
            peer.wait_live()
        expected = {topic.name: [stringify(shape) for shape in SHAPES[topic.name]] for topic in TOPICS}
        expected["issues"] += OTHER
        messages = [(BY_NAME[topic].channel(user="ann"), payload) for topic, payloads in expected.items() for payload in payloads]
        wrong = [(BY_NAME["issues"].channel(), spoil(stringify(SHAPES["issues"][0]))) for spoil in WRONG.values()]
        last = '{"id":"last","event":"SYSTEM_ANNOUNCEMENT"}'
        publish(valkey.port, [*wrong, *messages])
        publish(valkey.port, [(broadcast_channel(), last)])
        expected["notifications"].append(last)
        wait_all(list(peers.values()), lambda p: p.body.count(b"\n\n") > 2, what="wake-ups")
        for topic, payloads in expected.items():
            # A worker of BullMQ may publish in another order than the jobs were added.
            peers[topic].wait_body(frame(payloads[-1]))
            assert sorted(after_first(peers[topic]).split(b"\n\n")) == sorted(
                b"".join(map(frame, payloads)).split(b"\n\n")), topic
        daemon.wait_for_log("payload dropped")
        daemon.stop()
        # Drops are logged at most once a second, with the number of those before.
        assert len(daemon.matching("payload dropped")) >= 1
    finally:
        web.kill()


def test_shard_channels(new_valkey, streamd):
    """What is published to a shard channel (SPUBLISH) reaches no stream."""
    valkey = new_valkey().start()
    daemon = streamd(VALKEY_URL=valkey.url)
    topic = BY_NAME["notifications"]
    with daemon.stream() as peer:
        assert valkey("SPUBLISH", topic.channel(), topic.payload % 1) == 0
        valkey.publish(topic.channel(), topic.payload % 2)
        peer.wait_data(topic.payload % 2)
        assert after_first(peer) == frame(topic.payload % 2)
