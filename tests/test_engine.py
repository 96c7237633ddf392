"""The engine: decide, repair, record; nothing unchecked leaves."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from guardrail.engine import Guardrail
from guardrail.errors import AuditUnavailable, PolicyError, RewriteFailure
from guardrail.rewrite.base import Proposal
from guardrail.settings import Settings
from guardrail.types import Action, Passage, Stage, State

POLICY = """
policy: test
classifiers:
  mild: {kind: pattern, words: [frobnicate]}
  bad: {kind: pattern, words: [blargh]}
  held: {kind: pattern, words: [quux]}
  worst: {kind: pattern, words: [xyzzy]}
  noted: {kind: pattern, words: [plugh]}
rules:
  redacted: {stages: [input, output, tool_call], weights: {mild: 1.0}, thresholds: {redact: 0.5}}
  rewritten: {stages: [output, tool_call], weights: {bad: 1.0}, thresholds: {rewrite: 0.5}}
  escalated: {stages: [output], weights: {held: 1.0}, thresholds: {escalate: 0.5}}
  blocked: {stages: [output], weights: {worst: 1.0}, thresholds: {block: 0.5}}
  noted: {stages: [output], weights: {noted: 1.0}, thresholds: {flag: 0.5}}
rewrite: {order: [dglm, redact], min_similarity: 0.0}
refusal: Not here.
"""


class Store:
    """An audit store in memory that can be told to fail."""

    def __init__(self) -> None:
        self.rows: list = []
        self.error: Exception | None = None
        self.threads: set[int] = set()

    def record(self, decisions, *, policy, community, conversation=None) -> None:
        self.threads.add(threading.get_ident())
        if self.error:
            raise self.error
        self.rows.extend(decisions)

    def close(self) -> None:
        raise AssertionError("a store that was handed in belongs to the caller")


class Fixed:
    """A rewriter that proposes what it is told."""

    name, fingerprint, rounds = "dglm", "sha256:fixed", 1

    def __init__(self, *texts: str, error: Exception | None = None) -> None:
        self.texts, self.error, self.requests = texts, error, []

    def propose(self, requests):
        self.requests.extend(requests)
        if self.error:
            raise self.error
        return [[Proposal(text) for text in self.texts] for _ in requests]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def make(tmp_path: Path, store: Store):
    def make(rewriter: Fixed | None = None, text: str = POLICY) -> Guardrail:
        path = tmp_path / "test.yaml"
        path.write_text(text)
        guard = Guardrail(path, settings=Settings(), audit=store)
        guard._rewriters["dglm"] = rewriter or Fixed()
        return guard

    return make


def moderate(guard: Guardrail, text: str, stage: Stage = Stage.OUTPUT, **options):
    return guard.moderate([Passage(text, stage, **options)])[0]


def test_harmless_text_passes_to_the_letter_and_is_recorded(make, store: Store) -> None:
    text = "Grüße,\n\n 👩‍🚀 all fine.  "
    decision = moderate(make(), text)
    assert (decision.state, decision.text, decision.action) == (State.ALLOWED, text, Action.ALLOW)
    assert store.rows == [decision]
    assert decision.revision.startswith("sha256:")
    assert set(decision.models) == {"mild", "bad", "held", "worst", "noted"}


@pytest.mark.parametrize(
    ("word", "state", "delivered"),
    [
        ("plugh", State.FLAGGED, "First. A plugh here."),
        ("frobnicate", State.REDACTED, "First. A [removed] here."),
        ("quux", State.ESCALATED, "Not here."),
        ("xyzzy", State.BLOCKED, "Not here."),
    ],
)
def test_each_action_does_what_it_says(make, store: Store, word: str, state: State, delivered: str) -> None:
    decision = moderate(make(), f"First. A {word} here.")
    assert (decision.state, decision.delivered) == (state, delivered)
    assert store.rows[0].state is state
    assert decision.source == f"First. A {word} here."


def test_a_rewrite_changes_only_the_flagged_sentence(make) -> None:
    rewriter = Fixed("A nice thing.", "It is blargh.")
    decision = moderate(make(rewriter), "  One. This is blargh!\n\nTwo  stays.")
    assert decision.state is State.REWRITTEN
    assert decision.text == "  One. A nice thing.\n\nTwo  stays."
    assert decision.rewrite is not None
    assert decision.rewrite.method == "dglm"
    assert [c.passes for c in decision.rewrite.candidates] == [True, False]
    assert decision.rewrite.risk_after < 0.5 <= decision.rewrite.risk_before
    assert decision.models["dglm"] == "sha256:fixed"
    request = rewriter.requests[0]
    assert request.text == "This is blargh!"
    assert request.matches == ((8, 14),)
    assert request.before.strip() == "One."


def test_when_no_candidate_passes_the_next_rewriter_is_asked_and_it_is_said(make) -> None:
    decision = moderate(make(Fixed("Still blargh.")), "This is blargh!")
    assert (decision.state, decision.text) == (State.REDACTED, "This is [removed]!")
    assert "dglm: no candidate passed" in decision.note


def test_a_rewriter_with_two_rounds_is_asked_again_only_where_nothing_passed(make) -> None:
    class Twice(Fixed):
        rounds = 2

        def propose(self, requests):
            super().propose(requests)
            return [[Proposal(self.texts[request.round])] for request in requests]

    second = Twice("Still blargh.", "A nice thing.")
    decision = moderate(make(second), "This is blargh!")
    assert (decision.state, decision.text) == (State.REWRITTEN, "A nice thing.")
    assert [request.round for request in second.requests] == [0, 1]
    assert decision.rewrite is not None
    assert {row.text for row in decision.rewrite.candidates} == {"Still blargh.", "A nice thing."}
    first = Twice("A nice thing.", "Another.")
    assert moderate(make(first), "This is blargh!").text == "A nice thing."
    assert [request.round for request in first.requests] == [0]


def test_when_nothing_passes_the_text_is_withheld(make) -> None:
    policy = POLICY.replace("order: [dglm, redact]", "order: [dglm]")
    decision = moderate(make(Fixed("Still blargh."), policy), "This is blargh!")
    assert (decision.state, decision.text, decision.delivered) == (State.BLOCKED, None, "Not here.")
    assert "no candidate passed" in decision.note


def test_a_rewriter_that_breaks_down_never_lets_the_draft_out(make) -> None:
    from guardrail.errors import RewriteFailure

    decision = moderate(make(Fixed(error=RewriteFailure("late"))), "This is blargh!")
    assert decision.state is State.REDACTED
    assert "late" in decision.note
    decision = moderate(make(Fixed(error=ZeroDivisionError("oops"))), "This is blargh!")
    assert (decision.state, decision.text) == (State.BLOCKED, None)


def test_what_cannot_be_rewritten_is_withheld(make) -> None:
    decision = moderate(make(Fixed("fine")), '{"a": "blargh"}', Stage.TOOL_CALL, editable=False)
    assert (decision.state, decision.text) == (State.BLOCKED, None)


def test_code_is_redacted_not_rewritten(make) -> None:
    text = "Look:\n```\nprint('blargh')\n```\nDone."
    decision = moderate(make(Fixed("harmless")), text)
    assert decision.state is State.REDACTED
    assert "harmless" not in decision.delivered
    assert "blargh" not in decision.delivered
    assert decision.delivered.endswith("Done.")


def test_shadow_mode_delivers_everything_and_says_what_it_would_do(make, store: Store) -> None:
    decision = moderate(make(text=POLICY + "mode: shadow\n"), "xyzzy")
    assert (decision.text, decision.action, decision.shadow) == ("xyzzy", Action.BLOCK, True)
    assert store.rows


def test_check_neither_repairs_nor_records(make, store: Store) -> None:
    guard = make()
    decision = guard.check("This is blargh!")
    assert decision.action is Action.REWRITE
    assert not store.rows
    assert guard.check_many([]) == []


def test_what_is_no_text_is_not_scanned(make, store: Store) -> None:
    decision = moderate(make(), "", unscanned="image/png")
    assert decision.state is State.NOT_SCANNED
    assert "image/png" in decision.note
    assert moderate(make(), "anything", Stage.RETRIEVED).state is State.NOT_SCANNED


def test_an_error_while_judging_withholds_every_text(make, store: Store, monkeypatch) -> None:
    guard = make()
    monkeypatch.setattr(type(guard.assembly().judge), "judge", lambda *args: 1 / 0)
    decision = moderate(guard, "harmless")
    assert (decision.state, decision.text, decision.delivered) == (State.BLOCKED_UNAVAILABLE, None, "Not here.")
    assert store.rows[0].state is State.BLOCKED_UNAVAILABLE


@pytest.mark.parametrize("error", [AuditUnavailable("gone"), OSError("disk full")])
def test_no_text_without_a_record(make, store: Store, error: Exception) -> None:
    store.error = error
    with pytest.raises(AuditUnavailable):
        moderate(make(), "harmless")


def test_async_calls_do_not_run_on_the_event_loop(make, store: Store) -> None:
    guard = make()

    async def many():
        return await asyncio.gather(*(guard.amoderate([Passage(f"text {i} frobnicate")]) for i in range(20)))

    decisions = asyncio.run(many())
    assert [d[0].text for d in decisions] == [f"text {i} [removed]" for i in range(20)]
    assert threading.get_ident() not in store.threads


def test_a_cancelled_task_stops_the_rewriter_and_is_still_recorded(make, store: Store) -> None:
    started, stopped = threading.Event(), threading.Event()

    class Patient(Fixed):
        def propose(self, requests):
            started.set()
            for _ in range(1000):
                if requests[0].cancelled():
                    stopped.set()
                    raise RewriteFailure("cancelled")
                threading.Event().wait(0.01)
            return [[] for _ in requests]

    guard = make(Patient())

    async def leave() -> None:
        task = asyncio.create_task(guard.amoderate([Passage("one blargh")]))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())  # waits for its threads
    assert stopped.is_set()
    assert len(store.rows) == 1


def test_an_edited_policy_is_picked_up_and_a_broken_edit_is_not(make, tmp_path: Path) -> None:
    import os

    guard = make()
    first = guard.assembly().policy.revision
    path = tmp_path / "test.yaml"

    def edit(text: str, at: int) -> None:
        path.write_text(text)
        os.utime(path, (at, at))
        assert guard._source is not None
        guard._source._looked = -10.0

    edit(POLICY.replace("[plugh]", "[harmless]"), 2_000_000_000)
    assert guard.check("harmless").action is Action.FLAG
    second = guard.assembly().policy.revision
    assert first != second
    edit("policy: [", 2_000_000_100)
    assert guard.check("harmless").action is Action.FLAG
    assert guard.assembly().policy.revision == second


def test_the_same_draft_is_repaired_in_the_same_way(make) -> None:
    rewriter = Fixed("fine")
    guard = make(rewriter)
    one, two = (moderate(guard, "This is blargh!") for _ in range(2))
    assert one.rewrite is not None
    assert two.rewrite is not None
    assert one.rewrite.seed == two.rewrite.seed
    assert guard.rewrite("This is blargh!", seed=7).rewrite.seed == 7


def test_a_missing_policy_is_a_clear_error(store: Store) -> None:
    with pytest.raises(PolicyError, match="no-such-policy"):
        Guardrail("no-such-policy", settings=Settings(), audit=store).check("x")


def test_the_outcome_gathers_decisions(make) -> None:
    guard = make()
    decisions = guard.moderate([Passage("fine"), Passage("xyzzy")], request_id="r1")
    outcome = guard.outcome("r1", decisions)
    assert outcome.blocked
    assert outcome.altered
    assert outcome.action is Action.BLOCK
    assert {decision.request_id for decision in decisions} == {"r1"}
