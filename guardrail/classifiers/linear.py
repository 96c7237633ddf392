"""Linear heads: calibrated logistic regression on the sentence embedding, p = sigmoid(weight @ x + bias).

A head is a file of a few kilobytes: safetensors with `weight` (d,) and `bias` (1,), calibration folded in, and in its
header the hash of the encoder in whose space it lives. The shipped ones stand in `guardrail/pretrained/heads`, each
with a model card. Options of the kind `linear` in a policy: `head: NAME` (a shipped head; by default the classifier's
own name) or `file: PATH` (from the policy's folder), and `tier: tuned`, by which the network of
`guardrail.classifiers.tuned` gives the scores and the head only steers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from guardrail.classifiers.base import BuildContext, Classifier, check_options
from guardrail.encoder import Encoder, load_encoder, pinned_sha256
from guardrail.errors import CheckpointError, ClassifierError, did_you_mean
from guardrail.policy.bundle import LinearHead
from guardrail.text.normalise import normalise
from guardrail.text.segment import windows
from guardrail.types import Passage, Score, Span

FORMAT: Final = "guardrail-head/1"
KIND: Final = "linear"
TIERS: Final = ("linear", "tuned")
SHIPPED: Final = Path(__file__).resolve().parent.parent / "pretrained" / "heads"
WINDOW_TOKENS: Final = 64
"""Word pieces per window of a long text: small, so that one bad sentence is not averaged away by its neighbours."""


def make_head(name: str, weight: np.ndarray, bias: float, encoder_sha256: str) -> LinearHead:
    """Return a head whose hash covers its name, numbers and encoder.

    Args:
        name: what it measures.
        weight: (d,), stored as float32.
        bias: stored as float32.
        encoder_sha256: hash of the encoder's weights.
    """
    values = np.ascontiguousarray(weight, dtype=np.float32)
    stored = float(np.float32(bias))
    digest = hashlib.sha256(f"{FORMAT}\n{name}\n{encoder_sha256}\n".encode())
    digest.update(values.tobytes())
    digest.update(np.float32(stored).tobytes())
    return LinearHead(name, values, stored, digest.hexdigest(), encoder_sha256)


def write_head(path: Path, head: LinearHead, metadata: Mapping[str, str] | None = None) -> None:
    """Write a head as safetensors; `metadata` stands in its header beside name and hashes."""
    from safetensors.numpy import save

    header = {
        **(metadata or {}),
        "format": FORMAT,
        "name": head.name,
        "sha256": head.sha256,
        "encoder_sha256": head.encoder_sha256,
    }
    content = save({"weight": head.weight, "bias": np.array([head.bias], dtype=np.float32)}, metadata=header)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)  # whole or not at all


def read_head(path: Path) -> LinearHead:
    """Read a head from a file.

    Raises:
        CheckpointError: the file is missing, is no head, or its numbers do not fit its hash.
    """
    tensors, header = _read_tensors(path)
    if header.get("format") != FORMAT or set(tensors) != {"weight", "bias"}:
        raise CheckpointError(f"{path} is no linear head ({FORMAT}); train one with: guardrail heads train")
    weight, bias = tensors["weight"], tensors["bias"]
    if weight.ndim != 1 or bias.shape != (1,) or not (np.isfinite(weight).all() and math.isfinite(bias[0])):
        raise CheckpointError(f"{path} is damaged: expected a finite weight (d,) and bias (1,)")
    head = make_head(header.get("name", ""), weight, float(bias[0]), header.get("encoder_sha256", ""))
    if head.sha256 != header.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its numbers do not fit its sha256; restore or retrain it")
    return head


def head_metadata(path: Path) -> dict[str, str]:
    """Return what the header of a head's file says: name, hashes, and what the training wrote.

    Raises:
        CheckpointError: the file is missing or no safetensors file.
    """
    return _read_tensors(path)[1]


def _read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path} is missing or not a file; `guardrail heads list` shows the shipped heads")
    try:
        with safe_open(path, framework="numpy") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def list_heads() -> list[str]:
    """Names of the shipped heads, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


@cache
def load_head(name: str) -> LinearHead:
    """Return a shipped head.

    Raises:
        ClassifierError: there is none of that name; the message suggests the closest.
        CheckpointError: its file is damaged.
    """
    known = list_heads()
    if name not in known:
        raise ClassifierError(
            f"there is no shipped head {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)} "
            "For a head of your own, give its `file`."
        )
    return read_head(SHIPPED / f"{name}.safetensors")


