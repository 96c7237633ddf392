"""Everything that the page of one decision shows, gathered from the record in a few queries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.query import StoredCandidate, StoredDecision
from guardrail.audit.tables import decisions, holds, labels
from guardrail.review import diff
from guardrail.review.appeals import Appeal, appeals_on
from guardrail.review.desk import Desk
from guardrail.review.diff import Piece, Sides
from guardrail.review.priority import severe
from guardrail.review.queue import Item, item_of
from guardrail.review.verdicts import DECIDING, Opinion, opinions
from guardrail.types import Action, Reason, Span, State

__all__ = ["Bar", "Turn", "View", "gather"]

_BEFORE, _AFTER = 6, 3  # turns of the conversation that are shown
_EXCERPT = 600


@dataclass(frozen=True, slots=True)
class Turn:
    """Another text of the same conversation or request."""

    decision_id: str
    stage: str
    state: str
    text: str
    severe: bool
    earlier: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """One score, before and (None: not measured) after the rewrite."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class RuleText:
    """A rule in its own words, and what it made of this text."""

    reason: Reason
    description: str
    thresholds: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rewrites to choose between, in an order that differs from person to person."""

    first: StoredCandidate
    second: StoredCandidate


@dataclass(frozen=True, slots=True)
class View:
    """One decision as a page shows it."""

    decision: StoredDecision
    item: Item | None
    sides: Sides
    severe: bool
    rules: Sequence[RuleText]
    bars: Sequence[Bar]
    turns: Sequence[Turn]
    opinions: Sequence[Opinion]
    hidden: int  # deciding opinions that this person does not see before having given their own
    appeals: Sequence[Appeal]
    labels: Sequence[Mapping[str, Any]]
    names: Sequence[str]  # of rules and classifiers, to label
    pair: Pair | None
    hold: str | None  # held | released | refused | expired
    document: Mapping[str, Any]

    @property
    def version(self) -> int:
        """What forms carry, so that two people cannot both be the first."""
        return self.item.version if self.item else 1

    @property
    def status(self) -> str:
        """open | second | split | done."""
        return self.item.status if self.item else "open"


def gather(connection: Connection, desk: Desk, decision: StoredDecision, reader: str) -> View:
    """Return what `reader` sees of a decision."""
    document = desk.policies.document(connection, decision.revision)
    item = item_of(connection, decision.id)
    before = decision.source_text or ""
    after = decision.delivered_text or ""
    objected = [(reason.rule, span) for reason in decision.reasons for span in reason.spans]
    said = opinions(connection, decision.id)
    shown = _unbiased(said, item, reader)
    return View(
        decision=decision,
        item=item,
        sides=diff.beside(before, after, objected, compared=decision.altered and not decision.withheld),
        severe=severe(decision.action, decision.risk),
        rules=_rules(decision, document),
        bars=_bars(decision),
        turns=_turns(connection, decision),
        opinions=shown,
        hidden=len(said) - len(shown),
        appeals=appeals_on(connection, decision.id),
        labels=_labels(connection, decision.id),
        names=sorted({*decision.rules, *decision.scores}),
        pair=_pair(decision, said, reader),
        hold=connection.scalar(select(holds.c.status).where(holds.c.decision_id == identifier(decision.id))),
        document=document,
    )


def _unbiased(said: Sequence[Opinion], item: Item | None, reader: str) -> list[Opinion]:
    """While a second person is asked, nobody who has not decided yet sees what the first one said."""
    if (
        item is None
        or item.status != "second"
        or any(o.reviewer == reader and o.verdict in DECIDING for o in said[-1:])
    ):
        return list(said)
    return [one for one in said if one.verdict not in DECIDING]


def _rules(decision: StoredDecision, document: Mapping[str, Any]) -> list[RuleText]:
    known = document.get("rules") or {}
    found = []
    for reason in decision.reasons:
        rule = known.get(reason.rule) or {}
        steps = sorted((rule.get("thresholds") or {}).items(), key=lambda step: step[1])
        found.append(RuleText(reason, rule.get("description") or reason.description, steps))
    return found


def _bars(decision: StoredDecision) -> list[Bar]:
    """Rules first, then classifiers, those that changed or matter most on top."""
    after = _scores_after(decision)
    scores = [Bar(name, value, after.get(name)) for name, value in decision.scores.items()]
    return sorted(scores, key=lambda bar: -max(bar.before or 0.0, bar.after or 0.0))


def _scores_after(decision: StoredDecision) -> Mapping[str, float | None]:
    """Those of the rewrite as a whole; where only its parts were scored, the highest of the parts."""
    if decision.rewrite is None or decision.rewrite.scores_after:
        return decision.rewrite.scores_after if decision.rewrite else {}
    parts = [one.scores_after for one in decision.candidates if one.chosen]
    names = {name for part in parts for name in part}
    return {name: max((part.get(name) or 0.0) for part in parts) for name in names}


def _turns(connection: Connection, decision: StoredDecision) -> list[Turn]:
    """The texts around this one in its conversation; without one, the other texts of its request."""
    table, at, key = decisions, decision.created_at, identifier(decision.id)
    if decision.conversation is not None:
        together: Any = table.c.conversation == identifier(decision.conversation)
    elif decision.request_id:
        together = table.c.request_id == identifier(decision.request_id)
    else:
        return []
    columns = (table.c[name] for name in ("id", "stage", "state", "action", "risk", "source_text"))
    query = select(*columns).where(together, table.c.community == identifier(decision.community), table.c.id != key)
    # Decisions of one call are made within the same moment: their place in the chain tells which came first.
    earlier = or_(table.c.created_at < at, and_(table.c.created_at == at, table.c.sequence < decision.sequence))
    later = or_(table.c.created_at > at, and_(table.c.created_at == at, table.c.sequence > decision.sequence))
    order = (table.c.created_at, table.c.sequence)
    before = connection.execute(query.where(earlier).order_by(*(one.desc() for one in order)).limit(_BEFORE)).mappings()
    after = connection.execute(query.where(later).order_by(*order).limit(_AFTER)).mappings()
    return [_turn(row, True) for row in reversed(before.all())] + [_turn(row, False) for row in after]


def _turn(row: Mapping[Any, Any], earlier: bool) -> Turn:
    stored = row["source_text"]
    text = "(text not stored)" if stored is None else diff.shorten(unescape(stored), _EXCERPT)
    grave = severe(Action(row["action"]), row["risk"])
    return Turn(unescape(row["id"]), row["stage"], row["state"], text, grave, earlier)


def _labels(connection: Connection, decision_id: str) -> list[Mapping[str, Any]]:
    query = select(labels).where(labels.c.decision_id == identifier(decision_id)).order_by(labels.c.created_at)
    names = ("name", "author")
    return [dict(row) | {name: unescape(row[name]) for name in names} for row in connection.execute(query).mappings()]


def _pair(decision: StoredDecision, said: Sequence[Opinion], reader: str) -> Pair | None:
    """The two best rewrites with different words, unless this person has chosen between them already."""
    done = {frozenset((one.preferred, one.over)) for one in said if one.reviewer == reader and one.verdict == "prefer"}
    passing = [one for one in decision.candidates if one.passes and one.text]
    passing.sort(key=lambda one: -(one.utility if one.utility is not None else -1.0))
    for place, first in enumerate(passing[:6]):
        for second in passing[place + 1 : 6]:
            if first.text != second.text and frozenset((first.position, second.position)) not in done:
                return _shuffled(first, second, decision.id, reader)
    return None


def _shuffled(first: StoredCandidate, second: StoredCandidate, decision_id: str, reader: str) -> Pair:
    """Which stands on the left must not depend on which the machine liked better."""
    seed = hashlib.sha256(f"{decision_id}\0{reader}".encode("utf-8", "replace")).digest()[0]
    return Pair(first, second) if seed % 2 else Pair(second, first)


def pieces_of(decision: StoredDecision, which: str) -> tuple[str, Sequence[Piece]]:
    """A whole text, however long, with what the rules objected to. `which`: draft | delivered."""
    spans: list[tuple[str, Span]] = [(reason.rule, span) for reason in decision.reasons for span in reason.spans]
    text = (decision.source_text if which == "draft" else decision.delivered_text) or ""
    return text, diff.mark(text, (), spans if which == "draft" else ())


def held(decision: StoredDecision) -> bool:
    """Whether the decision is about a draft that waits, or waited, for a person."""
    return decision.state is State.ESCALATED
