"""What the diffusion is trained on: sentences, each with the sentence before it, embedded once and kept in shards.

Text is streamed: a shard of sentences is read, embedded and written before the next one is read, and a killed run goes
on with the first shard that is missing. Training maps the shards into memory and never holds text.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guardrail.dglm.corpus import detokenise, read_rows
from guardrail.dglm.latents import DEAD, Array, LatentStatistics
from guardrail.errors import CheckpointError, ConfigurationError
from guardrail.text.segment import sentences

if TYPE_CHECKING:
    from guardrail.encoder import Encoder

KINDS = ("dialogue", "instructions", "labelled", "pairs", "plain")
MIN_WORDS, MAX_WORDS = 2, 40

Report = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Chunk:
    """Sentences of one shard.

    Attributes:
        sentences: the texts. before: for each the number of the sentence before it in this chunk, -1 for none.
        target: for each whether it is to be generated; the others only stand before one.
    """

    sentences: list[str] = field(default_factory=list)
    before: list[int] = field(default_factory=list)

    def add(self, passage: list[str]) -> None:
        """Append consecutive sentences."""
        for number, sentence in enumerate(passage):
            self.before.append(len(self.sentences) - 1 if number else -1)
            self.sentences.append(sentence)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A batch of sentences.

    Attributes:
        x: unit embeddings (B, d). before: those of the sentences before (B, d), zeros where there is none.
        known: whether there is one (B,). tokens: of the sentences before, empty where there is none; None if not kept.
    """

    x: Array
    before: Array
    known: npt.NDArray[np.bool_]
    tokens: list[list[int]] | None


@dataclass(frozen=True, slots=True)
class Latents:
    """Embedded sentences.

    Attributes:
        x: unit embeddings (N, d), float16. before: (N,) row of the sentence before, -1 for none.
        tokens: those of all sentences one after the other, and ends: (N,) where each ends; None where they were not kept.
    """

    x: npt.NDArray[np.float16]
    before: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32] | None = None
    ends: npt.NDArray[np.int64] | None = None

    def batch(self, rng: np.random.Generator, size: int) -> Drawn:
        """Draw sentences, with replacement."""
        rows = np.sort(rng.integers(0, len(self.x), size))  # in order of place: memory-mapped pages are read once
        before = self.before[rows]
        known = before >= 0
        context = np.where(known[:, None], self.x[np.maximum(before, 0)], 0.0)
        return Drawn(self.x[rows].astype(np.float32), context.astype(np.float32), known, self._tokens_of(before))

    def _tokens_of(self, rows: npt.NDArray[np.int64]) -> list[list[int]] | None:
        if self.tokens is None or self.ends is None:
            return None
        starts = np.concatenate([[0], self.ends[:-1]])
        return [self.tokens[starts[row] : self.ends[row]].tolist() if row >= 0 else [] for row in rows]


def passages(spec: Mapping[str, Any], path: Path, split: str, seed: int) -> Iterator[list[str]]:
    """Yield runs of consecutive sentences of one source, in the file's order.

    Args:
        spec: `kind`, one of `KINDS`, and `share` of the rows to keep (default 1; rows are chosen by the hash of their
            number).
        path: the file. split: rows without a split count as `train`. seed: of the choice.

    Raises:
        ConfigurationError: unknown kind.
    """
    kind, share = spec["kind"], float(spec.get("share", 1.0))
    if kind not in KINDS:
        raise ConfigurationError(f"{path}: kind {kind!r} is not one of {', '.join(KINDS)}")
    for number, row in enumerate(read_rows(path)):
        kept = zlib.crc32(f"{seed}:{path.name}:{number}".encode()) < share * 2**32
        if kept and row.get("split", "train") == split:
            for texts in _runs(row, kind):
                run = [sentence for text in texts for sentence in _sentences(text)]
                if run:
                    yield run


def _runs(row: Mapping[str, Any], kind: str) -> list[list[str]]:
    """The texts of a row that follow one another; several runs where they do not."""
    if kind == "dialogue":
        return [[turn["text"] for turn in row["turns"]]]
    if kind == "instructions":
        return [[row["prompt"], row["response"]]] if "```" not in row["response"] else []
    if kind == "pairs":
        return [[row["source"]], *([target] for target in row["targets"])]
    return [[*row.get("context", [])[-1:], row["text"]]]


def _sentences(text: str) -> list[str]:
    text = detokenise(text)
    found = (" ".join(text[start:end].split()) for start, end in sentences(text))
    return [sentence for sentence in found if _usable(sentence)]


def _usable(sentence: str) -> bool:
    letters = sum(character.isalpha() or character.isspace() for character in sentence)
    return MIN_WORDS <= len(sentence.split()) <= MAX_WORDS and letters > 0.7 * len(sentence)


