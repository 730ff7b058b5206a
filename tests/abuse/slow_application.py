#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""An application that identifies users slowly: "session=NAME" in a Cookie is NAME, unless that begins with "made-up".

    slow_application.py SOCKET SECONDS WORKERS

Each of its WORKERS takes SECONDS for an answer. Prints a line when it is ready.
"""

import asyncio
import re
import sys

HONEST = re.compile(rb"\r\nCookie: session=(?!made-up)(\w+)\r\n")


async def serve(reader, writer, seconds, workers):
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        async with workers:
            await asyncio.sleep(seconds)
        found = HONEST.search(head)
        body = b'{"user":{"id":"%s"}}' % found[1] if found else b"{}"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def main():
    path, seconds, workers = sys.argv[1], float(sys.argv[2]), asyncio.Semaphore(int(sys.argv[3]))
    server = await asyncio.start_unix_server(lambda *pair: serve(*pair, seconds, workers), path, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
