"""A model that always says the same, in a process of its own, for `wrap.py` and `wrap_peers.py`. Run by itself it does nothing."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

WORDS = ("moron", "idiot", "imbecile")
POLICY = """
policy: patterns
classifiers: {{insults: {{kind: pattern, words: [{words}]}}}}
rules: {{insults: {{stages: [input, output], weights: {{insults: 1.0}}, thresholds: {{redact: 0.5}}}}}}
"""
ANSWER = "We looked at the logs of last night and found that the backup had started twice, so the disk was full."


def question(turn: int) -> dict[str, str]:
    """What the user asks at one turn: never the same twice."""
    return {"role": "user", "content": f"Why was the disk full on day {turn}?"}


class Model(BaseHTTPRequestHandler):
    """Answers every call of chat completions."""

    protocol_version = "HTTP/1.1"
    body: ClassVar[bytes] = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    ).encode()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(self.body)}\r\n\r\n"
        self.wfile.write(head.encode() + self.body)  # one packet: a second one would wait for the first one's receipt

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _serve(ready: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    ready.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def serving() -> Iterator[str]:
    """The address of a running model."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        server.terminate()
        server.join()
