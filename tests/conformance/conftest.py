"""A model server on the loopback interface that says what a test tells it to, in every wire format that guardrail knows."""

from __future__ import annotations

import gzip
import json
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
class Reply:
    """What the server says next."""

    texts: tuple[str, ...] = ("Hello there. All is well.",)  # one for each choice
    arguments: str | None = None  # of a tool call, instead of a text
    reasoning: str | None = None
    refusal: str | None = None
    chunk: int = 4  # characters per streamed event
    logprobs: bool = False
    fault: str = ""
    delay: float = 0.0  # seconds between streamed events
    raw: bytes | None = None  # the whole body, as it is
    content_type: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


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


USAGE = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
RESPONSE_USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 11,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 18,
}


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


def spelt(text: str) -> dict[str, Any]:
    token = {"token": text, "logprob": -0.1, "bytes": list(text.encode()), "top_logprobs": []}
    return {"content": [token], "refusal": None}


# -- chat completions ------------------------------------------------------------------------------------------------


def tool_call(arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "send", "arguments": arguments}}


def chat(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    choices = []
    for index, text in enumerate(reply.texts):
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": reply.refusal, "annotations": []}
        finish = "stop"
        if reply.reasoning is not None:
            message["reasoning_content"] = reply.reasoning
        if reply.arguments is not None:
            message.update(content=None, tool_calls=[tool_call(reply.arguments)])
            finish = "tool_calls"
        if reply.refusal is not None:
            message["content"] = None
        logprobs = spelt(text) if reply.logprobs else None
        choices.append({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})
    return {
        "id": f"chatcmpl-{len(text)}-{time.monotonic_ns()}",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", "m"),
        "choices": choices,
        "usage": USAGE,
        "system_fingerprint": "fp_1",
    }


def chat_events(reply: Reply, body: dict[str, Any]) -> Iterator[Any]:
    head = {
        "id": f"chatcmpl-{time.monotonic_ns()}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body.get("model", "m"),
        "system_fingerprint": "fp_1",
    }
    with_usage = (body.get("stream_options") or {}).get("include_usage")

    def event(index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**head, "choices": [choice], **({"usage": None} if with_usage else {})}

    finish = "stop"
    for index in range(len(reply.texts)):
        yield event(index, {"role": "assistant", "content": "" if reply.arguments is None else None, "refusal": None})
    if reply.reasoning is not None:
        for piece in pieces(reply.reasoning, reply.chunk):
            yield event(0, {"reasoning_content": piece})
    if reply.arguments is not None:
        finish = "tool_calls"
        yield event(0, {"tool_calls": [{"index": 0, **tool_call("")}]})
        for piece in pieces(reply.arguments, reply.chunk):
            yield event(0, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    elif reply.refusal is not None:
        for piece in pieces(reply.refusal, reply.chunk):
            yield event(0, {"refusal": piece})
    else:
        cut = [pieces(text, reply.chunk) for text in reply.texts]
        for turn in range(max(len(parts) for parts in cut)):  # the choices take turns
            for index, parts in enumerate(cut):
                if turn < len(parts):
                    logprobs = spelt(parts[turn]) if reply.logprobs else None
                    yield event(index, {"content": parts[turn]}, logprobs=logprobs)
    for index in range(len(reply.texts)):
        yield event(index, {}, finish)
    if with_usage:
        yield {**head, "choices": [], "usage": USAGE}
    yield "[DONE]"


# -- legacy completions ----------------------------------------------------------------------------------------------


def legacy(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "stop"}
        for index, text in enumerate(reply.texts)
    ]
    return {
        "id": f"cmpl-{time.monotonic_ns()}",
        "object": "text_completion",
        "created": 1,
        "model": body.get("model", "m"),
        "choices": choices,
        "usage": USAGE,
    }


def legacy_events(reply: Reply, body: dict[str, Any]) -> Iterator[Any]:
    head = {
        "id": f"cmpl-{time.monotonic_ns()}",
        "object": "text_completion",
        "created": 1,
        "model": body.get("model", "m"),
    }
    for index, text in enumerate(reply.texts):
        for piece in pieces(text, reply.chunk):
            yield {**head, "choices": [{"index": index, "text": piece, "logprobs": None, "finish_reason": None}]}
        yield {**head, "choices": [{"index": index, "text": "", "logprobs": None, "finish_reason": "stop"}]}
    yield "[DONE]"


# -- responses -------------------------------------------------------------------------------------------------------


def output_items(reply: Reply) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.reasoning is not None:
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        items.append({"id": "rs_1", "type": "reasoning", "summary": summary})
    if reply.arguments is not None:
        items.append(
            {
                "id": "fc_1",
                "type": "function_call",
                "call_id": "call_1",
                "name": "send",
                "arguments": reply.arguments,
                "status": "completed",
            }
        )
    else:
        part = {"type": "output_text", "text": reply.texts[0], "annotations": [], "logprobs": []}
        items.append({"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]})
    return items


def response(reply: Reply, body: dict[str, Any], *, status: str = "completed", output: Any = None) -> dict[str, Any]:
    return {
        "id": f"resp_{time.monotonic_ns()}",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": body.get("model", "m"),
        "output": output_items(reply) if output is None else output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": RESPONSE_USAGE if status == "completed" else None,
    }


def response_events(reply: Reply, body: dict[str, Any]) -> Iterator[Any]:
    done = response(reply, body)
    number = iter(range(10_000))

    def event(kind: str, **data: Any) -> dict[str, Any]:
        return {"type": kind, "sequence_number": next(number), **data}

    begun = {**done, "status": "in_progress", "output": [], "usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for index, item in enumerate(done["output"]):
        if item["type"] == "message":
            yield from message_item_events(event, reply, index, item)
        elif item["type"] == "function_call":
            yield event(
                "response.output_item.added",
                output_index=index,
                item={**item, "arguments": "", "status": "in_progress"},
            )
            where = {"item_id": item["id"], "output_index": index}
            for piece in pieces(item["arguments"], reply.chunk):
                yield event("response.function_call_arguments.delta", **where, delta=piece)
            yield event("response.function_call_arguments.done", **where, arguments=item["arguments"], name="send")
            yield event("response.output_item.done", output_index=index, item=item)
        else:
            yield event("response.output_item.added", output_index=index, item={**item, "summary": []})
            where = {"item_id": item["id"], "output_index": index, "summary_index": 0}
            part = item["summary"][0]
            yield event("response.reasoning_summary_part.added", **where, part={**part, "text": ""})
            for piece in pieces(part["text"], reply.chunk):
                yield event("response.reasoning_summary_text.delta", **where, delta=piece)
            yield event("response.reasoning_summary_text.done", **where, text=part["text"])
            yield event("response.reasoning_summary_part.done", **where, part=part)
            yield event("response.output_item.done", output_index=index, item=item)
    yield event("response.completed", response=done)


def message_item_events(event: Any, reply: Reply, index: int, item: dict[str, Any]) -> Iterator[Any]:
    part = item["content"][0]
    where = {"item_id": item["id"], "output_index": index, "content_index": 0}
    yield event("response.output_item.added", output_index=index, item={**item, "content": [], "status": "in_progress"})
    yield event("response.content_part.added", **where, part={**part, "text": ""})
    for piece in pieces(part["text"], reply.chunk):
        yield event("response.output_text.delta", **where, delta=piece, logprobs=[])
    yield event("response.output_text.done", **where, text=part["text"], logprobs=[])
    yield event("response.content_part.done", **where, part=part)
    yield event("response.output_item.done", output_index=index, item=item)


# -- messages --------------------------------------------------------------------------------------------------------


def blocks(reply: Reply) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if reply.reasoning is not None:
        found.append({"type": "thinking", "thinking": reply.reasoning, "signature": "c2ln"})
    if reply.arguments is not None:
        found.append({"type": "tool_use", "id": "toolu_1", "name": "send", "input": json.loads(reply.arguments)})
    else:
        found.append({"type": "text", "text": reply.texts[0], "citations": None})
    return found


def message(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{time.monotonic_ns()}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "m"),
        "content": blocks(reply),
        "stop_reason": "tool_use" if reply.arguments is not None else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 11},
    }


def message_events(reply: Reply, body: dict[str, Any]) -> Iterator[Any]:
    whole = message(reply, body)
    empty = {**whole, "content": [], "stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 1}}
    yield {"type": "message_start", "message": empty}
    yield {"type": "ping"}
    keys = {"text": ("text", "text_delta", "text"), "thinking": ("thinking", "thinking_delta", "thinking")}
    for index, block in enumerate(whole["content"]):
        kind = block["type"]
        key, delta, field_name = keys.get(kind, ("input", "input_json_delta", "partial_json"))
        text = reply.arguments or "" if kind == "tool_use" else block[key]
        start = {**block, key: {} if kind == "tool_use" else "", **({"signature": ""} if kind == "thinking" else {})}
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for piece in pieces(text, reply.chunk):
            yield {"type": "content_block_delta", "index": index, "delta": {"type": delta, field_name: piece}}
        if kind == "thinking":
            signature = {"type": "signature_delta", "signature": block["signature"]}
            yield {"type": "content_block_delta", "index": index, "delta": signature}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 11}}
    yield {"type": "message_stop"}


# -- the server ------------------------------------------------------------------------------------------------------

FORMATS = {
    "/chat/completions": (chat, chat_events),
    "/completions": (legacy, legacy_events),
    "/responses": (response, response_events),
    "/messages": (message, message_events),
    "/rawPredict": (message, message_events),
    "/streamRawPredict": (message, message_events),
    "/invoke": (message, message_events),
}
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
