"""How long the review pages remember: who saw what, how much people had to read, sessions and tokens that have ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, or_, select, tuple_

from guardrail.audit.store import AuditStore
from guardrail.review import tables
from guardrail.review.accounts import now as current
from guardrail.review.database import reading, writing

__all__ = ["Forgotten", "forget"]

_CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Rows that `forget` has deleted."""

    access: int = 0
    exposure: int = 0
    sessions: int = 0
    tokens: int = 0


def forget(
    store: AuditStore,
    *,
    keep_access: int | None = None,
    keep_exposure: int | None = None,
    now: datetime | None = None,
) -> Forgotten:
    """Delete what is older than it may be, and sessions that have ended whatever their age.

    Args:
        keep_access: days of the access log, and of API tokens after they were revoked or ran out; None: for good.
        keep_exposure: days of the daily counts of what people had to read; None: for good.
        now: an aware time; default: this moment.

    Raises:
        AuditUnavailable: the database cannot be written. What was done until then is done; call again.
    """
    now = now or current()
    access = exposure = tokens = 0
    if keep_access is not None:
        before = now - timedelta(days=keep_access)
        access = _old_access(store, before)
        ended = tables.tokens.c
        tokens = _delete(store, tables.tokens, or_(ended.revoked_at < before, ended.expires_at < before))
    if keep_exposure is not None:
        day = (now - timedelta(days=keep_exposure)).date().isoformat()
        exposure = _delete(store, tables.exposure, tables.exposure.c.day < day)
    sessions = _delete(store, tables.sessions, tables.sessions.c.expires_at < now)
    return Forgotten(access, exposure, sessions, tokens)


def _old_access(store: AuditStore, before: datetime) -> int:
    """Community by community: that is how the log is indexed, and it may be the longest table of all."""
    table = tables.access_log
    with reading(store) as connection:
        communities = connection.scalars(select(table.c.community).distinct()).all()
    return sum(
        _delete(store, table, (table.c.community == name) & (table.c.created_at < before)) for name in communities
    )


def _delete(store: AuditStore, table: Table, condition: ColumnElement[bool]) -> int:
    """Delete in groups, so that nobody who works on the pages waits long for the database."""
    keys = list(table.primary_key)
    some: Any = select(*keys).where(condition).limit(_CHUNK)
    count = 0
    while True:
        with writing(store) as connection:
            gone = connection.execute(delete(table).where(tuple_(*keys).in_(some))).rowcount
        count += gone
        if gone < _CHUNK:
            return count
