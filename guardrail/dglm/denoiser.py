"""What a denoiser is, and the exact one for Gaussian latents.

A denoiser estimates the clean latent from a noised one: (z, alpha, sigma) -> x0. Samplers and guidance know nothing
more of it. What a network is conditioned on is bound beforehand (`guardrail.dglm.network.NetworkDenoiser`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from guardrail.dglm.latents import Array, LatentStatistics

Gradient = Callable[[Array], Array]
"""Clean latents (N, d) to the gradient of a loss with respect to them (N, d)."""


class Denoiser(Protocol):
    """Estimate clean latents."""

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return x0 (N, d) for z = alpha x0 + sigma eps, (N, d), with alpha^2 + sigma^2 = 1."""


@runtime_checkable
class DifferentiableDenoiser(Protocol):
    """A denoiser that also carries gradients back to its input, as guidance with a full backward pass needs."""

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return x0 (N, d)."""

    def pull_back(self, z: Array, alpha: float, sigma: float, gradient: Gradient) -> tuple[Array, Array]:
        """Return x0 (N, d) and (d x0 / d z)^T gradient(x0), (N, d)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A guided denoiser's two estimates of the clean latents, each (N, d)."""

    guided: Array
    plain: Array


@runtime_checkable
class GuidedDenoiser(Protocol):
    """A denoiser wrapped by guidance; samplers that renoise without guidance (CFG++) ask for both estimates."""

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return the guided x0 (N, d)."""

    def both(self, z: Array, alpha: float, sigma: float) -> Estimate:
        """Return the guided and the plain x0."""


@runtime_checkable
class Remembers(Protocol):
    """A denoiser that keeps something per row between calls; particle resampling reorders it."""

    def select(self, rows: npt.NDArray[np.intp]) -> None:
        """Keep these rows."""


def estimates(denoiser: Denoiser, z: Array, alpha: float, sigma: float) -> Estimate:
    """Return both estimates of any denoiser; they are one where nothing guides."""
    if isinstance(denoiser, GuidedDenoiser):
        return denoiser.both(z, alpha, sigma)
    x0 = denoiser(z, alpha, sigma)
    return Estimate(x0, x0)


class GaussianDenoiser:
    """The posterior mean E[x0 | z] if normalised latents were Gaussian: the best linear denoiser, in closed form.

    With correlation C = U diag(c) U^T of the normalised latents (their mean is 0): U diag(alpha c / (alpha^2 c +
    sigma^2)) U^T z.
    """

    def __init__(self, statistics: LatentStatistics) -> None:
        self.values, self.vectors = statistics.spectrum()

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return x0 (N, d)."""
        return self._apply(z, alpha, sigma)

    def pull_back(self, z: Array, alpha: float, sigma: float, gradient: Gradient) -> tuple[Array, Array]:
        """Return x0 and its gradient pulled back; the map is linear and symmetric, so its own transpose."""
        x0 = self._apply(z, alpha, sigma)
        return x0, self._apply(gradient(x0), alpha, sigma)

    def _apply(self, z: Array, alpha: float, sigma: float) -> Array:
        gain = alpha * self.values / np.maximum(alpha**2 * self.values + sigma**2, 1e-12)
        x0: Array = (((z @ self.vectors) * gain) @ self.vectors.T).astype(np.float32)
        return x0


def gaussian_denoiser(statistics: LatentStatistics) -> GaussianDenoiser:
    """Return the exact denoiser of Gaussian latents with these moments."""
    return GaussianDenoiser(statistics)


class Counted:
    """Wrap a denoiser and count what it is asked: a full backward pass counts twice a forward pass.

    Attributes:
        rows: latents evaluated so far; divided by the number of proposals, network evaluations per proposal.
    """

    def __init__(self, inner: Denoiser) -> None:
        self.inner = inner
        self.rows = 0

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return the inner denoiser's x0."""
        self.rows += len(z)
        return self.inner(z, alpha, sigma)

    def pull_back(self, z: Array, alpha: float, sigma: float, gradient: Gradient) -> tuple[Array, Array]:
        """Return the inner denoiser's x0 and pulled-back gradient.

        Raises:
            TypeError: the inner denoiser carries no gradients.
        """
        if not isinstance(self.inner, DifferentiableDenoiser):
            raise TypeError(f"{type(self.inner).__name__} has no pull_back: guidance by a full backward pass needs one")
        x0, pulled = self.inner.pull_back(z, alpha, sigma, gradient)
        self.rows += (3 if pulled.any() else 1) * len(z)  # no backward pass is made for a gradient of zero
        return x0, pulled
