"""`tier: tuned` in a policy: the network decides, the linear head of the same name steers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from guardrail.assembly import assemble
from guardrail.classifiers.base import BuildContext
from guardrail.classifiers.linear import build, list_heads, load_head
from guardrail.classifiers.tuned import SHIPPED, TunedClassifier, tuned_facts
from guardrail.encoder import DEFAULT_ENCODER, pinned_sha256
from guardrail.errors import ClassifierError
from guardrail.judge import Judge
from guardrail.policy import load_policy
from guardrail.settings import Settings
from guardrail.types import Action, Passage, Score, Stage

POLICY = """
policy: tiers
description: One rule, decided by the network.
classifiers:
  toxicity: {kind: linear, tier: tuned}
rules:
  rude:
    description: Nobody is insulted.
    stages: [output]
    weights: {toxicity: 1.0}
    thresholds: {flag: 0.5}
"""


def context() -> BuildContext:
    return BuildContext(DEFAULT_ENCODER, "cpu", Path(), Path())


def test_the_shipped_network_fits_the_embedded_encoder_and_the_limit_of_size() -> None:
    facts = tuned_facts()
    assert facts.encoder_sha256 == pinned_sha256(DEFAULT_ENCODER)
    assert {"toxicity", "insult", "identity_hate", "threat", "self_harm"} <= set(facts.heads)
    assert SHIPPED.stat().st_size < 22e6
    assert (SHIPPED.parent / "README.md").is_file()


def test_one_word_selects_the_tier_and_nonsense_is_refused() -> None:
    tuned = build("toxicity", {"tier": "tuned"}, context())
    linear = build("toxicity", {"tier": "linear"}, context())
    assert isinstance(tuned, TunedClassifier)
    assert tuned.head is not None
    assert tuned.head.sha256 == load_head("toxicity").sha256
    assert tuned.fingerprint != linear.fingerprint
    assert build("rude", {"tier": "tuned", "head": "insult"}, context()).fingerprint != tuned.fingerprint
    without = [name for name in tuned_facts().heads if name not in list_heads()]
    assert all(build(name, {"tier": "tuned"}, context()).head is None for name in without)  # type: ignore[attr-defined]
    with pytest.raises(ClassifierError, match="`tier` must be linear or tuned"):
        build("toxicity", {"tier": "large"}, context())
    with pytest.raises(ClassifierError, match="for a head from a file"):
        build("toxicity", {"tier": "tuned", "file": "x.safetensors"}, context())
    with pytest.raises(ClassifierError, match="Did you mean 'toxicity'"):
        build("toxicty", {"tier": "tuned"}, context())


def test_the_network_decides_and_the_head_steers(tmp_path: Path) -> None:
    path = tmp_path / "tiers.yaml"
    path.write_text(POLICY, encoding="utf-8")
    made = assemble(load_policy(str(path)), Settings())
    assert made.models["toxicity"] == build("toxicity", {"tier": "tuned"}, context()).fingerprint
    rude, polite = "You are a stupid, worthless idiot.", "The meeting starts at nine in the small room."
    tuned = TunedClassifier("toxicity", "toxicity", None, DEFAULT_ENCODER, "cpu")
    both = made.judge.judge([Passage(f"{polite} {rude}", Stage.OUTPUT), Passage(polite, Stage.OUTPUT)])
    assert [verdict.judgement.action for verdict in both] == [Action.FLAG, Action.ALLOW]
    expected = tuned.score([Passage(rude)])[0].value
    assert both[0].judgement.scores["toxicity"] == pytest.approx(expected, abs=0.02)
    unit = max(both[0].units, key=lambda unit: unit.risks["rude"])
    assert rude.rstrip(".") in f"{polite} {rude}"[slice(*unit.span)]
    guide = made.judge.bundle.linear_guide("rude")
    assert guide is not None
    assert guide[0] == pytest.approx(load_head("toxicity").weight)


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    path = tmp_path / "tiers.yaml"
    path.write_text(POLICY.replace("flag: 0.5", "rewrite: 0.5"), encoding="utf-8")
    return assemble(load_policy(str(path)), Settings()).judge


def test_the_network_is_asked_only_where_the_head_leaves_a_doubt(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    score = TunedClassifier.score

    def counted(self: TunedClassifier, passages: Sequence[Passage]) -> list[Score]:
        asked.extend(passage.text for passage in passages)
        return score(self, passages)

    monkeypatch.setattr(TunedClassifier, "score", counted)
    rude, polite = "You are a stupid, worthless idiot.", "The meeting starts at nine in the small room."
    found = judge.judge([Passage(polite, Stage.OUTPUT), Passage(rude, Stage.OUTPUT)])
    assert asked == [rude]
    assert [verdict.judgement.action for verdict in found] == [Action.ALLOW, Action.REWRITE]
    assert 0.0 < found[0].judgement.scores["toxicity"] < 0.2  # the head's own word


def test_a_sentence_that_the_network_names_is_no_match_to_be_taken_out(judge: Judge) -> None:
    text = "The meeting starts at nine. You are a stupid, worthless idiot. Bring the plan."
    (verdict,) = judge.judge([Passage(text, Stage.OUTPUT)])
    assert verdict.judgement.action is Action.REWRITE
    assert verdict.matches == ()  # only patterns match words
    found = [text[slice(*span)] for span in verdict.judgement.reasons[0].spans]
    assert found
    assert all(part in "You are a stupid, worthless idiot." for part in found)


def test_a_network_that_fails_leaves_the_decision_to_on_error(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: TunedClassifier, passages: Sequence[Passage]) -> list[Score]:
        raise RuntimeError("no memory")

    monkeypatch.setattr(TunedClassifier, "score", broken)
    (verdict,) = judge.judge([Passage("You are a stupid, worthless idiot.", Stage.OUTPUT)])
    assert verdict.judgement.action is Action.BLOCK
    assert "no memory" in verdict.judgement.failures["toxicity"]
