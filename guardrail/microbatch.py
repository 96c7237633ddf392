"""Micro-batches: what several threads want at the same time is done as one batch, without a timer.

Leader and follower: a caller that finds nobody at work takes what is queued and does it as one batch; one that finds a
leader sleeps until it is served or asked to lead. Nobody waits for a timer, and nobody serves others after its own result
is ready. Callers are threads (the engine moves `await` to one), so an event loop never waits here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar, cast


class Rows(Protocol):
    """Results in order, cut by slices: a list, or an array whose first axis is the batch."""

    def __getitem__(self, rows: slice, /) -> Self:
        """Return some of the rows."""


T = TypeVar("T")
R = TypeVar("R", bound=Rows)


@dataclass(slots=True)
class _Job(Generic[T]):
    """What one caller wants, and what came of it."""

    items: Sequence[T]
    wake: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    done: bool = False
    results: Any = None
    error: BaseException | None = None


class MicroBatcher(Generic[T, R]):
    """Do `work` for many threads at once. Thread-safe.

    Args:
        work: a batch of items to one result each, in order.
        limit: most items in a batch; a caller with more has a batch of its own. None: all that is queued.
    """

    def __init__(self, work: Callable[[Sequence[T]], R], limit: int | None = None) -> None:
        self._work, self._limit = work, limit
        self._lock = threading.Lock()
        self._queue: list[_Job[T]] = []
        self._busy = False

    @property
    def waiting(self) -> int:
        """How many callers are queued at the moment."""
        return len(self._queue)

    def __call__(self, items: Sequence[T]) -> R:
        """Return one result per item. What `work` raises for these items is raised here, and nowhere else."""
        job: _Job[T] = _Job(items)
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
        return cast("R", job.results)

    def _sleep(self, job: _Job[T]) -> None:
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
        """Do what is queued, wake its owners, and pass the lead to the first who came meanwhile."""
        with self._lock:
            jobs = self._take()
        try:
            self._serve(jobs)
        finally:
            with self._lock:
                self._pass_lead()
            for job in jobs:
                job.wake.set()

    def _take(self) -> list[_Job[T]]:
        """The oldest jobs that fit one batch; the first always does, and the leader's is the first."""
        if self._limit is None:
            taken, self._queue = self._queue, []
            return taken
        taken = []
        while self._queue and (not taken or sum(len(j.items) for j in [*taken, self._queue[0]]) <= self._limit):
            taken.append(self._queue.pop(0))
        return taken

    def _pass_lead(self) -> None:
        self._busy = bool(self._queue)
        if self._queue:
            self._queue[0].leads = True
            self._queue[0].wake.set()

    def _serve(self, jobs: Sequence[_Job[T]]) -> None:
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
