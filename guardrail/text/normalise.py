"""Undo obfuscation, keeping a map back to the original text."""

from __future__ import annotations

import re
import unicodedata

from guardrail.text.edits import Edit, Normalised, apply, unchanged

__all__ = ["Normalised", "fold", "normalise"]

_INVISIBLE = re.compile("[\0\u00ad\u200b\u2060-\u2064\ufeff\u202a-\u202e\u2066-\u206f\ud800-\udfff]")


def normalise(text: str) -> Normalised:
    """Return what a reader sees: disguises undone, everything else as it was."""
    edits: list[Edit] = []
    for found in _INVISIBLE.finditer(text):
        surrogate = "\ud800" <= found.group() <= "\udfff"
        edits.append((found.start(), found.end(), "\ufffd" if surrogate else "", [found.start()] if surrogate else []))
    return apply(unchanged(text), edits)


def fold(text: str) -> Normalised:
    """`normalise`, then case folded and accents stripped: what patterns are matched on."""
    source = normalise(text)
    edits: list[Edit] = []
    for at, char in enumerate(source.text):
        plain = "".join(c for c in unicodedata.normalize("NFKD", char.casefold()) if not unicodedata.combining(c))
        if plain != char:
            edits.append((at, at + 1, plain, [at] * len(plain)))
    return apply(source, edits)