def check_space(head: LinearHead, encoder: Encoder) -> None:
    """Refuse a head that was trained in another encoder's space.

    Raises:
        CheckpointError: hash or width differ.
    """
    if head.encoder_sha256 != encoder.sha256 or head.weight.shape != (encoder.dim,):
        raise CheckpointError(
            f"the head {head.name!r} belongs to the encoder with sha256 {head.encoder_sha256[:12]}..., not to "
            f"{encoder.name!r} ({encoder.sha256[:12]}...); train it for this one with: guardrail heads train --encoder"
        )


def readings(encoder: Encoder, text: str) -> list[tuple[Span, str]]:
    """Return what the encoder should read of a text, each piece with the span that it stands for.

    A text that surely fits the encoder is one piece, a longer one is cut into windows of whole sentences. A piece in
    which something is disguised is read twice: as it stands and with the disguise undone; whichever is worse counts.
    """
    spans = [(0, len(text))]
    if len(text) > encoder.max_tokens - 2:  # a token is a character or more
        spans = windows(text, encoder.token_counts, WINDOW_TOKENS) or spans
    found: list[tuple[Span, str]] = []
    for span in spans:
        raw = text[slice(*span)]
        found.append((span, raw))
        normal = normalise(raw)
        if normal.changed:
            found.append((span, normal.text))
    return found


class LinearClassifier:
    """One linear head as a classifier: the probability of a passage is that of its worst window.

    The engine compiles all heads of a policy into one matrix instead of calling `score`; this is for everyone else.
    """

    kind = KIND

    def __init__(self, name: str, head: LinearHead, encoder: str, device: str = "auto") -> None:
        self.name = name
        self.head = head
        self._encoder = encoder
        self._device = device

    @property
    def fingerprint(self) -> str:
        """`"sha256:..."` of the head's numbers and its encoder."""
        return f"sha256:{self.head.sha256}"

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Return one score for each passage; a long one carries the span of its worst window.

        Raises:
            CheckpointError: the head belongs to another encoder.
        """
        if not passages:
            return []
        encoder = load_encoder(self._encoder, self._device)
        check_space(self.head, encoder)
        pieces = [readings(encoder, passage.text) for passage in passages]
        logits = encoder.encode([text for own in pieces for _, text in own]) @ self.head.weight + self.head.bias
        ends = np.cumsum([len(own) for own in pieces])
        return [_worst(part, own) for part, own in zip(np.split(logits, ends[:-1]), pieces, strict=True)]


def _worst(logits: np.ndarray, pieces: Sequence[tuple[Span, str]]) -> Score:
    place = int(np.argmax(logits))
    whole = all(span == pieces[0][0] for span, _ in pieces)
    return Score(probability(logits[place]), () if whole else (pieces[place][0],))


def probability(logit: float) -> float:
    """The logistic function, without overflow."""
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, float(logit)))))


def build(name: str, options: Mapping[str, Any], context: BuildContext) -> Classifier:
    """Build the classifier `name` of kind `linear`. Loads no encoder.

    Raises:
        ClassifierError: unknown option or tier, both `head` and `file`, no such head, or a head of another encoder.
        CheckpointError: the head's file is missing or damaged.
    """
    if "examples" in options:
        from guardrail.classifiers.taught import build_taught

        return build_taught(name, options, context)
    check_options(KIND, name, options, ("head", "file", "examples", "tier"))
    for option, value in options.items():
        if not isinstance(value, str) or not value:
            raise ClassifierError(f"classifier {name!r}: {option!r} must be text, got {value!r}")
    file, tier = options.get("file"), options.get("tier", "linear")
    if file and "head" in options:
        raise ClassifierError(f"classifier {name!r}: give either `head` or `file`, not both")
    if tier not in TIERS or (file and tier != "linear"):
        allowed = "linear, for a head from a file" if file else " or ".join(TIERS)
        raise ClassifierError(f"classifier {name!r}: `tier` must be {allowed}; got {tier!r}")
    if tier == "tuned":
        from guardrail.classifiers.tuned import TunedClassifier

        label = options.get("head", name)
        steering = load_head(label) if label in list_heads() else None
        return TunedClassifier(name, label, steering, context.encoder, context.device)
    head = read_head(context.directory / file) if file else load_head(options.get("head", name))
    pinned = pinned_sha256(context.encoder)
    if pinned is not None and head.encoder_sha256 != pinned:
        raise ClassifierError(
            f"classifier {name!r}: its head was trained for another encoder ({head.encoder_sha256[:12]}...) than "
            f"{context.encoder!r} ({pinned[:12]}...); train it again with: guardrail heads train --encoder"
        )
    return LinearClassifier(name, head, context.encoder, context.device)
