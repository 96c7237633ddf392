"""Kind `trihash`: logistic regression on hashed character trigrams, which misspelt and unseen words survive.

```yaml
swearing: {kind: trihash, file: heads/swearing.safetensors}
```

After T-FREE (Deiseroth et al., EMNLP 2024, section 3): every word, with a space at either end, is the set of its byte
trigrams, and each trigram falls into `HASHES` of `BUCKETS` buckets by independent hashes, most of them blind to case.
A text is the set of its buckets, scaled to unit length. A misspelling changes a few trigrams, not the word.

Reads nothing but letters: no encoder, no context. A head is trained with `guardrail heads trihash`. On the project's own
hard texts one was no better than a linear head, misspelt or not (docs/classifiers.md); beside the tuned network it is of
use, because they err on different texts: the policy `general` weighs one on the wording of requests.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from guardrail.classifiers.base import BuildContext, check_options
from guardrail.classifiers.linear import probability
from guardrail.classifiers.options import text
from guardrail.errors import CheckpointError
from guardrail.text.normalise import normalise
from guardrail.text.segment import sentences
from guardrail.types import Passage, Score, Span

__all__ = ["BUCKETS", "TrihashClassifier", "TrihashHead", "buckets", "build", "read_trihash", "write_trihash"]

KIND: Final = "trihash"
FORMAT: Final = "guardrail-trihash/1"
BITS: Final = 15
BUCKETS: Final = 1 << BITS
HASHES: Final = 4
CASED: Final = 1
"""Of the hashes of a trigram, those that see its case."""
_FACTORS: Final = np.array([2654435761, 2246822519, 3266489917, 668265263], dtype=np.uint32)[:, None]
_ADDED: Final = np.array([0, 374761393, 1013904223, 2909509477], dtype=np.uint32)[:, None]
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SPACE: Final = 32

Indices = npt.NDArray[np.int64]


def buckets(source: str) -> Indices:
    """The buckets that the words of a text fall into, ascending, each once; none where it has no words."""
    words = _WORD.findall(normalise(source).text)
    if not words:
        return np.empty(0, dtype=np.int64)
    joined = "".join(f" {word} " for word in words)
    cased, plain = (
        _hashes(form, part) for form, part in ((joined, slice(CASED)), (joined.lower(), slice(CASED, None)))
    )
    return np.unique(np.concatenate((cased, plain))).astype(np.int64)


def _hashes(joined: str, part: slice) -> npt.NDArray[np.uint32]:
    data = np.frombuffer(joined.encode("utf-8", "replace"), dtype=np.uint8).astype(np.uint32)
    if len(data) < 3:
        return np.empty(0, dtype=np.uint32)
    trigrams = ((data[:-2] << 16) | (data[1:-1] << 8) | data[2:])[data[1:-1] != _SPACE]  # none reaches over two words
    with np.errstate(over="ignore"):
        mixed = trigrams * _FACTORS[part] + _ADDED[part]
        mixed ^= mixed >> 15
        mixed *= np.uint32(2246822519)
    return np.asarray(mixed >> np.uint32(32 - BITS)).ravel()


@dataclass(frozen=True, slots=True, eq=False)
class TrihashHead:
    """Log odds = bias + weight over the buckets of a text / sqrt(their number). `weight`: (BUCKETS,) float32."""

    name: str
    weight: npt.NDArray[np.float32]
    bias: float

    @property
    def sha256(self) -> str:
        """Hash of name and numbers."""
        digest = hashlib.sha256(f"{FORMAT}\n{self.name}\n".encode())
        digest.update(self.weight.astype(np.float16).tobytes())
        digest.update(np.float32(self.bias).tobytes())
        return digest.hexdigest()

    def logit(self, source: str) -> float:
        """Log odds of one text; the bias where it has no words."""
        found = buckets(source)
        return self.bias + float(self.weight[found].sum()) / math.sqrt(len(found)) if len(found) else self.bias


def write_trihash(path: Path, head: TrihashHead) -> None:
    """Write a head as safetensors of 64 kilobytes."""
    from safetensors.numpy import save_file

    partial = path.with_name(f"{path.name}.partial")
    tensors: dict[str, npt.NDArray[Any]] = {
        "weight": head.weight.astype(np.float16),
        "bias": np.array([head.bias], dtype=np.float32),
    }
    save_file(tensors, partial, metadata={"format": FORMAT, "name": head.name, "sha256": head.sha256})
    partial.replace(path)


def read_trihash(path: Path) -> TrihashHead:
    """Read a head.

    Raises:
        CheckpointError: the file is missing, is no such head, or its numbers do not fit its hash.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path} is missing or not a file; train one with: guardrail heads trihash")
    try:
        with safe_open(path, framework="numpy") as stream:
            header = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if header.get("format") != FORMAT or shapes != {"weight": (BUCKETS,), "bias": (1,)}:
        raise CheckpointError(f"{path} is no trigram head ({FORMAT}); train one with: guardrail heads trihash")
    head = TrihashHead(header.get("name", ""), tensors["weight"].astype(np.float32), float(tensors["bias"][0]))
    if head.sha256 != header.get("sha256") or not np.isfinite(head.weight).all():
        raise CheckpointError(f"{path} is damaged: its numbers do not fit its sha256; restore or retrain it")
    return head


class TrihashClassifier:
    """A trigram head as a classifier: the score of a text is that of its worst sentence. Immutable, thread-safe."""

    kind = KIND

    def __init__(self, name: str, head: TrihashHead) -> None:
        self.name = name
        self.trigrams = head

    @property
    def fingerprint(self) -> str:
        """`"sha256:..."` of the head's numbers."""
        return f"sha256:{self.trigrams.sha256}"

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """One score for each passage, with the span of the worst sentence where there are several."""
        return [self._score(passage.text) for passage in passages]

    def _score(self, source: str) -> Score:
        spans: list[Span] = sentences(source) or [(0, len(source))]
        values = [self.trigrams.logit(source[slice(*span)]) for span in spans]
        worst = int(np.argmax(values))
        return Score(probability(values[worst]), (spans[worst],) if len(spans) > 1 else ())


def build(name: str, options: Mapping[str, Any], context: BuildContext) -> TrihashClassifier:
    """Build the classifier from its option `file`.

    Raises:
        ClassifierError: another option, or none.
        CheckpointError: the file is no such head.
    """
    check_options(KIND, name, options, ("file",))
    return TrihashClassifier(name, read_trihash(context.directory / text(name, options, "file")))
