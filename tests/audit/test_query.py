"""Lists of decisions: filters, order, pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from guardrail.audit.people import People
from guardrail.audit.store import AuditStore
from guardrail.errors import ConfigurationError
from guardrail.policy import Policy
from guardrail.types import Action, Decision, Reason, Stage, State

Make = Callable[..., Decision]


@pytest.fixture(scope="module")
def filled(shared_store: AuditStore, policy: Policy, decide: Make) -> AuditStore:
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    reason = Reason("harassment", Stage.INPUT, Action.BLOCK, 0.9, 0.8)
    made = [
        decide(
            id=f"d{index}",
            created_at=start + index,
            risk=index / 10,
            stage=Stage.INPUT if index % 2 else Stage.OUTPUT,
            action=Action.BLOCK if index >= 8 else Action.ALLOW,
            state=State.BLOCKED if index >= 8 else State.ALLOWED,
            reasons=(reason,) if index >= 8 else (),
            source=f"Text number {index} 100% of_it \\ Straße",
            text=f"text number {index}" if index == 5 else None if index >= 8 else f"Text number {index}",
            refusal="Refused.",
            request_id=f"request-{index // 2}",
        )
        for index in range(10)
    ]
    shared_store.record(made[:6], policy=policy, community="gamers", conversation="talk-1")
    shared_store.record(made[6:], policy=policy, community="workers")
    return shared_store


def test_the_newest_come_first(filled: AuditStore) -> None:
    assert [one.id for one in filled.list().items] == [f"d{index}" for index in reversed(range(10))]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"community": "workers"}, "9876"),
        ({"community": "nobody"}, ""),
        ({"rule": "harassment"}, "98"),
        ({"rule": "violence"}, ""),
        ({"rule": "harassment", "community": "workers", "min_risk": 0.85}, "9"),
        ({"rule": "harassment", "community": "gamers"}, ""),
        ({"rule": "harassment", "state": "blocked", "action": "block", "max_risk": 0.8}, "8"),
        ({"rule": "harassment", "state": "allowed"}, ""),
        ({"rule": "harassment", "action": "allow"}, ""),
        ({"rule": "harassment", "reviewer": "nobody"}, ""),
        ({"rule": "harassment", "since": datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC)}, "9"),
        ({"rule": "harassment", "until": datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC)}, "8"),
        ({"rule": "harassment", "text": "number 9"}, "9"),
        ({"rule": "harassment", "request_id": "request-4"}, "98"),
        ({"rule": "harassment", "conversation": "talk-1"}, ""),
        ({"action": "block"}, "98"),
        ({"action": Action.ALLOW, "community": "workers"}, "76"),
        ({"state": State.BLOCKED}, "98"),
        ({"stage": "input"}, "97531"),
        ({"min_risk": 0.7}, "987"),
        ({"max_risk": 0.2}, "210"),
        ({"min_risk": 0.3, "max_risk": 0.4}, "43"),
        ({"since": datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)}, "987"),
        ({"until": datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)}, "10"),
        ({"text": "number 5"}, "5"),
        ({"text": "NUMBER 5"}, "5"),
        ({"text": "refused"}, "98"),
        ({"text": "100%"}, "9876543210"),
        ({"text": "1%0"}, ""),
        ({"text": "of_it"}, "9876543210"),
        ({"text": "ofXit"}, ""),
        ({"text": "\\ stra*"}, "9876543210"),
        ({"text": "stra"}, ""),
        ({"text": '"5 number"'}, ""),
        ({"text": "5 number"}, "5"),
        ({"subject": "nobody"}, ""),
        ({"reviewer": "nobody"}, ""),
        ({"text": "\x00"}, ""),
        ({"request_id": "request-1"}, "32"),
        ({"conversation": "talk-1"}, "543210"),
    ],
)
def test_filters(filled: AuditStore, filters: dict[str, object], expected: str) -> None:
    assert "".join(one.id[1:] for one in filled.list(**filters).items) == expected  # type: ignore[arg-type]


def test_pages_cover_everything_once_even_at_equal_times(store: AuditStore, policy: Policy, decide: Make) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    ids = [f"d{index:02d}" for index in range(25)]
    made = [decide(id=key, created_at=moment + (index // 10)) for index, key in enumerate(ids)]
    store.record(made, policy=policy, community="gamers")
    seen: list[str] = []
    after = None
    for _ in range(10):
        page = store.list(limit=7, after=after)
        seen += [one.id for one in page.items]
        after = page.next
        if after is None:
            break
    assert seen == ids[::-1]


def test_pages_of_a_rule_hold_each_decision_once(store: AuditStore, policy: Policy, decide: Make) -> None:
    """A rule that acted and could not be judged in part gives two reasons."""
    acted = Reason("harassment", Stage.INPUT, Action.BLOCK, 0.9, 0.8)
    failed = Reason("harassment", Stage.INPUT, Action.BLOCK, float("nan"), 0.8, error="TimeoutError")
    other = Reason("violence", Stage.INPUT, Action.BLOCK, 0.9, 0.8)
    moment = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    made = [
        decide(
            id=f"d{index:02d}", created_at=moment + (index // 4), action=Action.BLOCK, state=State.BLOCKED, text=None,
            refusal="No.", reasons=(other, acted, failed) if index % 2 else (other,),
        )
        for index in range(20)
    ]  # fmt: skip
    store.record(made, policy=policy, community="gamers")
    for asked in ({}, {"community": "gamers"}):
        seen: list[str] = []
        after = None
        for _ in range(10):
            page = store.list(rule="harassment", limit=3, after=after, **asked)  # type: ignore[arg-type]
            seen += [one.id for one in page.items]
            after = page.next
            if after is None:
                break
        assert seen == [f"d{index:02d}" for index in reversed(range(20)) if index % 2]


def test_pages_of_a_reviewer_hold_each_decision_once_newest_decision_first(
    store: AuditStore, policy: Policy, decide: Make
) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    reason = Reason("harassment", Stage.INPUT, Action.FLAG, 0.9, 0.8)
    made = [
        decide(id=f"d{index:02d}", created_at=moment + (index // 4), reasons=(reason,) if index % 3 == 0 else ())
        for index in range(20)
    ]
    store.record(made[:10], policy=policy, community="gamers", subject="user-1")
    store.record(made[10:], policy=policy, community="workers")
    with People(store).change() as change:
        for index in (*range(19, -1, -2), 3, 3, 11):  # the newest decisions first, some of them again
            change.review(f"d{index:02d}", reviewer="ann", verdict="uphold")
        for index in range(20):
            change.review(f"d{index:02d}", reviewer="bob", verdict="comment", comment="Hm.")
    asked: list[tuple[dict[str, Any], list[int]]] = [
        ({}, list(range(19, -1, -2))),
        ({"community": "gamers"}, list(range(9, -1, -2))),
        ({"rule": "harassment"}, [15, 9, 3]),
        ({"subject": "user-1", "rule": "harassment"}, [9, 3]),
        ({"since": datetime(2026, 1, 1, 0, 0, 4, tzinfo=UTC), "state": "allowed"}, [19, 17]),
        ({"min_risk": 0.5}, []),
    ]
    for filters, expected in asked:
        seen: list[str] = []
        after = None
        for _ in range(20):
            page = store.list(reviewer="ann", limit=3, after=after, **filters)
            seen += [one.id for one in page.items]
            after = page.next
            if after is None:
                break
        assert seen == [f"d{index:02d}" for index in expected], filters


def test_a_page_that_ends_exactly_has_no_next(filled: AuditStore) -> None:
    assert filled.list(limit=10).next is None
    assert filled.list(limit=9).next is not None


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"limit": 0}, "limit is 0, expected 1 to 500"),
        ({"limit": 501}, "limit is 501"),
        ({"after": "rubbish"}, "expected the `next` of the page before"),
        ({"after": "2026-01-01T00:00:00~d1"}, "expected the `next`"),
        ({"action": "explode"}, "action 'explode' is not one of allow, flag"),
        ({"state": "gone"}, "state 'gone' is not one of"),
        ({"stage": "third"}, "stage 'third' is not one of"),
        ({"text": ""}, "0 characters"),
        ({"text": "!?"}, "has no word in it"),
        ({"text": "x" * 1001}, "1001 characters"),
        ({"min_risk": float("nan")}, "min_risk is not a number"),
        ({"since": datetime(2026, 1, 1)}, "since has no time zone"),  # noqa: DTZ001 - that is the point
    ],
)
def test_filters_that_make_no_sense(sqlite_store: AuditStore, filters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        sqlite_store.list(**filters)  # type: ignore[arg-type]
