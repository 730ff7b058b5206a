"""The command line, and the secrets that it names."""

import argparse
import base64
import os
import re
import shutil
import sys
from urllib.parse import urlsplit

from . import VERSION
from .response import BODY_MAX
from .site import PATHS


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
    parser = Parser(prog="tpi-stream-doctor", add_help=False, description="Says why browsers see nothing: "
                    "opens TestPlanIt's event streams as a browser does, publishes, and looks at "
                    "what arrives.", epilog="Exit status: 0 all is well, 1 something is wrong, "
                    "64 usage.")
    add = parser.add_argument
    add("url", metavar="URL", help="the site as browsers have it, https://host[:port][/prefix]")
    add("--cookie-file", "--cookie", metavar="FILE",
        help="a browser's Cookie header; - for standard input")
    add("--user", metavar="NAME:FILE", help="Basic authentication, with the password in FILE")
    add("--as-user", metavar="ID", help="whom to publish to, where that is not NAME")
    add("--project", metavar="ID", help="a project that the user may read: looks at the issues stream")
    add("--seconds", metavar="N", type=some_seconds,
        help="how long to watch (35: one heartbeat; 130 sees time limits of proxies)")
    add("--quick", action="store_true", help="do not watch, and publish less")
    add("--timeout", metavar="N", type=some_seconds, default=10, help="seconds that an answer may take (10)")
    add("--late", metavar="N", type=some_seconds, default=1, help="seconds after which a wake-up is late (1)")
    add("--ca", metavar="FILE", help="certificates of a further authority, PEM")
    add("--env-file", metavar="FILE", help="settings of what publishes, as the application has them")
    add("--publish", metavar="PATH", help="tpi-publish (beside this program, then PATH)")
    add("--local", action=argparse.BooleanOptionalAction, default=None,
        help="look at this host's processes and files, or do not (where the URL leads here)")
    add("--pid", metavar="PID", type=int, help="of tpi-streamd, where several run here")
    add("--nginx-conf", metavar="FILE", help="nginx.conf (what nginx -T says)")
    add("--apache-conf", metavar="FILE", help="apache2.conf (/etc/apache2/apache2.conf)")
    add("--json", action="store_true", help="one JSON object in place of lines")
    add("--help", action="help", help="print this")
    add("--version", action="version", version="tpi-stream-doctor " + VERSION)
    options = parser.parse_args(arguments)
    if options.seconds is None:
        options.seconds = 0 if options.quick else 35
    if options.project is not None and not (
            re.fullmatch(r"[1-9]\d{0,9}", options.project) and int(options.project) < 1 << 31):
        raise UsageError("--project must be a whole number from 1 to 2147483647")
    return options


def site_url(text):
    """The URL without what may not be in it; a slash or the path of a stream at its end does not count."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError("the URL must be http(s)://host[:port][/prefix]")
    if "@" in parts.netloc:
        raise UsageError("no user and password in the URL, where all users of the machine see them: "
                         "--user NAME:FILE")
    path = parts.path
    for end in PATHS.values():
        path = path[:-len(end)] if path.endswith(end) else path
    if re.search(r"[^!-~]", parts.netloc + path):
        raise UsageError("the URL must be ASCII: write the name as in the DNS (xn--...)")
    return f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}"


def read_secret(option, path):
    """The first line with something on it. Never says the path: it may be the secret itself."""
    try:
        if path == "-":
            text = sys.stdin.read(BODY_MAX)
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read(BODY_MAX)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"{option}: the file cannot be read: {reason} (a secret itself must not stand "
                         "on the command line)") from None
    for line in text.splitlines():
        if line.strip():
            return line.strip()
    raise UsageError(f"{option}: the file is empty")


def credentials(options):
    """(what is given, headers, the secrets in them)"""
    if options.cookie_file and options.user:
        raise UsageError("--cookie-file and --user: one of them")
    if options.cookie_file:
        cookie = re.sub(r"^cookie:\s*", "", read_secret("--cookie-file", options.cookie_file), flags=re.I)
        if "=" not in cookie or not re.fullmatch(r"[ -~]+", cookie):
            raise UsageError("--cookie-file: must hold one line, name=value; name=value")
        return "cookie", ["Cookie: " + cookie], [part.partition("=")[2] for part in cookie.split("; ")]
    if options.user:
        name, colon, path = options.user.partition(":")
        if not colon or not name:
            raise UsageError("--user: must be NAME:FILE, the password in the file")
        password = read_secret("--user", path)
        pair = base64.b64encode(f"{name}:{password}".encode()).decode()
        options.as_user = options.as_user or name
        return "basic", ["Authorization: Basic " + pair], [password, pair]
    return "nothing", [], []


def publisher_environment(path):
    """The environment, and over it a file of NAME=value as systemd or a shell reads it."""
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
            raise UsageError(f"--publish {path}: no program")
        return path
    beside = os.path.join(os.path.dirname(os.path.realpath(__file__)), "tpi-publish")
    return beside if os.access(beside, os.X_OK) else shutil.which("tpi-publish")
