"""What `guardrail.wrap` adds to a call: wrapped over unwrapped, against a loopback server, under a policy of patterns.

All clients call in turns, in one process. Every wrapped call judges input and output and records two decisions: in SQLite
before it returns (`commit`), on the local disk (`spool`), or in memory (`async`), as `audit.durability` says. `cpu_us` is
processor time, the server's included, which other load on the machine hardly touches; the rest is wall time. Prints one
JSON object with medians and the ratio for `commit`; `changed` above 0 would void it.
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
WARM_UP = 20


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
        clients = {"plain": openai.OpenAI(api_key="none", base_url=url)}
        guards = {}
        for durability in ("commit", "spool", "async"):
            overrides = {
                "audit.url": f"sqlite:///{folder}/{durability}.sqlite",
                "audit.durability": durability,
                "audit.spool": f"{folder}/{durability}-spool",
            }
            guards[durability] = Guardrail(path, settings=load_settings(overrides=overrides))
            clients[durability] = guardrail.wrap(openai.OpenAI(api_key="none", base_url=url), guard=guards[durability])

        def call(client: openai.OpenAI, turn: int) -> str:
            question = [{"role": "user", "content": f"Why was the disk full on day {turn}?"}]
            reply = client.chat.completions.create(model="m", messages=question)  # type: ignore[arg-type]
            return reply.choices[0].message.content or ""

        walls: dict[str, list[float]] = {name: [] for name in clients}
        cpus: dict[str, list[float]] = {name: [] for name in clients}
        changed = 0
        names = list(clients)
        for turn in range(CALLS + WARM_UP):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                wall, cpu, said = timed(lambda name=name, turn=turn: call(clients[name], turn))
                changed += said != ANSWER
                if turn >= WARM_UP:
                    walls[name].append(wall)
                    cpus[name].append(cpu)
        judged = [timed(lambda: guards["commit"].check(ANSWER)) for _ in range(200)]
        for guard in guards.values():
            guard.close()
        for client in clients.values():
            client.close()
    server.shutdown()
    wall = {name: statistics.median(values) for name, values in walls.items()}
    cpu = {name: statistics.median(values) for name, values in cpus.items()}
    report = {
        "benchmark": "wrap",
        "calls": CALLS,
        "changed": changed,
        "plain_us": round(wall["plain"], 1),
        "plain_cpu_us": round(cpu["plain"], 1),
        "added_us": {name: round(wall[name] - wall["plain"], 1) for name in guards},
        "added_cpu_us": {name: round(cpu[name] - cpu["plain"], 1) for name in guards},
        "of_which_one_check_us": round(statistics.median(result[0] for result in judged), 1),
        "of_which_one_check_cpu_us": round(statistics.median(result[1] for result in judged), 1),
        "ratio": round(wall["commit"] / wall["plain"], 3),
    }
    print(json.dumps(report))


def timed(work: Callable[[], str | object]) -> tuple[float, float, str | object]:
    """Return microseconds of wall time and of processor time, and the result."""
    started, busy = time.perf_counter(), time.process_time()
    result = work()
    return (time.perf_counter() - started) * 1e6, (time.process_time() - busy) * 1e6, result


if __name__ == "__main__":
    main()
