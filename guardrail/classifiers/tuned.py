"""The `tuned` tier of the shipped heads: the encoder's upper layers fine-tuned for all labels at once.

    classifiers:
      toxicity: {kind: linear, tier: tuned}

The score comes from the tuned network; the linear head of the same name still steers the rewriter, which needs a
direction in the encoder's space. All tuned classifiers of a process share one network and one pass: its outputs for a
text are kept for a while, so thirty of them cost as much as one.

The network is a file of about 11 MB: the upper layers as float16, the outputs with calibration folded in, and in its
header the hash of the encoder whose lower layers it stands on.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from guardrail.classifiers.linear import probability
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import CheckpointError, ClassifierError, did_you_mean
from guardrail.policy.bundle import LinearHead
from guardrail.text.normalise import normalise
from guardrail.text.segment import sentences, windows
from guardrail.types import Passage, Score, Span

if TYPE_CHECKING:
    from guardrail.classifiers.network import Trunk, Upper

FORMAT: Final = "guardrail-tuned/1"
TIER: Final = "tuned"
SHIPPED: Final = Path(__file__).resolve().parent.parent / "pretrained" / "tuned" / "heads.safetensors"
WINDOW_TOKENS: Final = 64
MEMORY: Final = 4_096
"""Texts whose outputs are kept, the latest ones: about half a megabyte."""
BATCH_TOKENS: Final = 1_024

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TunedFacts:
    """What the header of a tuned network says: its labels in order, layers of the trunk, hashes, and other notes."""

    heads: tuple[str, ...]
    frozen: int
    sha256: str
    encoder_sha256: str
    notes: Mapping[str, str]


class TunedNetwork:
    """A tuned network on the encoder that it belongs to. Thread-safe.

    Args:
        facts: from its header.
        trunk: frozen lower layers.
        upper: tuned upper layers and outputs; an attribute, to be read.
        encoder: for tokens and windows.
    """

    def __init__(self, facts: TunedFacts, trunk: Trunk, upper: Upper, encoder: Encoder) -> None:
        self.facts = facts
        self.encoder = encoder
        self._trunk = trunk
        self.upper = upper
        self._kept: OrderedDict[str, Logits] = OrderedDict()
        self._lock = threading.Lock()

    def logits(self, texts: Sequence[str]) -> Logits:
        """(N, K) calibrated logits of N texts, each cut to the encoder's window."""
        if not texts:
            return np.empty((0, len(self.facts.heads)), dtype=np.float32)
        with self._lock:
            found = {text: self._kept[text] for text in texts if text in self._kept}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        found |= dict(zip(missing, self._compute(missing), strict=True))
        with self._lock:
            for text in texts:
                self._kept[text] = found[text]
                self._kept.move_to_end(text)
            while len(self._kept) > MEMORY:
                self._kept.popitem(last=False)
        return np.stack([found[text] for text in texts])

    def forget(self) -> None:
        """Drop the outputs that are kept for texts that come again."""
        with self._lock:
            self._kept.clear()

    def _compute(self, texts: Sequence[str]) -> Logits:
        import torch

        from guardrail.classifiers.network import padded

        limit = self.encoder.max_tokens
        sequences = [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in self.encoder.tokens(texts)]
        order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
        logits = np.empty((len(texts), len(self.facts.heads)), dtype=np.float32)
        with torch.inference_mode():
            while order:
                size = max(1, BATCH_TOKENS // len(sequences[order[-1]]))
                rows, order = order[-size:], order[:-size]
                tokens, mask = padded([sequences[row] for row in rows], self.encoder.device)
                logits[rows] = self.upper(self._trunk(tokens, mask), mask).cpu().numpy()
        return logits


def write_tuned(
    path: Path, upper: Upper, heads: Sequence[str], frozen: int, encoder_sha256: str, notes: Mapping[str, str]
) -> str:
    """Write the upper part (calibration folded in) as safetensors, layers as float16; return its sha256.

    Args:
        path: the file.
        upper: layers and outputs.
        heads: the K labels, in the order of the outputs.
        frozen: layers of the trunk.
        encoder_sha256: hash of the encoder's weights.
        notes: for the header, beside names and hashes.
    """
    from safetensors.torch import save

    tensors = {
        name: (value if name.startswith("out.") else value.half()).contiguous().cpu()
        for name, value in upper.state_dict().items()
    }
    header = {**notes, "format": FORMAT, "heads": json.dumps(list(heads)), "frozen": str(frozen)}
    sha256 = _digest(tensors, header["heads"], header["frozen"], encoder_sha256)
    header |= {"sha256": sha256, "encoder_sha256": encoder_sha256}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(save(tensors, metadata=header))
    partial.replace(path)  # whole or not at all
    return sha256


def _digest(tensors: Mapping[str, Any], heads: str, frozen: str, encoder_sha256: str) -> str:
    digest = hashlib.sha256(f"{FORMAT}\n{heads}\n{frozen}\n{encoder_sha256}\n".encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


@cache
def tuned_facts(path: Path = SHIPPED) -> TunedFacts:
    """Read the header of a tuned network, without its weights.

    Raises:
        CheckpointError: the file is missing, or is no tuned network.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path} is missing; train it with: guardrail heads train --tier tuned")
    try:
        with safe_open(path, framework="numpy") as stream:
            header = dict(stream.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
    if header.pop("format", "") != FORMAT:
        raise CheckpointError(f"{path} is no tuned network ({FORMAT})")
    heads, frozen = tuple(json.loads(header.pop("heads"))), int(header.pop("frozen"))
    return TunedFacts(heads, frozen, header.pop("sha256"), header.pop("encoder_sha256"), header)


_loading = threading.Lock()
_loaded: dict[tuple[Path, str, str], TunedNetwork] = {}


def load_tuned(encoder: Encoder, path: Path = SHIPPED) -> TunedNetwork:
    """Return the process's tuned network, loading it on the first call.

    Raises:
        CheckpointError: the file is missing or damaged, or belongs to another encoder.
    """
    key = (path, encoder.sha256, encoder.device)
    with _loading:
        if key not in _loaded:
            _loaded[key] = _load(encoder, path)
        return _loaded[key]


def _load(encoder: Encoder, path: Path) -> TunedNetwork:
    from safetensors.torch import load_file

    from guardrail.classifiers.network import Trunk, Upper

    facts = tuned_facts(path)
    bert = encoder.transformer
    if bert is None or facts.encoder_sha256 != encoder.sha256:
        raise CheckpointError(
            f"the tuned tier belongs to the encoder with sha256 {facts.encoder_sha256[:12]}..., not to "
            f"{encoder.name!r} ({encoder.sha256[:12]}...); use tier: linear, or train it for this one"
        )
    tensors = load_file(path)
    if _digest(tensors, json.dumps(list(facts.heads)), str(facts.frozen), facts.encoder_sha256) != facts.sha256:
        raise CheckpointError(f"{path} is damaged: its numbers do not fit its sha256; restore or retrain it")
    upper = Upper(bert, facts.frozen, len(facts.heads))
    upper.load_state_dict({name: value.float() for name, value in tensors.items()})
    upper.to(encoder.device).eval().requires_grad_(False)
    return TunedNetwork(facts, Trunk(bert, facts.frozen), upper, encoder)


class TunedClassifier:
    """One label of the tuned network as a classifier: the probability of a passage is that of its worst sentence.

    Args:
        name: the name that the policy gives it.
        label: which output of the network.
        head: the linear head of the same label, by which the rewriter is steered; None if there is none.
        encoder: name of the encoder.
        device: as in the settings.
        path: the network's file.
    """

    kind = "linear"
    decides = True
    """The score of this classifier counts, not that of its `head`."""

    def __init__(
        self, name: str, label: str, head: LinearHead | None, encoder: str, device: str = "auto", path: Path = SHIPPED
    ) -> None:
        facts = tuned_facts(path)
        if label not in facts.heads:
            raise ClassifierError(
                f"classifier {name!r}: the tuned tier has no label {label!r}; it has {', '.join(facts.heads)}."
                f"{did_you_mean(label, facts.heads)}"
            )
        self.name = name
        self.label = label
        self.head = head
        self._column = facts.heads.index(label)
        self._sha256 = facts.sha256
        self._encoder = encoder
        self._device = device
        self._path = path

    @property
    def fingerprint(self) -> str:
        """`"sha256:..."` of the network and the label; with it the encoder is fixed too."""
        steer = self.head.sha256 if self.head is not None else ""
        return "sha256:" + hashlib.sha256(f"{self._sha256}\n{self.label}\n{steer}".encode()).hexdigest()

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Return one score for each passage; of several sentences those that made it carry its spans.

        Raises:
            CheckpointError: the network is damaged or belongs to another encoder.
        """
        if not passages:
            return []
        network = load_tuned(load_encoder(self._encoder, self._device), self._path)
        pieces = [readings(network.encoder, passage.text) for passage in passages]
        logits = network.logits([text for own in pieces for _, text in own])[:, self._column]
        ends = np.cumsum([len(own) for own in pieces])
        return [_worst(part, own) for part, own in zip(np.split(logits, ends[:-1]), pieces, strict=True)]


def readings(encoder: Encoder, text: str) -> list[tuple[Span, str]]:
    """Return what the network should read of a text, each piece with the span that it stands for.

    Its sentences, those that the encoder might cut in windows; a piece in which something is disguised is read twice,
    as it stands and with the disguise undone.
    """
    spans: list[Span] = []
    for start, end in sentences(text):
        if end - start <= encoder.max_tokens - 2:  # a token is a character or more
            spans.append(_trimmed(text, (start, end)))
        else:
            parts = windows(text[start:end], encoder.token_counts, WINDOW_TOKENS)
            spans.extend(_trimmed(text, (start + a, start + b)) for a, b in parts)
    found: list[tuple[Span, str]] = []
    for span in [span for span in spans if span[0] < span[1]] or [(0, len(text))]:
        raw = text[slice(*span)]
        found.append((span, raw))
        normal = normalise(raw)
        if normal.changed:
            found.append((span, normal.text))
    return found


def _trimmed(text: str, span: Span) -> Span:
    inner = text[slice(*span)]
    return span[0] + len(inner) - len(inner.lstrip()), span[0] + len(inner.rstrip())


def _worst(logits: npt.NDArray[np.float32], pieces: Sequence[tuple[Span, str]]) -> Score:
    """The largest probability, at the sentences that reach at least half of it; everywhere if there is one alone."""
    values = [probability(logit) for logit in logits]
    best = max(values)
    if all(span == pieces[0][0] for span, _ in pieces):
        return Score(best)
    spans = {span for value, (span, _) in zip(values, pieces, strict=True) if value >= best / 2}
    return Score(best, tuple(sorted(spans)))
