"""Feynman-Kac steering: particles that are resampled by the reward of what they are about to become.

Singhal et al. 2025, "A General Framework for Inference-time Scaling and Steering of Diffusion Models", sections 3 and 4. A
reward is any function of the predicted clean latents: no gradient is asked for, so a non-linear head, a pattern on decoded
text or a judge steers as well as a linear head. Sampling then aims at p(x) exp(scale * reward(x)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from guardrail.dglm.latents import Array

Scorer = Callable[[Array], npt.NDArray[np.floating]]
"""Clean latents (N, d) to rewards (N,); more is better."""

Potential = Literal["difference", "max", "add"]


class Particles:
    """An observer of a sampler (`guardrail.dglm.sampler.Sampler`) that resamples groups of particles.

    With r_t the reward of the clean latents predicted at time t, a particle's weight grows at each step by exp of

        difference  scale (r_t - r_{t+1})
        max         scale max_{s >= t} r_s
        add         scale sum_{s >= t} r_s

    and at the last step by what makes the product exp(scale r_0). A group is resampled (systematically) once its effective
    sample size falls below `least_ess` of its particles; until then weights accumulate.

    Args:
        scorer: reward of clean latents. group: particles per proposal, k; rows i k to (i + 1) k belong to proposal i.
        scale: lambda. potential: see above. every: steps between two looks at the reward.
        least_ess: share of k, in [0, 1]; 1 resamples at every look, 0 never.
        resample_last: also resample at the last step, for samples of the tilted distribution and not only the best one.
        rng: of the resampling.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        scorer: Scorer,
        group: int,
        *,
        scale: float = 1.0,
        potential: Potential = "difference",
        every: int = 1,
        least_ess: float = 0.5,
        resample_last: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        if group < 1 or every < 1 or not 0.0 <= least_ess <= 1.0:
            raise ValueError(
                f"particles need group >= 1, every >= 1, 0 <= least_ess <= 1, got {group, every, least_ess}"
            )
        if potential not in ("difference", "max", "add"):
            raise ValueError(f"potential should be 'difference', 'max' or 'add', got {potential!r}")
        self.scorer, self.group, self.scale, self.potential = scorer, group, scale, potential
        self.every, self.least_ess, self.resample_last = every, least_ess, resample_last
        self.rng = np.random.default_rng() if rng is None else rng
        self.resampled = 0
        self._calls = 0
        self._weights = self._past = self._spent = np.zeros(0)

    def __call__(self, time: float, x0: Array, last: bool) -> npt.NDArray[np.intp] | None:
        """Return the rows that live on, or None for all as they are."""
        if not self._calls:
            self._weights, self._spent = np.zeros(len(x0)), np.zeros(len(x0))
            self._past = np.full(len(x0), -np.inf if self.potential == "max" else 0.0)
        self._calls += 1
        if (self._calls - 1) % self.every and not last:
            return None
        self._weigh(np.asarray(self.scorer(x0), dtype=np.float64), last)
        rows = np.arange(len(x0))
        if not last or self.resample_last:
            for start in range(0, len(x0), self.group):
                self._resample(rows[start : start + self.group], always=last)
        if (rows == np.arange(len(x0))).all():
            return None
        self._past, self._spent = self._past[rows], self._spent[rows]
        return rows

    def _weigh(self, reward: npt.NDArray[np.float64], last: bool) -> None:
        """Add this look's log-potential to the weights; `_past` holds what the next one needs, `_spent` their sum."""
        if self.potential == "difference":
            gain, self._past = self.scale * (reward - self._past), reward
        else:
            self._past = np.maximum(self._past, reward) if self.potential == "max" else self._past + reward
            gain = self.scale * reward - self._spent if last else self.scale * self._past
        self._spent = self._spent + gain
        self._weights = self._weights + gain

    def _resample(self, rows: npt.NDArray[np.intp], always: bool) -> None:
        """Resample one group in place where its weights have become too uneven."""
        weights = np.exp(self._weights[rows] - self._weights[rows].max())
        weights /= weights.sum()
        if not always and 1.0 / np.sum(weights**2) > self.least_ess * len(rows):
            return
        places = (self.rng.random() + np.arange(len(rows))) / len(rows)
        chosen = np.minimum(np.searchsorted(np.cumsum(weights), places), len(rows) - 1)
        self._weights[rows] = 0.0
        self.resampled += 1
        rows[:] = rows[0] + chosen

    def best(self, x0: Array) -> npt.NDArray[np.intp]:
        """Return the row of the highest reward of every group, (N / k,)."""
        rewards = np.asarray(self.scorer(x0)).reshape(-1, self.group)
        found: npt.NDArray[np.intp] = rewards.argmax(axis=1) + np.arange(len(rewards)) * self.group
        return found
