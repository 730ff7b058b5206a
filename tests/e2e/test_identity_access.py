# SPDX-License-Identifier: ISC
"""Authorization under web-server identity: which user gets which projects."""

import os

import pytest

from answers import after_first, check_answer, check_first, frame, issue, notification
from servers import project_channel, user_channel
from timing import eventually


@pytest.fixture(scope="module")
def daemon(module_streamd):
    return module_streamd(SSE_PER_USER_CAP=10000)


def check_user(daemon, valkey, user, **changes):
    """Checks that the stream belongs to user: it gets that user's wake-ups."""
    with daemon.stream(**changes) as peer:
        check_first(peer)
        assert valkey.publish(user_channel(user), notification("user")) == 1
        peer.wait_data(notification("user"))


LONGEST = "a" * 255
USERS = {  # TPI_USER, REMOTE_USER, AUTH_TYPE, expected user or status
    "TPI_USER": ("ann", None, None, "ann"),
    "TPI_USER and REMOTE_USER": ("ann", "bob", "Basic", "ann"),
    "TPI_USER and a forged REMOTE_USER": ("ann", "bob", None, "ann"),
    "REMOTE_USER and AUTH_TYPE": (None, "bob", "Basic", 401),
    "REMOTE_USER alone": (None, "bob", None, 401),
    "empty AUTH_TYPE": (None, "bob", "", 401),
    "empty REMOTE_USER": (None, "", "Basic", 401),
    "AUTH_TYPE alone": (None, None, "Basic", 401),
    "none": (None, None, None, 401),
    "empty TPI_USER": ("", "bob", "Basic", 401),
    "empty twice": (["", ""], "bob", "Basic", 401),
    "empty and another": (["", "ann"], None, None, 400),
    "another and empty": (["ann", ""], None, None, 400),
    "two users": (["ann", "bob"], None, None, 400),
    "twice the same": (["ann", "ann"], ["x", "y"], ["x", "y"], "ann"),
    "longest": (LONGEST, None, None, LONGEST),
    "too long": ("a" * 256, None, None, 400),
    "every good character": ("!#$%&'()+,-./09;<=>@AZ^_`az{|}~", None, None, "!#$%&'()+,-./09;<=>@AZ^_`az{|}~"),
    "format directives": ("%s%n%d", None, None, "%s%n%d"),
    "a path": ("../../etc/passwd", None, None, "../../etc/passwd"),
    **{f"with {bad!r}": (f"a{bad}b", None, None, 400)
       for bad in (" ", ":", "*", "?", "[", "]", "\\", '"', "\0", "\n", "\r", "\t", "\x1b", "\x7f",
                   "\x80", "\xe4", "\xff")},
    "invalid REMOTE_USER": (None, "a:b", "Basic", 401),
    "trailing NUL": ("ann\0", None, None, 400),
    "glob alone": ("*", None, None, 400),
}


@pytest.mark.parametrize("tpi_user, remote_user, auth_type, expected", USERS.values(), ids=USERS)
def test_identity(daemon, valkey, tpi_user, remote_user, auth_type, expected):
    """TPI_USER alone names the user."""
    changes = {"TPI_USER": tpi_user, "REMOTE_USER": remote_user, "AUTH_TYPE": auth_type}
    if isinstance(expected, str):
        check_user(daemon, valkey, expected, **changes)
    else:
        check_answer(daemon.ask(**changes), expected)


@pytest.mark.parametrize("name", ["HTTP_TPI_USER", "HTTP_REMOTE_USER", "HTTP_X_TPI_USER", "HTTP_X_USER",
                                  "HTTP_AUTHORIZATION", "tpi_user", "TPI_USER ", "TPI-USER",
                                  "REDIRECT_TPI_USER", "REDIRECT_REMOTE_USER"])
def test_no_other_parameter_is_an_identity(daemon, name):
    """No other parameter gives an anonymous request an identity, even with AUTH_TYPE."""
    check_answer(daemon.ask(TPI_USER=None, AUTH_TYPE="Basic", **{name: "ann"}), 401)


def test_header_does_not_override(daemon, valkey):
    """A header that looks like an identity does not change the user whom the web server has authenticated."""
    check_user(daemon, valkey, "ann", TPI_USER="ann", HTTP_TPI_USER="bob", HTTP_AUTH_TYPE="Basic")


ANONYMOUS = {  # parameters, whether the log mentions REMOTE_USER
    "nothing": ({}, False), "empty": ({"TPI_USER": ""}, False),
    "REMOTE_USER": ({"REMOTE_USER": "bob"}, True),
    "REMOTE_USER and AUTH_TYPE": ({"REMOTE_USER": "bob", "AUTH_TYPE": "Basic"}, True),
    "empty, REMOTE_USER": ({"TPI_USER": "", "REMOTE_USER": "bob"}, True),
    "empty REMOTE_USER": ({"REMOTE_USER": "", "AUTH_TYPE": ""}, False),
}


@pytest.mark.parametrize("params, mentioned", ANONYMOUS.values(), ids=ANONYMOUS)
def test_anonymous_is_explained_once(streamd, params, mentioned):
    """The log says once per process what to configure, and mentions a REMOTE_USER that was ignored."""
    daemon = streamd()
    for _ in range(3):
        check_answer(daemon.ask(**{"TPI_USER": None, **params}), 401)
    daemon.stop()
    [line] = daemon.matching("TPI_USER is not set: ")
    assert ("REMOTE_USER" in line) == mentioned


