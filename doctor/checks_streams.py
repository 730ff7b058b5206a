# SPDX-License-Identifier: ISC
"""Check the streams: open them, publish wake-ups, and watch what arrives."""

import os
import sys
import time

from .answers import judge_answer, judge_silence
from .application import judge_not_found, query_model, session_user
from .finding import Finding, OK, SKIPPED
from .procfs import environment_of
from .settings import DEFAULTS, heartbeat_of, is_cluster, prefixes
from .stream import judge_end, judge_headers, judge_heartbeat, judge_last_event_id, judge_sync
from .streams import STREAMS, THINGS
from .untrusted import plain
from .wakeups import Delivery, judge_prefixes, judge_publish, judge_wakeups

WAKEUPS = 5     # published on each stream; 2 with --quick
PAUSE = 0.2     # seconds between them: a buffer holds back those that then arrive together


def check_user(e):
    """Whom to publish to: --as-user, the name of --user, or the user of the application's session."""
    if e.whom["notifications"]:
        return
    user = session_user(e.site) if e.given == "cookie" else None
    if user:
        e.whom["notifications"] = user
        yield Finding("user", OK, f"{plain(user)}, by the application's session")
    else:
        yield Finding("user", SKIPPED, "unknown: no wake-up is published to this user (--as-user ID)")


def check_streams(e):
    """Opens all at the same time, and waits for their first sync."""
    for kind, probe in e.probes.items():
        # Where the probe failed the stream would fail in the same way.
        if probe.is_refused_method or probe.is_stream and not probe.is_deferred:
            e.exchanges[kind] = e.site.open_stream(e.target(kind))
    for exchange in e.exchanges.values():
        exchange.wait(lambda response: response.synced_at is not None, e.options.timeout)
    error = ""
    if any(e.response(kind).is_deferred for kind in e.exchanges) and e.publisher.path:
        kind = next((kind for kind in STREAMS if e.whom[kind]), None)
        if kind:
            error = e.publisher.publish(kind, e.whom[kind]).error
    for kind in e.exchanges:
        yield from judge_stream(e, kind, error)


def judge_stream(e, kind, publish_error):
    response = e.response(kind)
    other = next((e.response(name) for name in e.open_kinds() if name != kind), None)
    if response.status is None:
        yield judge_silence(f"{kind}: answer", response, e.probes[kind], None)
    elif not response.is_stream:
        yield judge_refusal(e, kind, response)
    else:
        yield judge_headers(f"{kind}: answer", response)
        yield judge_sync(f"{kind}: sync", response, e.options.late, e.settings, other, publish_error, e.probes[kind])


def judge_refusal(e, kind, response):
    """An answer that is not a stream. Why there is no such project, the application may know."""
    thing = THINGS.get(STREAMS[kind].model)
    if response.status == 404 and thing and response.daemon_error() in (f"no such {thing}", "nothing to watch") and \
            e.given == "cookie":
        page, script = query_model(e.site, kind, e.whom[kind])
        found = judge_not_found(f"{kind}: answer", kind, response, page, script,
                                e.settings if e.settings_known else None)
        if found:
            return found
    return judge_answer(f"{kind}: answer", response, e.site, e.given)


def check_publisher(e):
    """Publishes on each open stream in turn."""
    kinds = [kind for kind in e.open_kinds() if e.whom[kind]]
    if not e.publisher.path:
        yield Finding("tpi-publish", SKIPPED, "not found next to this program or in PATH (--publish PATH)")
        return
    for turn in range(2 if e.options.quick else WAKEUPS):
        if turn > 0:
            # Whether the last one has arrived or not: waiting for it would hide a buffer.
            time.sleep(PAUSE)
        for kind in kinds:
            run = e.publisher.publish(kind, e.whom[kind])
            e.runs.setdefault(kind, []).append(run)
        # What fails once fails again. 0 subscribers are no failure: a node of a Cluster counts only its own.
        kinds = [kind for kind in kinds if e.runs[kind][-1].status == 0]
        if not kinds:
            break
    for kind, runs in e.runs.items():
        e.exchanges[kind].wait(runs[-1].arrival, e.options.late if runs[-1].status == 0 else 0)
    if not e.open_kinds():
        # Valkey may be the cause: whether the publisher reaches it shows that.
        kind = next((kind for kind in STREAMS if e.whom[kind]), None)
        if kind:
            yield judge_publish("tpi-publish", [e.publisher.publish(kind, e.whom[kind])], e.settings)
    for kind, runs in e.runs.items():
        yield judge_publish(f"{kind}: tpi-publish", runs, e.settings)


