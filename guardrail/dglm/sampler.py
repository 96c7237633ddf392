"""Samplers: from a noised latent to a clean one. Guidance wraps the denoiser, so each of them works guided.

Every sampler is the same walk over falling times with its own step. With eps = (z - alpha x0) / sigma a step goes from
(alpha, sigma) to (alpha', sigma'):

    ddim         z' = alpha' x0 + sigma' eps                           Song et al. 2021, equation 12, eta = 0
    ddpm         the same with eta = 1: part of the noise is drawn anew    Ho et al. 2020; Song et al. 2021, equation 16
    dpmpp_2m     ddim with x0 extrapolated from the last two           Lu et al. 2022b, DPM-Solver++, algorithm 2
    plms         ddim with eps extrapolated from the last four         Liu et al. 2022, PNDM, equation 12
    pndm         plms with three Runge-Kutta steps to begin with       Liu et al. 2022, PNDM, equation 13
    consistency  z' = alpha' x0 + sigma' noise                         Song et al. 2023, algorithm 1; for the student

Where the guided x0 and the plain one differ, the noise that is put back can be that of the plain one (`renoise`,
CFG++, Chung et al. 2024, algorithm 2): D is a pair of clean estimates, the first for the data, the second for eps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from guardrail.dglm.denoiser import Denoiser, Remembers, estimates
from guardrail.dglm.latents import Array
from guardrail.dglm.schedule import Schedule, timesteps
from guardrail.errors import ConfigurationError, GuardrailError, did_you_mean

Observer = Callable[[float, Array, bool], npt.NDArray[np.intp] | None]
"""(time, guided x0 (N, d), last step) to the rows that live on (N,), or None for all as they are."""

Levels = tuple[float, float]

Evaluate = Callable[[Array, Levels], Array]
"""(z, levels) to the pair of clean estimates D (2, N, d); for solvers that look between two times."""

Rows = npt.NDArray[np.intp]


class Cancelled(GuardrailError):
    """The caller asked to stop; nothing was sampled."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a step begins and ends.

    Attributes:
        now: (alpha, sigma) of z. following: of the result. middle: half-way in time. last: no step comes after.
        evaluate: the denoiser, for solvers that need it more than once a step.
    """

    now: Levels
    following: Levels
    middle: Levels
    last: bool
    evaluate: Evaluate


class Solver(Protocol):
    """One step of a sampler, with what it remembers of earlier ones."""

    def step(self, z: Array, D: Array, step: Step) -> Array:
        """Return the latent (N, d) at `step.following` from z (N, d) and its clean estimates D (2, N, d)."""

    def select(self, rows: Rows) -> None:
        """Keep these rows of what is remembered."""


class Sampler(Protocol):
    """Walk a latent from noise to data."""

    def __call__(
        self,
        z: Array,
        denoiser: Denoiser,
        schedule: Schedule,
        steps: int,
        start: float = 1.0,
        *,
        rng: np.random.Generator | None = None,
        renoise: str = "guided",
        observe: Observer | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Array:
        """Return clean latents (N, d) from z (N, d) at time `start`, in `steps` steps.

        Args:
            rng: of the samplers that draw noise (`ddpm`, `consistency`); a new one where it is missing.
            renoise: "guided" or "unguided" (CFG++).
            observe: called with every guided x0; what it returns reorders the latents (particle resampling).
            cancelled: asked before every step.

        Raises:
            Cancelled: `cancelled` said so.
            ValueError: bad `steps`, `start` or `renoise`.
        """


class Ddim:
    """Deterministic first-order steps."""

    def step(self, z: Array, D: Array, step: Step) -> Array:
        """Return alpha' x0 + sigma' eps."""
        alpha, sigma = step.following
        moved: Array = alpha * D[0] + sigma * noise_in(z, D[1], step.now)
        return moved

    def select(self, rows: Rows) -> None:
        """Nothing is remembered."""


class Ddpm(Ddim):
    """Ancestral steps: eta = 1 of DDIM, the posterior variance of the forward process."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def step(self, z: Array, D: Array, step: Step) -> Array:
        """Return alpha' x0 + sqrt(sigma'^2 - s^2) eps + s n with s = (sigma' / sigma) sqrt(1 - (alpha / alpha')^2)."""
        (alpha, sigma), (alpha_next, sigma_next) = step.now, step.following
        fresh = sigma_next / max(sigma, 1e-8) * math.sqrt(max(1.0 - (alpha / alpha_next) ** 2, 0.0))
        kept = math.sqrt(max(sigma_next**2 - fresh**2, 0.0))
        noise = self.rng.standard_normal(z.shape, dtype=np.float32)
        moved: Array = alpha_next * D[0] + kept * noise_in(z, D[1], step.now) + fresh * noise
        return moved


