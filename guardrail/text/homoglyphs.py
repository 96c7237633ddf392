"""Letters of other scripts inside Latin words, Latin letters inside Cyrillic ones, and whole words of look-alikes.

Genuine Russian, Greek or Armenian is left alone: a word is only read as Latin if it mixes scripts, or if it is made of
look-alikes wholly, stands in a Latin text without genuine words of its script, and makes a known word (UTS 39, section
4, whole-script and mixed-script confusables).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from guardrail.text.edits import Edit
from guardrail.text.lookalikes import ALL, EXACT, LATIN, TO_CYRILLIC
from guardrail.text.spelling import LEET, read
from guardrail.text.words import Vocabulary

__all__ = ["FOREIGN", "homoglyphs"]

FOREIGN = "".join(sorted(re.escape(char) for char in ALL))
"""Every letter that may pass for a Latin one, as the inside of a regular expression's class."""

_SYMBOLS = re.escape("".join(symbol for symbol in LEET if not symbol.isdigit() and symbol not in "!|+"))
_WORD = re.compile(rf"(?:[^\W_]|[{_SYMBOLS}])+")
_SUSPECT = re.compile(f"[{FOREIGN}]")
_LATIN_WORD = re.compile(r"(?<![^\W_])[A-Za-z]{2,}(?![^\W_])")
_CYRILLIC = re.compile("[\u0400-\u052f]")
_ASCII_LETTER = re.compile("[A-Za-z]")
_PHONETIC = re.compile("[/\\[]")
_LATIN_LETTER = re.compile("[A-Za-z" + "".join(LATIN) + "]")
_DISGUISED = re.compile(rf"[\d{_SYMBOLS}v]|(.)\1\1", re.IGNORECASE)
_SMALL_CAPITALS = re.compile(f"[{''.join(LATIN)}]+\\Z")
_LATIN_LETTERS = frozenset("".join(LATIN))
_SPOKEN = frozenset("ıɪʀɴɨɫ")  # in real words of Turkish, or real phonetic transcriptions


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What the other words of the text say about a doubtful one."""

    latin: bool  # there are Latin words
    genuine: bool  # there are real words of the look-alikes' scripts
    mixed: bool  # a word mixes Latin letters with look-alikes
    capitals: bool  # a word is spelt in small capitals


def homoglyphs(text: str, vocabulary: Vocabulary) -> Iterator[Edit]:
    """Edits that put Latin letters for look-alikes (or Cyrillic ones, in Cyrillic words), in ascending order."""
    words = [word for word in _WORD.finditer(text) if _SUSPECT.search(word.group()) is not None]
    readings = [(word.group(), _latin(word, vocabulary)) for word in words]
    mixed = any(reading and _ASCII_LETTER.search(token) for token, reading in readings)
    around = _Surroundings(
        latin=mixed or _LATIN_WORD.search(text) is not None,
        genuine=any(reading is None and len(token) > 1 for token, reading in readings),
        mixed=mixed,
        capitals=any(reading and _SMALL_CAPITALS.match(token) for token, reading in readings),
    )
    for word, (token, reading) in zip(words, readings, strict=True):
        yield from _replaced(word, _decided(token, reading, around))


def _decided(token: str, reading: str | None, around: _Surroundings) -> str:
    """What the word becomes: its Latin reading, its Cyrillic one, or itself."""
    if reading is None:
        if around.capitals and _SMALL_CAPITALS.match(token):
            return "".join(LATIN[char] for char in token)
        return _cyrillic(token)
    if _LATIN_LETTER.search(token) or _several_scripts(token):
        return reading
    disguised = around.latin and not around.genuine and (len(token) > 1 or around.mixed)
    return reading if disguised else token


def _several_scripts(token: str) -> bool:
    return len({unicodedata.name(char, "").partition(" ")[0] for char in token}) > 1


def _replaced(word: re.Match[str], reading: str) -> Iterator[Edit]:
    if word.group() != reading:
        yield *word.span(), reading, range(*word.span())


def _latin(word: re.Match[str], vocabulary: Vocabulary) -> str | None:
    """The Latin reading, or None if the word is not plausibly a disguised Latin one."""
    token = word.group()
    foreign = [char for char in token if not char.isascii()]
    if any(char not in ALL and char.isalpha() and not _is_latin(char) for char in foreign):
        return None
    reading = "".join(ALL.get(char, char) for char in token)
    if _PHONETIC.match(word.string[word.start() - 1 : word.start()]):
        return None
    exact = all(char in EXACT for char in foreign if char in ALL)
    if len(token) == 1:
        return reading if exact else None
    if len(token) == 2:
        greek = any("\u0370" <= char <= "\u03ff" for char in foreign)
        return reading if exact and not greek and vocabulary.knows(reading.lower()) else None
    sensitive = _known(reading, vocabulary)
    if sensitive is not None:
        weak = len(token) < 4 or all(char in _SPOKEN or char not in ALL for char in foreign)
        return reading if exact or not weak or (sensitive and len(token) > 3) else None
    return reading if exact and _interleaved(token) else None


def _known(reading: str, vocabulary: Vocabulary) -> bool | None:
    """Whether the reading is a sensitive word, None if it is no word."""
    lower = reading.lower()
    if vocabulary.knows(lower):
        return lower in vocabulary.sensitive
    if _DISGUISED.search(reading) is None:
        return None
    known = read(reading, vocabulary)
    return known.sensitive if known is not None else None


def _is_latin(char: str) -> bool:
    return char in _LATIN_LETTERS or "\u00c0" <= char <= "\u024f" or "\u1e00" <= char <= "\u1eff"


def _interleaved(token: str) -> bool:
    """Whether the scripts alternate so that it is not a Latin name with a Cyrillic ending, or the other way round."""
    kinds = "".join("a" if char.isascii() else "f" for char in token if char.isalpha())
    return len(token) >= 4 and kinds.count("a") > 1 and re.search("af+a", kinds) is not None


def _cyrillic(token: str) -> str:
    """A mostly Cyrillic word with Latin look-alikes in it, as Cyrillic; any other word unchanged."""
    latin = _ASCII_LETTER.findall(token)
    if not latin or len(_CYRILLIC.findall(token)) <= len(latin) or not all(char in TO_CYRILLIC for char in latin):
        return token
    inside = re.search("[\u0400-\u052f][A-Za-z]+[\u0400-\u052f]", token) or token[0].isascii()
    return "".join(TO_CYRILLIC.get(char, char) for char in token) if inside else token
