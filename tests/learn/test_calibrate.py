"""Platt scaling: recovers a known distortion, balances sources and classes, refuses what cannot be calibrated."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText
from guardrail.learn.calibrate import calibration_weights, fold, platt
from guardrail.learn.dataset import Dataset
from guardrail.learn.logistic import Linear


def test_recovers_a_known_distortion() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 40_000)
    y = (rng.random(true.size) < 1 / (1 + np.exp(-true))).astype(float)
    a, c = platt((true - 1.5) / 10, y, np.ones(true.size))
    assert a == pytest.approx(10, rel=0.03)
    assert c == pytest.approx(1.5, abs=0.05)


def test_separable_rows_give_a_finite_slope() -> None:
    a, c = platt(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([0.0, 0, 1, 1]), np.ones(4))
    assert 0 < a < 10
    assert abs(c) < 1e-6


def test_rows_ranked_backwards_are_refused() -> None:
    with pytest.raises(DataError, match="worse than chance"):
        platt(np.array([1.0, 2.0, -1.0, -2.0]), np.array([0.0, 0, 1, 1]), np.ones(4))


def test_weights_set_the_prior_and_level_the_sources() -> None:
    sources = np.array(["big"] * 400 + ["small"] * 100)
    y = np.tile([1.0, 0.0, 0.0, 0.0], 125)
    rows = tuple(LabelledText("t", {}, source, weight=2.0 if source == "small" else 1.0) for source in sources)
    data = Dataset(rows, np.zeros((500, 1), np.float32), np.arange(500), np.ones(500, dtype=bool))
    weight = calibration_weights(data, y, prior=0.25)
    assert weight.sum() == pytest.approx(1.0)
    assert weight[y == 1].sum() == pytest.approx(0.25)
    assert weight[sources == "big"].sum() / weight[sources == "small"].sum() == pytest.approx(400**0.5 / 100**0.5 / 2)
    with pytest.raises(DataError, match="one class is missing"):
        calibration_weights(data, np.zeros(500))


def test_folding_gives_the_calibrated_logit() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))
    linear = Linear(np.array([1.0, -2.0, 0.5]), 0.3)
    np.testing.assert_allclose(fold(linear, 1.7, -0.4).logits(x), 1.7 * linear.logits(x) - 0.4)
