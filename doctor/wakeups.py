# SPDX-License-Identifier: ISC
"""Judge which wake-ups arrived, and when."""

import statistics
from dataclasses import dataclass, field

from .finding import FAILED, Finding, OK, SKIPPED, WARNING
from .proxies import buffer_remedy
from .response import Response
from .settings import LOG, acl_channels
from .untrusted import plain

TOGETHER = 0.02     # seconds: arrivals that are closer than this came together

# How tpi-publish fails: exit status, words, remedy. The first row that fits counts.
PUBLISH_ERRORS = (
    (69, "TLS: ", "Correct VALKEY_TLS_CA, VALKEY_TLS_CERT, VALKEY_TLS_KEY, or the host in VALKEY_URL, of the "
                  "publisher (tpi-streamd(8))."),
    (69, "NOPERM", "Give the publisher's user of Valkey (not the daemon's) the right to the channel: ACL SETUSER "
                   "with {acl} +role +publish (tpi-stream(7))."),
    (69, "VALKEY_SENTINEL", "Correct VALKEY_SENTINELS, VALKEY_SENTINEL_MASTER or VALKEY_SENTINEL_PASSWORD of the "
                            "publisher."),
    (69, "password", "Correct VALKEY_PASSWORD_FILE, or the user and password in VALKEY_URL, of the publisher."),
    (69, "replica", "Set VALKEY_SENTINELS for daemon and publisher if sentinels watch Valkey: they name the "
                    "primary, also after a failover. Otherwise make VALKEY_URL name the primary."),
    (69, "", "Start Valkey, or correct the publisher's VALKEY_URL (VALKEY_SENTINELS, where it is set); --env-file "
             "/etc/default/tpi-stream uses the daemon's."),
    (78, "", "Correct the setting that the line names, in the environment or in --env-file."),
    (64, "", "Give a valid id to --as-user or --project."),
    (None, "", "Install tpi-publish next to tpi-stream-doctor, or give --publish PATH."),
)


def publish_remedy(run, settings):
    text = next(text for status, words, text in PUBLISH_ERRORS
                if status in (None, run.status) and words in run.error)
    return text.format(acl=acl_channels(settings))


def judge_publish(stage, runs, settings):
    bad = next((run for run in runs if run.status != 0), None)
    if bad is None:
        counts = sorted({run.subscribers for run in runs})
        text = f"{len(runs)} x {plain(runs[0].channel)}, subscribers: " + " or ".join(map(str, counts))
        if "cannot verify" in runs[0].error:
            return Finding(stage, WARNING, f"{text}; {plain(runs[0].error)}",
                           "Give the user of Valkey the permission that the line names (tpi-stream(7)). A managed "
                           "service or proxy without the command works, but nothing notices when VALKEY_URL names a "
                           "replica.")
        return Finding(stage, OK, text)
    return Finding(stage, FAILED, f"exit status {bad.status}: {plain(bad.error)}", publish_remedy(bad, settings))


def lumps(times):
    """How many of these arrivals came together with the previous one."""
    times = sorted(times)
    return sum(after - before <= TOGETHER for before, after in zip(times, times[1:]))


@dataclass
class Delivery:
    """The wake-ups of one stream."""
    kind: str
    runs: list
    response: Response
    probe: Response = None
    elsewhere: list = field(default_factory=list)   # (setting, theirs, ours) with which one arrived
    other_arrived: bool = None                      # on another stream; None: not known
    cluster: bool = False                           # the node counts its own subscribers only

    def times(self):
        return [run.arrival(self.response) for run in self.runs]


COMPARE = (
    "Compare what tpi-publish --dry-run prints with valkey-cli PUBSUB CHANNELS '*' and with '[streamd] started' in "
    "the daemon's log, which names its tenant and its Valkey. In a Cluster each node counts and lists only its own "
    "subscribers: ask every node; 0 on one node proves nothing.")


