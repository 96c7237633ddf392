"""What goes into the store comes out of it, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from guardrail.audit.chain import digest
from guardrail.audit.escaping import escape
from guardrail.audit.store import AuditStore, open_store
from guardrail.audit.tables import decisions, metadata, policy_revisions, rewrites
from guardrail.errors import AuditUnavailable
from guardrail.policy import Policy
from guardrail.types import Action, Decision, Reason, Stage, State

Make = Callable[..., Decision]

AWKWARD = {
    "empty": "",
    "blank": " \n\t ",
    "nul": "a\x00b\x00",
    "substitute": "\x1a0000 \x1a",
    "surrogates": "half \ud83d and \udc00\ud800",
    "bidi": "\u202eabc\u202c \u2066x\u2069",
    "emoji": "👩‍👩‍👧 می‌خواهم",
    "astral": "𝒜\U0010ffff\ufffe",
    "quotes": "'; DROP TABLE decisions; -- \\ % _ \" $1 :x ?",
    "newlines": "a\r\nb\u2028c\x85d",
}


def test_everything_of_a_decision_comes_back(shared_store: AuditStore, policy: Policy, rewritten: Make) -> None:
    decision = rewritten(refusal=None)
    shared_store.record([decision], policy=policy, community="gamers", conversation="talk-1")
    found = shared_store.get(decision.id)
    assert found is not None
    for name in ("id", "request_id", "stage", "state", "action", "risk", "policy", "revision", "shadow", "note"):
        assert getattr(found, name) == getattr(decision, name), name
    assert (found.community, found.conversation) == ("gamers", "talk-1")
    assert (found.source_text, found.delivered_text) == (decision.source, decision.text)
    assert found.altered
    assert not found.withheld
    for name in ("rules", "scores", "failures", "models", "timings_ms"):
        assert dict(getattr(found, name)) == dict(getattr(decision, name)), name
    assert found.reasons == decision.reasons
    assert abs(found.created_at.timestamp() - decision.created_at) < 1e-5
    assert found.created_at.tzinfo is not None


def test_the_repaired_draft_and_every_candidate_come_back(
    shared_store: AuditStore, policy: Policy, rewritten: Make
) -> None:
    decision = rewritten()
    assert decision.rewrite is not None
    shared_store.record([decision], policy=policy, community="gamers")
    found = shared_store.get(decision.id)
    assert found is not None
    assert found.rewrite is not None
    whole = found.rewrite
    assert (whole.text, whole.method, whole.similarity) == (decision.text, "dglm", 0.83)
    assert (whole.risk_before, whole.risk_after, whole.seed, whole.chosen) == (0.9, 0.06, 11, True)
    assert whole.edits == decision.rewrite.edits
    for stored, candidate in zip(found.candidates, decision.rewrite.candidates, strict=True):
        for name in ("text", "method", "passes", "similarity", "fluency", "utility", "seed"):
            assert getattr(stored, name) == getattr(candidate, name), name
        assert stored.risk_after == candidate.risk
        assert dict(stored.scores_after) == dict(candidate.scores)
    assert [candidate.chosen for candidate in found.candidates] == [True, False]


def test_a_candidate_for_the_whole_draft_is_the_chosen_one(
    shared_store: AuditStore, policy: Policy, rewritten: Make
) -> None:
    decision = rewritten()
    rewrite = decision.rewrite
    assert rewrite is not None
    whole = replace(rewrite.candidates[0], text=rewrite.text, scores={"toxicity": 0.01})
    shared_store.record(
        [replace(decision, rewrite=replace(rewrite, candidates=(rewrite.candidates[1], whole), edits=()))],
        policy=policy,
        community="gamers",
    )
    found = shared_store.get(decision.id)
    assert found is not None
    assert found.rewrite is not None
    assert [candidate.chosen for candidate in found.candidates] == [False, True]
    assert dict(found.rewrite.scores_after) == {"toxicity": 0.01}


def test_a_withheld_text_keeps_the_source_and_shows_the_refusal(
    shared_store: AuditStore, policy: Policy, decide: Make
) -> None:
    decision = decide(text=None, refusal="Not here.", state=State.BLOCKED, action=Action.BLOCK, source="Bad.")
    shared_store.record([decision], policy=policy, community="gamers")
    found = shared_store.get(decision.id)
    assert found is not None
    assert (found.withheld, found.altered) == (True, True)
    assert (found.source_text, found.delivered_text) == ("Bad.", "Not here.")


@pytest.mark.parametrize("name", AWKWARD)
def test_any_string_comes_back_unchanged(shared_store: AuditStore, policy: Policy, rewritten: Make, name: str) -> None:
    text = AWKWARD[name]
    template = rewritten()
    assert template.rewrite is not None
    rewrite = replace(
        template.rewrite,
        source=text,
        text=f"<{text}>",
        candidates=(replace(template.rewrite.candidates[0], text=f"<{text}>", method=f"m{text}"),),
        edits=(((0, len(text)), f"<{text}>"),),
    )
    reason = replace(template.reasons[0], rule=f"r{text}", description=text, error=text, contributions={text: 1.0})
    decision = replace(
        template,
        id=f"id{text}",
        source=text,
        text=f"<{text}>",
        rewrite=rewrite,
        reasons=(reason,),
        request_id=text,
        note=text,
        rules={text: 0.5},
        scores={text: 0.5},
        failures={text: text},
        models={text: text},
        timings_ms={text: 1.0},
    )
    shared_store.record([decision], policy=policy, community=f"c{text}", conversation=text)
    found = shared_store.get(decision.id)
    assert found is not None
    assert (found.source_text, found.delivered_text) == (text, f"<{text}>")
    assert (found.source_length, found.community, found.conversation) == (len(text), f"c{text}", text)
    assert (found.note, found.request_id, found.reasons) == (text, text, (reason,))
    for mapping in (found.rules, found.scores, found.failures, found.models, found.timings_ms):
        assert list(mapping) == [text]
    assert found.rewrite is not None
    assert found.rewrite.edits == rewrite.edits
    assert shared_store.verify().ok
    assert [one.id for one in shared_store.list(community=f"c{text}", conversation=text).items] == [decision.id]


def test_a_megabyte_comes_back(shared_store: AuditStore, policy: Policy, decide: Make) -> None:
    source = "x" * 1_000_000 + "\x00"
    decision = decide(source=source, text="y" * 1_000_000)
    shared_store.record([decision], policy=policy, community="gamers")
    found = shared_store.get(decision.id)
    assert found is not None
    assert found.source_text == source
    assert found.delivered_text == "y" * 1_000_000
    assert shared_store.verify().ok


def test_identifiers_too_long_for_an_index_are_shortened_and_still_found(
    shared_store: AuditStore, policy: Policy, decide: Make
) -> None:
    long, other = "c" * 20_000, "c" * 19_999 + "d"
    for name in (long, other):
        shared_store.record([decide(request_id=name)], policy=policy, community=name, conversation=name)
    for name in (long, other):
        assert len(shared_store.list(community=name).items) == 1
        assert len(shared_store.list(conversation=name).items) == 1
        assert len(shared_store.list(request_id=name).items) == 1
    assert shared_store.list(community=long).items != shared_store.list(community=other).items
    assert shared_store.verify().ok


def test_numbers_that_are_none_do_not_stop_the_record(shared_store: AuditStore, policy: Policy, decide: Make) -> None:
    reason = Reason("r", Stage.OUTPUT, Action.FLAG, 0.5, 0.4, {"a": float("inf"), "b": float("nan"), "c": -1e300})
    decision = decide(
        scores={"nan": float("nan"), "inf": float("inf"), "tiny": 5e-324, "minus": -0.0, "int": 1},
        timings_ms={"a": float("-inf"), "large": 12345678901234567890.0},
        reasons=(reason,),
    )
    shared_store.record([decision], policy=policy, community="gamers")
    found = shared_store.get(decision.id)
    assert found is not None
    assert dict(found.scores) == {"nan": None, "inf": 1e15, "tiny": 5e-324, "minus": 0.0, "int": 1.0}
    assert dict(found.timings_ms) == {"a": -1e15, "large": 1e15}
    assert found.reasons[0].contributions["a"] == 1e15
    assert shared_store.verify().ok


def test_a_risk_that_is_no_number_is_refused(store: AuditStore, policy: Policy, decide: Make) -> None:
    with pytest.raises(AuditUnavailable, match="its risk is nan"):
        store.record([decide(), decide(risk=float("nan"))], policy=policy, community="gamers")
    assert store.list().items == ()


@pytest.mark.parametrize("seconds", [0.0, float("nan"), float("inf"), 1e300, -1e300])
def test_a_decision_without_a_usable_time_gets_the_present(
    store: AuditStore, policy: Policy, decide: Make, seconds: float
) -> None:
    before = datetime.now(UTC)
    decision = decide(created_at=seconds)
    store.record([decision], policy=policy, community="gamers")
    found = store.get(decision.id)
    assert found is not None
    assert before <= found.created_at <= datetime.now(UTC)


def test_without_texts_digests_lengths_and_spans_remain(url: str, policy: Policy, rewritten: Make) -> None:
    decision = rewritten()
    with open_store(url, store_text=False) as store:
        store.record([decision], policy=policy, community="gamers")
        found = store.get(decision.id)
        assert store.verify().ok
        with store.engine.connect() as connection:
            rows = [*connection.execute(select(decisions)), *connection.execute(select(rewrites))]
    stored = repr([tuple(row) for row in rows])
    assert "idiot" not in stored
    assert "You can do it" not in stored
    assert found is not None
    assert found.source_text is None
    assert found.delivered_text is None
    assert found.source_length == len(decision.source)
    assert found.source_digest == digest(found.salt, decision.source)
    assert decision.text is not None
    assert found.delivered_digest == digest(found.salt, decision.text)
    assert found.reasons[0].spans == ((6, 25),)
    assert found.rewrite is not None
    assert found.rewrite.edits == (((6, 25), None),)
    assert found.rewrite.text is None


def test_equal_texts_have_unequal_digests(store: AuditStore, policy: Policy, decide: Make) -> None:
    store.record([decide(), decide()], policy=policy, community="gamers")
    first, second = store.list().items
    assert first.source_text == second.source_text
    assert first.source_digest != second.source_digest
    assert first.source_digest == digest(first.salt, escape(first.source_text or ""))


def test_the_policy_revision_is_stored_once_and_can_be_recomputed(
    store: AuditStore, policy: Policy, decide: Make
) -> None:
    for _ in range(3):
        store.record([decide()], policy=policy, community="gamers")
    with store.engine.connect() as connection:
        (row,) = connection.execute(select(policy_revisions))
    assert (row.revision, row.name, row.document) == (policy.revision, "general", policy.canonical)


def test_a_decision_of_another_revision_is_refused(store: AuditStore, policy: Policy, decide: Make) -> None:
    with pytest.raises(AuditUnavailable, match="under policy revision 'sha256:other'"):
        store.record([decide(revision="sha256:other")], policy=policy, community="gamers")
    assert store.list().items == ()


def test_a_decision_is_recorded_once(store: AuditStore, policy: Policy, decide: Make) -> None:
    first, second = decide(), decide()
    store.record([first], policy=policy, community="gamers")
    with pytest.raises(AuditUnavailable, match=f"'{first.id}' is already on record"):
        store.record([second, first], policy=policy, community="gamers")
    assert store.get(second.id) is None
    store.record([second], policy=policy, community="gamers")
    assert store.verify().decisions == 2
    assert store.verify().ok


def test_nothing_to_record_is_nothing(store: AuditStore, policy: Policy) -> None:
    store.record([], policy=policy, community="gamers")
    assert store.list().items == ()


def test_a_revision_row_that_went_away_is_written_again(store: AuditStore, policy: Policy, decide: Make) -> None:
    store.record([decide()], policy=policy, community="gamers")
    with store.engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    store.record([decide()], policy=policy, community="gamers")
    assert store.verify().ok
    with store.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(policy_revisions)) == 1


def test_a_memory_database_is_shared_by_all_calls(policy: Policy, decide: Make) -> None:
    with open_store("sqlite://") as store:
        store.record([decide()], policy=policy, community="gamers")
        assert len(store.list().items) == 1
        assert store.verify().ok


def test_an_unknown_id_is_none(store: AuditStore) -> None:
    assert store.get("nothing") is None
    assert store.get("\x00\ud800") is None


def test_ids_by_their_beginning(store: AuditStore, policy: Policy, decide: Make) -> None:
    store.record([decide(id=key) for key in ("d2", "d1", "d3", "e%1", "ex1")], policy=policy, community="gamers")
    assert list(store.find_ids("d", limit=2)) == ["d1", "d2"]
    assert list(store.find_ids("e%")) == ["e%1"]
    assert list(store.find_ids("")) == []


def test_a_clock_that_goes_back_does_not_break_the_chain(store: AuditStore, policy: Policy, decide: Make) -> None:
    now = datetime.now(UTC)
    for hours in (0, -5, 3):
        moment = (now + timedelta(hours=hours)).timestamp()
        store.record([decide(created_at=moment)], policy=policy, community="gamers")
    assert store.verify().ok
    assert [one.sequence for one in store.list().items] == [3, 1, 2]
