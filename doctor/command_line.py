# SPDX-License-Identifier: ISC
"""Parse the command line, and read the files that it names: credentials, and the publisher's settings."""

import argparse
import base64
import os
import re
import shutil
import sys
from urllib.parse import urlsplit

from . import VERSION
from .mask import remember_secrets
from .streams import STREAMS

SECRET_MAX = 65536  # characters of a file that holds one


class UsageError(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(message)


def some_seconds(text):
    """A number of seconds, up to a day."""
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", text) or float(text) > 86400:
        raise argparse.ArgumentTypeError("must be seconds, from 0 to 86400")
    return float(text)


def parse_arguments(arguments):
    parser = Parser(prog="tpi-stream-doctor", add_help=False, description="Find out why browsers receive no "
                    "events: open TestPlanIt's event streams as a browser does, publish wake-ups, and check what "
                    "arrives.", epilog="Exit status: 0 no failure, 1 something failed, 64 usage.")
    add = parser.add_argument
    add("url", metavar="URL", help="the site as browsers use it, https://host[:port][/prefix]")
    add("--cookie-file", "--cookie", metavar="FILE",
        help="a browser's Cookie header; - for standard input")
    add("--user", metavar="NAME:FILE", help="Basic authentication, with the password in FILE")
    add("--as-user", metavar="ID", help="the user to publish to (NAME, or the user of the cookie)")
    add("--project", metavar="ID",
        help="a project that the user can read: checks its issues, test runs and milestones, and a combined stream")
    add("--test-run", metavar="ID", help="a test run that the user can read: checks its stream")
    add("--milestone", metavar="ID", help="a milestone that the user can read: checks its stream")
    add("--seconds", metavar="N", type=some_seconds,
        help="how long to watch (35: one heartbeat; 130 covers the time limits of proxies)")
    add("--quick", action="store_true", help="do not watch, and publish less")
    add("--timeout", metavar="N", type=some_seconds, default=10, help="time limit of an answer in seconds (10)")
    add("--late", metavar="N", type=some_seconds, default=1, help="seconds after which a wake-up is late (1)")
    add("--ca", metavar="FILE", help="certificates of a further authority, PEM")
    add("--env-file", metavar="FILE", help="the publisher's settings, as the application has them")
    add("--publish", metavar="PATH", help="tpi-publish (next to this program, then in PATH)")
    add("--local", action=argparse.BooleanOptionalAction, default=None,
        help="check this host's processes and files, or do not (if the URL leads here)")
    add("--pid", metavar="PID", type=int, help="of tpi-streamd, if several run here")
    add("--nginx-conf", metavar="FILE", help="nginx.conf (that of the nginx that serves the URL)")
    add("--apache-conf", metavar="FILE", help="apache2.conf (that of the Apache that serves the URL)")
    add("--json", action="store_true", help="print one JSON object instead of lines")
    add("--help", action="help", help="print this")
    add("--version", action="version", version="tpi-stream-doctor " + VERSION)
    options = parser.parse_args(arguments)
    if options.seconds is None:
        options.seconds = 0 if options.quick else 35
    for name in "project", "test_run", "milestone":
        value = getattr(options, name)
        if value is not None and not (re.fullmatch(r"[1-9][0-9]{0,9}", value) and int(value) < 1 << 31):
            raise UsageError(f"--{name.replace('_', '-')} must be a whole number from 1 to 2147483647")
    return options


def site_url(text):
    """The URL of the site: a slash or the path of a stream at its end is dropped."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError("the URL must be http(s)://host[:port][/prefix]")
    if "@" in parts.netloc:
        raise UsageError("no user and password in the URL, which all users of the machine can see: "
                         "use --user NAME:FILE")
    path = parts.path
    for stream in STREAMS.values():
        path = re.sub(re.escape(stream.target.partition("?")[0]).replace(r"\{id\}", "[^/]*") + "$", "", path)
    if re.search(r"[^!-~]", parts.netloc + path):
        raise UsageError("the URL must be ASCII: write the name as in the DNS (xn--...)")
    return f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}"


def read_secret(option, path):
    """The first line that is not empty. Never prints the path: it may be the secret itself."""
    try:
        if path == "-":
            text = sys.stdin.read(SECRET_MAX)
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read(SECRET_MAX)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"{option}: the file cannot be read: {reason} (a secret itself must not be "
                         "on the command line)") from None
    for line in text.splitlines():
        if line.strip():
            remember_secrets(line.strip())
            return line.strip()
    raise UsageError(f"{option}: the file is empty")


def credentials(options):
    """(what is given, headers). The secrets in them are masked from now on."""
    if options.cookie_file and options.user:
        raise UsageError("--cookie-file and --user: give one of them")
    if options.cookie_file:
        cookie = re.sub(r"^cookie:\s*", "", read_secret("--cookie-file", options.cookie_file), flags=re.I)
        if "=" not in cookie or not re.fullmatch(r"[ -~]+", cookie):
            raise UsageError("--cookie-file: must hold one line, name=value; name=value")
        remember_secrets(cookie, *(part.partition("=")[2] for part in re.split(r";\s*", cookie)))
        return "cookie", ["Cookie: " + cookie]
    if options.user:
        name, colon, path = options.user.partition(":")
        if not colon or not name:
            raise UsageError("--user: must be NAME:FILE, the password in the file")
        password = read_secret("--user", path)
        pair = base64.b64encode(f"{name}:{password}".encode()).decode()
        options.as_user = options.as_user or name
        remember_secrets(pair)
        return "basic", ["Authorization: Basic " + pair]
    return "nothing", []


def publisher_environment(path):
    """The environment, with a file of NAME=value in front, as systemd or a shell reads it."""
    environment = dict(os.environ)
    if not path:
        return environment
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"--env-file {path}: cannot be read: {reason}") from None
    for line in lines:
        found = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_]\w*)=(?:\"(.*)\"|'(.*)'|(.*?))\s*", line)
        if found:
            environment[found[1]] = next((value for value in found.groups()[1:] if value), "")
    return environment


def find_publisher(path):
    if path:
        if not os.access(path, os.X_OK):
            raise UsageError(f"--publish {path}: not a program")
        return path
    beside = os.path.join(os.path.dirname(os.path.realpath(__file__)), "tpi-publish")
    return beside if os.access(beside, os.X_OK) else shutil.which("tpi-publish")
