#!/usr/bin/python3
"""From the runs of tests/bench/run.sh (one line of JSON each) to its table and a file of JSON."""

import argparse
import json
import os
import platform
import statistics
import sys

# What the peers are compared by: the key in a run, what it says, the scenarios it belongs to.
FIGURES = [
    ("cpu_us_per_event", "CPU for each event, µs", ("one", "targeted", "burst")),
    ("first_p50_ms", "publish to first stream, p50, ms", ("one",)),
    ("last_p50_ms", "publish to last stream, p50, ms", ("one", "burst")),
    ("last_p99_ms", "publish to last stream, p99, ms", ("one", "burst")),
    ("targeted_p50_ms", "publish to a targeted stream, p50, ms", ("targeted", "burst")),
    ("targeted_p99_ms", "publish to a targeted stream, p99, ms", ("targeted", "burst")),
    ("open_per_s", "streams opened per second", ("open",)),
    ("cpu_us_per_open", "CPU for each opening, µs", ("open",)),
    ("pss_kib_per_stream", "PSS for each stream, KiB", ("open", "one")),
    ("kernel_kib_per_stream", "kernel, for each stream, KiB", ("open", "one")),
    ("system_kib_per_stream", "MemAvailable, for each stream, KiB", ("open", "one")),
    # Whether the load was what it should be; nothing to compare.
    ("rate", "messages published per second", ("targeted", "burst")),
    ("generator_busy", "load generator's share of a CPU", ("one", "targeted", "burst")),
]
NOT_COMPARED = {"rate", "generator_busy"}


def title(scenario, load):
    streams = load["streams"]
    return {
        "open": f"{streams} streams are opened",
        "one": f"{streams} streams, one broadcast at a time",
        "targeted": f"{streams} streams, messages at a rate, each for one stream",
        "burst": f"{streams} streams, messages at a rate, one in ten for one stream, the others for all",
    }[scenario.split("-")[0]]


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def ratio(subject, other):
    """None where one is missing, or so small beside the other that the ratio says nothing."""
    if subject is None or other is None or subject <= 0 or other <= subject / 100:
        return None
    return subject / other


def summarise(runs, peers):
    """scenario -> figure -> the medians of the peers, and of the first one's ratios to the others."""
    loads = {(run["scenario"], run["peer"], run["round"]): run["load"] for run in runs}
    rounds = sorted({run["round"] for run in runs})
    summary = {}
    for scenario in dict.fromkeys(run["scenario"] for run in runs):
        figures = summary[scenario] = {}
        for key, _, about in FIGURES:
            if scenario.split("-")[0] not in about:
                continue

            def of(peer):
                return [loads.get((scenario, peer, number), {}).get(key) for number in rounds]

            figures[key] = {"medians": {peer: median(of(peer)) for peer in peers}}
            if key not in NOT_COMPARED:
                figures[key]["ratios"] = {
                    peer: median(map(ratio, of(peers[0]), of(peer))) for peer in peers[1:]}
        of_scenario = [run for run in runs if run["scenario"] == scenario]
        for key in ("errors", "resyncs", "dropped"):
            figures[key] = {peer: sum(run["load"][key] for run in of_scenario if run["peer"] == peer)
                            for peer in peers}
    return summary


def number(value, decimals=1):
    """At least three digits that count, or two of what is small."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    if abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.{max(decimals, 3 - len(str(int(abs(value)))))}f}"


def print_table(summary, runs, peers):
    columns = [*peers, *(f"/ {peer}" for peer in peers[1:])]
    for scenario, figures in summary.items():
        load = next(run["load"] for run in runs if run["scenario"] == scenario)
        print(f"\n{title(scenario, load)}\n")
        print(f"  {'':40}" + "".join(f"{column:>12}" for column in columns))
        for key, text, about in FIGURES:
            if key not in figures:
                continue
            row = [number(figures[key]["medians"][peer]) for peer in peers]
            for peer in peers[1:]:
                value = figures[key].get("ratios", {}).get(peer)
                row.append("" if key in NOT_COMPARED else number(value, 2))
            print(f"  {text:40}" + "".join(f"{cell:>12}" for cell in row))
        for key, text in (("errors", "events lost, doubled or out of order"),
                          ("dropped", "events given up for a sync")):
            if any(figures[key].values()):
                print(f"  {text:40}" + "".join(f"{figures[key][peer]:>12}" for peer in peers))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--valkey", required=True)
    parser.add_argument("--json")
    parser.add_argument("runs")
    chosen = parser.parse_args()
    peers = chosen.peers.split()
    with open(chosen.runs, encoding="ascii") as file:
        runs = [json.loads(line) for line in file]
    if not runs:
        sys.exit("table.py: nothing was measured")
    rounds = len({run["round"] for run in runs})
    summary = summarise(runs, peers)
    machine = {"system": platform.platform(), "cpus": os.cpu_count(), "valkey": chosen.valkey,
               "load_average": os.getloadavg()}
    print(f"Medians of {rounds} interleaved round{'s' * (rounds > 1)}. A column \"/ NAME\" has the "
          f"median of the rounds' ratios {peers[0]} / NAME.")
    print(f"{machine['system']}, {machine['cpus']} CPUs, FastCGI over a Unix socket, {chosen.valkey}")
    print_table(summary, runs, peers)
    if chosen.json:
        with open(chosen.json, "w", encoding="ascii") as file:
            json.dump({"peers": peers, "rounds": rounds, "machine": machine, "medians": summary,
                       "runs": runs}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
