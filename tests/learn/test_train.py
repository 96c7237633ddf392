"""Training a head end to end on the project's own sentences, with the real encoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.metrics import quick_auroc
from guardrail.learn.dataset import Dataset
from guardrail.learn.logistic import Strength
from guardrail.learn.report import probabilities, report
from guardrail.learn.train import Plan, _sample, train_head

SHA = "e" * 64
QUICK = Plan(grid=(Strength(),))


def relabelled(data: Dataset, change: dict[str, float] | None = None, **fields: object) -> Dataset:
    """The same vectors with other row fields; `change` replaces all labels."""
    rows = tuple(replace(row, labels=row.labels if change is None else change, **fields) for row in data.rows)
    return Dataset(rows, data.x, data.owner, data.marked)


def test_a_head_learns_ranks_and_is_calibrated(own: Dataset) -> None:
    trained = train_head("insult", own, SHA, plan=QUICK)
    test = own.subset((own.splits == "test") & ~np.isnan(own.labels("insult")))
    scores, y = probabilities(test, trained.head), test.labels("insult") > 0.5
    assert quick_auroc(scores, y) > 0.8  # type: ignore[operator]
    assert scores[y].mean() > 2 * scores[~y].mean()
    figures = report(trained, own, QUICK, resamples=50)
    assert figures.split == "test"
    assert (figures.n, figures.positives) == (len(y), int(y.sum()))
    assert figures.metrics["ece_balanced"].value < 0.2  # type: ignore[operator]
    assert figures.as_json()["intervals"]["auroc"][0] < figures.as_json()["auroc"]


def test_the_seed_decides(own: Dataset) -> None:
    plain = relabelled(own, split="train")  # so that the calibration rows are drawn
    first, again, other = (train_head("insult", plain, SHA, plan=replace(QUICK, seed=seed)) for seed in (1, 1, 2))
    assert first.head.sha256 == again.head.sha256
    assert first.head.sha256 != other.head.sha256


def test_unknown_labels_are_masked(own: Dataset) -> None:
    """Rows that do not know the head change nothing, whatever their vectors are."""
    known = own.subset(~np.isnan(own.labels("insult")))
    strangers = relabelled(own.subset(own.sources == "everyday"), {"toxicity": 1.0})
    both = Dataset(
        known.rows + strangers.rows,
        np.concatenate((known.x, -strangers.x)),
        np.concatenate((known.owner, strangers.owner + len(known.rows))),
        np.concatenate((known.marked, strangers.marked)),
    )
    assert (
        train_head("insult", both, SHA, plan=QUICK).head.sha256
        == train_head("insult", known, SHA, plan=QUICK).head.sha256
    )


@pytest.mark.parametrize("labels", [{"insult": 1.0}, {"insult": 0.0}, {}])
def test_one_class_is_refused(own: Dataset, labels: dict[str, float]) -> None:
    with pytest.raises(DataError, match="'insult' needs at least 5 positive and 5 negative train rows"):
        train_head("insult", relabelled(own, labels), SHA)


def test_a_head_that_ranks_calibration_rows_backwards_is_refused(own: Dataset) -> None:
    rows = tuple(
        replace(row, split="dev", labels={"insult": 1.0 - row.labels["insult"]}) if number % 4 == 0 else row
        for number, row in enumerate(own.rows)
        if "insult" in row.labels
    )
    kept = own.subset(~np.isnan(own.labels("insult")))
    with pytest.raises(DataError, match="worse than chance"):
        train_head("insult", Dataset(rows, kept.x, kept.owner, kept.marked), SHA, plan=QUICK)


def test_soft_labels_pull_less_than_hard_ones(own: Dataset) -> None:
    soft = Dataset(
        tuple(replace(row, labels={k: 0.5 + (v - 0.5) * 0.4 for k, v in row.labels.items()}) for row in own.rows),
        own.x,
        own.owner,
        own.marked,
    )
    hard_head, soft_head = (train_head("insult", data, SHA, plan=QUICK).head for data in (own, soft))
    assert np.linalg.norm(soft_head.weight) < 0.7 * np.linalg.norm(hard_head.weight)


def test_sources_are_left_out_one_by_one(own: Dataset) -> None:
    trained = train_head("toxicity", own, SHA, plan=replace(QUICK, grid=(Strength(0.01), Strength(0.1))))
    assert set(trained.left_out) == {"insult", "threat"}  # the everyday sentences hold no positive
    assert all(value > 0.5 for value in trained.left_out.values())
    assert trained.strength in {Strength(0.01), Strength(0.1)}


def test_a_long_text_teaches_by_its_worst_window(own: Dataset) -> None:
    """Glue a calm window to every insult: the fit must find out which of the two made the row positive."""
    kept = own.subset(~np.isnan(own.labels("insult")))
    calm = kept.x[kept.labels("insult")[kept.owner] == 0]
    positive = np.flatnonzero(kept.labels("insult") >= 0.5)
    rng = np.random.default_rng(0)
    glued = Dataset(
        kept.rows,
        np.concatenate((kept.x, calm[rng.integers(len(calm), size=len(positive))])),
        np.concatenate((kept.owner, positive)),
        np.ones(len(kept.x) + len(positive), dtype=bool),
    )
    order = np.argsort(glued.owner, kind="stable")
    glued = Dataset(glued.rows, glued.x[order], glued.owner[order], glued.marked[order])
    once, often = (train_head("insult", glued, SHA, plan=replace(QUICK, rounds=rounds)) for rounds in (1, 4))
    test = kept.subset(kept.splits == "test")
    y = test.labels("insult") > 0.5
    assert quick_auroc(probabilities(test, often.head), y) > quick_auroc(probabilities(test, once.head), y) - 0.02  # type: ignore[operator]
    margins = [
        probabilities(test, trained.head)[y].mean() - probabilities(test, trained.head)[~y].mean()
        for trained in (once, often)
    ]
    assert margins[1] > margins[0]


def test_the_search_sample_keeps_small_strata_whole() -> None:
    y = np.array([1.0] * 5 + [0.0] * 1_000 + [1.0] * 300)
    sources = np.array(["own"] * 5 + ["web"] * 1_300)
    keep = _sample(y, sources, 205, seed=0)
    assert keep[:5].all()
    assert (keep[5:1_005].sum(), keep[1_005:].sum()) == (100, 100)
    assert _sample(y, sources, 5_000, seed=0).all()


def test_an_empty_report_is_possible() -> None:
    """Rows of one class have no metric but a reason."""
    rows = (LabelledText("a", {"x": 1.0}, "s", "test"),)
    data = Dataset(rows, np.ones((1, 2), np.float32), np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool))
    from guardrail.classifiers.linear import make_head
    from guardrail.learn.train import Trained

    found = report(Trained(make_head("x", np.ones(2), 0.0, SHA), Strength()), data, resamples=10)
    assert found.metrics["auroc"].value is None
    assert found.metrics["auroc"].reason == "no negative row is labelled"
