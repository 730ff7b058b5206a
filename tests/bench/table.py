# SPDX-License-Identifier: ISC
"""Makes the table, the comparison with the targets and the JSON file from the runs of tests/bench/run.py."""

import json
import os
import platform
import statistics

import plot

HEARTBEAT_S = 25
# In the scenario browser-12-tabs a browser has one stream, or 72: one for each of 6 topics in each of 12 tabs. There
# are more browsers with one stream, because the memory of a few streams is lost in the noise.
SHARING_BROWSERS, BROWSERS, TABS, TOPICS = 480, 20, 12, 6


def browser_streams(load):
    return 1 if load["streams"] == SHARING_BROWSERS else TABS * TOPICS


def per_browser(load, key):
    """What a browser costs, from the cost per stream."""
    return load[key] * browser_streams(load)


def per_wakeup(load, key):
    """What a wake-up of one topic costs for a browser, from the cost per event."""
    return load[key] * max(1, browser_streams(load) / TOPICS)


# Figures derived from those of one run; None if one of them is missing.
DERIVED = {
    "front_share": lambda load: 100 * load["front_us_per_event"]
    / (load["front_us_per_event"] + load["cpu_us_per_event"]),
    "pings_per_stream": lambda load: load["pings"] / load["streams"],
    "idle_percent": lambda load: load["cpu_us_per_ping"] * load["streams"] / HEARTBEAT_S / 1e4,
    # The longest delay of an event during the storm, over the median without it.
    "storm_later_ms": lambda load: load["storm_max_ms"] - load["targeted_p50_ms"],
    "storm_opened_per_s": lambda load: load["storm"] / load["storm_s"],
    "servers_kib_per_stream": lambda load: load["pss_kib_per_stream"] + (load["front_pss_kib_per_stream"] or 0),
    "open_us": lambda load: load["cpu_us_per_open"] + (load["front_us_per_open"] or 0),
    "browser_streams": browser_streams,
    "browser_wakeup_us": lambda load: per_wakeup(load, "cpu_us_per_event") + per_wakeup(load, "front_us_per_event"),
    "browser_open_us": lambda load: per_browser(load, "cpu_us_per_open") + per_browser(load, "front_us_per_open"),
    "browser_kib": lambda load: per_browser(load, "pss_kib_per_stream") + per_browser(load, "front_pss_kib_per_stream"),
    "browser_system_kib": lambda load: per_browser(load, "system_kib_per_stream"),
}

