"""Schedule, denoiser, sampler and guidance against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guardrail.dglm.denoiser import gaussian_denoiser
from guardrail.dglm.guidance import Guide, guided, project
from guardrail.dglm.latents import LatentStatistics, load, measure, save
from guardrail.dglm.sampler import ddim
from guardrail.dglm.schedule import CosineSchedule, timesteps
from guardrail.errors import CheckpointError

DIM = 6


@pytest.fixture
def statistics() -> LatentStatistics:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((DIM, DIM)) * np.linspace(0.05, 0.4, DIM)
    covariance = (root @ root.T).astype(np.float32)
    mean = np.full(DIM, 0.1, dtype=np.float32)
    return LatentStatistics(mean, np.sqrt(np.diag(covariance)).astype(np.float32), covariance, 1000, "hash")


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 3.0])
def test_levels_are_on_the_circle(t: float, shift: float) -> None:
    alpha, sigma = CosineSchedule(shift).levels(t)
    assert alpha**2 + sigma**2 == pytest.approx(1.0)


def test_cosine_without_shift_is_the_cosine() -> None:
    alpha, _ = CosineSchedule().levels(0.3)
    assert alpha == pytest.approx(math.cos(0.15 * math.pi), abs=1e-6)


def test_noise_grows_with_time() -> None:
    sigmas = [CosineSchedule().levels(t)[1] for t in np.linspace(0, 1, 50)]
    assert np.all(np.diff(sigmas) >= 0)


@pytest.mark.parametrize(("count", "start"), [(0, 1.0), (5, 0.0), (5, 1.5)])
def test_bad_timesteps_are_refused(count: int, start: float) -> None:
    with pytest.raises(ValueError, match="timesteps needs"):
        timesteps(count, start)


def test_gaussian_denoiser_is_the_posterior_mean(statistics: LatentStatistics) -> None:
    """Compared with the textbook formula C a (a^2 C + s^2 I)^-1 z."""
    correlation = statistics.covariance / np.outer(statistics.std, statistics.std)
    alpha, sigma = 0.8, 0.6
    z = np.random.default_rng(1).standard_normal((4, DIM)).astype(np.float32)
    expected = z @ (alpha * correlation @ np.linalg.inv(alpha**2 * correlation + sigma**2 * np.eye(DIM))).T
    assert np.allclose(gaussian_denoiser(statistics)(z, alpha, sigma), expected, atol=1e-4)


def test_ddim_samples_have_the_covariance_of_the_data(statistics: LatentStatistics) -> None:
    """The probability-flow map of Gaussian data is linear: 400 steps reach the data's correlation within 5%."""
    correlation = statistics.covariance / np.outer(statistics.std, statistics.std)
    noise = np.random.default_rng(2).standard_normal((20_000, DIM)).astype(np.float32)
    samples = ddim(noise, gaussian_denoiser(statistics), CosineSchedule(), 400)
    error = np.linalg.norm(np.cov(samples.T) - correlation) / np.linalg.norm(correlation)
    assert error < 0.05
    assert np.abs(samples.mean(axis=0)).max() < 0.03


def test_guided_denoiser_moves_to_the_wanted_side(statistics: LatentStatistics) -> None:
    weight = np.random.default_rng(3).standard_normal(DIM).astype(np.float32) * 4
    guides = [Guide(weight, 0.0, away=True)]
    plain = gaussian_denoiser(statistics)
    steered = guided(plain, guides, statistics, scale=3.0)
    z = np.random.default_rng(4).standard_normal((64, DIM)).astype(np.float32)
    before = statistics.denormalise(plain(z, 0.7, math.sqrt(0.51))) @ weight
    after = statistics.denormalise(steered(z, 0.7, math.sqrt(0.51))) @ weight
    assert np.all(after < before)
    assert np.allclose(guided(plain, guides, statistics, scale=0.0)(z, 0.7, 0.714), plain(z, 0.7, 0.714), atol=1e-5)


def test_project_reaches_the_margin_on_the_sphere(statistics: LatentStatistics) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal(DIM).astype(np.float32)
    x /= np.linalg.norm(x)
    weight = (x * 6).astype(np.float32)  # x is deep on the wrong side
    moved = project(x, [Guide(weight, 0.0)], 1.0, statistics, rounds=50)
    assert np.linalg.norm(moved) == pytest.approx(1.0, abs=1e-5)
    assert weight @ moved < -0.8


def test_project_moves_along_the_covariance_not_along_the_weight(statistics: LatentStatistics) -> None:
    """Before normalisation the step is S w up to a factor."""
    x = np.zeros(DIM, dtype=np.float32)
    x[0] = 1.0
    weight = 1000 * np.eye(DIM, dtype=np.float32)[2]
    step = project(x, [Guide(weight, 0.0)], 0.5, statistics, rounds=1) - x
    direction = statistics.covariance @ weight
    tangent = direction - (direction @ x) * x
    cosine = step @ tangent / (np.linalg.norm(step) * np.linalg.norm(tangent))
    assert cosine < -0.99


def test_project_leaves_alone_what_is_already_right(statistics: LatentStatistics) -> None:
    x = np.eye(DIM, dtype=np.float32)[1]
    guide = Guide(-10 * x, 0.0, away=True)
    assert np.allclose(project(x, [guide], 2.0, statistics), x)
    assert project(x, [], 2.0, statistics) is x


def test_project_serves_two_guides_at_once(statistics: LatentStatistics) -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal(DIM).astype(np.float32)
    x /= np.linalg.norm(x)
    away = Guide((x * 5).astype(np.float32), 0.0, away=True)
    toward = Guide((rng.standard_normal(DIM) * 5).astype(np.float32), 0.0, away=False, scale=0.5)
    moved = project(x, [away, toward], 1.0, statistics, rounds=200)
    assert away.weight @ moved < -0.7
    assert toward.weight @ moved > 0.2


class _Encoder:
    dim, sha256 = 4, "hash"

    def encode(self, texts):
        rng = np.random.default_rng(len(texts))
        x = rng.standard_normal((len(texts), 4)).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_statistics_are_the_moments_and_survive_a_file(tmp_path) -> None:
    texts = ["x"] * 500
    measured = measure(_Encoder(), texts, chunk=500)
    x = _Encoder().encode(texts).astype(np.float64)
    assert np.allclose(measured.mean, x.mean(axis=0), atol=1e-6)
    assert np.allclose(measured.covariance, np.cov(x.T, bias=True), atol=1e-6)
    save(measured, tmp_path / "latents.safetensors")
    restored = load(tmp_path / "latents.safetensors")
    assert np.array_equal(restored.covariance, measured.covariance)
    assert restored.count == 500
    assert np.allclose(measured.denormalise(measured.normalise(x.astype(np.float32))), x, atol=1e-5)


def test_too_few_texts_and_damaged_files_are_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="at least 8 texts"):
        measure(_Encoder(), ["x"] * 7)
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "broken.safetensors")
