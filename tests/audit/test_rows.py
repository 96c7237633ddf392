"""Everything that a decision says is stored, and everything that is stored is covered by its hash."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.audit import chain, rows
from guardrail.audit.rows import Keeping, finite, prepare
from guardrail.audit.tables import decisions, reasons, rewrites, scores
from guardrail.types import Action, Candidate, Decision, Evidence, Reason, Rewrite, Stage, State

Make = Callable[..., Decision]


@pytest.fixture(autouse=True)
def same_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Salts are random; here two contents are compared."""
    monkeypatch.setattr(rows, "random_bytes", bytes)


def content(decision: Decision) -> bytes:
    keeping = Keeping(embeddings=True)
    return prepare(decision, community="gamers", conversation="talk", keeping=keeping).content


OTHER: dict[str, Any] = {  # for every field of every value, something else
    "Decision": {
        "id": "other",
        "action": Action.BLOCK,
        "state": State.BLOCKED,
        "risk": 0.123,
        "stage": Stage.INPUT,
        "policy": "other",
        "revision": "sha256:other",
        "text": None,
        "source": "Other.",
        "rules": {"other": 0.5},
        "scores": {"other": 0.5},
        "reasons": (),
        "failures": {"other": "x"},
        "rewrite": None,
        "shadow": True,
        "note": "other",
        "request_id": "other",
        "models": {"other": "sha256:0"},
        "timings_ms": {"other": 1.0},
        "created_at": 1.0,
        "evidence": Evidence("sha256:0", 2, bytes(4), bytes(8)),
    },
    "Reason": {
        "rule": "other",
        "stage": Stage.INPUT,
        "action": Action.FLAG,
        "risk": 0.123,
        "threshold": 0.123,
        "contributions": {"other": 1.0},
        "spans": ((1, 2),),
        "description": "other",
        "error": "other",
    },
    "Candidate": {
        "text": "other",
        "method": "other",
        "risk": 0.123,
        "passes": True,
        "similarity": 0.123,
        "fluency": 0.123,
        "utility": 0.123,
        "scores": {"other": 1.0},
        "seed": 7,
    },
    "Rewrite": {
        "text": "other",
        "method": "other",
        "similarity": 0.123,
        "risk_before": 0.123,
        "risk_after": 0.123,
        "candidates": (),
        "edits": (),
        "seed": 7,
    },
}
ELSEWHERE = {  # stored as the delivered text; the decision's source; in place of a rewrite's candidates
    ("Decision", "refusal"),
    ("Rewrite", "source"),
    ("Decision", "tried"),
}


@pytest.mark.parametrize("kind", [Decision, Reason, Candidate, Rewrite], ids=lambda kind: kind.__name__)
def test_no_field_is_forgotten(kind: Any) -> None:
    names = {field.name for field in fields(kind)} - {name for owner, name in ELSEWHERE if owner == kind.__name__}
    assert names == set(OTHER[kind.__name__])


@pytest.mark.parametrize("name", OTHER["Decision"])
def test_the_hash_covers_every_field_of_a_decision(rewritten: Make, name: str) -> None:
    decision = rewritten()
    assert content(decision) != content(replace(decision, **{name: OTHER["Decision"][name]}))


@pytest.mark.parametrize("name", OTHER["Reason"])
def test_the_hash_covers_every_field_of_a_reason(rewritten: Make, name: str) -> None:
    decision = rewritten()
    other = replace(decision.reasons[0], **{name: OTHER["Reason"][name]})
    assert content(decision) != content(replace(decision, reasons=(other,)))


@pytest.mark.parametrize("name", OTHER["Candidate"])
def test_the_hash_covers_every_field_of_a_candidate(rewritten: Make, name: str) -> None:
    decision = rewritten()
    assert decision.rewrite is not None
    first, second = decision.rewrite.candidates
    other = replace(second, **{name: OTHER["Candidate"][name]})
    changed = replace(decision, rewrite=replace(decision.rewrite, candidates=(first, other)))
    assert content(decision) != content(changed)


