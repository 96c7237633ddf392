"""Diffusion-DPO: move a denoising network towards what people preferred, and stop before it has moved too far.

Wallace et al. 2023, "Diffusion Model Alignment Using Direct Preference Optimization", equation 14. With the velocity v in the
place of the noise (v - v_theta and eps - eps_theta differ by the factor alpha), e_theta(x) = w |v - v_theta(z, l, c)|^2 for
z = alpha x + sigma eps, and the same noise level l and noise eps for both texts of a pair:

    L = - E log sigmoid( - beta [ (e_theta(chosen) - e_ref(chosen)) - (e_theta(rejected) - e_ref(rejected)) ] )

The noise levels and the weight w are those of the network's own training (`guardrail.dglm.time_sampling`), and the constant T of
the paper is part of beta. The reference is the network before.

How far it has moved is the Kullback-Leibler divergence between the two generating processes, which bounds that between what they
generate (data processing). A step from noise level t to s costs (SNR(s) - SNR(t)) / 2 |x_theta - x_ref|^2 nats (Kingma et al.
2021, "Variational Diffusion Models", equation 13), and x_theta - x_ref = - sigma (v_theta - v_ref), so in the limit of many steps

    KL = 1/2 integral over l of alpha(l)^2 E |v_theta - v_ref|^2

The expectation is over the process's own latents; it is estimated on noised latents of real texts, with fixed noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from guardrail.dglm.network import Context, ProposalNetwork, levels_of
from guardrail.dglm.propose import LOWEST
from guardrail.dglm.time_sampling import AdaptiveTimes

__all__ = ["Latents", "Tuned", "Tuning", "accuracy", "divergence", "margins", "tune"]

CLEANEST = 10.0
"""log-SNR up to which the divergence is measured; beyond it both networks return what they are given."""

Report = Callable[[int, float, float], object]


@dataclass(frozen=True, slots=True)
class Latents:
    """Normalised latents of N pairs.

    Attributes:
        chosen, rejected: (N, d). context: what stood before, N rows. weight: (N,), of the pairs, > 0.
    """

    chosen: Tensor
    rejected: Tensor
    context: Context
    weight: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    def rows(self, index: Tensor) -> Latents:
        """Return some of the pairs."""
        context = Context(self.context.before[index], self.context.known[index])
        return Latents(self.chosen[index], self.rejected[index], context, self.weight[index])


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the network is moved.

    Attributes:
        beta: strength of the reference; larger values move it less far before the loss is content.
        rate: of AdamW. batch: pairs of a step, drawn by their weights. steps: at most.
        bound: nats of `divergence` at which training stops. every: steps between two looks at it.
        clip: largest norm of a gradient. seed: of everything that is drawn.
    """

    beta: float = 1.0
    rate: float = 2e-5
    batch: int = 64
    steps: int = 300
    bound: float = 3.0
    every: int = 5
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it.

    Attributes:
        network: moved; the one that was given is as it was. steps: that are in it.
        divergence: of it from the reference, nats, at most the bound. stopped: whether the bound ended the training.
    """

    network: ProposalNetwork
    steps: int
    divergence: float
    stopped: bool


def tune(reference: ProposalNetwork, pairs: Latents, tuning: Tuning, report: Report = lambda *_: None) -> Tuned:
    """Return the network that the pairs ask for, within the bound.

    Args:
        reference: as it is; not changed. pairs: of the training part. report: told of step, loss and divergence.

    Raises:
        ValueError: there are no pairs.
    """
    if not len(pairs):
        raise ValueError("there are no pairs to learn from")
    network = copy.deepcopy(reference).train().requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=tuning.rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(tuning.seed)
    times = AdaptiveTimes()
    kept, steps, moved = copy.deepcopy(reference), 0, 0.0
    for step in range(1, tuning.steps + 1):
        index = torch.multinomial(pairs.weight, tuning.batch, replacement=True, generator=generator)
        loss = _loss(network, reference, pairs.rows(index), times, tuning.beta, generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), tuning.clip)
        optimiser.step()
        if step % tuning.every and step != tuning.steps:
            continue
        now = divergence(network, reference, pairs, tuning.seed)
        report(step, float(loss.detach()), now)
        if not now <= tuning.bound:  # a value that is not a number stops it too
            return Tuned(_frozen(kept), steps, moved, True)
        kept.load_state_dict(network.state_dict())
        steps, moved = step, now
    return Tuned(_frozen(kept), steps, moved, False)


def _frozen(network: ProposalNetwork) -> ProposalNetwork:
    return network.eval().requires_grad_(False)


def _loss(
    network: ProposalNetwork,
    reference: ProposalNetwork,
    pairs: Latents,
    times: AdaptiveTimes,
    beta: float,
    generator: torch.Generator,
) -> Tensor:
    log_snr, weight = times.draw(len(pairs), generator)
    noise = torch.randn(pairs.chosen.shape, generator=generator)
    with torch.no_grad():
        held = _errors(reference, pairs, log_snr, noise)
    moved = _errors(network, pairs, log_snr, noise)
    gains = weight * ((moved[0] - held[0]) - (moved[1] - held[1]))
    return F.softplus(beta * gains).mean()


def _errors(network: ProposalNetwork, pairs: Latents, log_snr: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The squared errors of the velocity, (N,) each, summed over dimensions: of the chosen texts, of the rejected ones."""
    alpha, sigma = (level[:, None] for level in levels_of(log_snr))
    clean = torch.cat((pairs.chosen, pairs.rejected))
    alpha, sigma, noise = (torch.cat((part, part)) for part in (alpha, sigma, noise))
    context = Context(torch.cat((pairs.context.before,) * 2), torch.cat((pairs.context.known,) * 2))
    said = network(alpha * clean + sigma * noise, torch.cat((log_snr, log_snr)), context)
    errors = ((said - (alpha * noise - sigma * clean)) ** 2).sum(dim=1)
    return errors[: len(pairs)], errors[len(pairs) :]


