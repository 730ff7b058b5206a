"""What the configurations of nginx and Apache have in common."""

import re


def last(directives, name, default=None):
    """The words of the last directive of this name."""
    found = [entry[1] for entry in directives if entry[0] == name]
    return found[-1][0] if found and found[-1] else default


# In the configuration of a web server: the two paths, and not /api/streams/.
STREAM_PATH = re.compile(r"api\b.*/stream(?!s)")


def seconds_of(text, default):
    """A time of nginx or Apache in seconds."""
    found = re.fullmatch(r"(\d+)(ms|s|m|min|h|d|)", text or "")
    if not found:
        return default
    return int(found[1]) * {"ms": 0.001, "m": 60, "min": 60, "h": 3600, "d": 86400}.get(found[2], 1)
