"""How a community's moderation goes: volume, what was done, what people overturned, how long things wait.

Volumes come from the counts that filling the queue keeps, so the page costs the same however long the record is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.tables import appeals, decisions
from guardrail.review import filling, queue, tables
from guardrail.review.accounts import now
from guardrail.review.charts import Chart, stacked

__all__ = ["Board", "RuleLine", "gather"]

DAYS = 28
_RECENT = 1000  # settled items that rates are computed from


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One rule over the last `DAYS` days. `overturned` of `reviewed` decisions were wrong, in people's eyes."""

    rule: str
    acted: int
    reviewed: int
    overturned: int
    trend: Chart

    @property
    def rate(self) -> float | None:
        """Share of the reviewed decisions that were overturned or edited; None: none was reviewed."""
        return self.overturned / self.reviewed if self.reviewed else None


@dataclass(frozen=True, slots=True)
class Board:
    """What the dashboard shows."""

    days: int
    decisions: int
    acted: int
    volume: Chart
    states: Sequence[tuple[str, int]]
    rules: Sequence[RuleLine]
    waiting: dict[str, int]
    reviewed: int
    overturned: int
    median_hours: float | None
    appeals: dict[str, int]
    behind: int


def gather(connection: Connection, community: str) -> Board:
    """Return the dashboard of a community."""
    mine = identifier(community)
    days = [(now().date() - timedelta(days=back)).isoformat() for back in reversed(range(DAYS))]
    by_state = _by_day(connection, tables.daily, "state", "decisions", mine, days)
    totals = {state: sum(counts) for state, counts in by_state.items()}
    settled = _settled(connection, mine)
    deciding = [row for row in settled if row["outcome"] in {"uphold", "overturn", "edit"}]
    waits = sorted((row["done_at"] - row["created_at"]).total_seconds() / 3600 for row in deciding)
    return Board(
        days=DAYS,
        decisions=sum(totals.values()),
        acted=sum(count for state, count in totals.items() if state not in {"allowed", "not_scanned"}),
        volume=stacked(days, {state: by_state[state] for state in _ORDER if state in by_state}),
        states=[(state, totals[state]) for state in _ORDER if state in totals],
        rules=_rules(connection, mine, days, deciding),
        waiting=queue.counts(connection, community),
        reviewed=len(deciding),
        overturned=sum(row["outcome"] != "uphold" for row in deciding),
        median_hours=waits[len(waits) // 2] if waits else None,
        appeals=_appeals(connection, mine),
        behind=filling.backlog(connection, community),
    )


_ORDER = ("allowed", "flagged", "redacted", "rewritten", "escalated", "blocked", "blocked_unavailable", "not_scanned")


def _by_day(
    connection: Connection, table: Any, key: str, value: str, community: str, days: Sequence[str]
) -> dict[str, list[int]]:
    place = {day: at for at, day in enumerate(days)}
    query = select(table.c.day, table.c[key], table.c[value]).where(
        table.c.community == community, table.c.day >= days[0]
    )
    found: dict[str, list[int]] = defaultdict(lambda: [0] * len(days))
    for day, name, count in connection.execute(query):
        if day in place:
            found[unescape(name)][place[day]] = count
    return dict(found)


def _settled(connection: Connection, community: str) -> list[dict[str, Any]]:
    table, since = tables.queue, now() - timedelta(days=DAYS)
    names = ("rule", "outcome", "created_at", "done_at")
    query = (
        select(*(table.c[name] for name in names))
        .where(table.c.community == community, table.c.status == "done", table.c.done_at >= since)
        .order_by(table.c.done_at.desc())
        .limit(_RECENT)
    )
    return [dict(row) | {"rule": unescape(row["rule"])} for row in connection.execute(query).mappings()]


def _rules(
    connection: Connection, community: str, days: Sequence[str], deciding: Sequence[dict[str, Any]]
) -> list[RuleLine]:
    acted = _by_day(connection, tables.rule_days, "rule", "acted", community, days)
    lines = []
    for rule in sorted({*acted, *(row["rule"] for row in deciding if row["rule"])}):
        mine = [row for row in deciding if row["rule"] == rule]
        wrong = sum(row["outcome"] != "uphold" for row in mine)
        counts = acted.get(rule, [0] * len(days))
        lines.append(RuleLine(rule, sum(counts), len(mine), wrong, stacked(days, {rule: counts}, width=120, height=24)))
    return sorted(lines, key=lambda line: -line.acted)


def _appeals(connection: Connection, community: str) -> dict[str, int]:
    query = (
        select(appeals.c.status, func.count())
        .join(decisions, decisions.c.id == appeals.c.decision_id)
        .where(decisions.c.community == community, appeals.c.created_at >= now() - timedelta(days=DAYS))
        .group_by(appeals.c.status)
    )
    found = dict.fromkeys(("open", "granted", "refused", "withdrawn"), 0)
    for status, count in connection.execute(query):
        found[status] = count
    return found
