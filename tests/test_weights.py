"""Weights that are about to be loaded are not drawn; everything else is as ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from guardrail.weights import Undrawn


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 2, bias=False))


def test_nothing_is_drawn_inside_and_all_is_drawn_outside() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with Undrawn():
        made = layers()
        torch.testing.assert_close(torch.get_rng_state(), before)
    layers()
    assert not torch.equal(torch.get_rng_state(), before)
    assert [tuple(weight.shape) for weight in made.parameters()] == [(11, 6), (5, 6), (5,), (5,), (5,), (2, 5)]
    assert all(weight.requires_grad and weight.is_leaf for weight in made.parameters())


def test_what_is_not_drawn_has_its_value() -> None:
    with Undrawn():
        norm = nn.LayerNorm(4)
        assert torch.zeros(3).fill_(2.0).tolist() == [2.0, 2.0, 2.0]
    assert norm.weight.tolist() == [1.0] * 4
    assert norm.bias.tolist() == [0.0] * 4


def test_loaded_weights_compute_what_drawn_ones_do() -> None:
    drawn = layers()
    with Undrawn():
        loaded = layers()
    loaded.load_state_dict(drawn.state_dict())
    tokens = torch.arange(8).view(2, 4)
    torch.testing.assert_close(loaded(tokens), drawn(tokens), rtol=0, atol=0)


def test_other_threads_draw() -> None:
    with ThreadPoolExecutor(1) as pool, Undrawn():
        torch.testing.assert_close(nn.init.normal_(torch.zeros(4)), torch.zeros(4))
        torch.testing.assert_close(torch.zeros(4).uniform_(1, 2), torch.zeros(4))
        other = pool.submit(lambda: torch.zeros(4).uniform_(1, 2)).result(60)
    assert bool((other >= 1).all())


def test_an_exception_ends_it() -> None:
    try:
        with Undrawn():
            raise ValueError("no such size")
    except ValueError:
        pass
    assert bool((torch.zeros(4).uniform_(1, 2) >= 1).all())
