"""Settings of daemon and publisher, and what follows from them."""

import re

from .finding import FAILED, Finding, OK, WARNING
from .untrusted import number, plain

LOG = "journalctl -u tpi-stream.service"


def heartbeat_of(settings):
    """In seconds."""
    return number(settings.get("SSE_HEARTBEAT_MS"), 25000) / 1000


def caps(settings):
    return number(settings.get("SSE_PER_TENANT_CAP"), 1000) + \
        number(settings.get("SSE_ISSUES_PER_TENANT_CAP"), 1000)


def servers_of(valkey_url):
    """The URLs in it without what may differ for one server: user, password, redis or valkey."""
    return [url if url.startswith("unix:///") else
            re.sub(r"(?si)^(?:redis|valkey)(s?://)(?:.*@)?", r"valkey\1", url)
            for url in re.split(r", *(?=[A-Za-z]+://)", valkey_url)]


def is_cluster(settings):
    """One that names a single node of it does not tell."""
    return not settings.get("VALKEY_SENTINELS") and len(servers_of(settings.get("VALKEY_URL") or "")) > 1


def judge_settings(stage, daemon, publisher):
    """
    Settings that daemon and publisher must share. Of where Valkey is a difference may be one of words: whether wake-ups
    arrive tells.
    """
    names = [("INSTANCE_TENANT_ID", "default"), ("TPI_ISSUES_CHANNEL_PREFIX", "issues"),
             ("VALKEY_SENTINELS", ""), ("VALKEY_SENTINEL_MASTER", "mymaster")]
    if not daemon.get("VALKEY_SENTINELS"):
        # With sentinels the host in it does not count.
        names.append(("VALKEY_URL", "valkey://127.0.0.1:6379"))
    for name, default in names:
        theirs, ours = daemon.get(name) or default, publisher.get(name) or default
        same = theirs == ours
        if name == "VALKEY_URL":
            same = servers_of(theirs) == servers_of(ours)
            # Passwords are not for printing, which may hold any of , @ and /.
            theirs, ours = (re.sub(r"^redis(s?:)", r"valkey\1", re.sub(r"(?s)//.*@", "//", text))
                            for text in (theirs, ours))
        if not same:
            theirs, ours = plain(theirs) or "not set", plain(ours) or "not set"
            words = name in ("VALKEY_URL", "VALKEY_SENTINELS")
            return Finding(stage, WARNING if words else FAILED, f"{name} differs" if theirs == ours else
                           f"{name} is {theirs} for the daemon and {ours} for the publisher",
                           f"Set {name} alike in /etc/default/tpi-stream and in the environment of what "
                           "publishes" + (", unless both lead to the same Valkey." if words else "; then restart it."))
    return Finding(stage, OK, "daemon and publisher have the same tenant, prefix and Valkey")
