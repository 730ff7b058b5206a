# SPDX-License-Identifier: ISC
"""Stand-ins for Valkey and for a sentinel, whose replies a test chooses. They reject what the real ones reject.

test_standins.py compares their replies with those of real servers. stop(), at the end of a test, fails if a command was
rejected: the program under test would not work with a real server.
"""

import contextlib
import socket
import threading

from servers import listening_socket


class Refused(Exception):
    """An error reply, as a real server sends it."""


class Malformed(Exception):
    """An error reply after which the server closes the connection."""


def read_command(file):
    """The words of the next command, or [] at the end of input. Accepts only arrays of bulk strings, which is how
    clients send commands."""
    def number(kind, what):
        line = file.readline()
        if line and (line[:1] != kind or not line.endswith(b"\r\n") or not line[1:-2].isdigit()):
            raise Malformed(f"ERR Protocol error: {what}")
        return int(line[1:-2]) if line else 0
    words = []
    for _ in range(number(b"*", "invalid multibulk length")):
        length = number(b"$", "expected '$'")
        word = file.read(length + 2)
        if not word.endswith(b"\r\n"):
            raise Malformed("ERR Protocol error: no line break after a bulk string")
        words.append(word[:-2])
    return words


def bulk(word):
    return b"$-1\r\n" if word is None else b"$%d\r\n%s\r\n" % (len(word), word)


def array(*replies):
    """An array of encoded replies."""
    return b"*%d\r\n" % len(replies) + b"".join(replies)


def arity(name):
    return Refused(f"ERR wrong number of arguments for '{name.decode().lower()}' command")


class Session:
    """The server's state of one connection."""

    def __init__(self, password):
        self.authenticated = password is None
        self.channels = []


class StandIn:
    """Listens on loopback. commands is {name: (min words, max words, method(session, words) -> reply)}."""

    def __init__(self, password=None):
        self.password = password
        self.refused = []
        self.connections = 0
        self.listener = listening_socket(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.name = "127.0.0.1:%d" % self.address[1]
        self.url = f"valkey://{self.name}"
        self.commands = {b"AUTH": (2, 3, self.auth), b"PING": (1, 2, self.ping)}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        session = Session(self.password)
        with contextlib.suppress(OSError), peer, peer.makefile("rb") as file:
            words = True
            while words:
                try:
                    words = read_command(file)
                    if words:
                        self.answer(session, words, peer.sendall)
                except (Refused, Malformed) as error:
                    self.refused.append((words, str(error)))
                    peer.sendall(b"-%s\r\n" % str(error).encode())
                    if isinstance(error, Malformed):
                        return

    def answer(self, session, words, send):
        name = words[0].upper()
        if name not in self.commands:
            rest = "".join(f"'{word.decode(errors='replace')}' " for word in words[1:])
            raise Refused(f"ERR unknown command '{words[0].decode(errors='replace')}', with args beginning with: {rest}")
        least, most, method = self.commands[name]
        if not least <= len(words) <= most:
            raise Refused("ERR syntax error") if name == b"AUTH" and len(words) > most else arity(name)
        if not session.authenticated and name != b"AUTH":
            raise Refused("NOAUTH Authentication required.")
        if session.channels and name not in (b"PING", b"SUBSCRIBE", b"UNSUBSCRIBE"):
            raise Refused(f"ERR Can't execute '{name.decode().lower()}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / "
                          "QUIT / RESET are allowed in this context")
        send(method(session, words))

    def auth(self, session, words):
        if len(words) == 2 and self.password is None:
            raise Refused("ERR AUTH <password> called without any password configured for the default user. "
                          "Are you sure your configuration is correct?")
        if words[-1] != (self.password or "").encode() or words[1:-1] not in ([], [b"default"]):
            raise Refused("WRONGPASS invalid username-password pair or user is disabled.")
        session.authenticated = True
        return b"+OK\r\n"

    @staticmethod
    def ping(session, words):
        if session.channels:
            return array(bulk(b"pong"), bulk(b"".join(words[1:])))
        return bulk(words[1]) if len(words) == 2 else b"+PONG\r\n"

    def stop(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        assert not self.refused, f"a real server rejects this: {self.refused}"


class Server(StandIn):
    """A primary without keys on which everyone may subscribe."""

    def __init__(self, password=None):
        super().__init__(password)
        self.commands |= {b"ROLE": (1, 1, lambda session, words: array(bulk(b"master"), b":0\r\n", array())),
                          b"CLUSTER": (2, 2, self.cluster),
                          b"SUBSCRIBE": (2, 1000000, self.subscribe), b"UNSUBSCRIBE": (1, 1000000, self.unsubscribe)}

    @staticmethod
    def cluster(session, words):
        raise Refused("ERR This instance has cluster support disabled")

    @staticmethod
    def _changed(kind, channel, session):
        return array(bulk(kind), bulk(channel), b":%d\r\n" % len(session.channels))

    def subscribe(self, session, words):
        reply = b""
        for channel in words[1:]:
            if channel not in session.channels:
                session.channels.append(channel)
            reply += self._changed(b"subscribe", channel, session)
        return reply

    def unsubscribe(self, session, words):
        reply = b""
        for channel in words[1:] or session.channels[:] or [None]:
            if channel in session.channels:
                session.channels.remove(channel)
            reply += self._changed(b"unsubscribe", channel, session)
        return reply


class Sentinel(StandIn):
    """A sentinel that monitors one primary at host and port, with this configuration epoch."""

    def __init__(self, port, epoch=0, host=b"127.0.0.1", master=b"mymaster", password=None):
        super().__init__(password)
        self.host, self.port, self.epoch, self.master = host, port, epoch, master
        self.commands |= {b"ROLE": (1, 1, lambda session, words: array(bulk(b"sentinel"), array(bulk(self.master)))),
                          b"SENTINEL": (2, 1000, self.sentinel)}

    def sentinel(self, session, words):
        methods = {b"MASTER": self.facts, b"GET-MASTER-ADDR-BY-NAME": self.where}
        method = methods.get(words[1].upper())
        if method is None:
            raise Refused(f"ERR unknown subcommand '{words[1].decode()}'. Try SENTINEL HELP.")
        if len(words) != 3:
            raise arity(b"sentinel|" + words[1])
        return method(words[2] == self.master)

    def facts(self, known):
        if not known:
            raise Refused("ERR No such master with that name")
        facts = {
            b"name": self.master, b"ip": self.host, b"port": self.port, b"runid": b"0" * 40, b"flags": b"master",
            b"link-pending-commands": 0, b"link-refcount": 1, b"last-ping-sent": 0, b"last-ok-ping-reply": 100,
            b"last-ping-reply": 100, b"down-after-milliseconds": 500, b"info-refresh": 1000, b"role-reported": b"master",
            b"role-reported-time": 1000, b"config-epoch": self.epoch, b"num-slaves": 0, b"num-other-sentinels": 0,
            b"quorum": 1, b"failover-timeout": 5000, b"parallel-syncs": 1}
        return array(*(bulk(b"%d" % word if isinstance(word, int) else word) for fact in facts.items() for word in fact))

    def where(self, known):
        return array(bulk(self.host), bulk(b"%d" % self.port)) if known else b"*-1\r\n"
