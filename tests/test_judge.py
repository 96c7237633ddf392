"""The judge: windows, sentences, spans, failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guardrail.encoder import load_encoder
from guardrail.judge import Judge, minimal, trim
from guardrail.policy.bundle import LinearHead, compile_policy
from guardrail.policy.loader import load_policy
from guardrail.types import Action, Passage, Score, Stage

POLICY = """
policy: test
classifiers:
  rude: {kind: linear}
  words: {kind: pattern, words: [frobnicate]}
rules:
  manners:
    description: No rudeness.
    stages: [output]
    weights: {rude: 1.0}
    thresholds: {flag: 0.5, rewrite: 0.8}
  lexicon:
    stages: [output, input]
    weights: {words: 1.0}
    thresholds: {redact: 0.5}
"""

RUDE = [
    "You are an idiot.",
    "Shut up, moron.",
    "What a stupid clown you are.",
    "You worthless loser.",
    "Get lost, you fool.",
]
KIND = [
    "You are very kind.",
    "Please sit down.",
    "What a lovely day it is.",
    "The train leaves at noon.",
    "Thanks for the help.",
]


class Words:
    name, kind, fingerprint = "words", "pattern", "sha256:words"

    def __init__(self, error: Exception | None = None, value: float = 1.0) -> None:
        self.error, self.value = error, value

    def score(self, passages):
        if self.error:
            raise self.error
        return [self._one(passage.text) for passage in passages]

    def _one(self, text: str) -> Score:
        start = text.find("frobnicate")
        return Score(self.value, ((start, start + 10),)) if start >= 0 else Score(0.0)


@pytest.fixture(scope="module")
def head() -> LinearHead:
    from sklearn.linear_model import LogisticRegression

    encoder = load_encoder()
    model = LogisticRegression(C=100.0).fit(encoder.encode(RUDE + KIND), [1] * 5 + [0] * 5)
    return LinearHead("rude", model.coef_[0].astype(np.float32), float(model.intercept_[0]), "sha256:x", encoder.sha256)


@pytest.fixture
def make_judge(tmp_path: Path, head: LinearHead):
    def make(words: Words | None = None, encoder=load_encoder, extra: str = "", text: str = POLICY) -> Judge:
        (tmp_path / "test.yaml").write_text(text + extra)
        policy = load_policy(tmp_path / "test.yaml")
        return Judge(compile_policy(policy, {"rude": head}, {"words"}), {"words": words or Words()}, encoder)

    return make


def judge_one(judge: Judge, text: str, stage: Stage = Stage.OUTPUT):
    return judge.judge([Passage(text, stage)])[0].judgement


def test_harmless_and_rude_texts(make_judge) -> None:
    judge = make_judge()
    assert judge_one(judge, "The train leaves at noon.").action is Action.ALLOW
    found = judge_one(judge, "You are an idiot.")
    assert found.action is Action.REWRITE
    assert found.reasons[0].rule == "manners"
    assert found.reasons[0].spans == ((0, 17),)
    assert found.rules["manners"] == found.risk > 0.8
    assert set(found.reasons[0].contributions) == {"rude"}


def test_one_bad_sentence_is_found_in_padding_and_named(make_judge) -> None:
    padding = "The train leaves at noon. Thanks for the help. It is a lovely day. "
    text = padding * 3 + "You are an idiot." + " " + padding * 3
    found = judge_one(make_judge(), text)
    assert found.action is Action.REWRITE
    start = text.index("You are")
    assert (start, start + len("You are an idiot.")) in found.reasons[0].spans


def test_a_long_text_is_scanned_to_its_end(make_judge) -> None:
    text = "The train leaves at noon. " * 400 + "You are an idiot."
    assert judge_one(make_judge(), text).action is Action.REWRITE


def test_obfuscation_is_undone(make_judge) -> None:
    judge = make_judge()
    assert judge_one(judge, "Y\u200bou are an i\u200bd\u200biot.").action is Action.REWRITE


def test_pattern_spans_and_stage(make_judge) -> None:
    judge = make_judge()
    text = "Please do not frobnicate the printer."
    found = judge_one(judge, text)
    assert found.action is Action.REDACT
    assert text[slice(*found.reasons[0].spans[0])] == "frobnicate"
    assert judge_one(judge, "You are an idiot.", Stage.INPUT).action is Action.ALLOW
    assert not judge_one(judge, text, Stage.RETRIEVED).scanned


@pytest.mark.parametrize(("on_error", "action"), [("block", Action.BLOCK), ("flag", Action.FLAG)])
def test_a_classifier_that_raises_is_handled_by_on_error(make_judge, on_error: str, action: Action) -> None:
    judge = make_judge(Words(RuntimeError("boom")), extra=f"on_error: {on_error}\n")
    found = judge_one(judge, "The train leaves at noon.")
    assert found.action is action
    assert "boom" in found.failures["words"]
    assert "boom" in found.reasons[0].error
    assert "manners" in found.rules  # the other rules still judge


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1])
def test_a_nonsensical_score_is_a_failure(make_judge, value: float) -> None:
    found = judge_one(make_judge(Words(value=value)), "frobnicate")
    assert found.action is Action.BLOCK
    assert "not in [0, 1]" in found.failures["words"]


def test_a_broken_encoder_fails_closed(make_judge) -> None:
    def broken():
        raise MemoryError("no room")

    found = judge_one(make_judge(encoder=broken), "The train leaves at noon.")
    assert found.action is Action.BLOCK
    assert "MemoryError" in found.failures["rude"]


def test_the_encoder_is_not_touched_where_no_linear_head_is_needed(make_judge) -> None:
    def never():
        raise AssertionError("the encoder was loaded")

    assert judge_one(make_judge(encoder=never), "frobnicate", Stage.INPUT).action is Action.REDACT


@pytest.mark.parametrize("text", ["", "   \n\t ", "\x00", "\ud800", "\u202eabc", "a" * 100_000, "🙂" * 5000])
def test_odd_texts_are_judged(make_judge, text: str) -> None:
    assert judge_one(make_judge(), text).action in (Action.ALLOW, Action.FLAG)


def test_batches_equal_single_calls(make_judge) -> None:
    judge = make_judge()
    texts = [*RUDE, *KIND, "frobnicate!", "", "Hello. " * 200]
    together = judge.judge([Passage(text) for text in texts])
    for text, verdict in zip(texts, together, strict=True):
        alone = judge_one(judge, text)
        assert alone.action is verdict.judgement.action
        assert alone.risk == pytest.approx(verdict.judgement.risk, abs=1e-4)
    assert judge.judge([]) == []


def test_minimal_spans_and_trimming() -> None:
    assert minimal([(0, 10), (2, 5), (2, 5), (7, 12)]) == [(2, 5), (7, 12)]
    assert trim("  ab  ", (0, 6)) == (2, 4)


def test_what_patterns_forbid_is_told_where_a_match_alone_decides(make_judge) -> None:
    judge = make_judge()
    forbidden = judge.forbidden(Stage.OUTPUT)
    assert forbidden("do not frobnicate")
    assert not forbidden("You are an idiot.")  # that is for the heads to say
    assert judge.forbidden(Stage.RETRIEVED) is None
    assert not make_judge(Words(value=0.3)).forbidden(Stage.OUTPUT)("do not frobnicate")  # below the threshold


def test_a_pattern_that_heads_can_outvote_is_not_forbidden(make_judge) -> None:
    pooled = POLICY.replace("weights: {rude: 1.0}", "weights: {rude: 1.0, words: 0.2}").split("  lexicon:")[0]
    judge = make_judge(Words(value=0.9), text=pooled)
    assert not judge.forbidden(Stage.OUTPUT)("do not frobnicate")
    judge = make_judge(Words(value=0.9), text=pooled.replace("words: 0.2", "words: 9.0"))
    assert judge.forbidden(Stage.OUTPUT)("do not frobnicate")
