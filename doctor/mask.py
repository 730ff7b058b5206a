# SPDX-License-Identifier: ISC
"""Mask secrets before anything else happens to a text.

untrusted.plain() and the report both begin with mask(). The order matters: a text that is shortened or
cleaned first may still show a part of a secret that mask() no longer recognizes.
"""

import re
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
SHORTEST = 4    # a shorter secret would also be masked wherever ordinary text contains it

# In text of any origin, whether or not the secret in it is known.
PATTERNS = (
    # user:password@ in a URL. A password may contain any of : / @ itself, so up to the last @.
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s\"'<>]*@", re.I), r"\1" + MASK + "@"),
    (re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie)(\"?\s*[:=]\s*)[^\r\n]+", re.I), r"\1\2" + MASK),
    (re.compile(r"\b(bearer\s+)[^\s\"',;]{8,}", re.I), r"\1" + MASK),
)

secrets_known = set()


def remember_secrets(*words):
    """Masks these from now on, also as they look percent-encoded, decoded, or in a JSON string."""
    for word in words:
        for form in (word, quote(word, safe=""), quote(word), quote_plus(word), unquote(word),
                     word.replace("\\", "\\\\").replace('"', '\\"').replace("/", "\\/")):
            if len(form) >= SHORTEST:
                secrets_known.add(form)


def mask(text):
    for word in sorted(secrets_known, key=len, reverse=True):
        text = text.replace(word, MASK)
    for pattern, shown in PATTERNS:
        text = pattern.sub(shown, text)
    return text
