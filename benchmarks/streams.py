"""What holding a stream costs: guarded over unguarded, at 50 tokens a second, in each mode; then 200 streams at once.

A model server in a process of its own sends a reply of short sentences, a token every 20 ms. One client reads it unguarded,
others through `guardrail.wrap` under a policy of patterns, every sentence made durable in SQLite before it leaves; all at
the same time, so that whatever else the machine does falls on each alike. Prints one JSON object; `changed` above 0 would
void it. The 200 streams are read by one process, unguarded and guarded, and compared event by event with what was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

import guardrail
from guardrail.engine import Guardrail
from guardrail.settings import load_settings

POLICY = """
policy: patterns
classifiers: {insults: {kind: pattern, words: [moron, idiot, imbecile]}}
rules: {insults: {stages: [input, output], weights: {insults: 1.0}, thresholds: {redact: 0.5}}}
"""
RATE = 50.0
SENTENCE = ("We ", "found ", "that ", "item {} ", "had ", "started ", "twice ", "in ", "the ", "night. ")
PARAGRAPH = 4  # sentences


def tokens_of(stream: int, count: int) -> list[str]:
    """The reply of one stream: sentences of ten tokens, numbered, so that a lost or misplaced one shows."""
    out = []
    for number in range(count // len(SENTENCE)):
        words = [word.format(f"{stream}-{number}") for word in SENTENCE]
        if number % PARAGRAPH == PARAGRAPH - 1:
            words[-1] = "night.\n\n"
        out += words
    return out


def serve(ready: Any) -> None:
    """A model: `max_tokens` tokens at `temperature` per second, the reply of stream `seed`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-le")
        )
        body = json.loads(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        began = time.perf_counter()
        common = {"id": f"c-{body['seed']}", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        for count, token in enumerate(tokens_of(body["seed"], body["max_tokens"]), 1):
            choice = {"index": 0, "delta": {"content": token}, "finish_reason": None}
            await asyncio.sleep(max(0.0, began + count / body["temperature"] - time.perf_counter()))
            writer.write(b"data: " + json.dumps({**common, "choices": [choice]}).encode() + b"\n\n")
            await writer.drain()
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        writer.write(b"data: " + json.dumps({**common, "choices": [end]}).encode() + b"\n\ndata: [DONE]\n\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def read(client: openai.AsyncOpenAI, stream: int, count: int, rate: float) -> dict[str, Any]:
    """One stream to its end: when its first text and its end came, and whether it is what was sent."""
    began = time.perf_counter()
    question: Any = [{"role": "user", "content": f"What happened in the night of day {stream}?"}]
    chunks: Any = await client.chat.completions.create(
        model="m", messages=question, stream=True, seed=stream, max_tokens=count, temperature=rate
    )
    first, parts = 0.0, []
    async for chunk in chunks:
        text = chunk.choices[0].delta.content
        if text:
            first = first or time.perf_counter() - began
            parts.append(text)
    outcome = guardrail.outcome(chunks)
    return {
        "first": first,
        "total": time.perf_counter() - began,
        "changed": parts != tokens_of(stream, count),
        "held": outcome.stream_ms if outcome is not None else {},
    }


def client_at(port: int, guard: Guardrail | None) -> openai.AsyncOpenAI:
    client = openai.AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0, timeout=300)
    return client if guard is None else guardrail.wrap(client, guard=guard)


async def modes(port: int, guards: dict[str, Guardrail | None], count: int, rounds: int) -> dict[str, Any]:
    """Each mode beside the unguarded stream, at 50 tokens a second."""
    clients = {name: client_at(port, guard) for name, guard in guards.items()}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in guards}
    for turn in range(rounds + 1):
        results = await asyncio.gather(*(read(client, turn, count, RATE) for client in clients.values()))
        for name, result in zip(clients, results, strict=True):
            if turn:  # the first round warms up
                found[name].append(result)
    for client in clients.values():
        await client.close()
    plain = {key: statistics.median(result[key] for result in found["none"]) for key in ("first", "total")}
    report: dict[str, Any] = {"changed": sum(result["changed"] for results in found.values() for result in results)}
    for name, results in found.items():
        first, total = (statistics.median(result[key] for result in results) for key in ("first", "total"))
        report[name] = {"first_text_ms": round(first * 1e3, 1), "total_ratio": round(total / plain["total"], 4)}
        if name != "none":
            report[name]["added_first_text_ms"] = round((first - plain["first"]) * 1e3, 1)
            report[name]["delay_per_batch_ms"] = round(
                statistics.median(result["held"]["delay_mean"] for result in results), 2
            )
    return report


async def many(port: int, guard: Guardrail | None, streams: int, count: int, rate: float) -> dict[str, Any]:
    """Many streams at once through one client."""
    client = client_at(port, guard)
    began, busy = time.perf_counter(), time.process_time()
    results = await asyncio.gather(*(read(client, stream, count, rate) for stream in range(streams)))
    elapsed, busy = time.perf_counter() - began, time.process_time() - busy
    await client.close()
    return {
        "changed": sum(result["changed"] for result in results),
        "seconds": round(elapsed, 2),
        "cpu_seconds": round(busy, 2),
        "median_total": round(statistics.median(result["total"] for result in results), 2),
        "slowest_total": round(max(result["total"] for result in results), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200, help="per reply (default 200: four seconds)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=10.0, help="tokens a second of each of the many streams")
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patterns.yaml"
        path.write_text(POLICY, encoding="utf8")
        guards: dict[str, Guardrail | None] = {"none": None}
        for hold in ("sentence", "paragraph", "all"):
            overrides = {"audit.url": f"sqlite:///{folder}/{hold}.sqlite", "stream.hold": hold}
            guards[hold] = Guardrail(path, settings=load_settings(overrides=overrides))
        report: dict[str, Any] = {"benchmark": "streams", "tokens_per_second": RATE, "tokens": options.tokens}
        report["modes"] = asyncio.run(modes(port, guards, options.tokens, options.rounds))
        report["streams"] = options.streams
        count = options.tokens // 2
        for name, guard in (("unguarded", None), ("guarded", guards["sentence"])):
            report[name] = asyncio.run(many(port, guard, options.streams, count, options.rate))
        report["ratio"] = report["modes"]["sentence"]["total_ratio"]
        for guard in guards.values():
            if guard is not None:
                guard.close()
    server.terminate()
    server.join()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
