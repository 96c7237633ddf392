"""Selection: what passes comes first; the community's preference ranks the rest."""

from __future__ import annotations

from guardrail.policy.schema import Preference
from guardrail.rewrite.base import RewriteRequest
from guardrail.rewrite.redact import MARK, Redactor
from guardrail.rewrite.select import rank, utility
from guardrail.types import Candidate

SOURCE = "You are a fool and the printer is out of paper."


def candidate(
    text: str, risk: float, similarity: float, passes: bool = True, fluency: float | None = None
) -> Candidate:
    return Candidate(text, "dglm", risk, passes, similarity, fluency)


def test_passing_candidates_come_first_whatever_their_utility() -> None:
    safe = candidate("The printer is out of paper.", 0.2, 0.7)
    unsafe = candidate(SOURCE, 0.9, 1.0, passes=False)
    ranked = rank([unsafe, safe], SOURCE, Preference(safety=0.0, fidelity=1.0, brevity=0.0))
    assert [row.text for row in ranked] == [safe.text, unsafe.text]
    assert all(row.utility is not None for row in ranked)


def test_the_preference_decides_between_safety_and_fidelity() -> None:
    safe, faithful = candidate("Hello.", 0.01, 0.3), candidate("The printer is out of paper.", 0.4, 0.9)
    assert (
        rank([faithful, safe], SOURCE, Preference(safety=1, fidelity=0, brevity=0))[0]
        == rank([safe], SOURCE, Preference(safety=1, fidelity=0, brevity=0))[0]
    )
    assert rank([safe, faithful], SOURCE, Preference(safety=0, fidelity=1, brevity=0))[0].text == faithful.text


def test_only_the_ratios_of_a_preference_matter() -> None:
    row = candidate("The printer is out of paper.", 0.2, 0.8)
    small, large = Preference(safety=0.7, fidelity=0.2, brevity=0.1), Preference(safety=7, fidelity=2, brevity=1)
    assert abs(utility(row, SOURCE, small) - utility(row, SOURCE, large)) < 1e-9


def test_longer_than_the_draft_costs_brevity_and_fluency_breaks_ties() -> None:
    preference = Preference(safety=0.0, fidelity=0.0, brevity=1.0)
    assert utility(candidate("x" * 200, 0.0, 0.5), SOURCE, preference) < utility(
        candidate("x", 0.0, 0.5), SOURCE, preference
    )
    fluent, halting = candidate("a", 0.1, 0.8, fluency=-0.1), candidate("b", 0.1, 0.8, fluency=-3.0)
    assert rank([halting, fluent], SOURCE, Preference())[0].text == "a"


def test_redaction_marks_matches_before_it_removes_everything() -> None:
    request = RewriteRequest("a bad and a worse word", matches=((2, 5), (12, 17)))
    assert [p.text for p in Redactor().propose([request])[0]] == [f"a {MARK} and a {MARK} word", MARK]
    assert [p.text for p in Redactor().propose([RewriteRequest("no match")])[0]] == [MARK]
