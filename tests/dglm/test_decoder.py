"""The decoder: cached and whole passes agree, copying works, checkpoints are guarded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guardrail.dglm import checkpoint
from guardrail.dglm.batch import EMPTY, PrefixTokens, collate_prefix, collate_target, tokenise_prefix
from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.dglm.decoder import Decoder, DecoderConfig, causal_mask
from guardrail.dglm.generate import Decoding, generate
from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.loss import decoder_loss
from guardrail.encoder import embedded_directory
from guardrail.errors import CheckpointError

CODEC = Codec(word_tokenizer(embedded_directory()))
SMALL = DecoderConfig(
    latent_dim=8, width=24, layers=2, heads=4, feed_forward=48, output_ids=(101, 102, 1996, 2003, 4937)
)


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(SMALL).eval()


def prefixes() -> list[PrefixTokens]:
    return [
        tokenise_prefix(CODEC, "the cat is here", "Before."),
        tokenise_prefix(CODEC, "Zyxgloph ran", ""),
        PrefixTokens(EMPTY),
    ]


def soft(decoder: Decoder, count: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    return decoder.prompt(torch.randn(count, 8), torch.full((count,), 0.95))


@torch.inference_mode()
def test_steps_with_a_cache_equal_one_whole_pass(decoder: Decoder) -> None:
    prefix = collate_prefix(prefixes(), soft(decoder))
    _, cache, seen = decoder.encode_prefix(prefix)
    target = collate_target([CODEC.encode("the cat is"), CODEC.encode("is the cat"), CODEC.encode("cat the is")])
    positions = torch.arange(target.ids.shape[1]).expand_as(target.ids)
    whole, _ = decoder.step(target.ids, target.forms, positions, cache, causal_mask(seen, target.ids.shape[1]))
    for position in range(target.ids.shape[1]):
        one = slice(position, position + 1)
        state, cache = decoder.step(
            target.ids[:, one], target.forms[:, one], positions[:, one], cache, causal_mask(seen, 1, position)
        )
        assert torch.allclose(state[:, 0], whole[:, position], atol=1e-5)


@torch.inference_mode()
def test_padding_changes_nothing(decoder: Decoder) -> None:
    together = collate_prefix(prefixes(), soft(decoder))
    alone = collate_prefix(prefixes()[1:2], soft(decoder)[1:2])
    states, _, _ = decoder.encode_prefix(together)
    own, _, _ = decoder.encode_prefix(alone)
    assert torch.allclose(states[1, : own.shape[1]], own[0], atol=1e-5)


@torch.inference_mode()
def test_distribution_is_one_and_copies_only_from_the_draft(decoder: Decoder) -> None:
    prefix = collate_prefix(prefixes(), soft(decoder))
    states, cache, seen = decoder.encode_prefix(prefix)
    draft = states[:, SMALL.soft_tokens :]
    start = torch.full((3, 1), 101)
    written, _ = decoder.step(start, torch.zeros_like(start), torch.zeros_like(start), cache, causal_mask(seen, 1))
    write, attention, gate, _ = decoder.distribution(written, draft, prefix.copyable)
    copied = (attention + gate[..., 1:]).exp() * prefix.copyable[:, None]
    total = (write + gate[..., :1]).exp().sum(-1) + copied.sum(-1)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-3)
    assert copied[2].sum() == 0  # no draft, nothing to copy
    assert copied[0, 0, : len(CODEC.encode("Before.")) + 1].sum() == 0  # context is read, never copied


def test_training_on_one_example_teaches_to_copy_an_unwritable_word(decoder: Decoder) -> None:
    """`Zyxgloph` is outside the softmax; only the copy can write it."""
    draft = tokenise_prefix(CODEC, "Zyxgloph is the cat 🐈", "")
    target = CODEC.encode("Zyxgloph is cat 🐈")
    index = torch.full((SMALL.vocabulary,), -1)
    index[decoder.output_ids] = torch.arange(len(SMALL.output_ids))
    optimiser = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    latent, signal = torch.ones(1, 8), torch.full((1,), 0.95)
    for _ in range(150):
        prefix = collate_prefix([draft], decoder.prompt(latent, signal))
        token, form, count = decoder_loss(decoder, prefix, collate_target([target]), index)
        loss = (token + form) / count
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    written = generate(decoder.eval(), CODEC, latent, signal, [draft], Decoding([0.0], max_tokens=20))
    assert written[0].text == "Zyxgloph is cat 🐈"
    assert written[0].ended


def test_generation_is_reproducible_bounded_and_cancellable(decoder: Decoder) -> None:
    latent, signal = torch.zeros(3, 8), torch.full((3,), 0.95)
    decoding = Decoding([0.0, 1.0, 1.0], max_tokens=7)

    def run(seed: int) -> list[str]:
        rows = generate(decoder, CODEC, latent, signal, prefixes(), decoding, torch.Generator().manual_seed(seed))
        assert all(len(row.text.split()) <= 7 for row in rows)
        return [row.text for row in rows]

    assert run(1) == run(1)
    assert run(1)[0] == run(2)[0]  # greedy rows do not depend on the seed
    stopped = generate(decoder, CODEC, latent, signal, prefixes(), decoding, None, cancelled=lambda _: True)
    assert all(len(row.text.split()) <= 1 for row in stopped)


def statistics(encoder_hash: str) -> LatentStatistics:
    return LatentStatistics(
        np.zeros(8, np.float32), np.ones(8, np.float32), np.eye(8, dtype=np.float32), 99, encoder_hash
    )


def test_a_checkpoint_survives_a_file_and_refuses_another_encoder(decoder: Decoder, tmp_path) -> None:
    checkpoint.save(decoder.state_dict(), SMALL, statistics("aaa"), tmp_path, "recipe")
    restored = checkpoint.load(tmp_path, "aaa", "cpu")
    assert restored.decoder.config == SMALL
    for name, tensor in decoder.state_dict().items():
        assert torch.allclose(restored.decoder.state_dict()[name], tensor, rtol=1e-2, atol=1e-2)
    with pytest.raises(CheckpointError, match=r"aaa.*bbb"):
        checkpoint.load(tmp_path, "bbb", "cpu")


def test_missing_and_damaged_checkpoints_are_refused(decoder: Decoder, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no DGLM checkpoint"):
        checkpoint.locate("nowhere")
    checkpoint.save(decoder.state_dict(), SMALL, statistics("aaa"), tmp_path, "recipe")
    path = tmp_path / "decoder.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(tmp_path, "aaa", "cpu")


@torch.inference_mode()
def test_a_frozen_decoder_says_the_same(decoder: Decoder) -> None:
    prefix = collate_prefix(prefixes(), soft(decoder))
    states, _, _ = decoder.encode_prefix(prefix)
    draft = states[:, prefix.soft.shape[1] :]
    written = torch.randn(3, 2, SMALL.width)
    before = decoder.distribution(written, draft, prefix.copyable)
    assert decoder.freeze().output_words is not None
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    after = decoder.distribution(written, draft, prefix.copyable, decoder.copy_key(draft))
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert "output_words" not in decoder.state_dict()  # a checkpoint does not grow by it
