"""What `guardrail.wrap` adds to a call: wrapped over unwrapped, against a loopback server, under a policy of patterns.

Both clients call in turns, in one process. Every wrapped call judges input and output and makes two decisions durable in
SQLite before it returns. Prints one JSON object with medians and the ratio; a share blocked above 0 would void it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import openai

import guardrail
from guardrail.engine import Guardrail
from guardrail.settings import load_settings

POLICY = """
policy: patterns
classifiers: {insults: {kind: pattern, words: [moron, idiot, imbecile]}}
rules: {insults: {stages: [input, output], weights: {insults: 1.0}, thresholds: {redact: 0.5}}}
"""
ANSWER = "We looked at the logs of last night and found that the backup had started twice, so the disk was full."
CALLS = 300


class Model(BaseHTTPRequestHandler):
    """A model that always says the same."""

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
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patterns.yaml"
        path.write_text(POLICY, encoding="utf8")
        settings = load_settings(overrides={"audit.url": f"sqlite:///{folder}/audit.sqlite"})
        guard = Guardrail(path, settings=settings)
        plain = openai.OpenAI(api_key="none", base_url=url)
        wrapped = guardrail.wrap(openai.OpenAI(api_key="none", base_url=url), guard=guard)

        def call(client: openai.OpenAI, turn: int) -> str:
            question = [{"role": "user", "content": f"Why was the disk full on day {turn}?"}]
            reply = client.chat.completions.create(model="m", messages=question)  # type: ignore[arg-type]
            return reply.choices[0].message.content or ""

        times: dict[str, list[float]] = {"plain": [], "wrapped": []}
        changed = 0
        for turn in range(CALLS + 20):
            sides: list[tuple[str, openai.OpenAI]] = [("plain", plain), ("wrapped", wrapped)]
            for name, client in sides if turn % 2 else sides[::-1]:
                elapsed, said = timed(lambda client=client, turn=turn: call(client, turn))
                changed += said != ANSWER
                if turn >= 20:
                    times[name].append(elapsed)
        judged = statistics.median(timed(lambda: guard.check(ANSWER))[0] for _ in range(200))
        guard.close()
        for client in (plain, wrapped):
            client.close()
    server.shutdown()
    medians = {name: statistics.median(values) for name, values in times.items()}
    report = {
        "benchmark": "wrap",
        "calls": CALLS,
        "changed": changed,
        "plain_us": round(medians["plain"], 1),
        "wrapped_us": round(medians["wrapped"], 1),
        "added_us": round(medians["wrapped"] - medians["plain"], 1),
        "of_which_one_check_us": round(judged, 1),
        "ratio": round(medians["wrapped"] / medians["plain"], 3),
    }
    print(json.dumps(report))


def timed(work: Callable[[], str | object]) -> tuple[float, str | object]:
    """Return microseconds and the result."""
    started = time.perf_counter()
    result = work()
    return (time.perf_counter() - started) * 1e6, result


if __name__ == "__main__":
    main()
