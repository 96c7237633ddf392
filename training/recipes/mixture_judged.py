"""Readers of texts that people labelled, and of this project's own: comments, requests, replies, drafts with rewrites."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mixture_rows import (
    ALL_GUARDS,
    CORE,
    HARM,
    NO_REQUEST,
    PATTERNS,
    Labels,
    Reader,
    Row,
    hashed,
    implied,
    known,
    presumed,
    read,
)


def comments(
    name: str, *, imply: bool = True, drop: tuple[str, ...] = (), where: Callable[[dict[str, Any]], bool] | None = None
) -> Reader:
    """A labelled file of comments or posts, its labels for our heads as they are."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "labelled" / f"{name}.jsonl.gz"):
            labels = {head: value for head, value in known(row["labels"]).items() if head not in drop}
            if labels and (where is None or where(row)):
                core = bool(set(labels) & set(CORE))
                labels = implied(labels) if imply else {**NO_REQUEST, **labels}
                yield Row(row["text"], labels, row["split"], core=core)

    return reader


def with_dev(reader: Reader) -> Reader:
    """Set a tenth of the training rows aside as dev, for a source that has none."""

    def split_reader(data: Path) -> Iterator[Row]:
        for row in reader(data):
            aside = row.split == "train" and hashed(row.text) % 10 == 0
            yield Row(row.text, row.labels, "dev", row.spans, row.core) if aside else row

    return split_reader


def jigsaw(data: Path) -> Iterator[Row]:
    for row in read(data / "labelled" / "jigsaw-part.jsonl.gz"):
        labels = known(row["labels"])
        extra = presumed(row["text"], ("sexual", "violence", "self_harm"), ("sexual", "violence", "self_harm"))
        if labels["toxicity"] and labels["profanity"]:
            extra.pop("sexual", None)
        yield Row(row["text"], {**extra, **labels, **({"courtesy": 0} if labels["insult"] else {})}, row["split"])


def requests(name: str, *, lang: str | None = None) -> Reader:
    """Prompts that ask for or show a harm: positives of their topic heads, other heads unknown."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "labelled" / f"{name}.jsonl.gz"):
            if lang is not None and row["meta"]["lang"] != lang:
                continue
            labels = known(row["labels"])
            core = bool(set(labels) & set(CORE))
            if labels and (core or row["text"].isascii()):
                yield Row(row["text"], labels, row["split"], core=core)

    return reader


def prompts(name: str) -> Reader:
    """Prompts that are judged or presumed harmless for the request heads, some for the content heads too."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "labelled" / f"{name}.jsonl.gz"):
            labels = known(row["labels"])
            core = bool(set(labels) & set(CORE))
            if name in ("coconot", "purplellama-frr") and row["labels"].get("illicit_request") == 0:
                labels = {**presumed(row["text"], HARM, ("insult", "profanity", "sexual")), **labels}
            if labels:
                yield Row(row["text"][:1_200], labels, row["split"], core=core)

    return reader


def jailbreak(data: Path) -> Iterator[Row]:
    for row in read(data / "labelled" / "jailbreak.jsonl.gz"):
        labels = known(row["labels"])
        if labels["jailbreak"] == 0:
            labels = {**presumed(row["text"], HARM, ALL_GUARDS), **labels}
        yield Row(row["text"][:1_200], labels, row["split"])


def bipia(data: Path) -> Iterator[Row]:
    """Pieces of documents, with the injected part inside, or far from it, or from the clean copy."""
    for row in read(data / "labelled" / "bipia.jsonl.gz"):
        text, spans = row["text"], row.get("spans") or []
        size = 500 + hashed(row["id"]) % 400
        start = hashed(text) % max(1, len(text) - size)
        if spans:
            middle = (spans[0][0] + spans[0][1]) // 2
            start = max(0, min(middle - size // 2 + hashed(text) % 200 - 100, len(text) - size))
        piece = text[start : start + size]
        inside = tuple((a - start, b - start) for a, b in spans if start <= a and b <= start + size)
        if bool(inside) == bool(spans):
            labels: Labels = {"prompt_injection": float(bool(inside)), "jailbreak": 0}
            harmless = {} if inside else presumed(piece, HARM, ("profanity", "sexual"))
            yield Row(piece, {**harmless, **labels}, row["split"], inside)


def toxic_spans(data: Path) -> Iterator[Row]:
    for row in read(data / "labelled" / "toxic-spans.jsonl.gz"):
        spans = tuple((int(a), int(b)) for a, b in row["spans"])
        yield Row(row["text"], {"toxicity": 1, **NO_REQUEST}, row["split"], spans)


def replies(name: str) -> Reader:
    """Replies of assistants and people, labelled by themselves or in the context that they stood in."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "labelled" / f"{name}.jsonl.gz"):
            labels = known(row["labels"])
            if labels:
                yield Row(row["text"][:500], {**NO_REQUEST, **labels}, row["split"], core=False)

    return reader


def paradetox(data: Path) -> Iterator[Row]:
    """The toxic sentence and a neutral paraphrase of it: the same topic on both sides."""
    for row in read(data / "pairs" / "paradetox.jsonl.gz"):
        yield Row(row["source"], {"toxicity": 1, "courtesy": 0, **NO_REQUEST}, row["split"])
        labels = implied({"toxicity": 0})
        if not PATTERNS["profanity"].search(row["targets"][0]):
            labels["profanity"] = 0
        yield Row(row["targets"][0], labels, row["split"])


def own_rows(folder: Path) -> Iterator[tuple[str, Row]]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                labels = known(row["labels"])
                split = row["split"]
                if split == "train" and hashed(row["text"]) % 8 == 0:
                    split = "dev"
                core = bool(set(labels) & set(CORE))
                yield f"own-{path.stem}", Row(row["text"], labels, split, core=core)


REPAIRS = "own-repairs"
UNSPOKEN = ("mental_health", "self_harm", "health")
"""Registers of the repairs in which a harsh sentence may also be about what harms somebody."""


def repaired(path: Path) -> Iterator[Row]:
    """The project's own rewrites: the draft is toxic, what was left of it is not, and neither is one left as it was."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            pair = json.loads(line)
            if pair["source"] != pair["target"]:
                yield Row(pair["source"], {"toxicity": 1, "courtesy": 0, **NO_REQUEST}, pair["split"])
            labels = implied({"toxicity": 0})
            guarded = (*ALL_GUARDS,) if pair["register"] in UNSPOKEN else ("profanity", "sexual")
            for head in ("profanity", "sexual", "self_harm"):
                if head not in guarded or not PATTERNS[head].search(pair["target"]):
                    labels[head] = 0
            yield Row(pair["target"], labels, pair["split"])
