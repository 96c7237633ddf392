"""Samplers against the constants that diffusers publishes and against closed-form Gaussian targets."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.dglm.denoiser import Estimate, GaussianDenoiser
from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.sampler import SAMPLERS, Cancelled, Ddim, DpmSolver2M, Plms, sampler, walk
from guardrail.dglm.schedule import CosineSchedule, DiscreteSchedule, LogSnrSchedule, timesteps
from guardrail.errors import ConfigurationError

DIM = 4
SIGNAL = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))  # alpha^2 of the linear schedule of 1,000 steps


@pytest.fixture(scope="module")
def statistics() -> LatentStatistics:
    root = np.random.default_rng(0).standard_normal((DIM, DIM)) * np.linspace(0.3, 1.0, DIM)
    covariance = (root @ root.T).astype(np.float32)
    return LatentStatistics(
        np.zeros(DIM, dtype=np.float32), np.sqrt(np.diag(covariance)).astype(np.float32), covariance, 1000, "hash"
    )


@pytest.fixture(scope="module")
def correlation(statistics: LatentStatistics) -> np.ndarray:
    return statistics.covariance / np.outer(statistics.std, statistics.std)


def dummy(z: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """The model of diffusers' scheduler tests, eps = z t / (t + 1), as an estimate of x0."""
    step = int(np.argmin(np.abs(SIGNAL - alpha**2)))
    return (z - sigma * z * step / (step + 1)) / alpha


@pytest.mark.parametrize(
    ("solver", "first", "last", "steps", "published"),
    [
        (DpmSolver2M(lower_order_final=False), 0, 999, 10, 0.3301),  # DPMSolverMultistepSchedulerTest
        (Ddim(), -100, 900, 10, 0.223967),  # DDIMSchedulerTest: leading steps, the last without noise
        (Plms(warm_up=3), 0, 900, 9, 0.2580),  # PNDMSchedulerTest; its tenth step stands still
    ],
    ids=["dpmpp_2m", "ddim", "pndm"],
)
def test_constants_published_by_diffusers(solver, first: int, last: int, steps: int, published: float) -> None:
    sample = (np.arange(768) / 768).reshape(3, 8, 8, 4).transpose(3, 0, 1, 2).reshape(4, -1).astype(np.float32)
    found = walk(sample, dummy, DiscreteSchedule(SIGNAL, first, last), timesteps(steps), solver)
    assert np.abs(found).mean() == pytest.approx(published, abs=6e-5)


@pytest.mark.parametrize(
    ("name", "steps", "tolerance"),
    [("ddim", 100, 0.06), ("dpmpp_2m", 20, 0.06), ("plms", 50, 0.06), ("pndm", 25, 0.06), ("ddpm", 150, 0.06)],
)
def test_samples_of_a_gaussian_have_its_moments(
    statistics: LatentStatistics, correlation: np.ndarray, name: str, steps: int, tolerance: float
) -> None:
    """20,000 samples: covariance within 6% (Frobenius), mean within 0.03."""
    noise = np.random.default_rng(1).standard_normal((20_000, DIM)).astype(np.float32)
    denoiser, rng = GaussianDenoiser(statistics), np.random.default_rng(2)
    found = SAMPLERS[name](noise, denoiser, CosineSchedule(clip=8.0), steps, rng=rng)
    assert np.linalg.norm(np.cov(found.T) - correlation) / np.linalg.norm(correlation) < tolerance
    assert np.abs(found.mean(axis=0)).max() < 0.03


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("plms", 2)])
def test_order_of_convergence(statistics: LatentStatistics, correlation: np.ndarray, name: str, order: int) -> None:
    """Against the exact probability flow of a Gaussian: twice the steps, at least about 2^order less error."""
    values, vectors = np.linalg.eigh(correlation)
    schedule = LogSnrSchedule(6.0, -6.0)
    noise = np.random.default_rng(3).standard_normal((50, DIM)).astype(np.float32)

    def spread(t: float) -> np.ndarray:
        alpha, sigma = schedule.levels(t)
        return np.sqrt(alpha**2 * values + sigma**2)

    exact = ((noise @ vectors) * spread(0.0) / spread(1.0)) @ vectors.T
    errors = [
        np.abs(SAMPLERS[name](noise, GaussianDenoiser(statistics), schedule, steps) - exact).max() for steps in (20, 40)
    ]
    assert errors[0] / errors[1] > 0.8 * 2**order


