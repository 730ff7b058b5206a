# SPDX-License-Identifier: ISC
"""Settings of the daemon and the publisher, and what follows from them.

DEFAULTS has each setting that the doctor reads. tests/e2e/test_doctor_package.py compares it with
tpi-streamd --check-config.
"""

import re
from contextlib import suppress

from .finding import FAILED, Finding, OK, WARNING
from .mask import remember_secrets
from .untrusted import number, plain

LOG = "journalctl -u tpi-stream.service"
DEFAULTS = {
    "INSTANCE_TENANT_ID": "default",
    "SSE_COMBINED_PER_TENANT_CAP": "1000",
    "SSE_HEARTBEAT_MS": "25000",
    "SSE_ISSUES_PER_TENANT_CAP": "1000",
    "SSE_LIVE_PER_TENANT_CAP": "1000",
    "SSE_MAX_AGE_SECONDS": "0",
    "SSE_PER_TENANT_CAP": "1000",
    "TPI_APP_CONCURRENCY": "32",
    "TPI_APP_PENDING": "256",
    "TPI_IDENTITY": "web-server",
    "TPI_ISSUES_CHANNEL_PREFIX": "issues,issue-updates",
    "TPI_LISTEN": "",
    "TPI_PROJECT_ACCESS": "deny",
    "VALKEY_SENTINELS": "",
    "VALKEY_SENTINEL_MASTER": "mymaster",
    "VALKEY_URL": "valkey://127.0.0.1:6379",
}
SOCKET = "/run/tpi-stream/streamd.sock"     # where neither TPI_LISTEN nor --listen is given


def setting(settings, name):
    """Its value; an empty one counts as unset."""
    return settings.get(name) or DEFAULTS[name]


def number_setting(settings, name):
    return number(setting(settings, name), int(DEFAULTS[name]))


def heartbeat_of(settings):
    """In seconds."""
    return number_setting(settings, "SSE_HEARTBEAT_MS") / 1000


def caps(settings):
    """The streams that the daemon accepts in all."""
    return sum(number_setting(settings, name) for name in DEFAULTS if name.endswith("_PER_TENANT_CAP"))


def prefixes(settings):
    """The prefixes of the issue channels. The daemon subscribes to all of them; a publisher uses the first."""
    listed = setting(settings, "TPI_ISSUES_CHANNEL_PREFIX").split(",")
    return [prefix.strip() for prefix in listed if prefix.strip()] or [""]


def acl_channels(settings):
    """The channels of the daemon, as Valkey's ACL takes them."""
    tenant = plain(setting(settings, "INSTANCE_TENANT_ID"))
    return " ".join(f"&{plain(prefix)}:tenant:{tenant}:*" for prefix in ["notifications", *prefixes(settings), "live"])


def uses_application(settings):
    return "app" in (setting(settings, "TPI_IDENTITY"), setting(settings, "TPI_PROJECT_ACCESS"))


def urls_in(valkey_url):
    return re.split(r", *(?=[A-Za-z]+://)", valkey_url)


def remember_passwords(environment):
    """Masks the passwords in these settings from now on, and those in the files that they name."""
    for name, value in environment.items():
        if name in ("VALKEY_URL", "TPI_APP_URL"):
            users = [re.match(r"(?s)[^:]+://(.*)@", url) for url in urls_in(value)]
            remember_secrets(*(user[1].partition(":")[2] for user in users if user))
        elif name.endswith("_PASSWORD"):
            remember_secrets(value)
        elif name.endswith("_PASSWORD_FILE"):
            with suppress(OSError, ValueError), open(value, encoding="utf-8") as file:
                remember_secrets(file.read(65536).rstrip("\r\n"))


def servers_of(valkey_url):
    """The URLs in it, without what may differ for one server: user, password, and redis or valkey."""
    return [url if url.startswith("unix:///") else
            re.sub(r"(?si)^(?:redis|valkey)(s?://)(?:.*@)?", r"valkey\1", url)
            for url in urls_in(valkey_url)]


def is_cluster(settings):
    """True where the URL names several servers. One that names a single node of a Cluster does not show it."""
    return not setting(settings, "VALKEY_SENTINELS") and len(servers_of(setting(settings, "VALKEY_URL"))) > 1


def without_passwords(valkey_url):
    """For printing. A password may contain any of , @ / and line breaks: all up to the last @ goes."""
    return re.sub(r"^redis(s?:)", r"valkey\1", re.sub(r"(?s)//.*@", "//", valkey_url))


def judge_settings(stage, daemon, publisher):
    """
    Settings that daemon and publisher must share. Addresses of Valkey may differ and still lead to the same
    server: whether wake-ups arrive decides that.
    """
    names = ["INSTANCE_TENANT_ID", "VALKEY_SENTINELS", "VALKEY_SENTINEL_MASTER"]
    if not setting(daemon, "VALKEY_SENTINELS"):
        names.append("VALKEY_URL")  # with sentinels its host does not count
    for name in names:
        theirs, ours = setting(daemon, name), setting(publisher, name)
        same = theirs == ours
        if name == "VALKEY_URL":
            same = servers_of(theirs) == servers_of(ours)
            theirs, ours = without_passwords(theirs), without_passwords(ours)
        if same:
            continue
        theirs, ours = plain(theirs) or "not set", plain(ours) or "not set"
        address = name in ("VALKEY_URL", "VALKEY_SENTINELS")
        return Finding(stage, WARNING if address else FAILED, f"{name} differs" + (
            "" if theirs == ours else f": {theirs} for the daemon, {ours} for the publisher"),
                       f"Set {name} to the same value in /etc/default/tpi-stream and in the environment of the "
                       "publisher" + (", unless both lead to the same Valkey." if address else
                                      ", and restart what you change."))
    theirs, ours = prefixes(daemon), prefixes(publisher)[0]
    if ours not in theirs:
        return Finding(stage, FAILED, "TPI_ISSUES_CHANNEL_PREFIX differs: the publisher uses "
                       f"{plain(ours)}, the daemon subscribes to {plain(', '.join(theirs))}",
                       f"Add {plain(ours)} to TPI_ISSUES_CHANNEL_PREFIX in /etc/default/tpi-stream, and restart "
                       "tpi-stream.service.")
    return Finding(stage, OK, "daemon and publisher have the same tenant, issue channels and Valkey")
