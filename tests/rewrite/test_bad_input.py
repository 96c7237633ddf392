"""Drafts that are hard to repair: whatever becomes of them, nothing that breaks the policy leaves, and nothing is lost."""

from __future__ import annotations

import pytest

from guardrail.engine import Guardrail
from guardrail.settings import Settings
from guardrail.types import Action, Decision, State

POLICY = """
policy: strict
classifiers:
  toxicity: {kind: linear}
  slurs: {kind: pattern, words: [glorbag, "glorbag head"]}
rules:
  civility: {stages: [output], weights: {toxicity: 1.0}, thresholds: {rewrite: 0.5}}
  slurs: {stages: [output], weights: {slurs: 1.0}, thresholds: {rewrite: 0.5}}
rewrite: {order: [dglm, redact], candidates: 3}
"""

RUDE = "You are a stupid idiot."
FINE = "The train to Leeds leaves at noon from the second platform."


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guardrail:
    path = tmp_path_factory.mktemp("policies") / "strict.yaml"
    path.write_text(POLICY, encoding="utf-8")
    return Guardrail(path, settings=Settings(device="cpu"))


def repaired(guard: Guardrail, text: str) -> Decision:
    decision = guard.rewrite(text)
    if decision.text is not None:
        assert guard.check(decision.text).action < Action.REDACT
    return decision


def test_a_draft_that_is_all_violation(guard: Guardrail) -> None:
    decision = repaired(guard, f"{RUDE} Shut up, moron! What a worthless clown you are.")
    assert decision.state in {State.REWRITTEN, State.REDACTED, State.BLOCKED}


@pytest.mark.parametrize("text", ["Idiot!", "glorbag", "🖕", "…"])
def test_one_word(guard: Guardrail, text: str) -> None:
    decision = repaired(guard, text)
    assert "glorbag" not in (decision.text or "").lower()


def test_three_thousand_words_keep_all_but_the_sentences_that_offend(guard: Guardrail) -> None:
    words = (FINE + " ") * 270
    decision = repaired(guard, words + RUDE + " " + FINE)
    assert decision.state in {State.REWRITTEN, State.REDACTED}
    assert decision.text is not None
    assert decision.text.startswith(words.strip())
    assert decision.text.endswith(FINE)
    assert RUDE not in decision.text


def test_one_endless_sentence_is_not_cut_short(guard: Guardrail) -> None:
    decision = repaired(guard, "you stupid idiot and " * 300)
    assert decision.state in {State.REDACTED, State.BLOCKED}  # too long for the decoder: left to the next rewriter


CODE = """Run this, you stupid idiot:

```python
def glorbag(values):
    return [value for value in values if value > 0]
```

It prints the list."""


def test_code_is_not_rewritten_and_stays_to_the_letter_where_it_may(guard: Guardrail) -> None:
    decision = repaired(guard, CODE.replace("glorbag", "positive"))
    assert decision.text is not None
    assert "    return [value for value in values if value > 0]\n```" in decision.text
    assert "idiot" not in decision.text
    forbidden = repaired(guard, CODE)
    assert "glorbag" not in (forbidden.text or "")


@pytest.mark.parametrize(
    "text",
    [
        "Du bist ein glorbag, und der Zug fährt um zwölf.",
        "Ты glorbag, а поезд уходит в полдень.",
        "あなたは glorbag です。電車は正午に出ます。",
    ],
)
def test_another_language(guard: Guardrail, text: str) -> None:
    decision = repaired(guard, text)
    assert decision.action >= Action.REDACT
    assert "glorbag" not in (decision.text or "").lower()


def test_a_table_keeps_its_other_rows(guard: Guardrail) -> None:
    table = "| name | remark |\n|---|---|\n| Ada | arrives at noon |\n| Ben | you stupid glorbag |\n| Cem | has the keys |\n"
    decision = repaired(guard, table)
    assert "glorbag" not in (decision.text or "")
    if decision.text is not None:
        assert "| Ada | arrives at noon |" in decision.text
