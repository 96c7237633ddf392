"""Noise schedules: time in [0, 1] to signal and noise levels, alpha^2 + sigma^2 = 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Schedule(Protocol):
    """How noise grows with time."""

    def levels(self, t: float) -> tuple[float, float]:
        """Return (alpha, sigma) at time t; t = 0 is clean, t = 1 is noise."""


@dataclass(frozen=True, slots=True)
class CosineSchedule:
    """alpha = cos(pi t / 2), shifted in log-SNR.

    Nichol & Dhariwal 2021, section 3.2; the shift: Hoogeboom et al. 2023, section 2.1.

    Attributes:
        shift: added to the log signal-to-noise ratio, in nats; positive is less noise.
        clip: |log SNR| is kept below this.
    """

    shift: float = 0.0
    clip: float = 15.0

    def log_snr(self, t: float) -> float:
        """Return log(alpha^2 / sigma^2) at time t."""
        angle = math.pi / 2.0 * min(max(t, 0.0), 1.0)
        tangent = max(math.tan(min(angle, math.pi / 2.0 - 1e-9)), 1e-9)
        return min(max(-2.0 * math.log(tangent) + self.shift, -self.clip), self.clip)

    def levels(self, t: float) -> tuple[float, float]:
        """Return (alpha, sigma) at time t."""
        snr = self.log_snr(t)
        return math.sqrt(1.0 / (1.0 + math.exp(-snr))), math.sqrt(1.0 / (1.0 + math.exp(snr)))


def timesteps(count: int, start: float = 1.0) -> npt.NDArray[np.float64]:
    """Return `count` + 1 times from `start` down to 0, evenly spaced.

    Raises:
        ValueError: `count` below 1 or `start` outside (0, 1].
    """
    if count < 1 or not 0.0 < start <= 1.0:
        raise ValueError(f"timesteps needs count >= 1 and 0 < start <= 1, got {count} and {start}")
    return np.linspace(start, 0.0, count + 1)
