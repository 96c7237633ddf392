"""The network: what it is before it has learned, its gradients, its condition; and proposals made with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from guardrail.dglm.denoiser import GaussianDenoiser
from guardrail.dglm.guidance import Guide
from guardrail.dglm.latents import DEAD, LatentStatistics
from guardrail.dglm.network import PRESETS, Context, NetworkConfig, NetworkDenoiser, new_network, numpy_context, preset
from guardrail.dglm.propose import STUDENT, Diffusion, ProposalSettings, gaussian_diffusion
from guardrail.dglm.sampler import SAMPLERS, Cancelled
from guardrail.errors import ConfigurationError

DIM = 8


@pytest.fixture(scope="module")
def statistics() -> LatentStatistics:
    root = np.random.default_rng(0).standard_normal((DIM, DIM)) * np.linspace(0.05, 0.4, DIM)
    covariance = (root @ root.T).astype(np.float32)
    mean = np.full(DIM, 0.1, dtype=np.float32)
    return LatentStatistics(mean, np.sqrt(np.diag(covariance)).astype(np.float32), covariance, 1000, "hash")


def random_network(statistics: LatentStatistics, **changes):
    """A network whose body says something."""
    torch.manual_seed(0)
    network = new_network(preset("tiny", DIM, **changes), statistics).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter))
    return network


BODIES = [{}, {"body": "transformer", "heads": 2, "tokens": 4, "layers": 2}]


@pytest.mark.parametrize("body", BODIES, ids=["mlp", "transformer"])
@pytest.mark.parametrize(("alpha", "sigma"), [(0.8, 0.6), (0.02, math.sqrt(1 - 0.0004)), (math.sqrt(1 - 1e-4), 1e-2)])
def test_a_new_network_is_the_gaussian_denoiser(statistics, body: dict, alpha: float, sigma: float) -> None:
    network = new_network(preset("tiny", DIM, **body), statistics).eval()
    z = np.random.default_rng(1).standard_normal((4, DIM)).astype(np.float32)
    found = NetworkDenoiser(network, numpy_context(network, z, 4))(z, alpha, sigma)
    assert np.allclose(found, GaussianDenoiser(statistics)(z, alpha, sigma), atol=2e-3)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.8, 0.6), (0.01, math.sqrt(1 - 1e-4)), (math.sqrt(1 - 1e-6), 1e-3)])
def test_a_new_student_is_the_end_of_the_gaussian_flow(statistics, alpha: float, sigma: float) -> None:
    network = new_network(preset("tiny", DIM, base="flow"), statistics).eval()
    z = np.random.default_rng(2).standard_normal((4, DIM)).astype(np.float32)
    values, vectors = statistics.spectrum()
    wanted = ((z @ vectors) * np.sqrt(values / (alpha**2 * values + sigma**2))) @ vectors.T
    assert np.allclose(NetworkDenoiser(network, numpy_context(network, None, 4))(z, alpha, sigma), wanted, atol=2e-3)


@pytest.mark.parametrize("body", BODIES, ids=["mlp", "transformer"])
@pytest.mark.parametrize("base", ["posterior", "flow"])
def test_almost_clean_latents_stay_what_they_are(statistics, body: dict, base: str) -> None:
    network = random_network(statistics, base=base, **body)
    z = np.random.default_rng(3).standard_normal((4, DIM)).astype(np.float32)
    alpha, sigma = math.sqrt(1 - 1e-6), 1e-3
    assert np.allclose(NetworkDenoiser(network, numpy_context(network, None, 4))(z, alpha, sigma), z, atol=0.05)


@pytest.mark.parametrize("body", BODIES, ids=["mlp", "transformer"])
def test_gradients_pulled_back_are_those_of_finite_differences(statistics, body: dict) -> None:
    network = random_network(statistics, **body)
    denoiser = NetworkDenoiser(network, numpy_context(network, None, 1))
    rng = np.random.default_rng(4)
    z, along = (rng.standard_normal((1, DIM)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal((1, DIM)).astype(np.float32)
    x0, pulled = denoiser.pull_back(z, 0.8, 0.6, lambda x0: weight)
    h = 1e-2
    numeric = ((denoiser(z + h * along, 0.8, 0.6) - denoiser(z - h * along, 0.8, 0.6)) * weight).sum() / (2 * h)
    assert (pulled * along).sum() == pytest.approx(numeric, rel=0.02, abs=1e-3)
    assert np.allclose(x0, denoiser(z, 0.8, 0.6), atol=1e-5)


@pytest.mark.parametrize("body", BODIES, ids=["mlp", "transformer"])
def test_the_prefix_counts_only_where_it_is_known(statistics, body: dict) -> None:
    network = random_network(statistics, **body)
    z = torch.randn(2, DIM)
    log_snr = torch.zeros(2)
    one, two = (
        network(z, log_snr, Context(torch.full((2, DIM), value), torch.tensor([True, False]))) for value in (1.0, -1.0)
    )
    assert not torch.allclose(one[0], two[0])
    assert torch.allclose(one[1], two[1])


def test_token_states_are_attended_to_and_padding_is_not(statistics) -> None:
    network = random_network(statistics, **(BODIES[1] | {"states": 6}))
    z, before, known = torch.randn(2, DIM), torch.randn(2, DIM), torch.tensor([True, False])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    states = torch.randn(2, 3, 6)
    other_padding, other_token = states.clone(), states.clone()
    other_padding[:, 2] += 1.0
    other_token[:, 1] += 1.0

    def run(states: torch.Tensor) -> torch.Tensor:
        return network(z, torch.zeros(2), Context(before, known, states, mask))

    base = run(states)
    assert torch.allclose(base, run(other_padding), atol=1e-5)
    assert not torch.allclose(base[0], run(other_token)[0], atol=1e-3)
    assert torch.allclose(base[1], run(other_token)[1], atol=1e-5)  # an unknown prefix is not looked at


def test_presets_and_sizes() -> None:
    assert {"tiny", "mini", "paper"} <= PRESETS.keys()
    with pytest.raises(ConfigurationError, match="Did you mean 'mini'"):
        preset("mimi", DIM)
    with pytest.raises(ConfigurationError, match="unknown size"):
        preset("mini", DIM, depth=3)
    with torch.device("meta"):
        from guardrail.dglm.transformer import TokenTransformer

        paper = TokenTransformer(preset("paper", 768))
    assert 100e6 < sum(p.numel() for p in paper.parameters()) < 130e6  # the paper says about 119 million
    with pytest.raises(ConfigurationError, match="tokens that divide"):
        TokenTransformer(NetworkConfig(DIM, body="transformer", heads=2, tokens=3, width=32))
    with pytest.raises(ConfigurationError, match="token states"):
        new_network_with_states = preset("tiny", DIM, states=4)
        from guardrail.dglm.network import ResidualMlp, _body

        assert not isinstance(_body(new_network_with_states), ResidualMlp)


@pytest.fixture(scope="module")
def diffusion(statistics) -> Diffusion:
    return Diffusion(statistics, random_network(statistics), random_network(statistics, base="flow"))


GUIDE = Guide(np.random.default_rng(5).standard_normal(DIM).astype(np.float32) * 3, 0.0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("guide", ["posterior", "backward"])
def test_proposals_are_unit_vectors_and_follow_the_guide(diffusion: Diffusion, sampler: str, guide: str) -> None:
    steps = 30 if sampler == "pndm" else 8  # Runge-Kutta over steps as long as these overshoots under guidance
    settings = ProposalSettings(sampler=sampler, steps=steps, guide=guide, scale=4.0)
    free = diffusion.propose(24, [GUIDE], seed=3, settings=ProposalSettings(sampler=sampler, steps=steps, scale=0.0))
    found = diffusion.propose(24, [GUIDE], seed=3, settings=settings)
    assert np.allclose(np.linalg.norm(found.embeddings, axis=1), 1.0, atol=1e-5)
    assert found.allowed.mean() > free.allowed.mean()
    evaluations = steps + (9 if sampler == "pndm" else 0)
    assert free.evaluations == evaluations
    assert found.evaluations == evaluations * (3 if guide == "backward" else 1)


def test_dead_dimensions_stay_at_the_mean(statistics: LatentStatistics) -> None:
    """Another part of the checkpoint may have measured 1e-33 there, and divides by it."""
    std = statistics.std.copy()
    std[2] = DEAD
    covariance = statistics.covariance.copy()
    covariance[2] = covariance[:, 2] = 0.0
    mean = np.where(np.arange(DIM) == 2, np.float32(0.0), statistics.mean)
    dead = LatentStatistics(mean, std, covariance, 1000, "hash")
    found = Diffusion(dead, random_network(dead)).propose(5, seed=1).embeddings
    assert not found[:, 2].any()
    assert found[:, 3].any()


def test_small_strength_stays_near_the_draft(diffusion: Diffusion) -> None:
    draft = np.full(DIM, DIM**-0.5, dtype=np.float32)
    near, far = (
        (diffusion.propose(16, start=draft, strength=strength, seed=1).embeddings @ draft).mean()
        for strength in (0.05, 0.9)
    )
    assert near > 0.97
    assert near > far


def test_an_edit_with_the_drafts_own_noise_keeps_it(diffusion: Diffusion) -> None:
    """Without guides inversion leads back to the draft; half fresh noise lies between; it costs as many steps again."""
    draft = np.full(DIM, DIM**-0.5, dtype=np.float32)
    own, half, all_fresh = (
        diffusion.propose(16, start=draft, strength=0.4, settings=ProposalSettings(fresh=fresh, steps=60))
        for fresh in (0.0, 0.5, 1.0)
    )
    near = [(found.embeddings @ draft).mean() for found in (own, half, all_fresh)]
    assert near[0] > 0.99
    assert near == sorted(near, reverse=True)
    assert (own.evaluations, all_fresh.evaluations) == (120, 60)


def test_the_prefix_and_its_weight_change_proposals(diffusion: Diffusion) -> None:
    prefix = np.eye(DIM, dtype=np.float32)[0]
    free = diffusion.propose(2, seed=1)
    one = diffusion.propose(2, seed=1, before=prefix)
    rows = diffusion.propose(2, seed=1, before=np.stack([prefix, prefix]))
    more = diffusion.propose(2, seed=1, before=prefix, settings=ProposalSettings(cfg=2.0))
    assert np.allclose(one.embeddings, rows.embeddings)
    assert not np.allclose(one.embeddings, free.embeddings)
    assert not np.allclose(one.embeddings, more.embeddings)
    assert (one.evaluations, more.evaluations) == (15, 30)


def test_particles_choose_by_any_scorer(diffusion: Diffusion) -> None:
    def reward(x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 0.0).astype(float)

    settings = ProposalSettings(sampler="ddpm", particles=8, guide="none")
    found = diffusion.propose(12, seed=2, settings=settings, scorer=reward)
    free = diffusion.propose(12, seed=2, settings=ProposalSettings(sampler="ddpm"))
    assert found.embeddings.shape == (12, DIM)
    assert reward(found.embeddings).mean() > reward(free.embeddings).mean()
    assert found.evaluations == 8 * 15


def test_the_student_needs_four_evaluations(diffusion: Diffusion) -> None:
    found = diffusion.propose(4, [GUIDE], settings=STUDENT)
    assert found.evaluations == 4


def test_without_a_network_latents_are_gaussian(statistics) -> None:
    found = gaussian_diffusion(statistics).propose(4000, seed=0)
    x = statistics.normalise(found.embeddings)
    assert np.isfinite(x).all()
    assert found.allowed.tolist() == [1.0] * 4000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ProposalSettings(sampler="dpm"), "no sampler"),
        (ProposalSettings(particles=4), "scorer"),
        (ProposalSettings(safe_latent="hard"), "safe_latent"),
        (ProposalSettings(guide="backward", cfg=2.0), "backward"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(diffusion: Diffusion, settings, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        diffusion.propose(1, [GUIDE], settings=settings, before=np.eye(DIM, dtype=np.float32)[0])


def test_bad_requests_are_refused(diffusion: Diffusion, statistics) -> None:
    with pytest.raises(ConfigurationError, match="no student"):
        gaussian_diffusion(statistics).propose(1, settings=STUDENT)
    with pytest.raises(ValueError, match="count"):
        diffusion.propose(0)
    with pytest.raises(ValueError, match="strength"):
        diffusion.propose(1, strength=0.0)
    with pytest.raises(ValueError, match="fresh"):
        diffusion.propose(1, settings=ProposalSettings(fresh=1.5))
    with pytest.raises(ValueError, match="embeddings should be"):
        diffusion.propose(2, before=np.zeros((3, DIM), dtype=np.float32))
    with pytest.raises(Cancelled):
        diffusion.propose(1, cancelled=lambda: True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree(statistics) -> None:
    """The same noise and network: embeddings within 1e-3 of each other."""
    own = Diffusion(statistics, random_network(statistics))
    other = Diffusion(statistics, random_network(statistics).to("cuda"))
    one, two = (diffusion.propose(8, [GUIDE], seed=1).embeddings for diffusion in (own, other))
    assert np.abs(one - two).max() < 1e-3
