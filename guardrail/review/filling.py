"""From the record to the queue: what needs a person becomes an item, all else only counts for the dashboard.

The record grows by thousands of decisions an hour, of which few need anybody. Each community's chain is read once, in its own
order, from where the last reading ended (`watermarks`). So a page reads an index of what waits, however long the record is, and
nothing is read twice or left out, however many processes read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.store import AuditStore
from guardrail.audit.tables import chain_heads, decisions, reasons
from guardrail.errors import ConfigurationError
from guardrail.review import tables
from guardrail.review.database import reading, upsert, writing
from guardrail.review.policies import Policies
from guardrail.review.priority import NEAR, Assessment, assess, sampled
from guardrail.review.queue import Item, item_of
from guardrail.types import Action, State

__all__ = ["backlog", "communities", "ensure", "fill"]

_BATCH = 1000


def communities(connection: Connection) -> list[str]:
    """All communities with a decision on record."""
    return [unescape(name) for name in connection.scalars(select(chain_heads.c.community).order_by("community"))]


def backlog(connection: Connection, community: str) -> int:
    """How many decisions of a community have not been looked through yet."""
    mine = identifier(community)
    end = connection.scalar(select(chain_heads.c.sequence).where(chain_heads.c.community == mine)) or 0
    table = tables.watermarks
    return end - (connection.scalar(select(table.c.sequence).where(table.c.community == mine)) or 0)


def fill(store: AuditStore, policies: Policies, community: str, most: int = _BATCH) -> int:
    """Look through up to `most` decisions of a community that were not looked through yet; return how many."""
    mine, table = identifier(community), tables.watermarks
    with reading(store) as connection:
        if backlog(connection, community) <= 0:  # the usual case takes no lock
            return 0
    with writing(store) as connection:
        first = {"community": mine, "sequence": 0}
        connection.execute(upsert(connection, table).values(**first).on_conflict_do_nothing())
        start = connection.scalar(select(table.c.sequence).where(table.c.community == mine).with_for_update()) or 0
        rows = _unread(connection, mine, start, most)
        if not rows:
            return 0
        _count(connection, mine, rows)
        _enqueue(connection, policies, rows)
        connection.execute(update(table).where(table.c.community == mine).values(sequence=rows[-1]["sequence"]))
        return len(rows)


_NEEDED = ("id", "community", "sequence", "created_at", "state", "action", "risk", "rules", "revision")


def _unread(connection: Connection, community: str, start: int, most: int) -> Sequence[Mapping[Any, Any]]:
    first = reasons.alias()
    query = (
        select(*(decisions.c[name] for name in _NEEDED), first.c.rule)
        .outerjoin(first, (first.c.decision_id == decisions.c.id) & (first.c.position == 0))
        .where(decisions.c.community == community, decisions.c.sequence > start)
        .order_by(decisions.c.sequence)
        .limit(most)
    )
    return connection.execute(query).mappings().all()


def _count(connection: Connection, community: str, rows: Sequence[Mapping[Any, Any]]) -> None:
    states = Counter((row["created_at"].date().isoformat(), row["state"]) for row in rows)
    acted = Counter((row["created_at"].date().isoformat(), row["rule"]) for row in rows if row["rule"])
    for table, key, value, counts in (
        (tables.daily, "state", "decisions", states),
        (tables.rule_days, "rule", "acted", acted),
    ):
        for (day, name), number in counts.items():
            row = {"community": community, "day": day, key: name, value: number}
            statement = upsert(connection, table).values(**row)
            grown = {value: table.c[value] + statement.excluded[value]}
            connection.execute(statement.on_conflict_do_update(index_elements=["community", "day", key], set_=grown))


def _enqueue(connection: Connection, policies: Policies, rows: Sequence[Mapping[Any, Any]]) -> None:
    made = [item for row in rows if (item := _wanted(connection, policies, row)) is not None]
    if made:
        connection.execute(upsert(connection, tables.queue).on_conflict_do_nothing(), made)


def _wanted(connection: Connection, policies: Policies, row: Mapping[Any, Any]) -> dict[str, Any] | None:
    """The row of the queue for a decision; None where nobody needs to look."""
    rules = policies.rules(connection, unescape(row["revision"]))
    action = Action(row["action"])
    found = assess(row["rules"], rules, action, row["risk"])
    if row["state"] == State.ESCALATED:
        why = "held"
    elif action > Action.ALLOW:
        why = "acted"
    elif row["state"] == State.ALLOWED and found.uncertainty >= NEAR:
        why = "near"
    elif row["state"] == State.ALLOWED and sampled(row["id"]):
        why = "sample"
    else:
        return None
    return _row(row, found, why, rules)


def _row(row: Mapping[Any, Any], found: Assessment, why: str, rules: Mapping[str, Any]) -> dict[str, Any]:
    rule = row["rule"] or found.rule
    return {
        "decision_id": row["id"],
        "community": row["community"],
        "created_at": row["created_at"],
        "status": "open",
        "priority": found.priority + (why in {"held", "appeal"}),
        "uncertainty": found.uncertainty,
        "severity": found.severity,
        "why": why,
        "state": row["state"],
        "rule": rule,
        "risk": row["risk"],
        "needs": _needs(rules, rule),
        "version": 1,
        "assigned_to": None,
        "assigned_at": None,
        "outcome": None,
        "done_at": None,
    }


def _needs(rules: Mapping[str, Any], rule: str) -> int:
    """How many people must agree, as the policy's rule says (`reviewers: 2`)."""
    asked = (rules.get(rule) or {}).get("reviewers", 1)
    return 2 if isinstance(asked, int) and asked >= 2 else 1


def ensure(connection: Connection, policies: Policies, decision_id: str, why: str) -> Item:
    """The item of a decision, made now if it had none; an appeal opens it again and moves it to the front.

    Raises:
        ConfigurationError: there is no such decision.
    """
    first = reasons.alias()
    query = (
        select(*(decisions.c[name] for name in _NEEDED), first.c.rule)
        .outerjoin(first, (first.c.decision_id == decisions.c.id) & (first.c.position == 0))
        .where(decisions.c.id == identifier(decision_id))
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        raise ConfigurationError(f"there is no decision {decision_id!r}")
    rules = policies.rules(connection, unescape(row["revision"]))
    found = assess(row["rules"], rules, Action(row["action"]), row["risk"])
    made = _row(row, found, why, rules)
    connection.execute(upsert(connection, tables.queue).values(**made).on_conflict_do_nothing())
    table = tables.queue
    mine = table.c.decision_id == row["id"]
    if why == "appeal":
        opened = {"status": "open", "why": why, "priority": 1 + found.priority, "version": table.c.version + 1}
        opened |= {"outcome": None, "done_at": None}
        connection.execute(update(table).where(mine, table.c.why != "held").values(**opened, assigned_to=None))
    item = item_of(connection, decision_id)
    if item is None:
        raise ConfigurationError(f"there is no decision {decision_id!r}")
    return item
