"""How often somebody may try: fixed windows in the database, so that all processes count together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select, update

from guardrail.review import tables
from guardrail.review.database import upsert
from guardrail.review.keys import digest

__all__ = ["API", "SIGN_IN_ADDRESS", "SIGN_IN_NAME", "SIGN_IN_PAIR", "Limit", "count", "forget"]


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `times` in `window`."""

    name: str
    times: int
    window: timedelta


SIGN_IN_PAIR = Limit("sign-in", 5, timedelta(minutes=15))
"""Failures for one name from one address."""

SIGN_IN_NAME = Limit("sign-in-name", 50, timedelta(minutes=15))
"""Failures for one name from anywhere: high, because anybody could lock anybody out with it."""

SIGN_IN_ADDRESS = Limit("sign-in-address", 50, timedelta(minutes=15))
"""Failures from one address for any name."""

API = Limit("api", 300, timedelta(minutes=1))
"""Calls of one API token."""


def count(connection: Connection, limit: Limit, key: str, at: datetime) -> timedelta | None:
    """Count one try; return None where it is allowed, else how long to wait. Runs in a write transaction."""
    stored, table = f"{limit.name}:{digest(key)}", tables.limits
    first = {"key": stored, "started_at": at, "count": 0}
    if connection.execute(upsert(connection, table).values(**first).on_conflict_do_nothing()).rowcount:
        connection.execute(delete(table).where(table.c.started_at < at - timedelta(days=1)))
    row = connection.execute(select(table).where(table.c.key == stored).with_for_update()).mappings().one()
    if row["started_at"] + limit.window <= at:
        connection.execute(update(table).where(table.c.key == stored).values(started_at=at, count=1))
        return None
    if row["count"] >= limit.times:
        left: timedelta = row["started_at"] + limit.window - at
        return left
    connection.execute(update(table).where(table.c.key == stored).values(count=table.c.count + 1))
    return None


def forget(connection: Connection, limit: Limit, key: str) -> None:
    """Start counting anew: the right password was given."""
    connection.execute(delete(tables.limits).where(tables.limits.c.key == f"{limit.name}:{digest(key)}"))
