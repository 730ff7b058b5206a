# SPDX-License-Identifier: ISC
"""The stand-ins for Valkey and sentinels (standins.py) are as strict as real ones: the same commands get the same
replies."""

import pytest

import sentinels
import standins
from servers import ValkeyClient, ValkeyError

COMMON = [("PING",), ("PING", "x"), ("PING", "x", "y"), ("WHAT", "a"), ("WHAT",), ("AUTH",), ("AUTH", "a", "b", "c"),
       ("ROLE",), ("ROLE", "x"), ("role",)]
WITHOUT_PASSWORD = [("AUTH", "x"), ("AUTH", "u", "x")]
WITH_PASSWORD = [("ROLE",), ("PING",), ("WHAT",), ("ROLE", "x"), ("AUTH", "no"), ("AUTH", "u", "s3cret"), ("ROLE",),
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
    """The replies to these commands on one connection; of a long list of names and values only the names."""
    client = ValkeyClient(address)
    replies = []
    for words in commands:
        try:
            reply = client(*words)
        except ValkeyError as error:
            reply = str(error).partition(", with args")[0]  # Redis and Valkey word the rest differently
        if isinstance(reply, list) and len(reply) > 10:
            reply = reply[::2]
        replies.append((words, reply))
    client.close()
    return replies


def check_malformed(address, data):
    """Malformed input gets an error reply, then the connection is closed."""
    client = ValkeyClient(address)
    client.socket.sendall(data)
    with pytest.raises(ValkeyError, match="ERR Protocol error"):
        client.read()
    with pytest.raises(ConnectionResetError):
        client.read()


@pytest.mark.parametrize("password, commands", [(None, COMMON + WITHOUT_PASSWORD + SERVER), ("s3cret", WITH_PASSWORD)],
                         ids=["no password", "password"])
def test_server(new_valkey, password, commands):
    """Commands, their arity, AUTH, and what a subscriber may send get the replies of a real server; stop() then fails
    because some were rejected."""
    real = new_valkey(tcp=True, password=password).start()
    stand_in = standins.Server(password=password)
    assert converse(stand_in.address, commands) == converse(real.address, commands)
    for data in MALFORMED:
        check_malformed(real.address, data)
        check_malformed(stand_in.address, data)
    with pytest.raises(AssertionError, match="a real server rejects this"):
        stand_in.stop()


@pytest.mark.parametrize("password", [None, "s3cret"], ids=["no password", "password"])
def test_sentinel(new_valkey, rundir, password):
    """A sentinel's replies are those of a real one; of its primary's state, the names are compared."""
    primary = new_valkey(tcp=True).start()
    real = sentinels.Sentinel(rundir, primary, password=password).start()
    try:
        stand_in = standins.Sentinel(primary.port, password=password)
        commands = [*WITH_PASSWORD, *SENTINEL] if password else [*COMMON, *WITHOUT_PASSWORD, *SENTINEL]
        assert converse(stand_in.address, commands) == converse(real.address, commands)
    finally:
        real.kill()
