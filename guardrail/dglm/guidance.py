"""Guidance: how a policy's linear heads say where an embedding should go.

`project` is the closed form for embeddings themselves: the shortest move, in the metric of the data's own covariance
S, to
wanted logits. Its direction is S w, not the bare weight vector w: w is adversarial noise to the decoder, S w stays
where sentences are (a Gaussian posterior's version of the Jacobian in Lovelace et al. 2024, section 4.2; Tweedie's
second-order identity). Guides for the diffusion wrap a `Denoiser`, see `guided`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guardrail.dglm.denoiser import Denoiser
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


def guided(denoiser: Denoiser, guides: Sequence[Guide], statistics: LatentStatistics, scale: float) -> Denoiser:
    """Wrap a denoiser so that its estimate of the clean latent leans to the wanted side of every guide.

    The closed-form linear guide without backward, preconditioned by the Gaussian posterior covariance
    C_t = (S^-1 + (alpha^2 / sigma^2) I)^-1 of the normalised latents: x0 <- x0 + scale * C_t * gradient of log-sigmoid.

    Args:
        scale: strength; 0 leaves the denoiser as it is.
    """
    std = statistics.std.astype(np.float64)
    values, vectors = np.linalg.eigh(statistics.covariance.astype(np.float64) / np.outer(std, std))
    values = np.maximum(values, 1e-8)

    def estimate(z: Array, alpha: float, sigma: float) -> Array:
        x0 = denoiser(z, alpha, sigma)
        unit = statistics.denormalise(x0)
        gradient = np.zeros_like(x0, dtype=np.float64)
        for guide in guides:
            sign = -1.0 if guide.away else 1.0
            logit = sign * (unit @ guide.weight + guide.bias)
            slope = 1.0 / (1.0 + np.exp(np.clip(logit, -30.0, 30.0)))  # of log-sigmoid, (N,)
            gradient += sign * guide.scale * slope[:, None] * (guide.weight * std)[None, :]
        posterior = values * sigma**2 / (sigma**2 + alpha**2 * values)
        step: Array = x0 + scale * ((gradient @ vectors) * posterior) @ vectors.T
        return step.astype(np.float32)

    return estimate
