"""A model server on the loopback interface that says what a test tells it to, in every wire format that guardrail knows."""

from __future__ import annotations

import gzip
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardrail import Guardrail
from guardrail.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))  # test files are no packages: what they share is imported by its name
from recorded import FORMATS, Reply, message, response, response_events

POLICY = """
policy: conformance
description: Patterns only, so that every verdict is known.
classifiers:
  banned: {kind: pattern, words: [zorgle]}
  held: {kind: pattern, words: [quibble]}
  secret: {kind: pattern, regex: ['\\bsk-[a-z0-9]{8}\\b']}
  noted: {kind: pattern, words: [hmph]}
rules:
  no-zorgle:
    stages: [input, output, tool_call, tool_result, retrieved]
    weights: {banned: 1.0}
    combine: max
    thresholds: {block: 0.9}
  held-quibble:
    stages: [input, output]
    weights: {held: 1.0}
    combine: max
    thresholds: {escalate: 0.9}
  no-secrets:
    stages: [input, output, tool_call, tool_result, retrieved]
    weights: {secret: 1.0}
    combine: max
    thresholds: {redact: 0.9}
  noted-hmph:
    stages: [input, output]
    weights: {noted: 1.0}
    combine: max
    thresholds: {flag: 0.9}
disclose: DISCLOSE
marker: " [edited]"
refusal: This was withheld.
"""

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
REFUSAL = "This was withheld."


@dataclass
class Upstream:
    """The server as tests see it."""

    url: str = ""
    reply: Reply = field(default_factory=Reply)
    queue: list[Reply] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)  # the client left before the end
    sent: int = 0  # streamed events sent so far

    def next_reply(self) -> Reply:
        return self.queue.pop(0) if self.queue else self.reply

    @property
    def seen(self) -> str:
        """Everything that reached the model."""
        return json.dumps(self.requests, ensure_ascii=False)


# -- the server ------------------------------------------------------------------------------------------------------

