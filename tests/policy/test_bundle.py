"""The arithmetic of a bundle, against a naive reference; and that all heads are one matrix product."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.errors import ClassifierFailure, PolicyError
from guardrail.policy import Policy, PolicyDocument, load_policy
from guardrail.policy.bundle import MAX_LOGIT, Bundle, LinearHead, compile_policy, logit
from guardrail.types import Action, Stage

HEADS = ("a", "b", "c")
SCORED = ("words", "model")  # a pattern and a plug-in: not linear
D = 5


def policy_of(rules: dict[str, dict[str, Any]]) -> Policy:
    classifiers = {name: {"kind": "linear"} for name in HEADS} | {name: {"kind": "pattern"} for name in SCORED}
    document = PolicyDocument.model_validate({"policy": "p", "classifiers": classifiers, "rules": rules})
    return Policy("p", "sha256:0", document, (), directory=None, canonical="")  # type: ignore[arg-type]


def head(name: str, **changes: Any) -> LinearHead:
    seed = np.random.default_rng(ord(name[0]))
    values = {"weight": seed.normal(size=D).astype(np.float32), "bias": float(seed.normal()), "encoder_sha256": "e"}
    return LinearHead(name=name, sha256=f"h{name}", **{**values, **changes})


def bundle_of(rules: dict[str, dict[str, Any]]) -> Bundle:
    return compile_policy(policy_of(rules), {name: head(name) for name in HEADS}, set(SCORED))


def rule(weights: dict[str, float], combine: str = "log_pool", **more: Any) -> dict[str, Any]:
    return {"weights": weights, "combine": combine, "thresholds": {"flag": 0.3, "block": 0.9}, **more}


# -------------------------------------------------------------------------------------------------------- reference


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def naive(spec: dict[str, Any], logits: dict[str, float]) -> float:
    """The formulas of the documentation, term by term."""
    weights = spec["weights"]
    clipped = {name: min(MAX_LOGIT, max(-MAX_LOGIT, logits[name])) for name in weights}
    if spec["combine"] == "log_pool":
        heard = {name: w for name, w in weights.items() if name in HEADS or clipped[name] > -MAX_LOGIT}
        if not heard:
            return sigmoid(-MAX_LOGIT)
        return sigmoid(sum(w * clipped[name] for name, w in heard.items()) / sum(heard.values()))
    if spec["combine"] == "max":
        return max(min(1.0, w) * sigmoid(clipped[name]) for name, w in weights.items())
    remaining = 1.0
    for name, w in weights.items():
        remaining *= sigmoid(-clipped[name]) ** w
    return 1 - remaining


few = settings(max_examples=40, deadline=None)  # each example compiles a policy; the shared machine may be slow
some_logits = st.one_of(st.floats(-40, 40), st.sampled_from([-math.inf, math.inf, 0.0, -MAX_LOGIT]))
some_weights = st.dictionaries(st.sampled_from(HEADS + SCORED), st.floats(0.01, 20), min_size=1)
some_rules = st.dictionaries(
    st.sampled_from(["r1", "r2", "r3", "r4"]),
    st.builds(rule, some_weights, st.sampled_from(["log_pool", "max", "noisy_or"])),
    min_size=1,
)


@few
@given(some_rules, st.lists(st.fixed_dictionaries(dict.fromkeys(HEADS + SCORED, some_logits)), min_size=1, max_size=4))
def test_risks_are_those_of_the_formulas(rules: dict[str, Any], texts: list[dict[str, float]]) -> None:
    logits = {name: np.array([text[name] for text in texts]) for name in HEADS + SCORED}
    risks = bundle_of(rules).risks(logits, Stage.OUTPUT)
    assert list(risks) == list(rules)
    for name, spec in rules.items():
        assert risks[name].shape == (len(texts),)
        assert np.all((risks[name] >= 0) & (risks[name] <= 1))
        expected = [naive(spec, text) for text in texts]
        np.testing.assert_allclose(risks[name], expected, rtol=1e-9, atol=1e-12)


@few
@given(some_rules, st.fixed_dictionaries(dict.fromkeys(HEADS + SCORED, some_logits)))
def test_contributions_add_up(rules: dict[str, Any], text: dict[str, float]) -> None:
    bundle = bundle_of(rules)
    for name, spec in rules.items():
        parts = bundle.contributions(name, text)
        assert set(parts) == set(spec["weights"])
        if spec["combine"] == "log_pool":
            assert sigmoid(sum(parts.values())) == pytest.approx(naive(spec, text), rel=1e-9, abs=1e-12)
        else:
            assert sum(parts.values()) == pytest.approx(1.0)
            assert all(0 <= part <= 1 for part in parts.values())


@few
@given(
    some_rules,
    st.fixed_dictionaries(dict.fromkeys(HEADS + SCORED, some_logits)),
    st.sampled_from(HEADS),
    st.floats(0, 9),
)
def test_more_of_a_harm_is_never_less_risk(
    rules: dict[str, Any], text: dict[str, float], name: str, more: float
) -> None:
    bundle = bundle_of(rules)
    logits = {key: np.array([value, value + more if key == name else value]) for key, value in text.items()}
    for risks in bundle.risks(logits, Stage.OUTPUT).values():
        assert risks[1] >= risks[0] - 1e-12


# ------------------------------------------------------------------------------------------------ worked by hand


def risk_of(spec: dict[str, Any], **probabilities: float) -> float:
    logits = {name: logit([p]) for name, p in probabilities.items()}
    return float(bundle_of({"r": spec}).risks(logits, Stage.OUTPUT)["r"][0])


def test_log_pool_by_hand() -> None:
    # odds 9 and 1, weights 1 and 1: the geometric mean of the odds is 3
    assert risk_of(rule({"a": 1, "b": 1}), a=0.9, b=0.5) == pytest.approx(0.75)
    # only ratios of weights count
    assert risk_of(rule({"a": 10, "b": 10}), a=0.9, b=0.5) == pytest.approx(0.75)
    # 3:1 for odds of 16 against 1: 16^(3/4) = 8
    assert risk_of(rule({"a": 3, "b": 1}), a=16 / 17, b=0.5) == pytest.approx(8 / 9)


def test_max_by_hand() -> None:
    assert risk_of(rule({"a": 1, "b": 0.5}, "max"), a=0.2, b=0.9) == pytest.approx(0.45)
    assert risk_of(rule({"a": 5, "b": 0.5}, "max"), a=0.6, b=0.9) == pytest.approx(0.6)


def test_noisy_or_by_hand() -> None:
    assert risk_of(rule({"a": 1, "b": 1}, "noisy_or"), a=0.5, b=0.5) == pytest.approx(0.75)
    assert risk_of(rule({"a": 2}, "noisy_or"), a=0.5) == pytest.approx(0.75)
    assert risk_of(rule({"a": 1e-3}, "noisy_or"), a=1e-9) == pytest.approx(1e-12, rel=1e-3)


def test_certainty_does_not_overflow() -> None:
    for combine in ("log_pool", "max", "noisy_or"):
        assert risk_of(rule({"a": 1}, combine), a=1.0) == pytest.approx(1.0)
        assert risk_of(rule({"a": 1}, combine), a=0.0) == pytest.approx(0.0, abs=1e-12)
    assert risk_of(rule({"a": 1, "b": 1}), a=1.0, b=0.0) == pytest.approx(0.5)


def test_a_word_list_without_a_match_abstains_from_a_log_pool() -> None:
    spec = rule({"a": 1, "words": 5})
    assert risk_of(spec, a=0.8, words=0.0) == pytest.approx(0.8)
    assert risk_of(spec, a=0.2, words=1.0) > 0.999
    assert risk_of(rule({"words": 1}), words=0.0) == pytest.approx(0.0, abs=1e-12)
    parts = bundle_of({"r": spec}).contributions("r", {"a": 2.0, "words": -math.inf})
    assert parts == {"a": 2.0, "words": 0.0}


def test_logit_is_clipped_and_keeps_nan() -> None:
    np.testing.assert_allclose(logit([0.5, 0.75]), [0, math.log(3)])
    assert logit([0.0, 1.0]).tolist() == [-MAX_LOGIT, MAX_LOGIT]
    assert np.isnan(logit([math.nan]))[0]


# ------------------------------------------------------------------------------------------------------- selection


def test_only_rules_of_the_stage_are_pooled() -> None:
    bundle = bundle_of({"i": rule({"a": 1}, stages=["input"]), "o": rule({"b": 1}, stages=["output", "input"])})
    logits = {"a": np.zeros(2), "b": np.ones(2)}
    assert list(bundle.risks(logits, Stage.INPUT)) == ["i", "o"]
    assert list(bundle.risks(logits, Stage.OUTPUT)) == ["o"]
    assert bundle.risks(logits, Stage.TOOL_CALL) == {}


def test_a_rule_whose_classifier_is_not_given_is_left_out() -> None:
    bundle = bundle_of({"both": rule({"a": 1, "words": 1}), "one": rule({"a": 1}), "other": rule({"words": 1}, "max")})
    assert list(bundle.risks({"a": np.zeros(3)}, Stage.OUTPUT)) == ["one"]
    assert list(bundle.risks({"words": np.zeros(3)}, Stage.OUTPUT)) == ["other"]
    assert bundle.risks({}, Stage.OUTPUT) == {}


def test_a_score_that_is_not_a_number_is_a_failure_of_its_classifier() -> None:
    with pytest.raises(ClassifierFailure, match="'a'"):
        bundle_of({"r": rule({"a": 1})}).risks({"a": np.array([0.0, math.nan])}, Stage.OUTPUT)


@pytest.mark.parametrize(
    ("risk", "expected"),
    [
        (0.0, (Action.ALLOW, 0.3)),
        (0.299, (Action.ALLOW, 0.3)),
        (0.3, (Action.FLAG, 0.3)),
        (0.59, (Action.FLAG, 0.3)),
        (0.6, (Action.REWRITE, 0.6)),
        (0.9, (Action.BLOCK, 0.9)),
        (1.0, (Action.BLOCK, 0.9)),
    ],
)
def test_the_highest_reached_threshold_decides(risk: float, expected: tuple[Action, float]) -> None:
    spec = rule({"a": 1}) | {"thresholds": {"block": 0.9, "flag": 0.3, "redact": 0.6, "rewrite": 0.6}}
    assert bundle_of({"r": spec}).action_for("r", risk) == expected


def test_no_action_for_what_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="not a number"):
        bundle_of({"r": rule({"a": 1})}).action_for("r", math.nan)


# ------------------------------------------------------------------------------------------------------- one matrix


class Counting(np.ndarray):
    """An array that counts the matrix products it takes part in."""

    products = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        Counting.products += ufunc is np.matmul
        plain = [value.view(np.ndarray) if isinstance(value, Counting) else value for value in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)


def test_all_heads_of_all_rules_are_one_matrix_product() -> None:
    policy = load_policy("general")
    linear = [name for name, spec in policy.document.classifiers.items() if spec.kind == "linear"]
    seed = np.random.default_rng(0)
    heads = {
        name: LinearHead(name, seed.normal(size=D).astype(np.float32), float(seed.normal()), name, "e")
        for name in linear
    }
    bundle = compile_policy(policy, heads, policy.document.classifiers.keys() - heads.keys())
    assert bundle.heads == tuple(linear)
    assert len(linear) == 12
    assert bundle.weight.shape == (len(linear), D)
    assert bundle.weight.dtype == bundle.bias.dtype == np.float32
    for position, name in enumerate(linear):
        np.testing.assert_array_equal(bundle.weight[position], heads[name].weight)

    x = seed.normal(size=(7, D)).astype(np.float32)
    Counting.products = 0
    logits = bundle.head_logits(x.view(Counting))
    assert Counting.products == 1
    assert logits.shape == (7, len(linear))
    each = np.stack([x @ heads[name].weight + heads[name].bias for name in linear], axis=1)
    np.testing.assert_allclose(logits, each, rtol=1e-5, atol=1e-5)
    used = {name for spec in policy.document.rules.values() for name in spec.weights}
    assert used <= set(linear) | (policy.document.classifiers.keys() - heads.keys())


@few
@given(st.dictionaries(st.sampled_from(HEADS), st.floats(0.1, 5), min_size=1), st.integers(0, 2**32 - 1))
def test_a_pool_of_linear_heads_is_itself_one_linear_head(weights: dict[str, float], seed: int) -> None:
    bundle = bundle_of({"r": rule(weights)})
    x = np.random.default_rng(seed).normal(size=(4, D)).astype(np.float32)
    guide = bundle.linear_guide("r")
    assert guide is not None
    weight, bias = guide
    columns = dict(zip(bundle.heads, bundle.head_logits(x).T, strict=True))
    risks = bundle.risks(columns, Stage.OUTPUT)["r"]
    np.testing.assert_allclose(x @ weight + bias, logit(risks), rtol=1e-3, atol=1e-4)


def test_the_guide_of_a_mixed_rule_is_its_linear_part() -> None:
    bundle = bundle_of({"mixed": rule({"a": 1, "b": 3, "words": 9}), "words": rule({"words": 1})})
    weight, bias = bundle.linear_guide("mixed") or (np.zeros(D), 0.0)
    np.testing.assert_allclose(weight, 0.25 * head("a").weight + 0.75 * head("b").weight, rtol=1e-5)
    assert bias == pytest.approx(0.25 * head("a").bias + 0.75 * head("b").bias, rel=1e-5)
    assert bundle.linear_guide("words") is None


@pytest.mark.parametrize("combine", ["max", "noisy_or"])
def test_a_pool_that_is_not_linear_has_a_guide_only_for_a_single_head(combine: str) -> None:
    bundle = bundle_of({"one": rule({"a": 1, "words": 1}, combine), "two": rule({"a": 1, "b": 1}, combine)})
    weight, bias = bundle.linear_guide("one") or (np.zeros(D), 0.0)
    np.testing.assert_array_equal(weight, head("a").weight)
    assert bias == pytest.approx(head("a").bias)
    assert bundle.linear_guide("two") is None


def test_heads_are_found_by_name() -> None:
    bundle = bundle_of({"r": rule({"a": 1})})
    weight, bias = bundle.head("b") or (np.zeros(D), 0.0)
    np.testing.assert_array_equal(weight, head("b").weight)
    assert bias == pytest.approx(head("b").bias)
    assert bundle.head("words") is None
    assert bundle.head("nothing") is None


# ------------------------------------------------------------------------------------------------------- refused

PLAIN = """\
policy: p
classifiers:
  a: {kind: linear}
  b: {kind: linear}
  words: {kind: pattern, words: [x]}
