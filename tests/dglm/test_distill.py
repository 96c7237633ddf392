"""Distillation against the closed form: the teacher of Gaussian latents has a student that is exact from the start."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guardrail.dglm.distill import Distillation, cosine_log_snr, heun, transfer
from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.network import Context, levels_of, new_network, preset
from guardrail.dglm.propose import LOWEST
from guardrail.dglm.schedule import CosineSchedule

DIM = 8


@pytest.fixture(scope="module")
def statistics() -> LatentStatistics:
    root = np.random.default_rng(0).standard_normal((DIM, DIM)) * np.linspace(0.05, 0.4, DIM)
    covariance = (root @ root.T).astype(np.float32)
    mean = np.full(DIM, 0.1, dtype=np.float32)
    return LatentStatistics(mean, np.sqrt(np.diag(covariance)).astype(np.float32), covariance, 1000, "hash")


def context(rows: int) -> Context:
    return Context(torch.zeros(rows, DIM), torch.ones(rows, dtype=torch.bool))


def test_times_mean_the_same_as_in_sampling() -> None:
    times = np.linspace(0.0, 1.0, 21)
    wanted = [CosineSchedule(lowest=LOWEST).log_snr(t) for t in times]
    assert cosine_log_snr(torch.from_numpy(times)).tolist() == pytest.approx(wanted, abs=1e-3)


def test_heun_follows_the_flow_of_a_gaussian(statistics: LatentStatistics) -> None:
    """The exact flow multiplies each eigendirection by the ratio of its standard deviations; DDIM is five times further off."""
    teacher = new_network(preset("tiny", DIM), statistics).eval()
    z = torch.randn(16, DIM, generator=torch.Generator().manual_seed(0))
    here, there = torch.full((16,), -0.5), torch.full((16,), 0.1)

    def spread(log_snr: torch.Tensor) -> torch.Tensor:
        alpha, sigma = levels_of(log_snr)
        return (alpha[:, None] ** 2 * teacher.values + sigma[:, None] ** 2).sqrt()

    exact = (z @ teacher.vectors * spread(there) / spread(here)) @ teacher.vectors.T
    with torch.no_grad():
        by_heun = heun(teacher, z, here, there, context(16))
        by_ddim = transfer(z, teacher.clean(z, here, context(16)), here, there)
    assert (by_heun - exact).abs().max() < 0.2 * (by_ddim - exact).abs().max()


def test_a_gaussian_teacher_has_nothing_to_teach(statistics: LatentStatistics) -> None:
    """The student begins as the exact end of the flow, so its loss is only the teacher's discretisation; a plain copy of
    the teacher, which predicts means and not ends, is far from consistent."""
    teacher, student, target = (
        new_network(preset("tiny", DIM, base=base), statistics).eval() for base in ("posterior", "flow", "flow")
    )
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(64, DIM, generator=generator), torch.randn(64, DIM, generator=generator)
    times = torch.rand(64, generator=generator)
    with torch.no_grad():
        own = Distillation(student, target, teacher, 1 / 32)(x0, noise, times, context(64)).mean()
        copy = Distillation(teacher, teacher, teacher, 1 / 32)(x0, noise, times, context(64)).mean()
    assert own < 1e-4
    assert copy > 5 * own
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert {name.split(".")[0] for name, _ in Distillation(student, target, teacher, 0.1).named_parameters()} == {
        "student"
    }
