"""Stored embeddings: what was judged, as vectors. For replay, and for finding decisions about similar texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.tables import decisions, embeddings

__all__ = ["similar", "spans_of", "vectors_of"]

Floats = npt.NDArray[np.float32]


def vectors_of(row: Mapping[Any, Any]) -> Floats:
    """Return the (N, d) vectors of a row of `embeddings`."""
    return np.frombuffer(row["vectors"], dtype="<f2").reshape(-1, row["dim"]).astype(np.float32)


def spans_of(row: Mapping[Any, Any]) -> npt.NDArray[np.uint32]:
    """Return the (N, 2) spans of a row of `embeddings`; variants of one unit share theirs."""
    return np.frombuffer(row["layout"], dtype="<u4").reshape(-1, 2)


def similar(
    connection: Connection, decision_id: str, *, community: str | None = None, limit: int = 5, newest: int = 20_000
) -> list[tuple[str, float]]:
    """Return the decisions whose texts are most like that of `decision_id`: (id, cosine), best first.

    A text is the mean of its units' vectors. Compared are the `newest` decisions with an embedding of the same encoder;
    nothing is returned where the decision itself has none.

    Args:
        community: only decisions of this community.
        limit: how many at most.
        newest: how far back to look.
    """
    own = (
        connection.execute(select(embeddings).where(embeddings.c.decision_id == identifier(decision_id)))
        .mappings()
        .first()
    )
    if own is None or not own["vectors"]:  # none, or none that can be opened
        return []
    query = select(embeddings.c.decision_id, embeddings.c.vectors).join(
        decisions, decisions.c.id == embeddings.c.decision_id
    )
    query = query.where(embeddings.c.encoder == own["encoder"], embeddings.c.decision_id != own["decision_id"])
    if community is not None:
        query = query.where(decisions.c.community == identifier(community))
    found = connection.execute(query.order_by(decisions.c.created_at.desc(), decisions.c.id.desc()).limit(newest))
    rows = [row for row in found if row.vectors]
    if not rows:
        return []
    counts = np.array([len(row.vectors) // (2 * own["dim"]) for row in rows])
    every = np.frombuffer(b"".join(row.vectors for row in rows), dtype="<f2").reshape(-1, own["dim"]).astype(np.float32)
    sums = np.add.reduceat(every, np.concatenate(([0], np.cumsum(counts)[:-1])), axis=0)
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    wanted = vectors_of(own).sum(axis=0)
    cosines = means @ (wanted / max(float(np.linalg.norm(wanted)), 1e-12))
    best = np.argsort(-cosines, kind="stable")[:limit]
    return [(unescape(rows[place].decision_id), float(cosines[place])) for place in best]
