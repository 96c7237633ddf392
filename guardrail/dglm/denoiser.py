"""What a denoiser is, and the exact one for Gaussian latents.

A denoiser estimates the clean latent from a noised one: (z, alpha, sigma) -> x0. Samplers and guidance know nothing
more of it. The trained network of the diffusion takes the same shape.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from guardrail.dglm.latents import Array, LatentStatistics


class Denoiser(Protocol):
    """Estimate clean latents."""

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return x0 (N, d) for z = alpha x0 + sigma eps, (N, d), with alpha^2 + sigma^2 = 1."""


def gaussian_denoiser(statistics: LatentStatistics) -> Denoiser:
    """The posterior mean E[x0 | z] if normalised latents were Gaussian: the best linear denoiser, in closed form.

    With correlation C = U diag(c) U^T of the normalised latents (their mean is 0): U diag(alpha c / (alpha^2 c +
    sigma^2)) U^T z.
    """
    std = statistics.std.astype(np.float64)
    values, vectors = np.linalg.eigh(statistics.covariance.astype(np.float64) / np.outer(std, std))
    values = np.maximum(values, 0.0)

    def estimate(z: Array, alpha: float, sigma: float) -> Array:
        gain = alpha * values / np.maximum(alpha**2 * values + sigma**2, 1e-12)
        x0: Array = ((z @ vectors) * gain) @ vectors.T
        return x0.astype(np.float32)

    return estimate
