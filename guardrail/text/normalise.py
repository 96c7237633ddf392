"""Undo obfuscation, keeping a map back to the original text.

Clean text is recognised by one linear-time expression and returned as it is; everything else goes through the passes
below until nothing changes, so that what `normalise` returns is normal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache

import re2

from guardrail.text.characters import HIDDEN, MARKS, hidden, marks
from guardrail.text.edits import Edit, Normalised, apply, unchanged
from guardrail.text.homoglyphs import FOREIGN, homoglyphs
from guardrail.text.lookalikes import ALL, LATIN
from guardrail.text.spacing import spaced
from guardrail.text.styled import STYLED, styled
from guardrail.text.tokens import Respeller
from guardrail.text.words import Vocabulary, load

__all__ = ["Normalised", "fold", "normalise"]

_PASSES = 12  # more than a text can nest spaced words in spaced words: each level needs four times the length
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_OTHER_LETTERS = "абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґαβγδεζηθικλμνξοπρστυφχψωàáâäãåèéêëìíîïòóôöõùúûüçñ"
_ONE = r"[A-Za-z0-9@$!*]"
_GAP = r"[^A-Za-z0-9@$!*]{1,3}"

_TRIPLE = "|".join(letter * 3 for letter in _ALPHABET)
_SPELLING = (
    rf"(?i:{_TRIPLE}|[bcdfgkmnpst]v[bcdfgkmnpst])"
    r"|[A-Za-z][0-9@$]|[0-9@$!|+][A-Za-z]|[A-Za-z][!|+][A-Za-z0-9@$]"
    r"|[A-Za-z][*#%^~&?=._-]{1,6}[A-Za-z0-9@$!|+]|[0-9@$!|+][*#%^~&?=._-]{1,6}[A-Za-z]|[A-Za-z]\*"
    r"|[a-z][A-Z][a-z][A-Z]|[A-Z][a-z][A-Z][a-z][A-Z]"
    rf"|(?:^|[^A-Za-z0-9_']){_ONE}{_GAP}{_ONE}{_GAP}{_ONE}(?:$|[^A-Za-z0-9])"
)


def _class(characters: str) -> str:
    """A character class for RE2, which takes no surrogates."""
    return characters.replace("\ud800-\udfff", "")


_ASCII_SUSPECT = re2.compile(rf"\x00|{_SPELLING}")
_FANCY = "".join(
    re.escape(char)
    for char in ALL
    if not "\u0370" <= char <= "\u058f" and not "\u2c80" <= char <= "\u2cff" and char not in LATIN
)  # scripts that nobody mixes with others in a word
_ANY = rf"[A-Za-z0-9@$!*{FOREIGN}]"
_SUSPECT = re2.compile(
    rf"{_SPELLING}|(?:^|[^\pL\pN_']){_ANY}[^\pL\pN]{{1,3}}{_ANY}[^\pL\pN]{{1,3}}{_ANY}(?:$|[^\pL\pN])|[{_class(HIDDEN)}{MARKS}{STYLED}]|[A-Za-z][{FOREIGN}€£¢¥§]|[{FOREIGN}€£¢¥§][A-Za-z]"
    rf"|(?i:{'|'.join(letter * 3 for letter in _OTHER_LETTERS)})"
    rf"|[{_FANCY}][{FOREIGN}]|[{FOREIGN}][{_FANCY}]|[{''.join(LATIN)}]{{2}}"
)
_LATIN_WORD = re2.compile(r"[A-Za-z]{2}")
_LOOKALIKE_WORD = re2.compile(rf"(?:^|[^\pL\pN])[{FOREIGN}]{{2,}}(?:$|[^\pL\pN])")

_PUNCTUATION = dict.fromkeys("‘’‚‛ʼʻ′´`＇", "'") | dict.fromkeys("“”„‟″«»", '"') | dict.fromkeys("‐‑‒–—―−", "-")

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
    if _clean(text):
        return unchanged(text)
    return _normalise(text, vocabulary or load(), eager=False)


def fold(text: str, vocabulary: Vocabulary | None = None) -> Normalised:
    """`normalise`, then case folded, accents stripped, quotes, dashes and compatibility characters made plain.

    This is what patterns match on.
    Letters spelt one by one are joined even where they make no known word. Args as for `normalise`.
    """
    source = unchanged(text) if _clean(text) else _normalise(text, vocabulary or load(), eager=True)
    folded = _folded(source)
    return Normalised(folded.text, folded.offsets, folded.text != text) if folded.changed else folded


def _clean(text: str) -> bool:
    """Whether nothing in the text can be a disguise; errs on the side of False."""
    if text.isascii():
        return _ASCII_SUSPECT.search(text) is None
    try:
        if _SUSPECT.search(text) is not None:
            return False
        return _LATIN_WORD.search(text) is None or _LOOKALIKE_WORD.search(text) is None
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _normalise(text: str, vocabulary: Vocabulary, *, eager: bool) -> Normalised:
    current = unchanged(text)
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
    stages: tuple[tuple[re.Pattern[str] | None, Callable[[str], Iterator[Edit]]], ...] = (
        (_HIDDEN, hidden),
        (_MARKS, marks),
        (_STYLED, styled),
        (_FOREIGN, lambda text: homoglyphs(text, vocabulary)),
        (None, lambda text: spaced(text, vocabulary, eager=eager)),
        (None, respeller.edits),
    )
    for needed, stage in stages:
        if needed is None or needed.search(current.text):
            current = apply(current, stage(current.text))
    return current


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
