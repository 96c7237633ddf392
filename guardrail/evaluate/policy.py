"""Measuring a policy on texts labelled `violation`: 1 where the community wants it to act, 0 where it must not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText, labels_of
from guardrail.evaluate.metrics import RESAMPLES, Estimate, Floats, bootstrap
from guardrail.types import Action, Decision, Passage, Stage, State

LABEL = "violation"
BATCH = 64


class Checker(Protocol):
    """What judges: `guardrail.Guardrail`."""

    def check_many(self, passages: Sequence[Passage]) -> list[Decision]:
        """One decision for each passage, in order."""
        ...


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """How a policy's decisions agree with the labels.

    Attributes:
        policy: name; revision: its hash.
        confusion: counts of true and false positives and negatives.
        metrics: precision, recall, f1 and fpr (false positives over negatives).
        failures: texts that could not be judged; they count as acted upon, because they are withheld.
    """

    policy: str
    revision: str
    confusion: Mapping[str, int]
    metrics: Mapping[str, Estimate]
    failures: int

    def as_json(self) -> dict[str, Any]:
        """Counts, values and `intervals: {metric: [low, high]}`; a metric without rows is null."""
        return {
            "policy": {"name": self.policy, "revision": self.revision},
            "n": sum(self.confusion.values()),
            "positives": self.confusion["true_positives"] + self.confusion["false_negatives"],
            **{name: estimate.value for name, estimate in self.metrics.items()},
            "intervals": {
                name: None if estimate.low is None else [estimate.low, estimate.high]
                for name, estimate in self.metrics.items()
            },
            "confusion": dict(self.confusion),
            "failures": self.failures,
        }


def evaluate_policy(
    rows: Sequence[LabelledText],
    guard: Checker,
    *,
    stage: Stage = Stage.OUTPUT,
    at: Action = Action.FLAG,
    resamples: int = RESAMPLES,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> PolicyReport:
    """Judge every row that has the label `violation` and compare.

    Args:
        rows: labelled texts.
        guard: judges under the policy that is measured.
        stage: where in a conversation the texts stand.
        at: the mildest action that counts as acting.
        resamples: for the intervals.
        seed: of the resampling.
        advance: told how many texts are judged.

    Raises:
        DataError: no row has the label, or every label is 0.5 (undecided).
    """
    labels = labels_of(rows, LABEL)
    sure = ~np.isnan(labels) & (labels != 0.5)
    decided = [row for row, keep in zip(rows, sure, strict=True) if keep]
    if not decided:
        raise DataError(f"no row has the label {LABEL!r} (0 or 1)")
    truth = labels_of(decided, LABEL) > 0.5
    decisions = list(_decisions(decided, guard, stage, advance))
    acted = np.array([decision.action >= at for decision in decisions])
    failures = sum(decision.state is State.BLOCKED_UNAVAILABLE for decision in decisions)
    acted |= np.array([decision.state is State.BLOCKED_UNAVAILABLE for decision in decisions])
    confusion = {
        "true_positives": int((acted & truth).sum()),
        "false_positives": int((acted & ~truth).sum()),
        "false_negatives": int((~acted & truth).sum()),
        "true_negatives": int((~acted & ~truth).sum()),
    }
    metrics = _metrics(acted, truth, resamples, seed)
    return PolicyReport(decisions[0].policy, decisions[0].revision, confusion, metrics, failures)


def _decisions(
    rows: Sequence[LabelledText], guard: Checker, stage: Stage, advance: Callable[[int], None] | None
) -> Iterator[Decision]:
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        yield from guard.check_many([Passage(row.text, stage, row.context) for row in batch])
        if advance is not None:
            advance(len(batch))


def _metrics(
    acted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], resamples: int, seed: int
) -> dict[str, Estimate]:
    hit, alarm = (acted & truth).astype(float), (acted & ~truth).astype(float)
    yes, no, flagged = truth.astype(float), (~truth).astype(float), acted.astype(float)

    def share(part: Floats, whole: Floats) -> Callable[[Floats], float]:
        return lambda weight: float(weight @ part / (weight @ whole)) if weight @ whole else np.nan

    functions = {
        "precision": share(hit, flagged),
        "recall": share(hit, yes),
        "f1": share(2 * hit, flagged + yes),  # 2 TP / (2 TP + FP + FN)
        "fpr": share(alarm, no),
    }
    reasons = {"precision": "nothing was flagged", "recall": "no row is a violation", "fpr": "every row is a violation"}
    intervals = bootstrap(functions, len(truth), resamples, seed)
    ones = np.ones(len(truth))
    values = {name: function(ones) for name, function in functions.items()}
    return {
        name: Estimate(None, reason=reasons.get(name, "nothing to compare"))
        if np.isnan(value)
        else Estimate(value, *intervals[name])
        for name, value in values.items()
    }
