"""The rule of Safe Latent Diffusion for sentences: guide only where the unsafe direction is active.

Schramowski et al. 2023, section 3: guidance counts only where it is needed (a threshold), grows with how far the latent is
on the wrong side, begins after a warm-up and carries momentum. Published scales are for images; `PRESETS` were set
again on sentence latents, see docs/diffusion.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from guardrail.dglm.denoiser import Denoiser, Estimate, estimates
from guardrail.dglm.guidance import Guide, Heads, Preconditioner, sigmoid
from guardrail.dglm.latents import Array, LatentStatistics


@dataclass(frozen=True, slots=True)
class SafeLatent:
    """Settings of the rule.

    Attributes:
        warm_up: signal level alpha^2 below which nothing is guided; 0 guides from the start.
        scale: strength. threshold: P(violation) above which a guide is active; 0 is always.
        momentum_scale, momentum: s_m and beta_m of the paper.
    """

    warm_up: float
    scale: float
    threshold: float
    momentum_scale: float
    momentum: float


PRESETS: Final[dict[str, SafeLatent]] = {
    "weak": SafeLatent(0.20, 4.0, 0.5, 0.0, 0.0),
    "medium": SafeLatent(0.10, 8.0, 0.3, 0.3, 0.4),
    "strong": SafeLatent(0.05, 16.0, 0.1, 0.5, 0.7),
    "max": SafeLatent(0.0, 32.0, 0.0, 0.5, 0.7),
}
"""Warm-up and momentum as published (warm-up steps as signal levels of the cosine schedule), the rest recalibrated."""


class SafeLatentGuidance:
    """Wrap a denoiser by the rule. Remembers its momentum: one object per run of a sampler.

    Args:
        denoiser: what is guided. guides: heads and sides. statistics: of the latents. settings: e.g. of `PRESETS`.
    """

    def __init__(
        self, denoiser: Denoiser, guides: Sequence[Guide], statistics: LatentStatistics, settings: SafeLatent
    ) -> None:
        self.denoiser, self.settings = denoiser, settings
        self.heads = Heads(guides, statistics)
        self.precondition = Preconditioner("posterior", statistics)
        self._momentum: npt.NDArray[np.float64] | None = None

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return the guided x0 (N, d)."""
        return self.both(z, alpha, sigma).guided

    def both(self, z: Array, alpha: float, sigma: float) -> Estimate:
        """Return the guided and the plain x0."""
        inner, rule = estimates(self.denoiser, z, alpha, sigma), self.settings
        violation = sigmoid(-self.heads.logits(inner.guided))  # (N, G)
        active = np.where(violation > rule.threshold, violation, 0.0) * self.heads.scales
        shift = rule.scale * self.precondition(active @ self.heads.weights, alpha, sigma)
        before = np.zeros_like(shift) if self._momentum is None else self._momentum
        shift = shift + rule.momentum_scale * before * (active.max(axis=1, keepdims=True) > 0.0)
        self._momentum = rule.momentum * before + (1.0 - rule.momentum) * shift
        if alpha**2 < rule.warm_up:
            return inner
        return Estimate((inner.guided + shift).astype(np.float32), inner.plain)

    def select(self, rows: npt.NDArray[np.intp]) -> None:
        """Keep these rows of the momentum (particle resampling)."""
        if self._momentum is not None:
            self._momentum = self._momentum[rows]
