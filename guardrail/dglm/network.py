"""The denoising network: a noised latent, its noise level and the prefix's embedding in, the velocity v out.

v = alpha eps - sigma x0 (Salimans & Ho 2022), so x0 = alpha z - sigma v. Around either body (a residual MLP, or the
transformer of `guardrail.dglm.transformer`) stands the same frame, a preconditioning in the sense of Karras et al. 2022
(section 5) with the full covariance of the latents in the place of one variance. In the basis of its eigenvectors, with
variances c and m = alpha^2 c + sigma^2 of z:

    input   z / sqrt(m)                                           unit variance at every noise level
    output  v = v_base + sqrt(c / m) F                            F has unit variance as well
    base    "posterior": v of the Gaussian posterior mean, alpha sigma (1 - c) / m; what is left to learn is what is
            not Gaussian and what the prefix says
            "flow": v of the Gaussian probability flow's end, x0 = sqrt(c / m) z; for the student, which jumps there
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guardrail.dglm.denoiser import Gradient
from guardrail.dglm.latents import Array, LatentStatistics
from guardrail.errors import ConfigurationError, did_you_mean

TokenStates = tuple[Array, npt.NDArray[np.bool_]]
"""The encoder's states of the tokens that stand before (N, T, width), and which of them are real (N, T)."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Sizes of a network.

    Attributes:
        dim: width of the embedding. body: "mlp" or "transformer". width: of the residual stream. hidden: of the MLPs.
        layers: blocks. heads, tokens: of the transformer; the vector is cut into `tokens` pieces.
        states: width of the prefix's token states that the transformer can look at, 0 for none.
        base: "posterior" or "flow", see the module.
    """

    dim: int
    body: Literal["mlp", "transformer"] = "mlp"
    width: int = 384
    hidden: int = 704
    layers: int = 2
    heads: int = 0
    tokens: int = 0
    states: int = 0
    base: Literal["posterior", "flow"] = "posterior"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a checkpoint's metadata."""
        return asdict(self)


PRESETS: Final[dict[str, dict[str, Any]]] = {
    "tiny": {"width": 32, "hidden": 48, "layers": 1},  # CHEAPEST, only for tests
    "mini": {"width": 384, "hidden": 704, "layers": 2},  # 1.8 million weights, shipped
    "paper": {  # Lovelace et al. 2024, appendix: 12 x 768 over 32 tokens
        "body": "transformer", "width": 768, "hidden": 2048, "layers": 12, "heads": 12, "tokens": 32,
    },
}  # fmt: skip
"""Sizes by name."""


def preset(name: str, dim: int, **changes: Any) -> NetworkConfig:
    """Return the sizes of a preset for embeddings of width `dim`.

    Raises:
        ConfigurationError: there is no such preset or no such size.
    """
    if name not in PRESETS:
        raise ConfigurationError(
            f"there is no network preset {name!r}: expected one of {', '.join(PRESETS)}.{did_you_mean(name, PRESETS)}"
        )
    try:
        return NetworkConfig(dim=dim, **(PRESETS[name] | changes))
    except TypeError as error:
        raise ConfigurationError(f"the network of a recipe has an unknown size: {error}") from error


@dataclass(frozen=True, slots=True)
class Context:
    """What the network is conditioned on.

    Attributes:
        before: normalised embedding of the prefix (B, d). known: (B,) True where there is one; the learned null stands
            in for the others.
        states: token states of the prefix (B, T, states), or None. mask: (B, T) True on real tokens.
    """

    before: Tensor
    known: Tensor
    states: Tensor | None = None
    mask: Tensor | None = None

    def dropped(self, keep: Tensor) -> Context:
        """Return the context with only the rows of `keep` (B,) known."""
        return replace(self, known=self.known & keep)

    def without_states(self, keep: Tensor) -> Context:
        """Return the context with only the rows of `keep` (B,) showing their token states."""
        return self if self.mask is None else replace(self, mask=self.mask & keep[:, None])


