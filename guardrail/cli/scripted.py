"""A model that says what a script says, behind a loopback server that speaks the chat completions protocol.

So the demo runs a real client over real HTTP, streams included, with no other machine in it.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from guardrail.errors import MissingDependencyError

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = ["ScriptedModel"]

_WORD = re.compile(r"\s*\S+\s*")


class ScriptedModel:
    """Answers the n-th call with the n-th reply, on `url`, between `__enter__` and `__exit__`.

    Args:
        replies: what it says, in order; a call beyond the last one is answered with status 400.
        pause: seconds between two words of a streamed reply.
    """

    def __init__(self, replies: Sequence[str], *, pause: float = 0.0) -> None:
        self.pause = pause
        self.sent: list[tuple[float, str]] = []  # words of streamed replies, with `time.perf_counter()`
        self.calls: list[dict[str, Any]] = []  # the requests as they arrived
        self._replies = tuple(replies)
        self._lock = threading.Lock()
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """What a client takes as its `base_url`."""
        if self._server is None:
            raise RuntimeError("the scripted model is not running; use it in a `with` statement")
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def client(self) -> OpenAI:
        """A client of this model.

        Raises:
            MissingDependencyError: the openai package is not installed.
        """
        if find_spec("openai") is None:
            raise MissingDependencyError("openai", extra="openai", purpose="A client of the scripted model")
        import openai

        direct = openai.DefaultHttpxClient(trust_env=False)  # a proxy has no way to this machine's loopback
        return openai.OpenAI(base_url=self.url, api_key="none-needed", max_retries=0, http_client=direct)

    def __enter__(self) -> Self:
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, name="scripted-model", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def reply_to(self, request: dict[str, Any]) -> str | None:
        """The next reply of the script, or None at its end."""
        with self._lock:
            self.calls.append(request)
            place = len(self.calls) - 1
        return self._replies[place] if place < len(self._replies) else None

    def words(self, reply: str) -> Iterator[str]:
        """The words of a reply, one by one, at the model's pace."""
        for word in _WORD.findall(reply):
            time.sleep(self.pause)
            self.sent.append((time.perf_counter(), word))
            yield word


class _Server(ThreadingTCPServer):
    """Not `HTTPServer`: that one asks the name service for its own name."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, model: ScriptedModel) -> None:
        self.model = model
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """One connection: chat completions, whole or as a stream of server-sent events."""

    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.path.endswith("/chat/completions"):
            return self._send_json(404, {"error": {"message": f"no such path: {self.path}"}})
        request = json.loads(body)
        reply = self.server.model.reply_to(request)
        if reply is None:
            return self._send_json(400, {"error": {"message": "the script is over"}})
        if request.get("stream"):
            return self._send_stream(reply)
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return self._send_json(200, self._envelope("chat.completion", choice))

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""

    def _envelope(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        number = len(self.server.model.calls)
        return {"id": f"chatcmpl-{number}", "object": kind, "created": 0, "model": "script", "choices": [choice]}

    def _send_json(self, status: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_stream(self, reply: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for word in self.server.model.words(reply):
            self._send_event({"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": word}})
        self._send_event({"index": 0, "finish_reason": "stop", "delta": {}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _send_event(self, choice: dict[str, Any]) -> None:
        document = json.dumps(self._envelope("chat.completion.chunk", choice))
        self.wfile.write(f"data: {document}\n\n".encode())
        self.wfile.flush()