# The key in a run, its text in the table, and the scenarios it belongs to.
FIGURES = (
    ("cpu_us_per_event", "server CPU per event, µs", "one targeted burst web projects topic fleet"),
    ("front_us_per_event", "web server CPU per event, µs", "web"),
    ("front_share", "web server's share of both, %", "web"),
    ("path_us_per_event", "CPU per event incl. Valkey, µs", "one targeted burst web fleet"),
    ("valkey_us_per_message", "Valkey's CPU per message, µs", "one fleet"),
    ("first_p50_ms", "publish to first stream, p50, ms", "one"),
    ("last_p50_ms", "publish to last stream, p50, ms", "one burst web projects topic"),
    ("last_p99_ms", "publish to last stream, p99, ms", "one burst web projects topic"),
    ("targeted_p50_ms", "publish to a targeted stream, p50, ms", "targeted burst web storm"),
    ("targeted_p99_ms", "publish to a targeted stream, p99, ms", "targeted burst web storm"),
    ("storm_p50_ms", "... during the storm, p50, ms", "storm"),
    ("storm_p99_ms", "... during the storm, p99, ms", "storm"),
    ("storm_max_ms", "... during the storm, maximum, ms", "storm"),
    ("storm_later_ms", "storm's maximum over p50 without it, ms", "storm"),
    ("storm_opened_per_s", "streams opened per second", "storm"),
    ("open_per_s", "streams opened per second", "one web projects topic idle channels combined"),
    ("cpu_us_per_open", "server CPU per opened stream, µs", "one web projects topic channels combined"),
    ("leave_per_s", "streams closed per second", "channels"),
    ("cpu_us_per_leave", "server CPU per closed stream, µs", "channels"),
    ("pss_kib_per_stream", "server PSS per stream, KiB", "one web projects topic idle combined"),
    ("front_pss_kib_per_stream", "web server PSS per stream, KiB", "web"),
    ("servers_kib_per_stream", "PSS of both servers per stream, KiB", "web"),
    ("open_us", "CPU of both servers per opened stream, µs", "web"),
    ("kernel_kib_per_stream", "kernel memory per stream, KiB", "one web projects topic idle"),
    ("system_kib_per_stream", "PSS of all + kernel per stream, KiB", "one web projects topic idle"),
    ("available_kib_per_stream", "MemAvailable per stream, KiB", "one web projects topic idle"),
    ("pings_per_stream", "heartbeats received per stream", "idle"),
    ("cpu_us_per_ping", "server CPU per heartbeat, µs", "idle"),
    ("idle_percent", "CPU with a 25 s heartbeat, % of a core", "idle"),
    ("browser_streams", "streams of a browser", "browser"),
    ("browser_open_us", "CPU of both servers to open them, µs", "browser"),
    ("browser_wakeup_us", "... for a wake-up in 12 tabs, µs", "browser"),
    ("browser_kib", "PSS of both servers for a browser, KiB", "browser"),
    ("browser_system_kib", "PSS of all + kernel for a browser, KiB", "browser"),
    ("rate", "messages published per second", "targeted burst web-burst storm"),
    ("generator_busy", "load generator's share of a CPU", "one targeted burst web projects topic"),
)
# Figures that show whether the load was as intended, and are not compared.
NOT_COMPARED = {"rate", "generator_busy", "front_share", "front_us_per_event",
                "front_pss_kib_per_stream", "pings_per_stream"}

# "scenario peer", the figure, the "scenario peer" by whose figure it is divided (or None), and the
# limit: an upper one, or with ">" a lower one.
TARGETS = (
    *((f"one-{count} streamd", "cpu_us_per_event", f"one-{count} floor", "1.10") for count in (1000, 5000, 10000)),
    ("one-1000 streamd", "cpu_us_per_event", "one-1000 node", "1/12"),
    ("one-5000 streamd", "cpu_us_per_event", "one-5000 node", "1/12"),
    ("burst streamd", "cpu_us_per_event", "burst floor", "0.65"),
    ("burst streamd", "targeted_p50_ms", "burst floor", "1/50"),
    ("one-1000 streamd", "last_p50_ms", "one-1000 floor", "1.1"),
    ("one-5000 streamd", "last_p50_ms", "one-5000 floor", "1.1"),
    ("one-1000 streamd", "last_p50_ms", "one-1000 node", "1/7"),
    ("one-5000 streamd", "last_p50_ms", "one-5000 node", "1/7"),
    ("one-5000 streamd", "open_per_s", "one-5000 floor", ">0.25"),
    ("one-5000 streamd", "open_per_s", "one-5000 node", ">8"),
    ("one-5000 streamd", "pss_kib_per_stream", None, "9.5"),
    ("one-5000 streamd", "pss_kib_per_stream", None, "5.5"),
    ("one-5000 streamd", "pss_kib_per_stream", "one-5000 node", "0.25"),
    ("one-5000 streamd", "system_kib_per_stream", None, "36"),
    ("one-5000 streamd", "system_kib_per_stream", "one-5000 node", "0.65"),
    ("web-one nginx", "cpu_us_per_event", "web-one centrifugo", "1/3"),
    ("web-one nginx", "cpu_us_per_event", "web-one mercure", "1/3"),
    ("web-one nginx", "pss_kib_per_stream", "web-one centrifugo", "1/2"),
    ("web-one nginx", "pss_kib_per_stream", "web-one mercure", "1/2"),
    ("web-one nginx", "system_kib_per_stream", None, "42"),
    ("web-burst nginx", "path_us_per_event", "web-burst nchan", "1"),
    ("storm streamd", "storm_later_ms", None, "10"),
    ("idle streamd", "idle_percent", None, "1"),
    ("browser-12-tabs nginx", "browser_kib", "browser-12-tabs node-web", "1/20"),
    # The cost per event grows with the number of projects by at most a tenth.
    ("projects-10 streamd", "cpu_us_per_event", "projects-1 streamd", "1.1"),
    ("projects-100 streamd", "cpu_us_per_event", "projects-1 streamd", "1.1"),
    # A fleet: an event costs the same as in one daemon with as many streams. With more streams it costs more, because
    # they share the caches of this machine.
    *((f"fleet-{count} fleet", "cpu_us_per_event", f"fleet-{count} alone", "1.1") for count in (2, 4, 8)),
    # The number of channels does not matter.
    *((f"channels-{count} channels", figure, "channels-10 channels", ">1/1.3")
      for count in (1000, 100000) for figure in ("open_per_s", "leave_per_s")),
    ("combined-500 streamd", "cpu_us_per_open", None, "1000"),
    ("combined-500 streamd", "pss_kib_per_stream", None, "60"),
    ("one-5000 streamd", "cpu_us_per_open", None, "50"),
    ("idle streamd", "cpu_us_per_ping", None, "12"),
    # Every topic costs the same, and so do the labelled events of the combined stream.
    ("topic-combined streamd", "cpu_us_per_event", "topic-notifications streamd", "1.03"),
    ("topic-combined streamd", "pss_kib_per_stream", "topic-notifications streamd", "1.05"),
    *((f"topic-{topic} streamd", figure, "topic-notifications streamd", "1.05")
      for figure in ("cpu_us_per_event", "pss_kib_per_stream")
      for topic in ("issues", "test-run", "project-test-runs", "milestone", "project-milestones")),
)


