# SPDX-License-Identifier: ISC
"""Draws the scenario web-one with gnuplot: what an event, a stream and an opening cost with each peer."""

import os
import shutil
import subprocess

SCENARIO = "web-one"
TERMINALS = {".svg": "svg size 820,300 font 'sans-serif,11' background 'white'",
             ".png": "pngcairo size 1640,600 fontscale 1.5"}
PANELS = (("path_us_per_event", "CPU per event, µs"), ("servers_kib_per_stream", "PSS per stream, KiB"),
          ("open_us", "CPU to open a stream, µs"))
NAMES = {"nginx": "tpi-streamd, nginx", "apache": "tpi-streamd, Apache", "nchan": "nginx with nchan", "centrifugo": "Centrifugo, nginx",
         "mercure": "Mercure, nginx", "node-web": "Node.js, nginx"}


def missing(file):
    """Why the plot cannot be drawn; None if it can."""
    if os.path.splitext(file)[1] not in TERMINALS:
        return f"{file}: must end in .svg or .png"
    return None if shutil.which("gnuplot") else "gnuplot not found (contrib/install-deps.sh bench)"


def panel(figures, key, title, left):
    """Horizontal bars, the first peer at the top, each with its value."""
    found = figures[key]["peers"]
    values = [(NAMES[peer], found[peer]["median"]) for peer in NAMES if found.get(peer)]
    rows = "".join(f"{len(values) - i} {value:.3g} \"{name}\"\n" for i, (name, value) in enumerate(values))
    ticks = ":ytic(3)" if left else ""
    most = max(value for _, value in values) * 1.35
    return (f"set title \"{title}\"\nset xrange [0:{most:.4g}]\nset yrange [0.4:{len(values) + 0.6}]\n"
            f"$data << EOD\n{rows}EOD\n"
            f"plot $data using ($2/2):1:($2/2):(0.35){ticks} with boxxyerror linecolor rgb '#4878a8', "
            f"$data using 2:1:2 with labels left offset 0.5,0\n")


def draw(summary, file):
    """Writes the plot to file. The summary is that of table.summarise()."""
    figures = summary[SCENARIO]
    script = (f"set terminal {TERMINALS[os.path.splitext(file)[1]]}\nset output \"{file}\"\n"
              "set multiplot layout 1,3\nunset key\nunset xtics\nset border 2\nset ytics nomirror scale 0\n"
              "set style fill solid\n")
    script += "set lmargin at screen 0.17\nset rmargin at screen 0.43\n" + panel(figures, *PANELS[0], True)
    script += "set ytics format ''\n"
    for at, (key, title) in zip((0.46, 0.73), PANELS[1:]):
        script += (f"set lmargin at screen {at}\nset rmargin at screen {at + 0.25}\nunset ytics\n"
                   + panel(figures, key, title, False))
    subprocess.run(["gnuplot"], input=script, text=True, check=True)
