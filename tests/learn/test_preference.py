"""Diffusion-DPO on small networks: the loss is that of the paper, choices move the network, and the bound stops it."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.network import Context, ProposalNetwork, levels_of, new_network, preset
from guardrail.dglm.time_sampling import AdaptiveTimes
from guardrail.learn.choices import Choice, pairs_of, weighed
from guardrail.learn.preference import CLEANEST, Latents, Tuning, _loss, accuracy, divergence, margins, tune

DIM = 8


@pytest.fixture
def network() -> ProposalNetwork:
    torch.manual_seed(0)
    eye = np.eye(DIM, dtype=np.float32)
    statistics = LatentStatistics(np.zeros(DIM, np.float32), np.ones(DIM, np.float32), eye, 100, "e" * 64)
    made = new_network(preset("tiny", DIM), statistics).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return made


def pairs(count: int, seed: int, towards: float = 1.0) -> Latents:
    """Texts of two clouds that differ in one direction; the chosen ones lie on the side of `towards`."""
    generator = torch.Generator().manual_seed(seed)
    side = towards * torch.eye(DIM)[0]
    chosen = torch.randn((count, DIM), generator=generator) + side
    rejected = torch.randn((count, DIM), generator=generator) - side
    return Latents(
        chosen, rejected, Context(torch.zeros(count, DIM), torch.zeros(count, dtype=torch.bool)), torch.ones(count)
    )


class Shifted(ProposalNetwork):
    """A network whose velocity is another's plus a constant."""

    def __init__(self, other: ProposalNetwork, shift: Tensor) -> None:
        super().__init__(other.config, other.values, other.vectors)
        self.other, self.shift = other, shift

    def forward(self, z: Tensor, log_snr: Tensor, context: Context) -> Tensor:
        found: Tensor = self.other(z, log_snr, context) + self.shift
        return found


def test_the_loss_is_equation_14_of_the_paper_in_noise(network: ProposalNetwork) -> None:
    """Written out again with the noise that the networks predict, eps = sigma z + alpha v."""
    moved = Shifted(network, torch.full((DIM,), 0.3))
    some, beta = pairs(16, 1), 0.7
    found = _loss(moved, network, some, AdaptiveTimes(), beta, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    log_snr, weight = AdaptiveTimes().draw(16, generator)
    noise = torch.randn(some.chosen.shape, generator=generator)
    alpha, sigma = (level[:, None] for level in levels_of(log_snr))

    def error(which: ProposalNetwork, clean: Tensor) -> Tensor:
        z = alpha * clean + sigma * noise
        predicted = sigma * z + alpha * which(z, log_snr, some.context)
        return ((noise - predicted) ** 2).sum(dim=1) / alpha[:, 0] ** 2

    inside = (error(moved, some.chosen) - error(network, some.chosen)) - (
        error(moved, some.rejected) - error(network, some.rejected)
    )
    wanted = -torch.log(torch.sigmoid(-beta * weight * inside)).mean()
    assert float(found) == pytest.approx(float(wanted), rel=1e-3)
    same = _loss(network, network, some, AdaptiveTimes(), beta, torch.Generator().manual_seed(5))
    assert float(same) == pytest.approx(math.log(2.0))


def test_choices_move_the_network_and_unseen_pairs_show_it(network: ProposalNetwork) -> None:
    before = copy.deepcopy(network.state_dict())
    seen: list[tuple[int, float, float]] = []
    tuned = tune(network, pairs(128, 1), Tuning(rate=1e-3, steps=60, bound=50.0), lambda *row: seen.append(row))
    unseen = pairs(128, 2)
    was, now = (margins(one, unseen) for one in (network, tuned.network))
    assert accuracy(now - was, unseen.weight) > 0.9
    assert accuracy(now, unseen.weight) > accuracy(was, unseen.weight)
    assert seen[-1][1] < math.log(2.0)
    assert tuned.steps == 60
    assert not tuned.stopped
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())  # the reference stays
    opposite = tune(network, pairs(128, 1, -1.0), Tuning(rate=1e-3, steps=60, bound=50.0))
    assert accuracy(margins(opposite.network, unseen) - was, unseen.weight) < 0.2


