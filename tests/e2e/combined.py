# SPDX-License-Identifier: ISC
"""A small web server with the streams of tpi-stream(7), for tests of pages that share a connection. It has no daemon
behind it, speaks HTTP/1.1 only, and answers 400 to what the daemon would refuse.

    server = StreamServer(directory)            # serves the files of the directory, too
    server.publish("issues:7", payload)         # on every stream that carries the topic
    server.open_streams(), server.requests      # the topics of each open stream; of each request for one
"""

import http.server
import json
import queue
import re
import threading
from urllib.parse import parse_qsl, urlsplit

ID = re.compile(r"[1-9][0-9]{0,9}")
SINGLE = {
    "testRuns": re.compile(r"/api/test-runs/([0-9]+)/stream"),
    "projectTestRuns": re.compile(r"/api/projects/([0-9]+)/test-runs/stream"),
    "milestones": re.compile(r"/api/milestones/([0-9]+)/stream"),
    "projectMilestones": re.compile(r"/api/projects/([0-9]+)/milestones/stream"),
}
COMBINED = {"notifications", "issues", *SINGLE}
SYNC = b'data: {"event":"sync"}\n'
END = object()


class Refused(Exception):
    """A request that the daemon answers with 400."""


def ids_of(text):
    ids = text.split(",")
    if not all(ID.fullmatch(id) and int(id) < 2**31 for id in ids):
        raise Refused(f"malformed ids: {text}")
    return list(dict.fromkeys(ids))


def topics_of(target):
    """The topics that a request asks for, or None if its path is no stream."""
    url = urlsplit(target)
    query = parse_qsl(url.query, keep_blank_values=True)
    if url.path == "/api/notifications/stream":
        return ["notifications"]
    if url.path == "/api/issues/stream":
        return [f"issues:{id}" for name, value in query if name.startswith("projectId") for id in ids_of(value)]
    for kind, pattern in SINGLE.items():
        found = pattern.fullmatch(url.path)
        if found:
            return [f"{kind}:{found[1]}"]
    return combined_topics(query) if url.path == "/api/stream" else None


def combined_topics(query):
    known = [(name, value) for name, value in query if name in COMBINED]
    if len(known) != len(dict(known)) or not known:
        raise Refused("no topic, or a parameter twice")
    topics = []
    for name, value in known:
        if name == "notifications":
            if value != "1":
                raise Refused("notifications must be 1")
            topics.append(name)
        else:
            topics += [f"{name}:{id}" for id in ids_of(value)]
    if len(topics) - ("notifications" in topics) > 500:
        raise Refused("too many ids")
    return topics


class Stream:
    def __init__(self, target, user):
        self.topics = topics_of(target)
        self.combined = urlsplit(target).path == "/api/stream"
        self.user = user
        self.events = queue.Queue()
        self.events.put(SYNC + b"retry: 1000\n\n")

    def event(self, topic, payload):
        label = f"event: {topic}\n".encode() if self.combined else b""
        return label + b"data: " + json.dumps(payload).encode() + b"\n\n"


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300

    def __init__(self, *args, owner, **named):
        self.owner = owner
        super().__init__(*args, directory=owner.directory, **named)

    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def do_GET(self):
        try:
            topics = topics_of(self.path)
        except Refused as error:
            self.owner.refused.append(f"{self.path}: {error}")
            self.send_error(400)
            return
        if topics is None:
            super().do_GET()
        else:
            self.stream()

    def stream(self):
        user = re.search(r"user=(\w+)", self.headers.get("Cookie", ""))
        stream = Stream(self.path, user and user[1])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache, no-transform")
        self.send_header("Connection", "close")
        self.end_headers()
        self.owner.add(stream)
        watcher = threading.Thread(target=self.wait_for_close, args=(stream,), daemon=True)
        watcher.start()
        try:
            while (event := stream.events.get()) is not END:
                self.wfile.write(event)
        except OSError:
            pass
        finally:
            self.owner.remove(stream)
            self.close_connection = True

    def wait_for_close(self, stream):
        """A browser sends nothing more on the connection of a stream."""
        try:
            self.connection.recv(1)
        except OSError:
            pass
        stream.events.put(END)

    def log_message(self, format, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A browser that closes a connection is no error."""


class StreamServer:
    def __init__(self, directory):
        self.directory = directory
        self.lock = threading.Lock()
        self.streams = []
        self.requests = []  # the topics of each stream that was opened
        self.refused = []   # requests that were answered with 400
        self.server = Server(("127.0.0.1", 0), lambda *args: Handler(*args, owner=self))
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path, host="127.0.0.1"):
        return f"http://{host}:{self.port}/{path}"

    def add(self, stream):
        with self.lock:
            self.streams.append(stream)
            self.requests.append(stream.topics)

    def remove(self, stream):
        with self.lock:
            self.streams.remove(stream)

    def open_streams(self):
        with self.lock:
            return [set(stream.topics) for stream in self.streams]

    def publish(self, topic, payload, user=None):
        """Returns the number of streams that carry it."""
        with self.lock:
            reached = [stream for stream in self.streams if topic in stream.topics and stream.user == user]
            for stream in reached:
                stream.events.put(stream.event(topic, payload))
        return len(reached)

    def close(self):
        with self.lock:
            for stream in self.streams:
                stream.events.put(END)
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