class Runs:
    """The figures of all runs, by scenario, peer and key."""

    def __init__(self, runs):
        self.rounds = sorted({run["round"] for run in runs})
        self.loads = {(run["scenario"], run["peer"], run["round"]): self.derive(run["load"])
                      for run in runs}

    @staticmethod
    def derive(load):
        derived = {}
        for key, formula in DERIVED.items():
            try:
                derived[key] = formula(load)
            except (KeyError, TypeError, ZeroDivisionError):
                derived[key] = None
        return {**load, **derived}

    def values(self, scenario, peer, key):
        """The figure in each round, None where it is missing."""
        return [self.loads.get((scenario, peer, number), {}).get(key) for number in self.rounds]

    def ratios(self, scenario, peer, other_scenario, other, key):
        pairs = zip(self.values(scenario, peer, key), self.values(other_scenario, other, key))
        return [ratio(*pair) for pair in pairs]

    def total(self, scenario, peer, key):
        return sum(value or 0 for value in self.values(scenario, peer, key))


def ratio(value, other):
    """None if a value is missing, or too small for a meaningful ratio."""
    if value is None or other is None or value <= 0 or other <= value / 1000:
        return None
    return value / other


def spread(values):
    """Median, minimum and maximum of the values that are not None; None if there are none."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values),
            "rounds": len(values)}


def summarise(runs, plans):
    """{scenario: {figure: the values of the peers, and the ratios of the first peer to the others}}"""
    summary = {}
    for scenario, plan in plans.items():
        first, *others = plan["peers"]
        figures = summary[scenario] = {}
        for key, _, prefixes in FIGURES:
            if not any(scenario.startswith(prefix) for prefix in prefixes.split()):
                continue
            figures[key] = {"peers": {peer: spread(runs.values(scenario, peer, key))
                                      for peer in plan["peers"]}}
            if key not in NOT_COMPARED:
                figures[key]["ratios"] = {
                    peer: spread(runs.ratios(scenario, first, scenario, peer, key))
                    for peer in others}
        for key in ("errors", "resyncs", "dropped"):
            figures[key] = {peer: runs.total(scenario, peer, key) for peer in plan["peers"]}
    return summary


def limit_of(text):
    number, _, below = text.lstrip(">").partition("/")
    return float(number) / float(below or 1)


def judge(runs):
    """Each target, the measured values, and whether it is met; None if it was not measured."""
    verdicts = []
    for subject, key, other, limit in TARGETS:
        values = runs.values(*subject.split(), key)
        if other:
            values = runs.ratios(*subject.split(), *other.split(), key)
        found, more = spread(values), limit.startswith(">")
        met = None
        if found:
            met = found["median"] >= limit_of(limit) if more else found["median"] <= limit_of(limit)
        verdicts.append({"subject": subject, "figure": key, "against": other, "limit": limit,
                         "found": found, "met": met})
    return verdicts


# Output

def number(value, decimals=1):
    """Formats with at least three significant digits, or two if the value is small."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    if abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.{max(decimals, 3 - len(str(int(abs(value)))))}f}"


