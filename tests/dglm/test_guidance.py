"""Guidance: the closed form against the paper's backward pass, and the rules around it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guardrail.dglm.classifier_free import ClassifierFreeGuidance
from guardrail.dglm.denoiser import Counted, GaussianDenoiser, estimates
from guardrail.dglm.guidance import Guide, Heads, LinearGuidance, Preconditioner
from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.reference import BackwardGuidance
from guardrail.dglm.safe_latent import PRESETS, SafeLatent, SafeLatentGuidance

DIM = 6
ALPHA, SIGMA = 0.8, 0.6


@pytest.fixture(scope="module")
def statistics() -> LatentStatistics:
    root = np.random.default_rng(0).standard_normal((DIM, DIM)) * np.linspace(0.05, 0.4, DIM)
    covariance = (root @ root.T).astype(np.float32)
    mean = np.full(DIM, 0.1, dtype=np.float32)
    return LatentStatistics(mean, np.sqrt(np.diag(covariance)).astype(np.float32), covariance, 1000, "hash")


@pytest.fixture(scope="module")
def guides() -> list[Guide]:
    rng = np.random.default_rng(1)
    return [
        Guide(rng.standard_normal(DIM).astype(np.float32), 0.3, away=True),
        Guide(rng.standard_normal(DIM).astype(np.float32), -0.2, away=False, scale=0.5),
    ]


@pytest.fixture(scope="module")
def z() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((5, DIM)).astype(np.float32)


def test_heads_are_the_guides_on_latents(statistics: LatentStatistics, guides: list[Guide], z: np.ndarray) -> None:
    x = z * statistics.std + statistics.mean
    heads = Heads(guides, statistics)
    wanted = np.stack([-(x @ guides[0].weight + 0.3), x @ guides[1].weight - 0.2], axis=1)
    assert np.allclose(heads.logits(z), wanted, atol=1e-5)
    assert np.allclose(heads.allowed(z), (1 / (1 + np.exp(-wanted))).prod(axis=1), atol=1e-6)
    h, numeric = 1e-4, np.zeros_like(z, dtype=np.float64)
    objective = lambda at: (np.log(1 / (1 + np.exp(-heads.logits(at)))) * heads.scales).sum(axis=1)  # noqa: E731
    for column in range(DIM):
        step = np.zeros(DIM)
        step[column] = h
        numeric[:, column] = (objective(z + step) - objective(z - step)) / (2 * h)
    assert np.allclose(heads.gradient(z), numeric, atol=1e-4)


def test_posterior_preconditioning_is_the_jacobian_of_the_exact_denoiser(statistics: LatentStatistics) -> None:
    """Tweedie's second-order identity: (sigma^2 / alpha) J^T g = Cov[x0 | z] g."""
    gradient = np.random.default_rng(3).standard_normal((4, DIM)).astype(np.float32)
    _, pulled = GaussianDenoiser(statistics).pull_back(gradient, ALPHA, SIGMA, lambda x0: gradient)
    found = Preconditioner("posterior", statistics)(gradient, ALPHA, SIGMA)
    assert np.allclose(found, SIGMA**2 / ALPHA * pulled, atol=1e-5)
    correlation = statistics.covariance / np.outer(statistics.std, statistics.std)
    assert np.allclose(
        Preconditioner("covariance", statistics)(gradient, ALPHA, SIGMA), gradient @ correlation, atol=1e-5
    )
    assert np.array_equal(Preconditioner("bare", statistics)(gradient, ALPHA, SIGMA), gradient)
    with pytest.raises(ValueError, match="precondition"):
        Preconditioner("full", statistics)  # type: ignore[arg-type]


def test_closed_form_equals_the_full_backward_where_its_loss_is_linear(statistics: LatentStatistics) -> None:
    """Nearly clean, and a head so far on the wrong side that its loss has slope one: the same shift within 3%.

    What is left is the sphere: the reference normalises its samples, so the mean's direction drops out of its gradient. The
    head here is orthogonal to the embedding.
    """
    denoiser = GaussianDenoiser(statistics)
    z = np.random.default_rng(4).standard_normal((1, DIM)).astype(np.float32)
    alpha, sigma = math.sqrt(1 - 0.02**2), 0.02
    x = denoiser(z, alpha, sigma)[0] * statistics.std + statistics.mean
    weight = np.random.default_rng(5).standard_normal(DIM)
    weight -= (weight @ x) * x / (x @ x)
    # the reference sees the unit vector: its slope is 1 / |x| of ours
    guide = [Guide((weight * 0.1).astype(np.float32), 20.0)]
    plain = denoiser(z, alpha, sigma)
    ours = LinearGuidance(denoiser, guide, statistics, 1.0)(z, alpha, sigma) - plain
    rng = np.random.default_rng(6)
    theirs = BackwardGuidance(denoiser, guide, statistics, 1.0, samples=4000, rng=rng)(z, alpha, sigma) - plain
    assert np.allclose(theirs * np.linalg.norm(x), ours, rtol=0.03, atol=0.03 * np.abs(ours).max())


@pytest.mark.parametrize("kind", ["posterior", "covariance", "bare", "backward"])
def test_every_guide_moves_to_the_wanted_side(
    statistics: LatentStatistics, guides: list[Guide], z: np.ndarray, kind: str
) -> None:
    denoiser = GaussianDenoiser(statistics)
    heads = Heads(guides, statistics)
    if kind == "backward":
        steered = BackwardGuidance(denoiser, guides, statistics, 5.0, rng=np.random.default_rng(0))
    else:
        steered = LinearGuidance(denoiser, guides, statistics, 5.0, kind)
    found = estimates(steered, z, ALPHA, SIGMA)
    assert np.allclose(found.plain, denoiser(z, ALPHA, SIGMA))
    assert (heads.allowed(found.guided) > heads.allowed(found.plain)).all()


