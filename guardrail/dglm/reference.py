"""The paper's own guidance: a Monte-Carlo loss and a full backward pass through the network at every step.

Kept as the reference that the closed form is measured against; it costs three times a plain step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardrail.dglm.denoiser import DifferentiableDenoiser, Estimate
from guardrail.dglm.guidance import Guide, Heads, sigmoid
from guardrail.dglm.latents import Array, LatentStatistics


class BackwardGuidance:
    """Guidance of Lovelace et al. 2024, section 4.2: eps <- eps + s sigma grad_z L, so x0 <- x0 - s (sigma^2 / alpha) grad_z L.

    L is the classifiers' summed cross-entropy, averaged over samples x0 + (sigma / alpha) n that are un-normalised and put
    on the unit sphere before the heads see them (their code; 32 samples).

    Args:
        denoiser: must carry gradients. guides: heads and sides. statistics: of the latents. scale: s.
        samples: of the Monte-Carlo estimate. stop_at: rows whose P(allowed) passes this are left alone; where no row is
            left, no backward pass is made. rng: of the samples.
    """

    def __init__(
        self,
        denoiser: DifferentiableDenoiser,
        guides: Sequence[Guide],
        statistics: LatentStatistics,
        scale: float,
        samples: int = 32,
        stop_at: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.denoiser, self.statistics, self.scale = denoiser, statistics, scale
        self.samples, self.stop_at = samples, stop_at
        self.heads = Heads(guides, statistics)
        self._unit_weights = self.heads.weights / statistics.std  # over embeddings
        self._unit_biases = self.heads.biases - self._unit_weights @ statistics.mean
        self._rng = np.random.default_rng() if rng is None else rng

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return the guided x0 (N, d)."""
        return self.both(z, alpha, sigma).guided

    def both(self, z: Array, alpha: float, sigma: float) -> Estimate:
        """Return the guided and the plain x0."""
        x0, pulled = self.denoiser.pull_back(z, alpha, sigma, lambda x0: self._gradient(x0, alpha, sigma))
        guided = x0 + self.scale * sigma**2 / alpha * pulled
        return Estimate(guided.astype(np.float32), x0)

    def _gradient(self, x0: Array, alpha: float, sigma: float) -> Array:
        """Minus the gradient of L with respect to x0, (N, d)."""
        noise = self._rng.standard_normal((self.samples, *x0.shape), dtype=np.float32)
        raw = (x0 + sigma / alpha * noise) * self.statistics.std + self.statistics.mean  # (M, N, d)
        norms = np.maximum(np.linalg.norm(raw, axis=-1, keepdims=True), 1e-12)
        unit = raw / norms
        slopes = self.heads.scales * sigmoid(-(unit @ self._unit_weights.T + self._unit_biases))  # (M, N, G)
        ascent = slopes @ self._unit_weights  # (M, N, d), over unit embeddings
        along = np.sum(ascent * unit, axis=-1, keepdims=True)
        gradient = ((ascent - along * unit) / norms).mean(axis=0) * self.statistics.std
        if self.stop_at is not None:
            gradient[self.heads.allowed(x0) >= self.stop_at] = 0.0
        found: Array = gradient.astype(np.float32)
        return found
