"""Readers of tone and of everyday text: politeness, emotions, dialogue, instructions, paragraphs."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from mixture_rows import (
    ALL_GUARDS,
    EMOTIONS,
    HARM,
    NO_REQUEST,
    TONES,
    Labels,
    Reader,
    Row,
    hashed,
    known,
    presumed,
    read,
    split_of,
)


def politeness(data: Path) -> Iterator[Row]:
    for row in read(data / "labelled" / "politeness.jsonl.gz"):
        rank = row["labels"]["politeness"]
        if rank >= 0.75 or rank <= 0.25:
            extra = presumed(row["text"], HARM, ALL_GUARDS)
            yield Row(row["text"], {**extra, "courtesy": float(rank >= 0.75)}, row["split"])


_WARM = {
    f"emotion_{name}"
    for name in (
        *("admiration", "amusement", "approval", "caring", "curiosity", "excitement", "gratitude", "joy", "love"),
        *("optimism", "pride", "relief", "surprise", "realization"),
    )
}
_SAD = {
    f"emotion_{name}"
    for name in ("sadness", "grief", "remorse", "fear", "nervousness", "disappointment", "embarrassment")
}
_COLD = {f"emotion_{name}" for name in ("anger", "annoyance", "disgust", "disapproval")}


def goemotions(data: Path) -> Iterator[Row]:
    """Comments with their emotions; those that are warm or sad and not angry are presumed harmless, with guards."""
    for row in read(data / "labelled" / "goemotions.jsonl.gz"):
        felt = {name for name, value in row["labels"].items() if value == 1 and name.startswith("emotion_")}
        labels: Labels = {
            head: float(any(f"emotion_{name}" in felt for name in names)) for head, names in EMOTIONS.items()
        }
        mild = bool(felt and not felt & _COLD and (felt <= _WARM or felt & _SAD))
        if mild:
            labels |= presumed(row["text"], HARM, ALL_GUARDS)
            if "emotion_gratitude" in felt:
                labels["courtesy"] = 0.9
        yield Row(row["text"], {**known(row["labels"]), **NO_REQUEST, **labels}, row["split"], core=mild)


NEUTRAL = ("sgd", "tm4", "multiwoz", "synthetic-persona-chat", "topical-chat")
"""Task dialogue and arranged small talk: nobody is impatient or mocks, and nothing advised is unsafe."""


def dialogue(name: str, *, guarded: tuple[str, ...] = (), share: int = 1) -> Reader:
    calm = dict.fromkeys((*TONES, "unsafe_advice", "offensive_in_context"), 0.0) if name in NEUTRAL else {}

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "dialogue" / f"{name}.jsonl.gz"):
            for turn in row["turns"]:
                text = turn["text"]
                if 2 < len(text) < 400 and hashed(text) % share == 0:
                    labels = {**calm, **presumed(text, HARM, guarded)}
                    yield Row(text, labels, row.get("split") or split_of(str(row["id"])))

    return reader


COMPLIES = ("coconot-contrast", "gpteacher-roleplay")  # instruction sets whose replies do as asked


def instructions(name: str, *, fields: tuple[str, ...], guarded: tuple[str, ...] = (), share: int = 1) -> Reader:
    """Public prompts and replies; long ones teach the request heads that length is no attack."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "instructions" / f"{name}.jsonl.gz"):
            for field in fields:
                if hashed(row[field]) % share:
                    continue
                text = row[field][:1_000]
                labels = presumed(text, HARM, guarded)
                if field == "response" and name in COMPLIES:
                    labels["refusal"] = 0
                yield Row(text, labels, split_of(row["prompt"]))

    return reader


def plain(name: str, *, guarded: tuple[str, ...] = (), limit: int = 700) -> Reader:
    def reader(data: Path) -> Iterator[Row]:
        with gzip.open(data / "plain" / f"{name}.txt.gz", "rt", encoding="utf-8") as stream:
            for line in stream:
                text = line.strip()[:limit]
                if len(text) > 20:
                    yield Row(text, presumed(text, HARM, guarded), split_of(text))

    return reader
