"""Metrics agree with scikit-learn, also under row weights, and say when the data cannot support them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from guardrail.evaluate.metrics import METRICS, Estimate, Ranking, evaluate_scores, quick_auroc

SCORES = st.lists(st.integers(0, 20), min_size=4, max_size=60)


@settings(max_examples=60, deadline=None)
@given(SCORES, st.integers(0, 10_000))
def test_weighted_metrics_agree_with_scikit_learn(values: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.array(values) / 20  # many ties
    positive = rng.random(len(scores)) < 0.5
    positive[:2] = (True, False)
    weight = rng.integers(0, 4, len(scores)).astype(float)
    weight[:2] += 1
    ranking = Ranking(scores, positive)
    order = np.argsort(-scores, kind="stable")
    sorted_weight = weight[order]
    auroc = roc_auc_score(positive, scores, sample_weight=weight)
    assert ranking.auroc(sorted_weight) == pytest.approx(auroc)
    auprc = average_precision_score(positive, scores, sample_weight=weight)
    assert ranking.auprc(sorted_weight) == pytest.approx(auprc)
    fpr, tpr, _ = roc_curve(positive, scores, sample_weight=weight, drop_intermediate=False)
    assert ranking.recall_at_1pct_fpr(sorted_weight) == pytest.approx(tpr[fpr <= 0.01].max())


def test_calibration_error_of_known_cases() -> None:
    positive = np.array([True, False] * 50)
    assert Ranking(np.full(100, 0.5), positive).ece(np.ones(100)) == pytest.approx(0.0)
    assert Ranking(np.full(100, 0.9), positive).ece(np.ones(100)) == pytest.approx(0.4)
    assert Ranking(positive.astype(float), positive).ece(np.ones(100)) == pytest.approx(0.0)


def test_a_perfect_ranking() -> None:
    scores, positive = np.linspace(0, 1, 200), np.arange(200) >= 150
    found = evaluate_scores(scores, positive, resamples=50)
    assert found["auroc"] == Estimate(1.0, 1.0, 1.0)
    assert found["recall_at_1pct_fpr"].value == 1.0


def test_intervals_cover_and_shrink_and_repeat() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for n in (200, 3_200):
        positive = rng.random(n) < 0.3
        scores = np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1)
        found = evaluate_scores(scores, positive, resamples=200, seed=3)
        assert found == evaluate_scores(scores, positive, resamples=200, seed=3)
        assert found != evaluate_scores(scores, positive, resamples=200, seed=4)
        for estimate in found.values():
            assert estimate.low is not None
            assert estimate.value is not None
            assert estimate.high is not None
            assert estimate.low <= estimate.high
        assert found["auroc"].low < found["auroc"].value < found["auroc"].high  # type: ignore[operator]
        widths.append(found["auroc"].high - found["auroc"].low)  # type: ignore[operator]
    assert widths[1] < widths[0] / 2  # sixteen times the rows: a quarter of the width


@pytest.mark.parametrize(
    ("positive", "reason"),
    [([], "no row is labelled"), ([True] * 3, "no negative row is labelled"), ([False], "no positive row is labelled")],
)
def test_one_class_has_no_metric_but_a_reason(positive: list[bool], reason: str) -> None:
    found = evaluate_scores(np.linspace(0, 1, len(positive)), np.array(positive, dtype=bool))
    assert set(found) == set(METRICS)
    for estimate in found.values():
        assert estimate == Estimate(None, reason=reason)
        assert estimate.as_json() == {"value": None, "low": None, "high": None, "reason": reason}
    assert quick_auroc(np.linspace(0, 1, len(positive)), np.array(positive, dtype=bool)) is None


def test_no_resamples_give_no_interval() -> None:
    assert evaluate_scores([0.1, 0.9], [False, True], resamples=0)["auroc"] == Estimate(1.0)