def arrives(e, kind, **named):
    """Whether a further wake-up does: True, False, or None where it cannot be published."""
    run = e.publisher.publish(kind, e.whom[kind], **named)
    if run.status != 0:
        return None
    return run.arrival(e.exchanges[kind].wait(run.arrival, e.options.late)) is not None


def elsewhere(e, kind):
    """
    The wake-up did not arrive: would it with another tenant or prefix? The doctor tries the defaults, and
    what is known of the daemon.
    """
    daemon = (environment_of(e.daemon) if e.daemon else None) or {}
    attempts = []
    if kind == "issues":
        ours = e.publisher.prefix
        attempts += [("TPI_ISSUES_CHANNEL_PREFIX", prefix, ours, {"prefix": prefix})
                     for prefix in dict.fromkeys(prefixes(daemon) + prefixes({})) if prefix != ours]
    ours = e.publisher.tenant
    attempts += [("INSTANCE_TENANT_ID", tenant, ours, {"tenant": tenant}) for tenant in
                 dict.fromkeys((DEFAULTS["INSTANCE_TENANT_ID"], os.environ.get("INSTANCE_TENANT_ID"),
                                daemon.get("INSTANCE_TENANT_ID")))
                 if tenant and tenant != ours]
    for name, theirs, ours, named in attempts:
        if arrives(e, kind, **named):
            return [(name, theirs, ours)]
    return []


def check_prefixes(e):
    """Whether issues arrive with each prefix that the daemon should subscribe to, not only the publisher's."""
    runs = e.runs.get("issues")
    if not runs or not any(run.arrival(e.response("issues")) for run in runs):
        return
    first = e.publisher.prefix
    expected = prefixes(e.settings) if e.settings_known else []
    if not e.publisher.environment.get("TPI_ISSUES_CHANNEL_PREFIX"):
        # Nobody has told what the application uses.
        expected = expected + prefixes({})
    found = {prefix: arrives(e, "issues", prefix=prefix) for prefix in dict.fromkeys(expected) if prefix != first}
    if None in found.values():
        refused = ", ".join(prefix for prefix, result in found.items() if result is None)
        yield Finding("issues: prefixes", SKIPPED, f"cannot publish with {plain(refused)}")
    elif found:
        yield judge_prefixes("issues: prefixes", [prefix for prefix in found if found[prefix]],
                             [prefix for prefix in found if not found[prefix]], first)


def check_watch(e):
    """Keeps the streams open, and judges what arrived."""
    if not e.open_kinds():
        return
    opened = min(e.response(kind).opened for kind in e.open_kinds())
    deadline = opened + e.options.seconds
    lost = {kind: not any(run.arrival(e.response(kind)) for run in runs) and
            any(run.status == 0 for run in runs) for kind, runs in e.runs.items()}
    found = {kind: elsewhere(e, kind) if missing else [] for kind, missing in lost.items()}
    if not e.options.json and sys.stderr.isatty() and deadline - time.monotonic() > 2:
        print(f"(watching for {e.options.seconds:g} s)", file=sys.stderr)
    for kind in e.open_kinds():
        e.exchanges[kind].wait(lambda response: False, deadline - time.monotonic())
    e.watched_until = time.monotonic()
    for kind in e.open_kinds():
        response, runs = e.response(kind), e.runs.get(kind, [])
        if runs:
            others = [missing for name, missing in lost.items() if name != kind]
            yield judge_wakeups(f"{kind}: wake-ups", Delivery(
                kind, runs, response, e.probes[kind], found[kind],
                not all(others) if others else None, is_cluster(e.publisher.environment)),
                                e.options.late)
        else:
            yield Finding(f"{kind}: wake-ups", SKIPPED, "nothing was published")
        yield judge_heartbeat(f"{kind}: heartbeat", response, e.watched_until, heartbeat_of(e.settings))
        yield judge_end(f"{kind}: open", response, e.watched_until, e.settings)


def check_last_event_id(e):
    """Last of all: where the header is lost and the cap is 1, this stream evicts that of the doctor."""
    kinds = e.open_kinds()
    for exchange in e.exchanges.values():
        exchange.close()
    if kinds:
        yield judge_last_event_id("Last-Event-ID", e.site.get(e.target(kinds[0]), "Last-Event-ID: evicted"))
