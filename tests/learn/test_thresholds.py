"""Thresholds: claims that fresh texts bear out, and refusals where the data cannot support a claim."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.errors import DataError
from guardrail.learn.thresholds import needed_negatives, tune_for_cost, tune_for_rate, upper_bound


def drawn(seed: int, positives: int = 300, negatives: int = 3_000) -> tuple[np.ndarray, np.ndarray]:
    """Risks from overlapping beta distributions."""
    rng = np.random.default_rng(seed)
    risks = np.concatenate((rng.beta(5, 2, positives), rng.beta(1.5, 6, negatives)))
    return risks, np.arange(len(risks)) < positives


def test_a_claimed_rate_holds_on_fresh_texts() -> None:
    broken = 0
    for seed in range(20):
        found = tune_for_rate(*drawn(seed), 0.02, resamples=0)
        fresh, truth = drawn(1_000 + seed, positives=10, negatives=20_000)
        broken += float((fresh[~truth] >= found.threshold.value).mean()) > 0.02
        assert found.fpr_bound <= 0.02
    assert broken <= 4  # 95% confidence: 1 of 20 on average


def test_the_threshold_is_the_lowest_that_can_be_claimed() -> None:
    risks, truth = drawn(0)
    found = tune_for_rate(risks, truth, 0.02, resamples=200)
    lower = float(found.threshold.value or 0) - 1e-4
    assert upper_bound(int((risks[~truth] >= lower - 0.01).sum()), 3_000) > 0.02
    assert found.threshold.low <= found.threshold.value <= found.threshold.high
    assert found.recall.low < found.recall.value < found.recall.high
    again = tune_for_rate(risks, truth, 0.02, resamples=200)
    assert again == found  # seeded


def test_too_few_harmless_texts_cannot_show_a_small_rate() -> None:
    assert needed_negatives(0.01) == 299
    assert upper_bound(0, 299) <= 0.01 < upper_bound(0, 298)
    assert upper_bound(5, 5) == 1.0
    risks, truth = drawn(0, positives=100, negatives=200)
    with pytest.raises(DataError, match="at least 299 harmless texts"):
        tune_for_rate(risks, truth, 0.01)


def test_a_rule_that_is_sure_of_harmless_texts_is_refused() -> None:
    risks, truth = drawn(0)
    risks[~truth] = np.where(np.arange(3_000) < 200, 1.0, risks[~truth])
    with pytest.raises(DataError, match="no threshold reaches a false-positive rate of 0.01: 200 of 3000"):
        tune_for_rate(risks, truth, 0.01)


def test_dearer_misses_lower_the_threshold() -> None:
    risks, truth = drawn(3)
    found = [tune_for_cost(risks, truth, miss, 1.0, resamples=100).threshold.value for miss in (1.0, 5.0, 25.0)]
    assert found[0] > found[1] > found[2]
    one = tune_for_cost(risks, truth, 5.0, 1.0, resamples=100)
    best = min(
        5.0 * truth.mean() * (risks[truth] < t).mean() + (1 - truth.mean()) * (risks[~truth] >= t).mean()
        for t in np.linspace(0.01, 0.99, 200)
    )
    assert one.cost.value == pytest.approx(best, rel=0.02)
    rare = tune_for_cost(risks, truth, 25.0, 1.0, prevalence=0.02, resamples=100)
    assert rare.threshold.value > found[2]


def test_a_rule_that_knows_nothing_is_refused_at_any_cost() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="cannot show that the rule is worth its mistakes"):
        tune_for_cost(rng.random(400), rng.random(400) < 0.3, 1.0, 1.0, resamples=200)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, y: tune_for_rate(r, y, 0.0), "between 0 and 1"),
        (lambda r, y: tune_for_rate(r, y, 1.5), "between 0 and 1"),
        (lambda r, y: tune_for_rate(r, np.zeros_like(y), 0.05), "0 violations are too few"),
        (lambda r, y: tune_for_rate(r[:50], y[:50], 0.05), "0 harmless texts are too few"),
        (lambda r, y: tune_for_rate(r * 2, y, 0.05), r"not in \[0, 1\]"),
        (lambda r, y: tune_for_rate(r * np.nan, y, 0.05), r"not in \[0, 1\]"),
        (lambda r, y: tune_for_rate(r[1:], y, 0.05), "one risk for each label"),
        (lambda r, y: tune_for_cost(r, y, -1.0, 1.0), "above 0"),
        (lambda r, y: tune_for_cost(r, y, 1.0, float("inf")), "above 0"),
        (lambda r, y: tune_for_cost(r, y, 1.0, 1.0, prevalence=1.0), "between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(*drawn(0))
