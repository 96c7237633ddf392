"""Guides compared on the exact denoiser of Gaussian latents."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.dglm.guidance import Guide
from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.propose import Diffusion, gaussian_diffusion
from guardrail.evaluate.guides import Task, compare_guides, strain, ways

DIM = 8


@pytest.fixture(scope="module")
def diffusion() -> Diffusion:
    root = np.random.default_rng(0).standard_normal((DIM, DIM)) * np.linspace(0.02, 0.4, DIM)
    covariance = (root @ root.T).astype(np.float32)
    mean = np.full(DIM, 0.1, dtype=np.float32)
    return gaussian_diffusion(
        LatentStatistics(mean, np.sqrt(np.diag(covariance)).astype(np.float32), covariance, 1000, "hash")
    )


def test_a_guide_that_leaves_the_data_is_seen_to_strain(diffusion: Diffusion) -> None:
    """As strong as C_t w, the bare weight leads where no data is; unguided and C_t w stay near a strain of one."""
    rng = np.random.default_rng(1)
    start = rng.standard_normal((40, DIM)).astype(np.float32) * diffusion.statistics.std + diffusion.statistics.mean
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    _, vectors = diffusion.statistics.spectrum()
    weight = (vectors[:, 0] + 0.5 * vectors[:, -1]) / diffusion.statistics.std  # mostly where the data hardly varies
    task = Task("edit", (Guide(weight.astype(np.float32), 0.0),), start=start, strength=0.6)
    named = [pair for pair in ways(student=False, scales=(8.0,)) if "250" not in pair[0]]
    ticks: list[int] = []
    rows = {row["name"]: row for row in compare_guides(diffusion, task, named, advance=lambda: ticks.append(1))}
    assert len(ticks) == len(rows) == len(named)
    assert rows["C_t w, s=8"]["control"] > rows["unguided"]["control"]
    assert rows["w, s=8"]["strain"] > 3 * rows["C_t w, s=8"]["strain"]
    assert (rows["C_t w, s=8"]["evaluations"], rows["backward, s=8"]["evaluations"]) == (15, 45)
    assert 0 < rows["unguided"]["similarity"] <= 1


def test_strain_of_the_data_is_one(diffusion: Diffusion) -> None:
    rng, statistics = np.random.default_rng(2), diffusion.statistics
    x = rng.multivariate_normal(statistics.mean, statistics.covariance, 4000).astype(np.float32)
    assert strain(x, statistics).mean() == pytest.approx(1.0, abs=0.05)


def test_the_student_and_the_reference_are_among_the_ways() -> None:
    names = [name for name, _ in ways(student=True)]
    assert "reference: backward, 250 steps, s=8" in names
    assert "student, 4 steps, s=8" in names
    assert len(names) == len(set(names))
