# SPDX-License-Identifier: ISC
"""What the configurations of nginx and Apache have in common."""

import re

from .finding import Finding, WARNING
from .untrusted import plain

# In the configuration of a web server: the paths of the streams, and not /api/streams/.
STREAM_PATH = re.compile(r"api\b.*[/?]stream(?!s)")


def last(directives, name, default=None):
    """The first word of the last directive of this name."""
    found = [entry[1] for entry in directives if entry[0] == name]
    return found[-1][0] if found and found[-1] else default


def seconds_of(text, default):
    """A time of nginx or Apache in seconds."""
    found = re.fullmatch(r"([0-9]{1,9})(ms|s|m|min|h|d|)", text or "")
    if not found:
        return default
    return int(found[1]) * {"ms": 0.001, "m": 60, "min": 60, "h": 3600, "d": 86400}.get(found[2], 1)


def judge_no_tpi_user(stage, where, has_remote_user, remedy):
    """Under TPI_IDENTITY=web-server nothing but TPI_USER is an identity."""
    what = "REMOTE_USER is set, but not TPI_USER" if has_remote_user else "TPI_USER is not set"
    return Finding(stage, WARNING, f"{plain(where)}: {what}, so every request is anonymous",
                   remedy + " tpi-streamd takes the user from TPI_USER alone. If the application authenticates "
                   "users, set TPI_IDENTITY=app instead.")
