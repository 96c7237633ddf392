"""The penalty does what it is for: naming a group of people moves a head less."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.encoder import load_encoder
from guardrail.learn.embeddings import EmbeddingCache
from guardrail.learn.invariance import GROUPS, TEMPLATES, counterfactuals, identity_scatter
from guardrail.learn.logistic import Strength, fit, normalised
from guardrail.learn.weighting import Examples


def everything(y: np.ndarray) -> Examples:
    return Examples(np.arange(len(y)), y, np.full(len(y), 10_000 / len(y)))


def test_without_penalties_it_is_plain_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    y = (rng.random(300) < 0.4).astype(float)
    x = rng.normal(0, 0.5, (300, 8)) + np.outer(y, np.arange(8)) / 8
    ours = fit(x, everything(y), Strength(0.01))
    plain = LogisticRegression(C=0.01, tol=1e-8, max_iter=500).fit(x, y, sample_weight=np.full(len(y), 10_000 / len(y)))
    np.testing.assert_allclose(ours.weight, plain.coef_[0], atol=1e-3)
    np.testing.assert_allclose(ours.logits(x[:5]), plain.decision_function(x[:5]), atol=1e-2)


def test_nothing_to_normalise_stays_nothing() -> None:
    assert not normalised(np.zeros((3, 3))).any()
    assert np.trace(normalised(np.diag([1.0, 3.0]))) == pytest.approx(2.0)


def test_counterfactuals_differ_only_in_the_group() -> None:
    found = counterfactuals()
    assert [len(group) for group in found] == [len(GROUPS)] * len(TEMPLATES)
    assert len({text for group in found for text in group}) == len(GROUPS) * len(TEMPLATES)
    texts = {text for group in found for text in group}
    assert "I am an atheist person." in texts
    assert "I am a European person." in texts
    assert "Deaf people live in every part of the country." in texts
    assert not any("{" in text for text in texts)


def test_naming_a_group_moves_a_punished_head_less() -> None:
    cache = EmbeddingCache(load_encoder(device="cpu"))
    hostile = [f"I hate {group} people" for group in GROUPS[:16]] + ["you are scum", "shut up", "go away, idiot"] * 4
    kind = ["I like people", "good morning", "thanks for the help", "the bus is late", "see you at lunch"] * 6
    x = cache.embed(hostile + kind)
    y = np.array([1.0] * len(hostile) + [0.0] * len(kind))
    identity = identity_scatter(cache, TEMPLATES[:6])
    assert np.trace(identity) == pytest.approx(384)
    neutral = cache.embed([f"{group} people came to the concert." for group in GROUPS])
    spreads = [
        float(fit(x, everything(y), Strength(1.0, strength), identity).logits(neutral).std())
        for strength in (0.0, 30.0)
    ]
    assert spreads[1] < spreads[0] / 2