def levels_of(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Return (alpha, sigma) (B,) of log(alpha^2 / sigma^2) (B,)."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def noise_features(log_snr: Tensor, width: int) -> Tensor:
    """Return sines and cosines (B, width) of the noise level, over periods of 1 to 60 nats."""
    rates = torch.logspace(0.0, -math.log10(60.0), width // 2, device=log_snr.device)
    angles = 2.0 * math.pi * log_snr[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class Body(nn.Module):
    """Between the frame's input and output: (z, noise level, context, whether there is one) to F, all (B, d) or (B,)."""

    NOISE_FEATURES = 64
    CONDITION = 128

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(config.dim))
        self.noise = nn.Linear(self.NOISE_FEATURES, self.CONDITION)
        self.prefix = nn.Linear(config.dim, self.CONDITION)

    def condition(self, log_snr: Tensor, before: Tensor) -> Tensor:
        """Return what scales and shifts every block, (B, CONDITION)."""
        return F.silu(self.noise(noise_features(log_snr, self.NOISE_FEATURES)) + self.prefix(before))


class _Block(nn.Module):
    """h + W2 silu(W1 FiLM(norm(h))); Perez et al. 2018 for FiLM, which begins as the identity."""

    def __init__(self, width: int, hidden: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, elementwise_affine=False)
        self.film = nn.Linear(condition, 2 * width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition).chunk(2, dim=-1)
        out: Tensor = h + self.down(F.silu(self.up(self.norm(h) * (1.0 + scale) + shift)))
        return out


class ResidualMlp(Body):
    """The whole vector as one token: the best body per CPU-second at a few hundred dimensions."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.enter, self.enter_prefix = nn.Linear(config.dim, config.width), nn.Linear(config.dim, config.width)
        self.blocks = nn.ModuleList(_Block(config.width, config.hidden, self.CONDITION) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, elementwise_affine=False)
        self.leave = nn.Linear(config.width, config.dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, z: Tensor, log_snr: Tensor, context: Context) -> Tensor:
        """Return F (B, d)."""
        before = torch.where(context.known[:, None], context.before, self.null)
        condition = self.condition(log_snr, before)
        h = self.enter(z) + self.enter_prefix(before)
        for block in self.blocks:
            h = block(h, condition)
        out: Tensor = self.leave(self.norm(h))
        return out


class ProposalNetwork(nn.Module):
    """The frame around a body.

    Args:
        config: sizes. values, vectors: spectrum (d,), (d, d) of the normalised latents, see `LatentStatistics`.
    """

    values: Tensor
    vectors: Tensor

    def __init__(self, config: NetworkConfig, values: Tensor, vectors: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("values", values.float().clamp_min(1e-6), persistent=False)
        self.register_buffer("vectors", vectors.float(), persistent=False)
        self.body = _body(config)

    def forward(self, z: Tensor, log_snr: Tensor, context: Context) -> Tensor:
        """Return the velocity (B, d) for z (B, d) at log_snr (B,)."""
        alpha, sigma = (level[:, None] for level in levels_of(log_snr))
        variance = alpha**2 * self.values + sigma**2  # (B, d), of z in the eigenbasis
        turned = z @ self.vectors
        gain = alpha * sigma * (1.0 - self.values) / variance
        if self.config.base == "flow":
            # x0 = g z with g = sqrt(c / m): v = (alpha - g) / sigma z; the difference of squares avoids 0 / 0
            root = (self.values / variance).sqrt()
            gain = (alpha**2 * variance - self.values) / (sigma.clamp_min(1e-6) * variance * (alpha + root))
        before = Context(context.before @ self.vectors, context.known, context.states, context.mask)
        free = self.body(turned / variance.sqrt(), log_snr, before)
        velocity = gain * turned + (self.values / variance).sqrt() * free
        out: Tensor = velocity @ self.vectors.T
        return out

    def clean(self, z: Tensor, log_snr: Tensor, context: Context) -> Tensor:
        """Return x0 (B, d) = alpha z - sigma v."""
        alpha, sigma = (level[:, None] for level in levels_of(log_snr))
        x0: Tensor = alpha * z - sigma * self(z, log_snr, context)
        return x0


def new_network(config: NetworkConfig, statistics: LatentStatistics) -> ProposalNetwork:
    """Build a network for latents of these moments; its body begins as zero, so it is the Gaussian denoiser."""
    values, vectors = statistics.spectrum()
    return ProposalNetwork(config, torch.tensor(values), torch.tensor(vectors))


def _body(config: NetworkConfig) -> nn.Module:
    if config.body == "mlp":
        if config.states:
            raise ConfigurationError("token states of the prefix need body: transformer")
        return ResidualMlp(config)
    from guardrail.dglm.transformer import TokenTransformer

    return TokenTransformer(config)


class NetworkDenoiser:
    """A network bound to its context: a `Denoiser` over numpy latents that carries gradients back as well.

    Args:
        network: in evaluation mode. context: of as many rows as the latents will have, on the network's device.
    """

    def __init__(self, network: ProposalNetwork, context: Context) -> None:
        self.network, self.context = network, context
        self._device = network.values.device

    def __call__(self, z: Array, alpha: float, sigma: float) -> Array:
        """Return x0 (N, d)."""
        with torch.inference_mode():
            return self._clean(self._tensor(z), alpha, sigma).cpu().numpy()

    def pull_back(self, z: Array, alpha: float, sigma: float, gradient: Gradient) -> tuple[Array, Array]:
        """Return x0 and its gradient pulled back by one backward pass; none is made for a gradient of zero."""
        with torch.enable_grad():
            latent = self._tensor(z).requires_grad_(True)
            x0 = self._clean(latent, alpha, sigma)
            found = x0.detach().cpu().numpy()
            above = gradient(found)
            if not above.any():
                return found, np.zeros_like(found)
            (pulled,) = torch.autograd.grad(x0, latent, self._tensor(above))
        return found, pulled.cpu().numpy()

    def _clean(self, z: Tensor, alpha: float, sigma: float) -> Tensor:
        log_snr = torch.full((len(z),), 2.0 * math.log(max(alpha, 1e-8) / max(sigma, 1e-8)), device=self._device)
        return self.network.clean(z, log_snr, self.context)

    def _tensor(self, x: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(self._device)


def numpy_context(
    network: ProposalNetwork, before: Array | None, rows: int, states: TokenStates | None = None
) -> Context:
    """Return the context of `rows` latents: normalised embeddings (rows, d), or the learned null for all.

    Args:
        states: token states of what stands before and their mask, (rows, T, width) and (rows, T); only a network with
            `states` looks at them.
    """
    device, dim = network.values.device, network.config.dim
    known = torch.full((rows,), before is not None, device=device)
    latent = np.zeros((rows, dim), dtype=np.float32) if before is None else before
    context = Context(torch.from_numpy(latent).to(device), known)
    if before is None or states is None or not network.config.states:
        return context
    return replace(context, states=torch.from_numpy(states[0]).to(device), mask=torch.from_numpy(states[1]).to(device))
