"""Micro-batches across threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from guardrail.microbatch import MicroBatcher


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


def gathered(batcher: MicroBatcher[int, list[int]], work: Slow, calls: list[list[int]]) -> list[object]:
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
            if batcher.waiting == len(calls) - 1:
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

    batcher: MicroBatcher[int, list[int]] = MicroBatcher(interrupted, limit=4)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            batcher([1])


def test_results_may_be_the_rows_of_an_array_and_all_that_waits_is_one_batch() -> None:
    work = Slow()
    batcher = MicroBatcher(lambda items: np.array(work(items)))
    results = gathered(batcher, work, [[1], [2, 3], [], [4]])
    assert [own.tolist() for own in results] == [[2], [4, 6], [], [8]]
    assert len(work.batches) == 2
