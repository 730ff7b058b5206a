"""What another machine has said, as far as it can be used."""

import re


def plain(text, length=160):
    """What another machine has said, safe for a terminal and short."""
    text = "".join(c if " " <= c <= "~" else "?" for c in str(text))
    return text if len(text) <= length else text[:length] + "..."


def number(text, default):
    """What a text begins with, as a number."""
    found = re.match(r"\d+", text or "")
    return int(found[0]) if found else default
