"""Noise schedules: time in [0, 1] to signal and noise levels, alpha^2 + sigma^2 = 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Schedule(Protocol):
    """How noise grows with time."""

    def levels(self, t: float) -> tuple[float, float]:
        """Return (alpha, sigma) at time t; t = 0 is clean, t = 1 is noise."""


def levels_at(log_snr: float) -> tuple[float, float]:
    """Return (alpha, sigma) with alpha^2 / sigma^2 = exp(log_snr) and alpha^2 + sigma^2 = 1."""
    return math.sqrt(1.0 / (1.0 + math.exp(-log_snr))), math.sqrt(1.0 / (1.0 + math.exp(log_snr)))


@dataclass(frozen=True, slots=True)
class CosineSchedule:
    """alpha = cos(pi t / 2), shifted in log-SNR.

    Nichol & Dhariwal 2021, section 3.2; the shift: Hoogeboom et al. 2023, section 2.1.

    Attributes:
        shift: added to the log signal-to-noise ratio, in nats; positive is less noise.
        clip: |log SNR| is kept below this.
        lowest: log SNR is kept above this. Solvers that carry eps divide by alpha, which should not vanish.
    """

    shift: float = 0.0
    clip: float = 15.0
    lowest: float = -15.0

    def log_snr(self, t: float) -> float:
        """Return log(alpha^2 / sigma^2) at time t."""
        angle = math.pi / 2.0 * min(max(t, 0.0), 1.0)
        tangent = max(math.tan(min(angle, math.pi / 2.0 - 1e-9)), 1e-9)
        return min(max(-2.0 * math.log(tangent) + self.shift, -self.clip, self.lowest), self.clip)

    def levels(self, t: float) -> tuple[float, float]:
        """Return (alpha, sigma) at time t."""
        return levels_at(self.log_snr(t))


@dataclass(frozen=True, slots=True)
class LogSnrSchedule:
    """log-SNR falls linearly with time: the spacing of DPM-Solver (Lu et al. 2022, section 3.3) for every sampler.

    Attributes:
        clean: log-SNR at t = 0. noise: log-SNR at t = 1. shift: added to both, in nats; positive is less noise.
    """

    clean: float = 10.0
    noise: float = -10.0
    shift: float = 0.0

    def levels(self, t: float) -> tuple[float, float]:
        """Return (alpha, sigma) at time t."""
        return levels_at(self.clean + (self.noise - self.clean) * min(max(t, 0.0), 1.0) + self.shift)


@dataclass(frozen=True, slots=True)
class DiscreteSchedule:
    """A table of alpha^2, as diffusion models of images publish it (Ho et al. 2020, section 2: products of 1 - beta).

    Attributes:
        signal: alpha^2 by step, falling, each within (0, 1]. first: step at t = 0. last: step at t = 1; a step below 0
            is without noise.
    """

    signal: Sequence[float]
    first: int
    last: int

    def levels(self, t: float) -> tuple[float, float]:
        """Return (alpha, sigma) of the step nearest to time t."""
        step = round(self.first + (self.last - self.first) * t)
        signal = 1.0 if step < 0 else float(self.signal[step])
        return math.sqrt(signal), math.sqrt(1.0 - signal)


def timesteps(count: int, start: float = 1.0) -> npt.NDArray[np.float64]:
    """Return `count` + 1 times from `start` down to 0, evenly spaced.

    Raises:
        ValueError: `count` below 1 or `start` outside (0, 1].
    """
    if count < 1 or not 0.0 < start <= 1.0:
        raise ValueError(f"timesteps needs count >= 1 and 0 < start <= 1, got {count} and {start}")
    return np.linspace(start, 0.0, count + 1)
