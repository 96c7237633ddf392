"""A linear head learns the opinion of the network where nobody knows the label, and true labels elsewhere."""

from __future__ import annotations

import numpy as np

from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.metrics import quick_auroc
from guardrail.learn.distil import TRUST, as_dataset, taught_by
from guardrail.learn.logistic import Strength
from guardrail.learn.train import Plan, train_head


def test_only_training_rows_are_taught_and_known_labels_weigh_more() -> None:
    rows = [
        LabelledText("a", {"x": 1.0}, "s", "train"),
        LabelledText("b", {"y": 0.0}, "s", "train"),
        LabelledText("c", {"x": 1.0}, "s", "dev"),
        LabelledText("d", {}, "s", "test"),
    ]
    data = as_dataset(rows, np.eye(4))
    taught = taught_by(data, "x", np.array([0.5, 0.8, 0.1, 0.1]))
    assert taught.rows[0].labels["x"] == TRUST + (1 - TRUST) * 0.5
    assert taught.rows[1].labels == {"y": 0.0, "x": 0.8}
    assert taught.rows[0].weight > taught.rows[1].weight
    assert taught.rows[2:] == data.rows[2:]
    np.testing.assert_array_equal(taught.x, data.x)


def test_a_good_teacher_makes_a_better_head_than_few_labels() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 40))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    truth = x[:, 0] + x[:, 1] > 0
    split = np.array(["train"] * 700 + ["dev"] * 100 + ["test"] * 100)
    known = (np.arange(900) < 24) | (split != "train")
    rows = [
        LabelledText(str(at), {"x": float(truth[at])} if known[at] else {}, "s", str(split[at])) for at in range(900)
    ]
    data = as_dataset(rows, x)
    plan = Plan(grid=(Strength(1.0),))
    test = split == "test"
    areas = []
    for taught in (data, taught_by(data, "x", np.where(truth, 0.9, 0.1))):
        head = train_head("x", taught, "0" * 64, None, plan).head
        areas.append(quick_auroc(x[test] @ head.weight, truth[test]) or 0.0)
    assert areas[1] > areas[0] + 0.05
    assert areas[1] > 0.95
