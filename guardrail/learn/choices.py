"""Reviewers' choices between two rewrites, as pairs that the diffusion can learn from.

A choice is one reviewer's last word on one pair of rewrites of one decision. Choices between the same two rewrites are
summed: those that agree weigh more, those that disagree cancel. What one reviewer's choices weigh together is capped twice,
at `cap` choices and at `share` of all that everybody's weigh, so that nobody decides alone however much they click.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.export import whole
from guardrail.audit.query import StoredDecision
from guardrail.audit.tables import decisions, reviews
from guardrail.repair import CONTEXT_CHARS

__all__ = ["Choice", "Pair", "choices_of", "is_aside", "pairs_of"]

ASIDE = 5
"""One decision in so many is kept aside."""

_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """What one reviewer preferred.

    Attributes:
        decision: its id. reviewer: who chose. chosen, rejected: the two rewrites.
        before: what stood before the stretch that they replace; empty where that is not known.
        weight: what it counts; see `pairs_of`.
    """

    decision: str
    reviewer: str
    chosen: str
    rejected: str
    before: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rewrites of one draft, and by how much (> 0) people prefer the first."""

    decision: str
    chosen: str
    rejected: str
    before: str
    weight: float


def choices_of(connection: Connection, community: str | None = None) -> list[Choice]:
    """Return the choices on record, of one community or of all, each reviewer's last word on a pair.

    Raises:
        ConfigurationError: a text is encrypted with a key that is not configured.
    """
    columns = (reviews.c.decision_id, reviews.c.reviewer, reviews.c.preferred, reviews.c.over)
    query = select(*columns).where(reviews.c.verdict == "prefer").order_by(reviews.c.created_at, reviews.c.id)
    if community is not None:
        mine = decisions.c.community == identifier(community)
        query = query.join(decisions, decisions.c.id == reviews.c.decision_id).where(mine)
    said: dict[str, dict[tuple[str, frozenset[int]], tuple[int, int]]] = defaultdict(dict)
    for key, who, better, worse in connection.execute(query):
        said[unescape(key)][unescape(who), frozenset((better, worse))] = (better, worse)
    found = []
    for decision in whole(connection, list(said)):
        texts = {one.position: one.text for one in (decision.rewrite, *decision.candidates) if one is not None}
        before = _before(decision)
        for (who, _), (better, worse) in said[decision.id].items():
            chosen, rejected = texts.get(better), texts.get(worse)
            if chosen and rejected and chosen != rejected:  # not erased, and still there
                found.append(Choice(decision.id, who, chosen, rejected, before))
    return found


def _before(decision: StoredDecision) -> str:
    """What stood before the first stretch that was rewritten, as the rewriter saw it."""
    if decision.source_text is None:
        return ""
    edits = decision.rewrite.edits if decision.rewrite is not None else ()
    spans = [span for span, _ in edits] or [span for reason in decision.reasons for span in reason.spans]
    return decision.source_text[: min(spans)[0]][-CONTEXT_CHARS:] if spans else ""


def weighed(choices: Sequence[Choice], cap: float, share: float) -> list[Choice]:
    """Return the choices with their weights: of one reviewer at most `cap` in all, and at most `share` of the total.

    Where there are fewer than 1 / `share` reviewers nobody can weigh so little; all of them then weigh the same.
    """
    cast = Counter(choice.reviewer for choice in choices)
    total = {who: min(float(count), cap) for who, count in cast.items()}
    if len(total) * share <= 1.0:
        total = dict.fromkeys(total, min(total.values(), default=0.0))
    else:
        for _ in range(_ROUNDS):  # lowering one share raises the others'
            limit = share * sum(total.values())
            total = {who: min(value, limit) for who, value in total.items()}
    return [replace(choice, weight=total[choice.reviewer] / cast[choice.reviewer]) for choice in choices]


def pairs_of(choices: Sequence[Choice], cap: float, share: float) -> list[Pair]:
    """Return the pairs on which people agree on the whole, in a fixed order.

    Args:
        cap: choices that one reviewer's weigh at most. share: of everybody's weight that one reviewer has at most, in (0, 1].
    """
    sums: dict[tuple[str, str, str, str], float] = defaultdict(float)
    for choice in weighed(choices, cap, share):
        first, second = sorted((choice.chosen, choice.rejected))
        sign = 1.0 if choice.chosen == first else -1.0
        sums[choice.decision, first, second, choice.before] += sign * choice.weight
    found = []
    for (decision, first, second, before), weight in sorted(sums.items()):
        if abs(weight) > 1e-9:
            chosen, rejected = (first, second) if weight > 0 else (second, first)
            found.append(Pair(decision, chosen, rejected, before, abs(weight)))
    return found


def is_aside(decision: str) -> bool:
    """Whether what people say of a decision is kept aside for the proof: one decision in `ASIDE`."""
    return hashlib.sha256(decision.encode("utf-8", "surrogatepass")).digest()[0] % ASIDE == 0
