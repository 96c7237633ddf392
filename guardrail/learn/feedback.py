"""Reviews as labelled examples: what people's verdicts on recorded decisions say of single heads.

A vote is one reviewer's last word on one head and one decision; it carries its source and how far others agree.

- A `label` that names a head says directly whether it should have found something; one that names a rule speaks of the
  rule, like a verdict.
- `uphold` (and `edit`: the draft had to change) of a decision that acted agrees with each rule that gave a reason: the
  linear head that contributed most to the rule should have found something.
- `overturn` of such a decision disagrees: no linear head of the rule should have found anything.

The example is the stretch of the text that the reason points at; without one, the whole text. Texts that were erased
or never stored teach nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.export import whole
from guardrail.audit.query import StoredDecision
from guardrail.audit.tables import decisions, labels, reviews
from guardrail.policy.bundle import Bundle
from guardrail.types import Action, Reason

__all__ = ["Vote", "agreement", "collect"]

_VALUES = {"uphold": 1.0, "edit": 1.0, "overturn": 0.0}


@dataclass(frozen=True, slots=True)
class Vote:
    """What one reviewer says of one head and one text.

    Attributes:
        decision: its id.
        head: the linear classifier.
        texts: the stretches of the text that it is about.
        value: 1.0 the head should find something there, 0.0 it should not.
        reviewer: who says so.
        source: review | appeal | import | label.
        agreement: share of the other reviewers' votes on this decision and head with the same value; 1.0 without others.
    """

    decision: str
    head: str
    texts: tuple[str, ...]
    value: float
    reviewer: str
    source: str
    agreement: float = 1.0


def collect(connection: Connection, bundle: Bundle, community: str | None = None) -> list[Vote]:
    """Return the votes on the linear heads of a policy, from the reviews and labels of one community or of all.

    Args:
        connection: of the audit store.
        bundle: the compiled policy.
        community: None: all.
    """
    said = _sayings(connection, community)
    found: dict[tuple[str, str, str], Vote] = {}
    for decision in whole(connection, list(said)):
        if decision.source_text is None:
            continue
        for reviewer, name, value, source in said[decision.id]:
            for vote in _votes(decision, bundle, reviewer, name, value, source):
                found[vote.decision, vote.head, vote.reviewer] = vote  # the last word counts
    return agreement(found.values())


def agreement(votes: Iterable[Vote]) -> list[Vote]:
    """Return the votes with their `agreement`."""
    together: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in votes:
        together[vote.decision, vote.head].append(vote)
    return [replace(vote, agreement=_shared(vote, own)) for own in together.values() for vote in own]


def _shared(vote: Vote, every: Sequence[Vote]) -> float:
    others = [other for other in every if other is not vote]
    return sum(other.value == vote.value for other in others) / len(others) if others else 1.0


def _sayings(connection: Connection, community: str | None) -> dict[str, list[tuple[str, str | None, float, str]]]:
    """decision -> (reviewer, head or rule or None for the decision as a whole, value, source), oldest first."""
    rows: list[tuple[Any, ...]] = []
    verdicts = select(reviews.c.created_at, reviews.c.decision_id, reviews.c.reviewer, reviews.c.verdict)
    verdicts = verdicts.where(reviews.c.verdict.in_(list(_VALUES)))
    said = select(
        labels.c.created_at, labels.c.decision_id, labels.c.author, labels.c.name, labels.c.value, labels.c.source
    )
    if community is not None:
        mine = decisions.c.community == identifier(community)
        verdicts = verdicts.join(decisions, decisions.c.id == reviews.c.decision_id).where(mine)
        said = said.join(decisions, decisions.c.id == labels.c.decision_id).where(mine)
    for when, key, who, verdict in connection.execute(verdicts):
        rows.append((when, key, who, None, _VALUES[verdict], "review"))
    for when, key, who, name, value, source in connection.execute(said):
        rows.append((when, key, who, unescape(name), value, source))
    found: dict[str, list[tuple[str, str | None, float, str]]] = defaultdict(list)
    for _, key, who, name, value, source in sorted(rows, key=lambda row: row[0]):
        found[unescape(key)].append((unescape(who), name, value, source))
    return found


def _votes(
    decision: StoredDecision, bundle: Bundle, reviewer: str, name: str | None, value: float, source: str
) -> Iterable[Vote]:
    if name in bundle.heads:
        spans = [reason for reason in decision.reasons if name in reason.contributions]
        yield Vote(decision.id, str(name), _stretches(decision, spans), value, reviewer, source)
        return
    for reason in decision.reasons:
        if reason.action < Action.FLAG or reason.error or name not in (None, reason.rule):
            continue
        linear = {head: share for head, share in reason.contributions.items() if head in bundle.heads}
        blamed = [max(linear, key=lambda head: linear[head])] if linear and value >= 0.5 else list(linear)
        for head in blamed:
            yield Vote(decision.id, head, _stretches(decision, [reason]), value, reviewer, source)


def _stretches(decision: StoredDecision, why: Sequence[Reason]) -> tuple[str, ...]:
    text = decision.source_text or ""
    spans = sorted({span for reason in why for span in reason.spans})
    found = tuple(text[start:end] for start, end in spans if text[start:end].strip())
    return found or (text,)
