"""Contests between rewrites: what is good and bad, that they are repeatable and give nothing away, and what they teach."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from guardrail.dglm import checkpoint, contrast
from guardrail.dglm.aims import Aims
from guardrail.dglm.batch import collate_target
from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.dglm.contrast import Contests, Rated, Settings, contests_of, contrast_loss, read_rated
from guardrail.dglm.guidance import Guide
from guardrail.dglm.loss import output_index
from guardrail.dglm.training import prepare
from guardrail.encoder import load_encoder
from guardrail.errors import ConfigurationError

DRAFT = "get this idiot out of here"
RATED = [Rated(DRAFT, ("get this person out of here", "get this man out of here"), ("get this out of here", "get."))]
SETTINGS = Settings("./ratings.jsonl", pairs=6)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(word_tokenizer(load_encoder(device="cpu").directory))


def write(path: Path, **changes: object) -> Path:
    row = {
        "source": DRAFT,
        "target": "get this person out of here",
        "split": "train",
        "candidates": [
            {"text": "get this man out of here", "fluent": 1, "meaning": 2, "toxic": 0},
            {"text": "get this fool out of here", "fluent": 1, "meaning": 2, "toxic": 1},  # neither good nor bad
            {"text": "get this out of here", "fluent": 0, "meaning": 1, "toxic": 0},
            {"text": "let him stay here", "fluent": 1, "meaning": 0, "toxic": 0},
            {"text": "get this person out of here", "fluent": 0, "meaning": 2, "toxic": 0},  # what the person wrote
        ],
    }
    path.write_text(json.dumps(row | changes) + "\n", encoding="utf8")
    return path


def test_what_reads_well_and_keeps_the_point_is_good(tmp_path: Path) -> None:
    (one,) = read_rated(write(tmp_path / "ratings.jsonl"))
    assert one.draft == DRAFT
    assert one.good == ("get this person out of here", "get this man out of here")
    assert one.bad == ("get this out of here", "let him stay here")
    assert read_rated(write(tmp_path / "other.jsonl", split="test")) == []
    assert len(read_rated(tmp_path / "other.jsonl", "test")) == 1
    assert read_rated(write(tmp_path / "none.jsonl", candidates=[])) == []


def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, codec: Codec) -> None:
    with pytest.raises(ConfigurationError, match="no ratings"):
        read_rated(tmp_path / "missing.jsonl")
    (tmp_path / "odd.jsonl").write_text('{"source": "a", "split": "train"}\n', encoding="utf8")
    with pytest.raises(ConfigurationError, match="target"):
        read_rated(tmp_path / "odd.jsonl")
    write(tmp_path / "ratings.jsonl", candidates=[])
    recipe = {"seed": 1, "preferences": {"file": "./ratings.jsonl"}}
    with pytest.raises(ConfigurationError, match="no draft with a good and a bad"):
        contests_of(recipe, tmp_path, codec, Aims())
    with pytest.raises(ConfigurationError, match="strength"):
        contests_of({"seed": 1, "preferences": {"file": "x", "strength": 1}}, tmp_path, codec, Aims())
    assert contests_of({"seed": 1}, tmp_path, codec, Aims()) is None


def test_contests_are_a_function_of_the_step(codec: Codec) -> None:
    made = [Contests(RATED, codec, Aims(), SETTINGS, seed=4) for _ in range(2)]
    assert made[0](7) == made[1](7)
    assert made[0](7) != made[0](8)
    assert len(made[0](7)) == 2 * SETTINGS.pairs
    assert len(made[0](7, pairs=2)) == 4


def test_both_rewrites_are_told_the_same_and_not_the_answer(codec: Codec) -> None:
    guide = Guide(np.zeros(384, dtype=np.float32), 0.0)
    drawn = Contests(RATED, codec, Aims((guide,), share=0.1), SETTINGS, seed=4)(0, pairs=60)
    targets = {codec.encode(text).ids for text in (*RATED[0].good, *RATED[0].bad)}
    for better, worse in zip(drawn[0::2], drawn[1::2], strict=True):
        assert better.prefix == worse.prefix
        assert better.aim == worse.aim
        assert better.target.ids != worse.target.ids
        assert {better.target.ids, worse.target.ids} <= targets
        assert better.aim.base not in (*RATED[0].good, *RATED[0].bad)
    assert any(example.aim.guides for example in drawn)
    assert any(not example.aim.guides for example in drawn)


def test_the_loss_falls_as_the_better_one_gets_likelier(codec: Codec) -> None:
    """A few steps on contests alone: the better rewrite overtakes the worse one."""
    encoder = load_encoder(device="cpu")
    loaded = checkpoint.load(checkpoint.locate("mini"), encoder.sha256, "cpu")
    decoder = loaded.decoder.requires_grad_(True)
    index = output_index(decoder)
    turned = [Rated(DRAFT, RATED[0].bad, RATED[0].good)]  # against all that it has learnt
    contests = Contests(turned, codec, Aims(), SETTINGS, seed=1)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=3e-4)
    losses: list[float] = []
    for _ in range(12):
        prefix, target = prepare(contests(0), decoder, encoder, loaded.statistics, 0.0)
        loss, won = contrast_loss(decoder, prefix, target, index, beta=0.5)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]
    assert won == 1.0


def test_rewrites_that_are_equally_likely_cost_the_logarithm_of_two(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = collate_target([codec.encode(text) for text in ("one two", "one", "a", "b")])
    values = torch.full(target.next_ids.shape, -1.0)
    counts = target.weight * torch.tensor([[1.0, 1.0, 0.0]])  # the same number of tokens counts in every row
    monkeypatch.setattr(contrast, "token_log_probabilities", lambda *_: (values, counts, None))
    loss, won = contrast_loss(None, None, target, torch.zeros(1), beta=0.5)  # type: ignore[arg-type]
    assert math.isclose(loss.item(), 2 * math.log(2.0), rel_tol=1e-6)
    assert won == 0.0
