"""When `record()` returns: `commit`, `spool` or `async`, and what takes over while the database is away.

- `commit`: the records are in the database. With a spool folder, an outage is bridged by the spool: they are on this
  machine's disk then. Nothing that was delivered is lost by a crash of the process or of the machine.
- `spool`: the records are on this machine's disk, and move to the database in the background. Nothing is lost by a crash;
  what has not moved yet is lost with the disk.
- `async`: the records are in memory. A crash loses those of the last moments: at most `ASYNC_LIMIT` decisions, and while
  the database can be reached those of the last `ASYNC_DELAY` seconds and the commit that was under way.

In all of them a process's records reach a community's chain in the order in which they were made, each exactly once.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from guardrail.audit.database import DatabaseAway
from guardrail.audit.group import GroupCommit
from guardrail.audit.spool import GROUP, Spool
from guardrail.audit.writer import Batch, Writer
from guardrail.errors import AuditUnavailable, ConfigurationError
from guardrail.log import Logger

__all__ = ["ASYNC_DELAY", "ASYNC_LIMIT", "MODES", "Recorder"]

log = Logger(__name__)

MODES = ("commit", "spool", "async")
ASYNC_LIMIT = 10_000
"""Decisions that wait in memory under `async`; more make `record()` wait."""

ASYNC_DELAY = 0.2
"""Seconds that decisions wait for company under `async`."""

RETRY = 1.0
"""Seconds between two attempts to reach a database that is away."""


class Recorder:
    """Takes batches and sees to it that they get into the database, each once and in order. Thread-safe.

    Args:
        make_writer: gives the writer, once; raises `DatabaseAway` while the database cannot be opened.
        mode: of `MODES`.
        spool: folder for an outage; None: there is none.
    """

    def __init__(self, make_writer: Callable[[], Writer], mode: str = "commit", spool: Path | None = None) -> None:
        if mode not in MODES:
            raise ConfigurationError(f"audit.durability is {mode!r}, expected one of {', '.join(MODES)}")
        if mode == "spool" and spool is None:
            raise ConfigurationError("audit.durability is 'spool', which needs a folder: set audit.spool")
        self.mode = mode
        self.spool = None if spool is None else Spool(spool)
        self._make_writer = make_writer
        self._writer: Writer | None = None
        self._commits: GroupCommit[Batch] = GroupCommit(self._commit)
        self._database = threading.RLock()  # held by whoever writes: a writer is not for two at once
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._state = threading.Condition()
        self._memory: deque[Batch] = deque()
        self._in_memory = 0  # decisions, those being written included
        self._closing = False
        self._thread: threading.Thread | None = None
        self._old_spool = self.spool is not None and bool(self.spool.waiting())

    def submit(self, batch: Batch, timeout: float) -> None:
        """Return when the batch is as safe as the mode says.

        Raises:
            QueueTimeout, CommitFailed, AuditUnavailable: it is not; see `GroupCommit` and `AuditStore.record`.
        """
        if self._old_spool:  # what a process before us has left behind
            self._start()
        if self.mode == "async":
            self._remember(batch, timeout)
        else:
            self._commits.submit(batch, timeout)

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything taken so far is in the database; return whether it is."""
        if self._settled():
            return True
        self._start()
        self._hurry.set()
        self._wake.set()
        with self._state:
            settled = self._state.wait_for(self._settled, timeout)
        self._hurry.clear()
        return settled

    def close(self, timeout: float = 5.0) -> None:
        """Flush what can be flushed in time. What is in the spool then stays there for the next process."""
        if self._thread is not None:
            if not self.flush(timeout) and self._memory:
                log.error("decisions in memory are lost: the audit database is away", decisions=self._in_memory)
            self._closing = True
            self._hurry.set()
            self._wake.set()
            self._thread.join(timeout)
            self._thread = None
            self._closing = False
        if self.spool is not None:
            self.spool.close()

    # -- before `record()` returns ---------------------------------------------------------------------------------

    def _commit(self, batches: Sequence[Batch]) -> Sequence[Exception | None]:
        """The commit of a group: straight into the database, unless something must go before it."""
        if self.spool is not None and (self.mode == "spool" or not self.spool.empty):
            return self._to_spool(batches)
        with self._database:
            outcomes = self._write(batches)
        if self.spool is None or not any(isinstance(outcome, DatabaseAway) for outcome in outcomes):
            return outcomes
        # The commit may have happened although its answer got lost: draining notices what is there already.
        away = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, DatabaseAway)]
        log.warning("the audit database is away, the spool takes over", why=str(outcomes[away[0]]))
        spooled = self._to_spool([batches[place] for place in away])
        found = list(outcomes)
        for place, outcome in zip(away, spooled, strict=True):
            found[place] = outcome
        return found

    def _to_spool(self, batches: Sequence[Batch]) -> Sequence[Exception | None]:
        assert self.spool is not None  # noqa: S101 - the callers looked
        try:
            self.spool.append(batches)
        except AuditUnavailable as error:
            return [AuditUnavailable(str(error)) for _ in batches]  # one each: threads must not share a traceback
        self._start()
        self._wake.set()
        return [None] * len(batches)

    def _remember(self, batch: Batch, timeout: float) -> None:
        with self._state:
            self._start()
            full = self._in_memory >= ASYNC_LIMIT
            if full and not self._state.wait_for(lambda: self._in_memory < ASYNC_LIMIT, timeout):
                raise AuditUnavailable(
                    f"{self._in_memory} decisions wait in memory for the audit database, which takes none. Nothing was "
                    "recorded. Set audit.spool to a folder that bridges outages."
                )
            self._memory.append(batch)
            self._in_memory += batch.count
        if not self._wake.is_set():  # set, it has not been seen yet: whoever sees it looks into the memory after that
            self._wake.set()

    # -- in the background -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._state:
            if self._thread is None or not self._thread.is_alive():
                self._hurry.clear()
                self._thread = threading.Thread(target=self._run, name="guardrail-audit", daemon=True)
                self._thread.start()
                atexit.register(
                    _at_exit, weakref.ref(self)
                )  # a daemon thread ends with the interpreter, its work must not

    def _settled(self) -> bool:
        return self._in_memory == 0 and (self.spool is None or self.spool.empty) and not self._old_spool

    def _run(self) -> None:
        while not self._closing:
            try:
                self._move()
                pause = 60.0
            except DatabaseAway:
                pause = RETRY
            except Exception as error:  # noqa: BLE001 (the thread must go on; nothing was taken out of the spool)
                log.error("the audit spool could not be drained", error=f"{type(error).__name__}: {error}")
                pause = RETRY
            with self._state:
                self._state.notify_all()
            self._wake.wait(pause)
            self._wake.clear()
            if self.mode == "async":
                self._hurry.wait(ASYNC_DELAY)

    def _move(self) -> None:
        """Empty the spool, then the memory, into the database."""
        if self.spool is not None:
            self.spool.drain(self._write_once)
            self._old_spool = False
        while self._memory:
            group = [self._memory[place] for place in range(min(GROUP, len(self._memory)))]
            made = [batch for batch in group if _made(batch)]
            try:
                outcomes = self._write_once(made) if made else ()
            except DatabaseAway:
                if self.spool is None:
                    raise
                self.spool.append(made)
                self._forget(group)
                raise
            for outcome in outcomes:
                if outcome is not None:
                    log.error("a record was refused by the audit database", why=str(outcome))
            self._forget(group)

    def _forget(self, group: Sequence[Batch]) -> None:
        with self._state:
            for batch in group:
                self._memory.popleft()
                self._in_memory -= batch.count
            self._state.notify_all()

    def _write_once(self, batches: Sequence[Batch]) -> Sequence[Exception | None]:
        """Write those batches that are not there yet; raises `DatabaseAway` if the database cannot be used now."""
        with self._database:
            writer = self._open()
            missing = writer.missing(batches)
            outcomes: list[Exception | None] = [None] * len(batches)
            if missing:
                for place, refused in zip(missing, writer.commit([batches[one] for one in missing]), strict=True):
                    outcomes[place] = refused
        for outcome in outcomes:
            if isinstance(outcome, DatabaseAway):
                raise outcome
        return outcomes

    def _write(self, batches: Sequence[Batch]) -> Sequence[Exception | None]:
        try:
            return self._open().commit(batches)
        except DatabaseAway as error:
            return [DatabaseAway(str(error)) for _ in batches]

    def _open(self) -> Writer:
        if self._writer is None:
            self._writer = self._make_writer()
        return self._writer


def _made(batch: Batch) -> bool:
    """Make the rows of a batch; one that cannot be made must not keep back those behind it."""
    try:
        return bool(batch.rows)
    except Exception as error:  # noqa: BLE001 (a plug-in may put anything into a decision)
        log.error("a record could not be made and is lost", why=f"{type(error).__name__}: {error}")
        return False


def _at_exit(reference: weakref.ref[Recorder]) -> None:
    recorder = reference()
    if recorder is not None:
        recorder.close()
