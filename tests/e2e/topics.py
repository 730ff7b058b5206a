# SPDX-License-Identifier: ISC
"""The topics of tpi-stream(7), STREAMS, for tests of what holds for all of them."""

from dataclasses import dataclass

import fcgi
from servers import broadcast_channel, project_channel, user_channel


@dataclass(frozen=True)
class Topic:
    """path and query are those of the stream of one id; {id} stands for it."""

    name: str          # the label on a combined stream
    path: str
    tag: str           # of log lines
    group: str         # its streams share their caps with those of the other topics of the group
    channels: tuple    # {tenant}, {user} and {id} stand for these
    payload: str       # of a wake-up; %d stands for a number
    publish: tuple     # the arguments of tpi-publish for a wake-up; {user} and {id} stand for these
    query: str = ""
    model: str = None  # what the application is asked about; None: the user alone
    present: bool = False  # whether deleted ones do not count
    key: str = None    # of the ids in log lines

    def target(self, id=7):
        """The path and query of a request."""
        return self.path.format(id=id) + (f"?{self.query.format(id=id)}" if self.query else "")

    def params(self, id=7, **named):
        """The arguments of fcgi.params() for a request."""
        return {"SCRIPT_NAME": self.path.format(id=id), "QUERY_STRING": self.query.format(id=id), **named}

    def command(self, id=7, user="u1"):
        """The arguments of tpi-publish that reach the stream of this id."""
        return [argument.format(id=id, user=user) for argument in self.publish]

    def channel(self, id=7, user="u1", tenant="default"):
        return self.channels[0].format(id=id, user=user, tenant=tenant)

    def all_channels(self, id=7, user="u1", tenant="default"):
        return [channel.format(id=id, user=user, tenant=tenant) for channel in self.channels]


def same(function, *args):
    """The name of a channel of servers.py, as a template."""
    return function(*args, tenant="{tenant}")


RUN = '{"event":"test_run.state_changed","runId":%d,"projectId":7}'
MILESTONE = '{"event":"milestone.updated","milestoneId":%d,"projectId":7}'

TOPICS = [
    Topic("notifications", fcgi.NOTIFICATIONS, "sse/notifications", "notifications",
          (same(user_channel, "{user}"), same(broadcast_channel)), '{"id":"%d","event":"notification"}',
          ("notification", "--user", "{user}")),
    Topic("issues", fcgi.ISSUES, "sse/issues", "issues",
          tuple(project_channel("{id}", "{tenant}", prefix) for prefix in ("issues", "issue-updates")),
          '{"event":"issue-updated","issueId":%d,"projectId":7}', ("issue", "--project", "{id}", "--issue", "1"),
          "projectId={id}", "projects", False, "projectIds"),
    Topic("testRuns", "/api/test-runs/{id}/stream", "sse/test-run", "live",
          ("live:tenant:{tenant}:testrun:{id}",), RUN,
          ("test-run", "--project", "1", "--run", "{id}"), "", "testRuns", True, "testRunIds"),
    Topic("projectTestRuns", "/api/projects/{id}/test-runs/stream", "sse/project-test-runs", "live",
          ("live:tenant:{tenant}:project:{id}:testruns",), RUN,
          ("test-run", "--project", "{id}", "--run", "1"), "", "projects", True, "projectIds"),
    Topic("milestones", "/api/milestones/{id}/stream", "sse/milestone", "live",
          ("live:tenant:{tenant}:milestone:{id}",), MILESTONE, ("milestone", "--project", "1", "--milestone", "{id}"),
          "", "milestones", True, "milestoneIds"),
    Topic("projectMilestones", "/api/projects/{id}/milestones/stream", "sse/project-milestones", "live",
          ("live:tenant:{tenant}:project:{id}:milestones",), MILESTONE,
          ("milestone", "--project", "{id}", "--milestone", "1"), "", "projects", True, "projectIds"),
]
BY_NAME = {topic.name: topic for topic in TOPICS}
LIVE = [topic for topic in TOPICS if topic.group == "live"]
RESTRICTED = [topic for topic in TOPICS if topic.model]  # those that need more than a known user
