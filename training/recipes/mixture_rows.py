"""What the readers of the heads' mixture share: rows, the names of the labels, and the rules that add a plain 0.

See `heads_mixture.py` for the rules.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HARM = ("toxicity", "insult", "profanity", "identity_hate", "threat", "sexual", "violence", "self_harm")
REQUEST = ("jailbreak", "prompt_injection", "prompt_extraction")
FINE = ("severe_toxicity", "sexism", "harassment")  # kinds of toxicity that fewer sources tell apart
TONES = ("impatience", "frustration", "mocking")
REPLIES = ("refusal", "unsafe_advice", "offensive_in_context")
EMOTIONS = {  # head: emotions of GoEmotions, any of which makes it positive
    "anger": ("anger", "annoyance"),
    "disgust": ("disgust",),
    "sadness": ("sadness", "grief", "disappointment", "remorse"),
    "fear": ("fear", "nervousness"),
    "joy": ("joy", "excitement", "amusement", "love", "pride", "relief"),
    "gratitude": ("gratitude",),
    "caring": ("caring",),
    "approval": ("approval", "admiration"),
    "curiosity": ("curiosity", "confusion"),
}
CORE = (*HARM, "jailbreak", "prompt_injection", "courtesy")  # what most sources know: rows are balanced by these
HEADS = (*HARM, *REQUEST, *FINE, *TONES, *REPLIES, "illicit_request", "courtesy", "sentiment", *EMOTIONS)
RENAMED = {"offensive_context": "offensive_in_context", "positive_sentiment": "sentiment"}

GUARDS = {
    "insult": (
        r"idiot|stupid|moron|dumb|loser|pathetic|retard|ugly|fool|trash|garbage|clown|coward|scum|hate you|shut up"
    ),
    "profanity": (
        r"f+u+c?k|sh[i1]t|bitch|cunt|\bass\b|asshole|bastard|damn|piss|dick|cock|crap|wtf|stfu|bullshit|\bhell\b"
    ),
    "sexual": (
        r"\bsex|porn|naked|nude|\bcock|dick|pussy|\btits|boob|\bcum\b|horny|erotic|slut|whore|\brape|nipple|penis|"
        r"vagina|masturbat|orgasm|blow ?job|stripper|fuck|kinky|lust"
    ),
    "threat": r"kill|hurt you|beat you|find you|gonna get|watch your back|burn|shoot|stab|destroy you|regret",
    "violence": (
        r"kill|murder|shoot|shot|stab|punch|bomb|\bgun|attack|blood|\bdie\b|dead|hurt|tortur|fight|weapon|beat|hang|"
        r"burn|rape"
    ),
    "self_harm": (
        r"suicid|kill (my|your|him|her|them)sel|self.?harm|\bcut(ting)? (my|your)|overdos|end (my|it all)|hang|"
        r"\bdie\b|dead"
    ),
}
PATTERNS = {head: re.compile(pattern, re.IGNORECASE) for head, pattern in GUARDS.items()}
_MARKS = re.compile(
    r"</?(user|email|url|number|censored|percent|money|time|date|phone|hashtag|happy|sad|laugh)>|https?://\S+|\bRT\b"
)
_SPACES = re.compile(r"\s+")


Span = tuple[int, int]


@dataclass(frozen=True)
class Row:
    text: str
    labels: dict[str, float]
    split: str
    spans: tuple[Span, ...] = ()  # where the positive labels come from, if the source says so
    core: bool = True  # whether the source says something of a core head


Labels = dict[str, float]
Reader = Callable[[Path], Iterator[Row]]


def read(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:6], "big")


def split_of(text: str) -> str:
    """80 / 10 / 10 by hash, for sources without a split."""
    return (["train"] * 8 + ["dev", "test"])[hashed(text) % 10]


def clean(text: str) -> str:
    """Undo HTML entities; drop most placeholders and addresses, so that no head learns a platform's marks."""
    text = html.unescape(text)
    if hashed(text) % 10 < 7:
        text = _MARKS.sub(" ", text)
    return _SPACES.sub(" ", text).strip() if len(text) < 400 else text.strip()


def tidy(row: Row, limit: int) -> Row:
    """Clean and cut a row; one with spans is only cut, so that they still fit."""
    labels = {head: round(float(value), 4) for head, value in row.labels.items()}
    if row.spans:
        spans = tuple(span for span in row.spans if span[1] <= limit)
        return Row(row.text[:limit], labels, row.split, spans, row.core)
    return Row(clean(row.text)[:limit], labels, row.split, (), row.core)


def letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def presumed(text: str, heads: Iterable[str] = HARM, guarded: Iterable[str] = ()) -> Labels:
    """Zeros for `heads`, unknown where a guard matches; toxicity is guarded by insult, profanity and sexual."""
    unsafe = {head for head in guarded if PATTERNS[head].search(text)}
    if unsafe & {"insult", "profanity", "sexual"}:
        unsafe |= {"toxicity", "identity_hate", *FINE}
    if unsafe:
        unsafe.add("illicit_request")
    return {head: 0 for head in (*heads, *REQUEST, *FINE, "illicit_request") if head not in unsafe}


ALL_GUARDS = tuple(GUARDS)


def implied(labels: Labels) -> Labels:
    if labels.get("toxicity", 1) <= 0.1:
        labels = {"insult": 0, "threat": 0, "identity_hate": 0, "severe_toxicity": 0, "harassment": 0, **labels}
    return {**NO_REQUEST, **labels}


NO_REQUEST: Labels = dict.fromkeys(REQUEST, 0.0)


def known(labels: dict[str, Any]) -> Labels:
    """The labels that are heads of ours, under our names."""
    renamed = {RENAMED.get(name, name): value for name, value in labels.items()}
    return {name: value for name, value in renamed.items() if name in HEADS}
