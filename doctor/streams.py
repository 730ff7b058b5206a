# SPDX-License-Identifier: ISC
"""The streams that the doctor checks. Another stream is another row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stream:
    """{id} stands for what the stream is about, {marker} for what tells a wake-up of the doctor from all others."""
    target: str
    option: str         # names what it is about
    publish: tuple      # the arguments of tpi-publish
    channel: str = ""   # the end of its channel: a wake-up may go to several
    model: str = ""     # what the application is asked for
    present: bool = False   # only if it is not deleted

    def target_of(self, whom):
        return self.target.format(id=whom)


STREAMS = {
    "notifications": Stream("/api/notifications/stream", "as_user",
                            ("notification", "--user", "{id}", "--id", "{marker}")),
    "issues": Stream("/api/issues/stream?projectId={id}", "project",
                     ("issue", "--project", "{id}", "--issue", "{marker}"), model="projects"),
    "test-run": Stream("/api/test-runs/{id}/stream", "test_run",
                       ("test-run", "--project", "{marker}", "--run", "{id}", "--target", "{marker}"),
                       ":testrun:{id}", "testRuns", True),
    "project-test-runs": Stream("/api/projects/{id}/test-runs/stream", "project",
                                ("test-run", "--project", "{id}", "--run", "{marker}"), ":testruns", "projects", True),
    "milestone": Stream("/api/milestones/{id}/stream", "milestone",
                        ("milestone", "--project", "{marker}", "--milestone", "{id}", "--target", "{marker}"),
                        ":milestone:{id}", "milestones", True),
    "project-milestones": Stream("/api/projects/{id}/milestones/stream", "project",
                                 ("milestone", "--project", "{id}", "--milestone", "{marker}"), ":milestones",
                                 "projects", True),
    "combined": Stream("/api/stream?projectTestRuns={id}", "project",
                       ("test-run", "--project", "{id}", "--run", "{marker}"), ":testruns", "projects", True),
}
# What the application calls them in a query, as a person does.
THINGS = {"projects": "project", "testRuns": "test run", "milestones": "milestone"}


def option_of(kind):
    return "--" + STREAMS[kind].option.replace("_", "-")
