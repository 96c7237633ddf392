"""One run that makes the tuned tier: draw, train in slices, calibrate, measure, write the network, its card and figures.

Every step that takes long is resumed where a slice ended: hidden states of all three splits, and the training itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from guardrail.classifiers.tuned import write_tuned
from guardrail.encoder import Encoder
from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText, labels_of
from guardrail.evaluate.metrics import RESAMPLES
from guardrail.learn.tuned import FROZEN, Progress, Report, TunedTraining, TunePlan
from guardrail.learn.tuned_data import Sampling, rows_to_learn
from guardrail.learn.tuned_measures import HeldAside, TunedFigures

MIN_POSITIVES = 40
"""A label with fewer positive training rows is not learned."""


class TunedSession:
    """The whole run, in a folder of its own.

    Args:
        rows: labelled texts of all splits.
        encoder: the embedded encoder.
        folder: where hidden states and checkpoints lie.
        seed: of every draw.
        plan: how the network is trained.
        heads: labels to learn; all that the rows know if empty.
        start: a tuned network to go on from, instead of the encoder's own layers.

    Raises:
        DataError: no label has enough positive training rows.
    """

    def __init__(
        self,
        rows: Sequence[LabelledText],
        encoder: Encoder,
        folder: Path,
        seed: int = 0,
        plan: TunePlan | None = None,
        heads: Sequence[str] = (),
        start: Path | None = None,
    ) -> None:
        learnable = [row for row in rows if row.split == "train"]
        labels = sorted(heads or {name for row in learnable for name in row.labels})
        self.heads = [name for name in labels if int((labels_of(learnable, name) >= 0.5).sum()) >= MIN_POSITIVES]
        if not self.heads:
            raise DataError(f"no label has {MIN_POSITIVES} positive training rows; label more, or train linear heads")
        self.encoder = encoder
        self.folder = folder
        self.drawn = rows_to_learn(rows, self.heads, Sampling(seed=seed))
        self.training = TunedTraining(self.drawn, self.heads, encoder, folder, plan or TunePlan(seed=seed), start=start)
        self.held = HeldAside(rows, self.heads, encoder, folder)

    def run(self, deadline: float = np.inf, report: Report | None = None) -> Progress:
        """Go on until everything is computed or `deadline` (of `time.monotonic`) has passed."""
        progress = self.training.run(deadline, report)
        if not progress.finished:
            return progress
        return progress if self.held.fill(deadline) else Progress(progress.step - 1, progress.steps, progress.loss)

    def finish(self, path: Path, command: str, resamples: int = RESAMPLES) -> dict[str, TunedFigures]:
        """Calibrate on the dev rows, write the network to `path`, and measure it on the test rows.

        Args:
            path: the network's file.
            command: the command line, for its header.
            resamples: for the intervals.
        """
        upper = self.training.averaged()
        calibrated = self.held.calibrate(upper)
        seed = self.training.plan.seed
        notes = {"encoder": self.encoder.name, "command": command, "seed": str(seed)}
        write_tuned(path, upper, self.heads, FROZEN, self.encoder.sha256, notes)
        return self.held.measure(upper, calibrated, self.drawn, resamples, seed)
