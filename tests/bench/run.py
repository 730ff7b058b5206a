#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""The benchmark: tpi-streamd side by side with others, on this machine, in one run. `make bench`
builds what it needs and starts it.

Each round runs each scenario with each of its peers, one behind the other, so that what else the
machine does meets them alike. A ratio is of two runs of one round, and the table shows medians of
ratios with the least and the greatest of them. It ends within 9 minutes, with fewer rounds where
the machine is slow. All traffic goes over loopback and Unix sockets, with a Valkey of its own;
nothing is left. In the environment: TPI_BUILD, the build directory (_build beside the sources).
Exit status: 0 measured, 1 tpi-streamd lost, doubled or mixed up events, or a peer failed (what
another peer lost is in the table), 2 wrong usage, 69 cannot be run here.
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
import servers
import table

# No run is begun later than this, in seconds, and none takes longer than that.
LAST_START = 480
RUN_LIMIT = 40

VALKEY_SETTINGS = (
    # A subscriber that lags behind is not cut off: its lag is measured.
    "--client-output-buffer-limit", "pubsub 0 0 0",
    # The Node.js peer has a connection for each stream.
    "--maxclients", "30000")

# A heartbeat that can be waited for; what it costs is told for that of 25 s.
IDLE_HEARTBEAT_MS = 2500

# After 5 s each thread of tpi-streamd has looked at its stream, and gives back the stack that the
# opening took.
STREAMD_SETTLE_MS = 6500


def scenario(about, names, streams, *, settings=None, quick=None, streamd=None, node=None,
             **options):
    """
    names: the peers; the first is compared with each of the others. options: of tests/bench/load.
    quick: what --quick changes. streamd, node: what is different for the one, and for the other,
    which would take all the time. settings: of tpi-streamd.
    """
    return {"about": about, "peers": names.split(), "settings": settings or {},
            "options": {"streams": streams, **options}, "quick": quick or {},
            "of": {"streamd": streamd or {}, "node": node or {}}}


