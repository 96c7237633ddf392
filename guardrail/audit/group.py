"""Group commit: while one thread waits for the disk, the others' work piles up and goes into the next commit together.

The first thread to arrive leads: it takes everything that waits, writes it in one transaction, wakes its owners and
hands the lead to the next in line. There is no background thread, so nothing outlives a call and nothing is lost at
exit: a call returns only when its own work is on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["CommitFailed", "GroupCommit", "QueueTimeout"]

Work = TypeVar("Work")

LINGER = 0.002
"""Seconds that a leader waits for company, if the last commit had any."""

MAX_GROUP = 256
"""Calls in one commit. It bounds how long the first of them waits."""


class QueueTimeout(Exception):
    """The work did not get its turn in time. It was not written."""


class CommitFailed(Exception):
    """The commit of a group broke off unexpectedly. Whether the work was written is unknown."""


class _Ticket(Generic[Work]):
    __slots__ = ("done", "error", "leads", "signal", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.signal = threading.Lock()  # released once, when `done` or `leads` becomes True; half the price of an Event
        self.signal.acquire()
        self.done = False
        self.leads = False
        self.error: Exception | None = None


class GroupCommit(Generic[Work]):
    """Turns many threads' `submit(work)` into few calls of `commit(works)`, never two of them at once.

    Args:
        commit: writes all works or raises; returns one outcome per work: None, or the exception of that work alone.
    """

    def __init__(self, commit: Callable[[Sequence[Work]], Sequence[Exception | None]]) -> None:
        self._commit = commit
        self._mutex = threading.Lock()
        self._waiting: list[_Ticket[Work]] = []
        self._led = False
        self._last = 1  # calls in the last commit
        self._wanted = 0  # how many waiting calls end the leader's linger; 0: it does not linger
        self._enough = threading.Event()

    def submit(self, work: Work, timeout: float) -> None:
        """Return when `work` is committed.

        Args:
            timeout: seconds to wait for a turn; the commit itself is bounded by `commit`.

        Raises:
            QueueTimeout: no turn in time.
            CommitFailed: `commit` raised.
            Exception: what `commit` returned for this work.
        """
        ticket = _Ticket(work)
        with self._mutex:
            self._waiting.append(ticket)
            if len(self._waiting) == self._wanted:
                self._enough.set()
            if not self._led:
                self._led = ticket.leads = True
        if not ticket.leads:
            self._wait(ticket, timeout)
        if ticket.leads and not ticket.done:
            self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error

    def _wait(self, ticket: _Ticket[Work], timeout: float) -> None:
        try:
            if ticket.signal.acquire(timeout=timeout):
                return
            with self._mutex:
                if ticket.leads:
                    return
                if ticket in self._waiting:
                    raise QueueTimeout  # noqa: TRY301 - leaves the line below, like every other way out
            ticket.signal.acquire()  # a leader is writing it at this moment: the outcome comes, and it is the truth
        except BaseException:  # an interrupt too: the line must not wait for a thread that has left
            with self._mutex:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                if ticket.leads:
                    self._hand_over()
            raise

    def _gather(self) -> list[_Ticket[Work]]:
        """Take what waits. The calls of the last commit have only just returned: give those that call again at once a
        moment to do so, or every other commit would be made for one early call."""
        with self._mutex:
            if len(self._waiting) < self._last:
                self._wanted = self._last
                self._enough.clear()
        if self._wanted:
            try:
                self._enough.wait(LINGER)
            finally:
                self._wanted = 0
        with self._mutex:
            group = self._waiting[:MAX_GROUP]
            del self._waiting[:MAX_GROUP]
            self._last = len(group)
            return group

    def _lead(self, own: _Ticket[Work]) -> None:
        group: list[_Ticket[Work]] = []
        cause: BaseException | None = None
        try:
            group = self._gather()
            for ticket, outcome in zip(group, self._commit([ticket.work for ticket in group]), strict=True):
                ticket.error = outcome
                ticket.done = True
        except BaseException as error:
            cause = error
            if not isinstance(error, Exception):  # an interrupt belongs to this thread alone
                raise
        finally:
            with self._mutex:
                if own in self._waiting:  # interrupted before anything was taken
                    self._waiting.remove(own)
                self._hand_over()
            for ticket in group:
                if not ticket.done:
                    ticket.error = CommitFailed(f"{type(cause).__name__}: {cause}")
                    ticket.error.__cause__ = cause
                    ticket.done = True
                if not ticket.leads:
                    ticket.signal.release()

    def _hand_over(self) -> None:
        """Make the next in line the leader. The mutex is held."""
        if not self._waiting:
            self._led = False
            return
        heir = self._waiting[0]
        heir.leads = True
        heir.signal.release()