def test_consistency_sampling_of_the_exact_jump(statistics: LatentStatistics, correlation: np.ndarray) -> None:
    """With the exact end of the flow as denoiser, every number of steps gives the data's covariance within 6%."""
    values, vectors = np.linalg.eigh(correlation)

    def jump(z: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
        return ((z @ vectors) * np.sqrt(values / (alpha**2 * values + sigma**2))) @ vectors.T

    noise = np.random.default_rng(4).standard_normal((20_000, DIM)).astype(np.float32)
    for steps in (1, 4):
        found = SAMPLERS["consistency"](noise, jump, CosineSchedule(), steps, rng=np.random.default_rng(5))
        assert np.linalg.norm(np.cov(found.T) - correlation) / np.linalg.norm(correlation) < 0.06


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_gives_the_same_sample(statistics: LatentStatistics, name: str) -> None:
    noise = np.random.default_rng(6).standard_normal((3, DIM)).astype(np.float32)
    one, two = (
        SAMPLERS[name](noise, GaussianDenoiser(statistics), CosineSchedule(), 6, 0.7, rng=np.random.default_rng(7))
        for _ in range(2)
    )
    assert np.array_equal(one, two)
    assert np.isfinite(one).all()


class Split:
    """A denoiser whose guided estimate stands apart from the plain one."""

    def __init__(self, inner: GaussianDenoiser) -> None:
        self.inner = inner

    def __call__(self, z, alpha, sigma):
        return self.both(z, alpha, sigma).guided

    def both(self, z, alpha, sigma):
        plain = self.inner(z, alpha, sigma)
        return Estimate(plain + 0.5, plain)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "plms", "pndm", "ddpm"])
def test_renoising_without_guidance_is_one_step_of_cfgpp(statistics: LatentStatistics, name: str) -> None:
    """The two differ, and by sigma' (alpha / sigma) times the shift in the first step of DDIM."""
    z = np.random.default_rng(8).standard_normal((2, DIM)).astype(np.float32)
    denoiser = Split(GaussianDenoiser(statistics))
    args = (z, denoiser, CosineSchedule(), 5, 0.8)
    found = [SAMPLERS[name](*args, rng=np.random.default_rng(0), renoise=which) for which in ("guided", "unguided")]
    assert not np.allclose(*found)
    if name == "ddim":
        schedule = CosineSchedule()
        (alpha, sigma), (_, sigma_next) = schedule.levels(0.8), schedule.levels(0.4)
        one, two = (walk(z, denoiser, schedule, [0.8, 0.4], Ddim(), renoise=which) for which in ("guided", "unguided"))
        assert np.allclose(two - one, 0.5 * sigma_next * alpha / sigma, atol=1e-5)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "plms"])
def test_reordered_rows_keep_their_own_history(statistics: LatentStatistics, name: str) -> None:
    """Swapping two rows half-way is the same as swapping the noise to begin with."""
    z = np.random.default_rng(9).standard_normal((2, DIM)).astype(np.float32)
    calls: list[int] = []

    def swap(time: float, x0: np.ndarray, last: bool) -> np.ndarray | None:
        calls.append(1)
        return np.array([1, 0]) if len(calls) == 4 else None

    args = (GaussianDenoiser(statistics), CosineSchedule(), 8)
    swapped = SAMPLERS[name](z, *args, observe=swap)
    assert np.allclose(swapped, SAMPLERS[name](z[::-1].copy(), *args), atol=1e-6)
    assert len(calls) == 8


def test_a_cancelled_walk_stops_between_steps(statistics: LatentStatistics) -> None:
    calls: list[int] = []

    def counted(z: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
        calls.append(1)
        return z

    with pytest.raises(Cancelled):
        SAMPLERS["ddim"](
            np.zeros((1, 2), dtype=np.float32), counted, CosineSchedule(), 9, cancelled=lambda: len(calls) > 2
        )
    assert len(calls) == 3


def test_bad_arguments_are_refused(statistics: LatentStatistics) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'dpmpp_2m'"):
        sampler("dpmpp_2")
    with pytest.raises(ValueError, match="renoise"):
        walk(np.zeros((1, DIM), dtype=np.float32), dummy, CosineSchedule(), [1.0, 0.5], Ddim(), renoise="no")


@pytest.mark.parametrize(
    "schedule", [CosineSchedule(1.0), LogSnrSchedule(8.0, -8.0, 1.0), DiscreteSchedule(SIGNAL, -1, 999)]
)
def test_schedules_run_from_data_to_noise_on_the_circle(schedule) -> None:
    levels = np.array([schedule.levels(t) for t in np.linspace(0, 1, 40)])
    assert np.allclose((levels**2).sum(axis=1), 1.0)
    assert (np.diff(levels[:, 1]) >= 0).all()
    assert levels[0, 0] > 0.99
    assert levels[-1, 1] > 0.99