def one_at_a_time(names, streams, messages, **more):
    return scenario(f"{streams} streams, one broadcast at a time", names, streams,
                    messages=messages, streamd={"settle": STREAMD_SETTLE_MS},
                    quick={"messages": messages // 10, **more.pop("quick", {})}, **more)


BURST = {"rate": 8000, "burst": 8}
SCENARIOS = {
    "one-100": one_at_a_time("streamd floor", 100, 1000),
    "one-1000": one_at_a_time("streamd floor node", 1000, 300, node={"messages": 40}),
    "one-5000": one_at_a_time("streamd floor node", 5000, 100,
                              node={"messages": 12, "warmup": 3}, quick={"streams": 1000}),
    "one-10000": one_at_a_time("streamd floor", 10000, 50, quick={"streams": 2000}),
    "targeted": scenario("100 streams, 8000 messages/s, each for one stream", "streamd floor", 100,
                         messages=12000, targeted=100, quick={"messages": 4000}, **BURST),
    "burst": scenario("100 streams, 8000 messages/s, one in ten for one stream, the others for all",
                      "streamd floor", 100, messages=16000, targeted=10,
                      quick={"messages": 4000}, **BURST),
    "web-one": scenario("1000 streams through a web server, one broadcast at a time",
                        "nginx nchan apache", 1000, messages=100, quick={"messages": 20}),
    "web-burst": scenario("the burst through a web server", "nginx nchan apache", 100,
                          messages=4000, targeted=10, quick={"messages": 2000}, **BURST),
    **{f"projects-{count}": scenario(
        f"1000 issue streams of {count} project{'s' * (count > 1)}, one event for all at a time",
        "streamd", 1000, projects=count, messages=200, quick={"messages": 30})
       for count in (1, 10, 100)},
    "storm": scenario("100 streams, 1000 messages/s, each for one; then 5000 streams open beside",
                      "streamd floor", 100, messages=4000, rate=1000, targeted=100, storm=5000,
                      window=512, quick={"messages": 2000, "storm": 1000}),
    "idle": scenario("10000 idle streams", "streamd", 10000, messages=0,
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
                raise argparse.ArgumentTypeError(f"there is no {kind} {name}; "
                                                 f"allowed are {' '.join(known)}")
        if not names:
            raise argparse.ArgumentTypeError(f"names no {kind}")
        return names
    return parse


def round_count(text):
    if not text.isdecimal() or not 1 <= int(text) <= 99:
        raise argparse.ArgumentTypeError(f"{text}: allowed is a number from 1 to 99")
    return int(text)


def read_options():
    listed = "\n".join(f"  {name:12}{peer.about}" for name, peer in peers.PEERS.items())
    parser = argparse.ArgumentParser(
        prog="tests/bench/run.py", description=__doc__, epilog=f"peers:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true",
                        help="2 rounds, fewer streams and messages: does it work?")
    parser.add_argument("--rounds", type=round_count, help="5")
    parser.add_argument("--peers", type=chosen_from("peer", peers.PEERS), metavar="LIST",
                        default=list(peers.PEERS), help="these alone; all")
    parser.add_argument("--scenarios", type=chosen_from("scenario", SCENARIOS), metavar="LIST",
                        default=list(SCENARIOS), help=f"these alone; {' '.join(SCENARIOS)}")
    parser.add_argument("--json", metavar="FILE", help="every figure of every run, and the medians")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


# What there is

def valkey_server():
    return shutil.which("valkey-server") or shutil.which("redis-server")


def check_programs():
    for name in ("tpi-streamd", "tests/bench/load", "tests/bench/floor"):
        if not os.access(os.path.join(servers.BUILD, name), os.X_OK):
            raise Unavailable(f"{servers.BUILD}/{name} is not built: make bench")
    if not valkey_server():
        raise Unavailable("no Valkey (or Redis): contrib/install-deps.sh bench")
    with open(os.path.join(servers.BUILD, "config.h"), encoding="ascii") as file:
        if "#define TPI_SANITIZED" in file.read():
            say("built with sanitizers: the figures mean nothing")


def available_peers(names):
    found = []
    for name in names:
        missing = peers.PEERS[name].missing()
        if missing:
            say(f"{name} is left out: {missing}")
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
    """Of one process, the Node.js peer apart: that one has two for each stream."""
    def of(peer):
        options = load_options(plan, peer, quick)
        return (options["streams"] + options.get("storm", 0)) * (2 if peer == "node" else 1) + 100
    return max(map(of, plan["peers"]))


def choose_plans(options):
    """The scenarios to be run, each with the peers that are there."""
    found, limit, plans = available_peers(options.peers), raise_descriptors(), {}
    for name in options.scenarios:
        plan = dict(SCENARIOS[name])
        plan["peers"] = [peer for peer in plan["peers"] if peer in found]
        if plan["peers"] and descriptors_needed(plan, options.quick) > limit:
            say(f"{name} is left out: it needs more than {limit} descriptors (ulimit -Hn)")
        elif plan["peers"]:
            plans[name] = plan
    if not plans:
        raise Unavailable("of what was chosen nothing can be run")
    return plans


# Runs

def command(peer, valkey, options):
    arguments = {"tenant": peers.TENANT, "valkey-pid": valkey.process.pid, **peer.arguments,
                 **options}
    if not arguments.get("post"):
        arguments["valkey"] = valkey.path
    line = [servers.program("tests/bench/load")]
    for name, value in arguments.items():
        line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return line


def measure(plan, name, quick, directory, valkey):
    """What load has measured, or None and why not."""
    options = load_options(plan, name, quick)
    users = options["streams"] + options.get("storm", 0)
    peer = peers.PEERS[name](directory, valkey, users, **plan["settings"])
    try:
        done = subprocess.run(command(peer, valkey, options), capture_output=True, text=True,
                              timeout=RUN_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return None, f"took longer than {RUN_LIMIT} s"
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
    """All runs there was time for, and whether they went well."""
    runs, well, started = [], True, time.monotonic()
    for number in range(1, options.rounds + 1):
        for name, plan in plans.items():
            if sys.stderr.isatty():
                print(f"round {number} of {options.rounds}: {name:20}", end="\r", file=sys.stderr)
            # Who comes first in one round is not first in the next.
            for peer in rotated(plan["peers"], number - 1):
                if time.monotonic() - started > LAST_START:
                    say(f"out of time in round {number} of {options.rounds}")
                    return runs, well
                try:
                    figures, trouble = measure(plan, peer, options.quick, directory, valkey)
                except AssertionError as why:  # it does not start, or not end
                    figures, trouble = None, str(why)
                if trouble:
                    # That a peer of other make loses events is a finding.
                    well &= bool(figures) and not issubclass(peers.PEERS[peer], peers.Streamd)
                    say(f"{name}, {peer}, round {number}: {trouble}")
                if figures:
                    runs.append({"round": number, "scenario": name, "peer": peer, "load": figures})
    return runs, well


def run(options):
    check_programs()
    plans = choose_plans(options)
    directory = servers.run_directory()
    try:
        valkey = servers.Valkey(directory, config=VALKEY_SETTINGS).start()
        runs, well = run_rounds(options, plans, directory, valkey)
    finally:
        for process in servers.Process.everything:
            process.kill()
        shutil.rmtree(directory, ignore_errors=True)
    if not runs:
        raise Unavailable("nothing was measured")
    version = subprocess.run([valkey_server(), "--version"], capture_output=True, text=True,
                             check=True).stdout.strip()
    table.report(runs, plans, version, options.json)
    return 0 if well else 1


def main():
    options = read_options()
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(options)
    except Unavailable as why:
        say(why)
        return 69


if __name__ == "__main__":
    sys.exit(main())
