"""The second chain: what people and the system do after a decision. See `guardrail.audit.tables.events`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from guardrail.audit import chain
from guardrail.audit.tables import event_heads, events

__all__ = ["append", "bound", "plain"]

TEXTS: Mapping[str, tuple[str, ...]] = {
    "reviews": ("comment", "edited_text"),
    "appeals": ("appellant", "statement", "answer"),
    "labels": (),
    "holds": ("text",),
}
"""Columns that may be erased: the event binds them by a salted digest."""


def plain(value: Any) -> Any:
    """Return a column's value as JSON has it."""
    return value.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(value, datetime) else value


def bound(table: Table, row: Mapping[str, Any], salt: str) -> dict[str, Any]:
    """Return what an event says of a row: its columns, and digests in place of texts that may be erased."""
    texts = TEXTS[table.name]
    return {
        name: {"sha256": chain.digest(salt, value).removeprefix("sha256:"), "length": len(value)}
        if name in texts and value is not None
        else plain(value)
        for name, value in row.items()
    }


def append(
    connection: Connection,
    community: str,
    kind: str,
    author: str,
    details: Mapping[str, Any],
    *,
    decision_id: str | None = None,
    subject: str | None = None,
    salt: str | None = None,
) -> str:
    """Add an event to the end of a community's chain, in the open write transaction of `connection`.

    Args:
        community, author, decision_id, subject, details: in stored (escaped) form.
        kind: what happened.
        salt: of the digests in `details`.

    Returns:
        The event's id.
    """
    sequence, previous = _lock_head(connection, community)
    row = {
        "id": uuid.uuid4().hex,
        "community": community,
        "sequence": sequence + 1,
        "created_at": datetime.now(UTC),
        "kind": kind,
        "author": author,
        "decision_id": decision_id,
        "subject": subject,
        "details": dict(details),
        "salt": new_salt() if salt is None else salt,
        "previous_hash": previous,
    }
    row["hash"] = chain.link(previous, sequence + 1, chain.event_content(row))
    connection.execute(insert(events), row)
    moved = update(event_heads).where(event_heads.c.community == community)
    connection.execute(moved.values(sequence=sequence + 1, hash=row["hash"]))
    return str(row["id"])


def new_salt() -> str:
    """Return 16 random bytes in hexadecimal."""
    return os.urandom(16).hex()


def _lock_head(connection: Connection, community: str) -> tuple[int, str]:
    query = select(event_heads.c.sequence, event_heads.c.hash).where(event_heads.c.community == community)
    head = connection.execute(query.with_for_update()).first()
    if head is None:
        add = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        row = {"community": community, "sequence": 0, "hash": chain.GENESIS}
        connection.execute(add(event_heads).on_conflict_do_nothing(), row)
        head = connection.execute(query.with_for_update()).one()
    return head.sequence, head.hash
