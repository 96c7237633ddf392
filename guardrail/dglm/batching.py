"""Micro-batches: what several threads want at the same time is done as one batch, without a timer.

Leader and follower, as in `guardrail.encoder`: a caller that finds nobody at work takes everything that is queued and
does it; one that finds a leader sleeps until it is served or asked to lead. Callers are threads (the engine moves
`await` to one), so an event loop never waits here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from guardrail.log import Logger

T = TypeVar("T")
R = TypeVar("R")

log = Logger(__name__)


@dataclass(slots=True)
class _Job(Generic[T, R]):
    """What one caller wants, and what came of it."""

    items: Sequence[T]
    wake: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    done: bool = False
    results: list[R] = field(default_factory=list)
    error: BaseException | None = None


class MicroBatcher(Generic[T, R]):
    """Do `work` for many threads at once. Thread-safe.

    Args:
        work: a batch of items to one result each, in order.
        limit: most items in a batch; a caller with more has a batch of its own.
    """

    def __init__(self, work: Callable[[Sequence[T]], list[R]], limit: int) -> None:
        self._work, self._limit = work, limit
        self._lock = threading.Lock()
        self._queue: list[_Job[T, R]] = []
        self._busy = False

    def __call__(self, items: Sequence[T]) -> list[R]:
        """Return one result per item. What `work` raises for these items is raised here, and nowhere else."""
        job: _Job[T, R] = _Job(items)
        with self._lock:
            self._queue.append(job)
            job.leads = not self._busy
            self._busy = True
        if not job.leads:
            self._sleep(job)
        if not job.done:
            self._lead()
        if job.error is not None:
            raise job.error
        return job.results

    def _sleep(self, job: _Job[T, R]) -> None:
        try:
            job.wake.wait()
        except BaseException:  # interrupted: whoever waits behind must not wait for this caller
            with self._lock:
                if job in self._queue:
                    self._queue.remove(job)
                if job.leads and not job.done:
                    self._pass_lead()
            raise

    def _lead(self) -> None:
        with self._lock:
            jobs = self._take()
        try:
            self._serve(jobs)
        finally:
            with self._lock:
                self._pass_lead()
            for job in jobs:
                job.wake.set()

    def _take(self) -> list[_Job[T, R]]:
        """The oldest jobs that fit one batch; the first always does, and the leader's is the first."""
        taken: list[_Job[T, R]] = []
        while self._queue and (not taken or sum(len(j.items) for j in [*taken, self._queue[0]]) <= self._limit):
            taken.append(self._queue.pop(0))
        return taken

    def _pass_lead(self) -> None:
        self._busy = bool(self._queue)
        if self._queue:
            self._queue[0].leads = True
            self._queue[0].wake.set()

    def _serve(self, jobs: Sequence[_Job[T, R]]) -> None:
        try:
            results = self._work([item for job in jobs for item in job.items])
        except BaseException as error:
            if len(jobs) > 1 and isinstance(error, Exception):
                for job in jobs:
                    self._serve([job])  # one caller's trouble is not the others'
                return
            for job in jobs:
                job.error, job.done = error, True
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for job in jobs:
            job.results, job.done = results[start : start + len(job.items)], True
            start += len(job.items)


def within_memory(
    work: Callable[[Sequence[T]], list[R]], items: Sequence[T], fallback: Callable[[Sequence[T]], list[R]]
) -> list[R]:
    """Run `work` on all items; out of GPU memory, on halves of them, and on what does not fit alone run `fallback`.

    Args:
        work: a batch of items to one result each, in order; may raise `torch.OutOfMemoryError`.
        fallback: the same on the CPU.
    """
    try:
        return work(items)
    except torch.OutOfMemoryError:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if len(items) > 1:
        log.warning("out of GPU memory: a smaller batch is tried", rows=len(items))
        half = len(items) // 2
        return within_memory(work, items[:half], fallback) + within_memory(work, items[half:], fallback)
    log.warning("out of GPU memory with one row: it is written on the CPU")
    return fallback(items)