def test_each_cause_is_explained(streamd):
    """A request without any identity, as of a monitor, does not suppress the line about REMOTE_USER."""
    daemon = streamd()
    for params in {}, {"REMOTE_USER": "bob"}, {}, {"REMOTE_USER": "bob"}:
        check_answer(daemon.ask(TPI_USER=None, **params), 401)
    daemon.stop()
    first, second = daemon.matching("TPI_USER is not set: ")
    assert "REMOTE_USER" not in first and "REMOTE_USER" in second


# Project access

def test_deny_is_the_default(daemon):
    """Without TPI_PROJECT_ACCESS no user has access to any project, and the daemon logs that at start."""
    daemon.wait_for_log("TPI_PROJECT_ACCESS")
    check_answer(daemon.ask(projects="7"), 404)
    with daemon.stream():  # notifications need no access to projects
        pass


def test_allow(streamd, valkey):
    """With allow, an authenticated user has access to every project."""
    daemon = streamd(TPI_PROJECT_ACCESS="allow")
    with daemon.stream(projects="7,8") as peer:
        check_first(peer)
        for project in 7, 8:
            valkey.publish(project_channel(project), issue(1, project))
            peer.wait_data(issue(1, project))


RULES = """\
# project  users
7 ann bob   # the team
8 ann
* root
9 *
  10\tann\tbob

11 a#b
"""
ACCESS = {  # user, requested projects, accessible projects
    "one": ("ann", "7", [7]),
    "several": ("ann", "7,8", [7, 8]),
    "inaccessible ones are dropped": ("bob", "7,8", [7]),
    "order and repetition": ("ann", "8,7,8", [7, 8]),
    "any project": ("root", "1,7,2147483647", [1, 7, 2147483647]),
    "any user": ("stranger", "9", [9]),
    "tabs and spaces": ("bob", "10", [10]),
    "none": ("stranger", "7", []),
    "none of several": ("bob", "8,12", []),
    "a prefix of a user": ("an", "7", []),
    "a longer user": ("annn", "7", []),
    "a comment starts inside a word": ("a", "11", [11]),
    "a comment ends a word": ("team", "7", []),
}


@pytest.fixture(scope="module")
def file_daemon(module_streamd, module_rundir):
    path = os.path.join(module_rundir, "rules")
    with open(path, "w", encoding="ascii") as file:
        file.write(RULES)
    return module_streamd(TPI_PROJECT_ACCESS=f"file:{path}", SSE_ISSUES_PER_USER_CAP=10000)


@pytest.mark.parametrize("user, projects, expected", ACCESS.values(), ids=ACCESS)
def test_access_file(file_daemon, valkey, user, projects, expected):
    """A stream carries exactly those of its projects that the access file grants to the user."""
    if not expected:
        check_answer(file_daemon.ask(user, projects=projects), 404)
        return
    with file_daemon.stream(user, projects=projects) as peer:
        requested = sorted({int(project) for project in projects.split(",")})
        assert all(valkey.subscribers(project_channel(p)) for p in expected)
        for project in requested:
            valkey.publish(project_channel(project), issue(1, project))
        # Valkey keeps the order: once the end has arrived, so has every wake-up that was sent.
        end = issue(2, expected[0])
        valkey.publish(project_channel(expected[0]), end)
        peer.wait_data(end)
        assert after_first(peer) == b"".join(frame(issue(1, p)) for p in expected) + frame(end)


def write(path, text):
    """Replaces the file atomically."""
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(text)
    os.rename(path + ".new", path)


def has_access(daemon, user, project):
    with daemon.open(user, projects=project) as peer:
        peer.wait(lambda p: p.status)
        return peer.status == 200


def test_access_file_is_reloaded(streamd, rundir):
    """A changed access file takes effect without a restart; one that is invalid or missing is logged, with the
    line's number, and the previous rules stay in effect."""
    path = os.path.join(rundir, "rules")
    write(path, "7 ann\n")
    daemon = streamd(TPI_PROJECT_ACCESS=f"file:{path}", SSE_ISSUES_PER_USER_CAP=10000)
    assert has_access(daemon, "ann", "7") and not has_access(daemon, "bob", "7")
    write(path, "7 bob\n")
    eventually(lambda: has_access(daemon, "bob", "7"), what="the new rule")
    assert not has_access(daemon, "ann", "7")

    mark = daemon.mark()
    write(path, "7 ann\n# fine\nseven ann\n")
    eventually(lambda: has_access(daemon, "bob", "7") and daemon.matching("rules.*3", start=mark),
               what="a warning that names line 3")
    assert not has_access(daemon, "ann", "7")

    mark = daemon.mark()
    os.unlink(path)
    eventually(lambda: has_access(daemon, "bob", "7") and daemon.matching("rules", start=mark),
               what="a warning that the file is gone")

    write(path, "7 ann\n")
    eventually(lambda: has_access(daemon, "ann", "7"), what="the valid rules")
    assert not has_access(daemon, "bob", "7")
    assert len(daemon.matching("rules", start=mark)) < 4, "a warning for each request"


def test_access_file_changed_in_place(streamd, rundir):
    """An access file that is rewritten in place with the same length is reloaded, too."""
    path = os.path.join(rundir, "rules")
    write(path, "7 ann\n")
    daemon = streamd(TPI_PROJECT_ACCESS=f"file:{path}", SSE_ISSUES_PER_USER_CAP=10000)
    assert has_access(daemon, "ann", "7")
    with open(path, "w", encoding="ascii") as file:
        file.write("7 bob\n")
    eventually(lambda: has_access(daemon, "bob", "7"), what="the new rule")
