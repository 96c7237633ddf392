"""Our BERT is that of `transformers`: the same states and the same gradients to the last bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from guardrail.bert import Bert, BertConfig, load_bert
from guardrail.encoder import embedded_directory
from guardrail.errors import CheckpointError

LENGTHS = {"one token": [1], "one text": [40], "a window": [256], "same length": [9, 9, 9], "padded": [3, 40, 1, 17]}


@pytest.fixture(scope="module")
def bert() -> Bert:
    return load_bert(embedded_directory())


@pytest.fixture(scope="module")
def other() -> Any:
    from transformers import BertModel

    return BertModel.from_pretrained(embedded_directory(), add_pooling_layer=False, attn_implementation="sdpa").eval()


def batch(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    tokens = torch.randint(1, 30_000, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    return tokens * mask, mask


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_states_are_those_of_transformers(bert: Bert, other: Any, lengths: list[int]) -> None:
    tokens, mask = batch(lengths)
    with torch.inference_mode():
        ours = bert(tokens, mask)
        theirs = other(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        assert ours.shape == (*tokens.shape, 384)
        torch.testing.assert_close(ours[mask], theirs[mask], rtol=0, atol=0)
        if mask.all():
            torch.testing.assert_close(bert(tokens), theirs, rtol=0, atol=0)


def test_padding_changes_nothing_but_rounding(bert: Bert) -> None:
    tokens, mask = batch([12, 30])
    with torch.inference_mode():
        torch.testing.assert_close(bert(tokens, mask)[0, :12], bert(tokens[:1, :12])[0], rtol=0, atol=1e-5)
        other_words = torch.where(mask, tokens, 7)
        torch.testing.assert_close(bert(other_words, mask)[mask], bert(tokens, mask)[mask], rtol=0, atol=0)


def test_added_scores_do_what_a_mask_does(bert: Bert) -> None:
    tokens, mask = batch([5, 9])
    bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[:, None, None, :]
    layer = bert.layers[0]
    with torch.inference_mode():
        hidden = bert.embeddings(tokens)
        torch.testing.assert_close(layer(hidden, bias), layer(hidden, mask[:, None, None, :]), rtol=0, atol=1e-6)


def test_a_training_step_is_that_of_transformers(bert: Bert, other: Any) -> None:
    """Dropout falls on the same places, so gradients are equal as well."""
    tokens, _ = batch([6, 6])
    hidden = bert.embeddings(tokens).detach()
    gradients = []
    for layer in (bert.layers[2], other.encoder.layer[2]):
        layer.requires_grad_(True).train()
        torch.manual_seed(5)
        found = layer(hidden, None)
        found.square().sum().backward()
        gradients.append({name: weight.grad.clone() for name, weight in layer.named_parameters()})
        layer.requires_grad_(False).eval().zero_grad()
    ours, theirs = gradients
    assert ours.keys() == theirs.keys()
    assert any(bool(gradient.any()) for gradient in ours.values())
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=0, atol=0)


def test_embeddings_may_be_entered_with_word_vectors(bert: Bert) -> None:
    tokens, _ = batch([8])
    words = bert.embeddings.word_embeddings(tokens)
    torch.testing.assert_close(bert.embeddings.placed(words), bert.embeddings(tokens), rtol=0, atol=0)


def test_weights_are_frozen_and_ready(bert: Bert) -> None:
    assert not bert.training
    assert not any(weight.requires_grad for weight in bert.parameters())
    assert bert.device.type == "cpu"


def test_names_are_those_of_the_checkpoint(bert: Bert) -> None:
    stored = load_file(embedded_directory() / "model.safetensors")
    extra = {"pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"}
    assert set(bert.state_dict()) == stored.keys() - extra


CONFIG: dict[str, Any] = json.loads((embedded_directory() / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta' is not supported; only 'bert' is"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new' is not supported; only 'gelu' is"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"num_attention_heads": 7}, "7 heads do not divide 384 dimensions"),
    ],
)
def test_another_network_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        BertConfig.from_mapping(CONFIG | change)


def test_a_missing_size_is_named() -> None:
    with pytest.raises(CheckpointError, match="has no intermediate_size"):
        BertConfig.from_mapping({name: value for name, value in CONFIG.items() if name != "intermediate_size"})


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    shutil.copy(embedded_directory() / "config.json", tmp_path)
    state = load_file(embedded_directory() / "model.safetensors")
    del state["encoder.layer.5.output.dense.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"(?s)do not fit its config\.json: .*encoder\.layer\.5\.output\.dense\.bias"
    ):
        load_bert(tmp_path)
