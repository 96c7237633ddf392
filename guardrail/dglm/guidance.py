"""Guidance: how a policy's linear heads say where an embedding should go.

`project` is the closed form for embeddings themselves: the shortest move, in the metric of the data's own covariance
S, to wanted logits. Its direction is S w, not the bare weight vector w: w is adversarial noise to the decoder, S w stays
where sentences are.

For the diffusion, guides wrap a `Denoiser`: `LinearGuidance` here, without a backward pass; `guardrail.dglm.reference`
has the paper's, `guardrail.dglm.safe_latent` and `guardrail.dglm.classifier_free` two more. Wrappers compose: each is a
denoiser again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from guardrail.dglm.denoiser import Denoiser, Estimate, estimates
from guardrail.dglm.latents import Array, LatentStatistics


@dataclass(frozen=True, slots=True)
class Guide:
    """A linear head and the side of it where the text should be.

    Attributes:
        weight: (d,) over unit embeddings; bias: scalar; logit = weight @ x + bias.
        away: True to move to low logits, False to high ones.
        scale: relative strength from the policy's `guides`, > 0.
    """

    weight: Array
    bias: float
    away: bool = True
    scale: float = 1.0


def project(x: Array, guides: Sequence[Guide], margin: float, statistics: LatentStatistics, rounds: int = 6) -> Array:
    """Move an embedding to the wanted side of every guide.

    Minimises (x' - x)^T S^-1 (x' - x) subject to weight_i @ x' + bias_i = t_i for the guides that are not yet
    satisfied,
    t_i = -margin * scale_i for `away` and +margin * scale_i otherwise: x' = x + S W^T (W S W^T)^-1 (t - W x - b).
    The result is normalised to the sphere; the step repeats until it holds there too.

    Args:
        x: unit embedding (d,). margin: wanted logit, distance from the boundary, in nats (0 is the boundary).
        statistics: holds S. rounds: largest number of repetitions.

    Returns:
        Unit embedding (d,); `x` itself where nothing asks for a move.
    """
    if not guides:
        return x
    weights = np.stack([guide.weight for guide in guides]).astype(np.float64)  # (G, d)
    biases = np.array([guide.bias for guide in guides])
    signs = np.array([-1.0 if guide.away else 1.0 for guide in guides])
    wanted = signs * margin * np.array([guide.scale for guide in guides])
    covariance = statistics.covariance.astype(np.float64)
    moved = x.astype(np.float64)
    for _ in range(rounds):
        missing = wanted - (weights @ moved + biases)
        active = signs * missing > 1e-2
        if not active.any():
            break
        part = weights[active]
        spread = part @ covariance @ part.T  # (A, A)
        ridge = 1e-3 * np.trace(spread) / len(spread) * np.eye(len(spread))  # nearly parallel heads
        moved = moved + covariance @ part.T @ np.linalg.solve(spread + ridge, missing[active])
        moved /= np.linalg.norm(moved)
    return moved.astype(np.float32)


Precondition = Literal["posterior", "covariance", "bare"]


class Heads:
    """Guides as functions of normalised latents.

    A logit is affine in the embedding, so the logit of the expected clean latent is the expected logit: no sample and no
    normalisation to the sphere is needed while denoising.

    Args:
        guides: heads and the wanted side of each. statistics: of the latents.
    """

    def __init__(self, guides: Sequence[Guide], statistics: LatentStatistics) -> None:
        signs = np.array([-1.0 if guide.away else 1.0 for guide in guides])
        weights = np.array([guide.weight for guide in guides], dtype=np.float64).reshape(len(guides), statistics.dim)
        self.scales = np.array([guide.scale for guide in guides])
        self.weights = signs[:, None] * weights * statistics.std  # (G, d), rising towards the wanted side
        self.biases = signs * (weights @ statistics.mean + np.array([guide.bias for guide in guides]))

    def logits(self, x0: Array) -> npt.NDArray[np.float64]:
        """Return the logit of being on the wanted side (N, G) for normalised latents (N, d)."""
        found: npt.NDArray[np.float64] = x0 @ self.weights.T + self.biases
        return found

    def allowed(self, x0: Array) -> npt.NDArray[np.float64]:
        """Return P(allowed) (N,): the product over all guides of being on the wanted side."""
        product: npt.NDArray[np.float64] = sigmoid(self.logits(x0)).prod(axis=1)
        return product

    def gradient(self, x0: Array) -> npt.NDArray[np.float64]:
        """Return the gradient (N, d) of sum_i scale_i log P_i, the paper's loss with its sign turned."""
        slopes = self.scales * sigmoid(-self.logits(x0))  # of log-sigmoid
        found: npt.NDArray[np.float64] = slopes @ self.weights
        return found


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)), without overflow."""
    found: npt.NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * x))
    return found


class Preconditioner:
    """What a gradient is multiplied by, so that a step stays where sentences are.

    The paper's backward pass multiplies by the Jacobian d x0 / d z, which is (alpha / sigma^2) Cov[x0 | z] for the exact
    denoiser (Tweedie's second-order identity), so its shift of x0 is s Cov[x0 | z] times the gradient. `posterior` puts
    the Gaussian posterior covariance in its place, C_t = U diag(c sigma^2 / (sigma^2 + alpha^2 c)) U^T, at the cost of
    two small products; `covariance` is C_t without data, and `bare` no preconditioning, both for comparison.
    """

    def __init__(self, kind: Precondition, statistics: LatentStatistics) -> None:
        if kind not in ("posterior", "covariance", "bare"):
            raise ValueError(f"precondition should be 'posterior', 'covariance' or 'bare', got {kind!r}")
        self.kind = kind
        self._values, self._vectors = statistics.spectrum()

    def __call__(self, gradient: npt.NDArray[np.float64], alpha: float, sigma: float) -> npt.NDArray[np.float64]:
        """Return the preconditioned gradient (N, d)."""
        if self.kind == "bare":
            return gradient
        spread = self._values
        if self.kind == "posterior":
            spread = spread * sigma**2 / (sigma**2 + alpha**2 * spread)
        turned: npt.NDArray[np.float64] = ((gradient @ self._vectors) * spread) @ self._vectors.T
        return turned


class LinearGuidance:
    """Closed-form guidance by linear heads, without a backward pass: x0 <- x0 + scale * P gradient.

    Args:
        denoiser: what is guided. guides: heads and sides. statistics: of the latents.
        scale: strength s of the paper (Lovelace et al. 2024, section 4.2); 0 leaves the denoiser as it is.
        precondition: see `Preconditioner`.
        stop_at: rows whose P(allowed) passes this are left alone (the analogue of Castillo et al. 2023, "Adaptive
            Guidance"); None guides to the end.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        guides: Sequence[Guide],
        statistics: LatentStatistics,
        scale: float,
        precondition: Precondition = "posterior",
        stop_at: float | None = None,
    ) -> None:
        self.denoiser, self.scale, self.stop_at = denoiser, scale, stop_at
        self.heads = Heads(guides, statistics)
        self.precondition = Preconditioner(precondition, statistics)

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return the guided x0 (N, d)."""
        return self.both(z, alpha, sigma).guided

    def both(self, z: Array, alpha: float, sigma: float) -> Estimate:
        """Return the guided and the plain x0."""
        inner = estimates(self.denoiser, z, alpha, sigma)
        gradient = self.heads.gradient(inner.guided)
        if self.stop_at is not None:
            gradient[self.heads.allowed(inner.guided) >= self.stop_at] = 0.0
        shift = self.scale * self.precondition(gradient, alpha, sigma)
        return Estimate((inner.guided + shift).astype(np.float32), inner.plain)


def guided(denoiser: Denoiser, guides: Sequence[Guide], statistics: LatentStatistics, scale: float) -> LinearGuidance:
    """Wrap a denoiser by `LinearGuidance` with the Gaussian posterior covariance."""
    return LinearGuidance(denoiser, guides, statistics, scale)
