"""Past decisions on similar texts: by the embeddings on record, else by embedding the latest reviewed ones now."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.evidence import similar
from guardrail.audit.sealing import locked
from guardrail.audit.tables import decisions
from guardrail.review import tables
from guardrail.review.desk import Desk, Encode
from guardrail.review.diff import shorten
from guardrail.review.priority import severe
from guardrail.types import Action

__all__ = ["Neighbour", "Neighbours"]

LEAST = 0.3
"""Cosine similarity below which a text is not worth showing."""

_COMPARED = 64  # reviewed decisions that are embedded when none are stored
_KEPT = 4096
_TEXT = 2000  # code points that are embedded: about the window of the default encoder


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A past decision on a similar text, and what people made of it (None: nobody has looked)."""

    decision_id: str
    similarity: float
    state: str
    rule: str
    outcome: str | None
    excerpt: str
    severe: bool


class Neighbours:
    """Finds similar decisions; keeps the vectors that it had to make. Thread-safe."""

    def __init__(self) -> None:
        self._vectors: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def of(
        self, connection: Connection, desk: Desk, decision_id: str, community: str, limit: int = 5
    ) -> list[Neighbour]:
        """The most similar decisions of the same community, most similar first; empty where nothing can be compared."""
        found = similar(connection, decision_id, community=community, limit=limit)
        if not found and desk.encode is not None:
            found = self._compare(connection, desk.encode, decision_id, community, limit)
        return [
            one for key, value in found if value >= LEAST and (one := _neighbour(connection, key, value)) is not None
        ]

    def _compare(
        self, connection: Connection, encode: Encode, decision_id: str, community: str, limit: int
    ) -> list[tuple[str, float]]:
        mine = identifier(decision_id)
        queue, table = tables.queue, decisions
        reviewed = (
            select(table.c.id, table.c.source_text)
            .join(queue, queue.c.decision_id == table.c.id)
            .where(queue.c.community == identifier(community), queue.c.status == "done", table.c.id != mine)
            .where(table.c.source_text.is_not(None))
            .order_by(queue.c.done_at.desc())
            .limit(_COMPARED)
        )
        own = connection.scalar(select(table.c.source_text).where(table.c.id == mine))
        texts = {row.id: row.source_text for row in connection.execute(reviewed) if not locked(row.source_text)}
        if own is None or locked(own) or not texts:
            return []
        vectors = self._embed(encode, {mine: own, **texts})
        scores = [(unescape(key), float(vectors[mine] @ vectors[key])) for key in texts]
        return sorted(scores, key=lambda pair: -pair[1])[:limit]

    def _embed(self, encode: Encode, texts: dict[str, str]) -> dict[str, Any]:
        with self._lock:
            known = {key: self._vectors[key] for key in texts if key in self._vectors}
        missing = [key for key in texts if key not in known]
        if missing:
            known.update(zip(missing, encode([unescape(texts[key])[:_TEXT] for key in missing]), strict=True))
        with self._lock:
            for key in texts:
                self._vectors[key] = known[key]
                self._vectors.move_to_end(key)
            while len(self._vectors) > _KEPT:
                self._vectors.popitem(last=False)
        return known


def _neighbour(connection: Connection, decision_id: str, similarity: float) -> Neighbour | None:
    table, queue = decisions, tables.queue
    columns = (table.c.state, table.c.action, table.c.risk, table.c.source_text, queue.c.rule, queue.c.outcome)
    join = table.outerjoin(queue, queue.c.decision_id == table.c.id)
    row = connection.execute(select(*columns).select_from(join).where(table.c.id == identifier(decision_id))).first()
    if row is None:
        return None
    text = shorten(unescape(row.source_text)) if row.source_text is not None else ""
    grave = severe(Action(row.action), row.risk)
    return Neighbour(decision_id, similarity, row.state, unescape(row.rule or ""), row.outcome, text, grave)
