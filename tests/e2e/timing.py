# SPDX-License-Identifier: ISC
"""Deadlines: generous, and multiplied by TPI_TIME_SCALE for slow machines and sanitizers."""

import os
import time

SCALE = float(os.environ.get("TPI_TIME_SCALE", "1"))


def scaled(seconds):
    return seconds * SCALE


def eventually(condition, timeout=10, what="condition"):
    """Polls a condition until it is true, and returns its value. For states that no event announces."""
    deadline = time.monotonic() + scaled(timeout)
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)
