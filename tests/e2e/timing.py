"""Deadlines: generous, and stretched by TPI_TIME_SCALE where the machine or a sanitizer is slow."""

import os
import time

SCALE = float(os.environ.get("TPI_TIME_SCALE", "1"))


def scaled(seconds):
    return seconds * SCALE


def eventually(condition, timeout=10, what="condition"):
    """Asks again until the answer is true; returns it. For states that no event announces."""
    deadline = time.monotonic() + scaled(timeout)
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)
