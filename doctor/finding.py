# SPDX-License-Identifier: ISC
"""What an examination yields: one finding for each stage."""

from dataclasses import dataclass

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "FAILED", "skipped"


@dataclass
class Finding:
    """text is "what failed: why". remedy tells what to do, in the imperative."""
    stage: str
    state: str
    text: str
    remedy: str = ""


class Stop(Exception):
    """After this finding nothing else can work."""

    def __init__(self, finding):
        super().__init__(finding.text)
        self.finding = finding
