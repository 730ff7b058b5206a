#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Benchmark: compares tpi-streamd with other servers on this machine in one run. `make bench` builds
what it needs and starts it.

Each round runs each scenario with each of its servers (peers) in turn, so that other load on the
machine affects them equally. Ratios compare two runs of the same round; the table shows their median,
minimum and maximum. It takes at most 9 minutes, with fewer rounds on a slow machine. It uses
loopback and Unix sockets only, starts its own Valkey, and leaves nothing behind. TPI_BUILD in the
environment is the build directory (default: _build in the source tree). Exit status: 0 measured,
1 tpi-streamd lost, duplicated or reordered events, or a peer failed (what another peer lost is in the
table), 2 wrong usage, 69 cannot run here.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import peers
import plot
import servers
import table

LAST_START = 480  # seconds after which no run starts
RUN_LIMIT = 40    # seconds that a run may take

VALKEY_SETTINGS = (
    # Valkey must not disconnect a subscriber that lags: its lag is measured.
    "--client-output-buffer-limit", "pubsub 0 0 0",
    # The Node.js peer has a connection for each stream.
    "--maxclients", "30000")

# A short heartbeat, so that the run is short; the table has the cost with the default of 25 s.
IDLE_HEARTBEAT_MS = 2500
# The first heartbeat also completes the opening of a stream, so wait for it.
IDLE_SETTLE_MS = IDLE_HEARTBEAT_MS + 1000

# By then each thread of tpi-streamd has woken up and freed the stack that opening its stream used.
STREAMD_SETTLE_MS = 6500


def scenario(about, names, streams, *, settings=None, quick=None, of=None, streamd=None, node=None,
             **options):
    """
    names: the peers; the first is compared with each of the others. options: those of
    tests/bench/load. quick: the options that --quick changes. of: options for a peer, by its name;
    likewise streamd and node (Node.js would take too long with the same). settings: those of
    tpi-streamd.
    """
    return {"about": about, "peers": names.split(), "settings": settings or {},
            "options": {"streams": streams, **options}, "quick": quick or {},
            "of": {"streamd": streamd or {}, "node": node or {}, **(of or {})}}


