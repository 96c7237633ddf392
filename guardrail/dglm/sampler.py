"""Samplers: from a noised latent to a clean one. Guidance wraps the denoiser, so each of them works guided."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np

from guardrail.dglm.denoiser import Denoiser
from guardrail.dglm.latents import Array
from guardrail.dglm.schedule import Schedule, timesteps


class Sampler(Protocol):
    """Walk a latent from noise to data."""

    def __call__(self, z: Array, denoiser: Denoiser, schedule: Schedule, steps: int, start: float = 1.0) -> Array:
        """Return clean latents (N, d) from z (N, d) at time `start` in `steps` denoiser evaluations."""


def ddim(z: Array, denoiser: Denoiser, schedule: Schedule, steps: int, start: float = 1.0) -> Array:
    """Deterministic DDIM (Song et al. 2021, equation 12 with eta = 0)."""
    times = timesteps(steps, start)
    for now, following in pairwise(times):
        alpha, sigma = schedule.levels(float(now))
        x0 = denoiser(z, alpha, sigma)
        eps = (z - alpha * x0) / max(sigma, 1e-8)
        alpha, sigma = schedule.levels(float(following))
        z = (alpha * x0 + sigma * eps).astype(np.float32)
    return x0
