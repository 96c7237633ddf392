"""Training text for the decoder: rewrite pairs, and clean sentences that are spoiled on the fly.

A recipe (YAML) names the files. Formats are those of the project's data manifest: `pairs` rows have `source` and
`targets`; `dialogue` rows `turns`; `labelled` rows `text`, `labels`, `spans`; `instructions` rows `prompt`, `response`;
`plain` files one paragraph a line.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.text.segment import sentences

_DETOKENISE = (
    (re.compile(r"\s+([.,!?;:)\]%])"), r"\1"),
    (re.compile(r"([(\[$#])\s+"), r"\1"),
    (re.compile(r"\s+(n't|'(?:s|m|re|ve|ll|d|t))\b", re.IGNORECASE), r"\1"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A draft, how it should read, and what stood before it (empty if nothing)."""

    source: str
    target: str
    before: str = ""


@dataclass(slots=True)
class Corpus:
    """Pools of pairs by name, clean sentences with what stood before them, and harmful phrases and sentences."""

    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    clean: list[tuple[str, str]] = field(default_factory=list)  # (sentence, the sentence before or "")
    phrases: list[str] = field(default_factory=list)
    outbursts: list[str] = field(default_factory=list)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a .jsonl or .jsonl.gz file, or {"text": line} of a text file."""
    with gzip.open(path, "rt", encoding="utf8") if path.suffix == ".gz" else path.open(encoding="utf8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line) if ".jsonl" in path.name else {"text": line.strip()}


def detokenise(text: str) -> str:
    """Undo the spaces that tokenised corpora put before punctuation and clitics."""
    for pattern, replacement in _DETOKENISE:
        text = pattern.sub(replacement, text)
    return text.strip()


def load_corpus(recipe: Mapping[str, Any], data: Path, project: Path, seed: int, split: str = "train") -> Corpus:
    """Read what `recipe` names.

    Args:
        recipe: `pairs` {pool: {file, ...}}, `clean` [{file, kind, cap}], `phrases` {file}, `outbursts` [{file, heads}].
        data: folder of the shared data. project: folder that recipe paths beginning with `./` are relative to.
        seed: of the sub-sampling.
        split: which rows to read; rows without a split count as `train`.
    """
    rng = np.random.default_rng(seed)
    corpus = Corpus()

    def locate(name: str) -> Path:
        return project / name[2:] if name.startswith("./") else data / name

    for pool, spec in recipe["pairs"].items():
        corpus.pairs[pool] = list(read_pairs(locate(spec["file"]), split, float(spec.get("min_overlap", 0.0))))
    words: Counter[str] = Counter()
    for row in _split_rows(locate(recipe["phrases"]["file"]), split):
        for start, end in row.get("spans", []):
            phrase = detokenise(row["text"][start:end]).strip(" .,!?\"'").lower()
            if phrase and len(phrase.split()) <= 4 and phrase.isascii():
                words[phrase] += 1
    corpus.phrases = [phrase for phrase, count in words.items() for _ in range(min(count, 40))]
    dirty = {
        phrase for phrase, count in words.items() if " " not in phrase and count >= int(recipe["phrases"]["dirty"])
    }
    for spec in recipe["outbursts"]:
        corpus.outbursts.extend(_outbursts(locate(spec["file"]), split, spec["heads"]))
    seen: set[str] = set()
    for spec in recipe["clean"]:
        rows = list(_split_rows(locate(spec["file"]), split))
        shuffled = (rows[index] for index in rng.permutation(len(rows)))
        corpus.clean.extend(islice(_clean(shuffled, spec["kind"], dirty, seen), int(spec["cap"])))
    return corpus


def _split_rows(path: Path, split: str) -> Iterator[dict[str, Any]]:
    return (row for row in read_rows(path) if row.get("split", "train") == split)


def read_pairs(path: Path, split: str, min_overlap: float = 0.0) -> Iterator[Pair]:
    """Yield the pairs of a split whose target shares at least that part of its words with the source."""
    for row in _split_rows(path, split):
        source = detokenise(row["source"])
        for target in map(detokenise, row.get("targets") or [row["target"]]):
            kept = set(target.lower().split()) & set(source.lower().split())
            if target and len(kept) >= min_overlap * len(set(target.split())) and len(source.split()) <= 60:
                yield Pair(source, target, row.get("before", ""))


def _outbursts(path: Path, split: str, heads: list[str]) -> Iterator[str]:
    for row in _split_rows(path, split):
        text = detokenise(row["text"])
        if (
            max((row["labels"].get(head, 0) for head in heads), default=0) > 0.5
            and 2 <= len(text.split()) <= 9
            and text.isascii()
        ):
            yield text


def _clean(rows: Iterable[dict[str, Any]], kind: str, dirty: set[str], seen: set[str]) -> Iterator[tuple[str, str]]:
    for row in rows:
        for passage in passages(row, kind):
            before = ""
            for start, end in sentences(passage):
                sentence = " ".join(passage[start:end].split())
                if _usable(sentence, dirty) and sentence.lower() not in seen:
                    seen.add(sentence.lower())
                    yield sentence, before
                before = sentence


def passages(row: dict[str, Any], kind: str) -> list[str]:
    """Return the running texts of a row of that kind; of labelled rows only what was judged harmless."""
    if kind == "dialogue":
        return [detokenise(turn["text"]) for turn in row["turns"]]
    if kind == "instructions":
        return [row["response"]] if "```" not in row["response"] else []
    if kind == "labelled":  # only what was judged harmless
        labels = row["labels"]
        harmless = labels.get("toxicity", 0) < 0.2 and max(labels.values(), default=0) <= 1
        return [detokenise(row["text"])] if harmless else []
    return [detokenise(row["text"])]


def _usable(sentence: str, dirty: set[str]) -> bool:
    words = sentence.split()
    letters = sum(character.isalpha() or character.isspace() for character in sentence)
    return (
        3 <= len(words) <= 36
        and letters > 0.75 * len(sentence)
        and not any(word.strip(".,!?\"'").lower() in dirty for word in words)
    )
