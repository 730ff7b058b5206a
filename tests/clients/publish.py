# SPDX-License-Identifier: ISC
"""Publishes messages with a Python client for Valkey: publish.py redis|valkey RESP-VERSION PORT <messages

Each line of the input is a JSON array of a channel and a payload.
"""

import importlib
import json
import sys

name, protocol, port = sys.argv[1:]
package = importlib.import_module(name)
client = (package.Redis if name == "redis" else package.Valkey)(host="127.0.0.1", port=int(port), protocol=int(protocol))
for line in sys.stdin:
    client.publish(*json.loads(line))