@torch.no_grad()
def margins(network: ProposalNetwork, pairs: Latents, draws: int = 64, seed: int = 1) -> Tensor:
    """Return by how much the network finds the rejected texts harder to denoise than the chosen ones, (N,).

    The mean of w (e(rejected) - e(chosen)) over `draws` noise levels and noises, which are the same for every network.
    """
    generator = torch.Generator().manual_seed(seed)
    times = AdaptiveTimes()
    total = torch.zeros(len(pairs))
    for _ in range(draws):
        log_snr, weight = times.draw(len(pairs), generator)
        noise = torch.randn(pairs.chosen.shape, generator=generator)
        chosen, rejected = _errors(network, pairs, log_snr, noise)
        total += weight * (rejected - chosen)
    return total / draws


def accuracy(found: Tensor, weight: Tensor) -> float:
    """Return the weighted share of pairs (N,) whose margin is on the chosen side."""
    return float((weight * (found > 0)).sum() / weight.sum())


@torch.no_grad()
def divergence(
    network: ProposalNetwork, reference: ProposalNetwork, pairs: Latents, seed: int = 0, rows: int = 256
) -> float:
    """Return the estimated divergence of the network's process from the reference's, in nats; see the module.

    Args:
        pairs: on whose latents, chosen and rejected, it is measured. rows: how many, each with a noise level of its own.
    """
    generator = torch.Generator().manual_seed(seed + 7)
    clean = torch.cat((pairs.chosen, pairs.rejected))
    index = torch.randint(len(clean), (rows,), generator=generator)
    own = index % len(pairs)
    context = Context(pairs.context.before[own], pairs.context.known[own])
    spread = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
    log_snr = LOWEST + (CLEANEST - LOWEST) * spread  # stratified
    alpha, sigma = (level[:, None] for level in levels_of(log_snr))
    noise = torch.randn((rows, clean.shape[1]), generator=generator)
    z = alpha * clean[index] + sigma * noise
    apart = ((network(z, log_snr, context) - reference(z, log_snr, context)) ** 2).sum(dim=1)
    return float(0.5 * (CLEANEST - LOWEST) * (alpha[:, 0] ** 2 * apart).mean())
