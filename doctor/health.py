"""The daemon's own health, and the server's clock."""

import contextlib
import json
from email.utils import parsedate_to_datetime

from .finding import FAILED, Finding, OK, SKIPPED, WARNING
from .settings import LOG
from .site import HEALTH
from .untrusted import plain

# By the beginning of the reason that it gives.
HEALTH_REMEDIES = (
    ("Valkey is", "Does Valkey run, and where the daemon's VALKEY_URL, or VALKEY_SENTINELS where that is set, "
                  "leads? Its password, and the rights of its user (tpi-stream(7))? "),
    ("the application", "Does the application run, and where TPI_APP_URL leads? "),
    ("draining", "The daemon is ending: a restart, or an end of the service? "),
)


def judge_health(stage, response):
    """The daemon's own word, where it is given (TPI_STATUS=on) and passed on."""
    state = None
    with contextlib.suppress(ValueError):
        state = json.loads(response.body)
    if response.status not in (200, 503) or not isinstance(state, dict) or "status" not in state:
        return Finding(stage, SKIPPED, f"no {HEALTH} here, or not for this address (TPI_STATUS=on)")
    text = plain(": ".join(str(state[name]) for name in ("status", "reason") if name in state))
    if response.status == 200:
        return Finding(stage, OK, text)
    reason = str(state.get("reason", ""))
    remedy = next((text for words, text in HEALTH_REMEDIES if reason.startswith(words)), "")
    return Finding(stage, FAILED, text, f"Streams are told to come back later. {remedy}{LOG} has more.")


def judge_clock(stage, response, now):
    """now: the local time in which the head came. Date has whole seconds."""
    try:
        off = parsedate_to_datetime(response.header("date")).timestamp() + 0.5 - now
    except (TypeError, ValueError):
        return Finding(stage, SKIPPED, "the answer has no Date")
    which = "ahead of" if off > 0 else "behind"
    text = f"the server's is {abs(off):.0f} s {which} this one"
    if abs(off) <= 5:
        return Finding(stage, OK, "the server's is as here" if abs(off) < 2 else text)
    return Finding(stage, WARNING if abs(off) <= 60 else FAILED, text,
                   "Sessions, tokens and certificates are judged by the clock: timedatectl on both, "
                   "and an NTP service (systemd-timesyncd or chrony).")
