"""The DGLM as a rewriter: batches across threads, cancellation, and an event loop that goes on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from guardrail.dglm.plans import Proposed, SpanRequest
from guardrail.errors import RewriteFailure
from guardrail.rewrite import dglm
from guardrail.rewrite.base import RewriteRequest
from guardrail.rewrite.dglm import DGLMRewriter


class FakePipeline:
    """Upper-cases; keeps the sizes of its batches. Slow, so that calls meet."""

    sha256 = "0" * 64
    encoder = SimpleNamespace(device="cpu")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def rewrite_many(self, requests: Sequence[SpanRequest]) -> list[list[Proposed]]:
        self.batches.append(len(requests))
        time.sleep(0.05)
        return [[] if r.cancelled() else [Proposed(r.text.upper(), -1.0)] for r in requests]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    fake = FakePipeline()
    monkeypatch.setattr(dglm, "load_pipeline", lambda *names: fake)
    return fake


def test_calls_of_many_threads_share_batches_and_the_event_loop_goes_on(pipeline: FakePipeline) -> None:
    rewriter = DGLMRewriter("mini", "encoder", "cpu")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    async def run() -> list[list[list[str]]]:
        clock = asyncio.create_task(tick())
        calls = [asyncio.to_thread(rewriter.propose, [RewriteRequest(f"text {n}")]) for n in range(12)]
        found = await asyncio.gather(*calls)
        clock.cancel()
        return [[[row.text for row in rows] for rows in own] for own in found]

    assert asyncio.run(run()) == [[[f"TEXT {n}"]] for n in range(12)]
    assert sum(pipeline.batches) == 12
    assert len(pipeline.batches) < 12
    assert max(pipeline.batches) <= 8
    assert ticks > 5


def test_a_cancelled_call_fails_and_its_neighbours_do_not(pipeline: FakePipeline) -> None:
    rewriter = DGLMRewriter("mini", "encoder", "cpu")
    stop = threading.Event()
    outcomes: dict[str, object] = {}

    def call(name: str, request: RewriteRequest) -> None:
        try:
            outcomes[name] = rewriter.propose([request])[0][0].text
        except RewriteFailure as error:
            outcomes[name] = str(error)

    threads = [
        threading.Thread(target=call, args=("first", RewriteRequest("one"))),
        threading.Thread(target=call, args=("stopped", RewriteRequest("two", cancelled=stop.is_set))),
        threading.Thread(target=call, args=("third", RewriteRequest("three"))),
    ]
    stop.set()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert outcomes["first"] == "ONE"
    assert outcomes["third"] == "THREE"
    assert "cancelled" in str(outcomes["stopped"])


def test_the_fingerprint_is_that_of_the_checkpoint(pipeline: FakePipeline) -> None:
    assert DGLMRewriter("mini", "encoder", "cpu").fingerprint == "sha256:" + "0" * 64
    assert pipeline.batches == []
