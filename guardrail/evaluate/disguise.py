"""Texts as somebody writes them who wants to get past a filter: seven ways to disguise the words of a text.

Every word of four letters or more is disguised, harmful or not: harder than what people do, and it needs no list of
words. A disguise is a function of the text and its kind alone, so that measurements repeat.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

__all__ = ["KINDS", "disguise"]

_WORD = re.compile(r"[A-Za-z]{4,}")
_LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
_HOMOGLYPHS = {  # Cyrillic and Greek letters that look Latin
    "a": "а", "c": "с", "e": "е", "i": "і", "j": "ј", "o": "о", "p": "р", "s": "ѕ", "x": "х", "y": "у",
    "A": "А", "B": "В", "E": "Е", "H": "Н", "I": "Ι", "K": "К", "M": "М", "O": "О", "P": "Р", "T": "Т", "X": "Х",
}  # fmt: skip
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"

Disguise = Callable[[str, random.Random], str]


def _zero_width(word: str, rng: random.Random) -> str:
    return "".join(letter + rng.choice(_INVISIBLE) for letter in word[:-1]) + word[-1]


def _homoglyph(word: str, _: random.Random) -> str:
    return "".join(_HOMOGLYPHS.get(letter, letter) for letter in word)


def _leet(word: str, rng: random.Random) -> str:
    """About two thirds of the letters that have a digit, one at least."""
    places = [place for place, letter in enumerate(word) if letter.lower() in _LEET]
    chosen = {place for place in places if rng.random() < 0.67} or set(places[:1])
    return "".join(_LEET[letter.lower()] if place in chosen else letter for place, letter in enumerate(word))


def _spaced(word: str, _: random.Random) -> str:
    return " ".join(word)


def _repeated(word: str, rng: random.Random) -> str:
    vowels = [place for place, letter in enumerate(word) if letter in "aeiouy"] or [len(word) - 1]
    place = rng.choice(vowels)
    return word[:place] + word[place] * rng.randint(3, 6) + word[place + 1 :]


def _full_width(word: str, _: random.Random) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) for letter in word)


def _mixed(word: str, rng: random.Random) -> str:
    return rng.choice([_zero_width, _homoglyph, _leet, _repeated, _full_width])(word, rng)


KINDS: dict[str, Disguise] = {
    "zero_width": _zero_width,
    "homoglyph": _homoglyph,
    "leet": _leet,
    "spaced": _spaced,
    "repeated": _repeated,
    "full_width": _full_width,
    "mixed": _mixed,
}


def disguise(text: str, kind: str, share: float = 1.0) -> str:
    """Disguise every word of four letters or more.

    Args:
        text: what is disguised; one without such a word comes back as it is.
        kind: one of `KINDS`.
        share: of those words about so many are disguised.
    """
    rng = random.Random(f"{kind}\n{text}")  # noqa: S311 (seeded, to be repeatable)

    def changed(match: re.Match[str]) -> str:
        word = match.group()
        return KINDS[kind](word, rng) if share >= 1.0 or rng.random() < share else word

    return _WORD.sub(changed, text)