rules:
  r: {weights: {a: 1}, thresholds: {block: 0.5}}
"""


@pytest.mark.parametrize(
    ("heads", "others", "line", "words"),
    [
        ({"a": head("a")}, {"words"}, 4, "there is no head 'b'"),
        ({"a": head("a"), "b": head("b")}, set(), 5, "'words' of kind 'pattern' was not built"),
        ({"a": head("a"), "b": head("b", encoder_sha256="other")}, {"words"}, 4, "belong to different encoders"),
        ({"a": head("a"), "b": head("b", weight=np.ones(3, np.float32))}, {"words"}, 4, "belong to different encoders"),
        ({"a": head("a", bias=math.nan), "b": head("b")}, {"words"}, 3, "is damaged"),
        ({"a": head("a"), "b": head("b", weight=np.full(D, np.inf, np.float32))}, {"words"}, 4, "is damaged"),
        ({"a": head("a"), "b": head("b", weight=np.ones((1, D), np.float32))}, {"words"}, 4, "is damaged"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_its_line(load, heads, others, line: int, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_policy(load(PLAIN), heads, others)
    assert words in str(caught.value)
    assert (caught.value.file, caught.value.line) == ("p.yaml", line)


def test_a_policy_of_patterns_alone_needs_no_heads(load) -> None:
    policy = load(
        "policy: p\nclassifiers: {words: {kind: pattern, words: [x]}}\n"
        "rules: {r: {weights: {words: 1}, thresholds: {block: 0.5}}}\n"
    )
    bundle = compile_policy(policy, {}, {"words"})
    assert bundle.heads == ()
    assert bundle.risks({"words": logit([1.0, 0.0])}, Stage.INPUT)["r"].round(6).tolist() == [1.0, 0.0]


def test_a_classifier_of_another_kind_may_bring_a_head(load) -> None:
    policy = load(PLAIN)
    bundle = compile_policy(policy, {name: head(name) for name in ("a", "b", "words")}, set())
    assert bundle.heads == ("a", "b", "words")
