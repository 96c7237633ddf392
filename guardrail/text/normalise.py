"""Undo obfuscation, keeping a map back to the original text.

Clean text is recognised by one linear-time expression and returned as it is; everything else goes through the passes
below until nothing changes, so that what `normalise` returns is normal.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from guardrail.text.characters import HIDDEN, MARKS, hidden, marks
from guardrail.text.edits import Normalised, apply, unchanged
from guardrail.text.homoglyphs import FOREIGN, homoglyphs
from guardrail.text.spacing import spaced
from guardrail.text.styled import STYLED, styled
from guardrail.text.suspicion import is_clean, may_be_spaced
from guardrail.text.tokens import Respeller
from guardrail.text.words import Vocabulary, load

__all__ = ["Normalised", "fold", "normalise"]

_PASSES = 12  # more than a text can nest spaced words in spaced words: each level needs four times the length
_PUNCTUATION = dict.fromkeys("‘’‚‛ʼʻ′´`＇", "'") | dict.fromkeys("“”„‟″«»", '"') | dict.fromkeys("‐‑‒–—―−", "-")

_SURROGATE = re.compile("[\ud800-\udfff]")
_HIDDEN = re.compile(f"[{HIDDEN}]")
_MARKS = re.compile(f"[{MARKS}]")
_STYLED = re.compile(f"[{STYLED}]")
_FOREIGN = re.compile(f"[{FOREIGN}]")


def normalise(text: str, vocabulary: Vocabulary | None = None) -> Normalised:
    """Return what a reader sees: disguises undone, everything else as it was.

    Undone are invisible characters, direction overrides, look-alike letters, styled and full-width letters, stacked
    marks, leetspeak, masked, spaced and stretched words; lone surrogates become U+FFFD. Clean text in any script, emoji
    sequences and joiners that a script needs come back unchanged. The result is its own normal form.

    Args:
        text: anything.
        vocabulary: the words that disguised spellings are read as; default the shipped English ones.
    """
    if is_clean(text):
        return unchanged(text)
    return _normalise(text, vocabulary or load(), eager=False)


def fold(text: str, vocabulary: Vocabulary | None = None) -> Normalised:
    """`normalise`, then case folded, accents stripped, quotes, dashes and compatibility characters made plain.

    This is what patterns match on.
    Letters spelt one by one are joined even where they make no known word. Args as for `normalise`.
    """
    source = unchanged(text) if is_clean(text) else _normalise(text, vocabulary or load(), eager=True)
    folded = _folded(source)
    return Normalised(folded.text, folded.offsets, folded.text != text) if folded.changed else folded


def _normalise(text: str, vocabulary: Vocabulary, *, eager: bool) -> Normalised:
    current = Normalised(_SURROGATE.sub("\ufffd", text), range(len(text) + 1), True)
    respeller = Respeller(vocabulary)
    for _ in range(_PASSES):
        before = current.text
        current = _once(current, vocabulary, respeller, eager)
        if current.text == before:
            break
    return Normalised(current.text, current.offsets, True) if current.text != text else unchanged(text)


def _once(source: Normalised, vocabulary: Vocabulary, respeller: Respeller, eager: bool) -> Normalised:
    """All stages once, each only where its characters occur."""
    current = source
    for needed, stage in (
        (_HIDDEN, hidden),
        (_MARKS, marks),
        (_STYLED, styled),
        (_FOREIGN, lambda text: homoglyphs(text, vocabulary)),
    ):
        if needed.search(current.text):
            current = apply(current, stage(current.text))
        if current.text.isascii():
            break
    if may_be_spaced(current.text):
        current = apply(current, spaced(current.text, vocabulary, eager=eager))
    return apply(current, respeller.edits(current.text))


def _folded(source: Normalised) -> Normalised:
    text = source.text.lower()
    if len(text) != len(source.text):  # "İ" is the only letter whose small form is longer
        text = source.text
    if text.isascii():
        return source if text == source.text else Normalised(text, source.offsets, True)
    table = {ord(char): plain for char in set(text) if not "\0" <= char < "A" and (plain := _plain(char)) != char}
    if not table and text == source.text:
        return source
    if all(len(plain) == 1 for plain in table.values()):
        return Normalised(text.translate(table), source.offsets, True)
    folded = [table.get(ord(char), char) for char in text]
    offsets = [offset for offset, plain in zip(source.offsets, folded, strict=False) for _ in plain]
    return Normalised("".join(folded), [*offsets, source.offsets[-1]], True)


@lru_cache(maxsize=4096)
def _plain(char: str) -> str:
    """One character with case and accent folded. Marks that make another letter (й, kana, Brahmic) stay."""
    if char in _PUNCTUATION:
        return _PUNCTUATION[char]
    folded = char.casefold()
    if folded.isascii() or folded == "й":
        return folded
    parts = unicodedata.normalize("NFKD", folded)
    kept = "".join(part for part in parts if not _accent(unicodedata.combining(part)))
    return unicodedata.normalize("NFC", kept.casefold())


def _accent(combining: int) -> bool:
    """Whether a mark of this combining class is an accent or vowel point, by the classes of UAX 44, table 15."""
    return 10 <= combining <= 35 or combining >= 200
