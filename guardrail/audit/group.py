"""Group commit: while one thread waits for the disk, the others' work piles up and goes into the next commit together.

The first thread to arrive leads: it takes everything that waits, writes it in one transaction, wakes its owners and
hands the lead to the next in line. There is no background thread, so nothing outlives a call and nothing is lost at
exit: a call returns only when its own work is on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["GroupCommit", "QueueTimeout"]

Work = TypeVar("Work")

MAX_GROUP = 256
"""Calls in one commit. It bounds how long the first of them waits."""


class QueueTimeout(Exception):
    """The work did not get its turn in time. It was not written."""


class _Ticket(Generic[Work]):
    __slots__ = ("done", "error", "leads", "signal", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.signal = threading.Event()  # set when `done` or `leads` becomes True
        self.done = False
        self.leads = False
        self.error: BaseException | None = None


class GroupCommit(Generic[Work]):
    """Turns many threads' `submit(work)` into few calls of `commit(works)`, never two of them at once.

    Args:
        commit: writes all works or raises; returns one outcome per work: None, or the exception of that work alone.
    """

    def __init__(self, commit: Callable[[Sequence[Work]], Sequence[BaseException | None]]) -> None:
        self._commit = commit
        self._mutex = threading.Lock()
        self._waiting: list[_Ticket[Work]] = []
        self._led = False

    def submit(self, work: Work, timeout: float) -> None:
        """Return when `work` is committed.

        Args:
            timeout: seconds to wait for a turn; the commit itself is bounded by `commit`.

        Raises:
            QueueTimeout: no turn in time.
            BaseException: what `commit` raised or returned for this work.
        """
        ticket = _Ticket(work)
        with self._mutex:
            self._waiting.append(ticket)
            if not self._led:
                self._led = ticket.leads = True
        if not ticket.leads:
            self._wait(ticket, timeout)
        if ticket.leads and not ticket.done:
            self._lead()
        if ticket.error is not None:
            raise ticket.error

    def _wait(self, ticket: _Ticket[Work], timeout: float) -> None:
        try:
            if ticket.signal.wait(timeout):
                return
            with self._mutex:
                if ticket.leads:
                    return
                if ticket in self._waiting:
                    raise QueueTimeout  # noqa: TRY301 - leaves the line below, like every other way out
            ticket.signal.wait()  # a leader is writing it at this moment: the outcome comes, and it is the truth
        except BaseException:  # an interrupt too: the line must not wait for a thread that has left
            with self._mutex:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                if ticket.leads:
                    self._hand_over()
            raise

    def _lead(self) -> None:
        with self._mutex:
            group = self._waiting[:MAX_GROUP]
            del self._waiting[:MAX_GROUP]
        outcomes: Sequence[BaseException | None] = ()
        try:
            outcomes = self._commit([ticket.work for ticket in group])
        except BaseException as error:
            outcomes = [error] * len(group)
            if not isinstance(error, Exception):  # an interrupt belongs to this thread; the others get an error
                raise
        finally:
            with self._mutex:
                self._hand_over()
            for index, ticket in enumerate(group):
                ticket.error = outcomes[index] if index < len(outcomes) else QueueTimeout()
                ticket.done = True
                ticket.signal.set()

    def _hand_over(self) -> None:
        """Make the next in line the leader. The mutex is held."""
        if not self._waiting:
            self._led = False
            return
        heir = self._waiting[0]
        heir.leads = True
        heir.signal.set()
