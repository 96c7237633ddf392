"""Feynman-Kac steering against the closed form: a Gaussian tilted by exp of a linear reward is the Gaussian, shifted."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.dglm.denoiser import GaussianDenoiser
from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.sampler import SAMPLERS
from guardrail.dglm.schedule import CosineSchedule
from guardrail.dglm.steering import Particles

DIM = 3


@pytest.fixture(scope="module")
def statistics() -> LatentStatistics:
    root = np.random.default_rng(0).standard_normal((DIM, DIM))
    covariance = (root @ root.T).astype(np.float32)
    return LatentStatistics(
        np.zeros(DIM, dtype=np.float32), np.sqrt(np.diag(covariance)).astype(np.float32), covariance, 1000, "hash"
    )


@pytest.mark.parametrize("potential", ["difference", "max", "add"])
def test_particles_sample_the_tilted_gaussian(statistics: LatentStatistics, potential: str) -> None:
    """p(x) exp(w x) of N(0, C) is N(C w, C): 20,000 particles of ancestral sampling, mean within 0.1."""
    correlation = statistics.covariance / np.outer(statistics.std, statistics.std)
    weight = np.array([0.6, -0.3, 0.2])
    rng = np.random.default_rng(1)
    particles = Particles(
        lambda x0: x0 @ weight, 20_000, potential=potential, least_ess=0.5, resample_last=True, rng=rng,
        every=1 if potential == "difference" else 20,
    )  # fmt: skip
    noise = rng.standard_normal((20_000, DIM)).astype(np.float32)
    schedule, denoiser = CosineSchedule(clip=8.0), GaussianDenoiser(statistics)
    found = SAMPLERS["ddpm"](noise, denoiser, schedule, 60, rng=rng, observe=particles)
    assert np.abs(found.mean(axis=0) - correlation @ weight).max() < 0.1
    assert particles.resampled > 0


def test_steering_with_a_reward_that_has_no_gradient(statistics: LatentStatistics) -> None:
    """A step function; the best of every group is returned, and most groups find one."""
    reward = lambda x0: (x0[:, 0] > 1.2).astype(float)  # noqa: E731
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((50 * 16, DIM)).astype(np.float32)
    particles = Particles(reward, 16, scale=6.0, rng=rng)
    found = SAMPLERS["ddpm"](noise, GaussianDenoiser(statistics), CosineSchedule(), 20, rng=rng, observe=particles)
    best = found[particles.best(found)]
    assert best.shape == (50, DIM)
    assert reward(best).mean() > 0.9
    plain = SAMPLERS["ddpm"](noise, GaussianDenoiser(statistics), CosineSchedule(), 20, rng=rng)
    assert reward(plain).mean() < 0.2 < reward(found).mean()


def test_groups_do_not_mix_and_even_weights_are_left_alone() -> None:
    particles = Particles(lambda x0: x0[:, 0], 2, scale=50.0, rng=np.random.default_rng(3))
    x0 = np.array([[0.0], [1.0], [5.0], [4.0], [2.0], [2.0]], dtype=np.float32)
    rows = particles(1.0, x0, False)
    assert rows is not None
    assert rows.tolist() == [1, 1, 2, 2, 4, 5]
    assert Particles(lambda x0: np.zeros(len(x0)), 3)(1.0, x0, False) is None
    assert Particles(lambda x0: x0[:, 0], 2, scale=50.0, least_ess=0.0)(1.0, x0, False) is None


def test_particles_look_every_so_often() -> None:
    looks: list[int] = []
    particles = Particles(lambda x0: (looks.append(1), np.zeros(len(x0)))[1], 2, every=3)
    for number in range(8):
        particles(1.0 - number / 8, np.zeros((4, 1), dtype=np.float32), number == 7)
    assert len(looks) == 4  # the first, the fourth, the seventh, the last


@pytest.mark.parametrize(
    "bad", [{"group": 0}, {"group": 2, "every": 0}, {"group": 2, "least_ess": 1.5}, {"group": 2, "potential": "x"}]
)
def test_bad_arguments_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"particles need|potential"):
        Particles(lambda x0: x0[:, 0], **bad)
