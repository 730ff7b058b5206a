"""Authorization under web-server identity: which user gets which projects."""

import os

import pytest

from answers import after_first, check_answer, check_first, frame, issue, notification
from servers import project_channel, user_channel
from timing import eventually


@pytest.fixture(scope="module")
def daemon(module_streamd):
    return module_streamd(SSE_PER_USER_CAP=10000)


def who(daemon, valkey, user, **changes):
    """Proves that the stream belongs to user: a wake-up of that user reaches it."""
    with daemon.stream(**changes) as peer:
        check_first(peer)
        assert valkey.publish(user_channel(user), notification("who")) == 1
        peer.wait_data(notification("who"))


LONGEST = "a" * 255
USERS = {  # TPI_USER, REMOTE_USER, AUTH_TYPE: the user, or the status
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
    "NUL behind": ("ann\0", None, None, 400),
    "glob alone": ("*", None, None, 400),
}


@pytest.mark.parametrize("tpi_user, remote_user, auth_type, expected", USERS.values(), ids=USERS)
def test_identity(daemon, valkey, tpi_user, remote_user, auth_type, expected):
    """TPI_USER alone names the user."""
    changes = {"TPI_USER": tpi_user, "REMOTE_USER": remote_user, "AUTH_TYPE": auth_type}
    if isinstance(expected, str):
        who(daemon, valkey, expected, **changes)
    else:
        check_answer(daemon.ask(**changes), expected)


@pytest.mark.parametrize("name", ["HTTP_TPI_USER", "HTTP_REMOTE_USER", "HTTP_X_TPI_USER", "HTTP_X_USER",
                                  "HTTP_AUTHORIZATION", "tpi_user", "TPI_USER ", "TPI-USER",
                                  "REDIRECT_TPI_USER", "REDIRECT_REMOTE_USER"])
def test_no_other_parameter_is_an_identity(daemon, name):
    """No other parameter gives an anonymous request an identity, even with AUTH_TYPE."""
    check_answer(daemon.ask(TPI_USER=None, AUTH_TYPE="Basic", **{name: "ann"}), 401)


def test_header_does_not_override(daemon, valkey):
    """A header that looks like an identity changes nothing for whom the web server has verified."""
    who(daemon, valkey, "ann", TPI_USER="ann", HTTP_TPI_USER="bob", HTTP_AUTH_TYPE="Basic")


ANONYMOUS = {  # parameters: must the log mention REMOTE_USER?
    "nothing": ({}, False), "empty": ({"TPI_USER": ""}, False),
    "REMOTE_USER": ({"REMOTE_USER": "bob"}, True),
    "REMOTE_USER and AUTH_TYPE": ({"REMOTE_USER": "bob", "AUTH_TYPE": "Basic"}, True),
    "empty, REMOTE_USER": ({"TPI_USER": "", "REMOTE_USER": "bob"}, True),
    "empty REMOTE_USER": ({"REMOTE_USER": "", "AUTH_TYPE": ""}, False),
}


@pytest.mark.parametrize("params, mentioned", ANONYMOUS.values(), ids=ANONYMOUS)
def test_anonymous_is_explained_once(streamd, params, mentioned):
    """The log says once per process what to configure, and whether a REMOTE_USER was not accepted."""
    daemon = streamd()
    for _ in range(3):
        check_answer(daemon.ask(**{"TPI_USER": None, **params}), 401)
    daemon.stop()
    [line] = daemon.matching("TPI_USER is not set: ")
    assert ("REMOTE_USER" in line) == mentioned


def test_each_cause_is_explained(streamd):
    """A monitor's bare request does not use up the line about REMOTE_USER."""
    daemon = streamd()
    for params in {}, {"REMOTE_USER": "bob"}, {}, {"REMOTE_USER": "bob"}:
        check_answer(daemon.ask(TPI_USER=None, **params), 401)
    daemon.stop()
    first, second = daemon.matching("TPI_USER is not set: ")
    assert "REMOTE_USER" not in first and "REMOTE_USER" in second


# Project access

def test_deny_is_the_default_and_said_at_start(daemon):
    """Without TPI_PROJECT_ACCESS nobody reads a project, and the start-up log says so."""
    daemon.wait_for_log("TPI_PROJECT_ACCESS")
    check_answer(daemon.ask(projects="7"), 404)
    with daemon.stream():  # notifications need no project
        pass


