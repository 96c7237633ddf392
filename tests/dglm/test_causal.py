"""Any causal language model as the writer, with a Sentence-T5 encoder: tiny random models in the real formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guardrail.dglm.causal import CausalConfig, CausalWriter, load_writer, new_writer
from guardrail.dglm.choose import Decoding
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import CheckpointError

TEXTS = ["the cat is here .", "a dog was there .", "it rained all day .", "we had tea ."]  # as in conftest


@pytest.fixture(scope="module")
def encoder(t5: str) -> Encoder:
    return load_encoder(t5, "cpu")


def writer(gpt2: str, encoder: Encoder, **settings: object) -> CausalWriter:
    torch.manual_seed(0)
    config = CausalConfig(gpt2, encoder.dim, encoder.sha256, soft_tokens=2, prompt_layers=1, **settings)  # type: ignore[arg-type]
    return new_writer(config)


def train(own: CausalWriter, encoder: Encoder, steps: int = 60) -> list[float]:
    latent, signal = torch.from_numpy(encoder.encode(TEXTS)) * 4, torch.full((4,), 0.95)
    optimiser = torch.optim.AdamW([value for value in own.parameters() if value.requires_grad], lr=5e-3)
    losses = []
    for _ in range(steps):
        loss = own.loss(latent, signal, ["before", "", "before", ""], TEXTS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def written(own: CausalWriter, encoder: Encoder, decoding: Decoding | None = None, rows: int = 4) -> list[str]:
    latent = torch.from_numpy(encoder.encode(TEXTS[:rows])) * 4
    befores = ["before", "", "before", ""][:rows]
    decoding = decoding or Decoding([0.0] * rows, max_tokens=12)
    return [row.text for row in own.write(latent, torch.full((rows,), 0.95), befores, decoding)]


def test_a_sentence_t5_encoder_loads_and_gives_unit_vectors(encoder: Encoder) -> None:
    x = encoder.encode(TEXTS)
    assert x.shape == (4, 16)
    assert (x * x).sum(axis=1) == pytest.approx([1.0] * 4, abs=1e-5)
    alone = encoder.encode([TEXTS[2]])
    assert alone[0] == pytest.approx(x[2], abs=1e-5)  # padding changes nothing


def test_fine_tuning_teaches_the_model_to_write_what_it_is_told(gpt2: str, encoder: Encoder) -> None:
    own = writer(gpt2, encoder, train="all")
    losses = train(own, encoder)
    assert losses[-1] < 0.2 * losses[0]
    assert written(own.eval(), encoder) == TEXTS  # the embedding alone tells which


def test_a_frozen_model_learns_through_prompts_and_adapters_only(gpt2: str, encoder: Encoder, tmp_path: Path) -> None:
    own = writer(gpt2, encoder, rank=4)
    before = {name: value.clone() for name, value in own.lm.named_parameters() if not value.requires_grad}
    assert all(".up." in name or ".down." in name for name, value in own.lm.named_parameters() if value.requires_grad)
    losses = train(own, encoder)
    assert losses[-1] < 0.95 * losses[0]  # a frozen random model has little to offer
    after = dict(own.lm.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    own.eval().save(tmp_path)
    restored = load_writer(tmp_path, encoder.sha256)
    assert written(restored, encoder) == written(own, encoder)
    assert (tmp_path / "causal.safetensors").stat().st_size < 200_000  # not the frozen model


def test_cached_steps_equal_whole_passes_and_company_changes_nothing(gpt2: str, encoder: Encoder) -> None:
    own = writer(gpt2, encoder, train="all").eval()
    sampled = Decoding([1.0] * 4, max_tokens=8, no_repeat=0, seeds=[1, 2, 3, 4])
    together = written(own, encoder, sampled)
    for row in range(4):
        latent = torch.from_numpy(encoder.encode(TEXTS))[row : row + 1] * 4
        alone = Decoding([1.0], max_tokens=8, no_repeat=0, seeds=[row + 1])
        found = own.write(latent, torch.full((1,), 0.95), [["before", ""][row % 2]], alone)
        assert found[0].text == together[row]
    greedy = own.write(
        torch.from_numpy(encoder.encode(TEXTS[:1])) * 4,
        torch.full((1,), 0.95),
        ["before"],
        Decoding([0.0], max_tokens=4, no_repeat=0),
    )[0]
    with torch.no_grad():
        soft = own.prompt(torch.from_numpy(encoder.encode(TEXTS[:1])) * 4, torch.full((1,), 0.95))
        table = own.lm.get_input_embeddings()
        ids = own.ids("before")
        parts = [table(torch.tensor([ids])), soft]
        for piece in greedy.ids:
            assert int(own.lm(inputs_embeds=torch.cat(parts, dim=1)).logits[0, -1].argmax()) == piece
            parts.append(table(torch.tensor([[piece]])))


def test_what_is_forbidden_is_not_written_and_cancelling_stops(gpt2: str, encoder: Encoder) -> None:
    own = writer(gpt2, encoder, train="all")
    train(own, encoder)
    checks = [lambda text: "cat" in text, None, None, None]
    texts = written(own.eval(), encoder, Decoding([0.0] * 4, max_tokens=12, forbidden=checks))
    assert "cat" not in texts[0]
    assert texts[1:] == TEXTS[1:]
    latent, signal = torch.zeros(1, encoder.dim), torch.ones(1)
    stopped = own.write(latent, signal, [""], Decoding([0.0]), cancelled=lambda _: True)
    assert len(stopped[0].ids) <= 1


def test_what_does_not_fit_is_refused_with_its_reason(gpt2: str, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        new_writer(CausalConfig(str(tmp_path / "nowhere"), 16, "x"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_writer(tmp_path, encoder.sha256)
    writer(gpt2, encoder, rank=2).save(tmp_path)
    with pytest.raises(CheckpointError, match=f"{encoder.sha256}.*other"):
        load_writer(tmp_path, "other")