class Consistency(Ddpm):
    """Jump to the data, noise again; for a denoiser that maps to the data in one step."""

    def step(self, z: Array, D: Array, step: Step) -> Array:
        """Return alpha' x0 + sigma' n."""
        alpha, sigma = step.following
        moved: Array = alpha * D[0] + sigma * self.rng.standard_normal(z.shape, dtype=np.float32)
        return moved


class DpmSolver2M(Ddim):
    """Second-order multistep steps on x0.

    lambda = log(alpha / sigma), h = lambda' - lambda, r = h_before / h, D <- x0 + (x0 - x0_before) / (2 r); the first
    step is DDIM.

    Args:
        lower_order_final: take the last step by DDIM too: h is largest there and extrapolation least to be trusted.
    """

    def __init__(self, lower_order_final: bool = True) -> None:
        self.lower_order_final = lower_order_final
        self._before: tuple[Array, float] | None = None

    def step(self, z: Array, D: Array, step: Step) -> Array:
        """Return alpha' D + sigma' eps(D) with the extrapolated D."""
        here = _half_log_snr(step.now)
        extrapolated = D
        if self._before is not None and not (step.last and self.lower_order_final):
            D_before, before = self._before
            ratio = (here - before) / (_half_log_snr(step.following) - here)
            extrapolated = D + (D - D_before) / (2.0 * ratio)
        self._before = (D, here)
        return super().step(z, extrapolated, step)

    def select(self, rows: Rows) -> None:
        """Keep these rows of the last estimate."""
        if self._before is not None:
            self._before = (self._before[0][:, rows], self._before[1])


class Plms(Ddim):
    """Pseudo linear multistep: Adams-Bashforth on eps, carried by the DDIM transfer; even spacing in time.

    Args:
        warm_up: how many first steps are Runge-Kutta's of order 4 (four evaluations each); without, lower orders begin.
    """

    WEIGHTS = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))

    def __init__(self, warm_up: int = 0) -> None:
        self.warm_up = warm_up
        self._eps: deque[Array] = deque(maxlen=4)

    def step(self, z: Array, D: Array, step: Step) -> Array:
        """Return the transfer of z along the combined eps."""
        self._eps.appendleft(noise_in(z, D, step.now))
        if self.warm_up > 0:
            self.warm_up -= 1
            return self._runge_kutta(z, step)
        weights = np.array(self.WEIGHTS[len(self._eps) - 1], dtype=np.float32)
        eps = np.tensordot(weights, np.stack(self._eps), axes=1).astype(np.float32)
        return _transfer(z, eps, step.now, step.following)

    def _runge_kutta(self, z: Array, step: Step) -> Array:
        slopes = [self._eps[0]]
        for place in (step.middle, step.middle, step.following):
            there = _transfer(z, slopes[-1], step.now, place)
            slopes.append(noise_in(there, step.evaluate(there, place), place))
        first, second, third, fourth = slopes
        return _transfer(z, (first + 2.0 * second + 2.0 * third + fourth) / 6.0, step.now, step.following)

    def select(self, rows: Rows) -> None:
        """Keep these rows of the remembered noise."""
        self._eps = deque((eps[:, rows] for eps in self._eps), maxlen=4)


