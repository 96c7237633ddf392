"""Reviews, labels, appeals and verdicts on held drafts: written whole, chained, and found out where they were changed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from guardrail.audit.holds import Settled, await_verdict, look, resolved, wait
from guardrail.audit.people import People
from guardrail.audit.store import AuditStore
from guardrail.audit.tables import appeals, events, holds, labels, reviews
from guardrail.errors import ConfigurationError
from guardrail.policy import Policy
from guardrail.types import Action, Decision, State

Make = Callable[..., Decision]


@pytest.fixture
def people(store: AuditStore, policy: Policy, rewritten: Make, decide: Make) -> People:
    held = decide(id="held", state=State.ESCALATED, action=Action.ESCALATE, text=None, refusal="Wait.", source="Draft.")
    store.record([rewritten(id="one"), held], policy=policy, community="gamers")
    return People(store)


def run(store: AuditStore, statement: Any) -> None:
    with store.engine.begin() as connection:
        connection.execute(statement)


def test_what_people_do_is_chained_and_read_back(store: AuditStore, people: People) -> None:
    with people.change() as change:
        review = change.review("one", reviewer="ann", verdict="overturn", comment="<script>\x00 \ud800")
        change.label("one", name="harassment", value=0.0, author="ann", review_id=review)
        change.review("one", reviewer="bob", verdict="prefer", preferred=1, over=2)
        change.review("one", reviewer="bob", verdict="edit", edited_text="Better.")
        ticket = change.appeal("one", appellant="user-7", statement="I meant no harm.")
        change.event("gamers", kind="role_granted", author="root", subject="ann", details={"role": "lead"})
    with people.change() as change:
        change.answer(ticket, status="granted", answer="You are right.", answered_by="bob")
        change.settle("held", status="refused", by="bob")
    found = store.verify()
    assert found.ok, found.problems
    assert [(one.community, one.sequence, one.chain) for one in found.events] == [("gamers", 8, "events")]
    assert [one.id for one in store.list(reviewer="bob").items] == ["one"]
    assert store.list(reviewer="eve").items == ()


def test_a_change_that_breaks_off_leaves_nothing(store: AuditStore, people: People) -> None:
    with pytest.raises(ConfigurationError, match="no decision 'two'"):
        with people.change() as change:
            change.review("one", reviewer="ann", verdict="uphold")
            change.review("two", reviewer="ann", verdict="uphold")
    assert store.list(reviewer="ann").items == ()
    assert store.verify().events == ()


TAMPERING: list[tuple[Any, str]] = [
    (update(reviews).values(verdict="uphold"), "the verdict of this row of reviews is not the one that was recorded"),
    (update(reviews).values(comment="Fine."), "the comment of this row of reviews is not the one that was recorded"),
    (update(labels).values(value=1.0), "the value of this row of labels is not the one that was recorded"),
    (update(reviews).values(community="x"), "this row of reviews names another community or time of its decision"),
    (update(reviews).values(decided_at=datetime.now(UTC)), "this row of reviews names another community or time"),
    (delete(labels), "a row of labels is gone"),
    (update(appeals).values(status="refused"), "the status of this row of appeals is not the one that was recorded"),
    (update(appeals).values(statement=""), "the statement of this row of appeals is not the one that was recorded"),
    (update(holds).values(status="released"), "the status of this row of holds is not the one that was recorded"),
    (update(events).where(events.c.kind == "answer").values(author="ann"), "this event is not the one"),
    (delete(events).where(events.c.kind == "label"), "event 2 of the chain is gone"),
    (delete(events).where(events.c.kind == "settle"), "event 5 of the chain is gone"),
]


def test_tampering_is_named(store: AuditStore, people: People) -> None:
    with people.change() as change:
        change.review("one", reviewer="ann", verdict="overturn", comment="No.")
        change.label("one", name="harassment", value=0.0, author="ann")
        ticket = change.appeal("one", appellant="user-7", statement="Why?")
        change.answer(ticket, status="granted", answer="So.", answered_by="bob")
        change.settle("held", status="refused", by="bob")
    assert store.verify().ok
    for statement, detail in TAMPERING:
        with store.engine.connect() as connection:
            from guardrail.audit.verify import verify

            connection.execute(statement)
            found = verify(connection)
            connection.rollback()
        assert any(detail in one.detail for one in found.problems), (detail, found.problems)
    row = {
        "id": "forged", "decision_id": "one", "reviewer": "eve", "verdict": "overturn", "comment": "",
        "created_at": store.list().items[0].created_at, "community": "gamers",
        "decided_at": next(item.created_at for item in store.list().items if item.id == "one"),
    }  # fmt: skip
    run(store, insert(reviews).values(row))
    assert [one.detail for one in store.verify().problems] == ["no event speaks of this row of reviews"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.review("one", reviewer="a", verdict="shrug"), "verdict 'shrug' is not one of uphold, overturn"),
        (lambda c: c.review("one", reviewer="a", verdict="edit"), "edited_text belongs to the verdict 'edit'"),
        (lambda c: c.review("one", reviewer="a", verdict="prefer", preferred=1, over=1), "two different positions"),
        (lambda c: c.label("one", name="x", value=float("nan"), author="a"), "value of a label is nan"),
        (lambda c: c.label("one", name="x", value=1, author="a", source="rumour"), "source 'rumour' is not one of"),
        (lambda c: c.answer("nothing", status="granted", answer="", answered_by="b"), "there is no appeal 'nothing'"),
        (lambda c: c.settle("one", status="released", by="b"), "decision 'one' is not held"),
        (lambda c: c.settle("held", status="lost", by="b"), "status 'lost' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused(people: People, call: Callable[[Any], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message), people.change() as change:
        call(change)


def test_an_appeal_is_answered_once(store: AuditStore, people: People) -> None:
    with people.change() as change:
        ticket = change.appeal("one", appellant="u", statement="")
        change.answer(ticket, status="refused", answer="No.", answered_by="bob")
    with pytest.raises(ConfigurationError, match="is answered already"), people.change() as change:
        change.answer(ticket, status="granted", answer="Yes.", answered_by="ann")
    assert store.verify().ok


def test_who_waits_for_a_held_draft_is_told(store: AuditStore, people: People) -> None:
    assert look(store, "one") is None
    assert look(store, "held") == Settled("held")
    verdicts: list[Settled] = []
    waiting = threading.Thread(target=lambda: verdicts.append(wait(store, "held", timeout=60, poll=0.01)))
    waiting.start()
    with people.change() as change:
        change.settle("held", status="released", by="ann", text="Softer draft.")
    waiting.join(60)
    assert verdicts == [Settled("released", "Softer draft.", "ann")]
    assert verdicts[0].released
    with pytest.raises(ConfigurationError, match="not held any more: it was released by ann"):
        with people.change() as change:
            change.settle("held", status="refused", by="bob")
    assert store.verify().ok


def test_nobody_releases_a_draft_to_a_reader_who_has_left(store: AuditStore, people: People) -> None:
    started = time.monotonic()
    settled = asyncio.run(await_verdict(store, "held", timeout=0.05, poll=0.01))
    assert settled.status == "expired"
    assert not settled.released
    assert time.monotonic() - started < 30
    with pytest.raises(ConfigurationError, match="it was expired by time-out"), people.change() as change:
        change.settle("held", status="released", by="ann")
    assert wait(store, "held", timeout=0) == Settled("expired", None, "time-out")
    with pytest.raises(ConfigurationError, match="'one' is not held"):
        wait(store, "one", timeout=0)


def test_what_may_be_delivered_of_a_held_draft(decide: Make) -> None:
    held = decide(id="held", state=State.ESCALATED, action=Action.ESCALATE, text=None, refusal="Wait.", source="Draft.")
    assert resolved(held, Settled("released", None, "ann")).delivered == "Draft."
    assert resolved(held, Settled("released", "Softer.", "ann")).delivered == "Softer."
    for status in ("refused", "expired", "held"):
        assert resolved(held, Settled(status, "x", "ann")).delivered == "Wait."


def test_two_reviewers_settle_one_draft(store: AuditStore, people: People) -> None:
    outcomes: list[str] = []

    def settle(who: str) -> None:
        try:
            with people.change() as change:
                change.settle("held", status="released", by=who)
            outcomes.append("done")
        except ConfigurationError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=settle, args=(who,)) for who in ("ann", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes.count("done") == 1
    assert len(outcomes) == 3
    assert store.verify().ok