def chunks(recipe: Mapping[str, Any], data: Path, split: str = "train") -> Iterator[Chunk]:
    """Yield the sentences of a recipe's `sources`, `shard` of them at a time; `cap` bounds those of a source."""
    size, chunk = int(recipe["shard"]), Chunk()
    for spec in recipe["sources"]:
        left = int(spec.get("cap", 10**9)) if split == "train" else int(recipe["validation_cap"])
        for run in passages(spec, data / spec["file"], split, int(recipe["seed"])):
            chunk.add(list(islice(run, left)))
            left -= min(left, len(run))
            if len(chunk.sentences) >= size:
                yield chunk
                chunk = Chunk()
            if left == 0:
                break
    if chunk.sentences:
        yield chunk


def embed(recipe: Mapping[str, Any], data: Path, out: Path, encoder: Encoder, report: Report, split: str) -> int:
    """Write the shards of a recipe that are missing in `out`; returns how many sentences there are in all.

    Raises:
        CheckpointError: `out` holds shards of another encoder or another recipe.

    The token ids are kept too where the recipe's network looks at token states (`network.states`).
    """
    from safetensors import safe_open
    from safetensors.numpy import save_file

    out.mkdir(parents=True, exist_ok=True)
    identity = {
        "encoder_sha256": encoder.sha256,
        "sources": json.dumps([recipe["seed"], recipe["shard"], recipe["validation_cap"], recipe["sources"]]),
    }
    keeps_tokens = bool((recipe.get("network") or {}).get("states"))
    if keeps_tokens:
        identity["tokens"] = "kept"
    total = 0
    for number, chunk in enumerate(chunks(recipe, data, split)):
        path = out / f"{split}-{number:05d}.safetensors"
        if path.exists():
            with safe_open(path, "np") as opened:
                metadata = opened.metadata()
            if metadata != identity:
                raise CheckpointError(
                    f"{path} was made by another encoder or from other sources; remove {out} or choose another --out"
                )
        else:
            x = encoder.encode(chunk.sentences).astype(np.float16)
            before = np.array(chunk.before, dtype=np.int64)
            arrays: dict[str, npt.NDArray[Any]] = {"x": x, "before": before}
            arrays |= _tokens(encoder, chunk.sentences) if keeps_tokens else {}
            save_file(arrays, temporary := path.with_suffix(".tmp"), identity)
            temporary.replace(path)
        total += len(chunk.sentences)
        report({"shard": number + 1, "sentences": total, "split": split})
    (out / f"{split}.json").write_text(json.dumps({"sentences": total, "shards": number + 1}), encoding="utf8")
    return total


def _tokens(encoder: Encoder, sentences: list[str]) -> dict[str, npt.NDArray[Any]]:
    """The token ids of sentences one after the other, and where each ends."""
    ids = encoder.tokens(sentences)
    return {
        "tokens": np.array([token for own in ids for token in own], dtype=np.int32),
        "ends": np.cumsum([len(own) for own in ids], dtype=np.int64),
    }


def load_latents(out: Path, split: str = "train") -> Latents:
    """Map the shards of a finished `embed` into memory.

    Raises:
        ConfigurationError: they are missing or unfinished.
    """
    from safetensors.numpy import load_file

    index = out / f"{split}.json"
    if not index.is_file():
        raise ConfigurationError(f"{out} holds no finished {split} latents; run `guardrail dglm train latents` first")
    count = json.loads(index.read_text(encoding="utf8"))["shards"]
    shards = [load_file(out / f"{split}-{number:05d}.safetensors") for number in range(count)]
    starts = np.cumsum([0, *(len(shard["x"]) for shard in shards)])
    before = [
        np.where(shard["before"] >= 0, shard["before"] + start, -1)
        for shard, start in zip(shards, starts[:-1], strict=True)
    ]
    x = np.concatenate([shard["x"] for shard in shards])
    if any("tokens" not in shard for shard in shards):
        return Latents(x, np.concatenate(before))
    offsets = np.cumsum([0, *(len(shard["tokens"]) for shard in shards)])
    ends = np.concatenate([shard["ends"] + offset for shard, offset in zip(shards, offsets[:-1], strict=True)])
    return Latents(x, np.concatenate(before), np.concatenate([shard["tokens"] for shard in shards]), ends)


def moments(latents: Latents, encoder_sha256: str) -> LatentStatistics:
    """Return mean, standard deviation and covariance of embedded sentences.

    Raises:
        CheckpointError: fewer sentences than twice the dimension; the covariance would be singular.
    """
    count, dim = latents.x.shape
    if count < 2 * dim:
        raise CheckpointError(f"latent statistics of a {dim}-d space need at least {2 * dim} sentences, got {count}")
    total, outer = np.zeros(dim), np.zeros((dim, dim))
    for start in range(0, count, 8192):
        x = latents.x[start : start + 8192].astype(np.float64)
        total += x.sum(axis=0)
        outer += x.T @ x
    mean = total / count
    covariance = outer / count - np.outer(mean, mean)
    std = np.sqrt(np.maximum(np.diag(covariance), DEAD**2))
    parts = (mean, std, covariance)
    mean32, std32, covariance32 = (part.astype(np.float32) for part in parts)
    return LatentStatistics(mean32, std32, covariance32, count, encoder_sha256)
