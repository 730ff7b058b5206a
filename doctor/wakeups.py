"""What became of the wake-ups that were published."""

import statistics
from dataclasses import dataclass, field

from .finding import FAILED, Finding, OK, SKIPPED, WARNING
from .proxies import buffer_remedy
from .response import Response
from .settings import LOG
from .untrusted import plain

TOGETHER = 0.02        # seconds within which arrivals are one lump


# How tpi-publish fails: status, words, remedy.
PUBLISH_ERRORS = (
    (69, "TLS: ", "VALKEY_TLS_CA, VALKEY_TLS_CERT, VALKEY_TLS_KEY, or the host in VALKEY_URL, of the "
                  "publisher (tpi-streamd(8))."),
    (69, "NOPERM", "The publisher's user of Valkey (not the daemon's) has no right to the channel: ACL SETUSER with "
                   "&notifications:tenant:TENANT:* &PREFIX:tenant:TENANT:* +role +publish "
                   "(tpi-stream(7))."),
    (69, "ROLE", "The user of Valkey needs +role (tpi-stream(7))."),
    (69, "VALKEY_SENTINEL", "VALKEY_SENTINELS, VALKEY_SENTINEL_MASTER or VALKEY_SENTINEL_PASSWORD of the "
                            "publisher."),
    (69, "password", "VALKEY_PASSWORD_FILE, or the user and password in VALKEY_URL, of the publisher."),
    (69, "replica", "Where sentinels watch over Valkey set VALKEY_SENTINELS, of daemon and publisher: they name "
                    "the primary, after a failover too. Without them VALKEY_URL has to name the primary."),
    (69, "", "Valkey does not run, or not where the publisher's VALKEY_URL, or VALKEY_SENTINELS where that "
             "is set, leads; --env-file /etc/default/tpi-stream uses the daemon's."),
    (78, "", "The setting that the line names is wrong, in the environment or in --env-file."),
    (64, "", "--as-user or --project is no valid id."),
    (None, "", "Install tpi-publish beside tpi-stream-doctor, or give --publish PATH."),
)


def judge_publish(stage, runs):
    bad = next((run for run in runs if run.status != 0), None)
    if bad is None:
        counts = sorted({run.subscribers for run in runs})
        return Finding(stage, OK, f"{len(runs)} x {plain(runs[0].channel)}, subscribers: "
                       + " or ".join(map(str, counts)))
    remedy = next(text for status, words, text in PUBLISH_ERRORS
                  if status in (None, bad.status) and words in bad.error)
    return Finding(stage, FAILED, f"tpi-publish: exit status {bad.status}: {plain(bad.error)}", remedy)


def lumps(times):
    """How many of these arrivals came together with the one before."""
    times = sorted(times)
    return sum(after - before <= TOGETHER for before, after in zip(times, times[1:]))


@dataclass
class Delivery:
    """The wake-ups of one stream."""
    kind: str
    runs: list
    response: Response
    probe: Response = None
    elsewhere: list = field(default_factory=list)   # (setting, theirs, ours): where it did arrive
    other_arrived: bool = None                      # on the other stream; None: not known
    cluster: bool = False                           # subscribers are those of the node that was asked

    def times(self):
        return [run.arrival(self.response) for run in self.runs]


NOBODY = "Compare what tpi-publish --dry-run prints with valkey-cli PUBSUB CHANNELS '*' and with " \
         "'[streamd] started' in the daemon's log, which names its tenant and its Valkey. In a Cluster " \
         "each node counts and lists its own subscribers alone: ask every node; 0 on one proves nothing."


def nobody_remedy(delivery):
    """Valkey counted no subscriber, or those of others."""
    for setting, theirs, ours in delivery.elsewhere:
        return (f"The daemon has {setting}={plain(theirs)}, the publisher {plain(ours)}: a wake-up with "
                "the daemon's arrived. Set them alike in /etc/default/tpi-stream and in the "
                "environment of what publishes, and restart it.")
    if delivery.other_arrived and delivery.kind == "notifications":
        return ("Issues arrive, so tenant and Valkey are the same: the stream belongs to another user "
                "than --as-user. It has to be the id, as tpi-streamd knows it: the name that the web "
                "server has verified, or user.id of the application.")
    if delivery.other_arrived:
        return ("Notifications arrive, so tenant and Valkey are the same: TPI_ISSUES_CHANNEL_PREFIX "
                "of daemon and publisher differ, and it is neither issues nor issue-updates. " + NOBODY)
    return ("Daemon and publisher differ in INSTANCE_TENANT_ID, or in VALKEY_URL: two Valkeys"
            + (", or the stream is of another user than --as-user. "
               if delivery.kind == "notifications" else
               ", or in TPI_ISSUES_CHANNEL_PREFIX. ") + NOBODY)


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
    if not times and not delivery.cluster and max(run.subscribers for run in runs) == 0:
        return Finding(stage, FAILED, f"{several} arrived: nobody listens to "
                       f"{plain(runs[0].channel)}", nobody_remedy(delivery))
    if not times:
        text = (f"{several} arrived, and subscribers of {plain(runs[0].channel)}: {runs[0].subscribers}"
                + (" on one node of the Cluster" if delivery.cluster else ""))
        if pings or delivery.elsewhere:
            return Finding(stage, FAILED, text + ", none of them this stream's daemon",
                           nobody_remedy(delivery))
        return Finding(stage, FAILED, text, buffer_remedy(response, delivery.probe) + " If a heartbeat "
                       "arrives in time (--seconds 35), it is no buffer: subscribers, if any, are "
                       "other daemons. " + NOBODY)
    if lumps(times):
        return Finding(stage, FAILED, f"{several} arrived, {lumps(times) + 1} or more of them together, "
                       f"up to {max(delays):.1f} s late: a buffer",
                       buffer_remedy(response, delivery.probe))
    if max(delays) > late:
        return Finding(stage, FAILED, f"{several} arrived, up to {max(delays):.1f} s late",
                       buffer_remedy(response, delivery.probe))
    if times != sorted(times):
        return Finding(stage, FAILED, f"{several} arrived, out of order",
                       "Something publishes or forwards them over several connections: publish those of "
                       "one channel over one.")
    if len(times) < len(runs):
        syncs = sum(event.is_sync for event in response.events)
        if syncs > 1:
            return Finding(stage, WARNING, f"{several} arrived, and a sync in place of the others",
                           "Valkey was lost and is back, or this reader was slow: see the daemon's log.")
        return Finding(stage, FAILED, f"{several} arrived",
                       f"See the daemon's log ({LOG}), and whether the stream ended in between.")
    return Finding(stage, OK, f"{several}, alone and in order, after "
                   f"{statistics.median(delays) * 1000:.0f} ms")
