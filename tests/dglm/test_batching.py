"""Micro-batches across threads, and what happens out of memory."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from guardrail.dglm.batching import MicroBatcher, within_memory


class Slow:
    """Doubles numbers, slowly; keeps the batches that it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Event()
        self.go = threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        self.started.set()
        assert self.go.wait(10)
        if any(item < 0 for item in items):
            raise ValueError(f"negative: {items}")
        return [2 * item for item in items]


def gathered(batcher: MicroBatcher[int, int], work: Slow, calls: list[list[int]]) -> list[object]:
    """Start a first call, queue the others behind it, then let all of them go; results or errors in order."""

    def call(items: list[int]) -> object:
        try:
            return batcher(items)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call, calls[0])]
        assert work.started.wait(10)
        for items in calls[1:]:
            futures.append(pool.submit(call, items))
        for _ in range(500):
            if len(batcher._queue) == len(calls) - 1:
                break
            time.sleep(0.01)
        work.go.set()
        return [future.result(10) for future in futures]


def test_what_waits_is_done_as_one_batch_up_to_the_limit() -> None:
    work = Slow()
    results = gathered(MicroBatcher(work, limit=4), work, [[1], [2, 3], [4], [5, 6], [7]])
    assert sorted(map(tuple, results)) == [(2,), (4, 6), (8,), (10, 12), (14,)]
    assert len(work.batches[0]) == 1
    assert len(work.batches) < 5
    assert max(map(len, work.batches)) <= 4


def test_one_callers_trouble_is_not_the_others() -> None:
    work = Slow()
    results = gathered(MicroBatcher(work, limit=16), work, [[1], [2], [-3], [4]])
    assert [results[0], results[1], results[3]] == [[2], [4], [8]]
    assert isinstance(results[2], ValueError)


def test_an_oversized_call_and_an_empty_one_have_their_way() -> None:
    work = Slow()
    work.go.set()
    batcher = MicroBatcher(work, limit=2)
    assert batcher(range(5)) == [0, 2, 4, 6, 8]
    assert batcher([]) == []
    assert batcher([1]) == [2]  # nobody is left thought to be at work


def test_an_interrupt_frees_the_lead() -> None:
    def interrupted(items):
        raise KeyboardInterrupt

    batcher: MicroBatcher[int, int] = MicroBatcher(interrupted, limit=4)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            batcher([1])


def test_out_of_memory_halves_the_batch_and_ends_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []
    on_cpu: list[int] = []

    def work(items):
        sizes.append(len(items))
        if len(items) > 2 or 7 in items:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [10 * item for item in items]

    def fallback(items):
        on_cpu.extend(items)
        return [10 * item for item in items]

    with caplog.at_level("WARNING"):
        assert within_memory(work, list(range(8)), fallback) == [10 * item for item in range(8)]
    assert sizes[:3] == [8, 4, 2]
    assert on_cpu == [7]
    assert "smaller batch" in caplog.text
    assert "CPU" in caplog.text


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    def work(items):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        within_memory(work, [1, 2], lambda items: [0 for _ in items])
