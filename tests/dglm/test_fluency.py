"""Fluency by a tree of tokens equals fluency text by text, and each text is embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch

from guardrail.dglm.batch import END, START, PrefixTokens, collate_prefix, collate_target
from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.dglm.decoder import Decoder, DecoderConfig
from guardrail.dglm.embedding import Once
from guardrail.dglm.fluency import MAX_SCORED, Scored, fluencies
from guardrail.dglm.loss import output_index, token_log_probabilities
from guardrail.encoder import embedded_directory

CODEC = Codec(word_tokenizer(embedded_directory()))
WRITABLE = (START, END, *CODEC.encode("the cat is here and a dog was there . ,").ids)
DRAFT = "The cat is here, and a dog was there."
TEXTS = [
    "The cat is here.",
    "The cat is there.",
    "The cat was here and a dog is here.",
    "a dog",
    DRAFT,
    "The zyxgloph is here.",  # has pieces that can only be copied
    "",
]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(0)
    sizes = DecoderConfig(latent_dim=8, width=24, layers=2, heads=4, feed_forward=48, output_ids=tuple(set(WRITABLE)))
    return Decoder(sizes).freeze()


def scored(text: str, draft: str, latent: torch.Tensor) -> Scored:
    return Scored(CODEC.encode(text, MAX_SCORED), CODEC.encode(draft), latent)


@torch.inference_mode()
def one_by_one(decoder: Decoder, row: Scored) -> float:
    """The definition: every token of one text under the decoder, those that are new and writable; their mean without a draft."""
    prefix = collate_prefix([PrefixTokens(row.draft)], decoder.prompt(row.latent[None], torch.full((1,), 0.95)))
    target = collate_target([row.text])
    values, counts, _ = token_log_probabilities(decoder, prefix, target, output_index(decoder))
    known = set(pairwise((START, *row.draft.ids, END))) if row.draft else set()
    pairs = zip(target.ids[0].tolist(), target.next_ids[0].tolist(), strict=True)
    new = counts[0] * torch.tensor([pair not in known for pair in pairs])
    total = (values[0] * new).sum()
    return float(total if row.draft else total / new.sum().clamp_min(1.0))


def test_a_tree_scores_as_one_text_at_a_time_does(decoder: Decoder) -> None:
    torch.manual_seed(1)
    one, other = torch.randn(2, 8)
    rows = [
        *(scored(text, DRAFT, one) for text in TEXTS),
        scored("a cat was here.", "A dog was there.", other),
        scored(DRAFT, "", other),  # without a draft everything is new
        scored("The cat is here.", DRAFT, other),  # the same words, told something else
    ]
    found = fluencies(decoder, rows, 0.95)
    assert found == pytest.approx([one_by_one(decoder, row) for row in rows], abs=1e-4)
    assert found[4] == 0.0  # nothing is new
    assert len({round(value, 3) for value in found}) >= 7


def test_nothing_to_score(decoder: Decoder) -> None:
    assert fluencies(decoder, [], 0.95) == []
    assert fluencies(decoder, [scored(DRAFT, DRAFT, torch.zeros(8))], 0.95) == [0.0]


def test_only_what_a_new_word_depends_on_is_run(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []
    step = decoder.step

    def counted(ids: torch.Tensor, *arguments: object) -> object:
        sizes.append(tuple(ids.shape))
        return step(ids, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder, "step", counted)
    latent = torch.zeros(8)
    fluencies(decoder, [scored("The dog is here, and a dog was there.", DRAFT, latent)] * 3, 0.95)
    assert sizes == [(1, 3)]  # start, "the", "dog"; what follows is in the draft, and three equal texts are one


class Counting:
    """Embeds a text as its length; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def test_a_text_is_embedded_once_within_a_call() -> None:
    inner = Counting()
    once = Once(inner)
    assert once.encode(["a", "bb", "a"]).tolist() == [[1.0], [2.0], [1.0]]
    assert once.encode(["bb", "ccc"]).tolist() == [[2.0], [3.0]]
    assert inner.asked == ["a", "bb", "ccc"]
