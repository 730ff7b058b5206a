# SPDX-License-Identifier: ISC
"""Print the findings, as lines or as JSON."""

import json
import os
import sys
import textwrap
from dataclasses import asdict

from .finding import FAILED, OK, SKIPPED, WARNING
from .mask import mask


class Report:
    COLOURS = {OK: "32", WARNING: "33", FAILED: "31", SKIPPED: "2"}

    def __init__(self, url, as_json):
        self.url = url
        self.as_json = as_json
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.findings = []

    def add(self, finding):
        finding.text, finding.remedy = mask(finding.text), mask(finding.remedy)
        self.findings.append(finding)
        if not self.as_json:
            state = f"{finding.state:<8}"
            if self.colour:
                state = f"\033[{self.COLOURS[finding.state]}m{state}\033[m"
            print(f"{finding.stage:<31} {state} {finding.text}", flush=True)

    def wrong(self):
        return [finding for finding in self.findings if finding.state in (WARNING, FAILED)]

    def finish(self):
        """Prints the remedies; returns the exit status, which warnings leave at 0."""
        wrong = self.wrong()
        failed = any(finding.state == FAILED for finding in wrong)
        if self.as_json:
            print(json.dumps({"url": mask(self.url), "ok": not failed,
                              "findings": [asdict(finding) for finding in self.findings]}, indent=1))
        elif not wrong:
            print("\nNo problem found.")
        else:
            # The first failure is often the cause of the others.
            same = {}  # what several streams have in common is printed once
            for finding in sorted(wrong, key=lambda finding: finding.state != FAILED):
                same.setdefault((finding.state, finding.text, finding.remedy), []).append(finding.stage)
            for (state, text, remedy), stages in same.items():
                print(f"\n{', '.join(stages)}: {state}: {text}")
                print(textwrap.fill(remedy, 78, initial_indent="    ", subsequent_indent="    ",
                                    break_long_words=False, break_on_hyphens=False))
        return 1 if failed else 0