PLAIN = {
    "/embeddings": {
        "object": "list",
        "model": "e",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    },
    "/moderations": {"id": "modr-1", "model": "o", "results": []},
    "/models": {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "us"}]},
    "/messages/count_tokens": {"input_tokens": 3},
    "/input_items": {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None},
    "/files": {"id": "file-1", "object": "file", "bytes": 1, "created_at": 1, "filename": "f", "purpose": "batch"},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_call({})

    def do_DELETE(self) -> None:
        self.handle_call({})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(data)
        except ValueError:
            body = {"unreadable": len(data)}
        self.handle_call(body)

    def handle_call(self, body: dict[str, Any]) -> None:
        upstream: Upstream = self.server.upstream
        path = self.path.partition("?")[0].rstrip("/").replace(":", "/")
        upstream.requests.append(body)
        upstream.paths.append(self.path)
        upstream.headers.append({name.lower(): value for name, value in self.headers.items()})
        for end, document in PLAIN.items():
            if path.endswith(end):
                self.send_json(document)
                return
        reply = upstream.next_reply()
        if self.command == "DELETE":
            self.send_json({"id": "x", "object": "response", "deleted": True})
            return
        if reply.fault == "hang":
            upstream.hung_up.wait(5)
            return
        if reply.status != 200:
            self.send_json({"error": {"message": "no", "type": "server_error"}}, reply.status, reply.headers)
            return
        if reply.raw is not None and reply.fault == "chunked":
            self.send_chunked(reply.raw, reply.content_type or "application/json")
            return
        if reply.raw is not None:
            self.send_body(reply.raw, reply.content_type or "application/json", 200, reply.headers)
            return
        whole, events = next(
            (found for end, found in FORMATS.items() if path.endswith(end)), (response, response_events)
        )
        if body.get("stream") or "stream=true" in self.path or path.endswith("streamRawPredict"):
            self.stream(reply, events(reply, body), named=whole in (response, message))
        else:
            self.send_json(whole(reply, body), 200, {**reply.headers}, zipped=reply.fault == "gzip")

    def send_json(
        self, document: Any, status: int = 200, headers: dict[str, str] | None = None, *, zipped: bool = False
    ) -> None:
        data = json.dumps(document).encode()
        extra = {"content-encoding": "gzip"} if zipped else {}
        self.send_body(
            gzip.compress(data) if zipped else data, "application/json", status, {**(headers or {}), **extra}
        )

    def send_body(self, data: bytes, content_type: str, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def send_chunked(self, data: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for at in range(0, len(data), 60_000):
            part = data[at : at + 60_000]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def stream(self, reply: Reply, events: Iterator[Any], *, named: bool) -> None:
        upstream: Upstream = self.server.upstream
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", reply.content_type or "text/event-stream")
        self.send_header("connection", "close")
        if reply.fault == "gzip":
            self.send_header("content-encoding", "gzip")
        if reply.fault in ("cut", "chunked"):
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            self.send_events(reply, events, named=named)
        except OSError:
            upstream.hung_up.set()

    def send_events(self, reply: Reply, events: Iterator[Any], *, named: bool) -> None:
        upstream: Upstream = self.server.upstream
        end = "\r\n" if reply.fault == "crlf" else "\n"
        whole = b""
        for count, event in enumerate(events):
            data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=reply.fault != "split")
            name = f"event: {event['type']}{end}" if named and isinstance(event, dict) else ""
            block = f"{name}data: {data}{end}{end}".encode()
            if reply.fault == "comments":
                block = b": keep-alive\n\n" + block
            if reply.fault in ("cut", "early-end") and count == 8:
                break
            if reply.fault == "gzip":
                whole += block
            elif reply.fault == "split":
                for byte in block:
                    self.wfile.write(bytes([byte]))
            elif reply.fault == "cut":
                self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
            else:
                self.wfile.write(block)
            self.wfile.flush()
            upstream.sent += 1
            if reply.delay:
                time.sleep(reply.delay)
        if whole:
            self.wfile.write(gzip.compress(whole))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    upstream: Upstream

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.upstream.hung_up.set()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def upstream(server: Server) -> Iterator[Upstream]:
    """The server with nothing said or heard yet."""
    server.upstream = Upstream(url=f"http://127.0.0.1:{server.server_address[1]}/v1")
    yield server.upstream
    server.upstream.hung_up.set()


@pytest.fixture
def reply() -> type[Reply]:
    return Reply


@pytest.fixture(scope="session")
def policy() -> str:
    return POLICY


class Guards:
    """Makes real guards with the all-pattern policy above, each with a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Guardrail] = []

    def __call__(
        self, *, disclose: str = "marker", on_block: str = "refuse", hold: str = "sentence", policy: str = POLICY
    ) -> Guardrail:
        number = len(self.made)
        file = self.folder / f"conformance-{number}.yaml"
        file.write_text(policy.replace("DISCLOSE", disclose))
        url = f"sqlite:///{self.folder / f'audit-{number}.sqlite'}"
        settings = {"audit": {"url": url}, "on_block": on_block, "stream": {"hold": hold}}
        self.made.append(Guardrail(str(file), settings=Settings.model_validate(settings)))
        return self.made[-1]

    def close(self) -> None:
        for guard in self.made:
            guard.close()


@pytest.fixture
def make_guard(tmp_path: Path) -> Iterator[Guards]:
    guards = Guards(tmp_path)
    yield guards
    guards.close()


class OneVector:
    """An encoder that knows one vector. Redaction reports how similar the result is; nothing here depends on it, and the
    real encoder takes seconds to load."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 1), dtype=np.float32)


@pytest.fixture(autouse=True, scope="module")  # not for the session: other folders' tests load the real encoder
def _no_models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guardrail.encoder.load_encoder", lambda *_: OneVector())
        yield


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardrail]:
    """One guard for all tests that need no settings of their own; it keeps nothing between calls but the audit."""
    guards = Guards(tmp_path_factory.mktemp("guard"))
    yield guards()
    guards.close()
