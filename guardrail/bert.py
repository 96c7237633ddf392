"""BERT, the encoder half alone (Devlin et al., NAACL 2019): the network inside the embedded sentence encoder.

It does what `BertModel` of `transformers` does, operation by operation, and its vectors are the same to the last bit
(tests/test_bert.py). It stands here because importing that class brings along more than a thousand modules that nothing
here uses, torch's compiler among them, and takes twice as long as importing torch: 6.3 s against 2.6 on two idle cores
(`seconds_avoided_transformers` of `benchmarks/cold_start.py`).

Parameters have the names of the checkpoint. Shapes: B texts, T tokens, d dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from guardrail.errors import CheckpointError
from guardrail.weights import Undrawn

_UNUSED = ("pooler.", "embeddings.position_ids")
_SUPPORTED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Sizes of a BERT, with the names of its `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any]) -> BertConfig:
        """Take from a `config.json` what is needed.

        Raises:
            CheckpointError: a size is missing, or the network is of another kind.
        """
        for name, value in _SUPPORTED.items():
            if document.get(name, value) != value:
                raise CheckpointError(f"{name} {document[name]!r} is not supported; only {value!r} is")
        try:
            config = cls(**{field.name: document[field.name] for field in fields(cls)})
        except KeyError as error:
            raise CheckpointError(f"the configuration of the BERT has no {error.args[0]}") from error
        if config.hidden_size % config.num_attention_heads:
            raise CheckpointError(f"{config.num_attention_heads} heads do not divide {config.hidden_size} dimensions")
        return config


class Embeddings(nn.Module):
    """(B, T) token ids to (B, T, d): word, place and segment (always the first), normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed the tokens."""
        return self.placed(self.word_embeddings(tokens))

    def placed(self, words: Tensor) -> Tensor:
        """(B, T, d) embeddings of words to what the first layer reads."""
        positions = self.position_embeddings.weight[: words.shape[1]]
        states: Tensor = self.dropout(self.LayerNorm(words + self.token_type_embeddings.weight[0] + positions))
        return states


class SelfAttention(nn.Module):
    """What each token gathers from the others: (B, T, d) to (B, T, d)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.attention_probs_dropout_prob

    def heads(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """(B, T, d) to queries, keys and values, each (B, heads, T, d / heads)."""
        shape = (*hidden.shape[:2], self.num_attention_heads, -1)
        return tuple(part(hidden).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value))

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """Attend; `bias` as in `Layer`."""
        query, key, value = self.heads(hidden)
        gathered = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
            scale=query.shape[-1] ** -0.5,
        )
        return gathered.transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """A linear map, dropout, and layer normalisation of the sum with what came in before."""

    def __init__(self, width: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, states: Tensor, before: Tensor) -> Tensor:
        """(B, T, width) and (B, T, d) to (B, T, d)."""
        summed: Tensor = self.LayerNorm(self.dropout(self.dense(states)) + before)
        return summed


class Attention(nn.Module):
    """The first half of a layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Residual(config.hidden_size, config)

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """(B, T, d) to (B, T, d)."""
        attended: Tensor = self.output(self.self(hidden, bias), hidden)
        return attended


class Intermediate(nn.Module):
    """The wide part of a layer: (B, T, d) to (B, T, width), through GELU."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Widen."""
        return functional.gelu(self.dense(hidden))


class Layer(nn.Module):
    """One transformer layer, normalised after each half."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Residual(config.intermediate_size, config)

    def forward(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, T, d) states to (B, T, d).

        Args:
            hidden: states.
            bias: what may be looked at, broadcastable to (B, heads, T, T): bool, or numbers added to the scores; all
                if None.
        """
        attended = self.attention(hidden, bias)
        states: Tensor = self.output(self.intermediate(attended), attended)
        return states


class _Layers(nn.Module):
    """Holds the layers under the name that they have in the checkpoint."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class Bert(nn.Module):
    """`embeddings` and `layers`, which may be used by themselves. See `load_bert`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = _Layers(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.word_embeddings.weight.device

    @property
    def layers(self) -> list[Layer]:
        """The layers, lowest first."""
        return cast("list[Layer]", list(self.encoder.layer))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T) token ids, T up to `max_position_embeddings`, and bool mask, all real if None, to (B, T, d) states."""
        hidden: Tensor = self.embeddings(tokens)
        bias = None if mask is None else mask[:, None, None, :]
        for layer in self.encoder.layer:
            hidden = layer(hidden, bias)
        return hidden


def load_bert(directory: Path, device: str = "cpu") -> Bert:
    """Load `config.json` and `model.safetensors` of a BERT, ready to use and frozen. A pooler is left out.

    Raises:
        CheckpointError: it is not a BERT of this kind, or its weights do not fit its configuration.
    """
    from safetensors.torch import load_file

    config = BertConfig.from_mapping(json.loads((directory / "config.json").read_text()))
    state = load_file(directory / "model.safetensors")
    with Undrawn():
        bert = Bert(config)
    try:  # copied, because the tensors of a file lie where vector instructions read them more slowly
        bert.load_state_dict({name: weight for name, weight in state.items() if not name.startswith(_UNUSED)})
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {directory} do not fit its config.json: {error}") from error
    return bert.to(device).eval().requires_grad_(False)