def test_allow(streamd, valkey):
    """allow: whoever the web server lets in reads every project that he names."""
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
ACCESS = {  # user, projects: those that he reads
    "one": ("ann", "7", [7]),
    "several": ("ann", "7,8", [7, 8]),
    "the unreadable is dropped in silence": ("bob", "7,8", [7]),
    "order and repetition": ("ann", "8,7,8", [7, 8]),
    "any project": ("root", "1,7,2147483647", [1, 7, 2147483647]),
    "any user": ("stranger", "9", [9]),
    "tabs and spaces": ("bob", "10", [10]),
    "none": ("stranger", "7", []),
    "none of several": ("bob", "8,12", []),
    "a prefix of a user": ("an", "7", []),
    "a longer user": ("annn", "7", []),
    "a comment begins inside a word": ("a", "11", [11]),
    "a word ends at its comment": ("team", "7", []),
}


@pytest.fixture(scope="module")
def file_daemon(module_streamd, module_rundir):
    path = os.path.join(module_rundir, "rules")
    with open(path, "w", encoding="ascii") as file:
        file.write(RULES)
    return module_streamd(TPI_PROJECT_ACCESS=f"file:{path}", SSE_ISSUES_PER_USER_CAP=10000)


@pytest.mark.parametrize("user, projects, expected", ACCESS.values(), ids=ACCESS)
def test_file(file_daemon, valkey, user, projects, expected):
    """A stream has exactly those of its projects that the file lets its user read."""
    if not expected:
        check_answer(file_daemon.ask(user, projects=projects), 404)
        return
    with file_daemon.stream(user, projects=projects) as peer:
        asked = sorted({int(project) for project in projects.split(",")})
        assert [p for p in asked if valkey.subscribers(project_channel(p))] == expected
        for project in asked:
            valkey.publish(project_channel(project), issue(1, project))
        last = expected[-1]
        peer.wait_data(issue(1, last))
        assert after_first(peer) == b"".join(frame(issue(1, p)) for p in expected)


def write(path, text):
    """Replaces the file in one step, as a careful administrator does."""
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(text)
    os.rename(path + ".new", path)


def readable(daemon, user, project):
    with daemon.open(user, projects=project) as peer:
        peer.wait(lambda p: p.status)
        return peer.status == 200


def test_file_is_read_again(streamd, rundir):
    """A changed file counts without a restart; one that does not parse, or has gone, is a warning with its
    line number, and the old rules stay."""
    path = os.path.join(rundir, "rules")
    write(path, "7 ann\n")
    daemon = streamd(TPI_PROJECT_ACCESS=f"file:{path}", SSE_ISSUES_PER_USER_CAP=10000)
    assert readable(daemon, "ann", "7") and not readable(daemon, "bob", "7")
    write(path, "7 bob\n")
    eventually(lambda: readable(daemon, "bob", "7"), what="the new rule")
    assert not readable(daemon, "ann", "7")

    mark = daemon.mark()
    write(path, "7 ann\n# fine\nseven ann\n")
    eventually(lambda: readable(daemon, "bob", "7") and daemon.matching("rules.*3", start=mark),
               what="a warning that names line 3")
    assert not readable(daemon, "ann", "7")

    mark = daemon.mark()
    os.unlink(path)
    eventually(lambda: readable(daemon, "bob", "7") and daemon.matching("rules", start=mark),
               what="a warning that the file is gone")

    write(path, "7 ann\n")
    eventually(lambda: readable(daemon, "ann", "7"), what="the rules that parse again")
    assert not readable(daemon, "bob", "7")
    assert len(daemon.matching("rules", start=mark)) < 4, "a warning for each request"


def test_file_changed_in_place(streamd, rundir):
    """A file that is written in place, of the same length, counts too."""
    path = os.path.join(rundir, "rules")
    write(path, "7 ann\n")
    daemon = streamd(TPI_PROJECT_ACCESS=f"file:{path}", SSE_ISSUES_PER_USER_CAP=10000)
    assert readable(daemon, "ann", "7")
    with open(path, "w", encoding="ascii") as file:
        file.write("7 bob\n")
    eventually(lambda: readable(daemon, "bob", "7"), what="the new rule")
