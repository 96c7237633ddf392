"""Which noise levels to train at: more often where the loss is.

Lovelace et al. 2024 (their code; after Kingma & Gao 2023, appendix F): the range of log-SNR is cut into bins, a moving
average of the weighted loss is kept for each, noise levels are drawn in proportion to it, and each example is divided by
how often its bin is drawn. The expected gradient stays that of the weighted loss; its variance falls.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_SNR = 15.0
"""Noise levels lie in [-LOG_SNR, LOG_SNR], in nats."""


def cosine_weight(log_snr: Tensor, shift: float = 0.0) -> Tensor:
    """Return the density of log-SNR (B,) when time is uniform under the cosine schedule: sech((l - shift) / 2) / (2 pi)."""
    return 1.0 / (2.0 * math.pi * torch.cosh((log_snr - shift) / 2.0))


class AdaptiveTimes:
    """Draws noise levels and learns from their losses.

    Args:
        shift: of the cosine weighting, in nats; positive puts weight on less noise. bins: of the range.
        decay: of the moving average. floor: least share of a bin, relative to an even one.
    """

    def __init__(self, shift: float = 0.0, bins: int = 100, decay: float = 0.95, floor: float = 0.02) -> None:
        self.shift, self.decay, self.floor = shift, decay, floor
        self.width = 2.0 * LOG_SNR / bins
        centres = (torch.arange(bins) + 0.5) * self.width - LOG_SNR
        self.losses = cosine_weight(centres, shift)  # as if every level lost the same before its weight

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return log-SNR (B,) and the weight of each example's loss (B,): the cosine's density over that of drawing."""
        share = self.losses / self.losses.sum()
        share = (1.0 - self.floor) * share + self.floor / len(share)
        bins = torch.multinomial(share, count, replacement=True, generator=generator)
        log_snr = (bins + torch.rand(count, generator=generator)) * self.width - LOG_SNR
        return log_snr, cosine_weight(log_snr, self.shift) * self.width / share[bins]

    def learn(self, log_snr: Tensor, losses: Tensor) -> None:
        """Take in unweighted losses (B,) at log_snr (B,)."""
        bins = ((log_snr + LOG_SNR) / self.width).long().clamp(0, len(self.losses) - 1)
        counts = torch.bincount(bins, minlength=len(self.losses))
        weighted = losses * cosine_weight(log_snr, self.shift)
        means = torch.bincount(bins, weights=weighted, minlength=len(self.losses)).float() / counts.clamp_min(1)
        self.losses = torch.where(counts > 0, self.decay * self.losses + (1.0 - self.decay) * means, self.losses)