def unsubscribed_remedy(delivery):
    """Valkey counted no subscriber, or other subscribers than this stream's daemon."""
    for name, theirs, ours in delivery.elsewhere:
        return (f"Set {name} to the same value in /etc/default/tpi-stream and in the environment of the publisher, "
                f"and restart what you change: a wake-up with {plain(theirs)} arrived, the publisher uses "
                f"{plain(ours)}.")
    if delivery.other_arrived and delivery.kind == "notifications":
        return ("Give the stream's user with --as-user. Other wake-ups arrive, so tenant and Valkey are the same: the "
                "stream belongs to another user. It must be the id as tpi-streamd knows it: the name that the web "
                "server verified, or user.id of the application.")
    if delivery.other_arrived and delivery.kind == "issues":
        return ("Set TPI_ISSUES_CHANNEL_PREFIX alike for daemon and publisher. Other wake-ups arrive, so tenant and "
                "Valkey are the same, and the prefix of the daemon is neither issues nor issue-updates. " + COMPARE)
    if delivery.other_arrived:
        return "Other wake-ups arrive, so tenant and Valkey are the same. " + COMPARE
    return ("Set INSTANCE_TENANT_ID and VALKEY_URL alike for daemon and publisher: they may use two Valkeys"
            + {"notifications": ", or the stream belongs to another user than --as-user. ",
               "issues": ", or differ in TPI_ISSUES_CHANNEL_PREFIX. "}.get(delivery.kind, ". ") + COMPARE)


def judge_wakeups(stage, delivery, late):
    runs = [run for run in delivery.runs if run.status == 0]
    response = delivery.response
    if not runs:
        return Finding(stage, SKIPPED, "nothing could be published")
    pairs = [(run, run.arrival(response)) for run in runs]
    times = [at for _, at in pairs if at is not None]
    delays = [at - run.at for run, at in pairs if at is not None]
    several = f"{len(times)} of {len(runs)}"
    pings = [event for event in response.events if event.comment]
    channel = plain(runs[0].channel)
    if not times and not delivery.cluster and max(run.subscribers for run in runs) == 0:
        return Finding(stage, FAILED, f"{several} arrived: {channel} has no subscriber", unsubscribed_remedy(delivery))
    if not times:
        text = (f"{several} arrived; subscribers of {channel}: {runs[0].subscribers}"
                + (" on one node of the Cluster" if delivery.cluster else ""))
        if pings or delivery.elsewhere:
            return Finding(stage, FAILED, text + ", but not this stream's daemon", unsubscribed_remedy(delivery))
        return Finding(stage, FAILED, text, buffer_remedy(response, delivery.probe) + " If a heartbeat "
                       "arrives in time (--seconds 35), there is no buffer: the subscribers, if any, are other "
                       "daemons. " + COMPARE)
    if lumps(times):
        return Finding(stage, FAILED, f"{several} arrived, {lumps(times) + 1} or more of them together, "
                       f"up to {max(delays):.1f} s late: a buffer holds them back",
                       buffer_remedy(response, delivery.probe))
    if max(delays) > late:
        return Finding(stage, FAILED, f"{several} arrived, up to {max(delays):.1f} s late",
                       buffer_remedy(response, delivery.probe))
    if times != sorted(times):
        return Finding(stage, FAILED, f"{several} arrived, out of order",
                       "Publish the wake-ups of one channel over one connection: something publishes or forwards "
                       "them over several.")
    if len(times) < len(runs):
        if sum(event.is_sync for event in response.events) > 1:
            return Finding(stage, WARNING, f"{several} arrived, and a sync instead of the others",
                           "Read the daemon's log: it lost and regained Valkey, or this reader was too slow.")
        return Finding(stage, FAILED, f"{several} arrived",
                       f"Read the daemon's log ({LOG}), and check whether the stream ended meanwhile.")
    return Finding(stage, OK, f"{several}, alone and in order, after "
                   f"{statistics.median(delays) * 1000:.0f} ms")


def judge_prefixes(stage, arrived, missing, first):
    """
    The prefixes of the issue channels that TestPlanIt's versions use, and those that the daemon's settings name.
    arrived and missing: one wake-up was published with each, after those with first, the publisher's own.
    """
    if not missing:
        return Finding(stage, OK, "wake-ups arrive with " + plain(", ".join([first, *arrived])))
    lost = plain(", ".join(missing))
    return Finding(stage, WARNING, f"the daemon does not subscribe to {lost}: a wake-up did not arrive",
                   f"Set TPI_ISSUES_CHANNEL_PREFIX={plain(','.join([first, *arrived, *missing]))} in "
                   "/etc/default/tpi-stream, and restart tpi-stream.service: TestPlanIt publishes with "
                   "issue-updates (released versions) or issues (its documentation). If the application uses only "
                   f"{plain(first)}, set TPI_ISSUES_CHANNEL_PREFIX in the environment of tpi-stream-doctor as well.")
