# SPDX-License-Identifier: ISC
"""Reads an event stream with a Python HTTP library, and prints what arrives as lines of JSON.

    client.py requests|httpx|aiohttp URL

These libraries have no EventSource, so the loop below does what one does (WHATWG HTML, 9.2): it waits for `retry`
before it reconnects, sends the last event id, and gives up after a status other than 200. The read timeouts are raised:
by default httpx gives up after 5 s of silence, and aiohttp ends every response after 5 minutes.
"""

import asyncio
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from eventstream import Event, EventStream  # noqa: E402

SILENCE = 60  # seconds: more than two heartbeats


def emit(kind, data=None):
    print(json.dumps({"type": kind, "data": data}), flush=True)


def by_requests(url, headers):
    import requests
    with requests.get(url, headers=headers, stream=True, timeout=SILENCE) as answer:
        yield answer.status_code
        yield from answer.iter_content(chunk_size=None)


def by_httpx(url, headers):
    import httpx
    with httpx.stream("GET", url, headers=headers, timeout=httpx.Timeout(10, read=SILENCE)) as answer:
        yield answer.status_code
        yield from answer.iter_raw()


def by_aiohttp(url, headers):
    import aiohttp
    loop = asyncio.new_event_loop()

    async def read():
        limits = aiohttp.ClientTimeout(total=None, sock_read=SILENCE)
        async with aiohttp.ClientSession(timeout=limits) as session, session.get(url, headers=headers) as answer:
            yield answer.status
            async for piece in answer.content.iter_any():
                yield piece
    pieces = read()
    try:
        while True:
            yield loop.run_until_complete(anext(pieces))
    except StopAsyncIteration:
        pass
    finally:
        loop.run_until_complete(pieces.aclose())
        loop.close()


def main(library, url):
    delay, last_event_id = 3.0, ""
    while True:
        stream, seen = EventStream(), 0
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_event_id} if last_event_id else {})}
        try:
            pieces = {"requests": by_requests, "httpx": by_httpx, "aiohttp": by_aiohttp}[library](url, headers)
            status = next(pieces)
            if status != 200:
                return emit("closed", status)
            emit("open")
            for piece in pieces:
                stream.feed(piece)
                for item in stream.items[seen:]:
                    if isinstance(item, Event):
                        emit(item.type, item.data)
                        last_event_id = item.last_event_id
                seen = len(stream.items)
        except Exception as error:  # each library has its own: all mean a lost connection
            emit("error", str(error))
        delay = stream.reconnection_time / 1000 if stream.reconnection_time is not None else delay
        time.sleep(delay)


main(*sys.argv[1:])