def middle(found):
    return number(found["median"]) if found else "-"


def with_spread(found):
    if not found:
        return "-"
    median, least, greatest = (number(found[key], 2) for key in ("median", "least", "greatest"))
    return f"{median} ({least}-{greatest})"


def print_scenario(about, names, figures):
    print(f"\n{about}\n")
    print(f"  {'':42}" + "".join(f"{peer:>10}" for peer in names)
          + "".join(f"{'/ ' + peer:>28}" for peer in names[1:]))
    for key, text, _ in FIGURES:
        if key not in figures or not any(figures[key]["peers"].values()):
            continue
        ratios = figures[key].get("ratios", {})
        row = [f"{middle(found):>10}" for found in figures[key]["peers"].values()]
        row += [f"{with_spread(found):>28}" for found in ratios.values()]
        print(f"  {text:42}" + "".join(row).rstrip())
    for key, text in (("errors", "events lost, duplicated or out of order"),
                      ("dropped", "events replaced by a sync")):
        if any(figures[key].values()):
            print(f"  {text:42}" + "".join(f"{count:>10}" for count in figures[key].values()))


def print_targets(verdicts):
    texts = {key: text for key, text, _ in FIGURES}
    print("\nTargets: median (minimum-maximum)\n")
    for verdict in verdicts:
        sign = "≥" if verdict["limit"].startswith(">") else "≤"
        what = f"{verdict['subject']}{' / ' + verdict['against'] if verdict['against'] else ''}"
        print(f"  {texts[verdict['figure']]:42}{what:61}{sign} {verdict['limit'].lstrip('>'):6}"
              f"{with_spread(verdict['found']):26}"
              f"{ {True: 'met', False: 'NOT MET', None: 'not measured'}[verdict['met']]}")


def report(all_runs, plans, valkey, json_file, plot_file):
    """
    Prints the table. Writes every figure to json_file, and draws web-one to plot_file, unless they are
    None.
    """
    runs = Runs(all_runs)
    summary, verdicts = summarise(runs, plans), judge(runs)
    machine = {"system": platform.platform(), "cpus": os.cpu_count(), "valkey": valkey,
               "load_average": os.getloadavg()}
    count = len(runs.rounds)
    print(f"Medians of {count} interleaved round{'s' * (count > 1)}. A column \"/ NAME\" has the median "
          "(minimum-maximum) of the ratios of the first peer to NAME in each round.")
    print(f"{machine['system']}, {machine['cpus']} CPUs, {valkey}")
    for scenario, plan in plans.items():
        print_scenario(f"{scenario}: {plan['about']}", plan["peers"], summary[scenario])
    print_targets(verdicts)
    if plot_file:
        plot.draw(summary, plot_file)
    if json_file:
        with open(json_file, "w", encoding="ascii") as file:
            json.dump({"rounds": count, "machine": machine, "targets": verdicts, "medians": summary,
                       "runs": all_runs}, file, indent=1)
            file.write("\n")
