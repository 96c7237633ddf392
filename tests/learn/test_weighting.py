"""Row and window weights: sources levelled, classes balanced, unknown masked, windows shared out."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.evaluate.data import LabelledText
from guardrail.learn.dataset import Dataset
from guardrail.learn.weighting import NEGATIVES, TOTAL, even_shares, examples, responsibilities, row_weights

SOURCES = np.array(["big"] * 90 + ["small"] * 10)
LABELS = np.array(([1.0] + [0.0] * 2) * 30 + [1.0, 0.0] * 5)


def dataset(windows: list[int], marked: list[bool] | None = None, sources: list[str] | None = None) -> Dataset:
    """Rows with that many windows each."""
    owner = np.repeat(np.arange(len(windows)), windows)
    names = sources or ["s"] * len(windows)
    rows = tuple(LabelledText("t", {}, names[number]) for number in range(len(windows)))
    return Dataset(rows, np.zeros((len(owner), 2), np.float32), owner, np.array(marked or [True] * len(owner)))


def test_the_classes_weigh_what_they_should() -> None:
    positive, negative = row_weights(SOURCES, LABELS)
    assert positive.sum() + negative.sum() == pytest.approx(TOTAL)
    assert negative.sum() / positive.sum() == pytest.approx(NEGATIVES)
    assert not positive[LABELS == 0].any()


@pytest.mark.parametrize(("temper", "ratio"), [(0.0, 60 / 5), (0.5, (60 / 5) ** 0.5), (1.0, 1.0)])
def test_temper_levels_the_sources(temper: float, ratio: float) -> None:
    _, negative = row_weights(SOURCES, LABELS, temper)
    assert negative[SOURCES == "big"].sum() / negative[SOURCES == "small"].sum() == pytest.approx(ratio)


def test_soft_labels_count_on_both_sides() -> None:
    positive, negative = row_weights(np.array(["s", "s"]), np.array([0.75, 0.25]))
    assert positive[0] / positive[1] == pytest.approx(3.0)
    assert negative[1] / negative[0] == pytest.approx(3.0)


def test_a_row_may_ask_for_more() -> None:
    positive, _ = row_weights(np.array(["s"] * 3), np.array([1.0, 1.0, 0.0]), emphasis=np.array([3.0, 1.0, 1.0]))
    assert positive[0] / positive[1] == pytest.approx(3.0)


def test_unknown_rows_are_masked() -> None:
    data = dataset([1, 1, 1, 1])
    found = examples(data, np.array([1.0, 0.0, np.nan, 0.0]))
    assert set(found.index) == {0, 1, 3}
    assert found.weight.sum() == pytest.approx(TOTAL)
    assert found.weight[found.y == 0].sum() / found.weight[found.y == 1].sum() == pytest.approx(NEGATIVES)


def test_a_positive_row_is_shared_by_its_windows_and_every_window_of_a_clean_row_counts() -> None:
    data = dataset([1, 4, 1, 4])
    found = examples(data, np.array([1.0, 1.0, 0.0, 0.0]))
    weight = {(int(i), int(y)): w for i, y, w in zip(found.index, found.y, found.weight, strict=True)}
    assert weight[1, 1] == pytest.approx(weight[0, 1] / 4)
    assert weight[6, 0] == pytest.approx(weight[5, 0] / 2)  # four windows of one text: twice one window, not four times


def test_windows_outside_the_spans_of_a_positive_row_are_negative() -> None:
    data = dataset([3, 1], marked=[False, True, False, True])
    found = examples(data, np.array([1.0, 0.0]))
    assert {(int(i), int(y)) for i, y in zip(found.index, found.y, strict=True)} == {(0, 0), (1, 1), (2, 0), (3, 0)}
    np.testing.assert_allclose(even_shares(data), [0, 1, 0, 1])


def test_responsibility_goes_to_the_window_that_looks_worst() -> None:
    data = dataset([3, 2], marked=[True, True, False, True, True])
    share = responsibilities(data, np.array([0.0, 2.0, 9.0, -1.0, -1.0]))
    np.testing.assert_allclose(share, [0.1192, 0.8808, 0.0, 0.5, 0.5], atol=1e-4)
    even = responsibilities(data, np.zeros(5))
    np.testing.assert_allclose(even, even_shares(data))
