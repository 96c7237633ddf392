"""The policies under which decisions were made, as they stand on record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.tables import policy_revisions

__all__ = ["Policies"]


class Policies:
    """The policies on record, read once each: a revision never changes."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[str, Any]] = {}

    def document(self, connection: Connection, revision: str) -> Mapping[str, Any]:
        """The resolved policy document of a revision; empty where it is not on record or cannot be read."""
        known = self._known.get(revision)
        if known is None:
            table = policy_revisions
            stored = connection.scalar(select(table.c.document).where(table.c.revision == identifier(revision)))
            known = self._known[revision] = _document(stored)
        return known

    def rules(self, connection: Connection, revision: str) -> Mapping[str, Any]:
        """The rules of a revision, by name."""
        found: Mapping[str, Any] = self.document(connection, revision).get("rules") or {}
        return found


def _document(stored: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(unescape(stored or "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
