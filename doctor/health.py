# SPDX-License-Identifier: ISC
"""Judge the daemon's health endpoint and the server's clock."""

from .finding import FAILED, Finding, OK, SKIPPED, WARNING
from .settings import LOG
from .site import HEALTH
from .untrusted import http_date, json_object, plain

# By the beginning of the reason that it gives.
HEALTH_REMEDIES = (
    ("Valkey is", "Start Valkey, or correct the daemon's VALKEY_URL (VALKEY_SENTINELS, where it is set), its "
                  "password, and the rights of its user (tpi-stream(7)). "),
    ("cannot query the application", "Start the application, or correct TPI_APP_URL. "),
    ("draining", "Try again: the daemon is ending, for a restart perhaps. "),
)


def judge_health(stage, response):
    """The daemon's own report, if it gives one (TPI_STATUS=on) and the web server passes it on."""
    state = json_object(response.body)
    if response.status not in (200, 503) or "status" not in state:
        return Finding(stage, SKIPPED, f"{HEALTH} is not served, or not to this address (TPI_STATUS=on)")
    text = plain(": ".join(str(state[name]) for name in ("status", "reason") if name in state))
    if response.status == 200:
        return Finding(stage, OK, text)
    reason = str(state.get("reason", ""))
    remedy = next((text for words, text in HEALTH_REMEDIES if reason.startswith(words)), "")
    return Finding(stage, FAILED, text, f"{remedy}Until then new streams are answered \"retry later\". The log has "
                   f"more: {LOG}.")


def judge_clock(stage, response, now):
    """now: the local time at which the head arrived. Date has whole seconds."""
    date = http_date(response.header("date"))
    if date is None:
        return Finding(stage, SKIPPED, "the answer has no valid Date")
    off = date + 0.5 - now
    text = f"the server's is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this one"
    if abs(off) <= 5:
        return Finding(stage, OK, "the same as here" if abs(off) < 2 else text)
    return Finding(stage, WARNING if abs(off) <= 60 else FAILED, text,
                   "Set both clocks: run timedatectl on both, and an NTP service (systemd-timesyncd or chrony). "
                   "Sessions, tokens and certificates depend on the time.")
