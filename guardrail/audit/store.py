"""The audit store. `record()` returns when the decisions are on disk, and only then may their texts be delivered."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from guardrail.audit.database import DatabaseAway, configure, describe, make_engine, sqlite_file, unavailable
from guardrail.audit.durability import Recorder
from guardrail.audit.escaping import identifier
from guardrail.audit.group import CommitFailed, QueueTimeout
from guardrail.audit.masking import Masker
from guardrail.audit.query import Filters, Page, StoredDecision, find, find_ids, read
from guardrail.audit.rows import DecisionRows, Keeping, prepare
from guardrail.audit.sealing import install, make_seals
from guardrail.audit.writer import Batch, Writer, policy_row
from guardrail.errors import AuditUnavailable, ConfigurationError
from guardrail.types import Action, Decision, Stage, State

if TYPE_CHECKING:
    from guardrail.audit.verify import Verification
    from guardrail.policy.loader import Policy

__all__ = ["AuditStore", "Page", "StoredDecision", "open_store"]


class AuditStore:
    """Decisions in a database, durable, chained and readable. Safe to share between threads and after a fork.

    The constructor opens nothing. The tables must be those of this version: `open_store` sees to that.

    Args:
        engine: from `guardrail.audit.database.make_engine`; another engine is configured like one.
        store_text: False keeps salted digests, lengths and spans of texts, but no text.
        timeout: seconds that `record` waits for a lock or a connection.
        keeping: what of a decision is kept; wins over `store_text`.
        durability, spool: see `guardrail.audit.durability`.
        ready: called once before the first record; raises while the database is away or not migrated.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        store_text: bool = True,
        timeout: float = 5.0,
        keeping: Keeping | None = None,
        durability: str = "commit",
        spool: Path | None = None,
        ready: Callable[[], None] | None = None,
    ) -> None:
        configure(engine)
        self.engine = engine
        self.keeping = keeping or Keeping(text=store_text)
        install(engine, self.keeping.seals)
        self.timeout = timeout
        self._durability, self._spool, self._ready = durability, spool, ready
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self.recorder = Recorder(self._writer, self._durability, self._spool)

    def _writer(self) -> Writer:
        if self._ready is not None:
            self._ready()
        return Writer(self.engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(
        self,
        decisions: Sequence[Decision],
        *,
        policy: Policy,
        community: str,
        conversation: str | None = None,
        subject: str | None = None,
    ) -> None:
        """Write decisions and the revision of their policy in one transaction; on return they survive a crash.

        (Under `durability: async` they survive it a moment later.)

        Concurrent calls share a commit. All decisions of a call are written or none.

        Args:
            decisions: in the order in which they were made; that is their order in the community's hash chain.
            policy: the policy that made them.
            community: whose chain they join.
            conversation: what ties decisions of several calls together, if the caller knows it.
            subject: whose texts these are, if the caller knows it; see `guardrail.audit.erasure`.

        Raises:
            AuditUnavailable: they could not be made durable within `timeout` seconds (twice that, if the call had to
                queue behind others that failed), one of them is already on record, or one makes no sense. Nothing of
                this call is stored, unless the database went away during the very commit: then it is unknown, and the
                texts must not be delivered either way.
        """
        if not decisions:
            return
        if os.getpid() != self._process:  # connections and locks must not be shared with the parent process
            self.engine.dispose(close=False)
            if self.recorder.spool is not None:
                self.recorder.spool.forget_after_fork()
            self._start()

        def rows() -> list[DecisionRows]:
            return [
                prepare(decision, community=community, conversation=conversation, subject=subject, keeping=self.keeping)
                for decision in decisions
            ]

        # Under `async` the thread that writes makes the rows too; a decision that makes no sense is refused at once.
        later = self.recorder.mode == "async" and all(math.isfinite(decision.risk) for decision in decisions)
        row = policy_row(policy, decisions)
        batch = Batch(rows if later else rows(), row, time.monotonic() + self.timeout, len(decisions))
        try:
            self.recorder.submit(batch, self.timeout)
        except QueueTimeout:
            raise AuditUnavailable(
                f"{describe(self.engine.url)} took no record within {self.timeout:g} s: other records were in front of "
                "this one. Nothing was recorded. Use a faster disk, or PostgreSQL."
            ) from None
        except CommitFailed as error:
            raise AuditUnavailable(
                f"{describe(self.engine.url)}: the commit broke off, so the texts must not be delivered: {error}"
            ) from error

    def get(self, id: str) -> StoredDecision | None:  # noqa: A002 - the name of the column
        """Return one decision with its scores, reasons and every rewrite candidate; None where there is none.

        Raises:
            AuditUnavailable: the database cannot be read.
        """
        try:
            with self.engine.connect() as connection:
                return read(connection, identifier(id))
        except SQLAlchemyError as error:
            raise unavailable(error, self.engine.url, "read") from error

    def find_ids(self, beginning: str, *, limit: int = 5) -> Sequence[str]:
        """Return up to `limit` ids that begin so, for people who do not type the whole of one.

        Raises:
            AuditUnavailable: the database cannot be read.
        """
        try:
            with self.engine.connect() as connection:
                return find_ids(connection, beginning, limit)
        except SQLAlchemyError as error:
            raise unavailable(error, self.engine.url, "read") from error

    def list(
        self,
        *,
        community: str | None = None,
        rule: str | None = None,
        action: Action | str | None = None,
        state: State | str | None = None,
        stage: Stage | str | None = None,
        min_risk: float | None = None,
        max_risk: float | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        request_id: str | None = None,
        conversation: str | None = None,
        reviewer: str | None = None,
        subject: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """Return the newest decisions that match every filter given, newest first.

        Args:
            rule: only decisions for which this rule gave a reason.
            min_risk, max_risk: both inclusive.
            since, until: aware datetimes; from `since` on, before `until`.
            text: words of the source or delivered text; see `guardrail.audit.search`.
            reviewer: only decisions that this person has reviewed.
            subject: only texts of this person.
            limit: 1 to 500.
            after: the `next` of the page before.

        Raises:
            ConfigurationError: a filter that makes no sense.
            AuditUnavailable: the database cannot be read.
        """
        filters = Filters(
            community, rule, action, state, stage, min_risk, max_risk, since, until, text, request_id, conversation,
            reviewer, subject,
        )  # fmt: skip
        try:
            with self.engine.connect() as connection:
                return find(connection, filters, limit=limit, after=after)
        except SQLAlchemyError as error:
            raise unavailable(error, self.engine.url, "read") from error

    def verify(self, community: str | None = None) -> Verification:
        """Recompute the hash chains (of one community, or of all) and say which rows were altered, removed, inserted.

        Raises:
            AuditUnavailable: the database cannot be read.
        """
        from guardrail.audit.verify import verify

        try:
            with self.engine.connect() as connection:
                return verify(connection, None if community is None else identifier(community))
        except SQLAlchemyError as error:
            raise unavailable(error, self.engine.url, "verified") from error

    def close(self) -> None:
        """Write what waits in memory or in the spool, as far as that is possible in time, and close all connections."""
        if os.getpid() == self._process:
            self.recorder.close(self.timeout)
        self.engine.dispose()


def open_store(
    url: str,
    *,
    store_text: bool = True,
    store_embeddings: bool = False,
    mask: Sequence[str] = (),
    timeout: float = 5.0,
    create: bool = True,
    durability: str = "commit",
    spool: Path | None = None,
    encryption_key: str | None = None,
) -> AuditStore:
    """Return the store at `url`, ready to record.

    An SQLite file is made and migrated where needed, safely if several processes do so at once. PostgreSQL is never
    migrated by the way: that is `guardrail db upgrade`.

    Args:
        url: `sqlite:///FILE`, `sqlite://` (in memory) or `postgresql://USER:PASSWORD@HOST/DATABASE`.
        store_text, timeout: see `AuditStore`.
        store_embeddings: keep the vectors that were judged.
        mask: kinds of personal data to blank out, see `guardrail.audit.masking`.
        durability, spool: see `guardrail.audit.durability`.
        encryption_key: encrypts texts, see `guardrail.audit.sealing.make_seals`; None: they are stored as they are.
        create: False refuses an SQLite file that does not exist, for commands that only read.

    Raises:
        ConfigurationError: a URL that is none, a database that is not migrated, newer than this code, or not ours.
        MissingDependencyError: PostgreSQL without its driver, a key without `cryptography`.
        AuditUnavailable: the database cannot be opened: locked, away, read-only, damaged, full, a directory.
    """
    seals = make_seals(encryption_key)
    engine = make_engine(url, timeout=timeout)
    file = sqlite_file(engine.url)
    if file is not None and not create and not file.exists():
        raise ConfigurationError(f"there is no audit store at {str(file)!r}. Name one with --url or audit.url.")

    def ready() -> None:
        if engine.dialect.name == "sqlite":
            _ensure_migrated(engine, timeout)
        else:
            _require_migrated(engine)

    try:
        ready()
        later = None
    except DatabaseAway:
        if spool is None:
            engine.dispose()
            raise
        later = ready  # the spool takes records until the database can be opened
    except BaseException:
        engine.dispose()
        raise
    keeping = Keeping(store_text, store_embeddings, Masker(mask), seals)
    return AuditStore(engine, timeout=timeout, keeping=keeping, durability=durability, spool=spool, ready=later)


def _require_migrated(engine: Engine) -> None:
    from guardrail.audit import migrate

    try:
        with engine.connect() as connection:
            migrate.require_current(connection)
    except SQLAlchemyError as error:
        raise unavailable(error, engine.url, "opened") from error


def _ensure_migrated(engine: Engine, timeout: float) -> None:
    from guardrail.audit import migrate

    try:
        with engine.connect() as connection:
            if migrate.current(connection) == migrate.head():
                return
    except SQLAlchemyError as error:
        raise unavailable(error, engine.url, "opened") from error
    migrate.upgrade(engine, timeout=max(timeout, 60.0))