@pytest.mark.parametrize("bound", [0.02, 0.2, 2.0])
def test_the_bound_stops_the_training_before_it_is_passed(network: ProposalNetwork, bound: float) -> None:
    seen: list[float] = []
    some = pairs(128, 1)
    tuning = Tuning(rate=1e-3, steps=400, bound=bound, every=1)
    tuned = tune(network, some, tuning, lambda _step, _loss, moved: seen.append(moved))
    assert tuned.stopped
    assert seen[-1] > bound
    assert tuned.divergence <= bound
    assert tuned.steps == len(seen) - 1
    assert divergence(tuned.network, network, some) == pytest.approx(tuned.divergence, rel=1e-4)


def test_a_loss_that_is_not_a_number_ends_with_the_last_good_network(network: ProposalNetwork) -> None:
    some = pairs(32, 1)
    some.chosen[0, 0] = float("nan")
    tuned = tune(network, some, Tuning(steps=20, every=1))
    assert tuned.stopped
    assert all(torch.isfinite(value).all() for value in tuned.network.parameters())


def test_the_divergence_is_that_of_the_two_processes(network: ProposalNetwork) -> None:
    """For velocities a constant apart the integral has a closed form: |shift|^2 / 2 times that of sigmoid."""
    shift = torch.linspace(-0.5, 0.5, DIM)
    some = pairs(64, 3)
    assert divergence(network, network, some) == 0.0
    exact = 0.5 * float((shift**2).sum()) * (np.logaddexp(0.0, CLEANEST) - np.logaddexp(0.0, -8.0))
    assert divergence(Shifted(network, shift), network, some, rows=2048) == pytest.approx(exact, rel=0.02)
    assert divergence(Shifted(network, 2 * shift), network, some, rows=2048) == pytest.approx(4 * exact, rel=0.02)


def test_no_pairs_are_no_training(network: ProposalNetwork) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        tune(network, pairs(0, 1), Tuning())


# ---------------------------------------------------------------------------------------------------------- weights


def say(who: str, decision: int, better: str = "good", worse: str = "bad") -> Choice:
    return Choice(f"d{decision}", who, better, worse)


def test_those_who_agree_weigh_more_and_those_who_disagree_cancel() -> None:
    choices = [say("a", 1), say("b", 1), say("c", 1), say("a", 2), say("b", 2, "bad", "good")]
    (pair,) = pairs_of(choices, cap=10.0, share=1.0)
    assert (pair.decision, pair.chosen, pair.rejected) == ("d1", "good", "bad")
    assert pair.weight > 1.5


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), min_size=1, max_size=8),
    st.floats(1.0, 20.0),
    st.floats(0.2, 1.0),
)
def test_nobody_weighs_more_than_the_cap_or_the_share(cast: dict[str, int], cap: float, share: float) -> None:
    choices = [say(who, number) for who, count in cast.items() for number in range(count)]
    totals: dict[str, float] = dict.fromkeys(cast, 0.0)
    for one in weighed(choices, cap, share):
        totals[one.reviewer] += one.weight
    assert max(totals.values()) <= cap + 1e-6
    largest = max(totals.values()) / sum(totals.values())
    assert largest <= max(share, 1.0 / len(cast)) + 0.02


def test_one_reviewer_who_clicks_a_thousand_times_outvotes_nobody() -> None:
    honest = [say(who, number) for who in ("a", "b", "c") for number in range(20)]
    attack = [say("x", number, "bad", "good") for number in range(1000)]
    found = {pair.decision: pair for pair in pairs_of([*honest, *attack], cap=10.0, share=1 / 3)}
    assert all(found[f"d{number}"].chosen == "good" for number in range(20))
    against = sum(pair.weight for pair in found.values() if pair.chosen == "bad")
    assert against <= 10.0 < sum(pair.weight for pair in found.values() if pair.chosen == "good")