def test_guidance_stops_for_what_passes(statistics: LatentStatistics, guides: list[Guide], z: np.ndarray) -> None:
    denoiser = GaussianDenoiser(statistics)
    allowed = Heads(guides, statistics).allowed(denoiser(z, ALPHA, SIGMA))
    threshold = float(np.median(allowed))
    counted = Counted(denoiser)
    for steered in (
        LinearGuidance(denoiser, guides, statistics, 5.0, stop_at=threshold),
        BackwardGuidance(counted, guides, statistics, 5.0, stop_at=threshold),
    ):
        found = estimates(steered, z, ALPHA, SIGMA)
        still = np.all(np.isclose(found.guided, found.plain, atol=1e-6), axis=1)
        assert np.array_equal(still, allowed >= threshold)
    assert counted.rows == 3 * len(z)
    BackwardGuidance(counted, guides, statistics, 5.0, stop_at=0.0)(z, ALPHA, SIGMA)
    assert counted.rows == 4 * len(z)  # nothing left to guide: no backward pass


def test_backward_needs_gradients(statistics: LatentStatistics, guides: list[Guide], z: np.ndarray) -> None:
    with pytest.raises(TypeError, match="pull_back"):
        BackwardGuidance(Counted(lambda z, alpha, sigma: z), guides, statistics, 1.0)(z, ALPHA, SIGMA)


def test_classifier_free_guidance_mixes_two_denoisers(z: np.ndarray) -> None:
    guided = ClassifierFreeGuidance(lambda z, a, s: z + 1, lambda z, a, s: z, 3.0)
    found = estimates(guided, z, ALPHA, SIGMA)
    assert np.allclose(found.guided, z + 3)
    assert np.allclose(found.plain, z)


def test_wrappers_compose(statistics: LatentStatistics, guides: list[Guide], z: np.ndarray) -> None:
    """Heads over classifier-free guidance: the plain estimate, that CFG++ renoises with, is the null's."""
    inner = ClassifierFreeGuidance(lambda z, a, s: z + 1, lambda z, a, s: z, 2.0)
    found = estimates(LinearGuidance(inner, guides, statistics, 1.0), z, ALPHA, SIGMA)
    assert np.allclose(found.plain, z)
    assert not np.allclose(found.guided, z + 2)
    two = LinearGuidance(LinearGuidance(inner, guides[:1], statistics, 1.0), guides[1:], statistics, 1.0)
    assert Heads(guides, statistics).allowed(two(z, ALPHA, SIGMA)).min() > 0


def test_safe_latent_guides_only_where_the_unsafe_direction_is_active(
    statistics: LatentStatistics, guides: list[Guide], z: np.ndarray
) -> None:
    denoiser = GaussianDenoiser(statistics)
    plain = denoiser(z, ALPHA, SIGMA)
    violation = 1 / (1 + np.exp(Heads(guides[:1], statistics).logits(plain)[:, 0]))
    threshold = float(np.median(violation))
    rule = SafeLatentGuidance(denoiser, guides[:1], statistics, SafeLatent(0.0, 5.0, threshold, 0.0, 0.0))
    moved = np.any(np.abs(rule(z, ALPHA, SIGMA) - plain) > 1e-6, axis=1)
    assert np.array_equal(moved, violation > threshold)
    early = SafeLatentGuidance(denoiser, guides[:1], statistics, SafeLatent(0.7, 5.0, 0.0, 0.0, 0.0))
    assert np.array_equal(early(z, ALPHA, SIGMA), plain)  # alpha^2 = 0.64: still warming up
    assert not np.allclose(early(z, 0.9, math.sqrt(0.19)), denoiser(z, 0.9, math.sqrt(0.19)))


def test_safe_latent_momentum_builds_up_and_follows_its_row(
    statistics: LatentStatistics, guides: list[Guide], z: np.ndarray
) -> None:
    denoiser = GaussianDenoiser(statistics)
    plain = denoiser(z, ALPHA, SIGMA)
    rule = SafeLatentGuidance(denoiser, guides, statistics, SafeLatent(0.0, 5.0, 0.0, 0.5, 0.5))
    first, second = (np.linalg.norm(rule(z, ALPHA, SIGMA) - plain, axis=1) for _ in range(2))
    assert (second > first).all()
    rule.select(np.array([1, 0, 2, 3, 4]))
    other = SafeLatentGuidance(denoiser, guides, statistics, SafeLatent(0.0, 5.0, 0.0, 0.5, 0.5))
    swapped = z[[1, 0, 2, 3, 4]]
    for _ in range(2):
        other(swapped, ALPHA, SIGMA)
    assert np.allclose(rule(swapped, ALPHA, SIGMA), other(swapped, ALPHA, SIGMA), atol=1e-6)


def test_safe_latent_presets_rise(statistics: LatentStatistics, guides: list[Guide], z: np.ndarray) -> None:
    denoiser, heads = GaussianDenoiser(statistics), Heads(guides, statistics)
    reached = [
        heads.allowed(SafeLatentGuidance(denoiser, guides, statistics, PRESETS[name])(z, ALPHA, SIGMA)).mean()
        for name in ("weak", "medium", "strong", "max")
    ]
    assert reached == sorted(reached)
    assert reached[0] < reached[-1]
