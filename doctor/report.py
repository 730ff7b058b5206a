"""What is printed."""

import json
import os
import sys
import textwrap
from dataclasses import asdict

from .finding import FAILED, OK, SKIPPED, WARNING


class Report:
    """What is printed. words are the secrets that must not be in it."""

    COLOURS = {OK: "32", WARNING: "33", FAILED: "31", SKIPPED: "2"}

    def __init__(self, url, words, as_json):
        self.url = url
        self.words = sorted((word for word in words if len(word) > 3), key=len, reverse=True)
        self.as_json = as_json
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.findings = []

    def strike_out(self, text):
        for word in self.words:
            text = text.replace(word, "***")
        return text

    def add(self, finding):
        finding.text = self.strike_out(finding.text)
        finding.remedy = self.strike_out(finding.remedy)
        self.findings.append(finding)
        if not self.as_json:
            state = f"{finding.state:<8}"
            if self.colour:
                state = f"\033[{self.COLOURS[finding.state]}m{state}\033[m"
            print(f"{finding.stage:<27} {state} {finding.text}", flush=True)

    def wrong(self):
        return [finding for finding in self.findings if finding.state in (WARNING, FAILED)]

    def finish(self):
        """Prints what is wrong; returns the exit status: a warning alone leaves it 0."""
        wrong = self.wrong()
        failed = any(finding.state == FAILED for finding in wrong)
        if self.as_json:
            print(json.dumps({"url": self.url, "ok": not failed,
                              "findings": [asdict(finding) for finding in self.findings]}, indent=1))
        elif not wrong:
            print("\nAll is well.")
        else:
            # The first failure is often the cause of the others.
            same = {}  # what is wrong with both streams is said once
            for finding in sorted(wrong, key=lambda finding: finding.state != FAILED):
                same.setdefault((finding.state, finding.text, finding.remedy), []).append(finding.stage)
            for (state, text, remedy), stages in same.items():
                print(f"\n{', '.join(stages)}: {state}: {text}")
                print(textwrap.fill(remedy, 78, initial_indent="    ", subsequent_indent="    ",
                                    break_long_words=False, break_on_hyphens=False))
        return 1 if failed else 0
