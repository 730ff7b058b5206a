# SPDX-License-Identifier: ISC
"""The stand-ins of the other tests are as strict as real servers: the same conversations have the same answers."""

import pytest

import sentinels
import standins
from servers import ValkeyClient, ValkeyError

ANY = [("PING",), ("PING", "x"), ("PING", "x", "y"), ("WHAT", "a"), ("WHAT",), ("AUTH",), ("AUTH", "a", "b", "c"),
       ("ROLE",), ("ROLE", "x"), ("role",)]
OPEN = [("AUTH", "x"), ("AUTH", "u", "x")]
CLOSED = [("ROLE",), ("PING",), ("WHAT",), ("ROLE", "x"), ("AUTH", "no"), ("AUTH", "u", "s3cret"), ("ROLE",),
          ("AUTH", "s3cret"), ("ROLE",)]
SERVER = [("CLUSTER", "INFO"), ("CLUSTER",), ("UNSUBSCRIBE",), ("UNSUBSCRIBE", "z"), ("SUBSCRIBE",), ("SUBSCRIBE", "a"),
          ("SUBSCRIBE", "a"), ("SUBSCRIBE", "b"), ("PING",), ("PING", "x"), ("ROLE",), ("AUTH", "x"),
          ("UNSUBSCRIBE", "z"), ("UNSUBSCRIBE", "a"), ("UNSUBSCRIBE",), ("ROLE",), ("PING",)]
SENTINEL = [("SENTINEL",), ("SENTINEL", "WHAT"), ("SENTINEL", "MASTER"), ("SENTINEL", "MASTER", "mymaster"),
            ("sentinel", "master", "mymaster"), ("SENTINEL", "MASTER", "x"), ("SENTINEL", "MASTER", "mymaster", "x"),
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "x"),
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME"), ("CLUSTER", "INFO"), ("GET", "x")]
MALFORMED = [b"*x\r\n", b"*1\r\n4\r\nPING\r\n", b"*1\r\n$x\r\nPING\r\n"]


def converse(address, commands):
    """The answers on one connection; of facts only the names."""
    client = ValkeyClient(address)
    answers = []
    for words in commands:
        try:
            answer = client(*words)
        except ValkeyError as error:
            answer = str(error).partition(", with args")[0]  # Redis and Valkey word the rest differently
        if isinstance(answer, list) and len(answer) > 10:
            answer = answer[::2]
        answers.append((words, answer))
    client.close()
    return answers


def malformed(address, data):
    """Whether it is refused, and the connection closed."""
    client = ValkeyClient(address)
    client.socket.sendall(data)
    with pytest.raises(ValkeyError, match="ERR Protocol error"):
        client.read()
    with pytest.raises(ConnectionResetError):
        client.read()


@pytest.mark.parametrize("password, commands", [(None, ANY + OPEN + SERVER), ("s3cret", CLOSED)], ids=["open", "closed"])
def test_server(new_valkey, password, commands):
    """A server: commands, their arity, AUTH, and what a subscriber may send."""
    real = new_valkey(tcp=True, password=password).start()
    stand_in = standins.Server(password=password)
    assert converse(stand_in.address, commands) == converse(real.address, commands)
    for data in MALFORMED:
        malformed(real.address, data)
        malformed(stand_in.address, data)
    with pytest.raises(AssertionError, match="a real server rejects this"):
        stand_in.stop()


@pytest.mark.parametrize("password", [None, "s3cret"], ids=["open", "closed"])
def test_sentinel(new_valkey, rundir, password):
    """A sentinel: the same, and the shape of what it says about its primary."""
    primary = new_valkey(tcp=True).start()
    real = sentinels.Sentinel(rundir, primary, password=password).start()
    try:
        stand_in = standins.Sentinel(primary.port, password=password)
        commands = [*CLOSED, *SENTINEL] if password else [*ANY, *OPEN, *SENTINEL]
        assert converse(stand_in.address, commands) == converse(real.address, commands)
    finally:
        real.kill()
