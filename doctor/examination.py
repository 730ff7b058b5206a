# SPDX-License-Identifier: ISC
"""The state of an examination: what the checks have found out so far."""

from .streams import STREAMS


class Examination:
    def __init__(self, options, site, publisher, given):
        self.options = options
        self.site = site
        self.publisher = publisher
        self.given = given              # "nothing", "cookie", "basic": the credentials of each request
        self.whom = {kind: getattr(options, stream.option) for kind, stream in STREAMS.items()}
        self.settings = dict(publisher.environment)  # the daemon's, as far as they are known
        self.settings_known = False     # read from the daemon's process
        self.local = False              # the URL leads to this host
        self.daemon = None              # its pid, if it runs here
        self.web_server = None          # on this host
        self.protocol = None            # by ALPN
        self.probes = {}                # kind: an answer that needs no stream
        self.exchanges = {}
        self.runs = {}
        self.watched_until = None

    def target(self, kind):
        """Without an id, that of a stream which may not exist: enough to see where the path leads."""
        return STREAMS[kind].target_of(self.whom[kind] or 1)

    def response(self, kind):
        return self.exchanges[kind].response if kind in self.exchanges else None

    @property
    def any_probe(self):
        return next(iter(self.probes.values()), None)

    def open_kinds(self):
        """Streams that have begun."""
        return [kind for kind in self.exchanges if self.response(kind).synced_at is not None]