@pytest.mark.parametrize("name", OTHER["Rewrite"])
def test_the_hash_covers_every_field_of_a_rewrite(rewritten: Make, name: str) -> None:
    decision = rewritten()
    assert decision.rewrite is not None
    changed = replace(decision, rewrite=replace(decision.rewrite, **{name: OTHER["Rewrite"][name]}))
    assert content(decision) != content(changed)


def test_the_hash_covers_refusal_community_and_conversation(decide: Make) -> None:
    blocked = decide(text=None, refusal="No.")
    assert content(blocked) != content(replace(blocked, refusal="Never."))
    assert content(blocked) != prepare(blocked, community="other", conversation="talk").content
    assert content(blocked) != prepare(blocked, community="gamers").content
    same = prepare(blocked, community="gamers", conversation="talk")
    assert content(blocked) == same.content
    assert content(blocked) != prepare(blocked, community="gamers", conversation="talk", subject="ann").content


def test_candidates_are_kept_where_no_repair_passed(rewritten: Make) -> None:
    decision = rewritten()
    assert decision.rewrite is not None
    tried = decision.rewrite.candidates
    lost = replace(decision, rewrite=None, text=None, refusal="No.", state=State.BLOCKED, tried=tried)
    rows = prepare(lost, community="gamers").rewrites
    assert [(row["position"], row["chosen"], row["text"]) for row in rows] == [
        (1, False, "You can do it."),
        (2, False, "You fool!"),
    ]
    assert content(lost) != content(replace(lost, tried=tried[:1]))


def test_rows_have_exactly_the_columns_of_their_tables(rewritten: Make) -> None:
    made = prepare(rewritten(), community="gamers")
    linked = made.decision | {"sequence": 1, "previous_hash": "", "hash": ""}
    for table, parts in (
        (decisions, [linked]),
        (scores, made.scores),
        (reasons, made.reasons),
        (rewrites, made.rewrites),
    ):
        assert parts
        for part in parts:
            assert set(part) == {column.name for column in table.columns}


def test_digests_do_not_depend_on_whether_texts_are_stored(rewritten: Make) -> None:
    decision = rewritten()
    kept = prepare(decision, community="gamers").decision
    dropped = prepare(decision, community="gamers", keeping=Keeping(text=False)).decision
    for name in ("source_digest", "delivered_digest", "source_length", "delivered_length"):
        assert kept[name] == dropped[name]


@given(st.floats() | st.integers(-(10**20), 10**20) | st.none())
def test_finite_numbers_survive_json_and_jsonb(value: float | None) -> None:
    stored = finite(value)
    if stored is None:
        assert value is None or math.isnan(value)
        return
    assert abs(stored) <= 1e15
    assert math.copysign(1.0, stored) == 1.0 or stored != 0
    assert json.loads(json.dumps(stored)) == stored
    assert "e+" not in json.dumps(stored)  # JSONB would give such a number back as an integer
    if value is not None and abs(value) < 1e15:
        assert stored == float(value)


def test_links_are_what_the_documentation_says() -> None:
    import hashlib

    expected = hashlib.sha256(b"sha256:abc\n7\n" + b'{"a":1}').hexdigest()
    assert chain.link("sha256:abc", 7, b'{"a":1}') == f"sha256:{expected}"
    expected = hashlib.sha256(bytes.fromhex("00ff") + "é".encode()).hexdigest()
    assert chain.digest("00ff", "é") == f"sha256:{expected}"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_canonical_json_is_what_the_json_module_writes(value: object) -> None:
    expected = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    assert chain.canonical(value) == expected


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert chain.canonical({"b": 1.0, "a": [1, None, "é\n"]}) == '{"a":[1,null,"é\\n"],"b":1.0}'
    assert chain.canonical({}) == "{}"
    with pytest.raises(ValueError, match="JSON"):
        chain.canonical({"a": float("nan")})