def one_at_a_time(names, streams, messages, **more):
    return scenario(f"{streams} streams, one broadcast at a time", names, streams,
                    messages=messages, streamd={"settle": STREAMD_SETTLE_MS},
                    quick={"messages": messages // 10, **more.pop("quick", {})}, **more)


# Path and channel of a stream of each topic. The last one's events are labelled.
TOPICS = {
    "notifications": ("/api/notifications/stream", "notifications:tenant:bench:broadcast"),
    "issues": ("/api/issues/stream?projectId=7", "issues:tenant:bench:project:7"),
    "test-run": ("/api/test-runs/42/stream", "live:tenant:bench:testrun:42"),
    "project-test-runs": ("/api/projects/7/test-runs/stream", "live:tenant:bench:project:7:testruns"),
    "milestone": ("/api/milestones/9/stream", "live:tenant:bench:milestone:9"),
    "project-milestones": ("/api/projects/7/milestones/stream", "live:tenant:bench:project:7:milestones"),
    "combined": ("/api/stream?testRuns=42", "live:tenant:bench:testrun:42"),
}

# A browser with 12 tabs, each of which shows 6 kinds of topics, all with the same notifications.
TABS = ",".join(map(str, range(1, table.TABS + 1)))
COMBINED = "/api/stream?notifications=1" + "".join(
    f"&{kind}={TABS}" for kind in ("issues", "testRuns", "projectTestRuns", "milestones", "projectMilestones"))

BURST = {"rate": 8000, "burst": 8}
SCENARIOS = {
    "one-100": one_at_a_time("streamd floor", 100, 1000),
    "one-1000": one_at_a_time("streamd floor node", 1000, 300, node={"messages": 40}),
    "one-5000": one_at_a_time("streamd floor node", 5000, 100,
                              node={"messages": 12, "warmup": 3}, quick={"streams": 1000}),
    "one-10000": one_at_a_time("streamd floor", 10000, 50, quick={"streams": 2000}),
    "targeted": scenario("100 streams, 8000 messages/s, each for one stream", "streamd floor", 100,
                         messages=12000, targeted=100, quick={"messages": 4000}, **BURST),
    "burst": scenario("100 streams, 8000 messages/s, 10% for one stream, the others for all",
                      "streamd floor", 100, messages=16000, targeted=10,
                      quick={"messages": 4000}, **BURST),
    "web-one": scenario("1000 streams through a web server, one broadcast at a time",
                        "nginx nchan apache node-web centrifugo mercure", 1000, messages=100,
                        quick={"messages": 20}, of={"nginx": {"settle": STREAMD_SETTLE_MS}, "apache": {"settle": STREAMD_SETTLE_MS},
                            "node-web": {"messages": 20, "warmup": 3}}),
    "web-burst": scenario("the burst through a web server", "nginx nchan apache", 100,
                          messages=4000, targeted=10, quick={"messages": 2000}, **BURST),
    **{f"projects-{count}": scenario(
        f"1000 issue streams of {count} project{'s' * (count > 1)}, one event to all at a time",
        "streamd", 1000, projects=count, messages=200, quick={"messages": 30})
       for count in (1, 10, 100)},
    **{f"topic-{name}": scenario(f"1000 streams of {path}, one event to all at a time", "streamd", 1000,
                                 path=path, channel=channel, messages=200, quick={"messages": 30})
       for name, (path, channel) in TOPICS.items()},
    # A stream for each topic costs the same whatever the topic, so all are of notifications.
    "browser-12-tabs": scenario(
        "browsers with 12 tabs of 6 kinds of topics, through nginx: one stream for each browser; one for each topic "
        "and tab", "nginx separate node-web", table.BROWSERS * table.TABS * table.TOPICS, messages=30,
        of={"nginx": {"streams": table.SHARING_BROWSERS, "path": COMBINED, "settle": STREAMD_SETTLE_MS,
                      "channel": "notifications:tenant:bench:broadcast", "messages": 100}},
        quick={"messages": 10}),
    # With few CPUs the daemons take turns, so compare the cost, not the latency.
    **{f"fleet-{count}": scenario(
        f"{count} daemon{'s' * (count > 1)} with 1000 streams each, one broadcast at a time; one daemon with all streams",
        "fleet alone", 1000 * count, messages=50, settings={"daemons": count}, quick={"messages": 10})
       for count in (1, 2, 4, 8)},
    **{f"channels-{count}": scenario(
        f"2000 streams of a channel each come and go, next to {count} channels", "channels", 2000,
        messages=0, path="/api/issues/stream?projectId=", channel="issues:tenant:bench:project:1",
        distinct=True, leave=True, settings={"channels": count}, quick={"streams": 500})
       for count in (10, 1000, 100000)},
    "combined-500": scenario("500 combined streams of 500 topics", "streamd", 500, messages=0,
                             path="/api/stream?issues=" + ",".join(map(str, range(1, 501))),
                             channel="issues:tenant:bench:project:1", streamd={"settle": STREAMD_SETTLE_MS},
                             quick={"streams": 100}),
    "storm": scenario("100 streams, 1000 messages/s, each for one; 5000 more streams open meanwhile",
                      "streamd floor", 100, messages=4000, rate=1000, targeted=100, storm=5000,
                      window=512, quick={"messages": 2000, "storm": 1000}),
    "idle": scenario("10000 idle streams", "streamd", 10000, messages=0, settle=IDLE_SETTLE_MS,
                     idle=2 * IDLE_HEARTBEAT_MS + 100,
                     settings={"SSE_HEARTBEAT_MS": IDLE_HEARTBEAT_MS}, quick={"streams": 2000}),
}


class Unavailable(Exception):
    """Why the benchmark cannot be run here."""


def say(text):
    print(f"tests/bench/run.py: {text}", file=sys.stderr)


def chosen_from(kind, known):
    def parse(text):
        names = text.replace(",", " ").split()
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown {kind} {name}; must be of "
                                                 f"{' '.join(known)}")
        if not names:
            raise argparse.ArgumentTypeError(f"must name a {kind}")
        return names
    return parse


def round_count(text):
    if not text.isdecimal() or not 1 <= int(text) <= 99:
        raise argparse.ArgumentTypeError(f"{text}: must be a number from 1 to 99")
    return int(text)


def read_options():
    listed = "\n".join(f"  {name:12}{peer.about}" for name, peer in peers.PEERS.items())
    parser = argparse.ArgumentParser(
        prog="tests/bench/run.py", description=__doc__, epilog=f"peers:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true",
                        help="2 rounds with fewer streams and messages, to see whether it works")
    parser.add_argument("--rounds", type=round_count, help="number of rounds (5)")
    parser.add_argument("--peers", type=chosen_from("peer", peers.PEERS), metavar="LIST",
                        default=list(peers.PEERS), help="only these peers (all)")
    parser.add_argument("--scenarios", type=chosen_from("scenario", SCENARIOS), metavar="LIST",
                        default=list(SCENARIOS),
                        help=f"only these scenarios (all: {' '.join(SCENARIOS)})")
    parser.add_argument("--json", metavar="FILE",
                        help="write the figures of every run, and the medians, to FILE")
    parser.add_argument("--plot", metavar="FILE", help=f"draw the scenario {plot.SCENARIO} to FILE, .svg or .png")
    options = parser.parse_args()
    if options.plot and plot.SCENARIO not in options.scenarios:
        parser.error(f"--plot requires the scenario {plot.SCENARIO}")
    if options.plot and plot.missing(options.plot):
        parser.error(plot.missing(options.plot))
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


# What is available here

def valkey_server():
    return shutil.which("valkey-server") or shutil.which("redis-server")


def check_programs():
    for name in ("tpi-streamd", "tests/bench/load", "tests/bench/floor"):
        if not os.access(os.path.join(servers.BUILD, name), os.X_OK):
            raise Unavailable(f"{servers.BUILD}/{name} not found: run make bench")
    if not valkey_server():
        raise Unavailable("neither valkey-server nor redis-server found: run contrib/install-deps.sh bench")
    with open(os.path.join(servers.BUILD, "config.h"), encoding="ascii") as file:
        if "#define TPI_SANITIZED" in file.read():
            say("built with sanitizers: the figures are meaningless")


def available_peers(names):
    found = []
    for name in names:
        missing = peers.PEERS[name].missing()
        if missing:
            say(f"skipping peer {name}: {missing}")
        else:
            found.append(name)
    return found


def raise_descriptors():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def load_options(plan, peer, quick):
    return {"warmup": 20, **plan["options"], **plan["of"].get(peer, {}),
            **(plan["quick"] if quick else {})}


def descriptors_needed(plan, quick):
    """The descriptors of one process: one per stream, or two for the Node.js peers."""
    def of(peer):
        options = load_options(plan, peer, quick)
        return (options["streams"] + options.get("storm", 0)) * (2 if peer.startswith("node") else 1) + 100
    return max(map(of, plan["peers"]))


def choose_plans(options):
    """The scenarios to run, each with its available peers."""
    found, limit, plans = available_peers(options.peers), raise_descriptors(), {}
    for name in options.scenarios:
        plan = dict(SCENARIOS[name])
        plan["peers"] = [peer for peer in plan["peers"] if peer in found]
        if plan["peers"] and descriptors_needed(plan, options.quick) > limit:
            say(f"skipping scenario {name}: it needs more than {limit} descriptors (ulimit -Hn)")
        elif plan["peers"]:
            plans[name] = plan
    if not plans:
        raise Unavailable("none of the chosen scenarios and peers can run here")
    return plans


# Runs

def command(peer, valkey, options):
    arguments = {"tenant": peers.TENANT, "valkey-pid": valkey.process.pid, **peer.arguments,
                 **options}
    if not arguments.get("post"):
        arguments["valkey"] = valkey.path
    line = [servers.program("tests/bench/load")]
    for name, values in arguments.items():
        for value in values if isinstance(values, list) else [values]:
            line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return line


def measure(plan, name, quick, directory, valkey):
    """Runs load; returns its figures, or None, and an error, or None."""
    options = load_options(plan, name, quick)
    users = options["streams"] + options.get("storm", 0)
    peer = peers.PEERS[name](directory, valkey, users, **plan["settings"])
    try:
        done = subprocess.run(command(peer, valkey, options), capture_output=True, text=True,
                              timeout=RUN_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return None, f"timed out after {RUN_LIMIT} s"
    finally:
        peer.stop()
    figures = json.loads(done.stdout) if done.returncode in (0, 1) else None
    if done.returncode == 0:
        return figures, None
    return figures, f"load: exit status {done.returncode}\n{done.stderr}{peer.log()[-2000:]}"


def rotated(items, by):
    by %= len(items)
    return items[by:] + items[:by]


def run_rounds(options, plans, directory, valkey):
    """All runs for which there was time, and whether all succeeded."""
    runs, success, started = [], True, time.monotonic()
    for number in range(1, options.rounds + 1):
        for name, plan in plans.items():
            if sys.stderr.isatty():
                print(f"round {number} of {options.rounds}: {name:20}", end="\r", file=sys.stderr)
            # Another peer is the first in each round.
            for peer in rotated(plan["peers"], number - 1):
                if time.monotonic() - started > LAST_START:
                    say(f"out of time in round {number} of {options.rounds}")
                    return runs, success
                try:
                    figures, error = measure(plan, peer, options.quick, directory, valkey)
                except AssertionError as failure:  # the peer did not start or stop
                    figures, error = None, str(failure)
                if error:
                    # If another server than tpi-streamd loses events, that is a result.
                    success &= bool(figures) and not issubclass(peers.PEERS[peer], peers.Streamd)
                    say(f"{name}, {peer}, round {number}: {error}")
                if figures:
                    runs.append({"round": number, "scenario": name, "peer": peer, "load": figures})
    return runs, success


def run(options):
    check_programs()
    plans = choose_plans(options)
    directory = servers.run_directory()
    try:
        valkey = servers.Valkey(directory, config=VALKEY_SETTINGS).start()
        runs, success = run_rounds(options, plans, directory, valkey)
    finally:
        for process in servers.Process.everything:
            process.kill()
        shutil.rmtree(directory, ignore_errors=True)
    if not runs:
        raise Unavailable("nothing was measured")
    version = subprocess.run([valkey_server(), "--version"], capture_output=True, text=True,
                             check=True).stdout.strip()
    table.report(runs, plans, version, options.json, options.plot)
    return 0 if success else 1


def main():
    options = read_options()
    # As an exception, so that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(options)
    except Unavailable as error:
        say(error)
        return 69


if __name__ == "__main__":
    sys.exit(main())
