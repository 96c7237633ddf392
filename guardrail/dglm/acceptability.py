"""Acceptability: where does a sentence break? A detector of broken places that ranks proposals by their English.

Trained like the discriminator of ELECTRA (Clark et al. 2020, section 2): each token of a spoiled sentence is labelled
intact or broken. It is the sentence encoder with a low-rank update of every dense layer (LoRA, Hu et al. 2022, section
4.1) and a linear head on its token states: 1.3 MB beside weights that are loaded anyway.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from guardrail.errors import CheckpointError

FILE = "acceptability.safetensors"
MAX_TOKENS = 200
"""Word pieces of a text that are looked at."""


class LowRankLinear(nn.Module):
    """A frozen dense layer plus a trained update of low rank: y = W x + b + up(down(x)).

    Args:
        base: the frozen layer. rank: of the update, which starts at zero.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        y: Tensor = self.base(x) + self.up(self.down(x))
        return y

    def merged(self) -> nn.Linear:
        """Return one dense layer that computes the same."""
        with torch.no_grad():
            self.base.weight += self.up.weight @ self.down.weight
        return self.base


class TokenDetector(nn.Module):
    """Encoder, low-rank updates and head: token ids (B, T) and mask (B, T) to logits (B, T) of "broken here"."""

    def __init__(self, encoder_directory: Path, rank: int) -> None:
        super().__init__()
        config = BertConfig.from_pretrained(encoder_directory, attn_implementation="sdpa")
        self.rank = rank
        self.encoder = BertModel(config, add_pooling_layer=False)
        unused = ("pooler.", "embeddings.position_ids")
        state = load_file(encoder_directory / "model.safetensors")
        self.encoder.load_state_dict({name: value for name, value in state.items() if not name.startswith(unused)})
        self.encoder.requires_grad_(False)
        for parent, name, layer in _dense_layers(self.encoder):
            setattr(parent, name, LowRankLinear(layer, rank))
        self.head = nn.Linear(config.hidden_size, 1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, T)."""
        states = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        logits: Tensor = self.head(states).squeeze(-1)
        return logits

    def trained(self) -> dict[str, Tensor]:
        """What training changes, by name."""
        return {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}

    def merge(self) -> None:
        """Fold the updates into the dense layers: the same function at the encoder's own cost."""
        for parent, name, layer in _dense_layers(self.encoder, LowRankLinear):
            setattr(parent, name, layer.merged())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Log-probability, in nats, that each token of a text is intact; `ids` are the word pieces."""

    ids: tuple[int, ...]
    intact: npt.NDArray[np.float32]


class Acceptability:
    """A loaded detector. Thread-safe."""

    def __init__(self, model: TokenDetector, tokenizer: Tokenizer, device: str) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._lock = threading.Lock()

    @torch.inference_mode()
    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Return one verdict per text, special tokens included (the last one stands for the text's end)."""
        if not texts:
            return []
        with self._lock:  # tokenizers' truncation settings are per object; a batch of proposals is one call anyway
            encodings = self._tokenizer.encode_batch_fast(list(texts))
        ids, mask = pad(encodings)
        intact = nn.functional.logsigmoid(-self._model(ids.to(self._device), mask.to(self._device))).float().cpu()
        return [
            Verdict(tuple(encoding.ids), row[: len(encoding.ids)].numpy())
            for encoding, row in zip(encodings, intact, strict=True)
        ]

    def fluency(self, texts: Sequence[str], draft: str = "") -> list[float]:
        """Log-probability, in nats, that a text is nowhere broken where it is new.

        Summed over the tokens that do not stand in the draft with the same token before them, and over their
        neighbours: what the writer of the draft wrote is not the rewriter's fault. 0 where nothing is new.
        """
        known = set(pairwise(self._tokenizer.encode(draft).ids)) if draft else set()
        return [_where_new(verdict, known) for verdict in self.judge(texts)]


def _where_new(verdict: Verdict, known: set[tuple[int, int]]) -> float:
    fresh = np.array([True, *(pair not in known for pair in pairwise(verdict.ids))])
    fresh[0] = False
    near = fresh | np.append(fresh[1:], False) | np.append(False, fresh[:-1])
    return float(verdict.intact[near].sum())


def pad(encodings: Iterable[Encoding]) -> tuple[Tensor, Tensor]:
    """Return ids (B, T) and mask (B, T) of tokenised texts."""
    rows = [encoding.ids for encoding in encodings]
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.arange(width)[None, :] < torch.tensor([len(row) for row in rows])[:, None]
    return ids, mask


def load_tokenizer(encoder_directory: Path) -> Tokenizer:
    """Return the encoder's tokenizer, cutting texts at `MAX_TOKENS`."""
    tokenizer = Tokenizer.from_file(str(encoder_directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def save(model: TokenDetector, path: Path, metadata: dict[str, str]) -> None:
    """Write what was trained, as bfloat16."""
    half = {name: value.to(torch.bfloat16).contiguous() for name, value in model.trained().items()}
    save_file(half, path, metadata | {"rank": str(model.rank)})


def load(path: Path, encoder_directory: Path, encoder_sha256: str, device: str) -> Acceptability:
    """Load a detector for an encoder.

    Raises:
        CheckpointError: the file is missing or damaged, or belongs to another encoder (both hashes are named).
    """
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if metadata.get("encoder_sha256") != encoder_sha256:
        raise CheckpointError(
            f"{path} belongs to the encoder {metadata.get('encoder_sha256')}, not to {encoder_sha256}; "
            "train one for this encoder with `guardrail dglm train acceptability`"
        )
    model = TokenDetector(encoder_directory, int(metadata["rank"]))
    problems = model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    if problems.unexpected_keys or set(weights) != set(model.trained()):
        raise CheckpointError(f"the weights in {path} do not fit this encoder: {json.dumps(problems.unexpected_keys)}")
    model.merge()
    return Acceptability(
        model.to(device).eval().requires_grad_(False),
        load_tokenizer(encoder_directory),
        device,
    )


def _dense_layers(model: nn.Module, kind: type[nn.Module] = nn.Linear) -> list[tuple[nn.Module, str, nn.Module]]:
    """Every (parent, attribute, layer) of that kind, found before any is changed."""
    return [
        (parent, name, layer)
        for parent in list(model.modules())
        if not isinstance(parent, LowRankLinear)
        for name, layer in list(parent.named_children())
        if isinstance(layer, kind)
    ]
