"""What an examination yields: a finding for each stage."""

from dataclasses import dataclass

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "FAILED", "skipped"


@dataclass
class Finding:
    stage: str
    state: str
    text: str
    remedy: str = ""


class Stop(Exception):
    """Nothing that comes behind this finding can work."""

    def __init__(self, finding):
        super().__init__(finding.text)
        self.finding = finding
