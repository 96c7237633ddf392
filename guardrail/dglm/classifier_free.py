"""Classifier-free guidance by the prefix (Ho & Salimans 2022)."""

from __future__ import annotations

from guardrail.dglm.denoiser import Denoiser, Estimate
from guardrail.dglm.latents import Array


class ClassifierFreeGuidance:
    """x0 = x_null + weight (x_prefix - x_null).

    Weight 1 is the conditional denoiser, above it the prefix counts for more; with CFG++ renoising the noise of x_null is
    put back, and weights lie in [0, 1] (Chung et al. 2024).

    Args:
        conditional: denoiser bound to the prefix. unconditional: the same network with the learned null.
        weight: of the prefix.
    """

    def __init__(self, conditional: Denoiser, unconditional: Denoiser, weight: float) -> None:
        self.conditional, self.unconditional, self.weight = conditional, unconditional, weight

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return the combined x0 (N, d)."""
        return self.both(z, alpha, sigma).guided

    def both(self, z: Array, alpha: float, sigma: float) -> Estimate:
        """Return the combined x0 and that of the null."""
        plain = self.unconditional(z, alpha, sigma)
        return Estimate(plain + self.weight * (self.conditional(z, alpha, sigma) - plain), plain)