def noise_in(z: Array, D: Array, now: Levels) -> Array:
    """Return eps (..., N, d) for clean estimates D (..., N, d): (z - alpha D) / sigma."""
    alpha, sigma = now
    eps: Array = ((z - alpha * D) / max(sigma, 1e-8)).astype(np.float32)
    return eps


def _transfer(z: Array, eps: Array, now: Levels, following: Levels) -> Array:
    """DDIM along given noise (2, N, d): the first says where the data is, the second is put back."""
    (alpha, sigma), (alpha_next, sigma_next) = now, following
    moved: Array = alpha_next * (z - sigma * eps[0]) / alpha + sigma_next * eps[1]
    return moved


def _half_log_snr(levels: Levels) -> float:
    return math.log(levels[0] / max(levels[1], 1e-8))


def walk(
    z: Array,
    denoiser: Denoiser,
    schedule: Schedule,
    times: Sequence[float] | npt.NDArray[np.float64],
    solver: Solver,
    *,
    renoise: str = "guided",
    observe: Observer | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Array:
    """Take `solver` over falling `times`; arguments and errors as `Sampler`."""
    if renoise not in ("guided", "unguided"):
        raise ValueError(f"renoise should be 'guided' or 'unguided', got {renoise!r}")

    def evaluate(z: Array, levels: Levels) -> Array:
        found = estimates(denoiser, z, *levels)
        return np.stack([found.guided, found.plain if renoise == "unguided" else found.guided])

    for number, (now, following) in enumerate(pairwise(map(float, times)), start=2):
        if cancelled():
            raise Cancelled("sampling was cancelled between two steps")
        here, there = schedule.levels(now), schedule.levels(following)
        middle = schedule.levels((now + following) / 2.0)
        D = evaluate(z, here)
        last = number == len(times)
        rows = observe(now, D[0], last) if observe is not None else None
        if rows is not None:
            z, D = z[rows], D[:, rows]
            solver.select(rows)
            if isinstance(denoiser, Remembers):
                denoiser.select(rows)
        z = solver.step(z, D, Step(here, there, middle, last, evaluate)).astype(np.float32)
    return z


def invert(z: Array, denoiser: Denoiser, schedule: Schedule, steps: int, end: float) -> Array:
    """Return the noised latent at time `end` that deterministic sampling leads back from to clean z (N, d).

    DDIM run backwards (Song et al. 2021, section 4.3), in `steps` evaluations.
    """
    for now, following in pairwise(map(float, timesteps(steps, end)[::-1])):
        here, (alpha, sigma) = schedule.levels(now), schedule.levels(following)
        x0 = denoiser(z, *here)
        z = (alpha * x0 + sigma * noise_in(z, x0, here)).astype(np.float32)
    return z


def _sampler(make: Callable[[np.random.Generator], Solver]) -> Sampler:
    def sample(
        z: Array,
        denoiser: Denoiser,
        schedule: Schedule,
        steps: int,
        start: float = 1.0,
        *,
        rng: np.random.Generator | None = None,
        renoise: str = "guided",
        observe: Observer | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Array:
        solver = make(np.random.default_rng() if rng is None else rng)
        times = timesteps(steps, start)
        return walk(z, denoiser, schedule, times, solver, renoise=renoise, observe=observe, cancelled=cancelled)

    return sample


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "ddim": _sampler(lambda _: Ddim()),
    "ddpm": _sampler(Ddpm),
    "dpmpp_2m": _sampler(lambda _: DpmSolver2M()),
    "plms": _sampler(lambda _: Plms()),
    "pndm": _sampler(lambda _: Plms(warm_up=3)),
    "consistency": _sampler(Consistency),
}
"""Samplers by name."""

ddim = SAMPLERS["ddim"]


def sampler(name: str) -> Sampler:
    """Return the sampler of that name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in SAMPLERS:
        raise ConfigurationError(
            f"there is no sampler {name!r}: expected one of {', '.join(SAMPLERS)}.{did_you_mean(name, SAMPLERS)}"
        )
    return SAMPLERS[name]
