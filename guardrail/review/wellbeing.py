"""How much a person has had to read today."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from guardrail.review import tables
from guardrail.review.accounts import User, now
from guardrail.review.database import upsert

__all__ = ["Exposure", "expose", "today"]


@dataclass(frozen=True, slots=True)
class Exposure:
    """Texts opened today (UTC), and how many of them were severe."""

    seen: int = 0
    severe: int = 0


def expose(connection: Connection, user: User, severe: bool) -> None:
    """Count one text that somebody opened."""
    table = tables.exposure
    row = {"user_id": user.id, "day": now().date().isoformat(), "seen": 1, "severe": int(severe)}
    statement = upsert(connection, table).values(**row)
    grown = {"seen": table.c.seen + 1, "severe": table.c.severe + int(severe)}
    connection.execute(statement.on_conflict_do_update(index_elements=["user_id", "day"], set_=grown))


def today(connection: Connection, user: User) -> Exposure:
    """What somebody has opened today."""
    table = tables.exposure
    mine = (table.c.user_id == user.id) & (table.c.day == now().date().isoformat())
    row = connection.execute(select(table.c.seen, table.c.severe).where(mine)).first()
    return Exposure() if row is None else Exposure(row.seen, row.severe)
