# SPDX-License-Identifier: ISC
"""The paths of the streams, by the daemon's table of topics, and paths that only resemble them.

Every web server, Ingress and check routes ROUTED, and nothing else. A row in src/session/topic.c adds its path to it.
"""

import os
import re

from servers import ROOT


def _table():
    """The path of each row and of the combined stream, with the id 7 where it has one."""
    with open(os.path.join(ROOT, "src", "session", "topic.c"), encoding="ascii") as file:
        found = re.findall(r'^\s*\.path = "(.*?)",(?: \.suffix = "(.*?)",)?$', file.read(), re.M)
    return [path + ("7" + suffix if suffix else "") for path, suffix in found]


SERVED = _table()
ROUTED = sorted({"/api/notifications/stream", "/api/issues/stream", "/api/test-runs/7/stream",
                 "/api/projects/7/test-runs/stream", "/api/milestones/7/stream", "/api/projects/7/milestones/stream",
                 "/api/stream", *SERVED})

# Paths of the application, or of nothing.
LOOKALIKES = [
    "/", "/api", "/stream", "/api/streams", "/api/streams/health", "/api/stream/", "/api/stream/x", "/api/stream.json",
    "/api/streams/stream", "/api/x/stream", "/x/api/stream", "/xapi/stream",
    "/api/notifications", "/api/notifications/", "/api/notifications/7/stream", "/api/notifications/stream/",
    "/api/issues/7/stream", "/api/issues/streams", "/api/issues/7", "/api/issues/stream/x",
    "/api/test-runs", "/api/test-runs/7", "/api/test-runs/stream", "/api/test-runs/7/streams", "/api/test-runs/7/stream/",
    "/api/test-runs/7/stream/x", "/api/test-runs/7x/stream", "/api/test-runs/x7/stream", "/api/test-runs/x/stream",
    "/api/test-runs/-7/stream", "/api/test-runs/+7/stream", "/api/test-runs/7.0/stream", "/api/test-runs/7;x/stream",
    "/api/test-runs/7/8/stream", "/api/test-runs/7/xstream", "/api/test-runs7/stream", "/api/test-run/7/stream",
    "/api/test-runs/7/results/stream", "/x/api/test-runs/7/stream", "/en/api/milestones/7/stream",
    "/api/milestones", "/api/milestones/7", "/api/milestones/stream", "/api/milestones/7/test-runs/stream",
    "/api/milestones/7/stream/", "/api/milestones/7/stream/x",
    "/api/projects/7", "/api/projects/7/stream", "/api/projects/7/test-runs", "/api/projects/7/test-runs/",
    "/api/projects/7/test-runs/stream/", "/api/projects/7/test-runs/stream/x", "/api/projects/7/test-runs/8/stream",
    "/api/projects/7/test-runs/streams", "/api/projects/test-runs/stream", "/api/projects/x/test-runs/stream",
    "/api/projects/7x/milestones/stream", "/api/projects/7/milestones", "/api/projects/7/issues/stream",
    "/api/projects/7/8/milestones/stream", "/api/projects/milestones/stream",
]
# A server that ignores case routes these to the daemon's web server, which answers 404.
OTHER_CASE = ["/API/stream", "/api/Issues/stream", "/api/test-runs/7/Stream", "/api/Projects/7/test-runs/stream"]
