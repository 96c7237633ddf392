"""GeDi and rectification on hand-made distributions, and learnt from a few texts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from guardrail.dglm.batch import EMPTY, PrefixTokens
from guardrail.dglm.choose import Row
from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.dglm.decoder import Decoder, DecoderConfig
from guardrail.encoder import embedded_directory
from guardrail.evaluate.ngrams import NGramModel
from guardrail.evaluate.token_steering import DeadEnds, GeDi, Rectification, train_dead_ends

A, B, NICE, NASTY = 5, 6, 7, 8


def row(*ids: int) -> Row:
    return Row(0, PrefixTokens(EMPTY), list(ids))


def test_gedi_is_bayes_over_the_class_models() -> None:
    good = NGramModel([[A, NICE], [B, NICE], [A, B]] * 3, 200)
    bad = NGramModel([[A, NASTY], [B, NASTY], [A, B]] * 3, 200)
    gedi = GeDi(good, bad, weight=2.0, keep=1.1)
    p = torch.full((1, 200), 1 / 200)
    weights = gedi(p.clone(), torch.zeros(1, 4), [row(A)])[0].double().numpy()
    # the prefix A is as likely in both, so P(good | A, v) = sigmoid(log-odds / 2), T = 2
    first = GeDi(good, bad, keep=1.1)._log_odds(row())[A]
    odds = np.log(good.distribution([A])) - np.log(bad.distribution([A]))
    steer = GeDi(good, bad, weight=2.0, keep=1.1)
    steer(p.clone(), torch.zeros(1, 4), [row()])
    weights = steer(p.clone(), torch.zeros(1, 4), [row(A)])[0].double().numpy()
    expected = 1 / (1 + np.exp(-(first + odds) / 2))
    expected = expected**2 / (expected**2).sum()
    kept = weights > 0
    assert weights[kept] == pytest.approx(expected[kept], rel=1e-4)
    assert weights[NICE] > 20 * weights[NASTY]


def test_gedi_keeps_the_likeliest_good_tokens_only() -> None:
    good, bad = NGramModel([[A, NICE]] * 5, 200), NGramModel([[A, NASTY]] * 5, 200)
    p = torch.zeros(1, 200)
    p[0, [NICE, NASTY, B]] = torch.tensor([0.3, 0.6, 0.1])
    weights = GeDi(good, bad)(p, torch.zeros(1, 4), [row(A)])[0]
    assert weights[NASTY] == 0
    assert weights[NICE] > 0


def test_rectification_caps_at_one_plus_q_minus_epsilon() -> None:
    values = DeadEnds(torch.eye(3))
    values.all_actions = lambda states: torch.tensor([[-0.9, -0.2, 0.0]])  # type: ignore[method-assign]
    steer = Rectification(values, epsilon=0.1)
    weights = steer(torch.tensor([[0.5, 0.3, 0.2]]), torch.zeros(1, 3), [row()])
    assert weights[0].tolist() == pytest.approx([0.0, 0.3, 0.2], abs=1e-6)
    values.all_actions = lambda states: torch.full((1, 3), -1.0)  # type: ignore[method-assign]
    everything_ends_badly = steer(torch.tensor([[0.5, 0.3, 0.2]]), torch.zeros(1, 3), [row()])
    assert everything_ends_badly[0].tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_dead_ends_are_learnt_from_finished_texts() -> None:
    """The word that makes a text toxic has a low value, and so have the words that lead to it for certain."""
    codec = Codec(word_tokenizer(embedded_directory()))
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(latent_dim=8, width=24, layers=1, heads=4, feed_forward=48, output_ids=(101, 102)))
    pipeline = SimpleNamespace(decoder=decoder.eval(), codec=codec)
    toxic, harmless = ["you are bad"] * 24, ["you are here"] * 24
    values = train_dead_ends(pipeline, toxic, harmless, updates=250, batch=128)  # type: ignore[arg-type]
    you, are, bad, here = codec.encode("you are bad here").ids
    from guardrail.evaluate.token_steering import _transitions

    states, actions, following, rewards = _transitions(pipeline, toxic[:1], harmless[:1])  # type: ignore[arg-type]
    assert actions.tolist() == [you, are, bad, 102, you, are, here, 102]
    assert following.tolist() == [1, 2, 3, -1, 5, 6, 7, -1]
    assert rewards.tolist() == [0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0]
    q = values(states, actions)
    assert q[2] < -0.7  # bad
    assert q[6] > -0.3  # here
    assert -0.8 < q[1] < -0.2  # "are" may go either way
